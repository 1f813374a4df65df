//! How arrivals and answers flowed over the run: what the rate is judged by. Pure.
//!
//! Enters: moments of single arrivals. Leaves: a [`Flow`]. Must not keep single arrivals: a run has millions.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::histogram::{add, histogram, packed, record};
use super::tally::Ending;
use crate::bench::plan::Arrival;
use crate::load::{Moments, Stages};

/// A stage is cut into at least so many slots.
const MIN_SLOTS: u64 = 100;
/// And no slot is longer than this, unless the run is so long that there would be too many.
const SLOT_NS: u64 = 100_000_000;
/// Slots of a whole run, about.
const MAX_SLOTS: u64 = 20_000;

/// The schedule's outline: the warm-up and the stages, each cut into slots.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Outline {
    /// The warm-up, of length 0 where there is none, and then the stages.
    pub stretches: Vec<Stretch>,
}

/// One stretch of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Stretch {
    /// Nanoseconds from the start of the run.
    pub start_ns: u64,
    /// Where the next one begins.
    pub end_ns: u64,
    /// Arrivals per second of the whole schedule at its beginning.
    pub from_rps: f64,
    /// And at its end.
    pub to_rps: f64,
    /// Its first slot.
    pub first_slot: usize,
    /// How many it has.
    pub slots: usize,
    /// Of a recorded load, whose rate is no straight line: the moment by which half of its arrivals were due. What was
    /// asked for follows from the arrivals themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_middle_ns: Option<u64>,
}

impl Stretch {
    /// Length, in nanoseconds.
    #[must_use]
    pub fn length_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }

    /// Length, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.length_ns() as f64 / 1e9
    }

    /// Where a slot of it begins; that of the number of its slots is its end.
    #[must_use]
    pub fn slot_start_ns(&self, slot: usize) -> u64 {
        let place = u128::from(self.length_ns()) * slot as u128 / self.slots.max(1) as u128;
        self.start_ns + place as u64
    }

    /// Arrivals that the whole schedule asks for between two moments of it.
    #[must_use]
    pub fn asked(&self, from_ns: u64, to_ns: u64) -> f64 {
        let length_s = self.seconds().max(1e-9);
        let slope = (self.to_rps - self.from_rps) / length_s;
        let until = |at_ns: u64| {
            let seconds = at_ns.saturating_sub(self.start_ns) as f64 / 1e9;
            self.from_rps * seconds + slope * seconds * seconds / 2.0
        };
        until(to_ns) - until(from_ns)
    }

    fn slot_at(&self, at_ns: u64) -> usize {
        // Once or twice for each arrival, where a division of 128 bits would be felt.
        let share = (at_ns - self.start_ns) as f64 / self.length_ns().max(1) as f64;
        let place = (share * self.slots as f64) as usize;
        self.first_slot + place.min(self.slots - 1)
    }
}

impl Outline {
    /// Of a warm-up at the first stage's rate, and stages.
    #[must_use]
    pub fn new(warmup: Duration, stages: &Stages) -> Self {
        let first_rps = stages
            .0
            .first()
            .map_or(0.0, |stage| stage.from.per_second());
        let warm = (warmup, first_rps, first_rps);
        let measured = stages.0.iter().map(|stage| {
            (
                stage.duration,
                stage.from.per_second(),
                stage.to.per_second(),
            )
        });
        let total_ns = (warmup + stages.duration()).as_nanos().max(1) as u64;
        let (mut start_ns, mut first_slot) = (0, 0);
        let mut stretches = Vec::new();
        for (duration, from_rps, to_rps) in std::iter::once(warm).chain(measured) {
            let length_ns = duration.as_nanos() as u64;
            let slots = slots(length_ns, total_ns);
            stretches.push(Stretch {
                start_ns,
                end_ns: start_ns + length_ns,
                from_rps,
                to_rps,
                first_slot,
                slots,
                recorded_middle_ns: None,
            });
            start_ns += length_ns;
            first_slot += slots;
        }
        Self { stretches }
    }

    /// The same of a recorded load, which has no warm-up and one stage.
    #[must_use]
    pub fn recorded(stages: &Stages, moments: &Moments) -> Self {
        let mut outline = Self::new(Duration::ZERO, stages);
        for stretch in outline.stretches.iter_mut().skip(1) {
            stretch.recorded_middle_ns = Some(moments.middle_ns());
        }
        outline
    }

    /// Slots of all stretches.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.stretches
            .last()
            .map_or(0, |last| last.first_slot + last.slots)
    }

    /// The slot of a moment; `None` after the end.
    fn slot_at(&self, at_ns: u64) -> Option<usize> {
        let stretch = self
            .stretches
            .iter()
            .find(|stretch| at_ns < stretch.end_ns)?;
        Some(stretch.slot_at(at_ns))
    }

    /// Whether what is due at this moment of a stage belongs to its second half.
    fn is_late(&self, stage: u16, due_ns: u64) -> bool {
        let Some(stretch) = self.stretches.get(usize::from(stage)) else {
            return false;
        };
        let middle_ns = stretch.start_ns + stretch.length_ns() / 2;
        due_ns >= stretch.recorded_middle_ns.unwrap_or(middle_ns)
    }

    /// Leaves only the whole slots before a moment, and at least the first measured one.
    fn cut(&mut self, end_ns: u64) {
        let reached = self.stretches.iter().skip(1);
        let reached = reached.take_while(|stretch| stretch.start_ns < end_ns);
        let kept = 1 + reached.count().max(1);
        self.stretches.truncate(kept);
        if let Some(last) = self.stretches.last_mut() {
            let is_over = |slot: &usize| last.slot_start_ns(slot + 1) <= end_ns;
            let slots = (0..last.slots).take_while(is_over).count().max(1);
            let cut_ns = last.slot_start_ns(slots.min(last.slots));
            let share = (cut_ns - last.start_ns) as f64 / last.length_ns().max(1) as f64;
            last.to_rps = last.from_rps + (last.to_rps - last.from_rps) * share;
            (last.end_ns, last.slots) = (cut_ns, slots.min(last.slots));
        }
    }

    /// Its numbers make sense, so that a flow over it can be judged.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let mut end_ns = 0;
        let mut slots = 0;
        self.stretches.iter().all(|stretch| {
            let rates = [stretch.from_rps, stretch.to_rps];
            let fits = stretch.start_ns == end_ns
                && stretch.end_ns >= end_ns
                && stretch.first_slot == slots
                && (stretch.slots > 0) == (stretch.end_ns > end_ns)
                && rates.iter().all(|rate| (0.0..1e12).contains(rate));
            end_ns = stretch.end_ns;
            slots = slots.saturating_add(stretch.slots);
            fits
        })
    }
}

fn slots(length_ns: u64, total_ns: u64) -> usize {
    if length_ns == 0 {
        return 0;
    }
    let share = u128::from(MAX_SLOTS) * u128::from(length_ns) / u128::from(total_ns);
    let fine = length_ns.div_ceil(SLOT_NS).min(share as u64);
    fine.max(MIN_SLOTS) as usize
}

/// Counts of one slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Slot {
    /// Arrivals due in it.
    pub due: u64,
    /// Arrivals that ended in it, in whatever way, by the moment when their answers reached this host.
    pub ended: u64,
    /// Largest lag of those due in it.
    pub max_lag_us: u64,
}

/// Latencies of one part of a stage.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Spread {
    /// Done − due.
    #[serde(with = "packed")]
    pub latency_us: Histogram<u64>,
    /// The same without the generator's part.
    #[serde(with = "packed")]
    pub undelayed_us: Histogram<u64>,
    /// From sending to the answer.
    #[serde(with = "packed")]
    pub service_us: Histogram<u64>,
}

impl Default for Spread {
    fn default() -> Self {
        Self {
            latency_us: histogram(),
            undelayed_us: histogram(),
            service_us: histogram(),
        }
    }
}

impl Spread {
    fn add(&mut self, other: &Self) {
        let Self {
            latency_us,
            undelayed_us,
            service_us,
        } = other;
        add(&mut self.latency_us, latency_us);
        add(&mut self.undelayed_us, undelayed_us);
        add(&mut self.service_us, service_us);
    }
}

/// A stage in two parts of the same length, a recorded one in two of as many arrivals.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Halves {
    /// Due in the first one.
    pub early: Spread,
    /// Due in the second one.
    pub late: Spread,
}

/// How busy the connections were, added up over threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Pool {
    /// Connection-seconds in which none of a thread's connections was free.
    pub full_s: f64,
    /// Answers that came in that time.
    pub full_answers: u64,
    /// Answers to requests that were sent when at most a quarter of a thread's connections were busy, or one of several.
    pub roomy_answers: u64,
    /// Their service times, added up.
    pub roomy_service_s: f64,
    /// Connection-seconds in which the target let none be made.
    #[serde(default)]
    pub refused_s: f64,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Flow {
    /// Of the whole schedule, whatever part of it this generator takes.
    pub outline: Outline,
    /// One after the other, over all stretches.
    pub slots: Vec<Slot>,
    /// By stretch; that of the warm-up stays empty.
    pub halves: Vec<Halves>,
    /// Over the whole run.
    pub pool: Pool,
}

impl Flow {
    /// Of a run that is about to begin.
    #[must_use]
    pub fn new(outline: Outline) -> Self {
        Self {
            slots: vec![Slot::default(); outline.slots()],
            halves: vec![Halves::default(); outline.stretches.len()],
            pool: Pool::default(),
            outline,
        }
    }

    /// The generator took an arrival up.
    pub fn taken_up(&mut self, arrival: &Arrival) {
        if let Some(slot) = self.outline.slot_at(arrival.due_ns) {
            let slot = &mut self.slots[slot];
            slot.due += 1;
            let lag_us = arrival.taken_ns.saturating_sub(arrival.due_ns) / 1_000;
            slot.max_lag_us = slot.max_lag_us.max(lag_us);
        }
    }

    /// A sent arrival ended; `answered`: by an answer, right or wrong.
    pub fn ended(&mut self, arrival: &Arrival, ending: Ending, answered: bool) {
        self.count_end(ending.received_ns);
        let Some(spread) = self.spread(arrival) else {
            return;
        };
        record(&mut spread.latency_us, arrival.due_ns, ending.done_ns);
        if !arrival.disturbed {
            let undelayed_us = &mut spread.undelayed_us;
            record(undelayed_us, arrival.taken_ns, ending.received_ns);
        }
        if answered {
            record(&mut spread.service_us, ending.sent_ns, ending.received_ns);
        }
    }

    /// An arrival was given up unsent.
    pub fn unsent(&mut self, arrival: &Arrival, end_ns: u64) {
        self.count_end(end_ns);
        if let Some(spread) = self.spread(arrival) {
            record(&mut spread.latency_us, arrival.due_ns, end_ns);
            if !arrival.disturbed {
                record(&mut spread.undelayed_us, arrival.taken_ns, end_ns);
            }
        }
    }

    fn count_end(&mut self, at_ns: u64) {
        if let Some(slot) = self.outline.slot_at(at_ns) {
            self.slots[slot].ended += 1;
        }
    }

    fn spread(&mut self, arrival: &Arrival) -> Option<&mut Spread> {
        let halves = match arrival.stage {
            0 => return None,
            stage => self.halves.get_mut(usize::from(stage))?,
        };
        Some(if self.outline.is_late(arrival.stage, arrival.due_ns) {
            &mut halves.late
        } else {
            &mut halves.early
        })
    }

    /// Adds the flow of another thread or generator of the same schedule.
    pub fn add(&mut self, other: &Self) {
        let Self {
            outline: _,
            slots,
            halves,
            pool,
        } = other;
        for (ours, theirs) in self.slots.iter_mut().zip(slots) {
            ours.due += theirs.due;
            ours.ended += theirs.ended;
            ours.max_lag_us = ours.max_lag_us.max(theirs.max_lag_us);
        }
        for (ours, theirs) in self.halves.iter_mut().zip(halves) {
            ours.early.add(&theirs.early);
            ours.late.add(&theirs.late);
        }
        self.pool.full_s += pool.full_s;
        self.pool.full_answers += pool.full_answers;
        self.pool.roomy_answers += pool.roomy_answers;
        self.pool.roomy_service_s += pool.roomy_service_s;
        self.pool.refused_s += pool.refused_s;
    }

    /// Of a schedule that was cut at `end_ns`: what was to come after that is not missing.
    pub fn cut(&mut self, end_ns: u64) {
        self.outline.cut(end_ns);
        self.slots.truncate(self.outline.slots());
        self.halves.truncate(self.outline.stretches.len());
    }

    /// Arrivals that ended in a stage for each one that was due in it; at most 1.
    #[must_use]
    pub fn ended_share(&self, stage: usize) -> f64 {
        let stretch = self.outline.stretches.get(stage);
        let slots = stretch.and_then(|stretch| {
            self.slots
                .get(stretch.first_slot..stretch.first_slot + stretch.slots)
        });
        let sum =
            |count: fn(&Slot) -> u64| slots.unwrap_or_default().iter().map(count).sum::<u64>();
        (sum(|slot| slot.ended) as f64 / sum(|slot| slot.due).max(1) as f64).min(1.0)
    }

    /// It fits its outline, and no sum of many can overflow.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        const MOST: u64 = 1_000_000_000_000_000;
        let Pool {
            full_s,
            full_answers,
            roomy_answers,
            roomy_service_s,
            refused_s,
        } = self.pool;
        let histograms = self.halves.iter().flat_map(|halves| {
            [&halves.early, &halves.late]
                .into_iter()
                .flat_map(|spread| [&spread.latency_us, &spread.undelayed_us, &spread.service_us])
        });
        self.outline.is_plausible()
            && self.slots.len() == self.outline.slots()
            && self.halves.len() == self.outline.stretches.len()
            && self
                .slots
                .iter()
                .all(|slot| slot.due <= MOST && slot.ended <= MOST)
            && [full_answers, roomy_answers].iter().all(|&n| n <= MOST)
            && [full_s, roomy_service_s, refused_s]
                .iter()
                .all(|s| (0.0..1e15).contains(s))
            && histograms
                .into_iter()
                .all(|histogram| histogram.len() <= MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_schedule_is_one_that_ended_there() {
        let stages: Stages = "100:10s,100..200:10s".parse().expect("stages");
        let whole = Outline::new(Duration::from_secs(1), &stages);
        for (end_s, stretches, expected_end_s, to_rps) in [
            (5.55, 2, 5.5, 100.0),
            (16.0, 3, 16.0, 150.0),
            (21.0, 3, 21.0, 200.0),
            (99.0, 3, 21.0, 200.0),
            // Nothing that was measured: a first slot has to be there to judge.
            (0.5, 2, 1.1, 100.0),
        ] {
            let mut flow = Flow::new(whole.clone());
            flow.cut((end_s * 1e9) as u64);
            assert!(flow.is_plausible(), "{end_s}: {:?}", flow.outline);
            assert_eq!(flow.outline.stretches.len(), stretches, "{end_s}");
            let last = flow.outline.stretches[stretches - 1];
            let found = (last.end_ns as f64 / 1e9, last.to_rps);
            assert!(
                (found.0 - expected_end_s).abs() < 0.001 && (found.1 - to_rps).abs() < 0.5,
                "{end_s}: {found:?}"
            );
        }
    }

    #[test]
    fn the_share_that_ended_is_of_what_was_due_in_the_stage() {
        let mut flow = Flow::new(Outline::new(
            Duration::ZERO,
            &"10:10s".parse().expect("stages"),
        ));
        flow.slots[0].due = 10;
        flow.slots[3].ended = 4;
        assert!((flow.ended_share(1) - 0.4).abs() < 1e-9);
        flow.slots[4].ended = 20;
        assert!((flow.ended_share(1) - 1.0).abs() < 1e-9);
        assert!(flow.ended_share(7) <= 1.0);
    }
}
