//! Loading: batches in flight until all are acknowledged.
//!
//! Enters: a plan and a store. Leaves: how far it came, and why no further. Must not claim a key that the store
//! has not acknowledged, nor give up on one before its time.

use std::cell::Cell;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::plan::{self, Watermark};
use crate::config::SeedConfig;
use crate::progress::Progress;
use crate::random::splitmix64;
use crate::store::{Batch, DatasetInfo, Store, StoreError};
use crate::units::{grouped, human_bytes};

/// How much of the work a killed load does again at most, in time.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// Apart from every other use of the dataset's seed.
const TTL_SALT: u64 = 0x74_746c;

/// Keys and bytes that the store has acknowledged, and the first thing that went wrong.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Acknowledged in this run.
    pub(super) keys: u64,
    pub(super) bytes: u64,
    /// All positions below are acknowledged, in this run or before.
    pub(super) reached: u64,
    pub(super) elapsed: Duration,
    pub(super) failure: Option<String>,
}

impl Load {
    /// Takes in what came after.
    pub(super) fn absorb(&mut self, later: Self) {
        self.keys += later.keys;
        self.bytes += later.bytes;
        self.reached = later.reached;
        self.elapsed += later.elapsed;
        self.failure = self.failure.take().or(later.failure);
    }
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
        StoreError::Unavailable(_)
        | StoreError::Loading(_)
        | StoreError::Timeout(_)
        | StoreError::Full(_) => true,
        StoreError::Refused(_) | StoreError::Setup(_) => false,
    }
}

/// Keeps up to `in_flight` batches with the store until all positions are acknowledged, one fails or the stop
/// comes; notes now and then in `checkpoint` how far it is.
pub(super) async fn load(
    stores: &[Store],
    config: &SeedConfig,
    patience: &Patience<'_>,
    positions: Range<u64>,
    checkpoint: Option<&DatasetInfo>,
    progress: &mut Progress,
) -> Load {
    let (start, count) = (positions.start, positions.end - positions.start);
    let mut batches = plan::batches(positions, config.batch).enumerate();
    let mut window = FuturesUnordered::new();
    let mut watermark = Watermark::new(start);
    let started = Instant::now();
    let (mut noted, mut launched) = (started, 0_u64);
    // A task of its own: awaited here, it would wait for batches that nobody drives meanwhile.
    let mut noting: Option<JoinHandle<Option<u64>>> = None;
    let mut memory_bytes = None;
    let mut load = Load::default();
    loop {
        let go_on = load.failure.is_none() && !patience.stop.is_cancelled();
        while go_on && window.len() < config.in_flight && due(config, started, launched).is_none() {
            let Some((number, positions)) = batches.next() else {
                break;
            };
            launched += positions.end - positions.start;
            let store = &stores[number % stores.len()];
            window.push(put(store, config, patience, positions));
        }
        let wait = due(config, started, launched).filter(|_| go_on && launched < count);
        let next = match (wait, window.is_empty()) {
            // The moment to go on came just now.
            (None, true) if go_on && launched < count => continue,
            (None, true) => break,
            (None, false) => window.next().await,
            (Some(wait), _) => tokio::select! {
                // An empty window is done at once, and done for good.
                Some(next) = window.next() => Some(next),
                () = tokio::time::sleep(wait) => None,
                () = patience.stop.cancelled() => None,
            },
        };
        match next {
            None => continue,
            Some((positions, Ok(bytes))) => {
                load.keys += positions.end - positions.start;
                load.bytes += bytes;
                watermark.acknowledge(positions);
            }
            // Interrupted between two attempts: not acknowledged, and no failure of the store's.
            Some((_, Err(error))) if patience.stop.is_cancelled() && may_pass(&error) => {}
            Some((positions, Err(error))) => {
                load.failure.get_or_insert_with(|| {
                    format!("keys {} to {}: {error}", positions.start, positions.end - 1)
                });
            }
        }
        if let Some(info) = checkpoint
            && noted.elapsed() >= CHECKPOINT
            && noting.as_ref().is_none_or(JoinHandle::is_finished)
        {
            if let Some(Ok(Some(bytes))) = noting.take().and_then(FutureExt::now_or_never) {
                memory_bytes = Some(bytes);
            }
            noting = Some(tokio::spawn(checkpoint_at(
                stores[0].clone(),
                unfinished(info, watermark.reached()),
            )));
            noted = Instant::now();
        }
        progress.update(start + load.keys, || {
            words(
                &load,
                started.elapsed(),
                window.len(),
                patience.retries.get(),
                memory_bytes,
            )
        });
    }
    // One that came late would take back what is noted at the end.
    if let Some(noting) = noting {
        let _ = noting.await;
    }
    load.elapsed = started.elapsed();
    load.reached = watermark.reached();
    load
}

/// How long to wait before more keys may go, if the rate is limited and reached.
fn due(config: &SeedConfig, started: Instant, launched: u64) -> Option<Duration> {
    let rate = config.rate?.per_second();
    let due = Duration::try_from_secs_f64(launched as f64 / rate).unwrap_or(Duration::MAX);
    due.checked_sub(started.elapsed())
        .filter(|wait| !wait.is_zero())
}

/// The note of a load that has come so far.
pub(super) fn unfinished(info: &DatasetInfo, reached: u64) -> DatasetInfo {
    DatasetInfo {
        loaded: Some(reached),
        ..info.clone()
    }
}

/// Notes how far the load is; one note that is lost costs a second of work. Gives the memory that the store uses.
async fn checkpoint_at(store: Store, note: DatasetInfo) -> Option<u64> {
    let _ = store.put_dataset(&note, None).await;
    store.stats().await.ok()?.memory_bytes
}

async fn put(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    positions: Range<u64>,
) -> (Range<u64>, Result<u64, StoreError>) {
    let ttl = config.ttl.map(|ttl| jittered(ttl, config, positions.start));
    let put = async || {
        // Made anew for each attempt, which costs less than keeping it: few are ever repeated.
        let batch = encode(config, positions.clone());
        let bytes = batch.bytes() as u64;
        store.put_batch(batch, ttl).await.map(|()| bytes)
    };
    let outcome = patience.insist(positions.start, put).await;
    (positions, outcome)
}

/// The time to live of one batch: shorter by up to the share that is asked for, so that not all expire at once.
fn jittered(ttl: Duration, config: &SeedConfig, first: u64) -> Duration {
    let bits = splitmix64(config.dataset.seed ^ TTL_SALT, first);
    let unit = (bits >> 11) as f64 / (1_u64 << 53) as f64;
    ttl.mul_f64(1.0 - config.ttl_jitter * unit)
        .max(Duration::from_millis(1))
}

fn encode(config: &SeedConfig, positions: Range<u64>) -> Batch {
    let dataset = &config.dataset;
    let keys = (positions.end - positions.start) as usize;
    // Twenty digits hold any index.
    let entry_bytes = dataset.key_prefix.len() + 20 + dataset.value_size.typical_bytes();
    let mut batch = Batch::with_capacity(keys, keys * entry_bytes);
    for index in positions.map(|position| config.order.index(position)) {
        batch.push(
            |out| dataset.put_key(index, out),
            |out| dataset.put_record(index, out),
        );
    }
    batch
}

fn words(
    load: &Load,
    elapsed: Duration,
    in_flight: usize,
    retries: u64,
    memory_bytes: Option<u64>,
) -> String {
    let seconds = elapsed.as_secs_f64();
    let mut text = format!(
        "{} keys/s  {:.0} MB/s  {in_flight} batches in flight",
        grouped((load.keys as f64 / seconds) as u64),
        load.bytes as f64 / seconds / 1e6
    );
    if let Some(bytes) = memory_bytes {
        let _ = write!(text, "  store {}", human_bytes(bytes));
    }
    if retries > 0 {
        let _ = write!(text, "  {} retries", grouped(retries));
    }
    text
}
