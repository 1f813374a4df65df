//! What the user typed after `bench`.
//!
//! Enters: arguments and variables, through clap. Leaves: a [`BenchArgs`]. Must not decide anything that involves two
//! settings, so it does not know which flags exclude one another.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use clap::builder::BoolishValueParser;

use super::address::parse_socket;
use super::{STORE, StoreArgs, TargetTlsArgs};
use crate::figures::FailOn;
use crate::load::{
    Arrivals, ExpectRecords, HeaderLine, KeysDist, Mix, Preset, RequestsOrder, Shard, Speed,
    Stages, Sweep,
};
use crate::objectives::Objectives;
use crate::units::{KeyCount, Rate, parse_duration, parse_duration_or_zero, parse_moment};

/// Flags of `bench`.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch that a user turns"
)]
pub struct BenchArgs {
    /// Target: URL of kvpoc serve, URL with a path, unix:FILE, or store
    ///
    /// `http://host[:port]`, `https://host[:port]` or `host:port` of kvpoc serve; any URL with a path, in which {id}, {ids}
    /// and {key} are replaced; unix:FILE or unix:FILE:/path for a server on a Unix socket; or store, for the store itself.
    #[arg(
        long,
        env = "KVPOC_TARGET",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub target: String,

    /// Method of the requests to a URL with a path. Default: GET, or POST with a body
    #[arg(long, env = "KVPOC_METHOD", value_name = "METHOD")]
    pub method: Option<String>,

    /// Header of the requests to a URL with a path; can be repeated. In headers, URL and body, {id}, {ids}, {key} and an
    /// n in braces (the number of the request) are replaced. Put secrets into the variable, one header per line
    // clap would make a line end of that n with its braces.
    #[arg(
        long,
        short = 'H',
        env = "KVPOC_HEADER",
        hide_env_values = true,
        value_name = "NAME: VALUE"
    )]
    pub header: Vec<HeaderLine>,

    /// Body of the requests to a URL with a path; adds Content-Length and no other header
    #[arg(long, env = "KVPOC_BODY", hide_env_values = true, value_name = "TEXT")]
    pub body: Option<String>,

    /// File with that body, at most 8 MiB
    #[arg(long, env = "KVPOC_BODY_FILE", value_name = "FILE")]
    pub body_file: Option<PathBuf>,

    /// Statuses to accept from a URL with a path: 2xx, 200,201 or 200-299,404. Default: 200-299 and 304; 404 counts as a
    /// miss if the request has {id}, {ids} or {key}
    #[arg(long, env = "KVPOC_EXPECT", value_name = "STATUSES")]
    pub expect: Option<String>,

    /// Text that every accepted answer of a URL with a path must contain; otherwise the run is INVALID
    #[arg(id = "match", long = "match", env = "KVPOC_MATCH", value_name = "TEXT")]
    pub contains: Option<String>,

    /// Compare sampled answers (see --verify) of a URL with a path with the records of their keys: those of the dataset in
    /// --store, or, with --keys, of a dataset such as json,value-size=512,seed=7,key-prefix=user:. An answer without its
    /// record makes the run INVALID
    #[arg(
        long,
        env = "KVPOC_EXPECT_RECORDS",
        value_name = "WHICH",
        num_args = 0..=1,
        require_equals = true,
        default_value = "none",
        default_missing_value = "note"
    )]
    pub expect_records: ExpectRecords,

    /// File with one request per line, at most 256 MiB and 1,000,000 lines: a path, a URL of --target, or JSON with method,
    /// path, headers and body. They are sent as they are, with each --header
    #[arg(long, env = "KVPOC_REQUESTS", value_name = "FILE")]
    pub requests: Option<PathBuf>,

    /// Order of the lines of --requests: file (in turn, and again from the first) or random (drawn by --seed)
    #[arg(
        long,
        env = "KVPOC_REQUESTS_ORDER",
        value_name = "ORDER",
        default_value = "file"
    )]
    pub requests_order: RequestsOrder,

    /// Recorded requests to send again at their recorded times: an access log (common or combined format; only GET and
    /// HEAD are sent), or JSON lines with ts or time, method, path, uri or request, headers and body
    #[arg(long, env = "KVPOC_REPLAY", value_name = "FILE")]
    pub replay: Option<PathBuf>,

    /// Speed of --replay: 2 is twice as fast as recorded
    #[arg(long, env = "KVPOC_SPEED", value_name = "FACTOR", default_value = "1")]
    pub speed: Speed,

    /// File with the bearer token for the target. `KVPOC_TOKEN` takes precedence, but is sent to kvpoc serve only, never
    /// to a URL with a path
    #[arg(long, env = "KVPOC_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Drive the store, then the target, with the same load, and show what the target adds
    #[arg(long, env = "KVPOC_LAYERS", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub layers: bool,

    /// Find the highest rate that passes, starting at --rps; each try lasts --duration
    #[arg(long, env = "KVPOC_FIND_MAX", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub find_max: bool,

    /// Run at each of these rates and show latency by rate: 5k..45k/5k, or 5k,10k,20k
    #[arg(long, env = "KVPOC_SWEEP", value_name = "RATES")]
    pub sweep: Option<Sweep>,

    /// Stop a run as soon as it cannot PASS any more; --find-max always does
    #[arg(long, env = "KVPOC_ABORT", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub abort: bool,

    /// Measure the accuracy of the generator against a built-in server with known stalls; needs no target
    #[arg(long, env = "KVPOC_SELF_TEST", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub self_test: bool,

    /// Run one share of the load of several generators: 0/4 to 3/4; --rps is the total of all
    #[arg(
        long,
        env = "KVPOC_SHARD",
        value_name = "INDEX/COUNT",
        default_value = "0/1"
    )]
    pub shard: Shard,

    /// Start at this time, to synchronize several generators: 2026-11-24T12:00:00Z, or Unix seconds
    #[arg(long, env = "KVPOC_START_AT", value_name = "TIME", value_parser = parse_moment)]
    pub start_at: Option<SystemTime>,

    /// Make no run: add up the JSON results of all shards, without loss, and judge the total
    #[arg(
        long,
        env = "KVPOC_MERGE",
        value_name = "FILE",
        num_args = 1..,
        value_delimiter = ','
    )]
    pub merge: Vec<PathBuf>,

    /// Run the same load this many times, each when the target is quiet again, and report medians with intervals
    #[arg(long, env = "KVPOC_REPEAT", value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,

    /// Pause between two runs of --repeat; longer if the latencies of the target ask for it
    #[arg(long, env = "KVPOC_PAUSE", value_name = "TIME", default_value = "2s", value_parser = parse_duration_or_zero)]
    pub pause: Duration,

    /// Requests per second to send; --self-test defaults to 1,000
    #[arg(long, env = "KVPOC_RPS", value_name = "RATE", default_value = "20000")]
    pub rps: Rate,

    /// Steps and ramps, instead of --rps and --duration: 5000:30s,5000..20000:10s,20000:60s
    #[arg(long, env = "KVPOC_STAGES", value_name = "STAGES")]
    pub stages: Option<Stages>,

    /// Distribution of arrivals: constant (even spacing) or poisson (independent clients)
    #[arg(
        long,
        env = "KVPOC_ARRIVALS",
        value_name = "PROCESS",
        default_value = "constant"
    )]
    pub arrivals: Arrivals,

    /// Duration of the measured run
    #[arg(long, short = 'd', env = "KVPOC_DURATION", value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub duration: Duration,

    /// Duration of the warm-up before it, at the same load; 0s: no warm-up
    #[arg(long, env = "KVPOC_WARMUP", value_name = "TIME", default_value = "3s", value_parser = parse_duration_or_zero)]
    pub warmup: Duration,

    /// Workload and key distribution: session, session-single, twitter52, etc, ycsb-a, ycsb-b, ycsb-c
    #[arg(
        long,
        env = "KVPOC_PRESET",
        value_name = "NAME",
        default_value = "session"
    )]
    pub preset: Preset,

    /// Operations, instead of the preset's: batch, single, sessions-and-stats, mixed:95/5 (reads/writes)
    #[arg(long, env = "KVPOC_WORKLOAD", value_name = "MIX")]
    pub workload: Option<Mix>,

    /// Key distribution, instead of the preset's: uniform, zipf:0.99, hot:0.01/0.9 (keys/draws), sequential
    #[arg(long, env = "KVPOC_KEYS_DIST", value_name = "DIST")]
    pub keys_dist: Option<KeysDist>,

    /// Share of answers to compare with the expected records, besides the first 100; 0: none
    #[arg(
        long,
        env = "KVPOC_VERIFY",
        value_name = "SHARE",
        default_value = "0.01"
    )]
    pub verify: f64,

    /// Share of keys that may be missing; more makes the run INVALID, because misses are cheaper than hits
    #[arg(
        long,
        env = "KVPOC_MAX_MISS",
        value_name = "SHARE",
        default_value = "0"
    )]
    pub max_miss: f64,

    /// Objectives for a PASS, such as p99=10ms,errors=0.01%
    ///
    /// Others: p99.9=50ms, max=1s, read.p99=5ms, stage2.p99=20ms, p99=none. They add to or replace the defaults
    /// rate=99.9%, errors=0.1% and p99=100ms (the last not for a URL with a path).
    #[arg(long, env = "KVPOC_SLO", value_name = "BOUNDS", default_value = "")]
    pub slo: Objectives,

    /// Number of keys in the dataset. Default: what the target reports
    #[arg(long, env = "KVPOC_KEYS", value_name = "N")]
    pub keys: Option<KeyCount>,

    /// Keys per request
    #[arg(long, env = "KVPOC_KEYS_PER_REQUEST", value_name = "N", default_value = "15", value_parser = clap::value_parser!(u32).range(1..=128))]
    pub keys_per_request: u32,

    /// Random seed of the choice of keys
    #[arg(long, env = "KVPOC_BENCH_SEED", value_name = "N", default_value = "1")]
    pub seed: u64,

    /// Keep-alive connections; each carries one request at a time
    #[arg(long, short = 'c', env = "KVPOC_CONNECTIONS", value_name = "N", default_value = "128", value_parser = clap::value_parser!(u32).range(1..=65_000))]
    pub connections: u32,

    /// Generator threads, which share the connections and the load
    #[arg(long, env = "KVPOC_BENCH_THREADS", value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub threads: u16,

    /// Shortest sleep between sends; longer uses less CPU, but adds up to this much lag
    #[arg(long, env = "KVPOC_TICK", value_name = "TIME", default_value = "100us", value_parser = parse_duration_or_zero)]
    pub tick: Duration,

    /// Timeout of each request: of the wait for a connection, and then of the wait for the answer
    #[arg(long, env = "KVPOC_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub timeout: Duration,

    /// How long to wait for answers after the last request
    #[arg(long, env = "KVPOC_BENCH_DRAIN", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub drain: Duration,

    /// Maximum requests waiting for a connection or an answer; more are counted as unsent
    #[arg(long, env = "KVPOC_MAX_IN_FLIGHT", value_name = "N", default_value = "200000", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub max_in_flight: u32,

    /// Maximum lag p99 of the generator; above it the verdict is `GENERATOR_LIMITED`
    #[arg(long, env = "KVPOC_MAX_LAG", value_name = "TIME", default_value = "5ms", value_parser = parse_duration)]
    pub max_lag: Duration,

    /// Write the results to this file as JSON; -: print them instead of the text report
    #[arg(long, env = "KVPOC_BENCH_JSON", value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write all results to this folder: HTML report, JSON, histograms, CSV
    ///
    /// The files are report.html, report.json, latency.hlog, latency.hgrm and series.csv; of --sweep and --find-max a
    /// page with the chart, a JSON and a CSV.
    #[arg(long, short = 'o', env = "KVPOC_OUT", value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Compare with the JSON result of an earlier run
    ///
    /// With --against: compare the runs in these files with those, and make no run.
    #[arg(long, env = "KVPOC_COMPARE", value_name = "FILE", num_args = 1.., value_delimiter = ',')]
    pub compare: Vec<PathBuf>,

    /// Runs to compare those of --compare with: says for each figure whether it is better or worse by more than chance.
    /// Needs at least 4 runs on each side, from single runs or --repeat
    #[arg(long, env = "KVPOC_AGAINST", value_name = "FILE", num_args = 1.., value_delimiter = ',')]
    pub against: Vec<PathBuf>,

    /// Exit with code 4 if --compare is worse than --against by at least this much, and by more than chance: p99=+10%. For
    /// p50, p90, p99, p99.9, mean, and errors (in percent of all requests); can be repeated
    #[arg(
        long,
        env = "KVPOC_FAIL_ON",
        value_name = "BOUND",
        value_delimiter = ','
    )]
    pub fail_on: Vec<FailOn>,

    /// Serve a live report at this address, such as 127.0.0.1:8089
    #[arg(long, env = "KVPOC_LIVE", value_name = "ADDRESS", value_parser = parse_socket)]
    pub live: Option<SocketAddr>,

    /// No progress, only the result and warnings
    #[arg(long, short = 'q', env = "KVPOC_QUIET", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub quiet: bool,

    /// The settings that do not have their defaults, filled in after parsing.
    #[arg(skip)]
    pub given: Vec<(String, clap::parser::ValueSource)>,

    /// How to speak TLS with the target.
    #[command(flatten)]
    pub tls: TargetTlsArgs,

    /// How to reach the store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// Timeout of the store, for --target store and --layers
    #[arg(long, help_heading = STORE, env = "KVPOC_STORE_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub store_timeout: Duration,
}
