//! Settings of `bench`, checked.
//!
//! Enters: what the user typed, and the token from its variable or file. Leaves: a [`BenchConfig`], whose parts fit one
//! another. Must not ask the target anything, nor print the token.

mod checks;
mod records;
mod request;
mod requests_file;
mod runs;
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{ConfigError, StoreConfig, Target, Token, conflict, setting, share, store};
use crate::cli::{BenchArgs, Reads};
use crate::load::{Arrivals, ExpectRecords, Preset, Request, Shard, Stages, Sweep};
use crate::objectives::{self, Objectives, Operation};
use crate::record::Format;
use crate::units::KeyCount;
use checks::{
    check_fits, check_generator, check_objectives, check_reader, check_schedule, check_self_test,
};
use requests_file::requests_file;
pub use requests_file::{Replay, RequestsFile};
pub use runs::Runs;
pub use tls::TargetTls;

/// Of the self-test, unless `--rps` is given: low enough that what a stall gathered is answered in no time.
pub const SELF_TEST_RPS: f64 = 1_000.0;

/// A start that is further away is a mistake.
const MAX_START_IN: Duration = Duration::from_hours(24);

/// Settings of `bench`.
#[derive(Debug, Clone)]
pub struct BenchConfig {
    /// What to do with the load.
    pub mode: BenchMode,
    /// Which part of the schedule is this generator's.
    pub shard: Shard,
    /// When to begin; `None`: as soon as it can.
    pub start_at: Option<SystemTime>,
    /// The results to merge.
    pub merge: Vec<PathBuf>,
    /// How often the load is run, and what is compared.
    pub runs: Runs,
    /// The rates of a sweep.
    pub sweep: Sweep,
    /// End what cannot pass any more.
    pub abort: bool,
    /// What to drive.
    pub target: Target,
    /// What to ask of it, where it is another server than kvpoc's own.
    pub request: Option<Request>,
    /// Which records its answers are compared with.
    pub expect_records: ExpectRecords,
    /// How to speak TLS with it; `None`: not at all.
    pub tls: Option<TargetTls>,
    /// What to ask of it, where that stands in a file.
    pub requests_file: Option<RequestsFile>,
    /// What to show it.
    pub token: Option<Token>,
    /// The store, when it is driven itself.
    pub store: StoreConfig,
    /// Arrivals per second over the measured part.
    pub stages: Stages,
    /// How they are spread.
    pub arrivals: Arrivals,
    /// The part before it.
    pub warmup: Duration,
    /// Keys of the dataset; `None`: ask the target.
    pub keys: Option<KeyCount>,
    /// Workload and choice of keys, overrides applied.
    pub preset: Preset,
    /// Keys in each batch.
    pub keys_per_request: u32,
    /// Share of answers that are compared with their records.
    pub verify: f64,
    /// Share of keys that may be missing.
    pub max_miss: f64,
    /// What a PASS needs.
    pub objectives: Objectives,
    /// Which bounds were given, and are not the defaults.
    pub given: Given,
    /// Seed of all draws.
    pub seed: u64,
    /// Connections over all threads, at least `threads`.
    pub connections: usize,
    /// Threads that send.
    pub threads: usize,
    /// Shortest sleep between arrivals.
    pub tick: Duration,
    /// How long an arrival waits for a connection, and then for its answer.
    pub timeout: Duration,
    /// Wait after the last arrival.
    pub drain: Duration,
    /// Bound of waiting and unanswered arrivals, over all threads.
    pub max_in_flight: usize,
    /// Largest acceptable lag p99.
    pub max_lag: Duration,
    /// Where results go, besides the terminal.
    pub outputs: Outputs,
}

impl BenchConfig {
    /// Values of this format can be told apart in the answers. For datasets that are known only after the settings.
    ///
    /// # Errors
    /// Why not, and what to ask for.
    pub fn check_format(&self, format: Format) -> Result<(), ConfigError> {
        let request = self.request.as_ref();
        request.map_or(Ok(()), |request| records::check_batch(format, request))
    }

    /// The schedule of a log, where one is replayed.
    #[must_use]
    pub fn replay(&self) -> Option<&Replay> {
        self.requests_file.as_ref()?.replay.as_ref()
    }

    /// Every part of a load that an objective bounds exists in it. For loads that are known only after the settings.
    ///
    /// # Errors
    /// Which does not, and what there is.
    pub fn check_objectives(
        &self,
        stages: &Stages,
        operations: &[Operation],
    ) -> Result<(), ConfigError> {
        check_objectives(&self.objectives, stages, operations)
    }
}

/// Bounds that somebody gave, by a flag or a variable.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is the answer to a question of its own"
)]
pub struct Given {
    /// `--slo`
    pub objectives: bool,
    /// `--max-miss`
    pub max_miss: bool,
    /// `--max-lag`
    pub max_lag: bool,
    /// `--rps`
    pub rps: bool,
}

/// What `bench` does with its load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BenchMode {
    /// One run and its verdict.
    Once,
    /// The store, then the target.
    Layers,
    /// Runs at rates that close in on the limit.
    FindMax,
    /// Runs at rates that were asked for.
    Sweep,
    /// The generator against itself.
    SelfTest,
    /// No load: the results of several generators are added up.
    Merge,
    /// The same load several times.
    Repeat,
    /// No load: the runs of two sides are compared.
    Compare,
}

impl BenchMode {
    /// It has a load of its own.
    #[must_use]
    pub fn drives(self) -> bool {
        !matches!(self, Self::Merge | Self::Compare)
    }
}

/// Where the results of a run go.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    /// One JSON file.
    pub json: Option<PathBuf>,
    /// All forms, in a folder.
    pub out: Option<PathBuf>,
    /// An earlier JSON to compare with.
    pub compare: Option<PathBuf>,
    /// Where the growing report is served.
    pub live: Option<SocketAddr>,
    /// No progress.
    pub quiet: bool,
}

impl Outputs {
    /// The JSON is printed, in place of the report.
    #[must_use]
    pub fn json_on_stdout(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }
}

pub(super) fn bench(args: BenchArgs) -> Result<BenchConfig, ConfigError> {
    let mode = bench_mode(&args)?;
    if !mode.drives() {
        check_reader(&args, mode)?;
    }
    let target: Target = args.target.parse()?;
    let requests_file = requests_file(&args, mode, &target)?;
    let replay = requests_file.as_ref().and_then(|file| file.replay.as_ref());
    let (stages, warmup) = schedule(&args, replay)?;
    let sweep = args.sweep.clone().unwrap_or_default();
    // A merge has no generator, and its bound of the lag is that of the generators of its files.
    if mode.drives() {
        check_generator(&args)?;
    }
    if mode == BenchMode::SelfTest {
        check_self_test(&args)?;
    }
    let mut preset = args.preset;
    preset.mix = args.workload.unwrap_or(preset.mix);
    preset.keys_dist = args.keys_dist.unwrap_or(preset.keys_dist);
    let is_other = target.is_template() || requests_file.is_some();
    let operations = objectives::operations(preset.mix, is_other);
    if mode == BenchMode::Layers && !matches!(target, Target::Http { template: None, .. }) {
        let mend = "--layers needs the store and a kvpoc serve over it; give http://HOST:PORT of that server";
        return Err(setting("--target", &args.target, mend));
    }
    // What only reads files asks nothing of anybody.
    let request = match mode {
        BenchMode::Merge | BenchMode::Compare => None,
        _ if requests_file.is_some() => None,
        _ => request::request(&args, &target)?,
    };
    let expect_records = records::expected(&args, mode, &target, request.as_ref())?;
    let tls = match mode {
        BenchMode::Merge | BenchMode::Compare => None,
        _ => tls::tls(&args.tls, &target)?,
    };
    // Those of a merge are held against the loads of the files, once they are read.
    if mode.drives() {
        check_objectives(&args.slo, &stages, &operations)?;
    }
    let runs = Runs::of(&args);
    let given = Given {
        objectives: is_given(&args, "slo"),
        max_miss: is_given(&args, "max_miss"),
        max_lag: is_given(&args, "max_lag"),
        rps: is_given(&args, "rps"),
    };
    let objectives = if target.is_template() {
        args.slo.of_another_service()
    } else {
        args.slo
    };
    Ok(BenchConfig {
        mode,
        shard: args.shard,
        start_at: args.start_at,
        merge: args.merge,
        runs,
        sweep,
        abort: args.abort,
        token: if is_other {
            Token::read_for_another(args.token_file.as_deref())?
        } else {
            Token::read(args.token_file.as_deref())?
        },
        target,
        tls,
        request,
        expect_records,
        requests_file,
        store: store(args.store, args.store_timeout)?.read_by(None, Reads::Direct),
        stages,
        arrivals: args.arrivals,
        warmup,
        keys: args.keys,
        preset,
        keys_per_request: args.keys_per_request,
        verify: share("--verify", args.verify)?,
        max_miss: share("--max-miss", args.max_miss)?,
        given,
        objectives,
        seed: args.seed,
        connections: args.connections as usize,
        threads: args.threads.into(),
        tick: args.tick,
        timeout: args.timeout,
        drain: args.drain,
        max_in_flight: args.max_in_flight as usize,
        max_lag: args.max_lag,
        outputs: Outputs {
            json: args.json,
            out: args.out,
            compare: match mode {
                BenchMode::Compare => None,
                _ => args.compare.into_iter().next(),
            },
            live: args.live,
            quiet: args.quiet,
        },
    })
}

/// The stages and what comes before them; of a log, its own.
fn schedule(args: &BenchArgs, replay: Option<&Replay>) -> Result<(Stages, Duration), ConfigError> {
    if let Some(replay) = replay {
        return Ok((replay.stages.clone(), Duration::ZERO));
    }
    // Empty, it takes back what a variable or the file says.
    let given = args.stages.clone().filter(|stages| !stages.0.is_empty());
    let steady = |rate| Stages::steady(rate, args.duration);
    let stages = given.unwrap_or_else(|| steady(args.rps));
    check_schedule(&stages, args.warmup)?;
    for &rate in args.sweep.iter().flat_map(|sweep| &sweep.0) {
        check_schedule(&steady(rate), args.warmup)?;
    }
    Ok((stages, args.warmup))
}

fn bench_mode(args: &BenchArgs) -> Result<BenchMode, ConfigError> {
    let sweeps = args.sweep.as_ref().is_some_and(|sweep| !sweep.0.is_empty());
    let asked = [
        (args.layers, BenchMode::Layers),
        (args.find_max, BenchMode::FindMax),
        (sweeps, BenchMode::Sweep),
        (args.self_test, BenchMode::SelfTest),
        (!args.merge.is_empty(), BenchMode::Merge),
        (args.repeat > 1, BenchMode::Repeat),
        (!args.against.is_empty(), BenchMode::Compare),
    ];
    let mut asked = asked.into_iter().filter(|(asked, _)| *asked);
    let mode = asked.next().map_or(BenchMode::Once, |(_, mode)| mode);
    if asked.next().is_some() {
        let names = "--layers, --find-max, --sweep, --self-test, --merge, --repeat and --against";
        return Err(conflict(names, "give one of them at a time"));
    }
    check_fits(args, mode)?;
    runs::check(args)?;
    if let Some(start_at) = args.start_at {
        let left = start_at.duration_since(SystemTime::now());
        if left.is_err() || left.is_ok_and(|left| left > MAX_START_IN) {
            let value = humantime::format_rfc3339_seconds(start_at).to_string();
            return Err(setting(
                "--start-at",
                &value,
                "give a time within the next day",
            ));
        }
    }
    Ok(mode)
}

fn is_given(args: &BenchArgs, id: &str) -> bool {
    args.given.iter().any(|(name, _)| name == id)
}
