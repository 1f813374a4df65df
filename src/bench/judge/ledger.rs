//! How arrivals end, and counts of their ends. Pure.
//!
//! Enters: ends of arrivals. Leaves: a [`Ledger`] that must balance. Must not lose an arrival unseen: each number is
//! counted where it happens.

use std::fmt;

use crate::bench::plan::workload::Work;

/// Why a sent arrival failed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub enum Cause {
    /// Answered with a status other than 200.
    Status(u16),
    /// The connection ended before the answer did.
    ConnectionLost,
    /// The answer is no HTTP.
    Malformed,
    /// Answered with something else than what was asked for.
    WrongAnswer,
    /// The store, driven itself, would not do it.
    Refused,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "http_{status}"),
            Self::ConnectionLost => f.write_str("connection_lost"),
            Self::Malformed => f.write_str("malformed_answer"),
            Self::WrongAnswer => f.write_str("wrong_answer"),
            Self::Refused => f.write_str("refused"),
        }
    }
}

/// Why an arrival was never sent.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub enum Unsent {
    /// `--max-in-flight` was reached.
    MaxInFlight,
    /// No connection became free within `--timeout`.
    NoConnection,
    /// The run, with its drain, was over first.
    EndOfRun,
}

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MaxInFlight => "max_in_flight",
            Self::NoConnection => "no_connection",
            Self::EndOfRun => "end_of_run",
        })
    }
}

impl From<Cause> for String {
    fn from(cause: Cause) -> Self {
        cause.to_string()
    }
}

impl TryFrom<String> for Cause {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let named = [
            Self::ConnectionLost,
            Self::Malformed,
            Self::WrongAnswer,
            Self::Refused,
        ];
        let status = || Some(Self::Status(text.strip_prefix("http_")?.parse().ok()?));
        let found = named.into_iter().find(|cause| cause.to_string() == text);
        found
            .or_else(status)
            .ok_or_else(|| format!("unknown cause of an error: {text:?}"))
    }
}

impl From<Unsent> for String {
    fn from(reason: Unsent) -> Self {
        reason.to_string()
    }
}

impl TryFrom<String> for Unsent {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        [Self::MaxInFlight, Self::NoConnection, Self::EndOfRun]
            .into_iter()
            .find(|reason| reason.to_string() == text)
            .ok_or_else(|| format!("unknown reason for an unsent request: {text:?}"))
    }
}

/// How a sent arrival ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with what was asked for.
    Ok(Work),
    /// Answered wrongly, or cut off.
    Error(Cause),
    /// Not answered within `--timeout`.
    Timeout,
    /// Not answered when the run ended.
    InFlight,
}

impl Outcome {
    /// An answer came, right or wrong.
    #[must_use]
    pub fn is_answered(self) -> bool {
        matches!(
            self,
            Self::Ok(_) | Self::Error(Cause::Status(_) | Cause::WrongAnswer)
        )
    }
}

/// Counts of arrivals. Each number is counted where it happens, so that a lost arrival shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ledger {
    /// What the schedule asked for.
    pub scheduled: u64,
    /// Written to a connection.
    pub sent: u64,
    /// Never written.
    pub unsent: u64,
    /// Answered with what was asked for.
    pub ok: u64,
    /// Answered with something else, or cut off.
    pub errors: u64,
    /// Not answered in time.
    pub timeouts: u64,
    /// Not answered when the run ended.
    pub in_flight: u64,
}

/// All counts, as a report has them.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scheduled,
            sent,
            unsent,
            ok,
            errors,
            timeouts,
            in_flight,
        } = self;
        write!(
            f,
            "{scheduled} scheduled, {sent} sent, {unsent} unsent, {ok} ok, {errors} errors, {timeouts} timeouts, \
             {in_flight} in flight"
        )
    }
}

impl Ledger {
    /// Nothing is lost, and nothing counted twice.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.scheduled == self.sent + self.unsent
            && self.sent == self.ok + self.errors + self.timeouts + self.in_flight
    }

    /// Arrivals that were not answered with what was asked for.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.unsent + self.errors + self.timeouts + self.in_flight
    }

    /// That of a run which goes on: what has begun stands for what was scheduled, and what is not answered yet is in
    /// flight.
    #[must_use]
    pub fn so_far(self) -> Self {
        let ended = self.ok + self.errors + self.timeouts;
        Self {
            scheduled: self.sent + self.unsent,
            in_flight: self.sent.saturating_sub(ended),
            ..self
        }
    }

    /// That of the arrivals that have ended alone: what is in flight has not failed yet.
    #[must_use]
    pub fn ended(self) -> Self {
        let ended = self.ok + self.errors + self.timeouts;
        Self {
            scheduled: ended + self.unsent,
            sent: ended,
            in_flight: 0,
            ..self
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.scheduled += other.scheduled;
        self.sent += other.sent;
        self.unsent += other.unsent;
        self.ok += other.ok;
        self.errors += other.errors;
        self.timeouts += other.timeouts;
        self.in_flight += other.in_flight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_flight_has_neither_failed_nor_ended() {
        let counted = Ledger {
            scheduled: 0,
            sent: 10,
            unsent: 2,
            ok: 5,
            errors: 1,
            timeouts: 1,
            in_flight: 0,
        };
        let so_far = counted.so_far();
        assert!(so_far.balances() && so_far.in_flight == 3, "{so_far:?}");
        let ended = counted.ended();
        assert!(ended.balances() && ended == so_far.ended(), "{ended:?}");
        assert_eq!((ended.scheduled, ended.failed()), (9, 4));
    }
}
