//! How many times as large a figure of some runs is as that of others. Pure.
//!
//! Enters: one number a run, of both sides. Leaves: a ratio and an interval for it. Must not divide by nothing.

use super::median;
use super::spread::CONFIDENCE;

/// The ratio of the medians, `now` over `base`; `None` when one of them is 0 or below.
#[must_use]
pub fn of_medians(base: &[f64], now: &[f64]) -> Option<f64> {
    let (base, now) = (median(&mut base.to_vec()), median(&mut now.to_vec()));
    (base > 0.0 && now > 0.0).then(|| now / base)
}

/// An interval that holds the factor between the sides at least [`CONFIDENCE`] of the time, whatever the distribution of
/// the runs is, if that factor is all they differ in. `None` when a run has 0. `left_out` is [`left_out`] of both counts.
///
/// Its ends are two of the ratios of all pairs of runs, sorted: as many are left out at each end as the Mann-Whitney test
/// would reject (Moses; Hollander, Wolfe, Chicken, "Nonparametric Statistical Methods", 3rd edition 2014, 4.3).
#[must_use]
pub fn interval(base: &[f64], now: &[f64], left_out: usize) -> Option<(f64, f64)> {
    if base.iter().chain(now).any(|&value| value <= 0.0) {
        return None;
    }
    let of_each = |&now: &f64| base.iter().map(move |&base| now / base);
    let mut ratios: Vec<f64> = now.iter().flat_map(of_each).collect();
    ratios.sort_by(f64::total_cmp);
    Some((ratios[left_out], ratios[ratios.len() - 1 - left_out]))
}

/// How many pairs of so many runs of both sides may be left out at each end; `None`: not even all pairs make an interval.
#[must_use]
pub fn left_out(base: usize, now: usize) -> Option<usize> {
    let counts = rank_sums(base, now);
    let all: f64 = counts.iter().sum();
    let mut below = 0.0;
    let mut allowed = 0_usize;
    for count in &counts {
        below += count;
        if below * 2.0 / all > 1.0 - CONFIDENCE {
            break;
        }
        allowed += 1;
    }
    // The first that may be left out is the one of index 0, so as many as are allowed are left out less one.
    allowed.checked_sub(1)
}

/// In how many orders of the runs of both sides each Mann-Whitney statistic comes about, from 0 up.
fn rank_sums(base: usize, now: usize) -> Vec<f64> {
    // Of `some` of the one side and as many of the other as the turn of the loop says: the last in the order is of this
    // side, and beats all of the other, or is of the other.
    let mut ways: Vec<Vec<f64>> = vec![vec![1.0]; base + 1];
    for others in 1..=now {
        for some in 1..=base {
            let mut next = vec![0.0; some * others + 1];
            for (sum, count) in ways[some - 1].iter().enumerate() {
                next[sum + others] += count;
            }
            for (sum, count) in ways[some].iter().enumerate() {
                next[sum] += count;
            }
            ways[some] = next;
        }
    }
    ways.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::simulated::Normal;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_many_pairs_are_left_out_as_the_tables_of_mann_and_whitney_reject() {
        // Two-sided, 5 %: the largest statistic that is rejected.
        for (base, now, expected) in [
            (3, 3, None),
            (3, 5, Some(0)),
            (4, 4, Some(0)),
            (5, 5, Some(2)),
            (6, 6, Some(5)),
            (5, 8, Some(6)),
            (10, 10, Some(23)),
            (20, 20, Some(127)),
        ] {
            assert_eq!(left_out(base, now), expected, "{base} and {now}");
            assert_eq!(left_out(now, base), expected, "{now} and {base}");
        }
        let all: f64 = rank_sums(5, 5).iter().sum();
        assert!((all - 252.0).abs() < 1e-9);
        assert!(rank_sums(100, 100).iter().all(|count| count.is_finite()));
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        assert_eq!(of_medians(&[0.0, 0.0], &[1.0]), None);
        assert_eq!(of_medians(&[], &[]), None);
        assert_eq!(interval(&[0.0, 1.0, 1.0, 1.0, 1.0], &[1.0; 5], 2), None);
    }

    #[test]
    fn the_interval_holds_the_factor_as_often_as_it_says() {
        for (base, now) in [(4, 4), (5, 5), (8, 6)] {
            let out = left_out(base, now).expect("enough runs");
            let holds = (0..3_000).filter(|&number| {
                let mut draws = Normal::new(2, number);
                let mut side = |count, factor: f64| -> Vec<f64> {
                    let run = |_| (draws.next() * 0.1).exp() * factor;
                    (0..count).map(run).collect()
                };
                let (one, other) = (side(base, 1.0), side(now, 1.15));
                let (low, high) = interval(&one, &other, out).expect("above 0");
                low <= 1.15 && 1.15 <= high
            });
            let share = holds.count() as f64 / 3_000.0;
            assert!(share >= 0.94, "{base} and {now}: {share}");
        }
    }

    proptest! {
        #[test]
        fn a_common_factor_changes_nothing_and_sides_turned_round_turn_the_ratio(
            base in proptest::collection::vec(0.1_f64..1e6, 4..12), now in proptest::collection::vec(0.1_f64..1e6, 4..12),
            factor in 0.1_f64..10.0,
        ) {
            let near = |one: f64, other: f64| (one / other - 1.0).abs() < 1e-9;
            let ratio = of_medians(&base, &now).expect("above 0");
            let out = left_out(base.len(), now.len()).expect("enough");
            let (low, high) = interval(&base, &now, out).expect("above 0");
            prop_assert!(low <= high);
            let times: Vec<f64> = now.iter().map(|value| value * factor).collect();
            prop_assert!(near(of_medians(&base, &times).expect("above 0"), ratio * factor));
            prop_assert!(near(of_medians(&now, &base).expect("above 0"), 1.0 / ratio));
            let turned = interval(&now, &base, out).expect("above 0");
            prop_assert!(near(turned.0, 1.0 / high) && near(turned.1, 1.0 / low));
        }
    }
}
