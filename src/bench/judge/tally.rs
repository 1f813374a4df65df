//! What happened to a set of arrivals: counted and measured. Pure.
//!
//! Enters: events of single arrivals. Leaves: a [`Tally`], whose ledger must balance. Must not average a percentile:
//! tallies are added up bucket by bucket.
//!
//! Every arrival ends in the latency histogram exactly once, whatever became of it: an unanswered one with the time that
//! it had waited when it was given up, which is the least that it can have taken.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::histogram::{add, histogram, packed, record, sum};
use super::ledger::{Cause, Ledger, Outcome, Unsent};
use crate::bench::plan::Arrival;

/// No count is larger than any run's can be, so that thousands of tallies can be added up.
const MOST: u64 = 1_000_000_000_000_000;

/// Everything that is known about a set of arrivals. Times are microseconds. As JSON it is whole: each histogram
/// stands there with all its buckets.
///
/// latency = lag + connection wait + service time + receive delay.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// Counts.
    pub ledger: Ledger,
    /// Done − due, of arrivals that were answered with what was asked for.
    #[serde(with = "packed")]
    pub ok_latency_us: Histogram<u64>,
    /// Done or given up − due, of all others.
    #[serde(with = "packed")]
    pub failed_latency_us: Histogram<u64>,
    /// Taken up − due: the generator's own delay.
    #[serde(with = "packed")]
    pub lag_us: Histogram<u64>,
    /// Sent − taken up: waiting for a free connection.
    #[serde(with = "packed")]
    pub wait_us: Histogram<u64>,
    /// Received − sent, of answered arrivals.
    #[serde(with = "packed")]
    pub service_us: Histogram<u64>,
    /// Done − received, of answered arrivals: the generator's own delay in taking an answer.
    #[serde(with = "packed")]
    pub receive_us: Histogram<u64>,
    /// Latency without the generator's part, of arrivals that no stall of the generator held up.
    #[serde(with = "packed")]
    pub undelayed_us: Histogram<u64>,
    /// Keys found in good answers.
    pub hits: u64,
    /// Keys missed in good answers.
    pub misses: u64,
    /// Keys that good answers wrote, which are among the hits.
    pub written: u64,
    /// Keys of good answers that stood in the same request before.
    pub repeated: u64,
    /// Commands behind good answers.
    pub commands: u64,
    /// Good answers that were compared with their records.
    #[serde(default)]
    pub compared: u64,
    /// Errors by cause.
    pub causes: BTreeMap<Cause, u64>,
    /// Unsent arrivals by reason.
    pub unsent: BTreeMap<Unsent, u64>,
}

/// When a sent arrival ended, in nanoseconds from the start of the run.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// It was written.
    pub sent_ns: u64,
    /// Its answer reached this host.
    pub received_ns: u64,
    /// The generator had taken its answer, or given it up.
    pub done_ns: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            ledger: Ledger::default(),
            ok_latency_us: histogram(),
            failed_latency_us: histogram(),
            lag_us: histogram(),
            wait_us: histogram(),
            service_us: histogram(),
            receive_us: histogram(),
            undelayed_us: histogram(),
            hits: 0,
            misses: 0,
            written: 0,
            repeated: 0,
            commands: 0,
            compared: 0,
            causes: BTreeMap::new(),
            unsent: BTreeMap::new(),
        }
    }
}

impl Tally {
    /// The generator took an arrival up.
    pub fn taken_up(&mut self, arrival: &Arrival) {
        record(&mut self.lag_us, arrival.due_ns, arrival.taken_ns);
    }

    /// An arrival was written to a connection.
    pub fn sent(&mut self, arrival: &Arrival, sent_ns: u64) {
        self.ledger.sent += 1;
        record(&mut self.wait_us, arrival.taken_ns, sent_ns);
    }

    /// A sent arrival ended.
    pub fn ended(&mut self, arrival: &Arrival, ending: Ending, outcome: Outcome) {
        let Ending {
            sent_ns,
            received_ns,
            done_ns,
        } = ending;
        let latency_us = match outcome {
            Outcome::Ok(work) => {
                self.ledger.ok += 1;
                self.hits += u64::from(work.hits);
                self.misses += u64::from(work.misses);
                self.written += u64::from(work.written);
                self.repeated += u64::from(work.repeated);
                self.commands += u64::from(work.commands);
                self.compared += u64::from(work.compared);
                &mut self.ok_latency_us
            }
            Outcome::Error(cause) => {
                self.ledger.errors += 1;
                *self.causes.entry(cause).or_default() += 1;
                &mut self.failed_latency_us
            }
            Outcome::Timeout => {
                self.ledger.timeouts += 1;
                &mut self.failed_latency_us
            }
            Outcome::InFlight => {
                self.ledger.in_flight += 1;
                &mut self.failed_latency_us
            }
        };
        record(latency_us, arrival.due_ns, done_ns);
        if outcome.is_answered() {
            record(&mut self.service_us, sent_ns, received_ns);
            record(&mut self.receive_us, received_ns, done_ns);
        }
        if !arrival.disturbed {
            record(&mut self.undelayed_us, arrival.taken_ns, received_ns);
        }
    }

    /// An arrival was given up unsent.
    pub fn unsent(&mut self, arrival: &Arrival, end_ns: u64, reason: Unsent) {
        record(&mut self.failed_latency_us, arrival.due_ns, end_ns);
        if !arrival.disturbed {
            record(&mut self.undelayed_us, arrival.taken_ns, end_ns);
        }
        self.ledger.unsent += 1;
        *self.unsent.entry(reason).or_default() += 1;
    }

    /// Done (or given up) − due, of every arrival: the headline.
    #[must_use]
    pub fn latency_us(&self) -> Histogram<u64> {
        sum(&self.ok_latency_us, &self.failed_latency_us)
    }

    /// Arrivals that have a latency.
    #[must_use]
    pub fn ended_count(&self) -> u64 {
        self.ok_latency_us.len() + self.failed_latency_us.len()
    }

    /// Adds another tally, losing nothing.
    pub fn add(&mut self, other: &Self) {
        // Named one by one, so that a new member cannot be forgotten.
        let Self {
            ledger,
            ok_latency_us,
            failed_latency_us,
            lag_us,
            wait_us,
            service_us,
            receive_us,
            undelayed_us,
            hits,
            misses,
            written,
            repeated,
            commands,
            compared,
            causes,
            unsent,
        } = other;
        self.ledger.add(ledger);
        for (ours, theirs) in [
            (&mut self.ok_latency_us, ok_latency_us),
            (&mut self.failed_latency_us, failed_latency_us),
            (&mut self.lag_us, lag_us),
            (&mut self.wait_us, wait_us),
            (&mut self.service_us, service_us),
            (&mut self.receive_us, receive_us),
            (&mut self.undelayed_us, undelayed_us),
        ] {
            add(ours, theirs);
        }
        self.hits += hits;
        self.misses += misses;
        self.written += written;
        self.repeated += repeated;
        self.commands += commands;
        self.compared += compared;
        for (&cause, count) in causes {
            *self.causes.entry(cause).or_default() += count;
        }
        for (&reason, count) in unsent {
            *self.unsent.entry(reason).or_default() += count;
        }
    }

    /// Keys that good answers read, found or not; those of writes are not among them.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.hits + self.misses - self.written
    }

    /// Answers that were not what was asked for.
    #[must_use]
    pub fn wrong_answers(&self) -> u64 {
        self.causes.get(&Cause::WrongAnswer).copied().unwrap_or(0)
    }

    /// No count is so large that adding up many tallies could overflow.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let Ledger {
            scheduled,
            sent,
            unsent,
            ok,
            errors,
            timeouts,
            in_flight,
        } = self.ledger;
        let counts = [scheduled, sent, unsent, ok, errors, timeouts, in_flight];
        let keys = [
            self.hits,
            self.misses,
            self.written,
            self.repeated,
            self.commands,
        ];
        let reasons = self.causes.values().chain(self.unsent.values());
        let all = counts
            .iter()
            .chain(&keys)
            .chain([&self.compared])
            .chain(reasons);
        let histograms = [
            &self.ok_latency_us,
            &self.failed_latency_us,
            &self.lag_us,
            &self.wait_us,
            &self.service_us,
            &self.receive_us,
            &self.undelayed_us,
        ];
        all.copied().all(|count| count <= MOST)
            && histograms.iter().all(|histogram| histogram.len() <= MOST)
            && self.written <= self.hits
            && self.repeated <= self.reads()
            && self.compared <= ok
    }

    /// The ledger balances, and every arrival has its latency.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.ledger.balances() && self.ended_count() == self.ledger.scheduled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::workload::Work;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;
    const GOOD: Outcome = Outcome::Ok(Work {
        hits: 1,
        misses: 0,
        written: 0,
        repeated: 0,
        commands: 1,
        compared: 0,
    });

    fn arrival(due_ns: u64) -> Arrival {
        Arrival {
            due_ns,
            taken_ns: due_ns + MS,
            ..Arrival::default()
        }
    }

    fn ending(sent_ns: u64, done_ns: u64) -> Ending {
        Ending {
            sent_ns,
            received_ns: done_ns,
            done_ns,
        }
    }

    fn one_of_each() -> Tally {
        let mut tally = Tally::default();
        let outcomes = [
            Outcome::Ok(Work {
                hits: 14,
                misses: 1,
                written: 0,
                repeated: 0,
                commands: 1,
                compared: 1,
            }),
            Outcome::Error(Cause::Status(503)),
            Outcome::Timeout,
            Outcome::InFlight,
        ];
        for outcome in outcomes {
            let arrival = arrival(0);
            tally.taken_up(&arrival);
            tally.sent(&arrival, 3 * MS);
            tally.ended(&arrival, ending(3 * MS, 10 * MS), outcome);
        }
        tally.taken_up(&arrival(0));
        tally.unsent(&arrival(0), 20 * MS, Unsent::NoConnection);
        tally.ledger.scheduled = 5;
        tally
    }

    #[test]
    fn every_arrival_has_a_latency_and_the_books_balance() {
        let tally = one_of_each();
        assert!(tally.balances());
        assert_eq!(tally.ledger.failed(), 4);
        assert_eq!(tally.latency_us().len(), 5);
        assert_eq!(tally.ok_latency_us.len(), 1);
        assert_eq!(tally.service_us.len(), 2);
        assert_eq!((tally.hits, tally.misses, tally.compared), (14, 1, 1));
        let mut twice = tally.clone();
        twice.add(&tally);
        assert_eq!(twice.compared, 2);
        assert_eq!(tally.causes[&Cause::Status(503)], 1);
    }

    #[test]
    fn latency_is_the_sum_of_lag_wait_service_and_receive_delay() {
        let mut tally = Tally::default();
        let arrival = arrival(5 * MS);
        tally.taken_up(&arrival);
        tally.sent(&arrival, 8 * MS);
        let ending = Ending {
            sent_ns: 8 * MS,
            received_ns: 12 * MS,
            done_ns: 20 * MS,
        };
        tally.ended(&arrival, ending, GOOD);
        let ms = |histogram: &Histogram<u64>| histogram.max() / 1_000;
        assert_eq!(ms(&tally.lag_us), 1);
        assert_eq!(ms(&tally.wait_us), 2);
        assert_eq!(ms(&tally.service_us), 4);
        assert_eq!(ms(&tally.receive_us), 8);
        assert_eq!(ms(&tally.latency_us()), 15);
        assert_eq!(ms(&tally.undelayed_us), 6);
    }

    #[test]
    fn what_a_stall_of_the_generator_held_up_says_nothing_of_the_target() {
        let mut tally = Tally::default();
        let disturbed = Arrival {
            disturbed: true,
            ..arrival(0)
        };
        tally.ended(&disturbed, ending(MS, 9 * MS), GOOD);
        tally.unsent(&disturbed, 9 * MS, Unsent::EndOfRun);
        assert!(tally.undelayed_us.is_empty() && tally.ended_count() == 2);
    }

    #[test]
    fn a_lost_or_doubled_arrival_shows() {
        let mut lost = one_of_each();
        lost.ledger.scheduled += 1;
        assert!(!lost.balances());
        let mut doubled = one_of_each();
        doubled.ended(&arrival(0), ending(0, MS), Outcome::Timeout);
        assert!(!doubled.balances());
    }

    #[test]
    fn latencies_beyond_any_bound_are_kept() {
        let mut tally = Tally::default();
        let day_ns = 86_400 * 1_000 * MS;
        tally.unsent(&arrival(0), day_ns, Unsent::EndOfRun);
        assert!(tally.latency_us().max() >= 86_400_000_000);
    }

    proptest! {
        #[test]
        fn merging_equals_counting_together_and_json_loses_nothing(
            latencies_us in proptest::collection::vec(0_u64..100_000_000, 1..200), cut in 0_usize..200,
        ) {
            let cut = cut.min(latencies_us.len());
            let count = |values: &[u64]| {
                let mut tally = Tally::default();
                for &us in values {
                    let arrival = arrival(0);
                    tally.taken_up(&arrival);
                    tally.sent(&arrival, MS);
                    tally.ended(&arrival, ending(MS, us * 1_000), GOOD);
                    tally.ledger.scheduled += 1;
                }
                tally
            };
            let mut merged = count(&latencies_us[..cut]);
            merged.add(&count(&latencies_us[cut..]));
            let together = count(&latencies_us);
            prop_assert!(merged.balances());
            prop_assert!(merged == together);
            let json = serde_json::to_string(&merged).expect("JSON");
            let again: Tally = serde_json::from_str(&json).expect("a tally");
            prop_assert!(again == together, "{}", json);
        }
    }
}
