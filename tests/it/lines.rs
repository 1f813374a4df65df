//! `kvpoc seed --from`: the lines of a file as values.
//!
//! Enters: files. Leaves: nothing. Must not load a part of a file that it refuses.

use std::fmt::Write as _;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Serve, Store, eventually, expect_code, json, kvpoc, start_until, stderr};

/// A file of so many lines, each with an id, in an order of its own, and text of another length.
fn file(lines: u64) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("users.ndjson");
    let mut text = String::new();
    for line in 0..lines {
        let id = line * 7_919 % lines;
        let more = "x".repeat((line % 50) as usize);
        let end = if line % 10 == 0 { "\r\n\n" } else { "\n" };
        let _ = write!(
            text,
            r#"{{"id":{id},"status":"active","more":"{more}"}}{end}"#
        );
    }
    std::fs::write(&path, text).expect("the file is written");
    (folder, path)
}

fn inspect(url: &str, key: &str) -> Value {
    let line = format!("inspect {key} --json --store {url}");
    json(&expect_code(&line, 0))["content"].clone()
}

#[test]
fn every_line_is_a_value_under_its_key_and_is_verified_and_mended() {
    const LINES: u64 = 3_000;
    let (_folder, path) = file(LINES);
    for store in Store::all() {
        let url = store.url();
        let from = format!("--from {} --key user:{{id}} --store {url}", path.display());
        let preview = expect_code(&format!("seed --dry-run {from}"), 0);
        assert!(preview.contains("3,000 keys, user:{id}"), "{preview}");
        let summary = json(&expect_code(&format!("seed --json --verify {from}"), 0));
        assert_eq!(summary["keys_acknowledged"], LINES);
        assert_eq!(summary["verification"]["checked"], LINES);
        let first = inspect(&url, "user:0");
        assert_eq!(first, json!({"id": 0, "status": "active", "more": ""}));
        let note = inspect(&url, "kvpoc:dataset");
        assert_eq!(
            (&note["state"], &note["source"]["key"]),
            (&json!("verified"), &json!("user:{id}"))
        );
        let serve = Serve::start(&url, "--allow-writes --key-prefix user:");
        assert_eq!(serve.get("/user/session/2999").json()["id"], 2_999);
        assert_eq!(serve.get("/stats").json()["dataset"]["keys"], LINES);

        assert_eq!(serve.request("PUT", "/v1/keys/user:7", b"x").status, 204);
        assert_eq!(serve.request("DELETE", "/v1/keys/user:8", b"").status, 204);
        let verify = format!("seed --verify-only --json {from}");
        let found = json(&expect_code(&verify, 1))["verification"].clone();
        assert_eq!(
            (&found["missing"], &found["different"]),
            (&json!(1), &json!(1))
        );
        let named = found["first"].to_string();
        assert!(
            named.contains("user:7 has another value") && named.contains("user:8 is missing"),
            "{named}"
        );
        expect_code(&format!("seed --resume --verify {from}"), 0);
        expect_code(&verify, 0);
        let sample = json(&expect_code(&format!("{verify} --verify-sample 0.1"), 0));
        let checked = sample["verification"]["checked"].as_u64().expect("a count");
        assert!((150..600).contains(&checked), "{checked}");
    }
}

#[test]
fn an_interrupted_load_is_gone_on_with_unless_it_is_of_another_file() {
    const LINES: u64 = 100_000;
    let (_folder, path) = file(LINES);
    for store in Store::all() {
        let url = store.url();
        let from = format!("--from {} --key user:{{id}} --store {url}", path.display());
        let (mut seeding, _) =
            start_until(&format!("seed --rate 20k --batch 100 {from}"), "Seeding");
        eventually("some keys", || {
            let output = kvpoc(&format!("inspect kvpoc:dataset --json --store {url}"));
            let note: Value = serde_json::from_slice(&output.stdout).ok()?;
            note["content"]["loaded"]
                .as_u64()
                .filter(|&loaded| loaded > 0)
        });
        seeding.signal(Signal::INT);
        assert_eq!(seeding.ended(), Some(130));
        let text = seeding.output();
        let way_on = text.split("To complete it: kvpoc ").nth(1).expect(&text);
        let way_on = way_on.lines().next().expect("a line");
        assert!(way_on.contains("--key 'user:{id}'"), "{text}");

        let (_other_folder, other) = file(LINES + 1);
        for (line, expected) in [
            (from.replace("user:", "u:"), "under another --key"),
            (
                format!("--from {} --key user:{{id}} --store {url}", other.display()),
                "lines of another file",
            ),
            (format!("--keys 100k --store {url}"), "give the same --from"),
        ] {
            let output = kvpoc(&format!("seed --resume {line}"));
            assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
            assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        }

        let more = way_on.replace("--rate 20000", "").replace('\'', "");
        let summary = json(&expect_code(&format!("{more} --json --verify"), 0));
        let from = summary["resumed_from"].as_u64().expect("a number");
        assert!(from > 0 && from < LINES, "{summary}");
        assert_eq!(summary["verification"]["checked"], LINES);
    }
}

#[test]
fn a_file_that_cannot_be_loaded_as_a_whole_is_not_loaded_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lines");
    for store in Store::all() {
        let url = store.url();
        for (text, expected) in [
            ("", "it has 0 lines"),
            ("{\"id\":1}\nno JSON\n", "line 2: it is no JSON object"),
            ("{\"id\":1}\n{\"name\":1}\n", "line 2: it has no \"id\""),
            (
                "{\"id\":1}\n{\"id\":\"1\"}\n",
                "lines 1 and 2 have the same key",
            ),
        ] {
            std::fs::write(&path, text).expect("the file is written");
            let from = format!("--from {} --key user:{{id}}", path.display());
            let output = kvpoc(&format!("seed {from} --store {url}"));
            assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
            assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        }
        let output = kvpoc(&format!(
            "seed --from /nonexistent --key {{id}} --store {url}"
        ));
        assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
        assert!(
            !kvpoc(&format!("inspect user:1 --store {url}"))
                .status
                .success()
        );
    }
}

#[test]
fn records_of_a_file_are_not_expected_of_a_service() {
    let (_folder, path) = file(100);
    let store = &Store::all()[0];
    let url = store.url();
    expect_code(
        &format!(
            "seed --from {} --key user:{{id}} --store {url}",
            path.display()
        ),
        0,
    );
    let serve = Serve::start(&url, "--key-prefix user:");
    let target = format!("--target {}/user/session/{{id}}", serve.url());
    let load = "--rps 50 --duration 1s --warmup 0s --max-lag 10s --slo p99=none";
    let output = kvpoc(&format!(
        "bench {target} {load} --expect-records --store {url}"
    ));
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("loaded from a file"),
        "{}",
        stderr(&output)
    );
    // The target itself is asked by ids, as that of any other loader.
    expect_code(
        &format!("bench --target {} {load} --workload single", serve.url()),
        0,
    );
}
