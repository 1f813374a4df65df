//! Settings: file, environment and flags become one validated struct per command.
//!
//! Enters: arguments, the environment, a TOML file. Leaves: a [`Job`], in which nothing can be wrong any
//! more. Must not open a connection or ask the store anything.
//!
//! The file's values become the defaults of the command line before it is parsed. So the order defaults <
//! file < environment < flags is clap's own, and each setting has one name, one parser and one message.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches};

use crate::cli::{BenchArgs, Cli, Command, InspectArgs, SeedArgs, ServeArgs};
use crate::load::{Arrivals, Preset, Slos, Stages};
use crate::record::Dataset;
use crate::units::{KeyCount, MAX_KEY_BYTES, human_bytes};

/// Decimal digits of the largest index.
const MAX_INDEX_DIGITS: usize = 12;
/// What all batches of a seed may hold in memory at once.
const MAX_WINDOW_BYTES: u64 = 512 * 1024 * 1024;
/// Arrival numbers must be exact as 64-bit floating point, with room to spare.
const MAX_ARRIVALS: f64 = 1e12;

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

/// How to reach the store.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where it is.
    pub url: StoreUrl,
    /// The deadline of each operation.
    pub timeout: Duration,
}

/// Where the store is. `Display` leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A server that speaks the Redis protocol, over TCP.
    Tcp {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
        /// Who to be, if not the default user.
        username: Option<String>,
        /// The secret; never printed.
        password: Option<String>,
        /// The logical database, if not 0.
        database: Option<u8>,
    },
    /// The same over a Unix socket.
    Unix(PathBuf),
    /// The LMDB folder of this program.
    Embedded(PathBuf),
}

/// Settings of `seed`.
#[derive(Debug)]
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
    /// Summary as JSON.
    pub json: bool,
}

/// Settings of `serve`.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Where the keys are.
    pub store: StoreConfig,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Threads that answer, at least 1.
    pub threads: usize,
    /// What stands before a session's id in its key.
    pub key_prefix: String,
    /// PUT and DELETE are answered.
    pub allow_writes: bool,
    /// Sessions in one request.
    pub max_keys_per_request: usize,
    /// Connections over all threads.
    pub max_connections: usize,
    /// Time that requests under way have after the stop signal.
    pub drain: Duration,
    /// Filter of the log.
    pub log: String,
}

/// Settings of `bench`.
#[derive(Debug, Clone)]
pub struct BenchConfig {
    /// What to do with the load.
    pub mode: BenchMode,
    /// What to drive.
    pub target: Target,
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

/// What `bench` drives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A server over HTTP.
    Http {
        /// Where it is.
        url: TargetUrl,
        /// The path to ask for; `None`: the routes of `kvpoc serve`.
        template: Option<String>,
    },
    /// The store itself.
    Store,
}

/// Settings of `inspect`.
#[derive(Debug)]
pub struct InspectConfig {
    /// Where the keys are.
    pub store: StoreConfig,
    /// Which key; `None`: the store itself.
    pub key: Option<String>,
    /// Keys to look at when the store is described.
    pub sample: usize,
    /// JSON instead of text.
    pub json: bool,
}

/// An HTTP server by name and port, without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetUrl {
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
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
        Command::Serve(args) => Job::Serve(serve(args)?),
        Command::Bench(args) => Job::Bench(Box::new(bench(*args)?)),
        Command::Inspect(args) => Job::Inspect(inspect(args)?),
    })
}

fn seed(args: SeedArgs) -> Result<SeedConfig, ConfigError> {
    check_key_prefix(&args.key_prefix)?;
    let per_key = (args.value_size.bytes() + args.key_prefix.len() + MAX_INDEX_DIGITS) as u64;
    let window = per_key * u64::from(args.batch) * u64::from(args.in_flight);
    if window > MAX_WINDOW_BYTES {
        return Err(setting(
            "--batch × --in-flight",
            &format!("{} × {}", args.batch, args.in_flight),
            &format!(
                "they would hold {} in memory at this --value-size; stay below {}",
                human_bytes(window),
                human_bytes(MAX_WINDOW_BYTES)
            ),
        ));
    }
    Ok(SeedConfig {
        store: store(&args.store, args.store_timeout)?,
        dataset: Dataset {
            key_prefix: args.key_prefix,
            value_size: args.value_size,
            seed: args.seed,
        },
        keys: args.keys,
        batch: args.batch,
        in_flight: args.in_flight as usize,
        ttl: (!args.ttl.is_zero()).then_some(args.ttl),
        json: args.json,
    })
}

fn serve(args: ServeArgs) -> Result<ServeConfig, ConfigError> {
    check_key_prefix(&args.key_prefix)?;
    if let Err(error) = args.log.parse::<tracing_subscriber::EnvFilter>() {
        return Err(setting(
            "--log",
            &args.log,
            &format!("{error}; give error, warn, info, debug or a tracing filter"),
        ));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(ServeConfig {
        store: store(&args.store, args.store_timeout)?,
        listen: SocketAddr::new(args.bind, args.port),
        threads: if args.threads == 0 {
            cores
        } else {
            args.threads.into()
        },
        key_prefix: args.key_prefix,
        allow_writes: args.allow_writes,
        max_keys_per_request: args.max_keys_per_request as usize,
        max_connections: args.max_connections as usize,
        drain: args.drain,
        log: args.log,
    })
}

fn bench(args: BenchArgs) -> Result<BenchConfig, ConfigError> {
    let mode = match (args.layers, args.find_max, args.self_test) {
        (false, false, false) => BenchMode::Once,
        (true, false, false) => BenchMode::Layers,
        (false, true, false) => BenchMode::FindMax,
        (false, false, true) => BenchMode::SelfTest,
        _ => {
            let names = "--layers, --find-max, --self-test";
            return Err(setting(names, "several", "give one of them at a time"));
        }
    };
    let stages = args
        .stages
        .clone()
        .unwrap_or_else(|| Stages::steady(args.rps, args.duration));
    check_schedule(&stages, args.warmup)?;
    check_generator(&args)?;
    let mut preset = args.preset;
    preset.mix = args.workload.unwrap_or(preset.mix);
    preset.keys_dist = args.keys_dist.unwrap_or(preset.keys_dist);
    Ok(BenchConfig {
        mode,
        target: args.target.parse()?,
        store: store(&args.store, args.store_timeout)?,
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
    if let Some(key) = &args.key
        && !(1..=MAX_KEY_BYTES).contains(&key.len())
    {
        return Err(setting(
            "KEY",
            &format!("{} bytes", key.len()),
            "a key has 1 to 511 bytes",
        ));
    }
    Ok(InspectConfig {
        store: store(&args.store, args.store_timeout)?,
        key: args.key,
        sample: args.sample as usize,
        json: args.json,
    })
}

fn store(url: &str, timeout: Duration) -> Result<StoreConfig, ConfigError> {
    Ok(StoreConfig {
        url: url.parse()?,
        timeout,
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

impl std::str::FromStr for StoreUrl {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        if let Some(path) = text.strip_prefix("embedded:") {
            return path_of(text, path, "embedded:./kvpoc-data").map(Self::Embedded);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return path_of(text, path, "unix:/run/dragonfly.sock").map(Self::Unix);
        }
        tcp_store(text)
    }
}

fn path_of(text: &str, path: &str, example: &str) -> Result<PathBuf, ConfigError> {
    if path.is_empty() {
        let mend = format!("a path is missing; write for example {example}");
        return Err(setting("--store", text, &mend));
    }
    Ok(PathBuf::from(path))
}

fn tcp_store(text: &str) -> Result<StoreUrl, ConfigError> {
    const FORMS: &str = "write redis://127.0.0.1:6379, unix:PATH or embedded:DIR";
    // The text may hold a password, so no message repeats it unless it is no URL at all.
    let Ok(url) = url::Url::parse(text) else {
        let shown = if text.contains('@') { "…" } else { text };
        return Err(setting("--store", shown, FORMS));
    };
    if url.scheme() != "redis" {
        let shown = format!("{}:…", url.scheme());
        return Err(setting("--store", &shown, FORMS));
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err(setting("--store", "redis:…", "the host is missing"));
    };
    let path = url.path().trim_start_matches('/');
    let database =
        match path {
            "" => None,
            // What stands here may be the rest of a password with a slash in it.
            digits => Some(digits.parse().map_err(|_| {
                setting("--store", "redis:…", "a database is a number from 0 to 255")
            })?),
        };
    let decoded = |text: &str| {
        percent_encoding::percent_decode_str(text)
            .decode_utf8_lossy()
            .into_owned()
    };
    Ok(StoreUrl::Tcp {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port().unwrap_or(6379),
        username: (!url.username().is_empty()).then(|| decoded(url.username())),
        password: url.password().map(decoded),
        database,
    })
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => {
                write!(f, "redis://[{host}]:{port}")
            }
            Self::Tcp { host, port, .. } => write!(f, "redis://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Embedded(path) => write!(f, "embedded:{}", path.display()),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Target {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        const FORM: &str =
            "write http://host:port, a URL with {id}, {ids} or {key} in its path, or store";
        if text == "store" {
            return Ok(Self::Store);
        }
        // It may hold a password, though it must not.
        let shown = if text.contains('@') { "…" } else { text };
        let refused = || setting("--target", shown, FORM);
        let url = url::Url::parse(text).map_err(|_| refused())?;
        let host = url.host_str().ok_or_else(refused)?;
        if url.scheme() != "http" || !url.username().is_empty() || url.password().is_some() {
            return Err(refused());
        }
        // As it was typed: parsing has encoded the braces.
        let authority_at = text.find("://").map_or(0, |at| at + 3);
        let path = text[authority_at..]
            .find('/')
            .map_or("", |at| &text[authority_at + at..]);
        let template = match path {
            "" | "/" => None,
            path if path.contains(['#', ' ', '\r', '\n']) => return Err(refused()),
            path if ["{id}", "{ids}", "{key}"]
                .iter()
                .any(|part| path.contains(part)) =>
            {
                Some(path.to_owned())
            }
            _ => return Err(refused()),
        };
        Ok(Self::Http {
            url: TargetUrl {
                host: host.trim_matches(['[', ']']).to_owned(),
                port: url.port().unwrap_or(80),
            },
            template,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { url, template } => {
                write!(f, "{url}{}", template.as_deref().unwrap_or_default())
            }
            Self::Store => f.write_str("store"),
        }
    }
}

impl TargetUrl {
    /// The value of the `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

/// What a settings file holds: (section, setting, value); the section is empty at the top level.
struct FileSettings {
    file: PathBuf,
    entries: Vec<(String, String, String)>,
}

impl FileSettings {
    fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError::File {
            file: file.display().to_string(),
            reason: error.to_string(),
        })?;
        Self::parse(file, &text)
    }

    fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut settings = Self {
            file: file.to_owned(),
            entries: Vec::new(),
        };
        let table: toml::Table =
            toml::from_str(text).map_err(|error| settings.error(toml_reason(text, &error)))?;
        for (name, value) in table {
            match value {
                toml::Value::Table(section) => {
                    for (key, value) in section {
                        settings.push(&name, &key, &value)?;
                    }
                }
                value => settings.push("", &name, &value)?,
            }
        }
        Ok(settings)
    }

    fn push(&mut self, section: &str, key: &str, value: &toml::Value) -> Result<(), ConfigError> {
        let text = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(value) => value.to_string(),
            other => {
                let name = dotted(section, key);
                let kind = other.type_str();
                return Err(self.error(format!(
                    "{name}: the value is of type {kind}; give text, a number, true or false"
                )));
            }
        };
        self.entries
            .push((section.to_owned(), key.to_owned(), text));
        Ok(())
    }

    /// The command line with the file's values in place of its own defaults.
    fn as_defaults_of(&self, mut cli: clap::Command) -> Result<clap::Command, ConfigError> {
        // The top level first, so that a command's own section wins over it.
        let (top, sections): (Vec<_>, Vec<_>) =
            self.entries.iter().partition(|entry| entry.0.is_empty());
        for (section, key, value) in top.into_iter().chain(sections) {
            let names: Vec<String> = cli
                .get_subcommands()
                .filter(|command| section.is_empty() || command.get_name() == section)
                .filter(|command| has_setting(command, key))
                .map(|command| command.get_name().to_owned())
                .collect();
            if names.is_empty() {
                return Err(self.unknown(&cli, section, key));
            }
            for name in names {
                let (id, value) = (key.replace('-', "_"), value.clone());
                cli = cli.mut_subcommand(name, |command| {
                    command.mut_arg(id, |arg| arg.default_value(value))
                });
            }
        }
        Ok(cli)
    }

    fn unknown(&self, cli: &clap::Command, section: &str, key: &str) -> ConfigError {
        let known_section = section.is_empty()
            || cli
                .get_subcommands()
                .any(|command| command.get_name() == section);
        if !known_section {
            return self.error(format!(
                "[{section}] is no section; there are [seed], [serve], [bench] and [inspect]"
            ));
        }
        let mut known: Vec<&str> = cli
            .get_subcommands()
            .filter(|command| section.is_empty() || command.get_name() == section)
            .flat_map(settings_of)
            .collect();
        known.sort_unstable();
        known.dedup();
        self.error(format!(
            "unknown setting {}; known here: {}",
            dotted(section, key),
            known.join(", ")
        ))
    }

    fn error(&self, reason: String) -> ConfigError {
        ConfigError::File {
            file: self.file.display().to_string(),
            reason,
        }
    }
}

/// The message and its place, without the line itself, which may hold a password.
fn toml_reason(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let line = text
        .bytes()
        .take(start)
        .filter(|&byte| byte == b'\n')
        .count()
        + 1;
    format!("line {line}: {}", error.message())
}

fn dotted(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}

/// Names of the settings that a command takes from a file: its long flags, as typed.
fn settings_of(command: &clap::Command) -> impl Iterator<Item = &str> {
    command
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .filter(|name| !["config", "help", "version"].contains(name))
}

fn has_setting(command: &clap::Command, key: &str) -> bool {
    settings_of(command).any(|name| name == key)
}

/// Says where a refused value came from when it was not typed: clap itself names only the flag.
fn with_origin(
    mut error: clap::Error,
    arguments: &[OsString],
    settings: Option<&FileSettings>,
) -> clap::Error {
    let (Some(ContextValue::String(flag)), Some(ContextValue::String(value))) = (
        error.get(ContextKind::InvalidArg),
        error.get(ContextKind::InvalidValue),
    ) else {
        return error;
    };
    let name = flag
        .trim_start_matches("--")
        .split([' ', '='])
        .next()
        .unwrap_or_default();
    let typed = arguments.iter().any(|argument| {
        let argument = argument.to_string_lossy();
        argument == format!("--{name}") || argument.starts_with(&format!("--{name}="))
    });
    if typed {
        return error;
    }
    let from_environment = Cli::command()
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .filter(|arg| arg.get_long() == Some(name))
        .filter_map(clap::Arg::get_env)
        .find(|variable| std::env::var_os(variable).is_some_and(|set| set == value.as_str()))
        .map(|variable| variable.to_string_lossy().into_owned());
    let from_file = || {
        let settings = settings?;
        let (section, key, _) = settings
            .entries
            .iter()
            .find(|(_, key, text)| key == name && text == value)?;
        Some(format!(
            "{} in {}",
            dotted(section, key),
            settings.file.display()
        ))
    };
    if let Some(origin) = from_environment.or_else(from_file) {
        let flag = format!("{flag} (set by {origin})");
        error.insert(ContextKind::InvalidArg, ContextValue::String(flag));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../config/kvpoc.toml");

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
                "unknown setting prot; known here: allow-writes, arrivals",
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
                "kvpoc seed --batch 100000 --in-flight 1024",
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
            ("kvpoc bench --verify 2", "0 to 1"),
            ("kvpoc bench --max-miss=-0.1", "0 to 1"),
        ] {
            let found = load_line(line).map(|_| ()).expect_err(line).to_string();
            assert!(found.contains(expected), "{line}: {found}");
        }
    }

    #[test]
    fn store_urls_are_understood_or_refused_with_a_form_that_is() {
        let tcp = |text: &str| match text.parse() {
            Ok(StoreUrl::Tcp {
                host,
                port,
                username,
                password,
                database,
            }) => (host, port, username, password, database),
            other => panic!("{text}: {other:?}"),
        };
        let own = |text: &str| Some(text.to_owned());
        assert_eq!(tcp("redis://h"), ("h".into(), 6379, None, None, None));
        assert_eq!(
            tcp("redis://u:p%40ss@[::1]:7000/3"),
            ("::1".into(), 7000, own("u"), own("p@ss"), Some(3))
        );
        assert_eq!(tcp("redis://:p@h").3, own("p"));
        for (text, expected) in [
            ("unix:/run/x.sock", StoreUrl::Unix("/run/x.sock".into())),
            ("unix:///run/x.sock", StoreUrl::Unix("/run/x.sock".into())),
            ("embedded:./data", StoreUrl::Embedded("./data".into())),
        ] {
            assert_eq!(text.parse::<StoreUrl>().ok(), Some(expected));
        }
        for text in [
            "",
            "localhost",
            "http://h",
            "redis://",
            "redis://h/x",
            "redis://h/256",
            "embedded:",
            "unix:",
        ] {
            let error = text.parse::<StoreUrl>().expect_err(text).to_string();
            assert!(error.contains("--store"), "{error}");
        }
    }

    #[test]
    fn a_password_is_in_no_message_and_no_print() {
        for text in [
            "redis://u:secret@h",
            "redis://u:secret@h/x",
            "redis://u:secret@h:x",
            "rediss://u:secret@h",
        ] {
            let shown = match text.parse::<StoreUrl>() {
                Ok(url) => format!("{url} {url:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains("secret"), "{shown}");
        }
    }
}
