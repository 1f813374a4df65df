//! What is answered: sessions and values as JSON or as bytes, problems as `application/problem+json`. Pure.
//!
//! Enters: stored bytes and the second of the answer. Leaves: bodies and responses. Must not copy a value
//! into an intermediate structure: JSON is written straight from the borrowed record.

use std::hash::Hasher as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::header::{
    ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};

use super::json;
pub use super::json::Ending;
use super::route::Encoding;
use crate::record::{self, DecodeError, Decoded};
use crate::store::StoreError;

/// An answer, whole in memory.
pub type Reply = Response<Bytes>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
/// The page brings all that it needs; whatever else got into it may neither run nor reach out.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:",
);
/// `Basic` is there for browsers, which know no other way to ask for a secret. Apart, because Chromium reads
/// the two in one line as a single unknown scheme.
const CHALLENGES: [HeaderValue; 2] = [
    HeaderValue::from_static("Bearer realm=\"kvpoc\""),
    HeaderValue::from_static("Basic realm=\"kvpoc\", charset=\"UTF-8\""),
];
/// The store is tried again within half a second, so a client may well come back after one.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");
/// The length of an absent value in a frame; no value is nearly as long.
const ABSENT_FRAME: u32 = u32::MAX;

/// An error answer, after RFC 9457.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    allow: Option<&'static str>,
}

impl Problem {
    /// A problem with this status; the detail is for the person who reads it.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            allow: None,
        }
    }

    /// Names the methods that would have been answered, for 405.
    #[must_use]
    pub fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// The status that it is answered with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What the person reads.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The answer, with the headers that its status needs.
    pub fn into_reply(self) -> Reply {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut reply = with_type(PROBLEM_JSON, body.to_string());
        *reply.status_mut() = self.status;
        let headers = reply.headers_mut();
        if let Some(methods) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            for challenge in CHALLENGES {
                headers.append(WWW_AUTHENTICATE, challenge);
            }
        }
        reply
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let status = match error {
            StoreError::Unavailable(_) | StoreError::Loading(_) => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            StoreError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            StoreError::Refused(_) | StoreError::Setup(_) => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, error.to_string())
    }
}

/// One session, or 404 when it is absent or not active.
pub fn session(id: u64, value: Option<&Bytes>, ending: &Ending) -> Result<Reply, Problem> {
    let mut body = Vec::with_capacity(json::SESSION_BYTES);
    if put_session(id, value, ending, &mut body)? {
        Ok(json(body))
    } else {
        Err(no_session(id))
    }
}

/// One session as it is stored, or 404 as for [`session`].
pub fn session_octets(id: u64, value: Option<Bytes>) -> Result<Reply, Problem> {
    let value = value.ok_or_else(|| no_session(id))?;
    match record::decode(&value) {
        Ok(decoded) if is_active(&decoded) => Ok(with_type(OCTETS, alone(&value))),
        Ok(_) => Err(no_session(id)),
        Err(error) => Err(unreadable(id, &error)),
    }
}

fn no_session(id: u64) -> Problem {
    let detail = format!("session {id} is absent or not active");
    Problem::new(StatusCode::NOT_FOUND, detail)
}

/// The sessions in the order of the request, `null` for what is absent or not active.
pub fn sessions(ids: &[u64], values: &[Option<Bytes>], ending: &Ending) -> Result<Reply, Problem> {
    debug_assert_eq!(ids.len(), values.len());
    let mut body = Vec::with_capacity(2 + ids.len() * json::SESSION_BYTES);
    for (position, (&id, value)) in ids.iter().zip(values).enumerate() {
        body.push(if position == 0 { b'[' } else { b',' });
        if !put_session(id, value.as_ref(), ending, &mut body)? {
            body.extend_from_slice(b"null");
        }
    }
    body.push(b']');
    Ok(json(body))
}

/// The sessions as [`frames`], absent where [`sessions`] has `null`.
pub fn sessions_octets(ids: &[u64], mut values: Vec<Option<Bytes>>) -> Result<Reply, Problem> {
    for (&id, slot) in ids.iter().zip(&mut values) {
        let Some(value) = slot else { continue };
        match record::decode(value) {
            Ok(decoded) if is_active(&decoded) => {}
            Ok(_) => *slot = None,
            Err(error) => return Err(unreadable(id, &error)),
        }
    }
    Ok(frames(&values))
}

/// The stored bytes as they are, with their tag; 404 when there are none.
pub fn value(value: Option<Bytes>, tag: &str) -> Result<Reply, Problem> {
    let mut reply = with_type(OCTETS, alone(&value.ok_or_else(no_value)?));
    insert_tag(&mut reply, tag);
    Ok(reply)
}

/// A copy: a slice would keep the whole buffer that it was read into, with other answers of the store, for as
/// long as a client does not take it.
fn alone(value: &Bytes) -> Bytes {
    Bytes::copy_from_slice(value)
}

/// The client holds this value already.
#[must_use]
pub fn not_modified(tag: &str) -> Reply {
    let mut reply = Response::new(Bytes::new());
    *reply.status_mut() = StatusCode::NOT_MODIFIED;
    insert_tag(&mut reply, tag);
    reply
}

fn insert_tag(reply: &mut Reply, tag: &str) {
    let tag = HeaderValue::from_str(tag).expect("a tag is hexadecimal digits in quotes");
    reply.headers_mut().insert(ETAG, tag);
}

/// The `ETag` of a value: a 64-bit hash of its bytes, the same in every process of this build.
#[must_use]
pub fn tag(value: &[u8]) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(value);
    format!("\"{:016x}\"", hasher.finish())
}

/// The key that was asked for is not there.
#[must_use]
pub fn no_value() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "this key is absent")
}

/// `{"values":[…]}` in the order of the request, `null` for a miss. 406 when a value is no text and text is
/// asked for.
pub fn values(values: &[Option<Bytes>], encoding: Encoding) -> Result<Reply, Problem> {
    let bytes: usize = values.iter().flatten().map(Bytes::len).sum();
    // Room for quotes and commas, and for base64 or a few escapes.
    let mut body = Vec::with_capacity(16 + bytes * 4 / 3 + values.len() * 8);
    body.extend_from_slice(b"{\"values\":[");
    for (position, value) in values.iter().enumerate() {
        if position > 0 {
            body.push(b',');
        }
        put_value(position, value.as_deref(), encoding, &mut body)?;
    }
    body.extend_from_slice(b"]}");
    Ok(json(body))
}

fn put_value(
    position: usize,
    value: Option<&[u8]>,
    encoding: Encoding,
    out: &mut Vec<u8>,
) -> Result<(), Problem> {
    match (value, encoding) {
        (None, _) => out.extend_from_slice(b"null"),
        (Some(value), Encoding::Base64) => {
            out.push(b'"');
            out.extend_from_slice(BASE64_STANDARD.encode(value).as_bytes());
            out.push(b'"');
        }
        (Some(value), Encoding::Text) => {
            json::put_text(value, out).map_err(|_| {
                let detail = format!(
                    "the value of key {position} is no text; add encoding=base64, or ask with \
                     Accept: application/octet-stream"
                );
                Problem::new(StatusCode::NOT_ACCEPTABLE, detail)
            })?;
        }
    }
    Ok(())
}

/// Each value behind its length as a little-endian `u32`; the length 0xFFFFFFFF alone for a miss.
#[must_use]
pub fn frames(values: &[Option<Bytes>]) -> Reply {
    let bytes: usize = values.iter().flatten().map(Bytes::len).sum();
    let mut body = Vec::with_capacity(bytes + 4 * values.len());
    for value in values {
        let length = value
            .as_ref()
            .map_or(ABSENT_FRAME, |value| value.len() as u32);
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    with_type(OCTETS, body)
}

/// A ready JSON document.
pub fn json(body: impl Into<Bytes>) -> Reply {
    with_type(JSON, body)
}

/// Bytes that mean nothing.
pub fn octets(body: Bytes) -> Reply {
    with_type(OCTETS, body)
}

/// A fixed line of text.
pub fn text(body: &'static str) -> Reply {
    with_type(TEXT, body)
}

/// A page of this program.
pub fn page(body: &'static str) -> Reply {
    let mut reply = with_type(HTML, body);
    reply
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    reply
}

/// The counters, for a scraper.
pub fn metrics(body: Bytes) -> Reply {
    with_type(OPEN_METRICS, body)
}

/// Done, and nothing to say.
#[must_use]
pub fn no_content() -> Reply {
    let mut reply = Response::new(Bytes::new());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}

fn with_type(content_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(body.into());
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

fn is_active(decoded: &Decoded<'_>) -> bool {
    match decoded {
        Decoded::Session(session) => session.status == record::Status::Active,
        Decoded::Json { active, .. } => *active,
    }
}

/// Appends the JSON of an active session; `false`, and nothing appended, when there is none.
fn put_session(
    id: u64,
    value: Option<&Bytes>,
    ending: &Ending,
    out: &mut Vec<u8>,
) -> Result<bool, Problem> {
    let Some(value) = value else { return Ok(false) };
    let decoded = record::decode(value).map_err(|error| unreadable(id, &error))?;
    if !is_active(&decoded) {
        return Ok(false);
    }
    match decoded {
        Decoded::Session(session) => json::put_active_session(&session, ending, out),
        Decoded::Json { text, .. } => {
            // A valid object ends with its brace, so the new member goes in before it.
            out.extend_from_slice(&text.as_bytes()[..text.len() - 1]);
            out.extend_from_slice(ending.as_bytes());
        }
    }
    Ok(true)
}

fn unreadable(id: u64, error: &DecodeError) -> Problem {
    tracing::warn!(id, %error, "a stored session cannot be read");
    Problem::new(
        StatusCode::BAD_GATEWAY,
        format!("session {id} is stored, but cannot be read: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use record::{Role, Session, Status};

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn now() -> Ending {
        Ending::at(NOW)
    }

    fn encoded(status: Status, user_agent: &str) -> Bytes {
        let mut out = BytesMut::new();
        Session {
            id: 7,
            status,
            role: Role::Senior,
            created_at_s: 1,
            expires_at_s: 2,
            ip: [10, 0, 20, 255],
            user_agent,
            padding: &[0; 9],
        }
        .put(&mut out);
        out.freeze()
    }

    fn body(reply: Reply) -> String {
        String::from_utf8(reply.into_body().to_vec()).expect("text")
    }

    #[test]
    fn a_session_is_written_as_json_that_a_parser_reads() {
        let value = encoded(Status::Active, "a \"quoted\"\n agent");
        let reply = session(7, Some(&value), &now()).expect("a reply");
        let json: serde_json::Value = serde_json::from_str(&body(reply)).expect("JSON");
        let expected = serde_json::json!({
            "id": 7, "status": "active", "role": "senior", "created_at": 1, "expires_at": 2,
            "ip": "10.0.20.255", "user_agent": "a \"quoted\"\n agent", "validated_at": NOW,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn json_of_an_older_loader_keeps_its_members() {
        let value = Bytes::from_static(br#"{"status":"active","role":"senior"} "#);
        let reply = session(1, Some(&value), &now()).expect("a reply");
        let expected =
            r#"{"status":"active","role":"senior","validated_at":"2026-01-02T03:04:05Z"}"#;
        assert_eq!(body(reply), expected);
    }

    #[test]
    fn absent_and_revoked_sessions_are_404_alone_and_null_among_others() {
        let revoked = encoded(Status::Revoked, "x");
        let old = Bytes::from_static(br#"{"status":"revoked"}"#);
        for value in [None, Some(&revoked), Some(&old)] {
            let problem = session(7, value, &now()).expect_err("a problem");
            assert_eq!(problem.status(), StatusCode::NOT_FOUND);
        }
        let values = [None, Some(revoked), Some(old)];
        let reply = sessions(&[1, 2, 3], &values, &now()).expect("a reply");
        assert_eq!(body(reply), "[null,null,null]");
    }

    #[test]
    fn sessions_keep_the_order_of_the_request() {
        let value = Some(Bytes::from_static(br#"{"status":"active","n":1}"#));
        let reply = sessions(&[5, 6], &[None, value], &now()).expect("a reply");
        assert!(body(reply).starts_with(r#"[null,{"status":"active","n":1,"#));
    }

    #[test]
    fn what_cannot_be_read_is_a_problem_and_not_a_miss() {
        let value = Bytes::from_static(b"\x09");
        let problem = sessions(&[5], &[Some(value)], &now()).expect_err("a problem");
        assert_eq!(problem.status(), StatusCode::BAD_GATEWAY);
        assert!(problem.detail().contains("session 5"));
    }

    #[test]
    fn stored_bytes_are_given_for_active_sessions_only() {
        let active = encoded(Status::Active, "x");
        let reply = session_octets(7, Some(active.clone())).expect("a reply");
        assert_eq!(reply.into_body(), active);
        let revoked = encoded(Status::Revoked, "x");
        let problem = session_octets(7, Some(revoked.clone())).expect_err("a problem");
        assert_eq!(problem.status(), StatusCode::NOT_FOUND);
        let reply = sessions_octets(&[1, 2, 3], vec![None, Some(active.clone()), Some(revoked)]);
        let length = (active.len() as u32).to_le_bytes();
        let expected = [&[0xFF; 4][..], &length, &active, &[0xFF; 4]].concat();
        assert_eq!(reply.expect("a reply").into_body(), expected);
    }

    #[test]
    fn values_are_text_or_base64_and_what_is_neither_is_named() {
        let text = [Some(Bytes::from_static(b"a\"b")), None, Some(Bytes::new())];
        let reply = values(&text, Encoding::Text).expect("a reply");
        assert_eq!(body(reply), r#"{"values":["a\"b",null,""]}"#);
        let binary = [None, Some(Bytes::from_static(b"\xff\x00"))];
        let reply = values(&binary, Encoding::Base64).expect("a reply");
        assert_eq!(body(reply), r#"{"values":[null,"/wA="]}"#);
        let problem = values(&binary, Encoding::Text).expect_err("a problem");
        assert_eq!(problem.status(), StatusCode::NOT_ACCEPTABLE);
        assert!(problem.detail().contains("key 1"));
    }

    #[test]
    fn a_tag_follows_from_the_value_alone() {
        assert_eq!(tag(b"one"), tag(b"one"));
        assert_ne!(tag(b"one"), tag(b"two"));
        let reply = value(Some(Bytes::from_static(b"one")), &tag(b"one")).expect("a reply");
        assert_eq!(reply.headers()[ETAG], tag(b"one").as_str());
        let reply = not_modified(&tag(b"one"));
        assert_eq!(
            (reply.status(), reply.body().len()),
            (StatusCode::NOT_MODIFIED, 0)
        );
    }

    #[test]
    fn problems_are_documents_with_the_headers_that_their_status_needs() {
        let reply = Problem::from(StoreError::Unavailable("gone".into())).into_reply();
        assert_eq!(reply.status(), 503);
        assert_eq!(reply.headers()[RETRY_AFTER], "1");
        assert_eq!(reply.headers()[CONTENT_TYPE], "application/problem+json");
        let json: serde_json::Value = serde_json::from_str(&body(reply)).expect("JSON");
        assert_eq!(json["status"], 503);
        let reply = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no").allow("GET");
        assert_eq!(reply.into_reply().headers()[ALLOW], "GET");
    }
}
