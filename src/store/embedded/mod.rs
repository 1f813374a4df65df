//! The embedded store: an LMDB folder. Only this folder of files names heed.
//!
//! Enters: keys and values. Leaves: values copied out of the map. Must not hold a read transaction longer
//! than one call, or the file grows without end while another process writes.
//!
//! A value is kept behind 8 bytes: its expiry in milliseconds since the Unix epoch, little-endian, 0 for
//! none. An expired value is absent to every reader; whoever serves or seeds removes it soon.
//!
//! Seed, serve and inspect may hold one folder at once: readers never wait, writers wait for each other.
//! All must see the same process ids, as LMDB tells its readers apart by them.

mod expiry;
mod open;
mod transaction;

use std::io::ErrorKind;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use heed::types::Bytes as Raw;
use heed::{Database, Env, MdbError, WithoutTls};
use tokio::sync::Semaphore;

use super::deadline::AbortOnDrop;
use super::{Batch, Description, Measure, Only, Page, StoreError, StoreStats, TimeToLive, Usage};
use crate::units::MAX_KEY_BYTES;
use expiry::Expiries;

/// Address space to reserve; the file stays sparse and grows with the data.
const MAP_BYTES: usize = 64 * 1024 * 1024 * 1024;
const EXPIRY_BYTES: usize = 8;

#[derive(Clone)]
pub(super) struct Embedded {
    env: Env<WithoutTls>,
    database: Database<'static, Raw, Raw>,
    /// `None`: nobody has written to the folder since there is such a thing.
    expiries: Option<Expiries>,
    /// LMDB has one writer at a time. Who waits for it here can give up; who waits inside LMDB, behind
    /// another process, cannot.
    writer: Arc<Semaphore>,
    timeout: Duration,
    _sweeper: Option<Arc<AbortOnDrop>>,
}

impl Embedded {
    pub(super) fn open(folder: &Path, usage: Usage, timeout: Duration) -> Result<Self, StoreError> {
        let (env, database, expiries) = open::open(folder, usage)?;
        Ok(Self {
            env,
            database,
            expiries,
            writer: Arc::new(Semaphore::new(1)),
            timeout,
            _sweeper: None,
        })
    }

    /// The same store, and what has expired is removed from it for as long as it is open.
    pub(super) fn swept(self) -> Self {
        let sweeper = tokio::spawn(expiry::sweep_for_ever(self.clone()));
        Self {
            _sweeper: Some(Arc::new(AbortOnDrop::new(&sweeper))),
            ..self
        }
    }

    pub(super) fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let now_ms = now_ms();
        let txn = self.env.read_txn().map_err(store_error)?;
        // One buffer for all values: one allocation instead of one a key.
        let mut buffer = BytesMut::new();
        let mut spans = Vec::with_capacity(keys.len());
        for key in keys {
            let stored = self.lookup(&txn, key)?;
            spans.push(
                stored
                    .and_then(|stored| live(stored, now_ms))
                    .map(|(value, _)| {
                        let start = buffer.len();
                        buffer.put_slice(value);
                        start..buffer.len()
                    }),
            );
        }
        let buffer = buffer.freeze();
        Ok(spans
            .into_iter()
            .map(|span| span.map(|span| buffer.slice(span)))
            .collect())
    }

    pub(super) async fn put_batch(
        &self,
        batch: Batch,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.writing(move |store| {
            let expiry = expiry_ms(ttl);
            let mut txn = store.env.write_txn().map_err(store_error)?;
            for (key, value) in batch.into_entries() {
                store.write(&mut txn, &key, &value, expiry)?;
            }
            txn.commit().map_err(store_error)
        })
        .await
    }

    pub(super) async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.writing(move |store| {
            let mut txn = store.env.write_txn().map_err(store_error)?;
            store.write(&mut txn, &key, &value, expiry_ms(ttl))?;
            txn.commit().map_err(store_error)
        })
        .await
    }

    pub(super) async fn put_if(
        &self,
        only: Only,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError> {
        self.writing(move |store| {
            let mut txn = store.env.write_txn().map_err(store_error)?;
            let stored = store.lookup(&txn, &key)?;
            let is_there = stored.is_some_and(|stored| live(stored, now_ms()).is_some());
            if is_there != (only == Only::IfPresent) {
                return Ok(false);
            }
            store.write(&mut txn, &key, &value, expiry_ms(ttl))?;
            txn.commit().map_err(store_error)?;
            Ok(true)
        })
        .await
    }

    /// Sets the key if it holds what is expected, or the new value already; whether it did.
    pub(super) async fn replace(
        &self,
        key: Bytes,
        expected: Option<Bytes>,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError> {
        self.writing(move |store| {
            let mut txn = store.env.write_txn().map_err(store_error)?;
            let stored = store.lookup(&txn, &key)?;
            let held = stored.and_then(|stored| live(stored, now_ms()));
            let held = held.map(|(value, _)| value);
            if held != expected.as_deref() && held != Some(&value[..]) {
                return Ok(false);
            }
            store.write(&mut txn, &key, &value, expiry_ms(ttl))?;
            txn.commit().map_err(store_error)?;
            Ok(true)
        })
        .await
    }

    pub(super) fn time_to_live(&self, key: &Bytes) -> Result<TimeToLive, StoreError> {
        let measured = self.measure(std::slice::from_ref(key))?;
        let absent = TimeToLive::Absent;
        Ok(measured.first().map_or(absent, |measure| measure.left))
    }

    pub(super) fn measure(&self, keys: &[Bytes]) -> Result<Vec<Measure>, StoreError> {
        let now_ms = now_ms();
        let txn = self.env.read_txn().map_err(store_error)?;
        let measure = |key: &Bytes| {
            let stored = self.lookup(&txn, key)?;
            let live = stored.and_then(|stored| live(stored, now_ms));
            Ok(Measure {
                bytes: live.map(|(value, _)| value.len() as u64),
                left: match live {
                    None => TimeToLive::Absent,
                    Some((_, 0)) => TimeToLive::Forever,
                    Some((_, expiry)) => TimeToLive::Left(Duration::from_millis(expiry - now_ms)),
                },
            })
        };
        keys.iter().map(measure).collect()
    }

    pub(super) async fn delete(&self, keys: Vec<Bytes>) -> Result<u64, StoreError> {
        self.writing(move |store| {
            let mut txn = store.env.write_txn().map_err(store_error)?;
            let mut removed = 0;
            for key in &keys {
                let Some(stored) = store.lookup(&txn, key)? else {
                    continue;
                };
                removed += u64::from(live(stored, now_ms()).is_some());
                store.database.delete(&mut txn, key).map_err(store_error)?;
            }
            txn.commit().map_err(store_error)?;
            Ok(removed)
        })
        .await
    }

    pub(super) fn describe(&self, key: &Bytes) -> Result<Option<Description>, StoreError> {
        let now_ms = now_ms();
        let txn = self.env.read_txn().map_err(store_error)?;
        let stored = self.lookup(&txn, key)?;
        Ok(stored
            .and_then(|stored| live(stored, now_ms))
            .map(|(value, expiry)| Description {
                kind: "string".into(),
                value: Some(Bytes::copy_from_slice(value)),
                ttl: (expiry > 0).then(|| Duration::from_millis(expiry - now_ms)),
                encoding: Some("raw".into()),
                memory_bytes: None,
                slot: None,
                node: None,
            }))
    }

    pub(super) fn scan(&self, cursor: Option<&Bytes>, count: usize) -> Result<Page, StoreError> {
        let now_ms = now_ms();
        let txn = self.env.read_txn().map_err(store_error)?;
        let start = cursor.map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        let range = (start, Bound::<&[u8]>::Unbounded);
        let mut keys = Vec::with_capacity(count.min(1_024));
        let mut last = None;
        let entries = self.database.range(&txn, &range).map_err(store_error)?;
        for entry in entries.take(count.max(1)) {
            let (key, stored) = entry.map_err(store_error)?;
            let key = Bytes::copy_from_slice(key);
            if key != expiry::NAME.as_bytes() && live(stored, now_ms).is_some() {
                keys.push(key.clone());
            }
            last = Some(key);
        }
        Ok(Page { keys, next: last })
    }

    pub(super) fn stats(&self) -> Result<StoreStats, StoreError> {
        let txn = self.env.read_txn().map_err(store_error)?;
        let all = self.database.len(&txn).map_err(store_error)?;
        let not_keys = match &self.expiries {
            None => 0,
            // Its own entry among the keys is none.
            Some(expiries) => 1 + expiries.dead(&self.database, &txn, now_ms())?,
        };
        let version = heed::lmdb_version();
        let page_bytes = u64::from(self.database.stat(&txn).map_err(store_error)?.page_size);
        let used = (self.env.info().last_page_number as u64 + 1) * page_bytes;
        Ok(StoreStats {
            engine: "embedded".into(),
            version: Some(format!(
                "LMDB {}.{}.{}",
                version.major, version.minor, version.patch
            )),
            keys: all.saturating_sub(not_keys),
            memory_bytes: Some(used),
            // What the map or the disk still has, whichever is less.
            max_memory_bytes: Some((MAP_BYTES as u64).min(used.saturating_add(self.free_bytes()))),
            ..StoreStats::default()
        })
    }

    /// Bytes that the disk has left; without end where the system does not tell.
    fn free_bytes(&self) -> u64 {
        rustix::fs::statvfs(self.env.path())
            .map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Without a deadline: several GB may have to reach the disk.
    pub(super) async fn sync(&self) -> Result<(), StoreError> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.env.force_sync().map_err(store_error))
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))?
    }

    /// Does the work on a thread that may wait, for the disk and for another process that writes.
    async fn writing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let written = async move {
            let turn = store.writer.clone().acquire_owned().await;
            let work = move || {
                // Kept by the work itself: whoever gave up on it, the next one waits for its end.
                let _turn = turn;
                work(&store)
            };
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|error| StoreError::Unavailable(error.to_string()))?
        };
        tokio::time::timeout(self.timeout, written)
            .await
            .unwrap_or(Err(StoreError::Timeout(self.timeout)))
    }

    fn lookup<'txn>(
        &self,
        txn: &'txn heed::RoTxn<'_>,
        key: &[u8],
    ) -> Result<Option<&'txn [u8]>, StoreError> {
        // LMDB refuses an empty or overlong key with an error; to a reader it is simply not there.
        if !(1..=MAX_KEY_BYTES).contains(&key.len()) || key == expiry::NAME.as_bytes() {
            return Ok(None);
        }
        self.database.get(txn, key).map_err(store_error)
    }

    fn write(
        &self,
        txn: &mut heed::RwTxn<'_>,
        key: &[u8],
        value: &[u8],
        expiry: u64,
    ) -> Result<(), StoreError> {
        if let Some(expiries) = self.expiries.as_ref().filter(|_| expiry > 0) {
            expiries.note(txn, expiry, key)?;
        }
        self.database
            .put_reserved(txn, key, EXPIRY_BYTES + value.len(), |space| {
                use std::io::Write as _;
                space.write_all(&expiry.to_le_bytes())?;
                space.write_all(value)
            })
            .map_err(store_error)
    }
}

/// Value and expiry of what is stored, if it has not expired.
fn live(stored: &[u8], now_ms: u64) -> Option<(&[u8], u64)> {
    let (expiry, value) = stored.split_first_chunk::<EXPIRY_BYTES>()?;
    let expiry = u64::from_le_bytes(*expiry);
    (expiry == 0 || expiry > now_ms).then_some((value, expiry))
}

fn expiry_ms(ttl: Option<Duration>) -> u64 {
    expiry_after(now_ms(), ttl)
}

fn expiry_after(now_ms: u64, ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |ttl| {
        now_ms.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    })
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

fn store_error(error: heed::Error) -> StoreError {
    match error {
        heed::Error::Mdb(MdbError::MapFull) => {
            StoreError::Full("the embedded store holds at most 64 GiB".into())
        }
        heed::Error::Io(error)
            if matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
            ) =>
        {
            StoreError::Full(error.to_string())
        }
        // What LMDB makes of a write that was cut short; the next one would say why.
        heed::Error::Io(error)
            if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) =>
        {
            StoreError::Full(format!(
                "a write was cut short ({error}): the disk is full, or failing"
            ))
        }
        error => StoreError::Refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
