//! Whether the runs of two sides differ by more than chance, in any of several figures. Pure.
//!
//! Enters: the figures of each run of both sides. Leaves: a probability for each figure, that chance alone makes as large
//! a difference in any of them. Must not assume a distribution, nor that figures are independent of each other.
//!
//! If the sides do not differ, any deal of the runs to them was as likely as the one that was made. So all deals are made,
//! or 20,000 by chance where there are more than 200,000, and the difference of each figure, divided by its
//! standard error of unequal variances (Welch), is held against the largest that any figure has in each deal. That keeps
//! the share of false alarms over all figures together, and takes their correlation into account (Westfall and Young,
//! "Resampling-Based Multiple Testing", 1993, the single-step maxT method). Deals by chance count the real one among
//! themselves (Phipson and Smyth, "Permutation P-values Should Never Be Zero", 2010).

use crate::random::{below, splitmix64};

/// All deals are made up to so many: 10 runs a side have 184,756.
const MOST_DEALS: f64 = 200_000.0;
/// Deals by chance, where there are more.
const DEALS: u64 = 20_000;
/// Two sums of the same numbers in another order are the same number.
const EQUAL: f64 = 1e-9;

/// A figure of all runs: those of the one side, then those of the other.
#[derive(Debug, Clone)]
pub struct Column {
    /// One number a run, where a sum means something: of latencies their logarithm.
    pub values: Vec<f64>,
    /// A standard error that is smaller than this is taken for it: figures are rounded.
    pub resolution: f64,
}

/// For each column the probability, 0 to 1, that chance alone makes its difference, or a larger one in any column. The
/// first `base` runs are of the one side, and each side has two or more.
#[must_use]
pub fn probabilities(columns: &[Column], base: usize) -> Vec<f64> {
    let runs = columns.first().map_or(0, |column| column.values.len());
    debug_assert!(base >= 2 && runs >= base + 2);
    let columns: Vec<Centred> = columns.iter().map(Centred::of).collect();
    let real: Vec<usize> = (0..base).collect();
    let found: Vec<f64> = columns.iter().map(|one| one.statistic(&real)).collect();
    let mut as_large = vec![0_u64; columns.len()];
    let mut count = |deal: &[usize]| {
        let largest = columns.iter().map(|one| one.statistic(deal));
        let largest = largest.fold(0.0, f64::max) * (1.0 + EQUAL);
        for (times, found) in as_large.iter_mut().zip(&found) {
            *times += u64::from(largest >= *found);
        }
    };
    let deals = if deals(runs, base) <= MOST_DEALS {
        every_deal(runs, base, &mut count)
    } else {
        count(&real);
        1 + deals_by_chance(runs, base, &mut count)
    };
    as_large
        .iter()
        .map(|&times| times as f64 / deals as f64)
        .collect()
}

/// A column less its mean, so that sums of squares lose no digits.
struct Centred {
    values: Vec<f64>,
    squares: f64,
    resolution: f64,
}

impl Centred {
    fn of(column: &Column) -> Self {
        let mean = column.values.iter().sum::<f64>() / column.values.len() as f64;
        let values: Vec<f64> = column.values.iter().map(|value| value - mean).collect();
        Self {
            squares: values.iter().map(|value| value * value).sum(),
            values,
            resolution: column.resolution,
        }
    }

    /// The square of the difference over its standard error, where these runs are the one side.
    fn statistic(&self, one_side: &[usize]) -> f64 {
        let (mut sum, mut squares) = (0.0, 0.0);
        for &run in one_side {
            let value = self.values[run];
            sum += value;
            squares += value * value;
        }
        let of_mean = |count: usize, sum: f64, squares: f64| {
            let count = count as f64;
            let variance = ((squares - sum * sum / count) / (count - 1.0)).max(0.0);
            (sum / count, variance / count)
        };
        let others = self.values.len() - one_side.len();
        let (mean, error) = of_mean(one_side.len(), sum, squares);
        // All values together have the sum 0.
        let (other_mean, other_error) = of_mean(others, -sum, self.squares - squares);
        let difference = mean - other_mean;
        difference * difference / (error + other_error).max(self.resolution * self.resolution)
    }
}

/// How many there are.
fn deals(runs: usize, base: usize) -> f64 {
    (1..=base).fold(1.0, |deals, place| {
        deals * (runs - base + place) as f64 / place as f64
    })
}

/// Each way to take `base` of the runs, once; gives how many.
fn every_deal(runs: usize, base: usize, count: &mut impl FnMut(&[usize])) -> u64 {
    let mut deal: Vec<usize> = (0..base).collect();
    let mut deals = 0;
    loop {
        count(&deal);
        deals += 1;
        // The last place that can still go on does, and those behind it follow.
        let Some(place) = (0..base)
            .rev()
            .find(|&place| deal[place] < runs - base + place)
        else {
            return deals;
        };
        deal[place] += 1;
        for next in place + 1..base {
            deal[next] = deal[next - 1] + 1;
        }
    }
}

/// The same deals each time; gives how many.
fn deals_by_chance(runs: usize, base: usize, count: &mut impl FnMut(&[usize])) -> u64 {
    let mut order: Vec<usize> = (0..runs).collect();
    for deal in 0..DEALS {
        // The first places of a shuffle after Fisher and Yates.
        for place in 0..base {
            let bits = splitmix64(deal, place as u64);
            let other = place + below(bits, (runs - place) as u64) as usize;
            order.swap(place, other);
        }
        count(&order[..base]);
    }
    DEALS
}

#[cfg(test)]
mod tests {
    use super::super::simulated::Normal;
    use super::*;
    use proptest::prelude::*;

    fn column(values: &[f64]) -> Column {
        Column {
            values: values.to_vec(),
            resolution: 1e-6,
        }
    }

    #[test]
    fn all_deals_are_made_once() {
        let mut seen = Vec::new();
        let made = every_deal(6, 3, &mut |deal| seen.push(deal.to_vec()));
        let exact = deals(6, 3);
        seen.sort();
        seen.dedup();
        assert_eq!((made, seen.len()), (20, 20));
        assert!((exact - 20.0).abs() < 1e-9);
        assert!((deals(20, 10) - 184_756.0).abs() < 1e-6);
    }

    #[test]
    fn sides_that_lie_apart_are_two_deals_of_all() {
        let apart = column(&[1.0, 1.1, 1.2, 1.15, 1.05, 2.0, 2.1, 2.2, 2.15, 2.05]);
        let p = probabilities(std::slice::from_ref(&apart), 5)[0];
        assert!((p - 2.0 / 252.0).abs() < 1e-12, "{p}");
        // Other figures that say nothing take little of it away.
        let nothing = column(&[1.0, 3.0, 2.0, 5.0, 4.0, 2.5, 3.5, 1.5, 4.5, 5.5]);
        let constant = column(&[0.0; 10]);
        let all = probabilities(&[apart, nothing, constant], 5);
        assert!((all[0] - 2.0 / 252.0).abs() < 1e-12, "{all:?}");
        assert!(all[1] > 0.5 && (all[2] - 1.0).abs() < 1e-12, "{all:?}");
    }

    #[test]
    fn a_difference_below_the_resolution_hides_no_other() {
        // Without a least error the rounded one would stand out infinitely.
        let rounded = Column {
            values: vec![
                5.0, 5.0, 5.0, 5.0, 5.0, 5.000_001, 5.000_001, 5.000_001, 5.000_001, 5.000_001,
            ],
            resolution: 1e-3,
        };
        let noise = column(&[1.0, 3.0, 2.0, 5.0, 4.0, 2.5, 3.5, 1.5, 4.5, 5.5]);
        let found = probabilities(&[rounded, noise], 5);
        assert!(found[0] > 0.9, "{found:?}");
    }

    #[test]
    fn many_runs_are_dealt_by_chance_and_never_have_the_probability_0() {
        let values: Vec<f64> = (0..60)
            .map(|run| f64::from(run / 30) * 10.0 + f64::from(run % 7))
            .collect();
        let p = probabilities(&[column(&values)], 30)[0];
        assert!(p > 0.0 && p < 1e-4, "{p}");
    }

    /// So many studies of correlated figures: each run has a factor of its own, and each figure its noise. The other side
    /// is as many times as slow. Gives the share in which any figure stands out.
    fn share_found(
        runs: usize,
        slower: f64,
        (common, own): (f64, f64),
        heavy: bool,
        level: f64,
    ) -> f64 {
        const STUDIES: u64 = 1_500;
        let found = (0..STUDIES).filter(|&number| {
            let mut draws = Normal::new(3, number);
            let mut columns = vec![column(&[]); 5];
            for run in 0..2 * runs {
                let mut of_run = draws.next() * common;
                if heavy {
                    // Now and then one that somebody disturbed.
                    of_run += (draws.next() - 1.5).max(0.0) * 5.0 * common;
                }
                let factor = if run < runs { 0.0 } else { slower.ln() };
                for column in &mut columns {
                    column.values.push(factor + of_run + draws.next() * own);
                }
            }
            probabilities(&columns, runs).iter().any(|&p| p <= level)
        });
        found.count() as f64 / STUDIES as f64
    }

    #[test]
    fn alike_sides_are_told_apart_as_seldom_as_the_level_says_over_all_figures_together() {
        for (runs, noise, heavy) in [
            (4, (0.03, 0.02), false),
            (5, (0.03, 0.02), false),
            (5, (0.0, 0.05), true),
            (6, (0.05, 0.005), true),
        ] {
            let share = share_found(runs, 1.0, noise, heavy, 0.05);
            // 1,500 studies: three standard deviations are 1.7 %.
            assert!(share <= 0.05 + 0.017, "{runs} {noise:?}: {share}");
        }
    }

    #[test]
    fn a_slowdown_of_fifteen_percent_is_found_among_runs_that_differ_by_four() {
        let share = share_found(5, 1.15, (0.03, 0.02), false, 0.03);
        assert!(share >= 0.95, "{share}");
        // Of what is within the noise nothing is promised, but more runs find more.
        let (few, more) = (
            share_found(4, 1.05, (0.03, 0.02), false, 0.05),
            share_found(7, 1.05, (0.03, 0.02), false, 0.05),
        );
        assert!(few < more, "{few} {more}");
    }

    proptest! {
        #[test]
        fn a_probability_is_one_and_does_not_depend_on_the_side_that_is_named_first(
            values in proptest::collection::vec(-5.0_f64..5.0, 8),
        ) {
            let p = probabilities(&[column(&values)], 4)[0];
            prop_assert!((2.0 / 70.0 - 1e-9..=1.0).contains(&p));
            let turned: Vec<f64> = values[4..].iter().chain(&values[..4]).copied().collect();
            let other = probabilities(&[column(&turned)], 4)[0];
            prop_assert!((p - other).abs() < 1e-9);
        }
    }
}
