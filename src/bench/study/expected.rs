//! The records that another service's answers are compared with, found before the run.
//!
//! Enters: the settings. Leaves: what a serve would have told of its dataset. Must not take a part of a dataset for the
//! whole, nor compare with records that this version does not know.

use anyhow::{Context as _, bail};

use crate::bench::drive::probe::TargetInfo;
use crate::config::BenchConfig;
use crate::load::ExpectRecords;
use crate::store::{DatasetInfo, Store, Usage};

/// The dataset behind the target, as far as anybody says.
pub(super) async fn records(config: &BenchConfig) -> anyhow::Result<TargetInfo> {
    let note = match &config.expect_records {
        ExpectRecords::Unknown => None,
        ExpectRecords::Of(dataset) => {
            let keys = config.keys.context("--expect-records needs --keys")?;
            Some(DatasetInfo::of(dataset, keys))
        }
        ExpectRecords::Noted => Some(noted(config).await?),
    };
    let (dataset, unfinished_load) = DatasetInfo::told_apart(note);
    if let Some(dataset) = &dataset {
        config.check_format(dataset.format)?;
    }
    Ok(TargetInfo {
        dataset,
        unfinished_load,
        ..TargetInfo::default()
    })
}

/// The note of a whole dataset whose records this version knows.
async fn noted(config: &BenchConfig) -> anyhow::Result<DatasetInfo> {
    let url = &config.store.url;
    let store = Store::open(&config.store, Usage::Look).await;
    let store = store.context("--expect-records reads the note of the dataset in --store")?;
    let Some(note) = store.dataset_note().await? else {
        bail!(
            "--expect-records found no dataset in --store {url}: load one with kvpoc seed, give the store that has it, or \
             say what was loaded, such as --keys 10M --expect-records=json,value-size=256"
        );
    };
    if !note.is_usable() {
        bail!(
            "the dataset in --store {url} is not wholly loaded, and --expect-records needs all of it: wait for the seed \
             that loads it, or go on with kvpoc seed --resume"
        );
    }
    if note.source.is_some() {
        bail!(
            "the dataset in --store {url} was loaded from a file (kvpoc seed --from), and what its values are, bench cannot \
             know: leave --expect-records out, and name a text that answers hold by --match"
        );
    }
    if note.contents().is_none() {
        bail!(
            "the dataset in --store {url} is of another version of kvpoc; load it anew with this one"
        );
    }
    Ok(note)
}
