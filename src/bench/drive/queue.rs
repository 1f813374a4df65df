//! Who sends next: arrivals without a connection wait here, connections without an arrival too. Pure.
//!
//! Enters: arrivals as they are taken up, connections as they become free or are lost. Leaves: which
//! connection carries which arrival. Must not drop an arrival unseen: each is given to a connection, handed
//! back as expired, or refused.

use std::collections::VecDeque;

use crate::bench::plan::Arrival;

/// What to do with a new arrival.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer {
    /// Send it on this connection, which is now busy.
    Send(usize),
    /// It waits for a connection.
    Waits,
    /// The bound is reached: it is not sent at all.
    Refused,
}

/// An arrival without a connection.
#[derive(Debug)]
struct Waiting {
    arrival: Arrival,
    /// Since when, for its timeout: what the generator held up itself does not count.
    since_ns: u64,
}

/// Waiting arrivals and idle connections; never both at once.
#[derive(Debug)]
pub struct Queue {
    waiting: VecDeque<Waiting>,
    idle: VecDeque<usize>,
    busy: usize,
    capacity: usize,
}

impl Queue {
    /// A queue for at most `capacity` arrivals, waiting and busy together. No connection is idle yet.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            idle: VecDeque::new(),
            busy: 0,
            capacity,
        }
    }

    /// A new arrival, which has waited from when it was taken up, or from `calm_ns` on where that is later. Idle
    /// connections take turns, so that load spreads evenly over the target's threads.
    pub fn offer(&mut self, arrival: Arrival, calm_ns: u64) -> Offer {
        if self.unfinished() >= self.capacity {
            return Offer::Refused;
        }
        if let Some(connection) = self.idle.pop_front() {
            self.busy += 1;
            return Offer::Send(connection);
        }
        let since_ns = arrival.taken_ns.max(calm_ns);
        self.waiting.push_back(Waiting { arrival, since_ns });
        Offer::Waits
    }

    /// A connection is new; it gets the arrival that has waited longest, if any, and is busy then.
    pub fn joined(&mut self, connection: usize) -> Option<Arrival> {
        let next = self.waiting.pop_front().map(|next| next.arrival);
        if next.is_some() {
            self.busy += 1;
        } else {
            self.idle.push_back(connection);
        }
        next
    }

    /// A busy connection has its answer; as [`Queue::joined`].
    pub fn freed(&mut self, connection: usize) -> Option<Arrival> {
        self.busy -= 1;
        self.joined(connection)
    }

    /// A connection is gone; `busy` tells whether it carried an arrival.
    pub fn lost(&mut self, connection: usize, busy: bool) {
        if busy {
            self.busy -= 1;
        } else {
            self.idle.retain(|&idle| idle != connection);
        }
    }

    /// The generator stood still for `by_ns` until now: no connection could become free, so nobody waited for one.
    pub fn held_up(&mut self, by_ns: u64, now_ns: u64) {
        for waiting in &mut self.waiting {
            let later_ns = waiting.since_ns.saturating_add(by_ns).min(now_ns);
            waiting.since_ns = waiting.since_ns.max(later_ns);
        }
    }

    /// The next waiting arrival that has waited since before `before_ns`, taken out. What was before it was taken up is
    /// the generator's own delay.
    pub fn expired(&mut self, before_ns: u64) -> Option<Arrival> {
        self.waiting
            .pop_front_if(|waiting| waiting.since_ns < before_ns)
            .map(|expired| expired.arrival)
    }

    /// Arrivals that are being answered.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.busy
    }

    /// Arrivals that wait for a connection.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// No connection is free.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.idle.is_empty()
    }

    /// Arrivals that wait or are being answered.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.waiting.len() + self.busy
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn arrival(number: u64) -> Arrival {
        Arrival {
            number,
            due_ns: number * 10,
            taken_ns: number * 10,
            ..Arrival::default()
        }
    }

    #[test]
    fn arrivals_wait_in_order_and_connections_take_turns() {
        let mut queue = Queue::new(10);
        assert_eq!((queue.joined(7), queue.joined(8)), (None, None));
        assert_eq!(queue.offer(arrival(0), 0), Offer::Send(7));
        assert_eq!(queue.offer(arrival(1), 0), Offer::Send(8));
        assert_eq!(queue.offer(arrival(2), 0), Offer::Waits);
        assert_eq!(queue.offer(arrival(3), 0), Offer::Waits);
        assert_eq!(queue.unfinished(), 4);
        assert_eq!(queue.freed(8), Some(arrival(2)));
        assert_eq!(queue.freed(7), Some(arrival(3)));
        assert_eq!(queue.freed(8), None);
        assert_eq!(queue.offer(arrival(4), 0), Offer::Send(8));
    }

    #[test]
    fn the_bound_counts_waiting_and_busy_together() {
        let mut queue = Queue::new(2);
        queue.joined(0);
        queue.offer(arrival(0), 0);
        queue.offer(arrival(1), 0);
        assert_eq!(queue.offer(arrival(2), 0), Offer::Refused);
        queue.freed(0);
        assert_eq!(queue.offer(arrival(3), 0), Offer::Waits);
    }

    #[test]
    fn a_lost_connection_gets_no_arrival() {
        let mut queue = Queue::new(10);
        queue.joined(0);
        queue.joined(1);
        queue.lost(0, false);
        assert_eq!(queue.offer(arrival(0), 0), Offer::Send(1));
        queue.lost(1, true);
        assert_eq!(queue.unfinished(), 0);
        assert_eq!(queue.offer(arrival(1), 0), Offer::Waits);
        assert_eq!(queue.joined(1), Some(arrival(1)));
    }

    #[test]
    fn what_waits_too_long_is_handed_back_oldest_first() {
        let mut queue = Queue::new(10);
        for number in 0..3 {
            queue.offer(arrival(number), 0);
        }
        assert_eq!(queue.expired(0), None);
        assert_eq!(queue.expired(11), Some(arrival(0)));
        assert_eq!(queue.expired(11), Some(arrival(1)));
        assert_eq!(queue.expired(11), None);
        assert_eq!(queue.unfinished(), 1);
    }

    #[test]
    fn what_the_generator_held_up_has_not_waited() {
        let mut queue = Queue::new(10);
        let taken_at = |number, taken_ns| Arrival {
            taken_ns,
            ..arrival(number)
        };
        // Due at 10 and 20 while the generator stood still, and taken up after that.
        queue.offer(taken_at(1, 1_001), 0);
        queue.offer(taken_at(2, 1_002), 0);
        assert_eq!(queue.expired(1_001), None);
        // It stood still again from 1,100 to 1,400; what that held up is at once too much until 1,500.
        queue.held_up(300, 1_400);
        queue.offer(taken_at(3, 1_400), 1_500);
        queue.offer(taken_at(4, 1_501), 1_500);
        assert_eq!(queue.expired(1_301), None);
        assert_eq!(queue.expired(1_302).map(|one| one.number), Some(1));
        queue.held_up(500, 1_450);
        assert_eq!(queue.expired(1_450), None, "not longer than until now");
        assert_eq!(queue.expired(1_451).map(|one| one.number), Some(2));
        assert_eq!(queue.expired(1_500), None);
        assert_eq!(queue.expired(1_501).map(|one| one.number), Some(3));
        assert_eq!(queue.expired(1_502).map(|one| one.number), Some(4));
    }

    proptest! {
        /// Events: 0 to 2 an arrival, 3 a new connection, 4 an answer, 5 the loss of a connection, 6 one wait is
        /// too long. At the end each number is in one list, and no list holds one twice.
        #[test]
        fn whatever_becomes_of_the_connections_every_arrival_ends_once(
            events in proptest::collection::vec((0_u8..7, 0_usize..8), 1..400),
            capacity in 1_usize..12,
        ) {
            let mut queue = Queue::new(capacity);
            let mut connections: BTreeMap<usize, Option<Arrival>> = BTreeMap::new();
            let (mut sent, mut ended) = (Vec::new(), Vec::new());
            let (mut offered, mut joined) = (0, 0);
            for (event, which) in events {
                let which = connections.keys().copied().nth(which);
                match (event, which) {
                    (0..=2, _) => {
                        let one = arrival(offered);
                        offered += 1;
                        match queue.offer(one, 0) {
                            Offer::Send(connection) => {
                                sent.push(one.number);
                                let before = connections.insert(connection, Some(one));
                                prop_assert_eq!(before, Some(None), "only an idle one that is there");
                            }
                            Offer::Waits => prop_assert!(connections.values().all(Option::is_some)),
                            Offer::Refused => ended.push(one.number),
                        }
                    }
                    (3, _) => {
                        let next = queue.joined(joined);
                        sent.extend(next.map(|next| next.number));
                        connections.insert(joined, next);
                        joined += 1;
                    }
                    (4, Some(which)) => {
                        let Some(Some(done)) = connections.get(&which).copied() else { continue };
                        ended.push(done.number);
                        let next = queue.freed(which);
                        sent.extend(next.map(|next| next.number));
                        connections.insert(which, next);
                    }
                    (5, Some(which)) => {
                        let carried = connections.remove(&which).flatten();
                        queue.lost(which, carried.is_some());
                        ended.extend(carried.map(|carried| carried.number));
                    }
                    (6, _) => {
                        let late = queue.expired(u64::MAX);
                        ended.extend(late.map(|late| late.number));
                    }
                    _ => {}
                }
                prop_assert!(queue.unfinished() <= capacity);
                prop_assert_eq!(queue.unfinished() + ended.len(), offered as usize);
            }
            prop_assert!(sent.is_sorted(), "who waits longest is sent first");
            ended.extend(connections.values().flatten().map(|busy| busy.number));
            ended.extend(std::iter::from_fn(|| queue.expired(u64::MAX)).map(|late| late.number));
            ended.sort_unstable();
            prop_assert_eq!(ended, (0..offered).collect::<Vec<_>>());
        }
    }
}
