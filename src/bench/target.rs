//! One generator thread: takes arrivals up when they are due, sends them, reads the answers. The only I/O
//! of the load.
//!
//! Enters: a [`Share`] of the schedule. Leaves: an [`Interval`] each second, and the rest at the end. Must
//! not let the target hold the schedule back: what finds no free connection waits with its own due moment.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::http::{Reader, Response};
use super::pacer::Pacer;
use super::queue::{Arrival, Offer, Queue};
use super::schedule::{Phase, Schedule};
use super::tally::{Cause, Outcome, Tally, Unsent};
use super::workload::{Answer, Workload};
use crate::random::{below, splitmix64};

/// Arrivals taken up in a row before the answers get their turn: about 0.3 ms of work.
const ARRIVALS_PER_TURN: u32 = 32;
/// One answer of 15 sessions, with room to spare.
const READ_BUFFER_BYTES: usize = 16 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A lost connection is tried again after this much, up to twice as long, so that not all come at once.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);
const INTERVAL_NS: u64 = 1_000_000_000;
/// How often, at least, timeouts and the stop signal are looked at.
const HOUSEKEEPING_NS: u64 = 10_000_000;

/// One thread's part of the run.
pub(super) struct Share {
    pub(super) schedule: Schedule,
    pub(super) workload: Workload,
    /// This thread takes the arrivals `number`, `number + threads`, …
    pub(super) number: u64,
    pub(super) threads: u64,
    pub(super) address: SocketAddr,
    pub(super) connections: usize,
    pub(super) max_in_flight: usize,
    /// Shortest sleep between arrivals.
    pub(super) tick: Duration,
    pub(super) timeout: Duration,
    pub(super) drain: Duration,
}

/// What happened since the interval before.
#[derive(Default)]
pub(super) struct Interval {
    pub(super) warmup: Tally,
    pub(super) measured: Tally,
    /// Arrivals waiting or being answered at its end.
    pub(super) unfinished: usize,
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

/// Runs one share to its end. Returns what is not yet reported, and the moment before which every arrival of
/// the share is in the books.
pub(super) fn run(share: Share, lines: Lines) -> anyhow::Result<(Interval, u64)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async {
        let mut streams = Vec::with_capacity(share.connections);
        for _ in 0..share.connections {
            let stream = connect(share.address)
                .await
                .with_context(|| format!("connecting to {}", share.address))?;
            streams.push(stream);
        }
        let _ = lines.ready.send(());
        // Another thread failed to connect: there will be no run.
        let Ok(start) = lines.start.await else {
            return Ok((Interval::default(), 0));
        };
        let worker = Rc::new(Worker::new(share, start));
        for (slot, stream) in streams.into_iter().enumerate() {
            tokio::task::spawn_local(hold_connection(worker.clone(), slot, stream));
        }
        let end_ns = worker.drive(&lines.intervals, &lines.stop).await?;
        Ok((worker.state.take().interval, end_ns))
    })
}

struct Worker {
    share: Share,
    start: Instant,
    state: RefCell<State>,
}

struct State {
    queue: Queue,
    slots: Vec<Slot>,
    /// Sent arrivals by deadline. All have the same timeout and are sent in the order of their due
    /// moments, so a queue is all the timer that is needed.
    deadlines: VecDeque<(u64, usize)>,
    request: BytesMut,
    interval: Interval,
}

#[derive(Default)]
struct Slot {
    writer: Option<OwnedWriteHalf>,
    /// The arrival that it carries, and when that was sent.
    carries: Option<(Arrival, u64)>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            queue: Queue::new(0),
            slots: Vec::new(),
            deadlines: VecDeque::new(),
            request: BytesMut::new(),
            interval: Interval::default(),
        }
    }
}

impl Interval {
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
            ..State::default()
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

    /// Takes up every arrival at its moment, then waits for the last answers. Returns the end of the
    /// schedule as far as it was followed.
    async fn drive(
        &self,
        intervals: &mpsc::Sender<Interval>,
        stop: &CancellationToken,
    ) -> io::Result<u64> {
        let pacer = Pacer::new()?;
        let mut next = self.share.number;
        let mut report_ns = INTERVAL_NS;
        // A start that is still to come is waited for like any arrival.
        pacer
            .sleep(self.start.saturating_duration_since(Instant::now()))
            .await?;
        while next < self.share.schedule.total() && !stop.is_cancelled() {
            let due_ns = self.take_up_due(&mut next);
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
        let stopped_ns = self.now_ns() + 1;
        let drain_end_ns = stopped_ns + self.share.drain.as_nanos() as u64;
        while self.state.borrow().queue.unfinished() > 0
            && self.now_ns() < drain_end_ns
            && !stop.is_cancelled()
        {
            self.give_up_overdue(self.now_ns());
            pacer.sleep(Duration::from_millis(1)).await?;
        }
        self.close_books(next, stopped_ns);
        Ok(stopped_ns)
    }

    /// Takes up what is due, at most one turn of it. Returns when the next arrival is due.
    fn take_up_due(&self, next: &mut u64) -> u64 {
        let share = &self.share;
        let mut state = self.state.borrow_mut();
        for _ in 0..ARRIVALS_PER_TURN {
            if *next >= share.schedule.total() {
                return u64::MAX;
            }
            let due_ns = share.schedule.due_ns(*next);
            let taken_ns = self.now_ns();
            if due_ns > taken_ns {
                return due_ns;
            }
            let arrival = Arrival {
                number: *next,
                due_ns,
                taken_ns,
            };
            *next += share.threads;
            let phase = share.schedule.phase(arrival.number);
            state.interval.tally(phase).taken_up(&arrival);
            match state.queue.offer(arrival) {
                Offer::Send(slot) => self.send(&mut state, slot, arrival),
                Offer::Waits => {}
                Offer::Refused => {
                    let tally = state.interval.tally(phase);
                    tally.unsent(&arrival, taken_ns, Unsent::MaxInFlight);
                }
            }
        }
        0
    }

    fn send(&self, state: &mut State, slot: usize, arrival: Arrival) {
        let State {
            slots,
            deadlines,
            request,
            interval,
            ..
        } = state;
        self.share.workload.write_request(arrival.number, request);
        let sent_ns = self.now_ns();
        interval
            .tally(self.share.schedule.phase(arrival.number))
            .sent(&arrival, sent_ns);
        let slot_state = &mut slots[slot];
        slot_state.carries = Some((arrival, sent_ns));
        deadlines.push_back((arrival.due_ns + self.share.timeout.as_nanos() as u64, slot));
        // A request is far smaller than an idle connection's buffer: what does not go out whole goes out
        // on a broken connection, and its reader will find that out.
        if let Some(writer) = &slot_state.writer
            && !matches!(writer.try_write(request), Ok(written) if written == request.len())
        {
            shut_down(writer);
        }
    }

    /// Ends what is past its deadline: sent arrivals with their connection, waiting ones unsent.
    fn give_up_overdue(&self, now_ns: u64) {
        let timeout_ns = self.share.timeout.as_nanos() as u64;
        let mut state = self.state.borrow_mut();
        let State {
            queue,
            slots,
            deadlines,
            interval,
            ..
        } = &mut *state;
        while let Some((deadline_ns, slot)) =
            deadlines.pop_front_if(|(deadline_ns, _)| *deadline_ns <= now_ns)
        {
            let slot_state = &mut slots[slot];
            let overdue =
                |(arrival, _): &mut (Arrival, u64)| arrival.due_ns + timeout_ns == deadline_ns;
            // Otherwise it was answered long ago, and the connection carries another one.
            let Some((arrival, sent_ns)) = slot_state.carries.take_if(overdue) else {
                continue;
            };
            interval
                .tally(self.share.schedule.phase(arrival.number))
                .ended(&arrival, sent_ns, now_ns, Outcome::Timeout);
            // Its late answer must not be taken for the next one's.
            if let Some(writer) = slot_state.writer.take() {
                shut_down(&writer);
            }
            queue.lost(slot, true);
        }
        while let Some(arrival) = queue.expired(now_ns.saturating_sub(timeout_ns)) {
            interval
                .tally(self.share.schedule.phase(arrival.number))
                .unsent(&arrival, now_ns, Unsent::NoConnection);
        }
    }

    fn report(&self, intervals: &mpsc::Sender<Interval>) {
        if let Ok(place) = intervals.try_reserve() {
            let mut state = self.state.borrow_mut();
            state.interval.unfinished = state.queue.unfinished();
            place.send(std::mem::take(&mut state.interval));
        }
    }

    /// Accounts for what is left: every arrival that was due by `stopped_ns` ends in the books.
    fn close_books(&self, mut next: u64, stopped_ns: u64) {
        let schedule = &self.share.schedule;
        let end_ns = self.now_ns();
        let mut state = self.state.borrow_mut();
        let State {
            queue,
            slots,
            interval,
            ..
        } = &mut *state;
        for (arrival, sent_ns) in slots.iter_mut().filter_map(|slot| slot.carries.take()) {
            interval.tally(schedule.phase(arrival.number)).ended(
                &arrival,
                sent_ns,
                end_ns,
                Outcome::InFlight,
            );
        }
        while let Some(arrival) = queue.expired(u64::MAX) {
            interval.tally(schedule.phase(arrival.number)).unsent(
                &arrival,
                end_ns,
                Unsent::EndOfRun,
            );
        }
        // After a stop by hand, what was due and not yet taken up.
        while next < schedule.total() && schedule.due_ns(next) < stopped_ns {
            let arrival = Arrival {
                number: next,
                due_ns: schedule.due_ns(next),
                taken_ns: stopped_ns,
            };
            let tally = interval.tally(schedule.phase(next));
            tally.taken_up(&arrival);
            tally.unsent(&arrival, end_ns, Unsent::EndOfRun);
            next += self.share.threads;
        }
    }

    /// A connection stands: it takes what waits, or stands by.
    fn joined(&self, slot: usize, writer: OwnedWriteHalf) {
        let mut state = self.state.borrow_mut();
        state.slots[slot].writer = Some(writer);
        if let Some(arrival) = state.queue.joined(slot) {
            self.send(&mut state, slot, arrival);
        }
    }

    /// An answer is whole. `false` when nobody had asked for it.
    fn answered(&self, slot: usize, response: &Response, buffer: &[u8]) -> bool {
        let now_ns = self.now_ns();
        let mut state = self.state.borrow_mut();
        let Some((arrival, sent_ns)) = state.slots[slot].carries.take() else {
            return false;
        };
        let outcome = self.outcome(arrival.number, response, buffer);
        state
            .interval
            .tally(self.share.schedule.phase(arrival.number))
            .ended(&arrival, sent_ns, now_ns, outcome);
        if !response.keep_alive {
            state.queue.lost(slot, true);
            state.slots[slot].writer = None;
        } else if let Some(arrival) = state.queue.freed(slot) {
            self.send(&mut state, slot, arrival);
        }
        true
    }

    fn outcome(&self, number: u64, response: &Response, buffer: &[u8]) -> Outcome {
        if response.status != 200 {
            return Outcome::Error(Cause::Status(response.status));
        }
        let workload = &self.share.workload;
        match workload.judge(number, response.body(buffer)) {
            Answer::Sessions { misses } => Outcome::Ok {
                hits: workload.keys_per_request - misses,
                misses,
            },
            Answer::Wrong => Outcome::Error(Cause::WrongAnswer),
        }
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
            state
                .interval
                .tally(self.share.schedule.phase(arrival.number))
                .ended(&arrival, sent_ns, now_ns, Outcome::Error(cause));
        }
    }
}

/// Keeps one connection of the pool alive: reads its answers, and connects again when it is lost.
async fn hold_connection(worker: Rc<Worker>, slot: usize, mut stream: TcpStream) {
    for attempt in 0_u64.. {
        let (reader, writer) = stream.into_split();
        worker.joined(slot, writer);
        let cause = read_answers(&worker, slot, reader).await;
        worker.lost(slot, cause);
        stream = reconnect(worker.share.address, slot as u64, attempt).await;
    }
}

/// Reads answers until the connection is of no use any more, and says why.
async fn read_answers(worker: &Worker, slot: usize, mut stream: OwnedReadHalf) -> Cause {
    let mut buffer = BytesMut::with_capacity(READ_BUFFER_BYTES);
    let mut reader = Reader::default();
    loop {
        buffer.reserve(READ_BUFFER_BYTES / 2);
        let Ok(length) = stream.read_buf(&mut buffer).await else {
            return Cause::ConnectionLost;
        };
        let closed = length == 0;
        match reader.read(&buffer, closed) {
            Err(_) => return Cause::Malformed,
            Ok(Some(response)) => {
                // An answer that nobody asked for, or more than one: the two sides disagree.
                if response.consumed != buffer.len() || !worker.answered(slot, &response, &buffer) {
                    return Cause::Malformed;
                }
                if !response.keep_alive {
                    return Cause::ConnectionLost;
                }
                buffer.advance(response.consumed);
            }
            Ok(None) if closed => return Cause::ConnectionLost,
            Ok(None) => {}
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Tries until it succeeds; the run's end drops it.
async fn reconnect(address: SocketAddr, slot: u64, attempt: u64) -> TcpStream {
    // Connections that the target merely closed come back at once.
    let mut wait = Duration::ZERO;
    for retry in 0_u64.. {
        tokio::time::sleep(wait).await;
        if let Ok(stream) = connect(address).await {
            return stream;
        }
        let jitter_us = below(
            splitmix64(slot, attempt.wrapping_add(retry)),
            RECONNECT_AFTER.as_micros() as u64,
        );
        wait = RECONNECT_AFTER + Duration::from_micros(jitter_us);
    }
    unreachable!("the loop has no end")
}

/// Ends both directions, so that the reader of the connection wakes and finds out.
fn shut_down(writer: &OwnedWriteHalf) {
    // Fails when the other side was faster, which is as good.
    let stream: &TcpStream = writer.as_ref();
    let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Both);
}
