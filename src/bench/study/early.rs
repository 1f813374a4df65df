//! Ends a run whose verdict can no longer become a PASS (`--abort`).
//!
//! Enters: the seconds of a run, on their way to whoever shows them. Leaves: a cut schedule, and why. Must not judge:
//! `judge::abort` does.

use tokio_util::sync::CancellationToken;

use crate::bench::drive::{Load, Watcher};
use crate::bench::judge::abort::hopeless;
use crate::bench::judge::interval::Interval;
use crate::load::{Arrivals, Stages};
use crate::objectives::Objectives;

/// Standard deviations by which a Poisson schedule may have more arrivals than its rate says.
const SPREAD: f64 = 6.0;

/// Passes each second on, and cuts the schedule when nothing can mend the run any more.
pub(super) struct Early<'a> {
    watcher: &'a mut dyn Watcher,
    objectives: &'a Objectives,
    /// Arrivals of each stage, at most.
    expected: Vec<u64>,
    cut: CancellationToken,
    reason: Option<String>,
}

impl<'a> Early<'a> {
    pub(super) fn new(
        watcher: &'a mut dyn Watcher,
        objectives: &'a Objectives,
        (stages, arrivals): (&Stages, Arrivals),
        load: &Load,
    ) -> Self {
        let of_one = |stage| at_most(&Stages(vec![stage]), arrivals);
        Self {
            watcher,
            objectives,
            expected: stages.0.iter().copied().map(of_one).collect(),
            cut: load.cut.clone(),
            reason: None,
        }
    }

    /// Why the run was cut short; `None`: it was not.
    pub(super) fn reason(self) -> Option<String> {
        self.reason
    }
}

impl Watcher for Early<'_> {
    fn begins(&mut self) {
        self.watcher.begins();
    }

    fn second(&mut self, second: &Interval, all: &Interval) {
        self.watcher.second(second, all);
        if self.cut.is_cancelled() {
            return;
        }
        self.reason = hopeless(self.objectives, &self.expected, &all.tallies);
        if self.reason.is_some() {
            self.cut.cancel();
        }
    }
}

fn at_most(stages: &Stages, arrivals: Arrivals) -> u64 {
    let expected = stages.arrivals();
    let more = match arrivals {
        Arrivals::Constant => 1.0,
        Arrivals::Poisson => SPREAD * expected.sqrt().max(1.0),
    };
    (expected + more).ceil() as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_schedule_has_no_more_arrivals_than_are_expected_of_it() {
        let stages = Stages::steady("100".parse().expect("a rate"), Duration::from_secs(100));
        assert_eq!(at_most(&stages, Arrivals::Constant), 10_001);
        assert_eq!(at_most(&stages, Arrivals::Poisson), 10_600);
    }
}
