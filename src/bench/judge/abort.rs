//! Whether a run that goes on can still pass. Pure.
//!
//! Enters: what has ended so far, and how many arrivals each stage is going to have. Leaves: the reason why none of those
//! to come can make it a PASS. Must not guess: what is undecided goes on.

use hdrhistogram::Histogram;

use super::interval::Tallies;
use super::tally::Tally;
use crate::objectives::{Bound, Objectives};
use crate::units::{grouped, human_us};

/// Why the run cannot pass any more. `expected` has for each stage the arrivals of it at most, whatever they do.
#[must_use]
pub fn hopeless(objectives: &Objectives, expected: &[u64], so_far: &Tallies) -> Option<String> {
    (1..).zip(expected).find_map(|(stage, &expected)| {
        let applies = |only: Option<usize>| only.is_none_or(|only| only == stage);
        let bounds = objectives.all().iter().filter(|objective| {
            applies(objective.scope.stage) && !objectives.is_replaced(objective, stage)
        });
        bounds.into_iter().find_map(|objective| {
            let operations = objective.scope.operations;
            let tally = so_far
                .sum(|of, operation| usize::from(of) == stage && operations.contain(operation));
            let why = broken(objective.bound, expected, &tally)?;
            Some(format!("{objective} cannot hold: {why}"))
        })
    })
}

/// Why a bound cannot hold, whatever is still to come.
fn broken(bound: Bound, expected: u64, so_far: &Tally) -> Option<String> {
    let (count, allowed, what) = match bound {
        // A backlog can be worked off until the very end.
        Bound::Rate { .. } => return None,
        Bound::Errors { at_most } => (
            so_far.ledger.failed(),
            (at_most * expected as f64) as u64,
            "failed".into(),
        ),
        Bound::Latency {
            quantile,
            at_most_us,
        } => (
            above(&so_far.latency_us(), at_most_us),
            quantile.beyond(expected),
            format!("took longer than {}", human_us(at_most_us)),
        ),
    };
    (count > allowed).then(|| {
        format!(
            "{} requests {what}, but at most {} of {} may",
            grouped(count),
            grouped(allowed),
            grouped(expected)
        )
    })
}

/// How many values are above `bound`, those that the histogram cannot tell from it left out.
fn above(values: &Histogram<u64>, bound: u64) -> u64 {
    if values.is_empty() || values.max() <= bound {
        return 0;
    }
    let highest = values.highest_equivalent(bound);
    values.count_between(highest + 1, values.max().max(highest + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::judge::histogram::record;
    use crate::objectives::Operation;

    /// So many good answers after 1 ms, slow ones after 5 s, and failures.
    fn tallies(stage: u16, good: u64, slow: u64, failed: u64) -> Tallies {
        let mut tallies = Tallies::default();
        let tally = tallies.at(stage, Operation::Sessions);
        for (count, us) in [(good, 1_000), (slow, 5_000_000)] {
            (0..count).for_each(|_| record(&mut tally.ok_latency_us, 0, us * 1_000));
        }
        tally.ledger.ok = good + slow;
        tally.ledger.errors = failed;
        tallies
    }

    #[test]
    fn a_run_goes_on_until_its_verdict_is_certain() {
        for (slo, stage, good, slow, failed, certain) in [
            ("", 1, 50, 0, 10, false),
            ("", 1, 50, 0, 11, true),
            // That many may fail of both stages, but not of the smaller one.
            ("", 2, 50, 0, 2, true),
            // The warm-up counts nowhere.
            ("", 0, 0, 200, 200, false),
            ("errors=0%", 1, 0, 0, 1, true),
            ("", 1, 50, 100, 0, false),
            ("", 1, 50, 101, 0, true),
            ("p99=6s", 1, 50, 101, 0, false),
            ("p99=none", 1, 50, 101, 0, false),
            ("stage1.p99=6s", 1, 50, 101, 0, false),
            ("max=1s,p99=none", 1, 50, 1, 0, true),
            ("write.p50=1s,p99=none", 1, 0, 9_000, 0, false),
            ("read.p50=1s,p99=none", 1, 0, 5_001, 0, true),
        ] {
            let objectives: Objectives = slo.parse().expect(slo);
            let so_far = tallies(stage, good, slow, failed);
            let found = hopeless(&objectives, &[10_000, 1_000], &so_far);
            assert_eq!(
                found.is_some(),
                certain,
                "{slo} {stage} {slow} {failed}: {found:?}"
            );
        }
    }

    #[test]
    fn the_reason_names_objective_and_room() {
        let found = hopeless(&Objectives::default(), &[10_000], &tallies(1, 0, 123, 0));
        let expected = "p99 ≤ 100.00 ms cannot hold: 123 requests took longer than 100.00 ms, but at most 100 of 10,000 may";
        assert_eq!(found.as_deref(), Some(expected));
    }

    #[test]
    fn only_what_is_surely_above_counts() {
        let mut values = Histogram::new(3).expect("three digits");
        for value in [99_000, 100_000, 100_010, 101_000, 5_000_000] {
            values.record(value).expect("it grows");
        }
        for (bound, count) in [(100_000, 2), (5_000_000, 0), (0, 5), (u64::MAX / 2, 0)] {
            assert_eq!(above(&values, bound), count, "{bound}");
        }
    }
}
