//! Attempts, their failures and their end; and how fast they may follow each other.
//!
//! Enters: what is to be done with the store, a rate. Leaves: what came of it, waits. Must not give up on anything
//! before its time, nor go on after it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::plan;
use crate::store::StoreError;
use crate::units::Rate;

/// How long to insist; shared by all parts of one run.
pub(super) struct Patience<'a> {
    pub(super) retry_for: Duration,
    pub(super) stop: &'a CancellationToken,
    pub(super) retries: &'a Cell<u64>,
}

impl<'a> Patience<'a> {
    /// The same, for work that ends earlier.
    pub(super) fn until(&self, stop: &'a CancellationToken) -> Self {
        Self { stop, ..*self }
    }

    /// Tries until it succeeds, fails for good, or has failed for too long; `first_index` spreads the waits.
    pub(super) async fn insist<T>(
        &self,
        first_index: u64,
        mut attempt: impl AsyncFnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        for number in 0.. {
            match attempt().await {
                Err(error) if may_pass(&error) && began.elapsed() < self.retry_for => {
                    let waited = tokio::time::sleep(plan::wait(number, first_index));
                    tokio::select! {
                        () = waited => self.retries.set(self.retries.get() + 1),
                        () = self.stop.cancelled() => return Err(error),
                    }
                }
                outcome => return outcome,
            }
        }
        unreachable!("attempts are numbered without end")
    }
}

/// Whether trying again later can help: a store that is full may expire or evict.
pub(super) fn may_pass(error: &StoreError) -> bool {
    match error {
        StoreError::Unavailable(_)
        | StoreError::Loading(_)
        | StoreError::Timeout(_)
        | StoreError::Full(_) => true,
        StoreError::NoRoom { .. }
        | StoreError::Discarded(_)
        | StoreError::CrossSlot
        | StoreError::Refused(_)
        | StoreError::Setup(_) => false,
    }
}

/// Keys a second at most, from its making on.
pub(super) struct Pace {
    rate: Option<Rate>,
    started: Instant,
    taken: u64,
}

impl Pace {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self {
            rate,
            started: Instant::now(),
            taken: 0,
        }
    }

    pub(super) fn take(&mut self, keys: u64) {
        self.taken += keys;
    }

    /// How long to wait before more keys may go, if the rate is limited and reached.
    pub(super) fn wait(&self) -> Option<Duration> {
        let due = self.taken as f64 / self.rate?.per_second();
        let due = Duration::try_from_secs_f64(due).unwrap_or(Duration::MAX);
        due.checked_sub(self.started.elapsed())
            .filter(|wait| !wait.is_zero())
    }
}
