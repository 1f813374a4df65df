//! The store as the routes use it: every command and key operation is counted.
//!
//! Enters: keys and values. Leaves: values. Must not decide how an answer looks, nor let a call by uncounted.

use std::cell::OnceCell;
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::metrics::{Command, Counters, Found, Op};
use super::seek::{RETRY, Search};
use crate::config::{Fetch, ServeConfig};
use crate::record;
use crate::store::{
    Batch, DatasetInfo, Distinct, Executed, Gave, KeyList, Only, Room, Step, Store, StoreError,
    StoreStats, TimeToLive,
};

/// A store and the counters of its thread.
pub(super) struct Keys {
    /// Empty until it was found and this thread has connected to it.
    store: OnceCell<Store>,
    search: Search,
    config: Arc<ServeConfig>,
    room: Room,
    counters: Arc<Counters>,
}

impl Keys {
    pub(super) fn new(
        search: &Search,
        config: &Arc<ServeConfig>,
        room: &Room,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            store: OnceCell::new(),
            search: search.clone(),
            config: config.clone(),
            room: room.clone(),
            counters,
        }
    }

    /// Connects to the store once it was found, and goes on trying until it is done.
    pub(super) async fn connect(&self) {
        let mut sought = self.search.sought.clone();
        let mut is_told = false;
        // Nobody looks for it any more: the server ends.
        while let Ok(found) = sought
            .wait_for(Result::is_ok)
            .await
            .map(|found| found.clone())
        {
            let connected = match found {
                Ok(store) => store.within(&self.config.store, &self.room).await,
                Err(error) => Err(error),
            };
            match connected {
                Ok(store) => {
                    let _ = self.store.set(store);
                    let _ = self.search.connected.send(()).await;
                    return;
                }
                Err(error) if !is_told => {
                    is_told = true;
                    tracing::warn!("{error}; a thread answers 503 until it can connect to it");
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn store(&self) -> Result<&Store, StoreError> {
        self.store.get().ok_or_else(|| self.absence())
    }

    /// Why there is no store.
    #[cold]
    fn absence(&self) -> StoreError {
        match &*self.search.sought.borrow() {
            Err(error) => error.clone(),
            Ok(_) => StoreError::Unavailable("it has just come".into()),
        }
    }

    /// The values in the order of the keys. A key that is there again is read once, and its value shared: a large one would
    /// come as often as somebody likes to name it.
    pub(super) async fn get_many(
        &self,
        keys: impl KeyList,
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        match Distinct::of(keys) {
            Err(keys) => self.read(keys).await,
            Ok((keys, whiches)) => {
                // In a box: it is rare, and would make every answer's future as large.
                let values = Box::pin(self.read(keys)).await?;
                let value = |which: usize| values.get(which).cloned().flatten();
                Ok(whiches.into_iter().map(value).collect())
            }
        }
    }

    async fn read(&self, keys: impl KeyList) -> Result<Vec<Option<Bytes>>, StoreError> {
        let asked = keys.count();
        let store = self.store()?;
        let call = self.call(reads(store, asked), Op::Get, asked);
        let values = store.get_many(keys).await?;
        let hits = values.iter().flatten().count();
        call.answered(hits);
        Ok(values)
    }

    pub(super) async fn get(&self, key: impl KeyList) -> Result<Option<Bytes>, StoreError> {
        let values = self.read(key).await?;
        Ok(values.into_iter().next().flatten())
    }

    pub(super) async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        let store = self.store()?;
        let call = self.call((Command::Set, 1), Op::Set, 1);
        store.put(key, value, ttl).await?;
        call.answered(1);
        Ok(())
    }

    /// Whether the key was as it must be, and so is written now.
    pub(super) async fn put_if(
        &self,
        only: Only,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let store = self.store()?;
        let call = self.call((Command::Set, 1), Op::Set, 1);
        let written = store.put_if(only, key, value, ttl).await?;
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
        let store = self.store()?;
        let call = self.call(commands, Op::Set, keys);
        store.put_batch(batch, ttl).await?;
        call.answered(keys);
        Ok(())
    }

    /// How many of the keys were there.
    pub(super) async fn delete(&self, keys: Vec<Bytes>) -> Result<u64, StoreError> {
        let store = self.store()?;
        let call = self.call((Command::Del, 1), Op::Delete, keys.len());
        let removed = store.delete(keys).await?;
        call.answered(removed as usize);
        Ok(removed)
    }

    pub(super) async fn time_to_live(&self, key: Bytes) -> Result<TimeToLive, StoreError> {
        let store = self.store()?;
        let call = self.call((Command::Pttl, 1), Op::Ttl, 1);
        let left = store.time_to_live(key).await?;
        call.answered((left != TimeToLive::Absent).into());
        Ok(left)
    }

    /// All of the steps or none, in one transaction.
    pub(super) async fn transaction(&self, steps: Vec<Step>) -> Result<Executed, StoreError> {
        let store = self.store()?;
        let calls: Vec<_> = steps.iter().map(|step| self.call_of(step)).collect();
        let multi = self.call((Command::Multi, 1), Op::Get, 0);
        let exec = self.call((Command::Exec, 1), Op::Get, 0);
        let executed = store.transaction(steps, &self.room).await?;
        for (call, answer) in calls.into_iter().zip(&executed.answers) {
            if let Ok(gave) = answer {
                let named = call.keys;
                call.answered(match gave {
                    Gave::Value(value) => value.is_some().into(),
                    Gave::Values(values) => values.iter().flatten().count(),
                    Gave::Count(count) => *count as usize,
                    Gave::Left(left) => (*left != TimeToLive::Absent).into(),
                    Gave::Written(true) => named,
                    Gave::Written(false) => 0,
                });
            }
        }
        multi.answered(0);
        exec.answered(0);
        Ok(executed)
    }

    fn call_of(&self, step: &Step) -> Call<'_> {
        let (command, op, keys) = match step {
            Step::Get(_) => (Command::Mget, Op::Get, 1),
            Step::GetMany(keys) => (Command::Mget, Op::Get, keys.len()),
            Step::Exists(keys) => (Command::Exists, Op::Get, keys.len()),
            Step::TimeToLive(_) => (Command::Pttl, Op::Ttl, 1),
            Step::Put { .. } => (Command::Set, Op::Set, 1),
            Step::PutBatch(batch) => (Command::Mset, Op::Set, batch.len()),
            Step::Delete(keys) => (Command::Del, Op::Delete, keys.len()),
        };
        self.call((command, 1), op, keys)
    }

    pub(super) async fn stats(&self) -> Result<StoreStats, StoreError> {
        // INFO and DBSIZE.
        let store = self.store()?;
        let call = self.call((Command::Info, 2), Op::Get, 0);
        let stats = store.stats().await?;
        call.answered(0);
        Ok(stats)
    }

    /// The dataset's note, perhaps of a load that is unfinished.
    pub(super) async fn dataset_note(&self) -> Result<Option<DatasetInfo>, StoreError> {
        let store = self.store()?;
        let call = self.call(reads(store, 1), Op::Get, 1);
        let note = store.dataset_note().await?;
        call.answered(note.is_some().into());
        Ok(note)
    }

    /// How several keys are read.
    pub(super) fn fetch(&self) -> Result<Fetch, StoreError> {
        Ok(self.store()?.fetch())
    }

    /// The same keys, so that several calls at once take effect in the order in which they are made; `None` where the
    /// store has no such way.
    pub(super) fn in_order(&self) -> Option<Self> {
        let store = self.store.get()?.in_order()?;
        let keys = Self::new(
            &self.search,
            &self.config,
            &self.room,
            self.counters.clone(),
        );
        let _ = keys.store.set(store);
        Some(keys)
    }

    /// Whether all but reading can be done.
    pub(super) fn is_connected(&self) -> bool {
        self.store.get().is_some_and(Store::is_connected)
    }

    /// Whether a part of the keys can be read when the others cannot.
    pub(super) fn is_partly_up(&self) -> bool {
        self.store.get().is_some_and(Store::is_partly_up)
    }

    /// Notes how many connections are up.
    pub(super) fn note_connections(&self) {
        let up = self.store.get().map_or(0, Store::connections);
        self.counters.store_connections(up);
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

/// The commands that read so many keys.
fn reads(store: &Store, keys: usize) -> (Command, usize) {
    match store.fetch() {
        Fetch::Mget => (Command::Mget, 1),
        Fetch::Pipeline => (Command::Get, keys),
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

    fn compare(&self, one: usize, other: usize) -> Ordering {
        self.ids[one].cmp(&self.ids[other])
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
