//! The books of one generator thread. Pure.
//!
//! Enters: events of arrivals, each at its moment. Leaves: an [`Interval`] for each second, by the moments of its events
//! and not by when somebody asked, and the [`Flow`] of the whole run. Must not lose an event.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use super::http::Malformed;
use super::queue::Queue;
use crate::bench::judge::clock::{self, StartByTarget};
use crate::bench::judge::flow::{Flow, Outline};
use crate::bench::judge::handshakes::Handshakes;
use crate::bench::judge::histogram::{add, histogram, value_at};
use crate::bench::judge::interval::Interval;
use crate::bench::judge::ledger::{Outcome, Unsent};
use crate::bench::judge::tally::Ending;
use crate::bench::plan::Arrival;
use crate::objectives::Quantile;

const SECOND_NS: u64 = 1_000_000_000;
/// Seconds that may wait to be reported; beyond them, the last one grows.
const MAX_CLOSED: usize = 128;
/// Events that are written down before they are counted. An arrival is counted in nine histograms, which no system call leaves
/// in the caches: so they are fetched once for some 340 arrivals.
const JOURNAL_EVENTS: usize = 1_024;

/// A request that is being answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carried {
    pub(super) arrival: Arrival,
    pub(super) sent_ns: u64,
    /// Few connections were busy with it: a quarter at most, or it alone.
    pub(super) roomy: bool,
}

/// What happened, and is to be counted in the second that goes on.
#[derive(Debug, Clone, Copy)]
enum Event {
    TakenUp(Arrival),
    /// It was written at that moment.
    Sent(Arrival, u64),
    Ended(Arrival, Ending, Outcome),
}

/// All that a thread counts.
pub(super) struct Books {
    /// The second that goes on.
    interval: Interval,
    journal: Vec<Event>,
    closed: VecDeque<Interval>,
    flow: Flow,
    /// Of the measured arrivals.
    lag_us: Histogram<u64>,
    connections: usize,
    /// Since when no connection is free, and how many were busy then.
    full: Option<(u64, usize)>,
    /// Connections that cannot be made, and since when they are so many.
    refused: (usize, u64),
    start_by_target: Option<StartByTarget>,
}

/// What a thread leaves at its end.
pub(super) struct Closed {
    /// Seconds that were not reported.
    pub(super) intervals: VecDeque<Interval>,
    pub(super) flow: Flow,
    pub(super) lag_p99_us: u64,
    pub(super) start_by_target: Option<StartByTarget>,
}

impl Books {
    pub(super) fn new(outline: Outline, connections: usize) -> Self {
        Self {
            interval: Interval::default(),
            journal: Vec::with_capacity(JOURNAL_EVENTS),
            closed: VecDeque::new(),
            flow: Flow::new(outline),
            lag_us: histogram(),
            connections,
            full: None,
            refused: (0, 0),
            start_by_target: None,
        }
    }

    /// Time has come to `now_ns`: closes the seconds that are over. To be called before what happens now is counted.
    pub(super) fn turn_to(&mut self, now_ns: u64, queue: &Queue) {
        while now_ns >= (self.interval.second + 1) * SECOND_NS {
            self.count();
            let next = Interval {
                second: self.interval.second + 1,
                ..Interval::default()
            };
            let mut over = std::mem::replace(&mut self.interval, next);
            (over.in_flight, over.waiting) = (queue.busy(), queue.waiting());
            self.keep(&over);
            let full = self.closed.len() >= MAX_CLOSED;
            match self.closed.back_mut() {
                Some(last) if full => last.add_after(&over),
                _ => self.closed.push_back(over),
            }
        }
    }

    /// The seconds that are over and not yet reported, the first one first.
    pub(super) fn next_closed(&mut self) -> Option<Interval> {
        self.closed.pop_front()
    }

    pub(super) fn has_closed(&self) -> bool {
        !self.closed.is_empty()
    }

    pub(super) fn taken_up(&mut self, arrival: &Arrival) {
        self.note(Event::TakenUp(*arrival));
    }

    fn note(&mut self, event: Event) {
        self.journal.push(event);
        if self.journal.len() == JOURNAL_EVENTS {
            self.count();
        }
    }

    /// Counts what was written down.
    fn count(&mut self) {
        for event in self.journal.drain(..) {
            match event {
                Event::TakenUp(arrival) => {
                    self.interval.tallies.of(&arrival).taken_up(&arrival);
                    self.flow.taken_up(&arrival);
                }
                Event::Sent(arrival, sent_ns) => {
                    self.interval.tallies.of(&arrival).sent(&arrival, sent_ns);
                }
                Event::Ended(arrival, ending, outcome) => {
                    let tally = self.interval.tallies.of(&arrival);
                    tally.ended(&arrival, ending, outcome);
                    self.flow.ended(&arrival, ending, outcome.is_answered());
                }
            }
        }
    }

    /// Keeps what is told of the whole run by a second that is over.
    fn keep(&mut self, over: &Interval) {
        for (stage, _, tally) in over.tallies.iter() {
            if stage > 0 {
                add(&mut self.lag_us, &tally.lag_us);
            }
        }
    }

    /// An arrival is written now; `busy` connections with it.
    pub(super) fn sent(&mut self, arrival: Arrival, sent_ns: u64, busy: usize) -> Carried {
        self.note(Event::Sent(arrival, sent_ns));
        Carried {
            arrival,
            sent_ns,
            roomy: self.is_roomy(busy),
        }
    }

    /// A pool of one is full with its first request, so it cannot show how fast the target is with room.
    fn is_roomy(&self, busy: usize) -> bool {
        self.connections >= 2 && busy <= (self.connections / 4).max(1)
    }

    /// An answer says when it was written.
    pub(super) fn dated(&mut self, date_s: u64, sent_ns: u64, received_ns: u64) {
        let found = StartByTarget::of(date_s, sent_ns, received_ns);
        self.start_by_target = clock::both(self.start_by_target, Some(found));
    }

    /// A request that was carried has ended.
    pub(super) fn ended(
        &mut self,
        carried: &Carried,
        received_ns: u64,
        done_ns: u64,
        outcome: Outcome,
    ) {
        // Another clock tells when an answer was received: it is not believed beyond what this one allows.
        let received_ns = received_ns.clamp(carried.sent_ns.min(done_ns), done_ns);
        let ending = Ending {
            sent_ns: carried.sent_ns,
            received_ns,
            done_ns,
        };
        self.note(Event::Ended(carried.arrival, ending, outcome));
        if outcome.is_answered() {
            let pool = &mut self.flow.pool;
            pool.full_answers += u64::from(self.full.is_some());
            if carried.roomy {
                pool.roomy_answers += 1;
                let service_ns = received_ns.saturating_sub(carried.sent_ns);
                pool.roomy_service_s += service_ns as f64 / 1e9;
            }
        }
    }

    pub(super) fn unsent(&mut self, arrival: &Arrival, end_ns: u64, reason: Unsent) {
        self.interval
            .tallies
            .of(arrival)
            .unsent(arrival, end_ns, reason);
        self.flow.unsent(arrival, end_ns);
    }

    /// Connections became busy or free.
    pub(super) fn pool_changed(&mut self, now_ns: u64, queue: &Queue) {
        if let Some((since_ns, busy)) = self.full {
            let full_ns = now_ns.saturating_sub(since_ns);
            self.flow.pool.full_s += busy as f64 * full_ns as f64 / 1e9;
        }
        let is_full = queue.is_full() && queue.busy() > 0;
        self.full = is_full.then(|| (now_ns, queue.busy()));
    }

    pub(super) fn failed_to_connect(&mut self, reason: String) {
        *self.interval.failed_connects.entry(reason).or_default() += 1;
    }

    /// So many connections cannot be made from now on.
    pub(super) fn refused(&mut self, connections: usize, now_ns: u64) {
        let (before, since_ns) = std::mem::replace(&mut self.refused, (connections, now_ns));
        self.flow.pool.refused_s += before as f64 * now_ns.saturating_sub(since_ns) as f64 / 1e9;
    }

    /// Connections were made, by these handshakes.
    pub(super) fn shook_hands(&mut self, handshakes: &Handshakes) {
        self.interval.handshakes.add(handshakes);
    }

    /// A request was sent a second time.
    pub(super) fn resent(&mut self) {
        self.interval.resent += 1;
    }

    /// An answer could not be read.
    pub(super) fn malformed(&mut self, kind: Malformed) {
        *self.interval.malformed.entry(kind.to_string()).or_default() += 1;
    }

    /// Every arrival has ended.
    pub(super) fn close(mut self) -> Closed {
        self.count();
        let last = std::mem::take(&mut self.interval);
        self.keep(&last);
        self.closed.push_back(last);
        Closed {
            intervals: self.closed,
            flow: self.flow,
            lag_p99_us: value_at(&self.lag_us, Quantile::of_ten_thousand(9_900)),
            start_by_target: self.start_by_target,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::workload::Work;
    use std::time::Duration;

    fn books(connections: usize) -> Books {
        let stages = "10:3s".parse().expect("stages");
        Books::new(Outline::new(Duration::ZERO, &stages), connections)
    }

    fn arrival(due_ns: u64) -> Arrival {
        Arrival {
            due_ns,
            taken_ns: due_ns,
            ..Arrival::default()
        }
    }

    #[test]
    fn each_event_is_in_the_second_of_its_moment_however_late_it_is_reported() {
        let (mut books, mut queue) = (books(1), Queue::new(10));
        queue.joined(0);
        let first = arrival(900_000_000);
        books.taken_up(&first);
        queue.offer(first, 0);
        let carried = books.sent(first, 900_000_000, 1);
        // Nothing was reported for a while.
        books.turn_to(2_500_000_000, &queue);
        books.ended(
            &carried,
            2_400_000_000,
            2_500_000_000,
            Outcome::Ok(Work::default()),
        );
        queue.freed(0);
        let closed = books.close();
        let seconds: Vec<_> = closed
            .intervals
            .iter()
            .map(|one| {
                (
                    one.second,
                    one.tallies.measured().ledger.sent,
                    one.in_flight,
                )
            })
            .collect();
        assert_eq!(seconds, [(0, 1, 1), (1, 0, 1), (2, 0, 0)]);
        assert_eq!(closed.intervals[2].tallies.measured().ledger.ok, 1);
    }

    #[test]
    fn the_lag_of_a_run_is_that_of_its_measured_arrivals_in_all_seconds() {
        let (mut books, queue) = (books(1), Queue::new(10));
        let lags_ms = [(0, 90), (1, 7), (1, 5)];
        for (second, (stage, lag_ms)) in (0..).zip(lags_ms) {
            let due_ns = second * 1_000_000_000;
            let taken_ns = due_ns + lag_ms * 1_000_000;
            books.turn_to(taken_ns, &queue);
            let arrival = Arrival {
                due_ns,
                taken_ns,
                stage,
                ..Arrival::default()
            };
            books.taken_up(&arrival);
        }
        let lag_us = books.close().lag_p99_us;
        assert!((7_000..7_010).contains(&lag_us), "{lag_us}");
    }

    #[test]
    fn connection_seconds_of_a_full_pool_and_answers_of_a_roomy_one_are_counted() {
        let (mut books, mut queue) = (books(2), Queue::new(10));
        queue.joined(0);
        queue.joined(1);
        queue.offer(arrival(0), 0);
        let first = books.sent(arrival(0), 0, queue.busy());
        books.pool_changed(0, &queue);
        queue.offer(arrival(0), 0);
        let second = books.sent(arrival(0), 0, queue.busy());
        books.pool_changed(0, &queue);
        let half_ns = 500_000_000;
        books.ended(&first, half_ns, half_ns, Outcome::Ok(Work::default()));
        queue.freed(0);
        books.pool_changed(half_ns, &queue);
        books.ended(&second, SECOND_NS, SECOND_NS, Outcome::Timeout);
        queue.freed(1);
        books.pool_changed(SECOND_NS, &queue);
        let pool = books.close().flow.pool;
        assert_eq!((pool.full_answers, pool.roomy_answers), (1, 1));
        assert!((pool.full_s - 1.0).abs() < 1e-9 && (pool.roomy_service_s - 0.5).abs() < 1e-9);
    }

    #[test]
    fn room_is_a_quarter_of_the_connections_and_one_alone_has_none() {
        for (connections, most) in [(1, 0), (2, 1), (4, 1), (7, 1), (8, 2), (100, 25)] {
            let books = books(connections);
            let roomy = (1..=connections).filter(|&busy| books.is_roomy(busy));
            assert!(roomy.eq(1..=most), "{connections}");
        }
    }
}
