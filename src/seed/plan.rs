//! The plan of a load: which indexes go into which batch. Pure.
//!
//! Enters: the number of keys and the size of a batch. Leaves: ranges of indexes, each exactly once, in
//! ascending order, which the embedded store writes fastest.

use std::ops::Range;

use crate::units::KeyCount;

/// The ranges of `0..keys`, `batch` indexes at a time; the last may be shorter.
///
/// # Panics
/// When `batch` is 0.
pub fn batches(keys: KeyCount, batch: u32) -> impl Iterator<Item = Range<u64>> {
    let keys = keys.get();
    let step = u64::from(batch);
    (0..keys.div_ceil(step)).map(move |number| number * step..((number + 1) * step).min(keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_index_is_in_exactly_one_batch(keys in 1_u64..5_000, batch in 1_u32..700) {
            let keys = KeyCount::new(keys).expect("in range");
            let mut next = 0;
            for range in batches(keys, batch) {
                prop_assert_eq!(range.start, next);
                prop_assert!(!range.is_empty() && range.end - range.start <= u64::from(batch));
                next = range.end;
            }
            prop_assert_eq!(next, keys.get());
        }
    }
}
