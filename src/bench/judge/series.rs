//! A run second by second.
//!
//! Enters: what each second brought. Leaves: [`Series`]. Must not keep a histogram a second: ten minutes of them
//! would be 100 MB, so each is packed at once.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};

use super::histogram::{add, value_at};
use super::interval::Interval;
use crate::bench::plan::schedule::Schedule;
use crate::objectives::Quantile;

const SECOND_NS: u64 = 1_000_000_000;

/// Which part of a run a second belongs to, by its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Before the results count.
    #[default]
    Warmup,
    /// They count.
    Measured,
    /// The schedule is over, and the last answers are waited for.
    Drain,
}

/// One second of a run. What ended in it is counted in it, whenever it was due.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Point {
    /// Since the start of the run, at its end.
    pub second: u64,
    /// Where in the run it is.
    pub part: Part,
    /// What the schedule asks for, in its middle.
    pub target_rps: f64,
    /// Requests written in it.
    pub sent: u64,
    /// Good answers that came in it.
    pub ok: u64,
    /// Arrivals that failed in it.
    pub failed: u64,
    /// Requests being answered at its end.
    pub in_flight: usize,
    /// Arrivals waiting for a connection at its end.
    pub waiting: usize,
    /// Latency, median.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// 99.9th percentile.
    pub p999_us: u64,
    /// Largest.
    pub max_us: u64,
    /// The generator's own lag, 99th percentile.
    pub lag_p99_us: u64,
}

/// All seconds of a run.
#[derive(Default)]
pub struct Series {
    /// In order, none left out.
    pub points: Vec<Point>,
    /// Latency of the measured arrivals that ended in each second, as `HdrHistogram` packs it (V2, deflated).
    pub packed: Vec<Vec<u8>>,
    /// The same of all of them, not packed.
    pub latency_us: Option<Histogram<u64>>,
}

impl Series {
    /// Takes in the next second.
    pub fn push(&mut self, second: &Interval, schedule: &Schedule) {
        let start_ns = second.second * SECOND_NS;
        let measured = second.tallies.measured();
        let mut both = second.tallies.warmup();
        both.add(&measured);
        let latency_us = both.latency_us();
        let at = |ten_thousand| value_at(&latency_us, Quantile::of_ten_thousand(ten_thousand));
        self.points.push(Point {
            second: second.second + 1,
            part: if start_ns >= schedule.measured_until_ns() {
                Part::Drain
            } else if start_ns >= schedule.measured_from_ns() {
                Part::Measured
            } else {
                Part::Warmup
            },
            target_rps: schedule.rate_at(start_ns + SECOND_NS / 2),
            sent: both.ledger.sent,
            ok: both.ledger.ok,
            failed: both.ledger.failed(),
            in_flight: second.in_flight,
            waiting: second.waiting,
            p50_us: at(5_000),
            p99_us: at(9_900),
            p999_us: at(9_990),
            max_us: latency_us.max(),
            lag_p99_us: value_at(&both.lag_us, Quantile::of_ten_thousand(9_900)),
        });
        self.pack(&measured.latency_us());
    }

    fn pack(&mut self, latency_us: &Histogram<u64>) {
        let mut packed = Vec::new();
        V2DeflateSerializer::new()
            .serialize(latency_us, &mut packed)
            .expect("writing to memory cannot fail");
        self.packed.push(packed);
        match &mut self.latency_us {
            Some(all) => add(all, latency_us),
            None => self.latency_us = Some(latency_us.clone()),
        }
    }
}
