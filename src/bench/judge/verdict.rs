//! Was the claim shown? Pure.
//!
//! Enters: the evidence of a run and its criteria. Leaves: one of four verdicts and its reason. Must not blame the target
//! for what the generator did, nor the generator for the target.

use super::blame::Culprit;
use super::criteria::{self, Criterion, Measured};
use super::evidence::{Evidence, Generator};
use super::reconcile::Books;
use super::tally::Tally;
use crate::units::{grouped, human_us};

/// A generator thread that is busy for more of the time than this has nothing left: what looks like a slow
/// target may be its own lack of a core.
const MAX_BUSY_SHARE: f64 = 0.95;

/// The four ends of a run, each with its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// The target held the load.
    Pass,
    /// The target was too slow, or failed.
    TargetMissed,
    /// The generator, its lag, its connections or its receiving, explains the miss: nothing is known about the target.
    GeneratorLimited,
    /// The books do not balance, or the answers were not the dataset's.
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

/// Judges a run. The first reason found is the verdict's: what makes figures worthless comes first.
#[must_use]
pub fn judge(
    evidence: &Evidence,
    criteria: &[Criterion],
    generator: &Generator,
    books: &Books,
) -> (Verdict, String) {
    let refused = criteria.iter().any(|one| !one.met && one.is_of_failures());
    // A store that died counts anew; and what failed is no claim.
    let believed = if refused { &Books::Untold } else { books };
    if let Some(reason) = invalid(evidence, believed) {
        return (Verdict::Invalid, reason);
    }
    let stages = evidence.flow.outline.stretches.len() - 1;
    let missed = || criteria.iter().filter(|criterion| !criterion.met);
    let mut of_target = missed().filter(|one| one.culprit == Some(Culprit::Target));
    // A generator that lags sends in bursts, which may explain a latency, but neither refusals nor a growing backlog.
    let whatever_the_lag = of_target
        .clone()
        .find(|one| !matches!(one.measured, Measured::Latency { .. }));
    let is_idle = generator.busy_share <= MAX_BUSY_SHARE;
    if let Some(criterion) = whatever_the_lag.filter(|one| is_idle || one.is_of_failures()) {
        return (
            Verdict::TargetMissed,
            missed_by(evidence, criterion, stages),
        );
    }
    let max_lag_us = evidence.objectives.max_lag_us;
    if evidence.lag_p99_us > max_lag_us {
        let reason = format!(
            "the generator's lag p99 of {} exceeds {}: give it more CPU, or lower the rate",
            human_us(evidence.lag_p99_us),
            human_us(max_lag_us)
        );
        return (Verdict::GeneratorLimited, reason);
    }
    match (of_target.next(), missed().next()) {
        (Some(criterion), _) if !is_idle => {
            let reason = format!(
                "{}; but a generator thread was busy {:.0} % of the time: add --threads, or lower the rate",
                criterion.reason(stages),
                generator.busy_share * 100.0
            );
            (Verdict::GeneratorLimited, reason)
        }
        (Some(criterion), _) => (
            Verdict::TargetMissed,
            missed_by(evidence, criterion, stages),
        ),
        (None, Some(criterion)) => (Verdict::GeneratorLimited, own_limit(criterion, stages)),
        (None, None) => (Verdict::Pass, passed(evidence, criteria)),
    }
}

fn missed_by(evidence: &Evidence, criterion: &Criterion, stages: usize) -> String {
    let reason = criterion.reason(stages);
    match &evidence.ended_early {
        Some(why) => format!("{reason}; ended early: {why}"),
        None => reason,
    }
}

/// Why the figures say nothing at all.
fn invalid(evidence: &Evidence, books: &Books) -> Option<String> {
    let (warmup, measured) = (evidence.tallies.warmup(), evidence.tallies.measured());
    if let Some(tally) = [&measured, &warmup]
        .into_iter()
        .find(|tally| !tally.balances())
    {
        return Some(format!("the ledger does not balance: {}", tally.ledger));
    }
    if evidence.interrupted {
        return Some("the run was interrupted".into());
    }
    if measured.ledger.scheduled == 0 {
        return Some("no request was due in the measured run".into());
    }
    if let Some(objective) = criteria::without_arrivals(evidence) {
        return Some(format!("no request to check {objective} against"));
    }
    let wrong_answers = measured.wrong_answers() + warmup.wrong_answers();
    if wrong_answers > 0 {
        let count = grouped(wrong_answers);
        return Some(format!("{count} answers did not match their requests"));
    }
    let keys = |count: fn(&Tally) -> u64| count(&measured) + count(&warmup);
    let (hits, misses) = (keys(|tally| tally.hits), keys(|tally| tally.misses));
    if misses as f64 / (hits + misses).max(1) as f64 > evidence.objectives.max_miss {
        return Some(format!(
            "{} keys missing; misses are cheaper than hits: seed them, or give --keys",
            grouped(misses)
        ));
    }
    match books {
        Books::Told(books) if books.counted_less => Some(format!(
            "the store counted less than the answers account for: {} of {} keys, {} of {} commands",
            grouped(books.keys_counted),
            grouped(books.keys_asked),
            grouped(books.commands_counted),
            grouped(books.commands_asked)
        )),
        Books::Lost(counter) => Some(format!(
            "the store's counters cannot be compared with the answers: {counter}"
        )),
        Books::Told(_) | Books::Untold => None,
    }
}

/// What the generator would need to say more.
fn own_limit(criterion: &Criterion, stages: usize) -> String {
    let reason = criterion.reason(stages);
    match criterion.culprit {
        Some(Culprit::Connections { enough }) => format!(
            "{reason}: too few connections; the target was as fast with all of them busy: give --connections \
             {enough}"
        ),
        Some(Culprit::ConnectionsOrTarget { enough }) => format!(
            "{reason}: all connections were busy, too few to tell whether they or the target are the limit: give \
             --connections {enough}"
        ),
        _ => format!(
            "{reason}: without the generator's delay the objective holds; give it more CPU, or lower the rate"
        ),
    }
}

fn passed(evidence: &Evidence, criteria: &[Criterion]) -> String {
    let measured: Vec<String> = criteria
        .iter()
        .map(|criterion| format!("{} ({})", criterion.objective, criterion.measured))
        .collect();
    let mut parts = vec![measured.join(", ")];
    let objectives = &evidence.objectives.objectives;
    if !objectives.bound_latency() {
        parts.push("no latency objective".into());
    }
    if !objectives.bound_errors() {
        parts.push("no errors objective".into());
    }
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}

#[cfg(test)]
mod tests;
