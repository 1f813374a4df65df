//! What one thread may hold at once: requests that wait for the store, and bytes of bodies and of answers. Pure.
//!
//! Enters: what is about to be held. Leaves: a place, or a refusal. Must not let anything wait for room: the
//! refusal comes at once, and room comes back by itself when what was held is dropped.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hyper::StatusCode;

use super::reply::Problem;

/// A bounded number of requests of one thread.
pub(super) struct Places {
    taken: Cell<usize>,
    all: usize,
}

impl Places {
    pub(super) fn new(all: usize) -> Self {
        Self {
            taken: Cell::new(0),
            all,
        }
    }

    /// One place, or 503 at once.
    pub(super) fn take(&self) -> Result<Place<'_>, Problem> {
        let taken = self.taken.get();
        if taken >= self.all {
            let detail = "too many requests are waiting already";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
        }
        self.taken.set(taken + 1);
        Ok(Place(&self.taken))
    }
}

/// Given back when it is dropped, also when its client goes away.
pub(super) struct Place<'a>(&'a Cell<usize>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A bounded number of bytes of one thread. Counted where they may be dropped by another.
pub(super) struct Budget {
    taken: Arc<AtomicUsize>,
    all_bytes: usize,
}

impl Budget {
    pub(super) fn new(all_bytes: usize) -> Self {
        Self {
            taken: Arc::default(),
            all_bytes,
        }
    }

    /// So many bytes more in what is held, or 503 at once.
    pub(super) fn add(&self, held: &mut Held, bytes: usize) -> Result<(), Problem> {
        // Only this thread adds, so what it saw free stays so.
        if self.taken.load(Ordering::Relaxed).saturating_add(bytes) > self.all_bytes {
            let detail = "too many bytes are on their way already";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
        }
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        held.bytes += bytes;
        Ok(())
    }

    /// Nothing yet.
    pub(super) fn hold(&self) -> Held {
        Held {
            taken: self.taken.clone(),
            bytes: 0,
        }
    }
}

/// Bytes of a [`Budget`], given back when it is dropped.
pub(super) struct Held {
    taken: Arc<AtomicUsize>,
    bytes: usize,
}

impl Held {
    /// The same bytes, which count until the last slice of them is dropped.
    pub(super) fn keep(self, bytes: Bytes) -> Bytes {
        struct Kept(
            Bytes,
            #[expect(dead_code, reason = "kept to be dropped")] Held,
        );
        impl AsRef<[u8]> for Kept {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        Bytes::from_owner(Kept(bytes, self))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let places = Places::new(2);
        let (first, _second) = (places.take().ok(), places.take().ok());
        assert!(places.take().is_err());
        drop(first);
        assert!(places.take().is_ok());
    }

    #[test]
    fn bytes_are_bounded_and_come_back_with_the_last_slice() {
        let budget = Budget::new(10);
        let (mut first, mut second) = (budget.hold(), budget.hold());
        budget.add(&mut first, 4).expect("room");
        budget.add(&mut first, 4).expect("room");
        assert!(budget.add(&mut second, 3).is_err());
        assert!(budget.add(&mut second, usize::MAX).is_err());
        let whole = first.keep(Bytes::from_static(b"abcdefgh"));
        let slice = whole.slice(2..4);
        drop(whole);
        assert_eq!(slice, "cd");
        assert!(budget.add(&mut second, 3).is_err());
        drop(slice);
        budget.add(&mut second, 10).expect("room again");
    }
}
