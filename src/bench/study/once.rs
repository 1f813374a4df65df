//! One run: prepares the target, drives it, publishes what came of it.
//!
//! Enters: a [`BenchConfig`] and a stop signal. Leaves: a report, files if asked for, and the verdict's exit
//! code. Must not measure and print in one place.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::background::Background;
use super::early::Early;
use super::expected;
use crate::bench::drive::probe::{self, TargetInfo};
use crate::bench::drive::tls::Tls;
use crate::bench::drive::{self, Load, Totals, Way};
use crate::bench::judge::drift;
use crate::bench::judge::flow::Outline;
use crate::bench::judge::interval::Interval;
use crate::bench::judge::results::Results;
use crate::bench::judge::series::Series;
use crate::bench::judge::verdict::Verdict;
use crate::bench::plan::form::{Around, Form};
use crate::bench::plan::keys::Chooser;
use crate::bench::plan::list::List;
use crate::bench::plan::schedule::Schedule;
use crate::bench::plan::workload::{self, Workload};
use crate::bench::report;
use crate::bench::report::files::Files;
use crate::bench::report::watch::{SoFar, Watch};
use crate::config::{BenchConfig, BenchMode, StoreUrl, Target};
use crate::load::{KeysAsked, PRESETS, Request, Shard, Stages, told};
use crate::output;
use crate::record::{Dataset, Format};
use crate::store::{DatasetInfo, NotedSize, Store, Usage};
use crate::units::{KeyCount, grouped, human_duration};

/// Larger records do not fit into the send buffer of a connection, and would be cut off.
const MAX_WRITTEN_BYTES: usize = 32 * 1024;
/// Files that the program itself holds open.
const OTHER_FILES: u64 = 64;
/// A target that is still at its last answers may not tell its counters at the first time of asking.
const ASK_AGAIN: usize = 3;
/// Enough to connect some ten thousand times.
const CONNECT_BEFORE: Duration = Duration::from_secs(3);
/// serve keeps its statistics for a second, and the store's counters are read through them.
pub(super) const STATS_AGE: Duration = Duration::from_millis(1_100);

pub(super) async fn run(config: &BenchConfig, stop: &CancellationToken) -> anyhow::Result<u8> {
    let publication = Publication::prepare(config)?;
    let mut bench = Bench::prepare(config).await?;
    bench.announce();
    if let Some(start_at) = config.start_at {
        if !wait_for(start_at, stop).await {
            output::say("Interrupted before the start");
            return Ok(Verdict::Invalid.exit_code());
        }
        // The store's counters as they are now.
        bench = Bench::prepare(config).await?;
    }
    let (results, series) = bench.measure(&config.stages, stop).await?;
    publication.publish(&results, &series)
}

/// Where results go, found out before there are any.
pub(super) struct Publication {
    json_on_stdout: bool,
    earlier: Option<Value>,
    files: Files,
}

impl Publication {
    pub(super) fn prepare(config: &BenchConfig) -> anyhow::Result<Self> {
        let earlier = config.outputs.compare.as_deref();
        Ok(Self {
            json_on_stdout: config.outputs.json_on_stdout(),
            earlier: earlier.map(report::compare::read).transpose()?,
            files: Files::create(&config.outputs)?,
        })
    }

    /// Prints and writes the results, and gives the exit code of their verdict.
    ///
    /// # Errors
    /// When something that was asked for could not be written; the verdict is on standard error then.
    pub(super) fn publish(self, results: &Results, series: &Series) -> anyhow::Result<u8> {
        let printed = self.print(results);
        let written = self.files.write(results, series, self.earlier.as_ref());
        if printed.is_err() || written.is_err() || output::lost().is_some() {
            output::say(&format!("{}: {}", results.verdict.name(), results.reason));
        }
        printed.and(written)?;
        Ok(results.verdict.exit_code())
    }

    fn print(&self, results: &Results) -> anyhow::Result<()> {
        if self.json_on_stdout {
            // Whoever asked for it must not go without, as a reader of text may.
            return output::deliver(&report::json(results)?)
                .context("writing --json - to standard output");
        }
        let colour = std::io::stdout().is_terminal();
        output::print(&report::text::render(results, colour));
        if let Some(earlier) = &self.earlier {
            output::print(&report::compare::text(earlier, results));
        }
        Ok(())
    }
}

/// Waits until it is time to connect: not long before the start, as a server does not keep idle connections.
/// Whether that time came.
async fn wait_for(start_at: SystemTime, stop: &CancellationToken) -> bool {
    let left = start_at
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    output::say(&format!(
        "Starting at {}, in {} s",
        humantime::format_rfc3339_seconds(start_at),
        left.as_secs()
    ));
    tokio::select! {
        () = tokio::time::sleep(left.saturating_sub(CONNECT_BEFORE)) => true,
        () = stop.cancelled() => false,
    }
}

/// A target that was asked about itself, and what will be asked of it.
pub(super) struct Bench<'a> {
    pub(super) config: &'a BenchConfig,
    pub(super) info: TargetInfo,
    /// Those that are drawn from; `None`: nobody asks for any.
    pub(super) keys: Option<KeyCount>,
    tls: Option<Tls>,
    way: Way,
    workload: Workload,
}

impl<'a> Bench<'a> {
    pub(super) async fn prepare(config: &'a BenchConfig) -> anyhow::Result<Self> {
        check_files(config)?;
        let tls = tls(config)?;
        let (way, info) = match &config.target {
            Target::Store => {
                let store = Store::open(&config.store, Usage::Serve).await?;
                let info = probe::ask_store(&store).await?;
                (Way::Store(store, config.store.clone().into()), info)
            }
            Target::Http {
                url,
                template: None,
            } if config.requests_file.is_none() => {
                let (address, info) =
                    probe::probe(url, tls.as_ref(), config.token.as_ref()).await?;
                (Way::Http(address), info)
            }
            // Another target tells nothing about itself.
            Target::Http { url, .. } => {
                let info = expected::records(config).await?;
                (Way::Http(probe::reach(url, tls.as_ref()).await?), info)
            }
        };
        let keys = dataset_keys(config, &info)?;
        let workload = workload(config, &info, keys)?;
        if workload.dataset.is_none() && workload.writes() {
            anyhow::bail!(
                "{} does not report its dataset, so bench cannot write records; load one with kvpoc seed",
                config.target
            );
        }
        if matches!(way, Way::Http(_)) && config.request.is_none() {
            refuse_raw(config, &workload)?;
        }
        let too_large = |dataset: &Dataset| dataset.value_size.max_bytes() > MAX_WRITTEN_BYTES;
        if workload.writes() && workload.dataset.as_ref().is_some_and(too_large) {
            anyhow::bail!(
                "bench writes records of at most {MAX_WRITTEN_BYTES} bytes, and those of the dataset can be larger"
            );
        }
        Ok(Self {
            config,
            info,
            keys,
            tls,
            way,
            workload,
        })
    }

    /// The records that the answers of another target are compared with.
    pub(super) fn records(&self) -> Option<String> {
        self.config.request.as_ref()?;
        self.workload.dataset.as_ref().map(told)
    }

    fn load(&self, stages: &Stages, stop: &CancellationToken) -> Load {
        let config = self.config;
        let schedule = match config.replay() {
            Some(replay) => Schedule::recorded(replay.moments.clone()),
            None => Schedule::new(stages, config.warmup, config.arrivals, config.seed),
        };
        Load {
            outline: outline(config, stages),
            schedule: Arc::new(schedule.of_shard(config.shard)),
            start_at: config.start_at,
            workload: self.workload.clone(),
            way: self.way.clone(),
            cut: stop.child_token(),
        }
    }

    /// One run at these stages, shown while it goes on.
    pub(super) async fn measure(
        &self,
        stages: &Stages,
        stop: &CancellationToken,
    ) -> anyhow::Result<(Results, Series)> {
        let load = self.load(stages, stop);
        let background = Background::begin(self, stages);
        let (schedule, so_far) = (load.schedule.clone(), background.clone());
        let so_far: SoFar =
            Box::new(move |started, all: &Interval| so_far.so_far(&schedule, started, all));
        let mut watch = Watch::new(&load.schedule, so_far, &self.config.outputs).await?;
        let (totals, ended_early) = self.drive(stages, &load, stop, &mut watch).await?;
        let series = watch.finish().await;
        let after = self.ask_again(totals.interrupted).await;
        let results = Results {
            drift: drift::of(&series.points),
            ..background.conclude(&load.schedule, totals, ended_early, after)
        };
        Ok((results, series))
    }

    /// Drives the load, to its end or to where nothing can make it pass any more, and says why it ended there.
    async fn drive(
        &self,
        stages: &Stages,
        load: &Load,
        stop: &CancellationToken,
        watch: &mut Watch,
    ) -> anyhow::Result<(Totals, Option<String>)> {
        let config = self.config;
        if !config.abort {
            return Ok((drive::drive(config, load, stop, watch).await?, None));
        }
        let mut early = Early::new(watch, &config.objectives, (stages, config.arrivals), load);
        let totals = drive::drive(config, load, stop, &mut early).await?;
        // The last second has the same counts whether or not there was anything left to cut.
        let is_cut = totals.end_ns < load.schedule.measured_until_ns() && !totals.interrupted;
        Ok((totals, early.reason().filter(|_| is_cut)))
    }

    /// The store's counters after the run; `None` when they are not to be had. Whoever stopped it by hand waits for no
    /// second answer.
    async fn ask_again(&self, interrupted: bool) -> Option<TargetInfo> {
        self.info.key_reads.or(self.info.commands_processed)?;
        for _ in 0..if interrupted { 1 } else { ASK_AGAIN } {
            let told = match (&self.way, &self.config.target) {
                (Way::Http(_), Target::Http { url, .. }) => {
                    tokio::time::sleep(STATS_AGE).await;
                    let token = self.config.token.as_ref();
                    let told = probe::probe(url, self.tls.as_ref(), token).await;
                    told.ok().map(|(_, info)| info)
                }
                (Way::Store(store, _), _) => probe::ask_store(store).await.ok(),
                (Way::Http(_), Target::Store) => None,
            };
            if let Some(told) = told.filter(|told| told.counts_what(&self.info)) {
                return Some(told);
            }
        }
        None
    }

    /// What is driven, and with what.
    fn what(&self) -> String {
        let target = &self.config.target;
        let keys = self.keys.map(|keys| grouped(keys.get()));
        if let Some(request) = &self.config.request {
            let keys = keys.map_or_else(String::new, |keys| format!(" of {keys} keys"));
            return format!("{} {target}{keys}", request.method.name());
        }
        if let Some(file) = &self.config.requests_file {
            return format!("{target} with the requests of {}", file.file.display());
        }
        let engine = [&self.info.engine, &self.info.engine_version];
        let engine: Vec<&str> = engine.into_iter().flatten().map(String::as_str).collect();
        format!(
            "{target} ({}) with {} of {} keys",
            if engine.is_empty() {
                "unknown store".into()
            } else {
                engine.join(" ")
            },
            self.config.preset.mix,
            keys.unwrap_or_default(),
        )
    }

    pub(super) fn announce(&self) {
        let config = self.config;
        let length = human_duration(config.stages.duration());
        let load = match config.mode {
            // Each has a rate of its own.
            BenchMode::FindMax | BenchMode::Sweep => format!("each try {length}"),
            mode => format!(
                "{}{} requests over {length}",
                match mode {
                    BenchMode::Repeat => format!("{} times ", config.runs.repeat),
                    _ => String::new(),
                },
                grouped(config.stages.arrivals().round() as u64)
            ),
        };
        let preset = &config.preset;
        if !config.outputs.quiet {
            output::say(&format!(
                "Driving {}, {load} after {} of warm-up{}",
                self.what(),
                human_duration(config.warmup),
                match config.shard {
                    Shard::WHOLE => String::new(),
                    shard => format!(", as shard {shard}"),
                }
            ));
            if preset.name != PRESETS[0].name {
                output::say(&format!(
                    "Preset {}: synthetic, after {}",
                    preset.name, preset.source
                ));
            }
        }
        if let Some(file) = &config.requests_file {
            for (why, count) in &file.left_out {
                output::say(&format!(
                    "Left out of the replay: {} {why}",
                    grouped(*count)
                ));
            }
        }
        if self.workload.writes() && matches!(self.way, Way::Http(_)) {
            output::say("This workload writes: the server needs --allow-writes");
        }
        if config.tls.as_ref().is_some_and(|tls| tls.insecure) {
            output::say("--insecure: the certificate of the target is not verified");
        }
        if matches!(config.store.url, StoreUrl::Embedded(_)) && config.target == Target::Store {
            output::say(
                "The embedded store runs inside the generator: its time also counts as lag",
            );
        }
        let held = self.info.dataset.as_ref().map(|dataset| dataset.keys);
        if let (Some(asked), Some(held)) = (config.keys, held)
            && asked.get() > held
        {
            output::say(&format!(
                "--keys {asked} exceeds the {held} keys of the dataset: the others will be missing"
            ));
        }
        let size = self
            .info
            .dataset
            .as_ref()
            .map(|dataset| dataset.value_size.clone());
        if let (Some(bytes), Some(size)) = (preset.value_bytes, size)
            && size != NotedSize::Bytes(bytes.into())
        {
            output::say(&format!(
                "This preset has records of {bytes} bytes, the dataset of {size}: seed with --value-size {bytes}"
            ));
        }
    }
}

/// How to speak TLS with the target, if it wants that.
fn tls(config: &BenchConfig) -> anyhow::Result<Option<Tls>> {
    match (&config.tls, &config.target) {
        (Some(settings), Target::Http { url, .. }) => Tls::new(settings, url).map(Some),
        // With --layers, the store's turn.
        _ => Ok(None),
    }
}

/// The outline of the whole schedule.
pub(super) fn outline(config: &BenchConfig, stages: &Stages) -> Outline {
    match config.replay() {
        Some(replay) => Outline::recorded(stages, &replay.moments),
        None => Outline::new(config.warmup, stages),
    }
}

/// Each connection is an open file, and the limit was raised as far as it goes.
fn check_files(config: &BenchConfig) -> anyhow::Result<()> {
    if config.target == Target::Store {
        return Ok(());
    }
    let needed = config.connections as u64 + OTHER_FILES;
    match crate::process::max_open_files() {
        Some(limit) if limit < needed => anyhow::bail!(
            "{} --connections need {needed} open files, but the limit is {limit}: raise it with ulimit -n, or \
             give fewer",
            config.connections
        ),
        _ => Ok(()),
    }
}

/// Sessions are made of records: of other values a serve answers none.
fn refuse_raw(config: &BenchConfig, workload: &Workload) -> anyhow::Result<()> {
    match &workload.dataset {
        Some(dataset) if dataset.format == Format::Raw => anyhow::bail!(
            "the values behind {target} are raw bytes (kvpoc seed --format raw), which have no sessions to ask for: \
             drive --target store, or --target {target}/v1/keys/{{key}} with --expect-records, or load records with \
             --format record or json",
            target = config.target
        ),
        _ => Ok(()),
    }
}

/// `None`: the requests name no keys.
fn dataset_keys(config: &BenchConfig, info: &TargetInfo) -> anyhow::Result<Option<KeyCount>> {
    let asked = config.request.as_ref().map(Request::keys_asked);
    if asked == Some(KeysAsked::None) || config.requests_file.is_some() {
        return Ok(None);
    }
    let told = || KeyCount::new(info.dataset.as_ref()?.keys);
    let keys = config.keys.or_else(told);
    keys.map(Some).with_context(|| match &info.unfinished_load {
        Some(note) => format!(
            "the dataset of {} is incomplete: {} of {} keys; wait for the seed that loads it, or continue with \
             kvpoc seed --resume",
            config.target,
            grouped(note.reached()),
            grouped(note.keys)
        ),
        None => format!(
            "{} does not report the number of its keys; load a dataset with kvpoc seed, or give --keys",
            config.target
        ),
    })
}

fn workload(
    config: &BenchConfig,
    info: &TargetInfo,
    keys: Option<KeyCount>,
) -> anyhow::Result<Workload> {
    let token = config.token.as_ref();
    let authority = match &config.target {
        Target::Http { url, .. } => url.authority(),
        Target::Store => String::new(),
    };
    let dataset = info.dataset.as_ref().and_then(DatasetInfo::contents);
    let key_prefix = dataset.as_ref().map_or_else(
        || "user:session:".into(),
        |dataset| dataset.key_prefix.clone(),
    );
    let around = Around {
        authority: &authority,
        token: &workload::token_line(token),
        key_prefix: &key_prefix,
    };
    let form = match (&config.request, &config.requests_file) {
        (Some(request), _) => Some(Form::new(request, &around)?),
        (None, Some(file)) => {
            let requests = (file.list.clone(), file.order, config.seed);
            let list = List::new(requests, (&authority, around.token), &file.headers);
            let contains = file.contains.as_deref();
            Some(Form::of_list(list, file.expect.clone(), contains))
        }
        (None, None) => None,
    };
    Ok(Workload {
        mix: config.preset.mix,
        chooser: Chooser::new(config.preset.keys_dist, keys.unwrap_or(KeyCount::ONE)),
        keys_per_request: config.keys_per_request,
        seed: config.seed,
        verify: config.verify,
        headers: workload::headers(&authority, token),
        form: form.map(Arc::new),
        key_prefix,
        dataset,
        fetch: info.fetch(),
    })
}
