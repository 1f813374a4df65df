//! The forms that values may have: this program's own records, the same sessions as JSON, or bytes without a meaning.
//!
//! Enters: a session or a seed, and a size. Leaves: bytes that follow from them alone. Must not know where they are kept,
//! nor change what a dataset of an earlier build holds: the golden values in the tests freeze it.
//!
//! # JSON
//! `{"id":7,"status":"active","role":"lead","created_at":…,"expires_at":…,"ip":"10.0.0.7","user_agent":"…","padding":"…"}`:
//! the members that `kvpoc serve` answers with, in its order and by its names, without white space, and a last one that
//! brings the text to its size. Of 64 plain characters, its padding can be packed to three quarters, and no further.

use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;
use std::str::FromStr;

use bytes::{BufMut as _, BytesMut};

use super::{MIN_VALUE_BYTES, Session, VERSION};
use crate::random::splitmix64;
use crate::units::UnitError;

/// The smallest size that holds the JSON of every session: twelve digits of an id, the longest of all else, no padding.
pub const MIN_JSON_BYTES: usize = 183;

/// What the values of a dataset are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The binary records of this program.
    #[default]
    Record,
    /// The same sessions as compact JSON.
    Json,
    /// Seeded random bytes.
    Raw,
}

impl Format {
    const ALL: [Self; 3] = [Self::Record, Self::Json, Self::Raw];

    /// As it is written on a command line and in a note.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Json => "json",
            Self::Raw => "raw",
        }
    }

    /// What a dataset consists of, for a person.
    #[must_use]
    pub fn values(self) -> &'static str {
        match self {
            Self::Record => "binary records",
            Self::Json => "JSON records",
            Self::Raw => "raw bytes",
        }
    }

    /// The smallest size that can be asked for, in bytes.
    #[must_use]
    pub fn least_bytes(self) -> usize {
        match self {
            Self::Record => MIN_VALUE_BYTES,
            Self::Json => MIN_JSON_BYTES,
            Self::Raw => 1,
        }
    }

    /// The version byte of its records; 0 of what has none, which earlier builds take for a version that they do not know.
    #[must_use]
    pub fn record_version(self) -> u8 {
        match self {
            Self::Record => VERSION,
            Self::Json | Self::Raw => 0,
        }
    }

    /// It is the one that needs no mention.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for Format {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let found = Self::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| UnitError("write record, json or raw".into()))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Appends a session as JSON, padded to `bytes` by characters that follow from `base`; longer where it does not fit.
pub(super) fn put_json(session: &Session<'_>, bytes: usize, base: u64, out: &mut BytesMut) {
    let start = out.len();
    let [status, role] = [session.status.name(), session.role.name()];
    let (created, expires) = (session.created_at_s, session.expires_at_s);
    let (ip, user_agent) = (Ipv4Addr::from(session.ip), session.user_agent);
    // No user agent of the dataset needs escaping.
    write!(
        out,
        "{{\"id\":{},\"status\":\"{status}\",\"role\":\"{role}\",\"created_at\":{created},\"expires_at\":{expires},\
         \"ip\":\"{ip}\",\"user_agent\":\"{user_agent}\",\"padding\":\"",
        session.id
    )
    .expect("appending to memory cannot fail");
    let padding = bytes.saturating_sub(out.len() - start + END.len());
    put_plain(padding, base, out);
    out.put_slice(END);
}

const END: &[u8] = b"\"}";

/// Six bits each, and none that JSON or a URL would escape.
const PLAIN: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Characters from one word.
const PLAIN_OF_WORD: usize = 10;

fn put_plain(count: usize, base: u64, out: &mut BytesMut) {
    out.reserve(count);
    let mut left = count;
    for word in 0.. {
        let mut bits = splitmix64(base, word);
        for _ in 0..left.min(PLAIN_OF_WORD) {
            out.put_u8(PLAIN[(bits & 63) as usize]);
            bits >>= 6;
        }
        left = left.saturating_sub(PLAIN_OF_WORD);
        if left == 0 {
            return;
        }
    }
}

/// Appends so many bytes that follow from `base`.
pub(super) fn put_raw(bytes: usize, base: u64, out: &mut BytesMut) {
    out.reserve(bytes);
    for word in 0..bytes.div_ceil(8) {
        let bits = splitmix64(base, word as u64).to_le_bytes();
        out.put_slice(&bits[..(bytes - word * 8).min(8)]);
    }
}

/// Whether a value begins as raw bytes from `base` do: as far as one word tells.
pub(super) fn begins_raw(value: &[u8], base: u64) -> bool {
    let first = splitmix64(base, 0).to_le_bytes();
    let shown = value.len().min(first.len());
    shown > 0 && value[..shown] == first[..shown]
}

/// Whether a value begins as the JSON of this index does.
pub(super) fn begins_json(value: &[u8], index: u64) -> bool {
    let id = value.strip_prefix(b"{\"id\":");
    let rest = id.and_then(|id| id.strip_prefix(itoa::Buffer::new().format(index).as_bytes()));
    rest.is_some_and(|rest| rest.first() == Some(&b','))
}

#[cfg(test)]
mod tests {
    use super::super::{Dataset, Decoded, USER_AGENTS, decode};
    use super::*;
    use proptest::prelude::*;

    fn dataset(format: Format, value_size: &str, seed: u64) -> Dataset {
        Dataset {
            key_prefix: "user:session:".into(),
            value_size: value_size.parse().expect("a size"),
            seed,
            format,
        }
    }

    fn value(dataset: &Dataset, index: u64) -> BytesMut {
        let mut out = BytesMut::new();
        dataset.put_record(index, &mut out);
        out
    }

    #[test]
    fn golden_values_freeze_the_formats() {
        let json = value(&dataset(Format::Json, "200", 1), 7);
        let expected = GOLDEN_JSON_OF_RECORD_7;
        assert_eq!(std::str::from_utf8(&json), Ok(expected));
        let raw = value(&dataset(Format::Raw, "11", 1), 7);
        assert_eq!(raw[..], GOLDEN_RAW_OF_RECORD_7);
    }
    const GOLDEN_JSON_OF_RECORD_7: &str = r#"{"id":7,"status":"active","role":"senior","created_at":1768328478,"expires_at":2083688478,"ip":"10.133.39.18","user_agent":"Mozilla/5.0 (Windows NT 10.0)","padding":"3JAMpZLIMuhnIlYMTmSY5XXyMxbTIsDG"}"#;
    const GOLDEN_RAW_OF_RECORD_7: [u8; 11] = [119, 2, 48, 105, 182, 32, 140, 235, 225, 137, 148];

    #[test]
    fn json_holds_the_session_that_the_record_of_its_index_holds() {
        for index in [0, 7, 999_999_999_999] {
            let record = value(&dataset(Format::Record, "256", 1), index);
            let Ok(Decoded::Session(session)) = decode(&record) else {
                panic!("no record");
            };
            let json = value(&dataset(Format::Json, "256", 1), index);
            let text = std::str::from_utf8(&json).expect("text");
            let found: serde_json::Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(found["id"], index);
            assert_eq!(found["status"], "active");
            assert_eq!(found["role"], session.role.name());
            assert_eq!(found["created_at"], session.created_at_s);
            assert_eq!(found["expires_at"], session.expires_at_s);
            assert_eq!(found["ip"], Ipv4Addr::from(session.ip).to_string());
            assert_eq!(found["user_agent"], session.user_agent);
            assert_eq!(found.to_string(), text, "compact, in this order");
            assert_eq!(decode(&json), Ok(Decoded::Json { text, active: true }));
        }
    }

    #[test]
    fn the_smallest_size_holds_the_json_of_every_session() {
        let longest = Session {
            id: 999_999_999_999,
            status: super::super::Status::Active,
            role: super::super::Role::Junior,
            created_at_s: 1_767_225_600,
            expires_at_s: 2_082_758_400,
            ip: [100; 4],
            user_agent: USER_AGENTS
                .into_iter()
                .max_by_key(|agent| agent.len())
                .expect("one"),
            padding: &[],
        };
        let mut out = BytesMut::new();
        // An address of the dataset begins with 10.
        put_json(
            &Session {
                ip: [10, 255, 255, 255],
                ..longest
            },
            0,
            1,
            &mut out,
        );
        assert_eq!(out.len(), MIN_JSON_BYTES);
        assert!(out.ends_with(b"\"padding\":\"\"}"));
        let is_plain = |agent: &str| !agent.contains(['"', '\\']) && agent.is_ascii();
        assert!(USER_AGENTS.into_iter().all(is_plain));
    }

    #[test]
    fn values_of_neighbours_and_of_seeds_differ_and_know_their_index() {
        for format in Format::ALL {
            let (one, other) = (dataset(format, "256", 1), dataset(format, "256", 2));
            assert_ne!(value(&one, 1), value(&one, 2), "{format}");
            assert_ne!(value(&one, 1), value(&other, 1), "{format}");
            assert!(one.begins_as(1, &value(&one, 1)), "{format}");
            assert!(!one.begins_as(1, &value(&one, 11)), "{format}");
            assert!(!one.begins_as(11, &value(&one, 1)), "{format}");
            assert!(!one.begins_as(1, b""), "{format}");
        }
    }

    #[test]
    fn formats_are_known_by_their_names() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
            let json = serde_json::to_string(&format).expect("JSON");
            assert_eq!(json, format!("\"{format}\""));
        }
        assert!("JSON".parse::<Format>().is_err());
    }

    proptest! {
        #[test]
        fn every_size_is_met(index in 0_u64..1_000_000_000_000, seed: u64, more in 0_usize..2_000) {
            for format in Format::ALL {
                let size = (format.least_bytes() + more).to_string();
                let value = value(&dataset(format, &size, seed), index);
                prop_assert_eq!(value.len().to_string(), size);
            }
        }
    }
}
