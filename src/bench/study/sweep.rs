//! `bench --sweep`: a run at each rate that was asked for.
//!
//! Enters: a configuration with rates. Leaves: latency by rate, with its knee. Must not end at a rate that fails:
//! how a target fails is part of the answer.

use tokio_util::sync::CancellationToken;

use super::runner::{Runner, Tried};
use crate::bench::judge::tries::Try;
use crate::bench::judge::verdict::Verdict;
use crate::bench::report::by_rate::rate as shown;
use crate::config::BenchConfig;
use crate::exit;

pub(super) async fn run(config: &BenchConfig, stop: &CancellationToken) -> anyhow::Result<u8> {
    let mut runner = Runner::prepare(config, "sweep", stop).await?;
    let mut end = None;
    for &rate in &config.sweep.0 {
        let tried = runner.attempt(rate).await;
        if !matches!(tried, Ok(Tried::Counts(_))) {
            end = Some(tried);
            break;
        }
    }
    let code = runner.conclude(end.as_ref(), exit::OK, |study| {
        study.finding.highest_passing_rps = highest_passing(&study.tries);
        study.summary = summary(study.finding.highest_passing_rps, study.finding.knee_rps);
    })?;
    end.transpose().map(|_| code)
}

/// The highest rate that passed, with no lower one that failed.
fn highest_passing(tries: &[Try]) -> Option<f64> {
    let failed = tries.iter().filter(|one| one.verdict != Verdict::Pass);
    let lowest_failed = failed.map(|one| one.rate_rps).fold(f64::INFINITY, f64::min);
    let passed = tries.iter().map(|one| one.rate_rps);
    passed
        .filter(|&rate| rate < lowest_failed)
        .max_by(f64::total_cmp)
}

fn summary(highest: Option<f64>, knee: Option<f64>) -> String {
    let highest = match highest {
        Some(rate) => format!("All rates up to {} requests/s passed", shown(rate)),
        None => "The lowest rate did not pass".into(),
    };
    let knee = match knee {
        Some(rate) => format!("the knee of latency p99 is at {} requests/s", shown(rate)),
        None => "no knee of latency p99 at these rates".into(),
    };
    format!("{highest}; {knee}")
}
