//! Settings: file, environment and flags become one validated struct per command.
//!
//! Enters: arguments, the environment, a TOML file. Leaves: a [`Job`], in which nothing can be wrong any
//! more. Must not open a connection or ask the store anything.
//!
//! The file's values become the defaults of the command line before it is parsed. So the order defaults <
//! file < environment < flags is clap's own, and each setting has one name, one parser and one message.

mod address;
mod file;
mod secret;
mod serve;
mod store;
mod token;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{CommandFactory as _, FromArgMatches as _};

pub use address::{Node, Servers, StoreUrl, Target, TargetUrl, Topology};
use file::{FileSettings, with_origin};
pub use secret::{Login, Secret};
pub use serve::{AccessConfig, LogConfig, ServeConfig};
use store::store;
pub use store::{StoreConfig, TlsFiles};
pub use token::Token;

use crate::cli::{BenchArgs, Cli, Command, Fetch, InspectArgs, Reads, SeedArgs, SyncAt};
use crate::load::{Arrivals, Preset, Shard, Slos, Stages};
use crate::random::Order;
use crate::record::Dataset;
use crate::units::{KeyCount, MAX_KEY_BYTES, Rate, human_bytes};

/// Decimal digits of the largest index.
const MAX_INDEX_DIGITS: usize = 12;
/// What one batch of a seed may hold.
const MAX_BATCH_BYTES: u64 = 4 * 1024 * 1024;
/// What all batches of a seed may hold in memory at once.
const MAX_WINDOW_BYTES: u64 = 512 * 1024 * 1024;
/// Arrival numbers must be exact as 64-bit floating point, with room to spare.
const MAX_ARRIVALS: f64 = 1e12;

/// A start that is further away is a mistake.
const MAX_START_IN: Duration = Duration::from_hours(24);

/// The generator looks at its timeouts and at the stop signal at least so often.
const MAX_TICK: Duration = Duration::from_millis(10);

/// One command with all that it needs.
#[derive(Debug)]
pub enum Job {
    /// `kvpoc seed`
    Seed(SeedConfig),
    /// `kvpoc serve`
    Serve(ServeConfig),
    /// `kvpoc bench`
    Bench(Box<BenchConfig>),
    /// `kvpoc inspect`
    Inspect(InspectConfig),
}

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
    /// What to drive.
    pub target: Target,
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
    pub slos: Slos,
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

/// What `bench` does with its load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BenchMode {
    /// One run and its verdict.
    Once,
    /// The store, then the target.
    Layers,
    /// Runs at rising rates.
    FindMax,
    /// The generator against itself.
    SelfTest,
    /// No load: the results of several generators are added up.
    Merge,
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
}

impl Outputs {
    /// The JSON is printed, in place of the report.
    #[must_use]
    pub fn json_on_stdout(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }
}

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

/// Why there is no [`Job`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// clap has the message: wrong usage, or the help and version that were asked for.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// A setting, its value and the mend.
    #[error("{0}")]
    Setting(String),
    /// The file cannot be read or understood.
    #[error("{file}: {reason}")]
    File {
        /// Its path.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads all settings and checks them.
///
/// # Errors
/// [`ConfigError`]; the message names the setting, the value and the mend.
pub fn load(arguments: &[OsString]) -> Result<Job, ConfigError> {
    let parsed = parse(Cli::command(), arguments, None)?;
    let Some(file) = parsed.config else {
        return resolve(parsed.command);
    };
    let settings = FileSettings::read(&file)?;
    let with_file = settings.as_defaults_of(Cli::command())?;
    resolve(parse(with_file, arguments, Some(&settings))?.command)
}

fn parse(
    cli: clap::Command,
    arguments: &[OsString],
    settings: Option<&FileSettings>,
) -> Result<Cli, ConfigError> {
    cli.try_get_matches_from(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| with_origin(error, arguments, settings).into())
}

fn resolve(command: Command) -> Result<Job, ConfigError> {
    Ok(match command {
        Command::Seed(args) => Job::Seed(seed(args)?),
        Command::Serve(args) => Job::Serve(serve::serve(args)?),
        Command::Bench(args) => Job::Bench(Box::new(bench(*args)?)),
        Command::Inspect(args) => Job::Inspect(inspect(args)?),
    })
}

fn seed(args: SeedArgs) -> Result<SeedConfig, ConfigError> {
    check_key_prefix(&args.key_prefix)?;
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
                "they would hold {} in memory at this --value-size; stay below {}",
                human_bytes(window),
                human_bytes(MAX_WINDOW_BYTES)
            ),
        ));
    }
    let store = store(args.store, args.store_timeout)?;
    if args.sync == SyncAt::Batch && !matches!(store.url, StoreUrl::Embedded(_)) {
        let mend = "a server keeps what its own settings say, such as appendfsync; this is for embedded:DIR";
        return Err(setting("--sync", "batch", mend));
    }
    Ok(SeedConfig {
        store,
        dataset: Dataset {
            key_prefix: args.key_prefix,
            value_size: args.value_size,
            seed: args.seed,
        },
        keys: args.keys,
        batch,
        in_flight: args.in_flight as usize,
        ttl: (!args.ttl.is_zero()).then_some(args.ttl),
        ttl_jitter: share("--ttl-jitter", args.ttl_jitter)?,
        order: if args.shuffle {
            Order::Shuffled {
                keys: args.keys.get(),
                seed: args.seed,
            }
        } else {
            Order::Ascending
        },
        rate: args.rate,
        connections: (args.connections > 0).then_some(args.connections.into()),
        mode: match (args.verify_only, args.resume) {
            (true, true) => {
                let names = "--verify-only, --resume";
                return Err(setting(names, "both", "the first loads nothing; give one"));
            }
            (true, false) if args.dry_run => {
                let names = "--verify-only, --dry-run";
                return Err(setting(names, "both", "neither loads anything; give one"));
            }
            (true, false) => SeedMode::VerifyOnly,
            (false, true) if !args.ttl.is_zero() => {
                let names = "--resume, --ttl";
                let mend = "what expires meanwhile cannot be gone on from; load it anew";
                return Err(setting(names, "both", mend));
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

fn bench(args: BenchArgs) -> Result<BenchConfig, ConfigError> {
    let mode = bench_mode(&args)?;
    // Empty, it takes back what a variable or the file says.
    let given = args.stages.clone().filter(|stages| !stages.0.is_empty());
    let stages = given.unwrap_or_else(|| Stages::steady(args.rps, args.duration));
    check_schedule(&stages, args.warmup)?;
    check_generator(&args)?;
    let mut preset = args.preset;
    preset.mix = args.workload.unwrap_or(preset.mix);
    preset.keys_dist = args.keys_dist.unwrap_or(preset.keys_dist);
    Ok(BenchConfig {
        mode,
        shard: args.shard,
        start_at: args.start_at,
        merge: args.merge,
        target: args.target.parse()?,
        token: Token::read(args.token_file.as_deref())?,
        store: store(args.store, args.store_timeout)?.read_by(Fetch::Mget, Reads::Direct),
        stages,
        arrivals: args.arrivals,
        warmup: args.warmup,
        keys: args.keys,
        preset,
        keys_per_request: args.keys_per_request,
        verify: share("--verify", args.verify)?,
        max_miss: share("--max-miss", args.max_miss)?,
        slos: args.slo,
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
            compare: args.compare,
            live: args.live,
        },
    })
}

fn bench_mode(args: &BenchArgs) -> Result<BenchMode, ConfigError> {
    let asked = [
        (args.layers, BenchMode::Layers),
        (args.find_max, BenchMode::FindMax),
        (args.self_test, BenchMode::SelfTest),
        (!args.merge.is_empty(), BenchMode::Merge),
    ];
    let mut asked = asked.into_iter().filter(|(asked, _)| *asked);
    let mode = asked.next().map_or(BenchMode::Once, |(_, mode)| mode);
    if asked.next().is_some() {
        let names = "--layers, --find-max, --self-test, --merge";
        return Err(setting(names, "several", "give one of them at a time"));
    }
    let of_a_run = [
        ("--json", args.json.is_some()),
        ("--compare", args.compare.is_some()),
        ("--out", args.out.is_some()),
        ("--shard", args.shard != Shard::WHOLE),
        ("--start-at", args.start_at.is_some()),
    ];
    let unfit: &[&str] = match mode {
        BenchMode::Once => &[],
        BenchMode::Merge => &["--out", "--shard", "--start-at"],
        _ => &["--json", "--compare", "--out", "--shard", "--start-at"],
    };
    let given = |name: &&&str| of_a_run.contains(&(**name, true));
    if let Some(name) = unfit.iter().find(given) {
        let mend = match mode {
            BenchMode::Merge => "it belongs to a run, and --merge makes none; --json is written",
            _ => "it belongs to one run, and --layers, --find-max and --self-test make several",
        };
        return Err(setting(name, "given", mend));
    }
    if let Some(start_at) = args.start_at {
        let left = start_at.duration_since(SystemTime::now());
        if left.is_err() || left.is_ok_and(|left| left > MAX_START_IN) {
            let value = humantime::format_rfc3339_seconds(start_at).to_string();
            return Err(setting(
                "--start-at",
                &value,
                "give a moment within the next day",
            ));
        }
    }
    Ok(mode)
}

fn share(name: &str, value: f64) -> Result<f64, ConfigError> {
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(setting(name, &value.to_string(), "a share is 0 to 1"))
}

fn check_schedule(stages: &Stages, warmup: Duration) -> Result<(), ConfigError> {
    let first = stages
        .0
        .first()
        .map_or(0.0, |stage| stage.from.per_second());
    let warm_arrivals = first * warmup.as_secs_f64();
    if warm_arrivals + stages.arrivals() > MAX_ARRIVALS {
        return Err(setting(
            "--rps × (--warmup + --duration)",
            &format!("{:.0} arrivals", warm_arrivals + stages.arrivals()),
            "that is more than 10^12; shorten the run",
        ));
    }
    if stages.arrivals() < 1.0 {
        return Err(setting(
            "--rps × --duration",
            &format!("{} arrivals", stages.arrivals()),
            "that is less than one arrival; lengthen the run",
        ));
    }
    Ok(())
}

fn check_generator(args: &BenchArgs) -> Result<(), ConfigError> {
    if args.tick > MAX_TICK {
        return Err(setting(
            "--tick",
            &humantime::format_duration(args.tick).to_string(),
            "give at most 10ms: timeouts and signals are looked at between ticks",
        ));
    }
    if args.tick > args.max_lag {
        return Err(setting(
            "--tick",
            &humantime::format_duration(args.tick).to_string(),
            "it would cause more lag than --max-lag allows; shorten it",
        ));
    }
    if args.connections < u32::from(args.threads) {
        return Err(setting(
            "--connections",
            &args.connections.to_string(),
            &format!(
                "give at least one for each of the {} --threads",
                args.threads
            ),
        ));
    }
    if args.max_in_flight < args.connections {
        return Err(setting(
            "--max-in-flight",
            &args.max_in_flight.to_string(),
            &format!(
                "the {} --connections can never all be used; raise it",
                args.connections
            ),
        ));
    }
    Ok(())
}

fn inspect(args: InspectArgs) -> Result<InspectConfig, ConfigError> {
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

fn check_key_prefix(prefix: &str) -> Result<(), ConfigError> {
    let longest = MAX_KEY_BYTES - MAX_INDEX_DIGITS;
    if prefix.len() <= longest {
        return Ok(());
    }
    Err(setting(
        "--key-prefix",
        &format!("{} bytes", prefix.len()),
        &format!("give at most {longest} bytes: a key has at most {MAX_KEY_BYTES}"),
    ))
}

fn setting(name: &str, value: &str, mend: &str) -> ConfigError {
    ConfigError::Setting(format!("invalid value '{value}' for {name}: {mend}"))
}

/// Takes any text for a settings file, a store URL and each kind of value; panics where it must not.
#[cfg(feature = "fuzzing")]
pub fn fuzz(text: &str) {
    use crate::load::{KeysDist, Mix};
    if let Ok(settings) = FileSettings::parse(std::path::Path::new("any.toml"), text) {
        let _ = settings.as_defaults_of(Cli::command());
    }
    if let Ok((url @ StoreUrl::Tcp(_), _)) = StoreUrl::parse(text) {
        let again = StoreUrl::parse(&url.to_string()).map(|(again, _)| again.to_string());
        assert_eq!(again.ok(), Some(url.to_string()));
    }
    let _ = (text.parse::<Target>(), text.parse::<Slos>());
    let _ = (text.parse::<Rate>(), text.parse::<KeyCount>());
    let _ = (text.parse::<Mix>(), text.parse::<KeysDist>());
    let _ = (
        text.parse::<Shard>(),
        text.parse::<crate::units::ValueSize>(),
    );
    if let Ok(stages) = text.parse::<Stages>() {
        assert_eq!(stages.to_string().parse::<Stages>().ok(), Some(stages));
    }
}

#[cfg(test)]
mod tests {
    use super::file::{dotted, settings_of};
    use super::*;

    const FILE: &str = include_str!("../../config/kvpoc.toml");

    fn file(text: &str) -> Result<FileSettings, ConfigError> {
        FileSettings::parse(Path::new("test.toml"), text)
    }

    fn message(text: &str) -> String {
        let refused = file(text).and_then(|settings| settings.as_defaults_of(Cli::command()));
        refused.map(|_| ()).expect_err(text).to_string()
    }

    fn load_line(line: &str) -> Result<Job, ConfigError> {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        load(&arguments)
    }

    /// What `kvpoc.toml` says of a command's setting, its own section first.
    fn value_of<'a>(settings: &'a FileSettings, command: &str, key: &str) -> Option<&'a str> {
        let in_section = |section: &str| {
            let mut entries = settings.entries.iter();
            entries.find(|entry| entry.0 == section && entry.1 == key)
        };
        let entry = in_section(command).or_else(|| in_section(""))?;
        Some(&entry.2)
    }

    #[test]
    fn the_commented_file_holds_every_setting_with_its_default() {
        let settings = file(FILE).expect("the file is valid");
        settings
            .as_defaults_of(Cli::command())
            .expect("all of it is known");
        for command in Cli::command().get_subcommands() {
            for key in settings_of(command) {
                let name = dotted(command.get_name(), key);
                let arg = command
                    .get_arguments()
                    .find(|arg| arg.get_long() == Some(key));
                let default = arg.and_then(|arg| arg.get_default_values().first());
                let found = value_of(&settings, command.get_name(), key);
                match default {
                    Some(default) => assert_eq!(found, default.to_str(), "{name}"),
                    None => assert!(FILE.contains(&format!("\n# {key} = ")), "{name}"),
                }
            }
        }
    }

    #[test]
    fn the_commented_file_makes_the_same_jobs_as_no_file() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/kvpoc.toml");
        for command in ["seed", "serve", "bench", "inspect"] {
            let plain = load_line(&format!("kvpoc {command}")).expect("defaults");
            let filed = load_line(&format!("kvpoc {command} --config {path}")).expect("the file");
            assert_eq!(format!("{plain:?}"), format!("{filed:?}"));
        }
    }

    #[test]
    fn unknown_settings_and_sections_are_named_with_what_there_is() {
        for (text, expected) in [
            (
                "[bench]\nrpss = 1",
                "unknown setting bench.rpss; known here: arrivals, compare",
            ),
            (
                "prot = 1",
                "unknown setting prot; known here: access-log, allow-host",
            ),
            ("[benhc]\nrps = 1", "[benhc] is no section"),
            ("[bench]\nconfig = 'x'", "unknown setting bench.config"),
            (
                "[bench]\nrps = [1]",
                "bench.rps: the value is of type array",
            ),
            ("[bench\n", "line 1: "),
            ("\nstore = 'redis://:secret@h", "line 2: invalid"),
        ] {
            let found = message(text);
            assert!(found.starts_with("test.toml: "), "{found}");
            assert!(!found.contains("secret"), "{found}");
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn settings_that_exclude_one_another_are_refused_with_the_mend() {
        for (line, expected) in [
            (
                "kvpoc seed --value-size 1MiB --in-flight 1024",
                "stay below 512",
            ),
            (
                "kvpoc bench --connections 2 --threads 3",
                "at least one for each of the 3",
            ),
            ("kvpoc bench --max-in-flight 5", "128 --connections"),
            ("kvpoc bench --tick 20ms --max-lag 1s", "at most 10ms"),
            ("kvpoc bench --tick 6ms", "more lag than --max-lag"),
            (
                "kvpoc bench --rps 0.1 --duration 1s",
                "less than one arrival",
            ),
            (
                "kvpoc bench --rps 10M --duration 1day --warmup 1day",
                "more than 10^12",
            ),
            (
                "kvpoc bench --target https://localhost",
                "write http://host:port",
            ),
            ("kvpoc bench --target http://localhost/path", "in its path"),
            (
                "kvpoc bench --target localhost:8080",
                "write http://host:port",
            ),
            ("kvpoc serve --log a=b=c", "--log"),
            ("kvpoc inspect ", "1 to 511 bytes"),
            ("kvpoc bench --layers --self-test", "one of them at a time"),
            (
                "kvpoc bench --find-max --out x",
                "--find-max and --self-test make several",
            ),
            ("kvpoc bench --target http://h?x={id}", "in its path"),
            ("kvpoc bench --verify 2", "0 to 1"),
            ("kvpoc bench --max-miss=-0.1", "0 to 1"),
        ] {
            let found = load_line(line).map(|_| ()).expect_err(line).to_string();
            assert!(found.contains(expected), "{line}: {found}");
        }
    }
}
