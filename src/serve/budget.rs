//! What may be held at once: requests of one thread that wait for the store, and bytes of bodies, values and large
//! answers. Pure.
//!
//! Enters: what is about to be held. Leaves: a place, or a refusal. Must not let anything wait for room: the
//! refusal comes at once, and room comes back by itself when what was held is dropped.

use std::cell::Cell;

use hyper::StatusCode;

use super::reply::{Problem, Reply};
use crate::store::{Held, Room, StoreError};

/// Answers that do not count in what is held: they are soon taken, or else bounded by what clients may owe.
pub(super) const SMALL_ANSWER_BYTES: usize = 64 * 1024;

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

/// An answer that is being made: each part of it has its room before it is written. What a large one holds counts until
/// its client has taken it.
pub struct Growing {
    room: Room,
    bytes: usize,
    held: Option<(Held, usize)>,
}

impl Growing {
    /// Nothing yet.
    #[must_use]
    pub fn new(room: &Room) -> Self {
        Self {
            room: room.clone(),
            bytes: 0,
            held: None,
        }
    }

    /// Refuses at once what will never fit: an answer of so many bytes in all.
    pub(super) fn check(&self, bytes: usize) -> Result<(), StoreError> {
        let all = self.room.all();
        if bytes <= all {
            return Ok(());
        }
        let needed = bytes;
        Err(StoreError::NoRoom { needed, all })
    }

    /// So many bytes more are going to be written.
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.bytes += bytes;
        if self.bytes <= SMALL_ANSWER_BYTES {
            return Ok(());
        }
        self.add_large()
    }

    #[cold]
    fn add_large(&mut self) -> Result<(), StoreError> {
        let (held, counted) = self.held.get_or_insert_with(|| (self.room.hold(), 0));
        let added = self.room.add(held, self.bytes - *counted);
        *counted = self.bytes;
        added
    }

    pub(super) fn keep(self, reply: Reply) -> Reply {
        match self.held {
            Some((held, _)) => keep(&self.room, held, reply),
            None => reply,
        }
    }
}

/// On a large answer that counts in what is held, and so in nothing else.
#[derive(Clone, Copy)]
pub(super) struct IsHeld;

/// The same answer, which counts in what is held until its client has taken it.
pub(super) fn keep(room: &Room, mut held: Held, mut reply: Reply) -> Reply {
    let bytes = reply.body().len();
    // One of errors alone has held nothing, and is owed.
    if bytes > SMALL_ANSWER_BYTES && held.bytes() > 0 {
        // Escapes and errors make an answer longer than its values. It is made already: what finds no room now is owed.
        let more = bytes.saturating_sub(held.bytes());
        let _ = room.add(&mut held, more);
        if held.bytes() + SMALL_ANSWER_BYTES >= bytes {
            reply.extensions_mut().insert(IsHeld);
        }
    }
    reply.map(|body| held.keep(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::reply;
    use bytes::Bytes;

    #[test]
    fn places_are_bounded_and_come_back() {
        let places = Places::new(2);
        let (first, _second) = (places.take().ok(), places.take().ok());
        assert!(places.take().is_err());
        drop(first);
        assert!(places.take().is_ok());
    }

    #[test]
    fn what_an_answer_has_beyond_its_values_is_held_or_owed() {
        let room = Room::new(300_000);
        let answer = |held: usize, bytes| {
            let mut part = room.hold();
            room.add(&mut part, held).expect("room");
            keep(&room, part, reply::octets(vec![b'x'; bytes].into()))
        };
        let is_held = |reply: &Reply| reply.extensions().get::<IsHeld>().is_some();
        let small = answer(3, SMALL_ANSWER_BYTES);
        assert_eq!((is_held(&small), room.taken()), (false, 3));
        let escaped = answer(100_000, 200_000);
        assert_eq!((is_held(&escaped), room.taken()), (true, 200_003));
        let one_too_many = answer(10_000, 200_000);
        assert_eq!((is_held(&one_too_many), room.taken()), (false, 210_003));
        let nearly = answer(80_000, 100_000);
        assert!(is_held(&nearly));
        drop((escaped, one_too_many, nearly));
        let of_errors = answer(0, 100_000);
        assert_eq!((is_held(&of_errors), room.taken()), (false, 3));
    }

    #[test]
    fn a_large_answer_has_room_for_each_part_and_until_it_is_taken() {
        let room = Room::new(100_000);
        let mut small = Growing::new(&room);
        small.add(SMALL_ANSWER_BYTES).expect("small");
        let mut large = Growing::new(&room);
        large.add(60_000).expect("small so far");
        large.add(30_000).expect("room");
        assert_eq!(room.taken(), 90_000);
        let reply = large.keep(reply::octets(Bytes::from_static(b"x")));
        let refused = small
            .add(10_000)
            .map_err(|error| Problem::from(error).status());
        assert_eq!(refused, Err(StatusCode::SERVICE_UNAVAILABLE));
        drop(reply);
        let never = Growing::new(&room).add(100_001);
        let never = never.map_err(|error| Problem::from(error).status());
        assert_eq!(never, Err(StatusCode::UNPROCESSABLE_ENTITY));
        assert_eq!(room.taken(), 0);
    }
}
