//! Which rate to try next, and what all tries come to. Pure.
//!
//! Enters: the outcome of each try. Leaves: the rate of the next one, and at any time [`Found`]. Must not let the
//! luck of one try decide: a hiccup of the machine fails any rate, and a rate above the limit may pass once.
//!
//! What is known of the limit is a probability for each rate of a grid. Each try sharpens it by Bayes' rule, and the
//! next one goes where it is as likely below the limit as above: QUEST (Watson, Pelli, "QUEST: A Bayesian adaptive
//! psychometric method", Perception & Psychophysics 33, 1983) with rates for intensities. The interval is that
//! probability's. The answer leans on no model: it is read from a monotone fit over the tries themselves.

use std::collections::BTreeMap;

/// Largest rate of the grid, that of [`Rate`](crate::units::Rate) too.
const MAX_RATE: f64 = 1e7;
/// Distance of the grid's rates, as a logarithm.
const STEP: f64 = 0.005;
/// How sharp a limit is: the share that passes falls from nine in ten to one in ten within 4.4 of these, as logarithms.
const WIDTH: f64 = 0.015;
/// Chance that a try fails whatever its rate.
const HICCUP: f64 = 0.1;
/// Chance that one passes whatever its rate.
const LUCK: f64 = 0.02;
/// Probability that the limit lies in the interval.
pub(super) const CONFIDENCE: f64 = 0.9;
/// An interval as narrow as this share of its lower end ends the search; so does one of a single request a second.
const NARROW: f64 = 0.04;
/// Factor from the highest rate that passed to the next, while the limit may be anywhere above.
const CLIMB: f64 = 1.5;
/// The same downwards, while none passed.
const DESCENT: f64 = 3.0;
/// Rates closer than this, as logarithms, are tried as one, so that its tries add up.
const SAME: f64 = 0.0125;
/// A rate, or one above it, has to pass so often before it is an answer.
const CONFIRMATIONS: u32 = 2;
/// A search that is not narrow by then ends as it is.
pub(super) const MAX_TRIES: u32 = 40;

/// How a try ended, as far as a search cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Pass,
    /// The target was too slow.
    Missed,
    /// The generator was.
    Limited,
}

/// The tries of one rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) passed: u32,
    pub(super) missed: u32,
    pub(super) limited: u32,
}

impl Count {
    pub(super) fn tries(self) -> u32 {
        self.passed + self.missed + self.limited
    }
}

/// What stands above the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndedBy {
    /// Nothing failed there.
    Nothing,
    Target,
    /// Most of what failed there is the generator's: the target may hold more.
    Generator,
}

impl EndedBy {
    /// As in the JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Target => "target",
            Self::Generator => "generator",
        }
    }
}

/// What the tries come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    /// Highest rate tried that passes half of the time or more by the monotone fit, and passed twice, or one above it.
    pub(super) rate: Option<u64>,
    /// Where the limit lies, the answer included.
    pub(super) interval: (f64, f64),
    pub(super) ended_by: EndedBy,
}

/// A search for the highest rate that passes. Rates are whole numbers, because that is how the answer will be used.
pub(super) struct Search {
    start: u64,
    tried: BTreeMap<u64, Count>,
    /// The logarithm of the likelihood of a limit at each rate of the grid.
    likelihoods: Vec<f64>,
}

impl Search {
    pub(super) fn new(start: f64) -> Self {
        let grid = (MAX_RATE.ln() / STEP) as usize + 1;
        Self {
            start: whole(start),
            tried: BTreeMap::new(),
            likelihoods: vec![0.0; grid],
        }
    }

    /// Takes in the outcome of a try.
    pub(super) fn tried(&mut self, rate: u64, outcome: Outcome) {
        let count = self.tried.entry(rate).or_default();
        match outcome {
            Outcome::Pass => count.passed += 1,
            Outcome::Missed => count.missed += 1,
            Outcome::Limited => count.limited += 1,
        }
        let log_rate = (rate as f64).ln();
        for (place, likelihood) in self.likelihoods.iter_mut().enumerate() {
            let above = (log_rate - place as f64 * STEP) / WIDTH;
            let passes = LUCK + (1.0 - HICCUP - LUCK) / (1.0 + above.exp());
            let chance = if outcome == Outcome::Pass {
                passes
            } else {
                1.0 - passes
            };
            *likelihood += chance.ln();
        }
    }

    /// The rate to try next; `None`: the answer is as good as it gets.
    pub(super) fn next(&self) -> Option<u64> {
        let Some((&lowest, at_lowest)) = self.tried.first_key_value() else {
            return Some(self.start);
        };
        if self.tries() >= MAX_TRIES {
            return None;
        }
        let [low, median, high] = self.limit([0.5 - CONFIDENCE / 2.0, 0.5, 0.5 + CONFIDENCE / 2.0]);
        if is_narrow(low, high) {
            let passing = self.passing();
            let confirmed = passing.iter().rev().find(|rate| self.is_confirmed(**rate));
            if confirmed.is_some_and(|&rate| is_narrow(rate as f64, high)) {
                return None;
            }
            // What the fit says, it has to show twice.
            if let Some(&rate) = passing.iter().rev().find(|rate| !self.is_confirmed(**rate)) {
                return Some(rate);
            }
        }
        let best = self.tried.iter().rev().find(|(_, count)| count.passed > 0);
        let next = match best {
            Some((&best, _)) => median.min(best as f64 * CLIMB),
            None if lowest == 1 && at_lowest.tries() > 1 => return None,
            None => median.max(lowest as f64 / DESCENT),
        };
        Some(self.snapped(whole(next)))
    }

    /// What the tries come to so far.
    pub(super) fn found(&self) -> Found {
        let passing = self.passing();
        let rate = passing.iter().rev().find(|rate| self.is_confirmed(**rate));
        let [low, high] = self.limit([0.5 - CONFIDENCE / 2.0, 0.5 + CONFIDENCE / 2.0]);
        let answer = rate.map_or(low, |&rate| rate as f64);
        let above = self.tried.iter().filter(|(tried, _)| rate < Some(*tried));
        let (missed, limited) = above.fold((0, 0), |(missed, limited), (_, count)| {
            (missed + count.missed, limited + count.limited)
        });
        Found {
            rate: rate.copied(),
            interval: (low.min(answer), high.max(answer)),
            ended_by: match (missed, limited) {
                (0, 0) => EndedBy::Nothing,
                _ if limited > missed => EndedBy::Generator,
                _ => EndedBy::Target,
            },
        }
    }

    pub(super) fn tries(&self) -> u32 {
        self.tried.values().map(|count| count.tries()).sum()
    }

    fn is_confirmed(&self, rate: u64) -> bool {
        let passed = self.tried.range(rate..).map(|(_, count)| count.passed);
        passed.sum::<u32>() >= CONFIRMATIONS
    }

    /// Rates that pass half of the time or more, by the monotone fit; rising.
    fn passing(&self) -> Vec<u64> {
        let counts = self.tried.values();
        let counts: Vec<(u32, u32)> = counts.map(|count| (count.passed, count.tries())).collect();
        let shares = falling_fit(&counts);
        let rates = self.tried.keys().zip(shares);
        rates
            .filter(|(_, share)| *share >= 0.5)
            .map(|(&rate, _)| rate)
            .collect()
    }

    /// The rates below which the limit lies with these probabilities.
    fn limit<const N: usize>(&self, probabilities: [f64; N]) -> [f64; N] {
        let largest = self.likelihoods.iter().copied();
        let largest = largest.fold(f64::NEG_INFINITY, f64::max);
        let mut sum = 0.0;
        let sums = self.likelihoods.iter().map(|likelihood| {
            sum += (likelihood - largest).exp();
            sum
        });
        let sums: Vec<f64> = sums.collect();
        probabilities.map(|probability| {
            let place = sums.partition_point(|below| *below < probability * sum);
            (place as f64 * STEP).exp()
        })
    }

    /// A rate that was tried already, if one is close.
    fn snapped(&self, rate: u64) -> u64 {
        let distance = |tried: u64| (tried as f64 / rate as f64).ln().abs();
        let close = self.tried.keys().copied();
        let close = close.filter(|&tried| distance(tried) <= SAME);
        close
            .min_by(|a, b| distance(*a).total_cmp(&distance(*b)))
            .unwrap_or(rate)
    }
}

fn whole(rate: f64) -> u64 {
    rate.round().clamp(1.0, MAX_RATE) as u64
}

fn is_narrow(low: f64, high: f64) -> bool {
    high / low <= 1.0 + NARROW || high - low <= 1.0
}

/// The shares that fit best, by least squares, among those that never rise: adjacent ones that do are pooled (Ayer,
/// Brunk, Ewing, Reid, Silverman, "An Empirical Distribution Function for Sampling with Incomplete Information", Annals
/// of Mathematical Statistics 26, 1955). Each count is passes out of tries, of rising rates.
pub(super) fn falling_fit(counts: &[(u32, u32)]) -> Vec<f64> {
    let share = |(passed, tries, _): (u32, u32, usize)| f64::from(passed) / f64::from(tries.max(1));
    let mut pools: Vec<(u32, u32, usize)> = Vec::new();
    for &(passed, tries) in counts {
        let mut pool = (passed, tries, 1);
        while let Some(&below) = pools.last()
            && share(below) < share(pool)
        {
            pool = (pool.0 + below.0, pool.1 + below.1, pool.2 + below.2);
            pools.pop();
        }
        pools.push(pool);
    }
    let shares = pools
        .into_iter()
        .flat_map(|pool| std::iter::repeat_n(share(pool), pool.2));
    shares.collect()
}

#[cfg(test)]
mod tests;
