//! Who may ask: the token, the name that the server was called by, and the origins of web pages. Pure.
//!
//! Enters: the headers of a request. Leaves: a refusal, or the headers that let a page read the answer. Must
//! not tell how a wrong token differs from the right one.

use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
    AUTHORIZATION, HOST, HeaderValue, VARY,
};
use hyper::{HeaderMap, Method, StatusCode};

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

/// Refuses a request for another name than `localhost`, an address, or one of `hosts`; `None`: takes any.
///
/// A page of the web can have its own name resolved to this machine, and then counts as this server's own page
/// (DNS rebinding). Its browser still sends that name.
pub(super) fn check_host(headers: &HeaderMap, hosts: Option<&[String]>) -> Result<(), Problem> {
    let (Some(hosts), Some(host)) = (hosts, headers.get(HOST)) else {
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
            let headers = HeaderMap::from_iter([(HOST, value)]);
            assert_eq!(
                check_host(&headers, Some(&named)).is_ok(),
                expected,
                "{host}"
            );
            assert!(check_host(&headers, None).is_ok());
        }
        assert!(check_host(&HeaderMap::new(), Some(&named)).is_ok());
    }
}
