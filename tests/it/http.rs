//! The routes of `kvpoc serve`, its access rules and its limits, over real connections.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    PATIENCE, Serve, Server, Store, WAYS_TO_READ, command, eventually, expect_code, json_file, seed,
};

#[test]
fn a_single_key_has_a_tag_and_is_sent_only_when_it_changed() {
    for store in Store::all() {
        let serve = Serve::start(&store.url(), "--allow-writes");
        assert_eq!(serve.request("PUT", "/v1/keys/k", b"one").status, 204);
        let tag = serve.get("/v1/keys/k").header("etag").map(str::to_owned);
        let known = format!("if-none-match: {}", tag.expect("a tag"));
        for method in ["GET", "HEAD"] {
            let reply = serve.ask(method, "/v1/keys/k", &[&known], b"");
            assert_eq!((reply.status, reply.body.len()), (304, 0), "{method}");
            assert!(reply.header("etag").is_some());
        }
        assert_eq!(serve.request("PUT", "/v1/keys/k", b"two").status, 204);
        let reply = serve.ask("GET", "/v1/keys/k", &[&known], b"");
        assert_eq!((reply.status, &reply.body[..]), (200, &b"two"[..]));
    }
}

#[test]
fn a_write_that_is_meant_for_an_absent_key_does_not_replace_one() {
    for store in Store::all() {
        let serve = Serve::start(&store.url(), "--allow-writes");
        let put = |body: &[u8]| {
            let target = "/v1/keys/once?ttl=1h";
            serve.ask("PUT", target, &["if-none-match: *"], body).status
        };
        assert_eq!((put(b"first"), put(b"second")), (204, 412));
        assert_eq!(serve.get("/v1/keys/once").body, b"first");
    }
}

#[test]
fn several_keys_come_in_the_order_of_the_request_in_every_form() {
    for store in Store::all() {
        for way in WAYS_TO_READ {
            let line = format!("--allow-writes {way} --max-keys-per-request 9");
            let serve = Serve::start(&store.url(), &line);
            serve.request("PUT", "/v1/keys/text", b"a \"b\"");
            serve.request("PUT", "/v1/keys/bin%00%ff", b"\xff\x00");
            let values = |target| serve.get(target).json()["values"].clone();
            let text = values("/v1/keys?k=absent&k=text&k=text");
            assert_eq!(text, json!([null, "a \"b\"", "a \"b\""]));
            let base64 = values("/v1/keys?k=bin%00%FF&k=text&encoding=base64");
            assert_eq!(base64, json!(["/wA=", "YSAiYiI="]));
            assert_eq!(serve.get("/v1/keys?k=bin%00%FF").status, 406);
            let octets = ["accept: application/octet-stream"];
            let reply = serve.ask("GET", "/v1/keys?k=bin%00%FF&k=absent", &octets, b"");
            assert_eq!(reply.body, b"\x02\0\0\0\xff\x00\xff\xff\xff\xff");
            let posted = serve.post("/v1/mget", &json!({"keys": ["text", "absent"]}));
            assert_eq!(posted.json(), json!({"values": ["a \"b\"", null]}));
            let many: Vec<String> = (0..9).map(|number| format!("k=absent{number}")).collect();
            let nine = values(&format!("/v1/keys?{}", many.join("&")));
            assert_eq!(
                nine,
                json!([null, null, null, null, null, null, null, null, null])
            );
        }
    }
}

#[test]
fn sessions_are_given_as_they_are_stored_when_bytes_are_asked_for() {
    for store in Store::all() {
        seed(&store.url(), 10, "");
        let serve = Serve::start(&store.url(), "");
        let octets = ["accept: application/octet-stream"];
        let stored = serve.get("/v1/keys/user:session:3").body;
        let one = serve.ask("GET", "/user/session/3", &octets, b"");
        assert_eq!(one.body, stored);
        assert_eq!(one.header("content-type"), Some("application/octet-stream"));
        let two = serve
            .ask("GET", "/user/sessions?ids=99,3", &octets, b"")
            .body;
        assert_eq!(
            two,
            [&[0xff; 4][..], &256_u32.to_le_bytes(), &stored].concat()
        );
    }
}

#[test]
fn several_keys_are_written_at_once() {
    for store in Store::all() {
        let serve = Serve::start(&store.url(), "--allow-writes");
        let entries =
            json!({"entries": [{"key": "a", "value": "MQ=="}, {"key": "b", "value": ""}]});
        assert_eq!(serve.post("/v1/mset?encoding=base64", &entries).status, 204);
        assert_eq!(
            serve
                .post(
                    "/v1/mset?ttl=1h",
                    &json!({"entries": [{"key": "c", "value": "é"}]})
                )
                .status,
            204
        );
        let values = serve.get("/v1/keys?k=a&k=b&k=c").json();
        assert_eq!(values, json!({"values": ["1", "", "é"]}));
    }
}

#[test]
fn commands_of_upstash_are_answered_when_they_are_switched_on() {
    for store in Store::all() {
        let serve = Serve::start(&store.url(), "--allow-writes --upstash");
        let commands = json!([
            ["SET", "a", "1"],
            ["GET", "a"],
            ["SET", "a", "2", "NX"],
            ["MSET", "b", 2, "c", "3"],
            ["MGET", "a", "b", "x"],
            ["EXISTS", "a", "b", "x"],
            ["SET", "t", "v", "EX", 100],
            ["TTL", "t"],
            ["TTL", "a"],
            ["TTL", "x"],
            ["DEL", "a", "x"],
            ["GET", "a"],
            ["FLUSHALL"],
        ]);
        let answers = serve.post("/pipeline", &commands).json();
        let results: Vec<_> = answers
            .as_array()
            .expect("answers")
            .iter()
            .map(|one| one["result"].clone())
            .collect();
        let expected = json!([
            "OK",
            "1",
            null,
            "OK",
            ["1", "2", null],
            2,
            "OK",
            100,
            -1,
            -2,
            1,
            null,
            null
        ]);
        assert_eq!(json!(results), expected);
        assert!(
            answers[12]["error"]
                .as_str()
                .expect("an error")
                .contains("unknown command")
        );
        let headers = ["content-type: application/json", "upstash-encoding: base64"];
        let reply = serve.ask("POST", "/", &headers, br#"["GET","b"]"#);
        assert_eq!(reply.json(), json!({"result": "Mg=="}));
        assert_eq!(serve.post("/", &json!(["NOPE"])).status, 400);

        let closed = Serve::start(&store.url(), "");
        assert_eq!(closed.post("/pipeline", &commands).status, 404);
        let read_only = Serve::start(&store.url(), "--upstash");
        let answers = read_only
            .post("/pipeline", &json!([["SET", "b", "9"], ["GET", "b"]]))
            .json();
        assert!(
            answers[0]["error"]
                .as_str()
                .expect("an error")
                .contains("--allow-writes")
        );
        assert_eq!(answers[1]["result"], "2");
    }
}

#[test]
fn bodies_that_cannot_be_taken_say_why() {
    let serve = Serve::start(
        &Store::all()[1].url(),
        "--allow-writes --max-keys-per-request 2",
    );
    let large = vec![b'x'; 2 * 1024 * 1024 + 1];
    let long = format!("/v1/keys?k={}", "a".repeat(9_000));
    for (method, target, kind, body, status, detail) in [
        (
            "POST",
            "/v1/mget",
            "text/plain",
            &b"{}"[..],
            415,
            "content-type",
        ),
        (
            "POST",
            "/v1/mget",
            "application/json",
            b"{",
            400,
            "the body",
        ),
        (
            "POST",
            "/v1/mget",
            "application/json",
            b"{\"keys\":[1]}",
            400,
            "string",
        ),
        (
            "POST",
            "/v1/mget",
            "application/json",
            b"{\"keys\":[\"a\",\"b\",\"c\"]}",
            400,
            "1 to 2 elements",
        ),
        (
            "POST",
            "/v1/mset",
            "application/json",
            b"{\"entries\":[{\"key\":\"a\"}]}",
            400,
            "value",
        ),
        (
            "POST",
            "/v1/mset",
            "application/json",
            &large,
            413,
            "at most",
        ),
        ("GET", "/v1/mget", "application/json", b"", 405, "GET"),
        ("GET", &long, "application/json", b"", 414, "at most"),
    ] {
        let kind = format!("content-type: {kind}");
        let reply = serve.ask(method, target, &[&kind], body);
        assert_eq!(reply.status, status, "{method} {target}");
        let problem = reply.json()["detail"]
            .as_str()
            .expect("a detail")
            .to_owned();
        assert!(problem.contains(detail), "{problem}");
    }
}

#[test]
fn a_token_opens_everything_and_is_never_shown() {
    let store = &Store::all()[1];
    seed(&store.url(), 100, "");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "a-secret-token\n").expect("written");
    let line = format!("--allow-writes --log debug --token-file {}", file.display());
    let serve = Serve::start(&store.url(), &line);
    let status = |headers: &[&str], target| serve.ask("GET", target, headers, b"").status;
    let (bearer, basic) = (
        "authorization: Bearer a-secret-token",
        // anyone:a-secret-token
        "authorization: Basic YW55b25lOmEtc2VjcmV0LXRva2Vu",
    );
    for target in [
        "/",
        "/user/session/1",
        "/v1/keys/x",
        "/stats",
        "/metrics",
        "/nowhere",
    ] {
        let refused = serve.get(target);
        assert_eq!(refused.status, 401, "{target}");
        assert!(refused.header("www-authenticate").is_some());
        assert_ne!(status(&[bearer], target), 401);
        assert_ne!(status(&[basic], target), 401);
        assert_eq!(
            status(&["authorization: Bearer a-secret-tokem"], target),
            401
        );
    }
    assert_eq!((status(&[], "/livez"), status(&[], "/readyz")), (200, 200));
    let metrics = serve.ask("GET", "/metrics", &[bearer], b"").text();
    assert!(!metrics.contains("secret"));

    let report = folder.path().join("report.json");
    let bench = |token: &str| {
        let line = format!(
            "bench --target {} --rps 500 --duration 1s --warmup 0s --json {} --tick 1ms",
            serve.url(),
            report.display()
        );
        let mut command = command(&line);
        command
            .env("KVPOC_TOKEN", token)
            .output()
            .expect("bench runs")
    };
    assert_eq!(bench("not-the-token").status.code(), Some(69));
    assert!(matches!(bench("a-secret-token").status.code(), Some(0..=2)));
    let results = std::fs::read_to_string(&report).expect("results");
    assert!(
        results.contains("\"ok\": 500") && !results.contains("secret"),
        "{results}"
    );
}

#[test]
fn beyond_loopback_nobody_writes_without_a_token() {
    let store = &Store::all()[1];
    let line = format!(
        "serve --port 0 --bind 0.0.0.0 --allow-writes --store {}",
        store.url()
    );
    let mut open = command(&line);
    open.stdout(Stdio::piped()).stderr(Stdio::piped());
    let serve = Serve::from_process(open.spawn().expect("it starts"));
    assert_eq!(serve.request("PUT", "/v1/keys/k", b"v").status, 403);
    serve.process.signal(Signal::TERM);
    let log = serve.log_to_its_end();
    assert!(
        log.contains("writes are refused") && log.contains("KVPOC_TOKEN"),
        "{log}"
    );
    let mut guessable = command(&line);
    guessable.env("KVPOC_TOKEN", "short").stdout(Stdio::null());
    let refused = guessable.output().expect("it ends");
    assert_eq!(refused.status.code(), Some(64));
    let text = crate::support::stderr(&refused);
    assert!(
        text.contains("KVPOC_TOKEN") && !text.contains("short"),
        "{text}"
    );
}

#[test]
fn pages_of_another_origin_read_only_what_they_were_given() {
    let store = &Store::all()[1];
    let asks = [
        "origin: https://a.example",
        "access-control-request-method: PUT",
    ];
    let closed = Serve::start(&store.url(), "");
    let refused = closed.ask("OPTIONS", "/v1/keys/k", &asks, b"");
    assert_eq!(
        (
            refused.status,
            refused.header("access-control-allow-origin")
        ),
        (405, None)
    );
    let open = Serve::start(&store.url(), "--cors-origin https://a.example");
    let allowed = open.ask("OPTIONS", "/v1/keys/k", &asks, b"");
    assert_eq!(allowed.status, 204);
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        Some("https://a.example")
    );
    assert!(
        allowed
            .header("access-control-allow-methods")
            .is_some_and(|text| text.contains("put"))
    );
    let read = open.get("/v1/keys/k");
    assert_eq!(
        read.header("access-control-allow-origin"),
        Some("https://a.example")
    );
}

#[test]
fn a_client_that_never_finishes_its_request_is_cut_off() {
    let serve = Serve::start(&Store::all()[1].url(), "--idle-timeout 1s --threads 1");
    let mut slow = TcpStream::connect(serve.address).expect("serve accepts");
    slow.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    slow.write_all(b"GET /livez HTTP/1.1\r\nx-slow: ")
        .expect("serve reads");
    // It goes on, one byte at a time, until the server hangs up.
    eventually("the end of the connection", || {
        std::thread::sleep(Duration::from_millis(50));
        slow.write_all(b"a").is_err().then_some(())
    });
    assert_eq!(serve.get("/livez").status, 200);
}

#[test]
fn more_than_may_wait_is_refused_at_once() {
    let store = Server::start();
    seed(&store.url(), 10, "");
    let serve = Serve::start(
        &store.url(),
        "--threads 1 --max-in-flight 1 --store-timeout 20s",
    );
    store.process().signal(Signal::STOP);
    let waiting = serve.start_get("/user/session/1");
    let refused = eventually("a refusal", || {
        // The first of them may be the one that waits.
        let mut stream = serve.start_get("/user/session/1");
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a timeout");
        let mut answer = [0; 512];
        let length = stream.read(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer[..length]).to_lowercase())
    });
    assert!(refused.starts_with("http/1.1 503 "), "{refused}");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    assert_eq!(serve.get("/livez").status, 200);
    store.process().signal(Signal::CONT);
    drop(waiting);
    eventually("an answer again", || {
        (serve.get("/user/session/1").status == 200).then_some(())
    });
}

#[test]
fn draining_under_load_loses_no_request() {
    let store = &Store::all()[1];
    seed(&store.url(), 100, "");
    let mut serve = Serve::start(&store.url(), "");
    let address = serve.address;
    let clients: Vec<_> = (0..8)
        .map(|_| std::thread::spawn(move || ask_until_told_to_close(address)))
        .collect();
    eventually("load", || {
        let metrics = serve.get("/metrics").text();
        let line = metrics
            .lines()
            .find(|line| line.contains("route=\"/user/session/{id}\",method"))?;
        let count: f64 = line.rsplit(' ').next()?.parse().ok()?;
        (count > 500.0).then_some(())
    });
    serve.process.signal(Signal::TERM);
    for client in clients {
        let answered = client.join().expect("no request was lost");
        assert!(answered > 0);
    }
    assert_eq!(serve.process.ended(), Some(0));
}

/// One request after the other on one connection, until an answer says that it is the last.
fn ask_until_told_to_close(address: std::net::SocketAddr) -> u64 {
    let mut stream = TcpStream::connect(address).expect("serve accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut answered = 0;
    loop {
        stream
            .write_all(b"GET /user/session/7 HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .expect("serve reads");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\"}") {
            let mut part = [0; 1_024];
            let length = stream.read(&mut part).expect("serve answers");
            assert!(length > 0, "closed in the middle of request {answered}");
            answer.extend_from_slice(&part[..length]);
        }
        answered += 1;
        if String::from_utf8_lossy(&answer).contains("connection: close") {
            return answered;
        }
    }
}

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
            let line = crate::support::json(line);
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
        for _ in 0..4 {
            serve.get("/user/sessions?ids=1,2,99");
        }
        let text = serve.get("/metrics").text();
        for line in [
            "kvpoc_http_requests_total{route=\"/user/sessions\",method=\"GET\",code=\"200\"} 4",
            "kvpoc_key_ops_total{op=\"get\",result=\"hit\"} 8",
            "kvpoc_key_ops_total{op=\"get\",result=\"miss\"} 4",
            "kvpoc_store_commands_total{cmd=\"get\"} 12",
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
fn both_ways_to_fetch_hold_a_load_and_count_their_commands() {
    let store = Server::start();
    seed(&store.url(), 1_000, "");
    let folder = tempfile::tempdir().expect("a folder");
    for (fetch, commands) in [("mget", 1.0), ("pipeline", 15.0)] {
        let serve = Serve::start(&store.url(), &format!("--fetch {fetch}"));
        let file = folder.path().join(fetch);
        let line = format!(
            "bench --target {} --rps 500 --duration 2s --warmup 0s --verify 1 --max-lag 10s --slo rate=0% --json {}",
            serve.url(),
            file.display()
        );
        expect_code(&line, 0);
        let results = json_file(&file);
        let rate = results["rate"]["commands_per_second"]
            .as_f64()
            .expect("a rate");
        let requests = results["rate"]["achieved_rps"].as_f64().expect("a rate");
        assert!((rate / requests - commands).abs() < 0.1, "{results}");
        assert_eq!(results["reconciliation"]["notable"], false, "{results}");
    }
}

#[test]
fn a_key_of_another_kind_is_a_miss_however_many_are_fetched() {
    let store = Server::start();
    seed(&store.url(), 20, "");
    assert_eq!(store.ask("HSET other field value"), ":1\r\n");
    for way in WAYS_TO_READ {
        let serve = Serve::start(&store.url(), way);
        for (keys, found) in [
            ("k=other", 0),
            ("k=other&k=user:session:1", 1),
            ("k=user:session:1&k=other", 1),
            ("k=other&k=other&k=user:session:1&k=user:session:2", 2),
            ("k=user:session:1&k=user:session:2&k=other", 2),
        ] {
            let answer = serve
                .get(&format!("/v1/keys?{keys}&encoding=base64"))
                .json();
            let values = answer["values"].as_array().expect("a list");
            assert_eq!(values.len(), keys.split('&').count(), "{way} {keys}");
            let there = values.iter().filter(|value| !value.is_null()).count();
            assert_eq!(there, found, "{way} {keys}");
        }
    }
}
