//! Was the claim shown? Pure.
//!
//! Enters: the facts of a run. Leaves: one of four verdicts and its reason. Must not blame the target for
//! the generator's own delay, nor the generator for the target's.

use super::tally::Ledger;
use crate::load::{Slos, percentile_name};
use crate::units::{grouped, human_us};

/// A generator thread that is busy for more of the time than this has nothing left: what looks like a slow
/// target may be its own answers, waiting to be read.
const MAX_BUSY_SHARE: f64 = 0.95;

/// The four ends of a run, each with its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// The target held the load.
    Pass,
    /// The target was too slow, or failed.
    TargetMissed,
    /// The generator could not keep its own schedule: nothing is known about the target.
    GeneratorLimited,
    /// The books do not balance, or the answers were not the dataset.
    Invalid,
}

impl Verdict {
    /// As in the JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::TargetMissed => "TARGET_MISSED",
            Self::GeneratorLimited => "GENERATOR_LIMITED",
            Self::Invalid => "INVALID",
        }
    }

    /// 0, 1, 2, 3.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        self as u8
    }
}

/// All that the verdict depends on, of the measured part of the run.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Counts.
    pub ledger: Ledger,
    /// The ledger balances and every arrival has a latency.
    pub balances: bool,
    /// The run was stopped by hand.
    pub interrupted: bool,
    /// Keys found or written, warm-up included.
    pub hits: u64,
    /// Keys that the dataset should hold, and the target did not find, warm-up included.
    pub misses: u64,
    /// Share of the keys that may be missing.
    pub max_miss: f64,
    /// Answers that were not what was asked for, warm-up included.
    pub wrong_answers: u64,
    /// Arrivals per second that were scheduled.
    pub scheduled_rps: f64,
    /// Good answers per second.
    pub achieved_rps: f64,
    /// What a PASS needs.
    pub slos: &'a Slos,
    /// The latency at each quantile that the objectives name, in their order.
    pub latencies_us: &'a [u64],
    /// The generator's own delay, 99th percentile.
    pub lag_p99_us: u64,
    /// The bound of that.
    pub max_lag_us: u64,
    /// Stages of the load: of several, the rate is an average.
    pub stages: usize,
    /// Share of the time in which the busiest generator thread ran, or was ready to run and had no core.
    pub busy_share: f64,
}

/// Judges a run. The first reason found is the verdict's: what makes figures worthless comes first.
#[must_use]
pub fn judge(facts: &Facts<'_>) -> (Verdict, String) {
    if let Some(reason) = invalid(facts) {
        return (Verdict::Invalid, reason);
    }
    let max_lag_us = facts.max_lag_us;
    if facts.lag_p99_us > max_lag_us {
        let reason = format!(
            "the generator's own lag p99 of {} is above {}: give it more CPU, or lower --rps",
            human_us(facts.lag_p99_us),
            human_us(max_lag_us)
        );
        return (Verdict::GeneratorLimited, reason);
    }
    match missed(facts) {
        None => (Verdict::Pass, shares(facts)),
        Some(reason) if facts.busy_share > MAX_BUSY_SHARE => (
            Verdict::GeneratorLimited,
            format!(
                "{reason}; but a generator thread was busy {:.0} % of the time: add --threads, or lower --rps",
                facts.busy_share * 100.0
            ),
        ),
        Some(reason) => (Verdict::TargetMissed, reason),
    }
}

/// Why the figures say nothing at all.
fn invalid(facts: &Facts<'_>) -> Option<String> {
    if !facts.balances {
        return Some(format!("the ledger does not balance: {:?}", facts.ledger));
    }
    if facts.interrupted {
        return Some("the run was interrupted".into());
    }
    if facts.ledger.scheduled == 0 {
        return Some("no arrival fell into the measured part".into());
    }
    if facts.wrong_answers > 0 {
        let count = grouped(facts.wrong_answers);
        return Some(format!("{count} answers were not what was asked for"));
    }
    let miss_share = facts.misses as f64 / (facts.hits + facts.misses).max(1) as f64;
    if miss_share > facts.max_miss {
        return Some(format!(
            "{} keys were not there, and reading absent keys is cheap; seed them, or give --keys",
            grouped(facts.misses)
        ));
    }
    None
}

/// Which objective was missed first.
fn missed(facts: &Facts<'_>) -> Option<String> {
    let ledger = &facts.ledger;
    if failed_share(ledger) > facts.slos.max_errors {
        return Some(format!(
            "{:.2} % of the requests failed: {} errors, {} timeouts, {} unsent, {} unanswered",
            failed_share(ledger) * 100.0,
            grouped(ledger.errors),
            grouped(ledger.timeouts),
            grouped(ledger.unsent),
            grouped(ledger.in_flight)
        ));
    }
    if facts.achieved_rps / facts.scheduled_rps < facts.slos.min_rate {
        return Some(shares(facts));
    }
    let bounds = facts.slos.latencies.iter().zip(facts.latencies_us);
    let broken = bounds
        .into_iter()
        .find(|((_, bound_us), found_us)| *found_us > bound_us);
    broken.map(|((quantile, bound_us), found_us)| {
        let name = percentile_name(*quantile);
        format!(
            "latency {name} of {} is above {}",
            human_us(*found_us),
            human_us(*bound_us)
        )
    })
}

fn failed_share(ledger: &Ledger) -> f64 {
    ledger.failed() as f64 / ledger.scheduled.max(1) as f64
}

fn shares(facts: &Facts<'_>) -> String {
    let average = match facts.stages {
        0 | 1 => String::new(),
        stages => format!(" on average over {stages} stages"),
    };
    format!(
        "{:.2} % of {} requests/s reached{average}, {:.2} % of the requests failed",
        facts.achieved_rps / facts.scheduled_rps * 100.0,
        grouped(facts.scheduled_rps.round() as u64),
        failed_share(&facts.ledger) * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: Ledger = Ledger {
        scheduled: 10_000,
        sent: 10_000,
        unsent: 0,
        ok: 10_000,
        errors: 0,
        timeouts: 0,
        in_flight: 0,
    };

    fn verdict(change: impl FnOnce(&mut Facts<'_>)) -> (Verdict, String) {
        let slos: Slos = "p99=10ms,max=1s".parse().expect("objectives");
        let mut facts = Facts {
            ledger: LEDGER,
            balances: true,
            interrupted: false,
            hits: 1_000,
            misses: 0,
            max_miss: 0.0,
            wrong_answers: 0,
            scheduled_rps: 1_000.0,
            achieved_rps: 999.9,
            slos: &slos,
            latencies_us: &[10_000, 10_000],
            lag_p99_us: 200,
            max_lag_us: 5_000,
            stages: 1,
            busy_share: 0.5,
        };
        change(&mut facts);
        judge(&facts)
    }

    type Change = fn(&mut Facts<'_>);

    #[test]
    fn each_fact_has_its_verdict() {
        let slow: Change = |facts| facts.achieved_rps = 990.0;
        let failing: Change = |facts| {
            facts.ledger.ok = 9_980;
            facts.ledger.errors = 20;
        };
        let few_errors: Change = |facts| {
            facts.ledger.ok = 9_995;
            facts.ledger.errors = 5;
            facts.achieved_rps = 999.4;
        };
        let late: Change = |facts| facts.latencies_us = &[10_001, 20_000];
        let lagging: Change = |facts| facts.lag_p99_us = 5_001;
        let lagging_and_slow: Change = |facts| {
            facts.lag_p99_us = 90_000;
            facts.achieved_rps = 900.0;
        };
        let exhausted: Change = |facts| facts.busy_share = 0.96;
        let exhausted_and_late: Change = |facts| {
            facts.busy_share = 0.96;
            facts.latencies_us = &[10_001, 20_000];
        };
        let missing: Change = |facts| {
            facts.misses = 1;
            facts.lag_p99_us = 5_001;
        };
        let missing_as_allowed: Change = |facts| {
            facts.misses = 9;
            facts.max_miss = 0.01;
        };
        let wrong: Change = |facts| facts.wrong_answers = 1;
        let unbalanced: Change = |facts| facts.balances = false;
        let interrupted: Change = |facts| facts.interrupted = true;
        let empty: Change = |facts| facts.ledger = Ledger::default();
        let staged: Change = |facts| facts.stages = 3;
        let cases: [(Change, Verdict, &str); 16] = [
            (empty, Verdict::Invalid, "no arrival"),
            (staged, Verdict::Pass, "on average over 3 stages"),
            (|_| (), Verdict::Pass, "99.99 %"),
            (few_errors, Verdict::Pass, "99.94 %"),
            (exhausted, Verdict::Pass, "99.99 %"),
            (missing_as_allowed, Verdict::Pass, "99.99 %"),
            (slow, Verdict::TargetMissed, "99.00 %"),
            (
                failing,
                Verdict::TargetMissed,
                "0.20 % of the requests failed: 20 errors",
            ),
            (
                late,
                Verdict::TargetMissed,
                "latency p99 of 10.00 ms is above 10.00 ms",
            ),
            (
                lagging,
                Verdict::GeneratorLimited,
                "5.00 ms is above 5.00 ms",
            ),
            (lagging_and_slow, Verdict::GeneratorLimited, "90.00 ms"),
            (
                exhausted_and_late,
                Verdict::GeneratorLimited,
                "busy 96 % of the time",
            ),
            (missing, Verdict::Invalid, "1 keys were not there"),
            (wrong, Verdict::Invalid, "1 answers"),
            (unbalanced, Verdict::Invalid, "does not balance"),
            (interrupted, Verdict::Invalid, "interrupted"),
        ];
        for (change, expected, reason) in cases {
            let (found, text) = verdict(change);
            assert_eq!(found, expected, "{text}");
            assert!(text.contains(reason), "{text}");
        }
    }

    #[test]
    fn exit_codes_are_part_of_the_interface() {
        let all = [
            Verdict::Pass,
            Verdict::TargetMissed,
            Verdict::GeneratorLimited,
            Verdict::Invalid,
        ];
        assert_eq!(all.map(Verdict::exit_code), [0, 1, 2, 3]);
        for verdict in all {
            let json = serde_json::to_value(verdict).expect("JSON");
            assert_eq!(json, verdict.name());
        }
    }
}
