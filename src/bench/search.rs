//! `bench --find-max`: the highest rate that passes.
//!
//! Enters: a configuration whose rate is where to begin. Leaves: that rate, and what stood above it. Must not
//! report a rate that passed only once, nor take a single failure for the limit.

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

/// Passes of one rate in a row that confirm it.
const CONFIRMATIONS: u32 = 2;

/// Which rate to try next. Pure. Rates are whole numbers, because that is how the answer is going to be used.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Search {
    best: Option<f64>,
    worst: Option<f64>,
    next: f64,
    bisections: u32,
    /// `next` failed once. A hiccup of the machine fails any rate, and one is not to decide the search.
    failed: bool,
    /// Passes of `next` so far, once it is to be confirmed.
    confirmed: Option<u32>,
}

/// Where a search stands.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Try,
    Found(f64),
    Nothing,
}

impl Search {
    fn new(start: f64) -> Self {
        Self {
            best: None,
            worst: None,
            next: start.round().max(1.0),
            bisections: 0,
            failed: false,
            confirmed: None,
        }
    }

    /// Takes in the outcome of `next`.
    fn tried(&mut self, passed: bool) -> Step {
        match (self.confirmed, passed) {
            (Some(times), true) if times + 1 >= CONFIRMATIONS => return Step::Found(self.next),
            (Some(times), true) => self.confirmed = Some(times + 1),
            // It passed before: a little less may hold, and has to show it as often.
            (Some(_), false) => {
                self.confirmed = Some(0);
                self.next = (self.next * 0.95).floor();
            }
            (None, false) if !self.failed => self.failed = true,
            (None, _) => self.narrow(passed),
        }
        if self.next >= 1.0 {
            Step::Try
        } else {
            Step::Nothing
        }
    }

    fn narrow(&mut self, passed: bool) {
        self.failed = false;
        if passed {
            self.best = Some(self.next);
        } else {
            self.worst = Some(self.next);
        }
        let tried = self.next;
        self.next = match (self.best, self.worst) {
            (Some(best), None) => (best * CLIMB).round(),
            (None, Some(worst)) => (worst / CLIMB).floor(),
            (Some(best), Some(worst)) if self.bisections < BISECTIONS && worst - best > 1.0 => {
                self.bisections += 1;
                f64::midpoint(best, worst).floor()
            }
            // The pass that made it the best is the first of those that confirm it.
            (Some(best), Some(_)) => {
                self.confirmed = Some(1);
                best
            }
            (None, None) => tried,
        };
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
    // What stood in the way of a higher rate: the target, or the generator.
    let mut limit = Verdict::Pass;
    for _ in 0..MAX_TRIES {
        let results = attempt(&bench, search.next, stop).await?;
        if stop.is_cancelled() || results.verdict == Verdict::Invalid {
            return Ok(give_up(&results, stop));
        }
        if results.verdict != Verdict::Pass {
            limit = results.verdict;
        }
        match search.tried(results.verdict == Verdict::Pass) {
            Step::Try => {}
            Step::Nothing => break,
            Step::Found(rate) => {
                output::print(&format!(
                    "Highest rate that passes: {} requests/s, {} key operations/s, latency p99 {}; above it: {}\n",
                    grouped(rate as u64),
                    grouped(results.rate.key_ops_per_second.round() as u64),
                    human_us(results.latency_us.p99),
                    limit.name(),
                ));
                return Ok(exit::OK);
            }
        }
    }
    output::print(&format!("No rate passed twice: {}\n", limit.name()));
    Ok(limit.exit_code())
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
    let rate: Rate = rate.to_string().parse()?;
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

    fn found(start: f64, limit: f64) -> (Step, u32) {
        let mut search = Search::new(start);
        for tries in 1..=MAX_TRIES {
            match search.tried(search.next <= limit) {
                Step::Try => {}
                end => return (end, tries),
            }
        }
        panic!("no end of the search for {limit} from {start}");
    }

    #[test]
    fn the_limit_is_found_from_below_and_from_above() {
        for (start, limit) in [
            (1_000.0, 30_000.0),
            (100_000.0, 30_000.0),
            (30_000.0, 30_000.0),
            (1.0, 3.0),
        ] {
            match found(start, limit) {
                (Step::Found(best), _) => {
                    assert!(
                        best <= limit && best > limit * 0.97 - 1.0,
                        "{start}: {best}"
                    );
                }
                other => panic!("{start}: {other:?}"),
            }
        }
        assert_eq!(found(1_000.0, 0.0).0, Step::Nothing);
    }

    #[test]
    fn one_failure_is_tried_again_and_the_second_is_believed() {
        let mut search = Search::new(1_000.0);
        assert_eq!(search.tried(false), Step::Try);
        assert!((search.next - 1_000.0).abs() < 1e-9);
        assert_eq!(search.tried(true), Step::Try);
        assert!((search.next - 1_500.0).abs() < 1e-9);
        search.tried(false);
        search.tried(false);
        assert!((search.next - 1_250.0).abs() < 1e-9);
    }

    #[test]
    fn a_rate_that_passed_only_once_is_not_reported() {
        let mut search = Search {
            next: 1_000.0,
            confirmed: Some(1),
            ..Search::new(1.0)
        };
        assert_eq!(search.tried(false), Step::Try);
        assert!((search.next - 950.0).abs() < 1e-9);
        assert_eq!(search.tried(true), Step::Try);
        assert_eq!(search.tried(true), Step::Found(950.0));
    }
}
