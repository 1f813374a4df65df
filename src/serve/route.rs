//! Which request asks for what. Pure.
//!
//! Enters: method, path and query. Leaves: a [`Route`], or the [`Problem`] to answer with. Must not read a
//! body, ask the store or know the clock.

use std::borrow::Cow;
use std::time::Duration;

use hyper::{Method, StatusCode};
use percent_encoding::percent_decode_str;

use super::reply::Problem;
use crate::units::{MAX_KEY_BYTES, parse_ttl};

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
    /// `GET /stats`
    Stats,
    /// `GET /livez`: the process runs.
    Livez,
    /// `GET /readyz`: it can answer.
    Readyz,
}

/// What a server allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// PUT and DELETE.
    pub allow_writes: bool,
    /// Sessions in one request.
    pub max_keys_per_request: usize,
}

/// Finds the route of a request. HEAD is answered wherever GET is.
pub fn route<'a>(
    method: &Method,
    path: &'a str,
    query: Option<&'a str>,
    limits: Limits,
) -> Result<Route<'a>, Problem> {
    if let Some(key) = path.strip_prefix("/v1/keys/") {
        return key_route(method, key, query, limits);
    }
    let route = match path {
        "/user/sessions" => None,
        "/stats" => Some(Route::Stats),
        "/livez" => Some(Route::Livez),
        "/readyz" => Some(Route::Readyz),
        _ => Some(session_route(path)?),
    };
    if *method != Method::GET && *method != Method::HEAD {
        return Err(not_allowed(method, "GET, HEAD"));
    }
    match route {
        Some(route) => Ok(route),
        None => sessions_route(query, limits.max_keys_per_request),
    }
}

fn session_route(path: &str) -> Result<Route<'_>, Problem> {
    let absent = || Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path");
    let id = path.strip_prefix("/user/session/").ok_or_else(absent)?;
    // An id that is no number belongs to no session, as the service before this one answered it.
    parse_id(id).map(Route::Session).ok_or_else(absent)
}

fn sessions_route(query: Option<&str>, max: usize) -> Result<Route<'_>, Problem> {
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
    let list = parameter(query, "ids").filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| bad("ids is missing; write ?ids=1,2,3".into()))?;
    let mut ids = Vec::with_capacity(16);
    for text in list.split(',') {
        if ids.len() == max {
            return Err(bad(format!("ids holds more than {max} sessions")));
        }
        ids.push(
            parse_id(text).ok_or_else(|| bad(format!("ids holds {text:?}, which is no number")))?,
        );
    }
    Ok(Route::Sessions(ids))
}

fn key_route<'a>(
    method: &Method,
    key: &'a str,
    query: Option<&str>,
    limits: Limits,
) -> Result<Route<'a>, Problem> {
    let key: Cow<'a, [u8]> = percent_decode_str(key).into();
    if !(1..=MAX_KEY_BYTES).contains(&key.len()) {
        let detail = format!(
            "a key has 1 to {MAX_KEY_BYTES} bytes, this one has {}",
            key.len()
        );
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    match *method {
        Method::GET | Method::HEAD => Ok(Route::GetKey(key)),
        Method::PUT | Method::DELETE if !limits.allow_writes => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "writes are off; start the server with --allow-writes",
        )),
        Method::PUT => Ok(Route::PutKey(key, ttl(query)?)),
        Method::DELETE => Ok(Route::DeleteKey(key)),
        _ => Err(not_allowed(method, "GET, HEAD, PUT, DELETE")),
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
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("ttl is {text:?}: {error}")))
}

/// A parameter's value, percent-decoded; what is no text then belongs to no value that is asked for.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    let raw = query?
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(percent_decode_str(raw).decode_utf8_lossy())
}

/// Plain decimal digits only: no sign, no space, no overflow.
fn parse_id(text: &str) -> Option<u64> {
    if text.starts_with('+') {
        return None;
    }
    text.parse().ok()
}

fn not_allowed(method: &Method, allow: &'static str) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not answered here"),
    )
    .allow(allow)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        allow_writes: true,
        max_keys_per_request: 3,
    };

    fn get(target: &str) -> Result<Route<'_>, Problem> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        route(&Method::GET, path, query, LIMITS)
    }

    #[test]
    fn each_path_has_its_route() {
        for (target, expected) in [
            ("/user/session/42", Route::Session(42)),
            ("/user/sessions?ids=3,1,2", Route::Sessions(vec![3, 1, 2])),
            ("/user/sessions?x=1&ids=7", Route::Sessions(vec![7])),
            ("/user/sessions?ids=1%2C2", Route::Sessions(vec![1, 2])),
            ("/v1/keys/a%2Fb%00", Route::GetKey(b"a/b\0"[..].into())),
            ("/stats", Route::Stats),
            ("/livez", Route::Livez),
            ("/readyz", Route::Readyz),
        ] {
            assert_eq!(get(target).ok(), Some(expected), "{target}");
        }
    }

    #[test]
    fn what_cannot_be_answered_says_why() {
        for (target, status, detail) in [
            ("/", 404, "nothing at this path"),
            ("/user/session/abc", 404, "nothing"),
            ("/user/session/-1", 404, "nothing"),
            ("/user/session/+1", 404, "nothing"),
            ("/user/session/18446744073709551616", 404, "nothing"),
            ("/user/sessions", 400, "ids is missing"),
            ("/user/sessions?ids=", 400, "ids is missing"),
            ("/user/sessions?ids=1,,2", 400, "no number"),
            ("/user/sessions?ids=1,2,3,4", 400, "more than 3"),
            ("/v1/keys/", 400, "1 to 511 bytes"),
        ] {
            let problem = get(target).expect_err(target);
            assert_eq!(problem.status().as_u16(), status, "{target}");
            assert!(problem.detail().contains(detail), "{target}");
        }
    }

    #[test]
    fn writes_carry_their_time_to_live() {
        let put = |query| route(&Method::PUT, "/v1/keys/k", query, LIMITS);
        let key = || Cow::from(&b"k"[..]);
        assert_eq!(put(None).ok(), Some(Route::PutKey(key(), None)));
        for text in ["ttl=60", "ttl=60s", "ttl=1m"] {
            let expected = Route::PutKey(key(), Some(Duration::from_mins(1)));
            assert_eq!(put(Some(text)).ok(), Some(expected), "{text}");
        }
        let month = Duration::from_hours(24 * 30);
        assert_eq!(
            put(Some("ttl=30days")).ok(),
            Some(Route::PutKey(key(), Some(month)))
        );
        for text in ["ttl=", "ttl=0", "ttl=20years", "ttl=-1", "ttl=soon"] {
            assert!(put(Some(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn writes_are_refused_unless_allowed_and_other_methods_always() {
        let limits = Limits {
            allow_writes: false,
            ..LIMITS
        };
        let status = |method: Method, path| {
            route(&method, path, None, limits)
                .err()
                .map(|problem| problem.status().as_u16())
        };
        assert_eq!(status(Method::PUT, "/v1/keys/k"), Some(403));
        assert_eq!(status(Method::DELETE, "/v1/keys/k"), Some(403));
        assert_eq!(status(Method::PATCH, "/v1/keys/k"), Some(405));
        assert_eq!(status(Method::POST, "/stats"), Some(405));
        assert_eq!(status(Method::HEAD, "/stats"), None);
    }
}
