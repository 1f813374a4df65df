//! What several runs say together, and what is no more than chance. Pure: no clock, no file.
//!
//! Enters: figures of whole runs, or of seconds. Leaves: medians with intervals, ratios, probabilities. Must not take
//! requests for independent: those of one run share its hour, its connections and its queue, so a run is the unit.

pub mod permutation;
pub mod ratio;
pub mod spread;

/// Sorted in place, and its median: of an even number the mean of the two in the middle. 0 for none.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
pub(super) mod simulated {
    //! Draws for the simulations: the same each time.

    use rand_distr::{Distribution as _, StandardNormal};

    use crate::random::{Draws, splitmix64};

    /// Normal numbers from one seed.
    pub(in crate::bench::judge) struct Normal(Draws);

    impl Normal {
        pub(in crate::bench::judge) fn new(seed: u64, number: u64) -> Self {
            Self(Draws::new(splitmix64(seed, number)))
        }

        pub(in crate::bench::judge) fn next(&mut self) -> f64 {
            StandardNormal.sample(&mut self.0)
        }
    }
}
