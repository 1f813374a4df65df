//! Who may ask: the token, the name that the server was called by, and the origins and sites of web pages. Pure.
//!
//! Enters: the headers of a request. Leaves: a refusal, or the headers that let a page read the answer. Must
//! not tell how a wrong token differs from the right one.

use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
    AUTHORIZATION, HOST, HeaderValue, ORIGIN, VARY,
};
use hyper::{HeaderMap, Method, StatusCode, Version};

use super::reply::{Problem, Reply, no_content};
use crate::config::Token;

/// Checks the token that a request shows: `Authorization: Bearer TOKEN`, or as the password of `Basic`, which
/// is the only form that a browser can send.
pub(super) fn check(headers: &HeaderMap, token: Option<&Token>) -> Result<(), Problem> {
    let Some(token) = token else { return Ok(()) };
    let shown = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    if shown.is_some_and(|shown| shows(shown, token)) {
        return Ok(());
    }
    let detail = "show the token of this server: Authorization: Bearer TOKEN";
    Err(Problem::new(StatusCode::UNAUTHORIZED, detail))
}

/// The name that a request is for; a request has exactly one (RFC 9112, 3.2), but for those of HTTP/1.0.
pub(super) fn host(headers: &HeaderMap, version: Version) -> Result<Option<&HeaderValue>, Problem> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Ok(Some(host)),
        (None, _) if version < Version::HTTP_11 => Ok(None),
        (first, _) => {
            let count = if first.is_some() { "several" } else { "no" };
            let detail = format!("a request has one Host header, this one has {count}");
            Err(Problem::new(StatusCode::BAD_REQUEST, detail))
        }
    }
}

/// Refuses a request for another name than `localhost`, an address, or one of `hosts`; `None`: takes any.
///
/// A page of the web can have its own name resolved to this machine, and then counts as this server's own page
/// (DNS rebinding). Its browser still sends that name.
pub(super) fn check_host(
    host: Option<&HeaderValue>,
    hosts: Option<&[String]>,
) -> Result<(), Problem> {
    let (Some(hosts), Some(host)) = (hosts, host) else {
        return Ok(());
    };
    let host = host.to_str().unwrap_or("?");
    if is_local(host, hosts) {
        return Ok(());
    }
    let detail = format!(
        "without a token this server answers to localhost and to addresses, not to {host}; name it by --allow-host"
    );
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail))
}

fn is_local(host: &str, hosts: &[String]) -> bool {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    address.unwrap_or(name).parse::<IpAddr>().is_ok()
        || is_localhost(name)
        || hosts.iter().any(|one| one.eq_ignore_ascii_case(name))
}

/// `localhost` and all below it, which no resolver may give to anybody else (RFC 6761).
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next();
    last.is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

/// Refuses a write that a page of another site may have had a browser send, perhaps with the secret that the browser keeps:
/// by a link, an image or a form no page needs anybody's leave. The page of the configured origin may write.
pub(super) fn check_site(
    headers: &HeaderMap,
    cors_origin: Option<&HeaderValue>,
) -> Result<(), Problem> {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    let is_from_elsewhere = sites.any(|site| site == "cross-site" || site == "same-site");
    let mut origins = headers.get_all(ORIGIN).iter();
    let (origin, is_alone) = (origins.next(), origins.next().is_none());
    let is_ours = match origin {
        None => !is_from_elsewhere,
        Some(origin) => {
            let is_given = cors_origin.is_some_and(|given| {
                // From any page only what a browser cannot send by itself.
                given == origin || given == "*" && is_bearer(headers)
            });
            is_alone && (is_given || !is_from_elsewhere && is_of_host(origin, headers.get(HOST)))
        }
    };
    if is_ours {
        return Ok(());
    }
    let detail = "a page of another site may not write here; name its origin by --cors-origin";
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}

/// Refuses a write that any page may have a browser send, without a word of where it comes from, as those to plain `http` in
/// the place of an image are sent. Only `Bearer` no browser shows by itself.
pub(super) fn check_bearer(headers: &HeaderMap) -> Result<(), Problem> {
    if is_bearer(headers) {
        return Ok(());
    }
    let detail = "a command in the path writes only with Authorization: Bearer TOKEN, which no page has a browser send";
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}

fn is_bearer(headers: &HeaderMap) -> bool {
    let shown = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let scheme = shown.and_then(|shown| shown.split(|&byte| byte == b' ').next());
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"))
}

/// Whether a page has come from the host that it now asks.
fn is_of_host(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let text = |value: &HeaderValue| value.to_str().map(str::to_owned).unwrap_or_default();
    let (origin, host) = (text(origin), host.map(text).unwrap_or_default());
    let Some((scheme, name)) = origin.split_once("://") else {
        return false;
    };
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let without_port = |name| str::strip_suffix(name, port).unwrap_or(name).to_owned();
    without_port(name).eq_ignore_ascii_case(&without_port(&host))
}

fn shows(header: &[u8], token: &Token) -> bool {
    let Some(space) = header.iter().position(|&byte| byte == b' ') else {
        return false;
    };
    let (scheme, rest) = (&header[..space], header[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return token.matches(rest);
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return false;
    }
    BASE64_STANDARD.decode(rest).is_ok_and(|pair| {
        let colon = pair.iter().position(|&byte| byte == b':');
        colon.is_some_and(|colon| token.matches(&pair[colon + 1..]))
    })
}

/// The answer to a browser's question whether a page of another origin may ask, if it is one and may.
pub(super) fn preflight(
    method: &Method,
    headers: &HeaderMap,
    allowed: Option<&'static str>,
    origin: Option<&HeaderValue>,
) -> Option<Reply> {
    let asks = *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let (methods, _) = allowed.filter(|_| asks).zip(origin)?;
    let mut reply = no_content();
    let answered = reply.headers_mut();
    answered.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(methods),
    );
    // Whichever it wants to send: none of them means more to this server than to its other clients.
    if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        answered.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    Some(reply)
}

/// Lets pages of the configured origin read an answer.
pub(super) fn let_pages_read(reply: &mut Reply, origin: Option<&HeaderValue>) {
    let Some(origin) = origin else { return };
    let headers = reply.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("etag"),
    );
    headers.append(VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).expect("a header");
        HeaderMap::from_iter([(AUTHORIZATION, value)])
    }

    #[test]
    fn only_the_right_token_opens_in_any_of_its_forms() {
        let token = Token::parse("a-long:token").expect("a token");
        let basic = |pair: &str| format!("basic {}", BASE64_STANDARD.encode(pair));
        for (value, expected) in [
            ("Bearer a-long:token", true),
            ("bearer  a-long:token ", true),
            (&basic("anyone:a-long:token"), true),
            (&basic(":a-long:token"), true),
            ("Bearer a-long:tokem", false),
            ("Bearer", false),
            ("a-long:token", false),
            ("Digest a-long:token", false),
            (&basic("a-long"), false),
            ("basic %%%", false),
        ] {
            let found = check(&headers(value), Some(&token)).is_ok();
            assert_eq!(found, expected, "{value}");
        }
        assert!(check(&HeaderMap::new(), Some(&token)).is_err());
        assert!(check(&HeaderMap::new(), None).is_ok());
    }

    #[test]
    fn only_names_of_this_machine_are_answered_to() {
        let named = ["kvpoc.test".to_owned()];
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost:8080", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("192.0.2.7", true),
            ("localhost.", true),
            ("kvpoc.localhost:80", true),
            ("notlocalhost", false),
            ("kvpoc.test:8080", true),
            ("evil.example", false),
            ("localhost.evil.example:8080", false),
            ("127.0.0.1.evil.example", false),
            ("evil.example:80:127.0.0.1", false),
            ("", false),
        ] {
            let value = HeaderValue::from_static(host);
            assert_eq!(
                check_host(Some(&value), Some(&named)).is_ok(),
                expected,
                "{host}"
            );
            assert!(check_host(Some(&value), None).is_ok());
        }
        assert!(check_host(None, Some(&named)).is_ok());
    }

    #[test]
    fn a_page_writes_where_it_has_come_from_or_where_it_was_given_leave() {
        let check = |given: &[(&'static str, &'static str)], cors: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("LocalHost:8080"));
            for (name, value) in given {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let cors = cors.map(HeaderValue::from_static);
            check_site(&headers, cors.as_ref()).is_ok()
        };
        let (site, origin) = ("sec-fetch-site", "origin");
        for (given, expected) in [
            (&[][..], true),
            (&[(site, "none")], true),
            (&[(site, "same-origin")], true),
            (&[(site, "cross-site")], false),
            (&[(site, "same-site")], false),
            (&[(site, "same-origin"), (site, "cross-site")], false),
            (&[(origin, "http://localhost:8080")], true),
            (&[(origin, "http://localhost")], false),
            (&[(origin, "http://localhost:3000")], false),
            (&[(origin, "https://evil.example")], false),
            (&[(origin, "null")], false),
            (&[(origin, "file://localhost:8080")], false),
            (
                &[
                    (origin, "http://localhost:8080"),
                    (origin, "https://evil.example"),
                ],
                false,
            ),
            (
                &[(origin, "http://localhost:8080"), (site, "cross-site")],
                false,
            ),
        ] {
            assert_eq!(check(given, None), expected, "{given:?}");
        }
        let page = [(origin, "https://a.example"), (site, "cross-site")];
        assert!(check(&page, Some("https://a.example")));
        assert!(!check(&page, Some("https://b.example")));
        assert!(!check(&page, Some("*")));
        let with = |value| {
            let more = [("authorization", value)];
            check(&[&page[..], &more].concat(), Some("*"))
        };
        assert!(with("Bearer a-token") && !with("Basic YTpi"));
    }

    #[test]
    fn a_default_port_need_not_be_written() {
        for (origin, host, expected) in [
            ("http://a.example", "a.example:80", true),
            ("https://a.example", "a.example:443", true),
            ("https://a.example", "a.example", true),
            ("https://a.example", "a.example:80", false),
            ("http://[::1]:8080", "[::1]:8080", true),
        ] {
            let (of, at) = (
                HeaderValue::from_static(origin),
                HeaderValue::from_static(host),
            );
            assert_eq!(is_of_host(&of, Some(&at)), expected, "{origin} {host}");
            assert!(!is_of_host(&of, None));
        }
    }

    #[test]
    fn a_request_has_one_host() {
        for (count, version, expected) in [
            (1, Version::HTTP_11, true),
            (0, Version::HTTP_11, false),
            (2, Version::HTTP_11, false),
            (1, Version::HTTP_10, true),
            (0, Version::HTTP_10, true),
            (2, Version::HTTP_10, false),
        ] {
            let mut headers = HeaderMap::new();
            for _ in 0..count {
                headers.append(HOST, HeaderValue::from_static("localhost"));
            }
            assert_eq!(
                host(&headers, version).is_ok(),
                expected,
                "{count} {version:?}"
            );
        }
    }
}
