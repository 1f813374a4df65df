use super::*;
use crate::random::splitmix64;
use proptest::prelude::*;

/// A target with a limit, on a machine of which `hiccups` of the tries fail by themselves. Just above its limit it
/// passes now and then.
struct Target {
    limit: f64,
    hiccups: f64,
    seed: u64,
    tries: u64,
}

impl Target {
    fn draw(&mut self) -> f64 {
        self.tries += 1;
        (splitmix64(self.seed, self.tries) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn passes(&mut self, rate: u64) -> bool {
        let lucky = self.draw() < 0.5 && rate as f64 <= self.limit * 1.02;
        (rate as f64 <= self.limit || lucky) && self.draw() >= self.hiccups
    }
}

fn searched(start: f64, mut target: Target, above: Outcome) -> Search {
    let mut search = Search::new(start);
    while let Some(rate) = search.next() {
        let passed = target.passes(rate);
        search.tried(rate, if passed { Outcome::Pass } else { above });
    }
    search
}

fn target(limit: f64, hiccups: f64, seed: u64) -> Target {
    Target {
        limit,
        hiccups,
        seed,
        tries: 0,
    }
}

#[test]
fn the_limit_is_found_in_spite_of_hiccups_and_luck() {
    const SEEDS: u64 = 200;
    let spread = |bits: u64| 50.0 * 4_000.0_f64.powf((bits >> 11) as f64 / (1_u64 << 53) as f64);
    let (mut good, mut inside, mut tries) = (0, 0, 0);
    for seed in 0..SEEDS {
        let [start, limit] = [1, 2].map(|number| spread(splitmix64(seed, number)));
        let search = searched(start, target(limit, 0.1, seed), Outcome::Missed);
        let found = search.found();
        let rate = found.rate.unwrap_or(0) as f64;
        good += u64::from((rate / limit - 1.0).abs() <= 0.04);
        inside += u64::from((found.interval.0..=found.interval.1).contains(&limit));
        tries += u64::from(search.tries());
    }
    assert!(good >= SEEDS * 95 / 100, "{good} of {SEEDS} within 4 %");
    assert!(inside >= SEEDS * 80 / 100, "{inside} of {SEEDS} inside");
    assert!(tries <= SEEDS * 26, "{tries} tries");
}

#[test]
fn a_sharp_limit_is_found_from_any_side_to_the_single_request() {
    for (start, limit) in [
        (1_000.0, 30_000.0),
        (100_000.0, 30_000.0),
        (30_000.0, 30_000.0),
        (0.2, 3.0),
        (20_000.0, 1.0),
        (5_000_000.0, 9_999_999.0),
    ] {
        let sharp = |rate: u64| rate as f64 <= limit;
        let mut search = Search::new(start);
        while let Some(rate) = search.next() {
            let outcome = if sharp(rate) {
                Outcome::Pass
            } else {
                Outcome::Missed
            };
            search.tried(rate, outcome);
        }
        let found = search.found();
        let rate = found.rate.expect("a rate") as f64;
        assert!(rate <= limit && rate >= limit * 0.95 - 1.0, "{found:?}");
    }
}

#[test]
fn a_single_failure_does_not_stop_the_climb() {
    let mut search = Search::new(1_000.0);
    for rate in [1_000, 1_500, 2_250] {
        assert_eq!(search.next(), Some(rate));
        search.tried(rate, Outcome::Pass);
    }
    search.tried(3_375, Outcome::Missed);
    // As likely a hiccup as a limit below it, and so it is tried once more.
    assert_eq!(search.next(), Some(3_375));
    search.tried(3_375, Outcome::Missed);
    assert!((2_251..3_300).contains(&search.next().expect("a rate")));
}

#[test]
fn where_nothing_passes_there_is_no_answer_and_the_search_ends() {
    let search = searched(1_000.0, target(0.0, 0.0, 1), Outcome::Missed);
    assert_eq!(search.found().rate, None);
    assert_eq!(search.found().ended_by, EndedBy::Target);
    assert!(search.tries() < 12, "{}", search.tries());
}

#[test]
fn what_stands_above_the_answer_is_named() {
    let generator = searched(1_000.0, target(5_000.0, 0.0, 3), Outcome::Limited).found();
    assert_eq!(generator.ended_by, EndedBy::Generator);
    let missed = searched(1_000.0, target(5_000.0, 0.0, 3), Outcome::Missed).found();
    assert_eq!(missed.ended_by, EndedBy::Target);
    assert_eq!(generator.rate, missed.rate);
    let mut climbing = Search::new(10.0);
    climbing.tried(10, Outcome::Pass);
    climbing.tried(15, Outcome::Pass);
    assert_eq!(climbing.found().ended_by, EndedBy::Nothing);
    assert_eq!(climbing.found().rate, Some(10));
}

#[test]
fn the_fit_pools_what_rises() {
    for (counts, expected) in [
        (vec![], vec![]),
        (vec![(1, 1), (1, 2), (0, 1)], vec![1.0, 0.5, 0.0]),
        (vec![(0, 1), (1, 1)], vec![0.5, 0.5]),
        (
            vec![(2, 2), (0, 1), (3, 3), (0, 2)],
            vec![1.0, 0.75, 0.75, 0.0],
        ),
    ] {
        assert_eq!(falling_fit(&counts), expected);
    }
}

proptest! {
    #[test]
    fn a_fit_falls_and_keeps_the_sum(counts in prop::collection::vec((0_u32..5, 0_u32..5), 1..20)) {
        let counts: Vec<(u32, u32)> =
            counts.into_iter().map(|(passed, failed)| (passed, passed + failed + 1)).collect();
        let fit = falling_fit(&counts);
        prop_assert!(fit.windows(2).all(|pair| pair[0] >= pair[1] - 1e-12));
        let passed: u32 = counts.iter().map(|count| count.0).sum();
        let fitted: f64 = counts.iter().zip(&fit).map(|(count, share)| f64::from(count.1) * share).sum();
        prop_assert!((fitted - f64::from(passed)).abs() < 1e-6);
    }

    #[test]
    fn every_search_ends_with_its_answer_among_what_passed(
        start in 0.1_f64..1e7, outcomes in prop::collection::vec(0_u8..3, 50),
    ) {
        let mut search = Search::new(start);
        let mut passed = Vec::new();
        for outcome in outcomes {
            let Some(rate) = search.next() else { break };
            prop_assert!((1..=10_000_000).contains(&rate));
            let outcome = [Outcome::Pass, Outcome::Missed, Outcome::Limited][usize::from(outcome)];
            if outcome == Outcome::Pass {
                passed.push(rate);
            }
            search.tried(rate, outcome);
        }
        prop_assert_eq!(search.next(), None);
        let found = search.found();
        prop_assert!(found.interval.0 <= found.interval.1);
        if let Some(rate) = found.rate {
            prop_assert!(passed.iter().filter(|&&pass| pass >= rate).count() >= 2);
        }
    }
}
