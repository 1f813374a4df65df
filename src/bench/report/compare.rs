//! A run beside an earlier one.
//!
//! Enters: the JSON of the earlier run, the results of this one. Leaves: rows of both and their ratio. Must
//! not judge: two runs under other conditions are shown with what differs.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use crate::bench::judge::results::Results;
use crate::units::{grouped, human_us};

/// One figure of both runs.
pub(in crate::bench) struct Row {
    pub(in crate::bench) name: &'static str,
    pub(in crate::bench) before: f64,
    pub(in crate::bench) after: f64,
    /// It is a time, in microseconds.
    time: bool,
}

impl Row {
    pub(in crate::bench) fn shown(&self, value: f64) -> String {
        if self.time {
            human_us(value.round() as u64)
        } else {
            grouped(value.round() as u64)
        }
    }

    /// After over before, or a dash when there is nothing to divide by.
    pub(in crate::bench) fn ratio(&self) -> String {
        if self.before > 0.0 {
            format!("{:.2}", self.after / self.before)
        } else {
            "-".into()
        }
    }
}

const FIGURES: [(&str, &str, bool); 12] = [
    ("requested", "/rate/target_rps", false),
    ("requests/s", "/rate/achieved_rps", false),
    ("key operations/s", "/rate/key_ops_per_second", false),
    ("errors", "/requests/errors", false),
    ("timeouts", "/requests/timeouts", false),
    ("unsent", "/requests/unsent", false),
    ("latency p50", "/latency_us/p50", true),
    ("latency p90", "/latency_us/p90", true),
    ("latency p99", "/latency_us/p99", true),
    ("latency p99.9", "/latency_us/p999", true),
    ("latency max", "/latency_us/max", true),
    ("lag p99", "/lag_us/p99", true),
];

/// Conditions that make two runs incomparable when they differ.
const CONDITIONS: [&str; 29] = [
    "stages",
    "shard",
    "generators",
    "keys_dist",
    "connections",
    "threads",
    "duration_s",
    "version",
    "commit",
    "cpu_model",
    "cpu_count",
    "store_engine",
    "store_version",
    "store_threads",
    "fetch",
    "keys",
    "keys_per_request",
    "workload",
    "arrivals",
    "method",
    "headers",
    "body_bytes",
    "expect",
    "match",
    "records",
    "requests_lines",
    "requests_fingerprint",
    "requests_order",
    "speed",
];

/// Reads the JSON of an earlier run.
///
/// # Errors
/// When it cannot be read, or is no result of `kvpoc bench`.
pub(in crate::bench) fn read(file: &Path) -> anyhow::Result<Value> {
    let shown = || format!("cannot use --compare {}", file.display());
    let text = std::fs::read_to_string(file).with_context(shown)?;
    let value: Value = serde_json::from_str(&text).with_context(shown)?;
    if !is_result(&value) {
        anyhow::bail!("{}: not a result of kvpoc bench", shown());
    }
    Ok(value)
}

/// Whether it has all the figures that are compared.
pub(in crate::bench) fn is_result(value: &Value) -> bool {
    let is_number = |path| value.pointer(path).is_some_and(Value::is_number);
    FIGURES.iter().all(|(_, path, _)| is_number(path))
}

/// All figures of both.
pub(in crate::bench) fn rows(earlier: &Value, results: &Results) -> Vec<Row> {
    let now = serde_json::to_value(results).unwrap_or_default();
    let figure = |value: &Value, path| value.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
    FIGURES
        .iter()
        .map(|&(name, path, time)| Row {
            name,
            before: figure(earlier, path),
            after: figure(&now, path),
            time,
        })
        .collect()
}

/// The conditions that differ, as lines.
pub(in crate::bench) fn differences(earlier: &Value, results: &Results) -> Vec<String> {
    let now = serde_json::to_value(&results.conditions).unwrap_or_default();
    let before = &earlier["conditions"];
    CONDITIONS
        .iter()
        .filter(|&&name| before[name] != now[name])
        .map(|name| format!("{name}: {} before, {} now", before[name], now[name]))
        .collect()
}

/// Both for a terminal.
#[must_use]
pub(in crate::bench) fn text(earlier: &Value, results: &Results) -> String {
    let mut text = format!(
        "\n{:<18}{:>12}{:>12}{:>9}\n",
        "Compared", "before", "now", "ratio"
    );
    for row in rows(earlier, results) {
        let ratio = row.ratio();
        let (before, after) = (row.shown(row.before), row.shown(row.after));
        let _ = writeln!(text, "{:<18}{before:>12}{after:>12}{ratio:>9}", row.name);
    }
    for difference in differences(earlier, results) {
        let _ = writeln!(text, "differs: {difference}");
    }
    text
}
