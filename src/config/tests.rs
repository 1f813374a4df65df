//! One file for all settings, the same jobs with and without it, and what no job is made of.
//!
//! Enters: command lines and files. Leaves: nothing. Must not need a store.

use std::path::Path;

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
            "unknown setting bench.rpss; known here: abort, arrivals",
        ),
        (
            "prot = 1",
            "unknown setting prot; known here: abort, access-log",
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
        ("kvpoc serve --log a=b=c", "--log"),
        ("kvpoc inspect ", "1 to 511 bytes"),
        ("kvpoc bench --layers --self-test", "one of them at a time"),
        (
            "kvpoc bench --find-max --stages 5:5s",
            "--find-max and --sweep make several runs",
        ),
        ("kvpoc bench --sweep 5k,6k --start-at 1", "--start-at"),
        (
            "kvpoc bench --sweep 1..3/1 --find-max",
            "one of them at a time",
        ),
        (
            "kvpoc bench --sweep 1,0.001 --duration 9s",
            "less than one arrival",
        ),
        ("kvpoc bench --layers --out x", "two that have to be alike"),
        (
            "kvpoc bench --layers --target store",
            "a kvpoc serve over it",
        ),
        (
            "kvpoc bench --layers --target http://h/{id}",
            "a kvpoc serve over it",
        ),
        (
            "kvpoc bench --self-test --stages 5:5s",
            "at --rps for --duration",
        ),
        (
            "kvpoc bench --self-test --rps 100 --duration 3s",
            "3,000 or more",
        ),
        ("kvpoc bench --abort --shard 0/2", "the whole still passes"),
        (
            "kvpoc bench --merge a --abort",
            "for --abort: it belongs to a run and cannot be used with --merge",
        ),
        (
            "kvpoc bench --merge a --stages 5:5s",
            "for --stages: it belongs to a run and cannot be used with --merge",
        ),
        ("kvpoc bench --merge a --out b", "give --json"),
        ("kvpoc bench --max-lag 1us", "for --tick"),
        ("kvpoc bench --verify 2", "0 to 1"),
        ("kvpoc bench --max-miss=-0.1", "0 to 1"),
    ] {
        let found = load_line(line).map(|_| ()).expect_err(line).to_string();
        assert!(found.contains(expected), "{line}: {found}");
    }
}

#[test]
fn a_merge_is_not_held_to_what_a_generator_needs() {
    let Ok(Job::Bench(config)) = load_line("kvpoc bench --merge a --max-lag 1us") else {
        panic!("it is refused");
    };
    assert_eq!(config.max_lag, std::time::Duration::from_micros(1));
}
