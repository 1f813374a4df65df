//! Targets on a Unix socket: a serve behind one, and any other service.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use serde_json::Value;

use crate::support::{Serve, assert_balanced, json, kvpoc, seed, stderr, stdout};

const LOAD: &str =
    "bench --warmup 0s --rps 200 --duration 500ms --connections 4 --max-lag 10s --slo p99=none";

fn results(target: &str, more: &str) -> Value {
    let output = kvpoc(&format!("{LOAD} --json - --target {target} {more}"));
    let text = stdout(&output);
    assert!(!text.is_empty(), "{}", stderr(&output));
    let results = json(&text);
    assert_balanced(&results);
    results
}

/// Has each connection to `file` dealt with on a thread of its own.
fn listen(file: &Path, deal: impl Fn(UnixStream) + Send + Clone + 'static) {
    let listener = UnixListener::bind(file).expect("a new file");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let deal = deal.clone();
            std::thread::spawn(move || deal(stream));
        }
    });
}

/// Passes everything on to a server, and back.
fn pass_on(stream: &UnixStream, address: SocketAddr) {
    let server = TcpStream::connect(address).expect("the server accepts");
    let _ = server.set_nodelay(true);
    std::thread::scope(|both| {
        both.spawn(|| {
            let _ = std::io::copy(&mut &server, &mut &*stream);
            let _ = stream.shutdown(Shutdown::Both);
        });
        let _ = std::io::copy(&mut &*stream, &mut &server);
        let _ = server.shutdown(Shutdown::Write);
    });
}

#[test]
fn a_serve_behind_a_socket_file_is_asked_for_its_dataset_and_driven() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = format!("embedded:{}", folder.path().join("data").display());
    seed(&store, 1_000, "");
    let serve = Serve::start(&store, "");
    let (file, address) = (folder.path().join("s.sock"), serve.address);
    listen(&file, move |stream| pass_on(&stream, address));
    let target = format!("unix:{}", file.display());
    let results = results(&target, "--verify 1");
    assert_eq!(results["requests"]["ok"], 100, "{results}");
    assert_eq!(results["requests"]["compared"], 100);
    assert_eq!(results["conditions"]["target"], target);
}

#[test]
fn any_service_on_a_socket_file_is_asked_by_its_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("s.sock");
    let target = format!("unix:{}:/x/{{id}}", file.display());
    let output = kvpoc(&format!("{LOAD} --keys 10 --target {target}"));
    assert_eq!(output.status.code(), Some(69), "{}", stdout(&output));
    let said = stderr(&output);
    assert!(said.contains("s.sock cannot be reached"), "{said}");
    listen(&file, |mut stream| {
        let mut request = [0; 4_096];
        // One small request at a time is all that a connection ever carries.
        while let Ok(length @ 1..) = stream.read(&mut request) {
            let request = String::from_utf8_lossy(&request[..length]);
            let is_right =
                request.starts_with("GET /x/") && request.contains("host: localhost\r\n");
            let status = if is_right {
                "200 OK"
            } else {
                "400 Bad Request"
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}");
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    let results = results(&target, "--keys 10");
    assert_eq!(results["requests"]["ok"], 100, "{results}");
}
