//! What is answered: sessions as JSON, problems as `application/problem+json`. Pure.
//!
//! Enters: stored bytes and the second of the answer. Leaves: bodies and responses. Must not copy a value
//! into an intermediate structure: JSON is written straight from the borrowed record.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::record::{self, DecodeError, Decoded, Session};
use crate::store::StoreError;

/// An answer, whole in memory.
pub type Reply = Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Fits the longest JSON of a seeded session, so that a body is allocated once.
const SESSION_JSON_BYTES: usize = 320;
/// The store is tried again within half a second, so a client may well come back after one.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

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
        let mut reply = with_type(PROBLEM_JSON, body.to_string().into());
        *reply.status_mut() = self.status;
        if let Some(methods) = self.allow {
            let methods = HeaderValue::from_static(methods);
            reply.headers_mut().insert(ALLOW, methods);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            reply.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        reply
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let status = match error {
            StoreError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            StoreError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            StoreError::Refused(_) | StoreError::Setup(_) => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, error.to_string())
    }
}

/// One session, or 404 when it is absent or not active.
pub fn session(id: u64, value: Option<&Bytes>, validated_at: &str) -> Result<Reply, Problem> {
    let mut body = BytesMut::with_capacity(SESSION_JSON_BYTES);
    if put_session(id, value, validated_at, &mut body)? {
        Ok(with_type(JSON, body.freeze()))
    } else {
        Err(Problem::new(
            StatusCode::NOT_FOUND,
            format!("session {id} is absent or not active"),
        ))
    }
}

/// The sessions in the order of the request, `null` for what is absent or not active.
pub fn sessions(
    ids: &[u64],
    values: &[Option<Bytes>],
    validated_at: &str,
) -> Result<Reply, Problem> {
    debug_assert_eq!(ids.len(), values.len());
    let mut body = BytesMut::with_capacity(2 + ids.len() * SESSION_JSON_BYTES);
    for (position, (&id, value)) in ids.iter().zip(values).enumerate() {
        body.put_u8(if position == 0 { b'[' } else { b',' });
        if !put_session(id, value.as_ref(), validated_at, &mut body)? {
            body.put_slice(b"null");
        }
    }
    body.put_u8(b']');
    Ok(with_type(JSON, body.freeze()))
}

/// The stored bytes as they are.
pub fn value(value: Option<Bytes>) -> Result<Reply, Problem> {
    value
        .map(|bytes| with_type(OCTETS, bytes))
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "this key is absent"))
}

/// A ready JSON document.
pub fn json(body: Bytes) -> Reply {
    with_type(JSON, body)
}

/// A fixed line of text.
pub fn text(body: &'static str) -> Reply {
    with_type(TEXT, Bytes::from_static(body.as_bytes()))
}

/// Done, and nothing to say.
#[must_use]
pub fn no_content() -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}

fn with_type(content_type: HeaderValue, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

/// Appends the JSON of an active session; `false`, and nothing appended, when there is none.
fn put_session(
    id: u64,
    value: Option<&Bytes>,
    validated_at: &str,
    out: &mut BytesMut,
) -> Result<bool, Problem> {
    let Some(value) = value else { return Ok(false) };
    match record::decode(value) {
        Ok(Decoded::Session(session)) if session.status == record::Status::Active => {
            put_session_json(&session, validated_at, out);
            Ok(true)
        }
        Ok(Decoded::Json { text, active: true }) => {
            // A valid object ends with its brace, so the new member goes in before it.
            out.put_slice(&text.as_bytes()[..text.len() - 1]);
            out.put_slice(b",\"validated_at\":\"");
            out.put_slice(validated_at.as_bytes());
            out.put_slice(b"\"}");
            Ok(true)
        }
        Ok(_) => Ok(false),
        Err(error) => Err(unreadable(id, &error)),
    }
}

fn unreadable(id: u64, error: &DecodeError) -> Problem {
    tracing::warn!(id, %error, "a stored session cannot be read");
    Problem::new(
        StatusCode::BAD_GATEWAY,
        format!("session {id} is stored, but cannot be read: {error}"),
    )
}

fn put_session_json(session: &Session<'_>, validated_at: &str, out: &mut BytesMut) {
    let mut digits = itoa::Buffer::new();
    out.put_slice(b"{\"id\":");
    out.put_slice(digits.format(session.id).as_bytes());
    out.put_slice(b",\"status\":\"");
    out.put_slice(session.status.name().as_bytes());
    out.put_slice(b"\",\"role\":\"");
    out.put_slice(session.role.name().as_bytes());
    out.put_slice(b"\",\"created_at\":");
    out.put_slice(digits.format(session.created_at_s).as_bytes());
    out.put_slice(b",\"expires_at\":");
    out.put_slice(digits.format(session.expires_at_s).as_bytes());
    out.put_slice(b",\"ip\":\"");
    for (position, octet) in session.ip.into_iter().enumerate() {
        if position > 0 {
            out.put_u8(b'.');
        }
        out.put_slice(digits.format(octet).as_bytes());
    }
    out.put_slice(b"\",\"user_agent\":");
    put_json_text(session.user_agent, out);
    out.put_slice(b",\"validated_at\":\"");
    out.put_slice(validated_at.as_bytes());
    out.put_slice(b"\"}");
}

/// Text with its quotes; what needs escaping is rare, and left to `serde_json`.
fn put_json_text(text: &str, out: &mut BytesMut) {
    let plain = text
        .bytes()
        .all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
    if plain {
        out.put_u8(b'"');
        out.put_slice(text.as_bytes());
        out.put_u8(b'"');
    } else {
        serde_json::to_writer(out.writer(), text).expect("writing text to memory cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use record::{Role, Status};

    const NOW: &str = "2026-01-02T03:04:05Z";

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
        let body = futures_util::FutureExt::now_or_never(reply.into_body().collect());
        let bytes = body.expect("a full body is ready").expect("it cannot fail");
        String::from_utf8(bytes.to_bytes().to_vec()).expect("text")
    }

    #[test]
    fn a_session_is_written_as_json_that_a_parser_reads() {
        let value = encoded(Status::Active, "a \"quoted\"\n agent");
        let reply = session(7, Some(&value), NOW).expect("a reply");
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
        let reply = session(1, Some(&value), NOW).expect("a reply");
        let expected =
            r#"{"status":"active","role":"senior","validated_at":"2026-01-02T03:04:05Z"}"#;
        assert_eq!(body(reply), expected);
    }

    #[test]
    fn absent_and_revoked_sessions_are_404_alone_and_null_among_others() {
        let revoked = encoded(Status::Revoked, "x");
        let old = Bytes::from_static(br#"{"status":"revoked"}"#);
        for value in [None, Some(&revoked), Some(&old)] {
            let problem = session(7, value, NOW).expect_err("a problem");
            assert_eq!(problem.status(), StatusCode::NOT_FOUND);
        }
        let values = [None, Some(revoked), Some(old)];
        let reply = sessions(&[1, 2, 3], &values, NOW).expect("a reply");
        assert_eq!(body(reply), "[null,null,null]");
    }

    #[test]
    fn sessions_keep_the_order_of_the_request() {
        let value = Some(Bytes::from_static(br#"{"status":"active","n":1}"#));
        let reply = sessions(&[5, 6], &[None, value], NOW).expect("a reply");
        assert!(body(reply).starts_with(r#"[null,{"status":"active","n":1,"#));
    }

    #[test]
    fn what_cannot_be_read_is_a_problem_and_not_a_miss() {
        let value = Bytes::from_static(b"\x09");
        let problem = sessions(&[5], &[Some(value)], NOW).expect_err("a problem");
        assert_eq!(problem.status(), StatusCode::BAD_GATEWAY);
        assert!(problem.detail().contains("session 5"));
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
