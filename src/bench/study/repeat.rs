//! `bench --repeat`: the same load several times.
//!
//! Enters: a configuration and a stop signal. Leaves: each run whole, and what they come to together. The exit code is the
//! worst run's verdict. Must not begin a run while the target has work of the one before, nor lose one that was finished.

use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::once::Bench;
use super::runner::pause_after;
use crate::bench::judge::repeat::Repeat;
use crate::bench::judge::results::Results;
use crate::bench::judge::run::Run;
use crate::bench::judge::verdict::Verdict;
use crate::bench::report;
use crate::bench::report::json_file::JsonFile;
use crate::config::BenchConfig;
use crate::{exit, output};

/// How it ended.
enum End {
    /// All runs were made.
    Whole,
    /// The figures of the last run say nothing, and neither would those of the next one.
    Invalid,
    /// The stop signal came.
    Interrupted,
}

pub(super) async fn run(config: &BenchConfig, stop: &CancellationToken) -> anyhow::Result<u8> {
    let json = JsonFile::create(&config.outputs)?;
    let bench = Bench::prepare(config).await?;
    bench.announce();
    let mut runs = Vec::new();
    let end = make(bench, &json, stop, &mut runs).await;
    let runs_asked = config.runs.repeat;
    let mut study = Repeat::of(runs, runs_asked, config.runs.pause.as_secs_f64());
    study.interrupted = matches!(end, Ok(End::Interrupted));
    let before = match &end {
        Ok(End::Whole) => "",
        Ok(End::Invalid) => "Ended by an INVALID run",
        Ok(End::Interrupted) => "Interrupted",
        Err(_) => "Ended by an error",
    };
    json.show(&report::repeat::text(&study, before));
    let verdict = report::repeat::verdict(&study, before);
    let written = report::json(&study)
        .map_err(anyhow::Error::from)
        .and_then(|text| json.write(&text));
    if written.is_err() || output::lost().is_some() {
        output::say(&verdict);
    }
    written?;
    match end? {
        End::Interrupted => Ok(exit::INTERRUPTED),
        End::Whole | End::Invalid => Ok(study.verdict.unwrap_or(Verdict::Invalid).exit_code()),
    }
}

/// Makes the runs one after the other, and shows each.
async fn make<'a>(
    mut bench: Bench<'a>,
    json: &JsonFile,
    stop: &CancellationToken,
    runs: &mut Vec<(Run, Value)>,
) -> anyhow::Result<End> {
    let config: &'a BenchConfig = bench.config;
    let asked = config.runs.repeat;
    for number in 1..=asked {
        let (results, _) = bench.measure(&config.stages, stop).await?;
        if stop.is_cancelled() {
            return Ok(End::Interrupted);
        }
        json.show(&report::repeat::row(number, asked, &results));
        let pause = pause(config.runs.pause, &results);
        // Of hundreds of runs not each histogram has to be held unpacked.
        let whole = serde_json::to_value(&results)?;
        let run: Run = serde_json::from_value(whole.clone())?;
        let verdict = run.verdict;
        runs.push((run, whole));
        if verdict == Verdict::Invalid {
            return Ok(End::Invalid);
        }
        if number < asked {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return Ok(End::Interrupted),
            }
            // The store's counters as they are now, so that the books of each run are its own.
            bench = Bench::prepare(config).await?;
        }
    }
    Ok(End::Whole)
}

/// As long as was asked for, or as the tries of other studies pause.
fn pause(asked: Duration, last: &Results) -> Duration {
    asked.max(pause_after(
        last.latency_us.p99,
        last.verdict == Verdict::Pass,
    ))
}
