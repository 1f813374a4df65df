//! Deterministic numbers: the same seed gives the same dataset and the same choice of keys, everywhere.
//!
//! Enters: a seed and a position. Leaves: 64 well-mixed bits, or an index below a bound.
//! Must not hold state: every number is a function of its position, so that any part of a sequence
//! can be computed alone, by any worker, in any order.

use std::convert::Infallible;

use rand_core::TryRng;

/// 2^64 divided by the golden ratio: the increment of `SplitMix64`.
const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// Number `position` of the `SplitMix64` sequence that starts at `seed`.
///
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014), with the
/// constants of Vigna's `splitmix64.c`.
#[must_use]
pub fn splitmix64(seed: u64, position: u64) -> u64 {
    let mut z = seed.wrapping_add(position.wrapping_add(1).wrapping_mul(GOLDEN_GAMMA));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Maps 64 uniform bits to `0..bound` by multiply-shift; the bias is below `bound / 2^64`.
///
/// Source: Lemire, "Fast random integer generation in an interval" (2019), without the rejection step.
#[must_use]
pub fn below(bits: u64, bound: u64) -> u64 {
    debug_assert!(bound > 0);
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

/// Whether 64 uniform bits fall into a share, 0 to 1, of all that there are; exact to 2^-53.
#[must_use]
pub fn chance(bits: u64, share: f64) -> bool {
    ((bits >> 11) as f64) < share * (1_u64 << 53) as f64
}

/// As many numbers as one draw from a distribution may need, all from one seed.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    seed: u64,
    place: u64,
}

impl Draws {
    /// From the first.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, place: 0 }
    }
}

impl TryRng for Draws {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|bits| (bits >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.place += 1;
        Ok(splitmix64(self.seed, self.place))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let word = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

/// In which order the indexes of a load are written: position → index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they are.
    Ascending,
    /// As if shuffled, the same for the same seed and count.
    Shuffled {
        /// How many indexes there are.
        keys: u64,
        /// What the order follows from.
        seed: u64,
    },
}

impl Order {
    /// The index at a position below the number of keys; each index has exactly one position.
    ///
    /// A Feistel network over the next even number of bits, walked until it lands below the count: Black and
    /// Rogaway, "Ciphers with Arbitrary Finite Domains" (CT-RSA 2002).
    #[must_use]
    pub fn index(self, position: u64) -> u64 {
        let Self::Shuffled { keys, seed } = self else {
            return position;
        };
        debug_assert!(position < keys);
        let bits = u64::BITS - keys.saturating_sub(1).leading_zeros();
        let half = bits.div_ceil(2).max(1);
        let mask = (1_u64 << half) - 1;
        let mut value = position;
        loop {
            let (mut left, mut right) = (value >> half, value & mask);
            for round in 0..ROUNDS {
                let mixed = splitmix64(seed ^ (round << 56), right) & mask;
                (left, right) = (right, left ^ mixed);
            }
            value = (left << half) | right;
            // At most three in four land outside.
            if value < keys {
                return value;
            }
        }
    }
}

/// Enough for an order without a pattern; it keeps no secret.
const ROUNDS: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_published_splitmix64_sequence() {
        // First outputs of Vigna's splitmix64.c for the seed 1234567.
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        for (position, value) in expected.into_iter().enumerate() {
            assert_eq!(splitmix64(1_234_567, position as u64), value);
        }
    }

    #[test]
    fn a_share_of_nothing_never_comes_and_of_all_always() {
        for bits in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(!chance(bits, 0.0));
            assert!(chance(bits, 1.0));
        }
        assert!(chance(u64::MAX / 2, 0.5) && !chance(u64::MAX / 2 + 1, 0.5));
    }

    #[test]
    fn below_stays_below_and_reaches_both_ends() {
        assert_eq!(below(0, 10), 0);
        assert_eq!(below(u64::MAX, 10), 9);
        assert_eq!(below(u64::MAX, 1), 0);
    }

    proptest::proptest! {
        #[test]
        fn every_index_has_one_position_in_every_order(keys in 1_u64..3_000, seed: u64) {
            let order = Order::Shuffled { keys, seed };
            let mut indexes: Vec<u64> = (0..keys).map(|position| order.index(position)).collect();
            let again: Vec<u64> = (0..keys).map(|position| order.index(position)).collect();
            proptest::prop_assert_eq!(&indexes, &again);
            if keys > 100 {
                proptest::prop_assert!(!indexes.is_sorted());
            }
            indexes.sort_unstable();
            proptest::prop_assert!(indexes.into_iter().eq(0..keys));
        }
    }
}
