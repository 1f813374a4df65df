//! `kvpoc seed`: loads the dataset as fast as the store takes it, and proves that it is there.
//!
//! Enters: a [`SeedConfig`] and a stop signal. Leaves: keys in the store, a summary, an exit code. Must not
//! claim a key that the store has not acknowledged.

mod load;
pub mod plan;
mod verify;

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;

use crate::cli::SyncAt;
use crate::config::{SeedConfig, SeedMode, StoreUrl};
use crate::exit;
use crate::output;
use crate::progress::Progress;
use crate::random::Order;
use crate::record;
use crate::store::{DatasetInfo, Store, StoreError, StoreStats, Usage};
use crate::units::{grouped, human_bytes};
use load::{Load, Patience};
use verify::Verification;

/// Between two lines of progress off a terminal: seldom enough for a log file.
const PLAIN_PROGRESS: Duration = Duration::from_secs(5);

/// Enough keys for their average, and few enough to load before anybody is asked to wait.
const SAMPLE_KEYS: u64 = 20_000;
/// More connections than this help no store that is known.
const MAX_AUTOMATIC_CONNECTIONS: u64 = 8;

/// What one run came to.
#[derive(Debug, serde::Serialize)]
struct Summary {
    /// `complete`, `interrupted` or `failed`.
    outcome: Outcome,
    store: String,
    keys_asked: u64,
    /// Indexes below it were acknowledged in an earlier run, and not loaded again.
    resumed_from: u64,
    /// Acknowledged in this run.
    keys_acknowledged: u64,
    bytes_acknowledged: u64,
    elapsed_s: f64,
    keys_per_second: f64,
    megabytes_per_second: f64,
    /// Attempts that failed and were made again.
    retries: u64,
    store_keys_before: u64,
    store_keys_after: Option<u64>,
    /// The first failure, with the indexes of its batch.
    failure: Option<String>,
    verification: Option<Verification>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Complete,
    Interrupted,
    Failed,
}

/// Loads or verifies the keys, or both, prints the summary, and returns the exit code.
///
/// # Errors
/// When the store cannot be used at all, or holds another dataset than the one to resume; a load that began and
/// failed is told by the exit code.
pub async fn run(config: SeedConfig, stop: CancellationToken) -> anyhow::Result<u8> {
    if config.dry_run {
        output::print(&plan_text(&config).await?);
        return Ok(exit::OK);
    }
    let usage = match config.mode {
        SeedMode::Load { .. } if config.sync == SyncAt::Batch => Usage::Serve,
        SeedMode::Load { .. } => Usage::Load,
        SeedMode::VerifyOnly => Usage::Look,
    };
    let patience = Patience {
        retry_for: config.retry_for,
        stop: &stop,
        retries: Cell::new(0),
    };
    // One that is not there may be a mistake, and is said at once; one that reads its data will be ready.
    let open = async || match Store::open(&config.store, usage).await {
        Err(StoreError::Loading(reason)) => Err(StoreError::Loading(reason)),
        outcome => Ok(outcome),
    };
    let store = patience.insist(0, open).await??;
    let before = patience.insist(0, async || store.stats().await).await?;
    let mut summary = match config.mode {
        SeedMode::Load { .. } => load_keys(&store, &config, &patience, &before).await?,
        SeedMode::VerifyOnly => summarise(&config, Load::default(), 0, Duration::ZERO, &before),
    };
    let verifies = config.verify || config.mode == SeedMode::VerifyOnly;
    if verifies && (summary.outcome == Outcome::Complete || config.mode == SeedMode::VerifyOnly) {
        let mut progress = progress(&config);
        let found = verify::verify(&store, &config, &patience, &mut progress).await;
        progress.finish();
        summary.outcome = if found.is_good() {
            Outcome::Complete
        } else if stop.is_cancelled() {
            Outcome::Interrupted
        } else {
            Outcome::Failed
        };
        summary.verification = Some(found);
    }
    summary.retries = patience.retries.get();
    summary.store_keys_after = store.stats().await.ok().map(|stats| stats.keys);
    if config.json {
        let json = serde_json::to_string_pretty(&summary).context("writing the summary")?;
        output::print(&(json + "\n"));
    } else {
        output::print(&summary_text(&summary, &config));
    }
    Ok(match summary.outcome {
        Outcome::Complete => exit::OK,
        Outcome::Interrupted => exit::INTERRUPTED,
        Outcome::Failed => exit::NO,
    })
}

async fn load_keys(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    before: &StoreStats,
) -> anyhow::Result<Summary> {
    let info = dataset_info(config);
    let note = patience.insist(0, async || store.dataset_note().await);
    let note = note.await?;
    let start = start_of(config, note.as_ref())?;
    if !config.quiet {
        let from = match start {
            0 => String::new(),
            start => format!(", after the first {}", grouped(start)),
        };
        output::say(&format!(
            "Seeding {} keys of {} bytes into {} ({} {}, {} keys now){from}",
            grouped(config.keys.get()),
            config.dataset.value_size,
            config.store.url,
            before.engine,
            before.version.as_deref().unwrap_or("of unknown version"),
            grouped(before.keys),
        ));
    }
    if let Some(note) = &note
        && let Some(loaded) = note.loaded
        && start == 0
        && note.has_shape_of(&info)
        && !config.quiet
    {
        output::say(&format!(
            "An unfinished load of this dataset is there; --resume would go on from {}",
            grouped(loaded)
        ));
    }
    // The same bytes over a complete dataset leave it complete at every moment, unless they are to expire.
    let complete_already = config.ttl.is_none() && note.is_some_and(|note| note == info);
    let unfinished = Some(&info).filter(|_| !complete_already);
    // What expires meanwhile cannot be gone on from.
    let checkpoint = unfinished.filter(|_| config.ttl.is_none());
    let stores = connections(store, config, before).await?;
    let started = Instant::now();
    if let Some(info) = unfinished {
        let note = load::unfinished(info, start);
        let first = async || store.put_dataset(&note, None).await;
        patience.insist(0, first).await?;
    }
    let mut progress = progress(config);
    let keys = config.keys.get();
    // The first keys are a sample of all: what they take, and whether the rest will fit.
    let sample_end = (start + SAMPLE_KEYS).min(keys);
    let sample = start..sample_end;
    let mut load = load::load(&stores, config, patience, sample, checkpoint, &mut progress).await;
    if load.failure.is_none() && load.reached == sample_end && sample_end < keys {
        let after = patience.insist(0, async || store.stats().await).await.ok();
        let estimate =
            after.and_then(|after| Estimate::of(before, &after, &load, keys - sample_end));
        if let Some(estimate) = estimate.as_ref().filter(|_| !config.quiet) {
            progress.say(&estimate.to_string());
        }
        let shortage = estimate.and_then(|estimate| estimate.shortage());
        if let Some(shortage) = shortage.filter(|_| !config.force) {
            load.failure = Some(shortage);
        } else {
            let rest = sample_end..keys;
            let later = load::load(&stores, config, patience, rest, checkpoint, &mut progress);
            load.absorb(later.await);
        }
    }
    progress.finish();
    if let Err(error) = conclude(store, config, patience, checkpoint, &load).await {
        load.failure.get_or_insert(error);
    }
    Ok(summarise(config, load, start, started.elapsed(), before))
}

/// What the rest of a load will take, after what its first keys took.
struct Estimate {
    more_bytes: u64,
    used_bytes: Option<u64>,
    limit_bytes: Option<u64>,
    more_seconds: f64,
}

impl Estimate {
    /// For `more_keys` like those of `sample`, which lies between the two looks at the store. `None` when most of
    /// the sample was there before: what is written over takes no more room, and tells nothing of the rest.
    fn of(before: &StoreStats, after: &StoreStats, sample: &Load, more_keys: u64) -> Option<Self> {
        let new_keys = after.keys.saturating_sub(before.keys);
        if new_keys < sample.keys / 2 {
            return None;
        }
        let grown = after.memory_bytes?.saturating_sub(before.memory_bytes?);
        Some(Self {
            more_bytes: (grown as f64 / new_keys as f64 * more_keys as f64) as u64,
            used_bytes: after.memory_bytes,
            limit_bytes: after.max_memory_bytes,
            more_seconds: sample.elapsed.as_secs_f64() * more_keys as f64 / sample.keys as f64,
        })
    }

    /// Why the rest will not fit, if it will not.
    fn shortage(&self) -> Option<String> {
        let needed = self.used_bytes? + self.more_bytes;
        let limit = self.limit_bytes.filter(|&limit| needed > limit)?;
        Some(format!(
            "all keys would take about {}, and the store may use {}: load fewer --keys, smaller --value-size, raise \
             its limit, or insist with --force",
            human_bytes(needed),
            human_bytes(limit)
        ))
    }
}

impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.more_seconds;
        write!(
            f,
            "After the first keys: about {} more, in about {seconds:.0} s",
            human_bytes(self.more_bytes)
        )
    }
}

/// The connections to load over: as many as the store has threads to take from them, unless told otherwise.
async fn connections(
    store: &Store,
    config: &SeedConfig,
    stats: &StoreStats,
) -> anyhow::Result<Vec<Store>> {
    let automatic = stats
        .threads
        .unwrap_or(1)
        .clamp(1, MAX_AUTOMATIC_CONNECTIONS);
    let wanted = config.connections.unwrap_or(automatic as usize);
    let mut stores = vec![store.clone()];
    while stores.len() < wanted {
        stores.push(store.for_this_runtime(&config.store).await?);
    }
    Ok(stores)
}

/// Where to begin: at 0, or where the load that is to be resumed left off.
fn start_of(config: &SeedConfig, note: Option<&DatasetInfo>) -> anyhow::Result<u64> {
    let (SeedMode::Load { resume: true }, Some(note)) = (config.mode, note) else {
        return Ok(0);
    };
    let info = dataset_info(config);
    if !note.has_shape_of(&info) {
        bail!(
            "cannot resume: {} holds keys {}… of {} bytes with seed {}; give the same --key-prefix, --value-size, \
             --seed and --shuffle, or load without --resume",
            config.store.url,
            note.key_prefix,
            note.value_size,
            note.seed
        );
    }
    let loaded = note.loaded.unwrap_or(note.keys);
    if config.order != Order::Ascending && note.keys != info.keys {
        bail!(
            "cannot resume: the order of --shuffle follows from --keys, which was {}",
            note.keys
        );
    }
    Ok(loaded.min(config.keys.get()))
}

fn progress(config: &SeedConfig) -> Progress {
    if config.quiet {
        return Progress::silent();
    }
    Progress::new(config.keys.get(), "keys", PLAIN_PROGRESS)
}

fn dataset_info(config: &SeedConfig) -> DatasetInfo {
    DatasetInfo {
        keys: config.keys.get(),
        key_prefix: config.dataset.key_prefix.clone(),
        value_size: config.dataset.value_size.into(),
        seed: config.dataset.seed,
        record_version: record::VERSION,
        loaded: None,
        shuffled: config.order != Order::Ascending,
    }
}

/// Makes what was loaded durable, and notes how far it is: who reads a note without `loaded` may rely on every
/// index below its count.
async fn conclude(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    checkpoint: Option<&DatasetInfo>,
    load: &Load,
) -> Result<(), String> {
    let complete = load.reached == config.keys.get();
    if complete {
        // Also over a note that is true already: it lives as long as the keys.
        let info = dataset_info(config);
        let note = async || store.put_dataset(&info, config.ttl).await;
        let noted = patience.insist(0, note).await;
        noted.map_err(|error| format!("noting the dataset: {error}"))?;
    } else if let Some(info) = checkpoint {
        // For --resume; without it, that begins a little earlier.
        let note = load::unfinished(info, load.reached);
        let _ = store.put_dataset(&note, None).await;
    }
    store
        .sync()
        .await
        .map_err(|error| format!("making the data durable: {error}"))
}

fn summarise(
    config: &SeedConfig,
    load: Load,
    resumed_from: u64,
    elapsed: Duration,
    before: &StoreStats,
) -> Summary {
    let seconds = elapsed.as_secs_f64();
    let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
    let outcome = match &load.failure {
        Some(_) => Outcome::Failed,
        None if load.reached < config.keys.get() => Outcome::Interrupted,
        None => Outcome::Complete,
    };
    Summary {
        outcome,
        store: config.store.url.to_string(),
        keys_asked: config.keys.get(),
        resumed_from,
        keys_acknowledged: load.keys,
        bytes_acknowledged: load.bytes,
        elapsed_s: seconds,
        keys_per_second: per_second(load.keys as f64),
        megabytes_per_second: per_second(load.bytes as f64 / 1e6),
        retries: 0,
        store_keys_before: before.keys,
        store_keys_after: None,
        failure: load.failure,
        verification: None,
    }
}

fn summary_text(summary: &Summary, config: &SeedConfig) -> String {
    let mut text = String::new();
    if let SeedMode::Load { .. } = config.mode {
        put_load(summary, &mut text);
    }
    if let Some(found) = &summary.verification {
        put_verification(found, config, &mut text);
    }
    text
}

/// What a load would do; a folder that is not there yet stays away.
async fn plan_text(config: &SeedConfig) -> anyhow::Result<String> {
    let (before, note) = match Store::open(&config.store, Usage::Look).await {
        Ok(store) => (store.stats().await?, store.dataset_note().await?),
        Err(StoreError::Setup(_)) if matches!(config.store.url, StoreUrl::Embedded(_)) => {
            let engine = "embedded".to_owned();
            (
                StoreStats {
                    engine,
                    ..StoreStats::default()
                },
                None,
            )
        }
        Err(error) => return Err(error.into()),
    };
    let start = start_of(config, note.as_ref())?;
    let dataset = &config.dataset;
    let keys = config.keys.get() - start;
    // The longest key stands for all.
    let key_bytes = dataset.key_prefix.len() + config.keys.get().to_string().len();
    let bytes = keys * (key_bytes + dataset.value_size.typical_bytes()) as u64;
    let limit = before
        .max_memory_bytes
        .map_or_else(|| "no limit known".to_owned(), human_bytes);
    let batch_bytes =
        u64::from(config.batch) * (key_bytes + dataset.value_size.typical_bytes()) as u64;
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<16}{value}");
    };
    row(
        "Would load",
        format!(
            "{} keys, {}0 to {}{}",
            grouped(keys),
            dataset.key_prefix,
            dataset.key_prefix,
            config.keys.get() - 1
        ),
    );
    if start > 0 {
        row(
            "Resuming",
            format!("the first {} positions are there", grouped(start)),
        );
    }
    row(
        "Values",
        format!(
            "{} bytes each, from seed {}",
            dataset.value_size, dataset.seed
        ),
    );
    row(
        "Keys and values",
        format!("{}; a store adds 50 to 150 bytes a key", human_bytes(bytes)),
    );
    row(
        "In flight",
        format!(
            "{} batches of {} keys, {} in all",
            config.in_flight,
            grouped(config.batch.into()),
            human_bytes(batch_bytes * config.in_flight as u64)
        ),
    );
    row(
        "Store",
        format!(
            "{}: {} {}, {} keys",
            config.store.url,
            before.engine,
            before.version.as_deref().unwrap_or("of unknown version"),
            grouped(before.keys)
        ),
    );
    let used = before
        .memory_bytes
        .map_or_else(|| "not available".to_owned(), human_bytes);
    row("In use", format!("{used} of {limit}"));
    Ok(text)
}

fn put_load(summary: &Summary, text: &mut String) {
    let loaded = summary.resumed_from + summary.keys_acknowledged;
    let head = match (summary.outcome, &summary.failure) {
        (_, Some(_)) => "FAILED after",
        _ if loaded < summary.keys_asked => "Interrupted after",
        _ => "Seeded",
    };
    let _ = writeln!(
        text,
        "{head} {} of {} keys ({}) in {:.2} s: {} keys/s, {:.1} MB/s",
        grouped(summary.keys_acknowledged),
        grouped(summary.keys_asked),
        human_bytes(summary.bytes_acknowledged),
        summary.elapsed_s,
        grouped(summary.keys_per_second as u64),
        summary.megabytes_per_second,
    );
    if summary.resumed_from > 0 {
        let from = grouped(summary.resumed_from);
        let _ = writeln!(text, "Resumed: the first {from} keys were there already");
    }
    let after = summary
        .store_keys_after
        .map_or_else(|| "not available".to_owned(), grouped);
    let _ = writeln!(
        text,
        "The store held {} keys before and holds {after} now, its note of the dataset included",
        grouped(summary.store_keys_before),
    );
    if summary.retries > 0 {
        let _ = writeln!(
            text,
            "{} attempts failed and were made again",
            grouped(summary.retries)
        );
    }
    if let Some(failure) = &summary.failure {
        let _ = writeln!(text, "First failure: {failure}");
    }
    if loaded < summary.keys_asked {
        *text += "Run the same command with --resume to complete it\n";
    }
}

fn put_verification(found: &Verification, config: &SeedConfig, text: &mut String) {
    let sample = if config.verify_sample < 1.0 {
        ", a sample"
    } else {
        ""
    };
    let head = format!(
        "{} keys{sample} in {:.2} s",
        grouped(found.checked),
        found.elapsed_s
    );
    if found.is_good() {
        let _ = writeln!(text, "Verified {head}: every one holds its record");
        return;
    }
    let extra = found.extra.map_or_else(
        || "extra not looked for".into(),
        |count| format!("{} extra", grouped(count)),
    );
    let _ = writeln!(
        text,
        "VERIFICATION FAILED, {head}: {} missing, {} different, {extra}",
        grouped(found.missing),
        grouped(found.different),
    );
    for line in &found.first {
        let _ = writeln!(text, "  {line}");
    }
    if let Some(failure) = &found.failure {
        let _ = writeln!(text, "It ended early: {failure}");
    }
}
