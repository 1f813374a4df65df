//! What may be held at once: requests of one thread that wait for the store, and bytes of bodies and of large
//! answers. Pure.
//!
//! Enters: what is about to be held. Leaves: a place, or a refusal. Must not let anything wait for room: the
//! refusal comes at once, and room comes back by itself when what was held is dropped.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

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

/// A bounded number of bytes, shared by all threads: only bodies and large answers come here.
#[derive(Clone)]
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

    /// Nothing yet.
    pub(super) fn hold(&self) -> Held {
        Held {
            taken: self.taken.clone(),
            bytes: 0,
        }
    }

    /// So many bytes more in what is held, or 503 at once.
    pub(super) fn add(&self, held: &mut Held, bytes: usize) -> Result<(), Problem> {
        self.check_size(bytes)?;
        let more = |taken: usize| Some(taken + bytes).filter(|&sum| sum <= self.all_bytes);
        let added = self.taken.fetch_update(Relaxed, Relaxed, more);
        added.map_err(|_| full())?;
        held.bytes += bytes;
        Ok(())
    }

    /// What cannot be refused any more.
    pub(super) fn hold_beyond(&self, bytes: usize) -> Held {
        self.taken.fetch_add(bytes, Relaxed);
        let taken = self.taken.clone();
        Held { taken, bytes }
    }

    /// Refuses with 503 while there is no room for anything.
    pub(super) fn check_room(&self) -> Result<(), Problem> {
        if self.taken.load(Relaxed) < self.all_bytes {
            return Ok(());
        }
        Err(full())
    }

    /// Refuses with 422 what will never fit.
    pub(super) fn check_size(&self, bytes: usize) -> Result<(), Problem> {
        if bytes <= self.all_bytes {
            return Ok(());
        }
        let detail = format!(
            "the answer would have {bytes} bytes and more, and this server holds {} (--max-held); ask for fewer keys",
            self.all_bytes
        );
        Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
    }
}

fn full() -> Problem {
    let detail = "too many bytes of bodies and answers are held already";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
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
        self.taken.fetch_sub(self.bytes, Relaxed);
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
        let refused =
            |added: Result<(), Problem>| added.map_err(|problem| problem.status().as_u16());
        budget.add(&mut first, 4).expect("room");
        budget.add(&mut first, 4).expect("room");
        assert_eq!(refused(budget.add(&mut second, 3)), Err(503));
        assert_eq!(refused(budget.add(&mut second, usize::MAX)), Err(422));
        budget.check_room().expect("a little");
        let whole = first.keep(Bytes::from_static(b"abcdefgh"));
        let slice = whole.slice(2..4);
        drop(whole);
        assert_eq!(slice, "cd");
        assert_eq!(refused(budget.add(&mut second, 3)), Err(503));
        drop(slice);
        budget.add(&mut second, 10).expect("room again");
        assert_eq!(refused(budget.check_room()), Err(503));
        drop((second, budget.hold_beyond(5)));
        budget.add(&mut budget.hold(), 10).expect("room again");
    }
}
