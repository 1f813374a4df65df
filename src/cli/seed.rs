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
    /// Number of keys to load: indexes 0 to N-1
    #[arg(long, env = "KVPOC_KEYS", value_name = "N", default_value = "10000000")]
    pub keys: KeyCount,

    /// Load the lines of this file (NDJSON: one JSON object per line) instead of generated values
    #[arg(long, env = "KVPOC_FROM", value_name = "FILE")]
    pub from: Option<PathBuf>,

    /// Key of each line of --from; {member} is replaced by that member of the object: user:{id}
    #[arg(long, env = "KVPOC_KEY", value_name = "TEMPLATE")]
    pub key: Option<KeyTemplate>,

    /// Values: record (kvpoc's binary records, fastest to serve), json (the same records as JSON, for a service that reads
    /// JSON) or raw (random bytes; kvpoc serve and bench cannot read them as sessions)
    #[arg(
        long,
        env = "KVPOC_FORMAT",
        value_name = "FORMAT",
        default_value = "record"
    )]
    pub format: Format,

    /// Size of each value in bytes: 256, a range such as 128..1024, or etc (sizes published of Facebook's Memcached)
    #[arg(
        long,
        env = "KVPOC_VALUE_SIZE",
        value_name = "SIZE",
        default_value = "256"
    )]
    pub value_size: ValueSize,

    /// Key prefix
    #[arg(
        long,
        env = "KVPOC_KEY_PREFIX",
        value_name = "TEXT",
        default_value = "user:session:"
    )]
    pub key_prefix: String,

    /// Random seed of the records
    #[arg(long, env = "KVPOC_SEED", value_name = "N", default_value = "1")]
    pub seed: u64,

    /// Keys per batch
    #[arg(long, env = "KVPOC_BATCH", value_name = "KEYS", default_value = "512", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batch: u32,

    /// Batches in flight at once
    #[arg(long, env = "KVPOC_IN_FLIGHT", value_name = "BATCHES", default_value = "8", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub in_flight: u32,

    /// Time to live of each key; 0s: no expiry
    #[arg(long, env = "KVPOC_TTL", value_name = "TIME", default_value = "0s", value_parser = parse_ttl_or_zero)]
    pub ttl: Duration,

    /// Shorten the time to live of each batch at random by up to this share of it
    #[arg(
        long,
        env = "KVPOC_TTL_JITTER",
        value_name = "SHARE",
        default_value = "0"
    )]
    pub ttl_jitter: f64,

    /// Limit in keys/s for writing and reading back, for a shared store. Default: no limit
    #[arg(long, env = "KVPOC_SEED_RATE", value_name = "RATE")]
    pub rate: Option<Rate>,

    /// Write the keys in pseudo-random order, derived from --seed
    #[arg(long, env = "KVPOC_SHUFFLE", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub shuffle: bool,

    /// Connections to the store; 0: one per thread of the store, at most 8
    #[arg(long, env = "KVPOC_SEED_CONNECTIONS", value_name = "N", default_value = "0", value_parser = clap::value_parser!(u16).range(0..=64))]
    pub connections: u16,

    /// Continue an interrupted load of the same dataset; with --verify, also rewrite missing and different keys
    #[arg(long, env = "KVPOC_RESUME", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub resume: bool,

    /// Read every key back after loading and compare it byte by byte
    #[arg(long, env = "KVPOC_SEED_VERIFY", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub verify: bool,

    /// Load nothing, only read back and compare
    #[arg(long, env = "KVPOC_VERIFY_ONLY", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub verify_only: bool,

    /// Share of the keys to read back, chosen at random: 0.01 is 1 %, 1 is all
    #[arg(
        long,
        env = "KVPOC_VERIFY_SAMPLE",
        value_name = "SHARE",
        default_value = "1"
    )]
    pub verify_sample: f64,

    /// When to flush the embedded store to disk: end (once, after the load) or batch (after every batch)
    #[arg(long, env = "KVPOC_SYNC", value_name = "WHEN", default_value = "end")]
    pub sync: SyncAt,

    /// How long to retry a failed batch or an unreachable store; 0s: no retry
    #[arg(long, env = "KVPOC_RETRY_FOR", value_name = "TIME", default_value = "30s", value_parser = parse_duration_or_zero)]
    pub retry_for: Duration,

    /// Print what would be loaded, but load nothing
    #[arg(long, env = "KVPOC_DRY_RUN", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub dry_run: bool,

    /// Load even if the data is estimated not to fit, or if another seed is loading this dataset
    #[arg(long, env = "KVPOC_FORCE", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub force: bool,

    /// No progress, only the summary
    #[arg(long, short = 'q', env = "KVPOC_QUIET", value_name = "BOOL", value_parser = BoolishValueParser::new(),
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

    /// Timeout of one batch
    #[arg(long, help_heading = STORE, env = "KVPOC_STORE_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub store_timeout: Duration,
}

/// When a load must be on disk. Only the embedded store is asked: a server's own settings decide for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SyncAt {
    /// Once, after the load: fastest, but a power loss during the load can destroy the whole folder.
    End,
    /// After every batch: a power loss destroys no acknowledged batch.
    Batch,
}
