//! Which index a draw gives. Pure: a function of the seed and the place of the draw.
//!
//! Enters: a distribution and the number of keys. Leaves: indexes below it.

use std::convert::Infallible;

use rand_core::TryRng;
use rand_distr::{Distribution as _, Zipf};

use crate::load::KeysDist;
use crate::random::{below, chance, splitmix64};
use crate::units::KeyCount;

/// Scatters the ranks of a Zipf distribution over the dataset, the same way for every seed.
const SCATTER_SEED: u64 = 0xD15_7A17;

/// Draws indexes.
#[derive(Debug, Clone)]
pub struct Chooser {
    keys: u64,
    method: Method,
}

#[derive(Debug, Clone)]
enum Method {
    Uniform,
    Zipf(Zipf<f64>),
    Hot { keys: u64, draws: f64 },
    Sequential,
}

impl Chooser {
    /// Draws from `0..keys`.
    #[must_use]
    pub fn new(dist: KeysDist, keys: KeyCount) -> Self {
        let keys = keys.get();
        let method = match dist {
            KeysDist::Uniform => Method::Uniform,
            KeysDist::Sequential => Method::Sequential,
            KeysDist::Zipf { exponent } => Method::Zipf(
                Zipf::new(keys as f64, exponent).expect("the exponent and the count are positive"),
            ),
            KeysDist::Hot { keys: share, draws } => Method::Hot {
                keys: ((keys as f64 * share) as u64).max(1),
                draws,
            },
        };
        Self { keys, method }
    }

    /// The index that draw `place` gives.
    #[must_use]
    pub fn index(&self, seed: u64, place: u64) -> u64 {
        let bits = splitmix64(seed, place);
        match &self.method {
            Method::Uniform => below(bits, self.keys),
            Method::Sequential => place % self.keys,
            Method::Hot { keys, draws } => {
                let hot = chance(bits, *draws);
                let bits = splitmix64(bits, 0);
                if hot || *keys == self.keys {
                    below(bits, *keys)
                } else {
                    keys + below(bits, self.keys - keys)
                }
            }
            Method::Zipf(zipf) => {
                let rank = zipf.sample(&mut Draws {
                    seed: bits,
                    place: 0,
                }) as u64;
                below(splitmix64(SCATTER_SEED, rank), self.keys)
            }
        }
    }
}

/// As many numbers as one draw may need.
struct Draws {
    seed: u64,
    place: u64,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(dist: &str, keys: u64, draws: u64) -> Vec<u64> {
        let chooser = Chooser::new(
            dist.parse().expect("a distribution"),
            KeyCount::new(keys).expect("in range"),
        );
        let mut counts = vec![0; keys as usize];
        for place in 0..draws {
            counts[chooser.index(1, place) as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_draws_reach_every_key_alike() {
        // Expected 15,000 each, with a standard deviation of about 116.
        let counts = counts("uniform", 10, 150_000);
        assert!(
            counts.iter().all(|count| (14_300..15_700).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn sequential_draws_go_round() {
        assert_eq!(counts("sequential", 7, 21), [3; 7]);
    }

    #[test]
    fn hot_keys_get_their_share() {
        let counts = counts("hot:0.01/0.9", 1_000, 100_000);
        let hot: u64 = counts[..10].iter().sum();
        assert!((89_000..91_000).contains(&hot), "{hot}");
        assert!(counts[10..].iter().any(|&count| count > 0));
    }

    #[test]
    fn zipf_draws_fall_off_with_their_rank() {
        for exponent in [0.99, 1.21] {
            let mut counts = counts(&format!("zipf:{exponent}"), 1_000, 200_000);
            counts.sort_unstable_by(|a, b| b.cmp(a));
            let weights: f64 = (1..=1_000)
                .map(|rank| f64::from(rank).powf(-exponent))
                .sum();
            let expected = 200_000.0 / weights;
            // Scattering may lay a few ranks on one key, but hardly on the first of all.
            let first = counts[0] as f64;
            assert!(
                first > expected * 0.95 && first < expected * 1.3,
                "{first} {expected}"
            );
            assert!(counts[0] > counts[50] * 10);
        }
    }
}
