//! Targets behind TLS: whom `kvpoc bench` trusts, what it shows, and what it makes of answers and ends.

use std::path::Path;
use std::process::Output;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::Value;

use crate::secure::certificates_for;
use crate::support::{Serve, assert_balanced, json, kvpoc, seed, stderr, stdout};
use crate::tls_server::{Behind, Demands, End, start};

const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];
const LOAD: &str =
    "bench --warmup 0s --rps 200 --duration 500ms --connections 4 --max-lag 10s --slo p99=none";

fn bench(target: &str, more: &str) -> Output {
    kvpoc(&format!("{LOAD} --target {target} {more}"))
}

/// The results of a run whose books balance.
fn results(target: &str, more: &str) -> Value {
    let output = bench(target, &format!("{more} --json -"));
    let text = stdout(&output);
    assert!(!text.is_empty(), "{}", stderr(&output));
    let results = json(&text);
    assert_balanced(&results);
    results
}

/// What is said of a run that cannot begin.
fn refusal(target: &str, more: &str) -> String {
    let output = bench(target, more);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(69), "{}{said}", stdout(&output));
    said
}

fn assert_all_ok(results: &Value) {
    assert_eq!(results["requests"]["ok"], 100, "{}", results["requests"]);
}

fn file(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

fn answer(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}").into_bytes()
}

fn small_answer() -> Behind {
    let bytes = answer("content-length: 2\r\n", "{}");
    Behind::Answer(bytes, 4_096, End::Never)
}

#[test]
fn a_serve_behind_tls_is_driven_by_name_and_by_address() {
    let (folder, data) = (certificates_for(&NAMES), tempfile::tempdir().expect("data"));
    let store = format!("embedded:{}", data.path().display());
    seed(&store, 1_000, "");
    let serve = Serve::start(&store, "");
    for is_old in [false, true] {
        let demands = Demands {
            is_old,
            ..Demands::none(folder.path())
        };
        let port = start(&demands, Behind::Server(serve.address));
        for host in NAMES {
            let target = format!("https://{host}:{port}");
            let ca = format!("--ca {} --verify 1", file(folder.path(), "ca.pem"));
            let results = results(&target, &ca);
            assert_all_ok(&results);
            assert_eq!(results["requests"]["compared"], 100);
            assert_eq!(results["keys"]["hits"], 1_500);
            assert_eq!(results["conditions"]["target"], target);
            assert_eq!(results["conditions"]["certificate_checked"], true);
            let handshakes = &results["tls_handshakes"];
            assert_eq!(handshakes["count"], 4, "{handshakes}");
            let (mean, max) = (&handshakes["mean_us"], &handshakes["max_us"]);
            assert!(mean.as_f64() > Some(0.0) && mean.as_f64() <= max.as_f64());
            // Stamps are of the socket's bytes, whatever is in them.
            assert!(results["service_us"]["count"].as_u64() == Some(100));
        }
    }
    let plain = results(&serve.url(), "");
    assert!(plain["tls_handshakes"].is_null());
    assert!(plain["conditions"]["certificate_checked"].is_null());
}

#[test]
fn who_is_not_trusted_is_refused_with_the_mend_unless_nothing_is_checked() {
    let folder = certificates_for(&["other.test"]);
    let port = start(&Demands::none(folder.path()), small_answer());
    let ca = format!("--ca {}", file(folder.path(), "ca.pem"));
    let other = format!("--ca {}", file(folder.path(), "other.pem"));
    let absent = format!("--ca {}", file(folder.path(), "absent.pem"));
    let key = format!("--ca {}", file(folder.path(), "server-key.pem"));
    let https = format!("https://localhost:{port}/x");
    let serve = format!("https://localhost:{port}");
    for (target, more, expected) in [
        (&https, "", ["UnknownIssuer", "give --ca FILE"]),
        (&serve, "", ["UnknownIssuer", "give --ca FILE"]),
        (&https, &*other, ["UnknownIssuer", "give --ca FILE"]),
        (&https, &*ca, ["only valid for", "name the target"]),
        (&https, &*absent, ["--ca", "absent.pem"]),
        (&https, &*key, ["--ca", "it holds no certificate"]),
    ] {
        let said = refusal(target, more);
        for part in expected {
            assert!(said.contains(part), "{target} {more}: {said}");
        }
    }
    let unchecked = results(&https, "--insecure");
    assert_all_ok(&unchecked);
    assert_eq!(unchecked["conditions"]["certificate_checked"], false);
    let output = bench(&https, "--insecure");
    let text = stdout(&output);
    assert!(
        text.contains("TLS handshakes") && text.contains("not verified"),
        "{text}"
    );
}

#[test]
fn a_target_without_tls_is_told_apart() {
    let target = crate::stub::start(crate::stub::Mode::Ids);
    let said = refusal(&format!("https://{target}"), "--insecure");
    assert!(said.contains("write http:// in --target"), "{said}");
}

#[test]
fn a_certificate_that_signed_itself_is_trusted_when_it_is_given() {
    let folder = tempfile::tempdir().expect("a folder");
    // As `openssl req -x509` makes them.
    let mut params = CertificateParams::new(vec!["localhost".into()]).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("written");
    };
    write("own.pem", &certificate.pem());
    write("own-key.pem", &key.serialize_pem());
    let demands = Demands {
        shows: "own",
        ..Demands::none(folder.path())
    };
    let port = start(&demands, small_answer());
    let ca = format!("--ca {}", file(folder.path(), "own.pem"));
    assert_all_ok(&results(&format!("https://localhost:{port}/x"), &ca));
    let said = refusal(&format!("https://127.0.0.1:{port}/x"), &ca);
    assert!(said.contains("name the target"), "{said}");
    let others = certificates_for(&NAMES);
    let ca = format!("--ca {}", file(others.path(), "ca.pem"));
    refusal(&format!("https://localhost:{port}/x"), &ca);
}

#[test]
fn a_target_that_asks_for_a_certificate_is_shown_one() {
    let folder = certificates_for(&NAMES);
    let ca = format!("--ca {}", file(folder.path(), "ca.pem"));
    let shown = format!(
        "{ca} --cert {} --key {}",
        file(folder.path(), "client.pem"),
        file(folder.path(), "client-key.pem")
    );
    for is_old in [false, true] {
        let demands = Demands {
            asks_clients: true,
            is_old,
            ..Demands::none(folder.path())
        };
        let port = start(&demands, small_answer());
        let target = format!("https://127.0.0.1:{port}");
        // One is asked for its dataset, the other one for nothing.
        for target in [&target, &format!("{target}/x")] {
            let said = refusal(target, &ca);
            assert!(
                said.contains("--cert and --key"),
                "{is_old} {target}: {said}"
            );
        }
        assert_all_ok(&results(&format!("{target}/x"), &shown));
    }
}

#[test]
fn an_answer_in_many_records_is_one_answer() {
    let folder = certificates_for(&NAMES);
    let body = "x".repeat(100_000) + "its end";
    let length = format!("content-length: {}\r\n", body.len());
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for (bytes, piece) in [
        (answer(&length, &body), 1_000),
        (answer(&length, &body), 16_384),
        (answer("transfer-encoding: chunked\r\n", &chunked), 7_919),
        (answer("content-length: 7\r\n", "its end"), 1),
    ] {
        let behind = Behind::Answer(bytes, piece, End::Never);
        let port = start(&Demands::none(folder.path()), behind);
        let more = format!("--ca {} --match end", file(folder.path(), "ca.pem"));
        assert_all_ok(&results(&format!("https://localhost:{port}/x"), &more));
    }
}

#[test]
fn an_end_that_was_not_told_may_have_cut_the_answer() {
    let folder = certificates_for(&NAMES);
    let ca = format!("--ca {}", file(folder.path(), "ca.pem"));
    let closing = answer("connection: close\r\n", "all there is");
    let begun = answer("content-length: 99\r\n", "not all");
    let whole = answer("content-length: 5\r\n", "whole");
    for (bytes, end, is_right) in [
        (&closing, End::Told, true),
        (&closing, End::Untold, false),
        (&begun, End::Told, false),
        (&begun, End::Untold, false),
        (&whole, End::Told, true),
        (&whole, End::Untold, true),
    ] {
        let behind = Behind::Answer(bytes.clone(), 4_096, end);
        let port = start(&Demands::none(folder.path()), behind);
        // POST: what met the end of a connection is not sent again.
        for method in ["GET", "POST"] {
            let more = format!("{ca} --method {method} --rps 50 --duration 1s");
            let results = results(&format!("https://localhost:{port}/x"), &more);
            let requests = &results["requests"];
            let errors = &requests["errors_by_cause"];
            let lost = errors["connection_lost"].as_u64().unwrap_or(0);
            let ok = requests["ok"].as_u64().expect("a count");
            let shown = format!("{end:?} {method} {requests}");
            if is_right && (method == "GET" || bytes == &closing) {
                assert_eq!(ok, 50, "{shown}");
            } else if !is_right {
                assert_eq!((ok, lost), (0, 50), "{shown}");
            }
            // Each connection that is lost is made again, by what was agreed on before.
            assert!(
                results["tls_handshakes"]["resumed"].as_u64() > Some(0),
                "{shown}"
            );
            assert!(
                results["failed_connects"]
                    .as_object()
                    .is_some_and(serde_json::Map::is_empty)
            );
        }
    }
}
