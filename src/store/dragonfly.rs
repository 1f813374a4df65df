//! Dragonfly, and every server of its protocol. The only file that names fred.
//!
//! Enters: keys and values. Leaves: values without a copy, slices of the buffer they were read into.
//! Must not wait without end: every command has a deadline. While the connection is lost, or the store lets
//! one deadline after another pass, commands fail at once instead of queueing inside the client.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::config::{Config, ReconnectPolicy, Server, ServerConfig};
use fred::types::{
    Builder, ClientState, ClusterHash, CustomCommand, Expiration, SetOptions, Value,
};

use super::deadline::Deadline;
use super::{Batch, Description, Measure, Page, StoreError, StoreStats, TimeToLive};
use crate::cli::Fetch;
use crate::config::{StoreConfig, StoreUrl};

/// First and longest wait between two attempts to reconnect; fred adds jitter of up to 50 ms. Short, so
/// that a store which returns is used again within a second.
const RECONNECT_MIN_MS: u32 = 50;
const RECONNECT_MAX_MS: u32 = 500;
/// A peer that acknowledges nothing for this many connect timeouts is gone, and the connection with it.
const TIMEOUTS_UNTIL_GONE: u32 = 4;
/// So many deadlines missed in a row, and not one kept, are a frozen store. fred keeps what timed out until it
/// is answered, and its own queue must not be bounded: a full one swallows its order to reconnect. So the
/// flow into it is stopped here.
const MISSED_UNTIL_FROZEN: u32 = 64;
/// How often a frozen store is asked whether it still is.
const FROZEN_PROBE: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub(super) struct Dragonfly {
    client: Client,
    deadline: Deadline,
    fetch: Fetch,
    health: Arc<Health>,
}

/// Deadlines missed in a row. Written by one runtime only, so nothing here is contended.
struct Health {
    missed: AtomicU32,
    opened: Instant,
    /// When the last command was let through, in milliseconds after `opened`.
    probed_ms: AtomicU64,
}

impl Health {
    fn new() -> Self {
        Self {
            missed: AtomicU32::new(0),
            opened: Instant::now(),
            probed_ms: AtomicU64::new(0),
        }
    }

    /// Whether a command may be sent: always, but to a frozen store only one now and then.
    fn allows(&self) -> bool {
        if self.missed.load(Relaxed) < MISSED_UNTIL_FROZEN {
            return true;
        }
        let now_ms = self.opened.elapsed().as_millis() as u64;
        let due = self.probed_ms.load(Relaxed) + FROZEN_PROBE.as_millis() as u64 <= now_ms;
        if due {
            self.probed_ms.store(now_ms, Relaxed);
        }
        due
    }

    fn note(&self, missed_deadline: bool) {
        if missed_deadline {
            self.missed.fetch_add(1, Relaxed);
        } else if self.missed.load(Relaxed) > 0 {
            self.missed.store(0, Relaxed);
        }
    }
}

/// Notes what came of a command when it is dropped: one that nobody waits for any more was not answered either.
struct Unanswered<'a>(&'a Health, bool);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.note(self.1);
    }
}

impl Dragonfly {
    /// Connects to `url`, which is that of `config`.
    pub(super) async fn connect(url: &StoreUrl, config: &StoreConfig) -> Result<Self, StoreError> {
        let timeout = config.timeout;
        let client = builder(url, timeout)
            .build()
            .map_err(|error| StoreError::Setup(error.details().to_owned()))?;
        let store = Self {
            client,
            deadline: Deadline::start(timeout),
            fetch: config.fetch,
            health: Arc::new(Health::new()),
        };
        match tokio::time::timeout(connect_timeout(timeout), store.client.init()).await {
            Ok(Ok(_)) => Ok(store),
            Ok(Err(error)) if *error.kind() == ErrorKind::Auth => Err(StoreError::Setup(format!(
                "{url} refused the user or password: {}",
                error.details()
            ))),
            Ok(Err(error)) => Err(StoreError::Unavailable(format!(
                "{url}: {}",
                error.details()
            ))),
            Err(_) => Err(StoreError::Unavailable(format!("{url} does not answer"))),
        }
    }

    pub(super) async fn get_many(
        &self,
        keys: Vec<Bytes>,
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let asked = keys.len();
        let values = match self.fetch {
            _ if keys.is_empty() => return Ok(Vec::new()),
            Fetch::Mget => self.mget(keys).await?,
            Fetch::Pipeline => self.get_each(keys).await?,
        };
        if values.len() < asked {
            let got = values.len();
            let message = format!("{asked} keys were answered by {got} values");
            return Err(StoreError::Refused(message));
        }
        Ok(values.into_iter().take(asked).map(into_bytes).collect())
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

    async fn get_each(&self, keys: Vec<Bytes>) -> Result<Vec<Value>, StoreError> {
        let pipeline = self.ready()?.pipeline();
        for key in keys {
            // Only queued, so neither a sign of life nor one of death.
            let queued: Result<(), Error> = pipeline.get(key).await;
            queued.map_err(|error| self.error(&error))?;
        }
        let answers = pin!(async { Ok(pipeline.try_all::<Value>().await) });
        let answers = self.done(answers).await?.into_iter();
        answers
            .map(|answer| match answer {
                // A key of another kind is a miss, as it is to MGET.
                Err(error) if error.details().starts_with("WRONGTYPE") => Ok(Value::Null),
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
        let client = self.ready()?;
        let Some(ttl) = ttl else {
            // `mset` goes through a hash map and loses the order; the bare command is twice as fast.
            let mut arguments = Vec::with_capacity(batch.len() * 2);
            for (key, value) in batch.into_entries() {
                arguments.push(Value::Bytes(key));
                arguments.push(Value::Bytes(value));
            }
            return self
                .done(pin!(client.custom(command("MSET"), arguments)))
                .await;
        };
        // MSET knows no expiry: one SET a key, sent together.
        let pipeline = client.pipeline();
        for (key, value) in batch.into_entries() {
            let set = pipeline.set(key, value, Some(expiration(ttl)), None, false);
            let queued: Result<(), Error> = set.await;
            queued.map_err(|error| self.error(&error))?;
        }
        self.done::<Vec<()>>(pin!(pipeline.all())).await.map(|_| ())
    }

    pub(super) async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        let expiration = ttl.map(expiration);
        let client = self.ready()?;
        self.done(pin!(client.set(key, value, expiration, None, false)))
            .await
    }

    pub(super) async fn put_if_absent(
        &self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let (expiration, options) = (ttl.map(expiration), Some(SetOptions::NX));
        let client = self.ready()?;
        let written: Option<String> = self
            .done(pin!(client.set(key, value, expiration, options, false)))
            .await?;
        Ok(written.is_some())
    }

    pub(super) async fn time_to_live(&self, key: Bytes) -> Result<TimeToLive, StoreError> {
        Ok(left_of(self.ask("PTTL", vec![key]).await?))
    }

    pub(super) async fn measure(&self, keys: Vec<Bytes>) -> Result<Vec<Measure>, StoreError> {
        let pipeline = self.ready()?.pipeline();
        for key in keys {
            let queued: Result<(), Error> = pipeline.strlen(key.clone()).await;
            queued.map_err(|error| self.error(&error))?;
            let queued: Result<(), Error> = pipeline.pttl(key).await;
            queued.map_err(|error| self.error(&error))?;
        }
        let answers = pin!(async { Ok(pipeline.try_all::<i64>().await) });
        let answers = self.done(answers).await?;
        answers
            .chunks_exact(2)
            .map(|pair| {
                let bytes = match &pair[0] {
                    Ok(bytes) => u64::try_from(*bytes).ok(),
                    Err(error) if error.details().starts_with("WRONGTYPE") => None,
                    Err(error) => return Err(self.error(error)),
                };
                let left_ms = pair[1].as_ref().map_err(|error| self.error(error))?;
                let left = left_of(*left_ms);
                Ok(Measure { bytes, left })
            })
            .collect()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.state() == ClientState::Connected
    }

    pub(super) async fn delete(&self, keys: Vec<Bytes>) -> Result<u64, StoreError> {
        self.done(pin!(self.ready()?.del(keys))).await
    }

    pub(super) async fn describe(&self, key: Bytes) -> Result<Option<Description>, StoreError> {
        let kind: String = self.ask("TYPE", vec![key.clone()]).await?;
        if kind == "none" {
            return Ok(None);
        }
        let value = if kind == "string" {
            match self.get_many(vec![key.clone()]).await?.pop().flatten() {
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
        let usage = vec![Bytes::from_static(b"USAGE"), key.clone()];
        Ok(Some(Description {
            kind,
            value,
            ttl,
            encoding: self.encoding(&key).await,
            memory_bytes: self.ask("MEMORY", usage).await.ok(),
        }))
    }

    /// Redis has OBJECT, Dragonfly has DEBUG OBJECT instead; each refuses the other's.
    async fn encoding(&self, key: &Bytes) -> Option<String> {
        let arguments = |word: &'static str| vec![Bytes::from_static(word.as_bytes()), key.clone()];
        if let Ok(encoding) = self.ask("OBJECT", arguments("ENCODING")).await {
            return encoding;
        }
        let line: String = self.ask("DEBUG", arguments("OBJECT")).await.ok()?;
        line.split_whitespace()
            .find_map(|field| field.strip_prefix("encoding:"))
            .map(str::to_owned)
    }

    pub(super) async fn scan(
        &self,
        cursor: Option<Bytes>,
        count: usize,
    ) -> Result<Page, StoreError> {
        let arguments = vec![
            cursor.unwrap_or(Bytes::from_static(b"0")),
            Bytes::from_static(b"COUNT"),
            count.max(1).to_string().into(),
        ];
        let (next, keys): (Value, Vec<Value>) = self.ask("SCAN", arguments).await?;
        Ok(Page {
            keys: keys.into_iter().filter_map(into_bytes).collect(),
            next: into_bytes(next).filter(|cursor| &cursor[..] != b"0"),
        })
    }

    pub(super) async fn stats(&self) -> Result<StoreStats, StoreError> {
        let info: String = self.ask("INFO", vec![]).await?;
        let keys: u64 = self.ask("DBSIZE", vec![]).await?;
        Ok(parse_info(&info, keys))
    }

    async fn ask<R: fred::types::FromValue>(
        &self,
        name: &'static str,
        arguments: Vec<Bytes>,
    ) -> Result<R, StoreError> {
        self.done(pin!(self.ready()?.custom(command(name), arguments)))
            .await
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

    /// What came of a command; every one goes through here.
    async fn done<T>(
        &self,
        command: Pin<&mut impl Future<Output = Result<T, Error>>>,
    ) -> Result<T, StoreError> {
        let mut unanswered = Unanswered(&self.health, true);
        let answer = self.deadline.limit(command).await;
        unanswered.1 = answer.is_none();
        match answer {
            Some(answer) => answer.map_err(|error| self.error(&error)),
            None => Err(StoreError::Timeout(self.deadline.timeout())),
        }
    }

    fn error(&self, error: &Error) -> StoreError {
        let details = error.details().to_owned();
        match error.kind() {
            ErrorKind::Timeout => StoreError::Timeout(self.deadline.timeout()),
            ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Backpressure => {
                StoreError::Unavailable(details)
            }
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

/// How the messages begin that mean "not now": the store's own while it reads its data, and those of fred for
/// commands that the loss of the connection caught on their way, which have no kind of their own.
const UNAVAILABLE: [&str; 4] = [
    "LOADING",
    "Failed to route",
    "Failed to send",
    "Client is not",
];

/// Numbers of keys whose MGET must not be sent as it is. fred takes an array of so many values for a pub/sub
/// message when the first of them reads `message`, `subscribe` or the like, drops it, and gives every later
/// answer on the connection to the wrong caller. With the last key repeated, no stored value can do that.
const MISTAKEN_FOR_PUBSUB: std::ops::RangeInclusive<usize> = 3..=5;

/// Connecting takes several round trips, and a short command deadline is no reason to give up on them.
fn connect_timeout(timeout: Duration) -> Duration {
    timeout.max(Duration::from_secs(2))
}

fn builder(url: &StoreUrl, timeout: Duration) -> Builder {
    let mut config = Config::default();
    match url {
        StoreUrl::Tcp {
            host,
            port,
            username,
            password,
            database,
        } => {
            config.server = ServerConfig::Centralized {
                server: Server::new(host.clone(), *port),
            };
            config.username.clone_from(username);
            config.password.clone_from(password);
            config.database = *database;
        }
        StoreUrl::Unix(path) => config.server = ServerConfig::Unix { path: path.clone() },
        StoreUrl::Embedded(_) => unreachable!("the embedded store has no server"),
    }
    let mut builder = Builder::from_config(config);
    builder
        .set_policy(ReconnectPolicy::new_exponential(
            0,
            RECONNECT_MIN_MS,
            RECONNECT_MAX_MS,
            2,
        ))
        .with_connection_config(|connection| {
            connection.connection_timeout = connect_timeout(timeout);
            connection.internal_command_timeout = connect_timeout(timeout);
            // A lost command is the caller's to repeat: it knows whether that is harmless.
            connection.max_command_attempts = 1;
            connection.tcp.nodelay = Some(true);
            connection.tcp.user_timeout = Some(connect_timeout(timeout) * TIMEOUTS_UNTIL_GONE);
        });
    builder
}

fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
}

fn expiration(ttl: Duration) -> Expiration {
    Expiration::PX(i64::try_from(ttl.as_millis().max(1)).unwrap_or(i64::MAX))
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

/// Reads INFO leniently: engines differ in sections and fields, so each is looked up by name or missing.
fn parse_info(info: &str, keys: u64) -> StoreStats {
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    let number = |name| field(name).and_then(|text| text.parse::<u64>().ok());
    let (engine, version) = [
        ("dragonfly", "dragonfly_version"),
        ("valkey", "valkey_version"),
        ("redis", "redis_version"),
    ]
    .into_iter()
    .find_map(|(engine, name)| Some((engine, field(name)?)))
    .map_or(("unknown", None), |(engine, version)| {
        (engine, Some(version.trim_start_matches("df-").to_owned()))
    });
    let (hits, misses) = (number("keyspace_hits"), number("keyspace_misses"));
    StoreStats {
        engine: engine.into(),
        version,
        keys,
        memory_bytes: number("used_memory"),
        max_memory_bytes: number("maxmemory").filter(|&bytes| bytes > 0),
        commands_processed: number("total_commands_processed"),
        commands_per_second: number("instantaneous_ops_per_sec"),
        key_reads: hits.zip(misses).map(|(hits, misses)| hits + misses),
        // Only Dragonfly tells; the others execute on one.
        threads: number("thread_count"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_store_is_asked_only_now_and_then_until_it_answers() {
        let health = Health::new();
        for _ in 0..MISSED_UNTIL_FROZEN {
            assert!(health.allows());
            health.note(true);
        }
        std::thread::sleep(FROZEN_PROBE);
        assert!(health.allows());
        assert!(!health.allows());
        health.note(false);
        assert!(health.allows() && health.allows());
    }

    #[test]
    fn info_is_read_leniently_whatever_the_engine() {
        let redis = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nused_memory:100\r\nmaxmemory:0\r\n\
                     # Stats\r\ntotal_commands_processed:7\r\nkeyspace_hits:3\r\nkeyspace_misses:1\r\n";
        let stats = parse_info(redis, 5);
        assert_eq!(stats.engine, "redis");
        assert_eq!(stats.version.as_deref(), Some("7.0.15"));
        assert_eq!((stats.keys, stats.memory_bytes), (5, Some(100)));
        assert_eq!((stats.max_memory_bytes, stats.key_reads), (None, Some(4)));

        let dragonfly = "redis_version:7.2.0\r\ndragonfly_version:df-v1.34.2\r\nused_memory:x\r\n\
                         thread_count:4\r\n";
        let stats = parse_info(dragonfly, 0);
        assert_eq!((&*stats.engine, stats.threads), ("dragonfly", Some(4)));
        assert_eq!(stats.version.as_deref(), Some("v1.34.2"));
        assert_eq!((stats.memory_bytes, stats.key_reads), (None, None));

        assert_eq!(parse_info("", 0).engine, "unknown");
    }
}
