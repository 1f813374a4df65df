//! The store dies, freezes and returns: nothing hangs, nothing is hidden, all recover by themselves.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Process, Reply, Serve, Server, Store, WAYS_TO_READ, assert_balanced, command, eventually,
    free_port, json, json_file, kvpoc, seed, start, stderr,
};

#[test]
fn a_store_that_dies_and_returns_costs_errors_and_nothing_else() {
    let mut store = Server::start();
    seed(&store.url(), 1_000, "");
    store.keep();
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
fn a_store_that_returns_without_its_data_has_no_answers_of_before() {
    let mut store = Server::start();
    seed(&store.url(), 100, "");
    let serve = Serve::start(&store.url(), "--allow-writes");
    assert_eq!(serve.get("/user/session/1").status, 200);
    assert_eq!(serve.get("/stats").json()["total_keys"], 101);
    store.kill();
    store.lose_data();
    store.start_again();
    eventually("a miss", || {
        (serve.get("/user/session/1").status == 404).then_some(())
    });
    eventually("a key", || {
        (serve.request("PUT", "/v1/keys/k", b"v").status == 204).then_some(())
    });
    eventually("the keys of now", || {
        let stats = serve.get("/stats").json();
        (stats["total_keys"] == 1 && stats["dataset"].is_null()).then_some(())
    });
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
    store.keep();
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
            for id in 2..=6 {
                let key = format!("/v1/keys/user:session:{id}");
                serve.request("PUT", &key, value.as_bytes());
            }
            for ids in ["1,2", "1,2,3", "1,2,3,4", "1,2,3,4,5", "1,2,3,4,5,6"] {
                let sessions = serve.get(&format!("/user/sessions?ids={ids}")).json();
                // The word is no session, and is said to be none.
                assert!(sessions[0]["error"].is_string(), "{word} {ids}: {sessions}");
                let others = sessions.as_array().expect("a list").iter().skip(1);
                for session in others {
                    assert_eq!(session["word"], word, "{ids}: {sessions}");
                }
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
    store.limit_memory(Some("3mb"));
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
    if store.engine.is_dragonfly() {
        // All of it is gone, and so is the note: nothing says that any of it were there.
        assert_eq!(held, 0);
        let summary = seed(&store.url(), 1_000, "--resume --verify");
        assert_eq!(summary["resumed_from"], 0, "{summary}");
        return;
    }
    assert!(held >= acknowledged, "{held} of {acknowledged}");
}

#[test]
fn without_a_store_the_message_says_how_to_start_one_or_do_without() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    for line in [
        "seed --keys 1 --retry-for 0s",
        "serve --port 0 --wait-for-store 0s",
        "serve --port 0 --wait-for-store 500ms",
        "inspect key",
    ] {
        let output = kvpoc(&format!("{line} --store {url}"));
        assert_eq!(output.status.code(), Some(69), "{line}");
        let text = stderr(&output);
        assert!(text.contains("error: ") && text.contains(&url), "{text}");
        assert!(
            text.contains("Start a store: scripts/dragonfly")
                && text.contains("Or use the embedded store: --store embedded:"),
            "{text}"
        );
        // In words for people, not for programmers.
        assert!(
            text.contains("connection refused") && !text.contains("Os {"),
            "{text}"
        );
    }
}

#[test]
fn a_server_that_is_started_before_its_store_serves_as_soon_as_it_comes() {
    let mut store = Server::slow_to_load(100);
    seed(&store.url(), 5_000, "--batch 1 --in-flight 100");
    store.keep();
    store.kill();
    for way in WAYS_TO_READ {
        let line = format!("serve --port 0 --store {} {way}", store.url());
        let mut command = command(&line);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let serve = Serve::from_process(command.spawn().expect("it starts"));
        let status = |target: &str| serve.get(target).status;
        assert_eq!((status("/livez"), status("/readyz")), (200, 503), "{way}");
        for target in ["/user/session/1", "/stats", "/v1/keys?k=a"] {
            assert_eq!(status(target), 503, "{way} {target}");
        }
        let told = serve.get("/dashboard.json").json()["store_error"].clone();
        let told = told.as_str().expect("a reason");
        assert!(told.contains("the store cannot be reached"), "{told}");
        // First it still reads its data.
        store.begin_again();
        eventually("the store to be found", || {
            (status("/readyz") == 200).then_some(())
        });
        assert_eq!(status("/user/session/1"), 200, "{way}");
        store.kill();
        eventually("the store to be missed", || {
            (status("/readyz") == 503).then_some(())
        });
        std::thread::sleep(Duration::from_secs(3));
        store.begin_again();
        eventually("recovery", || {
            (status("/user/session/1") == 200).then_some(())
        });
        std::thread::sleep(Duration::from_secs(2));
        serve.process.signal(Signal::TERM);
        let log = serve.log_to_its_end();
        let count = |text: &str| log.matches(text).count();
        assert_eq!(
            count("answered 503 until it is available"),
            1,
            "{way}: {log}"
        );
        assert_eq!(count("the store is available: "), 1, "{way}: {log}");
        assert_eq!(
            count("answered 503 or 504 until it is back"),
            1,
            "{way}: {log}"
        );
        assert_eq!(count("is back after "), 1, "{way}: {log}");
        assert_eq!(count("WARN"), 2, "{way}: {log}");
        store.kill();
    }
}

#[test]
fn a_script_leaves_a_server_alone_that_it_did_not_start() {
    let stranger = Server::start();
    assert_eq!(stranger.ask("SET precious kept"), "+OK\r\n");
    let script = format!(
        "source {}/scripts/common.sh\n\
         first_port={port}\n\
         start_store \"$(command -v {engine})\"\n\
         must_be_ours \"$store_pid\" \"$port\"\n\
         [ \"$port\" != {port} ] && echo elsewhere\n\
         must_be_ours \"$store_pid\" {port}\n\
         echo flushed",
        env!("CARGO_MANIFEST_DIR"),
        port = stranger.port,
        engine = stranger.engine.program()
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output();
    let output = output.expect("bash runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        (&*said, output.status.code()),
        ("elsewhere\n", Some(69)),
        "{}",
        stderr(&output)
    );
    assert_eq!(stranger.ask("GET precious"), "$4\r\nkept\r\n");
}

fn start_bench(serve: &Serve, file: &std::path::Path) -> Process {
    let load = "--rps 500 --duration 5s --warmup 0s --connections 16 --max-lag 10s";
    let (url, file) = (serve.url(), file.display());
    start(&format!("bench --target {url} {load} --json {file}"))
}
