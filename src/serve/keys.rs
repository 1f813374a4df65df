//! The store as the routes use it: every command and key operation is counted.
//!
//! Enters: keys and values. Leaves: values. Must not decide how an answer looks, nor let a call by uncounted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::metrics::{Command, Counters, Found, Op};
use crate::cli::Fetch;
use crate::record;
use crate::store::{Batch, DatasetInfo, KeyList, Store, StoreError, StoreStats, TimeToLive};

/// A store and the counters of its thread.
pub(super) struct Keys {
    store: Store,
    fetch: Fetch,
    counters: Arc<Counters>,
}

impl Keys {
    pub(super) fn new(store: Store, fetch: Fetch, counters: Arc<Counters>) -> Self {
        Self {
            store,
            fetch,
            counters,
        }
    }

    pub(super) async fn get_many(
        &self,
        keys: impl KeyList,
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let asked = keys.count();
        let call = self.call(self.reads(asked), Op::Get, asked);
        let values = self.store.get_many(keys).await?;
        let hits = values.iter().flatten().count();
        call.answered(hits);
        Ok(values)
    }

    pub(super) async fn get(&self, key: impl KeyList) -> Result<Option<Bytes>, StoreError> {
        let values = self.get_many(key).await?;
        Ok(values.into_iter().next().flatten())
    }

    pub(super) async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        let call = self.call((Command::Set, 1), Op::Set, 1);
        self.store.put(key, value, ttl).await?;
        call.answered(1);
        Ok(())
    }

    /// Whether the key was absent, and so is written now.
    pub(super) async fn put_if_absent(
        &self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let call = self.call((Command::Set, 1), Op::Set, 1);
        let written = self.store.put_if_absent(key, value, ttl).await?;
        call.answered(written.into());
        Ok(written)
    }

    pub(super) async fn put_batch(
        &self,
        batch: Batch,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        let keys = batch.len();
        // MSET knows no time to live.
        let commands = match ttl {
            None => (Command::Mset, 1),
            Some(_) => (Command::Set, keys),
        };
        let call = self.call(commands, Op::Set, keys);
        self.store.put_batch(batch, ttl).await?;
        call.answered(keys);
        Ok(())
    }

    /// How many of the keys were there.
    pub(super) async fn delete(&self, keys: Vec<Bytes>) -> Result<u64, StoreError> {
        let call = self.call((Command::Del, 1), Op::Delete, keys.len());
        let removed = self.store.delete(keys).await?;
        call.answered(removed as usize);
        Ok(removed)
    }

    pub(super) async fn time_to_live(&self, key: Bytes) -> Result<TimeToLive, StoreError> {
        let call = self.call((Command::Pttl, 1), Op::Ttl, 1);
        let left = self.store.time_to_live(key).await?;
        call.answered((left != TimeToLive::Absent).into());
        Ok(left)
    }

    pub(super) async fn stats(&self) -> Result<StoreStats, StoreError> {
        // INFO and DBSIZE.
        let call = self.call((Command::Info, 2), Op::Get, 0);
        let stats = self.store.stats().await?;
        call.answered(0);
        Ok(stats)
    }

    pub(super) async fn dataset(&self) -> Result<Option<DatasetInfo>, StoreError> {
        let call = self.call(self.reads(1), Op::Get, 1);
        let dataset = self.store.dataset().await?;
        call.answered(dataset.is_some().into());
        Ok(dataset)
    }

    /// How several keys are read.
    pub(super) fn fetch(&self) -> Fetch {
        self.fetch
    }

    /// The same keys, so that several calls at once take effect in the order in which they are made; `None` where the
    /// store has no such way.
    pub(super) fn in_order(&self) -> Option<Self> {
        let store = self.store.in_order()?;
        Some(Self::new(store, self.fetch, self.counters.clone()))
    }

    /// Whether all but reading can be done.
    pub(super) fn is_connected(&self) -> bool {
        self.store.is_connected()
    }

    /// Notes how many connections are up.
    pub(super) fn note_connections(&self) {
        self.counters.store_connections(self.store.connections());
    }

    fn reads(&self, keys: usize) -> (Command, usize) {
        match self.fetch {
            Fetch::Mget => (Command::Mget, 1),
            Fetch::Pipeline => (Command::Get, keys),
        }
    }

    fn call(&self, (command, commands): (Command, usize), op: Op, keys: usize) -> Call<'_> {
        Call {
            counters: &self.counters,
            command,
            commands,
            op,
            keys,
            hits: None,
            began: Instant::now(),
        }
    }
}

/// The keys of sessions.
pub(super) struct SessionKeys<'a> {
    pub(super) prefix: &'a str,
    pub(super) ids: &'a [u64],
}

impl KeyList for SessionKeys<'_> {
    fn count(&self) -> usize {
        self.ids.len()
    }

    fn key_len(&self, place: usize) -> usize {
        record::key_len(self.prefix, self.ids[place])
    }

    fn put_key(&self, place: usize, out: &mut Vec<u8>) {
        record::put_key(self.prefix, self.ids[place], out);
    }
}

/// A call under way; counted when it is dropped, also when its client has left.
struct Call<'a> {
    counters: &'a Counters,
    command: Command,
    commands: usize,
    op: Op,
    keys: usize,
    /// Keys that were there, or were written; `None` until there is an answer.
    hits: Option<usize>,
    began: Instant,
}

impl Call<'_> {
    fn answered(mut self, hits: usize) {
        self.hits = Some(hits);
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        self.counters.command(self.command, self.commands, took);
        match self.hits {
            Some(hits) => {
                self.counters.key_ops(self.op, Found::Hit, hits);
                let misses = self.keys.saturating_sub(hits);
                self.counters.key_ops(self.op, Found::Miss, misses);
            }
            None => self.counters.key_ops(self.op, Found::Error, self.keys),
        }
    }
}
