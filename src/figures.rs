//! The figures in which runs are compared. Pure.
//!
//! Enters: what a user typed after `--fail-on`. Leaves: a [`Figure`], or a [`FailOn`], which is a figure and how much worse
//! it may get. Must not know what a run is.

use std::fmt;
use std::str::FromStr;

use crate::units::UnitError;

const FORMS: &str = "write for example p99=+10%, for p50, p90, p99, p99.9, mean or errors, by more than 0 % and at most 10000 %; \
                     errors=+0.1% is a tenth of a hundredth of all arrivals";
/// A hundred times as much is no bound any more.
const MAX_PERCENT: f64 = 10_000.0;

/// One figure of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Latency, median, in microseconds; the next ones likewise.
    P50,
    /// 90th percentile.
    P90,
    /// 99th percentile.
    P99,
    /// 99.9th percentile.
    P999,
    /// Arithmetic mean.
    Mean,
    /// Good answers a second.
    Rate,
    /// Arrivals that were not answered well, as a share of all.
    Errors,
    /// CPU time of the generator for each request sent, in microseconds.
    Cpu,
}

impl Figure {
    /// In the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::P50,
        Self::P90,
        Self::P99,
        Self::P999,
        Self::Mean,
        Self::Rate,
        Self::Errors,
        Self::Cpu,
    ];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Mean => "mean",
            Self::Rate => "rate",
            Self::Errors => "errors",
            Self::Cpu => "cpu",
        }
    }

    /// As in the JSON, with its unit.
    #[must_use]
    pub fn member(self) -> &'static str {
        match self {
            Self::P50 => "p50_us",
            Self::P90 => "p90_us",
            Self::P99 => "p99_us",
            Self::P999 => "p999_us",
            Self::Mean => "mean_us",
            Self::Rate => "achieved_rps",
            Self::Errors => "failed_share",
            Self::Cpu => "cpu_us_per_request",
        }
    }

    /// Whether more of it is better.
    #[must_use]
    pub fn is_better_high(self) -> bool {
        self == Self::Rate
    }

    /// Whether it is compared by how many times as large it is; a share that may be 0 is compared by its difference.
    #[must_use]
    pub fn is_ratio(self) -> bool {
        self != Self::Errors
    }
}

/// A bound of how much worse a figure may get: `p99=+10%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FailOn {
    /// Which may not.
    pub figure: Figure,
    /// By this much or more: a share of what it was, and of errors a share of all arrivals.
    pub by: f64,
}

impl FromStr for FailOn {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refused = || UnitError(FORMS.into());
        let (name, more) = text.split_once('=').ok_or_else(refused)?;
        let figure = Figure::ALL
            .into_iter()
            .filter(|figure| !matches!(figure, Figure::Rate | Figure::Cpu))
            .find(|figure| figure.name() == name)
            .ok_or_else(refused)?;
        let number = more.strip_prefix('+').unwrap_or(more).strip_suffix('%');
        let percent: f64 = number
            .and_then(|number| number.parse().ok())
            .ok_or_else(refused)?;
        if percent > 0.0 && percent <= MAX_PERCENT {
            let by = percent / 100.0;
            Ok(Self { figure, by })
        } else {
            Err(refused())
        }
    }
}

impl fmt::Display for FailOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the noise of a division by a hundred.
        let percent = (self.by * 1e8).round() / 1e6;
        write!(f, "{}=+{percent}%", self.figure.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_of_the_worsening_is_read_as_it_is_written() {
        for (text, figure, by) in [
            ("p99=+10%", Figure::P99, 0.1),
            ("p99.9=25%", Figure::P999, 0.25),
            ("mean=+0.7%", Figure::Mean, 0.007),
            ("errors=+0.1%", Figure::Errors, 0.001),
        ] {
            let bound: FailOn = text.parse().expect(text);
            assert_eq!(bound.figure, figure, "{text}");
            assert!((bound.by - by).abs() < 1e-12, "{text}");
            let again: FailOn = bound.to_string().parse().expect("its own text");
            assert_eq!(again.figure, figure, "{bound}");
            assert!((again.by - by).abs() < 1e-12, "{bound}");
        }
    }

    #[test]
    fn what_is_no_bound_is_refused_with_the_forms() {
        for text in [
            "",
            "p99",
            "p99=",
            "p99=10",
            "p99=-10%",
            "p99=0%",
            "p99=nan%",
            "p99=20000%",
            "p98=1%",
            "rate=5%",
            "cpu=5%",
            "max=1%",
        ] {
            let error = text.parse::<FailOn>().expect_err(text);
            assert!(error.to_string().contains("p99=+10%"), "{text}: {error}");
        }
    }
}
