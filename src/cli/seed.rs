//! What the user typed after `seed`.
//!
//! Enters: arguments and variables, through clap. Leaves: a [`SeedArgs`]. Must not decide anything that involves two
//! settings.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::{STORE, StoreArgs};
use crate::record::Format;
use crate::source::KeyTemplate;
use crate::units::{
    KeyCount, Rate, ValueSize, parse_duration, parse_duration_or_zero, parse_ttl_or_zero,
};

/// Flags of `seed`.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch that a user turns"
)]
pub struct SeedArgs {
    /// How many keys to load: the indexes 0..N
    #[arg(long, env = "KVPOC_KEYS", value_name = "N", default_value = "10000000")]
    pub keys: KeyCount,

    /// Load the lines of this file, one JSON object on each (NDJSON), instead of generated values: each line is a value
    #[arg(long, env = "KVPOC_FROM", value_name = "FILE")]
    pub from: Option<PathBuf>,

    /// Keys of those lines, with their members in braces: user:{id}
    #[arg(long, env = "KVPOC_KEY", value_name = "TEMPLATE")]
    pub key: Option<KeyTemplate>,

    /// What the values are: record, the binary records that kvpoc serve answers fastest; json, the same records as compact
    /// JSON, for a service that reads JSON; raw, seeded random bytes, which have no sessions for serve to answer and for
    /// bench to ask it for
    #[arg(
        long,
        env = "KVPOC_FORMAT",
        value_name = "FORMAT",
        default_value = "record"
    )]
    pub format: Format,

    /// Bytes of each value: 256, a range such as 128..1024, or etc, after Facebook's Memcached
    #[arg(
        long,
        env = "KVPOC_VALUE_SIZE",
        value_name = "SIZE",
        default_value = "256"
    )]
    pub value_size: ValueSize,

    /// What stands before the index in each key
    #[arg(
        long,
        env = "KVPOC_KEY_PREFIX",
        value_name = "TEXT",
        default_value = "user:session:"
    )]
    pub key_prefix: String,

    /// Seed that every record follows from
    #[arg(long, env = "KVPOC_SEED", value_name = "N", default_value = "1")]
    pub seed: u64,

    /// Keys in one batch
    #[arg(long, env = "KVPOC_BATCH", value_name = "KEYS", default_value = "512", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batch: u32,

    /// Batches that may wait for their answer at once
    #[arg(long, env = "KVPOC_IN_FLIGHT", value_name = "BATCHES", default_value = "8", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub in_flight: u32,

    /// Time to live of each key; 0s: they stay
    #[arg(long, env = "KVPOC_TTL", value_name = "TIME", default_value = "0s", value_parser = parse_ttl_or_zero)]
    pub ttl: Duration,

    /// How much shorter the time to live of a batch may be, as a share of it, drawn from the seed
    #[arg(
        long,
        env = "KVPOC_TTL_JITTER",
        value_name = "SHARE",
        default_value = "0"
    )]
    pub ttl_jitter: f64,

    /// Keys a second at most, written or read back, for a store that others use; left out, as fast as it takes them
    #[arg(long, env = "KVPOC_SEED_RATE", value_name = "RATE")]
    pub rate: Option<Rate>,

    /// Write the keys in an order as if shuffled, drawn from the seed
    #[arg(long, env = "KVPOC_SHUFFLE", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub shuffle: bool,

    /// Connections to the store; 0: one for each of its threads, 8 at most
    #[arg(long, env = "KVPOC_SEED_CONNECTIONS", value_name = "N", default_value = "0", value_parser = clap::value_parser!(u16).range(0..=64))]
    pub connections: u16,

    /// Go on where an interrupted load of the same dataset stopped; with --verify, mend what is missing or different
    #[arg(long, env = "KVPOC_RESUME", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub resume: bool,

    /// Read every key back after loading, and compare it byte by byte
    #[arg(long, env = "KVPOC_SEED_VERIFY", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub verify: bool,

    /// Load nothing, only read back and compare
    #[arg(long, env = "KVPOC_VERIFY_ONLY", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub verify_only: bool,

    /// Share of the keys to read back, drawn from the seed: 1 all
    #[arg(
        long,
        env = "KVPOC_VERIFY_SAMPLE",
        value_name = "SHARE",
        default_value = "1"
    )]
    pub verify_sample: f64,

    /// When the embedded store's data must be on disk: at the end, or before each batch counts as loaded
    #[arg(long, env = "KVPOC_SYNC", value_name = "WHEN", default_value = "end")]
    pub sync: SyncAt,

    /// How long a batch that fails, or a store that is not there at first, is tried again; 0s: not at all
    #[arg(long, env = "KVPOC_RETRY_FOR", value_name = "TIME", default_value = "30s", value_parser = parse_duration_or_zero)]
    pub retry_for: Duration,

    /// Print what would be loaded, and load nothing
    #[arg(long, env = "KVPOC_DRY_RUN", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub dry_run: bool,

    /// Load although the store will not hold it all, by an estimate from the first keys, or another seed is loading it
    #[arg(long, env = "KVPOC_FORCE", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub force: bool,

    /// No progress, only the summary
    #[arg(long, env = "KVPOC_QUIET", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub quiet: bool,

    /// Print the summary as JSON on standard output
    #[arg(long, env = "KVPOC_SEED_JSON", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub json: bool,

    /// The settings that do not have their defaults, filled in after parsing.
    #[arg(skip)]
    pub given: Vec<(String, clap::parser::ValueSource)>,

    /// How to reach the store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// How long one batch may take
    #[arg(long, help_heading = STORE, env = "KVPOC_STORE_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub store_timeout: Duration,
}

/// When a load must be on disk. Only the embedded store is asked: a server's own settings decide for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SyncAt {
    /// Once, at the end: the fastest, and a power loss before it may cost the whole folder.
    End,
    /// Before each batch is acknowledged: a power loss costs nothing that was.
    Batch,
}
