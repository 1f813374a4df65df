//! Do latencies depend on when their arrivals were due? Pure.
//!
//! Enters: the latencies of two parts of a stage. Leaves: whether they differ by more than chance. Must not find a
//! difference in independent latencies of one distribution, whatever it is, nor miss one that only a few of them have.

use hdrhistogram::Histogram;

/// Nats of evidence: of independent latencies, one comparison in a million has so much. Some ten of those that are made
/// over all bounds tell something new.
const MIN_EVIDENCE: f64 = 14.0;

/// Whether of the values above some bound, which is at least `from_us`, the later part has more or fewer than is its due.
///
/// Of values of one distribution each is a late one with the probability of the late part's size. The bound of Chernoff
/// (Annals of Mathematical Statistics 23, 1952) says how unlikely any other share is; it holds for few values too.
pub(super) fn differ(early: &Histogram<u64>, late: &Histogram<u64>, from_us: u64) -> bool {
    let (early_count, late_count) = (early.len() as f64, late.len() as f64);
    if early_count == 0.0 || late_count == 0.0 {
        return false;
    }
    let due_share = late_count / (early_count + late_count);
    let (mut late_above, mut above) = (0.0, 0.0);
    for (late_here, here) in from_the_top(early, late, from_us) {
        late_above += late_here;
        above += here;
        if above * divergence(late_above / above, due_share) >= MIN_EVIDENCE {
            return true;
        }
    }
    false
}

/// Counts of each value from the highest down to `from_us`: late ones, and both.
fn from_the_top(early: &Histogram<u64>, late: &Histogram<u64>, from_us: u64) -> Vec<(f64, f64)> {
    let counts = |of: &Histogram<u64>| -> Vec<(u64, f64)> {
        let values = of.iter_recorded().map(|value| {
            (
                value.value_iterated_to(),
                value.count_since_last_iteration() as f64,
            )
        });
        values.filter(|(value, _)| *value >= from_us).collect()
    };
    let (mut early, mut late) = (counts(early), counts(late));
    let mut found = Vec::with_capacity(early.len() + late.len());
    let highest = |of: &[(u64, f64)]| of.last().map(|one| one.0);
    while let Some(value) = highest(&early).max(highest(&late)) {
        let take = |of: &mut Vec<(u64, f64)>| {
            let here = of.pop_if(|one| one.0 == value);
            here.map_or(0.0, |one| one.1)
        };
        let (early_here, late_here) = (take(&mut early), take(&mut late));
        found.push((late_here, early_here + late_here));
    }
    found
}

/// Of a share against the probability that it should have (Kullback and Leibler), in nats.
fn divergence(share: f64, probability: f64) -> f64 {
    let term = |share: f64, probability: f64| {
        if share > 0.0 {
            share * (share / probability).ln()
        } else {
            0.0
        }
    };
    term(share, probability) + term(1.0 - share, 1.0 - probability)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::judge::histogram::histogram;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = histogram();
        for value in values {
            histogram.record(value).expect("it grows");
        }
        histogram
    }

    #[test]
    fn parts_differ_when_few_values_do_and_not_by_their_sizes() {
        let steady = || (0..1_000).map(|n| n % 100);
        for (early, late, from_us, expected) in [
            (of(steady()), of(steady()), 0, false),
            (of(steady()), of(steady().take(100)), 0, false),
            (of(steady()), of(steady().map(|value| value + 50)), 0, true),
            // One in twenty, and all of those are late.
            (
                of(steady()),
                of(steady().map(|value| if value < 5 { 5_000 } else { value })),
                0,
                true,
            ),
            // Or early.
            (
                of(steady().map(|value| if value < 5 { 5_000 } else { value })),
                of(steady()),
                1_000,
                true,
            ),
            // What is below the bound does not count.
            (
                of(steady()),
                of(steady().map(|value| value + 50)),
                200,
                false,
            ),
            (of([]), of(steady()), 0, false),
            (of(steady()), of([]), 0, false),
            // Too few to tell.
            (of([1; 25]), of([2; 25]), 0, true),
            (of([1; 5]), of([2; 5]), 0, false),
        ] {
            assert_eq!(differ(&early, &late, from_us), expected);
        }
    }
}
