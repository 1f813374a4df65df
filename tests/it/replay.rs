//! Loads that come from a file: lists of requests, and logs that are replayed at their own times.
//!
//! Enters: files and a stub. Leaves: nothing. Must not need a store, nor judge how fast the machine is.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;

use kvpoc::random::splitmix64;
use serde_json::{Value, json};

use crate::stub::{answer, seeing};
use crate::support::{PATIENCE, assert_balanced, command, json as parsed, stderr, stdout};

/// Whatever the machine, all is answered, and its speed decides nothing.
const PATIENT: &str = "bench --max-lag 10s --slo p99=none --timeout 60s --drain 60s --json -";

struct File(tempfile::NamedTempFile);

impl File {
    fn of(text: &str) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Self(file)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn run(address: SocketAddr, flag: &str, file: &Path, words: &[&str]) -> Output {
    let mut command = command(PATIENT);
    command.args(["--target", &format!("http://{address}")]);
    command.arg(flag).arg(file).args(words);
    command.output().expect("the program starts")
}

fn results(address: SocketAddr, flag: &str, file: &Path, words: &[&str]) -> Value {
    let output = run(address, flag, file, words);
    let text = stdout(&output);
    assert!(!text.is_empty(), "{}", stderr(&output));
    let results = parsed(&text);
    assert_balanced(&results);
    results
}

#[test]
fn a_list_is_asked_for_line_by_line_on_any_schedule() {
    let (address, seen) = seeing(|request| {
        if request.starts_with("HEAD") {
            "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".into()
        } else {
            answer("200 OK", "it is ok")
        }
    });
    let file = File::of(&format!(
        "/x/1\n\nhttp://{address}/x/2?a={{id}}\n{}\n{}\n",
        r#"{"method":"HEAD","path":"/x/3"}"#,
        r#"{"method":"PUT","path":"/x/4","headers":{"A":"own"},"body":"{n}"}"#,
    ));
    let load = "--rps 20 --duration 500ms --warmup 0s --connections 1 -H A:all --expect 2xx";
    let words: Vec<&str> = load.split(' ').collect();
    let found = results(address, "--requests", file.path(), &words);
    assert_eq!(found["verdict"], "PASS", "{}", found["reason"]);
    assert_eq!(found["requests"]["ok"], 10, "{}", found["requests"]);
    let host = format!("host: {address}\r\n");
    let cycle = [
        format!("GET /x/1 HTTP/1.1\r\n{host}A: all\r\n\r\n"),
        format!("GET /x/2?a={{id}} HTTP/1.1\r\n{host}A: all\r\n\r\n"),
        format!("HEAD /x/3 HTTP/1.1\r\n{host}A: all\r\n\r\n"),
        format!("PUT /x/4 HTTP/1.1\r\n{host}A: own\r\ncontent-length: 3\r\n\r\n{{n}}"),
    ];
    for expected in cycle.iter().cycle().take(10) {
        assert_eq!(&seen.recv_timeout(PATIENCE).expect("a request"), expected);
    }
    let conditions = &found["conditions"];
    assert_eq!(conditions["requests_file"], json!(file.path()));
    assert_eq!(conditions["requests_lines"], 4);
    assert_eq!(conditions["requests_order"], "file");
    assert_eq!(conditions["requests_format"], "one request a line");
    assert_eq!(conditions["expect"], "200-299");
    assert_eq!(
        (&conditions["headers"], &conditions["keys"]),
        (&json!("A"), &json!(0))
    );
}

#[test]
fn a_list_is_drawn_from_as_the_seed_says() {
    let lines: String = (0..50).fold(String::new(), |text, n| text + &format!("/{n}\n"));
    let file = File::of(&lines);
    let asked = |seed: &str| -> Vec<String> {
        let (address, seen) = seeing(|_| answer("200 OK", ""));
        let load =
            "--rps 40 --duration 500ms --warmup 0s --connections 1 --requests-order random --seed";
        let words: Vec<&str> = load.split(' ').chain([seed]).collect();
        results(address, "--requests", file.path(), &words);
        seen.try_iter()
            .map(|request| request.split(' ').nth(1).unwrap_or_default().to_owned())
            .collect()
    };
    let first = asked("1");
    assert_eq!(first.len(), 20);
    assert_eq!(first, asked("1"));
    assert_ne!(first, asked("2"));
}

/// A trace of so many requests over three seconds, in any order, and their paths by their times.
fn trace(count: u64) -> (String, Vec<String>) {
    let mut lines: Vec<(u64, String)> = (0..count)
        .map(|n| {
            (
                1_795_521_600_000_000 + splitmix64(7, n) % 3_000_000,
                format!("/{n}"),
            )
        })
        .collect();
    let text = lines.iter().fold(String::new(), |mut text, (us, path)| {
        let seconds = us / 1_000_000;
        let _ = writeln!(
            text,
            r#"{{"ts":"{seconds}.{:06}","path":"{path}"}}"#,
            us % 1_000_000
        );
        text
    });
    lines.sort();
    (text, lines.into_iter().map(|(_, path)| path).collect())
}

#[test]
fn a_trace_is_replayed_in_the_order_and_over_the_length_of_its_times() {
    const COUNT: u64 = 3_000;
    let (text, paths) = trace(COUNT);
    let file = File::of(&text);
    let (address, seen) = seeing(|_| answer("200 OK", ""));
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let out_text = out.to_str().expect("text");
    let words = ["--speed", "1.5", "--connections", "1", "--out", out_text];
    let found = results(address, "--replay", file.path(), &words);
    for count in ["scheduled", "sent", "ok"] {
        assert_eq!(
            found["requests"][count], COUNT,
            "{count}: {}",
            found["requests"]
        );
    }
    assert_eq!(found["warmup"]["scheduled"], 0);
    assert_eq!(found["verdict"], "PASS", "{}", found["reason"]);
    let asked: Vec<String> = seen
        .try_iter()
        .map(|request| request.split(' ').nth(1).unwrap_or_default().to_owned())
        .collect();
    assert_eq!(asked, paths);
    let conditions = &found["conditions"];
    assert_eq!(conditions["requests_file"], json!(file.path()));
    assert_eq!(conditions["requests_lines"], COUNT);
    assert_eq!(conditions["requests_format"], "JSON lines");
    assert_eq!(
        (&conditions["speed"], &conditions["arrivals"]),
        (&json!(1.5), &json!("recorded"))
    );
    let length_s = conditions["duration_s"].as_f64().expect("seconds");
    assert!((1.9..2.1).contains(&length_s), "{length_s}");
    let page = std::fs::read_to_string(out.join("report.html")).expect("a page");
    assert!(page.contains("<td>requests fingerprint</td>"));
    let series = std::fs::read_to_string(out.join("series.csv")).expect("a series");
    assert!(series.lines().count() >= 3, "{series}");
}

#[test]
fn of_an_access_log_what_only_reads_is_replayed_and_the_rest_is_counted() {
    let mut text = String::new();
    for (second, request) in [
        (0, "GET /a HTTP/1.1"),
        (0, "HEAD /b HTTP/1.1"),
        (0, "POST /c HTTP/1.1"),
        (1, "GET /d HTTP/1.1"),
        (1, "-"),
        (0, "GET /late HTTP/1.1"),
    ] {
        let _ = writeln!(
            text,
            r#"192.0.2.1 - - [24/Nov/2026:12:00:0{second} +0000] "{request}" 200 12 "-" "curl""#
        );
    }
    let file = File::of(&text);
    let (address, seen) = seeing(|request| {
        let body = if request.starts_with("HEAD") {
            ""
        } else {
            "{}"
        };
        answer("200 OK", body)
    });
    let words = ["--speed", "2", "--connections", "1"];
    let output = run(address, "--replay", file.path(), &words);
    let found = parsed(&stdout(&output));
    assert_balanced(&found);
    assert_eq!(found["requests"]["ok"], 4, "{found}");
    let left_out = json!({"POST": 1, "no HTTP request": 1});
    assert_eq!(found["conditions"]["requests_left_out"], left_out);
    assert_eq!(found["conditions"]["requests_lines"], 6);
    let said = stderr(&output);
    assert!(said.contains("Left out of the replay: 1 POST"), "{said}");
    let starts: Vec<String> = seen
        .try_iter()
        .map(|request| request.split(" HTTP").next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(starts, ["GET /a", "HEAD /b", "GET /late", "GET /d"]);
}

#[test]
fn shards_of_a_replay_are_merged_and_others_are_not() {
    let (text, _) = trace(200);
    let (file, other) = (File::of(&text), File::of(&trace(199).0));
    let folder = tempfile::tempdir().expect("a folder");
    let of_shard = |shard: &str, file: &File| {
        let (address, _seen) = seeing(|_| answer("200 OK", ""));
        let found = results(
            address,
            "--replay",
            file.path(),
            &["--speed", "10", "--shard", shard],
        );
        let path = folder
            .path()
            .join(format!("{}.json", file.path().display()).replace('/', "-"));
        let path = path.with_extension(shard.replace('/', "of"));
        std::fs::write(&path, found.to_string()).expect("written");
        (path, found["requests"]["ok"].as_u64().expect("a count"))
    };
    let ((one, first), (two, second)) = (of_shard("0/2", &file), of_shard("1/2", &file));
    assert_eq!((first, second), (100, 100));
    let merge = |paths: [&Path; 2]| {
        let mut command = command("bench --json - --merge");
        command.args(paths).output().expect("the program starts")
    };
    // They did not begin together, which is what is wrong with them; all else is right.
    let whole = parsed(&stdout(&merge([&one, &two])));
    assert_eq!(whole["requests"]["ok"], 200, "{whole}");
    assert_eq!(whole["conditions"]["speed"], 10.0);
    let (of_other, _) = of_shard("1/2", &other);
    let refused = merge([&one, &of_other]);
    assert!(
        stderr(&refused).contains("did not run the same load"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn a_line_that_is_none_is_refused_with_its_number() {
    let (address, _seen) = seeing(|_| answer("200 OK", ""));
    let log = r#"{"ts":1795521600,"path":"/x"}"#;
    for (flag, text, expected) in [
        (
            "--requests",
            "/x\n\nx/1\n".to_owned(),
            "line 3: a request is a path",
        ),
        (
            "--requests",
            "/x\nhttp://192.0.2.1/x\n".to_owned(),
            "line 2: its URL is of another origin",
        ),
        ("--requests", "\n".to_owned(), "it holds no request"),
        (
            "--replay",
            format!("{log}\n/x\n"),
            "line 2: it is no JSON object",
        ),
        ("--replay", format!("x\n{log}\n"), "line 1: it is neither"),
        (
            "--replay",
            format!("{log}\n{log}\n{{\"ts\":\"noon\",\"path\":\"/\"}}"),
            "line 3: \"noon\" is no time",
        ),
        (
            "--replay",
            r#"{"ts":1,"path":"/","method":"POST"}"#.into(),
            "no GET or HEAD",
        ),
        ("--replay", String::new(), "no GET or HEAD"),
    ] {
        let file = File::of(&text);
        let output = run(address, flag, file.path(), &[]);
        assert_eq!(output.status.code(), Some(64), "{text}");
        let said = stderr(&output);
        let path = file.path().display().to_string();
        assert!(
            said.contains(expected) && said.contains(flag) && said.contains(&path),
            "{text}: {said}"
        );
    }
}
