//! The store dies, freezes and returns: nothing hangs, nothing is hidden, all recover by themselves.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Process, Reply, Serve, Server, Store, assert_balanced, eventually, free_port, json, json_file,
    kvpoc, seed, start, stderr,
};

#[test]
fn a_store_that_dies_and_returns_costs_errors_and_nothing_else() {
    let mut store = Server::start();
    seed(&store.url(), 1_000, "");
    let serve = Serve::start(&store.url(), "");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bench.json");
    let mut bench = start_bench(&serve, &file);
    std::thread::sleep(Duration::from_secs(1));

    store.kill();
    let reply = eventually("a refusal", || {
        Some(serve.get("/user/session/1")).filter(|reply| reply.status == 503)
    });
    assert!(reply.head.contains("retry-after: 1"), "{reply:?}");
    assert!(reply.head.contains("application/problem+json"), "{reply:?}");
    assert_eq!(serve.get("/readyz").status, 503);
    assert_eq!(serve.get("/livez").status, 200);

    store.start_again();
    eventually("recovery", || {
        (serve.get("/user/session/1").status == 200).then_some(())
    });
    eventually("readiness", || {
        (serve.get("/readyz").status == 200).then_some(())
    });

    assert_eq!(bench.ended(), Some(1), "TARGET_MISSED");
    let results = json_file(&file);
    let count = |name: &str| results["requests"][name].as_u64().expect(name);
    assert_eq!(count("scheduled"), 2_500, "{results}");
    assert_balanced(&results);
    assert!(count("errors") > 0 && count("ok") > 0, "{results}");
    assert!(
        results["requests"]["errors_by_cause"]["http_503"].as_u64() > Some(0),
        "{results}"
    );
}

#[test]
fn a_frozen_store_is_answered_for_within_the_deadline() {
    let store = Server::start();
    seed(&store.url(), 1_000, "");
    let serve = Serve::start(&store.url(), "--store-timeout 100ms");
    store.process().signal(Signal::STOP);
    let started = Instant::now();
    let reply = serve.get("/user/session/1");
    assert_eq!(reply.status, 504, "{reply:?}");
    // The deadline is 0.1 s; what is refused here is waiting without end.
    assert!(started.elapsed() < Duration::from_secs(5));
    store.process().signal(Signal::CONT);
    eventually("recovery", || {
        (serve.get("/user/session/1").status == 200).then_some(())
    });
}

#[test]
fn a_store_that_stays_frozen_under_load_is_refused_at_once_and_used_again_when_it_thaws() {
    let store = Server::start();
    seed(&store.url(), 1_000, "");
    let serve = Serve::start(&store.url(), "--store-timeout 50ms --threads 1");
    store.process().signal(Signal::STOP);
    // Enough missed deadlines in a row, and the server no longer waits for each.
    eventually("a refusal without waiting", || {
        let started = Instant::now();
        let replies = (0..8).map(|_| serve.start_get("/user/session/1"));
        let replies: Vec<_> = replies
            .collect::<Vec<_>>()
            .into_iter()
            .map(Reply::read)
            .collect();
        assert!(started.elapsed() < Duration::from_secs(5));
        replies
            .iter()
            .any(|reply| reply.status == 503)
            .then_some(())
    });
    // A supervisor replaces a frozen process; the connection breaks with commands still in the client.
    let mut store = store;
    store.kill();
    store.start_again();
    eventually("recovery", || {
        (serve.get("/user/session/1").status == 200).then_some(())
    });
}

#[test]
fn values_that_read_like_messages_are_served_like_any_other() {
    for store in Store::all() {
        let serve = Serve::start(&store.url(), "--allow-writes --threads 1");
        for word in [
            "message",
            "pmessage",
            "smessage",
            "subscribe",
            "psubscribe",
            "unsubscribe",
        ] {
            let value = format!(r#"{{"status":"active","word":"{word}"}}"#);
            serve.request("PUT", "/v1/keys/user:session:1", word.as_bytes());
            serve.request("PUT", "/v1/keys/user:session:2", value.as_bytes());
            for ids in ["1,2", "1,2,2", "1,2,2,2", "1,2,2,2,2", "1,2,2,2,2,2"] {
                // The word is no session, and is said to be none.
                assert_eq!(
                    serve.get(&format!("/user/sessions?ids={ids}")).status,
                    502,
                    "{word} {ids}"
                );
                // Whatever came before, each answer belongs to its own question.
                assert_eq!(serve.get("/user/session/2").json()["word"], word);
                assert_eq!(serve.get("/v1/keys/user:session:1").body, word.as_bytes());
            }
        }
    }
}

#[test]
fn a_full_store_fails_the_load_with_its_own_words() {
    let store = Server::start();
    assert_eq!(store.ask("CONFIG SET maxmemory 3mb"), "+OK\r\n");
    let output = kvpoc(&format!(
        "seed --store {} --keys 100k --retry-for 500ms",
        store.url()
    ));
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("FAILED after") && text.contains("the store is full"),
        "{text}"
    );
}

#[test]
fn a_store_that_dies_during_a_load_fails_it_and_loses_nothing_acknowledged() {
    let mut store = Server::start();
    let mut seeding = start(&format!(
        "seed --json --store {} --keys 1G --retry-for 500ms",
        store.url()
    ));
    eventually("the first keys", || {
        store
            .ask("EXISTS user:session:5000")
            .starts_with(":1")
            .then_some(())
    });
    store.kill();
    assert_eq!(seeding.ended(), Some(1));
    let summary = json(&seeding.output());
    assert_eq!(summary["outcome"], "failed");
    let acknowledged = summary["keys_acknowledged"].as_u64().expect("a count");
    store.start_again();
    let held: u64 = store
        .ask("DBSIZE")
        .trim_start_matches(':')
        .trim()
        .parse()
        .expect("a count");
    assert!(held >= acknowledged, "{held} of {acknowledged}");
}

#[test]
fn without_a_store_the_message_gives_two_ways_on() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    for line in ["seed --keys 1", "serve --port 0", "inspect key"] {
        let output = kvpoc(&format!("{line} --store {url}"));
        assert_eq!(output.status.code(), Some(69), "{line}");
        let text = stderr(&output);
        assert!(text.starts_with("error: ") && text.contains(&url), "{text}");
        assert!(
            text.contains("scripts/dragonfly") && text.contains("embedded:"),
            "{text}"
        );
    }
}

fn start_bench(serve: &Serve, file: &std::path::Path) -> Process {
    let load = "--rps 500 --duration 5s --warmup 0s --connections 16 --max-lag 10s";
    let (url, file) = (serve.url(), file.display());
    start(&format!("bench --target {url} {load} --json {file}"))
}
