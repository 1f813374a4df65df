//! Before the first key: whether the store may be loaded, from where on, and what will be left of earlier loads.
//!
//! Enters: what is to be loaded, the note that is there. Leaves: a claim and a position to begin at, or why not.
//! Must not write anything but the claim, nor take the place of a run that is at work.

use std::time::{Duration, Instant};

use anyhow::bail;
use bytes::{Bytes, BytesMut};

use super::advice;
use super::note::{Claim, LEASE, OWN, end_of_note, run_id};
use super::patience::Patience;
use crate::config::{SeedConfig, SeedMode};
use crate::output;
use crate::random::Order;
use crate::record::Dataset;
use crate::store::{DatasetInfo, NotedSource, State, Store, StoreError, StoreStats, Usage};
use crate::units::{grouped, human_duration};

/// How often a note is looked at whose owner may be gone.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// The position to begin at, and what a person should know of it.
#[derive(Debug, Default)]
pub(super) struct Start {
    pub(super) at: u64,
    pub(super) remarks: Vec<String>,
}

/// What this run's note says of the dataset.
pub(super) fn dataset_info(config: &SeedConfig) -> DatasetInfo {
    DatasetInfo {
        shuffled: config.order != Order::Ascending,
        source: config.source.as_ref().map(|source| NotedSource {
            key: source.template().to_string(),
            checksum: source.checksum(),
        }),
        ..DatasetInfo::of(&config.dataset, config.keys)
    }
}

/// Whether what is missing or different is written again while it is verified.
pub(super) fn heals(config: &SeedConfig) -> bool {
    let resumes = config.mode == SeedMode::Load { resume: true };
    resumes && config.verify && config.verify_sample >= 1.0
}

/// Opens the store and looks at it, waiting for one that is absent or not ready; `None`: stopped meanwhile.
pub(super) async fn reach(
    config: &SeedConfig,
    patience: &Patience<'_>,
    usage: Usage,
) -> Result<Option<(Store, StoreStats)>, StoreError> {
    let mut is_said = config.quiet || config.retry_for.is_zero();
    let opened = patience.insist(0, async || {
        let opened = async {
            let store = Store::open(&config.store, usage).await?;
            let stats = store.stats().await?;
            Ok((store, stats))
        };
        let opened = opened.await;
        if let Err(error @ (StoreError::Unavailable(_) | StoreError::Loading(_))) = &opened
            && !std::mem::replace(&mut is_said, true)
        {
            let long = human_duration(config.retry_for);
            output::say(&format!("{error}; retrying for {long} (--retry-for)"));
        }
        opened
    });
    match opened.await {
        Err(_) if patience.stop.is_cancelled() => Ok(None),
        opened => opened.map(Some),
    }
}

/// Claims the dataset for this run.
///
/// # Errors
/// When another run is at work on it, when it is another one than that to resume, or by the store.
pub(super) async fn claim(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    before: &StoreStats,
) -> anyhow::Result<(Claim, Start)> {
    let info = dataset_info(config);
    // One for all attempts, so that one whose answer was lost is known for this run's own.
    let run = run_id();
    let mut is_said = config.quiet || config.retry_for.is_zero();
    loop {
        let held = patience
            .insist(0, async || store.note_bytes().await)
            .await?;
        let (held, overtaken) = wait_for_owner(store, config, patience, held).await?;
        let note = held.as_deref().and_then(DatasetInfo::read);
        let mut start = start_of(config, note.as_ref(), before)?;
        let left = left_over(store, config, note.as_ref());
        start.remarks.extend(left.await?);
        let until = if start.at > 0 {
            // What is gone on from may expire, and then there is no dataset, whatever is loaded meanwhile.
            patience
                .insist(0, async || end_of_note(store).await)
                .await?
        } else {
            None
        };
        let take = async || {
            let read = (&*run, held.clone(), before);
            let taken = Claim::take(store, &info, read, (start.at, until)).await;
            if let Err(error @ StoreError::Full(_)) = &taken
                && !std::mem::replace(&mut is_said, true)
            {
                let long = human_duration(config.retry_for);
                output::say(&format!("{error}; retrying for {long} (--retry-for)"));
            }
            taken
        };
        if let Some(claim) = patience.insist(0, take).await? {
            if let Some(owner) = overtaken {
                output::say(&format!(
                    "Taking over from run {owner}; waiting {} s, so that it can notice if it is still running",
                    OWN.as_secs()
                ));
                tokio::select! {
                    () = tokio::time::sleep(OWN) => {}
                    // Then no key is written at all.
                    () = patience.stop.cancelled() => {}
                }
            }
            return Ok((claim, start));
        }
    }
}

/// Waits until the note shows that its owner is gone; gives the note as it is then, and the owner that is overtaken by
/// force.
async fn wait_for_owner(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    held: Option<Bytes>,
) -> anyhow::Result<(Option<Bytes>, Option<String>)> {
    let read = |bytes: &Option<Bytes>| bytes.as_deref().and_then(DatasetInfo::read);
    let at_work = |note: &DatasetInfo| note.state() == State::Loading && note.owner.is_some();
    let Some(note) = read(&held).filter(at_work) else {
        return Ok((held, None));
    };
    let owner = note.owner.unwrap_or_default();
    if config.force {
        return Ok((held, Some(owner)));
    }
    if !config.quiet {
        output::say(&format!(
            "Another seed (run {owner}) has not finished its load here; waiting {} s to see whether it is still running",
            LEASE.as_secs()
        ));
    }
    let began = Instant::now();
    while began.elapsed() < LEASE {
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => {}
            () = patience.stop.cancelled() => bail!("run {owner} may still be loading"),
        }
        let now = patience
            .insist(0, async || store.note_bytes().await)
            .await?;
        if now == held {
            continue;
        }
        let Some(note) = read(&now).filter(at_work) else {
            return Ok((now, None));
        };
        bail!(
            "another seed (run {}) is loading {} now: {} of {} keys; wait for it, stop it, or take over with --force. \
             A run without progress for {} s counts as dead",
            note.owner.as_deref().unwrap_or_default(),
            config.store.url,
            grouped(note.reached()),
            grouped(note.keys),
            LEASE.as_secs()
        );
    }
    Ok((held, None))
}

/// Where to begin: at 0, or where the load that is to be resumed left off, if the store still has that.
pub(super) fn start_of(
    config: &SeedConfig,
    note: Option<&DatasetInfo>,
    before: &StoreStats,
) -> anyhow::Result<Start> {
    let info = dataset_info(config);
    let from = |at, remarks| Ok(Start { at, remarks });
    let Some(note) = note else {
        return from(0, Vec::new());
    };
    if config.mode != (SeedMode::Load { resume: true }) {
        let can_resume = !note.is_usable() && note.has_shape_of(&info) && note.reached() > 0;
        let remark = can_resume.then(|| {
            let reached = grouped(note.reached());
            format!(
                "There is an unfinished load of this dataset; --resume would continue after {reached} keys"
            )
        });
        return from(0, remark.into_iter().collect());
    }
    if note.source != info.source {
        let held = match &note.source {
            Some(source) => format!(
                "lines of another file, or under another --key ({})",
                source.key
            ),
            None => "no lines of a file".to_owned(),
        };
        bail!(
            "cannot resume: {} holds {held}; give the same --from and --key as before, or load without --resume",
            config.store.url
        );
    }
    if !note.has_shape_of(&info) {
        bail!(
            "cannot resume: {} holds keys {}… of {} bytes, {}, with seed {}; give the same --key-prefix, --value-size, \
             --format, --seed and --shuffle, or load without --resume",
            config.store.url,
            note.key_prefix,
            note.value_size,
            note.format.values(),
            note.seed
        );
    }
    if config.order != Order::Ascending && note.keys != info.keys {
        bail!(
            "cannot resume: the order of --shuffle depends on --keys, which was {}",
            note.keys
        );
    }
    let reached = note.reached();
    // The note is one key more. Where only a part is missing, the verification that follows finds and mends it.
    let is_held = if heals(config) {
        before.keys > reached / 2
    } else {
        before.keys > reached
    };
    if reached > 0 && !is_held {
        let remark = format!(
            "An earlier run loaded {} keys, but the store holds only {}: loading from the start",
            grouped(reached),
            grouped(before.keys)
        );
        return from(0, vec![remark]);
    }
    from(reached.min(config.keys.get()), Vec::new())
}

/// Keys of an earlier load that this one will not write over, and how to be without them.
pub(super) async fn left_over(
    store: &Store,
    config: &SeedConfig,
    note: Option<&DatasetInfo>,
) -> Result<Option<String>, StoreError> {
    // Which keys of its prefix are none of a file, only all of its lines together tell.
    if config.source.is_some() || note.is_some_and(|note| note.source.is_some()) {
        return Ok(None);
    }
    let (prefix, keys) = (&config.dataset.key_prefix, config.keys.get());
    let stay = match note {
        Some(note) if note.key_prefix != *prefix => {
            let old = &note.key_prefix;
            Some(if is_there(store, config, old, note.keys).await? {
                format!("keys of earlier datasets remain, from {old}0 on")
            } else {
                format!(
                    "up to {} keys of an earlier dataset remain, {old}0 to {}",
                    grouped(note.keys),
                    note.keys.saturating_sub(1)
                )
            })
        }
        Some(note) if note.keys > keys && !is_there(store, config, prefix, note.keys).await? => {
            Some(format!(
                "up to {} keys of an earlier, larger dataset remain, {prefix}{keys} to {}",
                grouped(note.keys - keys),
                note.keys - 1
            ))
        }
        // The note may be of a later, smaller load, or be gone.
        _ => is_there(store, config, prefix, keys)
            .await?
            .then(|| format!("keys of an earlier, larger dataset remain, from {prefix}{keys} on")),
    };
    Ok(stay.map(|stay| {
        let old = note.map_or(prefix, |note| &note.key_prefix);
        let way = advice::removal(&config.store, old);
        format!(
            "Note: {stay}, and use memory. To remove them, stop this run, {way}, and load again"
        )
    }))
}

async fn is_there(
    store: &Store,
    config: &SeedConfig,
    prefix: &str,
    index: u64,
) -> Result<bool, StoreError> {
    let dataset = Dataset {
        key_prefix: prefix.to_owned(),
        ..config.dataset.clone()
    };
    let mut key = BytesMut::new();
    dataset.put_key(index, &mut key);
    let found = store.get_many(key.freeze()).await?;
    Ok(found.iter().any(Option::is_some))
}
