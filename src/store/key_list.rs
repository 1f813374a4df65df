//! Keys to read, without a copy of them before they are sent.
//!
//! Enters: whatever knows its keys. Leaves: each key, written where it is needed. Must not change while it is read from.

use bytes::Bytes;

/// Keys in an order.
pub trait KeyList: Sized {
    /// Number of keys.
    fn count(&self) -> usize;

    /// Bytes of key `place`, counted from 0.
    fn key_len(&self, place: usize) -> usize;

    /// Appends key `place`.
    fn put_key(&self, place: usize, out: &mut Vec<u8>);

    /// All of them as slices of one buffer.
    fn into_keys(self) -> Vec<Bytes> {
        let places = 0..self.count();
        let mut buffer = Vec::with_capacity(places.clone().map(|place| self.key_len(place)).sum());
        for place in places.clone() {
            self.put_key(place, &mut buffer);
        }
        let mut buffer = Bytes::from(buffer);
        let key = |place| buffer.split_to(self.key_len(place));
        places.map(key).collect()
    }
}

impl KeyList for Vec<Bytes> {
    fn count(&self) -> usize {
        self.len()
    }

    fn key_len(&self, place: usize) -> usize {
        self[place].len()
    }

    fn put_key(&self, place: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self[place]);
    }

    fn into_keys(self) -> Vec<Bytes> {
        self
    }
}

/// One key.
impl KeyList for Bytes {
    fn count(&self) -> usize {
        1
    }

    fn key_len(&self, _: usize) -> usize {
        self.len()
    }

    fn put_key(&self, _: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

/// Keys one after the other in one buffer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeyBuffer {
    bytes: Vec<u8>,
    /// Where each ends; the first begins at 0.
    ends: Vec<usize>,
}

impl KeyBuffer {
    /// With room for so many keys, and bytes of all of them.
    #[must_use]
    pub fn with_capacity(keys: usize, bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(keys),
        }
    }

    /// Appends the key that `put` writes, and gives it back.
    pub fn push(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let start = self.bytes.len();
        put(&mut self.bytes);
        self.ends.push(self.bytes.len());
        &self.bytes[start..]
    }

    fn key(&self, place: usize) -> &[u8] {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[place]]
    }
}

impl KeyList for KeyBuffer {
    fn count(&self) -> usize {
        self.ends.len()
    }

    fn key_len(&self, place: usize) -> usize {
        self.key(place).len()
    }

    fn put_key(&self, place: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_list_can_be_had_as_slices_of_one_buffer() {
        let mut buffer = KeyBuffer::default();
        for key in ["one", "", "three"] {
            assert_eq!(buffer.push(|out| out.extend(key.bytes())), key.as_bytes());
        }
        let keys = buffer.into_keys();
        assert_eq!(keys, ["one", "", "three"]);
        assert_eq!((keys.count(), keys.key_len(2)), (3, 5));
        assert_eq!(keys[0].clone().into_keys(), ["one"]);
        assert_eq!(keys.into_keys(), ["one", "", "three"]);
    }
}
