//! The embedded store: an LMDB folder. The only file that names heed.
//!
//! Enters: keys and values. Leaves: values copied out of the map. Must not hold a read transaction longer
//! than one call, or the file grows without end while another process writes.
//!
//! A value is kept behind 8 bytes: its expiry in milliseconds since the Unix epoch, little-endian, 0 for
//! none. An expired value is absent to every reader; its bytes stay until the key is written again.
//!
//! Seed, serve and inspect may hold one folder at once: readers never wait, writers wait for each other.

use std::io::ErrorKind;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use heed::types::Bytes as Raw;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, MdbError, WithoutTls};
use tokio::sync::Semaphore;

use super::{Batch, Description, Measure, Page, StoreError, StoreStats, TimeToLive, Usage};
use crate::units::MAX_KEY_BYTES;

/// Address space to reserve; the file stays sparse and grows with the data.
const MAP_BYTES: usize = 64 * 1024 * 1024 * 1024;
/// One reader per thread of every process on the folder.
const MAX_READERS: u32 = 1_024;
const EXPIRY_BYTES: usize = 8;

#[derive(Clone)]
pub(super) struct Embedded {
    env: Env<WithoutTls>,
    database: Database<'static, Raw, Raw>,
    /// LMDB has one writer at a time. Who waits for it here can give up; who waits inside LMDB, behind
    /// another process, cannot.
    writer: Arc<Semaphore>,
    timeout: Duration,
}

impl Embedded {
    pub(super) fn open(folder: &Path, usage: Usage, timeout: Duration) -> Result<Self, StoreError> {
        let fail = |error: &dyn std::fmt::Display| {
            StoreError::Setup(format!("embedded store {}: {error}", folder.display()))
        };
        if usage == Usage::Look && !folder.join("data.mdb").exists() {
            return Err(fail(
                &"there is no store here; load one with kvpoc seed --store embedded:DIR",
            ));
        }
        std::fs::create_dir_all(folder).map_err(|error| fail(&error))?;
        let env = open_environment(folder, usage).map_err(|error| fail(&error))?;
        env.clear_stale_readers().map_err(|error| fail(&error))?;
        // The unnamed database always exists, and reading never waits for a writer.
        let txn = env.read_txn().map_err(|error| fail(&error))?;
        let database = env
            .open_databases_and_commit(txn, |opener, txn| {
                opener
                    .open_database::<Raw, Raw>(txn, None)
                    .map(CommitOrAbort::<_, ()>::Commit)
            })
            .map_err(|error: heed::Error| fail(&error))?
            .unwrap_commit()
            .ok_or_else(|| fail(&"it has no unnamed database"))?;
        Ok(Self {
            env,
            database,
            writer: Arc::new(Semaphore::new(1)),
            timeout,
        })
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

    pub(super) async fn put_if_absent(
        &self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError> {
        self.writing(move |store| {
            let mut txn = store.env.write_txn().map_err(store_error)?;
            let stored = store.lookup(&txn, &key)?;
            if stored.is_some_and(|stored| live(stored, now_ms()).is_some()) {
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
                let stored = store.lookup(&txn, key)?;
                removed += u64::from(stored.is_some_and(|one| live(one, now_ms()).is_some()));
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
            if live(stored, now_ms).is_some() {
                keys.push(key.clone());
            }
            last = Some(key);
        }
        Ok(Page { keys, next: last })
    }

    pub(super) fn stats(&self) -> Result<StoreStats, StoreError> {
        let txn = self.env.read_txn().map_err(store_error)?;
        let keys = self.database.len(&txn).map_err(store_error)?;
        let version = heed::lmdb_version();
        let page_bytes = u64::from(self.database.stat(&txn).map_err(store_error)?.page_size);
        let used = (self.env.info().last_page_number as u64 + 1) * page_bytes;
        Ok(StoreStats {
            engine: "embedded".into(),
            version: Some(format!(
                "LMDB {}.{}.{}",
                version.major, version.minor, version.patch
            )),
            keys,
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
        if !(1..=MAX_KEY_BYTES).contains(&key.len()) {
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
        self.database
            .put_reserved(txn, key, EXPIRY_BYTES + value.len(), |space| {
                use std::io::Write as _;
                space.write_all(&expiry.to_le_bytes())?;
                space.write_all(value)
            })
            .map_err(store_error)
    }
}

/// Opens LMDB; `Load` leaves the sync to [`Embedded::sync`]. A power loss during a load may cost the whole
/// folder: pages of the last synced state are written over before the next one is on disk.
#[allow(unsafe_code)]
fn open_environment(folder: &Path, usage: Usage) -> heed::Result<Env<WithoutTls>> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(MAP_BYTES).max_readers(MAX_READERS);
    if usage == Usage::Load {
        // SAFETY: NO_SYNC gives up the order of writes on disk, which matters when the machine loses power;
        // a process, whether it reads, dies or is killed, sees committed pages only.
        unsafe { options.flags(EnvFlags::NO_SYNC) };
    }
    // SAFETY: the map is only changed through LMDB, which locks the folder among processes. Truncating
    // the file under a running process would be undefined; nothing here ever does.
    unsafe { options.open(folder) }
}

/// Value and expiry of what is stored, if it has not expired.
fn live(stored: &[u8], now_ms: u64) -> Option<(&[u8], u64)> {
    let (expiry, value) = stored.split_first_chunk::<EXPIRY_BYTES>()?;
    let expiry = u64::from_le_bytes(*expiry);
    (expiry == 0 || expiry > now_ms).then_some((value, expiry))
}

fn expiry_ms(ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |ttl| {
        now_ms().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
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
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn open() -> (tempfile::TempDir, Embedded) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Embedded::open(folder.path(), Usage::Serve, SECOND).expect("opens");
        (folder, store)
    }

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn only_a_load_leaves_the_sync_to_its_end() {
        for (usage, leaves) in [(Usage::Serve, false), (Usage::Load, true)] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let store = Embedded::open(folder.path(), usage, SECOND).expect("opens");
            let flags = store.env.flags().expect("flags").expect("known ones");
            assert_eq!(flags.contains(EnvFlags::NO_SYNC), leaves, "{usage:?}");
        }
    }

    #[tokio::test]
    async fn values_come_back_in_the_order_of_the_keys() {
        let (_folder, store) = open();
        store.put(bytes("a"), bytes("1"), None).await.expect("put");
        store.put(bytes("b"), bytes(""), None).await.expect("put");
        let got = store.get_many(&[bytes("b"), bytes("x"), bytes("a"), bytes("")]);
        let expected = vec![Some(bytes("")), None, Some(bytes("1")), None];
        assert_eq!(got.expect("get"), expected);
    }

    #[tokio::test]
    async fn an_expired_value_is_absent_to_every_reader() {
        let (_folder, store) = open();
        let ttl = Some(Duration::from_millis(1));
        store
            .put(bytes("gone"), bytes("1"), ttl)
            .await
            .expect("put");
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert_eq!(store.get_many(&[bytes("gone")]).expect("get"), [None]);
        assert_eq!(store.describe(&bytes("gone")).expect("describe"), None);
        assert!(store.scan(None, 10).expect("scan").keys.is_empty());
        assert_eq!(store.delete(vec![bytes("gone")]).await.expect("delete"), 0);
    }

    #[tokio::test]
    async fn a_key_is_written_once_until_it_expires() {
        let (_folder, store) = open();
        let put = |value, ttl| store.put_if_absent(bytes("a"), bytes(value), ttl);
        let long = Some(Duration::from_hours(1));
        assert!(put("1", long).await.expect("put"));
        assert!(!put("2", None).await.expect("put"));
        let left = store.time_to_live(&bytes("a")).expect("ttl");
        assert!(matches!(left, TimeToLive::Left(_)), "{left:?}");
        let short = Some(Duration::from_millis(20));
        let again = store.put(bytes("a"), bytes("1"), short);
        again.await.expect("put");
        while !put("3", None).await.expect("put") {}
        let stored = store.get_many(&[bytes("a")]).expect("get");
        assert_eq!(stored, [Some(bytes("3"))]);
        assert_eq!(
            store.time_to_live(&bytes("a")).expect("ttl"),
            TimeToLive::Forever
        );
        assert_eq!(
            store.time_to_live(&bytes("b")).expect("ttl"),
            TimeToLive::Absent
        );
    }

    #[tokio::test]
    async fn a_scan_visits_every_key_once() {
        let (_folder, store) = open();
        let mut batch = Batch::default();
        for index in 0..25_u8 {
            batch.push(|key| key.put_u8(index + 1), |value| value.put_u8(index));
        }
        store.put_batch(batch, None).await.expect("put");
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = store.scan(cursor.as_ref(), 10).expect("scan");
            seen.extend(page.keys);
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        assert_eq!(seen.len(), 25);
        assert!(seen.is_sorted());
    }

    #[tokio::test]
    async fn a_writer_that_does_not_get_its_turn_gives_up_and_the_next_one_succeeds() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let timeout = Duration::from_millis(50);
        let store = Embedded::open(folder.path(), Usage::Serve, timeout).expect("opens");
        let other = store.clone();
        let (entered, is_in) = std::sync::mpsc::channel();
        let (leave, is_told) = std::sync::mpsc::channel::<()>();
        let holder = std::thread::spawn(move || {
            let _txn = other.env.write_txn().expect("a transaction");
            entered.send(()).expect("somebody waits");
            let _ = is_told.recv();
        });
        is_in.recv().expect("the other writer is in");
        for _ in 0..3 {
            let refused = store.put(bytes("a"), bytes("1"), None).await;
            assert!(
                matches!(refused, Err(StoreError::Timeout(_))),
                "{refused:?}"
            );
        }
        drop(leave);
        holder.join().expect("it ends");
        while store.put(bytes("a"), bytes("2"), None).await.is_err() {}
        let expected = vec![Some(bytes("2"))];
        assert_eq!(store.get_many(&[bytes("a")]).expect("get"), expected);
    }

    #[test]
    fn looking_at_a_folder_that_is_not_there_creates_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let absent = folder.path().join("absent");
        assert!(Embedded::open(&absent, Usage::Look, SECOND).is_err());
        assert!(!absent.exists());
    }
}
