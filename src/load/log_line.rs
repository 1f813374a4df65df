//! Lines of access logs and traces: when, and what was asked for. Pure.
//!
//! Enters: a line of the common or combined log format, or of JSON. Leaves: a [`LogLine`]. Must not guess a time, nor send what
//! the line does not hold: of a method that changes something, an access log has no body.

use std::sync::LazyLock;

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::{self, BorrowedFormatItem, well_known::Rfc3339};

use super::listed::{IsOrigin, Listed, OwnHeader, headers_of, path_of};
use super::moments::Stamp;
use crate::units::UnitError;

/// Of Unix seconds; a larger number is one of milliseconds.
const MAX_SECONDS: u64 = 100_000_000_000;
/// Of milliseconds.
const MAX_MILLISECONDS: u64 = 100_000_000_000_000;
/// What an access log escapes, and a request line does not hold.
const UNSENDABLE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'\\');
/// Methods that are counted by their names.
const KNOWN: [&str; 7] = [
    "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE",
];

/// How the lines of a log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `host ident user [time] "request" status bytes`, with whatever else behind it, as the combined one has.
    Access,
    /// A JSON object on each line.
    Json,
}

impl LogFormat {
    /// That of a line.
    #[must_use]
    pub fn of(line: &str) -> Self {
        if line.starts_with('{') {
            Self::Json
        } else {
            Self::Access
        }
    }

    /// For a person and for a result.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "access log",
            Self::Json => "JSON lines",
        }
    }
}

/// What a line says was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// This, which can be asked for again.
    Request(Box<Listed>),
    /// Something that is left out, and how that is called.
    LeftOut(&'static str),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When.
    pub stamp: Stamp,
    /// What.
    pub asked: Asked,
}

impl LogLine {
    /// Reads a line.
    ///
    /// # Errors
    /// Why it is no line of this format.
    pub fn parse(
        line: &str,
        format: LogFormat,
        is_origin: IsOrigin<'_>,
    ) -> Result<Self, UnitError> {
        match format {
            LogFormat::Access => of_access_log(line, is_origin),
            LogFormat::Json => of_json(line, is_origin),
        }
    }
}

fn refused<T>(reason: impl Into<String>) -> Result<T, UnitError> {
    Err(UnitError(reason.into()))
}

/// `192.0.2.1 - - [24/Nov/2026:12:00:00 +0000] "GET /x HTTP/1.1" 200 12 "-" "curl"`.
fn of_access_log(line: &str, is_origin: IsOrigin<'_>) -> Result<LogLine, UnitError> {
    const FORM: &str = "it is neither a JSON object nor a line of the common or combined log format, \
                        HOST IDENT USER [TIME] \"REQUEST\" STATUS BYTES";
    let parts = || {
        let (before, rest) = line.split_once('[')?;
        let (time, rest) = rest.split_once(']')?;
        let rest = rest.trim_start().strip_prefix('"')?;
        (!before.trim().is_empty()).then_some((time, rest))
    };
    let Some((time, rest)) = parts() else {
        return refused(FORM);
    };
    let stamp = stamp_of(time)?;
    let Some((request, rest)) = quoted(rest) else {
        return refused("its request has no closing quote");
    };
    let mut rest = rest.split_ascii_whitespace();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let has_status = rest
        .next()
        .is_some_and(|text| text.len() == 3 && is_number(text));
    if !has_status
        || !rest
            .next()
            .is_some_and(|text| text == "-" || is_number(text))
    {
        return refused("behind its request there is no status and number of bytes");
    }
    let asked = of_request_line(&request, is_origin)?;
    Ok(LogLine { stamp, asked })
}

/// What stands before the closing quote, its escapes taken back, and what stands behind it.
fn quoted(text: &str) -> Option<(Vec<u8>, &str)> {
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::with_capacity(bytes.len()), 0);
    loop {
        match (*bytes.get(at)?, bytes.get(at + 1)) {
            (b'"', _) => return Some((found, &text[at + 1..])),
            (b'\\', Some(b'x')) => {
                let digits = text.get(at + 2..at + 4)?;
                found.push(u8::from_str_radix(digits, 16).ok()?);
                at += 4;
            }
            (b'\\', Some(&escaped @ (b'"' | b'\\'))) => {
                found.push(escaped);
                at += 2;
            }
            (byte, _) => {
                found.push(byte);
                at += 1;
            }
        }
    }
}

/// `GET /x HTTP/1.1`. What clients send that is no request stands in access logs too.
fn of_request_line(line: &[u8], is_origin: IsOrigin<'_>) -> Result<Asked, UnitError> {
    const NONE: Asked = Asked::LeftOut("no HTTP request");
    let mut words = line.split(|&byte| byte == b' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(NONE);
    };
    let is_http = words.next().is_none_or(|word| word.starts_with(b"HTTP/"));
    let method = std::str::from_utf8(method).unwrap_or_default();
    if !is_http || words.next().is_some() || method.is_empty() {
        return Ok(NONE);
    }
    if let Some(name) = left_out(method) {
        return Ok(Asked::LeftOut(name));
    }
    let path = percent_encode(path, UNSENDABLE).to_string();
    match path_of(&path, is_origin) {
        Ok(path) => request(method, path, Vec::new(), None),
        Err(_) if path.contains("://") => Ok(Asked::LeftOut("another origin")),
        Err(_) => Ok(NONE),
    }
}

fn request(
    method: &str,
    path: String,
    headers: Vec<OwnHeader>,
    body: Option<String>,
) -> Result<Asked, UnitError> {
    let listed = Listed::new(Some(method), path, headers, body)?;
    Ok(Asked::Request(listed.into()))
}

/// How a method is called that has no place in a replay unless its body is there.
fn left_out(method: &str) -> Option<&'static str> {
    if matches!(method, "GET" | "HEAD") {
        return None;
    }
    let known = KNOWN.into_iter().find(|&known| known == method);
    Some(known.unwrap_or("another method"))
}

/// `{"ts": …, "method": "GET", "path": "/x"}`, with whatever else.
fn of_json(line: &str, is_origin: IsOrigin<'_>) -> Result<LogLine, UnitError> {
    let members: Map<String, Value> = serde_json::from_str(line).map_err(|error| {
        UnitError(format!(
            "it is no JSON object, from column {} on",
            error.column()
        ))
    })?;
    let stamp = match members.get("ts").or_else(|| members.get("time")) {
        Some(Value::String(text)) => stamp_of(text)?,
        // What is 0 behind the point need not be there.
        Some(Value::Number(number)) => {
            let text = number.to_string();
            stamp_of(text.strip_suffix(".0").unwrap_or(&text))?
        }
        _ => return refused("it has no ts or time, as text or as a number"),
    };
    let text = |name: &str| match members.get(name) {
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        None | Some(Value::Null) => Ok(None),
        Some(_) => refused(format!("its {name} is no text")),
    };
    let target = match text("path")? {
        Some(path) => Some(path),
        None => text("uri")?,
    };
    let (method, target) = match (target, text("request")?) {
        (Some(target), _) => (text("method")?, target),
        (None, Some(line)) => match line.split(' ').collect::<Vec<_>>()[..] {
            [target] => (text("method")?, target),
            [method, target] | [method, target, _] => (Some(method), target),
            _ => return refused("its request is no METHOD PATH HTTP/1.1"),
        },
        (None, None) => return refused("it has no path, uri or request"),
    };
    let method = method.unwrap_or("GET");
    let body = text("body")?.map(str::to_owned);
    if let (Some(name), None) = (left_out(method), &body) {
        let asked = Asked::LeftOut(name);
        return Ok(LogLine { stamp, asked });
    }
    let headers = match members.get("headers") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(headers)) => headers_of(headers, true)?,
        Some(_) => return refused("its headers are no object"),
    };
    let asked = request(method, path_of(target, is_origin)?, headers, body)?;
    Ok(LogLine { stamp, asked })
}

/// A time as `24/Nov/2026:12:00:00 +0000`, as RFC 3339, or as Unix seconds or milliseconds, each with or without a
/// fraction.
fn stamp_of(text: &str) -> Result<Stamp, UnitError> {
    const FORMS: &str = "write 24/Nov/2026:12:00:00 +0000, RFC 3339, or Unix seconds or milliseconds, not before 1970";
    let refused = || UnitError(format!("{text:?} is no time: {FORMS}"));
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let (fraction, zone) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
    if fraction.is_empty() && text.contains('.') {
        return Err(refused());
    }
    let found = match whole.parse::<u64>() {
        Ok(_) if !zone.is_empty() => None,
        Ok(seconds @ ..MAX_SECONDS) => of_units(seconds, 1_000_000, fraction),
        Ok(milliseconds @ ..MAX_MILLISECONDS) => of_units(milliseconds, 1_000, fraction),
        Ok(_) => None,
        Err(_) => seconds_of(&format!("{whole}{zone}"))
            .and_then(|seconds| of_units(seconds, 1_000_000, fraction)),
    };
    found.ok_or_else(refused)
}

/// Of a date and time without a fraction.
fn seconds_of(text: &str) -> Option<u64> {
    let parsed = if text.contains('/') {
        OffsetDateTime::parse(text, &*ACCESS_LOG)
    } else {
        OffsetDateTime::parse(text, &Rfc3339)
    };
    u64::try_from(parsed.ok()?.unix_timestamp()).ok()
}

/// The time of an access log.
static ACCESS_LOG: LazyLock<Vec<BorrowedFormatItem<'static>>> = LazyLock::new(|| {
    format_description::parse_borrowed::<2>(
        "[day]/[month repr:short]/[year]:[hour]:[minute]:[second] [offset_hour sign:mandatory][offset_minute]",
    )
    .expect("a constant description is right")
});

/// So many units, and a fraction of one to the microsecond.
fn of_units(number: u64, unit_us: u64, fraction: &str) -> Option<Stamp> {
    let resolution_us = resolution_us(unit_us, fraction.len());
    let digits = (unit_us / resolution_us).ilog10() as usize;
    let part: u64 = match fraction.get(..digits)? {
        "" => 0,
        kept => kept.parse().ok()?,
    };
    Some(Stamp {
        us: number.checked_mul(unit_us)? + part * resolution_us,
        resolution_us,
    })
}

/// What so many digits behind the point of a unit tell, at best a microsecond.
fn resolution_us(unit_us: u64, digits: usize) -> u64 {
    (0..digits).fold(unit_us, |us, _| (us / 10).max(1))
}

#[cfg(test)]
mod tests;
