//! Which of many sorted values a bound is about. Pure.
//!
//! Enters: `p99.9`, or `max`. Leaves: a [`Quantile`], and its rank among any number of values. Must not round: two that
//! ask for the same one must get the same value.

use std::fmt;
use std::str::FromStr;

use super::FORMS;
use crate::units::UnitError;

/// A quantile as an exact decimal: 99.9 % of 10,000 values is the 9,990th for everybody who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantile {
    /// 1 to 10^9.
    billionths: u64,
}

impl Quantile {
    const ALL: u64 = 1_000_000_000;

    /// The largest value.
    pub const MAX: Self = Self {
        billionths: Self::ALL,
    };

    /// The quantile of so many in 10,000: 9,990 is p99.9.
    #[must_use]
    pub const fn of_ten_thousand(count: u16) -> Self {
        let billionths = count as u64 * 100_000;
        assert!(billionths > 0 && billionths <= Self::ALL);
        Self { billionths }
    }

    /// The quantile of a share from 0 to 1, to its nearest billionth; that of 0 is the smallest there is.
    #[must_use]
    pub fn of_share(share: f64) -> Self {
        let billionths = (share * Self::ALL as f64).round() as u64;
        Self {
            billionths: billionths.clamp(1, Self::ALL),
        }
    }

    /// Which value of `count` sorted ones it is, counted from 1: the smallest that at least this share of them does
    /// not exceed (the nearest-rank definition).
    #[must_use]
    pub fn rank(self, count: u64) -> u64 {
        let exact = u128::from(count) * u128::from(self.billionths);
        exact.div_ceil(u128::from(Self::ALL)) as u64
    }

    /// How many of `count` values lie beyond it.
    #[must_use]
    pub fn beyond(self, count: u64) -> u64 {
        count - self.rank(count)
    }
}

impl FromStr for Quantile {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let percent = match text {
            "max" => return Ok(Self::MAX),
            _ => text.strip_prefix('p').ok_or(UnitError(FORMS.into()))?,
        };
        let (whole, fraction) = percent.split_once('.').unwrap_or((percent, "0"));
        let digits = |text: &str| {
            let fits = (1..=7).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            fits.then(|| text.parse::<u64>().ok()).flatten()
        };
        let billionths = digits(whole).zip(digits(fraction)).map(|(whole, part)| {
            whole * (Self::ALL / 100) + part * 10_u64.pow(7 - fraction.len() as u32)
        });
        match billionths {
            Some(billionths @ 1..=Self::ALL) => Ok(Self { billionths }),
            _ => Err(UnitError(format!(
                "{text:?} is not a percentile from p0.0000001 to p100"
            ))),
        }
    }
}

/// `p99.9`, or `max`.
impl fmt::Display for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::MAX {
            return f.write_str("max");
        }
        let per_cent = Self::ALL / 100;
        write!(f, "p{}", self.billionths / per_cent)?;
        match self.billionths % per_cent {
            0 => Ok(()),
            rest => write!(f, ".{}", format!("{rest:07}").trim_end_matches('0')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_has_one_rank_and_one_name() {
        for (name, count, rank) in [
            ("p50", 3, 2),
            ("p99", 100, 99),
            ("p99.9", 10_000, 9_990),
            ("p99.9", 999, 999),
            ("p99.99", 10_000, 9_999),
            ("p99.9999999", 10_000_000_000, 9_999_999_990),
            ("max", 7, 7),
            ("p0.1", 10, 1),
        ] {
            let quantile: Quantile = name.parse().expect(name);
            assert_eq!(quantile.rank(count), rank, "{name} of {count}");
            assert_eq!(quantile.to_string(), name);
        }
    }

    #[test]
    fn a_share_is_the_quantile_that_is_written_so() {
        for (share, name) in [
            (0.0, "p0.0000001"),
            (1.0 - 0.1, "p90"),
            (1.0 - 0.001, "p99.9"),
            (1.0, "max"),
            (2.0, "max"),
        ] {
            assert_eq!(Quantile::of_share(share).to_string(), name);
        }
    }
}
