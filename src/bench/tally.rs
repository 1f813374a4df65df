//! What happened to the arrivals: counted and measured. Pure.
//!
//! Enters: events of single arrivals. Leaves: a ledger that must balance and histograms. Must not
//! average a percentile: tallies are merged bucket by bucket.
//!
//! Every arrival ends in the latency histogram exactly once, whatever became of it: an unanswered one with
//! the time that it had waited when it was given up, which is the least that it can have taken.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;

use super::queue::Arrival;
use super::workload::Work;

/// Three digits: each percentile is right to 0.1 %.
const SIGNIFICANT_DIGITS: u8 = 3;
/// An hour in microseconds. Longer values make the histogram grow instead of being lost.
const USUAL_MAX_US: u64 = 3_600_000_000;

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
            .ok_or_else(|| format!("{text:?} is no cause of an error"))
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
            .ok_or_else(|| format!("{text:?} is no reason for sending nothing"))
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

    fn add(&mut self, other: &Self) {
        self.scheduled += other.scheduled;
        self.sent += other.sent;
        self.unsent += other.unsent;
        self.ok += other.ok;
        self.errors += other.errors;
        self.timeouts += other.timeouts;
        self.in_flight += other.in_flight;
    }
}

/// Everything that is known about a set of arrivals. Times are microseconds. As JSON it is whole: each histogram
/// stands there with all its buckets.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// Counts.
    pub ledger: Ledger,
    /// Done (or given up) − due: the headline.
    #[serde(with = "packed")]
    pub latency_us: Histogram<u64>,
    /// Taken up − due: the generator's own delay.
    #[serde(with = "packed")]
    pub lag_us: Histogram<u64>,
    /// Sent − taken up: waiting for a free connection.
    #[serde(with = "packed")]
    pub wait_us: Histogram<u64>,
    /// Done − sent, of answered arrivals.
    #[serde(with = "packed")]
    pub service_us: Histogram<u64>,
    /// Keys found in good answers.
    pub hits: u64,
    /// Keys missed in good answers.
    pub misses: u64,
    /// Keys that good answers wrote, which are among the hits.
    pub written: u64,
    /// Commands behind good answers.
    pub commands: u64,
    /// Errors by cause.
    pub causes: BTreeMap<Cause, u64>,
    /// Unsent arrivals by reason.
    pub unsent: BTreeMap<Unsent, u64>,
    /// How long after the measured part each good answer came; 0 for those within it.
    #[serde(with = "packed")]
    pub overrun_us: Histogram<u64>,
    /// End of the measured part, from the start of the run.
    window_end_ns: u64,
}

impl Tally {
    /// An empty tally of a run whose measured part ends at `window_end_ns`.
    #[must_use]
    pub fn new(window_end_ns: u64) -> Self {
        Self {
            ledger: Ledger::default(),
            latency_us: histogram(),
            lag_us: histogram(),
            wait_us: histogram(),
            service_us: histogram(),
            hits: 0,
            misses: 0,
            written: 0,
            commands: 0,
            causes: BTreeMap::new(),
            unsent: BTreeMap::new(),
            overrun_us: histogram(),
            window_end_ns,
        }
    }

    /// The generator took an arrival up.
    pub fn taken_up(&mut self, arrival: &Arrival) {
        record(&mut self.lag_us, arrival.due_ns, arrival.taken_ns);
    }

    /// An arrival was written to a connection.
    pub fn sent(&mut self, arrival: &Arrival, sent_ns: u64) {
        self.ledger.sent += 1;
        record(&mut self.wait_us, arrival.taken_ns, sent_ns);
    }

    /// A sent arrival ended at `end_ns`.
    pub fn ended(&mut self, arrival: &Arrival, sent_ns: u64, end_ns: u64, outcome: Outcome) {
        record(&mut self.latency_us, arrival.due_ns, end_ns);
        match outcome {
            Outcome::Ok(work) => {
                self.ledger.ok += 1;
                self.hits += u64::from(work.hits);
                self.misses += u64::from(work.misses);
                self.written += u64::from(work.written);
                self.commands += u64::from(work.commands);
                record(&mut self.overrun_us, self.window_end_ns, end_ns);
            }
            Outcome::Error(cause) => {
                self.ledger.errors += 1;
                *self.causes.entry(cause).or_default() += 1;
            }
            Outcome::Timeout => self.ledger.timeouts += 1,
            Outcome::InFlight => self.ledger.in_flight += 1,
        }
        if let Outcome::Ok(_) | Outcome::Error(Cause::Status(_) | Cause::WrongAnswer) = outcome {
            record(&mut self.service_us, sent_ns, end_ns);
        }
    }

    /// An arrival was given up unsent at `end_ns`.
    pub fn unsent(&mut self, arrival: &Arrival, end_ns: u64, reason: Unsent) {
        record(&mut self.latency_us, arrival.due_ns, end_ns);
        self.ledger.unsent += 1;
        *self.unsent.entry(reason).or_default() += 1;
    }

    /// Adds another tally, losing nothing.
    pub fn add(&mut self, other: &Self) {
        self.ledger.add(&other.ledger);
        for (ours, theirs) in [
            (&mut self.latency_us, &other.latency_us),
            (&mut self.lag_us, &other.lag_us),
            (&mut self.wait_us, &other.wait_us),
            (&mut self.service_us, &other.service_us),
            (&mut self.overrun_us, &other.overrun_us),
        ] {
            ours.add(theirs).expect("growing histograms take any value");
        }
        self.hits += other.hits;
        self.misses += other.misses;
        self.written += other.written;
        self.commands += other.commands;
        for (&cause, count) in &other.causes {
            *self.causes.entry(cause).or_default() += count;
        }
        for (&reason, count) in &other.unsent {
            *self.unsent.entry(reason).or_default() += count;
        }
    }

    /// End of the measured part, from the start of the run.
    #[must_use]
    pub fn window_end_ns(&self) -> u64 {
        self.window_end_ns
    }

    /// Keys that good answers read, found or not; those of writes are not among them.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.hits + self.misses - self.written
    }

    /// No count is larger than any run's can be, so that thousands of them can be added up.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        const MOST: u64 = 1_000_000_000_000_000;
        let Ledger {
            scheduled,
            sent,
            unsent,
            ok,
            errors,
            timeouts,
            in_flight,
        } = self.ledger;
        let counts = [scheduled, sent, unsent, ok, errors, timeouts, in_flight];
        let keys = [self.hits, self.misses, self.written, self.commands];
        let reasons = self.causes.values().chain(self.unsent.values());
        let all = counts.iter().chain(&keys).chain(reasons);
        let histograms = [
            &self.latency_us,
            &self.lag_us,
            &self.wait_us,
            &self.service_us,
            &self.overrun_us,
        ];
        all.copied().all(|count| count <= MOST)
            && histograms.iter().all(|histogram| histogram.len() <= MOST)
            && self.written <= self.hits
    }

    /// The ledger balances, and every arrival has its latency.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.ledger.balances() && self.latency_us.len() == self.ledger.scheduled
    }
}

fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, USUAL_MAX_US, SIGNIFICANT_DIGITS)
        .expect("the bounds are constant");
    histogram.auto(true);
    histogram
}

fn record(histogram: &mut Histogram<u64>, from_ns: u64, to_ns: u64) {
    histogram
        .record(to_ns.saturating_sub(from_ns) / 1_000)
        .expect("growing histograms take any value");
}

/// A histogram as text: `HdrHistogram`'s V2 form in base64. Not deflated, so that what is read says how much memory
/// it will take.
mod packed {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer as From, Serializer as Into};

    use super::histogram;

    /// Bytes before the counts: cookie, length of the counts, and what the histogram is made for.
    const HEADER_BYTES: usize = 40;
    /// The cookie, with the word size that Java's implementation knows.
    const V2_COOKIE: u32 = 0x1c84_9303 | 0x10;

    /// The length in the header is what the reader makes room for, unseen.
    fn is_whole(bytes: &[u8]) -> bool {
        let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        word(0) == Some(V2_COOKIE)
            && word(4).is_some_and(|length| length as usize + HEADER_BYTES == bytes.len())
    }

    pub(super) fn serialize<S: Into>(value: &Histogram<u64>, into: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2Serializer::new()
            .serialize(value, &mut bytes)
            .expect("writing to memory cannot fail");
        into.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'a, D: From<'a>>(from: D) -> Result<Histogram<u64>, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        if !is_whole(&bytes) {
            return Err(D::Error::custom(
                "a histogram is not of the V2 form, or not whole",
            ));
        }
        let found: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| D::Error::custom(format!("a histogram is broken: {error:?}")))?;
        // Into one of ours, whose precision and growth are known.
        let mut value = histogram();
        value
            .add(found)
            .map_err(|error| D::Error::custom(format!("a histogram does not fit: {error:?}")))?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;
    const GOOD: Outcome = Outcome::Ok(Work {
        hits: 1,
        misses: 0,
        written: 0,
        commands: 1,
    });
    /// End of the measured part in these tests.
    const END: u64 = 11 * MS;

    fn arrival(due_ns: u64) -> Arrival {
        Arrival {
            number: 0,
            due_ns,
            taken_ns: due_ns + MS,
        }
    }

    fn one_of_each() -> Tally {
        let mut tally = Tally::new(END);
        let outcomes = [
            Outcome::Ok(Work {
                hits: 14,
                misses: 1,
                written: 0,
                commands: 1,
            }),
            Outcome::Error(Cause::Status(503)),
            Outcome::Timeout,
            Outcome::InFlight,
        ];
        for outcome in outcomes {
            let arrival = arrival(0);
            tally.taken_up(&arrival);
            tally.sent(&arrival, 3 * MS);
            tally.ended(&arrival, 3 * MS, 10 * MS, outcome);
        }
        tally.taken_up(&arrival(0));
        tally.unsent(&arrival(0), 20 * MS, Unsent::NoConnection);
        tally.ledger.scheduled = 5;
        tally
    }

    #[test]
    fn every_arrival_has_a_latency_and_the_books_balance() {
        let tally = one_of_each();
        assert!(tally.balances());
        assert_eq!(tally.ledger.failed(), 4);
        assert_eq!(tally.latency_us.len(), 5);
        assert_eq!(tally.service_us.len(), 2);
        assert_eq!((tally.hits, tally.misses), (14, 1));
        assert_eq!(tally.causes[&Cause::Status(503)], 1);
    }

    #[test]
    fn latency_is_the_sum_of_lag_wait_and_service() {
        let mut tally = Tally::new(END);
        let arrival = arrival(5 * MS);
        tally.taken_up(&arrival);
        tally.sent(&arrival, 8 * MS);
        tally.ended(&arrival, 8 * MS, 12 * MS, GOOD);
        let ms = |histogram: &Histogram<u64>| histogram.max() / 1_000;
        assert_eq!(ms(&tally.lag_us), 1);
        assert_eq!(ms(&tally.wait_us), 2);
        assert_eq!(ms(&tally.service_us), 4);
        assert_eq!(ms(&tally.latency_us), 7);
    }

    #[test]
    fn good_answers_after_the_measured_part_are_known_by_how_late_they_came() {
        let mut tally = Tally::new(END);
        for (end_ns, outcome) in [
            (END, GOOD),
            (END + 3 * MS, GOOD),
            (END + 90 * MS, Outcome::Timeout),
        ] {
            tally.ended(&arrival(0), 0, end_ns, outcome);
        }
        assert_eq!((tally.overrun_us.len(), tally.overrun_us.min()), (2, 0));
        assert_eq!(tally.overrun_us.max() / 1_000, 3);
    }

    #[test]
    fn a_lost_or_doubled_arrival_shows() {
        let mut lost = one_of_each();
        lost.ledger.scheduled += 1;
        assert!(!lost.balances());
        let mut doubled = one_of_each();
        doubled.ended(&arrival(0), 0, MS, Outcome::Timeout);
        assert!(!doubled.balances());
    }

    #[test]
    fn latencies_beyond_any_bound_are_kept() {
        let mut tally = Tally::new(END);
        let day_ns = 86_400 * 1_000 * MS;
        tally.unsent(&arrival(0), day_ns, Unsent::EndOfRun);
        assert!(tally.latency_us.max() >= 86_400_000_000);
    }

    proptest! {
        #[test]
        fn merging_equals_counting_together_and_json_loses_nothing(latencies_us in proptest::collection::vec(0_u64..100_000_000, 1..200), cut in 0_usize..200) {
            let cut = cut.min(latencies_us.len());
            let count = |values: &[u64]| {
                let mut tally = Tally::new(END);
                for &us in values {
                    let arrival = arrival(0);
                    tally.taken_up(&arrival);
                    tally.sent(&arrival, MS);
                    tally.ended(&arrival, MS, us * 1_000, GOOD);
                    tally.ledger.scheduled += 1;
                }
                tally
            };
            let mut merged = count(&latencies_us[..cut]);
            merged.add(&count(&latencies_us[cut..]));
            let together = count(&latencies_us);
            prop_assert!(merged.balances());
            prop_assert_eq!(merged.ledger, together.ledger);
            prop_assert!(merged.latency_us == together.latency_us);
            prop_assert!(merged.service_us == together.service_us);
            let json = serde_json::to_string(&merged).expect("JSON");
            let again: Tally = serde_json::from_str(&json).expect("a tally");
            prop_assert!(again == together, "{}", json);
        }
    }
}
