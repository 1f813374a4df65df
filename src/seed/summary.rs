//! What one run came to, as JSON and as text.
//!
//! Enters: what was loaded and verified. Leaves: the summary. Must not call complete what is not.

use super::start::heals;
use super::verify::Verification;
use super::{Loaded, advice};
use crate::config::{SeedConfig, SeedMode};
use crate::record::Format;
use crate::store::StoreStats;
use crate::units::{grouped, human_bytes};
use std::fmt::Write as _;

/// What one run came to.
#[derive(Debug, serde::Serialize)]
pub(super) struct Summary {
    /// `complete`, `interrupted` or `failed`.
    pub(super) outcome: Outcome,
    pub(super) store: String,
    /// What the values are: `record`, `json` or `raw`.
    pub(super) format: Format,
    pub(super) keys_asked: u64,
    /// Positions below it are acknowledged, in this run or before.
    #[serde(skip)]
    pub(super) reached: u64,
    /// The dataset is another run's by now.
    #[serde(skip)]
    pub(super) was_overtaken: bool,
    /// Indexes below it were acknowledged in an earlier run, and not loaded again.
    pub(super) resumed_from: u64,
    /// Acknowledged in this run, those that were lost and loaded again counted each time.
    pub(super) keys_acknowledged: u64,
    /// So many of them the store had lost meanwhile.
    pub(super) keys_loaded_again: u64,
    pub(super) bytes_acknowledged: u64,
    pub(super) elapsed_s: f64,
    pub(super) keys_per_second: f64,
    pub(super) megabytes_per_second: f64,
    /// Attempts that failed and were made again.
    pub(super) retries: u64,
    pub(super) store_keys_before: u64,
    pub(super) store_keys_after: Option<u64>,
    /// The first failure, with the indexes of its batch.
    pub(super) failure: Option<String>,
    /// What was said before the first key.
    pub(super) remarks: Vec<String>,
    pub(super) verification: Option<Verification>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Complete,
    Interrupted,
    Failed,
}

pub(super) fn summarise(
    config: &SeedConfig,
    loaded: Loaded,
    verification: Option<Verification>,
    before: &StoreStats,
) -> Summary {
    let Loaded {
        load,
        start,
        elapsed,
        keeper,
    } = loaded;
    let seconds = elapsed.as_secs_f64();
    let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
    let outcome = match &load.failure {
        Some(_) => Outcome::Failed,
        None if config.mode != SeedMode::VerifyOnly && !load.is_complete(config) => {
            Outcome::Interrupted
        }
        None => verification
            .as_ref()
            .map_or(Outcome::Complete, Verification::outcome),
    };
    Summary {
        outcome,
        store: config.store.url.to_string(),
        format: config.dataset.format,
        reached: load.reached,
        was_overtaken: keeper.is_some_and(|keeper| keeper.was_overtaken()),
        keys_asked: config.keys.get(),
        resumed_from: start.at,
        keys_acknowledged: load.keys,
        // Of a load that ended early, some lie behind a gap.
        keys_loaded_again: if load.reached < config.keys.get() {
            0
        } else {
            load.keys.saturating_sub(load.reached - start.at)
        },
        bytes_acknowledged: load.bytes,
        elapsed_s: seconds,
        keys_per_second: per_second(load.keys as f64),
        megabytes_per_second: per_second(load.bytes as f64 / 1e6),
        retries: 0,
        store_keys_before: before.keys,
        store_keys_after: None,
        failure: load.failure,
        remarks: start.remarks,
        verification,
    }
}

pub(super) fn summary_text(summary: &Summary, config: &SeedConfig) -> String {
    let mut text = String::new();
    if let SeedMode::Load { .. } = config.mode {
        put_load(summary, config, &mut text);
    }
    if let Some(found) = &summary.verification {
        put_verification(found, config, &mut text);
        let is_faulty = found.missing + found.different > 0;
        if !summary.was_overtaken && (is_faulty || (heals(config) && !found.is_good())) {
            let _ = writeln!(
                text,
                "To repair it: {}",
                advice::resume(config, &["--verify"])
            );
        }
    }
    text
}

fn put_load(summary: &Summary, config: &SeedConfig, text: &mut String) {
    let head = match (summary.outcome, &summary.failure) {
        (_, Some(_)) => "FAILED after",
        _ if summary.reached < summary.keys_asked => "Interrupted after",
        _ => "Seeded",
    };
    let _ = writeln!(
        text,
        "{head} {} of {} keys ({}) in {:.2} s: {} keys/s, {:.1} MB/s",
        grouped(summary.keys_acknowledged - summary.keys_loaded_again),
        grouped(summary.keys_asked),
        human_bytes(summary.bytes_acknowledged),
        summary.elapsed_s,
        grouped(summary.keys_per_second as u64),
        summary.megabytes_per_second,
    );
    if summary.keys_loaded_again > 0 {
        let _ = writeln!(
            text,
            "The store lost keys that it had acknowledged: {} keys loaded again",
            grouped(summary.keys_loaded_again)
        );
    }
    if summary.resumed_from > 0 {
        let from = grouped(summary.resumed_from);
        let _ = writeln!(text, "Resumed: the first {from} keys were already loaded");
    }
    let after = summary
        .store_keys_after
        .map_or_else(|| "not available".to_owned(), grouped);
    let _ = writeln!(
        text,
        "Keys in the store: {} before, {after} now (one of them is kvpoc:dataset, which describes the data)",
        grouped(summary.store_keys_before),
    );
    if summary.retries > 0 {
        let _ = writeln!(
            text,
            "{} failed attempts were retried",
            grouped(summary.retries)
        );
    }
    if let Some(failure) = &summary.failure {
        let _ = writeln!(text, "First failure: {failure}");
    }
    // What another run does there decides whether this dataset can still be completed, and from where.
    if summary.reached < summary.keys_asked && !summary.was_overtaken {
        let verify: &[&str] = if config.verify { &["--verify"] } else { &[] };
        let _ = writeln!(text, "To complete it: {}", advice::resume(config, verify));
    }
}

fn put_verification(found: &Verification, config: &SeedConfig, text: &mut String) {
    let sample = if config.verify_sample < 1.0 {
        ", a sample"
    } else {
        ""
    };
    let (checked, seconds) = (grouped(found.checked), found.elapsed_s);
    let faults = if found.missing + found.different == 0 {
        "no fault found".to_owned()
    } else {
        let (missing, different) = (grouped(found.missing), grouped(found.different));
        format!("{missing} missing, {different} different")
    };
    let _ = match &found.failure {
        None if found.is_good() => writeln!(
            text,
            "Verified {checked} keys{sample} in {seconds:.2} s: all correct"
        ),
        None => writeln!(
            text,
            "VERIFICATION FAILED, {checked} keys{sample} in {seconds:.2} s: {faults}"
        ),
        Some(_) if found.is_interrupted => writeln!(
            text,
            "Verification interrupted, {checked} of {} checked, {faults}",
            grouped(found.of)
        ),
        Some(failure) => writeln!(
            text,
            "VERIFICATION FAILED, {checked} of {} checked, {faults}; stopped early: {failure}",
            grouped(found.of)
        ),
    };
    if found.rewritten > 0 {
        let rewritten = grouped(found.rewritten);
        let _ = writeln!(text, "{rewritten} missing or different keys were rewritten");
    }
    for line in &found.first {
        let _ = writeln!(text, "  {line}");
    }
    if let Some(extra) = found.extra.filter(|&extra| extra > 0) {
        let _ = writeln!(
            text,
            "{} more keys have this prefix but are not part of the dataset",
            grouped(extra)
        );
    }
}
