//! What a run is going to ask for, fixed before it begins, and which answers are right. Pure.
//!
//! Enters: a load profile, a mix, a choice of keys, a seed. Leaves: arrivals with their moments and requests.
//! Must not know the clock, the target or what became of an arrival.

pub mod answers;
mod expected;
pub mod form;
pub mod keys;
pub mod list;
pub mod schedule;
pub mod workload;

use crate::objectives::Operation;

/// One arrival that was taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its number in the schedule.
    pub number: u64,
    /// When it is due, in nanoseconds from the start of the run.
    pub due_ns: u64,
    /// When the generator took it up; the difference is its lag.
    pub taken_ns: u64,
    /// The stage that it is due in, from 1; 0 is the warm-up.
    pub stage: u16,
    /// What it does.
    pub operation: Operation,
    /// It was held up by a stall of the generator, or came in the wake of one.
    pub disturbed: bool,
}

impl Default for Arrival {
    fn default() -> Self {
        Self {
            number: 0,
            due_ns: 0,
            taken_ns: 0,
            stage: 1,
            operation: Operation::Request,
            disturbed: false,
        }
    }
}
