//! What the note never says: more than is certain, for longer than that is true.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{is_usable, note, number, verify, wait_for_key};
use crate::support::{
    Serve, Server, Store, eventually, expect_code, json, seed, start, start_until,
};

/// The note ends before the key does.
fn ends_with(server: &Server, index: u64) -> u64 {
    let of_note = number(&server.ask("PTTL kvpoc:dataset"));
    let of_key = number(&server.ask(&format!("PTTL user:session:{index}")));
    // Asked for later, and a write takes its time to arrive.
    assert!(of_note <= of_key + 200, "{of_note} {of_key}");
    of_note
}

#[test]
fn the_note_of_keys_that_expire_ends_with_the_first_of_them() {
    let server = Server::start();
    let url = server.url();
    seed(
        &url,
        5_000,
        "--ttl 1m --ttl-jitter 0.9 --batch 100 --verify",
    );
    assert_eq!(note(&url)["state"], "verified");
    let asked = Instant::now();
    let of_note = number(&server.ask("PTTL kvpoc:dataset"));
    let left_ms = |index| number(&server.ask(&format!("PTTL user:session:{index}")));
    let first = (0..50).map(|batch| left_ms(batch * 100)).min();
    let first = first.expect("keys") + asked.elapsed().as_millis() as u64;
    assert!(
        of_note <= first && first - of_note < 2_000,
        "{of_note} {first}"
    );

    // Where the first are gone before the last are there, there is no moment at which all are.
    for store in Store::all() {
        let line = "seed --json --keys 2000 --rate 2000 --batch 100 --ttl 200ms";
        let summary = json(&expect_code(&format!("{line} --store {}", store.url()), 0));
        assert!(
            summary["remarks"].to_string().contains("--ttl"),
            "{summary}"
        );
        eventually("no note", || note(&store.url()).is_null().then_some(()));
    }
}

#[test]
fn a_resumed_load_ends_with_the_first_key_of_what_it_goes_on_from() {
    let server = Server::start();
    let url = server.url();
    seed(&url, 3_000, "--ttl 1m");
    for (keys, more) in [(4_000, ""), (4_000, "--verify"), (5_000, "--verify")] {
        assert!(seed(&url, keys, &format!("--resume {more}"))["resumed_from"].as_u64() > Some(0));
        assert!(is_usable(&note(&url)));
        ends_with(&server, 0);
    }
    // So does that of a load which is on its way, and which is given up.
    let line = format!("seed --quiet --resume --store {url} --keys 50k --rate 10k --batch 100");
    let mut seeding = start(&line);
    eventually("a checkpoint", || {
        (note(&url)["loaded"].as_u64() > Some(5_000)).then_some(())
    });
    ends_with(&server, 0);
    seeding.signal(Signal::INT);
    assert_eq!(seeding.ended(), Some(130));
    assert_eq!(note(&url)["state"], "loading");
    ends_with(&server, 0);
}

#[test]
fn a_load_whose_first_keys_expire_before_its_end_loads_them_again() {
    let server = Server::start();
    let url = server.url();
    seed(&url, 2_000, "--ttl 3s");
    let loaded = Instant::now();
    let summary = seed(&url, 42_000, "--resume --rate 10k --quiet");
    assert!(loaded.elapsed() > Duration::from_secs(3));
    assert!(summary["keys_loaded_again"].as_u64() > Some(0), "{summary}");
    assert_eq!(note(&url)["state"], "loaded");
    assert_eq!(server.ask("PTTL kvpoc:dataset"), ":-1\r\n");
    verify(&url, 42_000, "", 0);
}

#[test]
fn a_healing_that_ends_early_is_an_unfinished_load() {
    const KEYS: u64 = 40_000;
    for signal in [Signal::INT, Signal::KILL] {
        let server = Server::start();
        let url = server.url();
        seed(&url, KEYS, "--verify");
        for index in [7, 39_990] {
            server.ask(&format!("SET user:session:{index} other"));
        }
        server.ask("DEL user:session:8");
        let line = format!("seed --resume --verify --json --quiet --store {url} --keys {KEYS}");
        let mut healing = start(&format!("{line} --rate 10k"));
        // The first are mended, the last one not yet; and the note was written since.
        eventually("a mended key", || {
            (server.ask("EXISTS user:session:8") == ":1\r\n").then_some(())
        });
        eventually("a checkpoint", || {
            (note(&url)["loaded"].as_u64() > Some(8)).then_some(())
        });
        healing.signal(signal);
        let code = (signal == Signal::INT).then_some(130);
        assert_eq!(healing.ended(), code);
        let left = note(&url);
        assert_eq!(left["state"], "loading", "{left}");
        let reached = left["loaded"].as_u64().expect("a number");
        assert!((9..39_990).contains(&reached), "{left}");
        // Whoever believes it, with or without verification, ends with what is right.
        let more = if code.is_some() { "" } else { "--verify" };
        let summary = seed(&url, KEYS, &format!("--resume {more}"));
        assert_eq!(summary["resumed_from"], reached, "{summary}");
        verify(&url, KEYS, "", 0);
    }
}

#[test]
fn a_fault_in_any_part_takes_back_what_was_said_of_all() {
    let damage = |url: &str, index: u64| {
        let serve = Serve::start(url, "--allow-writes");
        let key = format!("/v1/keys/user:session:{index}");
        assert_eq!(serve.request("PUT", &key, b"other").status, 204);
    };
    for store in Store::all() {
        let url = store.url();
        let check = |keys: u64, more: &str| verify(&url, keys, more, 1);
        for (load, part) in [
            ("", "--verify-sample 0.9"),
            // Loaded in another order, and only the first of them read.
            ("--shuffle", "first"),
        ] {
            seed(&url, 3_000, &format!("--verify {load}"));
            assert_eq!(note(&url)["state"], "verified");
            for index in [40, 41, 42] {
                damage(&url, index);
            }
            if part == "first" {
                check(1_000, "");
            } else {
                check(3_000, part);
            }
            let left = note(&url);
            assert_eq!(left["state"], "loading", "{part}: {left}");
            assert!(left["loaded"].as_u64() <= Some(42), "{part}: {left}");
            // A part that is right takes nothing for the whole.
            verify(&url, 20, "", 0);
            assert_eq!(note(&url), left);
        }

        // One that is interrupted.
        seed(&url, 50_000, "--verify");
        damage(&url, 40);
        let line = format!("seed --verify-only --json --store {url} --keys 50k --rate 5k");
        let (mut verifying, _) = start_until(&line, "keys/s verified");
        verifying.signal(Signal::INT);
        assert_eq!(verifying.ended(), Some(130));
        assert_eq!(note(&url)["loaded"], 40);
    }
}

#[test]
fn keys_that_are_evicted_for_a_load_fail_it_even_if_they_were_others() {
    let server = Server::evicting();
    let url = server.url();
    seed(&url, 60_000, "--key-prefix old:");
    let field = |section: &str, name: &str| {
        let info = server.ask(&format!("INFO {section}"));
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        number(line.expect("a field"))
    };
    let limit = field("memory", "used_memory:") + 2_000_000;
    server.limit_memory(Some(&limit.to_string()));
    // Fewer than are estimated, and fewer than the store holds in all.
    let line = format!("seed --json --keys 18k --store {url}");
    let summary = json(&expect_code(&line, 1));
    assert_eq!(summary["outcome"], "failed");
    let failure = summary["failure"].as_str().expect("a failure");
    let policy = server.engine.evicting_policy();
    for part in ["has evicted", "maxmemory ", policy, "noeviction"] {
        assert!(failure.contains(part), "{part} in {failure}");
    }
    assert!(field("stats", "evicted_keys:") > 0);
    let left = note(&url);
    assert!(!is_usable(&left) && left["loaded"].as_u64().unwrap_or(0) == 0);

    // Room enough, and it is loaded; what was evicted before is nothing of its own.
    server.limit_memory(None);
    seed(&url, 18_000, "--resume --verify");
    assert_eq!(note(&url)["state"], "verified");
}

#[test]
fn a_store_that_returns_with_an_older_dataset_is_loaded_again() {
    const KEYS: u64 = 100_000;
    for loads_between in [0, 1] {
        let mut server = Server::without_persistence();
        let url = server.url();
        seed(&url, 20_000, "--value-size 200");
        server.save();
        for _ in 0..loads_between {
            seed(&url, 10_000, "--value-size 100");
        }
        let line = format!("seed --json --quiet --store {url} --keys {KEYS} --rate 40k");
        let mut seeding = start(&line);
        wait_for_key(&server, 60_000);
        server.kill();
        server.start_again();
        let code = seeding.ended();
        let text = seeding.output();
        assert_eq!(code, Some(0), "{text}");
        assert!(
            json(&text)["keys_loaded_again"].as_u64() > Some(50_000),
            "{text}"
        );
        assert_eq!(note(&url)["keys"], KEYS);
        assert_eq!(note(&url)["value_size"], 256);
        verify(&url, KEYS, "", 0);
    }
}

#[test]
fn what_a_message_advises_can_be_run_as_it_stands() {
    let server = Server::start();
    let url = server.url();
    seed(&url, 9_000, "--key-prefix p: --value-size 100");
    let line = "--keys 8000 --key-prefix p: --value-size 90 --rate 4k --batch 100";
    let (mut seeding, told) = start_until(&format!("seed --store {url} {line}"), "To remove them");
    let cli = format!("redis-cli -h 127.0.0.1 -p {}", server.port);
    for part in [
        format!("{cli} FLUSHDB"),
        format!("{cli} --scan --pattern 'p:*' | xargs -n 1000 {cli} UNLINK"),
    ] {
        assert!(told.contains(&part), "{part} in {told}");
    }
    eventually("a checkpoint", || {
        (note(&url)["loaded"].as_u64() > Some(500)).then_some(())
    });
    seeding.signal(Signal::INT);
    assert_eq!(seeding.ended(), Some(130));
    let text = seeding.output();
    let advised = text
        .lines()
        .find_map(|line| line.strip_prefix("To complete it: kvpoc "))
        .unwrap_or_else(|| panic!("no advice in {text}"));
    expect_code(advised, 0);
    assert_eq!(note(&url)["state"], "loaded");

    server.ask("SET p:7 other");
    let found = "seed --verify-only --key-prefix p: --value-size 90 --keys 8000";
    let text = expect_code(&format!("{found} --store {url}"), 1);
    let advised = text
        .lines()
        .find_map(|line| line.strip_prefix("To repair it: kvpoc "))
        .unwrap_or_else(|| panic!("no advice in {text}"));
    expect_code(advised, 0);
    assert_eq!(note(&url)["state"], "verified");
}

#[test]
fn a_seed_that_is_interrupted_while_it_waits_for_another_says_so_by_its_exit_code() {
    let server = Server::start();
    let url = server.url();
    let line = format!("seed --store {url} --keys 1M --rate 10k");
    let (mut killed, _) = start_until(&line, "Seeding");
    killed.signal(Signal::KILL);
    assert_eq!(killed.ended(), None);
    for more in ["", "--force"] {
        let (mut waiting, _) = start_until(&format!("{line} {more}"), "; waiting ");
        waiting.signal(Signal::INT);
        assert_eq!(waiting.ended(), Some(130), "{more}");
    }
}

#[test]
fn a_load_that_was_stopped_for_long_writes_nothing_over_its_successor() {
    let server = Server::start();
    let url = server.url();
    // So slowly that the stop hardly ever comes while a batch is on its way to the socket, which nothing takes back.
    let line = format!("seed --quiet --json --store {url} --keys 1M --rate 2k --batch 100");
    let mut first = start(&line);
    wait_for_key(&server, 2_000);
    first.signal(Signal::STOP);
    // It waits until the note has stood still for long enough.
    seed(&url, 30_000, "--value-size 200 --verify");
    first.signal(Signal::CONT);
    assert_eq!(first.ended(), Some(1));
    let failure = json(&first.output())["failure"].to_string();
    assert!(failure.contains("taken over"), "{failure}");
    verify(&url, 30_000, "--value-size 200", 0);
    assert_eq!(note(&url)["value_size"], 200);
}
