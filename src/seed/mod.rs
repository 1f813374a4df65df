//! `kvpoc seed`: loads the dataset as fast as the store takes it.
//!
//! Enters: a [`SeedConfig`] and a stop signal. Leaves: keys in the store, a summary, an exit code. Must not
//! claim a key that the store has not acknowledged.

pub mod plan;

use std::fmt::Write as _;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use crate::config::SeedConfig;
use crate::exit;
use crate::output;
use crate::progress::Progress;
use crate::record::{self, Dataset};
use crate::store::{Batch, DatasetInfo, Store, StoreError, Usage};
use crate::units::{grouped, human_bytes};

/// Between two lines of progress off a terminal: seldom enough for a log file.
const PLAIN_PROGRESS: Duration = Duration::from_secs(5);

/// What one load came to.
#[derive(Debug, serde::Serialize)]
struct Summary {
    /// `complete`, `interrupted` or `failed`.
    outcome: Outcome,
    store: String,
    keys_asked: u64,
    keys_acknowledged: u64,
    bytes_acknowledged: u64,
    elapsed_s: f64,
    keys_per_second: f64,
    megabytes_per_second: f64,
    store_keys_before: u64,
    store_keys_after: Option<u64>,
    /// The first failure, with the indexes of its batch.
    failure: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Complete,
    Interrupted,
    Failed,
}

/// Loads the keys, prints the summary, and returns the exit code.
///
/// # Errors
/// When the store cannot be used at all; a load that began and failed is told by the exit code.
pub async fn run(config: SeedConfig, stop: CancellationToken) -> anyhow::Result<u8> {
    let store = Store::open(&config.store, Usage::Load).await?;
    let before = store.stats().await?;
    output::say(&format!(
        "Seeding {} keys of {} bytes into {} ({} {}, {} keys now)",
        grouped(config.keys.get()),
        config.dataset.value_size,
        config.store.url,
        before.engine,
        before.version.as_deref().unwrap_or("of unknown version"),
        grouped(before.keys),
    ));
    let info = dataset_info(&config);
    if store.dataset().await?.is_some_and(|noted| noted != info) {
        store.forget_dataset().await?;
    }
    let started = Instant::now();
    let mut load = load(&store, &config, &stop).await;
    if let Err(error) = conclude(&store, &config, &info, &load).await {
        load.failure.get_or_insert(error);
    }
    let elapsed = started.elapsed();
    let after = store.stats().await.ok().map(|stats| stats.keys);
    let summary = summarise(&config, load, elapsed, (before.keys, after));
    if config.json {
        let json = serde_json::to_string_pretty(&summary).context("writing the summary")?;
        output::print(&(json + "\n"));
    } else {
        output::print(&summary_text(&summary));
    }
    Ok(match summary.outcome {
        Outcome::Complete => exit::OK,
        Outcome::Interrupted => exit::INTERRUPTED,
        Outcome::Failed => exit::NO,
    })
}

/// Keys and bytes that the store has acknowledged, and the first thing that went wrong.
#[derive(Debug, Default)]
struct Load {
    keys: u64,
    bytes: u64,
    failure: Option<String>,
}

/// Keeps up to `in_flight` batches with the store until all are acknowledged, one fails or the stop comes.
async fn load(store: &Store, config: &SeedConfig, stop: &CancellationToken) -> Load {
    let mut batches = plan::batches(config.keys, config.batch);
    let mut window = FuturesUnordered::new();
    let mut progress = Progress::new(config.keys.get(), "keys", PLAIN_PROGRESS);
    let started = Instant::now();
    let mut load = Load::default();
    loop {
        while window.len() < config.in_flight && load.failure.is_none() && !stop.is_cancelled() {
            let Some(indexes) = batches.next() else { break };
            let batch = encode(&config.dataset, indexes.clone());
            window.push(put(store, indexes, batch, config.ttl));
        }
        let Some((indexes, bytes, outcome)) = window.next().await else {
            break;
        };
        match outcome {
            Ok(()) => {
                load.keys += indexes.end - indexes.start;
                load.bytes += bytes;
            }
            Err(error) => {
                load.failure.get_or_insert_with(|| {
                    format!("keys {} to {}: {error}", indexes.start, indexes.end - 1)
                });
            }
        }
        progress.update(load.keys, || {
            let seconds = started.elapsed().as_secs_f64();
            format!(
                "{} keys/s  {:.0} MB/s",
                grouped((load.keys as f64 / seconds) as u64),
                load.bytes as f64 / seconds / 1e6
            )
        });
    }
    progress.finish();
    load
}

async fn put(
    store: &Store,
    indexes: Range<u64>,
    batch: Batch,
    ttl: Option<Duration>,
) -> (Range<u64>, u64, Result<(), StoreError>) {
    let bytes = batch.bytes() as u64;
    let outcome = store.put_batch(batch, ttl).await;
    (indexes, bytes, outcome)
}

fn encode(dataset: &Dataset, indexes: Range<u64>) -> Batch {
    let keys = (indexes.end - indexes.start) as usize;
    // Twenty digits hold any index.
    let entry_bytes = dataset.key_prefix.len() + 20 + dataset.value_size.bytes();
    let mut batch = Batch::with_capacity(keys, keys * entry_bytes);
    for index in indexes {
        batch.push(
            |out| dataset.put_key(index, out),
            |out| dataset.put_record(index, out),
        );
    }
    batch
}

fn dataset_info(config: &SeedConfig) -> DatasetInfo {
    DatasetInfo {
        keys: config.keys.get(),
        key_prefix: config.dataset.key_prefix.clone(),
        value_size: config.dataset.value_size.bytes(),
        seed: config.dataset.seed,
        record_version: record::VERSION,
    }
}

/// Makes what was loaded durable, and notes the dataset if it is complete: who reads the note may rely on
/// every index below its count.
async fn conclude(
    store: &Store,
    config: &SeedConfig,
    info: &DatasetInfo,
    load: &Load,
) -> Result<(), String> {
    if load.keys == config.keys.get() {
        store
            .put_dataset(info, config.ttl)
            .await
            .map_err(|error| format!("noting the dataset: {error}"))?;
    }
    store
        .sync()
        .await
        .map_err(|error| format!("making the data durable: {error}"))
}

fn summarise(
    config: &SeedConfig,
    load: Load,
    elapsed: Duration,
    (before, after): (u64, Option<u64>),
) -> Summary {
    let seconds = elapsed.as_secs_f64();
    let outcome = match &load.failure {
        Some(_) => Outcome::Failed,
        None if load.keys < config.keys.get() => Outcome::Interrupted,
        None => Outcome::Complete,
    };
    Summary {
        outcome,
        store: config.store.url.to_string(),
        keys_asked: config.keys.get(),
        keys_acknowledged: load.keys,
        bytes_acknowledged: load.bytes,
        elapsed_s: seconds,
        keys_per_second: load.keys as f64 / seconds,
        megabytes_per_second: load.bytes as f64 / seconds / 1e6,
        store_keys_before: before,
        store_keys_after: after,
        failure: load.failure,
    }
}

fn summary_text(summary: &Summary) -> String {
    let head = match summary.outcome {
        Outcome::Complete => "Seeded",
        Outcome::Interrupted => "Interrupted after",
        Outcome::Failed => "FAILED after",
    };
    let mut text = format!(
        "{head} {} of {} keys ({}) in {:.2} s: {} keys/s, {:.1} MB/s\n",
        grouped(summary.keys_acknowledged),
        grouped(summary.keys_asked),
        human_bytes(summary.bytes_acknowledged),
        summary.elapsed_s,
        grouped(summary.keys_per_second as u64),
        summary.megabytes_per_second,
    );
    let after = summary
        .store_keys_after
        .map_or_else(|| "not available".to_owned(), grouped);
    let _ = writeln!(
        text,
        "The store held {} keys before and holds {after} now, its note of the dataset included",
        grouped(summary.store_keys_before),
    );
    if let Some(failure) = &summary.failure {
        let _ = writeln!(text, "First failure: {failure}");
    }
    if summary.outcome != Outcome::Complete {
        text += "Run the same command again to complete it: the same keys get the same bytes\n";
    }
    text
}
