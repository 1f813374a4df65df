//! Takes arrivals up when they are due, hands them to connections, and keeps the books. The heart of a generator thread.
//!
//! Enters: a [`Share`] of the schedule, and what becomes of its connections. Leaves: requests, and books in which every
//! arrival ends. Must not let the target hold the schedule back: what finds no free connection waits with its own due
//! moment.

use std::cell::RefCell;
use std::io;
use std::iter::Peekable;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::addresses::{is_own, reason};
use super::books::{Books, Carried, Closed};
use super::connection::{Connected, End, ask_store, hold_connection, outcome};
use super::deadlines::{Check, Checks, Drain, STALL_NS};
use super::http::Response;
use super::inbox::Buffer;
use super::line::Sender;
use super::pacer::{Absence, Pacer};
use super::queue::{Offer, Queue};
use super::slot::Slot;
use super::thread::{Share, Way, before};
use crate::bench::judge::handshakes::Handshakes;
use crate::bench::judge::interval::Interval;
use crate::bench::judge::ledger::{Cause, Outcome, Unsent};
use crate::bench::plan::Arrival;
use crate::bench::plan::schedule::{Due, Thread};

/// Arrivals taken up in a row before the answers get their turn: about 0.3 ms of work.
const ARRIVALS_PER_TURN: u32 = 32;
/// How often, at least, the stop signal is looked at.
const HOUSEKEEPING_NS: u64 = 10_000_000;
/// A lag above [`STALL_NS`] is a stall, whose wake disturbs what comes after it. What it held up is sent at once; at
/// four fifths of what the target can do, that takes four times as long to work off.
const WAKE_OF_STALL: u64 = 4;
/// How often the drain looks whether it is over.
const DRAIN_STEP_NS: u64 = 1_000_000;

/// One thread at work.
pub(super) struct Worker {
    pub(super) share: Share,
    start: Instant,
    absence: RefCell<Absence>,
    pub(super) buffer: Buffer,
    state: RefCell<State>,
}

struct State {
    queue: Queue,
    slots: Vec<Slot>,
    request: BytesMut,
    books: Books,
    checks: Checks,
    /// Until when arrivals are in the wake of a stall.
    disturbed_until_ns: u64,
    /// The arrivals of the share that are still to come.
    coming: Peekable<Thread>,
}

impl State {
    /// Time has come to `now_ns`; to be called before what happens now is counted.
    fn turn_to(&mut self, now_ns: u64) {
        self.books.turn_to(now_ns, &self.queue);
    }

    /// A connection is of no use any more; `busy` tells whether it carried an arrival.
    fn lost(&mut self, slot: usize, busy: bool, now_ns: u64) {
        self.queue.lost(slot, busy);
        self.pool_changed(now_ns);
    }

    fn pool_changed(&mut self, now_ns: u64) {
        self.books.pool_changed(now_ns, &self.queue);
    }

    /// A try to make a connection ended.
    fn tried_to_connect(&mut self, slot: usize, refused: bool, now_ns: u64) {
        if std::mem::replace(&mut self.slots[slot].is_refused, refused) != refused {
            let refused = self.slots.iter().filter(|slot| slot.is_refused).count();
            self.books.refused(refused, now_ns);
        }
    }
}

impl Worker {
    pub(super) fn new(share: Share, start: Instant) -> Self {
        let state = State {
            queue: Queue::new(share.max_in_flight),
            slots: (0..share.connections).map(|_| Slot::default()).collect(),
            request: BytesMut::new(),
            books: Books::new(share.outline.clone(), share.connections),
            checks: Checks::new(share.timeout.as_nanos() as u64),
            disturbed_until_ns: 0,
            coming: share
                .schedule
                .thread((share.number, share.threads))
                .peekable(),
        };
        Self {
            share,
            start,
            absence: RefCell::default(),
            buffer: Buffer::new(),
            state: RefCell::new(state),
        }
    }

    /// Nanoseconds since the start; 0 before it.
    fn now_ns(&self) -> u64 {
        Instant::now()
            .saturating_duration_since(self.start)
            .as_nanos() as u64
    }

    fn timeout_ns(&self) -> u64 {
        self.share.timeout.as_nanos() as u64
    }

    /// Takes up every arrival at its moment. Returns the end of the schedule as far as it was followed.
    pub(super) async fn drive(
        self: &Rc<Self>,
        intervals: &mpsc::Sender<(u64, Interval)>,
        cut: &CancellationToken,
    ) -> io::Result<u64> {
        let pacer = Pacer::new()?;
        // A start that is still to come is waited for like any arrival.
        pacer.sleep(before(self.start)).await?;
        while !cut.is_cancelled() {
            let (now_ns, next) = self.take_up_due();
            let Some(due_ns) = next else {
                // All of it was followed, to the end of its last gap.
                let end_ns = self.share.schedule.measured_until_ns();
                return Ok(end_ns.max(self.now_ns() + 1));
            };
            self.give_up_overdue(now_ns);
            self.report(intervals);
            let wake_ns = due_ns.min(now_ns + HOUSEKEEPING_NS);
            self.sleep_until(wake_ns, &pacer).await?;
        }
        // Exclusive: what was due at this very nanosecond has been taken up.
        Ok(self.now_ns() + 1)
    }

    /// Lets the answers have their turn, until this moment or a little later.
    async fn sleep_until(&self, wake_ns: u64, pacer: &Pacer) -> io::Result<()> {
        let now_ns = self.now_ns();
        let wait_ns = match wake_ns.saturating_sub(now_ns) {
            0 => 0,
            wait_ns => wait_ns.max(self.share.tick.as_nanos() as u64),
        };
        let wake_ns = now_ns + wait_ns;
        self.absence.borrow_mut().sleeps(now_ns, wake_ns);
        if wait_ns == 0 {
            tokio::task::yield_now().await;
            return Ok(());
        }
        pacer.sleep(Duration::from_nanos(wait_ns)).await
    }

    /// When an answer that is taken at `now_ns` had come in, if it lay here for `lay_ns`; where that is not known,
    /// the thread's own sleep tells the most that it can be.
    fn received_ns(&self, now_ns: u64, lay_ns: Option<u64>) -> u64 {
        let lay_ns = lay_ns.unwrap_or_else(|| self.absence.borrow().lay_ns(now_ns));
        now_ns.saturating_sub(lay_ns)
    }

    /// Where a schedule that was cut at `end_ns` ends: what had come due and was not taken up is not missing from it.
    pub(super) fn taken_up_until(&self, end_ns: u64) -> u64 {
        let mut state = self.state.borrow_mut();
        let next = state.coming.peek();
        next.map_or(end_ns, |due| due.at_ns.min(end_ns))
    }

    /// Waits for the last answers, as long as `--drain` allows by the time in which they could be taken.
    pub(super) async fn finish(
        &self,
        intervals: &mpsc::Sender<(u64, Interval)>,
        stop: &CancellationToken,
    ) -> io::Result<()> {
        let pacer = Pacer::new()?;
        let step_ns = DRAIN_STEP_NS.max(self.share.tick.as_nanos() as u64);
        let mut drain = Drain::new(self.now_ns(), self.share.drain.as_nanos() as u64);
        while self.state.borrow().queue.unfinished() > 0 && !stop.is_cancelled() {
            let now_ns = self.now_ns();
            if !drain.turn(now_ns, step_ns) {
                break;
            }
            self.give_up_overdue(now_ns);
            self.report(intervals);
            self.sleep_until(now_ns + step_ns, &pacer).await?;
        }
        Ok(())
    }

    /// Takes up what is due, at most one turn of it. When it looked last, and when the next arrival is due; `None`: there
    /// is none.
    fn take_up_due(self: &Rc<Self>) -> (u64, Option<u64>) {
        let mut state = self.state.borrow_mut();
        let mut taken_ns = 0;
        for _ in 0..ARRIVALS_PER_TURN {
            taken_ns = self.now_ns();
            let Some(due) = state.coming.next_if(|due| due.at_ns <= taken_ns) else {
                break;
            };
            state.turn_to(taken_ns);
            let arrival = self.take_up(&mut state, due, taken_ns);
            // What a stall held up comes all at once, and waits for itself: that is no wait for the target.
            let calm_ns = state.disturbed_until_ns;
            match state.queue.offer(arrival, calm_ns) {
                Offer::Send(slot) => self.send(&mut state, slot, arrival),
                Offer::Waits => {}
                // It would have waited in vain: less than that would flatter the target.
                Offer::Refused => {
                    let end_ns = arrival.due_ns + self.timeout_ns();
                    state.books.unsent(&arrival, end_ns, Unsent::MaxInFlight);
                }
            }
        }
        (taken_ns, state.coming.peek().map(|due| due.at_ns))
    }

    fn take_up(&self, state: &mut State, due: Due, taken_ns: u64) -> Arrival {
        let lag_ns = taken_ns.saturating_sub(due.at_ns);
        if lag_ns > STALL_NS {
            let calm_ns = taken_ns + WAKE_OF_STALL * lag_ns;
            state.disturbed_until_ns = state.disturbed_until_ns.max(calm_ns);
        }
        let arrival = Arrival {
            number: due.number,
            due_ns: due.at_ns,
            taken_ns,
            stage: self.share.schedule.stage_at(due.at_ns),
            operation: self.share.workload.operation(due.number),
            disturbed: taken_ns < state.disturbed_until_ns,
        };
        state.books.taken_up(&arrival);
        arrival
    }

    fn send(self: &Rc<Self>, state: &mut State, slot: usize, arrival: Arrival) {
        if let Way::Store(store, _) = &self.share.way {
            tokio::task::spawn_local(ask_store(self.clone(), store.clone(), slot, arrival));
        }
        let request = &mut state.request;
        if state.slots[slot].writer.is_some() {
            self.share.workload.write_request(arrival.number, request);
        }
        let sent_ns = self.now_ns();
        state.turn_to(sent_ns);
        let carried = state.books.sent(arrival, sent_ns, state.queue.busy());
        state.books.pool_changed(sent_ns, &state.queue);
        let State { slots, request, .. } = state;
        slots[slot].begin(carried);
        slots[slot].write(request);
    }

    /// What the last connection of this slot ended under is sent on the new one. It keeps its moments.
    fn send_again(&self, state: &mut State, slot: usize, number: u64) {
        state.turn_to(self.now_ns());
        state.books.resent();
        self.share
            .workload
            .write_request(number, &mut state.request);
        state.slots[slot].write(&state.request);
    }

    /// Ends what has waited too long: sent arrivals with their connection, the others unsent.
    fn give_up_overdue(&self, now_ns: u64) {
        let timeout_ns = self.timeout_ns();
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        state.turn_to(now_ns);
        match state.checks.turn(now_ns) {
            Check::NotYet => return,
            Check::Overslept(by_ns) => return state.queue.held_up(by_ns, now_ns),
            Check::Due => {}
        }
        for slot in 0..state.slots.len() {
            let overdue = |carried: &mut Carried| carried.sent_ns + timeout_ns <= now_ns;
            let Some(carried) = state.slots[slot].carries.take_if(overdue) else {
                continue;
            };
            state
                .books
                .ended(&carried, now_ns, now_ns, Outcome::Timeout);
            // Its late answer must not be taken for the next one's.
            if let Some(writer) = state.slots[slot].writer.take() {
                writer.shut_down();
            }
            state.lost(slot, true, now_ns);
        }
        while let Some(arrival) = state.queue.expired(now_ns.saturating_sub(timeout_ns)) {
            state.books.unsent(&arrival, now_ns, Unsent::NoConnection);
        }
    }

    /// Reports the seconds that are over.
    fn report(&self, intervals: &mpsc::Sender<(u64, Interval)>) {
        let books = &mut self.state.borrow_mut().books;
        while books.has_closed() {
            let Ok(place) = intervals.try_reserve() else {
                return;
            };
            if let Some(interval) = books.next_closed() {
                place.send((self.share.number, interval));
            }
        }
    }

    /// Accounts for what is left: every arrival that was due by `stopped_ns` ends in the books.
    pub(super) fn close_books(&self, stopped_ns: u64) -> Closed {
        let end_ns = self.now_ns();
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        state.turn_to(end_ns);
        for slot in &mut state.slots {
            if let Some(carried) = slot.carries.take() {
                state
                    .books
                    .ended(&carried, end_ns, end_ns, Outcome::InFlight);
            }
        }
        while let Some(arrival) = state.queue.expired(u64::MAX) {
            state.books.unsent(&arrival, end_ns, Unsent::EndOfRun);
        }
        // After a stop by hand, what was due and not yet taken up.
        while let Some(due) = state.coming.next_if(|due| due.at_ns < stopped_ns) {
            let arrival = self.take_up(state, due, stopped_ns);
            state.books.unsent(&arrival, end_ns, Unsent::EndOfRun);
        }
        state.books.pool_changed(end_ns, &state.queue);
        state.books.refused(0, end_ns);
        let none = Books::new(self.share.outline.clone(), 0);
        std::mem::replace(&mut state.books, none).close()
    }

    /// Puts the connections to work, or as many places for operations of the store.
    pub(super) fn begin(self: &Rc<Self>, connected: Connected) {
        match connected {
            Connected::Http(lines) => {
                for (slot, line) in lines.into_iter().enumerate() {
                    tokio::task::spawn_local(hold_connection(self.clone(), slot, line));
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

    /// A connection was made, by these handshakes.
    pub(super) fn shook_hands(&self, handshakes: &Handshakes) {
        let mut state = self.state.borrow_mut();
        state.turn_to(self.now_ns());
        state.books.shook_hands(handshakes);
    }

    /// A connection stands: it takes what waits, or stands by.
    pub(super) fn joined(self: &Rc<Self>, slot: usize, writer: Option<Sender>) {
        let mut state = self.state.borrow_mut();
        state.slots[slot].writer = writer.map(Rc::new);
        state.tried_to_connect(slot, false, self.now_ns());
        if let Some(carried) = state.slots[slot].carries {
            self.send_again(&mut state, slot, carried.arrival.number);
            return;
        }
        match state.queue.joined(slot) {
            Some(arrival) => {
                self.send(&mut state, slot, arrival);
                state.slots[slot].was_made_for_it();
            }
            None => state.pool_changed(self.now_ns()),
        }
    }

    /// An answer is whole, and its end lay here for `lay_ns`, where that is known. `false` when nobody had asked
    /// for it.
    pub(super) fn answered(
        self: &Rc<Self>,
        slot: usize,
        response: &Response,
        buffer: &[u8],
        lay_ns: Option<u64>,
    ) -> bool {
        let now_ns = self.now_ns();
        let mut state = self.state.borrow_mut();
        let Some(carried) = state.slots[slot].carries.take() else {
            return false;
        };
        let workload = &self.share.workload;
        let number = carried.arrival.number;
        let answer = workload.judge(number, response.status, response.body(buffer));
        state.turn_to(now_ns);
        let received_ns = self.received_ns(now_ns, lay_ns);
        let outcome = outcome(answer);
        if let Some(date_s) = response.date_s {
            state.books.dated(date_s, carried.sent_ns, received_ns);
        }
        state.books.ended(&carried, received_ns, now_ns, outcome);
        if response.keep_alive && !state.slots[slot].is_sending() {
            self.free(&mut state, slot, now_ns);
        } else {
            state.lost(slot, true, now_ns);
            state.slots[slot].let_go();
        }
        true
    }

    /// A connection is free: it takes the arrival that has waited longest.
    fn free(self: &Rc<Self>, state: &mut State, slot: usize, now_ns: u64) {
        match state.queue.freed(slot) {
            Some(arrival) => self.send(state, slot, arrival),
            None => state.pool_changed(now_ns),
        }
    }

    /// The store is done with an arrival, however it went; `lay_ns` as for [`Worker::answered`].
    pub(super) fn settled(
        self: &Rc<Self>,
        slot: usize,
        arrival: Arrival,
        outcome: Outcome,
        lay_ns: Option<u64>,
    ) {
        let now_ns = self.now_ns();
        let mut state = self.state.borrow_mut();
        let place = &mut state.slots[slot].carries;
        let Some(carried) = place.take_if(|carried| carried.arrival == arrival) else {
            // It was given up, and its place with it, which is free again only now.
            drop(state);
            self.joined(slot, None);
            return;
        };
        state.turn_to(now_ns);
        let received_ns = self.received_ns(now_ns, lay_ns);
        state.books.ended(&carried, received_ns, now_ns, outcome);
        self.free(&mut state, slot, now_ns);
    }

    /// No connection can be made for this slot at present.
    pub(super) fn failed_to_connect(&self, slot: usize, error: &io::Error) {
        let now_ns = self.now_ns();
        let mut state = self.state.borrow_mut();
        state.turn_to(now_ns);
        state.books.failed_to_connect(reason(error));
        state.tried_to_connect(slot, !is_own(error), now_ns);
        // It was to be sent again on that connection.
        if let Some(carried) = state.slots[slot].carries.take() {
            state.lost(slot, true, now_ns);
            let outcome = Outcome::Error(Cause::ConnectionLost);
            state.books.ended(&carried, now_ns, now_ns, outcome);
        }
    }

    /// Whether what this slot's connection brings now may be about its having stood idle: it carries nothing, or what may
    /// be sent again.
    pub(super) fn may_have_stood_idle(&self, slot: usize) -> bool {
        let slot = &self.state.borrow().slots[slot];
        slot.carries.is_none() || slot.may_send_again(&self.share.workload)
    }

    /// Whether the answer that this slot waits for has no body.
    pub(super) fn carries_head(&self, slot: usize) -> bool {
        let carries = self.state.borrow().slots[slot].carries;
        let form = self.share.workload.form.as_ref();
        carries.is_some_and(|one| form.is_some_and(|form| form.is_head_of(one.arrival.number)))
    }

    /// A connection is gone, for this reason.
    pub(super) fn lost(&self, slot: usize, end: End) {
        let now_ns = self.now_ns();
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        // Given up before: the books and the queue know already.
        if !state.slots[slot].let_go() {
            return;
        }
        if end == End::Untouched && state.slots[slot].may_send_again(&self.share.workload) {
            state.slots[slot].was_made_for_it();
            return;
        }
        state.turn_to(now_ns);
        let carried = state.slots[slot].carries.take();
        state.lost(slot, carried.is_some(), now_ns);
        let cause = match end {
            End::Untouched | End::Closed => Cause::ConnectionLost,
            End::Malformed(kind) => {
                // Also where nobody waits for an answer: two came to the request before, and which was which?
                state.books.malformed(kind);
                Cause::Malformed
            }
        };
        if let Some(carried) = carried {
            state
                .books
                .ended(&carried, now_ns, now_ns, Outcome::Error(cause));
        }
    }
}
