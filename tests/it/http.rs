//! The routes of `kvpoc serve`, its access rules and its limits, over real connections.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    PATIENCE, Serve, Server, Store, WAYS_TO_READ, eventually, expect_code, json_file, seed,
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
fn a_key_is_removed_only_on_a_condition_that_holds() {
    for store in Store::all() {
        let serve = Serve::start(&store.url(), "--allow-writes");
        let delete = |condition: &str| serve.ask("DELETE", "/v1/keys/k", &[condition], b"").status;
        for (condition, absent, present) in [
            ("if-none-match: *", 404, 412),
            ("if-match: \"a\"", 412, 412),
            (
                "if-unmodified-since: Thu, 26 Nov 2026 00:00:00 GMT",
                412,
                412,
            ),
            ("if-match: *", 412, 204),
            ("x: y", 404, 204),
        ] {
            assert_eq!(delete(condition), absent, "{condition}");
            assert_eq!(serve.request("PUT", "/v1/keys/k", b"v").status, 204);
            assert_eq!(delete(condition), present, "{condition}");
            let is_there = serve.get("/v1/keys/k").status == 200;
            assert_eq!(is_there, present == 412, "{condition}");
            serve.request("DELETE", "/v1/keys/k", b"");
        }
        for condition in ["if-match: *", "if-match: \"a\"", "if-none-match: \"a\""] {
            let put = serve.ask("PUT", "/v1/keys/k", &[condition], b"v");
            assert_eq!(put.status, 412, "{condition}");
        }
        assert_eq!(serve.get("/v1/keys/k").status, 404);
    }
}

#[test]
fn a_key_is_read_or_replaced_only_on_a_condition_that_holds() {
    for store in Store::all() {
        let serve = Serve::start(&store.url(), "--allow-writes");
        let ask = |method: &str, condition: &str, body: &[u8]| {
            serve.ask(method, "/v1/keys/k", &[condition], body).status
        };
        for condition in ["if-match: *", "if-match: \"a\""] {
            assert_eq!(ask("GET", condition, b""), 412, "{condition}");
            assert_eq!(ask("HEAD", condition, b""), 412, "{condition}");
            assert_eq!(ask("PUT", condition, b"v"), 412, "{condition}");
        }
        assert_eq!(serve.get("/v1/keys/k").status, 404);
        assert_eq!(ask("PUT", "x: y", b"one"), 204);
        assert_eq!(ask("PUT", "if-match: *", b"two"), 204);
        let read = serve.get("/v1/keys/k");
        assert_eq!(read.body, b"two");
        let tag = read.header("etag").expect("a tag");
        for (condition, expected) in [
            ("if-match: *".to_owned(), 200),
            (format!("if-match: {tag}"), 200),
            (format!("if-match: \"a\", {tag}"), 200),
            (format!("if-match: W/{tag}"), 412),
            ("if-match: \"a\"".to_owned(), 412),
            (format!("if-match: {tag}\r\nif-none-match: {tag}"), 304),
            (format!("if-match: \"a\"\r\nif-none-match: {tag}"), 412),
        ] {
            assert_eq!(ask("GET", &condition, b""), expected, "{condition}");
        }
        // The store does not compare values in the same step.
        assert_eq!(ask("PUT", &format!("if-match: {tag}"), b"three"), 412);
        assert_eq!(serve.get("/v1/keys/k").body, b"two");
    }
}

#[test]
fn no_answer_is_taken_for_another_kind_than_it_says() {
    let store = &Store::all()[1];
    seed(&store.url(), 10, "");
    let serve = Serve::start(&store.url(), "--allow-writes --upstash");
    assert_eq!(serve.request("PUT", "/v1/keys/k", b"v").status, 204);
    let tag = serve
        .get("/v1/keys/k")
        .header("etag")
        .expect("a tag")
        .to_owned();
    let known = format!("if-none-match: {tag}");
    for (method, target, header, status) in [
        ("GET", "/", "x: y", 200),
        ("GET", "/user/session/1", "x: y", 200),
        ("GET", "/v1/keys?k=k", "x: y", 200),
        ("GET", "/get/k", "x: y", 200),
        ("GET", "/v1/keys/k", &known, 304),
        ("HEAD", "/livez", "x: y", 200),
        ("PUT", "/v1/keys/k", "x: y", 204),
        ("PATCH", "/v1/keys/k", "x: y", 405),
        ("GET", "/nowhere", "x: y", 404),
        ("GET", "/livez", "x: y\r\nhost: again", 400),
    ] {
        let reply = serve.ask(method, target, &[header], b"");
        assert_eq!(reply.status, status, "{method} {target}");
        let sniffing = reply.header("x-content-type-options");
        assert_eq!(sniffing, Some("nosniff"), "{method} {target}");
    }
    let good = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for (bad, status) in [
        ("no request\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nno header\r\n\r\n".to_owned(), 400),
        (
            format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(20_000)),
            431,
        ),
    ] {
        for before in ["", good] {
            let reply = serve.send(format!("{before}{bad}").as_bytes());
            let all = format!("{}\r\n\r\n{}", reply.head, reply.text()).to_lowercase();
            let refusal = all.rsplit("http/1.1 ").next().expect("an answer");
            assert!(refusal.starts_with(&status.to_string()), "{all}");
            assert!(
                refusal.contains("\r\nx-content-type-options: nosniff\r\n"),
                "{all}"
            );
            assert!(refusal.contains("application/problem+json"), "{all}");
        }
    }
}

#[test]
fn what_accept_decides_is_said_and_stored_bytes_are_taken_for_nothing_else() {
    let store = &Store::all()[1];
    seed(&store.url(), 10, "");
    let serve = Serve::start(&store.url(), "");
    for target in ["/user/session/1", "/user/sessions?ids=1,2", "/v1/keys?k=a"] {
        for accept in [
            "accept: application/json",
            "accept: application/octet-stream",
        ] {
            let reply = serve.ask("GET", target, &[accept], b"");
            assert_eq!(
                (reply.status, reply.header("vary")),
                (200, Some("accept")),
                "{target}"
            );
        }
    }
    for target in ["/v1/keys/user:session:1", "/", "/livez", "/nowhere"] {
        assert_eq!(
            serve.get(target).header("x-content-type-options"),
            Some("nosniff"),
            "{target}"
        );
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
fn a_client_that_never_finishes_its_request_is_cut_off() {
    let serve = Serve::start(&Store::all()[1].url(), "--head-timeout 1s --threads 1");
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
fn both_ways_to_fetch_hold_a_load_and_count_their_commands() {
    let store = Server::start();
    seed(&store.url(), 1_000, "");
    let folder = tempfile::tempdir().expect("a folder");
    for (fetch, commands) in [("mget", 1.0), ("pipeline", 15.0)] {
        let serve = Serve::start(&store.url(), &format!("--fetch {fetch}"));
        let file = folder.path().join(fetch);
        let line = format!(
            "bench --target {} --rps 500 --duration 2s --warmup 0s --verify 1 --max-lag 10s --slo rate=0%,p99=none --json {}",
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
        assert_eq!(
            results["reconciliation"]["counted_less"], false,
            "{results}"
        );
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
