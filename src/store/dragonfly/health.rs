//! When to stop sending commands to a store that answers none.
//!
//! Enters: what came of each command. Leaves: whether another one may be sent. Must not decide for ever: a frozen
//! store is asked again and again.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// So many deadlines missed in a row, and not one kept, are a frozen store. fred keeps what timed out until it
/// is answered, and its own queue must not be bounded: a full one swallows its order to reconnect. So the
/// flow into it is stopped here.
const MISSED_UNTIL_FROZEN: u32 = 64;
/// How often a frozen store is asked whether it still is.
const FROZEN_PROBE: Duration = Duration::from_millis(100);

/// Deadlines missed in a row. Written by one runtime only, so nothing here is contended.
pub(super) struct Health {
    missed: AtomicU32,
    opened: Instant,
    /// When the last command was let through, in milliseconds after `opened`.
    probed_ms: AtomicU64,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            missed: AtomicU32::new(0),
            opened: Instant::now(),
            probed_ms: AtomicU64::new(0),
        }
    }

    /// Whether a command may be sent: always, but to a frozen store only one now and then.
    pub(super) fn allows(&self) -> bool {
        if self.missed.load(Relaxed) < MISSED_UNTIL_FROZEN {
            return true;
        }
        let now_ms = self.opened.elapsed().as_millis() as u64;
        let due = self.probed_ms.load(Relaxed) + FROZEN_PROBE.as_millis() as u64 <= now_ms;
        if due {
            self.probed_ms.store(now_ms, Relaxed);
        }
        due
    }

    fn note(&self, missed_deadline: bool) {
        if missed_deadline {
            self.missed.fetch_add(1, Relaxed);
        } else if self.missed.load(Relaxed) > 0 {
            self.missed.store(0, Relaxed);
        }
    }
}

/// Notes what came of a command when it is dropped: one that nobody waits for any more was not answered either.
pub(super) struct Unanswered<'a>(pub(super) &'a Health, pub(super) bool);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.note(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_store_is_asked_only_now_and_then_until_it_answers() {
        let health = Health::new();
        for _ in 0..MISSED_UNTIL_FROZEN {
            assert!(health.allows());
            health.note(true);
        }
        std::thread::sleep(FROZEN_PROBE);
        assert!(health.allows());
        assert!(!health.allows());
        health.note(false);
        assert!(health.allows() && health.allows());
    }
}
