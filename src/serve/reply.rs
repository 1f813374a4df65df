//! What is answered: sessions and values as JSON or as bytes, problems as `application/problem+json`. Pure.
//!
//! Enters: stored bytes and the second of the answer. Leaves: bodies and responses. Must not copy a value
//! into an intermediate structure: JSON is written straight from the borrowed record.

use std::hash::Hasher as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::header::{
    ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue, RETRY_AFTER, VARY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};

use super::brief;
pub use super::budget::Growing;
use super::json;
pub use super::json::Ending;
pub(super) use super::json::SESSION_BYTES;
use super::log::Seldom;
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
const BY_ACCEPT: HeaderValue = HeaderValue::from_static("accept");
/// A browser must not take stored bytes, or a message with a name in it, for a page of this server.
const NO_SNIFFING: HeaderValue = HeaderValue::from_static("nosniff");
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
    /// A problem with this status; the detail is for the person who reads it, who needs no more than the ends of a long one.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: brief::message(detail.into()),
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
    #[must_use]
    pub fn into_reply(self) -> Reply {
        self.into_reply_as(false)
    }

    /// The same, for clients of Upstash with the member that they look for besides.
    pub(super) fn into_reply_as(self, is_upstash: bool) -> Reply {
        let mut body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if is_upstash {
            body["error"] = format!("ERR {}", self.detail).into();
        }
        let mut reply = with_type(PROBLEM_JSON, body.to_string());
        set_status(&mut reply, self.status);
        let headers = reply.headers_mut();
        if let Some(methods) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            for challenge in CHALLENGES {
                headers.append(WWW_AUTHENTICATE, challenge);
            }
        }
        reply
    }
}

/// Gives an answer its status, and whoever is to come again the time after which.
pub(super) fn set_status(reply: &mut Reply, status: StatusCode) {
    *reply.status_mut() = status;
    if matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    ) {
        let headers = reply.headers_mut();
        headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let status = match error {
            StoreError::Discarded(why) => return Self::from(*why),
            StoreError::CrossSlot => StatusCode::BAD_REQUEST,
            // It will never fit.
            StoreError::NoRoom { needed, all } if needed > all => StatusCode::UNPROCESSABLE_ENTITY,
            StoreError::Unavailable(_) | StoreError::Loading(_) | StoreError::NoRoom { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
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

/// The sessions in the order of the request, `null` for what is absent or not active, and an object with an `error` for
/// what cannot be read.
pub fn sessions(ids: &[u64], values: &[Option<Bytes>], ending: &Ending) -> Result<Reply, Problem> {
    debug_assert_eq!(ids.len(), values.len());
    let mut body = Vec::with_capacity(2 + ids.len() * json::SESSION_BYTES);
    for (position, (&id, value)) in ids.iter().zip(values).enumerate() {
        body.push(if position == 0 { b'[' } else { b',' });
        match put_session(id, value.as_ref(), ending, &mut body) {
            Ok(true) => {}
            Ok(false) => body.extend_from_slice(b"null"),
            // One foreign value is no reason to keep the others back.
            Err(problem) => put_unreadable(id, &problem, &mut body),
        }
    }
    body.push(b']');
    Ok(json(body))
}

/// The sessions as [`frames`], absent where [`sessions`] has `null`.
pub fn sessions_octets(
    ids: &[u64],
    mut values: Vec<Option<Bytes>>,
    answer: &mut Growing,
) -> Result<Reply, Problem> {
    for (&id, slot) in ids.iter().zip(&mut values) {
        let Some(value) = slot else { continue };
        match record::decode(value) {
            Ok(decoded) if is_active(&decoded) => {}
            Ok(_) => *slot = None,
            Err(error) => {
                unreadable(id, &error);
                *slot = None;
            }
        }
    }
    frames(values, answer)
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
    let mut reply = empty(StatusCode::NOT_MODIFIED);
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
pub fn values(
    values: Vec<Option<Bytes>>,
    encoding: Encoding,
    answer: &mut Growing,
) -> Result<Reply, Problem> {
    let bytes: usize = values.iter().flatten().map(Bytes::len).sum();
    answer.check(bytes)?;
    // Room for quotes and commas, and for base64 or a few escapes.
    let mut body = Vec::with_capacity(16 + bytes * 4 / 3 + values.len() * 8);
    body.extend_from_slice(b"{\"values\":[");
    // Each is let go once it is written, so that values and answer together take little more than one of them.
    for (position, value) in values.into_iter().enumerate() {
        let bytes = value.as_ref().map_or(0, Bytes::len);
        answer.add(match encoding {
            Encoding::Text => bytes + 4,
            Encoding::Base64 => bytes.div_ceil(3) * 4 + 4,
        })?;
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
            let start = out.len();
            out.resize(start + value.len().div_ceil(3) * 4, 0);
            // Never: that is the length that it takes.
            let _ = BASE64_STANDARD.encode_slice(value, &mut out[start..]);
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
pub fn frames(values: Vec<Option<Bytes>>, answer: &mut Growing) -> Result<Reply, Problem> {
    let bytes: usize = values.iter().flatten().map(Bytes::len).sum();
    answer.check(bytes)?;
    let mut body = Vec::with_capacity(bytes + 4 * values.len());
    for value in values {
        let length = value
            .as_ref()
            .map_or(ABSENT_FRAME, |value| value.len() as u32);
        answer.add(4 + value.as_ref().map_or(0, Bytes::len))?;
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    Ok(with_type(OCTETS, body))
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

/// A page of this program, which runs under that policy.
pub fn page(body: &'static str, policy: HeaderValue) -> Reply {
    let mut reply = with_type(HTML, body);
    reply.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    reply
}

/// The counters, for a scraper.
pub fn metrics(body: Bytes) -> Reply {
    with_type(OPEN_METRICS, body)
}

/// An answer whose form the request's `Accept` decides, which caches have to know.
pub fn varying(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(VARY, BY_ACCEPT);
    reply
}

/// Done, and nothing to say.
#[must_use]
pub fn no_content() -> Reply {
    empty(StatusCode::NO_CONTENT)
}

fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Bytes::new());
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFFING);
    reply
}

fn with_type(content_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(body.into());
    let headers = reply.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFFING);
    headers.insert(CONTENT_TYPE, content_type);
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

/// In the place of a session among others.
#[cold]
fn put_unreadable(id: u64, problem: &Problem, out: &mut Vec<u8>) {
    let element = serde_json::json!({ "id": id, "error": problem.detail() });
    out.extend_from_slice(element.to_string().as_bytes());
}

#[cold]
fn unreadable(id: u64, error: &DecodeError) -> Problem {
    static SAID: Seldom = Seldom::new();
    if let Some(left_out) = SAID.may_say() {
        tracing::warn!(id, %error, left_out, "a stored session cannot be read");
    }
    Problem::new(
        StatusCode::BAD_GATEWAY,
        format!("session {id} is stored, but cannot be read: {error}"),
    )
}

#[cfg(test)]
mod tests;
