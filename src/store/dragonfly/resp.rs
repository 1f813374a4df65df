//! The part of the Redis protocol, version 2, that reading keys takes. Pure.
//!
//! Enters: keys, and the bytes of answers as they come. Leaves: the bytes of commands, and values without a copy,
//! slices of the buffer they came in. Must not hold more than its buffer, nor take what it was not asked to expect.
//!
//! Source: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use bytes::{Bytes, BytesMut};

use super::super::KeyList;

const LINE_END: &[u8] = b"\r\n";

/// A line that is longer is no number of this protocol and no error that anybody would read.
const MAX_LINE_BYTES: usize = 4 * 1024;
/// Room that is made at once for the rest of a value, so that it comes in few pieces; and not all that a store says
/// will come.
const MAX_ROOM_BYTES: usize = 4 * 1024 * 1024;

/// Appends one MGET of all `keys`.
pub(super) fn put_mget(keys: &impl KeyList, out: &mut Vec<u8>) {
    put_head(b'*', keys.count() + 1, out);
    out.extend_from_slice(b"$4\r\nMGET\r\n");
    for place in 0..keys.count() {
        put_key(keys, place, out);
    }
}

/// Appends one GET for each of `keys`.
pub(super) fn put_gets(keys: &impl KeyList, out: &mut Vec<u8>) {
    for place in 0..keys.count() {
        out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
        put_key(keys, place, out);
    }
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
}

/// Values in their order, `None` for a key that is absent or of another kind; or what the store said instead.
pub(super) type Answer = Result<Vec<Option<Bytes>>, String>;

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
    /// The array of an MGET has begun.
    in_array: bool,
    found: Vec<Place>,
    /// The first refusal among several answers.
    refusal: Option<String>,
}

/// Where the value of a key lies in the buffer.
enum Place {
    Nowhere,
    Between(usize, usize),
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
    pub(super) fn next(&mut self, expected: Expected) -> Result<Option<Answer>, Malformed> {
        let count = match expected {
            Expected::Array(count) if !self.in_array => {
                let Some((line, end)) = self.line()? else {
                    return Ok(None);
                };
                match line {
                    [b'*', digits @ ..] if number(digits) == Some(count) => {}
                    [b'-', reason @ ..] => {
                        self.refusal = Some(text(reason));
                        self.at = end;
                        return Ok(Some(self.take()));
                    }
                    _ => return Err(Malformed),
                }
                (self.at, self.in_array) = (end, true);
                count
            }
            Expected::Array(count) | Expected::Each(count) => count,
        };
        while self.found.len() < count {
            let Some(place) = self.value()? else {
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
            [b'-', reason @ ..] => self.refusal = Some(text(reason)),
            _ => return Err(Malformed),
        }
        self.at = end;
        Ok(Some(self.take().map(drop)))
    }

    /// The answer that is complete, and none of its bytes any more.
    fn take(&mut self) -> Answer {
        let block = self.buffer.split_to(self.at).freeze();
        (self.at, self.in_array) = (0, false);
        let found = self.found.drain(..);
        if let Some(refusal) = self.refusal.take() {
            return Err(refusal);
        }
        let value = |place| match place {
            Place::Nowhere => None,
            Place::Between(start, end) => Some(block.slice(start..end)),
        };
        Ok(found.map(value).collect())
    }

    /// Where the next value lies, if all of it is there.
    fn value(&mut self) -> Result<Option<Place>, Malformed> {
        let Some((line, end)) = self.line()? else {
            return Ok(None);
        };
        let place = match line {
            b"$-1" => Place::Nowhere,
            [b'$', digits @ ..] => {
                let value_end = end + number(digits).ok_or(Malformed)?;
                let whole = value_end + LINE_END.len();
                let Some(line_end) = self.buffer.get(value_end..whole) else {
                    let missing = whole - self.buffer.len();
                    self.buffer.reserve(missing.min(MAX_ROOM_BYTES));
                    return Ok(None);
                };
                if line_end != LINE_END {
                    return Err(Malformed);
                }
                self.at = whole;
                return Ok(Some(Place::Between(end, value_end)));
            }
            [b'-', reason @ ..] => {
                // A key of another kind is a miss, as it is to MGET.
                if !reason.starts_with(b"WRONGTYPE") {
                    let reason = text(reason);
                    self.refusal.get_or_insert(reason);
                }
                Place::Nowhere
            }
            _ => return Err(Malformed),
        };
        self.at = end;
        Ok(Some(place))
    }

    /// The line that begins where the understood part ends, without its end, and where the next one begins.
    fn line(&self) -> Result<Option<(&[u8], usize)>, Malformed> {
        let rest = &self.buffer[self.at..];
        match rest.iter().position(|&byte| byte == b'\r') {
            Some(length) if length > MAX_LINE_BYTES => Err(Malformed),
            Some(length) => match rest.get(length + 1) {
                Some(b'\n') => Ok(Some((&rest[..length], self.at + length + 2))),
                Some(_) => Err(Malformed),
                None => Ok(None),
            },
            None if rest.len() > MAX_LINE_BYTES => Err(Malformed),
            None => Ok(None),
        }
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
        let mut reader = Reader::default();
        let mut answers = Vec::new();
        for piece in bytes.chunks(piece_bytes) {
            reader.buffer().extend_from_slice(piece);
            while !reader.is_empty() {
                let answer = match choice / 4 % 3 {
                    0 => reader.next(Expected::Array(count)),
                    1 => reader.next(Expected::Each(count.max(1))),
                    _ => reader
                        .status()
                        .map(|status| status.map(|status| status.map(|()| Vec::new()))),
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8], expected: Expected) -> Result<Option<Answer>, Malformed> {
        let mut reader = Reader::default();
        reader.buffer().extend_from_slice(bytes);
        reader.next(expected)
    }

    fn all(values: &[Option<&'static str>]) -> Vec<Option<Bytes>> {
        values.iter().map(|value| value.map(Bytes::from)).collect()
    }

    #[test]
    fn a_status_is_good_or_a_refusal() {
        let mut reader = Reader::default();
        reader
            .buffer()
            .extend_from_slice(b"+OK\r\n-WRONGPASS x\r\n+");
        assert_eq!(reader.status(), Ok(Some(Ok(()))));
        assert_eq!(reader.status(), Ok(Some(Err("WRONGPASS x".into()))));
        assert_eq!(reader.status(), Ok(None));
        reader.buffer().extend_from_slice(b"OK\r\n:1\r\n");
        assert_eq!(reader.status(), Ok(Some(Ok(()))));
        assert_eq!(reader.status(), Err(Malformed));
    }

    #[test]
    fn commands_are_written_as_the_protocol_has_them() {
        let keys: Vec<Bytes> = ["a", "long:key:1"].map(Bytes::from).into();
        let mut out = Vec::new();
        put_mget(&keys, &mut out);
        put_gets(&keys, &mut out);
        put_command(&[b"SELECT", b"12"], &mut out);
        let expected = [
            "*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$10\r\nlong:key:1\r\n",
            "*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
            "*2\r\n$3\r\nGET\r\n$10\r\nlong:key:1\r\n",
            "*2\r\n$6\r\nSELECT\r\n$2\r\n12\r\n",
        ];
        assert_eq!(String::from_utf8_lossy(&out), expected.concat());
    }

    #[test]
    fn answers_are_understood() {
        let refused = |text: &str| Err(text.to_owned());
        for (bytes, expected, answer) in [
            (
                "*2\r\n$1\r\nx\r\n$-1\r\n",
                Expected::Array(2),
                Ok(all(&[Some("x"), None])),
            ),
            // What a value holds is its own affair.
            (
                "*1\r\n$6\r\n*1\r\n-\r\r\n",
                Expected::Array(1),
                Ok(all(&[Some("*1\r\n-\r")])),
            ),
            ("-LOADING x\r\n", Expected::Array(2), refused("LOADING x")),
            (
                "$0\r\n\r\n-WRONGTYPE x\r\n",
                Expected::Each(2),
                Ok(all(&[Some(""), None])),
            ),
            // The first reason is told, and all answers belong to it.
            (
                "$1\r\nx\r\n-NOPERM x\r\n-OOPS\r\n",
                Expected::Each(3),
                refused("NOPERM x"),
            ),
        ] {
            assert_eq!(
                read(bytes.as_bytes(), expected),
                Ok(Some(answer)),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn what_is_no_answer_to_what_was_asked_is_malformed() {
        let endless = "$".repeat(MAX_LINE_BYTES + 1);
        for (bytes, expected) in [
            ("*3\r\n", Expected::Array(2)),
            ("*-1\r\n", Expected::Array(2)),
            ("$1\r\nx\r\n", Expected::Array(1)),
            ("*1\r\n:1\r\n", Expected::Array(1)),
            ("*1\r\n", Expected::Each(1)),
            ("+OK\r\n", Expected::Each(1)),
            ("$1\r\nxyz", Expected::Each(1)),
            ("$\r\n", Expected::Each(1)),
            ("$+1\r\nx\r\n", Expected::Each(1)),
            ("$-2\r\n", Expected::Each(1)),
            ("$99999999999\r\n", Expected::Each(1)),
            ("$1\rx", Expected::Each(1)),
            ("\r\n", Expected::Each(1)),
            (&endless, Expected::Each(1)),
        ] {
            assert_eq!(
                read(bytes.as_bytes(), expected),
                Err(Malformed),
                "{bytes:?}"
            );
        }
    }

    fn any_answers() -> impl Strategy<Value = Vec<(bool, Vec<Option<Vec<u8>>>)>> {
        let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
        let answer = (any::<bool>(), proptest::collection::vec(value, 0..6));
        proptest::collection::vec(answer, 0..6)
    }

    proptest! {
        #[test]
        fn answers_are_the_same_in_pieces_of_any_size(answers in any_answers(), sizes in proptest::collection::vec(1..50_usize, 1..9)) {
            let mut bytes = Vec::new();
            for (is_array, values) in &answers {
                if *is_array {
                    put_head(b'*', values.len(), &mut bytes);
                }
                for value in values {
                    match value {
                        Some(value) => {
                            put_head(b'$', value.len(), &mut bytes);
                            bytes.extend_from_slice(value);
                            bytes.extend_from_slice(LINE_END);
                        }
                        None => bytes.extend_from_slice(b"$-1\r\n"),
                    }
                }
            }
            let mut reader = Reader::default();
            let (mut rest, mut sizes) = (&bytes[..], sizes.into_iter().cycle());
            for (is_array, values) in answers {
                let expected = if is_array { Expected::Array } else { Expected::Each };
                let answer = loop {
                    if let Some(answer) = reader.next(expected(values.len())).expect("well formed") {
                        break answer.expect("no refusal");
                    }
                    let (piece, behind) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
                    prop_assert!(!piece.is_empty());
                    reader.buffer().extend_from_slice(piece);
                    rest = behind;
                };
                let answer: Vec<_> = answer.into_iter().map(|value| value.map(Vec::from)).collect();
                prop_assert_eq!(answer, values);
            }
            prop_assert!(rest.is_empty() && reader.is_empty());
        }
    }
}
