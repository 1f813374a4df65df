//! From counts to conclusions: rates, percentiles, verdict. Pure.
//!
//! Enters: what was asked for and what was counted. Leaves: [`Results`]. Must not print.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::criteria::{self, Criterion};
use super::drift::Drift;
pub use super::evidence::{Bounds, Evidence, Generator};
use super::flow::Stretch;
use super::handshakes::Handshakes;
use super::histogram::value_at;
use super::ledger::Ledger;
use super::rate;
use super::reconcile::{Books, LostCounter, Reconciliation};
use super::tally::Tally;
use super::verdict::{self, Verdict};
use crate::bench::plan::schedule::Schedule;
use crate::machine::{CpuUse, Machine};
use crate::objectives::{Operation, Quantile};
use crate::units::grouped;

/// The version of [`Results`].
pub const SCHEMA: u32 = 2;

/// Everything that a run found; the JSON file is exactly this.
#[derive(Debug, serde::Serialize)]
pub struct Results {
    /// Version of this form: it changes when a member goes or changes its meaning, not when one is added.
    pub schema: u32,
    /// The claim's fate.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// Each objective, and what became of it in the stage in which it fared worst.
    pub objectives: Vec<Criterion>,
    /// Counts of the measured arrivals.
    pub requests: Requests,
    /// What was asked for and what was reached.
    pub rate: Rates,
    /// From the due moment to the end, of every measured arrival.
    pub latency_us: Percentiles,
    /// The same of those that were answered with what was asked for.
    pub ok_latency_us: Percentiles,
    /// The same of all others.
    pub failed_latency_us: Percentiles,
    /// The generator's own part of it: from the due moment to being taken up.
    pub lag_us: Percentiles,
    /// Waiting for a free connection.
    pub connection_wait_us: Percentiles,
    /// From sending to the answer's arrival at this host, of answered arrivals.
    pub service_us: Percentiles,
    /// From there to the generator's taking it: its own delay too.
    pub receive_delay_us: Percentiles,
    /// Each stage by itself.
    pub stages: Vec<StageResults>,
    /// Keys of good answers.
    pub keys: Keys,
    /// What the store counted itself; `null` when it does not tell.
    pub reconciliation: Option<Reconciliation>,
    /// A counter of the store that was told before the run, and not, or less, after it; `null` when there is none.
    pub lost_counter: Option<LostCounter>,
    /// Connections that could not be made during the run, by the system's reason.
    pub failed_connects: BTreeMap<String, u64>,
    /// Answers that could not be read, by what is wrong with them.
    pub malformed_answers: BTreeMap<String, u64>,
    /// TLS handshakes of all connections, those before the run among them; `null` without TLS.
    pub tls_handshakes: Option<Handshakes>,
    /// Requests that were sent again, because their connection was closed before any of the answer came.
    pub resent: u64,
    /// Counts of the arrivals before the measured ones.
    pub warmup: Requests,
    /// How long the last answers took after the schedule; they are among the measured ones.
    pub drain_s: f64,
    /// Whether it became slower or faster while it went on; `null` where that cannot be told: of several rates, of several
    /// generators, of fewer than 15 seconds.
    pub drift: Option<Drift>,
    /// What the generator itself took.
    pub generator: Generator,
    /// Under which the figures hold.
    pub conditions: Conditions,
    /// All that the figures follow from.
    pub evidence: Evidence,
}

/// A ledger with the reasons of its failures.
#[derive(Debug, serde::Serialize)]
pub struct Requests {
    /// scheduled = sent + unsent; sent = ok + errors + timeouts + `in_flight`.
    #[serde(flatten)]
    pub ledger: Ledger,
    /// Errors by cause, such as `http_503`.
    pub errors_by_cause: BTreeMap<String, u64>,
    /// Unsent arrivals by reason.
    pub unsent_by_reason: BTreeMap<String, u64>,
    /// Good answers that were compared with their records.
    pub compared: u64,
}

impl Requests {
    /// The counts of a tally.
    #[must_use]
    pub fn of(tally: &Tally) -> Self {
        Self {
            ledger: tally.ledger,
            errors_by_cause: named(&tally.causes),
            unsent_by_reason: named(&tally.unsent),
            compared: tally.compared,
        }
    }
}

fn named<K: ToString>(counts: &BTreeMap<K, u64>) -> BTreeMap<String, u64> {
    counts
        .iter()
        .map(|(name, &count)| (name.to_string(), count))
        .collect()
}

/// Rates of the measured part, per second.
#[derive(Debug, serde::Serialize)]
pub struct Rates {
    /// What the schedule asked for.
    pub target_rps: f64,
    /// Good answers, at the pace at which they came: where a stage fell behind, that of its answers since then.
    pub achieved_rps: f64,
    /// Keys of good answers, at the same pace.
    pub key_ops_per_second: f64,
    /// Commands behind them: one MGET for each request, whatever its number of keys.
    pub commands_per_second: f64,
}

/// Points of one distribution, in microseconds.
#[derive(Debug, serde::Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: u64,
    /// 75th percentile.
    pub p75: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 95th percentile.
    pub p95: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// 99.99th percentile.
    pub p9999: u64,
    /// Largest.
    pub max: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Values recorded.
    pub count: u64,
}

/// One stage of the load.
#[derive(Debug, serde::Serialize)]
pub struct StageResults {
    /// Counted from 1.
    pub stage: usize,
    /// What it asked for and reached.
    pub rate: Rates,
    /// Counts.
    pub requests: Requests,
    /// From the due moment to the end, of all of its arrivals.
    pub latency_us: Percentiles,
    /// By operation.
    pub operations: BTreeMap<Operation, OperationResults>,
}

/// One operation of a stage.
#[derive(Debug, serde::Serialize)]
pub struct OperationResults {
    /// Counts.
    pub requests: Requests,
    /// From the due moment to the end, of all of its arrivals.
    pub latency_us: Percentiles,
    /// From sending to the answer's arrival at this host.
    pub service_us: Percentiles,
}

impl Percentiles {
    /// The points of a histogram of microseconds; all 0 when it is empty.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |ten_thousand| value_at(histogram, Quantile::of_ten_thousand(ten_thousand));
        Self {
            p50: at(5_000),
            p75: at(7_500),
            p90: at(9_000),
            p95: at(9_500),
            p99: at(9_900),
            p999: at(9_990),
            p9999: at(9_999),
            max: histogram.max(),
            mean: histogram.mean(),
            count: histogram.len(),
        }
    }
}

/// Keys of good answers.
#[derive(Debug, serde::Serialize)]
pub struct Keys {
    /// Found.
    pub hits: u64,
    /// Not there.
    pub misses: u64,
}

/// What has to be the same for two results to be comparable.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Conditions {
    /// Of kvpoc.
    pub version: String,
    /// That it was built from.
    pub commit: String,
    /// Where the generator ran.
    #[serde(flatten)]
    pub machine: Machine,
    /// How that machine's CPU time was spent during the run.
    pub cpu: Option<CpuUse>,
    /// Behind the target, as the target says.
    pub store_engine: Option<String>,
    /// Likewise.
    pub store_version: Option<String>,
    /// Likewise; only Dragonfly tells.
    pub store_threads: Option<u64>,
    /// How the target reads several keys: `mget` or `pipeline`.
    pub fetch: Option<String>,
    /// Likewise, of all kinds.
    pub store_keys: Option<u64>,
    /// Likewise, before the run.
    pub store_memory_bytes: Option<u64>,
    /// What was driven.
    pub target: String,
    /// Its certificate was, or with `--insecure` was not; `null` without TLS.
    pub certificate_checked: Option<bool>,
    /// Method of the requests to a target with a path of its own; `null`, as the next ones, of any other target.
    pub method: Option<String>,
    /// Names of the headers that were given for them. What they hold may be a secret.
    pub headers: Option<String>,
    /// Length of their body as it was given.
    pub body_bytes: Option<usize>,
    /// Statuses that were right.
    pub expect: Option<String>,
    /// Text that a right answer had to contain.
    #[serde(rename = "match")]
    pub contains: Option<String>,
    /// The records that the answers of a target with a path of its own were compared with; `null`: none.
    pub records: Option<String>,
    /// File that the requests came from; `null`, as the next ones, where they did not.
    pub requests_file: Option<String>,
    /// How its lines were written.
    pub requests_format: Option<String>,
    /// How many it had.
    pub requests_lines: Option<u64>,
    /// Of those, what was not asked for, by the reason.
    pub requests_left_out: Option<BTreeMap<String, u64>>,
    /// The same for the same lines.
    pub requests_fingerprint: Option<String>,
    /// How its lines were taken: `file` or `random`; of a log by their times.
    pub requests_order: Option<String>,
    /// How many times as fast as recorded a log was replayed.
    pub speed: Option<f64>,
    /// Which part of the schedule, of how many generators.
    pub shard: String,
    /// Generators whose results these are.
    pub generators: usize,
    /// When the schedule began; RFC 3339.
    pub started_at: String,
    /// Measured part of the schedule.
    pub duration_s: f64,
    /// Part before it.
    pub warmup_s: f64,
    /// The rates of the whole schedule, each with how long it held.
    pub stages: String,
    /// How arrivals were spread.
    pub arrivals: String,
    /// Workload and choice of keys started from this one.
    pub preset: String,
    /// What arrivals asked for.
    pub workload: String,
    /// How keys were drawn.
    pub keys_dist: String,
    /// Share of the answers compared with their records, besides the first hundred.
    pub verify: f64,
    /// Keys drawn from.
    pub keys: u64,
    /// Keys of each request.
    pub keys_per_request: u32,
    /// Connections of the generator.
    pub connections: usize,
    /// Threads of the generator.
    pub threads: usize,
    /// Shortest sleep of the generator between arrivals.
    pub tick_us: u64,
    /// How long an arrival waits for a connection, and then for its answer.
    pub timeout_s: f64,
    /// Seed of the choice of keys.
    pub seed: u64,
}

impl Conditions {
    /// What was asked, and which answers were right, of a target with a path of its own.
    pub(in crate::bench) fn request(&self) -> Option<String> {
        let expect = self.expect.as_ref()?;
        let contains = match &self.contains {
            Some(text) => format!(", with {text:?} in the body"),
            None => String::new(),
        };
        let records = match &self.records {
            Some(records) => format!("; compared with {records}"),
            None => String::new(),
        };
        let target = &self.target;
        let asked = match (&self.method, &self.requests_file) {
            (Some(method), _) => format!("{method} {target}"),
            (None, file) => format!("{} to {target}", self.listed(file.as_ref()?)),
        };
        Some(format!("{asked}; expects {expect}{contains}{records}"))
    }

    /// What was asked for out of a file.
    fn listed(&self, file: &str) -> String {
        let lines = grouped(self.requests_lines.unwrap_or_default());
        let left_out = self.requests_left_out.iter().flatten();
        let left_out: Vec<String> = left_out
            .map(|(why, &count)| format!("{} {why}", grouped(count)))
            .collect();
        let left_out = match left_out.join(", ") {
            none if none.is_empty() => none,
            some => format!(" but {some}"),
        };
        match (self.speed, &self.requests_order) {
            (Some(speed), _) => {
                format!("replay of {file}, {lines} lines{left_out}, at speed {speed}")
            }
            (None, Some(order)) => format!("requests of {file}, {lines} lines, order {order}"),
            (None, None) => format!("requests of {file}"),
        }
    }
}

/// What follows from the evidence. What it does not hold is left empty.
#[must_use]
pub fn results(
    evidence: Evidence,
    generator: Generator,
    conditions: Conditions,
    books: Books,
) -> Results {
    let (warmup, measured) = (evidence.tallies.warmup(), evidence.tallies.measured());
    let criteria = criteria::judge(&evidence);
    let (verdict, reason) = verdict::judge(&evidence, &criteria, &generator, &books);
    let (reconciliation, lost_counter) = match books {
        Books::Untold => (None, None),
        Books::Lost(counter) => (None, Some(counter)),
        Books::Told(books) => (Some(books), None),
    };
    let stages: Vec<StageResults> = (1..evidence.flow.outline.stretches.len())
        .map(|stage| of_stage(&evidence, stage))
        .collect();
    Results {
        schema: SCHEMA,
        verdict,
        reason,
        objectives: criteria,
        requests: Requests::of(&measured),
        rate: rates(&evidence, &measured, &stages),
        latency_us: Percentiles::of(&measured.latency_us()),
        ok_latency_us: Percentiles::of(&measured.ok_latency_us),
        failed_latency_us: Percentiles::of(&measured.failed_latency_us),
        lag_us: Percentiles::of(&measured.lag_us),
        connection_wait_us: Percentiles::of(&measured.wait_us),
        service_us: Percentiles::of(&measured.service_us),
        receive_delay_us: Percentiles::of(&measured.receive_us),
        stages,
        keys: Keys {
            hits: measured.hits,
            misses: measured.misses,
        },
        reconciliation,
        lost_counter,
        failed_connects: BTreeMap::new(),
        malformed_answers: BTreeMap::new(),
        tls_handshakes: None,
        resent: 0,
        warmup: Requests::of(&warmup),
        drain_s: 0.0,
        drift: None,
        generator,
        conditions,
        evidence,
    }
}

/// Of the whole measured part: sums over its stages.
fn rates(evidence: &Evidence, measured: &Tally, stages: &[StageResults]) -> Rates {
    let seconds = evidence.scheduled_s;
    let over_stages = |rate: fn(&Rates) -> f64| {
        let outline = &evidence.flow.outline;
        let of = |stage: &StageResults| {
            let length_s = outline
                .stretches
                .get(stage.stage)
                .map_or(0.0, Stretch::seconds);
            rate(&stage.rate) * length_s
        };
        let planned: f64 = outline.stretches.iter().skip(1).map(Stretch::seconds).sum();
        stages.iter().map(of).sum::<f64>() / planned.min(seconds).max(1e-9)
    };
    Rates {
        target_rps: measured.ledger.scheduled as f64 / seconds,
        achieved_rps: over_stages(|rate| rate.achieved_rps),
        key_ops_per_second: over_stages(|rate| rate.key_ops_per_second),
        commands_per_second: over_stages(|rate| rate.commands_per_second),
    }
}

fn of_stage(evidence: &Evidence, stage: usize) -> StageResults {
    let of = |wanted: Option<Operation>| {
        evidence.tallies.sum(|number, operation| {
            usize::from(number) == stage && wanted.is_none_or(|wanted| wanted == operation)
        })
    };
    let tally = of(None);
    let stretch = evidence.flow.outline.stretches.get(stage);
    let seconds = stretch.map_or(1.0, Stretch::seconds).max(1e-9);
    // By any objective: what the pace is does not depend on whether it is enough.
    let share = match evidence.ended_early {
        None => rate::pace(&evidence.flow, stage, evidence.generators, 1.0).share(),
        // Answers that came after the cut are no sign of its pace, and a trend needs a whole stage.
        Some(_) => evidence.flow.ended_share(stage),
    };
    let per_second = |count: u64| count as f64 / seconds * share;
    let operations = Operation::ALL
        .into_iter()
        .map(|operation| (operation, of(Some(operation))));
    StageResults {
        stage,
        rate: Rates {
            target_rps: tally.ledger.scheduled as f64 / seconds,
            achieved_rps: per_second(tally.ledger.ok),
            key_ops_per_second: per_second(tally.hits + tally.misses),
            commands_per_second: per_second(tally.commands),
        },
        requests: Requests::of(&tally),
        latency_us: Percentiles::of(&tally.latency_us()),
        operations: operations
            .filter(|(_, tally)| tally.ledger.scheduled > 0)
            .map(|(operation, tally)| {
                let results = OperationResults {
                    requests: Requests::of(&tally),
                    latency_us: Percentiles::of(&tally.latency_us()),
                    service_us: Percentiles::of(&tally.service_us),
                };
                (operation, results)
            })
            .collect(),
    }
}

/// Length of the measured part as far as it was followed. At least a second, or all of a shorter one: the rate
/// of its first moments would be noise.
pub(in crate::bench) fn scheduled_seconds(schedule: &Schedule, end_ns: u64) -> f64 {
    let from_ns = schedule.measured_from_ns();
    let all_ns = schedule.measured_until_ns() - from_ns;
    let followed_ns = end_ns.saturating_sub(from_ns);
    followed_ns.clamp(all_ns.min(1_000_000_000), all_ns) as f64 / 1e9
}
