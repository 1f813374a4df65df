//! Dragonfly, and every server of its protocol: one, a cluster, or behind sentinels. Only this folder names fred.
//!
//! Enters: keys and values. Leaves: values without a copy, slices of the buffer they were read into.
//! Must not wait without end: every command has a deadline. While the connection is lost, or the store lets
//! one deadline after another pass, commands fail at once instead of queueing inside the client.
//!
//! In a cluster, a command over keys of several hash slots is refused. So there each key has a command of its
//! own, all nodes are asked at once, and the answers are given in order: `nodes` reads and stores batches so, fred does
//! all else but the transactions of `multi`.

mod cluster;
mod command;
mod connect;
mod describe;
mod direct;
mod fetch;
mod health;
mod info;
mod multi;
mod nodes;
mod plain;
mod probe;
mod read;
mod resp;
mod words;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, KeysInterface as _};
use fred::types::{ClientState, FromValue, Value};

use super::deadline::Deadline;
use super::{Batch, Measure, Only, Room, StoreError, TimeToLive};
use crate::cli::Reads;
use crate::config::{Fetch, StoreConfig};
use command::{KeyCommand, Set, flushed_by, named};
use direct::{Direct, Server};
use health::{Health, Outcome};
use multi::Lines;
use nodes::Nodes;

#[cfg(feature = "fuzzing")]
pub(super) use resp::fuzz;

/// The connections of one store.
#[derive(Clone, Copy)]
enum Line<'a> {
    /// Those of the client.
    Fred,
    /// One that reads, and stores what is loaded into a cluster.
    Direct(&'a Direct),
}

/// Who reads keys, at less cost than the client does.
#[derive(Clone)]
enum Readers {
    /// Nobody.
    None,
    /// A connection to the only server.
    One(Direct),
    /// One to each node of a cluster.
    Nodes(Nodes),
}

#[derive(Clone)]
pub(super) struct Dragonfly {
    client: Client,
    readers: Readers,
    /// Batches of a cluster go by the readers' connections, too.
    is_for_load: bool,
    is_cluster: bool,
    deadline: Deadline,
    fetch: Fetch,
    /// Of the client's connections.
    health: Arc<Health>,
    /// For transactions.
    lines: Arc<Lines>,
}

impl Dragonfly {
    pub(super) async fn connect(
        config: &StoreConfig,
        reads: Reads,
        room: &Room,
    ) -> Result<Self, StoreError> {
        let url = &config.url;
        let mut store = Self {
            client: connect::client(config)?,
            readers: Readers::None,
            is_for_load: false,
            is_cluster: url.is_cluster(),
            deadline: Deadline::start(config.timeout),
            fetch: config.fetch.unwrap_or(Fetch::Mget),
            health: Arc::default(),
            lines: Arc::new(Lines::new(config)),
        };
        match tokio::time::timeout(connect::whole_timeout(config), store.client.init()).await {
            Ok(Ok(_)) => {
                if config.fetch.is_none() {
                    store.fetch = store.cheaper_fetch().await;
                }
                if reads == Reads::Direct {
                    store.readers = store.readers(config, room).await;
                }
                Ok(store)
            }
            Ok(Err(error)) => Err(connect::error(url, &error)),
            Err(_) => Err(StoreError::Unavailable(format!("{url} does not answer"))),
        }
    }

    /// The same, for whoever writes nothing but batches that may be written again.
    pub(super) fn for_load(self, is_for_load: bool) -> Self {
        Self {
            is_for_load,
            ..self
        }
    }

    pub(super) fn is_for_load(&self) -> bool {
        self.is_for_load
    }

    /// How several keys cost the server less, as far as it tells what it is.
    async fn cheaper_fetch(&self) -> Fetch {
        // Who may not ask reads as from Redis; and a frozen one is noticed by whoever asks for keys.
        let stats = self.stats().await;
        stats.map_or(Fetch::Mget, |stats| fetch::cheaper(&stats))
    }

    pub(super) fn fetch(&self) -> Fetch {
        self.fetch
    }

    async fn readers(&self, config: &StoreConfig, room: &Room) -> Readers {
        if self.is_cluster {
            return Nodes::start(config, room)
                .await
                .map_or(Readers::None, Readers::Nodes);
        }
        match Server::of(config) {
            Some(server) => Readers::One(Direct::start(server, &self.client, room).await),
            None => Readers::None,
        }
    }

    pub(super) async fn put_batch(
        &self,
        batch: Batch,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut due = None;
        if let Readers::Nodes(nodes) = &self.readers
            && self.is_for_load
            && (self.put_to_nodes(nodes, &batch, ttl, &mut due).await?).is_some()
        {
            return Ok(());
        }
        if ttl.is_none() && !self.is_cluster {
            // `mset` goes through a hash map and loses the order; the bare command is twice as fast.
            let mut arguments = Vec::with_capacity(batch.len() * 2);
            for (key, value) in batch.into_entries() {
                arguments.push(Value::Bytes(key));
                arguments.push(Value::Bytes(value));
            }
            return self
                .done(pin!(self.ready()?.custom(named("MSET"), arguments)))
                .await;
        }
        // MSET knows no expiry, and a cluster none of several slots: one SET a key.
        let entries = batch.into_entries();
        let sets = entries.map(|(key, value)| {
            let only = None;
            KeyCommand::Set(Set {
                key,
                value,
                ttl,
                only,
            })
        });
        let mut answers = self.each(sets.collect(), due).await?.into_iter();
        answers.try_for_each(|answer| answer.map(drop).map_err(|error| self.error(&error)))
    }

    pub(super) async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        let only = None;
        let set = Set {
            key,
            value,
            ttl,
            only,
        };
        self.one(KeyCommand::Set(set)).await
    }

    pub(super) async fn put_if(
        &self,
        only: Only,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let only = Some(only);
        let set = Set {
            key,
            value,
            ttl,
            only,
        };
        let written: Option<String> = self.one(KeyCommand::Set(set)).await?;
        Ok(written.is_some())
    }

    /// Sets the key if it holds what is expected, or the new value already; whether it did.
    pub(super) async fn replace(
        &self,
        key: Bytes,
        expected: Option<Bytes>,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let replaced: i64 = self
            .one(KeyCommand::Replace {
                key,
                expected,
                value,
                ttl,
            })
            .await?;
        Ok(replaced == 1)
    }

    pub(super) async fn time_to_live(&self, key: Bytes) -> Result<TimeToLive, StoreError> {
        Ok(left_of(self.one(KeyCommand::TimeToLive(key)).await?))
    }

    pub(super) async fn measure(&self, keys: Vec<Bytes>) -> Result<Vec<Measure>, StoreError> {
        let questions = keys
            .into_iter()
            .flat_map(|key| [KeyCommand::Length(key.clone()), KeyCommand::TimeToLive(key)]);
        let answers = self.each(questions.collect(), None).await?;
        let number = |answer: &Result<Value, Error>| -> Result<Option<i64>, StoreError> {
            match answer {
                Ok(value) => Ok(value.as_i64()),
                Err(error) if words::is_of_another_kind(error.details()) => Ok(None),
                Err(error) => Err(self.error(error)),
            }
        };
        answers
            .chunks_exact(2)
            .map(|pair| {
                let bytes = number(&pair[0])?.and_then(|bytes| u64::try_from(bytes).ok());
                let left = number(&pair[1])?.map_or(TimeToLive::Absent, left_of);
                Ok(Measure { bytes, left })
            })
            .collect()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.state() == ClientState::Connected
    }

    pub(super) fn connections(&self) -> usize {
        let reads = match &self.readers {
            Readers::None => false,
            Readers::One(direct) => direct.is_up(),
            Readers::Nodes(nodes) => nodes.are_up(),
        };
        usize::from(self.is_connected()) + usize::from(reads)
    }

    /// Whether a part of the keys can be read, whatever became of the rest.
    pub(super) fn is_partly_up(&self) -> bool {
        matches!(&self.readers, Readers::Nodes(nodes) if nodes.any_is_up())
    }

    /// The same store over one connection, which keeps the order of commands; `None` for a cluster.
    pub(super) fn in_order(&self) -> Option<Self> {
        let readers = Readers::None;
        (!self.is_cluster).then(|| Self {
            readers,
            ..self.clone()
        })
    }

    pub(super) async fn delete(&self, keys: Vec<Bytes>) -> Result<u64, StoreError> {
        if !self.is_cluster {
            return self.done(pin!(self.ready()?.del(keys))).await;
        }
        // One by one from the start, as what is removed again is not counted.
        let deletions: Vec<KeyCommand> = keys.into_iter().map(KeyCommand::Delete).collect();
        let client = self.ready()?;
        let mut answers = Box::pin(async { Ok(cluster::each(client, &deletions).await) });
        let answers = self.done(answers.as_mut()).await?;
        answers.into_iter().try_fold(0, |deleted, answer| {
            let answer = answer.map_err(|error| self.error(&error))?;
            Ok(deleted + answer.as_u64().unwrap_or_default())
        })
    }

    async fn one<R: FromValue>(&self, asked: KeyCommand) -> Result<R, StoreError> {
        if !self.is_cluster {
            let answer = self.done(pin!(asked.give_to(self.ready()?))).await?;
            return answer.convert().map_err(|error| self.error(&error));
        }
        let answer = self.each(vec![asked], None).await?.pop();
        let answer = answer.unwrap_or_else(|| Err(Error::new(ErrorKind::Protocol, "no answer")));
        answer
            .and_then(Value::convert)
            .map_err(|error| self.error(&error))
    }

    /// The answers to commands that are sent together, in their order, as a part of what is due then.
    async fn each(
        &self,
        commands: Vec<KeyCommand>,
        due: Option<Instant>,
    ) -> Result<Vec<Result<Value, Error>>, StoreError> {
        let client = self.ready()?;
        // In a box, as it is large and would make everything so that it is a part of.
        let mut answers = Box::pin(async {
            let Some((last, others)) = commands.split_last() else {
                return Ok(Vec::new());
            };
            let pipeline = client.pipeline();
            for command in others {
                command.clone().give_to(&pipeline).await?;
            }
            let last = last.clone().give_to(client);
            let answers = flushed_by((&pipeline, others.len()), last).await;
            if self.is_cluster && cluster::are_elsewhere(&answers) {
                // One by one, as one error was the answer to all. What was done is done again, before anybody
                // was told of it.
                return Ok(cluster::each(client, &commands).await);
            }
            answers
        });
        self.done_until(due, answers.as_mut()).await
    }

    /// Notes what came of a command over that connection, and looks after it if that is suspect.
    fn note(&self, line: Line<'_>, outcome: Outcome) {
        let health = match line {
            Line::Fred => &*self.health,
            Line::Direct(direct) => direct.health(),
        };
        if health.note(outcome) {
            probe::start(self, line);
        }
    }

    /// The client, unless a command would only wait in it.
    fn ready(&self) -> Result<&Client, StoreError> {
        if !self.is_connected() {
            return Err(StoreError::Unavailable("the connection is lost".into()));
        }
        if !self.health.allows() {
            return Err(StoreError::Unavailable("it has stopped answering".into()));
        }
        Ok(&self.client)
    }

    /// What came of a command of fred's.
    async fn done<T>(
        &self,
        command: Pin<&mut impl Future<Output = Result<T, Error>>>,
    ) -> Result<T, StoreError> {
        self.done_until(None, command).await
    }

    /// As [`Dragonfly::done`], as a part of what is due then.
    async fn done_until<T>(
        &self,
        mut due: Option<Instant>,
        command: Pin<&mut impl Future<Output = Result<T, Error>>>,
    ) -> Result<T, StoreError> {
        let answer = self.within(&mut due, command, Line::Fred).await?;
        answer.map_err(|error| self.error(&error))
    }

    /// The answer to a command over that connection; every one goes through here.
    async fn within<F: Future>(
        &self,
        due: &mut Option<Instant>,
        command: Pin<&mut F>,
        line: Line<'_>,
    ) -> Result<F::Output, StoreError> {
        let mut waiting = Waiting {
            store: self,
            line,
            outcome: Outcome::Abandoned,
        };
        let answer = self.deadline.limit_until(due, command).await;
        waiting.outcome = match answer {
            Some(_) => Outcome::Answered,
            None => Outcome::Late,
        };
        answer.ok_or_else(|| StoreError::Timeout(self.deadline.timeout()))
    }

    fn error(&self, error: &Error) -> StoreError {
        let text = plain::plain(error.details());
        match error.kind() {
            _ if !self.is_cluster && words::is_of_a_cluster(&text) => self.refusal(text),
            ErrorKind::Timeout => StoreError::Timeout(self.deadline.timeout()),
            ErrorKind::IO
            | ErrorKind::Canceled
            | ErrorKind::Routing
            | ErrorKind::Backpressure
            | ErrorKind::Cluster
            | ErrorKind::Sentinel => StoreError::Unavailable(text),
            ErrorKind::Auth => StoreError::Refused(words::with_advice(&text)),
            _ => self.refusal(text),
        }
    }

    /// What an error in the store's own words means.
    fn refusal(&self, text: String) -> StoreError {
        words::error(text, self.is_cluster)
    }
}

/// Notes what came of a command when it is dropped, also because whoever waited left.
struct Waiting<'a> {
    store: &'a Dragonfly,
    line: Line<'a>,
    outcome: Outcome,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.store.note(self.line, self.outcome);
    }
}

/// What PTTL answers: -2 for an absent key, -1 for one that stays, else milliseconds.
fn left_of(left_ms: i64) -> TimeToLive {
    match u64::try_from(left_ms) {
        Ok(left_ms) => TimeToLive::Left(Duration::from_millis(left_ms)),
        Err(_) if left_ms == -1 => TimeToLive::Forever,
        Err(_) => TimeToLive::Absent,
    }
}

fn into_bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::Bytes(bytes) => Some(bytes),
        Value::String(text) => Some(text.into_inner()),
        _ => None,
    }
}
