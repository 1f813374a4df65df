//! What the user typed after `serve`.
//!
//! Enters: arguments and variables, through clap. Leaves: a [`ServeArgs`]. Must not decide anything that involves two
//! settings, nor hold a token: it comes from a variable or a file, and `config` reads both.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::address::parse_ip;
use super::{STORE, StoreArgs};
use crate::units::{
    MAX_KEYS_PER_REQUEST, parse_duration, parse_duration_or_zero, parse_held_bytes,
};

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Port to listen on; 0: any free port
    #[arg(
        long,
        short = 'p',
        env = "KVPOC_PORT",
        value_name = "PORT",
        default_value = "8080"
    )]
    pub port: u16,

    /// Extra port for /livez, /readyz and /metrics, which answers however many connections are open. Default: none;
    /// --port answers them in any case
    #[arg(long, env = "KVPOC_HEALTH_PORT", value_name = "PORT")]
    pub health_port: Option<u16>,

    /// Address to listen on: an IP address or localhost
    #[arg(
        long,
        env = "KVPOC_BIND",
        value_name = "IP",
        default_value = "127.0.0.1",
        value_parser = parse_ip
    )]
    pub bind: IpAddr,

    /// Worker threads; 0: one per core
    #[arg(long, env = "KVPOC_SERVE_THREADS", value_name = "N", default_value = "0", value_parser = clap::value_parser!(u16).range(0..=1_024))]
    pub threads: u16,

    /// Key prefix of sessions
    #[arg(
        long,
        env = "KVPOC_KEY_PREFIX",
        value_name = "TEXT",
        default_value = "user:session:"
    )]
    pub key_prefix: String,

    /// How to read the keys of a request: mget (one MGET), pipeline (pipelined GETs; always used with a cluster), or auto
    /// (whichever is cheaper for this store)
    #[arg(long, env = "KVPOC_FETCH", value_name = "HOW", default_value = "auto")]
    pub fetch: FetchArg,

    /// Client that reads keys: direct (own connections, less CPU) or fred (the client library)
    #[arg(
        long,
        env = "KVPOC_STORE_READS",
        value_name = "WHO",
        default_value = "direct"
    )]
    pub store_reads: Reads,

    /// Cluster nodes to read from: master, or replica (may be slightly behind)
    #[arg(
        long,
        env = "KVPOC_READ_FROM",
        value_name = "WHO",
        default_value = "master"
    )]
    pub read_from: ReadFrom,

    /// File with the bearer token that clients must send; `KVPOC_TOKEN` takes precedence
    #[arg(long, env = "KVPOC_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Check whether the server on this port is ready, then exit: code 0 ready, 1 not ready
    #[arg(long, env = "KVPOC_CHECK", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub check: bool,

    /// Allow writes: PUT, DELETE, /v1/mset, and commands of /pipeline and /multi-exec
    #[arg(long, env = "KVPOC_ALLOW_WRITES", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub allow_writes: bool,

    /// Enable the Upstash REST API: POST /pipeline, POST /multi-exec, and POST / for a single command
    #[arg(long, env = "KVPOC_UPSTASH", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub upstash: bool,

    /// Origin allowed by CORS: `https://example.com`, or *
    #[arg(long, env = "KVPOC_CORS_ORIGIN", value_name = "ORIGIN")]
    pub cors_origin: Option<String>,

    /// Host names accepted without a token, besides localhost and IP addresses; `*`: any
    #[arg(
        long,
        env = "KVPOC_ALLOW_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub allow_host: Vec<String>,

    /// Maximum keys or commands per request
    #[arg(long, env = "KVPOC_MAX_KEYS_PER_REQUEST", value_name = "N", default_value = "128", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_KEYS_PER_REQUEST)))]
    pub max_keys_per_request: u32,

    /// Maximum open connections, over all threads
    #[arg(long, env = "KVPOC_MAX_CONNECTIONS", value_name = "N", default_value = "16384", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,

    /// Maximum requests waiting for the store, split evenly over the threads; more are answered 503
    #[arg(long, env = "KVPOC_SERVE_MAX_IN_FLIGHT", value_name = "N", default_value = "8192", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_in_flight: u32,

    /// Memory limit for request bodies, and for values and answers above 64 KiB; requests beyond it are answered 503
    #[arg(long, env = "KVPOC_MAX_HELD", value_name = "SIZE", default_value = "512MiB", value_parser = parse_held_bytes)]
    pub max_held: usize,

    /// Timeout of a request head, from its first byte
    #[arg(long, env = "KVPOC_HEAD_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub head_timeout: Duration,

    /// Timeout of an idle connection, and of a client that does not take its answer
    #[arg(long, env = "KVPOC_IDLE_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub idle_timeout: Duration,

    /// Time for running requests to finish after SIGTERM or SIGINT
    #[arg(long, env = "KVPOC_SERVE_DRAIN", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub drain: Duration,

    /// Log level on standard error: error, warn, info, debug, or a tracing filter
    #[arg(
        long,
        env = "KVPOC_LOG",
        value_name = "FILTER",
        default_value = "info,fred=error"
    )]
    pub log: String,

    /// Log format: text or json
    #[arg(
        long,
        env = "KVPOC_LOG_FORMAT",
        value_name = "FORM",
        default_value = "text"
    )]
    pub log_format: LogFormat,

    /// Share of requests to log: 0 none, 0.01 one in 100, 1 all
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

    /// How long to wait for the store at the start; requests are answered 503 meanwhile. 0s: do not wait. Default: no
    /// limit
    #[arg(long, help_heading = STORE, env = "KVPOC_WAIT_FOR_STORE", value_name = "TIME", value_parser = parse_duration_or_zero)]
    pub wait_for_store: Option<Duration>,

    /// Timeout of the store; a request that waits longer is answered 504
    #[arg(long, help_heading = STORE, env = "KVPOC_STORE_TIMEOUT", value_name = "TIME", default_value = "250ms", value_parser = parse_duration)]
    pub store_timeout: Duration,
}

/// How several keys are read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FetchArg {
    /// Whichever is cheaper for this store.
    Auto,
    /// One MGET command.
    Mget,
    /// One GET per key, pipelined.
    Pipeline,
}

/// Who reads keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Reads {
    /// Own connections that only read: less CPU.
    Direct,
    /// The fred client library.
    Fred,
}

/// Who of a cluster is asked for keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReadFrom {
    /// The master of the slot.
    Master,
    /// A replica of the slot, or its master if no replica answers; may be slightly behind.
    Replica,
}

/// What a log line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
}
