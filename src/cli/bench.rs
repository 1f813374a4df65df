//! What the user typed after `bench`.
//!
//! Enters: arguments and variables, through clap. Leaves: a [`BenchArgs`]. Must not decide anything that involves two
//! settings, so it does not know which flags exclude one another.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use clap::builder::BoolishValueParser;

use super::{STORE, StoreArgs};
use crate::figures::FailOn;
use crate::load::{Arrivals, HeaderLine, KeysDist, Mix, Preset, Shard, Stages, Sweep};
use crate::objectives::Objectives;
use crate::units::{KeyCount, Rate, parse_duration, parse_duration_or_zero, parse_moment};

/// Flags of `bench`.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch that a user turns"
)]
pub struct BenchArgs {
    /// What to drive: `http://host[:port]` or `host:port` of a serve, any other URL with a path, which is sent as it is
    /// but for {id}, {ids} and {key} in it, or store, for the store itself
    #[arg(
        long,
        env = "KVPOC_TARGET",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub target: String,

    /// Method of the requests to a URL with a path: GET, or POST where there is a body, unless it is given
    #[arg(long, env = "KVPOC_METHOD", value_name = "METHOD")]
    pub method: Option<String>,

    /// Header of the requests to a URL with a path, any number of times. In it, in the URL and in the body {id}, {ids},
    /// {key} and, for the arrival's number, an n in braces are filled in. The variable has one header on each line, and
    /// is the better place for a secret
    // clap would make a line end of that n with its braces.
    #[arg(
        long,
        short = 'H',
        env = "KVPOC_HEADER",
        hide_env_values = true,
        value_name = "NAME: VALUE"
    )]
    pub header: Vec<HeaderLine>,

    /// Body of the requests to a URL with a path; its length is sent with it, and nothing else
    #[arg(long, env = "KVPOC_BODY", hide_env_values = true, value_name = "TEXT")]
    pub body: Option<String>,

    /// File with that body, of at most 8 MiB
    #[arg(long, env = "KVPOC_BODY_FILE", value_name = "FILE")]
    pub body_file: Option<PathBuf>,

    /// Statuses that are right, of a URL with a path: 2xx, 200,201 or 200-299,404. By default 200-299 and 304, and 404
    /// is a miss where {id}, {ids} or {key} is filled in
    #[arg(long, env = "KVPOC_EXPECT", value_name = "STATUSES")]
    pub expect: Option<String>,

    /// Text that a right answer of a URL with a path contains; any other makes the run INVALID
    #[arg(id = "match", long = "match", env = "KVPOC_MATCH", value_name = "TEXT")]
    pub contains: Option<String>,

    /// File with the token to show the target. The variable `KVPOC_TOKEN` wins over it, but is for a serve alone: a URL
    /// with a path of its own is shown what this file holds, or nothing
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

    /// Run at each of these rates, and show latency by rate: 5k..45k/5k, or 5k,10k,20k
    #[arg(long, env = "KVPOC_SWEEP", value_name = "RATES")]
    pub sweep: Option<Sweep>,

    /// End a run as soon as nothing can make it a PASS any more; --find-max always does
    #[arg(long, env = "KVPOC_ABORT", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub abort: bool,

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

    /// Run the same load so many times, each when the target is quiet again, and give medians with intervals; 1: once
    #[arg(long, env = "KVPOC_REPEAT", value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,

    /// How long to leave the target alone between two runs of --repeat, or longer if its latencies ask for it
    #[arg(long, env = "KVPOC_PAUSE", value_name = "TIME", default_value = "2s", value_parser = parse_duration_or_zero)]
    pub pause: Duration,

    /// Requests per second that the schedule asks for; --self-test begins at 1,000 unless it is given
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

    /// Share of the answers that are compared with the records they must hold, besides the first 100; 0: none
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

    /// What a PASS needs, beside and instead of rate=99.9%, errors=0.1% and p99=100ms (the latter not of a --target with
    /// a path of its own): p99.9=50ms, max=1s, read.p99=5ms, stage2.p99=20ms, p99=none
    #[arg(long, env = "KVPOC_SLO", value_name = "BOUNDS", default_value = "")]
    pub slo: Objectives,

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

    /// Write everything to this folder: report.json, report.html, latency.hlog, latency.hgrm, series.csv; of
    /// --sweep and --find-max a JSON, a CSV and a page with the chart
    #[arg(long, env = "KVPOC_OUT", value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Compare with the JSON of an earlier run; with --against, compare the runs of these files, of single runs and of
    /// --repeat, and drive nothing
    #[arg(long, env = "KVPOC_COMPARE", value_name = "FILE", num_args = 1.., value_delimiter = ',')]
    pub compare: Vec<PathBuf>,

    /// The runs that those of --compare are held against: says of each figure whether they are better or worse beyond
    /// chance; 4 runs a side are the least
    #[arg(long, env = "KVPOC_AGAINST", value_name = "FILE", num_args = 1.., value_delimiter = ',')]
    pub against: Vec<PathBuf>,

    /// End with exit code 4 if --compare is worse than --against by so much or more, and beyond chance: p99=+10%, for p50,
    /// p90, p99, p99.9, mean, or errors, whose percent are of all arrivals; any number of times
    #[arg(
        long,
        env = "KVPOC_FAIL_ON",
        value_name = "BOUND",
        value_delimiter = ','
    )]
    pub fail_on: Vec<FailOn>,

    /// Show the report while it grows, at this address: 127.0.0.1:8089
    #[arg(long, env = "KVPOC_LIVE", value_name = "ADDRESS")]
    pub live: Option<SocketAddr>,

    /// The settings that do not have their defaults, filled in after parsing.
    #[arg(skip)]
    pub given: Vec<(String, clap::parser::ValueSource)>,

    /// How to reach the store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// How long the store may take, for --target store and --layers
    #[arg(long, help_heading = STORE, env = "KVPOC_STORE_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub store_timeout: Duration,
}
