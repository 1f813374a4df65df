//! Was the claim shown? Pure.
//!
//! Enters: the facts of a run. Leaves: one of four verdicts and its reason. Must not blame the target for
//! the generator's own delay, nor the generator for the target's.

use std::time::Duration;

use super::tally::Ledger;
use crate::units::{grouped, human_us, micros};

/// Share of the target rate that must have been answered well.
const MIN_ACHIEVED_SHARE: f64 = 0.999;
/// A generator thread that is busy for more of the time than this has nothing left: what looks like a slow
/// target may be its own answers, waiting to be read.
const MAX_BUSY_SHARE: f64 = 0.95;
/// Share of the arrivals that may have failed, unsent ones included.
const MAX_FAILED_SHARE: f64 = 0.001;

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
pub struct Facts {
    /// Counts.
    pub ledger: Ledger,
    /// The ledger balances and every arrival has a latency.
    pub balances: bool,
    /// The run was stopped by hand.
    pub interrupted: bool,
    /// Keys that the dataset should hold, and the target did not find.
    pub misses: u64,
    /// Answers that were not what was asked for.
    pub wrong_answers: u64,
    /// Arrivals per second that were scheduled.
    pub scheduled_rps: f64,
    /// Good answers per second.
    pub achieved_rps: f64,
    /// The generator's own delay, 99th percentile.
    pub lag_p99_us: u64,
    /// The bound of that.
    pub max_lag: Duration,
    /// Share of the time in which the busiest generator thread ran, or was ready to run and had no core.
    pub busy_share: f64,
}

/// Judges a run. The first reason found is the verdict's: what makes figures worthless comes first.
#[must_use]
pub fn judge(facts: &Facts) -> (Verdict, String) {
    let ledger = &facts.ledger;
    if !facts.balances {
        return invalid(format!("the ledger does not balance: {ledger:?}"));
    }
    if facts.interrupted {
        return invalid("the run was interrupted".into());
    }
    if facts.wrong_answers > 0 {
        let count = grouped(facts.wrong_answers);
        return invalid(format!("{count} answers were not what was asked for"));
    }
    if facts.misses > 0 {
        return invalid(format!(
            "{} keys were not there, and reading absent keys is cheap; seed them, or give --keys",
            grouped(facts.misses)
        ));
    }
    let max_lag_us = micros(facts.max_lag);
    if facts.lag_p99_us > max_lag_us {
        let reason = format!(
            "the generator's own lag p99 of {} is above {}: give it more CPU, or lower --rps",
            human_us(facts.lag_p99_us),
            human_us(max_lag_us)
        );
        return (Verdict::GeneratorLimited, reason);
    }
    match target_verdict(facts) {
        (Verdict::TargetMissed, reason) if facts.busy_share > MAX_BUSY_SHARE => (
            Verdict::GeneratorLimited,
            format!(
                "{reason}; but a generator thread was busy {:.0} % of the time: add --threads, or lower --rps",
                facts.busy_share * 100.0
            ),
        ),
        verdict => verdict,
    }
}

fn target_verdict(facts: &Facts) -> (Verdict, String) {
    let ledger = &facts.ledger;
    let failed_share = ledger.failed() as f64 / ledger.scheduled.max(1) as f64;
    if failed_share > MAX_FAILED_SHARE {
        let reason = format!(
            "{:.2} % of the requests failed: {} errors, {} timeouts, {} unsent, {} unanswered",
            failed_share * 100.0,
            grouped(ledger.errors),
            grouped(ledger.timeouts),
            grouped(ledger.unsent),
            grouped(ledger.in_flight)
        );
        return (Verdict::TargetMissed, reason);
    }
    let share = facts.achieved_rps / facts.scheduled_rps;
    let reason = format!(
        "{:.2} % of {} requests/s reached, {:.2} % of the requests failed",
        share * 100.0,
        grouped(facts.scheduled_rps.round() as u64),
        failed_share * 100.0
    );
    if share < MIN_ACHIEVED_SHARE {
        return (Verdict::TargetMissed, reason);
    }
    (Verdict::Pass, reason)
}

fn invalid(reason: String) -> (Verdict, String) {
    (Verdict::Invalid, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Facts = Facts {
        ledger: Ledger {
            scheduled: 10_000,
            sent: 10_000,
            unsent: 0,
            ok: 10_000,
            errors: 0,
            timeouts: 0,
            in_flight: 0,
        },
        balances: true,
        interrupted: false,
        misses: 0,
        wrong_answers: 0,
        scheduled_rps: 1_000.0,
        achieved_rps: 999.9,
        lag_p99_us: 200,
        max_lag: Duration::from_millis(5),
        busy_share: 0.5,
    };

    #[test]
    fn each_fact_has_its_verdict() {
        let slow = Facts {
            achieved_rps: 990.0,
            ..GOOD
        };
        let failing = Facts {
            ledger: Ledger {
                ok: 9_980,
                errors: 20,
                ..GOOD.ledger
            },
            ..GOOD
        };
        let few_errors = Facts {
            ledger: Ledger {
                ok: 9_995,
                errors: 5,
                ..GOOD.ledger
            },
            achieved_rps: 999.4,
            ..GOOD
        };
        let lagging = Facts {
            lag_p99_us: 5_001,
            ..GOOD
        };
        let lagging_and_slow = Facts {
            lag_p99_us: 90_000,
            ..slow
        };
        let exhausted = Facts {
            busy_share: 0.96,
            ..GOOD
        };
        let exhausted_and_slow = Facts {
            busy_share: 0.96,
            ..slow
        };
        let missing = Facts {
            misses: 1,
            ..lagging
        };
        let wrong = Facts {
            wrong_answers: 1,
            ..GOOD
        };
        let unbalanced = Facts {
            balances: false,
            ..lagging
        };
        let interrupted = Facts {
            interrupted: true,
            ..GOOD
        };
        for (facts, verdict, reason) in [
            (GOOD, Verdict::Pass, "99.99 %"),
            (few_errors, Verdict::Pass, "99.94 %"),
            (slow, Verdict::TargetMissed, "99.00 %"),
            (
                failing,
                Verdict::TargetMissed,
                "0.20 % of the requests failed: 20 errors",
            ),
            (
                lagging,
                Verdict::GeneratorLimited,
                "5.00 ms is above 5.00 ms",
            ),
            (
                exhausted_and_slow,
                Verdict::GeneratorLimited,
                "busy 96 % of the time",
            ),
            (exhausted, Verdict::Pass, "99.99 %"),
            (lagging_and_slow, Verdict::GeneratorLimited, "90.00 ms"),
            (missing, Verdict::Invalid, "1 keys were not there"),
            (wrong, Verdict::Invalid, "1 answers"),
            (unbalanced, Verdict::Invalid, "does not balance"),
            (interrupted, Verdict::Invalid, "interrupted"),
        ] {
            let (found, text) = judge(&facts);
            assert_eq!(found, verdict, "{text}");
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
