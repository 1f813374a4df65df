//! What the bodies of requests say. Pure.
//!
//! Enters: JSON, whole. Leaves: keys and values, or the [`Problem`] that names the wrong member. Must not trust
//! any length in it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut as _, Bytes};
use hyper::StatusCode;

use super::reply::Problem;
use super::route::{Encoding, check_key};
use crate::store::Batch;
use crate::units::MAX_VALUE_BYTES;

/// The body of `POST /v1/mget`: `{"keys":["a","b"]}`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct MgetBody {
    keys: Vec<String>,
}

/// The body of `POST /v1/mset`: `{"entries":[{"key":"a","value":"1"}]}`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct MsetBody {
    entries: Vec<Entry>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: String,
    value: String,
}

/// The keys of `POST /v1/mget`, in their order.
pub(super) fn mget(body: &[u8], max: usize) -> Result<Vec<Bytes>, Problem> {
    let MgetBody { keys } = parse(body)?;
    check_count("keys", keys.len(), max)?;
    for key in &keys {
        check_key(key.as_bytes())?;
    }
    Ok(keys.into_iter().map(Bytes::from).collect())
}

/// The entries of `POST /v1/mset`, in their order: the last one of a key that comes twice wins.
pub(super) fn mset(body: &[u8], encoding: Encoding, max: usize) -> Result<Batch, Problem> {
    let MsetBody { entries } = parse(body)?;
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
pub(super) fn parse<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| bad(format!("the body: {error}")))
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

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
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
        let body = br#"{"entries":[{"key":"a","value":"%"}]}"#;
        let problem = mset(body, Encoding::Base64, 1).expect_err("no base64");
        assert!(
            problem
                .detail()
                .starts_with("entries[0].value is no base64")
        );
    }
}
