//! Did the target keep up with the schedule? Pure.
//!
//! Enters: a stage's [`Flow`]. Leaves: a [`Pace`]. Must not take the ordinary variance of latency for a miss, nor let a
//! backlog hide in an average.
//!
//! A target that keeps up has latencies that do not depend on when their arrivals were due, whatever they are: a second
//! each, exponential, one in a hundred a hundred times as long. Its backlog grows at first, to the rate times the latency
//! (Little's law), and then stays. A target that is offered more than it can do has a backlog that grows for as long as
//! that lasts, whichever arrival it serves next: the oldest, the newest, any, or those of another shard. So a stage is
//! behind when all of this is true:
//!
//! 1. Since the backlog last was low, fewer answers came than the schedule asks for, by more than the objective allows,
//!    and by more than a moment's work. A random cluster of arrivals is a backlog too, but the target works it off at more
//!    than the scheduled rate.
//! 2. The backlog still grows at the end, by more than random arrivals do to one that stays: a latency that rose once
//!    makes one that stays.
//! 3. Latencies of the stage's two halves differ, by more than chance (module `trend`) and in what the lack of answers
//!    explains: long latencies that are always the same make a backlog for as long as they are.
//!
//! Besides, a target that for a second or more gave hardly any of the answers that should have come was down (module `silence`).

mod recorded;
mod silence;
mod trend;

use hdrhistogram::Histogram;

use super::flow::{Flow, Halves, Slot, Spread, Stretch};

/// Missing answers that are too few to tell anything.
const MIN_DEFICIT: f64 = 5.0;
/// Missing answers that a target makes up for in less time than this are no backlog, but latency.
const MIN_BACKLOG_S: f64 = 0.1;
/// A backlog that began later than this before the end of the stage is a hiccup, which latency shows.
const MIN_GROWTH_S: f64 = 2.0;
/// Or later than this share of a short stage.
const MIN_GROWTH_SHARE: f64 = 0.2;
/// The backlog is low when it is below this share of the way from its lowest to its last.
const LOW_SHARE: f64 = 0.1;
/// The last part of the time since then, in which the backlog has to grow still.
const LAST_PART: f64 = 0.4;
/// By this share, at least, of what it grew over all of the time.
const STILL_GROWS: f64 = 0.4;
/// And by so many standard errors: a backlog that stays is as random as the latencies are.
const MIN_GROWTH_Z: f64 = 3.0;
/// Latencies from this share of the time on that the missing answers would take are explained by them.
const MIN_EXPLAINED: f64 = 0.25;

/// Arrivals of a while in which evenly spaced ones do not look random.
const MIN_ARRIVALS: f64 = 16.0;

/// How a stage kept up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Answers came as arrivals did.
    Kept,
    /// The backlog grew.
    Behind(Backlog),
    /// Hardly any answer came for a while.
    Silent(Silence),
}

/// A backlog that grew until the end of the stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backlog {
    /// Answers over arrivals asked for, since it began to grow.
    pub share: f64,
    /// When it began, in seconds from the start of the stage.
    pub since_s: f64,
    /// Arrivals without an answer at the end of the stage.
    pub unanswered: u64,
    /// It is there without the generator's part of the latency.
    pub without_generator: bool,
    /// It is there in the service times alone.
    pub in_service: bool,
}

/// A time with hardly any answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Silence {
    /// When it began, in seconds from the start of the stage.
    pub since_s: f64,
    /// How long it was.
    pub seconds: f64,
    /// Answers that came in it.
    pub answers: u64,
    /// What did not come in it, taken from all of the stage: the share of its arrivals that is left.
    pub share: f64,
    /// The generator stood still for half of it, or longer.
    pub of_generator: bool,
}

impl Pace {
    /// Share of the scheduled rate that was answered, 1 where the target kept up.
    #[must_use]
    pub fn share(&self) -> f64 {
        match self {
            Self::Kept => 1.0,
            Self::Behind(backlog) => backlog.share,
            Self::Silent(silence) => silence.share,
        }
    }
}

/// Judges stage `number`, counted from 1, of one generator of `generators`; `min_rate` is the least share of the rate.
#[must_use]
pub fn pace(flow: &Flow, number: usize, generators: u64, min_rate: f64) -> Pace {
    let stretch = flow.outline.stretches.get(number);
    let (Some(stretch), Some(halves)) = (stretch, flow.halves.get(number)) else {
        return Pace::Kept;
    };
    let before = &flow.slots[..stretch.first_slot.min(flow.slots.len())];
    let slots = &flow.slots[before.len()..(before.len() + stretch.slots).min(flow.slots.len())];
    let stage = Stage {
        stretch,
        slots,
        halves,
        carried_over: backlog_of(before),
        generators: generators.max(1) as f64,
    };
    let backlog = match stretch.recorded_middle_ns {
        Some(_) => recorded::backlog(stretch, slots, halves, min_rate),
        None => stage.backlog(min_rate),
    };
    if let Some(backlog) = backlog {
        return Pace::Behind(backlog);
    }
    match silence::in_stage(flow, number) {
        Some(silence) if silence.share < min_rate => Pace::Silent(silence),
        _ => Pace::Kept,
    }
}

fn backlog_of(slots: &[Slot]) -> i64 {
    let sum = |count: fn(&Slot) -> u64| slots.iter().map(count).sum::<u64>().cast_signed();
    sum(|slot| slot.due) - sum(|slot| slot.ended)
}

struct Stage<'a> {
    stretch: &'a Stretch,
    slots: &'a [Slot],
    halves: &'a Halves,
    /// Backlog at its beginning.
    carried_over: i64,
    generators: f64,
}

impl Stage<'_> {
    fn backlog(&self, min_rate: f64) -> Option<Backlog> {
        let backlogs = self.backlogs();
        let (&last, &lowest) = (backlogs.last()?, backlogs.iter().min()?);
        let low = lowest as f64 + LOW_SHARE * (last - lowest) as f64;
        let since = backlogs
            .iter()
            .rposition(|&backlog| backlog as f64 <= low)?;
        let since_ns = self.stretch.slot_start_ns(since);
        let asked = self.stretch.asked(since_ns, self.stretch.end_ns) / self.generators;
        let answered = self.slots[since..]
            .iter()
            .map(|slot| slot.ended)
            .sum::<u64>() as f64;
        let deficit = asked - answered;
        let min_deficit = MIN_DEFICIT.max(MIN_BACKLOG_S * self.stretch.to_rps / self.generators);
        let min_window_s = MIN_GROWTH_S.min(MIN_GROWTH_SHARE * self.stretch.seconds());
        let window_s = (self.stretch.end_ns - since_ns) as f64 / 1e9;
        let slot_s = self.stretch.seconds() / self.slots.len().max(1) as f64;
        if deficit < min_deficit
            || answered >= min_rate * asked
            || window_s < min_window_s
            || !self.still_grows(&backlogs[since..], answered / window_s * slot_s)
        {
            return None;
        }
        // How long the missing answers would have taken at the scheduled rate.
        let explained_us = (deficit / asked * window_s * 1e6 * MIN_EXPLAINED) as u64;
        let changed = |of: fn(&Spread) -> &Histogram<u64>| {
            let (early, late) = (of(&self.halves.early), of(&self.halves.late));
            trend::differ(early, late, explained_us)
        };
        changed(|spread| &spread.latency_us).then(|| Backlog {
            share: answered / asked,
            since_s: (since_ns - self.stretch.start_ns) as f64 / 1e9,
            unanswered: last.max(0).unsigned_abs(),
            without_generator: changed(|spread| &spread.undelayed_us),
            in_service: changed(|spread| &spread.service_us),
        })
    }

    /// Backlog at the beginning of each slot, and at the end of the last one.
    fn backlogs(&self) -> Vec<i64> {
        let mut backlog = self.carried_over;
        let mut backlogs = vec![backlog];
        for slot in self.slots {
            backlog += slot.due.cast_signed() - slot.ended.cast_signed();
            backlogs.push(backlog);
        }
        backlogs
    }

    /// Whether a backlog that was low at first grew until the end. `answers` is how many come in a slot.
    ///
    /// A latency that rose once makes one that grows for as long as that latency is (Little's law), and then stays. So it
    /// has to grow in the last part, and in all that comes after that time, by more than chance: what waits at two moments
    /// is not independent before all of it has been answered once, and the few independent values of a last part can lie
    /// in a line. But what waits is at least as random as the arrivals of the time that it waits for.
    fn still_grows(&self, backlogs: &[i64], answers: f64) -> bool {
        let (Some(first), Some(last)) = (backlogs.first(), backlogs.last()) else {
            return false;
        };
        let slots_waited = *last as f64 / answers.max(1e-9);
        let last_part = (backlogs.len() as f64 * (1.0 - LAST_PART)) as usize;
        let even = (last - first) as f64 * LAST_PART;
        let part = Line::through(&backlogs[last_part..]);
        let after = Line::through(&backlogs[last_part.min(slots_waited as usize)..]);
        let random = self.dispersion() * *last as f64;
        part.grown >= STILL_GROWS * even
            && part.grown > MIN_GROWTH_Z * part.error(slots_waited, 0.0)
            && after.grown > MIN_GROWTH_Z * after.error(slots_waited, random)
    }

    /// How random the arrivals are: the variance of their number in a while over that number (the index of dispersion), 0
    /// where they are evenly spaced, and 1 where they are Poisson's.
    fn dispersion(&self) -> f64 {
        let asked = self
            .stretch
            .asked(self.stretch.start_ns, self.stretch.end_ns)
            / self.generators;
        let asked_in_slot = asked / self.slots.len().max(1) as f64;
        let width = (MIN_ARRIVALS / asked_in_slot.max(1e-9)).ceil().max(1.0) as usize;
        let mut squares = 0.0;
        let whiles = self.slots.chunks_exact(width);
        let count = whiles.len().max(1) as f64;
        for (place, slots) in whiles.enumerate() {
            let start_ns = |slot| self.stretch.slot_start_ns(slot);
            let (from_ns, to_ns) = (start_ns(place * width), start_ns((place + 1) * width));
            let due = slots.iter().map(|slot| slot.due).sum::<u64>() as f64;
            let expected = self.stretch.asked(from_ns, to_ns) / self.generators;
            squares += (due - expected).powi(2) / expected.max(1.0);
        }
        squares / count
    }
}

/// A line through backlogs, by least squares.
struct Line {
    backlogs: f64,
    /// From its first to its last.
    grown: f64,
    /// Of the backlogs around it.
    variance: f64,
}

impl Line {
    fn through(backlogs: &[i64]) -> Self {
        let count = backlogs.len() as f64;
        let middle = (count - 1.0) / 2.0;
        let mean = backlogs.iter().sum::<i64>() as f64 / count;
        let places = || (0..backlogs.len()).map(|place| place as f64 - middle);
        let spread: f64 = places().map(|x| x * x).sum();
        let values = || backlogs.iter().map(|&backlog| backlog as f64 - mean);
        let slope = places().zip(values()).map(|(x, y)| x * y).sum::<f64>() / spread.max(1.0);
        let residuals = places().zip(values()).map(|(x, y)| (y - slope * x).powi(2));
        Self {
            backlogs: count,
            grown: slope * count,
            variance: residuals.sum::<f64>() / count,
        }
    }

    /// Standard error of how much it grew, when only every so manieth backlog is independent, and none varies by less.
    fn error(&self, slots_waited: f64, min_variance: f64) -> f64 {
        let independent = (self.backlogs / (1.0 + 2.0 * slots_waited)).max(1.0);
        // Of a slope times its length: the variance of evenly spread places is a twelfth of that squared.
        (12.0 * self.variance.max(min_variance) / independent).sqrt()
    }
}

#[cfg(test)]
mod tests;
