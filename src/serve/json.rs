//! JSON for the hot path: text, and sessions. Pure.
//!
//! Enters: text, and sessions borrowed from their records. Leaves: bytes at the end of a body. Must not allocate,
//! save for text that needs escaping; and says nothing twice that can be said once for all sessions of an answer.

use std::str::Utf8Error;

use crate::record::{Role, Session};

/// Fits the longest JSON of a seeded session, so that a body is allocated once.
pub(super) const SESSION_BYTES: usize = 320;

/// What stands at the end of every session of an answer: the second in which it was validated.
pub struct Ending(String);

impl Ending {
    /// Of a second in RFC 3339.
    #[must_use]
    pub fn at(second: &str) -> Self {
        Self(format!(",\"validated_at\":\"{second}\"}}"))
    }

    /// A comma, the member, and the brace that closes its object.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// What stands between the id of an active session and the second in which it was created.
macro_rules! active_and_role {
    ($role:literal) => {
        concat!(
            ",\"status\":\"active\",\"role\":\"",
            $role,
            "\",\"created_at\":"
        )
        .as_bytes()
    };
}

/// Appends an active session. Strings that always follow each other are one here: fifteen sessions an answer make
/// every append count.
pub(super) fn put_active_session(session: &Session<'_>, ending: &Ending, out: &mut Vec<u8>) {
    // Once for the usual session, so that no append below has to grow the body.
    out.reserve(SESSION_BYTES);
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"{\"id\":");
    out.extend_from_slice(digits.format(session.id).as_bytes());
    // Each its own append, because one of constant length is two moves and no call.
    match session.role {
        Role::Junior => out.extend_from_slice(active_and_role!("junior")),
        Role::Senior => out.extend_from_slice(active_and_role!("senior")),
        Role::Lead => out.extend_from_slice(active_and_role!("lead")),
        Role::Admin => out.extend_from_slice(active_and_role!("admin")),
    }
    out.extend_from_slice(digits.format(session.created_at_s).as_bytes());
    out.extend_from_slice(b",\"expires_at\":");
    out.extend_from_slice(digits.format(session.expires_at_s).as_bytes());
    out.extend_from_slice(b",\"ip\":\"");
    let mut ip = [0; IP_BYTES];
    let ip_bytes = write_ip(session.ip, &mut ip);
    out.extend_from_slice(&ip[..ip_bytes]);
    out.extend_from_slice(b"\",\"user_agent\":");
    put_text(session.user_agent.as_bytes(), out).expect("a str is UTF-8");
    out.extend_from_slice(ending.as_bytes());
}

/// Four octets, each with the dot behind it.
const IP_BYTES: usize = 4 * 4;

/// Writes the dotted form of an address; its length.
fn write_ip(ip: [u8; 4], out: &mut [u8; IP_BYTES]) -> usize {
    let mut end = 0;
    for octet in ip {
        let (text, bytes) = &OCTETS[usize::from(octet)];
        out[end..end + text.len()].copy_from_slice(text);
        end += usize::from(*bytes);
    }
    end - 1
}

/// Every octet as it stands in an address, with a dot behind it, and the length of both.
static OCTETS: [([u8; 4], u8); 256] = octets();

const fn octets() -> [([u8; 4], u8); 256] {
    let mut all = [([0; 4], 0); 256];
    let mut octet = 0;
    while octet < all.len() {
        let hundreds = b'0' + (octet / 100) as u8;
        let tens = b'0' + (octet / 10 % 10) as u8;
        let ones = b'0' + (octet % 10) as u8;
        all[octet] = match octet {
            0..10 => ([ones, b'.', 0, 0], 2),
            10..100 => ([tens, ones, b'.', 0], 3),
            _ => ([hundreds, tens, ones, b'.'], 4),
        };
        octet += 1;
    }
    all
}

/// Appends text with its quotes. What is not plain is rare, and left to `serde_json`.
///
/// # Errors
/// When the bytes are no UTF-8; nothing is appended then.
pub(super) fn put_text(text: &[u8], out: &mut Vec<u8>) -> Result<(), Utf8Error> {
    if is_plain(text) {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    } else {
        let text = std::str::from_utf8(text)?;
        serde_json::to_writer(out, text).expect("writing text to memory cannot fail");
    }
    Ok(())
}

/// Whether all of it is ASCII, and nothing needs escaping. All bytes are looked at whatever the first ones hold: only a
/// loop without a way out becomes one over vectors.
fn is_plain(text: &[u8]) -> bool {
    !text
        .iter()
        .fold(false, |special, &byte| special | is_special(byte))
}

fn is_special(byte: u8) -> bool {
    // As signed numbers, the bytes beyond ASCII are below all others.
    byte.cast_signed() < 0x20 || byte == b'"' || byte == b'\\'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Status;
    use proptest::prelude::*;

    const NOW: &str = "2026-01-02T03:04:05Z";

    #[test]
    fn a_session_is_read_back_by_a_parser() {
        for (role, ip) in [
            (Role::Junior, [0, 9, 10, 99]),
            (Role::Senior, [100, 255, 1, 20]),
            (Role::Lead, [200, 0, 0, 7]),
            (Role::Admin, [255; 4]),
        ] {
            let session = Session {
                id: u64::MAX,
                status: Status::Active,
                role,
                created_at_s: 0,
                expires_at_s: 1_767_225_600,
                ip,
                user_agent: "a \"quoted\"\n agent",
                padding: &[],
            };
            let mut out = Vec::new();
            put_active_session(&session, &Ending::at(NOW), &mut out);
            let json: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
            let expected = serde_json::json!({
                "id": u64::MAX, "status": Status::Active.name(), "role": role.name(), "created_at": 0,
                "expires_at": 1_767_225_600, "ip": std::net::Ipv4Addr::from(ip),
                "user_agent": "a \"quoted\"\n agent", "validated_at": NOW,
            });
            assert_eq!(json, expected);
        }
    }

    #[test]
    fn every_octet_is_written_in_decimal() {
        for octet in 0..=255 {
            let mut text = [0; IP_BYTES];
            let bytes = write_ip([octet; 4], &mut text);
            let expected = std::net::Ipv4Addr::from([octet; 4]).to_string();
            assert_eq!(text[..bytes], *expected.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn text_comes_back_from_a_parser(text in "[ -~é\\x00-\\x1f\"\\\\\u{7f}]{0,100}") {
            let mut out = Vec::new();
            put_text(text.as_bytes(), &mut out).expect("text");
            let read: String = serde_json::from_slice(&out).expect("JSON");
            prop_assert_eq!(read, text);
        }

        #[test]
        fn plain_bytes_are_taken_for_plain(text in "[ !#-\\[\\]-~\u{7f}]{0,100}") {
            prop_assert!(is_plain(text.as_bytes()));
        }
    }
}
