//! What the user typed: the command line's types and its help, nothing else.
//!
//! Enters: arguments and `KVPOC_…` variables, through clap. Leaves: one `…Args` struct per command.
//! Must not decide anything that involves two settings: that is `config`'s work.
//!
//! Every flag has a default, a variable and a key in the file, all under one name; a test in `config`
//! holds `config/kvpoc.toml` to that.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::load::{Arrivals, KeysDist, Mix, Preset, Shard, Slos, Stages};
use crate::units::{
    KeyCount, Rate, ValueSize, parse_duration, parse_duration_or_zero, parse_held_bytes,
    parse_moment, parse_ttl_or_zero,
};

const AFTER_HELP: &str = "\
Settings come from the flags, else from KVPOC_… variables, else from the file given by --config,
else from the defaults shown. The file has a section per command; see config/kvpoc.toml.

Exit codes:
  0    done; for bench: PASS
  1    seed is incomplete, the inspected key is absent, serve is not ready; for bench: TARGET_MISSED
  2    bench: GENERATOR_LIMITED
  3    bench: INVALID
  64   a setting is wrong
  69   the store, the target or a file could not be used
  130  interrupted; for bench: 3, INVALID";

const STORE_HELP: &str = "\
The store: redis://[[user][:password]@]host[:port][/db], redis-cluster://HOST,HOST, \
redis-sentinel://HOST,HOST/SERVICE, rediss… for TLS, unix:PATH or embedded:DIR";

/// Proves, honestly, that an HTTP service over Dragonfly holds its load.
#[derive(Debug, Parser)]
#[command(name = "kvpoc", version, about, after_help = AFTER_HELP, propagate_version = true)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    args_override_self = true
)]
pub struct Cli {
    /// Settings file (TOML); flags and variables win over it
    #[arg(long, global = true, env = "KVPOC_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One variant per command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load a deterministic dataset as fast as the store takes it
    #[command(after_help = "\
Examples:
  kvpoc seed --keys 10000000
  kvpoc seed --keys 1M --store embedded:./kvpoc-data
  kvpoc seed --keys 10M --resume --verify
  kvpoc seed --keys 10M --verify-only --verify-sample 0.01
  kvpoc seed --keys 100k --ttl 1h --json")]
    Seed(SeedArgs),
    /// Answer HTTP over the store
    #[command(after_help = "\
Examples:
  kvpoc serve --port 8080
  kvpoc serve --port 0 --store embedded:./kvpoc-data
  kvpoc serve --check --port 8080
  KVPOC_TOKEN=… kvpoc serve --bind 0.0.0.0 --allow-writes
  curl http://127.0.0.1:8080/user/session/42
  curl 'http://127.0.0.1:8080/user/sessions?ids=1,2,3'
  curl 'http://127.0.0.1:8080/v1/keys?k=user:session:42&encoding=base64'
  curl http://127.0.0.1:8080/metrics

The dashboard is at http://127.0.0.1:8080/, every route in /openapi.json.")]
    Serve(ServeArgs),
    /// Drive a running serve open-loop, and give a verdict
    #[command(after_help = "\
Examples:
  kvpoc bench --rps 20000
  kvpoc bench --rps 20000 --duration 60s --json report.json
  kvpoc bench --rps 5k --arrivals poisson --slo p99=10ms --out report
  kvpoc bench --stages 5k:30s,5k..20k:30s,20k:60s --preset ycsb-b
  kvpoc bench --find-max --slo p99=20ms --duration 10s
  kvpoc bench --layers --rps 10k
  kvpoc bench --rps 80k --shard 0/4 --start-at 2026-11-24T12:00:00Z --json 0.json
  kvpoc bench --merge 0.json 1.json 2.json 3.json
  kvpoc bench --self-test

Latency runs from the moment an arrival is due, for every arrival, answered or not.")]
    Bench(Box<BenchArgs>),
    /// Explain keys, or the store when none is given
    #[command(after_help = "\
Examples:
  kvpoc inspect user:session:42
  kvpoc inspect user:session:42 user:session:43 --json
  kvpoc inspect")]
    Inspect(InspectArgs),
}

/// Heading of the flags in [`StoreArgs`].
const STORE: &str = "Store";

/// How to reach the store: the same flags for every command.
#[derive(Debug, Args)]
#[command(next_help_heading = STORE)]
pub struct StoreArgs {
    /// Where it is.
    #[arg(
        id = "store",
        long = "store",
        help = STORE_HELP,
        env = "KVPOC_STORE",
        hide_env_values = true,
        value_name = "URL",
        default_value = "redis://127.0.0.1:6379"
    )]
    pub url: String,

    /// User to be for the store, if the URL names none
    #[arg(long, env = "KVPOC_STORE_USER", value_name = "NAME")]
    pub store_user: Option<String>,

    /// File with the store's password; the variable `KVPOC_STORE_PASSWORD` wins over it
    #[arg(long, env = "KVPOC_STORE_PASSWORD_FILE", value_name = "FILE")]
    pub store_password_file: Option<PathBuf>,

    /// File with the certificates (PEM) that the store's is checked against, in place of the system's
    #[arg(long, env = "KVPOC_STORE_TLS_CA", value_name = "FILE")]
    pub store_tls_ca: Option<PathBuf>,

    /// File with the certificate (PEM) to show the store
    #[arg(long, env = "KVPOC_STORE_TLS_CERT", value_name = "FILE")]
    pub store_tls_cert: Option<PathBuf>,

    /// File with the private key (PEM) of that certificate
    #[arg(long, env = "KVPOC_STORE_TLS_KEY", value_name = "FILE")]
    pub store_tls_key: Option<PathBuf>,

    /// User to be for the sentinels
    #[arg(long, env = "KVPOC_SENTINEL_USER", value_name = "NAME")]
    pub sentinel_user: Option<String>,

    /// File with the sentinels' password; the variable `KVPOC_SENTINEL_PASSWORD` wins over it
    #[arg(long, env = "KVPOC_SENTINEL_PASSWORD_FILE", value_name = "FILE")]
    pub sentinel_password_file: Option<PathBuf>,
}

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

    /// Bytes of each encoded record: 256, a range such as 128..1024, or etc, after Facebook's Memcached
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

    /// Keys a second at most, for a store that others use; left out, as fast as it takes them
    #[arg(long, env = "KVPOC_SEED_RATE", value_name = "RATE")]
    pub rate: Option<Rate>,

    /// Write the keys in an order as if shuffled, drawn from the seed
    #[arg(long, env = "KVPOC_SHUFFLE", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub shuffle: bool,

    /// Connections to the store; 0: one for each of its threads, 8 at most
    #[arg(long, env = "KVPOC_SEED_CONNECTIONS", value_name = "N", default_value = "0", value_parser = clap::value_parser!(u16).range(0..=64))]
    pub connections: u16,

    /// Go on where an interrupted load of the same dataset stopped
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

    /// How long a batch that fails is tried again; 0s: not at all
    #[arg(long, env = "KVPOC_RETRY_FOR", value_name = "TIME", default_value = "30s", value_parser = parse_duration_or_zero)]
    pub retry_for: Duration,

    /// Print what would be loaded, and load nothing
    #[arg(long, env = "KVPOC_DRY_RUN", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub dry_run: bool,

    /// Load although the store will not hold it all, by an estimate from the first keys
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

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Port to listen on; 0 picks a free one
    #[arg(long, env = "KVPOC_PORT", value_name = "PORT", default_value = "8080")]
    pub port: u16,

    /// Address to listen on
    #[arg(
        long,
        env = "KVPOC_BIND",
        value_name = "IP",
        default_value = "127.0.0.1"
    )]
    pub bind: IpAddr,

    /// Threads that answer requests; 0: one per core
    #[arg(long, env = "KVPOC_SERVE_THREADS", value_name = "N", default_value = "0", value_parser = clap::value_parser!(u16).range(0..=1_024))]
    pub threads: u16,

    /// What stands before the id of a session in its key
    #[arg(
        long,
        env = "KVPOC_KEY_PREFIX",
        value_name = "TEXT",
        default_value = "user:session:"
    )]
    pub key_prefix: String,

    /// How a request's keys are read: one MGET, or as many pipelined GETs, as always from a cluster
    #[arg(long, env = "KVPOC_FETCH", value_name = "HOW", default_value = "mget")]
    pub fetch: Fetch,

    /// Who reads keys from a single server without TLS: a connection made for that, or fred, as always elsewhere
    #[arg(
        long,
        env = "KVPOC_STORE_READS",
        value_name = "WHO",
        default_value = "direct"
    )]
    pub store_reads: Reads,

    /// File with the token that every request must show; the variable `KVPOC_TOKEN` wins over it
    #[arg(long, env = "KVPOC_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Serve nothing, but ask whoever serves on this port whether it is ready: exit code 0, or 1 if it is not
    #[arg(long, env = "KVPOC_CHECK", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub check: bool,

    /// Allow writes: PUT, DELETE, /v1/mset, and commands of /pipeline
    #[arg(long, env = "KVPOC_ALLOW_WRITES", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub allow_writes: bool,

    /// Answer POST /pipeline, and POST / for a single command, as Upstash's REST API does
    #[arg(long, env = "KVPOC_UPSTASH", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub upstash: bool,

    /// Origin whose pages may read answers: `https://example.com`, or *
    #[arg(long, env = "KVPOC_CORS_ORIGIN", value_name = "ORIGIN")]
    pub cors_origin: Option<String>,

    /// Names that the server answers to on loopback without a token, besides localhost and addresses; `*`: any
    #[arg(
        long,
        env = "KVPOC_ALLOW_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub allow_host: Vec<String>,

    /// Keys, or commands, in one request
    #[arg(long, env = "KVPOC_MAX_KEYS_PER_REQUEST", value_name = "N", default_value = "128", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub max_keys_per_request: u32,

    /// Connections held open at once, over all threads
    #[arg(long, env = "KVPOC_MAX_CONNECTIONS", value_name = "N", default_value = "16384", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,

    /// Requests that may wait for the store at once, split evenly over the threads; more are answered 503
    #[arg(long, env = "KVPOC_SERVE_MAX_IN_FLIGHT", value_name = "N", default_value = "8192", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_in_flight: u32,

    /// Bytes of bodies on their way in and of answers above 64 KiB on their way out that may be held at once; beyond
    /// them the answer is 503
    #[arg(long, env = "KVPOC_MAX_HELD", value_name = "SIZE", default_value = "512MiB", value_parser = parse_held_bytes)]
    pub max_held: usize,

    /// How long a connection may take to send the head of a request, the first or the next, or to take an answer
    #[arg(long, env = "KVPOC_IDLE_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub idle_timeout: Duration,

    /// How long requests under way may take to end after SIGTERM or SIGINT
    #[arg(long, env = "KVPOC_SERVE_DRAIN", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub drain: Duration,

    /// What to log on standard error: error, warn, info, debug, or a tracing filter
    #[arg(
        long,
        env = "KVPOC_LOG",
        value_name = "FILTER",
        default_value = "info,fred=error"
    )]
    pub log: String,

    /// Log lines as text or as JSON
    #[arg(
        long,
        env = "KVPOC_LOG_FORMAT",
        value_name = "FORM",
        default_value = "text"
    )]
    pub log_format: LogFormat,

    /// Share of the requests that leave a line in the log: 0 none, 0.01 one of a hundred, 1 all
    #[arg(
        long,
        env = "KVPOC_ACCESS_LOG",
        value_name = "SHARE",
        default_value = "0"
    )]
    pub access_log: f64,

    /// How to reach the store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// How long a request waits for the store before it is answered 504
    #[arg(long, help_heading = STORE, env = "KVPOC_STORE_TIMEOUT", value_name = "TIME", default_value = "250ms", value_parser = parse_duration)]
    pub store_timeout: Duration,
}

/// How several keys are read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fetch {
    /// One MGET: one command.
    Mget,
    /// One GET for each key, sent together: as many commands as keys.
    Pipeline,
}

impl Fetch {
    /// As it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mget => "mget",
            Self::Pipeline => "pipeline",
        }
    }
}

/// Who reads keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Reads {
    /// A connection that only reads, at less cost.
    Direct,
    /// The client that does everything else.
    Fred,
}

/// What a log line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Flags of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to drive: `http://host[:port]` of a serve, another URL with {id}, {ids} or {key} in its path, or
    /// store, for the store itself
    #[arg(
        long,
        env = "KVPOC_TARGET",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub target: String,

    /// File with the token to show the target; the variable `KVPOC_TOKEN` wins over it
    #[arg(long, env = "KVPOC_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Drive the store, then the target, with the same load, and show what the target adds
    #[arg(long, env = "KVPOC_LAYERS", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub layers: bool,

    /// Look for the highest rate that passes, from --rps on; each try lasts --duration
    #[arg(long, env = "KVPOC_FIND_MAX", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub find_max: bool,

    /// Measure the generator itself, against a server with a known stall; needs nothing else
    #[arg(long, env = "KVPOC_SELF_TEST", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub self_test: bool,

    /// Take one part of the schedule, of as many generators: 0/4 to 3/4; rates are those of the whole
    #[arg(
        long,
        env = "KVPOC_SHARD",
        value_name = "INDEX/COUNT",
        default_value = "0/1"
    )]
    pub shard: Shard,

    /// Begin at this moment, for several generators at once: 2026-11-24T12:00:00Z, or Unix seconds
    #[arg(long, env = "KVPOC_START_AT", value_name = "TIME", value_parser = parse_moment)]
    pub start_at: Option<SystemTime>,

    /// Drive nothing: add up the JSON of all shards, without loss, and judge the whole
    #[arg(
        long,
        env = "KVPOC_MERGE",
        value_name = "FILE",
        num_args = 1..,
        value_delimiter = ','
    )]
    pub merge: Vec<PathBuf>,

    /// Requests per second that the schedule asks for
    #[arg(long, env = "KVPOC_RPS", value_name = "RATE", default_value = "20000")]
    pub rps: Rate,

    /// Rates one after the other, in place of --rps and --duration: 5000:30s,5000..20000:10s,20000:60s
    #[arg(long, env = "KVPOC_STAGES", value_name = "STAGES")]
    pub stages: Option<Stages>,

    /// How arrivals are spread: constant or poisson
    #[arg(
        long,
        env = "KVPOC_ARRIVALS",
        value_name = "PROCESS",
        default_value = "constant"
    )]
    pub arrivals: Arrivals,

    /// How long the measured part of the schedule is
    #[arg(long, env = "KVPOC_DURATION", value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub duration: Duration,

    /// How long the same load runs before it counts; 0s: not at all
    #[arg(long, env = "KVPOC_WARMUP", value_name = "TIME", default_value = "3s", value_parser = parse_duration_or_zero)]
    pub warmup: Duration,

    /// Workload and choice of keys: session, session-single, twitter52, etc, ycsb-a, ycsb-b, ycsb-c
    #[arg(
        long,
        env = "KVPOC_PRESET",
        value_name = "NAME",
        default_value = "session"
    )]
    pub preset: Preset,

    /// What arrivals ask for, in place of the preset's: batch, single, sessions-and-stats, mixed:95/5
    #[arg(long, env = "KVPOC_WORKLOAD", value_name = "MIX")]
    pub workload: Option<Mix>,

    /// How keys are drawn, in place of the preset's: uniform, zipf:0.99, hot:0.01/0.9, sequential
    #[arg(long, env = "KVPOC_KEYS_DIST", value_name = "DIST")]
    pub keys_dist: Option<KeysDist>,

    /// Share of the answers that are compared with the records they must hold
    #[arg(
        long,
        env = "KVPOC_VERIFY",
        value_name = "SHARE",
        default_value = "0.01"
    )]
    pub verify: f64,

    /// Share of the keys that may be missing before the run is INVALID: absent keys are cheap to read
    #[arg(
        long,
        env = "KVPOC_MAX_MISS",
        value_name = "SHARE",
        default_value = "0"
    )]
    pub max_miss: f64,

    /// What a PASS needs besides 99.9 % of the rate and at most 0.1 % of errors: p99=10ms,errors=0.1%
    #[arg(long, env = "KVPOC_SLO", value_name = "BOUNDS", default_value = "")]
    pub slo: Slos,

    /// Keys of the dataset; by default what the target says it holds
    #[arg(long, env = "KVPOC_KEYS", value_name = "N")]
    pub keys: Option<KeyCount>,

    /// Keys that each request reads
    #[arg(long, env = "KVPOC_KEYS_PER_REQUEST", value_name = "N", default_value = "15", value_parser = clap::value_parser!(u32).range(1..=128))]
    pub keys_per_request: u32,

    /// Seed that the choice of keys follows from
    #[arg(long, env = "KVPOC_BENCH_SEED", value_name = "N", default_value = "1")]
    pub seed: u64,

    /// Keep-alive connections; each carries one request at a time
    #[arg(long, env = "KVPOC_CONNECTIONS", value_name = "N", default_value = "128", value_parser = clap::value_parser!(u32).range(1..=65_000))]
    pub connections: u32,

    /// Threads that send; the connections and the arrivals are dealt out among them
    #[arg(long, env = "KVPOC_BENCH_THREADS", value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub threads: u16,

    /// Shortest sleep between arrivals: longer leaves the target more CPU and adds as much lag at most
    #[arg(long, env = "KVPOC_TICK", value_name = "TIME", default_value = "100us", value_parser = parse_duration_or_zero)]
    pub tick: Duration,

    /// How long an arrival waits for a connection, and then for its answer, before it is given up
    #[arg(long, env = "KVPOC_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub timeout: Duration,

    /// How long to wait for answers after the last arrival
    #[arg(long, env = "KVPOC_BENCH_DRAIN", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub drain: Duration,

    /// Arrivals that may wait or be answered at once; more are counted as unsent
    #[arg(long, env = "KVPOC_MAX_IN_FLIGHT", value_name = "N", default_value = "200000", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub max_in_flight: u32,

    /// Lag p99 above which the generator, not the target, is to blame
    #[arg(long, env = "KVPOC_MAX_LAG", value_name = "TIME", default_value = "5ms", value_parser = parse_duration)]
    pub max_lag: Duration,

    /// Write the results to this file as JSON; with -, print them in place of the report
    #[arg(long, env = "KVPOC_BENCH_JSON", value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write everything to this folder: report.json, report.html, latency.hlog, latency.hgrm, series.csv
    #[arg(long, env = "KVPOC_OUT", value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Compare with the JSON of an earlier run
    #[arg(long, env = "KVPOC_COMPARE", value_name = "FILE")]
    pub compare: Option<PathBuf>,

    /// Show the report while it grows, at this address: 127.0.0.1:8089
    #[arg(long, env = "KVPOC_LIVE", value_name = "ADDRESS")]
    pub live: Option<SocketAddr>,

    /// How to reach the store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// How long the store may take, for --target store and --layers
    #[arg(long, help_heading = STORE, env = "KVPOC_STORE_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub store_timeout: Duration,
}

/// Flags of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The keys to look up; without one, the store is described
    #[arg(value_name = "KEY")]
    pub keys: Vec<String>,

    /// Keys to look at when the store is described
    #[arg(long, env = "KVPOC_SAMPLE", value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub sample: u32,

    /// Print JSON
    #[arg(long, env = "KVPOC_INSPECT_JSON", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub json: bool,

    /// How to reach the store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// How long one question to the store may take
    #[arg(long, help_heading = STORE, env = "KVPOC_STORE_TIMEOUT", value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub store_timeout: Duration,
}
