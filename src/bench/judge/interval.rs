//! A stretch of a run: a tally for each stage and operation. Pure.
//!
//! Enters: events of single arrivals. Leaves: an [`Interval`], most often of one second. Must not keep a tally of what
//! did not happen: most pairs of a stage and an operation are empty in any one second.

use std::collections::BTreeMap;

use super::handshakes::Handshakes;
use super::tally::Tally;
use crate::bench::plan::Arrival;
use crate::objectives::Operation;

/// Tallies by stage and operation. Stage 0 is the warm-up; the measured stages are counted from 1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tallies {
    cells: BTreeMap<(u16, Operation), Tally>,
}

impl Tallies {
    /// The tally that an arrival belongs to.
    pub fn of(&mut self, arrival: &Arrival) -> &mut Tally {
        self.at(arrival.stage, arrival.operation)
    }

    /// The tally of a stage and an operation; an empty one where there was none.
    pub fn at(&mut self, stage: u16, operation: Operation) -> &mut Tally {
        self.cells.entry((stage, operation)).or_default()
    }

    /// All tallies that there are.
    pub fn iter(&self) -> impl Iterator<Item = (u16, Operation, &Tally)> {
        self.cells
            .iter()
            .map(|(&(stage, operation), tally)| (stage, operation, tally))
    }

    /// The sum over what is `wanted`.
    #[must_use]
    pub fn sum(&self, wanted: impl Fn(u16, Operation) -> bool) -> Tally {
        let mut sum = Tally::default();
        for (stage, operation, tally) in self.iter() {
            if wanted(stage, operation) {
                sum.add(tally);
            }
        }
        sum
    }

    /// What came before the measured stages.
    #[must_use]
    pub fn warmup(&self) -> Tally {
        self.sum(|stage, _| stage == 0)
    }

    /// All measured stages together.
    #[must_use]
    pub fn measured(&self) -> Tally {
        self.sum(|stage, _| stage > 0)
    }

    /// Of a run which goes on: each ledger as [`Ledger::so_far`](super::ledger::Ledger::so_far) has it.
    pub fn cut_off(&mut self) {
        for tally in self.cells.values_mut() {
            tally.ledger = tally.ledger.so_far();
        }
    }

    /// Of a run which goes on: only what has ended, as [`Ledger::ended`](super::ledger::Ledger::ended) has it.
    pub fn only_ended(&mut self) {
        for tally in self.cells.values_mut() {
            tally.ledger = tally.ledger.ended();
        }
    }

    /// Adds others, losing nothing.
    pub fn add(&mut self, others: &Self) {
        for (stage, operation, tally) in others.iter() {
            self.at(stage, operation).add(tally);
        }
    }
}

/// One tally of many, as it stands in the JSON.
#[derive(serde::Serialize, serde::Deserialize)]
struct Cell {
    stage: u16,
    operation: Operation,
    tally: Tally,
}

impl serde::Serialize for Tallies {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter().map(|(stage, operation, tally)| Cell {
            stage,
            operation,
            tally: tally.clone(),
        }))
    }
}

impl<'a> serde::Deserialize<'a> for Tallies {
    fn deserialize<D: serde::Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        let cells = Vec::<Cell>::deserialize(from)?;
        let mut tallies = Self::default();
        for cell in cells {
            // Not added up: nobody has looked yet whether the counts can be.
            let place = (cell.stage, cell.operation);
            tallies.cells.insert(place, cell.tally);
        }
        Ok(tallies)
    }
}

/// What happened in a stretch of time.
#[derive(Debug, Clone, Default)]
pub struct Interval {
    /// Which second of the run, from 0; of a sum, the last one.
    pub second: u64,
    /// What happened to arrivals.
    pub tallies: Tallies,
    /// Arrivals being answered at its end.
    pub in_flight: usize,
    /// Arrivals waiting for a connection at its end.
    pub waiting: usize,
    /// Connections that could not be made, by the system's reason.
    pub failed_connects: BTreeMap<String, u64>,
    /// TLS handshakes of connections that were made.
    pub handshakes: Handshakes,
    /// Requests that were sent again, because their connection was closed before any of the answer came.
    pub resent: u64,
    /// Answers that could not be read, by what is wrong with them.
    pub malformed: BTreeMap<String, u64>,
}

impl Interval {
    /// Adds what happened at the same time elsewhere, losing nothing.
    pub fn add_beside(&mut self, other: &Self) {
        self.in_flight += other.in_flight;
        self.waiting += other.waiting;
        self.add_counts(other);
    }

    /// Adds what happened next.
    pub fn add_after(&mut self, other: &Self) {
        (self.in_flight, self.waiting) = (other.in_flight, other.waiting);
        self.add_counts(other);
    }

    fn add_counts(&mut self, other: &Self) {
        let Self {
            second,
            tallies,
            in_flight: _,
            waiting: _,
            failed_connects,
            handshakes,
            resent,
            malformed,
        } = other;
        self.second = self.second.max(*second);
        self.tallies.add(tallies);
        self.handshakes.add(handshakes);
        self.resent += resent;
        for (ours, theirs) in [
            (&mut self.failed_connects, failed_connects),
            (&mut self.malformed, malformed),
        ] {
            for (reason, count) in theirs {
                *ours.entry(reason.clone()).or_default() += count;
            }
        }
    }
}
