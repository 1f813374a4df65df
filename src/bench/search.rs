//! `bench --find-max`: the highest rate that passes.
//!
//! Enters: a configuration whose rate is where to begin. Leaves: that rate, confirmed by a second run. Must
//! not report a rate that passed only once.

use tokio_util::sync::CancellationToken;

use super::Bench;
use super::report::Results;
use super::verdict::Verdict;
use crate::config::BenchConfig;
use crate::exit;
use crate::load::Stages;
use crate::output;
use crate::units::{Rate, grouped, human_us};

/// Factor from one rate to the next, until one fails.
const CLIMB: f64 = 1.5;
/// Tries between the best that passed and the least that failed; each halves the distance.
const BISECTIONS: u32 = 5;
/// A search that has not ended by then has no answer.
const MAX_TRIES: u32 = 40;

/// Which rate to try next. Pure.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Search {
    best: Option<f64>,
    worst: Option<f64>,
    next: f64,
    bisections: u32,
}

impl Search {
    fn new(start: f64) -> Self {
        Self {
            best: None,
            worst: None,
            next: start,
            bisections: 0,
        }
    }

    /// Takes in the outcome of `next`. `false`: the search is over.
    fn tried(&mut self, passed: bool) -> bool {
        if passed {
            self.best = Some(self.next);
        } else {
            self.worst = Some(self.next);
        }
        self.next = match (self.best, self.worst) {
            (Some(best), None) => best * CLIMB,
            (None, Some(worst)) => worst / CLIMB,
            (Some(best), Some(worst)) if self.bisections < BISECTIONS => {
                self.bisections += 1;
                f64::midpoint(best, worst)
            }
            _ => return false,
        };
        self.next >= 1.0
    }

    /// The best rate passed before, and failed when it was to be confirmed: a little less may hold.
    fn not_confirmed(&mut self) {
        self.worst = self.best;
        self.next = self.best.take().unwrap_or(self.next) * 0.95;
        self.best = Some(self.next);
    }
}

pub(super) async fn run(config: &BenchConfig, stop: &CancellationToken) -> anyhow::Result<u8> {
    let bench = Bench::prepare(config).await?;
    bench.announce();
    let first = config
        .stages
        .0
        .first()
        .map_or(1.0, |stage| stage.from.per_second());
    let mut search = Search::new(first);
    let mut tries = 0;
    let mut goes_on = true;
    while goes_on && tries < MAX_TRIES {
        let results = attempt(&bench, search.next, stop).await?;
        if stop.is_cancelled() || results.verdict == Verdict::Invalid {
            return Ok(give_up(&results, stop));
        }
        goes_on = search.tried(results.verdict == Verdict::Pass);
        tries += 1;
    }
    while let Some(best) = search.best
        && tries < MAX_TRIES
    {
        output::say("Confirming");
        let results = attempt(&bench, best, stop).await?;
        if stop.is_cancelled() {
            return Ok(give_up(&results, stop));
        }
        if results.verdict == Verdict::Pass {
            output::print(&format!(
                "Highest rate that passes: {} requests/s, {} key operations/s, latency p99 {}\n",
                grouped(best.round() as u64),
                grouped(results.rate.key_ops_per_second.round() as u64),
                human_us(results.latency_us.p99),
            ));
            return Ok(exit::OK);
        }
        search.not_confirmed();
        tries += 1;
    }
    output::print("No rate passed\n");
    Ok(Verdict::TargetMissed.exit_code())
}

fn give_up(results: &Results, stop: &CancellationToken) -> u8 {
    output::print(&format!("Stopped: {}\n", results.reason));
    if stop.is_cancelled() {
        exit::INTERRUPTED
    } else {
        results.verdict.exit_code()
    }
}

async fn attempt(
    bench: &Bench<'_>,
    rate: f64,
    stop: &CancellationToken,
) -> anyhow::Result<Results> {
    // Whole numbers, because that is how the answer is going to be used.
    let rate: Rate = format!("{rate:.0}").parse()?;
    let stages = Stages::steady(rate, bench.config.stages.duration());
    let (results, _) = bench.measure(&stages, stop).await?;
    output::print(&format!(
        "{:>10} requests/s  {:<17} p50 {:>9}  p99 {:>9}  p99.9 {:>9}  {}\n",
        grouped(rate.per_second() as u64),
        results.verdict.name(),
        human_us(results.latency_us.p50),
        human_us(results.latency_us.p99),
        human_us(results.latency_us.p999),
        results.reason,
    ));
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(start: f64, limit: f64) -> (Option<f64>, u32) {
        let mut search = Search::new(start);
        let mut tries = 1;
        while search.tried(search.next <= limit) {
            tries += 1;
        }
        (search.best, tries)
    }

    #[test]
    fn the_limit_is_found_from_below_and_from_above() {
        for (start, limit) in [
            (1_000.0, 30_000.0),
            (100_000.0, 30_000.0),
            (30_000.0, 30_000.0),
        ] {
            let (best, tries) = found(start, limit);
            let best = best.expect("some rate passes");
            assert!(best <= limit && best > limit * 0.97, "{start}: {best}");
            assert!(tries < MAX_TRIES);
        }
        assert_eq!(found(1_000.0, 0.0).0, None);
    }

    #[test]
    fn a_rate_that_is_not_confirmed_is_lowered() {
        let mut search = Search {
            best: Some(1_000.0),
            ..Search::new(1.0)
        };
        search.not_confirmed();
        assert_eq!(search.best, Some(950.0));
    }
}
