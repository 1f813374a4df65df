//! Records: index → key → value, and back.
//!
//! Enters: a dataset (seed, prefix, value size) and an index, or stored bytes. Leaves: a key, the encoded
//! record, or the decoded session. Must not know tokio, fred, hyper, clap or the clock: a record is a pure
//! function of the dataset's seed and its index, so that any process can check any value.
//!
//! # Key and value
//! The key of index 42 is `user:session:42`. Its value follows from the dataset's seed and the index alone, so that
//! loading the same dataset twice changes nothing. It is a session, padded with seeded random bytes to `--value-size`
//! (256): no store can compress the memory figures away. `kvpoc seed` notes what it loaded under `kvpoc:dataset`. With
//! `--format` the values are of another form, for other programs ([`Format`]).
//!
//! # Format
//! One byte of version, then bincode 2 with fixed-width little-endian integers: every field before the two
//! strings has a constant place, and every value size from [`MIN_VALUE_BYTES`] up can be met to the byte.
//! Strings and byte slices carry a `u64` length. The golden bytes in the tests freeze it.

mod format;

use bincode::{BorrowDecode, Encode};
use bytes::{BufMut, BytesMut};

use crate::random::{below, splitmix64};
use crate::units::{MAX_VALUE_BYTES, ValueSize};
pub use format::{Format, MIN_JSON_BYTES};

/// The version byte of the only binary format so far. JSON begins with `{` (0x7B), so the two never meet.
pub const VERSION: u8 = 1;

/// The smallest encoded record: all fields, the longest user agent, no padding.
pub const MIN_VALUE_BYTES: usize = 1 + FIXED_FIELD_BYTES + LONGEST_USER_AGENT_BYTES;

/// id, status, role, created, expires, ip, and the lengths of user agent and padding.
const FIXED_FIELD_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 4 + 8 + 8;

const USER_AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64)",
    "Mozilla/5.0 (Macintosh)",
    "Mozilla/5.0 (Windows NT 10.0)",
    "Mozilla/5.0 (iPhone; iOS 18.5)",
];
const LONGEST_USER_AGENT_BYTES: usize = 31;

/// 2026-01-01T00:00:00Z: no record depends on when it was made.
const FIRST_CREATED_AT_S: u64 = 1_767_225_600;
const CREATED_WITHIN_S: u64 = 180 * 86_400;
/// Ten years: a session of the dataset never expires while it is measured.
const LIFETIME_S: u64 = 3_650 * 86_400;

/// Whether a session may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Status {
    /// It may.
    Active,
    /// It was ended.
    Revoked,
}

impl Status {
    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
        }
    }
}

/// What the session's user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Role {
    /// A new user.
    Junior,
    /// A user of long standing.
    Senior,
    /// A user who manages others.
    Lead,
    /// An administrator.
    Admin,
}

impl Role {
    const ALL: [Self; 4] = [Self::Junior, Self::Senior, Self::Lead, Self::Admin];

    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Junior => "junior",
            Self::Senior => "senior",
            Self::Lead => "lead",
            Self::Admin => "admin",
        }
    }
}

/// One session, borrowed from its encoded bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Session<'a> {
    /// The index of the record.
    pub id: u64,
    /// Every seeded record is active, so that each read of the dataset is a full one.
    pub status: Status,
    /// What the user may do.
    pub role: Role,
    /// Seconds since the Unix epoch.
    pub created_at_s: u64,
    /// Seconds since the Unix epoch.
    pub expires_at_s: u64,
    /// IPv4 address of the user.
    pub ip: [u8; 4],
    /// The browser, shortened.
    pub user_agent: &'a str,
    /// Seeded random bytes that bring the record to its size; a store cannot compress them.
    pub padding: &'a [u8],
}

/// A stored value, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// The binary format of this module.
    Session(Session<'a>),
    /// A JSON object with a `status`, as an older loader wrote it, whole.
    Json {
        /// The text of the object, without surrounding white space.
        text: &'a str,
        /// Its status is `active`.
        active: bool,
    },
}

/// Why stored bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There is nothing.
    #[error("the value is empty")]
    Empty,
    /// Neither a known version byte nor a JSON object.
    #[error("unknown version byte 0x{0:02x} at offset 0 (known: 0x01, or a JSON object)")]
    UnknownVersion(u8),
    /// The version is known, the rest is not what it says.
    #[error("corrupt record: {0}")]
    Corrupt(String),
    /// A complete record, and something after it.
    #[error("corrupt record: {0} bytes are left over at offset {1}")]
    TrailingBytes(usize, usize),
    /// It begins like JSON, and is none, or has no `status`.
    #[error("not a JSON session: {0}")]
    Json(String),
}

/// What determines every key and value of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// What stands before the index in each key.
    pub key_prefix: String,
    /// Bytes of the encoded records.
    pub value_size: ValueSize,
    /// The seed that all contents follow from.
    pub seed: u64,
    /// What the values are.
    pub format: Format,
}

impl Dataset {
    /// Appends the key of `index`, such as `user:session:42`.
    pub fn put_key(&self, index: u64, out: &mut BytesMut) {
        put_key(&self.key_prefix, index, out);
    }

    /// Appends the value of `index`, of a size that `value_size` allows.
    pub fn put_record(&self, index: u64, out: &mut BytesMut) {
        match self.format {
            Format::Record => self.put_binary(index, out),
            Format::Json => {
                let base = splitmix64(self.seed, index);
                let session = self.session(index, &[]);
                format::put_json(&session, self.record_bytes(index), base, out);
            }
            Format::Raw => {
                format::put_raw(self.record_bytes(index), splitmix64(self.seed, index), out);
            }
        }
    }

    /// Whether a value is that of `index`, as far as its first bytes tell.
    #[must_use]
    pub fn begins_as(&self, index: u64, value: &[u8]) -> bool {
        match self.format {
            Format::Record => id(value) == Some(index),
            Format::Json => format::begins_json(value, index),
            Format::Raw => format::begins_raw(value, splitmix64(self.seed, index)),
        }
    }

    fn put_binary(&self, index: u64, out: &mut BytesMut) {
        let mut padding = [0_u8; 512];
        let user_agent = self.session(index, &[]).user_agent;
        let bytes = self.record_bytes(index);
        let padding_len = bytes - 1 - FIXED_FIELD_BYTES - user_agent.len();
        if padding_len <= padding.len() {
            self.encode(index, &mut padding[..padding_len], out);
        } else {
            self.encode(index, &mut vec![0; padding_len], out);
        }
    }

    /// The size of the record of `index`.
    #[must_use]
    pub fn record_bytes(&self, index: u64) -> usize {
        // No word of any padding has this number.
        let bits = splitmix64(splitmix64(self.seed, index), u64::MAX);
        self.value_size.bytes(bits)
    }

    fn encode(&self, index: u64, padding: &mut [u8], out: &mut BytesMut) {
        let base = splitmix64(self.seed, index);
        for (word, chunk) in padding.chunks_mut(8).enumerate() {
            let bits = splitmix64(base, word as u64).to_le_bytes();
            chunk.copy_from_slice(&bits[..chunk.len()]);
        }
        self.session(index, padding).put(out);
    }

    /// The session of `index`, whatever the values are.
    #[must_use]
    pub fn session<'a>(&self, index: u64, padding: &'a [u8]) -> Session<'a> {
        let base = splitmix64(self.seed, index);
        let created_at_s = FIRST_CREATED_AT_S + below(base.rotate_left(32), CREATED_WITHIN_S);
        Session {
            id: index,
            status: Status::Active,
            role: Role::ALL[(base & 3) as usize],
            created_at_s,
            expires_at_s: created_at_s + LIFETIME_S,
            ip: [
                10,
                (base >> 8) as u8,
                (base >> 16) as u8,
                (base >> 24) as u8,
            ],
            user_agent: USER_AGENTS[below(base, 4) as usize],
            padding,
        }
    }
}

impl Session<'_> {
    /// Appends the version byte and the encoded session.
    pub fn put(&self, out: &mut BytesMut) {
        out.put_u8(VERSION);
        bincode::encode_into_writer(self, Appender(out), codec())
            .expect("appending to memory cannot fail");
    }
}

/// Appends `prefix` and the decimal `index`.
pub fn put_key(prefix: &str, index: u64, out: &mut impl BufMut) {
    out.put_slice(prefix.as_bytes());
    out.put_slice(itoa::Buffer::new().format(index).as_bytes());
}

/// Bytes that [`put_key`] appends.
#[must_use]
pub fn key_len(prefix: &str, index: u64) -> usize {
    prefix.len() + index.checked_ilog10().unwrap_or_default() as usize + 1
}

/// Understands a stored value. Lengths inside it are bounded, and nothing may be left over.
///
/// # Errors
/// [`DecodeError`], which says what is wrong and where.
pub fn decode(bytes: &[u8]) -> Result<Decoded<'_>, DecodeError> {
    match bytes.split_first() {
        None => Err(DecodeError::Empty),
        Some((&VERSION, body)) => {
            let (session, consumed) = bincode::borrow_decode_from_slice(body, codec())
                .map_err(|error| DecodeError::Corrupt(error.to_string()))?;
            if consumed == body.len() {
                Ok(Decoded::Session(session))
            } else {
                Err(DecodeError::TrailingBytes(
                    body.len() - consumed,
                    consumed + 1,
                ))
            }
        }
        Some((b'{', _)) => decode_json(bytes),
        Some((&version, _)) => Err(DecodeError::UnknownVersion(version)),
    }
}

/// The index of a record in the binary format, without a look at the rest of it.
#[must_use]
pub fn id(bytes: &[u8]) -> Option<u64> {
    let (&VERSION, fields) = bytes.split_first()? else {
        return None;
    };
    fields.first_chunk().map(|id| u64::from_le_bytes(*id))
}

fn decode_json(bytes: &[u8]) -> Result<Decoded<'_>, DecodeError> {
    #[derive(serde::Deserialize)]
    struct StatusOnly<'a> {
        #[serde(borrow)]
        status: std::borrow::Cow<'a, str>,
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| DecodeError::Json(error.to_string()))?
        .trim_end();
    let only: StatusOnly<'_> =
        serde_json::from_str(text).map_err(|error| DecodeError::Json(error.to_string()))?;
    Ok(Decoded::Json {
        text,
        active: only.status == "active",
    })
}

/// Fixed-width integers; the limit keeps a corrupt length from claiming memory.
fn codec() -> impl bincode::config::Config {
    bincode::config::standard()
        .with_fixed_int_encoding()
        .with_limit::<MAX_VALUE_BYTES>()
}

struct Appender<'a>(&'a mut BytesMut);

impl bincode::enc::write::Writer for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.put_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dataset(value_size: &str) -> Dataset {
        Dataset {
            key_prefix: "user:session:".into(),
            value_size: value_size.parse().expect("a size"),
            seed: 1,
            format: Format::Record,
        }
    }

    fn encoded(dataset: &Dataset, index: u64) -> BytesMut {
        let mut out = BytesMut::new();
        dataset.put_record(index, &mut out);
        out
    }

    #[test]
    fn the_smallest_size_holds_the_longest_user_agent() {
        let longest = USER_AGENTS.iter().map(|agent| agent.len()).max();
        assert_eq!(longest, Some(LONGEST_USER_AGENT_BYTES));
    }

    #[test]
    fn a_key_has_the_length_that_is_told() {
        for index in [0, 9, 10, 99, 100, 9_999_999, 10_000_000, u64::MAX] {
            let mut key = Vec::new();
            put_key("user:session:", index, &mut key);
            assert_eq!(key.len(), key_len("user:session:", index), "{index}");
        }
    }

    #[test]
    fn golden_bytes_freeze_the_format() {
        let session = Session {
            id: 0x0102,
            status: Status::Active,
            role: Role::Lead,
            created_at_s: 3,
            expires_at_s: 4,
            ip: [10, 0, 0, 7],
            user_agent: "ab",
            padding: &[0xFF],
        };
        let mut out = BytesMut::new();
        session.put(&mut out);
        let golden = [
            &[1][..],
            &[2, 1, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0],
            &[2, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[4, 0, 0, 0, 0, 0, 0, 0],
            &[10, 0, 0, 7],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            b"ab",
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &[0xFF],
        ]
        .concat();
        assert_eq!(out, golden);
        assert_eq!(decode(&out), Ok(Decoded::Session(session)));
    }

    #[test]
    fn golden_contents_freeze_the_dataset() {
        let bytes = encoded(&dataset("116"), 7);
        let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        assert_eq!(sum, GOLDEN_FNV1A_OF_RECORD_7);
    }
    const GOLDEN_FNV1A_OF_RECORD_7: u64 = 11_267_630_474_028_665_055;

    #[test]
    fn records_of_neighbours_and_of_seeds_differ() {
        let one = dataset("256");
        let other = Dataset {
            seed: 2,
            ..one.clone()
        };
        assert_ne!(encoded(&one, 1)[9..], encoded(&one, 2)[9..]);
        assert_ne!(encoded(&one, 1), encoded(&other, 1));
    }

    #[test]
    fn the_id_is_read_alone_as_it_is_decoded() {
        for index in [0, 1, 256, u64::MAX] {
            assert_eq!(id(&encoded(&dataset("256"), index)), Some(index));
        }
        for bytes in [&b""[..], b"\x01", b"\x01\0\0\0\0\0\0\0", b"{\"id\":1}  "] {
            assert_eq!(id(bytes), None);
        }
    }

    #[test]
    fn json_of_an_older_loader_is_understood() {
        let text = r#"{"status":"active","role":"senior"}"#;
        let expected = Decoded::Json { text, active: true };
        assert_eq!(decode(text.as_bytes()), Ok(expected));
        let revoked = decode(br#"{"status":"revoked"}"#).expect("JSON");
        assert!(matches!(revoked, Decoded::Json { active: false, .. }));
    }

    #[test]
    fn what_is_no_record_is_refused_with_its_reason() {
        let mut trailing = encoded(&dataset("256"), 1);
        trailing.put_u8(0);
        let mut huge_length = encoded(&dataset("256"), 1);
        huge_length[37..45].copy_from_slice(&u64::MAX.to_le_bytes());
        for (bytes, reason) in [
            (&b""[..], "empty"),
            (b"\x02abc", "unknown version byte 0x02"),
            (b"\x01abc", "corrupt"),
            (&trailing, "left over at offset 256"),
            (&huge_length, "corrupt"),
            (b"{\"role\":\"x\"}", "missing field `status`"),
            (b"{\"status\":\"active\"", "not a JSON session"),
            (b"{\xff}", "not a JSON session"),
        ] {
            let error = decode(bytes).expect_err(reason).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_size_is_met_and_every_record_comes_back(
            index: u64, seed: u64, size in MIN_VALUE_BYTES..2_000,
        ) {
            let dataset = Dataset {
                key_prefix: String::new(),
                value_size: size.to_string().parse().expect("a size"),
                seed,
                format: Format::Record,
            };
            let bytes = encoded(&dataset, index);
            prop_assert_eq!(bytes.len(), size);
            match decode(&bytes) {
                Ok(Decoded::Session(session)) => {
                    prop_assert_eq!(session.id, index);
                    prop_assert_eq!(session.status, Status::Active);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn no_input_makes_decoding_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
