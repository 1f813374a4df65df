//! Keys to read, without a copy of them before they are sent.
//!
//! Enters: whatever knows its keys. Leaves: each key, written where it is needed. Must not change while it is read from.

use bytes::Bytes;

/// Keys in an order.
pub trait KeyList {
    /// Number of keys.
    fn count(&self) -> usize;

    /// Bytes of key `place`, counted from 0.
    fn key_len(&self, place: usize) -> usize;

    /// Appends key `place`.
    fn put_key(&self, place: usize, out: &mut Vec<u8>);

    /// All of them as slices of one buffer.
    fn to_keys(&self) -> Vec<Bytes> {
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

    fn to_keys(&self) -> Vec<Bytes> {
        self.clone()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_list_can_be_had_as_slices_of_one_buffer() {
        struct Squares;
        impl KeyList for Squares {
            fn count(&self) -> usize {
                4
            }

            fn key_len(&self, place: usize) -> usize {
                (place * place).to_string().len()
            }

            fn put_key(&self, place: usize, out: &mut Vec<u8>) {
                out.extend((place * place).to_string().bytes());
            }
        }
        let one = Bytes::from("one");
        assert_eq!(one.to_keys(), ["one"]);
        assert_eq!(KeyList::to_keys(&Squares), ["0", "1", "4", "9"]);
        assert_eq!(vec![one.clone(), one.clone()].count(), 2);
    }
}
