//! The dataset's note: what it says is there is there, whatever happens to the store or to the load.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Process, Serve, Server, Store, eventually, expect_code, free_port, json, kvpoc, seed, start,
    start_until, stderr, stdout,
};

mod loss;
mod note;

/// The note as it is kept; null when there is none.
fn note(url: &str) -> Value {
    let output = kvpoc(&format!("inspect kvpoc:dataset --json --store {url}"));
    let Ok(found) = serde_json::from_slice::<Value>(&output.stdout) else {
        return Value::Null;
    };
    found["content"].clone()
}

fn is_usable(note: &Value) -> bool {
    !note.is_null() && note["state"] != "loading" && note["loaded"].is_null()
}

fn number(answer: &str) -> u64 {
    let digits = answer.trim_start_matches(':').trim();
    digits.parse().expect("a number")
}

fn wait_for_key(server: &Server, index: u64) {
    eventually("a key", || {
        let answer = server.ask(&format!("EXISTS user:session:{index}"));
        answer.starts_with(":1").then_some(())
    });
}

fn verify(url: &str, keys: u64, more: &str, code: i32) -> Value {
    let line = format!("seed --verify-only --json --store {url} --keys {keys} {more}");
    json(&expect_code(&line, code))["verification"].clone()
}

#[test]
fn a_store_that_loses_its_data_in_mid_load_never_ends_as_complete_without_it() {
    const KEYS: u64 = 100_000;
    for loss in ["restart", "flush", "older snapshot", "restart at the end"] {
        let mut server = Server::without_persistence();
        let url = server.url();
        let line = format!("seed --json --quiet --store {url} --keys {KEYS} --rate 50k");
        let mut seeding = start(&line);
        match loss {
            "older snapshot" => {
                wait_for_key(&server, 20_000);
                server.save();
                wait_for_key(&server, 80_000);
            }
            "restart at the end" => wait_for_key(&server, KEYS - 5_000),
            _ => wait_for_key(&server, 70_000),
        }
        if loss == "flush" {
            assert_eq!(server.ask("FLUSHALL"), "+OK\r\n");
        } else {
            server.kill();
            server.start_again();
        }
        let (code, held) = (seeding.ended(), number(&server.ask("DBSIZE")));
        let text = format!("{loss}: {}", seeding.output());
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(held, KEYS + 1, "{text}");
        assert!(json(&text[loss.len() + 2..])["keys_loaded_again"].as_u64() > Some(0));
        assert_eq!(note(&url)["state"], "loaded", "{loss}");
        verify(&url, KEYS, "", 0);
        assert_eq!(note(&url)["state"], "verified", "{loss}");
    }
}

#[test]
fn a_store_that_evicts_what_it_acknowledged_fails_the_load() {
    let server = Server::evicting();
    server.limit_memory(Some("20mb"));
    let line = format!(
        "seed --json --force --keys 200k --retry-for 2s --store {}",
        server.url()
    );
    let summary = json(&expect_code(&line, 1));
    let failure = summary["failure"].as_str().expect("a failure");
    assert!(
        failure.contains("evict") || failure.contains("has lost its data"),
        "{failure}"
    );
    assert!(!is_usable(&note(&server.url())));
}

#[test]
fn what_is_missing_or_different_is_written_again_by_resuming_with_verification() {
    for store in Store::all() {
        let url = store.url();
        seed(&url, 3_000, "");
        let serve = Serve::start(&url, "--allow-writes");
        let damage = || {
            for (method, key, status) in
                [("DELETE", 7, 204), ("DELETE", 2_999, 204), ("PUT", 8, 204)]
            {
                let key = format!("/v1/keys/user:session:{key}");
                assert_eq!(serve.request(method, &key, b"other").status, status);
            }
        };
        damage();
        // Known to be damaged, it is nobody's dataset until it is mended.
        verify(&url, 3_000, "", 1);
        assert_eq!(note(&url)["loaded"], 7, "{}", note(&url));
        for (is_damaged, keys_loaded, rewritten) in [
            // From the first fault on it is loaded again, which mends all.
            (false, 2_993, 0),
            (true, 0, 3),
            (false, 0, 0),
        ] {
            if is_damaged {
                damage();
            }
            let summary = seed(&url, 3_000, "--resume --verify");
            let found = &summary["verification"];
            assert_eq!(summary["keys_acknowledged"], keys_loaded, "{summary}");
            assert_eq!(found["rewritten"], rewritten, "{summary}");
            assert_eq!(
                (&found["missing"], &found["different"]),
                (&json!(0), &json!(0))
            );
            assert_eq!(note(&url)["state"], "verified");
            verify(&url, 3_000, "", 0);
        }
        // Without verification, too few keys are all that can be seen; then they are loaded again.
        damage();
        let summary = seed(&url, 3_000, "--resume");
        assert_eq!(summary["keys_acknowledged"], 3_000, "{summary}");
        verify(&url, 3_000, "", 0);
    }
}

#[test]
fn a_note_that_outlived_its_keys_is_not_believed() {
    for reload in ["--resume", "--resume --verify"] {
        let server = Server::start();
        let url = server.url();
        seed(&url, 30_000, "");
        let old = note(&url);
        let restore = || {
            assert_eq!(server.ask("FLUSHALL"), "+OK\r\n");
            let restored = server.ask_words(&["SET", "kvpoc:dataset", &old.to_string()]);
            assert_eq!(restored, "+OK\r\n");
        };
        restore();
        let summary = seed(&url, 30_000, reload);
        assert_eq!(summary["resumed_from"], 0, "{summary}");
        verify(&url, 30_000, "", 0);

        // Killed while the keys are loaded again, it says how far that came.
        restore();
        let line = format!("seed --quiet --store {url} --keys 30k --rate 10k --batch 100");
        let mut seeding = start(&line);
        wait_for_key(&server, 12_000);
        seeding.signal(Signal::KILL);
        assert_eq!(seeding.ended(), None);
        let unfinished = note(&url);
        assert_eq!(unfinished["state"], "loading", "{unfinished}");
        let reached = unfinished["loaded"].as_u64().expect("a number");
        assert!(reached > 0 && reached <= number(&server.ask("DBSIZE")));
        let serve = Serve::start(&url, "");
        let stats = serve.get("/stats").json();
        assert_eq!(stats["dataset"], Value::Null);
        assert_eq!(stats["unfinished_load"]["loaded"], reached);
        // Nobody is let loose on a part of it.
        for target in [serve.url(), format!("store --store {url}")] {
            let output = kvpoc(&format!("bench --rps 10 --duration 1s --target {target}"));
            let text = stderr(&output);
            assert!(
                text.contains("is incomplete") && text.contains("--resume"),
                "{text}"
            );
        }
        let summary = seed(&url, 30_000, reload);
        assert_eq!(summary["resumed_from"], reached, "{summary}");
        verify(&url, 30_000, "", 0);
    }
}

#[test]
fn of_two_loads_at_once_one_is_refused() {
    for store in Store::all() {
        let url = store.url();
        let sizes = [256, 200];
        let both: Vec<(u32, Process)> = sizes
            .into_iter()
            .map(|size| {
                let more = "--keys 60k --rate 20k --quiet --json --verify";
                let line = format!("seed --store {url} {more} --value-size {size}");
                (size, start(&line))
            })
            .collect();
        let ended = both.into_iter().map(|(size, mut one)| (size, one.ended()));
        let ended: Vec<(u32, Option<i32>)> = ended.collect();
        let good: Vec<u32> = ended
            .iter()
            .filter(|(_, code)| *code == Some(0))
            .map(|(size, _)| *size)
            .collect();
        let [size] = good[..] else {
            panic!("one of them must have been refused: {ended:?}");
        };
        assert_eq!(note(&url)["value_size"], size);
        verify(&url, 60_000, &format!("--value-size {size}"), 0);
    }
}

#[test]
fn a_load_is_taken_over_only_by_force_while_it_runs() {
    for store in Store::all() {
        let url = store.url();
        let line = format!("seed --quiet --json --store {url} --keys 1M --rate 20k");
        let mut first = start(&line);
        eventually("a claim", || (!note(&url).is_null()).then_some(()));
        let second = format!("seed --keys 1000 --value-size 200 --store {url}");
        let refused = kvpoc(&second);
        assert_eq!(refused.status.code(), Some(69), "{}", stderr(&refused));
        let text = stderr(&refused);
        assert!(
            text.contains("another seed") && text.contains("--force"),
            "{text}"
        );
        expect_code(&format!("{second} --force --verify"), 0);
        assert_eq!(first.ended(), Some(1));
        let failure = json(&first.output())["failure"].to_string();
        assert!(failure.contains("taken over"), "{failure}");
        assert_eq!(note(&url)["value_size"], 200);
        verify(&url, 1_000, "--value-size 200", 0);
    }
}

#[test]
fn an_interrupted_load_can_be_gone_on_with_at_once() {
    for store in Store::all() {
        let url = store.url();
        let line = format!("seed --json --store {url} --keys 100k --rate 20k --batch 100");
        let (mut seeding, _) = start_until(&line, "Seeding");
        eventually("some keys", || {
            let output = kvpoc(&format!("inspect user:session:2000 --store {url}"));
            output.status.success().then_some(())
        });
        seeding.signal(Signal::INT);
        assert_eq!(seeding.ended(), Some(130));
        let note = note(&url);
        assert_eq!(
            (&note["state"], &note["owner"]),
            (&json!("loading"), &Value::Null)
        );
        let summary = seed(&url, 100_000, "--resume --verify");
        assert_eq!(summary["resumed_from"], note["loaded"]);
    }
}

#[test]
fn the_embedded_store_is_rid_of_what_has_expired_while_it_is_served() {
    let store = &Store::all()[1];
    let url = store.url();
    seed(&url, 500, "--key-prefix stays:");
    seed(&url, 20_000, "--key-prefix goes: --ttl 2s");
    let keys = || {
        let found = json(&expect_code(&format!("inspect --json --store {url}"), 0));
        found["store"]["keys"].as_u64()
    };
    let serve = Serve::start(&url, "");
    eventually("the end of what expires", || {
        (keys() == Some(500)).then_some(())
    });
    assert_eq!(serve.get("/stats").json()["total_keys"], 500);
    verify(&url, 500, "--key-prefix stays:", 0);
}

#[test]
fn keys_of_a_larger_dataset_that_stay_are_told_before_the_load() {
    for store in Store::all() {
        let url = store.url();
        seed(&url, 4_000, "");
        // The second load knows it from the note, the others only from the store; the last one's note is of a part.
        for (keys, told) in [
            (600, "up to 3,400 keys"),
            (600, "from user:session:600 on"),
            (500, "from user:session:500 on"),
        ] {
            let preview = expect_code(&format!("seed --dry-run --keys {keys} --store {url}"), 0);
            let output = kvpoc(&format!("seed --keys {keys} --json --store {url}"));
            assert_eq!(output.status.code(), Some(0));
            let remark = json(&stdout(&output))["remarks"][0].to_string();
            for text in [&preview, &stderr(&output), &remark] {
                assert!(text.contains(told), "{told} in {text}");
                let way_out = text.contains("redis-cli") || text.contains("remove the folder");
                assert!(way_out, "{text}");
            }
        }
        // They are no fault of the dataset that is there.
        assert_eq!(verify(&url, 500, "", 0)["extra"], 3_500);
        assert_eq!(note(&url)["keys"], 500);
        let serve = Serve::start(&url, "");
        assert_eq!(serve.get("/stats").json()["dataset"]["keys"], 500);
    }
}

#[test]
fn a_verification_keeps_to_the_rate() {
    for store in Store::all() {
        seed(&store.url(), 10_000, "");
        let found = verify(&store.url(), 10_000, "--rate 10k", 0);
        // The last keys go almost a second after the first; slower is no fault.
        assert!(found["elapsed_s"].as_f64() >= Some(0.9), "{found}");
    }
}

#[test]
fn an_interrupted_verification_says_how_far_it_came() {
    let server = Server::start();
    let url = server.url();
    seed(&url, 50_000, "");
    let reads = || {
        let info = server.ask("INFO stats");
        let hits = info
            .lines()
            .find_map(|line| line.strip_prefix("keyspace_hits:"));
        hits.map_or(0, number)
    };
    for more in ["", "--json"] {
        let before = reads();
        let line = format!("seed --verify-only --store {url} --keys 50k --rate 5k {more}");
        let mut verifying = start(&line);
        eventually("some reads", || (reads() > before + 2_000).then_some(()));
        verifying.signal(Signal::INT);
        assert_eq!(verifying.ended(), Some(130));
        let text = verifying.output();
        if more.is_empty() {
            let told = text.split_once("interrupted, ").expect("is told").1;
            assert!(
                told.contains(" of 50,000 checked, no fault found"),
                "{text}"
            );
            assert!(
                !text.contains("FAILED") && !told.starts_with("0 of"),
                "{text}"
            );
        } else {
            let found = &json(&text)["verification"];
            assert!(found["checked"].as_u64() > Some(1_000), "{found}");
            assert_eq!(found["failure"], "interrupted");
        }
        assert!(is_usable(&note(&url)));
    }
}

#[test]
fn a_store_that_is_absent_at_first_is_waited_for() {
    let mut server = Server::start();
    server.kill();
    let url = server.url();
    let line = format!("seed --store {url} --keys 1000 --retry-for 1m --json");
    let (mut seeding, told) = start_until(&line, "; retrying for");
    assert!(told.contains("connection refused"), "{told}");
    server.start_again();
    assert_eq!(seeding.ended(), Some(0));

    let absent = format!("seed --keys 1 --store redis://127.0.0.1:{}", free_port());
    let (mut seeding, _) = start_until(&absent, "; retrying for");
    seeding.signal(Signal::INT);
    assert_eq!(seeding.ended(), Some(130));
}

/// Passes one connection after the other on to the store, and says that it is full in the words of Dragonfly.
fn speaking_as_dragonfly(store: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(("127.0.0.1", store)).expect("the store accepts");
            let twin = |stream: &TcpStream| stream.try_clone().expect("a second handle");
            let (mut from, mut to) = (twin(&client), twin(&server));
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || translate(server, client));
        }
    });
    port
}

fn translate(mut server: TcpStream, mut client: TcpStream) {
    let mut line = Vec::new();
    let mut byte = [0];
    // A byte at a time, so that no line is cut.
    while let Ok(1) = server.read(&mut byte) {
        line.push(byte[0]);
        if byte[0] != b'\n' {
            continue;
        }
        if line.starts_with(b"-OOM") {
            let is_of_script = String::from_utf8_lossy(&line).contains("script");
            let script = if is_of_script {
                "Error running script (call to 0577eb4c): @user_script:4: -ERR "
            } else {
                ""
            };
            line = format!("-ERR {script}Out of memory\r\n").into_bytes();
        }
        if client.write_all(&line).is_err() {
            return;
        }
        line.clear();
    }
}

#[test]
fn a_store_that_is_full_for_a_while_is_tried_again_whatever_its_words() {
    let store = Server::without_persistence();
    for port in [store.port, speaking_as_dragonfly(store.port)] {
        assert_eq!(store.ask("FLUSHALL"), "+OK\r\n");
        store.limit_memory(Some("3mb"));
        let line = format!("seed --json --quiet --keys 15k --store redis://127.0.0.1:{port}");
        let summary = json(&expect_code(&format!("{line} --retry-for 500ms"), 1));
        let failure = summary["failure"].as_str().expect("a failure");
        let own_words = ["OOM", "Out of memory"]
            .iter()
            .any(|words| failure.contains(words));
        assert!(failure.contains("full") && own_words, "{failure}");

        let mut seeding = start(&format!("{line} --retry-for 1m"));
        std::thread::sleep(Duration::from_millis(500));
        store.limit_memory(None);
        assert_eq!(seeding.ended(), Some(0));
        assert_eq!(number(&store.ask("DBSIZE")), 15_001);

        // Full before anything is written but the note.
        assert_eq!(store.ask("CONFIG SET maxmemory 1"), "+OK\r\n");
        let output = kvpoc(&format!("{line} --retry-for 500ms"));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(69), "{text}");
        assert!(text.contains("the store is full"), "{text}");
        assert!(!text.contains("script"), "{text}");
        let line = line.replace("--quiet ", "");
        let (mut seeding, _) = start_until(&format!("{line} --retry-for 1m"), "retrying for 1 min");
        store.limit_memory(None);
        assert_eq!(seeding.ended(), Some(0));
    }
}

#[test]
fn a_container_that_cannot_tell_itself_from_another_is_told_so() {
    // Its process has id 1, as that of any other container.
    let contained = |line: &str| {
        let program = env!("CARGO_BIN_EXE_kvpoc");
        let mut command = std::process::Command::new("unshare");
        command.args("--user --map-root-user --pid --fork --kill-child".split(' '));
        command.arg(program).args(line.split(' '));
        command.stdin(std::process::Stdio::null());
        command
    };
    let may_contain = contained("--version").output();
    if !may_contain.is_ok_and(|output| output.status.success()) {
        eprintln!("not tried: nobody may make a PID namespace here");
        return;
    }
    let store = &Store::all()[1];
    let url = store.url();
    seed(&url, 100, "");
    let mut serve = contained(&format!("serve --port 0 --store {url}"));
    let serve = serve.stdout(std::process::Stdio::piped());
    let serve = Serve::from_process(serve.spawn().expect("unshare starts"));
    let other = contained(&format!("inspect user:session:1 --store {url}"));
    let output = { other }.output().expect("unshare starts");
    assert_eq!(output.status.code(), Some(69));
    let text = stderr(&output);
    assert!(
        text.contains("process id") && text.contains("--pid=container"),
        "{text}"
    );
    // One that has another id shares it.
    expect_code(&format!("inspect user:session:1 --store {url}"), 0);
    assert_eq!(serve.get("/user/session/1").status, 200);
}
