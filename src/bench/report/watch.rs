//! The run as it goes on: progress, the series of seconds, the live page.
//!
//! Enters: what each second brought. Leaves: a line or a bar, [`Series`], a page. Must not hold the run up.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::html;
use super::live::Live;
use crate::bench::drive::Watcher;
use crate::bench::judge::interval::Interval;
use crate::bench::judge::results::Results;
use crate::bench::judge::series::{Point, Series};
use crate::bench::plan::schedule::Schedule;
use crate::config::Outputs;
use crate::process::cpu_time;
use crate::progress::Progress;
use crate::units::{grouped, human_us};

/// Off a terminal each second is a line; half of it, so that no tick is dropped for coming early.
const PLAIN_PROGRESS: Duration = Duration::from_millis(500);

/// Gives the results of a run that goes on: when it began, and all so far.
pub(in crate::bench) type SoFar = Box<dyn Fn(SystemTime, &Interval) -> Results>;

/// Watches one run.
pub(in crate::bench) struct Watch {
    progress: Progress,
    schedule: Arc<Schedule>,
    so_far: SoFar,
    series: Series,
    live: Option<Live>,
    done: u64,
    cpu: Duration,
    started: SystemTime,
}

impl Watch {
    pub(in crate::bench) async fn new(
        schedule: &Arc<Schedule>,
        so_far: SoFar,
        outputs: &Outputs,
    ) -> anyhow::Result<Self> {
        let live = match outputs.live {
            Some(address) => Some(Live::start(address).await?),
            None => None,
        };
        let expected = schedule.expected().round() as u64;
        Ok(Self {
            progress: if outputs.quiet {
                Progress::silent()
            } else {
                Progress::new(expected, "requests", PLAIN_PROGRESS)
            },
            schedule: schedule.clone(),
            so_far,
            series: Series::default(),
            live,
            done: 0,
            cpu: cpu_time(),
            started: SystemTime::now(),
        })
    }

    /// The series of a run that is over.
    pub(in crate::bench) async fn finish(self) -> Series {
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
        self.series.push(second, &self.schedule);
        let Some(point) = self.series.points.last() else {
            return;
        };
        self.done += point.ok + point.failed;
        let cpu = cpu_time();
        let cores = cpu.saturating_sub(self.cpu).as_secs_f64();
        self.cpu = cpu;
        self.progress.update(self.done, || words(point, cores));
        if let Some(live) = &self.live {
            let mut results = (self.so_far)(self.started, all);
            results.rate.target_rps = point.target_rps;
            let heading = format!("Running, second {}", point.second);
            live.show(html::page(&heading, &results, &self.series, None, true));
        }
    }
}

fn words(point: &Point, cores: f64) -> String {
    format!(
        "{} ok/s  {} failed  p50 {}  p99 {}  p99.9 {}  lag p99 {}  in flight {}  CPU {:.2}",
        grouped(point.ok),
        grouped(point.failed),
        human_us(point.p50_us),
        human_us(point.p99_us),
        human_us(point.p999_us),
        human_us(point.lag_p99_us),
        grouped((point.in_flight + point.waiting) as u64),
        cores,
    )
}
