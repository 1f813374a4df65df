//! A run as its JSON tells it: what is compared, and under which conditions it holds. Pure.
//!
//! Enters: the JSON of a run, or of a study by `--repeat`. Leaves: [`Run`]s. Must not take what is no whole run.

use anyhow::{Context as _, bail};

use super::evidence::Generator;
use super::ledger::Ledger;
use super::results::{Conditions, SCHEMA};
use super::verdict::Verdict;
use crate::figures::Figure;

/// One number for each of [`Figure::ALL`].
pub(in crate::bench) type Figures = [f64; Figure::ALL.len()];

/// What is kept of a run.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(try_from = "Form")]
pub(in crate::bench) struct Run {
    pub(in crate::bench) verdict: Verdict,
    pub(in crate::bench) reason: String,
    /// Why its schedule was cut short.
    pub(in crate::bench) ended_early: Option<String>,
    pub(in crate::bench) figures: Figures,
    pub(in crate::bench) conditions: Conditions,
}

/// The members that are needed.
#[derive(serde::Deserialize)]
struct Form {
    schema: u32,
    verdict: Verdict,
    reason: String,
    requests: Ledger,
    rate: Reached,
    latency_us: Latency,
    generator: Generator,
    conditions: Conditions,
    evidence: Ending,
}

#[derive(serde::Deserialize)]
struct Reached {
    achieved_rps: f64,
}

#[derive(serde::Deserialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    mean: f64,
}

#[derive(serde::Deserialize)]
struct Ending {
    ended_early: Option<String>,
}

impl TryFrom<Form> for Run {
    type Error = String;

    fn try_from(form: Form) -> Result<Self, String> {
        if form.schema != SCHEMA {
            return Err(format!("a run has schema {}, not {SCHEMA}", form.schema));
        }
        let Ledger { scheduled, ok, .. } = form.requests;
        let latency = form.latency_us;
        let figure = |figure| match figure {
            Figure::P50 => latency.p50,
            Figure::P90 => latency.p90,
            Figure::P99 => latency.p99,
            Figure::P999 => latency.p999,
            Figure::Mean => latency.mean,
            Figure::Rate => form.rate.achieved_rps,
            Figure::Errors => scheduled.saturating_sub(ok) as f64 / scheduled.max(1) as f64,
            Figure::Cpu => form.generator.cpu_us_per_request,
        };
        let figures = Figure::ALL.map(figure);
        if figures.iter().any(|&value| value < 0.0) {
            return Err("a figure of a run is below 0".into());
        }
        Ok(Self {
            verdict: form.verdict,
            reason: form.reason,
            ended_early: form.evidence.ended_early,
            figures,
            conditions: form.conditions,
        })
    }
}

/// The runs of a file: one, or those of a study.
///
/// # Errors
/// When it is neither.
pub(in crate::bench) fn runs(text: &str) -> anyhow::Result<Vec<Run>> {
    #[derive(serde::Deserialize)]
    struct Head {
        study: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct Study {
        runs: Vec<Run>,
    }
    let what = "it is no result of kvpoc bench, or of a version that cannot be compared";
    let head: Head = serde_json::from_str(text).context(what)?;
    match head.study.as_deref() {
        None => Ok(vec![serde_json::from_str(text).context(what)?]),
        Some("repeat") => {
            let study: Study = serde_json::from_str(text).context(what)?;
            if study.runs.is_empty() {
                bail!("no run of it was finished");
            }
            Ok(study.runs)
        }
        Some(other) => {
            bail!("it is the study {other:?}; compare single runs, and those of --repeat")
        }
    }
}
