//! Which request asks for what. Pure.
//!
//! Enters: method, path and query. Leaves: a [`Route`], or the [`Problem`] to answer with. Must not read a
//! body, ask the store or know the clock.

use std::borrow::Cow;
use std::time::Duration;

use hyper::{Method, StatusCode};
use percent_encoding::percent_decode_str;

use super::reply::Problem;
use crate::store::{KeyBuffer, KeyList as _};
use crate::units::{MAX_KEY_BYTES, parse_ttl};

/// A longer target has a body for what it wants to say: `POST /v1/mget`.
const MAX_TARGET_BYTES: usize = 8 * 1024;
/// What [`Route::Floor`] answers at most.
const MAX_FLOOR_BYTES: usize = 64 * 1024;
/// The size that comparisons use: about what 15 sessions make as JSON.
const DEFAULT_FLOOR_BYTES: usize = 4_096;

const READ: &str = "GET, HEAD";

/// A path that is answered: the label of its requests wherever they are counted, since a key must not be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is its template")]
pub enum Path {
    Dashboard,
    DashboardData,
    Floor,
    Key,
    Keys,
    Livez,
    Metrics,
    Mget,
    Mset,
    OpenApi,
    Pipeline,
    Readyz,
    Session,
    Sessions,
    Stats,
    Unknown,
}

impl Path {
    /// Every path, in the order of their discriminants.
    pub const ALL: [Self; 16] = [
        Self::Dashboard,
        Self::DashboardData,
        Self::Floor,
        Self::Key,
        Self::Keys,
        Self::Livez,
        Self::Metrics,
        Self::Mget,
        Self::Mset,
        Self::OpenApi,
        Self::Pipeline,
        Self::Readyz,
        Self::Session,
        Self::Sessions,
        Self::Stats,
        Self::Unknown,
    ];

    /// The path as documents write it.
    #[must_use]
    pub fn template(self) -> &'static str {
        match self {
            Self::Dashboard => "/",
            Self::DashboardData => "/dashboard.json",
            Self::Floor => "/floor",
            Self::Key => "/v1/keys/{key}",
            Self::Keys => "/v1/keys",
            Self::Livez => "/livez",
            Self::Metrics => "/metrics",
            Self::Mget => "/v1/mget",
            Self::Mset => "/v1/mset",
            Self::OpenApi => "/openapi.json",
            Self::Pipeline => "/pipeline",
            Self::Readyz => "/readyz",
            Self::Session => "/user/session/{id}",
            Self::Sessions => "/user/sessions",
            Self::Stats => "/stats",
            Self::Unknown => "unknown",
        }
    }

    /// Finds the path of a request's target.
    #[must_use]
    pub fn of(path: &str) -> Self {
        if path.starts_with("/v1/keys/") {
            return Self::Key;
        }
        if path.starts_with("/user/session/") {
            return Self::Session;
        }
        Self::ALL
            .into_iter()
            .find(|known| known.template() == path)
            .unwrap_or(Self::Unknown)
    }

    /// Health is asked by machines that have no token, and tells nothing about the data.
    #[must_use]
    pub fn is_open_to_all(self) -> bool {
        matches!(self, Self::Livez | Self::Readyz)
    }

    /// The methods that are answered here; `None`: every one gets 404.
    #[must_use]
    pub fn allowed(self, limits: Limits) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::Pipeline if !limits.upstash => None,
            Self::Key => Some("GET, HEAD, PUT, DELETE"),
            Self::Mget | Self::Mset | Self::Pipeline => Some("POST"),
            Self::Dashboard if limits.upstash => Some("GET, HEAD, POST"),
            _ => Some(READ),
        }
    }
}

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
    /// `POST /`, a single command in the same shape.
    Command,
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
    let known = Path::of(path);
    let allowed = known.allowed(limits).ok_or_else(absent)?;
    // Most requests are reads, and need no search.
    let is_read = allowed.starts_with(READ) && (*method == Method::GET || *method == Method::HEAD);
    if !is_read && !allowed.split(", ").any(|name| name == method.as_str()) {
        let detail = format!("{method} is not answered here");
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail).allow(allowed));
    }
    let writes = *method == Method::PUT || *method == Method::DELETE || known == Path::Mset;
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

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

fn session_route(path: &str) -> Result<Route<'_>, Problem> {
    // An id that is no number belongs to no session, as the service before this one answered it.
    path.strip_prefix("/user/session/")
        .and_then(parse_number)
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
        let (id, after) = split_number(rest);
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
    let parsed = parse_number(&text);
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

/// Plain decimal digits only: no sign, no space, no overflow.
fn parse_number(text: &str) -> Option<u64> {
    let (number, after) = split_number(text.as_bytes());
    number.filter(|_| after.is_empty())
}

/// The number in front, `None` when there is none or it is too large, and what stands behind its digits.
fn split_number(text: &[u8]) -> (Option<u64>, &[u8]) {
    let (mut number, mut digits) = (0_u64, 0);
    while let Some(byte @ b'0'..=b'9') = text.get(digits) {
        number = number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
        digits += 1;
    }
    let (digits, after) = text.split_at(digits);
    let number = match digits.len() {
        0 => None,
        // So many fit, whatever they are: no check at each.
        1..=19 => Some(number),
        _ => str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok()),
    };
    (number, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        allow_writes: true,
        upstash: true,
        max_keys_per_request: 3,
    };
    const READ_ONLY: Limits = Limits {
        allow_writes: false,
        upstash: false,
        ..LIMITS
    };

    fn split(target: &str) -> (&str, Option<&str>) {
        match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        }
    }

    fn ask<'a>(method: &Method, target: &'a str, limits: Limits) -> Result<Route<'a>, Problem> {
        let (path, query) = split(target);
        route(method, path, query, limits)
    }

    fn get(target: &str) -> Result<Route<'_>, Problem> {
        ask(&Method::GET, target, LIMITS)
    }

    #[test]
    fn each_path_has_its_route() {
        let keys = |keys: &[&[u8]]| {
            let mut buffer = KeyBuffer::default();
            for key in keys {
                buffer.push(|out| out.extend_from_slice(key));
            }
            buffer
        };
        for (target, expected) in [
            ("/user/session/42", Route::Session(42)),
            ("/user/sessions?ids=3,1,2", Route::Sessions(vec![3, 1, 2])),
            ("/user/sessions?x=1&ids=7", Route::Sessions(vec![7])),
            ("/user/sessions?ids=1%2C2", Route::Sessions(vec![1, 2])),
            (
                "/user/sessions?ids=9999999999999999999,18446744073709551615,000000000000000000000007",
                Route::Sessions(vec![9_999_999_999_999_999_999, u64::MAX, 7]),
            ),
            ("/v1/keys/a%2Fb%00", Route::GetKey(b"a/b\0"[..].into())),
            (
                "/v1/keys?k=a%26%00&x=1&k=b",
                Route::GetKeys(keys(&[b"a&\0", b"b"]), Encoding::Text),
            ),
            (
                "/v1/keys?encoding=base64&k=a",
                Route::GetKeys(keys(&[b"a"]), Encoding::Base64),
            ),
            ("/stats", Route::Stats),
            ("/metrics", Route::Metrics),
            ("/openapi.json", Route::OpenApi),
            ("/", Route::Dashboard),
            ("/dashboard.json?after=5", Route::DashboardData(5)),
            ("/livez", Route::Livez),
            ("/readyz", Route::Readyz),
            ("/floor", Route::Floor(4_096)),
            ("/floor?bytes=0", Route::Floor(0)),
        ] {
            assert_eq!(get(target).ok(), Some(expected), "{target}");
        }
        for (target, expected) in [
            ("/v1/mget", Route::Mget(Encoding::Text)),
            (
                "/v1/mset?ttl=1h&encoding=base64",
                Route::Mset(Encoding::Base64, Some(Duration::from_hours(1))),
            ),
            ("/pipeline", Route::Pipeline),
            ("/", Route::Command),
        ] {
            let found = ask(&Method::POST, target, LIMITS).ok();
            assert_eq!(found, Some(expected), "{target}");
        }
    }

    #[test]
    fn each_path_is_found_by_its_own_template() {
        for path in Path::ALL {
            assert_eq!(Path::of(path.template()), path);
            assert_eq!(Path::ALL[path as usize], path);
        }
    }

    #[test]
    fn what_cannot_be_answered_says_why() {
        let long = format!("/v1/keys?k={}", "a".repeat(MAX_TARGET_BYTES));
        for (target, status, detail) in [
            ("/nowhere", 404, "nothing at this path"),
            ("/user/session/abc", 404, "nothing"),
            ("/user/session/-1", 404, "nothing"),
            ("/user/session/+1", 404, "nothing"),
            ("/user/session/18446744073709551616", 404, "nothing"),
            ("/user/sessions", 400, "ids is missing"),
            ("/user/sessions?ids=", 400, "ids is missing"),
            ("/user/sessions?ids=1,,2", 400, "ids holds \"\", which"),
            ("/user/sessions?ids=1,", 400, "ids holds \"\", which"),
            ("/user/sessions?ids=1,2x,3", 400, "ids holds \"2x\", which"),
            ("/user/sessions?ids=18446744073709551616", 400, "no number"),
            ("/user/sessions?ids=1,2,3,4", 400, "more than 3"),
            ("/v1/keys/", 400, "1 to 511 bytes"),
            ("/v1/keys", 400, "k is missing"),
            ("/v1/keys?k=", 400, "1 to 511 bytes"),
            ("/v1/keys?k=a&k=b&k=c&k=d", 400, "more than 3"),
            ("/v1/keys?k=a&encoding=hex", 400, "text or base64"),
            ("/floor?bytes=65537", 400, "at most 65536"),
            ("/dashboard.json?after=x", 400, "after is \"x\""),
            (&long, 414, "at most 8192"),
        ] {
            let problem = get(target).expect_err(target);
            assert_eq!(problem.status().as_u16(), status, "{target}");
            assert!(problem.detail().contains(detail), "{target}");
        }
    }

    #[test]
    fn writes_carry_their_time_to_live() {
        let put = |target: &'static str| ask(&Method::PUT, target, LIMITS).ok();
        let key = || Cow::from(&b"k"[..]);
        assert_eq!(put("/v1/keys/k"), Some(Route::PutKey(key(), None)));
        let minute = Some(Route::PutKey(key(), Some(Duration::from_mins(1))));
        assert_eq!(put("/v1/keys/k?ttl=60"), minute);
        assert_eq!(put("/v1/keys/k?ttl=60s"), minute);
        assert_eq!(put("/v1/keys/k?ttl=1m"), minute);
        let month = Some(Duration::from_hours(24 * 30));
        assert_eq!(
            put("/v1/keys/k?ttl=30days"),
            Some(Route::PutKey(key(), month))
        );
        for text in ["", "0", "20years", "-1", "soon"] {
            let target = format!("/v1/keys/k?ttl={text}");
            assert!(ask(&Method::PUT, &target, LIMITS).is_err(), "{text}");
        }
    }

    #[test]
    fn writes_are_refused_unless_allowed_and_other_methods_always() {
        let status = |method: Method, target, limits| {
            ask(&method, target, limits)
                .err()
                .map(|problem| problem.status().as_u16())
        };
        assert_eq!(status(Method::PUT, "/v1/keys/k", READ_ONLY), Some(403));
        assert_eq!(status(Method::DELETE, "/v1/keys/k", READ_ONLY), Some(403));
        assert_eq!(status(Method::POST, "/v1/mset", READ_ONLY), Some(403));
        assert_eq!(status(Method::POST, "/v1/mget", READ_ONLY), None);
        assert_eq!(status(Method::POST, "/pipeline", READ_ONLY), Some(404));
        assert_eq!(status(Method::POST, "/", READ_ONLY), Some(405));
        assert_eq!(status(Method::PATCH, "/v1/keys/k", LIMITS), Some(405));
        assert_eq!(status(Method::GET, "/v1/mget", LIMITS), Some(405));
        assert_eq!(status(Method::POST, "/stats", LIMITS), Some(405));
        assert_eq!(status(Method::HEAD, "/stats", LIMITS), None);
    }
}
