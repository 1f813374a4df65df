//! Settings of `inspect`, checked.
//!
//! Enters: what the user typed. Leaves: an [`InspectConfig`], whose keys the store can hold. Must not look any of them
//! up.

use super::{ConfigError, StoreConfig, setting, store};
use crate::cli::InspectArgs;
use crate::units::MAX_KEY_BYTES;

/// Settings of `inspect`.
#[derive(Debug)]
pub struct InspectConfig {
    /// Where the keys are.
    pub store: StoreConfig,
    /// Which keys; none: the store itself.
    pub keys: Vec<String>,
    /// Keys to look at when the store is described.
    pub sample: usize,
    /// JSON instead of text.
    pub json: bool,
}

pub(super) fn inspect(args: InspectArgs) -> Result<InspectConfig, ConfigError> {
    let unfit = |key: &&String| !(1..=MAX_KEY_BYTES).contains(&key.len());
    if let Some(key) = args.keys.iter().find(unfit) {
        return Err(setting(
            "KEY",
            &format!("{} bytes", key.len()),
            "a key has 1 to 511 bytes",
        ));
    }
    Ok(InspectConfig {
        store: store(args.store, args.store_timeout)?,
        keys: args.keys,
        sample: args.sample as usize,
        json: args.json,
    })
}
