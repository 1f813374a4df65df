//! Loading: batches in flight until all are acknowledged.
//!
//! Enters: a plan and a store. Leaves: how far it came, and why no further. Must not claim a key that the store
//! has not acknowledged, give up on one before its time, nor write one after another run may have taken over.

use std::fmt::Write as _;
use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::keeper::{CHECKPOINT, Keeper, Kept, Lease};
use super::note::Entry;
use super::patience::{Pace, Patience, may_pass};
use super::plan::{self, Watermark};
use super::start::heals;
use crate::config::SeedConfig;
use crate::progress::Progress;
use crate::random::splitmix64;
use crate::source::{Source, SourceError};
use crate::store::{Batch, Store, StoreError};
use crate::units::{grouped, human_bytes};

/// Apart from every other use of the dataset's seed.
const TTL_SALT: u64 = 0x74_746c;

/// Keys and bytes that the store has acknowledged, and the first thing that went wrong.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Acknowledged in this run, those counted again that the store lost.
    pub(super) keys: u64,
    pub(super) bytes: u64,
    /// All positions below are acknowledged, in this run or before.
    pub(super) reached: u64,
    pub(super) elapsed: Duration,
    /// When the first key expires, if any does.
    pub(super) first_expiry: Option<Instant>,
    /// From where it must be loaded again, as the store has lost what came after.
    pub(super) behind: Option<u64>,
    pub(super) failure: Option<String>,
}

impl Load {
    pub(super) fn is_complete(&self, config: &SeedConfig) -> bool {
        self.failure.is_none() && self.reached >= config.keys.get()
    }

    /// Takes in what came after.
    pub(super) fn absorb(&mut self, later: Self) {
        self.keys += later.keys;
        self.bytes += later.bytes;
        self.reached = later.reached;
        self.elapsed += later.elapsed;
        self.first_expiry = earlier(self.first_expiry, later.first_expiry);
        self.behind = later.behind;
        self.failure = self.failure.take().or(later.failure);
    }

    fn falls_back_to(&mut self, position: u64) {
        let before = self.behind.unwrap_or(u64::MAX);
        self.behind = Some(before.min(position));
    }

    fn take(&mut self, put: &Put) {
        self.keys += put.keys;
        self.bytes += put.bytes;
        self.first_expiry = earlier(self.first_expiry, put.expires);
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// What a load works with.
pub(super) struct Loader<'a> {
    pub(super) stores: &'a [Store],
    pub(super) config: &'a SeedConfig,
    pub(super) patience: &'a Patience<'a>,
}

impl Loader<'_> {
    /// Keeps up to `in_flight` batches with the store until all positions are acknowledged, one fails, the store
    /// loses some, or the stop comes; notes now and then how far it is.
    pub(super) async fn load(
        &self,
        positions: Range<u64>,
        pace: &mut Pace,
        keeper: &mut Keeper,
        progress: &mut Progress,
    ) -> Load {
        let Self {
            stores,
            config,
            patience,
        } = *self;
        let start = positions.start;
        let mut batches = plan::batches(positions, config.batch)
            .enumerate()
            .peekable();
        let lease = keeper.lease();
        // What is of no use any more is not tried again: that may never succeed, and holds up what is to be done.
        let halt = patience.stop.child_token();
        let of_batches = patience.until(&halt);
        let mut window = FuturesUnordered::new();
        let mut watermark = Watermark::new(start);
        let started = Instant::now();
        let mut memory_bytes = None;
        let mut load = Load::default();
        loop {
            if load.failure.is_some() || load.behind.is_some() {
                halt.cancel();
            }
            let go_on = !halt.is_cancelled();
            while go_on
                && window.len() < config.in_flight
                && pace.wait().is_none()
                && lease.holds()
                && let Some((number, positions)) = batches.next()
            {
                pace.take(positions.end - positions.start);
                let store = &stores[number % stores.len()];
                window.push(put(store, config, &of_batches, &lease, positions));
            }
            if window.is_empty() && (!go_on || batches.peek().is_none()) {
                break;
            }
            let wait = pace.wait().map_or(CHECKPOINT, |wait| wait.min(CHECKPOINT));
            tokio::select! {
                Some((positions, outcome)) = window.next() => match outcome {
                    Ok(put) => {
                        load.take(&put);
                        watermark.acknowledge(positions);
                    }
                    // Interrupted between two attempts: not acknowledged, and no failure of the store's.
                    Err(error) if halt.is_cancelled() && may_pass(&error) => {}
                    Err(error) => {
                        load.failure.get_or_insert_with(|| {
                            format!("keys {} to {}: {error}", positions.start, positions.end - 1)
                        });
                    }
                },
                kept = keeper.noticed() => match kept {
                    Ok(Kept::Noted(bytes)) => memory_bytes = bytes.or(memory_bytes),
                    Ok(Kept::Behind(position)) => load.falls_back_to(position),
                    Ok(Kept::Unheard) => {}
                    Err(failure) => { load.failure.get_or_insert(failure); }
                },
                () = tokio::time::sleep(wait) => {}
                () = halt.cancelled(), if go_on => {}
            }
            // After a loss the watermark is wrong, and what is to be noted then is not for this loop to say.
            if load.failure.is_none() && load.behind.is_none() {
                keeper.beat(|| self.checkpoint(watermark.reached()));
            }
            progress.update(start + load.keys, || {
                let retries = patience.retries.get();
                words(
                    &load,
                    started.elapsed(),
                    window.len(),
                    retries,
                    memory_bytes,
                )
            });
        }
        load.elapsed = started.elapsed();
        load.reached = watermark.reached();
        load
    }

    /// What is noted of a load that has come so far. What expires meanwhile cannot be gone on from, nor counted on.
    pub(super) fn checkpoint(&self, reached: u64) -> Entry {
        if self.config.ttl.is_some() {
            return Entry::loading(0, 0);
        }
        // A load that heals what is missing begins with too few.
        let least_keys = if heals(self.config) { 0 } else { reached };
        Entry::loading(reached, least_keys)
    }
}

/// One batch that was acknowledged.
struct Put {
    keys: u64,
    bytes: u64,
    expires: Option<Instant>,
}

async fn put(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    lease: &Lease,
    positions: Range<u64>,
) -> (Range<u64>, Result<Put, StoreError>) {
    let ttl = config.ttl.map(|ttl| jittered(ttl, config, positions.start));
    let keys = positions.end - positions.start;
    let put = async || {
        let indexes = positions
            .clone()
            .map(|position| config.order.index(position));
        let sent = Instant::now();
        let bytes = write(store, config, lease, indexes, ttl).await?;
        let expires = ttl.and_then(|ttl| sent.checked_add(ttl));
        Ok(Put {
            keys,
            bytes,
            expires,
        })
    };
    let outcome = patience.insist(positions.start, put).await;
    (positions, outcome)
}

/// Writes the records of these indexes once, if they are still this run's to write; gives their bytes.
pub(super) async fn write(
    store: &Store,
    config: &SeedConfig,
    lease: &Lease,
    indexes: impl Iterator<Item = u64>,
    ttl: Option<Duration>,
) -> Result<u64, StoreError> {
    let unconfirmed = || {
        let message = "it has not confirmed kvpoc:dataset, so another run may have taken over";
        StoreError::Unavailable(message.into())
    };
    if !lease.holds() {
        return Err(unconfirmed());
    }
    // Made anew for each attempt, which costs less than keeping it: few are ever repeated.
    let batch = match &config.source {
        Some(source) => read(source, indexes)?,
        None => encode(config, indexes),
    };
    // Again, as this process may have been stopped in what takes most of its time.
    if !lease.holds() {
        return Err(unconfirmed());
    }
    let bytes = batch.bytes() as u64;
    store.put_batch(batch, ttl).await.map(|()| bytes)
}

/// The time to live of one batch: shorter by up to the share that is asked for, so that not all expire at once.
fn jittered(ttl: Duration, config: &SeedConfig, first: u64) -> Duration {
    let bits = splitmix64(config.dataset.seed ^ TTL_SALT, first);
    let unit = (bits >> 11) as f64 / (1_u64 << 53) as f64;
    ttl.mul_f64(1.0 - config.ttl_jitter * unit)
        .max(Duration::from_millis(1))
}

fn encode(config: &SeedConfig, indexes: impl Iterator<Item = u64>) -> Batch {
    let dataset = &config.dataset;
    let keys = indexes.size_hint().0;
    // Twenty digits hold any index.
    let entry_bytes = dataset.key_prefix.len() + 20 + dataset.value_size.typical_bytes();
    let mut batch = Batch::with_capacity(keys, keys * entry_bytes);
    for index in indexes {
        batch.push(
            |out| dataset.put_key(index, out),
            |out| dataset.put_record(index, out),
        );
    }
    batch
}

/// The lines of these indexes, which rise.
fn read(source: &Source, indexes: impl Iterator<Item = u64>) -> Result<Batch, StoreError> {
    let keys = indexes.size_hint().0;
    let mut batch = Batch::with_capacity(keys, keys * source.typical_bytes());
    let read = source.entries(indexes, |key, value| {
        batch.push(
            |out| out.extend_from_slice(key),
            |out| out.extend_from_slice(value),
        );
    });
    read.map_err(|error| unreadable(source, &error))?;
    Ok(batch)
}

/// Trying again does not help.
pub(super) fn unreadable(source: &Source, error: &SourceError) -> StoreError {
    StoreError::Setup(format!("{}: {error}", source.path().display()))
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
