//! What a load makes of a store that was away, and of what was lost meanwhile.

use std::time::{Duration, Instant};

use super::{note, number, verify, wait_for_key};
use crate::engine::{Engine, only_on};
use crate::support::{Server, eventually, expect_code, json, seed, start};

const REDIS_LIKE: &[Engine] = &[Engine::Redis, Engine::Valkey];
/// Longer than a run writes keys without having heard of its note.
const LONG: Duration = Duration::from_secs(4);

#[test]
fn a_store_that_comes_back_empty_after_long_is_loaded_again_at_once() {
    const KEYS: u64 = 100_000;
    let mut server = Server::without_persistence();
    let url = server.url();
    let line = format!("seed --json --quiet --store {url} --keys {KEYS} --rate 30k");
    let mut seeding = start(&line);
    wait_for_key(&server, 40_000);
    server.kill();
    std::thread::sleep(LONG);
    server.start_again();
    let back = Instant::now();
    let (code, text) = (seeding.ended(), seeding.output());
    assert_eq!(code, Some(0), "{text}");
    // Less than the batches that were on their way are tried for.
    assert!(back.elapsed() < Duration::from_secs(20), "{text}");
    assert_eq!(number(&server.ask("DBSIZE")), KEYS + 1);
    assert!(json(&text)["keys_loaded_again"].as_u64() > Some(0));
    assert_eq!(note(&url)["state"], "loaded");
}

#[test]
fn a_load_that_has_failed_does_not_insist_on_what_was_on_its_way() {
    if !only_on(REDIS_LIKE, "it renames no key while it is full") {
        return;
    }
    let server = Server::without_persistence();
    let url = server.url();
    let line = format!("seed --json --quiet --store {url} --keys 1M --rate 20k --retry-for 1m");
    let mut seeding = start(&line);
    wait_for_key(&server, 20_000);
    assert_eq!(server.ask("SET other x"), "+OK\r\n");
    assert_eq!(server.ask("CONFIG SET maxmemory 1"), "+OK\r\n");
    std::thread::sleep(Duration::from_millis(500));
    // A full store still does this.
    assert_eq!(server.ask("RENAME other kvpoc:dataset"), "+OK\r\n");
    let taken = Instant::now();
    let (code, text) = (seeding.ended(), seeding.output());
    assert_eq!(code, Some(1), "{text}");
    let failure = json(&text)["failure"].to_string();
    assert!(failure.contains("taken over"), "{failure}");
    assert!(taken.elapsed() < Duration::from_secs(20), "{text}");
}

#[test]
fn what_is_lost_while_it_is_verified_is_loaded_again_by_a_load_that_heals() {
    const KEYS: u64 = 10_000;
    for loss in ["expiry", "restart"] {
        let mut server = Server::without_persistence();
        let url = server.url();
        let ttl = if loss == "expiry" { "--ttl 2s" } else { "" };
        seed(&url, KEYS, ttl);
        let line = format!("seed --resume --verify --json --store {url} --keys {KEYS} --rate 3k");
        let mut healing = start(&line);
        if loss == "restart" {
            eventually("a checkpoint", || {
                (note(&url)["loaded"].as_u64() > Some(2_000)).then_some(())
            });
            server.kill();
            server.start_again();
        }
        let (code, text) = (healing.ended(), healing.output());
        assert_eq!(code, Some(0), "{loss}: {text}");
        let summary = json(&text);
        assert_eq!(summary["outcome"], "complete", "{loss}: {text}");
        assert!(summary["keys_loaded_again"].as_u64() > Some(0), "{text}");
        assert_eq!(summary["verification"]["checked"], KEYS, "{loss}: {text}");
        assert_eq!(note(&url)["state"], "verified", "{loss}");
        assert_eq!(server.ask("PTTL kvpoc:dataset"), ":-1\r\n", "{loss}");
        verify(&url, KEYS, "", 0);
    }
}

#[test]
fn a_load_that_heals_shows_that_it_runs_while_it_looks_for_extra_keys() {
    if !only_on(REDIS_LIKE, "it does not tell what its clients did last") {
        return;
    }
    let server = Server::start();
    let url = server.url();
    seed(&url, 12_000, "");
    seed(&url, 8_000, "");
    let line = format!("seed --resume --verify --json --store {url} --keys 8k --rate 2k");
    let mut healing = start(&line);
    eventually("the look for extra keys", || {
        let scanning = server.clients_whose_last_command_is("scan");
        (note(&url)["loaded"] == 8_000 && !scanning.is_empty()).then_some(())
    });
    // Its pages take six seconds.
    let first = note(&url)["beat"].as_u64().expect("a number");
    eventually("more of its notes", || {
        let note = note(&url);
        (note["beat"].as_u64() >= Some(first + 2)).then(|| {
            assert_eq!(note["state"], "loading", "{note}");
        })
    });
    let text = expect_code(
        &format!("seed --verify-only --json --store {url} --keys 8k"),
        0,
    );
    assert_eq!(json(&text)["verification"]["extra"], 4_000);
    assert_eq!(healing.ended(), Some(0));
    assert_eq!(note(&url)["state"], "verified");
}

#[test]
fn nothing_is_advised_about_a_dataset_that_another_run_has_taken_over() {
    let server = Server::start();
    let url = server.url();
    for verify in ["", "--resume --verify"] {
        seed(&url, 40_000, "");
        let line = format!("seed --store {url} --keys 40k --rate 4k --batch 100 {verify}");
        let mut first = start(&line);
        eventually("a checkpoint", || {
            (note(&url)["loaded"].as_u64() > Some(2_000)).then_some(())
        });
        let other = format!("seed --force --quiet --store {url} --keys 500 --value-size 200");
        expect_code(&other, 0);
        let (code, text) = (first.ended(), first.output());
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("taken over"), "{text}");
        assert!(
            !text.contains("To complete") && !text.contains("To repair"),
            "{text}"
        );
    }
}
