//! When to stop sending commands to a store that answers none.
//!
//! Enters: what came of each command. Leaves: whether another one may be sent, and whether somebody has to look for a
//! sign of life. Must not hold against a store that a client lost its patience, nor decide for ever: whoever looks for a
//! sign of life does so until there is one.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// So many commands without one answer need an explanation. fred keeps what nobody waits for until it is answered, and
/// its own queue must not be bounded: a full one swallows its order to reconnect. So the flow into it is stopped here.
const SUSPICIOUS: u32 = 64;

/// What came of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The store said something, whatever it was, or the connection ended and all its commands with it.
    Answered,
    /// The deadline passed.
    Late,
    /// Whoever waited for it left before its deadline: that says nothing about the store.
    Abandoned,
}

/// One connection's commands since its last answer. Written by one runtime only, so nothing here is contended.
#[derive(Default)]
pub(super) struct Health {
    late: AtomicU32,
    abandoned: AtomicU32,
    is_frozen: AtomicBool,
    /// Somebody looks for a sign of life.
    is_probed: AtomicBool,
}

impl Health {
    /// Whether a command may be sent.
    pub(super) fn allows(&self) -> bool {
        !self.is_frozen.load(Relaxed)
    }

    /// Notes what came of a command; whether a probe has to be started.
    ///
    /// Passed deadlines alone stop the flow. Too many of the abandoned only ask for a probe, whose own deadline decides.
    #[must_use]
    pub(super) fn note(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Answered => {
                self.answered();
                return false;
            }
            Outcome::Late => {
                if self.late.fetch_add(1, Relaxed) + 1 >= SUSPICIOUS {
                    self.freeze();
                }
            }
            Outcome::Abandoned => {
                self.abandoned.fetch_add(1, Relaxed);
            }
        }
        self.is_suspect() && !self.is_probed.swap(true, Relaxed)
    }

    /// There was an answer, to whomever.
    pub(super) fn answered(&self) {
        if self.late.load(Relaxed) | self.abandoned.load(Relaxed) != 0 || !self.allows() {
            self.late.store(0, Relaxed);
            self.abandoned.store(0, Relaxed);
            self.is_frozen.store(false, Relaxed);
        }
    }

    /// Whether a deadline has passed since the last answer.
    pub(super) fn is_late(&self) -> bool {
        !self.allows() || self.late.load(Relaxed) != 0
    }

    /// The flow is stopped until there is an answer.
    pub(super) fn freeze(&self) {
        self.is_frozen.store(true, Relaxed);
    }

    /// Whether a probe has to go on; it ends with the first call that says no.
    pub(super) fn goes_on_probing(&self) -> bool {
        let is_suspect = self.is_suspect();
        if !is_suspect {
            self.is_probed.store(false, Relaxed);
        }
        is_suspect
    }

    fn is_suspect(&self) -> bool {
        !self.allows() || self.abandoned.load(Relaxed) >= SUSPICIOUS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes so many of the same; how many probes they start.
    fn note(health: &Health, outcome: Outcome, times: u32) -> usize {
        (0..times).filter(|_| health.note(outcome)).count()
    }

    #[test]
    fn only_passed_deadlines_stop_the_flow_and_any_answer_lets_it_go_on() {
        let health = Health::default();
        assert_eq!(note(&health, Outcome::Late, SUSPICIOUS - 1), 0);
        assert!(health.allows());
        assert_eq!(note(&health, Outcome::Late, 10), 1);
        assert!(!health.allows() && health.goes_on_probing());
        health.answered();
        assert!(health.allows() && !health.goes_on_probing());
        assert_eq!(note(&health, Outcome::Late, SUSPICIOUS), 1);
    }

    #[test]
    fn those_who_leave_only_ask_for_a_look_at_the_store() {
        let health = Health::default();
        assert_eq!(note(&health, Outcome::Abandoned, 10 * SUSPICIOUS), 1);
        assert!(health.allows() && health.goes_on_probing());
        assert_eq!(note(&health, Outcome::Answered, 1), 0);
        assert!(!health.goes_on_probing());
        // Each answer begins the count anew.
        for _ in 0..SUSPICIOUS {
            assert_eq!(note(&health, Outcome::Abandoned, SUSPICIOUS - 1), 0);
            health.answered();
        }
    }
}
