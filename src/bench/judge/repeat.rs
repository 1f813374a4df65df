//! What several runs of one load come to. Pure.
//!
//! Enters: the runs. Leaves: a [`Repeat`], which is the JSON of the study. Must not count a run whose figures say nothing.

use serde_json::Value;

use super::run::Run;
use super::statistics::spread::{Spread, ranks};
use super::verdict::Verdict;
use crate::figures::Figure;

/// The version of [`Repeat`].
const SCHEMA: u32 = 1;

/// The study; the JSON file is exactly this.
#[derive(Debug, serde::Serialize)]
pub(in crate::bench) struct Repeat {
    /// Version of this form.
    schema: u32,
    /// `repeat`.
    study: &'static str,
    /// The worst of the runs; `null` where none was finished.
    pub(in crate::bench) verdict: Option<Verdict>,
    /// Why.
    pub(in crate::bench) reason: String,
    /// It was stopped before its last run ended.
    pub(in crate::bench) interrupted: bool,
    #[serde(rename = "repeat")]
    pub(in crate::bench) summary: Summary,
    /// Each run, whole, in the order in which they were made.
    runs: Vec<Value>,
}

/// The figures over all runs that are not INVALID.
#[derive(Debug, serde::Serialize)]
pub(in crate::bench) struct Summary {
    /// Runs that were asked for.
    asked: u32,
    /// Runs whose figures these are.
    pub(in crate::bench) runs: usize,
    /// The least pause between two runs.
    pause_s: f64,
    /// How sure the intervals are: 0.95 or more of six runs and more; `null` where there are none.
    pub(in crate::bench) confidence: Option<f64>,
    /// Times are microseconds.
    pub(in crate::bench) figures: Spreads,
}

/// A spread for each figure, in their order; none without runs.
#[derive(Debug)]
pub(in crate::bench) struct Spreads(pub(in crate::bench) Vec<(Figure, Spread)>);

impl serde::Serialize for Spreads {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(
            self.0
                .iter()
                .map(|(figure, spread)| (figure.member(), spread)),
        )
    }
}

impl Repeat {
    /// Of runs, each with its whole JSON.
    pub(in crate::bench) fn of(runs: Vec<(Run, Value)>, asked: u32, pause_s: f64) -> Self {
        let (read, whole): (Vec<Run>, Vec<Value>) = runs.into_iter().unzip();
        let worst = read
            .iter()
            .enumerate()
            // The first of those that are as bad.
            .rev()
            .max_by_key(|(_, run)| badness(run.verdict));
        let all = read.len();
        let reason = match worst {
            None => "no run was finished".into(),
            Some((_, run)) if run.verdict == Verdict::Pass => format!("all {all} runs"),
            Some((place, run)) => format!("run {} of {all}: {}", place + 1, run.reason),
        };
        let counts = |run: &&Run| run.verdict != Verdict::Invalid;
        let counted = || read.iter().filter(counts);
        let spread = |(place, figure): (usize, Figure)| {
            let values: Vec<f64> = counted().map(|run| run.figures[place]).collect();
            Some((figure, Spread::of(&values)?))
        };
        let figures = Figure::ALL.into_iter().enumerate().filter_map(spread);
        Self {
            schema: SCHEMA,
            study: "repeat",
            verdict: worst.map(|(_, run)| run.verdict),
            reason,
            interrupted: false,
            summary: Summary {
                asked,
                runs: counted().count(),
                pause_s,
                confidence: ranks(counted().count()).map(|(_, confidence)| confidence),
                figures: Spreads(figures.collect()),
            },
            runs: whole,
        }
    }
}

/// In the order in which a run is judged: what makes figures worthless, then what the target missed, then what says
/// nothing of it.
fn badness(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => 0,
        Verdict::GeneratorLimited => 1,
        Verdict::TargetMissed => 2,
        Verdict::Invalid => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_target_missed_weighs_more_than_what_says_nothing_of_it() {
        use Verdict::{GeneratorLimited, Invalid, Pass, TargetMissed};
        let order = [Pass, GeneratorLimited, TargetMissed, Invalid];
        assert!(order.is_sorted_by_key(|&verdict| badness(verdict)));
    }

    #[test]
    fn a_study_without_a_run_has_no_verdict_and_no_figures() {
        let study = Repeat::of(Vec::new(), 5, 2.0);
        assert_eq!((study.verdict, study.summary.runs), (None, 0));
        let json = serde_json::to_value(&study).expect("JSON");
        assert_eq!(json["repeat"]["figures"], serde_json::json!({}));
    }
}
