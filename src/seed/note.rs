//! The claim of one run on the dataset: its note, written by compare-and-set, and what that tells.
//!
//! Enters: how far the load is. Leaves: whether the store still has what it acknowledged, and whether it is still this
//! run's. Must not put its note in the place of one that it has not read, nor say of keys that they are there when
//! the store's own note or count says otherwise.
//!
//! The store keeps a prefix of what was written to it, whatever it loses: a snapshot, a log, a replica. So with the
//! note that it has, it has the keys that were acknowledged before that note. A note that is gone or older than the
//! last one tells of a loss, and from where to load again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::store::{DATASET_KEY, DatasetInfo, State, Store, StoreError, StoreStats, TimeToLive};

/// An owner whose note stands still for so long is gone, and another run may take over.
pub(super) const LEASE: Duration = Duration::from_secs(6);
/// An owner that has not heard of its note for so long writes no more keys: before the lease ends, with time for
/// those that are on their way.
pub(super) const OWN: Duration = Duration::from_secs(3);

/// What a run writes into its note.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) state: State,
    /// The positions below are acknowledged.
    pub(super) reached: u64,
    /// So many keys the store must hold at least, all kinds together; 0 when that is not known.
    pub(super) least_keys: u64,
    /// When the first key expires, and the note with it.
    pub(super) until: Option<Instant>,
    /// Nobody is at work on it from now on.
    pub(super) released: bool,
}

impl Entry {
    /// Of a load that goes on.
    pub(super) fn loading(reached: u64, least_keys: u64) -> Self {
        Self {
            state: State::Loading,
            reached,
            least_keys,
            until: None,
            released: false,
        }
    }
}

/// What the store has of the note, or of the keys.
pub(super) enum Standing {
    Noted(Option<u64>),
    Behind(u64),
    /// Another run has the note, or nobody any more.
    Taken(Option<String>),
    Short(u64),
    /// The store has removed so many keys for want of memory since the load began, nobody knows which.
    Evicted {
        keys: u64,
        limit_bytes: Option<u64>,
        policy: Option<String>,
    },
}

/// One run's note in one store.
pub(super) struct Claim {
    store: Store,
    info: DatasetInfo,
    owner: String,
    /// As the store has it, as far as is known.
    held: Option<Bytes>,
    /// Number of the last note that was written, and of the last one that is certain to be there.
    beat: u64,
    confirmed_beat: u64,
    incarnation: Option<String>,
    /// How often the store had an older note than the last one, or none.
    pub(super) losses: u32,
    /// When the first of the keys expires that this run does not load again, and each of its notes with it.
    until: Option<Instant>,
    /// The note that this run took the place of, and the position that it began at.
    replaced: Option<Bytes>,
    start: u64,
    /// When the last note was begun that is certain to be there, and the one that is being written.
    confirmed_at: Instant,
    began: Instant,
    /// How many keys the store had evicted before the load.
    evicted_before: Option<u64>,
}

impl Claim {
    /// Takes the place of the note that was read; `None` when another one is there meanwhile.
    pub(super) async fn take(
        store: &Store,
        info: &DatasetInfo,
        (owner, held, stats): (&str, Option<Bytes>, &StoreStats),
        (start, until): (u64, Option<Instant>),
    ) -> Result<Option<Self>, StoreError> {
        let mut claim = Self {
            store: store.clone(),
            info: info.clone(),
            owner: owner.to_owned(),
            held: held.clone(),
            beat: 0,
            confirmed_beat: 0,
            incarnation: stats.incarnation.clone(),
            losses: 0,
            until,
            replaced: held.clone(),
            start,
            confirmed_at: Instant::now(),
            began: Instant::now(),
            evicted_before: stats.evicted_keys,
        };
        let note = claim.next_note(&Entry::loading(start, 0));
        let taken = store.replace_note(claim.held.clone(), note.clone(), left(until));
        if !taken.await? {
            return Ok(None);
        }
        claim.confirm(note);
        Ok(Some(claim))
    }

    /// Writes the note, unless the store tells of a loss or of another owner.
    pub(super) async fn write(&mut self, entry: &Entry) -> Result<Standing, StoreError> {
        self.began = Instant::now();
        let stats = self.store.stats().await?;
        let evicted = self.evicted(&stats);
        if stats.incarnation != self.incarnation {
            let held = self.store.note_bytes().await?;
            self.incarnation = stats.incarnation;
            if let Some(position) = self.restored(held.as_ref()) {
                return Ok(Standing::Behind(position));
            }
            return Ok(match self.compare(held) {
                // What it read back ends behind the note, but perhaps before what came after that.
                None => Standing::Behind(self.held_reached()),
                Some(standing) => standing,
            });
        }
        if let Some(standing) = evicted
            && !(entry.released && entry.reached == 0)
        {
            return Ok(standing);
        }
        let is_past = |until: Instant| until <= Instant::now();
        if self.until.take_if(|until| is_past(*until)).is_some() {
            let held = self.store.note_bytes().await?;
            return Ok(match self.compare(held) {
                Some(taken @ Standing::Taken(_)) => taken,
                // What this load went on from is there no more.
                _ => Standing::Behind(0),
            });
        }
        let has_expired = entry.until.is_some_and(is_past);
        // Then there is no moment at which all keys are there: the note ends at once, and promises nothing till then.
        let gone = Entry {
            until: entry.until,
            ..Entry::loading(0, 0)
        };
        let entry = if has_expired { &gone } else { entry };
        if stats.keys < entry.least_keys {
            // Keys that went with the note were lost by a flush, which is told from the note.
            let held = self.store.note_bytes().await?;
            let standing = self.compare(held);
            return Ok(standing.unwrap_or(Standing::Short(stats.keys)));
        }
        loop {
            let until = self.until.into_iter().chain(entry.until).min();
            let note = self.next_note(entry);
            let replaced = self
                .store
                .replace_note(self.held.clone(), note.clone(), left(until));
            if replaced.await? {
                self.confirm(note);
                if entry.state != State::Loading {
                    // What was evicted since, perhaps for this note, is not there either.
                    let stats = self.store.stats().await?;
                    if let Some(standing) = self.evicted(&stats) {
                        return Ok(standing);
                    }
                }
                return Ok(Standing::Noted(stats.memory_bytes));
            }
            let held = self.store.note_bytes().await?;
            // One of this run's whose answer was lost: then that is the one to replace.
            if let Some(standing) = self.compare(held) {
                return Ok(standing);
            }
        }
    }

    /// That keys were evicted since the load began, if any were. A count that was set back begins anew.
    fn evicted(&mut self, stats: &StoreStats) -> Option<Standing> {
        let before = self.evicted_before.zip(stats.evicted_keys);
        let (before, now) = before?;
        self.evicted_before = Some(before.min(now));
        (now > before).then(|| Standing::Evicted {
            keys: now - before,
            limit_bytes: stats.max_memory_bytes,
            policy: stats.eviction_policy.clone(),
        })
    }

    /// What the note tells that the store has; `None`: it is the last one of this run, or a later one of which
    /// nothing was heard.
    fn compare(&mut self, held: Option<Bytes>) -> Option<Standing> {
        let note = held.as_deref().and_then(DatasetInfo::read);
        let owner = note.as_ref().and_then(|note| note.owner.clone());
        if held.is_some() && owner.as_deref() != Some(&self.owner) {
            if held == self.replaced {
                return self.restored(held.as_ref()).map(Standing::Behind);
            }
            return Some(Standing::Taken(owner));
        }
        self.held = held;
        let (beat, reached) = note.map_or((0, 0), |note| (note.beat, note.reached()));
        if beat < self.confirmed_beat {
            // From here on that is the last one, or its loss would be noticed again and again.
            self.confirmed_beat = beat;
            self.losses += 1;
            return Some(Standing::Behind(reached));
        }
        None
    }

    /// From where to load again if the store, started anew, has a note from before this run: a snapshot of then. One
    /// that another run has written meanwhile is different: that takes silence, or, by force, a wait.
    fn restored(&mut self, held: Option<&Bytes>) -> Option<u64> {
        let held = held?;
        let is_replaced = Some(held) == self.replaced.as_ref();
        let is_complete = DatasetInfo::read(held)
            .is_some_and(|note| note.is_usable() && note.owner.as_ref() != Some(&self.owner));
        let was_silent = self.confirmed_at.elapsed() >= OWN;
        if !is_replaced && (was_silent || !is_complete) {
            return None;
        }
        self.held = Some(held.clone());
        self.confirmed_beat = 0;
        self.losses += 1;
        Some(if is_replaced { self.start } else { 0 })
    }

    fn held_reached(&self) -> u64 {
        let note = self.held.as_deref().and_then(DatasetInfo::read);
        note.map_or(0, |note| note.reached())
    }

    fn next_note(&mut self, entry: &Entry) -> Bytes {
        self.beat += 1;
        let note = DatasetInfo {
            loaded: (entry.state == State::Loading).then_some(entry.reached),
            state: Some(entry.state),
            owner: (!entry.released).then(|| self.owner.clone()),
            beat: self.beat,
            ..self.info.clone()
        };
        note.to_bytes()
    }

    fn confirm(&mut self, note: Bytes) {
        self.held = Some(note);
        self.confirmed_beat = self.beat;
        self.confirmed_at = self.began;
    }
}

/// When the note that is there ends; `None`: it stays.
pub(super) async fn end_of_note(store: &Store) -> Result<Option<Instant>, StoreError> {
    let asked = Instant::now();
    let key = Bytes::from_static(DATASET_KEY);
    Ok(match store.time_to_live(key).await? {
        TimeToLive::Left(left) => asked.checked_add(left),
        TimeToLive::Forever => None,
        TimeToLive::Absent => Some(asked),
    })
}

pub(super) fn left(until: Option<Instant>) -> Option<Duration> {
    until.map(|until| until.saturating_duration_since(Instant::now()))
}

/// Another one for each run on every machine.
pub(super) fn run_id() -> String {
    // The standard library draws it from the system for each of these.
    let random = RandomState::new().hash_one(Instant::now());
    format!("{}-{random:016x}", std::process::id())
}
