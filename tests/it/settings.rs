//! Settings: what wins over what, and what bad ones are told.

use crate::support::{command, kvpoc, stderr, stdout};

/// Lines that are refused, and what their message contains.
const REFUSED: &[(&str, &str)] = &[
    ("seed --keys 0", "--keys"),
    ("seed --keys ten", "is not a number"),
    ("seed --value-size 10", "84 bytes"),
    ("seed --value-size 2MiB", "1 MiB"),
    ("seed --from x", "give --key too"),
    ("seed --key user:{id}", "--from FILE"),
    ("seed --from x --key user", "members of a line in braces"),
    ("seed --from x --key {id} --keys 5", "leave it out"),
    ("seed --format xml", "record, json or raw"),
    ("seed --format json --value-size 100..300", "183 bytes"),
    ("seed --batch 0", "--batch"),
    ("seed --in-flight 0", "--in-flight"),
    ("seed --ttl soon", "with its unit"),
    ("seed --ttl=-1s", "-1s"),
    ("seed --seed x", "--seed"),
    ("seed --store http://localhost", "write redis://"),
    ("seed --store redis://localhost:99999", "HOST:PORT"),
    ("seed --store-timeout 0s", "above 0"),
    ("seed --store redis://a,b", "redis-cluster"),
    ("seed --store redis-cluster://a/1", "no databases"),
    ("seed --store redis-sentinel://a", "/mymaster"),
    ("seed --store-user x", "needs a password"),
    (
        "seed --store-password-file /nonexistent",
        "--store-password-file",
    ),
    ("seed --store-tls-ca x", "rediss"),
    ("seed --store redis://hidden@h", "user:password"),
    (
        "seed --sentinel-user x --store redis://h",
        "needs a password",
    ),
    (
        "seed --sentinel-password-file Cargo.toml --store redis://h",
        "redis-sentinel",
    ),
    ("seed --store redis-sentinel://u:1/p@h", "/mymaster"),
    ("seed --store rediss://h --store-tls-key x", "both"),
    ("seed --json=perhaps", "--json"),
    ("seed --sync batch", "appendfsync"),
    ("serve --port 70000", "--port"),
    ("serve --health-port 70000", "--health-port"),
    (
        "serve --port 8080 --health-port 8080",
        "give another, or leave it out",
    ),
    ("serve --bind example.com", "or localhost"),
    ("serve --threads 5000", "--threads"),
    ("serve --allow-writes=maybe", "--allow-writes"),
    ("serve --max-keys-per-request 0", "--max-keys-per-request"),
    ("serve --max-connections 0", "--max-connections"),
    ("serve --drain 5", "with its unit"),
    (
        "serve --allow-host kvpoc.test:80",
        "without scheme and port",
    ),
    ("serve --allow-host a.test,*", "--allow-host"),
    ("serve --max-held 1MiB", "4MiB or more"),
    ("serve --log a=b=c", "--log"),
    ("bench --shard 4/4", "0/4 to 3/4"),
    ("bench --shard 1", "INDEX/COUNT"),
    ("bench --shard 0/2 --find-max", "--shard"),
    ("bench --sweep 5k..45k", "FROM..TO/STEP"),
    ("bench --sweep 5k,6k --stages 5:5s", "--stages"),
    ("bench --find-max --compare a.json", "--compare"),
    ("bench --abort=maybe", "--abort"),
    ("bench --start-at noon", "a time in UTC"),
    ("bench --start-at 2020-01-01T00:00:00Z", "the next day"),
    ("bench --merge a.json --out b", "--out"),
    ("bench --merge a.json --layers", "one of them"),
    (
        "bench --compare a --against b --rps 5",
        "which makes no run",
    ),
    ("bench --compare a --against b --out c", "--out"),
    ("bench --fail-on p99=10", "p99=+10%"),
    ("bench --repeat 0", "--repeat"),
    ("bench --repeat 101", "--repeat"),
    ("bench --pause 5s", "give --repeat"),
    ("bench --rps 0", "a rate is above 0"),
    ("bench --rps NaN", "a rate is above 0"),
    ("bench --rps=-5", "a rate is above 0"),
    ("bench --duration 0s", "above 0"),
    ("bench --warmup 3", "with its unit"),
    ("bench --keys 0", "--keys"),
    ("bench --keys-per-request 129", "--keys-per-request"),
    ("bench --seed=-1", "-1"),
    ("bench --target ftp://x", "write http://"),
    ("bench --target h:1/{ID}", "{id}, {ids}, {key} and {n}"),
    ("bench --method PUT", "is a kvpoc serve"),
    ("bench --target store --body x", "--target store makes none"),
    ("bench --body-file x", "/? for the root"),
    ("bench --target h:1/a --method get", "write GET"),
    ("bench --target h:1/a -H x", "'NAME: VALUE'"),
    ("bench --target h:1/a --body-file /", "for --body-file"),
    ("bench --target h:1/a --expect 1xx", "such as 2xx"),
    ("bench --target h:1/a --method HEAD --match x", "HEAD"),
    (
        "bench --expect-records",
        "compared with their records anyway",
    ),
    ("bench --target h:1/{n} --expect-records", "names no key"),
    (
        "bench --target h:1/{id} --expect-records --verify 0",
        "--verify",
    ),
    (
        "bench --target h:1/{id} --expect-records=json",
        "give --keys",
    ),
    ("bench --target h:1/{id} --expect-records=x", "write note"),
    (
        "bench --target h:1/{id} --expect-records --method HEAD",
        "HEAD",
    ),
    (
        "bench --target h:1/{ids} --keys 5 --expect-records=raw",
        "{id} or {key}",
    ),
    ("bench --arrivals bursty", "constant or poisson"),
    ("bench --stages 5:5", "with its unit"),
    ("bench --preset x", "session-single"),
    ("bench --workload x", "mixed:95/5"),
    ("bench --keys-dist zipf:-1", "above 0"),
    ("bench --verify 2", "--verify"),
    ("bench --max-miss x", "--max-miss"),
    ("bench --slo p99=fast", "with its unit"),
    ("bench --live 8089", "--live"),
    ("bench --layers=maybe", "--layers"),
    ("bench --find-max=maybe", "--find-max"),
    ("bench --self-test=maybe", "--self-test"),
    ("bench --connections 0", "--connections"),
    ("bench --threads 0", "--threads"),
    ("bench --tick 5", "with its unit"),
    ("bench --timeout 0s", "above 0"),
    ("bench --drain 2days", "at most 1 day"),
    ("bench --max-in-flight 0", "--max-in-flight"),
    ("bench --max-lag x", "with its unit"),
    ("inspect --sample x", "--sample"),
    ("inspect key --store embedded:", "a path is missing"),
    (
        "inspect key --config /nonexistent.toml",
        "/nonexistent.toml",
    ),
    ("sed --keys 1", "unrecognized subcommand"),
    ("bench --rsp 1", "unexpected argument"),
];

#[test]
fn every_flag_refuses_bad_input_in_one_clear_line() {
    for (line, expected) in REFUSED {
        let output = kvpoc(line);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(64), "{line}: {text}");
        assert!(text.starts_with("error: "), "{line}: {text}");
        let first = text.lines().next().expect("a line");
        assert!(first.contains(expected), "{line}: {first}");
        assert!(
            !text.contains("panicked") && !text.contains("backtrace"),
            "{line}: {text}"
        );
    }
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("kvpoc.toml");
    // Each layer sets another impossible target, and the message shows whose was taken.
    let shown = |toml: &str, variable: Option<&str>, flag: Option<&str>| {
        std::fs::write(&file, toml).expect("the file is written");
        let mut command = command("bench --config");
        command.arg(&file);
        if let Some(value) = variable {
            command.env("KVPOC_TARGET", value);
        }
        if let Some(value) = flag {
            command.args(["--target", value]);
        }
        let output = command.output().expect("runs");
        assert_eq!(output.status.code(), Some(64));
        stderr(&output)
    };
    let text = "[bench]\ntarget = 'file'\n";
    assert!(shown(text, None, None).contains("'file'"));
    assert!(shown(text, Some("variable"), None).contains("'variable'"));
    assert!(shown(text, Some("variable"), Some("flag")).contains("'flag'"));
    assert!(shown("target = 'top'\n", None, None).contains("'top'"));
    assert!(shown("target = 'top'\n[bench]\ntarget = 'own'\n", None, None).contains("'own'"));
}

#[test]
fn a_bad_value_names_where_it_was_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("kvpoc.toml");
    std::fs::write(&file, "[bench]\nrps = 0\n").expect("the file is written");
    let output = command("bench --config").arg(&file).output().expect("runs");
    assert_eq!(output.status.code(), Some(64));
    let text = stderr(&output);
    assert!(text.contains("set by bench.rps in"), "{text}");
    let output = command("bench")
        .env("KVPOC_RPS", "0")
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(64));
    assert!(
        stderr(&output).contains("set by KVPOC_RPS"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_file_may_be_named_by_a_variable_and_must_be_valid() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("kvpoc.toml");
    for (toml, expected) in [
        ("[bench]\nrsp = 1\n", "unknown setting bench.rsp"),
        ("[bench\n", "line 1: "),
        ("[store]\nurl = 'x'\n", "unknown section [store]"),
    ] {
        std::fs::write(&file, toml).expect("the file is written");
        let output = command("bench")
            .env("KVPOC_CONFIG", &file)
            .output()
            .expect("runs");
        assert_eq!(output.status.code(), Some(64));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

#[test]
fn help_shows_examples_and_exit_codes_and_goes_to_standard_output() {
    for (line, expected) in [
        ("--help", "Exit codes:"),
        ("seed --help", "kvpoc seed --keys 10000000"),
        ("serve --help", "kvpoc serve --port 8080"),
        ("serve --help", "kvpoc serve --port 8080 --health-port 8081"),
        ("bench --help", "kvpoc bench --rps 20000"),
        ("inspect --help", "kvpoc inspect user:session:42"),
        ("--version", "kvpoc 0.1.0"),
    ] {
        let output = kvpoc(line);
        assert_eq!(output.status.code(), Some(0), "{line}");
        assert!(stdout(&output).contains(expected), "{}", stdout(&output));
    }
    assert_eq!(kvpoc("").status.code(), Some(64));
}

#[test]
fn what_kubernetes_says_of_a_service_named_kvpoc_is_no_port_of_this_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let run = |value: &str, more: &str| {
        let store = folder.path().display();
        // A host that is no address of this machine: it ends in any case.
        let line = format!("serve --bind 192.0.2.1 --store embedded:{store} {more}");
        let mut command = command(&line);
        let output = command.env("KVPOC_PORT", value).output().expect("it runs");
        (output.status.code(), stderr(&output))
    };
    let (code, text) = run("tcp://10.96.0.17:8080", "");
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains("192.0.2.1:8080"), "{text}");
    let (_, text) = run("tcp://10.96.0.17:8080", &format!("--port {port}"));
    assert!(text.contains(&format!("192.0.2.1:{port}")), "{text}");
    let mut command = command(&format!(
        "serve --bind 192.0.2.1 --port {port} --store embedded:{}",
        folder.path().display()
    ));
    let output = command
        .env("KVPOC_HEALTH_PORT", "tcp://10.96.0.17:8081")
        .output();
    let text = stderr(&output.expect("it runs"));
    assert!(text.contains(&format!("192.0.2.1:{port}")), "{text}");
    let (code, text) = run("http", "");
    assert_eq!(code, Some(64), "{text}");
}

#[test]
fn the_short_help_is_one_screen_and_the_long_one_has_every_flag_under_a_heading() {
    for (command, flag, headings) in [
        (
            "seed",
            "--keys",
            &["Dataset:", "Loading:", "Verification:"][..],
        ),
        ("serve", "--port", &["Server:", "Access:", "Limits:"]),
        ("bench", "--rps", &["Target:", "Load:", "Objectives:"]),
        ("inspect", "--sample", &["Output:", "Store:"]),
    ] {
        let short = stdout(&kvpoc(&format!("{command} -h")));
        assert!(short.lines().count() <= 40, "{short}");
        assert!(
            short.contains(flag) && short.contains("Examples:"),
            "{short}"
        );
        assert!(!short.contains("KVPOC_STORE"), "{short}");
        assert!(!short.contains("--store-tls-ca"), "{short}");
        let long = stdout(&kvpoc(&format!("{command} --help")));
        for expected in [flag, "--store-tls-ca", "[env: KVPOC_"]
            .iter()
            .chain(headings)
        {
            assert!(long.contains(expected), "{expected} in {long}");
        }
        assert!(!long.contains("\nOptions:"), "{long}");
    }
}

#[test]
fn what_was_meant_is_suggested_for_flags_variables_and_settings() {
    for (line, expected) in [
        ("bench --rsp 1", "'--rps'"),
        ("bench --durration 1s", "'--duration'"),
        ("seed --kyes 1", "'--keys'"),
        ("serve --prot 1", "'--port'"),
        ("inspect --sampel 1", "'--sample'"),
    ] {
        let text = stderr(&kvpoc(line));
        assert!(text.contains(&format!("exists: {expected}")), "{text}");
    }
    let output = command("bench --rps 0")
        .env("KVPOC_DURATOIN", "secret")
        .output()
        .expect("runs");
    let text = stderr(&output);
    let expected = "variable KVPOC_DURATOIN is unknown and ignored; did you mean KVPOC_DURATION?";
    assert!(
        text.contains(expected) && !text.contains("secret"),
        "{text}"
    );
}

#[test]
fn short_flags_and_localhost_mean_what_people_expect() {
    for (line, expected) in [
        ("bench -d 5", "--duration"),
        ("bench -c 0", "--connections"),
        ("bench -q -d 5", "--duration"),
        ("bench -o /dev/null/x --merge a", "--out"),
        ("seed -q --keys 0", "--keys"),
        ("serve -p 70000", "--port"),
        ("bench --live localhost:x", "127.0.0.1:8089"),
    ] {
        let output = kvpoc(line);
        assert_eq!(output.status.code(), Some(64), "{line}");
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let store = format!("embedded:{}", folder.path().display());
    crate::support::seed(&store, 10, "-q");
    let serve = crate::support::Serve::start(&store, "--bind localhost");
    let line = format!(
        "bench -q -d 1s -c 2 --rps 50 --warmup 0s --target localhost:{}",
        serve.address.port()
    );
    let output = kvpoc(&line);
    let text = stdout(&output);
    assert!(text.contains("Verdict: "), "{text}{}", stderr(&output));
    assert_eq!(stderr(&output), "", "it is quiet");
}

#[test]
fn completions_and_manual_pages_are_printed() {
    for (line, expected) in [
        ("completions bash", "complete -F _kvpoc"),
        ("completions zsh", "#compdef kvpoc"),
        ("completions fish", "keys-per-request"),
        ("man", "kvpoc\\-bench(1)"),
        ("man bench", "\\-\\-keys\\-per\\-request"),
        ("man serve", "KVPOC_PORT"),
    ] {
        let output = kvpoc(line);
        assert_eq!(output.status.code(), Some(0), "{line}: {}", stderr(&output));
        assert!(stdout(&output).contains(expected), "{line}");
    }
    assert_eq!(kvpoc("completions tcsh").status.code(), Some(64));
    assert_eq!(kvpoc("man nothing").status.code(), Some(64));
    let help = stdout(&kvpoc("--help"));
    assert!(
        !help.contains("completions") && !help.contains("man "),
        "{help}"
    );
}
