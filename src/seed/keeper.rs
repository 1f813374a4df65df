//! The keeper of one run's note: writes it beside the work, and hears what comes of it.
//!
//! Enters: a claim, and how far the work is. Leaves: whether it may go on, from where again, or why not. Must not let
//! keys be written after another run may have taken over, nor touch a note that another run has taken.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::note::{Claim, Entry, LEASE, OWN, Standing};
use super::patience::{Patience, may_pass};
use crate::store::StoreError;
use crate::units::{grouped, human_bytes};

/// How much of the work a killed load does again at most, in time.
pub(super) const CHECKPOINT: Duration = Duration::from_secs(1);
/// A store that loses its data more often than this during one load would do so for ever.
const MAX_LOSSES: u32 = 3;

/// What came of writing it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is there; bytes that the store uses.
    Noted(Option<u64>),
    /// The store has lost something, or may have: only the positions below are certain.
    Behind(u64),
    /// Not known yet; it is tried again.
    Unheard,
}

/// When the note was last heard of. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lease(Rc<Cell<Instant>>);

impl Lease {
    /// Whether keys may be written: nobody can have taken over yet.
    pub(super) fn holds(&self) -> bool {
        self.0.get().elapsed() < OWN
    }
}

type Writing = JoinHandle<(Claim, Result<Standing, StoreError>)>;

/// Writes the note once a second beside the load, and hears what comes of it.
pub(super) struct Keeper {
    /// `None` while it is being written, or after another run took it.
    claim: Option<Claim>,
    /// A task of its own: awaited in the load, it would wait for batches that nobody drives meanwhile.
    writing: Option<Writing>,
    began: Instant,
    lease: Lease,
    retry_for: Duration,
    /// Of the store, for messages.
    url: String,
    keys_were_lost: bool,
}

impl Keeper {
    pub(super) fn new(claim: Claim, url: String, retry_for: Duration) -> Self {
        let now = Instant::now();
        Self {
            claim: Some(claim),
            writing: None,
            began: now,
            lease: Lease(Rc::new(Cell::new(now))),
            retry_for,
            url,
            keys_were_lost: false,
        }
    }

    pub(super) fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// Begins to write it when it is time.
    pub(super) fn beat(&mut self, entry: impl FnOnce() -> Entry) {
        if self.writing.is_some() || self.began.elapsed() < CHECKPOINT {
            return;
        }
        let Some(mut claim) = self.claim.take() else {
            return;
        };
        self.began = Instant::now();
        let entry = entry();
        self.writing = Some(tokio::spawn(async move {
            let standing = claim.write(&entry).await;
            (claim, standing)
        }));
    }

    /// What came of it; waits for ever while nothing is being written.
    pub(super) async fn noticed(&mut self) -> Result<Kept, String> {
        let Some(writing) = &mut self.writing else {
            return std::future::pending().await;
        };
        let written = writing.await;
        self.writing = None;
        let (claim, standing) =
            written.map_err(|error| format!("updating kvpoc:dataset: {error}"))?;
        match standing {
            Ok(standing) => self.judge(claim, standing),
            Err(error) => {
                self.claim = Some(claim);
                let silence = self.lease.0.get().elapsed();
                if may_pass(&error) && silence < self.retry_for.max(LEASE) {
                    return Ok(Kept::Unheard);
                }
                Err(format!("updating kvpoc:dataset: {error}"))
            }
        }
    }

    /// Writes it now, and insists.
    pub(super) async fn write(
        &mut self,
        patience: &Patience<'_>,
        entry: &Entry,
    ) -> Result<Kept, String> {
        if self.writing.is_some()
            && let Kept::Behind(position) = self.noticed().await?
        {
            return Ok(Kept::Behind(position));
        }
        let mut claim = self
            .claim
            .take()
            .ok_or("kvpoc:dataset belongs to another run")?;
        self.began = Instant::now();
        let began = &mut self.began;
        let standing = patience.insist(0, async || {
            *began = Instant::now();
            claim.write(entry).await
        });
        match standing.await {
            Ok(standing) => self.judge(claim, standing),
            Err(error) => {
                self.claim = Some(claim);
                Err(format!("writing kvpoc:dataset: {error}"))
            }
        }
    }

    /// Leaves the note to whoever comes next; a store that does not take it keeps the last one.
    pub(super) async fn release(&mut self, mut reached: u64) {
        if self.writing.is_some()
            && let Ok(Kept::Behind(position)) = self.noticed().await
        {
            reached = reached.min(position);
        }
        if self.keys_were_lost {
            reached = 0;
        }
        let Some(claim) = &mut self.claim else { return };
        // Again after a loss that only this has shown: what is there may promise more.
        for _ in 0..=MAX_LOSSES {
            let mut entry = Entry::loading(reached, 0);
            entry.released = true;
            match claim.write(&entry).await {
                Ok(Standing::Behind(position)) => reached = reached.min(position),
                Ok(Standing::Evicted { .. }) => reached = 0,
                _ => return,
            }
        }
    }

    /// The store holds fewer keys than it has acknowledged, nobody knows which.
    pub(super) fn keys_were_lost(&self) -> bool {
        self.keys_were_lost
    }

    /// Another run has the dataset now.
    pub(super) fn was_overtaken(&self) -> bool {
        self.claim.is_none() && self.writing.is_none()
    }

    fn judge(&mut self, claim: Claim, standing: Standing) -> Result<Kept, String> {
        let url = &self.url;
        match standing {
            Standing::Noted(memory_bytes) => {
                self.claim = Some(claim);
                self.lease.0.set(self.began);
                Ok(Kept::Noted(memory_bytes))
            }
            Standing::Behind(position) => {
                let losses = claim.losses;
                self.claim = Some(claim);
                if losses <= MAX_LOSSES {
                    return Ok(Kept::Behind(position));
                }
                Err(format!(
                    "{url} has lost its data {losses} times during this load; see its log"
                ))
            }
            // Not kept: what is there is not this run's to change.
            Standing::Taken(owner) => Err(format!(
                "another run of seed{} has taken over the dataset in {url}; kvpoc inspect shows its state",
                owner.map_or_else(String::new, |owner| format!(", {owner},"))
            )),
            Standing::Evicted {
                keys,
                limit_bytes,
                policy,
            } => {
                self.claim = Some(claim);
                self.keys_were_lost = true;
                let limit = limit_bytes.map_or_else(|| "not told".to_owned(), human_bytes);
                let policy = policy.map_or_else(String::new, |policy| {
                    format!(" and maxmemory-policy {policy}")
                });
                Err(format!(
                    "{url} has evicted {} keys since the load began, with maxmemory {limit}{policy}: raise maxmemory, \
                     or load fewer --keys or a smaller --value-size; with maxmemory-policy noeviction (of Dragonfly: \
                     without --cache_mode) a full store would refuse keys rather than drop others",
                    grouped(keys)
                ))
            }
            Standing::Short(held) => {
                self.claim = Some(claim);
                self.keys_were_lost = true;
                Err(format!(
                    "{url} holds {} keys, fewer than it has acknowledged: it evicts keys for want of memory, or \
                     somebody removes them; raise its limit, or load fewer --keys",
                    grouped(held)
                ))
            }
        }
    }
}
