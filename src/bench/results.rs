//! From counts to conclusions: rates, percentiles, reconciliation, verdict. Pure but for the first look at
//! the machine.
//!
//! Enters: what was asked for and what was counted. Leaves: [`Results`]. Must not print.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Bench;
use super::conditions::Machine;
use super::probe::TargetInfo;
use super::report::{
    Conditions, Evidence, Generator, Keys, Objectives, Percentiles, Rates, Reconciliation,
    Requests, Results, SCHEMA,
};
use super::run::Totals;
use super::schedule::Schedule;
use super::tally::{Cause, Tally};
use super::target::Interval;
use super::verdict::{self, Facts};
use crate::config::BenchConfig;
use crate::load::Stages;
use crate::units::micros;

/// All that is known when a run begins.
#[derive(Clone)]
pub(super) struct Background {
    config: BenchConfig,
    info: TargetInfo,
    conditions: Conditions,
}

/// How far a run got, and how.
#[derive(Clone, Copy)]
pub(super) struct Reached {
    /// Where the schedule ended, or was left.
    pub(super) end_ns: u64,
    /// Of the busiest thread.
    pub(super) busy_share: f64,
    pub(super) interrupted: bool,
    /// When the schedule began.
    pub(super) started: SystemTime,
}

impl Background {
    /// Notes the conditions, now.
    pub(super) fn begin(bench: &Bench<'_>, stages: &Stages) -> Self {
        let (config, info) = (bench.config, &bench.info);
        let conditions = Conditions {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: env!("KVPOC_COMMIT").into(),
            machine: Machine::look(),
            cpu: None,
            store_engine: info.engine.clone(),
            store_version: info.engine_version.clone(),
            store_keys: info.total_keys,
            store_memory_bytes: info.memory_used,
            target: config.target.to_string(),
            shard: config.shard.to_string(),
            generators: 1,
            started_at: String::new(),
            duration_s: stages.duration().as_secs_f64(),
            warmup_s: config.warmup.as_secs_f64(),
            stages: stages.to_string(),
            arrivals: config.arrivals.to_string(),
            preset: config.preset.name.into(),
            workload: config.preset.mix.to_string(),
            keys_dist: config.preset.keys_dist.to_string(),
            verify: config.verify,
            keys: bench.keys.get(),
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
        }
    }

    /// The results of a run that is over.
    pub(super) fn conclude(
        mut self,
        schedule: &Schedule,
        totals: &Totals,
        after: Option<TargetInfo>,
    ) -> Results {
        self.conditions.cpu = totals.machine;
        let sent = totals.all.warmup.ledger.sent + totals.all.measured.ledger.sent;
        let cpu_s = totals.cpu.as_secs_f64();
        let generator = Generator {
            cpu_s,
            cpu_us_per_request: cpu_s * 1e6 / sent.max(1) as f64,
            cores_used: cpu_s / totals.elapsed.as_secs_f64(),
            busy_share: totals.busy_share,
        };
        let end = Reached {
            end_ns: totals.end_ns,
            busy_share: totals.busy_share,
            interrupted: totals.interrupted,
            started: totals.started,
        };
        let mut results = self.results(schedule, &totals.all, end);
        results.reconciliation = after.and_then(|after| self.reconcile(&totals.all, &after));
        results.generator = generator;
        results.drain_s = totals.drain.as_secs_f64();
        results
    }

    /// The results as far as they go.
    pub(super) fn results(&self, schedule: &Schedule, all: &Interval, end: Reached) -> Results {
        let config = &self.config;
        let since_epoch = end.started.duration_since(SystemTime::UNIX_EPOCH);
        let evidence = Evidence {
            started_at_ms: since_epoch.map_or(0, |since| since.as_millis() as u64),
            scheduled_s: scheduled_seconds(schedule, end.end_ns),
            interrupted: end.interrupted,
            objectives: Objectives {
                slos: config.slos.clone(),
                max_miss: config.max_miss,
                max_lag_us: micros(config.max_lag),
                stages: config.stages.0.len(),
            },
            warmup: all.warmup.clone(),
            measured: all.measured.clone(),
        };
        let mut conditions = self.conditions.clone();
        conditions.started_at = humantime::format_rfc3339_seconds(end.started).to_string();
        let generator = Generator {
            busy_share: end.busy_share,
            ..Generator::default()
        };
        Results {
            failed_connects: all.failed_connects.clone(),
            ..results(evidence, generator, conditions)
        }
    }

    /// What the store counted against what was asked of it, over the whole run.
    fn reconcile(&self, all: &Interval, after: &TargetInfo) -> Option<Reconciliation> {
        let counted = |before: Option<u64>, after: Option<u64>| after?.checked_sub(before?);
        let keys = all.warmup.reads() + all.measured.reads();
        let commands = all.warmup.commands + all.measured.commands;
        let seconds = self.conditions.warmup_s + self.conditions.duration_s;
        let books = Reconciliation::of(
            (keys, counted(self.info.key_reads, after.key_reads)?),
            (
                commands,
                counted(self.info.commands_processed, after.commands_processed)?,
            ),
            seconds,
        );
        // One of several generators cannot know what the others asked for; `merge` does.
        let alone = self.config.shard.count == 1;
        Some(Reconciliation {
            notable: books.notable && alone,
            ..books
        })
    }
}

/// What follows from the evidence. What it does not hold is left empty.
pub(super) fn results(evidence: Evidence, generator: Generator, conditions: Conditions) -> Results {
    let (warmup, measured) = (&evidence.warmup, &evidence.measured);
    let seconds = evidence.scheduled_s + overrun_seconds(measured);
    let rate = Rates {
        target_rps: measured.ledger.scheduled as f64 / evidence.scheduled_s,
        achieved_rps: measured.ledger.ok as f64 / seconds,
        key_ops_per_second: (measured.hits + measured.misses) as f64 / seconds,
        commands_per_second: measured.commands as f64 / seconds,
    };
    let (verdict, reason) = judge(&evidence, &rate, generator.busy_share);
    Results {
        schema: SCHEMA,
        verdict,
        reason,
        requests: Requests::of(measured),
        rate,
        latency_us: Percentiles::of(&measured.latency_us),
        lag_us: Percentiles::of(&measured.lag_us),
        connection_wait_us: Percentiles::of(&measured.wait_us),
        service_us: Percentiles::of(&measured.service_us),
        keys: Keys {
            hits: measured.hits,
            misses: measured.misses,
        },
        reconciliation: None,
        failed_connects: BTreeMap::new(),
        warmup: Requests::of(warmup),
        drain_s: 0.0,
        generator,
        conditions,
        evidence,
    }
}

fn judge(evidence: &Evidence, rate: &Rates, busy_share: f64) -> (verdict::Verdict, String) {
    let (warmup, measured) = (&evidence.warmup, &evidence.measured);
    let objectives = &evidence.objectives;
    let wrong = |tally: &Tally| tally.causes.get(&Cause::WrongAnswer).copied().unwrap_or(0);
    let latency = |(quantile, _): &(f64, u64)| measured.latency_us.value_at_quantile(*quantile);
    let latencies_us: Vec<u64> = objectives.slos.latencies.iter().map(latency).collect();
    verdict::judge(&Facts {
        ledger: measured.ledger,
        balances: measured.balances() && warmup.balances(),
        interrupted: evidence.interrupted,
        hits: measured.hits + warmup.hits,
        misses: measured.misses + warmup.misses,
        max_miss: objectives.max_miss,
        wrong_answers: wrong(measured) + wrong(warmup),
        scheduled_rps: rate.target_rps,
        achieved_rps: rate.achieved_rps,
        slos: &objectives.slos,
        latencies_us: &latencies_us,
        lag_p99_us: measured.lag_us.value_at_quantile(0.99),
        max_lag_us: objectives.max_lag_us,
        stages: objectives.stages,
        busy_share,
    })
}

/// Length of the measured part as far as it was followed. At least a second, or all of a shorter one: the rate
/// of its first moments would be noise.
fn scheduled_seconds(schedule: &Schedule, end_ns: u64) -> f64 {
    let from_ns = schedule.measured_from_ns();
    let all_ns = schedule.measured_until_ns() - from_ns;
    let followed_ns = end_ns.saturating_sub(from_ns);
    followed_ns.clamp(all_ns.min(1_000_000_000), all_ns) as f64 / 1e9
}

/// What 99.9 % of the good answers took beyond the end of the measured part, less the least latency: an
/// answer takes its time at any rate, and only a backlog makes the rate lower than was asked for.
fn overrun_seconds(measured: &Tally) -> f64 {
    let overrun_us = measured.overrun_us.value_at_quantile(0.999);
    let least_us = measured.latency_us.min();
    overrun_us.saturating_sub(least_us) as f64 / 1e6
}
