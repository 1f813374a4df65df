//! `bench --find-max`: the highest rate that passes.
//!
//! Enters: a configuration whose rate is where to begin. Leaves: that rate, an interval for the limit, and what stood
//! above it. Which rate comes next is `search`'s to say, and what a try is `runner`'s.

use tokio_util::sync::CancellationToken;

use super::runner::{Runner, Tried};
use super::search::{CONFIDENCE, EndedBy, Found, MAX_TRIES, Outcome, Search};
use crate::bench::judge::tries::{Study, Try};
use crate::bench::judge::verdict::Verdict;
use crate::bench::report::by_rate::rate as shown;
use crate::config::BenchConfig;
use crate::units::{Rate, grouped, human_us};

/// Ends of an interval that are further apart than this factor do not tell where the limit is.
const MAX_APART: f64 = 2.0;

pub(super) async fn run(config: &BenchConfig, stop: &CancellationToken) -> anyhow::Result<u8> {
    // A try above the limit need not be followed to its end.
    let config = &BenchConfig {
        abort: true,
        ..config.clone()
    };
    let mut runner = Runner::prepare(config, "find-max", stop).await?;
    let first = config.stages.0.first();
    let mut search = Search::new(first.map_or(1.0, |stage| stage.from.per_second()));
    let mut end = None;
    while let Some(rate) = search.next() {
        let tried = runner.attempt(rate.to_string().parse::<Rate>()?).await;
        let Ok(Tried::Counts(verdict)) = tried else {
            end = Some(tried);
            break;
        };
        search.tried(rate, outcome(verdict));
    }
    let found = search.found();
    let used_up = search.tries() >= MAX_TRIES;
    let code = runner.conclude(end.as_ref(), exit_code(found), |study| {
        let best = best_of(&study.tries, found.rate);
        study.summary = summary(found, best, highest_passed(&study.tries), used_up);
        note(study, found);
    })?;
    end.transpose().map(|_| code)
}

fn outcome(verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Pass => Outcome::Pass,
        Verdict::GeneratorLimited => Outcome::Limited,
        Verdict::TargetMissed | Verdict::Invalid => Outcome::Missed,
    }
}

/// 2 when the generator ended the search, whatever it found: the target's limit was not seen.
fn exit_code(found: Found) -> u8 {
    match (found.ended_by, found.rate) {
        (EndedBy::Generator, _) => Verdict::GeneratorLimited.exit_code(),
        (_, Some(_)) => Verdict::Pass.exit_code(),
        (_, None) => Verdict::TargetMissed.exit_code(),
    }
}

/// Of the tries of the answer that passed, the last.
fn best_of(tries: &[Try], rate: Option<u64>) -> Option<&Try> {
    let rate = rate? as f64;
    let mut passed = tries.iter().rev();
    passed.find(|one| one.verdict == Verdict::Pass && (one.rate_rps - rate).abs() < 0.5)
}

/// Of the tries that passed, if only once.
fn highest_passed(tries: &[Try]) -> Option<f64> {
    let passed = tries.iter().filter(|one| one.verdict == Verdict::Pass);
    passed.map(|one| one.rate_rps).max_by(f64::total_cmp)
}

fn note(study: &mut Study, found: Found) {
    let finding = &mut study.finding;
    finding.highest_passing_rps = found.rate.map(|rate| rate as f64);
    finding.interval_rps = (!study.tries.is_empty()).then_some(found.interval);
    finding.ended_by = Some(found.ended_by.name());
}

fn summary(found: Found, best: Option<&Try>, highest_passed: Option<f64>, used_up: bool) -> String {
    let Some(rate) = found.rate else {
        let why = match found.ended_by {
            EndedBy::Generator => {
                "No rate passed twice: GENERATOR_LIMITED, the target was not measured"
            }
            EndedBy::Target => "No rate passed twice: TARGET_MISSED",
            EndedBy::Nothing => "No rate was tried twice",
        };
        return match highest_passed {
            Some(highest) => format!("{why}; the highest that passed is {}", shown(highest)),
            None => why.into(),
        };
    };
    let at_least = match found.ended_by {
        EndedBy::Target => "",
        EndedBy::Generator | EndedBy::Nothing => "at least ",
    };
    let speed = best.map_or_else(String::new, |best| {
        format!(
            ", {} key operations/s, latency p99 {}",
            grouped(best.key_ops_per_second.round() as u64),
            human_us(best.latency_us.p99),
        )
    });
    let limit = limit(found, highest_passed);
    let above = match found.ended_by {
        EndedBy::Target => format!("the limit is {limit}; above it: TARGET_MISSED"),
        EndedBy::Generator => {
            format!("the generator reached its limit, {limit}: the target may hold more")
        }
        EndedBy::Nothing => "no higher rate failed".into(),
    };
    let unclear = if used_up {
        format!("; still unclear after {MAX_TRIES} tries: a longer --duration varies less")
    } else {
        String::new()
    };
    format!(
        "Highest rate that passes: {at_least}{} requests/s{speed}; {above}{unclear}",
        grouped(rate)
    )
}

/// Where it is; an interval that says next to nothing is not shown as if it were one.
fn limit(found: Found, highest_passed: Option<f64>) -> String {
    let (low, high) = found.interval;
    if high <= low * MAX_APART {
        return format!(
            "between {} and {} ({:.0} % confidence, {:.1} % apart)",
            shown(low),
            shown(high),
            CONFIDENCE * 100.0,
            (high / low - 1.0) * 100.0
        );
    }
    match highest_passed {
        Some(highest) => format!(
            "not known yet; the highest rate that passed is {}",
            shown(highest)
        ),
        None => "not known yet".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rate: Option<u64>, ended_by: EndedBy) -> Found {
        Found {
            rate,
            interval: (980.0, 1_020.0),
            ended_by,
        }
    }

    #[test]
    fn the_end_of_a_search_says_who_ended_it() {
        for (rate, ended_by, code, expected) in [
            (
                Some(1_000),
                EndedBy::Target,
                0,
                "passes: 1,000 requests/s; the limit is between 980 and 1,020 (90 % confidence, 4.1 % apart); above it: TARGET_MISSED",
            ),
            (
                Some(1_000),
                EndedBy::Generator,
                2,
                "at least 1,000 requests/s; the generator reached its limit",
            ),
            (
                Some(1_000),
                EndedBy::Nothing,
                0,
                "at least 1,000 requests/s; no higher rate failed",
            ),
            (
                None,
                EndedBy::Target,
                1,
                "No rate passed twice: TARGET_MISSED",
            ),
            (None, EndedBy::Generator, 2, "GENERATOR_LIMITED"),
        ] {
            let found = found(rate, ended_by);
            let text = summary(found, None, None, false);
            assert!(text.contains(expected), "{text}");
            assert_eq!(exit_code(found), code, "{text}");
        }
    }

    #[test]
    fn an_interval_that_says_nothing_is_not_shown() {
        for (rate, ended_by, expected) in [
            (
                Some(90),
                EndedBy::Target,
                "passes: 90 requests/s; the limit is not known yet; the highest rate that passed is 135; above it: TARGET_MISSED",
            ),
            (
                Some(90),
                EndedBy::Generator,
                "the generator reached its limit, not known yet; the highest rate that passed is 135: the target may hold more",
            ),
            (
                None,
                EndedBy::Nothing,
                "No rate was tried twice; the highest that passed is 135",
            ),
        ] {
            let found = Found {
                interval: (90.0, 327_748.0),
                ..found(rate, ended_by)
            };
            let text = summary(found, None, Some(135.0), false);
            assert!(text.contains(expected) && !text.contains("apart"), "{text}");
        }
        let twice = Found {
            interval: (500.0, 1_000.0),
            ..found(Some(500), EndedBy::Target)
        };
        let text = summary(twice, None, Some(500.0), false);
        assert!(
            text.contains("between 500 and 1,000 (90 % confidence, 100.0 % apart)"),
            "{text}"
        );
    }
}
