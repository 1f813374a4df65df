//! What `kvpoc bench` asks of any HTTP service, byte by byte, and which of its answers it takes.
//!
//! Enters: flags of a request. Leaves: nothing. Must not need a store, nor any other server than a stub.

use std::net::SocketAddr;
use std::process::Output;

use serde_json::Value;

use crate::stub::{answer, seeing};
use crate::support::{PATIENCE, assert_balanced, command, json, stderr, stdout};

/// Ten arrivals over one connection, so that they come in their order.
const LOAD: &str = "bench --max-lag 10s --keys 100 --keys-dist sequential --warmup 0s --rps 20 --duration 500ms \
                    --arrivals constant --threads 1 --connections 1 --slo p99=none";

/// Runs a load against a path of `address`.
fn run(address: SocketAddr, path: &str, words: &[&str]) -> Output {
    let mut command = command(LOAD);
    command.args(["--target", &format!("http://{address}{path}")]);
    command.args(words).output().expect("the program starts")
}

fn results(address: SocketAddr, path: &str, words: &[&str]) -> Value {
    let output = run(address, path, &[words, &["--json", "-"]].concat());
    let text = stdout(&output);
    assert!(!text.is_empty(), "{}", stderr(&output));
    let results = json(&text);
    assert_balanced(&results);
    results
}

#[test]
fn requests_are_on_the_wire_as_they_were_given() {
    let body = r#"{"item":{id},"all":[{ids}]}"#;
    for (path, words, expected) in [
        (
            "/api/health?x=1",
            &[][..],
            [
                "GET /api/health?x=1 HTTP/1.1\r\nhost: {host}\r\n\r\n",
                "GET /api/health?x=1 HTTP/1.1\r\nhost: {host}\r\n\r\n",
            ],
        ),
        (
            "/?",
            &["--method", "DELETE"],
            [
                "DELETE /? HTTP/1.1\r\nhost: {host}\r\n\r\n",
                "DELETE /? HTTP/1.1\r\nhost: {host}\r\n\r\n",
            ],
        ),
        (
            "/orders/{key}",
            &[
                "-H",
                "Content-Type: application/json",
                "--header",
                "Idempotency-Key: run-{n}",
                "--body",
                body,
                "--keys-per-request",
                "2",
            ],
            [
                "POST /orders/user:session:0 HTTP/1.1\r\nhost: {host}\r\nContent-Type: application/json\r\n\
                 Idempotency-Key: run-0\r\ncontent-length: 22\r\n\r\n{\"item\":0,\"all\":[0,1]}",
                "POST /orders/user:session:2 HTTP/1.1\r\nhost: {host}\r\nContent-Type: application/json\r\n\
                 Idempotency-Key: run-1\r\ncontent-length: 22\r\n\r\n{\"item\":2,\"all\":[2,3]}",
            ],
        ),
        (
            "/{n}?ids={ids}",
            &[
                "--method",
                "PURGE",
                "-H",
                "Host: other.test",
                "-H",
                "X-Key: {key}",
                "--keys-per-request",
                "3",
            ],
            [
                "PURGE /0?ids=0,1,2 HTTP/1.1\r\nHost: other.test\r\nX-Key: user:session:0\r\n\r\n",
                "PURGE /1?ids=3,4,5 HTTP/1.1\r\nHost: other.test\r\nX-Key: user:session:3\r\n\r\n",
            ],
        ),
    ] {
        let (address, seen) = seeing(|_| answer("200 OK", "{}"));
        let results = results(address, path, words);
        assert_eq!(results["verdict"], "PASS", "{}", results["reason"]);
        for expected in expected {
            let request = seen.recv_timeout(PATIENCE).expect("a request");
            let expected = expected.replace("{host}", &address.to_string());
            assert_eq!(request, expected);
        }
    }
}

#[test]
fn a_fixed_url_needs_no_keys_and_its_404_is_an_error() {
    let (address, _seen) = seeing(|_| answer("200 OK", "{}"));
    let line = "bench --json - --max-lag 10s --warmup 0s --rps 20 --duration 500ms --connections 1";
    let output = command(line)
        .args(["--target", &format!("http://{address}/health")])
        .output()
        .expect("the program starts");
    let found = json(&stdout(&output));
    assert_eq!(found["verdict"], "PASS", "{found}");
    assert_eq!(found["conditions"]["keys"], 0);
    assert_eq!(found["conditions"]["method"], "GET");
    assert_eq!(found["conditions"]["expect"], "200-299,304");
    assert_eq!(found["keys"]["hits"], 0);

    let (address, _seen) = seeing(|_| answer("404 Not Found", ""));
    let fixed = results(address, "/health", &[]);
    assert_eq!(fixed["requests"]["errors_by_cause"]["http_404"], 10);
    assert_eq!(fixed["verdict"], "TARGET_MISSED", "{}", fixed["reason"]);
    let keyed = results(address, "/{id}", &[]);
    assert_eq!(keyed["keys"]["misses"], 10, "{keyed}");
    assert_eq!(keyed["verdict"], "INVALID", "{}", keyed["reason"]);
}

#[test]
fn answers_are_right_by_the_statuses_that_are_expected() {
    for (status, expect, verdict) in [
        ("201 Created", "201", "PASS"),
        ("201 Created", "2xx", "PASS"),
        ("200 OK", "201", "TARGET_MISSED"),
        ("404 Not Found", "200-299,404", "PASS"),
        ("503 Service Unavailable", "503", "PASS"),
        ("404 Not Found", "2xx", "TARGET_MISSED"),
    ] {
        let (address, _seen) = seeing(move |_| answer(status, "{}"));
        let found = results(address, "/{id}", &["--expect", expect]);
        assert_eq!(found["verdict"], verdict, "{status}: {}", found["reason"]);
        let (cause, _) = status.split_once(' ').expect("a status");
        let errors = &found["requests"]["errors_by_cause"][format!("http_{cause}")];
        let is_right = verdict == "PASS";
        assert_eq!(errors.as_u64(), (!is_right).then_some(10), "{found}");
        assert_eq!(found["keys"]["hits"], if is_right { 10 } else { 0 });
    }
}

#[test]
fn answers_are_right_by_the_text_that_they_contain() {
    for (body, verdict) in [
        (r#"{"ok":true}"#, "PASS"),
        (r#"{"ok":false}"#, "INVALID"),
        ("", "INVALID"),
    ] {
        let (address, _seen) = seeing(move |_| answer("200 OK", body));
        let found = results(address, "/health", &["--match", r#""ok":true"#]);
        assert_eq!(found["verdict"], verdict, "{}", found["reason"]);
        let wrong = &found["requests"]["errors_by_cause"]["wrong_answer"];
        assert_eq!(wrong.as_u64(), (verdict != "PASS").then_some(10), "{found}");
    }
    // However it is framed.
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nit \r\n5\r\nis ok\r\n0\r\n\r\n";
    let (address, _seen) = seeing(move |_| chunked.to_owned());
    let found = results(address, "/health", &["--match", "it is ok"]);
    assert_eq!(found["verdict"], "PASS", "{}", found["reason"]);
}

#[test]
fn answers_to_head_are_read_without_a_body() {
    let (address, seen) = seeing(|_| "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".into());
    let found = results(address, "/file", &["--method", "HEAD"]);
    assert_eq!(found["verdict"], "PASS", "{}", found["reason"]);
    assert_eq!(found["requests"]["ok"], 10);
    let request = seen.recv_timeout(PATIENCE).expect("a request");
    assert!(request.starts_with("HEAD /file "), "{request}");
}

#[test]
fn what_is_not_idempotent_is_not_sent_again() {
    for (words, is_sent_again) in [
        (&["--method", "POST"][..], false),
        (&["--method", "PATCH"], false),
        (&["--method", "PUT"], true),
        (&["--method", "POST", "-H", "Idempotency-Key: {n}"], true),
    ] {
        // The second request on a connection meets its end.
        let (address, seen) = seeing(|request| {
            let is_odd = request.contains("/1 ") || request.contains("/3 ");
            if is_odd {
                String::new()
            } else {
                answer("200 OK", "{}")
            }
        });
        let found = results(address, "/{n}", words);
        assert_eq!(
            found["resent"].as_u64() > Some(0),
            is_sent_again,
            "{words:?}: {found}"
        );
        let causes = &found["requests"]["errors_by_cause"];
        assert_eq!(causes["connection_lost"], 2, "{words:?}: {found}");
        let asked = seen.try_iter().filter(|text| text.contains("/1 ")).count();
        assert_eq!(asked, if is_sent_again { 2 } else { 1 }, "{words:?}");
    }
}

#[test]
fn a_large_body_arrives_whole() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!("{}{{n}}", "0123456789abcdef".repeat(512 * 1024 - 1));
    std::fs::write(file.path(), &text).expect("written");
    let path = file.path().to_str().expect("text");
    let (address, seen) = seeing(|_| answer("201 Created", ""));
    let words = ["--body-file", path, "--expect", "201", "--drain", "60s"];
    let words = [&words[..], &["--timeout", "60s"]].concat();
    let found = results(address, "/upload", &words);
    assert_eq!(found["requests"]["ok"], 10, "{}", found["requests"]);
    assert_eq!(found["conditions"]["body_bytes"], text.len());
    for number in 0..10 {
        let request = seen.recv_timeout(PATIENCE).expect("a request");
        let (_, body) = request.split_once("\r\n\r\n").expect("a body");
        assert!(body == text.replace("{n}", &number.to_string()));
    }
}

#[test]
fn an_answer_to_half_a_request_ends_its_connection() {
    // It is answered as soon as its head is there, and nobody reads on.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            if matches!(stream.read(&mut [0; 1_024]), Ok(1..)) {
                let _ = stream.write_all(answer("413 Content Too Large", "").as_bytes());
            }
            held.push(stream);
        }
    });
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(8 * 1024 * 1024).expect("room");
    let path = file.path().to_str().expect("text");
    let found = results(address, "/upload", &["--body-file", path]);
    assert_eq!(
        found["requests"]["errors_by_cause"]["http_413"], 10,
        "{}",
        found["requests"]
    );
}

#[test]
fn what_a_header_holds_is_in_no_output() {
    const SECRET: &str = "Bearer-of-secrets";
    let (address, seen) = seeing(|_| answer("200 OK", "{}"));
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let header = format!("Authorization: {SECRET}");
    let words = ["-H", &header, "--out", out.to_str().expect("text")];
    let output = run(address, "/health", &words);
    let request = seen.recv_timeout(PATIENCE).expect("a request");
    assert!(request.contains(&format!("\r\n{header}\r\n")), "{request}");
    let text = stdout(&output);
    let line = format!("Request           GET http://{address}/health; expects 200-299,304");
    assert!(text.contains(&line), "{text}");
    let mut printed = vec![text, stderr(&output)];
    for file in std::fs::read_dir(&out).expect("the folder") {
        let bytes = std::fs::read(file.expect("a file").path()).expect("read");
        printed.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    assert!(printed.len() > 4 && printed.iter().any(|text| text.contains("Authorization")));
    let help = command("bench --help")
        .env("KVPOC_HEADER", &header)
        .output()
        .expect("the program starts");
    printed.push(stdout(&help));
    let refused = command("bench").args(["-H", &header]).output();
    let refused = refused.expect("the program starts");
    assert_eq!(refused.status.code(), Some(64));
    printed.push(stderr(&refused));
    for text in printed {
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[test]
fn a_variable_holds_one_header_on_each_line() {
    let (address, seen) = seeing(|_| answer("200 OK", "{}"));
    let output = command(LOAD)
        .args(["--target", &format!("http://{address}/health")])
        .env("KVPOC_HEADER", "X-One: 1, 2\nX-Two: {n}\n")
        .env("KVPOC_METHOD", "PUT")
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let request = seen.recv_timeout(PATIENCE).expect("a request");
    let expected =
        format!("PUT /health HTTP/1.1\r\nhost: {address}\r\nX-One: 1, 2\r\nX-Two: 0\r\n\r\n");
    assert_eq!(request, expected);
}
