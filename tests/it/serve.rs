//! What `kvpoc serve` answers, and how it ends.

use std::io::Write as _;
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    PATIENCE, Reply, Serve, Server, Store, eventually, expect_code, kvpoc, seed, start, stdout,
};

#[test]
fn values_are_written_read_and_removed_when_writes_are_allowed() {
    for store in Store::all() {
        let serve = Serve::start(&store.url(), "--allow-writes");
        let binary = b"\x00\xff\r\n$5\r\n";
        let key = "/v1/keys/a%20b%2Fc%00%0d%0a";
        assert_eq!(serve.get(key).status, 404);
        assert_eq!(serve.request("PUT", key, binary).status, 204);
        let reply = serve.get(key);
        assert_eq!((reply.status, &reply.body[..]), (200, &binary[..]));
        assert!(
            reply
                .head
                .contains("content-type: application/octet-stream")
        );
        assert_eq!(serve.request("DELETE", key, b"").status, 204);
        assert_eq!(serve.request("DELETE", key, b"").status, 404);
        assert_eq!(serve.request("PUT", "/v1/keys/t?ttl=1h", b"x").status, 204);
        assert_eq!(
            serve.request("PUT", "/v1/keys/t?ttl=never", b"x").status,
            400
        );
        let large = vec![b'x'; 1024 * 1024];
        assert_eq!(serve.request("PUT", "/v1/keys/large", &large).status, 204);
        assert_eq!(serve.get("/v1/keys/large").body, large);
    }
}

#[test]
fn writes_are_refused_unless_allowed() {
    for store in Store::all() {
        let serve = Serve::start(&store.url(), "");
        for method in ["PUT", "DELETE"] {
            let reply = serve.request(method, "/v1/keys/k", b"x");
            assert_eq!(reply.status, 403);
            assert!(
                reply.json()["detail"]
                    .as_str()
                    .expect("text")
                    .contains("--allow-writes")
            );
        }
        assert_eq!(serve.get("/v1/keys/k").status, 404);
    }
}

#[test]
fn values_of_an_older_loader_are_served_and_what_cannot_be_read_is_said() {
    for store in Store::all() {
        let serve = Serve::start(&store.url(), "--allow-writes");
        for (id, value) in [
            (1, &br#"{"status":"active","role":"senior"}"#[..]),
            (2, br#"{"status":"revoked","role":"senior"}"#),
            (3, b"\x07 of another version"),
        ] {
            let key = format!("/v1/keys/user:session:{id}");
            assert_eq!(serve.request("PUT", &key, value).status, 204);
        }
        let session = serve.get("/user/session/1").json();
        assert_eq!(
            (&session["status"], &session["role"]),
            (&json!("active"), &json!("senior"))
        );
        assert!(session["validated_at"].is_string());
        assert_eq!(serve.get("/user/session/2").status, 404);
        assert_eq!(
            serve.get("/user/sessions?ids=2,4").json(),
            json!([null, null])
        );
        let among_others = serve.get("/user/sessions?ids=1,3,4").json();
        assert_eq!(among_others[0]["status"], "active");
        assert!(
            among_others[1]["error"]
                .as_str()
                .is_some_and(|text| text.contains("0x07"))
        );
        assert_eq!(among_others[2], json!(null));
        let reply = serve.get("/user/session/3");
        assert_eq!(reply.status, 502);
        assert!(
            reply.json()["detail"]
                .as_str()
                .expect("text")
                .contains("unknown version byte 0x07")
        );
    }
}

#[test]
fn every_refusal_is_a_problem_document_with_its_headers() {
    let store = &Store::all()[1];
    let serve = Serve::start(&store.url(), "--allow-writes --max-keys-per-request 2");
    let too_large = vec![b'x'; 1024 * 1024 + 1];
    for (method, target, body, status) in [
        ("GET", "/nowhere", &b""[..], 404),
        ("GET", "/user/session/x", b"", 404),
        ("GET", "/user/sessions?ids=1,2,3", b"", 400),
        ("GET", "/user/sessions", b"", 400),
        ("POST", "/stats", b"", 405),
        ("PUT", "/v1/keys/k", &too_large, 413),
        ("GET", "/v1/keys/%zz", b"", 400),
        ("GET", "/v1/keys?k=a&k=%f", b"", 400),
        ("GET", "/user/sessions?ids=1%", b"", 400),
    ] {
        let reply = serve.request(method, target, body);
        assert_eq!(reply.status, status, "{method} {target}");
        assert!(
            reply
                .head
                .contains("content-type: application/problem+json"),
            "{target}"
        );
        let problem = reply.json();
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].is_string() && problem["title"].is_string());
        assert_eq!(reply.head.contains("allow: get, head"), status == 405);
    }
    let long = format!("/v1/keys/{}", "k".repeat(512));
    assert_eq!(serve.get(&long).status, 400);
    let head = format!(
        "GET /livez HTTP/1.1\r\nhost: localhost\r\nlong: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    let bare = "GET\u{1} /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for (head, status) in [(&*head, 431), (bare, 400)] {
        let reply = serve.send(head.as_bytes());
        assert_eq!(reply.status, status);
        assert_eq!(
            reply.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(reply.json()["status"], status, "{reply:?}");
    }
}

#[test]
fn head_is_answered_like_get_without_a_body() {
    let store = &Store::all()[1];
    seed(&store.url(), 10, "");
    let serve = Serve::start(&store.url(), "");
    let (get, head) = (
        serve.get("/v1/keys/user:session:1"),
        serve.request("HEAD", "/v1/keys/user:session:1", b""),
    );
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.head.contains("content-length: 256") && get.head.contains("content-length: 256"));
}

#[test]
fn statistics_keep_the_names_of_the_older_service() {
    for store in Store::all() {
        seed(&store.url(), 100, "");
        let serve = Serve::start(&store.url(), "");
        let stats = serve.get("/stats").json();
        assert_eq!(stats["total_keys"], 101);
        assert!(stats["memory_used"].as_u64() > Some(0));
        assert!(stats["engine"].is_string());
        let at = stats["timestamp"].as_str().expect("a time");
        assert!(
            humantime::parse_rfc3339(at).is_ok() && at.ends_with('Z'),
            "{at}"
        );
        assert!(stats.get("ops_per_sec").is_some());
        assert_eq!(stats["dataset"]["keys"], 100);
    }
}

#[test]
fn a_signal_drains_and_ends_well_while_idle_connections_are_open() {
    for store in Store::all() {
        for signal in [Signal::TERM, Signal::INT] {
            let mut serve = Serve::start(&store.url(), "");
            let mut idle = TcpStream::connect(serve.address).expect("serve accepts");
            idle.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
                .expect("serve reads");
            idle.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            std::io::Read::read(&mut idle, &mut [0; 1_024]).expect("serve answers");
            serve.process.signal(signal);
            assert_eq!(serve.process.ended(), Some(0));
        }
    }
}

#[test]
fn what_was_sent_before_the_signal_is_answered() {
    let store = &Store::all()[1];
    seed(&store.url(), 100, "");
    let mut serve = Serve::start(&store.url(), "");
    // While it stands still, the kernel takes connections and requests for it.
    serve.process.signal(Signal::STOP);
    let asked: Vec<_> = (0..200)
        .map(|_| serve.start_get("/user/session/1"))
        .collect();
    serve.process.signal(Signal::TERM);
    serve.process.signal(Signal::CONT);
    for stream in asked {
        assert_eq!(Reply::read(stream).status, 200);
    }
    assert_eq!(serve.process.ended(), Some(0));
}

#[test]
fn a_write_that_waits_for_another_process_is_given_up_and_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("embedded:{}", folder.path().display());
    seed(&url, 100, "");
    let mut serve = Serve::start(&url, "--allow-writes --store-timeout 50ms");
    let seeding = start(&format!(
        "seed --store {url} --keys 1G --force --batch 20000 --in-flight 2"
    ));
    // Stopped at some point of its work, it holds the folder's only writer most of the time.
    eventually("a write that had to wait", || {
        seeding.signal(Signal::STOP);
        let status = serve.request("PUT", "/v1/keys/k", b"v").status;
        if status != 504 {
            seeding.signal(Signal::CONT);
        }
        (status == 504).then_some(())
    });
    assert_eq!(serve.get("/user/session/1").status, 200);
    assert!(expect_code(&format!("inspect user:session:1 --store {url}"), 0).contains("record"));
    serve.process.signal(Signal::TERM);
    assert_eq!(serve.process.ended(), Some(0));
}

#[test]
fn a_port_that_is_taken_is_refused() {
    let store = &Store::all()[1];
    let serve = Serve::start(&store.url(), "");
    let port = serve.address.port().to_string();
    let output = crate::support::kvpoc(&format!("serve --port {port} --store {}", store.url()));
    assert_eq!(output.status.code(), Some(69));
    let text = crate::support::stderr(&output);
    assert!(text.contains("try another --port"), "{text}");
}

#[test]
fn readiness_can_be_asked_for_by_the_program_itself() {
    let mut store = Server::start();
    let serve = Serve::start(&store.url(), "");
    let port = serve.address.port();
    let check = || kvpoc(&format!("serve --check --port {port} --bind 0.0.0.0"));
    let ready = check();
    assert_eq!(ready.status.code(), Some(0), "{}", stdout(&ready));
    assert!(stdout(&ready).contains("is ready"), "{}", stdout(&ready));
    store.kill();
    eventually("the store to be missed", || {
        let unready = check();
        let known = stdout(&unready).contains("not ready: HTTP/1.1 503");
        (known && unready.status.code() == Some(1)).then_some(())
    });
    drop(serve);
    assert_eq!(check().status.code(), Some(1));
}
