//! Which index a draw gives. Pure: a function of the seed and the place of the draw.
//!
//! Enters: a distribution and the number of keys. Leaves: indexes below it.

use rand_distr::{Distribution as _, Zipf};

use crate::load::KeysDist;
use crate::random::{Draws, Order, below, chance, splitmix64};
use crate::units::KeyCount;

/// Scatters the ranks of a Zipf distribution over the dataset, the same way for every seed: generators and runs
/// agree on which keys are hot.
const SCATTER_SEED: u64 = 0xD15_7A17;
/// Nearer to 1 than this, an exponent is taken for 1: the sampler divides by the difference. Over all key counts
/// that are allowed, it changes no weight by more than a millionth.
const NEAR_ONE: f64 = 1e-8;

/// Draws indexes.
#[derive(Debug, Clone)]
pub struct Chooser {
    keys: u64,
    method: Method,
}

#[derive(Debug, Clone)]
enum Method {
    Uniform,
    /// Ranks from 1, and the index that each of them has.
    Zipf {
        ranks: Zipf<f64>,
        order: Order,
    },
    Hot {
        keys: u64,
        draws: f64,
    },
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
            KeysDist::Zipf { exponent } => Method::Zipf {
                ranks: ranks(keys, exponent),
                order: Order::Shuffled {
                    keys,
                    seed: SCATTER_SEED,
                },
            },
            KeysDist::Hot { keys: share, draws } => Method::Hot {
                keys: ((keys as f64 * share) as u64).max(1),
                draws,
            },
        };
        Self { keys, method }
    }

    /// Whether so many draws give an index twice often enough to be seen in the store's counters: in more than one key of
    /// 10,000.
    #[must_use]
    pub fn repeats(&self, draws: u32) -> bool {
        match self.method {
            Method::Sequential => u64::from(draws) > self.keys,
            // Of n draws from k keys, n² / 2k repeat another, which is n / 2k of them.
            Method::Uniform => f64::from(draws) / (2.0 * self.keys as f64) > 1e-4,
            Method::Zipf { .. } | Method::Hot { .. } => draws > 1,
        }
    }

    /// The index that draw `place` gives. Inlined, as it is drawn twice for each key: to ask for it and to judge the answer.
    #[must_use]
    #[inline]
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
            Method::Zipf { ranks, order } => {
                let rank = ranks.sample(&mut Draws::new(bits));
                // Rounding takes the sampler one past the last rank, if hardly ever.
                order.index((rank as u64).clamp(1, self.keys) - 1)
            }
        }
    }
}

fn ranks(keys: u64, exponent: f64) -> Zipf<f64> {
    let exponent = if (exponent - 1.0).abs() < NEAR_ONE {
        1.0
    } else {
        exponent
    };
    Zipf::new(keys as f64, exponent).expect("the exponent and the count are positive")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(dist: KeysDist, keys: u64, draws: u64) -> Vec<u64> {
        let chooser = Chooser::new(dist, KeyCount::new(keys).expect("in range"));
        let mut counts = vec![0; keys as usize];
        for place in 0..draws {
            counts[chooser.index(1, place) as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_draws_reach_every_key_alike() {
        // Expected 15,000 each, with a standard deviation of about 116.
        let counts = counts(KeysDist::Uniform, 10, 150_000);
        assert!(
            counts.iter().all(|count| (14_300..15_700).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn sequential_draws_go_round() {
        assert_eq!(counts(KeysDist::Sequential, 7, 21), [3; 7]);
    }

    #[test]
    fn hot_keys_get_their_share() {
        let counts = counts(
            "hot:0.01/0.9".parse().expect("a distribution"),
            1_000,
            100_000,
        );
        let hot: u64 = counts[..10].iter().sum();
        assert!((89_000..91_000).contains(&hot), "{hot}");
        assert!(counts[10..].iter().any(|&count| count > 0));
    }

    /// Each rank by itself up to this one, then by the decade.
    const FIRST_RANKS: usize = 20;

    /// Sums the first ranks one by one, and decades of those behind them.
    fn grouped<T: Copy + std::iter::Sum<T>>(by_rank: &[T]) -> Vec<T> {
        let mut groups: Vec<T> = by_rank.iter().take(FIRST_RANKS).copied().collect();
        let (mut start, mut end) = (FIRST_RANKS, 100);
        while start < by_rank.len() {
            let decade = &by_rank[start..end.min(by_rank.len())];
            groups.push(decade.iter().copied().sum());
            (start, end) = (end, end * 10);
        }
        groups
    }

    fn order(chooser: &Chooser) -> Order {
        match &chooser.method {
            Method::Zipf { order, .. } => *order,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn zipf_draws_have_the_weights_of_their_ranks() {
        const DRAWS: u64 = 100_000;
        // Just beside 1, where the sampler would divide by next to nothing, and just outside that.
        for exponent in [0.5, 0.99, 1.0 - 1e-12, 1.0, 1.0 + 1e-7, 1.21, 2.0, 10.0] {
            for keys in [1, 2, 50, 1_000, 300_000] {
                let dist = KeysDist::Zipf { exponent };
                let chooser = Chooser::new(dist, KeyCount::new(keys).expect("in range"));
                let by_index = counts(dist, keys, DRAWS);
                let by_rank: Vec<u64> = (0..keys)
                    .map(|rank| by_index[order(&chooser).index(rank) as usize])
                    .collect();
                let weights: Vec<f64> = (1..=keys)
                    .map(|rank| (rank as f64).powf(-exponent))
                    .collect();
                let all: f64 = weights.iter().sum();
                let (found, weights) = (grouped(&by_rank), grouped(&weights));
                // Pearson's statistic, over the groups that are large enough for it. Its mean is their number,
                // its variance twice that.
                let terms = found.iter().zip(&weights).filter_map(|(&found, weight)| {
                    let expected = weight / all * DRAWS as f64;
                    (expected >= 10.0).then(|| (found as f64 - expected).powi(2) / expected)
                });
                let terms: Vec<f64> = terms.collect();
                let (sum, groups) = (terms.iter().sum::<f64>(), terms.len() as f64);
                assert!(
                    sum < groups + 4.0 * (2.0 * groups).sqrt(),
                    "zipf:{exponent} of {keys} keys: {sum} over {groups} groups: {found:?}"
                );
            }
        }
    }

    #[test]
    fn every_rank_has_an_index_of_its_own() {
        for keys in [1, 2, 3, 1_000, 65_536, 1_000_000] {
            let chooser = Chooser::new(
                "zipf:0.99".parse().expect("a distribution"),
                KeyCount::new(keys).expect("in range"),
            );
            let mut seen = vec![false; keys as usize];
            (0..keys).for_each(|rank| seen[order(&chooser).index(rank) as usize] = true);
            assert!(seen.into_iter().all(|seen| seen), "{keys}");
        }
    }

    #[test]
    fn zipf_draws_reach_every_key() {
        // Of the last rank, 80 are expected.
        let counts = counts("zipf:0.5".parse().expect("a distribution"), 500, 100_000);
        assert!(counts.iter().all(|&count| count > 30), "{counts:?}");
    }

    #[test]
    fn hot_keys_are_the_same_for_every_seed_and_lie_apart() {
        let chooser = Chooser::new(
            "zipf:2".parse().expect("a distribution"),
            KeyCount::new(1_000_000).expect("in range"),
        );
        let hottest = |seed| {
            let mut counts = std::collections::BTreeMap::new();
            (0..1_000).for_each(|place| {
                *counts.entry(chooser.index(seed, place)).or_insert(0) += 1;
            });
            let mut counts: Vec<(u64, i32)> = counts.into_iter().collect();
            counts.sort_by_key(|&(_, count)| -count);
            [counts[0].0, counts[1].0]
        };
        let [first, second] = hottest(1);
        assert_eq!(hottest(2), [first, second]);
        assert!(first.abs_diff(second) > 1, "{first} {second}");
    }
}
