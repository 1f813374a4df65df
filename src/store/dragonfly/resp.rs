//! The part of the Redis protocol, version 2, that reading keys takes. Pure.
//!
//! Enters: keys, and the bytes of answers as they come. Leaves: the bytes of commands, and values without a copy,
//! slices of the buffer they came in. Must not hold more than its buffer, nor take what it was not asked to expect.
//!
//! Source: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

mod part;
mod reply;

use bytes::{Bytes, BytesMut};

use super::super::{Held, KeyList, Only, Room};
use crate::config::Node;

pub(super) use part::Part;
pub(super) use reply::Reply;

const LINE_END: &[u8] = b"\r\n";

/// A line that is longer is no number of this protocol and no error that anybody would read.
const MAX_LINE_BYTES: usize = 4 * 1024;
/// What the values of one answer may have in all, in bytes, before each further one needs room of its own.
const SMALL_ANSWER_BYTES: usize = 64 * 1024;
/// What is allocated at once for a value: not all that a store says will come.
const MAX_CAPACITY_BYTES: usize = 4 * 1024 * 1024;

/// Appends one MGET of all `keys`.
pub(super) fn put_mget(keys: &impl KeyList, out: &mut Vec<u8>) {
    put_head(b'*', keys.count() + 1, out);
    out.extend_from_slice(b"$4\r\nMGET\r\n");
    for place in 0..keys.count() {
        put_key(keys, place, out);
    }
}

/// Appends one GET for each of `keys` at these places.
pub(super) fn put_gets(
    keys: &impl KeyList,
    places: impl Iterator<Item = usize>,
    out: &mut Vec<u8>,
) {
    for place in places {
        out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
        put_key(keys, place, out);
    }
}

/// Appends one SET for each of `entries`, with the time to live that it has, in milliseconds.
pub(super) fn put_sets<'a>(
    entries: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ttl_ms: Option<i64>,
    out: &mut Vec<u8>,
) {
    for (key, value) in entries {
        put_set(key, value, ttl_ms, None, out);
    }
}

/// Appends a SET with the time to live that its key has, in milliseconds, and with what makes it depend on what is there.
pub(super) fn put_set(
    key: &[u8],
    value: &[u8],
    ttl_ms: Option<i64>,
    only: Option<Only>,
    out: &mut Vec<u8>,
) {
    let mut digits = itoa::Buffer::new();
    let mut words: [&[u8]; 6] = [b"SET", key, value, b"", b"", b""];
    let mut count = 3;
    if let Some(ttl_ms) = ttl_ms {
        (words[3], words[4]) = (b"PX", digits.format(ttl_ms).as_bytes());
        count = 5;
    }
    if let Some(only) = only {
        words[count] = match only {
            Only::IfAbsent => b"NX",
            Only::IfPresent => b"XX",
        };
        count += 1;
    }
    put_command(&words[..count], out);
}

/// Appends a command of any words.
pub(super) fn put_command(words: &[&[u8]], out: &mut Vec<u8>) {
    put_head(b'*', words.len(), out);
    for word in words {
        put_head(b'$', word.len(), out);
        out.extend_from_slice(word);
        out.extend_from_slice(LINE_END);
    }
}

fn put_key(keys: &impl KeyList, place: usize, out: &mut Vec<u8>) {
    put_head(b'$', keys.key_len(place), out);
    let start = out.len();
    keys.put_key(place, out);
    debug_assert_eq!(out.len() - start, keys.key_len(place));
    out.extend_from_slice(LINE_END);
}

fn put_head(kind: u8, number: usize, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.extend_from_slice(LINE_END);
}

/// What answers a command, or several that were sent as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// One array of so many values: MGET.
    Array(usize),
    /// So many values, each by itself: GET and GET and GET.
    Each(usize),
    /// The same from a node of a cluster, which may say of some keys that they are elsewhere.
    Scattered(usize),
    /// What ASKING is answered by, and one value as of [`Expected::Scattered`].
    Arriving,
    /// So many times `OK`, from a node of a cluster, which may say of some keys that they are elsewhere: SET and SET.
    Stored(usize),
}

/// Values in their order, `None` for a key that is absent or of another kind, and for one that was stored; or why there
/// are none.
pub(super) type Answer = Result<Vec<Option<Bytes>>, Refusal>;

/// Why there are no values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// What the store said instead.
    Said(String),
    /// Together they have so many bytes, which did not fit in what may be held here, and were let go as they came.
    NoRoom(usize),
    /// Some of the keys are with other nodes.
    Elsewhere(Box<Elsewhere>),
}

/// What a node of a cluster has, and where the rest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elsewhere {
    /// As in an [`Answer`]; `None` also for what is elsewhere.
    pub(super) values: Vec<Option<Bytes>>,
    /// Places among the keys that were asked for, and where these are.
    pub(super) keys: Vec<(usize, Redirection)>,
}

/// Where a key is. <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding>
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Redirection {
    /// With an empty host: that of the node which said so.
    pub(super) node: Node,
    /// For this time only, and to be asked for as what is under way.
    pub(super) is_arriving: bool,
}

impl Redirection {
    /// `MOVED 3999 127.0.0.1:6381`, or the same with `ASK`.
    fn read(reason: &str) -> Option<Self> {
        let (is_arriving, rest) = match reason.strip_prefix("MOVED ") {
            Some(rest) => (false, rest),
            None => (true, reason.strip_prefix("ASK ")?),
        };
        let (_slot, node) = rest.split_once(' ')?;
        let (host, port) = node.rsplit_once(':')?;
        let host = if host == "?" { "" } else { host };
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = port.trim_end().parse().ok()?;
        let node = Node { host, port };
        Some(Self { node, is_arriving })
    }
}

/// The bytes are no answer to what was asked. What follows them cannot be told apart, so the connection is of no
/// further use.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// One answer after the other, out of bytes that come in pieces of any size. What was understood of an answer is kept,
/// so that a large one is not read again with each piece.
#[derive(Default)]
pub(super) struct Reader {
    /// What came and is not taken yet.
    buffer: BytesMut,
    /// Up to here the buffer is understood.
    at: usize,
    /// What stands before the values is understood: the head of the array of an MGET, the answer to ASKING.
    has_begun: bool,
    /// A key may be elsewhere.
    is_scattered: bool,
    /// Keys are stored, and not read.
    is_stored: bool,
    found: Vec<Place>,
    /// Bytes of the values that were found.
    value_bytes: usize,
    /// A value that is on its way into room of its own.
    large: Option<Large>,
    /// The first refusal among several answers.
    refusal: Option<Refusal>,
    /// Of the keys that are with other nodes.
    elsewhere: Vec<(usize, Redirection)>,
}

/// Where the value of a key lies.
enum Place {
    Nowhere,
    /// In the buffer.
    Between(usize, usize),
    /// Alone.
    Own(Bytes),
}

/// A value that does not come into the buffer.
struct Large {
    /// What came of it, and its place among all that is held; `None`: nobody will have it.
    kept: Option<(BytesMut, Held)>,
    missing: usize,
}

impl Reader {
    /// Where the next bytes belong.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether nothing has come that was not taken.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next answer, once all of it is there.
    ///
    /// # Errors
    /// When the bytes are no such answer; no further one can be taken then.
    pub(super) fn next(
        &mut self,
        expected: Expected,
        room: &Room,
    ) -> Result<Option<Answer>, Malformed> {
        let count = match expected {
            Expected::Array(count)
            | Expected::Each(count)
            | Expected::Scattered(count)
            | Expected::Stored(count) => count,
            Expected::Arriving => 1,
        };
        self.is_scattered = !matches!(expected, Expected::Array(_) | Expected::Each(_));
        self.is_stored = matches!(expected, Expected::Stored(_));
        if !self.has_begun && matches!(expected, Expected::Array(_) | Expected::Arriving) {
            let Some((line, end)) = self.line()? else {
                return Ok(None);
            };
            match (line, expected) {
                ([b'*', digits @ ..], Expected::Array(_)) if number(digits) == Some(count) => {}
                ([b'-', reason @ ..], Expected::Array(_)) => {
                    self.refusal = Some(Refusal::Said(text(reason)));
                    self.at = end;
                    return Ok(Some(self.take()));
                }
                // Who is refused it is told so by the answer behind it.
                ([b'+' | b'-', ..], Expected::Arriving) => {}
                _ => return Err(Malformed),
            }
            (self.at, self.has_begun) = (end, true);
        }
        while self.found.len() < count {
            let Some(place) = self.value(room)? else {
                return Ok(None);
            };
            self.found.push(place);
        }
        Ok(Some(self.take()))
    }

    /// The next answer of a command that is answered by `+OK` or a refusal, once all of it is there.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub(super) fn status(&mut self) -> Result<Option<Result<(), String>>, Malformed> {
        let Some((line, end)) = self.line()? else {
            return Ok(None);
        };
        match line {
            [b'+', ..] => {}
            [b'-', reason @ ..] => {
                let reason = text(reason);
                self.at = end;
                drop(self.take());
                return Ok(Some(Err(reason)));
            }
            _ => return Err(Malformed),
        }
        self.at = end;
        drop(self.take());
        Ok(Some(Ok(())))
    }

    /// The answer that is complete, and none of its bytes any more.
    fn take(&mut self) -> Answer {
        let block = self.buffer.split_to(self.at).freeze();
        (self.at, self.has_begun, self.value_bytes) = (0, false, 0);
        let found = self.found.drain(..);
        if let Some(refusal) = self.refusal.take() {
            self.elsewhere.clear();
            return Err(refusal);
        }
        let value = |place| match place {
            Place::Nowhere => None,
            Place::Between(start, end) => Some(block.slice(start..end)),
            Place::Own(value) => Some(value),
        };
        let values = found.map(value).collect();
        if self.elsewhere.is_empty() {
            return Ok(values);
        }
        let keys = std::mem::take(&mut self.elsewhere);
        Err(Refusal::Elsewhere(Box::new(Elsewhere { values, keys })))
    }

    /// Where the next value lies, if all of it is there.
    fn value(&mut self, room: &Room) -> Result<Option<Place>, Malformed> {
        if self.large.is_some() {
            return self.go_on();
        }
        let Some((line, end)) = self.line()? else {
            return Ok(None);
        };
        let place = match line {
            b"+OK" if self.is_stored => Place::Nowhere,
            b"$-1" if !self.is_stored => Place::Nowhere,
            [b'$', digits @ ..] if !self.is_stored => {
                let length = number(digits).ok_or(Malformed)?;
                if self.value_bytes + length > SMALL_ANSWER_BYTES {
                    self.at = end;
                    self.begin_large(length, room);
                    return self.go_on();
                }
                let value_end = end + length;
                let whole = value_end + LINE_END.len();
                let Some(line_end) = self.buffer.get(value_end..whole) else {
                    self.buffer.reserve(whole - self.buffer.len());
                    return Ok(None);
                };
                if line_end != LINE_END {
                    return Err(Malformed);
                }
                self.at = whole;
                self.value_bytes += length;
                return Ok(Some(Place::Between(end, value_end)));
            }
            [b'-', reason @ ..] => {
                // A key of another kind is a miss, as it is to MGET.
                if self.is_stored || !reason.starts_with(b"WRONGTYPE") {
                    let reason = text(reason);
                    match Redirection::read(&reason).filter(|_| self.is_scattered) {
                        Some(there) => self.elsewhere.push((self.found.len(), there)),
                        None => {
                            self.refusal.get_or_insert(Refusal::Said(reason));
                        }
                    }
                }
                Place::Nowhere
            }
            _ => return Err(Malformed),
        };
        self.at = end;
        Ok(Some(place))
    }

    /// Makes room for a value whose length is known, and of which nothing is taken yet. What nobody will have, because of
    /// it or of another of the same answer, is let go as it comes.
    fn begin_large(&mut self, length: usize, room: &Room) {
        self.value_bytes += length;
        let mut held = room.hold();
        let kept = if let Some(refusal) = &mut self.refusal {
            if let Refusal::NoRoom(needed) = refusal {
                *needed = self.value_bytes;
            }
            None
        } else if room.add(&mut held, length).is_ok() {
            let capacity = length.min(MAX_CAPACITY_BYTES);
            Some((BytesMut::with_capacity(capacity), held))
        } else {
            self.refusal = Some(Refusal::NoRoom(self.value_bytes));
            // What was found is of no use to anybody, and may be much.
            self.found
                .iter_mut()
                .for_each(|place| *place = Place::Nowhere);
            None
        };
        self.large = Some(Large {
            kept,
            missing: length,
        });
    }

    /// Takes what came of a large value out of the buffer; its place once all of it is there.
    fn go_on(&mut self) -> Result<Option<Place>, Malformed> {
        let Some(large) = &mut self.large else {
            return Ok(None);
        };
        let came = &self.buffer[self.at..];
        let piece = came.len().min(large.missing);
        if let Some((kept, _)) = &mut large.kept {
            kept.extend_from_slice(&came[..piece]);
        }
        large.missing -= piece;
        let rest = self.buffer.split_off(self.at + piece);
        self.buffer.truncate(self.at);
        self.buffer.unsplit(rest);
        let is_whole = large.missing == 0;
        let Some(line_end) = self.buffer.get(self.at..self.at + LINE_END.len()) else {
            return Ok(None);
        };
        if !is_whole {
            return Ok(None);
        }
        if line_end != LINE_END {
            return Err(Malformed);
        }
        self.at += LINE_END.len();
        let kept = self.large.take().and_then(|large| large.kept);
        Ok(Some(kept.map_or(Place::Nowhere, |(value, held)| {
            Place::Own(held.keep(value.freeze()))
        })))
    }

    /// The line that begins where the understood part ends, without its end, and where the next one begins.
    fn line(&self) -> Result<Option<(&[u8], usize)>, Malformed> {
        let found = line(&self.buffer[self.at..])?;
        Ok(found.map(|(line, next)| (line, self.at + next)))
    }
}

/// The line that the bytes begin with, without its end, and where the next one begins, once it is whole.
fn line(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Malformed> {
    match bytes.iter().position(|&byte| byte == b'\r') {
        Some(length) if length > MAX_LINE_BYTES => Err(Malformed),
        Some(length) => match bytes.get(length + 1) {
            Some(b'\n') => Ok(Some((&bytes[..length], length + LINE_END.len()))),
            Some(_) => Err(Malformed),
            None => Ok(None),
        },
        None if bytes.len() > MAX_LINE_BYTES => Err(Malformed),
        None => Ok(None),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Digits and nothing else, as many as no sum of them overflows.
fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 10 {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + usize::from(digit - b'0'))
    })
}

/// Takes any bytes for answers: they are the same however they are cut.
#[cfg(feature = "fuzzing")]
pub(in crate::store) fn fuzz(bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else {
        return;
    };
    let count = usize::from(choice % 4);
    let read = |piece_bytes: usize| {
        let room = Room::new(1024 * 1024);
        let mut reader = Reader::default();
        let mut answers = Vec::new();
        for piece in bytes.chunks(piece_bytes) {
            reader.buffer().extend_from_slice(piece);
            while !reader.is_empty() {
                let answer = match choice / 4 % 6 {
                    0 => reader.next(Expected::Array(count), &room),
                    1 => reader.next(Expected::Each(count.max(1)), &room),
                    2 => reader.next(Expected::Scattered(count.max(1)), &room),
                    3 => reader.next(Expected::Arriving, &room),
                    4 => reader.next(Expected::Stored(count.max(1)), &room),
                    _ => reader.status().map(|status| {
                        status.map(|status| status.map(|()| Vec::new()).map_err(Refusal::Said))
                    }),
                };
                match answer {
                    Ok(Some(answer)) => answers.push(answer),
                    Ok(None) => break,
                    Err(Malformed) => return (answers, true),
                }
            }
        }
        (answers, false)
    };
    assert_eq!(read(bytes.len().max(1)), read(usize::from(choice / 16) + 1));
    let _ = Reply::read(bytes);
    let mut came = BytesMut::from(bytes);
    while let Ok(Some(_)) = Part::take(&mut came) {}
}

#[cfg(test)]
mod tests;
