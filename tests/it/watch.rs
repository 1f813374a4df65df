//! What serve tells of itself: the log, the counters, the dashboard.
//!
//! Enters: requests, good ones and failing ones. Leaves: lines, sums and seconds that are true of them. Must not depend on how
//! fast any of it was.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Serve, Server, Store, command, eventually, json as as_json, seed};

#[test]
fn requests_leave_lines_in_the_log_only_when_they_are_asked_for() {
    let store = &Store::all()[1];
    seed(&store.url(), 10, "");
    for (more, expected) in [("", 0), ("--access-log 1 --log-format json", 3)] {
        let mut command = command(&format!("serve --port 0 --store {} {more}", store.url()));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let serve = Serve::from_process(command.spawn().expect("it starts"));
        for _ in 0..3 {
            serve.get("/user/session/1");
        }
        serve.process.signal(Signal::TERM);
        let log = serve.log_to_its_end();
        let lines: Vec<_> = log
            .lines()
            .filter(|line| line.contains("/user/session/1"))
            .collect();
        assert_eq!(lines.len(), expected, "{log}");
        for line in lines {
            let line = as_json(line);
            assert_eq!(
                (&line["status"], &line["method"]),
                (&json!(200), &json!("GET"))
            );
        }
    }
}

#[test]
fn counters_are_told_by_route_and_by_key_operation() {
    for store in Store::all() {
        seed(&store.url(), 10, "");
        let serve = Serve::start(&store.url(), "--fetch pipeline");
        // The embedded one reads them in one transaction, whatever is asked for.
        let commands = match store {
            Store::Server(_) => "kvpoc_store_commands_total{cmd=\"get\"} 12",
            Store::Embedded(_) => "kvpoc_store_commands_total{cmd=\"mget\"} 4",
        };
        for _ in 0..4 {
            serve.get("/user/sessions?ids=1,2,99");
        }
        let text = serve.get("/metrics").text();
        for line in [
            "kvpoc_http_requests_total{route=\"/user/sessions\",method=\"GET\",code=\"200\"} 4",
            "kvpoc_key_ops_total{op=\"get\",result=\"hit\"} 8",
            "kvpoc_key_ops_total{op=\"get\",result=\"miss\"} 4",
            commands,
            "kvpoc_http_request_duration_seconds_count{route=\"/user/sessions\"} 4",
            "_bucket{le=\"+Inf\",route=\"/user/sessions\"} 4",
            "kvpoc_http_requests_in_flight 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}

#[test]
fn the_dashboard_shows_the_last_seconds() {
    for store in Store::all() {
        seed(&store.url(), 10, "");
        let serve = Serve::start(&store.url(), "");
        let page = serve.get("/");
        assert_eq!(
            page.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert!(page.header("content-security-policy").is_some());
        let outside = page.text().replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http://") && !outside.contains("https://"));
        serve.get("/user/sessions?ids=1,2,3");
        let data = eventually("a second with the request", || {
            let data = serve.get("/dashboard.json").json();
            let found = data["seconds"]
                .as_array()?
                .iter()
                .any(|second| second["key_ops"].as_u64() >= Some(3));
            found.then_some(data)
        });
        assert_eq!(data["store"]["keys"], 11);
        assert!(data["latency_us"]["since_start"]["p99"].is_u64());
        let last = data["seconds"]
            .as_array()
            .and_then(|all| all.last())
            .expect("a second");
        let after = serve
            .get(&format!("/dashboard.json?after={}", last["at_s"]))
            .json();
        let newer = after["seconds"].as_array().expect("seconds");
        assert!(
            newer
                .iter()
                .all(|second| second["at_s"].as_u64() > last["at_s"].as_u64())
        );
    }
}

#[test]
fn a_dead_store_is_red_and_no_key_operation() {
    let mut store = Server::start();
    seed(&store.url(), 100, "");
    store.keep();
    let serve = Serve::start(&store.url(), "--threads 1");
    assert_eq!(serve.get("/user/session/1").status, 200);
    store.kill();
    eventually("a refusal", || {
        (serve.get("/user/session/1").status == 503).then_some(())
    });
    let second_of = |data: &Value, from_s: u64| {
        let seconds = data["seconds"].as_array().cloned().unwrap_or_default();
        let busy = |second: &Value| {
            second["at_s"].as_u64() > Some(from_s) && second["requests"].as_u64() > Some(0)
        };
        seconds.into_iter().find(busy)
    };
    let dead_since = serve.get("/dashboard.json").json()["now_s"]
        .as_u64()
        .expect("a time")
        + 1;
    let (second, data) = eventually("a second of refusals alone", || {
        for _ in 0..5 {
            assert_eq!(serve.get("/user/sessions?ids=1,2,3").status, 503);
        }
        std::thread::sleep(Duration::from_millis(100));
        let data = serve.get("/dashboard.json").json();
        Some((second_of(&data, dead_since)?, data))
    });
    // The share of what fails is all of it; and how fast a refusal is, is no latency of answers.
    assert_eq!(second["errors"], second["requests"], "{second}");
    assert_eq!(
        (&second["key_ops"], &second["p50_us"]),
        (&json!(0), &Value::Null),
        "{second}"
    );
    let told = data["store_error"].as_str().expect("a reason");
    assert!(told.contains("the store cannot be reached"), "{told}");
    assert_eq!(data["store"], Value::Null);
    let failed = data["requests"]["errors"].as_u64();
    let metrics = serve.get("/metrics").text();
    let count = |line: &str| {
        let line = metrics.lines().find_map(|found| found.strip_prefix(line));
        line.and_then(|number| number.trim().parse::<f64>().ok())
    };
    let refused =
        count(r#"kvpoc_http_requests_total{route="/user/sessions",method="GET",code="503"}"#);
    assert!(refused > Some(0.0) && failed > Some(0), "{metrics}");
    let keys = count(r#"kvpoc_key_ops_total{op="get",result="hit"}"#);
    assert!(keys < Some(10.0), "{metrics}");

    store.start_again();
    eventually("recovery", || {
        (serve.get("/user/session/1").status == 200).then_some(())
    });
    eventually("a store to show", || {
        let data = serve.get("/dashboard.json").json();
        (data["store"]["keys"].is_u64() && data["store_error"].is_null()).then_some(())
    });
}

#[test]
fn whoever_looks_is_no_part_of_what_is_shown() {
    let store = &Store::all()[1];
    let serve = Serve::start(&store.url(), "");
    for _ in 0..20 {
        for target in [
            "/",
            "/dashboard.json",
            "/livez",
            "/readyz",
            "/metrics",
            "/openapi.json",
        ] {
            assert_eq!(serve.get(target).status, 200, "{target}");
        }
    }
    let data = serve.get("/dashboard.json").json();
    assert_eq!(
        data["requests"],
        json!({"total": 0, "errors": 0, "in_flight": 0})
    );
    assert_eq!(data["latency_us"]["since_start"]["count"], 0);
}

#[test]
fn values_of_a_foreign_format_are_said_seldom_however_often_they_are_asked_for() {
    for store in Store::all() {
        let writer = Serve::start(&store.url(), "--allow-writes");
        for id in 0..15 {
            let key = format!("/v1/keys/user:session:{id}");
            let value = [&b"\x07 of another version"[..], b"no record", b"{", b"\xff"][id % 4];
            assert_eq!(writer.request("PUT", &key, value).status, 204);
        }
        seed(&store.url(), 1, "--force");
        let mut command = command(&format!("serve --port 0 --store {}", store.url()));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let serve = Serve::from_process(command.spawn().expect("it starts"));
        let ids: Vec<String> = (0..15).map(|id| id.to_string()).collect();
        let target = format!("/user/sessions?ids={}", ids.join(","));
        for _ in 0..20 {
            let answer = serve.get(&target);
            assert_eq!(answer.status, 200, "{answer:?}");
            let sessions = answer.json();
            assert_eq!(sessions[0]["status"], "active", "{sessions}");
            for id in 1..15 {
                assert_eq!(sessions[id]["id"], id, "{sessions}");
                assert!(sessions[id]["error"].is_string(), "{sessions}");
            }
        }
        let octets = ["accept: application/octet-stream"];
        let reply = serve.ask("GET", "/user/sessions?ids=0,1,2", &octets, b"");
        assert_eq!(reply.body.len(), 4 + 256 + 4 + 4);
        serve.process.signal(Signal::TERM);
        let log = serve.log_to_its_end();
        let warnings = log.matches("WARN").count();
        // 282 times, at most once in 10 s.
        assert!((1..=4).contains(&warnings), "{log}");
    }
}
