//! `kvpoc seed`: loads the dataset as fast as the store takes it, and proves that it is there.
//!
//! Enters: a [`SeedConfig`] and a stop signal. Leaves: keys in the store, a summary, an exit code. Must not
//! claim a key that the store has not acknowledged, nor call a dataset complete that is not.

mod advice;
mod compare;
mod estimate;
mod found;
mod keeper;
mod load;
mod note;
mod patience;
pub mod plan;
mod preview;
mod start;
mod summary;
mod verify;

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::cli::SyncAt;
use crate::config::{SeedConfig, SeedMode};
use crate::exit;
use crate::output;
use crate::progress::Progress;
use crate::record::Format;
use crate::source::{KeyTemplate, Source};
use crate::store::{DATASET_KEY, State, Store, StoreStats, Usage};
use crate::units::grouped;
use estimate::Estimate;
use keeper::{Keeper, Kept};
use load::{Load, Loader};
use note::Entry;
use patience::{Pace, Patience};
use start::Start;
use summary::Outcome;
use verify::Verification;

/// Between two lines of progress off a terminal: seldom enough for a log file.
const PLAIN_PROGRESS: Duration = Duration::from_secs(5);

/// Enough keys for their average, and few enough to load before anybody is asked to wait.
const SAMPLE_KEYS: u64 = 20_000;
/// More connections than this help no store that is known.
const MAX_AUTOMATIC_CONNECTIONS: u64 = 8;

/// Loads or verifies the keys, or both, prints the summary, and returns the exit code.
///
/// # Errors
/// When the store cannot be used at all, another run is loading it, or it holds another dataset than the one to
/// resume; a load that began and failed is told by the exit code.
pub async fn run(mut config: SeedConfig, stop: CancellationToken) -> anyhow::Result<u8> {
    if let Some((file, key)) = config.from.clone() {
        match read_source(&config, file, key, &stop).await? {
            Some(source) => config.take_source(source),
            None => return Ok(exit::INTERRUPTED),
        }
    }
    if config.dry_run {
        return tokio::select! {
            text = preview::plan_text(&config) => {
                output::print(&text?);
                Ok(exit::OK)
            }
            () = stop.cancelled() => Ok(exit::INTERRUPTED),
        };
    }
    let usage = match config.mode {
        SeedMode::Load { .. } if config.sync == SyncAt::Batch => Usage::Serve,
        SeedMode::Load { .. } => Usage::Load,
        SeedMode::VerifyOnly => Usage::Look,
    };
    let retries = Cell::new(0);
    let patience = Patience {
        retry_for: config.retry_for,
        stop: &stop,
        retries: &retries,
    };
    let Some((store, before)) = start::reach(&config, &patience, usage).await? else {
        return Ok(exit::INTERRUPTED);
    };
    let mut loaded = match config.mode {
        SeedMode::Load { .. } => match load_keys(&store, &config, &patience, &before).await {
            Ok(loaded) => loaded,
            Err(error) if stop.is_cancelled() => {
                output::say(&format!(
                    "Interrupted before anything was loaded: {error:#}"
                ));
                return Ok(exit::INTERRUPTED);
            }
            Err(error) => return Err(error),
        },
        SeedMode::VerifyOnly => Loaded::default(),
    };
    let found = verify(&store, &config, &patience, &before, &mut loaded).await;
    let mut summary = summary::summarise(&config, loaded, found, &before);
    summary.retries = retries.get();
    summary.store_keys_after = store.stats().await.ok().map(|stats| stats.keys);
    if config.json {
        let json = serde_json::to_string_pretty(&summary).context("writing the summary")?;
        output::print(&(json + "\n"));
    } else {
        output::print(&summary::summary_text(&summary, &config));
    }
    Ok(match summary.outcome {
        Outcome::Complete => exit::OK,
        Outcome::Interrupted => exit::INTERRUPTED,
        Outcome::Failed => exit::NO,
    })
}

/// The file that is to be loaded, read once to its end; `None` when it was stopped.
async fn read_source(
    config: &SeedConfig,
    file: PathBuf,
    key: KeyTemplate,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Source>> {
    if !config.quiet {
        output::say(&format!("Reading {} and its keys", file.display()));
    }
    let shown = file.display().to_string();
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread of its own, so that nobody who stops this run waits for a large file.
    std::thread::spawn(move || {
        // Nobody listens any more when it was stopped.
        let _ = tell.send(Source::open(&file, &key, DATASET_KEY));
    });
    tokio::select! {
        source = told => {
            let source = source.context("the file was not read")?;
            source.map(Some).with_context(|| format!("cannot load --from {shown}"))
        }
        () = stop.cancelled() => Ok(None),
    }
}

/// What this run has loaded by now, if anything.
#[derive(Default)]
struct Loaded {
    load: Load,
    start: Start,
    elapsed: Duration,
    /// Of a run that only verifies there is none.
    keeper: Option<Keeper>,
}

async fn load_keys(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    before: &StoreStats,
) -> anyhow::Result<Loaded> {
    let (claim, mut start) = start::claim(store, config, patience, before).await?;
    let mut keeper = Keeper::new(claim, config.store.url.to_string(), config.retry_for);
    if !config.quiet {
        let from = match start.at {
            0 => String::new(),
            start => format!(", resuming after {}", grouped(start)),
        };
        output::say(&format!(
            "Seeding {} keys of {} bytes{}{} into {} ({} {}, {} keys now){from}",
            grouped(config.keys.get()),
            config.dataset.value_size,
            match &config.source {
                Some(source) => format!(" each from {}", source.path().display()),
                None => String::new(),
            },
            match config.dataset.format {
                _ if config.source.is_some() => String::new(),
                Format::Record => String::new(),
                format => format!(", {},", format.values()),
            },
            config.store.url,
            before.engine,
            before.version.as_deref().unwrap_or("(unknown version)"),
            grouped(before.keys),
        ));
        for remark in &start.remarks {
            output::say(remark);
        }
    }
    let stores = connections(store, config, before).await?;
    let loader = Loader {
        stores: &stores,
        config,
        patience,
    };
    let started = Instant::now();
    let mut progress = progress(config);
    let load = load_all(&loader, before, start.at, &mut keeper, &mut progress).await;
    progress.finish();
    if load
        .first_expiry
        .is_some_and(|first| first <= Instant::now())
    {
        let remark = "The first keys expired before the load was complete, so there is no dataset: give a longer --ttl";
        output::say(remark);
        start.remarks.push(remark.to_owned());
    }
    Ok(Loaded {
        load,
        start,
        elapsed: started.elapsed(),
        keeper: Some(keeper),
    })
}

/// Verifies what is to be verified; what the store loses of it meanwhile is loaded again, and then all is verified.
async fn verify(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    before: &StoreStats,
    loaded: &mut Loaded,
) -> Option<Verification> {
    loop {
        let Loaded { load, keeper, .. } = &mut *loaded;
        if keeper.is_some() && !(config.verify && load.is_complete(config)) {
            return None;
        }
        let until = load.first_expiry;
        let found = found::verify_keys(store, config, patience, keeper.as_mut(), until).await;
        match (found.behind, keeper) {
            (Some(position), Some(keeper)) if found.failure.is_none() => {
                let started = Instant::now();
                load.behind = Some(position);
                load_again(store, config, patience, before, (load, keeper)).await;
                loaded.elapsed += started.elapsed();
            }
            _ => return Some(found),
        }
    }
}

/// Goes on with a load that had come to its end.
async fn load_again(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    before: &StoreStats,
    (load, keeper): (&mut Load, &mut Keeper),
) {
    let stores = match connections(store, config, before).await {
        Ok(stores) => stores,
        Err(error) => {
            load.failure = Some(error.to_string());
            vec![store.clone()]
        }
    };
    let loader = Loader {
        stores: &stores,
        config,
        patience,
    };
    let mut progress = progress(config);
    let mut pace = Pace::new(config.rate);
    go_on(&loader, load, &mut pace, keeper, &mut progress).await;
    progress.finish();
}

/// Loads from a position to the end, at first a sample of all.
async fn load_all(
    loader: &Loader<'_>,
    before: &StoreStats,
    start: u64,
    keeper: &mut Keeper,
    progress: &mut Progress,
) -> Load {
    let config = loader.config;
    let keys = config.keys.get();
    let mut pace = Pace::new(config.rate);
    // The first keys are a sample of all: what they take, and whether the rest will fit.
    let sample_end = (start + SAMPLE_KEYS).min(keys);
    let sample = loader.load(start..sample_end, &mut pace, keeper, progress);
    let mut load = sample.await;
    if load.failure.is_none() && load.reached == sample_end && sample_end < keys {
        load.failure = will_not_fit(loader, before, &load, keys - sample_end, progress).await;
    }
    go_on(loader, &mut load, &mut pace, keeper, progress).await;
    load
}

/// Goes on to the end, from an earlier position again where the store loses some, and notes what came of it.
async fn go_on(
    loader: &Loader<'_>,
    load: &mut Load,
    pace: &mut Pace,
    keeper: &mut Keeper,
    progress: &mut Progress,
) {
    let Loader {
        config, patience, ..
    } = *loader;
    let store = &loader.stores[0];
    let keys = config.keys.get();
    while load.failure.is_none() {
        let noted = if let Some(position) = load.behind.take() {
            progress.say(&format!(
                "{} has lost acknowledged keys, or they have expired; loading again from {}",
                config.store.url,
                grouped(position)
            ));
            load.reached = position;
            keeper.write(patience, &loader.checkpoint(position)).await
        } else if load.reached < keys {
            if patience.stop.is_cancelled() {
                break;
            }
            let rest = loader.load(load.reached..keys, pace, keeper, progress);
            load.absorb(rest.await);
            continue;
        } else if start::heals(config) {
            // Not called loaded before it is verified: anything may be missing that was there before this run.
            keeper.write(patience, &Entry::loading(0, 0)).await
        } else {
            conclude(store, config, patience, keeper, load).await
        };
        match noted {
            Ok(Kept::Behind(position)) => load.behind = Some(position),
            Ok(_) if load.reached == keys => break,
            Ok(_) => {}
            Err(failure) => load.failure = Some(failure),
        }
    }
    if load.failure.is_some() || load.reached < keys {
        let reached = load.behind.unwrap_or(load.reached);
        keeper.release(loader.checkpoint(reached).reached).await;
    }
    if let Err(error) = store.sync().await {
        let failure = format!("flushing to disk: {error}");
        load.failure.get_or_insert(failure);
    }
}

/// Makes what was loaded durable, and then notes that it is complete: who reads that may rely on every index.
async fn conclude(
    store: &Store,
    config: &SeedConfig,
    patience: &Patience<'_>,
    keeper: &mut Keeper,
    load: &Load,
) -> Result<Kept, String> {
    let synced = store.sync().await;
    synced.map_err(|error| format!("flushing to disk: {error}"))?;
    let entry = complete(config, State::Loaded, load.first_expiry);
    keeper.write(patience, &entry).await
}

/// The note of a complete dataset; it is a key itself.
fn complete(config: &SeedConfig, state: State, until: Option<Instant>) -> Entry {
    Entry {
        state,
        reached: config.keys.get(),
        least_keys: config.keys.get() + 1,
        until,
        released: false,
    }
}

/// Why what follows the first keys will not fit, if it will not, and nobody insists.
async fn will_not_fit(
    loader: &Loader<'_>,
    before: &StoreStats,
    sample: &Load,
    more_keys: u64,
    progress: &Progress,
) -> Option<String> {
    let store = &loader.stores[0];
    let after = loader.patience.insist(0, async || store.stats().await);
    let estimate = Estimate::of(before, &after.await.ok()?, sample, more_keys)?;
    if !loader.config.quiet {
        progress.say(&estimate.to_string());
    }
    estimate.shortage().filter(|_| !loader.config.force)
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

fn progress(config: &SeedConfig) -> Progress {
    if config.quiet {
        return Progress::silent();
    }
    Progress::new(config.keys.get(), "keys", PLAIN_PROGRESS)
}
