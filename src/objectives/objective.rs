//! One condition of a PASS: of which part of a run, and how much. Pure.
//!
//! Enters: what stands before the name of a bound. Leaves: an [`Objective`] and its parts, each with its name. Must not
//! know the defaults, nor which conditions stand together.

use std::fmt;

use super::Quantile;
use crate::units::{UnitError, human_us};

/// What an arrival does to the data.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Reads several sessions.
    Sessions,
    /// Reads one session.
    Session,
    /// Writes one record.
    Write,
    /// Reads the statistics.
    Stats,
    /// Whatever the path of another target asks for.
    Request,
}

impl Operation {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Sessions,
        Self::Session,
        Self::Write,
        Self::Stats,
        Self::Request,
    ];

    /// As in the JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Session => "session",
            Self::Write => "write",
            Self::Stats => "stats",
            Self::Request => "request",
        }
    }
}

/// The operations that an objective is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operations {
    /// Every one.
    All,
    /// Those that read keys.
    Reads,
    /// This one.
    Only(Operation),
}

impl Operations {
    /// Whether an operation is among them.
    #[must_use]
    pub fn contain(self, operation: Operation) -> bool {
        match self {
            Self::All => true,
            Self::Reads => matches!(operation, Operation::Sessions | Operation::Session),
            Self::Only(only) => only == operation,
        }
    }
}

/// The part of a run that an objective is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// One stage, counted from 1; `None`: each stage by itself.
    pub stage: Option<usize>,
    /// Which operations.
    pub operations: Operations,
}

impl Scope {
    /// All of the run, each stage by itself.
    pub const RUN: Self = Self {
        stage: None,
        operations: Operations::All,
    };

    pub(super) fn parse(text: &str) -> Result<Self, UnitError> {
        let mut scope = Self::RUN;
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let stage = part
                .strip_prefix("stage")
                .and_then(|number| number.parse().ok());
            let operation = Operation::ALL.into_iter().find(|one| one.name() == part);
            match (stage, operation) {
                (Some(number @ 1..), _) => scope.stage = Some(number),
                (_, Some(operation)) => scope.operations = Operations::Only(operation),
                _ if part == "read" => scope.operations = Operations::Reads,
                _ => {
                    return Err(UnitError(format!(
                        "{part:?} is neither stage1, stage2, … nor read, write, session, sessions, stats or request"
                    )));
                }
            }
        }
        Ok(scope)
    }
}

/// What stands before the name of a bound: nothing, or `stage2.read.`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(stage) = self.stage {
            write!(f, "stage{stage}.")?;
        }
        match self.operations {
            Operations::All => Ok(()),
            Operations::Reads => f.write_str("read."),
            Operations::Only(operation) => write!(f, "{}.", operation.name()),
        }
    }
}

/// What is bounded, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// Answers keep up with arrivals: the least share of the scheduled rate.
    Rate {
        /// 0 to 1.
        at_least: f64,
    },
    /// The largest share of the arrivals that may fail, unsent ones included.
    Errors {
        /// 0 to 1.
        at_most: f64,
    },
    /// The largest latency at a quantile.
    Latency {
        /// Which.
        quantile: Quantile,
        /// Microseconds.
        at_most_us: u64,
    },
}

impl Bound {
    pub(super) fn is_of_the_kind_of(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Latency { quantile: one, .. },
                Self::Latency {
                    quantile: other, ..
                },
            ) => one == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// `rate ≥ 99.9 %`, `errors ≤ 0.1 %`, `p99 ≤ 100.00 ms`.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate { at_least } => write!(f, "rate ≥ {} %", percent(*at_least)),
            Self::Errors { at_most } => write!(f, "errors ≤ {} %", percent(*at_most)),
            Self::Latency {
                quantile,
                at_most_us,
            } => write!(f, "{quantile} ≤ {}", human_us(*at_most_us)),
        }
    }
}

/// A share as a percentage, without the noise of binary fractions.
pub(super) fn percent(share: f64) -> f64 {
    (share * 1e8).round() / 1e6
}

/// One condition of a PASS.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// Of what.
    pub scope: Scope,
    /// How much.
    pub bound: Bound,
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.scope, self.bound)
    }
}
