//! Refusals that nobody takes: however long what they refuse is, they are short.

use std::io::Write as _;
use std::net::TcpStream;

use super::{held_kib, status_of};
use crate::support::{PATIENCE, Serve, Server};

const CLIENTS: usize = 150;

/// A request on a connection of its own, whose answer stays in it.
fn untaken(serve: &Serve, target: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(serve.address).expect("serve accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let length = body.len();
    let head = format!(
        "POST {target} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    let sent = stream.write_all(&[head.as_bytes(), body.as_bytes()].concat());
    sent.expect("serve reads");
    stream
}

#[test]
fn refusals_of_large_bodies_are_short_and_take_no_memory() {
    let store = Server::start();
    let line = "--threads 1 --allow-writes --upstash --max-held 16MiB --store-timeout 10s";
    let serve = Serve::start(&store.url(), line);
    let long = "x".repeat(1_900_000);
    let wide = "\u{200b}".repeat(600_000);
    let words = |words: &[&str]| serde_json::json!(words).to_string();
    let attacks = [
        ("/v1/mget", format!(r#"{{"keys":"{long}"}}"#)),
        ("/v1/mset", format!(r#"{{"{long}":1}}"#)),
        ("/", format!("\"{long}\"")),
        ("/", words(&[&wide])),
        ("/", words(&["SET", "k", "v", &wide])),
        ("/", words(&["SET", "k", "v", "EX", &wide])),
        ("/multi-exec", format!("[{}]", words(&[&wide]))),
    ];
    for (target, body) in &attacks {
        let kind = ["content-type: application/json"];
        let refused = serve.ask("POST", target, &kind, body.as_bytes());
        assert_eq!(refused.status, 400, "{target}");
        assert!(refused.body.len() < 4_000, "{target}: {}", refused.text());
        assert!(refused.text().contains('…'), "{target}: {}", refused.text());
    }
    let before = held_kib(&serve);
    let refused: Vec<TcpStream> = (0..CLIENTS)
        .map(|number| {
            let (target, body) = &attacks[number % attacks.len()];
            let mut stream = untaken(&serve, target, body);
            assert_eq!(status_of(&mut stream), 400, "{target}");
            stream
        })
        .collect();
    // The buffers of so many connections.
    let grown = held_kib(&serve).saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
    drop(refused);
}

#[test]
fn many_errors_in_one_answer_are_owed_like_any_other() {
    let store = Server::start();
    let line = "--threads 1 --upstash --max-keys-per-request 512 --max-held 16MiB";
    let serve = Serve::start(&store.url(), line);
    let wide = "\u{200b}".repeat(60);
    let body = serde_json::json!(vec![[wide]; 512]).to_string();
    let kind = ["content-type: application/json"];
    let reply = serve.ask("POST", "/pipeline", &kind, body.as_bytes());
    assert_eq!(reply.status, 200);
    let length = reply.body.len();
    assert!(length > 128 * 1024, "{length}");
    let before = held_kib(&serve);
    // Together they come to several times what may be owed.
    let refused: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = untaken(&serve, "/pipeline", &body);
            assert_eq!(status_of(&mut stream), 200);
            stream
        })
        .collect();
    let grown = held_kib(&serve).saturating_sub(before);
    assert!(
        grown < (16 + 16) * 1024,
        "{grown} KiB of {length} bytes each"
    );
    drop(refused);
}
