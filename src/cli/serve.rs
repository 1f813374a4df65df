//! What the user typed after `serve`.
//!
//! Enters: arguments and variables, through clap. Leaves: a [`ServeArgs`]. Must not decide anything that involves two
//! settings, nor hold a token: it comes from a variable or a file, and `config` reads both.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::{STORE, StoreArgs};
use crate::units::{
    MAX_KEYS_PER_REQUEST, parse_duration, parse_duration_or_zero, parse_held_bytes,
};

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Port to listen on; 0 picks a free one
    #[arg(long, env = "KVPOC_PORT", value_name = "PORT", default_value = "8080")]
    pub port: u16,

    /// Port of its own for /livez, /readyz and /metrics, which are answered there however many connections are open; left
    /// out, there is none, and they are answered on --port
    #[arg(long, env = "KVPOC_HEALTH_PORT", value_name = "PORT")]
    pub health_port: Option<u16>,

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

    /// How a request's keys are read: one MGET, or as many pipelined GETs, as always from a cluster; auto: what costs the
    /// store less, by its engine and threads
    #[arg(long, env = "KVPOC_FETCH", value_name = "HOW", default_value = "auto")]
    pub fetch: FetchArg,

    /// Who reads keys: connections made for that, one to each server, or fred, who does all else
    #[arg(
        long,
        env = "KVPOC_STORE_READS",
        value_name = "WHO",
        default_value = "direct"
    )]
    pub store_reads: Reads,

    /// Who of a cluster is asked for keys: masters, or their replicas where these answer, which may be a moment behind
    #[arg(
        long,
        env = "KVPOC_READ_FROM",
        value_name = "WHO",
        default_value = "master"
    )]
    pub read_from: ReadFrom,

    /// File with the token that every request must show; the variable `KVPOC_TOKEN` wins over it
    #[arg(long, env = "KVPOC_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Serve nothing, but ask whoever serves on this port whether it is ready: exit code 0, or 1 if it is not
    #[arg(long, env = "KVPOC_CHECK", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub check: bool,

    /// Allow writes: PUT, DELETE, /v1/mset, and commands of /pipeline and /multi-exec
    #[arg(long, env = "KVPOC_ALLOW_WRITES", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub allow_writes: bool,

    /// Answer POST /pipeline, POST /multi-exec, and POST / for a single command, as Upstash's REST API does
    #[arg(long, env = "KVPOC_UPSTASH", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub upstash: bool,

    /// Origin whose pages may read answers: `https://example.com`, or *
    #[arg(long, env = "KVPOC_CORS_ORIGIN", value_name = "ORIGIN")]
    pub cors_origin: Option<String>,

    /// Names that the server answers to without a token, besides localhost and addresses; `*`: any
    #[arg(
        long,
        env = "KVPOC_ALLOW_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub allow_host: Vec<String>,

    /// Keys, or commands, in one request
    #[arg(long, env = "KVPOC_MAX_KEYS_PER_REQUEST", value_name = "N", default_value = "128", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_KEYS_PER_REQUEST)))]
    pub max_keys_per_request: u32,

    /// Connections held open at once, over all threads
    #[arg(long, env = "KVPOC_MAX_CONNECTIONS", value_name = "N", default_value = "16384", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,

    /// Requests that may wait for the store at once, split evenly over the threads; more are answered 503
    #[arg(long, env = "KVPOC_SERVE_MAX_IN_FLIGHT", value_name = "N", default_value = "8192", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_in_flight: u32,

    /// Bytes of bodies on their way in, and of values and answers above 64 KiB, that may be held at once; beyond them the
    /// answer is 503
    #[arg(long, env = "KVPOC_MAX_HELD", value_name = "SIZE", default_value = "512MiB", value_parser = parse_held_bytes)]
    pub max_held: usize,

    /// How long the head of a request may take, from its first byte on
    #[arg(long, env = "KVPOC_HEAD_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub head_timeout: Duration,

    /// How long a connection may wait for its first request, or the next, or take to receive an answer
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

    /// How long the store may take to come after the start, while requests are answered 503; 0s: it must be there; left
    /// out, it is waited for as long as it takes
    #[arg(long, help_heading = STORE, env = "KVPOC_WAIT_FOR_STORE", value_name = "TIME", value_parser = parse_duration_or_zero)]
    pub wait_for_store: Option<Duration>,

    /// How long a request waits for the store before it is answered 504
    #[arg(long, help_heading = STORE, env = "KVPOC_STORE_TIMEOUT", value_name = "TIME", default_value = "250ms", value_parser = parse_duration)]
    pub store_timeout: Duration,
}

/// How several keys are read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FetchArg {
    /// What costs the store less, by its engine and threads.
    Auto,
    /// One MGET: one command.
    Mget,
    /// One GET for each key, sent together: as many commands as keys.
    Pipeline,
}

/// Who reads keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Reads {
    /// A connection that only reads, at less cost.
    Direct,
    /// The client that does everything else.
    Fred,
}

/// Who of a cluster is asked for keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReadFrom {
    /// The master of their slot.
    Master,
    /// One of its replicas, or the master when none answers.
    Replica,
}

/// What a log line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
