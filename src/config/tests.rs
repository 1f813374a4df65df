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
            "unknown setting bench.rpss; did you mean bench.rps?",
        ),
        ("[bench]\nrsp = 1", "did you mean bench.rps?"),
        ("prot = 1", "unknown setting prot; did you mean port?"),
        (
            "[serve]\nrps = 1",
            "unknown setting serve.rps; known here: access-log, allow-host",
        ),
        (
            "[benhc]\nrps = 1",
            "unknown section [benhc]; there are [seed]",
        ),
        ("[man]\nrps = 1", "unknown section [man]"),
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
            "kvpoc bench --target ftp://localhost",
            "write http://host:port",
        ),
        ("kvpoc bench --ca a.pem", "write https instead of http"),
        ("kvpoc bench --insecure", "--insecure needs an https target"),
        (
            "kvpoc bench --target store --insecure",
            "see --store-tls-ca for the TLS of the store",
        ),
        (
            "kvpoc bench --target https://h --cert a.pem",
            "--cert and --key belong together",
        ),
        (
            "kvpoc bench --target https://h --key a.pem",
            "--cert and --key belong together",
        ),
        ("kvpoc bench --target unix:/x --insecure", "without TLS"),
        (
            "kvpoc bench --target https://h --ca a.pem --insecure",
            "--ca would be ignored",
        ),
        (
            "kvpoc bench --target http://localhost/{x}",
            "{ids}, {key} and {n}",
        ),
        ("kvpoc serve --log a=b=c", "--log"),
        ("kvpoc inspect ", "1 to 511 bytes"),
        ("kvpoc bench --layers --self-test", "one of them at a time"),
        (
            "kvpoc bench --find-max --stages 5:5s",
            "cannot be used with --find-max and --sweep, which make several runs",
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
        (
            "kvpoc bench --layers --out x",
            "two runs that have to be alike",
        ),
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
            "--abort cannot be used with --merge, which makes no run",
        ),
        (
            "kvpoc bench --merge a --stages 5:5s",
            "--stages cannot be used with --merge, which makes no run",
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
fn what_several_runs_have_no_use_for_is_refused_with_the_mend() {
    for (line, expected) in [
        ("kvpoc bench --repeat 3 --find-max", "one of them at a time"),
        ("kvpoc bench --repeat 3 --merge a", "one of them at a time"),
        ("kvpoc bench --repeat 3 --out x", "makes several runs"),
        (
            "kvpoc bench --repeat 3 --compare a",
            "with --compare and --against",
        ),
        (
            "kvpoc bench --against a --sweep 5k,6k",
            "one of them at a time",
        ),
        (
            "kvpoc bench --compare a b",
            "'a b' for --compare: one earlier run is shown",
        ),
        ("kvpoc bench --against a", "by --compare"),
        (
            "kvpoc bench --compare a --fail-on p99=+10%",
            "'p99=+10%' for --fail-on: it is held against the differences",
        ),
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

/// As [`load_line`], of words that may hold spaces.
fn load_words(words: &[&str]) -> Result<Box<BenchConfig>, ConfigError> {
    let arguments: Vec<OsString> = ["kvpoc", "bench"]
        .iter()
        .chain(words)
        .map(OsString::from)
        .collect();
    match load(&arguments)? {
        Job::Bench(config) => Ok(config),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_request_of_another_service_has_the_parts_that_were_given() {
    let config = load_words(&[
        "--target",
        "h:1/a/{id}",
        "--body",
        "{\"n\":{n}}",
        "-H",
        "X-One: 1",
        "--header",
        "X-Two: {key}",
        "--expect",
        "201",
        "--match",
        "ok",
    ]);
    let request = config.expect("a job").request.expect("a request");
    assert_eq!(request.method.name(), "POST");
    assert_eq!(request.path.to_string(), "/a/{id}");
    assert_eq!(request.header_names(), "X-One, X-Two");
    assert_eq!(request.body.expect("a body").to_string(), "{\"n\":{n}}");
    assert_eq!(request.expect.expect("statuses").to_string(), "201");
    assert_eq!(request.contains.as_deref(), Some("ok"));
    for (words, method) in [
        (&[][..], "GET"),
        (&["--method", "PATCH", "--body", ""], "PATCH"),
        (&["--method", "HEAD"], "HEAD"),
        (&["--body-file", "Cargo.toml"], "POST"),
    ] {
        let config = load_words(&[&["--target", "h:1/a"], words].concat());
        let request = config.expect("a job").request.expect("a request");
        assert_eq!(request.method.name(), method);
    }
    assert!(load_words(&[]).expect("a job").request.is_none());
}

#[test]
fn a_file_holds_one_header_on_each_line() {
    let settings = tempfile::NamedTempFile::new().expect("a file");
    let text = "[bench]\ntarget = 'h:1/a'\nheader = \"a: 1\\nb: 2, 3\"\n";
    std::fs::write(settings.path(), text).expect("written");
    let path = settings.path().to_str().expect("text");
    let of = |more: &[&str]| {
        let config = load_words(&[&["--config", path], more].concat());
        let request = config.expect("a job").request.expect("a request");
        request.header_names()
    };
    assert_eq!(of(&[]), "a, b");
    assert_eq!(of(&["-H", "c: 4"]), "c");
}

/// What is refused of a request, and what its message contains.
const REFUSED_REQUESTS: &[(&[&str], &str)] = &[
    (
        &["--method", "PUT"],
        "'PUT' for --method: it belongs to a URL with a path, but --target http://127.0.0.1:8080 is a kvpoc serve",
    ),
    (
        &["--header", "Authorization: secret"],
        "'Authorization: …' for --header: it belongs to a URL with a path",
    ),
    (&["--body", "secret"], "'6 bytes' for --body: it belongs"),
    (&["--body-file", "x"], "'x' for --body-file: it belongs"),
    (&["--expect", "2xx"], "http://127.0.0.1:8080/? for the root"),
    (
        &["--match", "ok", "--target", "store"],
        "'ok' for --match: it belongs to an HTTP request",
    ),
    (
        &["--target", "h:1/a", "--method", "post"],
        "for --method: write POST",
    ),
    (
        &["--target", "h:1/a", "--method", "TRACE", "--body", "secret"],
        "'6 bytes' for --body: a TRACE has no body",
    ),
    (
        &["--target", "h:1/a", "--body", "a", "--body-file", "b"],
        "a request has one body",
    ),
    (
        &["--target", "h:1/a", "--body-file", "/nonexistent"],
        "'/nonexistent' for --body-file: No such file",
    ),
    (
        &["--target", "h:1/a", "-H", "Host: a", "-H", "host: secret"],
        "'host: …' for --header: a request has one Host",
    ),
    (
        &["--target", "h:1/a", "-H", "a: b\r\nc: secret"],
        "'a: …' for --header: a value has no line ends",
    ),
    (
        &["--target", "h:1/a", "-H", "Content-Length: 5"],
        "it follows from the body",
    ),
    (
        &[
            "--target",
            "h:1/a",
            "-H",
            "Authorization: secret",
            "--token-file",
            "x",
        ],
        "--token-file gives this header too",
    ),
    (
        &["--target", "h:1/a", "--expect", "ok"],
        "'ok' for --expect: write statuses",
    ),
    (&["--target", "h:1/a", "--match", ""], "for --match: every"),
    (
        &["--target", "h:1/a", "--match", "a", "--method", "HEAD"],
        "no answer to HEAD has a body",
    ),
];

#[test]
fn what_is_wrong_with_a_request_is_told_without_its_secrets() {
    let large = tempfile::NamedTempFile::new().expect("a file");
    large.as_file().set_len(8 * 1024 * 1024 + 1).expect("room");
    let large = large.path().to_str().expect("text");
    let too_large = ["--target", "h:1/a", "--body-file", large];
    let too_large = (&too_large[..], "a body has at most 8 MiB");
    for &(words, expected) in REFUSED_REQUESTS.iter().chain([&too_large]) {
        let found = load_words(words).map(|_| ()).expect_err(expected);
        let found = found.to_string();
        assert!(found.contains(expected), "{found}");
        assert!(!found.contains("secret"), "{found}");
    }
}

#[test]
fn a_file_of_requests_is_refused_what_it_would_not_heed() {
    let many = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(many.path(), "/\n".repeat(1_000_001)).expect("written");
    let many = format!("--requests {}", many.path().display());
    let own = "the log of --replay has its own schedule";
    let asked = "says what is asked for; leave it out";
    let mut rows: Vec<(String, &str)> = [
        ("--requests a --replay b", "a run has one load"),
        ("--speed 2", "for --speed: it belongs to --replay"),
        ("--requests a --speed 2", "it belongs to --replay"),
        ("--requests-order random", "it belongs to --requests"),
        ("--requests a --layers", "loads of their own"),
        ("--requests a --self-test", "loads of their own"),
        ("--requests a --target h:1/x", "give --target http://h:1"),
        (
            "--replay a --target store",
            "give --target http://HOST:PORT",
        ),
        (
            "--requests a -H x:{n}",
            "'x: …' for --header: with --requests nothing is filled in",
        ),
        (
            "--requests /nonexistent",
            "'/nonexistent' for --requests: No such file",
        ),
        ("--requests Cargo.toml", "line 1: a request is a path"),
        ("--replay Cargo.toml", "line 1: it is neither"),
        ("--replay a --speed 0", "a speed is above 0"),
        ("--requests a --requests-order x", "write file or random"),
        (&many, "1,000,000 lines"),
    ]
    .map(|(line, expected)| (line.to_owned(), expected))
    .to_vec();
    for flag in [
        "--rps 5",
        "--stages 5:5s",
        "--duration 5s",
        "--warmup 0s",
        "--arrivals poisson",
        "--find-max",
        "--sweep 5",
        "--requests-order file",
    ] {
        rows.push((format!("--replay a {flag}"), own));
    }
    for flag in [
        "--method PUT",
        "--body x",
        "--body-file x",
        "--preset etc",
        "--workload single",
        "--keys-dist uniform",
        "--keys 5",
        "--keys-per-request 5",
        "--verify 0",
        "--max-miss 0",
    ] {
        rows.push((format!("--requests a {flag}"), asked));
    }
    for (line, expected) in rows {
        let words: Vec<&str> = line.split(' ').collect();
        let found = load_words(&words).map(|_| ()).expect_err(&line).to_string();
        assert!(found.contains(expected), "{line}: {found}");
    }
}

#[test]
fn a_replay_has_one_stage_of_its_own_length_and_the_usual_objectives() {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let line = |n| format!("{{\"ts\":{}.5,\"path\":\"/{n}\"}}\n", 1_000 + n);
    let lines = (0..11).map(line).collect::<Vec<_>>().concat();
    std::fs::write(log.path(), lines).expect("written");
    let path = log.path().to_str().expect("text");
    let config = load_words(&["--replay", path, "--speed", "2"]).expect("a job");
    assert_eq!(config.stages.to_string(), "2:5s500ms");
    assert!(config.warmup.is_zero() && config.objectives.bound_latency());
    let file = config.requests_file.expect("a file");
    assert_eq!(
        (file.lines, file.list.len(), file.format),
        (11, 11, "JSON lines")
    );
}
