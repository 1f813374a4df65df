//! What several runs at different rates come to together. Pure.
//!
//! Enters: the results of each. Leaves: [`Try`]s, [`Study`], the knee of a curve. Must not print.

use super::results::{Bounds, Conditions, Percentiles, Results};
use super::verdict::Verdict;

/// The version of [`Study`].
const SCHEMA: u32 = 1;
/// How far the knee has to stand out from the straight line, as a share of the curve's height.
const LEAST_BEND: f64 = 0.1;
/// A curve whose largest value is less than so many times its least is flat.
const LEAST_RISE: f64 = 2.0;

/// One run of a study: what is worth keeping of its results.
#[derive(Debug, serde::Serialize)]
pub(in crate::bench) struct Try {
    /// Requests per second that it asked for.
    pub(in crate::bench) rate_rps: f64,
    pub(in crate::bench) verdict: Verdict,
    pub(in crate::bench) reason: String,
    /// Why its schedule was cut short.
    pub(in crate::bench) ended_early: Option<String>,
    /// When its schedule began; RFC 3339.
    pub(in crate::bench) started_at: String,
    pub(in crate::bench) achieved_rps: f64,
    pub(in crate::bench) key_ops_per_second: f64,
    /// Arrivals that were not answered well, as a share of the scheduled ones.
    pub(in crate::bench) failed_share: f64,
    pub(in crate::bench) latency_us: Percentiles,
    pub(in crate::bench) lag_us: Percentiles,
}

impl Try {
    pub(in crate::bench) fn of(rate_rps: f64, results: Results) -> Self {
        let ledger = &results.requests.ledger;
        Self {
            rate_rps,
            verdict: results.verdict,
            reason: results.reason,
            ended_early: results.evidence.ended_early,
            started_at: results.conditions.started_at,
            achieved_rps: results.rate.achieved_rps,
            key_ops_per_second: results.rate.key_ops_per_second,
            failed_share: ledger.failed() as f64 / ledger.scheduled.max(1) as f64,
            latency_us: results.latency_us,
            lag_us: results.lag_us,
        }
    }
}

/// What a study found; its JSON file is exactly this.
#[derive(Debug, serde::Serialize)]
pub(in crate::bench) struct Study {
    /// Version of this form: it changes when a member goes or changes its meaning, not when one is added.
    pub(in crate::bench) schema: u32,
    /// `find-max` or `sweep`.
    #[serde(rename = "study")]
    pub(in crate::bench) name: &'static str,
    /// In a sentence.
    pub(in crate::bench) summary: String,
    /// It was stopped by hand; what was found until then is here.
    pub(in crate::bench) interrupted: bool,
    #[serde(flatten)]
    pub(in crate::bench) finding: Finding,
    /// What each try needed for a PASS.
    pub(in crate::bench) objectives: Option<Bounds>,
    /// Of the first try; the others differ in their rate and start.
    pub(in crate::bench) conditions: Option<Conditions>,
    /// In the order in which they were made.
    pub(in crate::bench) tries: Vec<Try>,
}

/// The figures of a study.
#[derive(Debug, Default, serde::Serialize)]
pub(in crate::bench) struct Finding {
    /// Of a search, its answer; of a sweep, the highest rate up to which all passed.
    pub(in crate::bench) highest_passing_rps: Option<f64>,
    /// Where the limit lies, with a probability of 90 %.
    pub(in crate::bench) interval_rps: Option<(f64, f64)>,
    /// What kept a search from a higher rate: `target`, `generator`, `nothing`.
    pub(in crate::bench) ended_by: Option<&'static str>,
    /// Where latency p99 begins to run away.
    pub(in crate::bench) knee_rps: Option<f64>,
}

impl Study {
    pub(in crate::bench) fn new(
        name: &'static str,
        first: Option<(Bounds, Conditions)>,
        tries: Vec<Try>,
    ) -> Self {
        let (objectives, conditions) = first.unzip();
        Self {
            schema: SCHEMA,
            name,
            summary: String::new(),
            interrupted: false,
            finding: Finding {
                knee_rps: knee(&by_rate(&tries, |one| one.latency_us.p99)),
                ..Finding::default()
            },
            objectives,
            conditions,
            tries,
        }
    }
}

/// A figure by rate, rising; of several tries of one rate their median, the lower of two.
pub(in crate::bench) fn by_rate(tries: &[Try], figure: fn(&Try) -> u64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, u64)> = tries
        .iter()
        .map(|one| (one.rate_rps, figure(one)))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let rates = points.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq());
    let medians = rates.filter_map(|same| same.get((same.len() - 1) / 2));
    medians.map(|&(rate, value)| (rate, value as f64)).collect()
}

/// Where a curve that rises more and more bends away from the straight line between its ends, by the greatest
/// distance: the Kneedle criterion (Satopää, Albrecht, Irwin, Raghavan, "Finding a 'Kneedle' in a Haystack", ICDCS
/// Workshops 2011), without its smoothing. `None` for a curve that is flat or straight.
pub(in crate::bench) fn knee(points: &[(f64, f64)]) -> Option<f64> {
    let (begin, end) = (points.first()?, points.last()?);
    let values = || points.iter().map(|point| point.1);
    let (least, most) = (
        values().fold(f64::INFINITY, f64::min),
        values().fold(0.0, f64::max),
    );
    if points.len() < 3 || most < least * LEAST_RISE {
        return None;
    }
    let bend = |&(rate, value): &(f64, f64)| {
        (rate - begin.0) / (end.0 - begin.0) - (value - least) / (most - least)
    };
    let knee = points.iter().max_by(|a, b| bend(a).total_cmp(&bend(b)))?;
    (bend(knee) >= LEAST_BEND).then_some(knee.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_knee_is_the_last_rate_before_latency_runs_away() {
        for (values, expected) in [
            (&[1.0, 1.1, 1.3, 2.0, 5_000.0][..], Some(4.0)),
            (&[1.0, 1.1, 40.0, 90.0, 5_000.0], Some(4.0)),
            (&[1.0, 1.0, 1.0, 100.0, 200.0], Some(3.0)),
            (&[1.0, 2.0, 4.0, 8.0, 16.0], Some(3.0)),
            // Straight, flat, and too short to have one.
            (&[1.0, 2.0, 3.0, 4.0, 5.0], None),
            (&[1.0, 1.2, 0.9, 1.1, 1.0], None),
            (&[1.0, 100.0], None),
            (&[], None),
        ] {
            let points: Vec<(f64, f64)> =
                (1..).map(f64::from).zip(values.iter().copied()).collect();
            assert_eq!(knee(&points), expected, "{values:?}");
        }
    }
}
