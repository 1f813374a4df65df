//! What the user typed: the command line's types and its help, nothing else.
//!
//! Enters: arguments and `KVPOC_…` variables, through clap. Leaves: one `…Args` struct per command.
//! Must not decide anything that involves two settings: that is `config`'s work.
//!
//! Every flag has a default, a variable and a key in the file, all under one name; a test in `config`
//! holds `config/kvpoc.toml` to that.

mod address;
mod bench;
mod generate;
mod help;
mod inspect;
mod seed;
mod serve;
mod target_tls;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub use bench::BenchArgs;
pub use generate::{completions, manual};
pub use help::arranged;
pub use inspect::InspectArgs;
pub use seed::{SeedArgs, SyncAt};
pub use serve::{FetchArg, LogFormat, ReadFrom, Reads, ServeArgs};
pub use target_tls::TargetTlsArgs;

const AFTER_HELP: &str = "\
Precedence of settings: flags, KVPOC_… variables, the file given by --config, defaults.
config/kvpoc.toml lists every setting.

Exit codes:
  0    done; bench: PASS
  1    bench: TARGET_MISSED; seed: incomplete; inspect: key not found; serve --check: not ready
  2    bench: GENERATOR_LIMITED
  3    bench: INVALID
  4    bench --fail-on: worse
  64   invalid setting
  69   store, target or file unavailable
  130  interrupted (a single run of bench: 3)";

const BRIEF: &str = "\
kvpoc COMMAND -h shows the common flags of a command, kvpoc COMMAND --help all of them.
kvpoc --help shows the exit codes.";

const STORE_HELP: &str = "\
Store URL: redis://[[user][:password]@]host[:port][/db], redis-cluster://HOST,HOST, \
redis-sentinel://HOST,HOST/SERVICE, rediss… for TLS, unix:PATH or embedded:DIR";

const ABOUT: &str = "\
Measures whether an HTTP service over DragonflyDB holds a given load, such as 20,000 requests/s and \
300,000 key operations/s on 10 million keys";

/// Flags of all commands, and the command.
#[derive(Debug, Parser)]
#[command(name = "kvpoc", version, about = ABOUT, after_help = BRIEF, after_long_help = AFTER_HELP, propagate_version = true)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    args_override_self = true
)]
pub struct Cli {
    /// Settings file (TOML); flags and variables take precedence
    #[arg(long, global = true, env = "KVPOC_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One variant per command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load a deterministic dataset, as fast as the store accepts it
    #[command(after_help = "\
Examples:
  kvpoc seed --keys 10000000
  kvpoc seed --keys 1M --store embedded:./kvpoc-data
  kvpoc seed --keys 10M --resume --verify
  kvpoc seed --keys 10M --verify-only --verify-sample 0.01
  kvpoc seed --keys 100k --ttl 1h --json")]
    Seed(SeedArgs),
    /// Serve the store over HTTP
    #[command(after_help = "\
Examples:
  kvpoc serve --port 8080
  kvpoc serve --port 0 --store embedded:./kvpoc-data
  kvpoc serve --check --port 8080
  KVPOC_TOKEN=… kvpoc serve --bind 0.0.0.0 --allow-writes
  curl http://127.0.0.1:8080/user/session/42

Dashboard: http://127.0.0.1:8080/. All routes: /openapi.json.")]
    #[command(after_long_help = "\
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

Dashboard: http://127.0.0.1:8080/. All routes: /openapi.json.")]
    Serve(ServeArgs),
    /// Drive an HTTP service at a fixed rate (open loop), and judge the result
    #[command(after_help = "\
Examples:
  kvpoc bench --rps 20000
  kvpoc bench --rps 5k --duration 60s --slo p99=10ms --out report
  kvpoc bench --find-max --slo p99=20ms --duration 10s
  kvpoc bench --rps 500 --target 'http://127.0.0.1:9000/orders/{id}' --keys 100k

Latency runs from the moment a request is due, whether it is answered or not.
Exit codes: 0 PASS, 1 TARGET_MISSED, 2 GENERATOR_LIMITED, 3 INVALID.")]
    #[command(after_long_help = "\
Examples:
  kvpoc bench --rps 20000
  kvpoc bench --rps 20000 --duration 60s --json report.json
  kvpoc bench --rps 5k --arrivals poisson --slo p99=10ms --out report
  kvpoc bench --stages 5k:30s,5k..20k:30s,20k:60s --preset ycsb-b
  kvpoc bench --find-max --slo p99=20ms --duration 10s
  kvpoc bench --sweep 5k..45k/5k --duration 10s --out sweep
  kvpoc bench --layers --rps 10k
  kvpoc bench --rps 2k --target https://localhost:8443 --ca ca.pem
  kvpoc bench --rps 500 --target http://127.0.0.1:9000/orders --body '{\"item\":{id}}' --keys 100k --expect 201
  kvpoc bench --rps 80k --shard 0/4 --start-at 2026-11-24T12:00:00Z --json 0.json
  kvpoc bench --merge 0.json 1.json 2.json 3.json
  kvpoc bench --repeat 5 --rps 5k --json new.json
  kvpoc bench --compare new.json --against old.json --fail-on p99=+10%
  kvpoc bench --self-test

Latency runs from the moment a request is due, whether it is answered or not.
Exit codes: 0 PASS, 1 TARGET_MISSED, 2 GENERATOR_LIMITED, 3 INVALID; the rest as in kvpoc --help.")]
    Bench(Box<BenchArgs>),
    /// Describe keys, or the whole store without a key
    #[command(after_help = "\
Examples:
  kvpoc inspect user:session:42
  kvpoc inspect user:session:42 user:session:43 --json
  kvpoc inspect")]
    Inspect(InspectArgs),
    /// Print a completion script for a shell
    #[command(
        hide = true,
        after_help = "Example:\n  kvpoc completions bash > ~/.local/share/bash-completion/completions/kvpoc"
    )]
    Completions {
        /// Shell to complete in
        shell: Shell,
    },
    /// Print a manual page in roff format
    #[command(
        hide = true,
        after_help = "Example:\n  kvpoc man bench > ~/.local/share/man/man1/kvpoc-bench.1"
    )]
    Man {
        /// Command to describe; without one, kvpoc itself
        #[arg(value_name = "COMMAND", value_parser = ["seed", "serve", "bench", "inspect"])]
        command: Option<String>,
    },
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

    /// User name for the store, if the URL has none
    #[arg(long, env = "KVPOC_STORE_USER", value_name = "NAME")]
    pub store_user: Option<String>,

    /// File with the password of the store; `KVPOC_STORE_PASSWORD` takes precedence
    #[arg(long, env = "KVPOC_STORE_PASSWORD_FILE", value_name = "FILE")]
    pub store_password_file: Option<PathBuf>,

    /// CA certificates (PEM) to verify the store with, instead of those of the system
    #[arg(long, env = "KVPOC_STORE_TLS_CA", value_name = "FILE")]
    pub store_tls_ca: Option<PathBuf>,

    /// Client certificate (PEM) for the store
    #[arg(long, env = "KVPOC_STORE_TLS_CERT", value_name = "FILE")]
    pub store_tls_cert: Option<PathBuf>,

    /// Private key (PEM) of the client certificate
    #[arg(long, env = "KVPOC_STORE_TLS_KEY", value_name = "FILE")]
    pub store_tls_key: Option<PathBuf>,

    /// User name for the sentinels
    #[arg(long, env = "KVPOC_SENTINEL_USER", value_name = "NAME")]
    pub sentinel_user: Option<String>,

    /// File with the password of the sentinels; `KVPOC_SENTINEL_PASSWORD` takes precedence
    #[arg(long, env = "KVPOC_SENTINEL_PASSWORD_FILE", value_name = "FILE")]
    pub sentinel_password_file: Option<PathBuf>,
}
