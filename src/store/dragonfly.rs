//! Dragonfly, and every server of its protocol. The only file that names fred.
//!
//! Enters: keys and values. Leaves: values without a copy, slices of the buffer they were read into.
//! Must not wait without end: every command has a deadline, and while the connection is lost every command
//! fails at once instead of queueing behind the reconnection.

use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::config::{Config, ReconnectPolicy, Server, ServerConfig, UnresponsiveConfig};
use fred::types::{Builder, ClientState, ClusterHash, CustomCommand, Expiration, Value};

use super::{Batch, Description, Page, StoreError, StoreStats};
use crate::config::StoreUrl;

/// First and longest wait between two attempts to reconnect; fred adds jitter of up to 50 ms. Short, so
/// that a store which returns is used again within a second.
const RECONNECT_MIN_MS: u32 = 50;
const RECONNECT_MAX_MS: u32 = 500;
/// Commands that may wait inside the client; beyond it the answer is an error, not a longer queue.
const MAX_QUEUED_COMMANDS: usize = 16_384;
/// After this many deadlines without an answer the connection itself is given up.
const DEADLINES_UNTIL_DEAD: u32 = 4;

#[derive(Clone)]
pub(super) struct Dragonfly {
    client: Client,
    timeout: Duration,
}

impl Dragonfly {
    pub(super) async fn connect(url: &StoreUrl, timeout: Duration) -> Result<Self, StoreError> {
        let client = builder(url, timeout)
            .build()
            .map_err(|error| StoreError::Setup(error.details().to_owned()))?;
        let store = Self { client, timeout };
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
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.ready()?;
        let asked = keys.len();
        let answer = self.client.mget::<Value, _>(keys).await;
        let Value::Array(values) = answer.map_err(|error| self.error(&error))? else {
            return Err(StoreError::Refused(
                "MGET was not answered by an array".into(),
            ));
        };
        if values.len() != asked {
            return Err(StoreError::Refused(format!(
                "MGET of {asked} keys was answered by {} values",
                values.len()
            )));
        }
        Ok(values.into_iter().map(into_bytes).collect())
    }

    pub(super) async fn put_batch(
        &self,
        batch: Batch,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.ready()?;
        let Some(ttl) = ttl else {
            // `mset` goes through a hash map and loses the order; the bare command is twice as fast.
            let mut arguments = Vec::with_capacity(batch.len() * 2);
            for (key, value) in batch.into_entries() {
                arguments.push(Value::Bytes(key));
                arguments.push(Value::Bytes(value));
            }
            let answer: Result<(), Error> = self.client.custom(command("MSET"), arguments).await;
            return answer.map_err(|error| self.error(&error));
        };
        // MSET knows no expiry: one SET a key, sent together.
        let pipeline = self.client.pipeline();
        for (key, value) in batch.into_entries() {
            let queued: Result<(), Error> = pipeline
                .set(key, value, Some(expiration(ttl)), None, false)
                .await;
            queued.map_err(|error| self.error(&error))?;
        }
        let answer: Result<Vec<()>, Error> = pipeline.all().await;
        answer.map(|_| ()).map_err(|error| self.error(&error))
    }

    pub(super) async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.ready()?;
        self.client
            .set(key, value, ttl.map(expiration), None, false)
            .await
            .map_err(|error| self.error(&error))
    }

    pub(super) async fn delete(&self, key: Bytes) -> Result<bool, StoreError> {
        self.ready()?;
        let removed: Result<u64, Error> = self.client.del(key).await;
        removed
            .map(|count| count > 0)
            .map_err(|error| self.error(&error))
    }

    pub(super) async fn describe(&self, key: Bytes) -> Result<Option<Description>, StoreError> {
        let kind: String = self.ask("TYPE", vec![key.clone()]).await?;
        if kind == "none" {
            return Ok(None);
        }
        let value = if kind == "string" {
            let value: Value = self.ask("GET", vec![key.clone()]).await?;
            match into_bytes(value) {
                // It went between the two questions.
                None => return Ok(None),
                value => value,
            }
        } else {
            None
        };
        let ttl_ms: i64 = self.ask("PTTL", vec![key.clone()]).await?;
        let usage = vec![Bytes::from_static(b"USAGE"), key.clone()];
        Ok(Some(Description {
            kind,
            value,
            ttl: u64::try_from(ttl_ms).ok().map(Duration::from_millis),
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
        self.ready()?;
        self.client
            .custom(command(name), arguments)
            .await
            .map_err(|error| self.error(&error))
    }

    fn ready(&self) -> Result<(), StoreError> {
        if self.client.state() == ClientState::Connected {
            Ok(())
        } else {
            Err(StoreError::Unavailable("the connection is lost".into()))
        }
    }

    fn error(&self, error: &Error) -> StoreError {
        let details = error.details().to_owned();
        match error.kind() {
            ErrorKind::Timeout => StoreError::Timeout(self.timeout),
            ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Backpressure => {
                StoreError::Unavailable(details)
            }
            _ if details.starts_with("LOADING") => StoreError::Unavailable(details),
            // Redis says the first, Dragonfly the second.
            _ if details.starts_with("OOM") || details.starts_with("Out of memory") => {
                StoreError::Full(details)
            }
            _ => StoreError::Refused(details),
        }
    }
}

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
        .with_performance_config(|performance| {
            performance.default_command_timeout = timeout;
        })
        .with_connection_config(|connection| {
            connection.connection_timeout = connect_timeout(timeout);
            connection.internal_command_timeout = connect_timeout(timeout);
            connection.max_command_buffer_len = MAX_QUEUED_COMMANDS;
            // A lost command is the caller's to repeat: it knows whether that is harmless.
            connection.max_command_attempts = 1;
            connection.tcp.nodelay = Some(true);
            connection.unresponsive = UnresponsiveConfig {
                max_timeout: Some(connect_timeout(timeout) * DEADLINES_UNTIL_DEAD),
                interval: connect_timeout(timeout),
            };
        });
    builder
}

fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
}

fn expiration(ttl: Duration) -> Expiration {
    Expiration::PX(i64::try_from(ttl.as_millis().max(1)).unwrap_or(i64::MAX))
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read_leniently_whatever_the_engine() {
        let redis = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nused_memory:100\r\nmaxmemory:0\r\n\
                     # Stats\r\ntotal_commands_processed:7\r\nkeyspace_hits:3\r\nkeyspace_misses:1\r\n";
        let stats = parse_info(redis, 5);
        assert_eq!(stats.engine, "redis");
        assert_eq!(stats.version.as_deref(), Some("7.0.15"));
        assert_eq!((stats.keys, stats.memory_bytes), (5, Some(100)));
        assert_eq!((stats.max_memory_bytes, stats.key_reads), (None, Some(4)));

        let dragonfly = "redis_version:7.2.0\r\ndragonfly_version:df-v1.34.2\r\nused_memory:x\r\n";
        let stats = parse_info(dragonfly, 0);
        assert_eq!(stats.engine, "dragonfly");
        assert_eq!(stats.version.as_deref(), Some("v1.34.2"));
        assert_eq!((stats.memory_bytes, stats.key_reads), (None, None));

        assert_eq!(parse_info("", 0).engine, "unknown");
    }
}
