//! What the user typed after `inspect`.
//!
//! Enters: arguments and variables, through clap. Leaves: an [`InspectArgs`]. Must not decide anything that involves
//! two settings.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::{STORE, StoreArgs};
use crate::units::parse_duration;

/// Flags of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Keys to describe; without one, the store is described
    #[arg(value_name = "KEY")]
    pub keys: Vec<String>,

    /// Keys to sample when describing the store
    #[arg(long, env = "KVPOC_SAMPLE", value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub sample: u32,

    /// Print JSON
    #[arg(long, env = "KVPOC_INSPECT_JSON", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub json: bool,

    /// How to reach the store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// Timeout of one request to the store
    #[arg(long, help_heading = STORE, env = "KVPOC_STORE_TIMEOUT", value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub store_timeout: Duration,
}
