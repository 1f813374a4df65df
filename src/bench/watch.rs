//! The run as it goes on: progress, the series of seconds, the live page.
//!
//! Enters: what each second brought. Leaves: a line or a bar, [`Series`], a page. Must not keep a histogram a
//! second: ten minutes of them would be 100 MB, so each is packed at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};

use super::live::Live;
use super::report::html;
use super::results::{Background, Reached};
use super::run::Watcher;
use super::schedule::Schedule;
use super::tally::Tally;
use super::target::Interval;
use crate::process::cpu_time;
use crate::progress::Progress;
use crate::units::{grouped, human_us};

/// Off a terminal each second is a line; half of it, so that no tick is dropped for coming early.
const PLAIN_PROGRESS: Duration = Duration::from_millis(500);

/// One second of a run, warm-up included.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(super) struct Point {
    /// Since the start of the run, at its end.
    pub(super) second: u64,
    pub(super) target_rps: f64,
    /// Good answers that came in it.
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) in_flight: usize,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) p999_us: u64,
    pub(super) max_us: u64,
    pub(super) lag_p99_us: u64,
}

/// All seconds of a run.
#[derive(Default)]
pub(super) struct Series {
    pub(super) points: Vec<Point>,
    /// Latency of the measured arrivals of each second, as `HdrHistogram` packs it (V2, deflated).
    pub(super) packed: Vec<Vec<u8>>,
    /// The same of all of them, not packed.
    pub(super) latency_us: Option<Histogram<u64>>,
}

impl Series {
    fn pack(&mut self, latency_us: &Histogram<u64>) {
        let mut packed = Vec::new();
        V2DeflateSerializer::new()
            .serialize(latency_us, &mut packed)
            .expect("writing to memory cannot fail");
        self.packed.push(packed);
        match &mut self.latency_us {
            Some(all) => all
                .add(latency_us)
                .expect("growing histograms take any value"),
            None => self.latency_us = Some(latency_us.clone()),
        }
    }
}

/// Watches one run.
pub(super) struct Watch {
    progress: Progress,
    schedule: Arc<Schedule>,
    background: Background,
    series: Series,
    live: Option<Live>,
    done: u64,
    cpu: Duration,
    started: SystemTime,
}

impl Watch {
    pub(super) async fn new(
        schedule: &Arc<Schedule>,
        background: &Background,
        live: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let live = match live {
            Some(address) => Some(Live::start(address).await?),
            None => None,
        };
        let expected = schedule.expected().round() as u64;
        Ok(Self {
            progress: Progress::new(expected, "requests", PLAIN_PROGRESS),
            schedule: schedule.clone(),
            background: background.clone(),
            series: Series::default(),
            live,
            done: 0,
            cpu: cpu_time(),
            started: SystemTime::now(),
        })
    }

    /// The series of a run that is over.
    pub(super) async fn finish(self) -> Series {
        self.progress.finish();
        if let Some(live) = self.live {
            live.stop().await;
        }
        self.series
    }
}

impl Watcher for Watch {
    fn begins(&mut self) {
        self.progress.restart();
        (self.cpu, self.started) = (cpu_time(), SystemTime::now());
    }

    fn second(&mut self, second: &Interval, all: &Interval) {
        let mut both = second.warmup.clone();
        both.add(&second.measured);
        self.done += both.latency_us.len();
        let cpu = cpu_time();
        let cores = cpu.saturating_sub(self.cpu).as_secs_f64();
        self.cpu = cpu;
        self.progress
            .update(self.done, || words(&both, second.unfinished, cores));
        let number = self.series.points.len() as u64 + 1;
        let end_ns = number * 1_000_000_000;
        let at = |quantile| both.latency_us.value_at_quantile(quantile);
        self.series.points.push(Point {
            second: number,
            target_rps: self.schedule.rate_at(end_ns - 500_000_000),
            ok: both.ledger.ok,
            failed: both.ledger.failed(),
            in_flight: second.unfinished,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: both.latency_us.max(),
            lag_p99_us: both.lag_us.value_at_quantile(0.99),
        });
        self.series.pack(&second.measured.latency_us);
        if let Some(live) = &self.live {
            let end = Reached {
                end_ns,
                busy_share: 0.0,
                interrupted: false,
                started: self.started,
            };
            let mut results = self.background.results(&self.schedule, all, end);
            // What was scheduled is counted at the end; until then, what has begun stands for it.
            let ledger = &mut results.requests.ledger;
            ledger.scheduled = ledger.sent + ledger.unsent;
            results.rate.target_rps = self.schedule.rate_at(end_ns);
            let heading = format!("Running, second {number}");
            live.show(html::page(&heading, &results, &self.series, None, true));
        }
    }
}

fn words(second: &Tally, unfinished: usize, cores: f64) -> String {
    let at = |quantile| human_us(second.latency_us.value_at_quantile(quantile));
    format!(
        "{} ok/s  p50 {}  p99 {}  p99.9 {}  lag p99 {}  in flight {}  failed {}  CPU {:.2}",
        grouped(second.ledger.ok),
        at(0.5),
        at(0.99),
        at(0.999),
        human_us(second.lag_us.value_at_quantile(0.99)),
        grouped(unfinished as u64),
        grouped(second.ledger.failed()),
        cores,
    )
}
