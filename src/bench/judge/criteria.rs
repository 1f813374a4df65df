//! The objectives, each held against what was measured. Pure.
//!
//! Enters: [`Evidence`]. Leaves: a [`Criterion`] for each objective. Must not average over stages: each is judged by
//! itself, and the worst one stands for the objective.

use std::fmt;

use super::blame::{self, Culprit, Parts};
use super::evidence::Evidence;
use super::histogram::value_at;
use super::rate::{self, Pace};
use super::tally::Tally;
use crate::objectives::{Bound, Objective, Operation, Quantile};
use crate::units::{grouped, human_us};

/// A quantile that fewer values than this lie beyond is the luck of a few.
const MIN_BEYOND: u64 = 10;

/// One objective and what became of it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Criterion {
    /// As it is written: `p99 ≤ 100.00 ms`.
    pub objective: String,
    /// The stage that was the worst, counted from 1.
    pub stage: usize,
    /// It holds.
    pub met: bool,
    /// What was found there.
    pub measured: Measured,
    /// Who explains it, when it does not hold.
    pub culprit: Option<Culprit>,
    #[serde(skip)]
    at_least_or_most: f64,
    /// What failed is what it is about.
    #[serde(skip)]
    of_failures: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// Share of the rate.
    Rate {
        /// 1 where answers kept up; or the share of arrivals that were answered well, where it is lower and no objective
        /// bounds the errors.
        share: f64,
        /// What the stage asked for, per second.
        asked_rps: f64,
        /// In words, where they did not.
        #[serde(skip_serializing_if = "String::is_empty")]
        how: String,
    },
    /// Share of the arrivals.
    Errors {
        /// 0 to 1.
        share: f64,
        /// In words, where there are any.
        #[serde(skip_serializing_if = "String::is_empty")]
        how: String,
    },
    /// A latency.
    Latency {
        /// At the quantile.
        us: u64,
        /// Taken apart.
        parts_us: Parts,
        /// Arrivals that took longer.
        samples_beyond: u64,
        /// There are enough of them for the quantile to mean something.
        resolved: bool,
    },
}

/// The figure alone: `100.00 %`, `6.48 ms`.
impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate { share, .. } | Self::Errors { share, .. } => {
                write!(f, "{:.2} %", share * 100.0)
            }
            Self::Latency { us, .. } => f.write_str(&human_us(*us)),
        }
    }
}

impl Criterion {
    /// It is about the share of failed arrivals.
    #[must_use]
    pub fn is_of_errors(&self) -> bool {
        matches!(self.measured, Measured::Errors { .. })
    }

    /// It is about arrivals that failed: their share, or a rate that they leave too low.
    #[must_use]
    pub fn is_of_failures(&self) -> bool {
        self.of_failures || self.is_of_errors()
    }

    /// How far it is from its limit: above 1 it is missed by that factor.
    fn badness(&self) -> f64 {
        match &self.measured {
            Measured::Rate { share, .. } => self.at_least_or_most / share.max(1e-9),
            Measured::Errors { share, .. } => share / self.at_least_or_most.max(1e-9),
            Measured::Latency { us, .. } => *us as f64 / self.at_least_or_most.max(1.0),
        }
    }

    /// Why it does not hold, as a sentence without its stop.
    #[must_use]
    pub fn reason(&self, stages: usize) -> String {
        let stage = if stages > 1 {
            format!("stage {}: ", self.stage)
        } else {
            String::new()
        };
        let what = match &self.measured {
            Measured::Rate { how, .. } | Measured::Errors { how, .. } => how.clone(),
            Measured::Latency { us, parts_us, .. } => format!(
                "{} missed: {}, of which generator delay {}, connection wait {}, service time {}",
                self.objective,
                human_us(*us),
                human_us(parts_us.generator),
                human_us(parts_us.connection_wait),
                human_us(parts_us.target),
            ),
        };
        format!("{stage}{what}")
    }
}

/// All objectives, in their order.
#[must_use]
pub fn judge(evidence: &Evidence) -> Vec<Criterion> {
    let objectives = &evidence.objectives.objectives;
    objectives
        .all()
        .iter()
        .filter_map(|objective| worst(evidence, objective))
        .collect()
}

/// Those of a run which goes on that say something already, by what has ended. The rate is none of them: a backlog can be
/// worked off until the very end.
#[must_use]
pub fn so_far(mut evidence: Evidence) -> Vec<Criterion> {
    evidence.tallies.only_ended();
    let mut criteria = judge(&evidence);
    criteria.retain(|one| !matches!(one.measured, Measured::Rate { .. }));
    criteria
}

/// An objective that was held against nothing, since no arrival was of what it bounds. Those that give way to a narrower
/// one in every stage are none; and a run that ended early need not have come so far.
#[must_use]
pub fn without_arrivals(evidence: &Evidence) -> Option<&Objective> {
    if evidence.interrupted || evidence.ended_early.is_some() {
        return None;
    }
    let stages = evidence.flow.outline.stretches.len();
    let objectives = &evidence.objectives.objectives;
    objectives.all().iter().find(|objective| {
        let gives_way = || (1..stages).all(|stage| objectives.is_replaced(objective, stage));
        worst(evidence, objective).is_none() && !gives_way()
    })
}

/// The stage in which it is worst; `None` when another objective replaces it in all of them, or no arrival was of it.
fn worst(evidence: &Evidence, objective: &Objective) -> Option<Criterion> {
    let stages = evidence.flow.outline.stretches.len();
    let of_stage = |stage: usize| {
        let applies = objective.scope.stage.is_none_or(|only| only == stage)
            && !evidence.objectives.objectives.is_replaced(objective, stage);
        let found = applies.then(|| of_stage(evidence, objective, stage))??;
        Some(match objective.bound {
            Bound::Rate { at_least } => answered_well(evidence, found, at_least),
            _ => found,
        })
    };
    (1..stages).filter_map(of_stage).max_by(|one, other| {
        (!one.met, one.badness())
            .partial_cmp(&(!other.met, other.badness()))
            .unwrap_or(std::cmp::Ordering::Equal)
    })
}

fn of_stage(evidence: &Evidence, objective: &Objective, stage: usize) -> Option<Criterion> {
    let operations = objective.scope.operations;
    let tally = evidence
        .tallies
        .sum(|of, operation| usize::from(of) == stage && operations.contain(operation));
    let criterion = |met, measured, at_least_or_most, culprit: Culprit| Criterion {
        objective: objective.to_string(),
        stage,
        met,
        measured,
        culprit: (!met).then_some(culprit),
        at_least_or_most,
        of_failures: false,
    };
    if tally.ledger.scheduled == 0 {
        return None;
    }
    let pool = &evidence.flow.pool;
    let stretch = evidence.flow.outline.stretches.get(stage)?;
    let asked_rps = stretch.asked(stretch.start_ns, stretch.end_ns) / stretch.seconds();
    // The connections are those of one generator, and so is its part of the rate.
    let own_rps = blame::own_rps(&evidence.flow, stage, evidence.generators);
    Some(match objective.bound {
        Bound::Rate { at_least } => {
            let pace = rate::pace(&evidence.flow, stage, evidence.generators, at_least);
            let how = pace_in_words(&pace, asked_rps);
            let share = pace.share();
            let measured = Measured::Rate {
                share,
                asked_rps,
                how,
            };
            let culprit = blame::of_pace(&pace, pool, own_rps);
            criterion(share >= at_least, measured, at_least, culprit)
        }
        Bound::Errors { at_most } => {
            let share = tally.ledger.failed() as f64 / tally.ledger.scheduled as f64;
            let how = errors_in_words(&tally, share);
            let measured = Measured::Errors { share, how };
            let culprit = of_errors(evidence, &tally, at_most, own_rps);
            criterion(share <= at_most, measured, at_most, culprit)
        }
        Bound::Latency {
            quantile,
            at_most_us,
        } => {
            let measured = latency(&tally, quantile);
            let Measured::Latency { us, parts_us, .. } = measured else {
                return None;
            };
            let culprit = blame::of_latency(parts_us, at_most_us, pool, own_rps);
            criterion(us <= at_most_us, measured, at_most_us as f64, culprit)
        }
    })
}

/// A rate is one of answers that are worth something: where no objective says how many may fail, those that fail are
/// missing from it.
fn answered_well(evidence: &Evidence, paced: Criterion, at_least: f64) -> Criterion {
    let stage = paced.stage;
    let Measured::Rate {
        share: pace,
        asked_rps,
        ..
    } = paced.measured
    else {
        return paced;
    };
    let of_stage = |wanted: &dyn Fn(Operation) -> bool| {
        let sum = |of: u16, operation| usize::from(of) == stage && wanted(operation);
        evidence.tallies.sum(sum)
    };
    let objectives = &evidence.objectives.objectives;
    let unbound = of_stage(&|operation| !objectives.bound_errors_of(stage, operation));
    let scheduled = of_stage(&|_| true).ledger.scheduled;
    let well = scheduled.saturating_sub(unbound.ledger.failed());
    let share = well as f64 / scheduled.max(1) as f64;
    if share >= pace {
        return paced;
    }
    let how = format!(
        "{:.2} % of the requests were answered correctly: {} of {}",
        share * 100.0,
        grouped(well),
        grouped(scheduled)
    );
    let own_rps = blame::own_rps(&evidence.flow, stage, evidence.generators);
    let met = share >= at_least;
    Criterion {
        met,
        measured: Measured::Rate {
            share,
            asked_rps,
            how,
        },
        culprit: (!met).then(|| of_errors(evidence, &unbound, 1.0 - at_least, own_rps)),
        of_failures: true,
        ..paced
    }
}

/// The latency at a quantile, with its parts.
fn latency(tally: &Tally, quantile: Quantile) -> Measured {
    let latency_us = tally.latency_us();
    let samples_beyond = quantile.beyond(latency_us.len());
    Measured::Latency {
        us: value_at(&latency_us, quantile),
        parts_us: blame::parts_at(tally, quantile),
        samples_beyond,
        resolved: samples_beyond >= MIN_BEYOND || quantile == Quantile::MAX,
    }
}

/// What the target answered, or let hang, is its own; what was never sent may be for want of connections. So may what
/// was still in flight at the end while others waited to be sent: it had waited too.
fn of_errors(evidence: &Evidence, tally: &Tally, at_most: f64, own_rps: f64) -> Culprit {
    let ledger = &tally.ledger;
    let unanswered = if ledger.unsent > 0 {
        0
    } else {
        ledger.in_flight
    };
    let sent = ledger.errors + ledger.timeouts + unanswered;
    if sent as f64 > at_most * ledger.scheduled as f64 {
        Culprit::Target
    } else {
        blame::of_waiting(&evidence.flow.pool, own_rps)
    }
}

fn pace_in_words(pace: &Pace, asked_rps: f64) -> String {
    let rate = |share: f64| grouped((asked_rps * share).round() as u64);
    match pace {
        Pace::Kept => String::new(),
        Pace::Behind(backlog) => format!(
            "{:.2} % of {} requests/s answered since second {:.1}; {} waiting at the end",
            backlog.share * 100.0,
            rate(1.0),
            backlog.since_s,
            grouped(backlog.unanswered),
        ),
        Pace::Silent(silence) => format!(
            "{} for {:.1} s from second {:.1}, at {} requests/s",
            match silence.answers {
                0 => "no answer".into(),
                1 => "1 answer".into(),
                answers => format!("{} answers", grouped(answers)),
            },
            silence.seconds,
            silence.since_s,
            rate(1.0),
        ),
    }
}

fn errors_in_words(tally: &Tally, share: f64) -> String {
    let ledger = &tally.ledger;
    if ledger.failed() == 0 {
        return String::new();
    }
    format!(
        "{:.2} % of the requests failed: {} errors, {} timeouts, {} unsent, {} unanswered",
        share * 100.0,
        grouped(ledger.errors),
        grouped(ledger.timeouts),
        grouped(ledger.unsent),
        grouped(ledger.in_flight)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::judge::flow::{Flow, Outline, Pool};
    use crate::bench::judge::interval::Tallies;
    use crate::bench::judge::results::Bounds;
    use crate::bench::plan::Arrival;

    /// A generator of so many, at 400 requests/s together, half of whose arrivals waited in vain for connections that
    /// answered as fast as ever.
    fn evidence(generators: u64) -> Evidence {
        let outline = Outline::new(
            std::time::Duration::ZERO,
            &"400:10s".parse().expect("stages"),
        );
        let mut tallies = Tallies::default();
        let measured = Arrival {
            stage: 1,
            ..Arrival::default()
        };
        let ledger = &mut tallies.of(&measured).ledger;
        (ledger.scheduled, ledger.unsent) = (100, 50);
        let mut flow = Flow::new(outline);
        flow.pool = Pool {
            full_s: 1.0,
            full_answers: 100,
            roomy_answers: 100,
            roomy_service_s: 1.0,
            refused_s: 0.0,
        };
        Evidence {
            started_at_ms: 0,
            scheduled_s: 10.0,
            interrupted: false,
            ended_early: None,
            objectives: Bounds {
                objectives: "errors=1%".parse().expect("objectives"),
                max_miss: 0.0,
                max_lag_us: 5_000,
            },
            generators,
            lag_p99_us: 0,
            start_by_target: None,
            tallies,
            flow,
        }
    }

    #[test]
    fn a_generator_needs_connections_for_its_own_part_of_the_rate() {
        // 400, and 100, a second for 10 ms each.
        for (generators, enough) in [(1, 11), (4, 5)] {
            let criteria = judge(&evidence(generators));
            let errors = criteria.iter().find(|criterion| criterion.is_of_errors());
            let culprit = errors.expect("one of errors").culprit;
            assert_eq!(culprit, Some(Culprit::Connections { enough }));
            let shown = criteria
                .iter()
                .find_map(|criterion| match criterion.measured {
                    Measured::Rate { asked_rps, .. } => Some(asked_rps.round()),
                    _ => None,
                });
            assert_eq!(shown, Some(400.0), "of the whole");
        }
    }
}
