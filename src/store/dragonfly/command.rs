//! Commands about one key, as fred sends them.
//!
//! Enters: a key, and what to do with it. Leaves: the answer, or the answers to several that were sent together. Must not
//! decide where a command goes, nor what a refusal means.

use std::time::Duration;

use bytes::Bytes;
use fred::clients::{Client, Pipeline};
use fred::error::{Error, ErrorKind};
use fred::interfaces::KeysInterface;
use fred::types::{ClusterHash, CustomCommand, Expiration, SetOptions, Value};
use futures_util::future::join;

use crate::store::Only;

/// A command about one key.
///
/// As fred's own commands, not as custom ones: after each of those it flushes the socket, even in a pipeline.
#[derive(Clone)]
pub(super) enum KeyCommand {
    /// Answered by an array of one.
    Get(Bytes),
    Set(Set),
    /// Answered by 1 or 0.
    Replace {
        key: Bytes,
        expected: Option<Bytes>,
        value: Bytes,
        ttl: Option<Duration>,
    },
    Delete(Bytes),
    TimeToLive(Bytes),
    Length(Bytes),
    Kind(Bytes),
}

#[derive(Clone)]
pub(super) struct Set {
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    pub(super) ttl: Option<Duration>,
    pub(super) only: Option<Only>,
}

impl KeyCommand {
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Set(set) => &set.key,
            Self::Get(key)
            | Self::Replace { key, .. }
            | Self::Delete(key)
            | Self::TimeToLive(key)
            | Self::Length(key)
            | Self::Kind(key) => key,
        }
    }

    /// The answer, or, of a pipeline, that it is queued.
    pub(super) async fn give_to(self, client: &impl KeysInterface) -> Result<Value, Error> {
        match self {
            // In a cluster fred takes a value that begins with `MOVED` or `ASK` for a redirection, unless it
            // stands in an array.
            Self::Get(key) => client.mget(key).await,
            Self::Delete(key) => client.del(key).await,
            Self::TimeToLive(key) => client.pttl(key).await,
            Self::Length(key) => client.strlen(key).await,
            Self::Kind(key) => client.r#type(key).await,
            Self::Replace {
                key,
                expected,
                value,
                ttl,
            } => {
                let slot = ClusterHash::Custom(fred::util::redis_keyslot(&key));
                let ttl_ms = ttl.map_or(0, milliseconds).to_string();
                let mut arguments = vec![
                    Value::from_static_str(REPLACE),
                    Value::from_static_str("1"),
                    Value::Bytes(key),
                    Value::Bytes(value),
                    ttl_ms.into(),
                ];
                arguments.extend(expected.map(Value::Bytes));
                let command = CustomCommand::new_static("EVAL", slot, false);
                client.custom(command, arguments).await
            }
            Self::Set(set) => {
                let expiration = set.ttl.map(|ttl| Expiration::PX(milliseconds(ttl)));
                let options = set.only.map(|only| match only {
                    Only::IfAbsent => SetOptions::NX,
                    Only::IfPresent => SetOptions::XX,
                });
                client
                    .set(set.key, set.value, expiration, options, false)
                    .await
            }
        }
    }
}

/// Compare and set: `KEYS[1]` from `ARGV[3]`, left out for absent, to `ARGV[1]`, which lives `ARGV[2]` ms, 0 for ever.
///
/// A script and not WATCH, which would need a connection that nobody else uses, and a second round trip in which
/// the answer can be lost; Redis, Valkey and Dragonfly all run it. The new value counts as expected, so that a
/// repetition after a lost answer is one of the same step.
const REPLACE: &str = "\
local now = redis.call('GET', KEYS[1])
if now ~= ARGV[1] and now ~= (ARGV[3] or false) then return 0 end
if ARGV[2] == '0' then redis.call('SET', KEYS[1], ARGV[1])
else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 1";

/// As the protocol has them: at least one.
pub(super) fn milliseconds(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis().max(1)).unwrap_or(i64::MAX)
}

/// The answers to the `count` commands of a pipeline and to a last one behind them, in their order.
///
/// fred flushes the socket after each command unless it knows of another one: after every single one of a
/// pipeline, that is, if nothing stands behind it.
pub(super) async fn flushed_by(
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

/// A command that fred has no method for, or none at its price.
pub(super) fn named(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
}
