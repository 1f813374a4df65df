//! Loading: batches in flight until all are acknowledged.
//!
//! Enters: a plan and a store. Leaves: how far it came, and why no further. Must not claim a key that the store
//! has not acknowledged, nor give up on one before its time.

use std::cell::Cell;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::plan::{self, Watermark};
use crate::config::SeedConfig;
use crate::progress::Progress;
use crate::record::Dataset;
use crate::store::{Batch, DatasetInfo, Store, StoreError};
use crate::units::grouped;

/// How much of the work a killed load does again at most, in time.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// Keys and bytes that the store has acknowledged, and the first thing that went wrong.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Acknowledged in this run.
    pub(super) keys: u64,
    pub(super) bytes: u64,
    /// All indexes below are acknowledged, in this run or before.
    pub(super) reached: u64,
    pub(super) failure: Option<String>,
}

/// Attempts, their failures and their end; shared by loading and verifying.
pub(super) struct Patience<'a> {
    pub(super) retry_for: Duration,
    pub(super) stop: &'a CancellationToken,
    pub(super) retries: Cell<u64>,
}

impl Patience<'_> {
    /// Tries until it succeeds, fails for good, or has failed for too long; `first_index` spreads the waits.
    pub(super) async fn insist<T>(
        &self,
        first_index: u64,
        mut attempt: impl AsyncFnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        for number in 0.. {
            match attempt().await {
                Err(error) if may_pass(&error) && began.elapsed() < self.retry_for => {
                    let waited = tokio::time::sleep(plan::wait(number, first_index));
                    tokio::select! {
                        () = waited => self.retries.set(self.retries.get() + 1),
                        () = self.stop.cancelled() => return Err(error),
                    }
                }
                outcome => return outcome,
            }
        }
        unreachable!("attempts are numbered without end")
    }
}

/// Whether trying again later can help: a store that is full may expire or evict.
fn may_pass(error: &StoreError) -> bool {
    match error {
        StoreError::Unavailable(_) | StoreError::Timeout(_) | StoreError::Full(_) => true,
        StoreError::Refused(_) | StoreError::Setup(_) => false,
    }
}

/// Keeps up to `in_flight` batches with the store until all from `start` on are acknowledged, one fails or the
/// stop comes; notes now and then in `checkpoint` how far it is.
pub(super) async fn load(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    start: u64,
    checkpoint: Option<&DatasetInfo>,
    progress: &mut Progress,
) -> Load {
    let mut batches = plan::batches(start..config.keys.get(), config.batch);
    let mut window = FuturesUnordered::new();
    let mut watermark = Watermark::new(start);
    let started = Instant::now();
    let mut noted = Instant::now();
    let mut load = Load::default();
    loop {
        let go_on = load.failure.is_none() && !patience.stop.is_cancelled();
        while go_on && window.len() < config.in_flight {
            let Some(indexes) = batches.next() else { break };
            window.push(put(store, config, patience, indexes));
        }
        let Some((indexes, outcome)) = window.next().await else {
            break;
        };
        match outcome {
            Ok(bytes) => {
                load.keys += indexes.end - indexes.start;
                load.bytes += bytes;
                watermark.acknowledge(indexes);
            }
            Err(error) => {
                load.failure.get_or_insert_with(|| {
                    format!("keys {} to {}: {error}", indexes.start, indexes.end - 1)
                });
            }
        }
        if let Some(info) = checkpoint
            && noted.elapsed() >= CHECKPOINT
        {
            // One that is lost costs a second of work.
            let _ = note(store, config, info, watermark.reached()).await;
            noted = Instant::now();
        }
        progress.update(start + load.keys, || {
            words(
                &load,
                started.elapsed(),
                window.len(),
                patience.retries.get(),
            )
        });
    }
    load.reached = watermark.reached();
    load
}

/// Notes that an unfinished load has come so far.
pub(super) async fn note(
    store: &Store,
    config: &SeedConfig,
    info: &DatasetInfo,
    reached: u64,
) -> Result<(), StoreError> {
    let unfinished = DatasetInfo {
        loaded: Some(reached),
        ..info.clone()
    };
    store.put_dataset(&unfinished, config.ttl).await
}

async fn put(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    indexes: Range<u64>,
) -> (Range<u64>, Result<u64, StoreError>) {
    let put = async || {
        // Made anew for each attempt, which costs less than keeping it: few are ever repeated.
        let batch = encode(&config.dataset, indexes.clone());
        let bytes = batch.bytes() as u64;
        store.put_batch(batch, config.ttl).await.map(|()| bytes)
    };
    let outcome = patience.insist(indexes.start, put).await;
    (indexes, outcome)
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

fn words(load: &Load, elapsed: Duration, in_flight: usize, retries: u64) -> String {
    let seconds = elapsed.as_secs_f64();
    let mut text = format!(
        "{} keys/s  {:.0} MB/s  {in_flight} batches in flight",
        grouped((load.keys as f64 / seconds) as u64),
        load.bytes as f64 / seconds / 1e6
    );
    if retries > 0 {
        let _ = write!(text, "  {} retries", grouped(retries));
    }
    text
}
