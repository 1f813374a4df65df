//! Clients that break the rules: nothing hangs, nothing of theirs becomes a command or another's request.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use crate::support::{PATIENCE, Serve, Server, Store, connections_to_have, eventually, seed};

/// Sends bytes on a connection of their own, and reads until serve ends it.
fn exchange(serve: &Serve, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(serve.address).expect("serve accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // serve may have answered and closed before all is written.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn statuses(answers: &str) -> Vec<u16> {
    let heads = answers.match_indices("HTTP/1.1 ");
    heads
        .map(|(at, start)| answers[at + start.len()..][..3].parse().expect("a status"))
        .collect()
}

#[test]
fn requests_that_are_sent_ahead_are_answered_in_turn() {
    let store = Server::start();
    seed(&store.url(), 100, "");
    let serve = Serve::start(&store.url(), "");
    let ask = |id| format!("GET /user/session/{id} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let asked: Vec<String> = (0..50).map(ask).collect();
    let last = "GET /user/session/50 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answers = exchange(&serve, (asked.concat() + last).as_bytes());
    assert_eq!(statuses(&answers), [200; 51]);
    let ids: Vec<&str> = answers
        .match_indices("{\"id\":")
        .map(|(at, _)| &answers[at..])
        .collect();
    for (id, text) in ids.iter().enumerate() {
        assert!(text.starts_with(&format!("{{\"id\":{id},")), "{text}");
    }
}

#[test]
fn a_client_that_closes_its_half_is_answered_or_let_go() {
    let store = Server::start();
    seed(&store.url(), 100, "");
    let serve = Serve::start(&store.url(), "");
    for request in [
        "GET /user/session/1 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /user/sess",
        "",
    ] {
        let mut stream = TcpStream::connect(serve.address).expect("serve accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(request.as_bytes()).expect("written");
        stream
            .shutdown(Shutdown::Write)
            .expect("half of it is closed");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it ends");
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 "),
            "{answer}"
        );
    }
    assert_eq!(serve.get("/user/session/1").status, 200);
}

#[test]
fn what_is_too_long_is_refused_before_it_is_all_there() {
    let store = Server::start();
    let serve = Serve::start(&store.url(), "--allow-writes");
    let long = "x".repeat(200_000);
    let endless = "fff\r\n".to_owned() + &"y".repeat(0xfff) + "\r\n";
    for (request, expected) in [
        (
            format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
            vec![414, 431],
        ),
        (
            format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n"),
            vec![431],
        ),
        (
            format!(
                "GET /livez HTTP/1.1\r\nhost: localhost\r\n{}\r\n",
                "a: b\r\n".repeat(1_000)
            ),
            vec![431],
        ),
        (
            format!(
                "PUT /v1/keys/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{}",
                endless.repeat(400)
            ),
            vec![413],
        ),
        (
            "PUT /v1/keys/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\nx"
                .to_owned(),
            vec![413],
        ),
    ] {
        let answer = exchange(&serve, request.as_bytes());
        let found = statuses(&answer);
        assert!(
            found.len() == 1 && expected.contains(&found[0]),
            "{found:?}, not {expected:?}"
        );
    }
    assert_eq!(store.ask("DBSIZE"), ":0\r\n");
    assert_eq!(serve.get("/livez").status, 200);
}

#[test]
fn a_refusal_that_comes_before_the_body_reaches_the_client_and_keeps_the_connection() {
    let store = Server::start();
    let serve = Serve::start(&store.url(), "--allow-writes");
    let stream = TcpStream::connect(serve.address).expect("serve accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (mut writer, mut answers) = (&stream, BufReader::new(&stream));
    let mut status = || {
        let mut line = String::new();
        answers.read_line(&mut line).expect("an answer");
        let status = line.split(' ').nth(1).expect("a status").to_owned();
        let mut bytes = 0;
        while line.trim() != "" {
            if let Some(length) = line.strip_prefix("content-length: ") {
                bytes = length.trim().parse().expect("a length");
            }
            line.clear();
            answers.read_line(&mut line).expect("a head");
        }
        let mut body = vec![0; bytes];
        answers.read_exact(&mut body).expect("a body");
        status
    };
    let large = vec![b'x'; 2 * 1024 * 1024];
    for _ in 0..2 {
        let head = format!(
            "PUT /v1/keys/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            large.len()
        );
        writer.write_all(head.as_bytes()).expect("a head");
        assert_eq!(status(), "413");
        writer.write_all(&large).expect("serve takes it");
        writer
            .write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .expect("another request");
        assert_eq!(status(), "200");
    }
}

#[test]
fn no_body_is_taken_for_a_request_nor_one_request_for_two() {
    let store = Server::start();
    let serve = Serve::start(&store.url(), "--allow-writes");
    assert_eq!(
        serve.request("PUT", "/v1/keys/precious", b"kept").status,
        204
    );
    let hidden = "DELETE /v1/keys/precious HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let length = hidden.len();
    for headers in [
        // Two lengths; a length and chunks; a coding that nobody knows; a name that is none.
        format!("content-length: 0\r\ncontent-length: {length}\r\n"),
        format!("content-length: {length}\r\ncontent-length: 0\r\n"),
        format!("content-length: {length}, 0\r\n"),
        "content-length: +5\r\n".to_owned(),
        "content-length: 0x10\r\n".to_owned(),
        format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n"),
        "transfer-encoding: xchunked\r\n".to_owned(),
        "transfer-encoding: chunked, identity\r\n".to_owned(),
        "transfer-encoding : chunked\r\n".to_owned(),
        "transfer-encoding:\x0bchunked\r\n".to_owned(),
        format!("x: y\r\n content-length: {length}\r\n"),
    ] {
        let request = format!(
            "PUT /v1/keys/other HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n0\r\n\r\n{hidden}"
        );
        let answer = exchange(&serve, request.as_bytes());
        assert_eq!(
            serve.get("/v1/keys/precious").status,
            200,
            "{headers:?}: {answer}"
        );
        // Refused; or, of a length and chunks, the chunks alone, after which the connection is closed.
        let found = statuses(&answer);
        assert!(
            found.len() == 1 && (found[0] >= 400 || answer.contains("connection: close")),
            "{headers:?}: {answer}"
        );
    }
    // More than was announced is the next request, and no good one.
    let request =
        "PUT /v1/keys/short HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\nabcdef\r\n\r\n";
    assert_eq!(statuses(&exchange(&serve, request.as_bytes())), [204, 400]);
    assert_eq!(serve.get("/v1/keys/short").body, b"abc");
}

#[test]
fn no_key_and_no_value_becomes_a_command() {
    let store = Server::start();
    let serve = Serve::start(&store.url(), "--allow-writes --upstash");
    let injected = "%0d%0aFLUSHALL%0d%0a%2a1%0d%0a%248%0d%0aFLUSHALL%0d%0a";
    assert_eq!(
        serve.request("PUT", "/v1/keys/precious", b"kept").status,
        204
    );
    let body = b"\r\nFLUSHALL\r\n*1\r\n$8\r\nFLUSHALL\r\n";
    for key in [injected, "%00%ff%fe", "%c3%28", "%e2%82", "%f0%9f%92%a9"] {
        let path = format!("/v1/keys/{key}");
        assert_eq!(serve.request("PUT", &path, body).status, 204, "{key}");
        assert_eq!(serve.get(&path).body, body, "{key}");
        assert_eq!(
            serve.get(&format!("/v1/keys?k={key}&k={key}")).status,
            200,
            "{key}"
        );
        let text = "\r\nFLUSHALL\r\n";
        let commands =
            serde_json::json!([["GET", text], ["SET", "a", text], ["DEL", text], [text]]);
        assert_eq!(serve.post("/pipeline", &commands).status, 200);
    }
    assert_eq!(serve.get("/v1/keys/precious").body, b"kept");
    let counted = store.ask("INFO commandstats");
    assert!(!counted.contains("flushall"), "{counted}");
}

/// What a page of the web can have resolved to this machine, and what cannot be such a page.
#[test]
fn a_name_from_outside_is_not_answered_to_unless_a_token_or_a_setting_lets_it_in() {
    let store = &Store::all()[1];
    seed(&store.url(), 10, "");
    let status = |serve: &Serve, host: &str, target: &str| {
        let line = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        statuses(&exchange(serve, line.as_bytes()))
    };
    let serve = Serve::start(&store.url(), "");
    for target in ["/user/session/1", "/", "/stats", "/metrics", "/v1/keys/x"] {
        assert_eq!(
            status(&serve, "evil.example:8080", target),
            [421],
            "{target}"
        );
    }
    for (host, target) in [
        ("evil.example", "/livez"),
        ("localhost:8080", "/user/session/1"),
        ("[::1]:8080", "/user/session/1"),
    ] {
        assert_eq!(status(&serve, host, target), [200], "{host}{target}");
    }
    let serve = Serve::start(&store.url(), "--allow-host kvpoc.test,other.test");
    assert_eq!(status(&serve, "other.test:8080", "/user/session/1"), [200]);
    assert_eq!(status(&serve, "evil.example", "/user/session/1"), [421]);
    let serve = Serve::start(&store.url(), "--allow-host * --allow-writes");
    assert_eq!(status(&serve, "evil.example", "/user/session/1"), [200]);
    // Where anybody may be behind a request, nobody writes.
    assert_eq!(serve.request("PUT", "/v1/keys/k", b"v").status, 403);
}

#[test]
fn ten_thousand_idle_connections_leave_the_others_their_answers() {
    // This process holds one end of each.
    let wanted = connections_to_have(10_000);
    let store = Server::start();
    seed(&store.url(), 100, "");
    let serve = Serve::start(&store.url(), "");
    let idle: Vec<TcpStream> = (0..wanted)
        .map(|_| TcpStream::connect(serve.address).expect("serve accepts"))
        .collect();
    let held = || {
        let metrics = serve.get("/metrics").text();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("process_open_fds "));
        let number = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        number.unwrap_or(0.0) as usize
    };
    eventually("all of them", || (held() >= wanted).then_some(()));
    for id in 0..100 {
        assert_eq!(serve.get(&format!("/user/session/{id}")).status, 200);
    }
    drop(idle);
    eventually("none of them", || (held() < 1_000).then_some(()));
}
