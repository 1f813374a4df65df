//! The store: one client for whatever answers the key operations.
//!
//! Enters: keys and values as bytes, a [`StoreConfig`]. Leaves: values, counts, or a [`StoreError`] that
//! callers branch on. Must not know what a record is; only the two folders beside this file name the crates
//! that do the work.

mod deadline;
mod dragonfly;
mod embedded;
mod key_list;
mod note;
mod room;
mod transaction;

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::cli::Reads;
use crate::config::{Fetch, StoreConfig, StoreUrl};
use crate::units::human_duration;

use dragonfly::Dragonfly;

pub use key_list::{Distinct, KeyBuffer, KeyList};
pub use note::{DATASET_KEY, DatasetInfo, NotedSize, NotedSource, State};
pub use room::{Held, Room};
pub use transaction::{Executed, Gave, Step};

/// Why an operation was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No connection, or it was lost: nothing, or an unknown part, was done. Trying again later is right.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// It is there, but still reads its data into memory: nothing was done. Trying again later is right.
    #[error("the store is not ready: {0}")]
    Loading(String),
    /// The deadline passed. Whether the operation took effect is unknown, and it may still do so later: a
    /// command that was handed over is not taken back.
    #[error("the store did not answer within {}", human_duration(*.0))]
    Timeout(Duration),
    /// The store has no room: `maxmemory`, the map size or the disk.
    #[error("the store is full: {0}")]
    Full(String),
    /// What was asked for does not fit in what may be held here at once.
    #[error(
        "the answer has {needed} bytes, which do not fit in what this server may hold, {all} in all (--max-held); ask \
         for fewer keys, or later"
    )]
    NoRoom {
        /// What this answer needed, as far as that is known, in bytes.
        needed: usize,
        /// All that may be held, in bytes.
        all: usize,
    },
    /// The store took one command of a transaction not even into its queue, and so did nothing of it; what it said.
    #[error("nothing of the transaction was done: {0}")]
    Discarded(Box<StoreError>),
    /// Only keys that are together on one node of a cluster can change together.
    #[error(
        "CROSSSLOT Keys in request don't hash to the same slot; in a cluster all keys of a transaction need one, by the \
         same {{tag}} in each"
    )]
    CrossSlot,
    /// The store answered that it will not do this.
    #[error("the store refused: {0}")]
    Refused(String),
    /// The store cannot be opened as it is configured; trying again changes nothing.
    #[error("{0}")]
    Setup(String),
}

/// Keys and values of one write, all slices of one buffer.
#[derive(Debug, Default)]
pub struct Batch {
    buffer: BytesMut,
    /// End of the key and end of the value of each entry; the first begins at 0.
    ends: Vec<(usize, usize)>,
}

impl Batch {
    /// An empty batch with room for `keys` entries of `bytes` in all.
    #[must_use]
    pub fn with_capacity(keys: usize, bytes: usize) -> Self {
        Self {
            buffer: BytesMut::with_capacity(bytes),
            ends: Vec::with_capacity(keys),
        }
    }

    /// Appends one entry, whose key and value the two closures write.
    pub fn push(&mut self, key: impl FnOnce(&mut BytesMut), value: impl FnOnce(&mut BytesMut)) {
        key(&mut self.buffer);
        let key_end = self.buffer.len();
        value(&mut self.buffer);
        self.ends.push((key_end, self.buffer.len()));
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// No keys at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The entries in order.
    fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |&(key_end, value_end)| {
            let entry = (
                &self.buffer[start..key_end],
                &self.buffer[key_end..value_end],
            );
            start = value_end;
            entry
        })
    }

    /// The entries in order, without copying.
    fn into_entries(self) -> impl ExactSizeIterator<Item = (Bytes, Bytes)> {
        let buffer = self.buffer.freeze();
        let mut start = 0;
        self.ends.into_iter().map(move |(key_end, value_end)| {
            let entry = (
                buffer.slice(start..key_end),
                buffer.slice(key_end..value_end),
            );
            start = value_end;
            entry
        })
    }
}

/// When a key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// While it is absent.
    IfAbsent,
    /// While it is there.
    IfPresent,
}

/// What the store tells about itself; `None` where it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct StoreStats {
    /// `dragonfly`, `redis`, `valkey` or `embedded`.
    pub engine: String,
    /// The engine's version.
    pub version: Option<String>,
    /// Keys of all kinds, the dataset's own among them.
    pub keys: u64,
    /// Bytes of memory (of disk, for the embedded store) in use.
    pub memory_bytes: Option<u64>,
    /// Upper bound of that; `None`: none.
    pub max_memory_bytes: Option<u64>,
    /// Commands processed since the store started: a 15-key MGET is one.
    pub commands_processed: Option<u64>,
    /// Commands per second just now, as the store counts them.
    pub commands_per_second: Option<u64>,
    /// Keys found and keys missed since the store started: a 15-key MGET is 15.
    pub key_reads: Option<u64>,
    /// Threads that execute commands.
    pub threads: Option<u64>,
    /// Keys removed for want of memory since the store started.
    #[serde(skip)]
    pub evicted_keys: Option<u64>,
    /// Which keys it removes when it is full, in its own word.
    #[serde(skip)]
    pub eviction_policy: Option<String>,
    /// Another one after every start of the server, or of one of a cluster's.
    #[serde(skip)]
    pub incarnation: Option<String>,
}

/// What the store tells about one key; `None` where it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// `string`, `hash`, …
    pub kind: String,
    /// The value, when the kind is `string`.
    pub value: Option<Bytes>,
    /// Time left to live; `None`: it stays.
    pub ttl: Option<Duration>,
    /// How the store keeps it, in its own words.
    pub encoding: Option<String>,
    /// Bytes it takes in the store, overhead included.
    pub memory_bytes: Option<u64>,
    /// Its hash slot in a cluster.
    pub slot: Option<u16>,
    /// Host and port of the master that has the slot.
    pub node: Option<String>,
}

/// How long a key has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeToLive {
    /// There is no such key.
    Absent,
    /// It stays.
    Forever,
    /// Until then.
    Left(Duration),
}

/// What can be told of a key without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// Bytes of the value; `None` when it is no string.
    pub bytes: Option<u64>,
    /// How long it has left; `Absent` when it went meanwhile.
    pub left: TimeToLive,
}

/// One page of a scan. A page may be empty although more follow, and a key may come twice; while masters of a cluster
/// change, keys may be left out.
#[derive(Debug, Default)]
pub struct Page {
    /// The keys.
    pub keys: Vec<Bytes>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<Bytes>,
}

/// How the store is going to be used, which decides what it may trade for speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Reads, and writes that are durable when acknowledged.
    Serve,
    /// Writes that are durable on disk only after [`Store::sync`]; a killed process loses none either way.
    Load,
    /// Reads only; the embedded store must exist already.
    Look,
}

/// A connected store. Cheap to clone inside one runtime; each runtime opens its own.
///
/// What it asks of a server goes in a box: fred's futures have some 7 KB each, which else every connection of a
/// server would hold, waiting or not, and which in a box are those that were warm a moment ago.
#[derive(Clone)]
pub struct Store(Engine);

#[derive(Clone)]
enum Engine {
    Dragonfly(Dragonfly),
    Embedded(embedded::Embedded),
}

impl Store {
    /// Connects, or opens the folder.
    ///
    /// # Errors
    /// `Unavailable` when nothing answers within the timeout, `Loading` when it will soon, `Setup` when it cannot be used as configured.
    pub async fn open(config: &StoreConfig, usage: Usage) -> Result<Self, StoreError> {
        let engine = match &config.url {
            StoreUrl::Embedded(folder) => {
                let store = embedded::Embedded::open(folder, usage, config.timeout)?;
                Engine::Embedded(match usage {
                    Usage::Serve | Usage::Load => store.swept(),
                    Usage::Look => store,
                })
            }
            StoreUrl::Tcp(_) | StoreUrl::Unix(_) => {
                let reads = match usage {
                    // Only looked at: who answers has connections for each thread.
                    Usage::Serve => Reads::Fred,
                    Usage::Load | Usage::Look => config.reads,
                };
                let store = Dragonfly::connect(config, reads, &Room::default()).await?;
                Engine::Dragonfly(store.for_load(usage == Usage::Load))
            }
        };
        Ok(Self(engine))
    }

    /// The same store for another runtime of this process: its own connections, or the same map.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn for_this_runtime(&self, config: &StoreConfig) -> Result<Self, StoreError> {
        self.within(config, &Room::default()).await
    }

    /// As [`Store::for_this_runtime`]. What is read by the connection made for that has its place in `room` before it
    /// comes; other ways to read know how large a value is only when it is there.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn within(&self, config: &StoreConfig, room: &Room) -> Result<Self, StoreError> {
        match &self.0 {
            // LMDB may be opened only once in a process.
            Engine::Embedded(_) => Ok(self.clone()),
            Engine::Dragonfly(store) => {
                // Asked once; and no two threads read in different ways.
                let config = StoreConfig {
                    fetch: Some(store.fetch()),
                    ..config.clone()
                };
                let other = Dragonfly::connect(&config, config.reads, room).await?;
                Ok(Self(Engine::Dragonfly(other.for_load(store.is_for_load()))))
            }
        }
    }

    /// The values of `keys` in their order, `None` for a miss: one command or as many as keys, by the
    /// [`Store::fetch`], and as many key operations as keys.
    pub async fn get_many(&self, keys: impl KeyList) -> Result<Vec<Option<Bytes>>, StoreError> {
        match &self.0 {
            Engine::Dragonfly(store) => store.get_many(keys).await,
            Engine::Embedded(store) => store.get_many(&keys.into_keys()),
        }
    }

    /// How it reads several keys.
    #[must_use]
    pub fn fetch(&self) -> Fetch {
        match &self.0 {
            Engine::Dragonfly(store) => store.fetch(),
            // All in one transaction.
            Engine::Embedded(_) => Fetch::Mget,
        }
    }

    /// Writes a whole batch. On an error an unknown part of it may be stored: writing it again is harmless.
    pub async fn put_batch(&self, batch: Batch, ttl: Option<Duration>) -> Result<(), StoreError> {
        match &self.0 {
            Engine::Dragonfly(store) => Box::pin(store.put_batch(batch, ttl)).await,
            Engine::Embedded(store) => store.put_batch(batch, ttl).await,
        }
    }

    /// Writes one key.
    pub async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        match &self.0 {
            Engine::Dragonfly(store) => Box::pin(store.put(key, value, ttl)).await,
            Engine::Embedded(store) => store.put(key, value, ttl).await,
        }
    }

    /// Writes one key if it is there already, or if it is not; whether it was written.
    pub async fn put_if(
        &self,
        only: Only,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError> {
        match &self.0 {
            Engine::Dragonfly(store) => Box::pin(store.put_if(only, key, value, ttl)).await,
            Engine::Embedded(store) => store.put_if(only, key, value, ttl).await,
        }
    }

    /// How long a key has left.
    pub async fn time_to_live(&self, key: Bytes) -> Result<TimeToLive, StoreError> {
        match &self.0 {
            Engine::Dragonfly(store) => Box::pin(store.time_to_live(key)).await,
            Engine::Embedded(store) => store.time_to_live(&key),
        }
    }

    /// Sizes and times to live of keys, without reading their values.
    pub async fn measure(&self, keys: Vec<Bytes>) -> Result<Vec<Measure>, StoreError> {
        match &self.0 {
            Engine::Dragonfly(store) => Box::pin(store.measure(keys)).await,
            Engine::Embedded(store) => store.measure(&keys),
        }
    }

    /// Whether all but reading can be done: the connection for it stands; of a cluster, those to all its masters.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        match &self.0 {
            Engine::Dragonfly(store) => store.is_connected(),
            Engine::Embedded(_) => true,
        }
    }

    /// Whether a part of the keys can be read when the others cannot: of a cluster, those of any master that is up.
    #[must_use]
    pub fn is_partly_up(&self) -> bool {
        match &self.0 {
            Engine::Dragonfly(store) => store.is_partly_up(),
            Engine::Embedded(_) => false,
        }
    }

    /// How many connections stand; those to all masters of a cluster count as one.
    #[must_use]
    pub fn connections(&self) -> usize {
        match &self.0 {
            Engine::Dragonfly(store) => store.connections(),
            Engine::Embedded(_) => 1,
        }
    }

    /// The same store in such a way that calls take effect in the order in which they are made, although each is made
    /// before the last one has ended; `None` where there is no such way.
    #[must_use]
    pub fn in_order(&self) -> Option<Self> {
        match &self.0 {
            Engine::Dragonfly(store) => store.in_order().map(Engine::Dragonfly).map(Self),
            // Its writers race for their turn.
            Engine::Embedded(_) => None,
        }
    }

    /// Removes keys, by one command but in a cluster; how many of them were there.
    pub async fn delete(&self, keys: Vec<Bytes>) -> Result<u64, StoreError> {
        match &self.0 {
            Engine::Dragonfly(store) => Box::pin(store.delete(keys)).await,
            Engine::Embedded(store) => store.delete(keys).await,
        }
    }

    /// Does all steps or none of them, in their order, and nothing of anybody else's in between. What is read has its
    /// place in `room` before it comes.
    ///
    /// # Errors
    /// `Discarded` and `CrossSlot` when nothing was done. After `Timeout` and `Unavailable` either all was, or nothing,
    /// or all will be.
    pub async fn transaction(&self, steps: Vec<Step>, room: &Room) -> Result<Executed, StoreError> {
        match &self.0 {
            Engine::Dragonfly(store) => Box::pin(store.transaction(steps, room)).await,
            Engine::Embedded(store) => store.transaction(steps, room).await,
        }
    }

    /// All that the store tells about one key; `None` when it is absent.
    pub async fn describe(&self, key: Bytes) -> Result<Option<Description>, StoreError> {
        match &self.0 {
            Engine::Dragonfly(store) => Box::pin(store.describe(key)).await,
            Engine::Embedded(store) => store.describe(&key),
        }
    }

    /// Up to about `count` keys from `cursor` on (`None`: from the start), without blocking the store.
    pub async fn scan(&self, cursor: Option<Bytes>, count: usize) -> Result<Page, StoreError> {
        match &self.0 {
            Engine::Dragonfly(store) => Box::pin(store.scan(cursor, count)).await,
            Engine::Embedded(store) => store.scan(cursor.as_ref(), count),
        }
    }

    /// Engine, keys, memory and counters.
    pub async fn stats(&self) -> Result<StoreStats, StoreError> {
        match &self.0 {
            Engine::Dragonfly(store) => Box::pin(store.stats()).await,
            Engine::Embedded(store) => store.stats(),
        }
    }

    /// Makes everything written so far durable, as far as this side can.
    pub async fn sync(&self) -> Result<(), StoreError> {
        match &self.0 {
            // What survives is the server's own setting.
            Engine::Dragonfly(_) => Ok(()),
            Engine::Embedded(store) => store.sync().await,
        }
    }
}

/// Takes any bytes for answers of a server; panics where it must not.
#[cfg(feature = "fuzzing")]
pub fn fuzz(bytes: &[u8]) {
    dragonfly::fuzz(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    #[test]
    fn a_batch_gives_back_its_entries_in_order() {
        let mut batch = Batch::with_capacity(2, 16);
        assert!(batch.is_empty());
        batch.push(|key| key.put_slice(b"a"), |value| value.put_slice(b"one"));
        batch.push(|key| key.put_slice(b"bb"), |_| ());
        assert_eq!((batch.len(), batch.bytes()), (2, 6));
        let seen: Vec<_> = batch.entries().collect();
        assert_eq!(seen, [(&b"a"[..], &b"one"[..]), (b"bb", b"")]);
        let entries: Vec<_> = batch.into_entries().collect();
        assert_eq!(entries[0], (Bytes::from("a"), Bytes::from("one")));
        assert_eq!(entries[1], (Bytes::from("bb"), Bytes::new()));
    }
}
