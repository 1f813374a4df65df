//! The tries of a study, one after the other.
//!
//! Enters: a prepared target and the rate of each try. Leaves: [`Try`]s, a row of the table for each, and in the end
//! the study's files. Must not begin a try while the target has work of the one before.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::once::Bench;
use crate::bench::judge::results::{Bounds, Conditions};
use crate::bench::judge::tries::{Study, Try};
use crate::bench::judge::verdict::Verdict;
use crate::bench::report::by_rate::{StudyFiles, row};
use crate::config::BenchConfig;
use crate::exit;
use crate::load::Stages;
use crate::units::Rate;

/// The pause between two tries: twice the latency p99 of the last one, within these bounds. The generator has no
/// unanswered arrival any more by then, but behind a target that was given more than it holds there may be work that
/// nobody waits for any longer.
const LEAST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// So many times that after a try that did not pass.
const PAUSE_AFTER_A_MISS: u32 = 2;

/// How a try went.
pub(super) enum Tried {
    /// It counts, with this verdict.
    Counts(Verdict),
    /// Its figures say nothing, and neither would those of the next one.
    Invalid(String),
    /// The stop signal came; it does not count.
    Interrupted,
}

/// Makes tries and keeps them.
pub(super) struct Runner<'a> {
    bench: Bench<'a>,
    stop: &'a CancellationToken,
    name: &'static str,
    files: StudyFiles,
    /// Objectives and conditions of the first try.
    first: Option<(Bounds, Conditions)>,
    pub(super) tries: Vec<Try>,
}

impl<'a> Runner<'a> {
    /// `name` is the study's, as it is typed. What is asked for in files must be writable before the first try.
    pub(super) async fn prepare(
        config: &'a BenchConfig,
        name: &'static str,
        stop: &'a CancellationToken,
    ) -> anyhow::Result<Self> {
        let files = StudyFiles::create(&config.outputs, name)?;
        let bench = Bench::prepare(config).await?;
        bench.announce();
        Ok(Self {
            bench,
            stop,
            name,
            files,
            first: None,
            tries: Vec::new(),
        })
    }

    /// One try, begun when the target is quiet again.
    pub(super) async fn attempt(&mut self, rate: Rate) -> anyhow::Result<Tried> {
        self.rest().await;
        if self.stop.is_cancelled() {
            return Ok(Tried::Interrupted);
        }
        let stages = Stages::steady(rate, self.bench.config.stages.duration());
        let (results, _) = self.bench.measure(&stages, self.stop).await?;
        if self.stop.is_cancelled() {
            return Ok(Tried::Interrupted);
        }
        if self.first.is_none() {
            let objectives = results.evidence.objectives.clone();
            self.first = Some((objectives, results.conditions.clone()));
        }
        let one = Try::of(rate.per_second(), results);
        self.files.json.show(&row(&one));
        let tried = match one.verdict {
            Verdict::Invalid => Tried::Invalid(one.reason.clone()),
            verdict => Tried::Counts(verdict),
        };
        self.tries.push(one);
        Ok(tried)
    }

    /// Leaves the target alone for a while, unless the stop signal comes.
    async fn rest(&self) {
        let Some(last) = self.tries.last() else {
            return;
        };
        let pause = pause_after(last.latency_us.p99, last.verdict == Verdict::Pass);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Writes what was found, says it, and gives the exit code: `code`, unless an end before its time has one.
    pub(super) fn conclude(
        mut self,
        end: Option<&anyhow::Result<Tried>>,
        code: u8,
        finding: impl FnOnce(&mut Study),
    ) -> anyhow::Result<u8> {
        let tries = std::mem::take(&mut self.tries);
        let mut study = Study::new(self.name, self.first.take(), tries);
        finding(&mut study);
        let (before, code) = match end {
            Some(Ok(Tried::Interrupted)) => ("Interrupted; so far: ".into(), exit::INTERRUPTED),
            Some(Ok(Tried::Invalid(reason))) => (
                format!("Stopped by an INVALID try: {reason}; until then: "),
                Verdict::Invalid.exit_code(),
            ),
            Some(Err(_)) => (
                "Stopped by an error; until then: ".into(),
                exit::UNAVAILABLE,
            ),
            _ => (String::new(), code),
        };
        study.interrupted = code == exit::INTERRUPTED;
        study.summary.insert_str(0, &before);
        self.files.json.show(&format!("{}\n", study.summary));
        self.files.write(&study)?;
        Ok(code)
    }
}

/// How long to leave a target alone after a run.
pub(super) fn pause_after(p99_us: u64, passed: bool) -> Duration {
    let pause = (2 * Duration::from_micros(p99_us)).clamp(LEAST_PAUSE, LONGEST_PAUSE);
    if passed {
        pause
    } else {
        pause * PAUSE_AFTER_A_MISS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_target_is_left_alone_for_longer_and_an_overloaded_one_for_longer_still() {
        for (p99_us, passed, expected_ms) in [
            (1_000, true, 500),
            (1_000, false, 1_000),
            (1_000_000, true, 2_000),
            (3_600_000_000, true, 5_000),
            (3_600_000_000, false, 10_000),
        ] {
            let expected = Duration::from_millis(expected_ms);
            assert_eq!(pause_after(p99_us, passed), expected, "{p99_us}");
        }
    }
}
