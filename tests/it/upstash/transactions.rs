//! `POST /multi-exec`: all commands or none, and nobody else's in between.
//!
//! Enters: transactions, of several writers at once, refused ones, and ones whose store is gone. Leaves: what each was
//! answered, held against what the store has. Must not take a part of one for the whole.

use std::thread;

use rustix::process::Signal;
use serde_json::json;

use super::results;
use crate::support::{Reply, Serve, Server, Store, eventually};

/// Nothing of it was done, and why.
fn assert_aborted(reply: &Reply, status: u16, why: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    let answer = reply.json();
    let error = answer["error"].as_str().expect("one error");
    let start = "EXECABORT Transaction discarded because of previous errors.";
    assert!(error.starts_with(start) && error.contains(why), "{error}");
}

#[test]
fn commands_of_a_transaction_are_answered_like_those_of_a_pipeline() {
    for store in Store::all() {
        let serve = Serve::start(&store.url(), "--allow-writes --upstash");
        // Such values make fred take an answer for a message, or for a redirection.
        let commands = json!([
            ["SET", "m", "message"],
            ["GET", "m"],
            ["SET", "a", "2"],
            ["SET", "a", "3", "NX"],
            ["SET", "n", "", "NX", "PX", 100_000],
            ["MSET", "b", "MOVED 1 127.0.0.1:1", "c", "é"],
            ["MGET", "m", "x", "a", "b", "n"],
            ["EXISTS", "a", "a", "x"],
            ["SET", "t", "v", "EX", 100],
            ["TTL", "t"],
            ["TTL", "a"],
            ["TTL", "x"],
            ["DEL", "a", "x"],
            ["GET", "a"],
            ["GET", "c"],
        ]);
        let expected = json!([
            "OK",
            "message",
            "OK",
            null,
            "OK",
            "OK",
            ["message", null, "2", "MOVED 1 127.0.0.1:1", ""],
            2,
            "OK",
            100,
            -1,
            -2,
            1,
            null,
            "é"
        ]);
        assert_eq!(results(&serve.post("/multi-exec", &commands)), expected);
        let three = json!([["GET", "m"], ["GET", "b"], ["GET", "c"]]);
        let expected = json!(["message", "MOVED 1 127.0.0.1:1", "é"]);
        // On the connection of the one before.
        assert_eq!(results(&serve.post("/multi-exec", &three)), expected);
        let headers = ["content-type: application/json", "upstash-encoding: base64"];
        let reply = serve.ask("POST", "/multi-exec", &headers, br#"[["GET","c"]]"#);
        assert_eq!(reply.json(), json!([{"result": "w6k="}]));

        let binary = serve.request("PUT", "/v1/keys/binary", b"\xff");
        assert_eq!(binary.status, 204);
        let reply = serve.post(
            "/multi-exec",
            &json!([["GET", "binary"], ["SET", "d", "1"]]),
        );
        let answers = reply.json();
        assert!(
            answers[0]["error"].to_string().contains("base64"),
            "{answers}"
        );
        assert_eq!(answers[1], json!({"result": "OK"}));

        let metrics = serve.get("/metrics").text();
        for command in ["multi", "exec"] {
            let line = format!("kvpoc_store_commands_total{{cmd=\"{command}\"}} 4");
            assert!(metrics.contains(&line), "{line} in {metrics}");
        }
    }
}

#[test]
fn one_command_that_cannot_run_keeps_all_from_running() {
    for store in Store::all() {
        let line = "--allow-writes --upstash --max-keys-per-request 3";
        let serve = Serve::start(&store.url(), line);
        for (wrong, why) in [
            (json!(["INCR", "n"]), "Command 2: ERR unknown command"),
            (json!(["GET"]), "wrong number of arguments for GET"),
            (json!(["SET", "b", "1", "XX"]), "known here: EX, PX and NX"),
            (json!(["GET", ""]), "1 to 511 bytes"),
            (json!(["MGET", 1, 2, 3]), "at most 3 keys"),
        ] {
            let reply = serve.post("/multi-exec", &json!([["SET", "a", "1"], wrong]));
            assert_aborted(&reply, 400, why);
        }
        for wrong in [json!([]), json!({}), json!([[], [], [], []])] {
            let reply = serve.post("/multi-exec", &wrong);
            assert_eq!(reply.status, 400, "{wrong}");
            assert!(reply.json()["error"].is_string(), "{wrong}");
        }
        assert_eq!(serve.get("/v1/keys/a").status, 404);
        let read_only = Serve::start(&store.url(), "--upstash");
        let reply = read_only.post("/multi-exec", &json!([["GET", "a"], ["SET", "a", "1"]]));
        assert_aborted(&reply, 400, "--allow-writes");
        let read = read_only.post("/multi-exec", &json!([["GET", "a"]]));
        assert_eq!(results(&read), json!([null]));
        let closed = Serve::start(&store.url(), "");
        assert_eq!(
            closed.post("/multi-exec", &json!([["GET", "a"]])).status,
            404
        );
    }
}

#[test]
fn what_the_store_does_not_queue_keeps_all_from_running() {
    let store = Server::start();
    let serve = Serve::start(&store.url(), "--allow-writes --upstash");
    let commands = json!([["SET", "a", "1"], ["DEL", "b"]]);
    // Without MULTI the commands behind it would be executed one by one.
    for forbidden in ["del", "multi", "exec"] {
        let rule = |sign| format!("ACL SETUSER default {sign}{forbidden}");
        assert_eq!(store.ask(&rule('-')), "+OK\r\n");
        let reply = serve.post("/multi-exec", &commands);
        assert_aborted(&reply, 502, "NOPERM");
        assert_eq!(store.ask(&rule('+')), "+OK\r\n");
        assert_eq!(store.ask("EXISTS a"), ":0\r\n", "{forbidden}");
    }
    store.limit_memory(Some("1"));
    let full = serve.post("/multi-exec", &commands);
    if store.engine.is_dragonfly() {
        // It looks for room only when it runs them: then the one that needs it fails alone.
        let answers = full.json();
        assert!(answers[0]["error"].to_string().contains("full"), "{full:?}");
        assert_eq!(answers[1]["result"], 0, "{answers}");
    } else {
        assert_aborted(&full, 507, "full");
    }
    store.limit_memory(None);
    eventually("room again", || {
        (store.ask("SET room 1") == "+OK\r\n").then_some(())
    });
    assert_eq!(store.ask("EXISTS a"), ":0\r\n");
    // What fails only when it runs fails alone.
    store.ask("RPUSH list x");
    let commands = json!([["SET", "a", "1"], ["GET", "list"], ["EXISTS", "list"]]);
    let done = results(&serve.post("/multi-exec", &commands));
    assert_eq!(done, json!(["OK", null, 1]));
}

#[test]
fn what_fails_in_the_embedded_store_takes_all_back() {
    let store = &Store::all()[1];
    let serve = Serve::start(&store.url(), "--allow-writes --upstash");
    // LMDB keeps what expires when under this name, and takes no value for it.
    let commands = json!([["SET", "a", "1"], ["SET", "\u{1}kvpoc:expiries", "x"]]);
    let reply = serve.post("/multi-exec", &commands);
    assert_eq!(reply.status, 502, "{reply:?}");
    assert_eq!(serve.get("/v1/keys/a").status, 404);
    let done = serve.post(
        "/multi-exec",
        &json!([["SET", "a", "1", "EX", 9], ["TTL", "a"]]),
    );
    assert_eq!(results(&done), json!(["OK", 9]));
}

#[test]
fn two_writers_never_see_a_part_of_each_other() {
    const ROUNDS: usize = 150;
    for store in Store::all() {
        let serve = Serve::start(&store.url(), "--allow-writes --upstash");
        let write = |name: &str| {
            for round in 0..ROUNDS {
                let value = format!("{name}-{round}");
                let commands = json!([
                    ["SET", "a", value],
                    ["MSET", "b", value, "c", value],
                    ["MGET", "a", "b", "c"],
                    ["DEL", "d"],
                    ["SET", "d", value, "NX"],
                    ["GET", "d"],
                ]);
                let found = results(&serve.post("/multi-exec", &commands));
                assert_eq!(found[2], json!([value, value, value]));
                assert_eq!((&found[4], &found[5]), (&json!("OK"), &json!(value)));
            }
        };
        let read = || {
            for _ in 0..ROUNDS {
                let commands = json!([["GET", "a"], ["GET", "b"], ["MGET", "c", "d"]]);
                let found = results(&serve.post("/multi-exec", &commands));
                assert_eq!(found[0], found[1]);
                assert_eq!(found[2], json!([found[0], found[0]]));
            }
        };
        thread::scope(|threads| {
            threads.spawn(|| write("one"));
            threads.spawn(|| write("other"));
            threads.spawn(read);
        });
    }
}

#[test]
fn a_store_that_hangs_or_goes_is_one_error_and_nothing_stays_open() {
    let mut store = Server::start();
    let line = "--threads 1 --allow-writes --upstash --store-timeout 300ms";
    let serve = Serve::start(&store.url(), line);
    let commands = json!([["SET", "a", "1"], ["GET", "a"]]);
    let ask = || serve.post("/multi-exec", &commands);
    assert_eq!(results(&ask()), json!(["OK", "1"]));
    store.process().signal(Signal::STOP);
    let late = ask();
    assert_eq!(late.status, 504, "{late:?}");
    assert!(
        late.json()["error"].to_string().contains("300 ms"),
        "{late:?}"
    );
    store.process().signal(Signal::CONT);
    // An open MULTI would show as `multi=` of 0 and more.
    eventually("no open transaction", || {
        let clients = store.ask("CLIENT LIST");
        let open = clients
            .split(' ')
            .any(|field| field.starts_with("multi=") && field != "multi=-1");
        (!open).then_some(())
    });
    eventually("recovery", || (ask().status == 200).then_some(()));
    store.kill();
    eventually("a refusal", || (ask().status == 503).then_some(()));
    let gone = ask();
    assert_eq!(gone.header("retry-after"), Some("1"));
    let gone = gone.json();
    let error = gone["error"].as_str().expect("one error");
    assert!(
        error.starts_with("ERR the store cannot be reached"),
        "{error}"
    );
    store.start_again();
    eventually("recovery", || (ask().status == 200).then_some(()));
}

#[test]
fn values_that_have_no_room_are_an_error_of_their_own_and_the_next_answers_are_right() {
    for store in Store::all() {
        let line = "--threads 1 --allow-writes --upstash --max-held 16MiB";
        let serve = Serve::start(&store.url(), line);
        let large = vec![b'v'; 1024 * 1024];
        assert_eq!(serve.request("PUT", "/v1/keys/large", &large).status, 204);
        let many = [&["MGET"][..], &["large"; 40]].concat();
        let commands = json!([["SET", "a", "1"], many, ["GET", "a"], ["SET", "b", "2"]]);
        let reply = serve.post("/multi-exec", &commands);
        assert_eq!(reply.status, 200, "{reply:?}");
        let answers = reply.json();
        assert!(
            answers[1]["error"].to_string().contains("--max-held"),
            "{answers}"
        );
        assert_eq!(serve.get("/v1/keys/b").body, b"2");
        let again = serve.post(
            "/multi-exec",
            &json!([["MGET", "a", "b"], ["GET", "large"]]),
        );
        let found = results(&again);
        assert_eq!(found[0], json!(["1", "2"]));
        assert_eq!(found[1].as_str().map(str::len), Some(large.len()));
    }
}
