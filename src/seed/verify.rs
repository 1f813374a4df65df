//! Verifying: what the store holds against what it must hold, byte by byte.
//!
//! Enters: a dataset and a store. Leaves: a [`Verification`]. Must not write anything, nor take an answer for
//! right because it is there.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::load::Patience;
use crate::config::SeedConfig;
use crate::progress::Progress;
use crate::random::{chance, splitmix64};
use crate::record::Dataset;
use crate::store::{DATASET_KEY, Store, StoreError};
use crate::units::grouped;

/// Keys read at once. fred reads a long answer again from its start at every 8 KiB, so not many.
const KEYS_AT_ONCE: usize = 32;
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
    /// Keys that were read and compared.
    pub(super) checked: u64,
    pub(super) missing: u64,
    /// Another value than the record of its index.
    pub(super) different: u64,
    /// Keys with the dataset's prefix that belong to no index; `None` when only a sample was read.
    pub(super) extra: Option<u64>,
    /// The first few of them, with what is wrong.
    pub(super) first: Vec<String>,
    pub(super) elapsed_s: f64,
    /// Why it ended before its end.
    pub(super) failure: Option<String>,
}

impl Verification {
    /// Everything was read, and is as it must be.
    pub(super) fn is_good(&self) -> bool {
        let wrong = self.missing + self.different + self.extra.unwrap_or(0);
        wrong == 0 && self.failure.is_none()
    }

    fn name(&mut self, dataset: &Dataset, index: u64, what: &str) {
        if self.first.len() < NAMED {
            self.first
                .push(format!("{}{index} {what}", dataset.key_prefix));
        }
    }
}

/// Reads the keys back, all or a sample, and compares them.
pub(super) async fn verify(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    progress: &mut Progress,
) -> Verification {
    let dataset = &config.dataset;
    let at_once = (BYTES_AT_ONCE / dataset.value_size.typical_bytes()).clamp(1, KEYS_AT_ONCE);
    let salt = splitmix64(dataset.seed, SAMPLE_SALT);
    let share = config.verify_sample;
    let mut indexes = (0..config.keys.get())
        .filter(|&index| share >= 1.0 || chance(splitmix64(salt, index), share));
    let mut window = FuturesUnordered::new();
    let mut found = Verification::default();
    let started = Instant::now();
    loop {
        while window.len() < IN_FLIGHT && found.failure.is_none() {
            let next: Vec<u64> = indexes.by_ref().take(at_once).collect();
            if next.is_empty() || patience.stop.is_cancelled() {
                break;
            }
            window.push(read(store, dataset, patience, next));
        }
        let Some((asked, outcome)) = window.next().await else {
            break;
        };
        match outcome {
            Ok(values) => compare(dataset, &asked, &values, &mut found),
            Err(error) => found.failure = found.failure.take().or(Some(error.to_string())),
        }
        let done = asked.last().copied().unwrap_or_default();
        progress.update(done, || {
            let rate = found.checked as f64 / started.elapsed().as_secs_f64();
            format!("{} keys/s verified", grouped(rate as u64))
        });
    }
    if patience.stop.is_cancelled() {
        found.failure.get_or_insert_with(|| "interrupted".into());
    } else if found.checked == 0 {
        found
            .failure
            .get_or_insert_with(|| "the sample holds no key".into());
    }
    if share >= 1.0 && found.failure.is_none() {
        count_extra(store, config, patience, &mut found).await;
    }
    found.elapsed_s = started.elapsed().as_secs_f64();
    found
}

async fn read(
    store: &Store,
    dataset: &Dataset,
    patience: &Patience<'_>,
    indexes: Vec<u64>,
) -> (Vec<u64>, Result<Vec<Option<Bytes>>, StoreError>) {
    let get = async || {
        let mut buffer = BytesMut::new();
        let keys = indexes.iter().map(|&index| {
            dataset.put_key(index, &mut buffer);
            buffer.split().freeze()
        });
        store.get_many(keys.collect::<Vec<_>>()).await
    };
    let first = indexes.first().copied().unwrap_or_default();
    let outcome = patience.insist(first, get).await;
    (indexes, outcome)
}

fn compare(dataset: &Dataset, indexes: &[u64], values: &[Option<Bytes>], found: &mut Verification) {
    let mut record = BytesMut::with_capacity(dataset.value_size.typical_bytes());
    for (&index, value) in indexes.iter().zip(values) {
        found.checked += 1;
        let Some(value) = value else {
            found.missing += 1;
            found.name(dataset, index, "is missing");
            continue;
        };
        record.clear();
        dataset.put_record(index, &mut record);
        if value[..] != record[..] {
            found.different += 1;
            found.name(dataset, index, "has another value");
        }
    }
}

/// Looks for keys of the dataset's prefix that no index has, unless the number of all keys leaves no room.
async fn count_extra(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    found: &mut Verification,
) {
    let mut extra = 0;
    let present = found.checked - found.missing;
    let outcome: Result<(), StoreError> = async {
        let keys = patience.insist(0, async || store.stats().await).await?.keys;
        let note = patience.insist(0, async || store.dataset_note().await);
        if keys <= present + u64::from(note.await?.is_some()) {
            return Ok(());
        }
        let mut cursor = None;
        loop {
            if patience.stop.is_cancelled() {
                return Err(StoreError::Unavailable("interrupted".into()));
            }
            let page = async || store.scan(cursor.clone(), PAGE).await;
            let page = patience.insist(0, page).await?;
            for key in page.keys {
                if is_extra(&config.dataset, config.keys.get(), &key) {
                    extra += 1;
                    if found.first.len() < NAMED {
                        let key = key.escape_ascii();
                        found.first.push(format!("{key} belongs to no index"));
                    }
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(())
    }
    .await;
    match outcome {
        Ok(()) => found.extra = Some(extra),
        Err(_) if patience.stop.is_cancelled() => found.failure = Some("interrupted".into()),
        Err(error) => found.failure = Some(error.to_string()),
    }
}

fn is_extra(dataset: &Dataset, keys: u64, key: &[u8]) -> bool {
    if key == DATASET_KEY {
        return false;
    }
    let Some(digits) = key.strip_prefix(dataset.key_prefix.as_bytes()) else {
        return false;
    };
    let index = std::str::from_utf8(digits).ok().and_then(|text| {
        let index: u64 = text.parse().ok()?;
        // Only as it is written by this program: no sign, no zeros in front.
        (index.to_string() == text).then_some(index)
    });
    index.is_none_or(|index| index >= keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset() -> Dataset {
        Dataset {
            key_prefix: "p:".into(),
            value_size: "100".parse().expect("a size"),
            seed: 1,
        }
    }

    fn record(index: u64) -> Bytes {
        let mut out = BytesMut::new();
        dataset().put_record(index, &mut out);
        out.freeze()
    }

    #[test]
    fn what_is_missing_or_different_is_counted_and_named() {
        let mut found = Verification::default();
        let values = [Some(record(0)), None, Some(record(0))];
        compare(&dataset(), &[0, 1, 2], &values, &mut found);
        assert_eq!((found.checked, found.missing, found.different), (3, 1, 1));
        assert_eq!(found.first, ["p:1 is missing", "p:2 has another value"]);
        assert!(!found.is_good());
    }

    #[test]
    fn extra_keys_have_the_prefix_and_no_index() {
        for (key, expected) in [
            ("p:0", false),
            ("p:9", false),
            ("p:10", true),
            ("p:01", true),
            ("p:+1", true),
            ("p:", true),
            ("p:x", true),
            ("other:1", false),
        ] {
            assert_eq!(is_extra(&dataset(), 10, key.as_bytes()), expected, "{key}");
        }
    }
}
