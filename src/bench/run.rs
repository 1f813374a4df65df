//! One run of a load: starts the threads together, adds up what they report, closes the books.
//!
//! Enters: a [`Load`] and a stop signal. Leaves: [`Totals`]. Must not touch the load while it runs: the
//! threads of `target` own it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::conditions::{CpuTicks, CpuUse};
use super::schedule::Schedule;
use super::target::{self, Interval, Lines, Rest, Share, Way};
use super::workload::Workload;
use crate::config::BenchConfig;
use crate::process::cpu_time;

/// Between the last connection and the first arrival, so that every thread is waiting when it comes.
pub(super) const START_AFTER: Duration = Duration::from_millis(20);
/// Intervals that may wait to be added up, for each thread.
const INTERVALS: usize = 4;
const SECOND: Duration = Duration::from_secs(1);
/// The seconds of all threads have come in by then.
const TICK_AFTER: Duration = Duration::from_millis(200);

/// What is to be run: fixed before it begins.
#[derive(Clone)]
pub(super) struct Load {
    pub(super) schedule: Arc<Schedule>,
    pub(super) workload: Workload,
    pub(super) way: Way,
    /// When to begin; `None`: as soon as all connections stand.
    pub(super) start_at: Option<SystemTime>,
}

/// All that the threads counted.
pub(super) struct Totals {
    pub(super) all: Interval,
    /// Where the schedule ended, or was left.
    pub(super) end_ns: u64,
    /// Of the busiest thread.
    pub(super) busy_share: f64,
    pub(super) interrupted: bool,
    /// Of the thread that waited longest for its last answers.
    pub(super) drain: Duration,
    /// CPU time of this process.
    pub(super) cpu: Duration,
    pub(super) elapsed: Duration,
    pub(super) machine: Option<CpuUse>,
    /// When the schedule began.
    pub(super) started: SystemTime,
}

/// Whoever wants to see the run while it goes on.
pub(super) trait Watcher {
    /// The schedule begins.
    fn begins(&mut self) {}
    /// A second has passed: what came in during it, and all so far.
    fn second(&mut self, second: &Interval, all: &Interval);
}

/// Nobody looks.
impl Watcher for () {
    fn second(&mut self, _: &Interval, _: &Interval) {}
}

/// Runs the load to its end.
///
/// # Errors
/// When a thread cannot connect, or the system refuses it a thread or a timer.
pub(super) async fn drive(
    config: &BenchConfig,
    load: &Load,
    stop: &CancellationToken,
    watcher: &mut dyn Watcher,
) -> anyhow::Result<Totals> {
    let threads = config.threads as u64;
    let (intervals, mut received) = mpsc::channel(INTERVALS * config.threads);
    let mut running = Vec::new();
    for number in 0..threads {
        running.push(spawn(share(config, load, number), &intervals, stop)?);
    }
    drop(intervals);
    let mut starts = Vec::new();
    let mut ends = Vec::new();
    for thread in running {
        // A thread that cannot connect drops its line, and its end tells why.
        if thread.ready.await.is_ok() {
            starts.push(thread.start);
        }
        ends.push(thread.end);
    }
    let mut started = SystemTime::now();
    if starts.len() == ends.len() {
        let wait = wait_until(load.start_at)?;
        let start = Instant::now() + wait;
        started = SystemTime::now() + wait;
        for line in starts {
            let _ = line.send(start);
        }
        // The seconds that are shown are those of the schedule.
        tokio::time::sleep(wait.saturating_sub(START_AFTER)).await;
    }
    let (cpu, ticks, began) = (cpu_time(), CpuTicks::now(), Instant::now());
    watcher.begins();
    let schedule = &load.schedule;
    let mut all = Interval::new(schedule.measured_until_ns());
    let mut last = add_up(&mut all, &mut received, watcher).await;
    let (mut end_ns, mut busy_share, mut drain) = (0, 0.0_f64, Duration::ZERO);
    for (number, end) in (0..threads).zip(ends) {
        let Rest {
            interval,
            end_ns: thread_end_ns,
            busy_share: thread_busy,
            drain: thread_drain,
        } = end.await.context("a generator thread panicked")??;
        all.add(&interval);
        last.add(&interval);
        end_ns = end_ns.max(thread_end_ns);
        busy_share = busy_share.max(thread_busy);
        drain = drain.max(thread_drain);
        // From the schedule, not from the events: so a lost arrival shows.
        let [warmup, measured] = schedule.scheduled(thread_end_ns, (number, threads));
        all.warmup.ledger.scheduled += warmup;
        all.measured.ledger.scheduled += measured;
    }
    // The last second of the schedule, and what its last answers took.
    watcher.second(&last, &all);
    Ok(Totals {
        all,
        end_ns,
        busy_share,
        interrupted: stop.is_cancelled(),
        drain,
        cpu: cpu_time().saturating_sub(cpu),
        elapsed: began.elapsed(),
        machine: CpuTicks::now().since(&ticks),
        started,
    })
}

/// How long it is to the start. Beginning late would be another schedule than the one asked for.
fn wait_until(start_at: Option<SystemTime>) -> anyhow::Result<Duration> {
    let Some(start_at) = start_at else {
        return Ok(START_AFTER);
    };
    start_at.duration_since(SystemTime::now()).map_err(|late| {
        let late =
            humantime::format_duration(Duration::from_millis(late.duration().as_millis() as u64));
        anyhow::anyhow!("--start-at was {late} ago when all connections stood: give a later moment")
    })
}

/// The ends of one thread's lines.
struct Running {
    ready: oneshot::Receiver<()>,
    start: oneshot::Sender<Instant>,
    end: oneshot::Receiver<anyhow::Result<Rest>>,
}

fn spawn(
    share: Share,
    intervals: &mpsc::Sender<Interval>,
    stop: &CancellationToken,
) -> anyhow::Result<Running> {
    let (ready, is_ready) = oneshot::channel();
    let (start, starts) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let lines = Lines {
        ready,
        start: starts,
        intervals: intervals.clone(),
        stop: stop.clone(),
    };
    std::thread::Builder::new()
        .name(format!("bench-{}", share.number))
        .spawn(move || {
            let _ = end.send(target::run(share, lines));
        })?;
    Ok(Running {
        ready: is_ready,
        start,
        end: ended,
    })
}

fn share(config: &BenchConfig, load: &Load, number: u64) -> Share {
    let dealt = |total: usize| (total + config.threads - 1 - number as usize) / config.threads;
    Share {
        schedule: load.schedule.clone(),
        workload: load.workload.clone(),
        number,
        threads: config.threads as u64,
        way: load.way.clone(),
        connections: dealt(config.connections),
        max_in_flight: dealt(config.max_in_flight),
        tick: config.tick,
        timeout: config.timeout,
        drain: config.drain,
    }
}

/// Adds up the intervals until every thread has hung up, and shows each second what came in. What it has not
/// shown is left.
async fn add_up(
    all: &mut Interval,
    received: &mut mpsc::Receiver<Interval>,
    watcher: &mut dyn Watcher,
) -> Interval {
    let first = tokio::time::Instant::now() + SECOND + TICK_AFTER;
    let mut ticks = tokio::time::interval_at(first, SECOND);
    let mut second = all.empty();
    loop {
        tokio::select! {
            interval = received.recv() => {
                let Some(interval) = interval else { return second };
                all.add(&interval);
                second.add(&interval);
            }
            _ = ticks.tick() => {
                let empty = second.empty();
                watcher.second(&std::mem::replace(&mut second, empty), all);
            }
        }
    }
}
