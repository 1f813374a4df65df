//! seed → serve → HTTP → bench → inspect, on every store.

use crate::support::{
    Serve, Store, eventually, expect_code, json, json_file, kvpoc, seed, start, stdout,
};
use rustix::process::Signal;
use serde_json::json;

const KEYS: u64 = 20_000;

#[test]
fn the_whole_flow_works_on_every_store() {
    for store in Store::all() {
        let url = store.url();
        let summary = seed(&url, KEYS, "");
        assert_eq!(summary["outcome"], "complete");
        assert_eq!(summary["keys_acknowledged"], KEYS);
        assert_eq!(summary["store_keys_before"], 0);
        // The dataset's note is a key too.
        assert_eq!(summary["store_keys_after"], KEYS + 1);

        let serve = Serve::start(&url, "");
        let session = serve.get("/user/session/7").json();
        assert_eq!(session["id"], 7);
        assert_eq!(session["status"], "active");
        let batch = serve.get("/user/sessions?ids=3,99999999,1").json();
        let ids: Vec<_> = (0..3).map(|place| batch[place]["id"].clone()).collect();
        assert_eq!(ids, [json!(3), json!(null), json!(1)]);
        assert_eq!(serve.get("/v1/keys/user:session:7").body.len(), 256);
        assert_eq!(serve.get("/stats").json()["total_keys"], KEYS + 1);

        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("bench.json");
        let (target, file_name) = (serve.url(), file.display());
        let load =
            "--rps 500 --duration 2s --warmup 500ms --connections 8 --max-lag 10s --slo p99=none";
        let bench = kvpoc(&format!(
            "bench --target {target} {load} --json {file_name}"
        ));
        let results = json_file(&file);
        let requests = &results["requests"];
        assert_eq!(requests["scheduled"], 1_000, "{results}");
        assert_eq!(requests["ok"], 1_000, "{results}");
        assert_eq!(results["warmup"]["ok"], 250, "{results}");
        assert_eq!(results["keys"], json!({"hits": 15_000, "misses": 0}));
        assert_eq!(results["conditions"]["keys"], KEYS);
        // A busy machine may be too slow for the claim, but never wrong.
        let verdict = results["verdict"].as_str().expect("a verdict");
        let verdicts = ["PASS", "TARGET_MISSED", "GENERATOR_LIMITED"];
        let code = verdicts.iter().position(|name| *name == verdict);
        let code = code.and_then(|code| i32::try_from(code).ok());
        assert!(code.is_some(), "{}", results["reason"]);
        assert_eq!(bench.status.code(), code, "{}", results["reason"]);
        assert!(stdout(&bench).contains(&format!("Verdict: {verdict}")));

        let inspected = expect_code(&format!("inspect user:session:7 --json --store {url}"), 0);
        let inspected = json(&inspected);
        assert_eq!(inspected["format"], "record");
        assert_eq!(inspected["size_bytes"], 256);
        assert_eq!(inspected["content"]["id"], 7);
        let described = json(&expect_code(&format!("inspect --json --store {url}"), 0));
        assert_eq!(described["dataset"]["keys"], KEYS);
        assert_eq!(described["sample"]["values"], 10_000);
    }
}

#[test]
fn every_key_is_there_with_its_own_bytes() {
    for store in Store::all() {
        let url = store.url();
        seed(&url, 1_000, "--batch 7 --in-flight 3 --value-size 1KiB");
        let serve = Serve::start(&url, "");
        for first in (0..1_000).step_by(100) {
            let ids: Vec<String> = (first..first + 100).map(|id: u64| id.to_string()).collect();
            let batch = serve
                .get(&format!("/user/sessions?ids={}", ids.join(",")))
                .json();
            let found = batch
                .as_array()
                .expect("an array")
                .iter()
                .map(|session| &session["id"]);
            assert!(
                found.eq((first..first + 100)
                    .map(|id| json!(id))
                    .collect::<Vec<_>>()
                    .iter())
            );
        }
        assert_eq!(serve.get("/v1/keys/user:session:999").body.len(), 1_024);
    }
}

#[test]
fn both_stores_hold_the_same_bytes_and_seeding_again_changes_nothing() {
    let mut values = Vec::new();
    for store in Store::all() {
        let url = store.url();
        for _ in 0..2 {
            let summary = seed(&url, 500, "--seed 9");
            assert_eq!(summary["store_keys_after"], 501);
            let serve = Serve::start(&url, "");
            values.push(serve.get("/v1/keys/user:session:321").body);
        }
    }
    assert!(values.iter().all(|value| *value == values[0]));
}

#[test]
fn seeded_keys_expire_when_they_are_told_to() {
    for store in Store::all() {
        let url = store.url();
        seed(&url, 300, "--ttl 1h");
        let inspected = expect_code(&format!("inspect user:session:5 --json --store {url}"), 0);
        let ttl_s = json(&inspected)["ttl_s"].as_f64().expect("a ttl");
        assert!((3_000.0..=3_600.0).contains(&ttl_s), "{ttl_s}");
        seed(&url, 300, "--ttl 1ms --key-prefix short:");
        eventually("the end of a key", || {
            let output = kvpoc(&format!("inspect short:5 --store {url}"));
            (output.status.code() == Some(1)).then_some(())
        });
    }
}

#[test]
fn an_absent_key_is_said_to_be_absent() {
    for store in Store::all() {
        let url = store.url();
        seed(&url, 10, "");
        let text = expect_code(&format!("inspect key --store {url}"), 1);
        assert!(text.contains("no such key"), "{text}");
        let answer = expect_code(&format!("inspect key --json --store {url}"), 1);
        assert_eq!(json(&answer), json!({"key": "key", "exists": false}));
    }
}

#[test]
fn a_signal_stops_a_load_and_says_how_far_it_got() {
    for store in Store::all() {
        let url = store.url();
        let mut seeding = start(&format!("seed --json --store {url} --keys 1G --force"));
        eventually("the first key", || {
            let output = kvpoc(&format!("inspect user:session:0 --store {url}"));
            output.status.success().then_some(())
        });
        seeding.signal(Signal::INT);
        assert_eq!(seeding.ended(), Some(130));
        let summary = json(&seeding.output());
        assert_eq!(summary["outcome"], "interrupted");
        let acknowledged = summary["keys_acknowledged"].as_u64().expect("a count");
        assert!(acknowledged > 0);
        // Nothing acknowledged is lost, and an incomplete dataset is not announced as one.
        assert!(summary["store_keys_after"].as_u64() >= Some(acknowledged));
        let described = json(&expect_code(&format!("inspect --json --store {url}"), 0));
        assert!(described["dataset"].is_null());
    }
}

#[test]
fn the_note_of_the_dataset_is_never_more_than_the_truth() {
    for store in Store::all() {
        let url = store.url();
        let noted = || {
            let text = expect_code(&format!("inspect --json --store {url}"), 0);
            json(&text)["dataset"]["keys"].clone()
        };
        seed(&url, 100, "");
        assert_eq!(noted(), 100);
        // Another dataset under the same keys, of which only a part arrives.
        let mut seeding = start(&format!("seed --store {url} --keys 1G --force --seed 2"));
        eventually("the end of the old note", || {
            noted().is_null().then_some(())
        });
        seeding.signal(Signal::INT);
        assert_eq!(seeding.ended(), Some(130));
        assert!(noted().is_null());
        seed(&url, 100, "--ttl 300ms");
        eventually("the end of the keys and their note", || {
            noted().is_null().then_some(())
        });
    }
}

#[test]
fn a_reader_that_goes_away_costs_no_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("embedded:{}", folder.path().display());
    let mut seeding = start(&format!("seed --store {url} --keys 200k --json"));
    drop(seeding.0.stdout.take());
    assert_eq!(seeding.ended(), Some(0));
}

#[test]
fn seed_serve_and_inspect_share_one_embedded_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("embedded:{}", folder.path().display());
    seed(&url, 1_000, "");
    let serve = Serve::start(&url, "--allow-writes");
    assert_eq!(serve.get("/user/session/1500").status, 404);
    seed(&url, 2_000, "");
    assert_eq!(serve.get("/user/session/1500").status, 200);
    assert_eq!(serve.request("PUT", "/v1/keys/mine", b"value").status, 204);
    let text = expect_code(&format!("inspect mine --store {url}"), 0);
    assert!(text.contains("value"), "{text}");
}
