//! What serve holds at most: its peak memory under each attack, as the system counts it.
//!
//! Enters: clients that ask for much and take nothing, that announce much and send little, that begin and never end.
//! Leaves: refusals, and a peak within what the settings say. Must not tell of how fast anything is.

mod refusals;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{
    PATIENCE, Reply, Serve, Server, WAYS_TO_READ, command, connections_to_have, eventually, seed,
};

/// What is needed besides what is counted: buffers, and what the allocator keeps of what was freed.
const SPARE_KIB: u64 = 56 * 1024;
/// One connection with half a head, with all that belongs to it.
const HALF_HEAD_KIB: u64 = 28;
const LARGE_KEYS: usize = 40;

/// The most memory that the server ever held, in KiB.
fn peak_kib(serve: &Serve) -> u64 {
    memory_kib(serve, "VmHWM:")
}

/// What it holds now.
fn held_kib(serve: &Serve) -> u64 {
    memory_kib(serve, "VmRSS:")
}

fn memory_kib(serve: &Serve, name: &str) -> u64 {
    let path = format!("/proc/{}/status", serve.process.0.id());
    let status = std::fs::read_to_string(path).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    number.expect("a number")
}

/// A store with the keys `big0`, `big1` and so on, each of 1 MiB.
fn store_of_large_values() -> Server {
    let store = Server::start();
    let serve = Serve::start(&store.url(), "--allow-writes");
    let value = vec![b'v'; 1024 * 1024];
    for number in 0..LARGE_KEYS {
        let key = format!("/v1/keys/big{number}");
        assert_eq!(serve.request("PUT", &key, &value).status, 204);
    }
    store
}

/// All of them in one request.
fn large_values() -> String {
    let keys: Vec<String> = (0..LARGE_KEYS)
        .map(|number| format!("k=big{number}"))
        .collect();
    format!("/v1/keys?{}", keys.join("&"))
}

/// The same one so often.
fn same_value(times: usize) -> String {
    format!("/v1/keys?{}", vec!["k=big0"; times].join("&"))
}

fn half_a_head(serve: &Serve) -> TcpStream {
    let mut stream = TcpStream::connect(serve.address).expect("serve accepts");
    let head = format!(
        "GET /livez HTTP/1.1\r\nhost: localhost\r\nx: {}",
        "x".repeat(15_000)
    );
    stream.write_all(head.as_bytes()).expect("written");
    stream
}

/// A body that never ends, so many bytes of which are sent.
fn half_a_body(serve: &Serve, key: usize, sent: usize) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(serve.address).expect("serve accepts");
    let head = format!(
        "PUT /v1/keys/{key} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1048576\r\n\r\n"
    );
    let bytes = [head.as_bytes(), &vec![b'x'; sent]].concat();
    // It may have been refused and closed meanwhile.
    stream.write_all(&bytes).ok()?;
    Some(stream)
}

/// What the answer begins with, the rest of which stays where it is.
fn status_of(stream: &mut TcpStream) -> u16 {
    let mut begun = [0; 12];
    stream.read_exact(&mut begun).expect("an answer begins");
    let text = String::from_utf8_lossy(&begun);
    let status = text
        .strip_prefix("HTTP/1.1 ")
        .and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no status in {text:?}"))
}

#[test]
fn clients_that_do_not_take_their_large_answers_leave_the_small_ones_to_others() {
    let store = store_of_large_values();
    let line = "--threads 1 --max-held 64MiB --store-timeout 10s";
    let serve = Serve::start(&store.url(), line);
    // 30 MiB each, of 64.
    let mut untaken: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = serve.start_get(&same_value(30));
            assert_eq!(status_of(&mut stream), 200);
            stream
        })
        .collect();
    let refused = serve.get(&same_value(20));
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1"))
    );
    assert_eq!(serve.get("/v1/keys/absent").status, 404);
    untaken.pop();
    eventually("room again", || {
        (serve.get(&same_value(20)).status == 200).then_some(())
    });
    // What cannot be held at all is not a matter of time.
    let refused = serve.get(&same_value(65));
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("fewer keys"), "{}", refused.text());
}

#[test]
fn large_answers_that_nobody_takes_are_held_within_the_limit() {
    let store = store_of_large_values();
    for way in WAYS_TO_READ {
        let line = format!("--threads 1 --max-held 64MiB --store-timeout 20s {way}");
        let serve = Serve::start(&store.url(), &line);
        assert_eq!(serve.get("/v1/keys/big0").status, 200);
        let before = peak_kib(&serve);
        let (same, others) = (same_value(30), large_values());
        let mut untaken: Vec<TcpStream> = (0..30)
            .map(|number| serve.start_get([&same, &others][number % 2]))
            .collect();
        let statuses: Vec<u16> = untaken.iter_mut().map(status_of).collect();
        assert!(
            statuses.contains(&200) && statuses.iter().all(|status| [200, 503].contains(status)),
            "{way}: {statuses:?}"
        );
        // Those who ask for little are answered meanwhile.
        assert_eq!(serve.get("/v1/keys/absent").status, 404, "{way}");
        let grown = peak_kib(&serve).saturating_sub(before);
        let most = 64 * 1024 + SPARE_KIB + answers_at_once_kib(way);
        assert!(grown < most, "{way}: {grown} KiB");
        drop(untaken);
        eventually("room again", || {
            (serve.get(&others).status == 200).then_some(())
        });
    }
}

/// What comes besides: fred reads a whole answer before anybody knows how large it is, one for each thread, in a buffer that
/// doubles.
fn answers_at_once_kib(way: &str) -> u64 {
    if way.contains("fred") {
        2 * 128 * 1024
    } else {
        0
    }
}

#[test]
fn large_values_are_held_within_the_limit_however_they_are_asked_for() {
    let store = store_of_large_values();
    let (same, others) = (same_value(128), large_values());
    let encoded = format!("{others}&encoding=base64");
    for way in WAYS_TO_READ {
        let line = format!("--threads 1 --max-held 64MiB --store-timeout 20s {way}");
        let serve = Serve::start(&store.url(), &line);
        assert_eq!(serve.get("/v1/keys/big0").status, 200);
        let before = peak_kib(&serve);
        std::thread::scope(|scope| {
            for number in 0..12 {
                let (serve, same, others, encoded) = (&serve, &same, &others, &encoded);
                scope.spawn(move || {
                    let (target, expected) = match number % 3 {
                        // No part of it is a matter of time; but its one value may come when there is no room at all.
                        0 => (same, &[422, 503][..]),
                        1 => (others, &[200, 503][..]),
                        _ => (encoded, &[200, 503][..]),
                    };
                    let status = serve.get(target).status;
                    assert!(expected.contains(&status), "{way}: {status}");
                });
            }
        });
        assert_eq!(serve.get(&others).status, 200, "{way}");
        let grown = peak_kib(&serve).saturating_sub(before);
        let most = 64 * 1024 + SPARE_KIB + answers_at_once_kib(way);
        assert!(grown < most, "{way}: {grown} KiB");
    }
}

#[test]
fn a_value_that_is_asked_for_again_and_again_comes_once() {
    let store = store_of_large_values();
    for way in WAYS_TO_READ {
        let line = format!("--threads 1 --max-held 64MiB --store-timeout 20s --upstash {way}");
        let serve = Serve::start(&store.url(), &line);
        assert_eq!(serve.get("/v1/keys/big0").status, 200);
        let before = peak_kib(&serve);
        let target = same_value(128);
        let asked: Vec<TcpStream> = (0..8).map(|_| serve.start_get(&target)).collect();
        for stream in asked {
            assert_eq!(Reply::read(stream).status, 422, "{way}");
        }
        let mget = serde_json::json!({ "keys": vec!["big0"; 128] });
        assert_eq!(serve.post("/v1/mget", &mget).status, 422, "{way}");
        let mut words = vec!["MGET"];
        words.extend(["big0"; 128]);
        assert_eq!(serve.post("/", &words.into()).status, 422, "{way}");
        // A key of a session, too; whatever it holds is said for each of them.
        let ids = vec!["7"; 128].join(",");
        let sessions = serve.get(&format!("/user/sessions?ids={ids}")).json();
        assert_eq!(sessions, serde_json::json!(vec![(); 128]), "{way}");
        // No more than some values, of more than 1,000 that were asked for.
        let grown = peak_kib(&serve).saturating_sub(before);
        assert!(grown < 32 * 1024, "{way}: {grown} KiB");
        let metrics = serve.get("/metrics").text();
        let line = "kvpoc_key_ops_total{op=\"get\",result=\"hit\"} 11";
        assert!(metrics.contains(line), "{way}: {metrics}");
    }
}

#[test]
fn small_answers_that_nobody_takes_are_held_within_a_limit_over_all_connections() {
    let store = Server::start();
    let serve = Serve::start(
        &store.url(),
        "--threads 1 --allow-writes --store-timeout 10s",
    );
    let value = vec![b'v'; 60_000];
    assert_eq!(serve.request("PUT", "/v1/keys/small", &value).status, 204);
    let before = held_kib(&serve);
    let clients = connections_to_have(800);
    let asks = "GET /v1/keys/small HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(200);
    let untaken: Vec<TcpStream> = (0..clients)
        .map(|_| {
            let mut stream = TcpStream::connect(serve.address).expect("serve accepts");
            // What does not fit in the buffers of both ends is no matter; it may have been cut meanwhile, too.
            stream.set_nonblocking(true).expect("a socket");
            let _ = stream.write(asks.as_bytes());
            stream
        })
        .collect();
    // Without reading, which would be taking.
    let is_cut = |stream: &TcpStream| stream.take_error().expect("a socket").is_some();
    eventually("some are cut", || untaken.iter().any(is_cut).then_some(()));
    // Whoever reads is answered all the while.
    for _ in 0..20 {
        let reply = serve.get("/v1/keys/small");
        assert_eq!((reply.status, reply.body.len()), (200, value.len()));
    }
    // 16 MiB, and the buffers of those connections that stay. What the store has just answered comes and goes.
    eventually("no more than may be owed", || {
        (held_kib(&serve) < before + (16 + 8 + 16) * 1024).then_some(())
    });
}

#[test]
fn bodies_that_never_come_take_nothing_from_those_that_do() {
    let store = Server::start();
    let serve = Serve::start(&store.url(), "--allow-writes --max-held 64MiB");
    // More than could ever be held if each had all that it announces.
    let stalled: Vec<_> = (0..400).map(|key| half_a_body(&serve, key, 1)).collect();
    assert_eq!(serve.request("PUT", "/v1/keys/whole", b"v").status, 204);
    drop(stalled);
}

#[test]
fn large_bodies_are_held_within_the_limit() {
    let store = Server::start();
    let serve = Serve::start(&store.url(), "--threads 1 --allow-writes --max-held 16MiB");
    let before = peak_kib(&serve);
    // All but their last byte.
    let sent = 1024 * 1024 - 1;
    let mut unfinished: Vec<_> = (0..60).map(|key| half_a_body(&serve, key, sent)).collect();
    assert_eq!(serve.get("/livez").status, 200);
    // There was room for no more than 16 of them, and it is told as what it is. What has been sent may not have been read
    // yet, and what stays unfinished for long is let go.
    let refused = eventually("no room", || {
        unfinished.extend((0..16).map(|key| half_a_body(&serve, key, sent)));
        let reply = serve.request("PUT", "/v1/keys/more", &vec![b'x'; sent]);
        (reply.status != 204).then_some(reply)
    });
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1"))
    );
    for part in [
        format!("it has {sent} bytes"),
        (16 * 1024 * 1024).to_string(),
    ] {
        assert!(refused.text().contains(&part), "{}", refused.text());
    }
    assert!(!refused.text().contains("answer has"), "{}", refused.text());
    let grown = peak_kib(&serve).saturating_sub(before);
    assert!(grown < 16 * 1024 + SPARE_KIB, "{grown} KiB");
    drop(unfinished);
}

#[test]
fn bodies_of_very_many_small_parts_are_read_no_further_than_a_request_may_have() {
    let store = Server::start();
    let line = "--threads 1 --allow-writes --upstash";
    let serve = Serve::start(&store.url(), line);
    let before = peak_kib(&serve);
    let kind = ["content-type: application/json"];
    let all = 2 * 1024 * 1024;
    let many = |part: &str, start: &str, end: &str| {
        let times = (all - start.len() - end.len()) / (part.len() + 1) - 1;
        format!("{start}{}{part}{end}", format!("{part},").repeat(times))
    };
    for (target, body) in [
        ("/pipeline", many("\"\"", "[[", "]]")),
        ("/pipeline", many("[]", "[", "]")),
        ("/pipeline", many("[\"\"]", "[", "]")),
        ("/multi-exec", many("\"\"", "[[", "]]")),
        ("/", many("\"\"", "[", "]")),
        ("/v1/mget", many("\"\"", "{\"keys\":[", "]}")),
        (
            "/v1/mset",
            many(r#"{"key":"","value":""}"#, "{\"entries\":[", "]}"),
        ),
    ] {
        let reply = serve.ask("POST", target, &kind, body.as_bytes());
        assert_eq!(reply.status, 400, "{target}: {}", reply.text());
    }
    // The body, as it comes and whole.
    let grown = peak_kib(&serve).saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB");
}

#[test]
fn heads_that_never_end_are_small_and_soon_cut() {
    let store = Server::start();
    seed(&store.url(), 10, "");
    let serve = Serve::start(&store.url(), "--head-timeout 5s");
    let before = peak_kib(&serve);
    let wanted = connections_to_have(4_000);
    let mut halves: Vec<TcpStream> = (0..wanted).map(|_| half_a_head(&serve)).collect();
    assert_eq!(serve.get("/livez").status, 200);
    assert_eq!(serve.get("/user/session/1").status, 200);
    let grown = peak_kib(&serve).saturating_sub(before);
    assert!(
        grown <= wanted as u64 * HALF_HEAD_KIB,
        "{grown} KiB for {wanted}"
    );
    for stream in &mut halves {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut rest = Vec::new();
        // Closed or reset, but not left open.
        let ended = stream.read_to_end(&mut rest);
        assert!(!matches!(ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
    }
}

#[test]
fn health_is_answered_when_all_connections_are_taken() {
    let store = Server::start();
    seed(&store.url(), 10, "");
    let serve = Serve::start(&store.url(), "--max-connections 3 --head-timeout 1h");
    let taken: Vec<TcpStream> = (0..3).map(|_| half_a_head(&serve)).collect();
    assert_eq!(serve.get("/livez").status, 200);
    assert_eq!(serve.get("/readyz").status, 200);
    let refused = serve.get("/user/session/1");
    assert_eq!(refused.status, 503);
    assert!(
        refused.text().contains("too many connections"),
        "{refused:?}"
    );
    // Those who take the extra places and ask nothing lose them to those who ask.
    let silent: Vec<TcpStream> = (0..600)
        .map(|_| TcpStream::connect(serve.address).expect("the kernel accepts"))
        .collect();
    assert_answers_soon(&serve);
    drop((taken, silent));
    eventually("a place", || {
        (serve.get("/user/session/1").status == 200).then_some(())
    });
}

#[test]
fn a_port_of_its_own_answers_for_health_whatever_happens_on_the_other() {
    let store = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "a-secret-token").expect("written");
    let line = format!(
        "--max-connections 1 --head-timeout 1h --health-port 0 --token-file {}",
        file.display()
    );
    let mut serve = Serve::start(&store.url(), &line);
    let front = serve.address;
    // All places of the other port, those for health too.
    let taken: Vec<TcpStream> = (0..300).map(|_| half_a_head(&serve)).collect();
    serve.address = serve.health.expect("an address");
    assert_eq!(serve.address.ip(), front.ip());
    for (target, status) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/metrics", 401),
        ("/", 404),
        ("/v1/keys/k", 404),
        ("/nowhere", 404),
    ] {
        assert_eq!(serve.get(target).status, status, "{target}");
    }
    let bearer = "authorization: Bearer a-secret-token";
    let metrics = serve.ask("GET", "/metrics", &[bearer], b"");
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().contains("kvpoc_http_requests_total"));
    let port = serve.address.port();
    let line = format!("serve --check --port {} --health-port {port}", front.port());
    crate::support::expect_code(&line, 0);
    // Those who come to it and ask nothing lose their places to those who ask.
    let silent: Vec<TcpStream> = (0..300)
        .map(|_| TcpStream::connect(serve.address).expect("the kernel accepts"))
        .collect();
    assert_answers_soon(&serve);
    drop((taken, silent));
}

/// Far sooner than after the second in which a silent connection is cut anyhow.
fn assert_answers_soon(serve: &Serve) {
    let started = Instant::now();
    assert_eq!(serve.get("/livez").status, 200);
    let took = started.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
}

/// The value of a variable in the manifest of serve.
fn of_manifest(name: &str) -> String {
    let manifest = include_str!("../../config/k8s/serve/serve.yaml");
    let (_, rest) = manifest
        .split_once(&format!("- name: {name}\n"))
        .expect(name);
    let line = rest.lines().next().expect("a line");
    let value = line.trim().strip_prefix("value:").expect("a value");
    value.trim().trim_matches('"').to_owned()
}

/// What a pod may hold, in KiB.
fn limit_of_manifest_kib() -> u64 {
    let manifest = include_str!("../../config/k8s/serve/serve.yaml");
    let (_, rest) = manifest
        .split_once("limits: { cpu: \"2\", memory: ")
        .expect("limits");
    let (number, _) = rest.split_once("Mi }").expect("a number of Mi");
    number.parse::<u64>().expect("a number") * 1024
}

#[test]
fn all_attacks_together_fit_in_what_a_pod_may_hold() {
    let store = store_of_large_values();
    let names = [
        "KVPOC_SERVE_THREADS",
        "KVPOC_MAX_HELD",
        "KVPOC_MAX_CONNECTIONS",
    ];
    // However busy the machine is.
    let line = format!(
        "serve --port 0 --allow-writes --store-timeout 60s --store {}",
        store.url()
    );
    let mut command = command(&line);
    command.envs(names.map(|name| (name, of_manifest(name))));
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let serve = Serve::from_process(command.spawn().expect("it starts"));
    let places: u64 = of_manifest("KVPOC_MAX_CONNECTIONS")
        .parse()
        .expect("a number");

    let bodies: Vec<_> = (0..60)
        .map(|key| half_a_body(&serve, key, 1024 * 1024 - 1))
        .collect();
    let (same, others) = (same_value(128), large_values());
    // Those of different values alone are four times what may be held.
    let answers: Vec<TcpStream> = (0..26)
        .map(|number| serve.start_get([&same, &others][number % 2]))
        .collect();
    // As many as there are places, and some.
    let wanted = connections_to_have(places + 20);
    let halves: Vec<TcpStream> = (0..wanted).map(|_| half_a_head(&serve)).collect();
    assert_eq!(serve.get("/livez").status, 200);
    let ready = serve.get("/readyz");
    assert_eq!(ready.status, 200, "{}", ready.text());
    let (peak, limit) = (peak_kib(&serve), limit_of_manifest_kib());
    assert!(peak < limit, "{peak} KiB of {limit} KiB");
    drop((bodies, answers, halves));
    eventually("room again", || {
        (serve.get(&others).status == 200).then_some(())
    });
}
