//! `kvpoc inspect`: several keys at once, and the keyspace from a sample.

use serde_json::json;

use crate::support::{Serve, Server, Store, expect_code, json, seed};

#[test]
fn several_keys_are_explained_in_their_order() {
    for store in Store::all() {
        seed(&store.url(), 10, "");
        let line = format!(
            "inspect user:session:3 absent user:session:1 --json --store {}",
            store.url()
        );
        let found = json(&expect_code(&line, 1));
        let ids: Vec<_> = (0..3)
            .map(|place| found[place]["content"]["id"].clone())
            .collect();
        assert_eq!(json!(ids), json!([3, null, 1]));
        assert_eq!(found[1], json!({"key": "absent", "exists": false}));
        let text = expect_code(&line.replace("--json ", ""), 1);
        assert!(text.contains("absent: no such key"), "{text}");
    }
}

#[test]
fn the_keyspace_is_told_by_prefix_size_and_time_to_live() {
    for store in Store::all() {
        seed(&store.url(), 50, "");
        let serve = Serve::start(&store.url(), "--allow-writes");
        assert_eq!(
            serve
                .request("PUT", "/v1/keys/other:1?ttl=10m", &[b'x'; 5_000])
                .status,
            204
        );
        let found = json(&expect_code(
            &format!("inspect --json --store {}", store.url()),
            0,
        ));
        let sample = &found["sample"];
        assert_eq!(
            sample["prefixes"],
            json!({"kvpoc:": 1, "other:": 1, "user:session:": 50})
        );
        assert_eq!(
            sample["times_to_live"],
            json!({"below 1 h": 1, "none, they stay": 50})
        );
        assert_eq!(
            (&sample["sizes"]["512"], &sample["sizes"]["8192"]),
            (&json!(50), &json!(1))
        );
        assert_eq!(sample["largest"][0], json!(["other:1", 5_000]));
        let warnings = sample["warnings"].to_string();
        assert!(
            warnings.contains("other:") && warnings.contains("no time to live"),
            "{warnings}"
        );
        let text = expect_code(&format!("inspect --store {}", store.url()), 0);
        for expected in [
            "by prefix",
            "by time to live",
            "no expiry",
            "Warning: ",
            "5,000 bytes  other:1",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }
}

#[test]
fn looking_never_asks_for_all_keys_and_reads_no_large_value() {
    let server = Server::start();
    seed(&server.url(), 3_000, "");
    assert_eq!(server.ask("RPUSH a:list 1 2 3"), ":3\r\n");
    assert_eq!(server.ask("CONFIG RESETSTAT"), "+OK\r\n");
    let found = json(&expect_code(
        &format!("inspect --json --store {}", server.url()),
        0,
    ));
    assert_eq!(
        (&found["sample"]["keys"], &found["sample"]["values"]),
        (&json!(3_002), &json!(3_001))
    );
    let commands = server.ask("INFO commandstats");
    assert!(
        commands.contains("cmdstat_scan") && commands.contains("cmdstat_strlen"),
        "{commands}"
    );
    for never in ["cmdstat_keys", "cmdstat_get:", "cmdstat_set", "cmdstat_del"] {
        assert!(!commands.contains(never), "{commands}");
    }
}

#[test]
fn memory_that_a_store_does_not_tell_is_not_said_to_be_none() {
    let server = Server::start();
    assert_eq!(server.ask("SET short b"), "+OK\r\n");
    let url = server.url();
    let found = json(&expect_code(
        &format!("inspect short --json --store {url}"),
        0,
    ));
    assert_eq!(found["size_bytes"], 1);
    assert_ne!(found["memory_bytes"], 0, "{found}");
}
