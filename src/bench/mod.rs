//! `kvpoc bench`: drives a target open-loop, and gives a verdict.
//!
//! Enters: a [`BenchConfig`] and a stop signal. Leaves: a report, files if asked for, and the verdict's exit
//! code.
//!
//! An arrival flows through [`plan`] (what is asked for, and when) → [`drive`] (sent and answered) → [`judge`]
//! (counted, and what follows) → `report` (shown). `study` makes one run of it, or several.

pub mod drive;
pub mod judge;
pub mod plan;
mod report;
mod study;

use tokio_util::sync::CancellationToken;

use crate::config::BenchConfig;

/// Does what the mode says, and returns its exit code.
///
/// # Errors
/// When the target cannot be used, or the results cannot be written.
pub async fn run(config: BenchConfig, stop: CancellationToken) -> anyhow::Result<u8> {
    study::run(&config, &stop).await
}

/// Takes any text for a result of `--merge` or `--compare`; panics where it must not.
#[cfg(feature = "fuzzing")]
pub fn fuzz(text: &str) {
    study::fuzz(text);
    if let Ok(value) = serde_json::from_str(text) {
        let _ = report::compare::is_result(&value);
    }
}
