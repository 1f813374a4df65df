//! One run of a load: starts the threads together, adds up what they report, closes the books.
//!
//! Enters: a `Load` and a stop signal. Leaves: `Totals`. Must not touch the load while it runs: the
//! threads own it.

pub(super) mod addresses;
mod books;
mod connection;
mod deadlines;
pub mod http;
mod inbox;
mod line;
mod pacer;
pub(super) mod probe;
pub mod queue;
mod seconds;
mod slot;
mod socket;
mod thread;
pub(super) mod tls;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::judge::clock::{self, StartByTarget};
use super::judge::flow::{Flow, Outline};
use super::judge::interval::{Interval, Tallies};
use super::plan::schedule::Schedule;
use super::plan::workload::Workload;
use crate::config::BenchConfig;
use crate::machine::{CpuTicks, CpuUse};
use crate::process::cpu_time;
use crate::units::human_duration;
use seconds::Seconds;
pub(in crate::bench) use thread::Way;
use thread::{Lines, Rest, Share};

/// Between the last connection and the first arrival, so that every thread is waiting when it comes.
pub(super) const START_AFTER: Duration = Duration::from_millis(20);
/// Seconds that may wait to be added up, for each thread.
const INTERVALS: usize = 4;

/// What is to be run: fixed before it begins.
#[derive(Clone)]
pub(super) struct Load {
    pub(super) schedule: Arc<Schedule>,
    /// Of the whole schedule, whatever part of it this generator takes.
    pub(super) outline: Outline,
    pub(super) workload: Workload,
    pub(super) way: Way,
    /// When to begin; `None`: as soon as all connections stand.
    pub(super) start_at: Option<SystemTime>,
    /// Ends the schedule where it stands; the last answers are still waited for. A child of the stop signal.
    pub(super) cut: CancellationToken,
}

/// All that the threads counted.
pub(super) struct Totals {
    pub(super) all: Interval,
    pub(super) flow: Flow,
    /// Of the thread that lagged most.
    pub(super) lag_p99_us: u64,
    pub(super) start_by_target: Option<StartByTarget>,
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
        running.push(spawn(
            share(config, load, number),
            &intervals,
            stop,
            &load.cut,
        )?);
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
    let mut seconds = Seconds::new(config.threads);
    while let Some((thread, interval)) = received.recv().await {
        seconds.add(thread, &interval);
        show(&mut seconds, watcher);
    }
    let (mut end_ns, mut busy_share, mut drain) = (0, 0.0_f64, Duration::ZERO);
    let (mut flow, mut lag_p99_us) = (Flow::new(load.outline.clone()), 0);
    let mut start_by_target = None;
    let mut scheduled = Tallies::default();
    for (number, end) in (0..threads).zip(ends) {
        let rest: Rest = end.await.context("a generator thread panicked")??;
        if let Some(closed) = rest.books {
            closed
                .intervals
                .iter()
                .for_each(|one| seconds.add(number, one));
            flow.add(&closed.flow);
            lag_p99_us = lag_p99_us.max(closed.lag_p99_us);
            start_by_target = clock::both(start_by_target, closed.start_by_target);
        }
        seconds.ended(number);
        end_ns = end_ns.max(rest.end_ns);
        busy_share = busy_share.max(rest.busy_share);
        drain = drain.max(rest.drain);
        count_scheduled(load, rest.end_ns, (number, threads), &mut scheduled);
    }
    show(&mut seconds, watcher);
    let mut all = seconds.into_all();
    all.tallies.add(&scheduled);
    Ok(Totals {
        all,
        flow,
        lag_p99_us,
        start_by_target,
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

/// Shows the seconds that are whole.
fn show(seconds: &mut Seconds, watcher: &mut dyn Watcher) {
    while let Some(second) = seconds.next_whole() {
        watcher.second(&second, seconds.all());
    }
}

/// Counts what fell to a thread before `end_ns`: along the schedule and not from events, so that a lost arrival shows.
fn count_scheduled(load: &Load, end_ns: u64, thread: (u64, u64), scheduled: &mut Tallies) {
    for due in load
        .schedule
        .thread(thread)
        .take_while(|due| due.at_ns < end_ns)
    {
        let stage = load.schedule.stage_at(due.at_ns);
        let operation = load.workload.operation(due.number);
        scheduled.at(stage, operation).ledger.scheduled += 1;
    }
}

/// How long it is to the start. Beginning late would be another schedule than the one asked for.
fn wait_until(start_at: Option<SystemTime>) -> anyhow::Result<Duration> {
    let Some(start_at) = start_at else {
        return Ok(START_AFTER);
    };
    start_at.duration_since(SystemTime::now()).map_err(|late| {
        let late = human_duration(late.duration());
        anyhow::anyhow!(
            "--start-at had passed {late} before all connections were open: give a later time"
        )
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
    intervals: &mpsc::Sender<(u64, Interval)>,
    stop: &CancellationToken,
    cut: &CancellationToken,
) -> anyhow::Result<Running> {
    let (ready, is_ready) = oneshot::channel();
    let (start, starts) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let lines = Lines {
        ready,
        start: starts,
        intervals: intervals.clone(),
        stop: stop.clone(),
        cut: cut.clone(),
    };
    std::thread::Builder::new()
        .name(format!("bench-{}", share.number))
        .spawn(move || {
            let _ = end.send(thread::run(share, lines));
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
        outline: load.outline.clone(),
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
