//! What `kvpoc bench` makes of targets that behave, misbehave and are not there.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Process, Serve, Store, assert_balanced, free_port, json_file, kvpoc, seed, start, start_until,
    stderr,
};

/// Drives `target` and gives exit code and results.
fn bench(target: &str, more: &str) -> (i32, Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bench.json");
    let line = format!(
        "bench --target {target} --warmup 0s --json {}",
        file.display()
    );
    let output = kvpoc(&format!("{line} {more}"));
    let code = output.status.code().expect("an exit code");
    assert!(file.exists(), "{}", stderr(&output));
    (code, json_file(&file))
}

/// Two connections at 500 requests/s, in the background; the load has begun.
fn start_bench(url: &str, file: &Path, duration: &str) -> Process {
    let (target, file) = (
        format!("--target {url}"),
        format!("--json {}", file.display()),
    );
    let load = "--rps 500 --warmup 0s --connections 2 --max-lag 10s --timeout 2s";
    let line = format!("bench {target} {load} {file} --duration {duration}");
    start_until(&line, "requests  ").0
}

/// A target that tells of a dataset on `/stats`, and answers nothing else than `answer` gives.
fn target(answer: impl Fn() -> Option<Vec<u8>> + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut request = [0; 4_096];
                while let Ok(length @ 1..) = stream.read(&mut request) {
                    let stats = request[..length].starts_with(b"GET /stats");
                    let bytes = if stats { Some(http(STATS)) } else { answer() };
                    if bytes.is_none_or(|bytes| stream.write_all(&bytes).is_err()) {
                        break;
                    }
                }
            });
        }
    });
    address
}

const STATS: &str = r#"{"engine":"made up","total_keys":10,"dataset":{"keys":10,"key_prefix":"k","value_size":256,"seed":1,"record_version":1}}"#;

fn http(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

const ONE_KEY: &str = "--keys-per-request 1 --connections 4 --max-lag 10s";

#[test]
fn the_json_has_every_member_that_scripts_read() {
    let store = &Store::all()[1];
    seed(&store.url(), 1_000, "");
    let serve = Serve::start(&store.url(), "");
    let (_, results) = bench(&serve.url(), "--rps 100 --duration 1s");
    for path in [
        "verdict",
        "reason",
        "requests.scheduled",
        "requests.sent",
        "requests.unsent",
        "requests.ok",
        "requests.errors",
        "requests.timeouts",
        "requests.in_flight",
        "rate.target_rps",
        "rate.achieved_rps",
        "rate.key_ops_per_second",
        "rate.commands_per_second",
        "latency_us.p50",
        "latency_us.p90",
        "latency_us.p99",
        "latency_us.p999",
        "latency_us.max",
        "lag_us.p50",
        "lag_us.p99",
        "lag_us.max",
        "conditions.version",
        "conditions.commit",
        "conditions.cpu_count",
        "conditions.store_engine",
    ] {
        let found = path.split('.').fold(&results, |value, name| &value[name]);
        assert!(!found.is_null(), "{path} is missing in {results}");
    }
}

#[test]
fn keys_that_are_not_there_make_the_run_invalid() {
    let store = &Store::all()[1];
    seed(&store.url(), 100, "");
    let serve = Serve::start(&store.url(), "");
    let (code, results) = bench(&serve.url(), "--rps 100 --duration 1s --keys 200");
    assert_eq!((code, &results["verdict"]), (3, &Value::from("INVALID")));
    assert!(
        results["reason"]
            .as_str()
            .expect("text")
            .contains("keys missing")
    );
    assert_balanced(&results);
}

#[test]
fn wrong_answers_make_the_run_invalid() {
    for (body, verify) in [
        (r#"[{"id":99}]"#, "0.01"),
        ("[]", "0.01"),
        ("ok", "0.01"),
        (r#"[{"id":1},{"id":2}]"#, "0.01"),
        ("[{}]", "0"),
        ("[{}]", "1"),
        ("[1]", "0"),
    ] {
        let address = target(move || Some(http(body)));
        let more = format!("--rps 200 --duration 1s --verify {verify} {ONE_KEY}");
        let (code, results) = bench(&format!("http://{address}"), &more);
        assert_eq!(
            (code, &results["verdict"]),
            (3, &Value::from("INVALID")),
            "{body}"
        );
        let reason = results["reason"].as_str().expect("text");
        assert!(
            reason.contains("did not match their requests"),
            "{body}: {reason}"
        );
        assert_balanced(&results);
    }
}

#[test]
fn errors_are_counted_by_their_cause() {
    let cases: [(&[u8], &str); 3] = [
        (
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            "http_503",
        ),
        (b"not http at all\r\n\r\n", "malformed_answer"),
        (b"", "connection_lost"),
    ];
    for (bytes, cause) in cases {
        let address = target(move || (!bytes.is_empty()).then(|| bytes.to_vec()));
        let more = format!("--rps 100 --duration 1s {ONE_KEY}");
        let (code, results) = bench(&format!("http://{address}"), &more);
        assert_eq!(
            (code, &results["verdict"]),
            (1, &Value::from("TARGET_MISSED")),
            "{cause}"
        );
        assert_balanced(&results);
        let errors = results["requests"]["errors"].as_u64().expect("a count");
        assert!(errors > 0);
        assert_eq!(
            results["requests"]["errors_by_cause"][cause], errors,
            "{results}"
        );
    }
}

#[test]
fn a_target_that_never_answers_is_timed_out_and_no_arrival_is_lost() {
    let address = target(|| {
        std::thread::sleep(Duration::from_secs(5));
        None
    });
    let url = format!("http://{address}");
    let (code, results) = bench(
        &url,
        &format!("--rps 100 --duration 1s --timeout 200ms {ONE_KEY}"),
    );
    assert_eq!(
        (code, &results["verdict"]),
        (1, &Value::from("TARGET_MISSED"))
    );
    assert_balanced(&results);
    let requests = &results["requests"];
    assert_eq!(requests["ok"], 0);
    assert!(requests["timeouts"].as_u64() > Some(0), "{results}");
    // Each of the four connections times out at most once in 200 ms: none is spent on a hopeless arrival.
    assert!(requests["sent"].as_u64() <= Some(28), "{results}");
    assert!(
        requests["unsent_by_reason"]["no_connection"].as_u64() > Some(0),
        "{results}"
    );
    // Latency runs on for what was given up: none of it can be below the timeout.
    assert!(
        results["latency_us"]["p50"].as_u64() >= Some(200_000),
        "{results}"
    );
}

#[test]
fn a_target_that_goes_away_leaves_arrivals_unsent_and_none_of_them_lost() {
    let store = &Store::all()[1];
    seed(&store.url(), 1_000, "");
    let serve = Serve::start(&store.url(), "");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bench.json");
    let mut running = start_bench(&serve.url(), &file, "3s");
    drop(serve);
    assert_eq!(running.ended(), Some(1));
    let results = json_file(&file);
    assert_balanced(&results);
    assert_eq!(results["requests"]["scheduled"], 1_500);
    let unsent = &results["requests"]["unsent_by_reason"];
    assert!(unsent["no_connection"].as_u64() > Some(0), "{results}");
}

#[test]
fn what_is_over_the_bound_is_unsent_and_what_is_unanswered_is_in_flight() {
    let address = target(|| {
        std::thread::sleep(Duration::from_secs(10));
        None
    });
    let bounds = "--timeout 30s --drain 100ms --max-in-flight 10";
    let (code, results) = bench(
        &format!("http://{address}"),
        &format!("--rps 100 --duration 1s {bounds} {ONE_KEY}"),
    );
    assert_eq!(code, 1);
    assert_balanced(&results);
    let requests = &results["requests"];
    assert_eq!(requests["in_flight"], 4);
    assert_eq!(requests["unsent_by_reason"]["end_of_run"], 6);
    assert_eq!(requests["unsent_by_reason"]["max_in_flight"], 90);
    // What was refused would have waited in vain for the whole timeout, and must not lower the latency.
    assert!(
        results["latency_us"]["p50"].as_u64() >= Some(30_000_000),
        "{results}"
    );
}

#[test]
fn a_stalled_target_shows_in_the_latency_of_every_arrival_that_it_held_up() {
    let store = &Store::all()[1];
    seed(&store.url(), 1_000, "");
    let serve = Serve::start(&store.url(), "");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bench.json");
    let load = "--rps 2000 --duration 20s --warmup 0s --connections 4 --max-lag 10s";
    let (url, name) = (serve.url(), file.display());
    let mut running = start(&format!("bench --target {url} {load} --json {name}"));
    std::thread::sleep(Duration::from_secs(5));
    serve.process.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(1_400));
    serve.process.signal(Signal::CONT);
    running.ended();
    let results = json_file(&file);
    assert_balanced(&results);
    assert_eq!(results["requests"]["ok"], 40_000, "{results}");
    // 7 % of the arrivals were due during the stall, and those of its first 0.2 s, the last percent, waited
    // for more than a second. Only one request of each connection was under way, so that service times alone
    // show nothing: that is what a closed loop would have reported.
    let us = |name: &str, point: &str| results[name][point].as_u64().expect(point);
    assert!(us("latency_us", "p99") > 1_000_000, "{results}");
    assert!(
        us("service_us", "p99") < us("latency_us", "p99") / 2,
        "{results}"
    );
}

#[test]
fn a_generator_that_cannot_run_blames_itself() {
    let store = &Store::all()[1];
    seed(&store.url(), 1_000, "");
    let serve = Serve::start(&store.url(), "");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bench.json");
    let mut running = start_bench(&serve.url(), &file, "3s --max-lag 5ms");
    // For half a second it gets no core at all, while the target is ready all the time.
    running.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(500));
    running.signal(Signal::CONT);
    assert_eq!(running.ended(), Some(2));
    let results = json_file(&file);
    assert_eq!(results["verdict"], "GENERATOR_LIMITED", "{results}");
    assert_eq!(results["requests"]["ok"], 1_500, "{results}");
    assert_balanced(&results);
}

#[test]
fn a_run_that_is_stopped_by_hand_keeps_its_books_and_claims_nothing() {
    let store = &Store::all()[1];
    seed(&store.url(), 1_000, "");
    let serve = Serve::start(&store.url(), "");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bench.json");
    let mut running = start_bench(&serve.url(), &file, "60s");
    running.signal(Signal::INT);
    assert_eq!(running.ended(), Some(3));
    let results = json_file(&file);
    assert_balanced(&results);
    assert_eq!(results["reason"], "the run was interrupted");
    assert!(
        results["requests"]["scheduled"].as_u64() < Some(30_000),
        "{results}"
    );
}

#[test]
fn several_threads_share_one_schedule() {
    let store = &Store::all()[1];
    seed(&store.url(), 1_000, "");
    let serve = Serve::start(&store.url(), "");
    let more = "--rps 1001 --duration 1s --threads 3 --connections 5";
    let (_, results) = bench(&serve.url(), more);
    assert_balanced(&results);
    assert_eq!(results["requests"]["ok"], 1_001, "{results}");
}

#[test]
fn a_target_that_is_not_there_is_named_with_the_way_on() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let output = kvpoc(&format!("bench --target {url}"));
    assert_eq!(output.status.code(), Some(69));
    let text = stderr(&output);
    assert!(
        text.contains(&url) && text.contains("start one with kvpoc serve"),
        "{text}"
    );
}

#[test]
fn a_result_that_cannot_be_written_is_refused_before_the_run() {
    let store = &Store::all()[1];
    seed(&store.url(), 100, "");
    let serve = Serve::start(&store.url(), "");
    let line = format!("bench --target {} --duration 1day", serve.url());
    let output = kvpoc(&format!("{line} --json /nonexistent/x.json"));
    assert_eq!(output.status.code(), Some(69));
    assert!(stderr(&output).contains("cannot write --json /nonexistent/x.json"));
}

#[test]
fn a_store_without_a_dataset_is_not_guessed_at() {
    let store = &Store::all()[1];
    let serve = Serve::start(&store.url(), "");
    let output = kvpoc(&format!("bench --target {}", serve.url()));
    assert_eq!(output.status.code(), Some(69));
    assert!(
        stderr(&output).contains("or give --keys"),
        "{}",
        stderr(&output)
    );
}
