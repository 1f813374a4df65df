//! Lines of all formats, and what each of them says.
//!
//! Enters: lines that are right, wrong, or not to be sent. Leaves: nothing. Must not need a file.

use super::*;

/// 2026-11-24T12:00:00Z.
const NOON_US: u64 = 1_795_521_600_000_000;

fn parse(line: &str) -> Result<LogLine, UnitError> {
    LogLine::parse(line, LogFormat::of(line), &|scheme, authority| {
        scheme.eq_ignore_ascii_case("http") && authority == "h:1"
    })
}

/// `GET /x HTTP/1.1`, with headers and a body behind it.
fn shown(line: &LogLine) -> String {
    match &line.asked {
        Asked::LeftOut(name) => format!("left out: {name}"),
        Asked::Request(listed) => {
            let headers = listed.headers().map(|(n, v)| format!(" {n}={v}"));
            let headers = headers.collect::<Vec<_>>().concat();
            let body = listed
                .body()
                .map_or_else(String::new, |body| format!(" [{body}]"));
            format!(
                "{} {}{headers}{body}",
                listed.method().name(),
                listed.path()
            )
        }
    }
}

#[test]
fn times_are_read_to_the_resolution_that_they_have() {
    for (text, us, resolution_us) in [
        ("24/Nov/2026:12:00:00 +0000", 0, 1_000_000),
        ("24/Nov/2026:14:30:00 +0230", 0, 1_000_000),
        ("24/Nov/2026:07:00:01 -0500", 1_000_000, 1_000_000),
        ("24/Nov/2026:12:00:00.25 +0000", 250_000, 10_000),
        ("24/Nov/2026:12:00:00.250000 +0000", 250_000, 1),
        ("2026-11-24T12:00:00Z", 0, 1_000_000),
        ("2026-11-24T13:00:00.001+01:00", 1_000, 1_000),
        ("2026-11-24T12:00:00.123456789Z", 123_456, 1),
        ("1795521600", 0, 1_000_000),
        ("1795521600.5", 500_000, 100_000),
        ("1795521600.123", 123_000, 1_000),
        ("1795521600.1234567", 123_456, 1),
        ("1795521600123", 123_000, 1_000),
        ("1795521600123.456", 123_456, 1),
        ("1795521600123.4567", 123_456, 1),
    ] {
        let expected = Stamp {
            us: NOON_US + us,
            resolution_us,
        };
        assert_eq!(stamp_of(text).expect(text), expected, "{text}");
    }
}

#[test]
fn lines_of_each_format_say_when_and_what() {
    let combined = |request: &str| {
        format!(
            r#"192.0.2.1 - frank [24/Nov/2026:12:00:00 +0000] "{request}" 200 12 "http://a/[b]" "curl/8 (\"x\")""#
        )
    };
    let access = |request: &str| format!(r#"::1 - - [1795521600.000] "{request}" 404 -"#);
    for (line, expected) in [
        (combined("GET /x?y=[1] HTTP/1.1"), "GET /x?y=[1]"),
        (access("HEAD / HTTP/1.0"), "HEAD /"),
        (access("GET /old"), "GET /old"),
        (access("GET http://h:1/x HTTP/1.1"), "GET /x"),
        (access(r"GET /a\x22b\xC3\xA4\\ HTTP/1.1"), "GET /a%22b%C3%A4%5C"),
        (access(r#"GET /a\"b HTTP/1.1"#), "GET /a%22b"),
        (access("POST /x HTTP/1.1"), "left out: POST"),
        (access("PROPFIND /x HTTP/1.1"), "left out: another method"),
        (access("GET http://other/x HTTP/1.1"), "left out: another origin"),
        (access("GET x HTTP/1.1"), "left out: no HTTP request"),
        (access("-"), "left out: no HTTP request"),
        (access(""), "left out: no HTTP request"),
        (access(r"\x16\x03\x01 a b c"), "left out: no HTTP request"),
        (access("GET /a b HTTP/1.1"), "left out: no HTTP request"),
        (r#"{"ts":1795521600,"path":"/x"}"#.into(), "GET /x"),
        (r#"{"ts":1795521600.0,"method":"HEAD","uri":"/x","status":200}"#.into(), "HEAD /x"),
        (r#"{"time":"2026-11-24T12:00:00Z","request":"GET /x HTTP/1.1"}"#.into(), "GET /x"),
        (r#"{"time":"24/Nov/2026:12:00:00 +0000","request":"/x"}"#.into(), "GET /x"),
        (r#"{"ts":1795521600000,"path":"http://h:1/x?y"}"#.into(), "GET /x?y"),
        (r#"{"ts":1795521600,"method":"DELETE","path":"/x"}"#.into(), "left out: DELETE"),
        (r#"{"ts":1795521600,"method":"DELETE","path":"/x","body":""}"#.into(), "DELETE /x []"),
        (
            r#"{"ts":1795521600,"method":"PUT","path":"/x","headers":{"A":"b","Host":"c"},"body":"{n}"}"#.into(),
            "PUT /x A=b [{n}]",
        ),
    ] {
        let found = parse(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!((found.stamp.us, &*shown(&found)), (NOON_US, expected), "{line}");
    }
}

#[test]
fn a_line_of_neither_format_is_refused_with_the_reason() {
    for (line, expected) in [
        ("GET /x", "neither a JSON object nor"),
        ("/x", "neither a JSON object nor"),
        (
            r#"[24/Nov/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 1"#,
            "neither",
        ),
        (
            r#"h - - [24/Nov/2026:12:00:00] "GET / HTTP/1.1" 200 1"#,
            "is no time",
        ),
        (
            r#"h - - [31/Feb/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 1"#,
            "is no time",
        ),
        (r#"h - - [-5] "GET / HTTP/1.1" 200 1"#, "is no time"),
        (
            r#"h - - [1795521600] "GET / HTTP/1.1 200 1"#,
            "no closing quote",
        ),
        (
            r#"h - - [1795521600] "GET /\xZZ HTTP/1.1" 200 1"#,
            "no closing quote",
        ),
        (r#"h - - [1795521600] "GET / HTTP/1.1" ok 1"#, "no status"),
        (r#"h - - [1795521600] "GET / HTTP/1.1" 200"#, "no status"),
        (r#"{"path":"/x""#, "no JSON object, from column"),
        (r#"{"path":"/x"}"#, "no ts or time"),
        (r#"{"ts":true,"path":"/x"}"#, "no ts or time"),
        (r#"{"ts":1e20,"path":"/x"}"#, "is no time"),
        (r#"{"ts":-1,"path":"/x"}"#, "is no time"),
        (r#"{"ts":"noon","path":"/x"}"#, "is no time"),
        (r#"{"ts":"1969-12-31T23:59:59Z","path":"/x"}"#, "is no time"),
        (r#"{"ts":"1795521600.5 ","path":"/"}"#, "is no time"),
        (r#"{"ts":"2026-11-24T12:00:00.Z","path":"/"}"#, "is no time"),
        (r#"{"ts":1}"#, "no path, uri or request"),
        (r#"{"ts":1,"path":5}"#, "its path is no text"),
        (r#"{"ts":1,"path":"x"}"#, "begins with /"),
        (r#"{"ts":1,"path":"http://h:2/x"}"#, "another origin"),
        (
            r#"{"ts":1,"request":"GET /a b HTTP/1.1"}"#,
            "no METHOD PATH",
        ),
        (r#"{"ts":1,"path":"/","headers":["secret"]}"#, "no object"),
        (
            r#"{"ts":1,"path":"/","headers":{"a":["secret"]}}"#,
            "is no text",
        ),
        (
            r#"{"ts":1,"path":"/","method":"post","body":"secret"}"#,
            "write POST",
        ),
    ] {
        let error = parse(line)
            .map(|found| shown(&found))
            .expect_err(line)
            .to_string();
        assert!(error.contains(expected), "{line}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
