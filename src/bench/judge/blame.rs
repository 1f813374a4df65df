//! Whose fault is a missed objective? Pure.
//!
//! Enters: tallies and the flow of a run. Leaves: a [`Culprit`] and the parts of a latency. Must not blame the target for
//! the generator's own delay or for too few connections, nor either of them for the target's.

use super::flow::{Flow, Pool, Slot};
use super::histogram::value_at;
use super::rate::Pace;
use super::tally::Tally;
use crate::objectives::Quantile;

/// A target is slower with all connections busy than with few of them when its service time is longer by this factor. One
/// that does one request after the other is slower by 2 with two connections, and by more with more.
const SLOWER: f64 = 1.5;
/// The same, when only few requests were sent with few of them busy: one slow answer among those hides half of it.
const SLOWER_OF_FEW: f64 = 3.0;
/// Service times that are as long, when only few tell: one answer that a busy machine held up is longer than that.
const ALIKE_OF_FEW: f64 = 1.25;
/// A silence of more service times than this is never for want of connections: those that are busy would have answered.
const SILENT_SERVICES: f64 = 3.0;
/// So many answers are enough to tell.
const ENOUGH_ANSWERS: u64 = 8;

/// Who explains a miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Culprit {
    /// The target.
    Target,
    /// The generator: it sent late, or took answers late.
    Generator,
    /// Too few connections: the target was as fast with all of them busy as with few of them.
    Connections {
        /// So many would have done.
        enough: u64,
    },
    /// Too few connections to tell whether they or the target were the limit.
    ConnectionsOrTarget {
        /// So many would tell.
        enough: u64,
    },
}

/// A latency taken apart, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Parts {
    /// What is not there without the generator's lag and receive delay, and without what its stalls held up.
    pub generator: u64,
    /// What is not there in the service time.
    pub connection_wait: u64,
    /// The service time.
    pub target: u64,
}

/// Takes the latency at a quantile apart: differences of the same quantile of latency, of latency without the
/// generator's part, and of service time.
#[must_use]
pub fn parts_at(tally: &Tally, quantile: Quantile) -> Parts {
    let latency_us = value_at(&tally.latency_us(), quantile);
    let undelayed_us = value_at(&tally.undelayed_us, quantile).min(latency_us);
    let service_us = value_at(&tally.service_us, quantile).min(undelayed_us);
    Parts {
        generator: latency_us - undelayed_us,
        connection_wait: undelayed_us - service_us,
        target: service_us,
    }
}

/// Arrivals per second that the connections of one generator of several have to carry in a stage; of a log, in its busiest
/// second.
#[must_use]
pub fn own_rps(flow: &Flow, stage: usize, generators: u64) -> f64 {
    let Some(stretch) = flow.outline.stretches.get(stage) else {
        return 0.0;
    };
    let slots = flow
        .slots
        .get(stretch.first_slot..stretch.first_slot + stretch.slots);
    let slots = slots.unwrap_or_default();
    if stretch.recorded_middle_ns.is_none() || slots.is_empty() {
        let asked = stretch.asked(stretch.start_ns, stretch.end_ns);
        return asked / stretch.seconds() / generators.max(1) as f64;
    }
    let each_s = stretch.seconds() / slots.len() as f64;
    let width = ((1.0 / each_s).ceil() as usize).clamp(1, slots.len());
    let due = |window: &[Slot]| window.iter().map(|slot| slot.due).sum::<u64>();
    let most = slots.windows(width).map(due).max().unwrap_or(0);
    most as f64 / (width as f64 * each_s)
}

/// Who explains that a latency is above its bound.
#[must_use]
pub fn of_latency(parts: Parts, at_most_us: u64, pool: &Pool, rps: f64) -> Culprit {
    if parts.connection_wait + parts.target <= at_most_us {
        Culprit::Generator
    } else if parts.target <= at_most_us {
        of_waiting(pool, rps)
    } else {
        Culprit::Target
    }
}

/// Who explains that answers did not keep up.
#[must_use]
pub fn of_pace(pace: &Pace, pool: &Pool, rps: f64) -> Culprit {
    match pace {
        Pace::Behind(backlog) if !backlog.without_generator => Culprit::Generator,
        Pace::Silent(silence) if silence.of_generator => Culprit::Generator,
        Pace::Silent(silence) if silence.seconds > SILENT_SERVICES * full_s(pool) => {
            Culprit::Target
        }
        Pace::Behind(backlog) if backlog.in_service => Culprit::Target,
        _ => of_waiting(pool, rps),
    }
}

/// Who explains that arrivals waited for a connection: the pool, if the target was as fast with all connections busy as
/// with at most a quarter of them, and that was seen. A connection-second of a full pool, over the answers in it, is the service time under full load
/// (Little's law), and counts what never was answered too. Connections that the target let nobody make were missing as
/// well, and that is not for want of more of them.
#[must_use]
pub fn of_waiting(pool: &Pool, rps: f64) -> Culprit {
    if pool.full_s <= pool.refused_s || pool.full_answers == 0 {
        return Culprit::Target;
    }
    let full_s = full_s(pool);
    let enough = enough_connections(rps, full_s);
    if pool.roomy_answers == 0 {
        return Culprit::ConnectionsOrTarget { enough };
    }
    let roomy_s = pool.roomy_service_s / pool.roomy_answers as f64;
    let is_slower = |factor: f64| full_s >= factor * roomy_s;
    let (is_target, is_pool) = if pool.roomy_answers < ENOUGH_ANSWERS {
        let are_alike = full_s.max(roomy_s) <= ALIKE_OF_FEW * full_s.min(roomy_s);
        (is_slower(SLOWER_OF_FEW), are_alike)
    } else {
        (is_slower(SLOWER), !is_slower(SLOWER))
    };
    match (is_target, is_pool) {
        (true, _) => Culprit::Target,
        (false, true) => Culprit::Connections { enough },
        (false, false) => Culprit::ConnectionsOrTarget { enough },
    }
}

/// The service time under full load, in seconds, by Little's law.
fn full_s(pool: &Pool) -> f64 {
    pool.full_s / pool.full_answers.max(1) as f64
}

/// Busy connections on average are rate × service time (Little's law); three standard deviations of as many independent
/// ones, and one, are room.
fn enough_connections(rps: f64, service_s: f64) -> u64 {
    let busy = rps * service_s;
    (busy + 3.0 * busy.sqrt()).ceil() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::judge::rate::{Backlog, Silence};

    fn pool(full_ms: f64, roomy_ms: f64, roomy_answers: u64) -> Pool {
        Pool {
            full_s: full_ms,
            full_answers: 1_000,
            roomy_answers,
            roomy_service_s: roomy_ms * roomy_answers as f64 / 1e3,
            refused_s: 0.0,
        }
    }

    #[test]
    fn the_pool_is_the_limit_when_the_target_is_as_fast_under_all_of_it() {
        for (pool, expected) in [
            // 400 a second for 10 ms each.
            (pool(10.0, 10.0, 1), Culprit::Connections { enough: 11 }),
            (pool(10.0, 9.0, 100), Culprit::Connections { enough: 11 }),
            (
                pool(20.0, 10.0, 1),
                Culprit::ConnectionsOrTarget { enough: 18 },
            ),
            (
                pool(20.0, 0.0, 0),
                Culprit::ConnectionsOrTarget { enough: 18 },
            ),
            // Two connections to a target that does one request after the other.
            (pool(20.0, 10.0, 8), Culprit::Target),
            (
                pool(20.0, 10.0, 7),
                Culprit::ConnectionsOrTarget { enough: 18 },
            ),
            (pool(40.0, 10.0, 1), Culprit::Target),
            // The only one that had room was held up by something else.
            (
                pool(20.0, 15.0, 1),
                Culprit::ConnectionsOrTarget { enough: 18 },
            ),
            (
                pool(20.0, 30.0, 1),
                Culprit::ConnectionsOrTarget { enough: 18 },
            ),
            // It stood still with all of them.
            (
                Pool {
                    full_answers: 0,
                    ..pool(1_400.0, 1.0, 100)
                },
                Culprit::Target,
            ),
            // Its connections were lost, and could not be made again.
            (
                Pool {
                    refused_s: 11.0,
                    ..pool(10.0, 10.0, 100)
                },
                Culprit::Target,
            ),
            (
                Pool {
                    refused_s: 1.0,
                    ..pool(10.0, 10.0, 100)
                },
                Culprit::Connections { enough: 11 },
            ),
            (Pool::default(), Culprit::Target),
        ] {
            assert_eq!(of_waiting(&pool, 400.0), expected, "{pool:?}");
        }
    }

    #[test]
    fn a_latency_that_holds_without_a_part_is_the_fault_of_that_part() {
        let full = pool(10.0, 10.0, 100);
        let parts = |generator, connection_wait, target| Parts {
            generator,
            connection_wait,
            target,
        };
        for (parts, expected) in [
            (parts(90, 5, 5), Culprit::Generator),
            (parts(0, 45, 5), Culprit::Connections { enough: 11 }),
            (parts(0, 0, 51), Culprit::Target),
            (parts(90, 5, 51), Culprit::Target),
        ] {
            assert_eq!(of_latency(parts, 10, &full, 400.0), expected, "{parts:?}");
        }
    }

    #[test]
    fn a_backlog_is_that_of_who_makes_it() {
        let backlog = |without_generator, in_service| {
            Pace::Behind(Backlog {
                share: 0.5,
                since_s: 0.0,
                unanswered: 9,
                without_generator,
                in_service,
            })
        };
        let silence = |of_generator| {
            Pace::Silent(Silence {
                since_s: 0.0,
                seconds: 2.0,
                answers: 0,
                share: 0.8,
                of_generator,
            })
        };
        let full = pool(10.0, 10.0, 100);
        for (pace, expected) in [
            (backlog(false, false), Culprit::Generator),
            (backlog(true, true), Culprit::Target),
            (backlog(true, false), Culprit::Connections { enough: 11 }),
            (silence(true), Culprit::Generator),
            // All of them were as long without an answer, two hundred times their usual one.
            (silence(false), Culprit::Target),
        ] {
            assert_eq!(of_pace(&pace, &full, 400.0), expected, "{pace:?}");
        }
        let each_takes_2_s = pool(2_000.0, 2_000.0, 100);
        assert_eq!(
            of_pace(&silence(false), &each_takes_2_s, 1.0),
            Culprit::Connections { enough: 8 }
        );
        assert_eq!(
            of_pace(&silence(false), &Pool::default(), 400.0),
            Culprit::Target
        );
    }

    #[test]
    fn a_generators_own_rate_is_its_share_and_of_a_log_the_busiest_second() {
        let stages = "100:10s".parse().expect("stages");
        let outline = crate::bench::judge::flow::Outline::new(std::time::Duration::ZERO, &stages);
        let mut flow = Flow::new(outline);
        assert!((own_rps(&flow, 1, 4) - 25.0).abs() < 1e-9);
        flow.outline.stretches[1].recorded_middle_ns = Some(0);
        // Slots of 100 ms: 30 in each of the fourth second, one in all others.
        for (place, slot) in flow.slots.iter_mut().enumerate() {
            slot.due = if (30..40).contains(&place) { 30 } else { 1 };
        }
        assert!((own_rps(&flow, 1, 4) - 300.0).abs() < 1e-9);
    }
}
