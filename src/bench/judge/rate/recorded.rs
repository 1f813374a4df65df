//! Did the target keep up with a recorded load? Pure.
//!
//! Enters: what was due and what ended over the one stage of a replay. Leaves: a [`Backlog`], or none. Must not take a burst of
//! the log for a backlog, nor the quiet after it for keeping up.
//!
//! The rate of a log changes as it likes, so what waits grows and shrinks with it, whatever the target does. Age is what
//! tells: how long ago the arrival was due whose answer comes next, were they answered in order. A target that keeps up has an
//! age of about its latency (Little's law), in a burst as in the quiet; one that does not has an age that rises for as long as
//! it serves what came faster than it can. A target is behind when all of this is true:
//!
//! 1. At the end of the log its age is a second above its lowest, or a tenth of a short log.
//! 2. Of what waited when its age last was low, and what was due since, so much is not answered that it is more than the
//!    objective allows, and more than a moment's work.
//! 3. Latencies of the log's two halves differ, as of any other load: long latencies that are always the same make age too.

use hdrhistogram::Histogram;

use super::trend;
use super::{Backlog, LOW_SHARE, MIN_BACKLOG_S, MIN_DEFICIT, MIN_EXPLAINED};
use crate::bench::judge::flow::{Halves, Slot, Spread, Stretch};

/// A smaller age is a hiccup, which latency shows.
const MIN_AGE_S: f64 = 1.0;
/// Of a short log, in shares of its length.
const MIN_AGE_SHARE: f64 = 0.1;

/// The backlog that is there at the end, if it is one.
pub(super) fn backlog(
    stretch: &Stretch,
    slots: &[Slot],
    halves: &Halves,
    min_rate: f64,
) -> Option<Backlog> {
    let each_s = stretch.seconds() / slots.len().max(1) as f64;
    let (due, ended) = (sums(slots, |slot| slot.due), sums(slots, |slot| slot.ended));
    let ages_s: Vec<f64> = ages(&due, &ended).map(|age| age * each_s).collect();
    let last_s = *ages_s.last()?;
    let lowest_s = ages_s.iter().copied().min_by(f64::total_cmp)?;
    let risen_s = last_s - lowest_s;
    let low_s = lowest_s + LOW_SHARE * risen_s;
    let since = ages_s.iter().rposition(|&age_s| age_s <= low_s)?;
    // What waited then was to be answered too: a burst may lie before it.
    let asked = due[slots.len()].saturating_sub(ended[since]) as f64;
    let answered = (ended[slots.len()] - ended[since]) as f64;
    let mean_rps = due[slots.len()] as f64 / stretch.seconds().max(1e-9);
    if risen_s < MIN_AGE_S.min(MIN_AGE_SHARE * stretch.seconds())
        || asked - answered < MIN_DEFICIT.max(MIN_BACKLOG_S * mean_rps)
        || answered >= min_rate * asked
    {
        return None;
    }
    let explained_us = (risen_s * 1e6 * MIN_EXPLAINED) as u64;
    let changed = |of: fn(&Spread) -> &Histogram<u64>| {
        trend::differ(of(&halves.early), of(&halves.late), explained_us)
    };
    changed(|spread| &spread.latency_us).then(|| Backlog {
        share: answered / asked,
        since_s: since as f64 * each_s,
        unanswered: due[slots.len()].saturating_sub(ended[slots.len()]),
        without_generator: changed(|spread| &spread.undelayed_us),
        in_service: changed(|spread| &spread.service_us),
    })
}

/// Counts up to the beginning of each slot, and to the end of the last one.
fn sums(slots: &[Slot], count: fn(&Slot) -> u64) -> Vec<u64> {
    let mut sum = 0;
    let mut sums = vec![0];
    for slot in slots {
        sum += count(slot);
        sums.push(sum);
    }
    sums
}

/// Of each of those moments: how many slots ago as many arrivals were due as have ended by then.
fn ages(due: &[u64], ended: &[u64]) -> impl Iterator<Item = f64> {
    let mut from = 0;
    ended.iter().enumerate().map(move |(now, &ended)| {
        if ended >= due[now] {
            return 0.0;
        }
        // Both only grow, so the place does too; it ends before `now`, where more are due.
        while due[from + 1] <= ended {
            from += 1;
        }
        let within = (ended - due[from]) as f64 / (due[from + 1] - due[from]) as f64;
        now as f64 - (from as f64 + within)
    })
}

#[cfg(test)]
mod tests;
