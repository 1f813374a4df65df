//! Was there a time with hardly any answers? Pure.
//!
//! Enters: the [`Flow`] of a whole run. Leaves: the worst [`Silence`] of a stage. Must not take latency for silence: which
//! answers should have come follows from the arrivals and from how long they took over the whole run.

use std::ops::Range;

use hdrhistogram::Histogram;

use super::Silence;
use crate::bench::judge::flow::{Flow, Slot, Stretch};
use crate::bench::judge::histogram::{add, histogram};

/// Time is cut into pieces of this length, or longer where a run would have more than [`MAX_PIECES`].
const PIECE_NS: u64 = 100_000_000;
const MAX_PIECES: u64 = 2_000;
/// A shorter one is a hiccup, which latency shows.
const MIN_SILENCE_NS: u64 = 1_000_000_000;
/// Hardly any answers: at most this share of what should have come.
const HARDLY: f64 = 0.25;
/// Nats of evidence: of answers that come independently, one silence in 10^11 is by chance.
const MIN_EVIDENCE: f64 = 25.0;

/// The worst silence whose larger part fell into this stage.
pub(super) fn in_stage(flow: &Flow, number: usize) -> Option<Silence> {
    let gaps = Pieces::of(flow)?.gaps().into_iter();
    let worst = gaps
        .filter(|gap| stage_of(flow, gap) == Some(number))
        .max_by(|one, other| one.lack().total_cmp(&other.lack()))?;
    let stretch = &flow.outline.stretches[number];
    let slots = slots_of(flow, stretch);
    let due: u64 = slots.iter().map(|slot| slot.due).sum();
    let during = |place: &usize| {
        let (start, end) = (
            stretch.slot_start_ns(*place),
            stretch.slot_start_ns(place + 1),
        );
        start < worst.end_ns && end > worst.start_ns
    };
    let stood_still_us = (0..slots.len())
        .filter(during)
        .map(|place| slots[place].max_lag_us)
        .max();
    let length_ns = worst.end_ns - worst.start_ns;
    Some(Silence {
        since_s: worst.start_ns.saturating_sub(stretch.start_ns) as f64 / 1e9,
        seconds: length_ns as f64 / 1e9,
        answers: worst.came as u64,
        share: (1.0 - worst.lack() / due.max(1) as f64).max(0.0),
        of_generator: stood_still_us.unwrap_or(0) * 1_000 >= length_ns / 2,
    })
}

fn slots_of<'a>(flow: &'a Flow, stretch: &Stretch) -> &'a [Slot] {
    let slots = flow
        .slots
        .get(stretch.first_slot..stretch.first_slot + stretch.slots);
    slots.unwrap_or_default()
}

/// The stretch that most of it fell into.
fn stage_of(flow: &Flow, gap: &Gap) -> Option<usize> {
    let shared_ns = |stretch: &Stretch| {
        let end_ns = stretch.end_ns.min(gap.end_ns);
        end_ns.saturating_sub(stretch.start_ns.max(gap.start_ns))
    };
    let stretches = flow.outline.stretches.iter().enumerate();
    stretches
        .max_by_key(|(_, stretch)| shared_ns(stretch))
        .map(|(number, _)| number)
}

/// A time between two moments.
struct Gap {
    start_ns: u64,
    end_ns: u64,
    /// Answers that should have come.
    expected: f64,
    came: f64,
}

impl Gap {
    fn lack(&self) -> f64 {
        self.expected - self.came
    }

    /// It is long, nearly empty, and by the bound of Chernoff for Poisson's distribution no chance.
    fn is_silent(&self) -> bool {
        let Self { expected, came, .. } = *self;
        let by_chance = if came > 0.0 {
            came * (came / expected).ln()
        } else {
            0.0
        };
        self.end_ns - self.start_ns >= MIN_SILENCE_NS
            && came <= HARDLY * expected
            && expected - came + by_chance >= MIN_EVIDENCE
    }
}

/// The run in pieces of equal length.
struct Pieces {
    length_ns: u64,
    /// Answers that should have come in each.
    expected: Vec<f64>,
    came: Vec<f64>,
    /// Of a log, in which a burst can be most of what is expected of a window, and its latency no silence.
    is_recorded: bool,
}

impl Pieces {
    /// `None` when nothing has ended.
    fn of(flow: &Flow) -> Option<Self> {
        let latency_us = latencies(flow);
        let end_ns = flow.outline.stretches.last()?.end_ns;
        if latency_us.is_empty() {
            return None;
        }
        let length_ns = PIECE_NS.max(end_ns.div_ceil(MAX_PIECES));
        let count = end_ns.div_ceil(length_ns) as usize;
        let (mut due, mut came) = (vec![0.0; count], vec![0.0; count]);
        for stretch in &flow.outline.stretches {
            for (place, slot) in slots_of(flow, stretch).iter().enumerate() {
                let piece = (stretch.slot_start_ns(place) / length_ns) as usize;
                due[piece] += slot.due as f64;
                came[piece] += slot.ended as f64;
            }
        }
        let shares = shares(&latency_us, length_ns, count);
        let expected = (0..count).map(|piece| {
            let ends = |(one, due): (usize, &f64)| due * shares[piece - one];
            due[..=piece].iter().enumerate().map(ends).sum()
        });
        let mut stretches = flow.outline.stretches.iter();
        Some(Self {
            length_ns,
            expected: expected.collect(),
            came,
            is_recorded: stretches.any(|stretch| stretch.recorded_middle_ns.is_some()),
        })
    }

    fn gap(&self, pieces: &Range<usize>) -> Gap {
        Gap {
            start_ns: pieces.start as u64 * self.length_ns,
            end_ns: pieces.end as u64 * self.length_ns,
            expected: self.expected[pieces.clone()].iter().sum(),
            came: self.came[pieces.clone()].iter().sum(),
        }
    }

    /// Where windows of a second, of two, of four … are silent, those that touch each other as one.
    fn gaps(&self) -> Vec<Gap> {
        let count = self.came.len();
        let mut is_silent = vec![false; count];
        let mut length = MIN_SILENCE_NS.div_ceil(self.length_ns) as usize;
        while length <= count {
            for start in 0..=count - length {
                let window = start..start + length;
                if self.gap(&window).is_silent() && self.is_throughout(&window) {
                    is_silent[window].fill(true);
                }
            }
            length *= 2;
        }
        let mut places = 0..count;
        let mut gaps = Vec::new();
        while let Some(start) = places.find(|&place| is_silent[place]) {
            let end = places.find(|&place| !is_silent[place]).unwrap_or(count);
            let gap = self.gap(&self.trimmed(start..end));
            // Windows end between two pieces, and the silence within one.
            if gap.end_ns - gap.start_ns + self.length_ns >= MIN_SILENCE_NS {
                gaps.push(gap);
            }
        }
        gaps
    }

    /// Of a log: in each quarter of a window answers should have come, and hardly any did. Between two bursts there are none
    /// to come.
    fn is_throughout(&self, window: &Range<usize>) -> bool {
        let edge = |quarter: usize| window.start + window.len() * quarter / 4;
        !self.is_recorded
            || (0..4).all(|quarter| {
                let Gap { expected, came, .. } = self.gap(&(edge(quarter)..edge(quarter + 1)));
                expected >= 1.0 && came <= HARDLY * expected
            })
    }

    /// Without what a window took in before and behind.
    fn trimmed(&self, pieces: Range<usize>) -> Range<usize> {
        let is_empty = |place: &usize| self.came[*place] <= HARDLY * self.expected[*place];
        let start = pieces.clone().find(is_empty).unwrap_or(pieces.start);
        let last = pieces.clone().rfind(is_empty);
        start..last.map_or(pieces.end, |last| last + 1)
    }
}

/// Of all stages.
fn latencies(flow: &Flow) -> Histogram<u64> {
    let mut all = histogram();
    for halves in &flow.halves {
        add(&mut all, &halves.early.latency_us);
        add(&mut all, &halves.late.latency_us);
    }
    all
}

/// The share of arrivals that end in their own piece, in the next one, and so on; they are due in the middle of theirs.
fn shares(latency_us: &Histogram<u64>, length_ns: u64, count: usize) -> Vec<f64> {
    let all = latency_us.len() as f64;
    let mut values = latency_us.iter_recorded().peekable();
    let mut shares = vec![0.0; count];
    for (place, share) in shares.iter_mut().enumerate() {
        let end_us = (place as u64 * length_ns + length_ns / 2) / 1_000;
        while let Some(value) = values.next_if(|value| value.value_iterated_to() < end_us) {
            *share += value.count_since_last_iteration() as f64 / all;
        }
    }
    shares
}
