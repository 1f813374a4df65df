//! What `-h` and `--help` show: `-h` one screen with the flags that people use, `--help` all flags under headings.
//!
//! Enters: the command line as it is derived. Leaves: the same, arranged. Must not change how anything is parsed; a flag
//! that is in no table here stands at the top of `--help`.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// Flags that every command has.
const GENERAL: &str = "General";

/// For each command: the flags of `-h`, then the headings of `--help` with theirs.
type Table = (
    &'static str,
    &'static [&'static str],
    &'static [(&'static str, &'static [&'static str])],
);

const TABLES: [Table; 4] = [SEED, SERVE, BENCH, INSPECT];

const SEED: Table = (
    "seed",
    &[
        "keys",
        "value_size",
        "key_prefix",
        "ttl",
        "rate",
        "resume",
        "verify",
        "verify_only",
        "dry_run",
        "quiet",
        "json",
        "store",
    ],
    &[
        (
            "Dataset",
            &[
                "keys",
                "from",
                "key",
                "format",
                "value_size",
                "key_prefix",
                "seed",
                "ttl",
                "ttl_jitter",
            ],
        ),
        (
            "Loading",
            &[
                "resume",
                "rate",
                "batch",
                "in_flight",
                "connections",
                "shuffle",
                "sync",
                "retry_for",
                "force",
                "dry_run",
            ],
        ),
        ("Verification", &["verify", "verify_only", "verify_sample"]),
        ("Output", &["quiet", "json"]),
        (super::STORE, STORE_FLAGS),
    ],
);

const SERVE: Table = (
    "serve",
    &[
        "port",
        "bind",
        "threads",
        "token_file",
        "allow_writes",
        "upstash",
        "health_port",
        "check",
        "log",
        "store",
    ],
    &[
        (
            "Server",
            &[
                "port",
                "bind",
                "threads",
                "health_port",
                "upstash",
                "check",
                "drain",
            ],
        ),
        (
            "Reading keys",
            &["key_prefix", "fetch", "store_reads", "read_from"],
        ),
        (
            "Access",
            &["token_file", "allow_writes", "allow_host", "cors_origin"],
        ),
        (
            "Limits",
            &[
                "max_keys_per_request",
                "max_connections",
                "max_in_flight",
                "max_held",
                "head_timeout",
                "idle_timeout",
            ],
        ),
        ("Logging", &["log", "log_format", "access_log"]),
        (
            super::STORE,
            &[
                "store",
                "store_user",
                "store_password_file",
                "store_tls_ca",
                "store_tls_cert",
                "store_tls_key",
                "sentinel_user",
                "sentinel_password_file",
                "store_timeout",
                "wait_for_store",
            ],
        ),
    ],
);

const BENCH: Table = (
    "bench",
    &[
        "target",
        "rps",
        "duration",
        "stages",
        "connections",
        "keys_per_request",
        "slo",
        "find_max",
        "out",
        "json",
        "compare",
        "quiet",
    ],
    &[
        (
            "Target",
            &[
                "target",
                "method",
                "header",
                "body",
                "body_file",
                "expect",
                "match",
                "token_file",
            ],
        ),
        (
            "Requests from a file",
            &["requests", "requests_order", "replay", "speed"],
        ),
        (
            "Load",
            &[
                "rps",
                "duration",
                "warmup",
                "stages",
                "arrivals",
                "preset",
                "workload",
                "keys_dist",
                "keys",
                "keys_per_request",
                "seed",
            ],
        ),
        (
            "Objectives",
            &[
                "slo",
                "max_miss",
                "max_lag",
                "verify",
                "expect_records",
                "abort",
            ],
        ),
        (
            "Other kinds of run",
            &[
                "find_max",
                "sweep",
                "repeat",
                "pause",
                "layers",
                "self_test",
            ],
        ),
        ("TLS of an https target", &["ca", "cert", "key", "insecure"]),
        ("Comparing runs", &["compare", "against", "fail_on"]),
        ("Several generators", &["shard", "start_at", "merge"]),
        (
            "Generator",
            &[
                "connections",
                "threads",
                "timeout",
                "drain",
                "max_in_flight",
                "tick",
            ],
        ),
        ("Output", &["out", "json", "live", "quiet"]),
        (super::STORE, STORE_FLAGS),
    ],
);

const INSPECT: Table = (
    "inspect",
    &["sample", "json", "store"],
    &[("Output", &["sample", "json"]), (super::STORE, STORE_FLAGS)],
);

const STORE_FLAGS: &[&str] = &[
    "store",
    "store_user",
    "store_password_file",
    "store_tls_ca",
    "store_tls_cert",
    "store_tls_key",
    "sentinel_user",
    "sentinel_password_file",
    "store_timeout",
];

/// Arranges the flags for the help that these arguments ask for.
#[must_use]
pub fn arranged(cli: Command, arguments: &[OsString]) -> Command {
    let is_short = arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument == "-h");
    let heading = (!is_short).then_some(GENERAL);
    let cli = cli.mut_arg("config", |arg| arg.help_heading(heading).hide_env(is_short));
    let cli = general(cli, heading);
    TABLES.iter().fold(cli, |cli, (name, common, headings)| {
        cli.mut_subcommand(name, |command| {
            let command = if is_short {
                short(command, common)
            } else {
                long(command, common, headings)
            };
            general(command, heading)
        })
    })
}

/// Help and version, where a heading can be given to them: clap's own come later, and have none.
fn general(command: Command, heading: Option<&'static str>) -> Command {
    let help = Arg::new("help")
        .short('h')
        .long("help")
        .action(ArgAction::Help)
        .help("Print help (-h: common flags, --help: all flags)");
    let version = Arg::new("version")
        .short('V')
        .long("version")
        .action(ArgAction::Version)
        .help("Print the version");
    command
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args([help, version].map(|arg| arg.help_heading(heading).display_order(1_000)))
}

/// One list, in the order of its table, without what would take a line of its own.
fn short(command: Command, common: &[&str]) -> Command {
    let command = command.mut_args(|arg| {
        let is_shown = arg.is_positional() || common.contains(&arg.get_id().as_str());
        let arg = arg.hide_short_help(!is_shown).hide_env(true);
        // Nothing but help comes of these arguments.
        if is_switch(&arg) {
            arg.action(ArgAction::SetTrue)
                .num_args(0)
                .require_equals(false)
        } else {
            without_trivial_default(arg).hide_possible_values(true)
        }
    });
    ordered(command, common, None)
}

fn long(
    command: Command,
    common: &[&str],
    headings: &[(&'static str, &'static [&'static str])],
) -> Command {
    let command = command.mut_args(|arg| {
        let is_common = common.contains(&arg.get_id().as_str());
        // That some are hidden tells clap that the two helps differ.
        let is_hidden = !is_common && !arg.is_positional();
        without_trivial_default(arg).hide_short_help(is_hidden)
    });
    headings.iter().fold(command, |command, (heading, flags)| {
        ordered(command, flags, Some(heading))
    })
}

/// Puts these flags behind all others, in this order, under this heading: clap shows headings as it meets them.
fn ordered(command: Command, flags: &[&str], heading: Option<&'static str>) -> Command {
    flags
        .iter()
        .enumerate()
        .fold(command, |command, (place, flag)| {
            command.mut_arg(flag, |arg| arg.help_heading(heading).display_order(place))
        })
}

/// A switch, which is off, or may be turned off again by `=false`.
fn is_switch(arg: &Arg) -> bool {
    arg.get_default_values()
        .iter()
        .any(|value| value == "false")
}

/// `[default: false]` and an empty default tell nobody anything.
fn without_trivial_default(arg: Arg) -> Arg {
    let is_empty = arg
        .get_default_values()
        .iter()
        .any(|value| value.is_empty());
    let is_trivial = is_empty || is_switch(&arg);
    arg.hide_default_value(is_trivial)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_flag_stands_once_under_a_heading() {
        let cli = Cli::command();
        for (name, common, headings) in TABLES {
            let command = cli.find_subcommand(name).expect(name);
            let flags = command
                .get_arguments()
                .filter(|arg| !arg.is_positional())
                .map(|arg| arg.get_id().as_str());
            let listed: Vec<&str> = headings
                .iter()
                .flat_map(|(_, flags)| *flags)
                .copied()
                .collect();
            let known: BTreeSet<&str> = flags.collect();
            let unique: BTreeSet<&str> = listed.iter().copied().collect();
            assert_eq!(unique.len(), listed.len(), "{name}: a flag is listed twice");
            assert_eq!(unique, known, "{name}: src/cli/help.rs lists all flags");
            assert!(common.iter().all(|flag| unique.contains(flag)), "{name}");
        }
    }

    #[test]
    fn both_helps_are_built_of_valid_commands() {
        for arguments in [&["kvpoc", "-h"][..], &["kvpoc", "--help"]] {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            arranged(Cli::command(), &arguments).debug_assert();
        }
    }
}
