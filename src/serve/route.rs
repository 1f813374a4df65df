//! Which request asks for what. Pure.
//!
//! Enters: method, path and query. Leaves: a [`Route`], or the [`Problem`] to answer with. Must not read a
//! body, ask the store or know the clock.

use std::borrow::Cow;
use std::time::Duration;

use hyper::{Method, StatusCode};
use percent_encoding::percent_decode_str;

pub use super::path::Path;
use super::path::READ;
use super::reply::Problem;
use crate::store::{KeyBuffer, KeyList as _};
use crate::units::{MAX_KEY_BYTES, parse_ttl, split_whole_number, whole_number};

/// A longer target has a body for what it wants to say: `POST /v1/mget`.
const MAX_TARGET_BYTES: usize = 8 * 1024;
/// What [`Route::Floor`] answers at most.
const MAX_FLOOR_BYTES: usize = 64 * 1024;
/// The size that comparisons use: about what 15 sessions make as JSON.
const DEFAULT_FLOOR_BYTES: usize = 4_096;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `GET /user/session/{id}`
    Session(u64),
    /// `GET /user/sessions?ids=1,2,3`
    Sessions(Vec<u64>),
    /// `GET /v1/keys/{key}`
    GetKey(Cow<'a, [u8]>),
    /// `PUT /v1/keys/{key}?ttl=60s`
    PutKey(Cow<'a, [u8]>, Option<Duration>),
    /// `DELETE /v1/keys/{key}`
    DeleteKey(Cow<'a, [u8]>),
    /// `GET /v1/keys?k=a&k=b`
    GetKeys(KeyBuffer, Encoding),
    /// `POST /v1/mget`
    Mget(Encoding),
    /// `POST /v1/mset?ttl=60s`
    Mset(Encoding, Option<Duration>),
    /// `POST /pipeline`, in the shape of Upstash.
    Pipeline,
    /// `POST /multi-exec`, in the same shape.
    Transaction,
    /// `POST /`, a single command in the same shape.
    Command,
    /// `GET /get/key`, the same with its words in the path.
    PathCommand,
    /// `GET /stats`
    Stats,
    /// `GET /metrics`
    Metrics,
    /// `GET /openapi.json`
    OpenApi,
    /// `GET /`
    Dashboard,
    /// `GET /dashboard.json?after=1764000000`: the seconds after that one.
    DashboardData(u64),
    /// `GET /livez`: the process runs.
    Livez,
    /// `GET /readyz`: it can answer.
    Readyz,
    /// `GET /floor?bytes=4096`: so many bytes without asking the store, which is what HTTP alone costs.
    Floor(usize),
}

impl Route<'_> {
    /// Whether it changes the store; of a command only its words tell.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self, Self::PutKey(..) | Self::DeleteKey(_) | Self::Mset(..))
    }
}

/// How values stand in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As they are, which must be UTF-8.
    Text,
    /// In the standard alphabet of RFC 4648, with padding.
    Base64,
}

/// What a server allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Whatever changes the store.
    pub allow_writes: bool,
    /// The routes of Upstash.
    pub upstash: bool,
    /// Keys, or commands, in one request.
    pub max_keys_per_request: usize,
}

/// Finds what a request asks for. HEAD is answered wherever GET is.
pub fn route<'a>(
    method: &Method,
    path: &'a str,
    query: Option<&'a str>,
    limits: Limits,
) -> Result<Route<'a>, Problem> {
    if path.len() + query.map_or(0, str::len) > MAX_TARGET_BYTES {
        let detail = format!("path and query have at most {MAX_TARGET_BYTES} bytes here");
        return Err(Problem::new(StatusCode::URI_TOO_LONG, detail));
    }
    check_encoding(path)?;
    check_encoding(query.unwrap_or_default())?;
    let known = Path::of(path);
    let allowed = known.allowed(limits).ok_or_else(absent)?;
    // Most requests are reads, and need no search.
    let is_read = allowed.starts_with(READ) && (*method == Method::GET || *method == Method::HEAD);
    if !is_read && !allowed.split(", ").any(|name| name == method.as_str()) {
        let detail = format!("{method} is not answered here");
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail).allow(allowed));
    }
    // Of a command only its words tell.
    let writes = known == Path::Mset
        || known == Path::Key && (*method == Method::PUT || *method == Method::DELETE);
    if writes && !limits.allow_writes {
        return Err(writes_are_off());
    }
    Ok(match known {
        Path::Session => session_route(path)?,
        Path::Sessions => sessions_route(query, limits.max_keys_per_request)?,
        Path::Key => key_route(method, path, query)?,
        Path::Keys => keys_route(query, limits.max_keys_per_request)?,
        Path::Mget => Route::Mget(encoding(query)?),
        Path::Mset => Route::Mset(encoding(query)?, ttl(query)?),
        Path::Pipeline => Route::Pipeline,
        Path::PathCommand => Route::PathCommand,
        Path::Transaction => Route::Transaction,
        Path::Dashboard if *method == Method::POST => Route::Command,
        Path::Dashboard => Route::Dashboard,
        Path::DashboardData => Route::DashboardData(number(query, "after")?.unwrap_or(0)),
        Path::Floor => floor_route(query)?,
        Path::Stats => Route::Stats,
        Path::Metrics => Route::Metrics,
        Path::OpenApi => Route::OpenApi,
        Path::Livez => Route::Livez,
        Path::Readyz => Route::Readyz,
        Path::Unknown => return Err(absent()),
    })
}

/// What a write is answered by a server that only reads.
#[must_use]
pub fn writes_are_off() -> Problem {
    let detail =
        "writes are off; start the server with --allow-writes, and beyond loopback with a token";
    Problem::new(StatusCode::FORBIDDEN, detail)
}

fn absent() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path")
}

pub(super) fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

fn session_route(path: &str) -> Result<Route<'_>, Problem> {
    // An id that is no number belongs to no session, as the service before this one answered it.
    path.strip_prefix("/user/session/")
        .and_then(|id| whole_number(id.as_bytes()))
        .map(Route::Session)
        .ok_or_else(absent)
}

fn sessions_route(query: Option<&str>, max: usize) -> Result<Route<'_>, Problem> {
    let list = parameter(query, "ids").filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| bad("ids is missing; write ?ids=1,2,3"))?;
    let mut ids = Vec::with_capacity(16);
    let mut rest = list.as_bytes();
    loop {
        if ids.len() == max {
            return Err(bad(format!("ids holds more than {max} sessions")));
        }
        let (id, after) = split_whole_number(rest);
        ids.push(id.ok_or_else(|| no_number(rest))?);
        match after {
            [] => break,
            [b',', after @ ..] => rest = after,
            _ => return Err(no_number(rest)),
        }
    }
    Ok(Route::Sessions(ids))
}

fn no_number(list: &[u8]) -> Problem {
    let end = memchr::memchr(b',', list).unwrap_or(list.len());
    let text = String::from_utf8_lossy(&list[..end]);
    bad(format!("ids holds {text:?}, which is no number"))
}

fn key_route<'a>(
    method: &Method,
    path: &'a str,
    query: Option<&str>,
) -> Result<Route<'a>, Problem> {
    let key = path.strip_prefix("/v1/keys/").unwrap_or_default();
    let key: Cow<'a, [u8]> = percent_decode_str(key).into();
    check_key(&key)?;
    Ok(match *method {
        Method::PUT => Route::PutKey(key, ttl(query)?),
        Method::DELETE => Route::DeleteKey(key),
        _ => Route::GetKey(key),
    })
}

fn keys_route(query: Option<&str>, max: usize) -> Result<Route<'_>, Problem> {
    // Decoded, they are never longer than the query.
    let mut keys = KeyBuffer::with_capacity(16, query.map_or(0, str::len));
    let is_encoded = query.is_some_and(|query| memchr::memchr(b'%', query.as_bytes()).is_some());
    let mut encoding = Encoding::Text;
    for (name, raw) in pairs(query) {
        match name {
            "k" if keys.count() == max => {
                return Err(bad(format!("k is given more than {max} times")));
            }
            "k" => {
                let key = keys.push(|out| {
                    if is_encoded {
                        out.extend(percent_decode_str(raw));
                    } else {
                        out.extend_from_slice(raw.as_bytes());
                    }
                });
                check_key(key)?;
            }
            "encoding" => encoding = parse_encoding(&percent_decode_str(raw).decode_utf8_lossy())?,
            _ => {}
        }
    }
    if keys.count() == 0 {
        return Err(bad("k is missing; write ?k=one&k=another"));
    }
    Ok(Route::GetKeys(keys, encoding))
}

fn floor_route(query: Option<&str>) -> Result<Route<'_>, Problem> {
    let bytes = number(query, "bytes")?.map_or(DEFAULT_FLOOR_BYTES, |bytes| bytes as usize);
    if bytes > MAX_FLOOR_BYTES {
        return Err(bad(format!("bytes is at most {MAX_FLOOR_BYTES}")));
    }
    Ok(Route::Floor(bytes))
}

/// Refuses a percent sign that encodes nothing (RFC 3986, 2.1): whoever wrote it meant something else than would be read.
fn check_encoding(raw: &str) -> Result<(), Problem> {
    let bytes = raw.as_bytes();
    for at in memchr::memchr_iter(b'%', bytes) {
        let digits = bytes.get(at + 1..at + 3).unwrap_or_default();
        if digits.len() < 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            let end = raw.len().min(at + 3);
            let sign = String::from_utf8_lossy(&bytes[at..end]);
            return Err(bad(format!(
                "{sign:?} encodes nothing; a percent sign itself is written %25"
            )));
        }
    }
    Ok(())
}

/// Refuses what no store would keep.
pub fn check_key(key: &[u8]) -> Result<(), Problem> {
    if (1..=MAX_KEY_BYTES).contains(&key.len()) {
        return Ok(());
    }
    let length = key.len();
    Err(bad(format!(
        "a key has 1 to {MAX_KEY_BYTES} bytes, this one has {length}"
    )))
}

fn encoding(query: Option<&str>) -> Result<Encoding, Problem> {
    parameter(query, "encoding").map_or(Ok(Encoding::Text), |text| parse_encoding(&text))
}

fn parse_encoding(text: &str) -> Result<Encoding, Problem> {
    match text {
        "text" => Ok(Encoding::Text),
        "base64" => Ok(Encoding::Base64),
        other => Err(bad(format!("encoding is {other:?}; give text or base64"))),
    }
}

/// A bare number is seconds, as in Redis.
fn ttl(query: Option<&str>) -> Result<Option<Duration>, Problem> {
    let Some(text) = parameter(query, "ttl") else {
        return Ok(None);
    };
    let duration = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        parse_ttl(&format!("{text}s"))
    } else {
        parse_ttl(&text)
    };
    duration
        .map(Some)
        .map_err(|error| bad(format!("ttl is {text:?}: {error}")))
}

fn number(query: Option<&str>, name: &str) -> Result<Option<u64>, Problem> {
    let Some(text) = parameter(query, name) else {
        return Ok(None);
    };
    let parsed = whole_number(text.as_bytes());
    parsed
        .map(Some)
        .ok_or_else(|| bad(format!("{name} is {text:?}, which is no number")))
}

/// Names as they are written, values before they are decoded. The first sign of equality ends the name.
fn pairs(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = query.unwrap_or_default();
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = memchr::memchr(b'&', rest.as_bytes()).unwrap_or(rest.len());
            let pair = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            if let Some(name_end) = pair.bytes().position(|byte| byte == b'=') {
                return Some((&pair[..name_end], &pair[name_end + 1..]));
            }
        }
        None
    })
}

/// A parameter's value, percent-decoded; what is no text then belongs to no value that is asked for.
fn parameter<'a>(query: Option<&'a str>, wanted: &str) -> Option<Cow<'a, str>> {
    let raw = pairs(query).find_map(|(name, raw)| (name == wanted).then_some(raw))?;
    if raw.contains('%') {
        Some(percent_decode_str(raw).decode_utf8_lossy())
    } else {
        Some(raw.into())
    }
}

#[cfg(test)]
mod tests;
