//! Keys to read, without a copy of them before they are sent.
//!
//! Enters: whatever knows its keys. Leaves: each key, written where it is needed. Must not change while it is read from.

use std::cmp::Ordering;

use bytes::Bytes;

/// Up to so many keys are compared each with each, which takes no memory.
const FEW: usize = 32;

/// Keys in an order.
pub trait KeyList: Sized {
    /// Number of keys.
    fn count(&self) -> usize;

    /// Bytes of key `place`, counted from 0.
    fn key_len(&self, place: usize) -> usize;

    /// Appends key `place`.
    fn put_key(&self, place: usize, out: &mut Vec<u8>);

    /// The order of two keys, whichever it is, so that those that are the same can be found.
    fn compare(&self, one: usize, other: usize) -> Ordering;

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

    fn compare(&self, one: usize, other: usize) -> Ordering {
        self[one].cmp(&self[other])
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

    fn compare(&self, _: usize, _: usize) -> Ordering {
        Ordering::Equal
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

    fn compare(&self, one: usize, other: usize) -> Ordering {
        self.key(one).cmp(self.key(other))
    }
}

/// Keys each of which is there once, out of keys of which some were there again.
pub struct Distinct<K> {
    keys: K,
    /// The place of each in `keys`.
    places: Vec<usize>,
}

impl<K: KeyList> Distinct<K> {
    /// Each of the keys once, and for each that was asked for which of them it is; the keys as they are when none is there
    /// twice, which is most often so.
    ///
    /// # Errors
    /// The keys.
    pub fn of(keys: K) -> Result<(Self, Vec<usize>), K> {
        let Some(firsts) = firsts(&keys) else {
            return Err(keys);
        };
        let mut places = Vec::with_capacity(firsts.len());
        let mut whiches = vec![0; firsts.len()];
        for (place, &first) in firsts.iter().enumerate() {
            if first == place {
                whiches[place] = places.len();
                places.push(place);
            } else {
                // Which comes before it, and so is known.
                whiches[place] = whiches[first];
            }
        }
        Ok((Self { keys, places }, whiches))
    }
}

/// The first place of the key at each place, if any of them is there again.
fn firsts(keys: &impl KeyList) -> Option<Vec<usize>> {
    let count = keys.count();
    let is_same = |one: usize, other: usize| keys.compare(one, other) == Ordering::Equal;
    if count <= FEW {
        let first = |place: usize| (0..place).find(|&before| is_same(before, place));
        if !(1..count).any(|place| first(place).is_some()) {
            return None;
        }
        return Some(
            (0..count)
                .map(|place| first(place).unwrap_or(place))
                .collect(),
        );
    }
    let mut sorted: Vec<usize> = (0..count).collect();
    // Those that are the same stay in their order: the first of them comes first.
    sorted.sort_by(|&one, &other| keys.compare(one, other));
    let mut firsts: Vec<usize> = (0..count).collect();
    let mut any = false;
    for pair in sorted.windows(2) {
        if is_same(pair[0], pair[1]) {
            firsts[pair[1]] = firsts[pair[0]];
            any = true;
        }
    }
    any.then_some(firsts)
}

impl<K: KeyList> KeyList for Distinct<K> {
    fn count(&self) -> usize {
        self.places.len()
    }

    fn key_len(&self, place: usize) -> usize {
        self.keys.key_len(self.places[place])
    }

    fn put_key(&self, place: usize, out: &mut Vec<u8>) {
        self.keys.put_key(self.places[place], out);
    }

    fn compare(&self, one: usize, other: usize) -> Ordering {
        self.keys.compare(self.places[one], self.places[other])
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

    #[test]
    fn what_is_asked_for_again_is_there_once() {
        let few = |text: &str| {
            let keys = text.bytes().map(|byte| Bytes::copy_from_slice(&[byte]));
            keys.collect::<Vec<_>>()
        };
        assert_eq!(Distinct::of(few("abc")).err(), Some(few("abc")));
        assert_eq!(Distinct::of(few("")).err(), Some(few("")));
        // Both ways to find them.
        for tail in ["", "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"] {
            let asked = few(&format!("abacaa{tail}b"));
            let Ok((distinct, whiches)) = Distinct::of(asked.clone()) else {
                panic!("no repeated keys in {asked:?}");
            };
            let distinct = distinct.into_keys();
            assert_eq!(distinct[..3], few("abc"));
            assert_eq!(distinct.len(), 3 + tail.len());
            let again: Vec<_> = whiches
                .iter()
                .map(|&which| distinct[which].clone())
                .collect();
            assert_eq!(again, asked);
            assert!(Distinct::of(distinct).is_err());
        }
    }
}
