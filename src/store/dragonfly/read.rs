//! Reading keys: over our own connections where they are, else by fred.
//!
//! Enters: keys. Leaves: their values in the same order. Must not take longer than one deadline, whoever was asked first.

use std::pin::{Pin, pin};
use std::time::Instant;

use bytes::Bytes;
use fred::error::Error;
use fred::interfaces::KeysInterface as _;
use fred::types::Value;

use super::super::{KeyList, StoreError};
use super::command::{KeyCommand, flushed_by};
use super::resp::Refusal;
use super::{Dragonfly, Line, Readers, into_bytes, words};
use crate::config::Fetch;

/// A future in a box, made there where the compiler can.
#[inline]
fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(Box::write(Box::new_uninit(), make()))
}

/// Numbers of keys whose MGET must not be sent as it is. fred takes an array of so many values for a pub/sub
/// message when the first of them reads `message`, `subscribe` or the like, drops it, and gives every later
/// answer on the connection to the wrong caller. With the last key repeated, no stored value can do that.
const MISTAKEN_FOR_PUBSUB: std::ops::RangeInclusive<usize> = 3..=5;

impl Dragonfly {
    pub(in super::super) async fn get_many(
        &self,
        keys: impl KeyList,
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let asked = keys.count();
        if asked == 0 {
            return Ok(Vec::new());
        }
        // One for both ways: who loses the first connection has waited already.
        let mut due = None;
        if let Some(values) = self.get_directly(&keys, &mut due).await? {
            return Ok(values);
        }
        let keys = keys.into_keys();
        let values = match self.fetch {
            // Each in a box of its own: the second is twice as large, and all of it is moved there.
            Fetch::Mget => boxed(|| self.mget(keys, due)).await?,
            Fetch::Pipeline => boxed(|| self.get_each(keys, due)).await?,
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
        due: &mut Option<Instant>,
    ) -> Result<Option<Vec<Option<Bytes>>>, StoreError> {
        let direct = match &self.readers {
            Readers::None => return Ok(None),
            Readers::One(direct) => direct,
            // In a box of its own, as it is large and not for everybody.
            Readers::Nodes(nodes) => {
                return boxed(|| self.get_from_nodes(nodes, keys, due)).await;
            }
        };
        let Some(answer) = direct.ask(keys, self.fetch) else {
            return Ok(None);
        };
        match self.within(due, pin!(answer), Line::Direct(direct)).await? {
            Ok(Ok(values)) => Ok(Some(values)),
            Ok(Err(Refusal::Said(text))) => Err(self.refusal(text)),
            Ok(Err(Refusal::NoRoom(needed))) => Err(direct.no_room(needed)),
            // It went with its connection; to read once more changes nothing. No single server sends anybody elsewhere.
            Err(_) | Ok(Err(Refusal::Elsewhere(_))) => Ok(None),
        }
    }

    /// The values of `keys`, and perhaps some more.
    async fn mget(
        &self,
        mut keys: Vec<Bytes>,
        due: Option<Instant>,
    ) -> Result<Vec<Value>, StoreError> {
        if MISTAKEN_FOR_PUBSUB.contains(&keys.len())
            && let Some(last) = keys.last().cloned()
        {
            keys.resize(*MISTAKEN_FOR_PUBSUB.end() + 1, last);
        }
        let asked = pin!(self.ready()?.mget::<Value, _>(keys));
        match self.done_until(due, asked).await? {
            Value::Array(values) => Ok(values),
            _ => Err(StoreError::Refused(
                "MGET was not answered by an array".into(),
            )),
        }
    }

    async fn get_each(
        &self,
        mut keys: Vec<Bytes>,
        due: Option<Instant>,
    ) -> Result<Vec<Value>, StoreError> {
        let answers = if self.is_cluster {
            self.each(keys.into_iter().map(KeyCommand::Get).collect(), due)
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
            let asked = pin!(flushed_by((&pipeline, count), client.get(last)));
            self.done_until(due, asked).await?
        };
        answers
            .into_iter()
            .map(|answer| match answer {
                // A key of another kind is a miss, as it is to MGET.
                Err(error) if words::is_of_another_kind(error.details()) => Ok(Value::Null),
                Ok(Value::Array(mut values)) => Ok(values.pop().unwrap_or(Value::Null)),
                answer => answer.map_err(|error| self.error(&error)),
            })
            .collect()
    }
}
