//! Who is answered: the token, the name that serve was called by, the pages of other origins.
//!
//! Enters: requests with and without what they have to show. Leaves: refusals, or answers. Must not need a server of the Redis
//! protocol.

use std::process::Stdio;

use rustix::process::Signal;

use crate::support::{Serve, Store, command, expect_code, seed};

#[test]
fn a_request_names_one_host_and_without_a_token_one_of_this_server() {
    let store = &Store::all()[1];
    let status = |serve: &Serve, hosts: &[&str], target: &str| {
        let mut lines = hosts.join("\r\nhost: ");
        if !hosts.is_empty() {
            lines = format!("host: {lines}\r\n");
        }
        let head = format!("GET {target} HTTP/1.1\r\n{lines}connection: close\r\n\r\n");
        serve.send(head.as_bytes()).status
    };
    for bind in ["127.0.0.1", "0.0.0.0"] {
        let line = format!("--bind {bind} --allow-host kvpoc.test");
        let serve = Serve::start(&store.url(), &line);
        for (hosts, expected) in [
            (&["localhost"][..], 404),
            (&["10.1.2.3:8080"], 404),
            (&["[fd00::1]:8080"], 404),
            (&["kvpoc.test"], 404),
            (&["evil.example"], 421),
            (&["kvpoc.kvpoc.svc.cluster.local:8080"], 421),
            (&[], 400),
            (&["localhost", "localhost"], 400),
            (&["localhost", "evil.example"], 400),
        ] {
            assert_eq!(
                status(&serve, hosts, "/v1/keys/k"),
                expected,
                "{bind} {hosts:?}"
            );
        }
        // What a kubelet asks by the pod's address, and what asks by any name.
        for host in ["10.1.2.3:8080", "evil.example"] {
            assert_eq!(status(&serve, &[host], "/livez"), 200);
            assert_eq!(status(&serve, &[host], "/readyz"), 200);
        }
        let port = serve.address.port();
        expect_code(&format!("serve --check --port {port} --bind {bind}"), 0);
    }
    let any = Serve::start(&store.url(), "--bind 0.0.0.0 --allow-host *");
    assert_eq!(status(&any, &["evil.example"], "/v1/keys/k"), 404);
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
fn no_page_of_another_site_has_a_browser_write() {
    let store = &Store::all()[1];
    let mut command = command(&format!(
        "serve --port 0 --allow-writes --upstash --store {}",
        store.url()
    ));
    command.env("KVPOC_TOKEN", "a-secret-token");
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let serve = Serve::from_process(command.spawn().expect("it starts"));
    // What a browser shows by itself, once somebody has told it.
    let secret = "authorization: Basic YW55b25lOmEtc2VjcmV0LXRva2Vu";
    let kind = "content-type: application/json";
    let writes: [(&str, &str, &[u8]); 10] = [
        ("GET", "/set/k/evil", b""),
        ("POST", "/set/k", b"evil"),
        ("GET", "/MSET/k/evil", b""),
        ("GET", "/del/k", b""),
        ("POST", "/", br#"["set","k","evil"]"#),
        ("POST", "/pipeline", br#"[["GET","k"],["DEL","k"]]"#),
        ("POST", "/multi-exec", br#"[["GET","k"],["DEL","k"]]"#),
        ("PUT", "/v1/keys/k", b"evil"),
        ("DELETE", "/v1/keys/k", b""),
        (
            "POST",
            "/v1/mset",
            br#"{"entries":[{"key":"k","value":"evil"}]}"#,
        ),
    ];
    let own = format!("origin: http://localhost:{}", serve.address.port());
    let host = format!("host: localhost:{}", serve.address.port());
    let ask = |method: &str, target: &str, more: &[&str], body: &[u8]| {
        let lines = [&[&*host, secret, kind], more].concat().join("\r\n");
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\n{lines}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        serve.send(&[head.as_bytes(), body].concat())
    };
    assert_eq!(ask("PUT", "/v1/keys/k", &[&own], b"good").status, 204);
    for from in [
        &["sec-fetch-site: cross-site"][..],
        &["sec-fetch-site: same-site"],
        &["origin: https://evil.example"],
        &["origin: null"],
        &["origin: http://localhost:1"],
    ] {
        for (method, target, body) in writes {
            let refused = ask(method, target, from, body);
            assert_eq!(refused.status, 403, "{from:?} {method} {target}");
            let text = refused.text();
            assert!(text.contains("another site"), "{text}");
        }
        // Reading is left to the rules of browsers.
        let read = ask("GET", "/get/k", from, b"");
        assert_eq!(read.json()["result"], "good", "{from:?}");
    }
    // In the place of an image a browser asks a plain address so, for any page, and shows the secret that it keeps.
    let in_path = &writes[..4];
    for (method, target, body) in in_path {
        let refused = ask(method, target, &[], body);
        assert_eq!(refused.status, 403, "{method} {target}");
        let text = refused.text();
        assert!(text.contains("Bearer TOKEN"), "{text}");
    }
    assert_eq!(ask("GET", "/get/k", &[], b"").json()["result"], "good");
    let bearer = "authorization: Bearer a-secret-token";
    for (method, target, body) in in_path {
        assert_eq!(serve.ask(method, target, &[bearer], body).status, 200);
    }
    for (method, target, body) in &writes[in_path.len()..] {
        let done = ask(method, target, &[&own, "sec-fetch-site: same-origin"], body);
        assert!(matches!(done.status, 200 | 204 | 404), "{done:?}");
    }
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
