//! What a transaction is made of.
//!
//! Enters: commands that are to take effect together. Leaves: what each of them gave. Must not know how a store does it.

use std::time::Duration;

use bytes::Bytes;

use super::{Batch, Held, Only, StoreError, TimeToLive};

/// One command of a transaction.
#[derive(Debug)]
pub enum Step {
    /// The value of a key.
    Get(Bytes),
    /// The values of keys.
    GetMany(Vec<Bytes>),
    /// How many of the keys are there; one that is named twice counts twice.
    Exists(Vec<Bytes>),
    /// How long a key has left.
    TimeToLive(Bytes),
    /// Writes one key, perhaps only if it is as it must be.
    Put {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
        /// How long it lives; `None`: it stays.
        ttl: Option<Duration>,
        /// When it is written; `None`: always.
        only: Option<Only>,
    },
    /// Writes several keys, which stay.
    PutBatch(Batch),
    /// Removes keys.
    Delete(Vec<Bytes>),
}

/// What a step gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Gave {
    /// Of [`Step::Get`]: `None` for a key that is absent or of another kind.
    Value(Option<Bytes>),
    /// Of [`Step::GetMany`].
    Values(Vec<Option<Bytes>>),
    /// Of [`Step::Exists`] and [`Step::Delete`]: how many were there.
    Count(u64),
    /// Of [`Step::TimeToLive`].
    Left(TimeToLive),
    /// Of [`Step::Put`] and [`Step::PutBatch`]: whether anything was written.
    Written(bool),
}

/// What came of a transaction that took effect.
pub struct Executed {
    /// For each step, in their order. One that failed did so alone: the others took effect.
    pub answers: Vec<Result<Gave, StoreError>>,
    /// The place of all values among them.
    pub held: Held,
}

impl Step {
    /// The keys that it names, in their order.
    pub(super) fn keys(&self) -> Vec<&[u8]> {
        match self {
            Self::Get(key) | Self::TimeToLive(key) | Self::Put { key, .. } => vec![key],
            Self::GetMany(keys) | Self::Exists(keys) | Self::Delete(keys) => {
                keys.iter().map(|key| &key[..]).collect()
            }
            Self::PutBatch(batch) => batch.entries().map(|(key, _)| key).collect(),
        }
    }
}
