//! What `kvpoc bench` makes of answers, connections and addresses as a network has them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{PATIENCE, assert_balanced, command, json_file, kvpoc, start_until, stderr};

const EMPTY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/// A target on a free port; each connection is `serve`d on a thread of its own.
fn target(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Reads the next request; `false` at the end of the connection.
fn request(stream: &mut TcpStream) -> bool {
    request_text(stream).is_some()
}

fn request_text(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut more = [0; 1_024];
        match stream.read(&mut more) {
            Ok(length @ 1..) => bytes.extend_from_slice(&more[..length]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Microseconds of a result.
fn us(results: &Value, name: &str, quantile: &str) -> u64 {
    results[name][quantile].as_u64().expect("microseconds")
}

/// Drives a template of `address`, and gives the results.
fn bench(address: &SocketAddr, more: &str) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bench.json");
    let load = format!("--keys 100 --warmup 0s --threads 1 {more}");
    let output = kvpoc(&format!(
        "bench --target http://{address}/{{id}} {load} --json {}",
        file.display()
    ));
    assert!(file.exists(), "{}", stderr(&output));
    json_file(&file)
}

#[test]
fn the_time_that_an_answer_lies_here_is_the_generators_own() {
    let answer_after = Duration::from_millis(200);
    let address = target(move |mut stream| {
        while request(&mut stream) {
            std::thread::sleep(answer_after);
            if stream.write_all(EMPTY).is_err() {
                return;
            }
        }
    });
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bench.json");
    let load = "--keys 100 --warmup 0s --rps 50 --duration 6s --connections 50 --threads 1";
    let line = format!(
        "bench --target http://{address}/{{id}} {load} --json {}",
        file.display()
    );
    let (mut running, _) = start_until(&line, "requests  ");
    running.signal(Signal::STOP);
    // Whatever was sent before is answered while the generator cannot see it.
    let away = Duration::from_secs(2);
    std::thread::sleep(away);
    running.signal(Signal::CONT);
    running.ended();
    let results = json_file(&file);
    assert_balanced(&results);
    let away_us = away.as_micros() as u64;
    assert!(
        us(&results, "receive_delay_us", "max") > away_us / 2,
        "{results}"
    );
    assert!(us(&results, "service_us", "max") < away_us / 2, "{results}");
    assert!(us(&results, "latency_us", "max") > away_us / 2, "{results}");
}

/// Answers everything, and closes what stands idle for so long.
fn serve_impatiently(mut stream: TcpStream, idle: Duration) {
    stream.set_read_timeout(Some(idle)).expect("a timeout");
    while request(&mut stream) && stream.write_all(EMPTY).is_ok() {}
}

#[test]
fn what_meets_the_end_of_an_idle_connection_is_sent_again() {
    // Idle connections take turns, so that each stands as long as the target allows.
    let address = target(|stream| serve_impatiently(stream, Duration::from_secs(1)));
    let more = "--rps 100 --connections 128 --duration 6s --max-lag 10s --slo p99=5s";
    let results = bench(&address, more);
    assert_balanced(&results);
    assert_eq!(results["verdict"], "PASS", "{results}");
    assert_eq!(results["requests"]["errors"], 0);
}

#[test]
fn a_request_is_sent_twice_at_most_and_only_where_no_answer_began() {
    let close_second = |answer: &'static [u8]| {
        target(move |mut stream| {
            if request(&mut stream) && stream.write_all(EMPTY).is_ok() {
                request(&mut stream);
                let _ = stream.write_all(answer);
            }
        })
    };
    let more = "--rps 100 --connections 1 --duration 1s --max-lag 10s --arrivals constant";
    let untouched = bench(&close_second(b""), more);
    assert_balanced(&untouched);
    assert_eq!(untouched["requests"]["errors"], 0, "{untouched}");
    assert!(untouched["resent"].as_u64() > Some(0), "{untouched}");
    let begun = bench(&close_second(b"HTTP/1.1 200 OK\r\n"), more);
    assert_balanced(&begun);
    assert_eq!(begun["resent"], 0, "{begun}");
    assert!(begun["requests"]["errors_by_cause"]["connection_lost"].as_u64() > Some(0));
    // Whoever never answers gets each request twice, and no third time.
    let never = bench(&target(|mut stream| _ = request(&mut stream)), more);
    assert_balanced(&never);
    assert_eq!(never["requests"]["ok"], 0);
    assert!(never["resent"].as_u64() <= never["requests"]["sent"].as_u64());
}

#[test]
fn an_answer_that_nobody_waits_for_is_counted_as_malformed() {
    let address = target(|mut stream| {
        while request(&mut stream) && stream.write_all(EMPTY).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
            if stream.write_all(EMPTY).is_err() {
                return;
            }
        }
    });
    let more = "--rps 10 --connections 4 --duration 2s --arrivals constant --max-lag 10s";
    let results = bench(&address, more);
    assert_balanced(&results);
    let count = &results["malformed_answers"]["an answer without a request"];
    assert!(count.as_u64() > Some(0), "{results}");
}

const GIVES_UP: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

#[test]
fn a_408_that_ends_an_idle_connection_is_the_answer_to_no_request() {
    // It comes while nothing is carried, or meets a request.
    let while_idle = target(|mut stream| {
        serve_impatiently(
            stream.try_clone().expect("a handle"),
            Duration::from_millis(100),
        );
        let _ = stream.write_all(GIVES_UP);
    });
    let meets_a_request = target(|mut stream| {
        if request(&mut stream) && stream.write_all(EMPTY).is_ok() && request(&mut stream) {
            let _ = stream.write_all(GIVES_UP);
        }
    });
    let more = "--rps 40 --connections 8 --duration 2s --arrivals constant --max-lag 10s";
    for (address, is_sent_again) in [(while_idle, false), (meets_a_request, true)] {
        let results = bench(&address, more);
        assert_balanced(&results);
        assert_eq!(results["requests"]["errors"], 0, "{results}");
        assert_eq!(
            results["malformed_answers"],
            serde_json::json!({}),
            "{results}"
        );
        assert!(
            !is_sent_again || results["resent"].as_u64() > Some(0),
            "{results}"
        );
    }
}

#[test]
fn a_408_is_an_error_where_it_keeps_the_connection_or_comes_twice() {
    const KEEPS: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n";
    let more = "--rps 40 --connections 2 --duration 1s --arrivals constant --max-lag 10s";
    for (answer, is_sent_again) in [(KEEPS, false), (GIVES_UP, true)] {
        let address = target(move |mut stream| {
            while request(&mut stream) && stream.write_all(answer).is_ok() && answer == KEEPS {}
        });
        let results = bench(&address, more);
        assert_balanced(&results);
        let requests = &results["requests"];
        assert_eq!(requests["ok"], 0, "{results}");
        assert_eq!(
            requests["errors_by_cause"]["http_408"], requests["errors"],
            "{results}"
        );
        assert!(requests["errors"].as_u64() > Some(0), "{results}");
        assert_eq!(
            results["resent"].as_u64() > Some(0),
            is_sent_again,
            "{results}"
        );
    }
}

#[test]
fn the_token_of_ones_own_server_is_shown_to_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "for-this-target").expect("written");
    let with_file = format!("--token-file {}", file.display());
    for (more, expected) in [("", None), (&*with_file, Some("for-this-target"))] {
        let (sender, requests) = std::sync::mpsc::channel();
        let address = target(move |mut stream| {
            while let Some(text) = request_text(&mut stream) {
                let _ = sender.send(text);
                let _ = stream.write_all(EMPTY);
            }
        });
        let load = "--keys 100 --warmup 0s --rps 50 --duration 1s --threads 1 --connections 1";
        let line = format!("bench --target {address}?next=/{{id}} {load} --max-lag 10s {more}");
        let mut bench = command(&line);
        let output = bench.env("KVPOC_TOKEN", "for-ones-own-server").output();
        output.expect("the program starts");
        let request = requests.recv_timeout(PATIENCE).expect("a request");
        assert!(request.starts_with("GET /?next=/"), "{request}");
        let shown = request
            .lines()
            .find_map(|line| line.strip_prefix("authorization: Bearer "));
        assert_eq!(shown, expected);
    }
}
