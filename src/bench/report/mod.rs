//! The results of a run, in the forms that people and programs read.
//!
//! Enters: [`Results`], all figures final. Leaves: text and JSON. Must not compute anything new: what two
//! forms show is one number.

pub mod compare;
pub mod files;
pub mod html;
mod svg;
pub mod text;

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::conditions::{CpuUse, Machine};
use super::tally::{Ledger, Tally};
use super::verdict::Verdict;
use crate::load::Slos;

/// The version of [`Results`].
pub const SCHEMA: u32 = 1;

/// Everything that a run found; the JSON file is exactly this.
#[derive(Debug, serde::Serialize)]
pub struct Results {
    /// Version of this form: it changes when a member goes or changes its meaning, not when one is added.
    pub schema: u32,
    /// The claim's fate.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// Counts of the measured arrivals.
    pub requests: Requests,
    /// What was asked for and what was reached.
    pub rate: Rates,
    /// From the due moment to the end, of every measured arrival.
    pub latency_us: Percentiles,
    /// The generator's own part of it: from the due moment to being taken up.
    pub lag_us: Percentiles,
    /// Waiting for a free connection.
    pub connection_wait_us: Percentiles,
    /// From sending to the answer, of answered arrivals.
    pub service_us: Percentiles,
    /// Keys of good answers.
    pub keys: Keys,
    /// What the store counted itself; `null` when it does not tell.
    pub reconciliation: Option<Reconciliation>,
    /// Connections that could not be made during the run, by the system's reason.
    pub failed_connects: BTreeMap<String, u64>,
    /// Counts of the arrivals before the measured ones.
    pub warmup: Requests,
    /// How long the last answers took after the schedule; they are among the measured ones.
    pub drain_s: f64,
    /// What the generator itself took.
    pub generator: Generator,
    /// Under which the figures hold.
    pub conditions: Conditions,
    /// All that the figures follow from.
    pub evidence: Evidence,
}

/// The JSON file's text.
pub(super) fn json(results: &Results) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(results)? + "\n")
}

/// What a run is judged by, whole: so that those of several generators can be added up and judged again.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Evidence {
    /// When the schedule began, in milliseconds of the Unix epoch.
    pub started_at_ms: u64,
    /// Length of the measured part as far as it was followed.
    pub scheduled_s: f64,
    /// The run was stopped by hand.
    pub interrupted: bool,
    /// What a PASS needs.
    pub objectives: Objectives,
    /// The arrivals before the measured ones.
    pub warmup: Tally,
    /// The measured ones.
    pub measured: Tally,
}

/// What a PASS needs.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Objectives {
    /// Rate, errors, latencies.
    pub slos: Slos,
    /// Share of the keys that may be missing.
    pub max_miss: f64,
    /// Largest lag p99 of the generator itself.
    pub max_lag_us: u64,
    /// Stages of the load: of several, the rate is an average.
    pub stages: usize,
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
}

impl Requests {
    /// The counts of a tally.
    #[must_use]
    pub fn of(tally: &Tally) -> Self {
        Self {
            ledger: tally.ledger,
            errors_by_cause: named(&tally.causes),
            unsent_by_reason: named(&tally.unsent),
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
    /// Good answers, over the measured duration and what 99.9 % of them took beyond it and the least latency.
    pub achieved_rps: f64,
    /// Keys of good answers, over the same time.
    pub key_ops_per_second: f64,
    /// Commands behind them: one MGET for each request, whatever its number of keys.
    pub commands_per_second: f64,
}

/// Points of one distribution, in microseconds.
#[derive(Debug, serde::Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Largest.
    pub max: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Values recorded.
    pub count: u64,
}

impl Percentiles {
    /// The points of a histogram of microseconds; all 0 when it is empty.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
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

/// The store's own counters over the whole run, warm-up included, against what good answers stand for. More is
/// counted where others use the store, where answers failed on the way back, and by the server itself.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Reconciliation {
    /// Keys that good answers read.
    pub keys_asked: u64,
    /// `keyspace_hits` and `keyspace_misses`.
    pub keys_counted: u64,
    /// Commands behind good answers.
    pub commands_asked: u64,
    /// `total_commands_processed`.
    pub commands_counted: u64,
    /// The larger of the two differences, as a share.
    pub difference: f64,
    /// It is above 0.1 %, and more than serve's own questions.
    pub notable: bool,
}

/// Differences below this share are not worth a word.
const NOTABLE: f64 = 0.001;
/// Nor are those that serve causes itself: a few commands for its statistics, once a second.
const OWN_PER_SECOND: f64 = 8.0;

impl Reconciliation {
    /// Compares asked and counted, first keys and then commands, of a run of so many seconds.
    #[must_use]
    pub fn of(keys: (u64, u64), commands: (u64, u64), seconds: f64) -> Self {
        let own = OWN_PER_SECOND * (seconds + 1.0);
        let share = |(asked, counted): (u64, u64)| {
            asked.abs_diff(counted) as f64 / asked.max(counted).max(1) as f64
        };
        let notable =
            |pair: (u64, u64)| share(pair) > NOTABLE && pair.0.abs_diff(pair.1) as f64 > own;
        Self {
            keys_asked: keys.0,
            keys_counted: keys.1,
            commands_asked: commands.0,
            commands_counted: commands.1,
            difference: share(keys).max(share(commands)),
            notable: notable(keys) || notable(commands),
        }
    }
}

/// Cost of the generator over the whole run, warm-up and drain included.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Generator {
    /// CPU time, user and system.
    pub cpu_s: f64,
    /// That for each request sent.
    pub cpu_us_per_request: f64,
    /// That as a share of one core.
    pub cores_used: f64,
    /// Share of the schedule's time in which the busiest thread ran, or was ready to run and had no core.
    pub busy_share: f64,
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
    /// Likewise, of all kinds.
    pub store_keys: Option<u64>,
    /// Likewise, before the run.
    pub store_memory_bytes: Option<u64>,
    /// What was driven.
    pub target: String,
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
    /// Share of the answers compared with their records.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_notable_when_the_server_itself_does_not_explain_them() {
        for (keys, commands, notable) in [
            ((1_000_000, 1_000_000), (1_000_000, 1_000_500), false),
            ((1_000_000, 1_000_000), (1_000_000, 1_002_000), true),
            ((1_000_000, 900_000), (1_000_000, 1_000_000), true),
            // A few commands of a short run are more than 0.1 %, and are serve's own.
            ((100, 110), (100, 150), false),
        ] {
            let found = Reconciliation::of(keys, commands, 10.0);
            assert_eq!(found.notable, notable, "{found:?}");
        }
    }
}
