//! How many bytes may be held at once, of whatever kind. Pure.
//!
//! Enters: bytes that are about to come. Leaves: their place, or a refusal at once. Must not let anything wait for room:
//! it comes back by itself when what was held is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use super::StoreError;

/// A bounded number of bytes, shared by all threads. Cheap to clone.
#[derive(Clone)]
pub struct Room {
    taken: Arc<AtomicUsize>,
    all: usize,
}

impl Default for Room {
    /// As much as there is memory, for whoever decides by other means what it asks for.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Room {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(all: usize) -> Self {
        Self {
            taken: Arc::default(),
            all,
        }
    }

    /// All that may be held at once, in bytes.
    #[must_use]
    pub fn all(&self) -> usize {
        self.all
    }

    /// What is held just now, in bytes.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// Nothing yet.
    #[must_use]
    pub fn hold(&self) -> Held {
        Held {
            taken: self.taken.clone(),
            bytes: 0,
        }
    }

    /// So many bytes more in what is held.
    ///
    /// # Errors
    /// [`StoreError::NoRoom`], at once, and with nothing more held.
    pub fn add(&self, held: &mut Held, bytes: usize) -> Result<(), StoreError> {
        let more = |taken: usize| taken.checked_add(bytes).filter(|&sum| sum <= self.all);
        match self.taken.fetch_update(Relaxed, Relaxed, more) {
            Ok(_) => {
                held.bytes += bytes;
                Ok(())
            }
            Err(_) => Err(StoreError::NoRoom {
                needed: held.bytes.saturating_add(bytes),
                all: self.all,
            }),
        }
    }
}

/// Bytes of a [`Room`], given back when it is dropped.
pub struct Held {
    taken: Arc<AtomicUsize>,
    bytes: usize,
}

impl Held {
    /// How many they are.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same bytes, which count until the last slice of them is dropped.
    #[must_use]
    pub fn keep(self, bytes: Bytes) -> Bytes {
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
    fn bytes_are_bounded_and_come_back_with_the_last_slice() {
        let room = Room::new(10);
        let (mut first, mut second) = (room.hold(), room.hold());
        let needed = |added: Result<(), StoreError>| match added {
            Err(StoreError::NoRoom { needed, all: 10 }) => needed,
            other => panic!("{other:?}"),
        };
        room.add(&mut first, 4).expect("room");
        room.add(&mut first, 4).expect("room");
        assert_eq!(needed(room.add(&mut second, 3)), 3);
        assert_eq!(needed(room.add(&mut first, 3)), 11);
        assert_eq!(needed(room.add(&mut second, usize::MAX)), usize::MAX);
        assert_eq!(room.taken(), 8);
        let whole = first.keep(Bytes::from_static(b"abcdefgh"));
        let slice = whole.slice(2..4);
        drop(whole);
        assert_eq!((&slice[..], room.taken()), (&b"cd"[..], 8));
        drop(slice);
        room.add(&mut second, 10).expect("room again");
        drop(second);
        assert_eq!(room.taken(), 0);
    }
}
