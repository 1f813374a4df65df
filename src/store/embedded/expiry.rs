//! What expires when, and its end.
//!
//! Enters: expiries as they are written, and the time. Leaves: a store without what has expired, and how much of it is
//! still there. Must not remove a value that was written anew, nor keep writers waiting for long.
//!
//! A database of its own, expiry → keys, so that what stays costs nothing. What is written over leaves its old entry
//! behind, which counts for nothing as soon as it is compared with the value. LMDB keeps the name of a database among
//! the keys of the unnamed one: there it is hidden.

use std::ops::Bound;
use std::time::Duration;

use heed::types::Bytes as Raw;
use heed::{
    Database, DatabaseFlags, DatabaseOpenOptions, DatabaseOpener, RoTxn, RwTxn, WithoutTls,
};

use super::{EXPIRY_BYTES, Embedded, StoreError, now_ms, store_error};

/// No key that a person would choose.
pub(super) const NAME: &str = "\u{1}kvpoc:expiries";
/// How often is looked for what has expired.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Keys removed in one transaction: some 10 ms in which others wait to write.
const SWEPT_AT_ONCE: usize = 4_096;

type Entries = Database<'static, Raw, Raw>;
/// Expiry, big-endian so that the earliest comes first, and key.
type Entry = (Vec<u8>, Vec<u8>);

#[derive(Clone)]
pub(super) struct Expiries(Entries);

impl Expiries {
    pub(super) fn options<'env, 'name>(
        opener: &'name DatabaseOpener<'env, WithoutTls>,
    ) -> DatabaseOpenOptions<'env, 'name, WithoutTls, Raw, Raw> {
        let mut options = opener.database_options().types::<Raw, Raw>();
        options.name(NAME).flags(DatabaseFlags::DUP_SORT);
        options
    }

    pub(super) fn of(entries: Entries) -> Self {
        Self(entries)
    }

    /// Notes that the key is written with that expiry.
    pub(super) fn note(
        &self,
        txn: &mut RwTxn<'_>,
        expiry: u64,
        key: &[u8],
    ) -> Result<(), StoreError> {
        let noted = self.0.put(txn, &expiry.to_be_bytes(), key);
        noted.map_err(store_error)
    }

    /// How many keys have expired and are still there.
    pub(super) fn dead(
        &self,
        values: &Entries,
        txn: &RoTxn<'_>,
        now_ms: u64,
    ) -> Result<u64, StoreError> {
        let until = now_ms.to_be_bytes();
        let range = (Bound::Unbounded, Bound::Included(&until[..]));
        let mut dead = 0;
        for entry in self.0.range(txn, &range).map_err(store_error)? {
            let (expiry, key) = entry.map_err(store_error)?;
            dead += u64::from(is_of(values, txn, expiry, key)?);
        }
        Ok(dead)
    }

    /// The first so many entries that are due.
    fn due(&self, txn: &RoTxn<'_>, now_ms: u64, most: usize) -> Result<Vec<Entry>, StoreError> {
        let until = now_ms.to_be_bytes();
        let range = (Bound::Unbounded, Bound::Included(&until[..]));
        let entries = self.0.range(txn, &range).map_err(store_error)?;
        let owned = entries.take(most).map(|entry| {
            let (expiry, key) = entry.map_err(store_error)?;
            Ok((expiry.to_vec(), key.to_vec()))
        });
        owned.collect()
    }
}

/// Whether the value of the key is still the one that was written with this expiry, big-endian as it is noted.
fn is_of(values: &Entries, txn: &RoTxn<'_>, expiry: &[u8], key: &[u8]) -> Result<bool, StoreError> {
    let stored = values.get(txn, key).map_err(store_error)?;
    let held = stored.and_then(|stored| stored.first_chunk::<EXPIRY_BYTES>());
    Ok(held.is_some_and(|held| u64::from_le_bytes(*held).to_be_bytes() == expiry))
}

impl Embedded {
    /// Removes what has expired, up to a bound; whether there may be more.
    pub(super) async fn sweep(&self) -> Result<bool, StoreError> {
        let Some(expiries) = self.expiries.clone() else {
            return Ok(false);
        };
        {
            // Nobody has to wait for a look.
            let txn = self.env.read_txn().map_err(store_error)?;
            if expiries.due(&txn, now_ms(), 1)?.is_empty() {
                return Ok(false);
            }
        }
        self.writing(move |store| {
            let mut txn = store.env.write_txn().map_err(store_error)?;
            let due = expiries.due(&txn, now_ms(), SWEPT_AT_ONCE)?;
            for (expiry, key) in &due {
                if is_of(&store.database, &txn, expiry, key)? {
                    store.database.delete(&mut txn, key).map_err(store_error)?;
                }
                let gone = expiries.0.delete_one_duplicate(&mut txn, expiry, key);
                gone.map_err(store_error)?;
            }
            txn.commit().map_err(store_error)?;
            Ok(due.len() == SWEPT_AT_ONCE)
        })
        .await
    }
}

/// Whatever is in the way of it, a full disk or another writer, may have gone the next time.
pub(super) async fn sweep_for_ever(store: Embedded) {
    loop {
        match store.sweep().await {
            // Others that wait to write have their turn in between.
            Ok(true) => tokio::task::yield_now().await,
            Ok(false) | Err(_) => tokio::time::sleep(SWEEP_EVERY).await,
        }
    }
}
