//! One generator thread: takes arrivals up when they are due, sends them, reads the answers. The only I/O
//! of the load, over HTTP or to the store itself.
//!
//! Enters: a [`Share`] of the schedule. Leaves: an [`Interval`] each second, and the rest at the end. Must
//! not let the target hold the schedule back: what finds no free connection waits with its own due moment.

mod wire;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::iter::Peekable;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::time::{ClockId, clock_gettime};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::http::Response;
use super::pacer::Pacer;
use super::queue::{Arrival, Offer, Queue};
use super::run::START_AFTER;
use super::schedule::{Phase, Schedule, Thread};
use super::tally::{Cause, Outcome, Tally, Unsent};
use super::workload::Workload;
use crate::config::StoreConfig;
use crate::store::Store;
use wire::{Connected, ask_store, connect_all, hold_connection, outcome, shut_down};

/// Arrivals taken up in a row before the answers get their turn: about 0.3 ms of work.
const ARRIVALS_PER_TURN: u32 = 32;
const INTERVAL_NS: u64 = 1_000_000_000;
/// How often, at least, the stop signal is looked at.
const HOUSEKEEPING_NS: u64 = 10_000_000;
/// Timeouts are looked for so many times within one, which makes them right to a percent.
const CHECKS_PER_TIMEOUT: u64 = 100;

/// One thread's part of the run.
pub(super) struct Share {
    pub(super) schedule: Arc<Schedule>,
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
pub(super) enum Way {
    /// A server over HTTP; a connection carries one request at a time.
    Http(SocketAddr),
    /// The store; as many operations at a time as there would be connections.
    Store(Store, Box<StoreConfig>),
}

/// What happened since the interval before.
pub(super) struct Interval {
    pub(super) warmup: Tally,
    pub(super) measured: Tally,
    /// Arrivals waiting or being answered at its end.
    pub(super) unfinished: usize,
    /// Connections that could not be made, by the system's reason.
    pub(super) failed_connects: BTreeMap<String, u64>,
}

/// What a thread leaves at its end.
pub(super) struct Rest {
    /// What no interval has reported.
    pub(super) interval: Interval,
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
    /// Intervals; bounded, and what finds no room goes with the next.
    pub(super) intervals: mpsc::Sender<Interval>,
    pub(super) stop: CancellationToken,
}

/// Runs one share to its end.
pub(super) fn run(mut share: Share, lines: Lines) -> anyhow::Result<Rest> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
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
        tokio::time::sleep(before(start).saturating_sub(START_AFTER)).await;
        let (busy, began) = (busy_time(), Instant::now());
        let end_ns = worker.drive(&lines.intervals, &lines.stop).await?;
        let busy = busy_time().saturating_sub(busy);
        let busy_share = busy.as_secs_f64() / began.elapsed().as_secs_f64();
        let drains = Instant::now();
        worker.finish(&lines.stop).await?;
        worker.close_books(end_ns);
        Ok(Rest {
            interval: worker.take_interval(),
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
            interval: Interval::new(0),
            end_ns: 0,
            drain: Duration::ZERO,
            busy_share: 0.0,
        }
    }
}

fn before(start: Instant) -> Duration {
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

struct Worker {
    share: Share,
    start: Instant,
    state: RefCell<State>,
}

struct State {
    queue: Queue,
    slots: Vec<Slot>,
    request: BytesMut,
    interval: Interval,
    /// When timeouts are looked for next.
    check_ns: u64,
    /// The arrivals of the share that are still to come.
    coming: Peekable<Thread>,
}

#[derive(Default)]
struct Slot {
    writer: Option<OwnedWriteHalf>,
    /// The arrival that it carries, and when that was sent.
    carries: Option<(Arrival, u64)>,
}

impl Interval {
    /// An empty one, of a run whose measured part ends at `window_end_ns`.
    pub(super) fn new(window_end_ns: u64) -> Self {
        Self {
            warmup: Tally::new(window_end_ns),
            measured: Tally::new(window_end_ns),
            unfinished: 0,
            failed_connects: BTreeMap::new(),
        }
    }

    /// An empty one, of the same run.
    pub(super) fn empty(&self) -> Self {
        Self::new(self.measured.window_end_ns())
    }

    /// Adds another one, losing nothing.
    pub(super) fn add(&mut self, other: &Self) {
        self.warmup.add(&other.warmup);
        self.measured.add(&other.measured);
        self.unfinished += other.unfinished;
        for (reason, count) in &other.failed_connects {
            *self.failed_connects.entry(reason.clone()).or_default() += count;
        }
    }

    fn tally(&mut self, phase: Phase) -> &mut Tally {
        match phase {
            Phase::Warmup => &mut self.warmup,
            Phase::Measured => &mut self.measured,
        }
    }
}

impl Worker {
    fn new(share: Share, start: Instant) -> Self {
        let state = State {
            queue: Queue::new(share.max_in_flight),
            slots: (0..share.connections).map(|_| Slot::default()).collect(),
            request: BytesMut::new(),
            interval: Interval::new(share.schedule.measured_until_ns()),
            check_ns: 0,
            coming: share
                .schedule
                .thread((share.number, share.threads))
                .peekable(),
        };
        Self {
            share,
            start,
            state: RefCell::new(state),
        }
    }

    /// Nanoseconds since the start; 0 before it.
    fn now_ns(&self) -> u64 {
        Instant::now()
            .saturating_duration_since(self.start)
            .as_nanos() as u64
    }

    /// Takes up every arrival at its moment. Returns the end of the schedule as far as it was followed.
    async fn drive(
        self: &Rc<Self>,
        intervals: &mpsc::Sender<Interval>,
        stop: &CancellationToken,
    ) -> io::Result<u64> {
        let pacer = Pacer::new()?;
        let mut report_ns = INTERVAL_NS;
        // A start that is still to come is waited for like any arrival.
        pacer.sleep(before(self.start)).await?;
        while !stop.is_cancelled() {
            let Some(due_ns) = self.take_up_due() else {
                // All of it was followed, to the end of its last gap.
                return Ok(self
                    .share
                    .schedule
                    .measured_until_ns()
                    .max(self.now_ns() + 1));
            };
            let now_ns = self.now_ns();
            self.give_up_overdue(now_ns);
            if now_ns >= report_ns {
                self.report(intervals);
                report_ns = now_ns - now_ns % INTERVAL_NS + INTERVAL_NS;
            }
            let wake_ns = due_ns.min(report_ns).min(now_ns + HOUSEKEEPING_NS);
            match wake_ns.saturating_sub(self.now_ns()) {
                // The next is due already: let the answers have their turn, and go on.
                0 => tokio::task::yield_now().await,
                wait_ns => {
                    let wait = Duration::from_nanos(wait_ns).max(self.share.tick);
                    pacer.sleep(wait).await?;
                }
            }
        }
        // Exclusive: what was due at this very nanosecond has been taken up.
        Ok(self.now_ns() + 1)
    }

    /// Waits for the last answers, as long as `--drain` allows.
    async fn finish(&self, stop: &CancellationToken) -> io::Result<()> {
        let pacer = Pacer::new()?;
        let drain_end_ns = self.now_ns() + self.share.drain.as_nanos() as u64;
        while self.state.borrow().queue.unfinished() > 0
            && self.now_ns() < drain_end_ns
            && !stop.is_cancelled()
        {
            self.give_up_overdue(self.now_ns());
            pacer.sleep(Duration::from_millis(1)).await?;
        }
        Ok(())
    }

    /// Takes up what is due, at most one turn of it. When the next arrival is due; `None`: there is none.
    fn take_up_due(self: &Rc<Self>) -> Option<u64> {
        let mut state = self.state.borrow_mut();
        for _ in 0..ARRIVALS_PER_TURN {
            let taken_ns = self.now_ns();
            let Some(due) = state.coming.next_if(|due| due.at_ns <= taken_ns) else {
                break;
            };
            let arrival = Arrival {
                number: due.number,
                due_ns: due.at_ns,
                taken_ns,
            };
            let phase = self.phase(&arrival);
            state.interval.tally(phase).taken_up(&arrival);
            match state.queue.offer(arrival) {
                Offer::Send(slot) => self.send(&mut state, slot, arrival),
                Offer::Waits => {}
                // It would have waited in vain: less than that would flatter the target.
                Offer::Refused => state.interval.tally(phase).unsent(
                    &arrival,
                    arrival.due_ns + self.timeout_ns(),
                    Unsent::MaxInFlight,
                ),
            }
        }
        state.coming.peek().map(|due| due.at_ns)
    }

    fn phase(&self, arrival: &Arrival) -> Phase {
        self.share.schedule.phase(arrival.due_ns)
    }

    fn timeout_ns(&self) -> u64 {
        self.share.timeout.as_nanos() as u64
    }

    fn send(self: &Rc<Self>, state: &mut State, slot: usize, arrival: Arrival) {
        if let Way::Store(store, _) = &self.share.way {
            let asked = ask_store(self.clone(), store.clone(), slot, arrival);
            tokio::task::spawn_local(asked);
        }
        let State {
            slots,
            request,
            interval,
            ..
        } = state;
        let slot_state = &mut slots[slot];
        if slot_state.writer.is_some() {
            self.share.workload.write_request(arrival.number, request);
        }
        let sent_ns = self.now_ns();
        interval.tally(self.phase(&arrival)).sent(&arrival, sent_ns);
        slot_state.carries = Some((arrival, sent_ns));
        // A request is smaller than an idle connection's buffer: what does not go out whole goes out on a
        // broken connection, and its reader will find that out.
        if let Some(writer) = &slot_state.writer
            && !matches!(writer.try_write(request), Ok(written) if written == request.len())
        {
            shut_down(writer);
        }
    }

    /// Ends what has waited too long: sent arrivals with their connection, the others unsent.
    fn give_up_overdue(&self, now_ns: u64) {
        let timeout_ns = self.timeout_ns();
        let mut state = self.state.borrow_mut();
        let State {
            queue,
            slots,
            interval,
            check_ns,
            ..
        } = &mut *state;
        if now_ns < *check_ns {
            return;
        }
        *check_ns = now_ns + timeout_ns / CHECKS_PER_TIMEOUT;
        for (slot, slot_state) in slots.iter_mut().enumerate() {
            let overdue = |(_, sent_ns): &mut (Arrival, u64)| *sent_ns + timeout_ns <= now_ns;
            let Some((arrival, sent_ns)) = slot_state.carries.take_if(overdue) else {
                continue;
            };
            let tally = interval.tally(self.phase(&arrival));
            tally.ended(&arrival, sent_ns, now_ns, Outcome::Timeout);
            // Its late answer must not be taken for the next one's.
            if let Some(writer) = slot_state.writer.take() {
                shut_down(&writer);
            }
            queue.lost(slot, true);
        }
        while let Some(arrival) = queue.expired(now_ns.saturating_sub(timeout_ns)) {
            let tally = interval.tally(self.phase(&arrival));
            tally.unsent(&arrival, now_ns, Unsent::NoConnection);
        }
    }

    fn report(&self, intervals: &mpsc::Sender<Interval>) {
        if let Ok(place) = intervals.try_reserve() {
            let mut interval = self.take_interval();
            interval.unfinished = self.state.borrow().queue.unfinished();
            place.send(interval);
        }
    }

    fn take_interval(&self) -> Interval {
        let interval = &mut self.state.borrow_mut().interval;
        let empty = interval.empty();
        std::mem::replace(interval, empty)
    }

    /// Accounts for what is left: every arrival that was due by `stopped_ns` ends in the books.
    fn close_books(&self, stopped_ns: u64) {
        let end_ns = self.now_ns();
        let mut state = self.state.borrow_mut();
        let State {
            queue,
            slots,
            interval,
            coming,
            ..
        } = &mut *state;
        for (arrival, sent_ns) in slots.iter_mut().filter_map(|slot| slot.carries.take()) {
            let tally = interval.tally(self.phase(&arrival));
            tally.ended(&arrival, sent_ns, end_ns, Outcome::InFlight);
        }
        while let Some(arrival) = queue.expired(u64::MAX) {
            let tally = interval.tally(self.phase(&arrival));
            tally.unsent(&arrival, end_ns, Unsent::EndOfRun);
        }
        // After a stop by hand, what was due and not yet taken up.
        while let Some(due) = coming.next_if(|due| due.at_ns < stopped_ns) {
            let arrival = Arrival {
                number: due.number,
                due_ns: due.at_ns,
                taken_ns: stopped_ns,
            };
            let tally = interval.tally(self.phase(&arrival));
            tally.taken_up(&arrival);
            tally.unsent(&arrival, end_ns, Unsent::EndOfRun);
        }
    }

    /// Puts the connections to work, or as many places for operations of the store.
    fn begin(self: &Rc<Self>, connected: Connected) {
        match connected {
            Connected::Http(streams) => {
                for (slot, stream) in streams.into_iter().enumerate() {
                    tokio::task::spawn_local(hold_connection(self.clone(), slot, stream));
                }
            }
            Connected::Store => {
                let mut state = self.state.borrow_mut();
                for slot in 0..self.share.connections {
                    state.queue.joined(slot);
                }
            }
        }
    }

    /// A connection stands: it takes what waits, or stands by.
    fn joined(self: &Rc<Self>, slot: usize, writer: Option<OwnedWriteHalf>) {
        let mut state = self.state.borrow_mut();
        state.slots[slot].writer = writer;
        if let Some(arrival) = state.queue.joined(slot) {
            self.send(&mut state, slot, arrival);
        }
    }

    /// An answer is whole. `false` when nobody had asked for it.
    fn answered(self: &Rc<Self>, slot: usize, response: &Response, buffer: &[u8]) -> bool {
        let now_ns = self.now_ns();
        let mut state = self.state.borrow_mut();
        let Some((arrival, sent_ns)) = state.slots[slot].carries.take() else {
            return false;
        };
        let workload = &self.share.workload;
        let answer = workload.judge(arrival.number, response.status, response.body(buffer));
        let tally = state.interval.tally(self.phase(&arrival));
        tally.ended(&arrival, sent_ns, now_ns, outcome(answer));
        if !response.keep_alive {
            state.queue.lost(slot, true);
            state.slots[slot].writer = None;
        } else if let Some(arrival) = state.queue.freed(slot) {
            self.send(&mut state, slot, arrival);
        }
        true
    }

    /// The store is done with an arrival, however it went.
    fn settled(self: &Rc<Self>, slot: usize, arrival: Arrival, outcome: Outcome) {
        let now_ns = self.now_ns();
        let mut state = self.state.borrow_mut();
        let carries = &mut state.slots[slot].carries;
        let Some((_, sent_ns)) = carries.take_if(|(carried, _)| *carried == arrival) else {
            // It was given up, and its place with it, which is free again only now.
            drop(state);
            self.joined(slot, None);
            return;
        };
        let tally = state.interval.tally(self.phase(&arrival));
        tally.ended(&arrival, sent_ns, now_ns, outcome);
        if let Some(arrival) = state.queue.freed(slot) {
            self.send(&mut state, slot, arrival);
        }
    }

    fn failed_to_connect(&self, error: &io::Error) {
        let mut state = self.state.borrow_mut();
        let reason = error.kind().to_string();
        *state.interval.failed_connects.entry(reason).or_default() += 1;
    }

    /// A connection is gone, for this reason.
    fn lost(&self, slot: usize, cause: Cause) {
        let now_ns = self.now_ns();
        let mut state = self.state.borrow_mut();
        // Given up before: the books and the queue know already.
        let Some(_) = state.slots[slot].writer.take() else {
            return;
        };
        let carried = state.slots[slot].carries.take();
        state.queue.lost(slot, carried.is_some());
        if let Some((arrival, sent_ns)) = carried {
            let tally = state.interval.tally(self.phase(&arrival));
            tally.ended(&arrival, sent_ns, now_ns, Outcome::Error(cause));
        }
    }
}
