//! One generator thread: its share of the run, from the first connection to the last answer.
//!
//! Enters: a [`Share`] of the schedule. Leaves: an [`Interval`] each second, and the rest at the end. Must not begin before
//! all threads stand ready.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::START_AFTER;
use super::addresses::Addresses;
use super::books::Closed;
use super::connection::connect_all;
use super::pacer::pause;
use super::worker::Worker;
use crate::bench::judge::flow::Outline;
use crate::bench::judge::interval::Interval;
use crate::bench::plan::schedule::Schedule;
use crate::bench::plan::workload::Workload;
use crate::config::StoreConfig;
use crate::store::Store;

/// One thread's part of the run.
pub(super) struct Share {
    pub(super) schedule: Arc<Schedule>,
    pub(super) outline: Outline,
    pub(super) workload: Workload,
    /// This thread takes the arrivals `number`, `number + threads`, …
    pub(super) number: u64,
    pub(super) threads: u64,
    pub(super) way: Way,
    pub(super) connections: usize,
    pub(super) max_in_flight: usize,
    /// Shortest sleep between arrivals.
    pub(super) tick: Duration,
    pub(super) timeout: Duration,
    pub(super) drain: Duration,
}

/// Where a share is sent.
#[derive(Clone)]
pub(in crate::bench) enum Way {
    /// A server over HTTP; a connection carries one request at a time.
    Http(Arc<Addresses>),
    /// The store; as many operations at a time as there would be connections.
    Store(Store, Box<StoreConfig>),
}

/// What a thread leaves at its end.
pub(super) struct Rest {
    /// What was not reported yet, and what is reported at the end; nothing of a run that did not begin.
    pub(super) books: Option<Closed>,
    /// Every arrival of the share that was due before this moment is in the books.
    pub(super) end_ns: u64,
    /// How long the last answers took after the schedule.
    pub(super) drain: Duration,
    /// Share of the schedule's time in which the thread ran, or was ready to run and had no core.
    pub(super) busy_share: f64,
}

/// How a thread tells the others where it is.
pub(super) struct Lines {
    /// All connections stand.
    pub(super) ready: oneshot::Sender<()>,
    /// The common start.
    pub(super) start: oneshot::Receiver<Instant>,
    /// Seconds, with the number of the thread; bounded, and what finds no room waits.
    pub(super) intervals: mpsc::Sender<(u64, Interval)>,
    pub(super) stop: CancellationToken,
    /// Ends the schedule, but not the wait for its last answers.
    pub(super) cut: CancellationToken,
}

/// Runs one share to its end.
pub(super) fn run(mut share: Share, lines: Lines) -> anyhow::Result<Rest> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_io();
    // The store's client needs timers. A load over HTTP has its own: the runtime would look for those that are due at each
    // of its turns.
    if matches!(share.way, Way::Store(..)) {
        runtime.enable_time();
    }
    let runtime = runtime.build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async {
        if let Way::Store(store, config) = &mut share.way {
            *store = store.for_this_runtime(config).await?;
        }
        let Some(connected) = connect_all(&share, &lines.stop).await? else {
            return Ok(Rest::nothing());
        };
        let _ = lines.ready.send(());
        // Another thread failed to connect: there will be no run.
        let Ok(start) = lines.start.await else {
            return Ok(Rest::nothing());
        };
        let worker = Rc::new(Worker::new(share, start));
        worker.begin(connected);
        // Waiting for a start that is seconds away is no time in which the thread was not busy.
        pause(before(start).saturating_sub(START_AFTER)).await;
        let (busy, began) = (busy_time(), Instant::now());
        let mut end_ns = worker.drive(&lines.intervals, &lines.cut).await?;
        if !lines.stop.is_cancelled() {
            end_ns = worker.taken_up_until(end_ns);
        }
        let busy = busy_time().saturating_sub(busy);
        let busy_share = busy.as_secs_f64() / began.elapsed().as_secs_f64();
        let drains = Instant::now();
        worker.finish(&lines.intervals, &lines.stop).await?;
        Ok(Rest {
            books: Some(worker.close_books(end_ns)),
            end_ns,
            drain: drains.elapsed(),
            busy_share,
        })
    })
}

impl Rest {
    /// Of a run that did not begin.
    fn nothing() -> Self {
        Self {
            books: None,
            end_ns: 0,
            drain: Duration::ZERO,
            busy_share: 0.0,
        }
    }
}

/// How long it is to a moment.
pub(super) fn before(start: Instant) -> Duration {
    start.saturating_duration_since(Instant::now())
}

/// CPU time of this thread, and the time that it was ready to run and waited for a core.
fn busy_time() -> Duration {
    // Its first two numbers are nanoseconds of each (proc(5), Documentation/scheduler/sched-stats).
    let scheduled = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let busy = scheduled.and_then(|text| {
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        Some(numbers.next()?.ok()? + numbers.next()?.ok()?)
    });
    busy.map_or_else(
        || {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
        },
        Duration::from_nanos,
    )
}
