//! The seconds of all threads, put together. Pure.
//!
//! Enters: each thread's seconds, as late as it likes. Leaves: whole seconds in order, and the sum of all. Must not show a
//! second before every thread has told of it.

use std::collections::BTreeMap;

use crate::bench::judge::interval::Interval;

/// Adds up what threads report.
pub(super) struct Seconds {
    /// Seconds that some thread has not told of yet.
    pending: BTreeMap<u64, Interval>,
    /// How many seconds each thread has told of.
    told: Vec<u64>,
    shown: u64,
    all: Interval,
}

impl Seconds {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            pending: BTreeMap::new(),
            told: vec![0; threads],
            shown: 0,
            all: Interval::default(),
        }
    }

    /// A thread tells of a second, and with it that those before are over.
    pub(super) fn add(&mut self, thread: u64, interval: &Interval) {
        let second = interval.second;
        let pending = self.pending.entry(second).or_default();
        pending.second = second;
        pending.add_beside(interval);
        if let Some(told) = self.told.get_mut(thread as usize) {
            *told = second + 1;
        }
    }

    /// A thread has ended: no second waits for it.
    pub(super) fn ended(&mut self, thread: u64) {
        if let Some(told) = self.told.get_mut(thread as usize) {
            *told = u64::MAX;
        }
    }

    /// The next second that is whole, counted into the sum.
    pub(super) fn next_whole(&mut self) -> Option<Interval> {
        let &told = self.told.iter().min()?;
        let is_last = self.pending.is_empty();
        if self.shown >= told || (told == u64::MAX && is_last) {
            return None;
        }
        let second = self
            .pending
            .remove(&self.shown)
            .unwrap_or_else(|| Interval {
                second: self.shown,
                ..Interval::default()
            });
        self.shown += 1;
        self.all.add_after(&second);
        Some(second)
    }

    /// All seconds that were whole.
    pub(super) fn all(&self) -> &Interval {
        &self.all
    }

    pub(super) fn into_all(self) -> Interval {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(second: u64, in_flight: usize) -> Interval {
        Interval {
            second,
            in_flight,
            resent: 1,
            ..Interval::default()
        }
    }

    #[test]
    fn a_second_is_shown_once_all_threads_have_told_of_it() {
        let mut seconds = Seconds::new(2);
        seconds.add(0, &of(0, 3));
        seconds.add(0, &of(1, 4));
        assert!(seconds.next_whole().is_none());
        // One that stood still tells of several at once.
        seconds.add(1, &of(2, 5));
        let mut shown = Vec::new();
        while let Some(second) = seconds.next_whole() {
            shown.push((second.second, second.in_flight, second.resent));
        }
        assert_eq!(shown, [(0, 3, 1), (1, 4, 1)]);
        seconds.ended(0);
        seconds.ended(1);
        let last = seconds.next_whole().expect("the last one");
        assert_eq!((last.second, last.in_flight), (2, 5));
        assert!(seconds.next_whole().is_none());
        assert_eq!(seconds.into_all().resent, 3);
    }
}
