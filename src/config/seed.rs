//! Settings of `seed`, checked.
//!
//! Enters: what the user typed. Leaves: a [`SeedConfig`], whose batches fit into memory. Must not ask the store what
//! it holds, nor read the file of which it is to be loaded.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::parser::ValueSource;

use super::{
    ConfigError, MAX_INDEX_DIGITS, StoreConfig, StoreUrl, check_key_prefix, conflict, setting,
    share, store,
};
use crate::cli::{Reads, SeedArgs, SyncAt};
use crate::random::Order;
use crate::record::{Dataset, Format};
use crate::source::{KeyTemplate, Source};
use crate::units::{KeyCount, Rate, ValueSize, human_bytes};

/// What one batch of a seed may hold.
const MAX_BATCH_BYTES: u64 = 4 * 1024 * 1024;
/// What all batches of a seed may hold in memory at once.
const MAX_WINDOW_BYTES: u64 = 512 * 1024 * 1024;

/// Settings of `seed`.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch that a user turns"
)]
pub struct SeedConfig {
    /// Where the keys go.
    pub store: StoreConfig,
    /// What the keys and values are.
    pub dataset: Dataset,
    /// The file whose lines are loaded in their place, and what their keys are made of.
    pub from: Option<(PathBuf, KeyTemplate)>,
    /// The same file, once it was read ([`SeedConfig::take_source`]).
    pub source: Option<Arc<Source>>,
    /// How many.
    pub keys: KeyCount,
    /// Keys in one batch.
    pub batch: u32,
    /// Batches in flight.
    pub in_flight: usize,
    /// Time to live; `None`: they stay.
    pub ttl: Option<Duration>,
    /// How much shorter a batch's time to live may be, as a share of it.
    pub ttl_jitter: f64,
    /// In which order.
    pub order: Order,
    /// Keys a second at most.
    pub rate: Option<Rate>,
    /// Connections to the store; `None`: by its threads.
    pub connections: Option<usize>,
    /// Load or look.
    pub mode: SeedMode,
    /// Read back what was loaded.
    pub verify: bool,
    /// Share of the keys that are read back.
    pub verify_sample: f64,
    /// When the embedded store must have it on disk.
    pub sync: SyncAt,
    /// How long a failing batch is tried again.
    pub retry_for: Duration,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Load although it will not fit.
    pub force: bool,
    /// No progress.
    pub quiet: bool,
    /// Summary as JSON.
    pub json: bool,
}

/// What `seed` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeedMode {
    /// It loads.
    Load {
        /// From where an earlier load stopped.
        resume: bool,
    },
    /// It only reads back.
    VerifyOnly,
}

impl SeedConfig {
    /// What is to be loaded are the lines of this file.
    pub fn take_source(&mut self, source: Source) {
        self.keys = source.keys();
        self.dataset.key_prefix = source.template().prefix().into();
        self.dataset.value_size = ValueSize::Fixed(source.typical_bytes());
        self.dataset.format = Format::Json;
        // By the longest line, which all of a batch may be as long as.
        let longest = source.longest_bytes().max(1) as u64;
        let of_window = MAX_WINDOW_BYTES / self.in_flight as u64;
        let fitting = (MAX_BATCH_BYTES.min(of_window) / longest).max(1);
        self.batch = u64::from(self.batch).min(fitting) as u32;
        self.source = Some(Arc::new(source));
    }
}

/// The file that is to be loaded. What would make the values is refused beside it: it would be ignored.
fn from(args: &SeedArgs) -> Result<Option<(PathBuf, KeyTemplate)>, ConfigError> {
    const UNFIT: [&str; 5] = ["keys", "value_size", "key_prefix", "format", "shuffle"];
    let (file, key) = match (&args.from, &args.key) {
        (None, None) => return Ok(None),
        (Some(file), Some(key)) => (file, key),
        (Some(file), None) => {
            let mend = "give --key too, with members of its lines, such as --key user:{id}";
            return Err(setting("--from", &file.display().to_string(), mend));
        }
        (None, Some(key)) => {
            let mend = "it belongs to the lines of --from FILE; give that too, or --key-prefix";
            return Err(setting("--key", &key.to_string(), mend));
        }
    };
    let unfit = args.given.iter().find(|(name, source)| {
        *source == ValueSource::CommandLine && UNFIT.contains(&name.as_str())
    });
    match unfit {
        Some((name, _)) => Err(setting(
            &format!("--{}", name.replace('_', "-")),
            "given",
            "all lines of --from are loaded as they are, in their order, under --key; leave it out",
        )),
        None => Ok(Some((file.clone(), key.clone()))),
    }
}

pub(super) fn seed(args: SeedArgs) -> Result<SeedConfig, ConfigError> {
    check_key_prefix(&args.key_prefix)?;
    check_value_size("--value-size", args.value_size, args.format)?;
    let per_key =
        (args.value_size.typical_bytes() + args.key_prefix.len() + MAX_INDEX_DIGITS) as u64;
    // Large values make small batches: one must not hold up the store, nor memory, for long.
    let fitting = (MAX_BATCH_BYTES / per_key).max(1);
    let batch = u64::from(args.batch).min(fitting) as u32;
    let window = per_key * u64::from(batch) * u64::from(args.in_flight);
    if window > MAX_WINDOW_BYTES {
        return Err(setting(
            "--batch × --in-flight",
            &format!("{batch} × {}", args.in_flight),
            &format!(
                "they would need {} of memory at this --value-size; stay below {}",
                human_bytes(window),
                human_bytes(MAX_WINDOW_BYTES)
            ),
        ));
    }
    let from = from(&args)?;
    let store = store(args.store, args.store_timeout)?.read_by(None, Reads::Direct);
    if args.sync == SyncAt::Batch && !matches!(store.url, StoreUrl::Embedded(_)) {
        let mend =
            "it is for embedded:DIR only; use the settings of the server, such as appendfsync";
        return Err(setting("--sync", "batch", mend));
    }
    Ok(SeedConfig {
        store,
        dataset: Dataset {
            key_prefix: args.key_prefix,
            value_size: args.value_size,
            seed: args.seed,
            format: args.format,
        },
        order: if args.shuffle && from.is_none() {
            Order::Shuffled {
                keys: args.keys.get(),
                seed: args.seed,
            }
        } else {
            Order::Ascending
        },
        from,
        source: None,
        keys: args.keys,
        batch,
        in_flight: args.in_flight as usize,
        ttl: (!args.ttl.is_zero()).then_some(args.ttl),
        ttl_jitter: share("--ttl-jitter", args.ttl_jitter)?,
        rate: args.rate,
        connections: (args.connections > 0).then_some(args.connections.into()),
        mode: match (args.verify_only, args.resume) {
            (true, true) => {
                let names = "--verify-only and --resume";
                return Err(conflict(names, "--verify-only loads nothing; give one"));
            }
            (true, false) if args.dry_run => {
                let names = "--verify-only and --dry-run";
                return Err(conflict(names, "neither loads anything; give one"));
            }
            (true, false) => SeedMode::VerifyOnly,
            (false, true) if !args.ttl.is_zero() => {
                let names = "--resume and --ttl";
                let mend = "keys may have expired meanwhile; load again without --resume";
                return Err(conflict(names, mend));
            }
            (false, resume) => SeedMode::Load { resume },
        },
        verify: args.verify,
        verify_sample: share("--verify-sample", args.verify_sample)?,
        sync: args.sync,
        retry_for: args.retry_for,
        dry_run: args.dry_run,
        force: args.force,
        quiet: args.quiet,
        json: args.json,
    })
}

/// Every value has the size that is asked for, so none may be smaller than what it holds.
pub(super) fn check_value_size(
    name: &str,
    size: ValueSize,
    format: Format,
) -> Result<(), ConfigError> {
    let least = format.least_bytes();
    if size.least_bytes().is_none_or(|bytes| bytes >= least) {
        return Ok(());
    }
    let mend = match format {
        Format::Record => format!("a record takes at least {least} bytes, its fields; give more"),
        _ => format!("{} take at least {least} bytes; give more", format.values()),
    };
    Err(setting(name, &size.to_string(), &mend))
}
