//! What a verification found, in the dataset's note.
//!
//! Enters: a store, and the claim on its note if this run has one. Leaves: a [`Verification`], and a note that says the
//! same. Must not leave a note that promises what was not found.

use std::time::Instant;

use super::keeper::{Keeper, Kept};
use super::note::{end_of_note, left};
use super::patience::Patience;
use super::verify::{self, Verification};
use super::{complete, progress, start};
use crate::config::SeedConfig;
use crate::output;
use crate::random::Order;
use crate::store::{DatasetInfo, State, Store, StoreError};

/// Reads the keys back, and notes what was found; unless the store has lost what a load that heals has still to load
/// again.
pub(super) async fn verify_keys(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    mut keeper: Option<&mut Keeper>,
    until: Option<Instant>,
) -> Verification {
    let mut progress = progress(config);
    let healer = keeper.as_deref_mut().filter(|_| start::heals(config));
    let mut found = verify::verify(store, config, patience, healer, &mut progress).await;
    progress.finish();
    if found.behind.is_some() && found.failure.is_none() {
        return found;
    }
    if let Some(keeper) = keeper {
        match note_found(store, config, patience, keeper, (&found, until)).await {
            Ok(behind) => found.behind = behind,
            Err(failure) => {
                found.failure.get_or_insert(failure);
            }
        }
    } else if let Err(failure) = mark_found(store, config, patience, &found).await {
        output::say(&format!(
            "Could not write the result of the verification to kvpoc:dataset in {}: {failure}",
            config.store.url
        ));
    }
    found
}

/// Notes what was found in what this run has loaded; gives the position from which a load that heals has to load again,
/// as the store has lost what was found.
async fn note_found(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    keeper: &mut Keeper,
    (found, until): (&Verification, Option<Instant>),
) -> Result<Option<u64>, String> {
    if !found.is_good() {
        // What a load that heals has not come to may be missing; any other was noted as loaded before.
        let certain = start::heals(config).then_some(found.certain);
        if let Some(index) = certain.or(found.first_fault) {
            keeper.release(position_of(config, index)).await;
        }
        return Ok(None);
    }
    if config.verify_sample < 1.0 {
        // It was noted as loaded, and nothing speaks against it.
        return Ok(None);
    }
    let synced = store.sync().await;
    synced.map_err(|error| format!("flushing to disk: {error}"))?;
    let entry = complete(config, State::Verified, until);
    let mut noted = keeper.write(patience, &entry).await;
    if noted == Ok(Kept::Behind(entry.reached)) {
        // It was started anew, and has all of it.
        noted = keeper.write(patience, &entry).await;
    }
    match noted {
        Ok(Kept::Behind(position)) if start::heals(config) => return Ok(Some(position)),
        Ok(Kept::Behind(position)) => {
            keeper.release(position).await;
            return Err(format!(
                "{} has lost acknowledged keys, or they have expired",
                config.store.url
            ));
        }
        Err(failure) => {
            if start::heals(config) || keeper.keys_were_lost() {
                keeper.release(position_of(config, found.certain)).await;
            }
            return Err(failure);
        }
        Ok(_) => {}
    }
    let synced = store.sync().await;
    synced.map_err(|error| format!("flushing to disk: {error}"))?;
    Ok(None)
}

/// Notes what was found in what an earlier run has loaded, if its note is of that: a fault in any part of it takes back
/// what was said of all, and all of it must have been read to be called verified.
async fn mark_found(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    found: &Verification,
) -> Result<(), StoreError> {
    let info = start::dataset_info(config);
    let is_whole = found.is_good() && config.verify_sample >= 1.0;
    // Again when another run has changed it meanwhile: what was found is true all the same.
    loop {
        let held = patience
            .insist(0, async || store.note_bytes().await)
            .await?;
        let note = held.as_deref().and_then(DatasetInfo::read);
        let Some(note) = note.filter(DatasetInfo::is_usable) else {
            return Ok(());
        };
        // In whatever order they were loaded, the keys are the same.
        let shuffled = note.shuffled;
        if !note.has_shape_of(&DatasetInfo {
            shuffled,
            ..info.clone()
        }) {
            return Ok(());
        }
        let (state, loaded) = match found.first_fault {
            Some(fault) if fault < note.keys => {
                (State::Loading, Some(if shuffled { 0 } else { fault }))
            }
            None if is_whole && note.keys == info.keys => (State::Verified, None),
            _ => return Ok(()),
        };
        let marked = DatasetInfo {
            state: Some(state),
            loaded,
            owner: note.owner.clone().filter(|_| loaded.is_none()),
            beat: note.beat + 1,
            ..note
        };
        let until = patience
            .insist(0, async || end_of_note(store).await)
            .await?;
        let replace = async || {
            let marked = marked.to_bytes();
            store.replace_note(held.clone(), marked, left(until)).await
        };
        if patience.insist(0, replace).await? {
            return store.sync().await;
        }
    }
}

/// From where a load has to go on to mend this index; shuffled, it may be anywhere. What expires cannot be gone on
/// from.
pub(super) fn position_of(config: &SeedConfig, index: u64) -> u64 {
    match config.order {
        _ if config.ttl.is_some() => 0,
        Order::Ascending => index,
        Order::Shuffled { .. } => 0,
    }
}
