//! Verifying: what the store holds against what it must hold, byte by byte.
//!
//! Enters: a dataset and a store. Leaves: a [`Verification`]. Must not write anything but what a load is to heal, nor
//! take an answer for right because it is there.

use std::pin::pin;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::compare::{Fault, compare, faults_of, is_extra, lines};
use super::found::position_of;
use super::keeper::{CHECKPOINT, Keeper, Kept, Lease};
use super::load;
use super::note::Entry;
use super::patience::{Pace, Patience};
use super::plan::Watermark;
use super::summary::Outcome;
use crate::config::SeedConfig;
use crate::progress::Progress;
use crate::random::{chance, splitmix64};
use crate::store::{Page, Store, StoreError};
use crate::units::grouped;

/// Keys read at once.
const KEYS_AT_ONCE: usize = 128;
/// Bytes of values read at once, where they are large.
const BYTES_AT_ONCE: usize = 64 * 1024;
/// Reads that may wait for their answer at once.
const IN_FLIGHT: usize = 64;
/// Keys named in the report, of all that are wrong.
const NAMED: usize = 5;
/// Apart from every other use of the dataset's seed.
const SAMPLE_SALT: u64 = 0x7665_7269_6679;
/// Keys of one page of the scan for extra keys.
const PAGE: usize = 1_000;

/// What was found.
#[derive(Debug, Default, serde::Serialize)]
pub(super) struct Verification {
    /// Keys that were to be read.
    pub(super) of: u64,
    /// Keys that were read and compared.
    pub(super) checked: u64,
    pub(super) missing: u64,
    /// Another value than the record of its index.
    pub(super) different: u64,
    /// Missing or different before, and written again: as they must be now.
    pub(super) rewritten: u64,
    /// Keys with the dataset's prefix that belong to no index, which is no fault; `None` when only a sample was read.
    pub(super) extra: Option<u64>,
    /// The first few of all these, with what is or was wrong.
    pub(super) first: Vec<String>,
    pub(super) elapsed_s: f64,
    /// Why it ended before its end.
    pub(super) failure: Option<String>,
    /// That was the wish of whoever runs it.
    #[serde(skip)]
    pub(super) is_interrupted: bool,
    /// From where it must be loaded again, as the store has lost what came after, or it has expired.
    #[serde(skip)]
    pub(super) behind: Option<u64>,
    /// The lowest index that is or was missing or different.
    #[serde(skip)]
    pub(super) first_fault: Option<u64>,
    /// All indexes below it were read, and are as they must be by now; 0 for a sample.
    #[serde(skip)]
    pub(super) certain: u64,
}

impl Verification {
    /// Everything was read, and is as it must be.
    pub(super) fn is_good(&self) -> bool {
        self.missing + self.different == 0 && self.failure.is_none()
    }

    pub(super) fn outcome(&self) -> Outcome {
        match () {
            () if self.is_good() => Outcome::Complete,
            () if self.is_interrupted => Outcome::Interrupted,
            () => Outcome::Failed,
        }
    }

    /// Nothing has ended it yet.
    fn is_open(&self) -> bool {
        self.failure.is_none() && self.behind.is_none()
    }

    /// Takes in what came of keeping the note.
    fn heed(&mut self, kept: Result<Kept, String>) {
        match kept {
            // What was verified before that is there no more, or may not be.
            Ok(Kept::Behind(position)) => {
                self.behind = Some(position);
                self.certain = self.certain.min(position);
            }
            Ok(Kept::Noted(_) | Kept::Unheard) => {}
            Err(failure) => {
                self.failure.get_or_insert(failure);
            }
        }
    }

    /// Takes in what was found of some keys, at first and in the end.
    fn take(&mut self, checked: &Checked, key: impl Fn(u64) -> String) {
        self.checked += checked.keys;
        for &(index, fault) in &checked.faults {
            let lowest = self.first_fault.map_or(index, |lowest| lowest.min(index));
            self.first_fault = Some(lowest);
            let is_left = checked.left.iter().any(|&(left, _)| left == index);
            let what = match (fault, is_left) {
                (Fault::Missing, true) => "is missing",
                (Fault::Different, true) => "has another value",
                (Fault::Missing, false) => "was missing",
                (Fault::Different, false) => "had another value",
            };
            self.rewritten += u64::from(!is_left);
            if self.first.len() < NAMED {
                self.name(format!("{} {what}", key(index)));
            }
        }
        for (_, fault) in &checked.left {
            match fault {
                Fault::Missing => self.missing += 1,
                Fault::Different => self.different += 1,
            }
        }
    }

    fn name(&mut self, line: String) {
        if self.first.len() < NAMED {
            self.first.push(line);
        }
    }
}

/// Reads the keys back, all or a sample, and compares them; with a keeper, writes again what is not as it must be.
pub(super) async fn verify(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    mut keeper: Option<&mut Keeper>,
    progress: &mut Progress,
) -> Verification {
    let typical_bytes = config.dataset.value_size.typical_bytes();
    let at_once = (BYTES_AT_ONCE / typical_bytes).clamp(1, KEYS_AT_ONCE);
    let mut indexes = sample(config).peekable();
    let lease = keeper.as_ref().map(|keeper| keeper.lease());
    // As in a load, what is of no use any more is not tried again.
    let halt = patience.stop.child_token();
    let of_reads = patience.until(&halt);
    let reader = Reader {
        store,
        config,
        patience: &of_reads,
        healer: lease.as_ref(),
    };
    let mut window = FuturesUnordered::new();
    let mut found = Verification {
        of: if config.verify_sample >= 1.0 {
            config.keys.get()
        } else {
            sample(config).count() as u64
        },
        ..Verification::default()
    };
    let mut pace = Pace::new(config.rate);
    let mut watermark = Watermark::new(0);
    let started = Instant::now();
    loop {
        if !found.is_open() {
            halt.cancel();
        }
        let go_on = !halt.is_cancelled();
        while go_on
            && window.len() < IN_FLIGHT
            && pace.wait().is_none()
            && lease.as_ref().is_none_or(Lease::holds)
            && indexes.peek().is_some()
        {
            let next: Vec<u64> = indexes.by_ref().take(at_once).collect();
            pace.take(next.len() as u64);
            window.push(reader.check(next));
        }
        if window.is_empty() && (!go_on || indexes.peek().is_none()) {
            break;
        }
        let wait = pace.wait().map_or(CHECKPOINT, |wait| wait.min(CHECKPOINT));
        tokio::select! {
            Some((last, outcome)) = window.next() => {
                match outcome {
                    Ok(checked) => {
                        found.take(&checked, |index| key_name(config, index));
                        if config.verify_sample >= 1.0 && checked.left.is_empty() {
                            watermark.acknowledge(last + 1 - checked.keys..last + 1);
                        }
                    }
                    // Interrupted between two attempts.
                    Err(_) if halt.is_cancelled() => {}
                    Err(error) => { found.failure.get_or_insert(error.to_string()); }
                }
                progress.update(last, || {
                    let rate = found.checked as f64 / started.elapsed().as_secs_f64();
                    format!("{} keys/s verified", grouped(rate as u64))
                });
            },
            kept = noticed(keeper.as_deref_mut()) => found.heed(kept),
            () = tokio::time::sleep(wait) => {}
            () = halt.cancelled(), if go_on => {}
        }
        found.certain = watermark.reached().min(found.behind.unwrap_or(u64::MAX));
        if found.is_open()
            && let Some(keeper) = &mut keeper
        {
            // Whatever was promised before, no more is certain until all is verified.
            keeper.beat(|| Entry::loading(position_of(config, found.certain), 0));
        }
    }
    found.elapsed_s = started.elapsed().as_secs_f64();
    if found.is_open() {
        end(&reader, keeper, &mut found, &mut pace).await;
    }
    let is_whole = found.checked == found.of && found.extra.is_some();
    if found.is_open() && !is_whole && patience.stop.is_cancelled() {
        found.failure = Some("interrupted".into());
        found.is_interrupted = true;
    }
    found
}

/// The key of an index, for a person.
fn key_name(config: &SeedConfig, index: u64) -> String {
    match &config.source {
        Some(source) => source.name(index),
        None => format!("{}{index}", config.dataset.key_prefix),
    }
}

/// The indexes to read: the same ones each time.
fn sample(config: &SeedConfig) -> impl Iterator<Item = u64> {
    let salt = splitmix64(config.dataset.seed, SAMPLE_SALT);
    let share = config.verify_sample;
    (0..config.keys.get())
        .filter(move |&index| share >= 1.0 || chance(splitmix64(salt, index), share))
}

/// What came of keeping the note, if there is one to keep.
async fn noticed(keeper: Option<&mut Keeper>) -> Result<Kept, String> {
    match keeper {
        Some(keeper) => keeper.noticed().await,
        None => std::future::pending().await,
    }
}

/// Looks for extra keys, if it came to its end, while the note is kept.
async fn end(
    reader: &Reader<'_>,
    mut keeper: Option<&mut Keeper>,
    found: &mut Verification,
    pace: &mut Pace,
) {
    if reader.patience.stop.is_cancelled() {
        return;
    }
    if found.checked == 0 {
        found.failure = Some("the sample holds no key".into());
        return;
    }
    if reader.config.verify_sample < 1.0 {
        return;
    }
    let position = position_of(reader.config, found.certain);
    let present = found.checked - found.missing;
    let mut counting = pin!(reader.count_extra(present, pace));
    while found.is_open() {
        if let Some(keeper) = &mut keeper {
            keeper.beat(|| Entry::loading(position, 0));
        }
        tokio::select! {
            counted = &mut counting => {
                match counted {
                    Ok(Some((extra, first))) => {
                        found.extra = Some(extra);
                        for line in first {
                            found.name(line);
                        }
                    }
                    Ok(None) => {}
                    Err(_) if reader.patience.stop.is_cancelled() => {}
                    Err(error) => found.failure = Some(error.to_string()),
                }
                return;
            }
            kept = noticed(keeper.as_deref_mut()) => found.heed(kept),
            () = tokio::time::sleep(CHECKPOINT) => {}
        }
    }
}

struct Reader<'a> {
    store: &'a Store,
    config: &'a SeedConfig,
    patience: &'a Patience<'a>,
    /// Allows to write again what is not as it must be.
    healer: Option<&'a Lease>,
}

/// What was found of some keys.
struct Checked {
    keys: u64,
    faults: Vec<(u64, Fault)>,
    /// Those of them that are still there.
    left: Vec<(u64, Fault)>,
}

impl Reader<'_> {
    /// Gives the last of the indexes, and what was found.
    async fn check(&self, indexes: Vec<u64>) -> (u64, Result<Checked, StoreError>) {
        let last = indexes.last().copied().unwrap_or_default();
        (last, self.check_and_heal(&indexes).await)
    }

    async fn check_and_heal(&self, indexes: &[u64]) -> Result<Checked, StoreError> {
        let faults = self.faults(indexes).await?;
        let mut left = faults.clone();
        if let Some(lease) = self.healer.filter(|_| !faults.is_empty()) {
            let wrong: Vec<u64> = faults.iter().map(|&(index, _)| index).collect();
            let write = async || {
                let indexes = wrong.iter().copied();
                load::write(self.store, self.config, lease, indexes, None).await
            };
            self.patience.insist(wrong[0], write).await?;
            left = self.faults(&wrong).await?;
        }
        Ok(Checked {
            keys: indexes.len() as u64,
            faults,
            left,
        })
    }

    async fn faults(&self, indexes: &[u64]) -> Result<Vec<(u64, Fault)>, StoreError> {
        let dataset = &self.config.dataset;
        let first = indexes.first().copied().unwrap_or_default();
        if let Some(source) = &self.config.source {
            let (keys, expected) = lines(source, indexes)?;
            let get = async || self.store.get_many(keys.clone()).await;
            let values = self.patience.insist(first, get).await?;
            let is_right = |place: usize, _, value: &Bytes| *value == expected[place];
            return Ok(faults_of(indexes, &values, is_right));
        }
        let get = async || {
            let mut buffer = BytesMut::new();
            let keys = indexes.iter().map(|&index| {
                dataset.put_key(index, &mut buffer);
                buffer.split().freeze()
            });
            self.store.get_many(keys.collect::<Vec<_>>()).await
        };
        let values = self.patience.insist(first, get).await?;
        Ok(compare(dataset, indexes, &values))
    }

    /// Looks for keys of the dataset's prefix that no index has, unless the number of all keys leaves no room; names the
    /// first few. `None` when it was stopped, or nobody can tell.
    async fn count_extra(
        &self,
        present: u64,
        pace: &mut Pace,
    ) -> Result<Option<(u64, Vec<String>)>, StoreError> {
        let (store, patience) = (self.store, self.patience);
        let keys = patience.insist(0, async || store.stats().await).await?.keys;
        let note = patience.insist(0, async || store.note_bytes().await);
        if keys <= present + u64::from(note.await?.is_some()) {
            return Ok(Some((0, Vec::new())));
        }
        if self.config.source.is_some() {
            // Which keys are none of the file, only all of its lines together tell.
            return Ok(None);
        }
        let (mut extra, mut first) = (0, Vec::new());
        let mut cursor = None;
        loop {
            if let Some(wait) = pace.wait() {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = patience.stop.cancelled() => {}
                }
            }
            if patience.stop.is_cancelled() {
                return Ok(None);
            }
            let scan = async || store.scan(cursor.clone(), PAGE).await;
            let Page { keys, next } = patience.insist(0, scan).await?;
            pace.take(keys.len() as u64);
            for key in keys {
                if is_extra(&self.config.dataset, self.config.keys.get(), &key) {
                    extra += 1;
                    if first.len() < NAMED {
                        first.push(format!("{} is not in the dataset", key.escape_ascii()));
                    }
                }
            }
            cursor = next;
            if cursor.is_none() {
                return Ok(Some((extra, first)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Dataset, Format};

    fn dataset() -> Dataset {
        Dataset {
            key_prefix: "p:".into(),
            value_size: "100".parse().expect("a size"),
            seed: 1,
            format: Format::Record,
        }
    }

    fn record(index: u64) -> Bytes {
        let mut out = BytesMut::new();
        dataset().put_record(index, &mut out);
        out.freeze()
    }

    #[test]
    fn what_is_missing_or_different_is_counted_and_named() {
        let values = [Some(record(0)), None, Some(record(0))];
        let faults = compare(&dataset(), &[0, 1, 2], &values);
        assert_eq!(faults, [(1, Fault::Missing), (2, Fault::Different)]);
        let mut found = Verification::default();
        let left = faults.clone();
        let keys = 3;
        found.take(&Checked { keys, faults, left }, |index| {
            format!("p:{index}")
        });
        assert_eq!((found.checked, found.missing, found.different), (3, 1, 1));
        assert_eq!(found.first, ["p:1 is missing", "p:2 has another value"]);
        assert!(!found.is_good());
    }

    #[test]
    fn what_was_written_again_is_no_fault_but_told() {
        let mut found = Verification::default();
        let (keys, left) = (3, Vec::new());
        let faults = vec![(7, Fault::Different), (9, Fault::Missing)];
        found.take(&Checked { keys, faults, left }, |index| {
            format!("p:{index}")
        });
        assert!(found.is_good());
        assert_eq!((found.rewritten, found.first_fault), (2, Some(7)));
        assert_eq!(found.first, ["p:7 had another value", "p:9 was missing"]);
    }
}
