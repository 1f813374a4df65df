//! `--dry-run`: what a load would do.
//!
//! Enters: the settings and a look at the store. Leaves: text. Must not write anything, nor create a folder.

use std::fmt::Write as _;

use super::start::{Start, left_over, start_of};
use crate::config::{SeedConfig, StoreUrl};
use crate::store::{Store, StoreError, StoreStats, Usage};
use crate::units::{grouped, human_bytes};

/// What a load would do; a folder that is not there yet stays away.
pub(super) async fn plan_text(config: &SeedConfig) -> anyhow::Result<String> {
    let (before, note, left) = match Store::open(&config.store, Usage::Look).await {
        Ok(store) => {
            let note = store.dataset_note().await?;
            let left = left_over(&store, config, note.as_ref()).await?;
            (store.stats().await?, note, left)
        }
        Err(StoreError::Setup(_)) if matches!(config.store.url, StoreUrl::Embedded(_)) => {
            let engine = "embedded".to_owned();
            (
                StoreStats {
                    engine,
                    ..StoreStats::default()
                },
                None,
                None,
            )
        }
        Err(error) => return Err(error.into()),
    };
    let Start { at: start, remarks } = start_of(config, note.as_ref(), &before)?;
    let dataset = &config.dataset;
    let keys = config.keys.get() - start;
    // The longest key stands for all.
    let key_bytes = dataset.key_prefix.len() + config.keys.get().to_string().len();
    let bytes = keys * (key_bytes + dataset.value_size.typical_bytes()) as u64;
    let limit = before
        .max_memory_bytes
        .map_or_else(|| "no limit known".to_owned(), human_bytes);
    let batch_bytes =
        u64::from(config.batch) * (key_bytes + dataset.value_size.typical_bytes()) as u64;
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<16}{value}");
    };
    row(
        "Would load",
        match &config.source {
            Some(source) => format!("{} keys, {}", grouped(keys), source.template()),
            None => format!(
                "{} keys, {}0 to {}{}",
                grouped(keys),
                dataset.key_prefix,
                dataset.key_prefix,
                config.keys.get() - 1
            ),
        },
    );
    if start > 0 {
        row(
            "Resuming",
            format!("the first {} keys are already loaded", grouped(start)),
        );
    }
    row("Values", values(config));
    row(
        "Keys and values",
        format!(
            "{}; a store adds 50 to 150 bytes per key",
            human_bytes(bytes)
        ),
    );
    row(
        "In flight",
        format!(
            "{} batches of {} keys, {} in all",
            config.in_flight,
            grouped(config.batch.into()),
            human_bytes(batch_bytes * config.in_flight as u64)
        ),
    );
    row(
        "Store",
        format!(
            "{}: {} {}, {} keys",
            config.store.url,
            before.engine,
            before.version.as_deref().unwrap_or("(unknown version)"),
            grouped(before.keys)
        ),
    );
    let used = before
        .memory_bytes
        .map_or_else(|| "not available".to_owned(), human_bytes);
    row("In use", format!("{used} of {limit}"));
    for remark in remarks.into_iter().chain(left) {
        text += &remark;
        text.push('\n');
    }
    Ok(text)
}

/// What the values are.
fn values(config: &SeedConfig) -> String {
    let dataset = &config.dataset;
    match &config.source {
        Some(source) => format!(
            "the lines of {}, {} bytes on average with their keys",
            source.path().display(),
            dataset.value_size
        ),
        None => format!(
            "{} bytes each, {}, random seed {}",
            dataset.value_size,
            dataset.format.values(),
            dataset.seed
        ),
    }
}
