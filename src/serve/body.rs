//! What the bodies of requests say. Pure.
//!
//! Enters: JSON, whole. Leaves: keys and values, or the [`Problem`] that names the wrong member. Must not trust
//! any length in it.

use std::marker::PhantomData;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut as _, Bytes};
use hyper::StatusCode;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::brief;
use super::reply::Problem;
use super::route::{Encoding, bad, check_key};
use crate::store::Batch;
use crate::units::{MAX_KEYS_PER_REQUEST, MAX_VALUE_BYTES};

/// The body of `POST /v1/mget`: `{"keys":["a","b"]}`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct MgetBody {
    keys: NotTooMany<String>,
}

/// The body of `POST /v1/mset`: `{"entries":[{"key":"a","value":"1"}]}`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct MsetBody {
    entries: NotTooMany<Entry>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: String,
    value: String,
}

/// As many as any server takes in a request, and no more are read: an element of two bytes takes ten times as much once it
/// is read.
struct NotTooMany<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for NotTooMany<T> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_seq(NotTooMany(Vec::new()))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for NotTooMany<T> {
    type Value = Self;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut array: A) -> Result<Self, A::Error> {
        while let Some(element) = array.next_element()? {
            if self.0.len() == MAX_KEYS_PER_REQUEST as usize {
                return Err(A::Error::custom(format!(
                    "more than {MAX_KEYS_PER_REQUEST} elements"
                )));
            }
            self.0.push(element);
        }
        Ok(self)
    }
}

/// The keys of `POST /v1/mget`, in their order.
pub(super) fn mget(body: &[u8], max: usize) -> Result<Vec<Bytes>, Problem> {
    let MgetBody {
        keys: NotTooMany(keys),
    } = parse(body, PhantomData)?;
    check_count("keys", keys.len(), max)?;
    for key in &keys {
        check_key(key.as_bytes())?;
    }
    Ok(keys.into_iter().map(Bytes::from).collect())
}

/// The entries of `POST /v1/mset`, in their order: the last one of a key that comes twice wins.
pub(super) fn mset(body: &[u8], encoding: Encoding, max: usize) -> Result<Batch, Problem> {
    let MsetBody {
        entries: NotTooMany(entries),
    } = parse(body, PhantomData)?;
    check_count("entries", entries.len(), max)?;
    let mut batch = Batch::with_capacity(entries.len(), body.len());
    for (position, entry) in entries.into_iter().enumerate() {
        check_key(entry.key.as_bytes())?;
        let value = decode(entry.value, encoding)
            .map_err(|reason| bad(format!("entries[{position}].value {reason}")))?;
        check_value(value.len())?;
        batch.push(
            |out| out.put_slice(entry.key.as_bytes()),
            |out| out.put_slice(&value),
        );
    }
    Ok(batch)
}

fn decode(text: String, encoding: Encoding) -> Result<Vec<u8>, String> {
    match encoding {
        Encoding::Text => Ok(text.into_bytes()),
        Encoding::Base64 => BASE64_STANDARD
            .decode(text)
            .map_err(|error| format!("is no base64: {error}")),
    }
}

/// Reads JSON; the message says where it stops being what is expected.
pub(super) fn parse<'a, S: DeserializeSeed<'a>>(
    body: &'a [u8],
    seed: S,
) -> Result<S::Value, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = seed.deserialize(&mut json);
    read.and_then(|read| json.end().map(|()| read))
        .map_err(|error| {
            // It may quote all of a member.
            bad(format!("the body: {}", brief::text(&error.to_string())))
        })
}

/// Refuses no elements at all, and too many.
pub(super) fn check_count(name: &str, count: usize, max: usize) -> Result<(), Problem> {
    if (1..=max).contains(&count) {
        return Ok(());
    }
    Err(bad(format!("{name} has 1 to {max} elements, not {count}")))
}

/// Refuses a value that is larger than the store should hold.
pub(super) fn check_value(bytes: usize) -> Result<(), Problem> {
    if bytes <= MAX_VALUE_BYTES {
        return Ok(());
    }
    let detail = format!("a value has at most {MAX_VALUE_BYTES} bytes");
    Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_order_and_may_repeat() {
        let keys = mget(br#"{"keys":["b","a","b","\u0000"]}"#, 4).expect("keys");
        assert_eq!(keys, ["b", "a", "b", "\0"]);
    }

    #[test]
    fn entries_are_text_or_base64() {
        let body = br#"{"entries":[{"key":"a","value":"/wA="}]}"#;
        let text = mset(body, Encoding::Text, 1).expect("a batch");
        assert_eq!((text.len(), text.bytes()), (1, 5));
        let binary = mset(body, Encoding::Base64, 1).expect("a batch");
        assert_eq!((binary.len(), binary.bytes()), (1, 3));
    }

    #[test]
    fn no_more_is_read_than_any_server_takes() {
        // What stands behind need not even be JSON.
        let max = MAX_KEYS_PER_REQUEST as usize;
        let keys = format!("{{\"keys\":[{} %", "\"\",".repeat(max + 1));
        let problem = mget(keys.as_bytes(), max).expect_err("too many");
        assert!(
            problem.detail().contains("more than 512"),
            "{}",
            problem.detail()
        );
        let entry = r#"{"key":"","value":""},"#;
        let entries = format!("{{\"entries\":[{} %", entry.repeat(max + 1));
        let problem = mset(entries.as_bytes(), Encoding::Text, max).expect_err("too many");
        assert!(
            problem.detail().contains("more than 512"),
            "{}",
            problem.detail()
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = format!(r#"{{"keys":["{}"]}}"#, "k".repeat(512));
        for (body, expected) in [
            (&b""[..], "the body: EOF"),
            (b"{}", "missing field `keys`"),
            (br#"{"keys":"a"}"#, "expected a sequence"),
            (br#"{"keys":[1]}"#, "expected a string"),
            (br#"{"keys":[]}"#, "keys has 1 to 2 elements, not 0"),
            (br#"{"keys":["a","b","c"]}"#, "not 3"),
            (br#"{"keys":[""]}"#, "1 to 511 bytes"),
            (long.as_bytes(), "1 to 511 bytes"),
            (br#"{"keys":["a"],"x":1}"#, "unknown field `x`"),
        ] {
            let problem = mget(body, 2).expect_err(expected);
            assert!(problem.detail().contains(expected), "{}", problem.detail());
        }
        let long = "x".repeat(100_000);
        for (body, expected) in [
            (format!(r#"{{"keys":"{long}"}}"#), "column 100010"),
            (format!(r#"{{"{long}":1}}"#), "column 100003"),
        ] {
            let problem = mget(body.as_bytes(), 2).expect_err(expected);
            assert!(problem.detail().contains(expected), "{}", problem.detail());
            assert!(problem.detail().len() < 300, "{}", problem.detail());
        }
        let body = br#"{"entries":[{"key":"a","value":"%"}]}"#;
        let problem = mset(body, Encoding::Base64, 1).expect_err("no base64");
        assert!(
            problem
                .detail()
                .starts_with("entries[0].value is no base64")
        );
    }
}
