//! When timeouts are looked for, and when the drain is over. Pure. Moments are nanoseconds since the start.
//!
//! Enters: the moments at which a thread has its turns. Leaves: what it is time for. Must not count against the target
//! what the thread slept in: the answers of that time lie in the kernel, and have their turn first.

/// A turn that comes so much later than it was to is a stall of the generator.
pub(super) const STALL_NS: u64 = 5_000_000;
/// Timeouts are looked for so many times within one, which makes them right to a percent.
const CHECKS_PER_TIMEOUT: u64 = 100;

/// What a turn is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// Not for timeouts.
    NotYet,
    /// Not yet either: the thread stood still for so long, and answers may have come in time.
    Overslept(u64),
    /// Timeouts.
    Due,
}

/// Looks for timeouts now and then.
#[derive(Debug)]
pub(super) struct Checks {
    timeout_ns: u64,
    /// When they are looked for next; 0 before the first time.
    next_ns: u64,
}

impl Checks {
    pub(super) fn new(timeout_ns: u64) -> Self {
        Self {
            timeout_ns,
            next_ns: 0,
        }
    }

    /// The thread has a turn. What came in during a stall is worked off in about as long as that took, among what is sent
    /// late: so long nothing is given up, but for no longer than one timeout.
    pub(super) fn turn(&mut self, now_ns: u64) -> Check {
        if now_ns < self.next_ns {
            return Check::NotYet;
        }
        let late_ns = now_ns - self.next_ns;
        let step_ns = self.timeout_ns / CHECKS_PER_TIMEOUT;
        if self.next_ns > 0 && late_ns > step_ns + STALL_NS {
            self.next_ns = now_ns + late_ns.min(self.timeout_ns).max(STALL_NS);
            return Check::Overslept(late_ns);
        }
        self.next_ns = now_ns + step_ns;
        Check::Due
    }
}

/// The wait for the last answers.
#[derive(Debug)]
pub(super) struct Drain {
    end_ns: u64,
    /// When the next turn is to come.
    turn_ns: u64,
}

impl Drain {
    pub(super) fn new(now_ns: u64, drain_ns: u64) -> Self {
        Self {
            end_ns: now_ns.saturating_add(drain_ns),
            turn_ns: now_ns,
        }
    }

    /// The thread has a turn, and the next one is to come `step_ns` later: whether the drain goes on. It goes on for
    /// longer by what the thread slept in.
    pub(super) fn turn(&mut self, now_ns: u64, step_ns: u64) -> bool {
        let late_ns = now_ns.saturating_sub(self.turn_ns);
        if late_ns > STALL_NS {
            self.end_ns = self.end_ns.saturating_add(late_ns);
        }
        self.turn_ns = now_ns + step_ns;
        now_ns < self.end_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn timeouts_are_looked_for_a_hundred_times_in_each() {
        let mut checks = Checks::new(1_000 * MS);
        assert_eq!(checks.turn(MS), Check::Due);
        assert_eq!(checks.turn(10 * MS), Check::NotYet);
        // A little late is no stall.
        assert_eq!(checks.turn(25 * MS), Check::Due);
        assert_eq!(checks.turn(34 * MS), Check::NotYet);
    }

    #[test]
    fn after_a_stall_the_answers_have_their_turn_before_timeouts() {
        let mut checks = Checks::new(1_000 * MS);
        assert_eq!(checks.turn(0), Check::Due);
        assert_eq!(checks.turn(110 * MS), Check::Overslept(100 * MS));
        assert_eq!(checks.turn(209 * MS), Check::NotYet);
        assert_eq!(checks.turn(210 * MS), Check::Due);
        assert_eq!(checks.turn(3_220 * MS), Check::Overslept(3_000 * MS));
        assert_eq!(checks.turn(4_219 * MS), Check::NotYet);
        assert_eq!(checks.turn(4_220 * MS), Check::Due);
    }

    #[test]
    fn a_drain_ends_in_time_and_later_by_what_was_slept_in() {
        let turns_until = |drain: &mut Drain, from_ms: u64| {
            let mut turns = (from_ms..).take_while(|&ms| drain.turn(ms * MS, MS));
            turns.by_ref().last().map(|last| last + 1)
        };
        let mut drain = Drain::new(100 * MS, 50 * MS);
        assert_eq!(turns_until(&mut drain, 100), Some(150));
        let mut drain = Drain::new(100 * MS, 50 * MS);
        assert!(drain.turn(110 * MS - 6 * MS, MS));
        // Long after its end, and 40 ms of it are left.
        assert!(drain.turn(3_105 * MS, MS));
        assert_eq!(turns_until(&mut drain, 3_106), Some(3_150));
    }
}
