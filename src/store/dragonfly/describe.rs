//! All that a store tells about one key, which each engine is asked in its own way.
//!
//! Enters: a key. Leaves: a [`Description`]. Must not fail over what an engine does not tell: that is left out.

use std::pin::pin;

use bytes::Bytes;
use fred::interfaces::ClientLike as _;
use fred::types::{ClusterHash, CustomCommand, FromValue};

use super::super::{Description, StoreError, TimeToLive};
use super::Dragonfly;
use super::command::KeyCommand;

impl Dragonfly {
    pub(in super::super) async fn describe(
        &self,
        key: Bytes,
    ) -> Result<Option<Description>, StoreError> {
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
            memory_bytes: self.memory(&key).await,
            slot,
            node: node.flatten(),
        }))
    }

    /// Dragonfly counts none for what is short enough to stand in its table: that is not told.
    async fn memory(&self, key: &Bytes) -> Option<u64> {
        let bytes = self.ask_about(key, "MEMORY", "USAGE").await.ok();
        bytes.filter(|&bytes| bytes > 0)
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
}
