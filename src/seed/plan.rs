//! The plan of a load: which indexes go into which batch, how far it has come, when it is tried again. Pure.
//!
//! Enters: ranges of indexes, and numbers of attempts. Leaves: batches in ascending order, which the embedded
//! store writes fastest; the index below which all is acknowledged; waits. Must not know the clock.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::random::{below, splitmix64};

/// The first wait; each further one is twice as long, up to sixteen times this.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const MAX_DOUBLINGS: u32 = 4;

/// The ranges of `indexes`, `batch` of them at a time; the last may be shorter.
///
/// # Panics
/// When `batch` is 0.
pub fn batches(indexes: Range<u64>, batch: u32) -> impl Iterator<Item = Range<u64>> {
    let step = u64::from(batch);
    let count = indexes.end.saturating_sub(indexes.start).div_ceil(step);
    (0..count).map(move |number| {
        let start = indexes.start + number * step;
        start..(start + step).min(indexes.end)
    })
}

/// How long to wait after failed attempt number `attempt`, from 0 on: at least half of the doubling wait, and
/// otherwise drawn, so that batches which failed together do not come back together.
#[must_use]
pub fn wait(attempt: u32, first_index: u64) -> Duration {
    let longest = FIRST_WAIT * (1 << attempt.min(MAX_DOUBLINGS));
    let half_us = longest.as_micros() as u64 / 2;
    let bits = splitmix64(first_index, attempt.into());
    Duration::from_micros(half_us + below(bits, half_us))
}

/// How far a load has come, although its batches are acknowledged out of order.
#[derive(Debug)]
pub struct Watermark {
    reached: u64,
    /// Acknowledged ranges beyond a gap, by their start.
    ahead: BTreeMap<u64, u64>,
}

impl Watermark {
    /// Everything below `start` is acknowledged already.
    #[must_use]
    pub fn new(start: u64) -> Self {
        Self {
            reached: start,
            ahead: BTreeMap::new(),
        }
    }

    /// Notes that all of `indexes`, none of which was noted before, are acknowledged.
    pub fn acknowledge(&mut self, indexes: Range<u64>) {
        self.ahead.insert(indexes.start, indexes.end);
        while let Some(end) = self.ahead.remove(&self.reached) {
            self.reached = end;
        }
    }

    /// All indexes below this one are acknowledged.
    #[must_use]
    pub fn reached(&self) -> u64 {
        self.reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_a_limit_and_differ() {
        for attempt in 0..40 {
            let longest = FIRST_WAIT * (1 << attempt.min(4));
            let (one, other) = (wait(attempt, 0), wait(attempt, 256));
            assert!(one >= longest / 2 && one < longest, "{attempt}: {one:?}");
            assert_ne!(one, other);
        }
    }

    proptest! {
        #[test]
        fn every_index_is_in_exactly_one_batch(
            start in 0_u64..1_000, keys in 0_u64..5_000, batch in 1_u32..700,
        ) {
            let mut next = start;
            for range in batches(start..start + keys, batch) {
                prop_assert_eq!(range.start, next);
                prop_assert!(!range.is_empty() && range.end - range.start <= u64::from(batch));
                next = range.end;
            }
            prop_assert_eq!(next, start + keys);
        }

        #[test]
        fn the_watermark_never_passes_a_gap(
            order in Just((0..20_u64).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut watermark = Watermark::new(100);
            let mut acknowledged = std::collections::BTreeSet::new();
            for number in order {
                let start = 100 + number * 7;
                watermark.acknowledge(start..start + 7);
                acknowledged.insert(number);
                let without_gap = (0..20).take_while(|number| acknowledged.contains(number)).count();
                prop_assert_eq!(watermark.reached(), 100 + without_gap as u64 * 7);
            }
        }
    }
}
