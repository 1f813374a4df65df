//! Latencies of one thread, which others may read at any time. Pure, but for the atomics.
//!
//! Enters: durations. Leaves: counts, percentiles and cumulative buckets. Must not lock, and must be written
//! by one thread only: an increment is a load and a store.
//!
//! Buckets are log-linear after Tene's `HdrHistogram`: exact microseconds below 32, then 32 buckets for each
//! doubling, so that a percentile is read at most 1/32 too high.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const SUB_BITS: u32 = 5;
const SUB: usize = 1 << SUB_BITS;
/// Doublings beyond the exact part: up to 2^26 µs, 67 s; whatever takes longer is counted there.
const DOUBLINGS: usize = 21;
const BUCKETS: usize = SUB * (DOUBLINGS + 1);
/// The powers of two, in microseconds, that a scraper is told about: 64 µs to 8.4 s.
pub(super) const BOUNDS_LOG2: std::ops::RangeInclusive<u32> = 6..=23;

/// Adds to a counter that only this thread writes.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(amount), Relaxed);
}

/// Counts by duration, of one thread.
pub(super) struct Latency {
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum_us: AtomicU64::new(0),
        }
    }
}

impl Latency {
    pub(super) fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        add(&self.counts[bucket(us)], 1);
        add(&self.sum_us, us);
    }
}

/// The sum of several [`Latency`], at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Merged {
    counts: Vec<u64>,
    pub(super) sum_us: u64,
}

impl Default for Merged {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            sum_us: 0,
        }
    }
}

impl Merged {
    pub(super) fn add(&mut self, latency: &Latency) {
        for (sum, count) in self.counts.iter_mut().zip(&latency.counts) {
            *sum += count.load(Relaxed);
        }
        self.sum_us += latency.sum_us.load(Relaxed);
    }

    pub(super) fn absorb(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
        self.sum_us += other.sum_us;
    }

    /// What came after `earlier`, a sum of the same latencies.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let pairs = self.counts.iter().zip(&earlier.counts);
        Self {
            counts: pairs.map(|(now, then)| now.saturating_sub(*then)).collect(),
            sum_us: self.sum_us.saturating_sub(earlier.sum_us),
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The duration that a share of `quantile` does not exceed, in microseconds; `None` without any.
    pub(super) fn quantile_us(&self, quantile: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        self.counts.iter().enumerate().find_map(|(index, &count)| {
            seen += count;
            (seen >= rank && count > 0).then(|| highest_us(index))
        })
    }

    /// How many took less than each of the bounds and at least the one before, then how many took longer.
    pub(super) fn by_bound(&self) -> Vec<(f64, u64)> {
        let mut from = 0;
        let mut bounds: Vec<(f64, u64)> = BOUNDS_LOG2
            .map(|log2| {
                let to = bucket(1 << log2);
                let count = self.counts[from..to].iter().sum();
                from = to;
                ((1_u64 << log2) as f64 / 1e6, count)
            })
            .collect();
        bounds.push((f64::INFINITY, self.counts[from..].iter().sum()));
        bounds
    }
}

fn bucket(us: u64) -> usize {
    if us < SUB as u64 {
        return us as usize;
    }
    let log2 = us.ilog2();
    let doubling = (log2 - SUB_BITS) as usize + 1;
    let place = (us >> (log2 - SUB_BITS)) as usize & (SUB - 1);
    (doubling * SUB + place).min(BUCKETS - 1)
}

/// The longest duration that a bucket holds.
fn highest_us(index: usize) -> u64 {
    let doubling = index / SUB;
    if doubling == 0 {
        return index as u64;
    }
    let width = 1 << (doubling - 1);
    ((SUB + index % SUB) as u64 + 1) * width - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn merged(durations_us: &[u64]) -> Merged {
        let latency = Latency::default();
        for &us in durations_us {
            latency.record(Duration::from_micros(us));
        }
        let mut merged = Merged::default();
        merged.add(&latency);
        merged
    }

    #[test]
    fn quantiles_are_read_off_the_buckets() {
        let latencies = merged(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 1_000]);
        assert_eq!(latencies.quantile_us(0.5), Some(5));
        assert_eq!(latencies.quantile_us(0.9), Some(9));
        let top = latencies.quantile_us(0.99).expect("some");
        assert!((1_000..1_032).contains(&top), "{top}");
        assert_eq!(merged(&[]).quantile_us(0.5), None);
    }

    #[test]
    fn bounds_hold_every_duration_once() {
        let latencies = merged(&[0, 63, 64, 127, 128, 8_388_607, 8_388_608, u64::MAX]);
        let bounds = latencies.by_bound();
        assert_eq!(bounds[0], (0.000_064, 2));
        assert_eq!(bounds[1], (0.000_128, 2));
        assert_eq!(bounds[2], (0.000_256, 1));
        assert_eq!(bounds.last(), Some(&(f64::INFINITY, 2)));
        assert_eq!(bounds.iter().map(|bound| bound.1).sum::<u64>(), 8);
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let (all, early) = (merged(&[1, 2, 500]), merged(&[1]));
        assert_eq!(all.since(&early), merged(&[2, 500]));
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_duration_within_a_32nd(us in 0_u64..60_000_000) {
            let highest = highest_us(bucket(us));
            prop_assert!(highest >= us && highest <= us + us / 32, "{} {}", us, highest);
        }
    }
}
