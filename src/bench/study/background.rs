//! What is known when a run begins, and what it comes to when it ends.
//!
//! Enters: a prepared target and the load. Leaves: [`Results`] with their conditions. Must not judge: `judge`
//! does.

use std::time::SystemTime;

use super::once::{Bench, outline};
use crate::bench::drive::Totals;
use crate::bench::drive::probe::TargetInfo;
use crate::bench::judge::criteria;
use crate::bench::judge::flow::{Flow, Outline};
use crate::bench::judge::interval::{Interval, Tallies};
use crate::bench::judge::reconcile::{Books, Reconciliation, counted};
use crate::bench::judge::results::{
    Bounds, Conditions, Evidence, Generator, Results, results, scheduled_seconds,
};
use crate::bench::judge::tally::Tally;
use crate::bench::plan::schedule::Schedule;
use crate::config::{BenchConfig, Target};
use crate::load::{Request, Stages, Statuses, USUAL_STATUSES, header_names};
use crate::machine::Machine;
use crate::units::{KeyCount, micros};

/// `None` where there is no certificate to check.
fn checks_certificate(config: &BenchConfig) -> Option<bool> {
    let tls = config.tls.as_ref()?;
    // With --layers, the store is driven by the same settings.
    (config.target != Target::Store).then_some(!tls.insecure)
}

/// All that is known when a run begins.
#[derive(Clone)]
pub(in crate::bench) struct Background {
    config: BenchConfig,
    info: TargetInfo,
    conditions: Conditions,
    outline: Outline,
}

impl Background {
    /// Notes the conditions, now.
    pub(super) fn begin(bench: &Bench<'_>, stages: &Stages) -> Self {
        let (config, info) = (bench.config, &bench.info);
        let request = config.request.as_ref();
        let listed = config.requests_file.as_ref();
        let headers = listed.map(|listed| header_names(&listed.headers));
        let usual = || USUAL_STATUSES.to_owned();
        let expect = listed.map(|listed| {
            listed
                .expect
                .as_ref()
                .map_or_else(usual, Statuses::to_string)
        });
        let conditions = Conditions {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: env!("KVPOC_COMMIT").into(),
            machine: Machine::look(),
            cpu: None,
            store_engine: info.engine.clone(),
            store_version: info.engine_version.clone(),
            store_threads: info.engine_threads,
            fetch: info.fetch.clone(),
            store_keys: info.total_keys,
            store_memory_bytes: info.memory_used,
            target: config.target.to_string(),
            certificate_checked: checks_certificate(config),
            method: request.map(|request| request.method.name().into()),
            headers: request.map(Request::header_names).or(headers),
            body_bytes: request.and_then(|request| Some(request.body.as_ref()?.written_bytes())),
            expect: request.map(Request::expected).or(expect),
            contains: match (request, listed) {
                (Some(request), _) => request.contains.clone(),
                (None, listed) => listed.and_then(|listed| listed.contains.clone()),
            },
            requests_file: listed.map(|listed| listed.file.display().to_string()),
            requests_format: listed.map(|listed| listed.format.into()),
            requests_lines: listed.map(|listed| listed.lines),
            requests_left_out: listed.map(|listed| {
                let named = |(&why, &count): (&&str, &u64)| (why.to_owned(), count);
                listed.left_out.iter().map(named).collect()
            }),
            requests_fingerprint: listed.map(|listed| format!("{:016x}", listed.fingerprint)),
            requests_order: match config.replay() {
                Some(_) => None,
                None => listed.map(|listed| listed.order.to_string()),
            },
            speed: config.replay().map(|replay| replay.speed.get()),
            records: bench.records(),
            shard: config.shard.to_string(),
            generators: 1,
            started_at: String::new(),
            duration_s: stages.duration().as_secs_f64(),
            warmup_s: config.warmup.as_secs_f64(),
            stages: stages.to_string(),
            arrivals: match config.replay() {
                Some(_) => "recorded".into(),
                None => config.arrivals.to_string(),
            },
            preset: config.preset.name.into(),
            workload: config.preset.mix.to_string(),
            keys_dist: config.preset.keys_dist.to_string(),
            verify: config.verify,
            keys: bench.keys.map_or(0, KeyCount::get),
            keys_per_request: config.keys_per_request,
            connections: config.connections,
            threads: config.threads,
            tick_us: micros(config.tick),
            timeout_s: config.timeout.as_secs_f64(),
            seed: config.seed,
        };
        Self {
            config: config.clone(),
            info: info.clone(),
            conditions,
            outline: outline(config, stages),
        }
    }

    /// The results of a run that is over.
    pub(super) fn conclude(
        mut self,
        schedule: &Schedule,
        totals: Totals,
        ended_early: Option<String>,
        after: Option<TargetInfo>,
    ) -> Results {
        self.conditions.cpu = totals.machine;
        let (warmup, measured) = (totals.all.tallies.warmup(), totals.all.tallies.measured());
        let sent = warmup.ledger.sent + measured.ledger.sent;
        let cpu_s = totals.cpu.as_secs_f64();
        let generator = Generator {
            cpu_s,
            cpu_us_per_request: cpu_s * 1e6 / sent.max(1) as f64,
            cores_used: cpu_s / totals.elapsed.as_secs_f64(),
            lag_p99_us: totals.lag_p99_us,
            busy_share: totals.busy_share,
        };
        let books = self.reconcile([&warmup, &measured], &after.unwrap_or_default());
        let mut flow = totals.flow;
        if ended_early.is_some() {
            flow.cut(totals.end_ns);
        }
        let evidence = Evidence {
            scheduled_s: scheduled_seconds(schedule, totals.end_ns),
            interrupted: totals.interrupted,
            ended_early,
            lag_p99_us: totals.lag_p99_us,
            start_by_target: totals.start_by_target,
            flow,
            ..self.evidence(totals.started, totals.all.tallies)
        };
        let conditions = self.conditions_at(totals.started);
        Results {
            failed_connects: totals.all.failed_connects,
            malformed_answers: totals.all.malformed,
            tls_handshakes: totals.all.handshakes.if_any(),
            resent: totals.all.resent,
            drain_s: totals.drain.as_secs_f64(),
            ..results(evidence, generator, conditions, books)
        }
    }

    /// The results as far as they go at the end of a second.
    pub(super) fn so_far(
        &self,
        schedule: &Schedule,
        started: SystemTime,
        all: &Interval,
    ) -> Results {
        let mut tallies = all.tallies.clone();
        tallies.cut_off();
        let evidence = Evidence {
            scheduled_s: scheduled_seconds(schedule, (all.second + 1) * 1_000_000_000),
            ..self.evidence(started, tallies)
        };
        Results {
            objectives: criteria::so_far(evidence.clone()),
            failed_connects: all.failed_connects.clone(),
            malformed_answers: all.malformed.clone(),
            tls_handshakes: all.handshakes.if_any(),
            resent: all.resent,
            ..results(
                evidence,
                Generator::default(),
                self.conditions_at(started),
                Books::Untold,
            )
        }
    }

    fn evidence(&self, started: SystemTime, tallies: Tallies) -> Evidence {
        let config = &self.config;
        let since_epoch = started.duration_since(SystemTime::UNIX_EPOCH);
        Evidence {
            started_at_ms: since_epoch.map_or(0, |since| since.as_millis() as u64),
            scheduled_s: 0.0,
            interrupted: false,
            ended_early: None,
            objectives: Bounds {
                objectives: config.objectives.clone(),
                max_miss: config.max_miss,
                max_lag_us: micros(config.max_lag),
            },
            generators: config.shard.count,
            lag_p99_us: 0,
            start_by_target: None,
            tallies,
            flow: Flow::new(self.outline.clone()),
        }
    }

    fn conditions_at(&self, started: SystemTime) -> Conditions {
        Conditions {
            started_at: humantime::format_rfc3339_seconds(started).to_string(),
            ..self.conditions.clone()
        }
    }

    /// What the store counted against what was asked of it, over the whole run.
    fn reconcile(&self, tallies: [&Tally; 2], after: &TargetInfo) -> Books {
        let before = &self.info;
        let keys = counted("key_reads", before.key_reads, after.key_reads);
        let commands = counted(
            "commands_processed",
            before.commands_processed,
            after.commands_processed,
        );
        let (keys, commands) = match (keys, commands) {
            (Err(lost), _) | (_, Err(lost)) => return Books::Lost(lost),
            (Ok(Some(keys)), Ok(Some(commands))) => (keys, commands),
            (Ok(_), Ok(_)) => return Books::Untold,
        };
        let asked = |count: fn(&Tally) -> u64| tallies.iter().map(|tally| count(tally)).sum();
        let seconds = self.conditions.warmup_s + self.conditions.duration_s;
        let books = Reconciliation::of(
            (asked(Tally::reads), keys),
            (asked(|tally| tally.commands), commands),
            asked(|tally| tally.repeated),
            seconds,
        );
        Books::Told(match self.config.shard.count {
            1 => books,
            // `merge` knows what the others asked for.
            _ => books.of_one_of_several(),
        })
    }
}
