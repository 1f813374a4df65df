//! Several commands in one transaction of LMDB.
//!
//! Enters: steps. Leaves: what each gave, once all of them are committed. Must not commit a part of them, nor copy values
//! that have no room.

use bytes::Bytes;
use heed::RwTxn;

use super::super::{Executed, Gave, Held, Only, Room, Step, StoreError, TimeToLive};
use super::{Duration, Embedded, expiry_after, live, now_ms, store_error};

impl Embedded {
    pub(in super::super) async fn transaction(
        &self,
        steps: Vec<Step>,
        room: &Room,
    ) -> Result<Executed, StoreError> {
        let room = room.clone();
        self.writing(move |store| {
            let mut txn = store.env.write_txn().map_err(store_error)?;
            let (mut held, now_ms) = (room.hold(), now_ms());
            let mut answers = Vec::with_capacity(steps.len());
            for step in steps {
                answers.push(
                    match store.step(&mut txn, step, now_ms, (&room, &mut held)) {
                        // Of this answer alone: nothing is in the way of what it asked for.
                        Err(error) if !matches!(error, StoreError::NoRoom { .. }) => {
                            return Err(error);
                        }
                        answer => answer,
                    },
                );
            }
            txn.commit().map_err(store_error)?;
            Ok(Executed { answers, held })
        })
        .await
    }

    /// Does one step, seeing what those before it have written.
    fn step(
        &self,
        txn: &mut RwTxn<'_>,
        step: Step,
        now_ms: u64,
        (room, held): (&Room, &mut Held),
    ) -> Result<Gave, StoreError> {
        let mut value = |txn: &RwTxn<'_>, key: &Bytes| {
            let stored = self.lookup(txn, key)?;
            let Some((value, _)) = stored.and_then(|stored| live(stored, now_ms)) else {
                return Ok(None);
            };
            room.add(held, value.len())?;
            Ok(Some(Bytes::copy_from_slice(value)))
        };
        Ok(match step {
            Step::Get(key) => Gave::Value(value(txn, &key)?),
            Step::GetMany(keys) => {
                let values = keys.iter().map(|key| value(txn, key));
                Gave::Values(values.collect::<Result<_, StoreError>>()?)
            }
            Step::Exists(keys) => {
                let mut there = 0;
                for key in &keys {
                    there += u64::from(self.expiry(txn, key, now_ms)?.is_some());
                }
                Gave::Count(there)
            }
            Step::TimeToLive(key) => Gave::Left(match self.expiry(txn, &key, now_ms)? {
                None => TimeToLive::Absent,
                Some(0) => TimeToLive::Forever,
                Some(expiry) => TimeToLive::Left(Duration::from_millis(expiry - now_ms)),
            }),
            Step::Put {
                key,
                value,
                ttl,
                only,
            } => {
                let is_there = self.expiry(txn, &key, now_ms)?.is_some();
                let written = only.is_none_or(|only| is_there == (only == Only::IfPresent));
                if written {
                    self.write(txn, &key, &value, expiry_after(now_ms, ttl))?;
                }
                Gave::Written(written)
            }
            Step::PutBatch(batch) => {
                for (key, value) in batch.entries() {
                    self.write(txn, key, value, expiry_after(now_ms, None))?;
                }
                Gave::Written(true)
            }
            Step::Delete(keys) => {
                let mut removed = 0;
                for key in &keys {
                    removed += u64::from(self.expiry(txn, key, now_ms)?.is_some());
                    if self.lookup(txn, key)?.is_some() {
                        self.database.delete(txn, key).map_err(store_error)?;
                    }
                }
                Gave::Count(removed)
            }
        })
    }

    /// When the key expires, 0 for never; `None`: it is not there.
    fn expiry(&self, txn: &RwTxn<'_>, key: &[u8], now_ms: u64) -> Result<Option<u64>, StoreError> {
        let stored = self.lookup(txn, key)?;
        Ok(stored
            .and_then(|stored| live(stored, now_ms))
            .map(|(_, expiry)| expiry))
    }
}
