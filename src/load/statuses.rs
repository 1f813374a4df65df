//! Statuses that are right: `2xx`, `200,201`, `200-299,404`. Pure.
//!
//! Enters: what a user typed. Leaves: a set of final statuses. Must not judge an answer by anything else.

use std::fmt;
use std::str::FromStr;

use crate::units::UnitError;

const FORMS: &str =
    "write statuses from 200 to 999, separated by commas, such as 2xx, 200,201 or 200-299,404";

/// A set of statuses, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(Vec<(u16, u16)>);

impl Statuses {
    /// Whether this one is right.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        let Self(ranges) = self;
        ranges
            .iter()
            .any(|&(first, last)| (first..=last).contains(&status))
    }
}

impl FromStr for Statuses {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let ranges: Option<Vec<_>> = text.split(',').map(str::trim).map(range).collect();
        ranges.map(Self).ok_or_else(|| UnitError(FORMS.into()))
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = match (text.strip_suffix("xx"), text.split_once('-')) {
        (Some(digit), _) if digit.len() == 1 => {
            let hundred = status(&format!("{digit}00"))?;
            (hundred, hundred + 99)
        }
        (_, Some((first, last))) => (status(first)?, status(last)?),
        _ => (status(text)?, status(text)?),
    };
    (first <= last).then_some((first, last))
}

/// A final status: an interim one is the answer to nothing.
fn status(text: &str) -> Option<u16> {
    let is_number = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    let status = is_number.then(|| text.parse().ok())??;
    (status >= 200).then_some(status)
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(ranges) = self;
        for (place, &(first, last)) in ranges.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_single_ones_ranges_and_hundreds() {
        for (text, shown, right, wrong) in [
            ("2xx", "200-299", &[200, 204, 299][..], &[304, 404][..]),
            ("200,201", "200,201", &[200, 201], &[202, 299]),
            ("200-299, 404", "200-299,404", &[200, 299, 404], &[403, 405]),
            ("503", "503", &[503], &[200]),
            ("9xx,200", "900-999,200", &[999, 200], &[500]),
        ] {
            let found: Statuses = text.parse().expect(text);
            assert_eq!(found.to_string(), shown);
            assert!(right.iter().all(|&status| found.contains(status)), "{text}");
            assert!(
                !wrong.iter().any(|&status| found.contains(status)),
                "{text}"
            );
            assert_eq!(shown.parse::<Statuses>().ok(), Some(found));
        }
    }

    #[test]
    fn what_is_no_final_status_is_refused_with_the_forms() {
        for text in [
            "", ",", "200,", "20", "2000", "2x", "xx", "ok", "1xx", "101", "199-300", "300-200",
            "+20", "2xx-3xx", "200 201",
        ] {
            let error = text.parse::<Statuses>().expect_err(text).to_string();
            assert!(error.contains("such as 2xx"), "{text}: {error}");
        }
    }
}
