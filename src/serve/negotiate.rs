//! What the headers of a request say about its answer. Pure.
//!
//! Enters: header values. Leaves: what is wanted, and what was proven. Must not refuse a header that it does
//! not understand: such a header says nothing.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `application/json`, unless something else is asked for.
    Json,
    /// `application/octet-stream`: stored bytes, as they are.
    Octets,
}

impl Form {
    /// The form that `Accept` prefers (RFC 9110, 12.5.1); JSON where both are as good, or neither is named.
    #[must_use]
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        // Most clients send none.
        if !headers.contains_key(ACCEPT) {
            return Self::Json;
        }
        let quality = |kind: &str, subtype: &str| quality(headers, kind, subtype);
        if quality("application", "octet-stream") > quality("application", "json") {
            Self::Octets
        } else {
            Self::Json
        }
    }
}

/// The quality that `Accept` gives to a media type, in thousandths: that of its most exact range.
fn quality(headers: &HeaderMap, kind: &str, subtype: &str) -> u16 {
    let values = headers.get_all(ACCEPT).iter();
    let ranges = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','));
    let mut best = (0, 0);
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let exactness = match name.split_once('/') {
            Some((a, b)) if a.eq_ignore_ascii_case(kind) && b.eq_ignore_ascii_case(subtype) => 3,
            Some((a, "*")) if a.eq_ignore_ascii_case(kind) => 2,
            Some(("*", "*")) => 1,
            _ => continue,
        };
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(Some(1.0), |text| text.parse::<f32>().ok())
            .unwrap_or(0.0);
        best = best.max((exactness, (quality.clamp(0.0, 1.0) * 1_000.0) as u16));
    }
    best.1
}

/// Whether a body says that it is JSON. One that says nothing is refused as well: a page of any origin may
/// send such a request from a browser without being asked.
#[must_use]
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value.is_some_and(|text| {
        let name = text.split(';').next().unwrap_or_default().trim();
        name.eq_ignore_ascii_case("application/json")
    })
}

/// Whether `If-None-Match` names this tag (RFC 9110, 13.1.2: compared weakly), or any.
#[must_use]
pub(super) fn names_tag(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .any(|text| text == "*" || text.strip_prefix("W/").unwrap_or(text) == tag)
}

/// Whether `If-Match` is there and does not hold (RFC 9110, 13.1.1: compared strongly) of a key with this tag, or none.
#[must_use]
pub(super) fn fails_match(headers: &HeaderMap, tag: Option<&str>) -> bool {
    if !headers.contains_key(IF_MATCH) {
        return false;
    }
    let values = headers.get_all(IF_MATCH).iter();
    let mut names = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(str::trim);
    !tag.is_some_and(|tag| names.any(|name| name == "*" || name == tag))
}

/// What must hold of a key for a write to take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// Nothing.
    None,
    /// `If-None-Match: *`: it is absent.
    Absent,
    /// `If-Match: *`: it is there.
    Present,
}

/// The condition is none of these.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CannotCheck;

impl Condition {
    /// The one condition of a write (RFC 9110, 13.1). A date says nothing here, where no key has one; but who gives it
    /// must not be taken to have given none.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, CannotCheck> {
        let of = |name| {
            let mut values = headers.get_all(name).iter();
            (values.next(), values.next())
        };
        match (of(IF_MATCH), of(IF_NONE_MATCH)) {
            _ if headers.contains_key(IF_UNMODIFIED_SINCE) => Err(CannotCheck),
            ((None, _), (None, _)) => Ok(Self::None),
            ((None, _), (Some(value), None)) if value == "*" => Ok(Self::Absent),
            ((Some(value), None), (None, _)) if value == "*" => Ok(Self::Present),
            _ => Err(CannotCheck),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_form_follows_the_qualities_and_is_json_when_in_doubt() {
        assert_eq!(Form::wanted(&HeaderMap::new()), Form::Json);
        for (accept, expected) in [
            ("*/*", Form::Json),
            ("application/json", Form::Json),
            ("application/octet-stream", Form::Octets),
            ("Application/Octet-Stream; q=0.5", Form::Octets),
            ("application/octet-stream, application/json", Form::Json),
            ("application/octet-stream, */*;q=0.1", Form::Octets),
            ("application/octet-stream;q=0, */*", Form::Json),
            (
                "application/*;q=0.2, application/octet-stream;q=0.1",
                Form::Json,
            ),
            ("text/html", Form::Json),
            (";;;q=,/", Form::Json),
        ] {
            assert_eq!(Form::wanted(&headers(ACCEPT, accept)), expected, "{accept}");
        }
    }

    #[test]
    fn a_body_is_json_only_when_it_says_so() {
        for (value, expected) in [
            ("application/json", true),
            ("application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
        ] {
            assert_eq!(is_json(&headers(CONTENT_TYPE, value)), expected, "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }

    #[test]
    fn a_tag_is_found_among_others() {
        for (value, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
        ] {
            let found = names_tag(&headers(IF_NONE_MATCH, value), "\"a\"");
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn a_match_is_strong_and_needs_a_key() {
        assert!(!fails_match(&HeaderMap::new(), None));
        for (value, of_a, of_none) in [
            ("\"a\"", false, true),
            ("\"b\", \"a\"", false, true),
            ("W/\"a\"", true, true),
            ("\"b\"", true, true),
            ("a", true, true),
            ("*", false, true),
        ] {
            let headers = headers(IF_MATCH, value);
            assert_eq!(fails_match(&headers, Some("\"a\"")), of_a, "{value}");
            assert_eq!(fails_match(&headers, None), of_none, "{value}");
        }
    }

    #[test]
    fn a_write_has_one_condition_or_one_that_cannot_be_checked() {
        for (given, expected) in [
            (&[][..], Ok(Condition::None)),
            (&[(IF_NONE_MATCH, "*")], Ok(Condition::Absent)),
            (&[(IF_MATCH, "*")], Ok(Condition::Present)),
            (&[(IF_MATCH, "\"a\"")], Err(CannotCheck)),
            (&[(IF_NONE_MATCH, "\"a\"")], Err(CannotCheck)),
            (&[(IF_MATCH, "*"), (IF_NONE_MATCH, "*")], Err(CannotCheck)),
            (
                &[(IF_NONE_MATCH, "*"), (IF_NONE_MATCH, "\"a\"")],
                Err(CannotCheck),
            ),
            (
                &[(IF_UNMODIFIED_SINCE, "Thu, 26 Nov 2026 00:00:00 GMT")],
                Err(CannotCheck),
            ),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.append(name, HeaderValue::from_static(value));
            }
            assert_eq!(Condition::of(&headers), expected, "{given:?}");
        }
    }
}
