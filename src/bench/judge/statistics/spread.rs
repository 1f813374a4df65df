//! A figure over several runs: its median, an interval for it, its ends. Pure.
//!
//! Enters: one number a run. Leaves: a [`Spread`]. Must not assume a distribution: the interval is made of two of the runs.

use super::median;

/// What an interval is meant to be sure of.
pub const CONFIDENCE: f64 = 0.95;

/// A figure of several runs.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Spread {
    /// Half of the runs are below it.
    pub median: f64,
    /// Where the median of all runs that could be made is, as sure as the number of runs allows; see [`ranks`].
    pub interval: Option<(f64, f64)>,
    /// The least of them.
    pub min: f64,
    /// The largest of them.
    pub max: f64,
}

impl Spread {
    /// Of at least one run; `None` of none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut values = values.to_vec();
        let median = median(&mut values);
        let (min, max) = (*values.first()?, *values.last()?);
        let interval =
            ranks(values.len()).map(|(rank, _)| (values[rank - 1], values[values.len() - rank]));
        Some(Self {
            median,
            interval,
            min,
            max,
        })
    }
}

/// Which of `count` sorted runs bound the median, counted from 1 and from both ends, and how sure that is: the narrowest
/// pair that is [`CONFIDENCE`] sure. Fewer than six runs cannot be; their widest pair is given with what it is worth.
/// `None` of a single run.
///
/// The median lies between the k-th of n and the k-th from the other end unless fewer than k fall on one side of it, each
/// of which is a toss of a coin: David and Nagaraja, "Order Statistics" (3rd edition, 2003), 7.1; Le Boudec, "Performance
/// Evaluation of Computer and Communication Systems" (2010), theorem 2.1.
#[must_use]
pub fn ranks(count: usize) -> Option<(usize, f64)> {
    if count < 2 {
        return None;
    }
    // Of tosses that all fall on one side; then of one more on the other, and so on.
    let mut exactly = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut below = exactly;
    let mut found = (1, 1.0 - 2.0 * below);
    for rank in 2..=count / 2 {
        exactly *= (count - rank + 2) as f64 / (rank - 1) as f64;
        below += exactly;
        let confidence = 1.0 - 2.0 * below;
        if confidence < CONFIDENCE {
            break;
        }
        found = (rank, confidence);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::super::simulated::Normal;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ranks_are_those_of_the_tables() {
        // Le Boudec, appendix A, table for the median.
        for (count, rank, confidence) in [
            (2, 1, 0.5),
            (3, 1, 0.75),
            (5, 1, 0.9375),
            (6, 1, 0.969),
            (8, 1, 0.992),
            (9, 2, 0.961),
            (10, 2, 0.979),
            (20, 6, 0.959),
            (30, 10, 0.957),
            (70, 27, 0.959),
        ] {
            let found = ranks(count).expect("two runs");
            assert_eq!(found.0, rank, "{count}");
            assert!((found.1 - confidence).abs() < 5e-4, "{count}: {}", found.1);
        }
        assert_eq!(ranks(1), None);
        assert_eq!(ranks(0), None);
    }

    #[test]
    fn a_single_run_has_no_interval_and_none_has_no_median() {
        let one = Spread::of(&[3.0]).expect("a run");
        assert_eq!((one.median, one.interval), (3.0, None));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn the_interval_holds_the_median_as_often_as_it_says() {
        for count in [5, 6, 10, 25] {
            let (_, confidence) = ranks(count).expect("two runs");
            let holds = (0..4_000).filter(|&number| {
                let mut draws = Normal::new(1, number);
                // Skewed, as latencies are; the median is 1.
                let runs: Vec<f64> = (0..count).map(|_| draws.next().exp()).collect();
                let (low, high) = Spread::of(&runs).and_then(|one| one.interval).expect("it");
                low <= 1.0 && 1.0 <= high
            });
            let share = holds.count() as f64 / 4_000.0;
            assert!(
                (share - confidence).abs() < 0.012,
                "{count}: {share} of {confidence}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_median_lies_in_its_interval_and_that_between_the_ends(
            runs in proptest::collection::vec(0.0_f64..1e9, 2..100),
        ) {
            let spread = Spread::of(&runs).expect("runs");
            let (low, high) = spread.interval.expect("two runs");
            prop_assert!(spread.min <= low && low <= spread.median);
            prop_assert!(spread.median <= high && high <= spread.max);
            let mut turned: Vec<f64> = runs.clone();
            turned.reverse();
            prop_assert_eq!(Spread::of(&turned), Some(spread));
        }
    }
}
