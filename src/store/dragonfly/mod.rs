//! Dragonfly, and every server of its protocol: one, a cluster, or behind sentinels. Only this folder names fred.
//!
//! Enters: keys and values. Leaves: values without a copy, slices of the buffer they were read into.
//! Must not wait without end: every command has a deadline. While the connection is lost, or the store lets
//! one deadline after another pass, commands fail at once instead of queueing inside the client.
//!
//! In a cluster, a command over keys of several hash slots is refused. So there each key has a command of its
//! own; fred sends each to the node that has its slot, all nodes at once, and gives the answers in order.

mod cluster;
mod connect;
mod direct;
mod health;
mod info;
mod resp;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::{Client, Pipeline};
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::{
    ClientState, ClusterHash, CustomCommand, Expiration, FromValue, SetOptions, Value,
};
use futures_util::future::join;

use super::deadline::Deadline;
use super::{Batch, Description, KeyList, Measure, StoreError, TimeToLive};
use crate::cli::{Fetch, Reads};
use crate::config::StoreConfig;
use direct::Direct;
use health::{Health, Unanswered};

#[cfg(feature = "fuzzing")]
pub(super) use resp::fuzz;

#[derive(Clone)]
pub(super) struct Dragonfly {
    client: Client,
    /// Reads keys at less cost than the client does; `None` where it cannot.
    direct: Option<Direct>,
    is_cluster: bool,
    deadline: Deadline,
    fetch: Fetch,
    /// Of the client's connections.
    health: Arc<Health>,
}

impl Dragonfly {
    pub(super) async fn connect(config: &StoreConfig, reads: Reads) -> Result<Self, StoreError> {
        let url = &config.url;
        let mut store = Self {
            client: connect::client(config)?,
            direct: None,
            is_cluster: url.is_cluster(),
            deadline: Deadline::start(config.timeout),
            fetch: config.fetch,
            health: Arc::new(Health::new()),
        };
        match tokio::time::timeout(connect::whole_timeout(config), store.client.init()).await {
            Ok(Ok(_)) => {
                if reads == Reads::Direct {
                    store.direct = Direct::start(config, &store.client).await;
                }
                Ok(store)
            }
            // Behind a sentinel only the text tells.
            Ok(Err(error)) if is_about_the_password(&error) => Err(StoreError::Setup(format!(
                "{url} refused the user or password: {}; {PASSWORD_COMES_FROM}",
                error.details()
            ))),
            // Trying again mends no certificate.
            Ok(Err(error)) if connect::is_about_tls(url, &error) => {
                Err(StoreError::Setup(format!(
                    "{url}: no TLS with it: {}; see --store-tls-ca, --store-tls-cert",
                    error.details()
                )))
            }
            Ok(Err(error)) if *error.kind() == ErrorKind::Config => {
                Err(StoreError::Setup(format!("{url}: {}", error.details())))
            }
            Ok(Err(error)) if error.details().starts_with(LOADING) => {
                Err(StoreError::Loading(error.details().to_owned()))
            }
            Ok(Err(error)) => Err(StoreError::Unavailable(format!(
                "{url}: {}",
                error.details()
            ))),
            Err(_) => Err(StoreError::Unavailable(format!("{url} does not answer"))),
        }
    }

    pub(super) async fn get_many(
        &self,
        keys: impl KeyList,
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let asked = keys.count();
        if asked == 0 {
            return Ok(Vec::new());
        }
        if let Some(values) = self.get_directly(&keys).await? {
            return Ok(values);
        }
        let keys = keys.into_keys();
        let values = match self.fetch {
            // Each in a box of its own: the second is twice as large, and all of it is moved there.
            Fetch::Mget => boxed(|| self.mget(keys)).await?,
            Fetch::Pipeline => boxed(|| self.get_each(keys)).await?,
        };
        if values.len() < asked {
            let got = values.len();
            let message = format!("{asked} keys were answered by {got} values");
            return Err(StoreError::Refused(message));
        }
        Ok(values.into_iter().take(asked).map(into_bytes).collect())
    }

    /// The values, unless the client has to read them.
    async fn get_directly(
        &self,
        keys: &impl KeyList,
    ) -> Result<Option<Vec<Option<Bytes>>>, StoreError> {
        let Some(direct) = &self.direct else {
            return Ok(None);
        };
        let Some(answer) = direct.ask(keys, self.fetch) else {
            return Ok(None);
        };
        match self.within_deadline(pin!(answer), direct.health()).await? {
            Ok(answer) => answer.map(Some).map_err(|refusal| self.refusal(refusal)),
            // It went with its connection; to read once more changes nothing.
            Err(_) => Ok(None),
        }
    }

    /// The values of `keys`, and perhaps some more.
    async fn mget(&self, mut keys: Vec<Bytes>) -> Result<Vec<Value>, StoreError> {
        if MISTAKEN_FOR_PUBSUB.contains(&keys.len())
            && let Some(last) = keys.last().cloned()
        {
            keys.resize(*MISTAKEN_FOR_PUBSUB.end() + 1, last);
        }
        match self
            .done(pin!(self.ready()?.mget::<Value, _>(keys)))
            .await?
        {
            Value::Array(values) => Ok(values),
            _ => Err(StoreError::Refused(
                "MGET was not answered by an array".into(),
            )),
        }
    }

    async fn get_each(&self, mut keys: Vec<Bytes>) -> Result<Vec<Value>, StoreError> {
        let answers = if self.is_cluster {
            self.each(keys.into_iter().map(KeyCommand::Get).collect())
                .await?
        } else {
            // As below, without the detour over a command of any kind: this is a server's hot path.
            let client = self.ready()?;
            let Some(last) = keys.pop() else {
                return Ok(Vec::new());
            };
            let (pipeline, count) = (client.pipeline(), keys.len());
            for key in keys {
                // Only queued, so neither a sign of life nor one of death.
                let queued: Result<(), Error> = pipeline.get(key).await;
                queued.map_err(|error| self.error(&error))?;
            }
            self.done(pin!(flushed_by((&pipeline, count), client.get(last))))
                .await?
        };
        answers
            .into_iter()
            .map(|answer| match answer {
                // A key of another kind is a miss, as it is to MGET.
                Err(error) if error.details().starts_with("WRONGTYPE") => Ok(Value::Null),
                Ok(Value::Array(mut values)) => Ok(values.pop().unwrap_or(Value::Null)),
                answer => answer.map_err(|error| self.error(&error)),
            })
            .collect()
    }

    pub(super) async fn put_batch(
        &self,
        batch: Batch,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        if batch.is_empty() {
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
                .done(pin!(self.ready()?.custom(command("MSET"), arguments)))
                .await;
        }
        // MSET knows no expiry, and a cluster none of several slots: one SET a key.
        let entries = batch.into_entries();
        let sets = entries.map(|(key, value)| {
            let if_absent = false;
            KeyCommand::Set(Set {
                key,
                value,
                ttl,
                if_absent,
            })
        });
        let mut answers = self.each(sets.collect()).await?.into_iter();
        answers.try_for_each(|answer| answer.map(drop).map_err(|error| self.error(&error)))
    }

    pub(super) async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        let if_absent = false;
        let set = Set {
            key,
            value,
            ttl,
            if_absent,
        };
        self.one(KeyCommand::Set(set)).await
    }

    pub(super) async fn put_if_absent(
        &self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let if_absent = true;
        let set = Set {
            key,
            value,
            ttl,
            if_absent,
        };
        let written: Option<String> = self.one(KeyCommand::Set(set)).await?;
        Ok(written.is_some())
    }

    pub(super) async fn time_to_live(&self, key: Bytes) -> Result<TimeToLive, StoreError> {
        Ok(left_of(self.one(KeyCommand::TimeToLive(key)).await?))
    }

    pub(super) async fn measure(&self, keys: Vec<Bytes>) -> Result<Vec<Measure>, StoreError> {
        let questions = keys
            .into_iter()
            .flat_map(|key| [KeyCommand::Length(key.clone()), KeyCommand::TimeToLive(key)]);
        let answers = self.each(questions.collect()).await?;
        let number = |answer: &Result<Value, Error>| -> Result<Option<i64>, StoreError> {
            match answer {
                Ok(value) => Ok(value.as_i64()),
                Err(error) if error.details().starts_with("WRONGTYPE") => Ok(None),
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
        let reads = self.direct.as_ref().is_some_and(Direct::is_up);
        usize::from(self.is_connected()) + usize::from(reads)
    }

    /// The same store over one connection, which keeps the order of commands; `None` for a cluster.
    pub(super) fn in_order(&self) -> Option<Self> {
        let direct = None;
        (!self.is_cluster).then(|| Self {
            direct,
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

    pub(super) async fn describe(&self, key: Bytes) -> Result<Option<Description>, StoreError> {
        let kind: String = self.one(KeyCommand::Kind(key.clone())).await?;
        if kind == "none" {
            return Ok(None);
        }
        let value = if kind == "string" {
            match self.get_many(key.clone()).await?.pop().flatten() {
                // It went between the two questions.
                None => return Ok(None),
                value => value,
            }
        } else {
            None
        };
        let ttl = match self.time_to_live(key.clone()).await? {
            TimeToLive::Left(left) => Some(left),
            TimeToLive::Forever | TimeToLive::Absent => None,
        };
        let (slot, node) = self.place_of(&key).unzip();
        Ok(Some(Description {
            kind,
            value,
            ttl,
            encoding: self.encoding(&key).await,
            memory_bytes: self.ask_about(&key, "MEMORY", "USAGE").await.ok(),
            slot,
            node: node.flatten(),
        }))
    }

    /// Redis has OBJECT, Dragonfly has DEBUG OBJECT instead; each refuses the other's.
    async fn encoding(&self, key: &Bytes) -> Option<String> {
        if let Ok(encoding) = self.ask_about(key, "OBJECT", "ENCODING").await {
            return encoding;
        }
        let line: String = self.ask_about(key, "DEBUG", "OBJECT").await.ok()?;
        line.split_whitespace()
            .find_map(|field| field.strip_prefix("encoding:"))
            .map(str::to_owned)
    }

    /// Asks by a command whose key stands behind a word. Not sent on to another node.
    async fn ask_about<R: FromValue>(
        &self,
        key: &Bytes,
        name: &'static str,
        word: &'static str,
    ) -> Result<R, StoreError> {
        // Of the policies that name an argument, fred knows only the first one for a custom command.
        let slot = ClusterHash::Custom(fred::util::redis_keyslot(key));
        let command = CustomCommand::new_static(name, slot, false);
        let arguments = vec![Bytes::from_static(word.as_bytes()), key.clone()];
        self.done(pin!(self.ready()?.custom(command, arguments)))
            .await
    }

    async fn one<R: FromValue>(&self, asked: KeyCommand) -> Result<R, StoreError> {
        if !self.is_cluster {
            let answer = self.done(pin!(asked.give_to(self.ready()?))).await?;
            return answer.convert().map_err(|error| self.error(&error));
        }
        let answer = self.each(vec![asked]).await?.pop();
        let answer = answer.unwrap_or_else(|| Err(Error::new(ErrorKind::Protocol, "no answer")));
        answer
            .and_then(Value::convert)
            .map_err(|error| self.error(&error))
    }

    /// The answers to commands that are sent together, in their order.
    async fn each(
        &self,
        commands: Vec<KeyCommand>,
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
        self.done(answers.as_mut()).await
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
        let answer = self.within_deadline(command, &self.health).await?;
        answer.map_err(|error| self.error(&error))
    }

    /// The answer to a command over the connection of that health; every one goes through here.
    async fn within_deadline<F: Future>(
        &self,
        command: Pin<&mut F>,
        health: &Health,
    ) -> Result<F::Output, StoreError> {
        let mut unanswered = Unanswered(health, true);
        let answer = self.deadline.limit(command).await;
        unanswered.1 = answer.is_none();
        answer.ok_or_else(|| StoreError::Timeout(self.deadline.timeout()))
    }

    fn error(&self, error: &Error) -> StoreError {
        let details = error.details().to_owned();
        match error.kind() {
            _ if !self.is_cluster && is_of_a_cluster(&details) => self.refusal(details),
            ErrorKind::Timeout => StoreError::Timeout(self.deadline.timeout()),
            ErrorKind::IO
            | ErrorKind::Canceled
            | ErrorKind::Routing
            | ErrorKind::Backpressure
            | ErrorKind::Cluster
            | ErrorKind::Sentinel => StoreError::Unavailable(details),
            ErrorKind::Auth => StoreError::Refused(format!("{details}; {PASSWORD_COMES_FROM}")),
            _ => self.refusal(details),
        }
    }

    /// What an error in the store's own words means.
    fn refusal(&self, details: String) -> StoreError {
        match &*details {
            _ if !self.is_cluster && is_of_a_cluster(&details) => StoreError::Refused(format!(
                "{details}; it is a node of a cluster: write redis-cluster instead of redis in the URL"
            )),
            _ if details.starts_with("NOAUTH") => {
                StoreError::Refused(format!("{details}; {PASSWORD_COMES_FROM}"))
            }
            _ if details.starts_with(LOADING) => StoreError::Loading(details),
            _ if UNAVAILABLE.iter().any(|start| details.starts_with(start)) => {
                StoreError::Unavailable(details)
            }
            // Redis says the first, Dragonfly the second.
            _ if details.starts_with("OOM") || details.starts_with("Out of memory") => {
                StoreError::Full(details)
            }
            _ => StoreError::Refused(details),
        }
    }
}

/// A command about one key.
///
/// As fred's own commands, not as custom ones: after each of those it flushes the socket, even in a pipeline.
#[derive(Clone)]
enum KeyCommand {
    /// Answered by an array of one.
    Get(Bytes),
    Set(Set),
    Delete(Bytes),
    TimeToLive(Bytes),
    Length(Bytes),
    Kind(Bytes),
}

#[derive(Clone)]
struct Set {
    key: Bytes,
    value: Bytes,
    ttl: Option<Duration>,
    if_absent: bool,
}

impl KeyCommand {
    fn key(&self) -> &[u8] {
        match self {
            Self::Set(set) => &set.key,
            Self::Get(key)
            | Self::Delete(key)
            | Self::TimeToLive(key)
            | Self::Length(key)
            | Self::Kind(key) => key,
        }
    }

    /// The answer, or, of a pipeline, that it is queued.
    async fn give_to(self, client: &impl KeysInterface) -> Result<Value, Error> {
        match self {
            // In a cluster fred takes a value that begins with `MOVED` or `ASK` for a redirection, unless it
            // stands in an array.
            Self::Get(key) => client.mget(key).await,
            Self::Delete(key) => client.del(key).await,
            Self::TimeToLive(key) => client.pttl(key).await,
            Self::Length(key) => client.strlen(key).await,
            Self::Kind(key) => client.r#type(key).await,
            Self::Set(set) => {
                let ttl_ms = |ttl: Duration| i64::try_from(ttl.as_millis().max(1));
                let expiration = set
                    .ttl
                    .map(|ttl| Expiration::PX(ttl_ms(ttl).unwrap_or(i64::MAX)));
                let options = set.if_absent.then_some(SetOptions::NX);
                client
                    .set(set.key, set.value, expiration, options, false)
                    .await
            }
        }
    }
}

/// The answers to the `count` commands of a pipeline and to a last one behind them, in their order.
///
/// fred flushes the socket after each command unless it knows of another one: after every single one of a
/// pipeline, that is, if nothing stands behind it.
async fn flushed_by(
    (pipeline, count): (&Pipeline<Client>, usize),
    last: impl Future<Output = Result<Value, Error>>,
) -> Result<Vec<Result<Value, Error>>, Error> {
    let (mut answers, last) = join(pipeline.try_all(), last).await;
    if answers.len() != count {
        // One error stands for all of the pipeline.
        let error = answers.into_iter().find_map(Result::err);
        let other = || Error::new(ErrorKind::Protocol, "commands without an answer");
        return Err(error.unwrap_or_else(other));
    }
    answers.push(last);
    Ok(answers)
}

/// A future in a box, made there where the compiler can.
#[inline]
fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(Box::write(Box::new_uninit(), make()))
}

/// How the message begins of a store that reads its data.
const LOADING: &str = "LOADING";
/// How the messages begin that mean "not now": the store's own while it elects another master or moves slots, and those of fred for commands that the loss of the connection caught on their way, which have no
/// kind of their own.
const UNAVAILABLE: [&str; 11] = [
    "NOREPLICAS",
    "BUSY ",
    "channel closed",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "READONLY",
    "TRYAGAIN",
    "Cluster is not yet configured",
    "Failed to",
    "Too many failed",
    "Client is not",
];

fn is_about_the_password(error: &Error) -> bool {
    let details = error.details();
    *error.kind() == ErrorKind::Auth
        || details.starts_with("WRONGPASS")
        || details.starts_with("NOAUTH")
}

fn is_of_a_cluster(details: &str) -> bool {
    ["MOVED ", "ASK ", "CROSSSLOT"]
        .iter()
        .any(|start| details.starts_with(start))
}

const PASSWORD_COMES_FROM: &str =
    "a password is taken from the URL, KVPOC_STORE_PASSWORD or --store-password-file";

/// Numbers of keys whose MGET must not be sent as it is. fred takes an array of so many values for a pub/sub
/// message when the first of them reads `message`, `subscribe` or the like, drops it, and gives every later
/// answer on the connection to the wrong caller. With the last key repeated, no stored value can do that.
const MISTAKEN_FOR_PUBSUB: std::ops::RangeInclusive<usize> = 3..=5;

fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
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
