//! What the user typed: the command line's types and its help, nothing else.
//!
//! Enters: arguments and `KVPOC_…` variables, through clap. Leaves: one `…Args` struct per command.
//! Must not decide anything that involves two settings: that is `config`'s work.
//!
//! Every flag has a default, a variable and a key in the file, all under one name; a test in `config`
//! holds `config/kvpoc.toml` to that.

mod bench;
mod inspect;
mod seed;
mod serve;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use bench::BenchArgs;
pub use inspect::InspectArgs;
pub use seed::{SeedArgs, SyncAt};
pub use serve::{FetchArg, LogFormat, ReadFrom, Reads, ServeArgs};

const AFTER_HELP: &str = "\
Settings come from the flags, else from KVPOC_… variables, else from the file given by --config,
else from the defaults shown. The file has a section per command; see config/kvpoc.toml.

Exit codes:
  0    done; for bench: PASS
  1    seed is incomplete, the inspected key is absent, serve is not ready; for bench: TARGET_MISSED
  2    bench: GENERATOR_LIMITED
  3    bench: INVALID
  4    bench --compare … --against …: worse, by --fail-on
  64   a setting is wrong
  69   the store, the target or a file could not be used
  130  interrupted; for a single run of bench: 3, INVALID";

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
  kvpoc serve --port 8080 --health-port 8081
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
  kvpoc bench --sweep 5k..45k/5k --duration 10s --out sweep
  kvpoc bench --layers --rps 10k
  kvpoc bench --rps 500 --target http://127.0.0.1:9000/orders --body '{\"item\":{id}}' --keys 100k --expect 201
  kvpoc bench --rps 80k --shard 0/4 --start-at 2026-11-24T12:00:00Z --json 0.json
  kvpoc bench --merge 0.json 1.json 2.json 3.json
  kvpoc bench --repeat 5 --rps 5k --json new.json
  kvpoc bench --compare new.json --against old.json --fail-on p99=+10%
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
