//! `kvpoc seed`: what it proves about the keys, and what it does when it is interrupted.

use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Serve, Server, Store, eventually, expect_code, json, kvpoc, seed, start, stderr,
};

fn verify(store: &str, keys: u64, more: &str, code: i32) -> Value {
    let line = format!("seed --verify-only --json --store {store} --keys {keys} {more}");
    json(&expect_code(&line, code))["verification"].clone()
}

#[test]
fn a_verified_dataset_holds_every_record_and_what_else_is_there_is_told() {
    for store in Store::all() {
        let summary = seed(&store.url(), 1_000, "--verify");
        let found = &summary["verification"];
        assert_eq!(found["checked"], 1_000);
        assert_eq!(
            (&found["missing"], &found["different"], &found["extra"]),
            (&json!(0), &json!(0), &json!(0))
        );

        let serve = Serve::start(&store.url(), "--allow-writes");
        let status = |method, key: &str, body: &[u8]| {
            serve
                .request(method, &format!("/v1/keys/{key}"), body)
                .status
        };
        assert_eq!(status("DELETE", "user:session:7", b""), 204);
        assert_eq!(status("PUT", "user:session:8", b"other"), 204);
        assert_eq!(status("PUT", "user:session:1000", b"extra"), 204);
        assert_eq!(status("PUT", "somebody:else", b"x"), 204);
        let found = verify(&store.url(), 1_000, "", 1);
        assert_eq!(
            (&found["missing"], &found["different"], &found["extra"]),
            (&json!(1), &json!(1), &json!(1))
        );
        let first = found["first"].to_string();
        for text in [
            "user:session:7 is missing",
            "user:session:8 has another value",
            "user:session:1000 is not in the dataset",
        ] {
            assert!(first.contains(text), "{first}");
        }
        // Loading again mends what is missing and different, and leaves what is not its own: no fault.
        seed(&store.url(), 1_000, "");
        let found = verify(&store.url(), 1_000, "", 0);
        assert_eq!(
            (&found["missing"], &found["different"], &found["extra"]),
            (&json!(0), &json!(0), &json!(1))
        );
    }
}

#[test]
fn a_sample_is_the_same_each_time() {
    for store in Store::all() {
        seed(&store.url(), 5_000, "");
        let checked = |more| verify(&store.url(), 5_000, more, 0)["checked"].as_u64();
        let first = checked("--verify-sample 0.1");
        assert!((300..700).contains(&first.expect("a number")), "{first:?}");
        assert_eq!(checked("--verify-sample 0.1"), first);
    }
}

#[test]
fn a_killed_load_goes_on_where_it_stopped_and_is_complete() {
    for store in Store::all() {
        let url = store.url();
        let line = format!("seed --json --quiet --store {url} --keys 1M --batch 128");
        let mut seeding = start(&line);
        let reached = eventually("a checkpoint", || {
            let output = kvpoc(&format!("inspect kvpoc:dataset --json --store {url}"));
            let note: Value = serde_json::from_slice(&output.stdout).ok()?;
            note["content"]["loaded"]
                .as_u64()
                .filter(|&loaded| loaded > 0)
        });
        seeding.signal(Signal::KILL);
        assert_eq!(seeding.ended(), None);
        // Nobody takes a part for the whole.
        let serve = Serve::start(&url, "");
        assert_eq!(serve.get("/stats").json()["dataset"], Value::Null);
        let summary = json(&expect_code(&format!("{line} --resume --verify"), 0));
        let from = summary["resumed_from"].as_u64().expect("a number");
        assert!(from >= reached, "{summary}");
        assert_eq!(
            from + summary["keys_acknowledged"].as_u64().expect("a number"),
            1_000_000
        );
        assert_eq!(summary["verification"]["checked"], 1_000_000);
    }
}

#[test]
fn a_load_that_is_on_disk_batch_by_batch_is_complete() {
    let store = &Store::all()[1];
    let summary = seed(&store.url(), 2_000, "--sync batch --verify");
    assert_eq!(summary["verification"]["checked"], 2_000);
}

#[test]
fn a_full_disk_fails_the_load_and_keeps_what_was_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("embedded:{}", folder.path().display());
    // No file may grow beyond 20,000 blocks of 512 bytes: writing more fails, as on a disk without room.
    let limited = "trap '' XFSZ; ulimit -f 20000; exec \"$@\"";
    let line = format!("seed --keys 200k --quiet --json --retry-for 1s --store {url}");
    let output = Command::new("sh")
        .args(["-c", limited, "sh", env!("CARGO_BIN_EXE_kvpoc")])
        .args(line.split(' '))
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let summary = json(&crate::support::stdout(&output));
    let failure = summary["failure"].as_str().expect("a failure");
    assert!(failure.contains("the store is full"), "{summary}");
    let acknowledged = summary["keys_acknowledged"].as_u64().expect("a number");
    assert!(acknowledged > 1_000, "{summary}");

    // Without the limit it is as it was left, and can be completed.
    let found = json(&expect_code(&format!("inspect --json --store {url}"), 0));
    assert!(
        found["store"]["keys"].as_u64() >= Some(acknowledged),
        "{found}"
    );
    let summary = seed(&url, 200_000, "--resume --verify");
    assert_eq!(summary["verification"]["checked"], 200_000);
}

#[test]
fn a_store_that_restarts_during_a_load_costs_no_key() {
    let with_its_data = Server::start();
    let is_kept = !with_its_data.engine.is_dragonfly();
    let empty = Server::without_persistence();
    for (mut server, is_kept) in [(with_its_data, is_kept), (empty, false)] {
        let url = server.url();
        let mut seeding = start(&format!(
            "seed --json --verify --store {url} --keys 200k --batch 100 --rate 50k --store-timeout 500ms"
        ));
        eventually("the 1,000th key", || {
            server
                .ask("EXISTS user:session:1000")
                .starts_with(":1")
                .then_some(())
        });
        server.kill();
        // Away until the load has tried to connect anew for longer than any batch may take.
        for _ in 0..5 {
            server.refuse_one_connection();
        }
        server.start_again();
        let (code, text) = (seeding.ended(), seeding.output());
        assert_eq!(code, Some(0), "{text}");
        let summary = json(&text);
        assert!(summary["retries"].as_u64() > Some(0), "{summary}");
        let again = summary["keys_loaded_again"].as_u64();
        assert!(is_kept || again > Some(0), "{summary}");
        assert_eq!(summary["verification"]["checked"], 200_000);
    }
}

#[test]
fn another_dataset_is_not_taken_for_the_one_to_resume() {
    for store in Store::all() {
        seed(&store.url(), 100, "");
        let output = kvpoc(&format!(
            "seed --resume --keys 200 --seed 2 --store {}",
            store.url()
        ));
        assert_eq!(output.status.code(), Some(69));
        assert!(
            stderr(&output).contains("cannot resume"),
            "{}",
            stderr(&output)
        );
        // More of the same is only what is missing.
        let summary = seed(&store.url(), 200, "--resume");
        assert_eq!(
            (&summary["resumed_from"], &summary["keys_acknowledged"]),
            (&json!(100), &json!(100))
        );
    }
}

#[test]
fn a_shuffled_load_is_the_same_dataset_and_can_be_resumed() {
    for store in Store::all() {
        let url = store.url();
        let summary = seed(
            &url,
            3_000,
            "--shuffle --verify --batch 100 --connections 2",
        );
        assert_eq!(summary["verification"]["missing"], 0);
        assert_eq!(
            seed(&url, 3_000, "--shuffle --resume")["keys_acknowledged"],
            0
        );
        let other_order = format!("seed --resume --keys 3000 --store {url}");
        assert_eq!(kvpoc(&other_order).status.code(), Some(69));
    }
}

#[test]
fn a_load_keeps_to_its_rate_and_spreads_its_times_to_live() {
    let server = Server::start();
    let more = "--rate 2000 --batch 100 --ttl 1h --ttl-jitter 0.5";
    let summary = seed(&server.url(), 2_000, more);
    // The last batch goes 0.95 s after the first; slower is no fault.
    assert!(summary["elapsed_s"].as_f64() >= Some(0.9), "{summary}");
    let left_s = |index: u64| -> u64 {
        let answer = server.ask(&format!("TTL user:session:{index}"));
        answer
            .trim_start_matches(':')
            .trim()
            .parse()
            .expect("seconds")
    };
    let all: std::collections::BTreeSet<u64> = (0..20).map(|batch| left_s(batch * 100)).collect();
    assert!(all.len() > 10, "{all:?}");
    assert!(
        all.iter().all(|left_s| (1_700..=3_600).contains(left_s)),
        "{all:?}"
    );
}

#[test]
fn what_will_not_fit_is_refused_after_the_first_keys_unless_it_is_forced() {
    let server = Server::start();
    server.limit_memory(Some("20mb"));
    let line = format!(
        "seed --json --store {} --keys 100k --retry-for 0s",
        server.url()
    );
    let summary = json(&expect_code(&line, 1));
    assert_eq!(summary["keys_acknowledged"], 20_000);
    let failure = summary["failure"].as_str().expect("a failure");
    assert!(
        failure.contains("would need about") && failure.contains("--force"),
        "{failure}"
    );
    let forced = json(&expect_code(&format!("{line} --force"), 1));
    let failure = forced["failure"].as_str().expect("a failure");
    assert!(failure.contains("the store is full"), "{failure}");
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    for store in Store::all() {
        seed(&store.url(), 100, "");
        let line = format!(
            "seed --dry-run --resume --keys 5000 --store {}",
            store.url()
        );
        let text = expect_code(&line, 0);
        for expected in [
            "Would load      4,900 keys",
            "the first 100 keys are already loaded",
            "256 bytes each",
            "101 keys",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        verify(&store.url(), 100, "", 0);
    }
}

#[test]
fn records_of_many_sizes_are_verified_and_served_like_any_other() {
    for store in Store::all() {
        for sizes in ["128..1024", "etc"] {
            let url = store.url();
            let more = format!("--value-size {sizes} --verify");
            assert_eq!(seed(&url, 2_000, &more)["verification"]["checked"], 2_000);
            let found = json(&expect_code(&format!("inspect --json --store {url}"), 0));
            assert_eq!(found["dataset"]["value_size"], sizes);
            let most = found["sample"]["value_bytes_max"].as_u64();
            let least = found["sample"]["value_bytes_min"].as_u64();
            assert!(most > Some(900) && least < Some(200), "{found}");
            let serve = Serve::start(&url, "");
            let target = serve.url();
            let line = "--rps 300 --duration 1s --warmup 0s --verify 1 --max-lag 10s --slo rate=0%,p99=none";
            expect_code(&format!("bench --target {target} {line}"), 0);
        }
    }
}

#[test]
fn the_embedded_store_takes_its_checkpoints_between_the_batches() {
    let store = &Store::all()[1];
    let summary = seed(&store.url(), 300_000, "--batch 100 --rate 150k --quiet");
    assert_eq!(summary["retries"], 0, "{summary}");
    // Nothing is created where there is nothing, and what expires is not resumed.
    let folder = tempfile::tempdir().expect("a folder");
    let absent = folder.path().join("absent");
    expect_code(
        &format!("seed --dry-run --store embedded:{}", absent.display()),
        0,
    );
    assert!(!absent.exists());
    let line = format!("seed --resume --ttl 1h --store {}", store.url());
    assert_eq!(kvpoc(&line).status.code(), Some(64));
    verify(&store.url(), 10, "--verify-sample 0", 1);
}
