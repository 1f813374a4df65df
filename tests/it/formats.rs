//! Datasets of other formats than the program's own, and other services over them.
//!
//! Enters: `--format` and `--expect-records`. Leaves: nothing. Must not take a service's word for what its store holds.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::stub::{answer, seeing};
use crate::support::{
    Serve, Server, Store, assert_balanced, eventually, expect_code, json, kvpoc, seed, start_until,
    stderr, stdout,
};

const FORMATS: [&str; 3] = ["record", "json", "raw"];
const KEYS: u64 = 2_000;

/// A load that passes on any machine.
const LOAD: &str = "bench --json - --max-lag 10s --rps 200 --duration 1s --warmup 0s --connections 4 --slo p99=none";

fn verify(url: &str, more: &str, code: i32) -> Value {
    let line = format!("seed --verify-only --json --store {url} --keys {KEYS} {more}");
    json(&expect_code(&line, code))["verification"].clone()
}

fn inspect(url: &str, key: &str) -> Value {
    json(&expect_code(
        &format!("inspect {key} --json --store {url}"),
        0,
    ))
}

fn bench(more: &str) -> Value {
    let output = kvpoc(&format!("{LOAD} {more}"));
    let text = stdout(&output);
    assert!(!text.is_empty(), "{more}: {}", stderr(&output));
    let results = json(&text);
    assert_balanced(&results);
    results
}

/// A bench that does not begin, and ends by this code.
fn refused(more: &str, code: i32) -> String {
    let output = kvpoc(&format!("{LOAD} {more}"));
    assert_eq!(output.status.code(), Some(code), "{}", stdout(&output));
    stderr(&output)
}

/// Every answer was right, and so many of them were compared with their records.
fn assert_right(results: &Value, compared: u64) {
    assert_eq!(results["verdict"], "PASS", "{}", results["reason"]);
    assert_eq!(results["requests"]["compared"], compared, "{results}");
    assert_eq!(results["keys"]["misses"], 0);
}

#[test]
fn every_format_is_loaded_verified_mended_and_explained() {
    for format in FORMATS {
        for store in Store::all() {
            let url = store.url();
            let summary = seed(&url, KEYS, &format!("--format {format} --verify"));
            assert_eq!(summary["format"], format);
            assert_eq!(summary["verification"]["checked"], KEYS);
            let note = inspect(&url, "kvpoc:dataset")["content"].clone();
            let noted = (format != "record").then_some(format);
            assert_eq!(note["format"].as_str(), noted, "{note}");
            assert_eq!(note["state"], "verified");
            let found = inspect(&url, "user:session:7");
            assert_eq!(found["size_bytes"], 256);
            let shown = if format == "raw" { "bytes" } else { format };
            assert_eq!(found["format"], shown, "{found}");
            let keyspace = expect_code(&format!("inspect --store {url}"), 0);
            assert_eq!(
                keyspace.contains(&format!("bytes ({format})")),
                noted.is_some(),
                "{keyspace}"
            );

            let serve = Serve::start(&url, "--allow-writes");
            let key = "/v1/keys/user:session:8";
            assert_eq!(serve.request("PUT", key, b"other").status, 204);
            let faulty = verify(&url, &format!("--format {format}"), 1);
            assert_eq!(
                (&faulty["missing"], &faulty["different"]),
                (&json!(0), &json!(1))
            );
            seed(&url, KEYS, &format!("--format {format} --resume --verify"));
            verify(&url, &format!("--format {format}"), 0);
        }
    }
}

#[test]
fn a_dataset_of_another_format_is_neither_resumed_nor_taken_for_verified() {
    for (held, asked) in [("json", "record"), ("record", "json"), ("raw", "json")] {
        for store in Store::all() {
            let url = store.url();
            seed(&url, KEYS, &format!("--format {held}"));
            let line = format!("seed --resume --keys {KEYS} --format {asked} --store {url}");
            let output = kvpoc(&line);
            assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
            assert!(stderr(&output).contains("--format"), "{}", stderr(&output));
            let found = verify(&url, &format!("--format {asked}"), 1);
            assert_eq!(found["different"], KEYS, "{found}");
            // What is there is what it was.
            verify(&url, &format!("--format {held}"), 0);
        }
    }
}

#[test]
fn an_interrupted_load_of_json_is_gone_on_with_by_the_command_that_it_gives() {
    for store in Store::all() {
        let url = store.url();
        let line = format!("seed --store {url} --keys 100k --format json --rate 20k --batch 100");
        let (mut seeding, _) = start_until(&line, "Seeding");
        eventually("some keys", || {
            let output = kvpoc(&format!("inspect user:session:2000 --store {url}"));
            output.status.success().then_some(())
        });
        seeding.signal(Signal::INT);
        assert_eq!(seeding.ended(), Some(130));
        let text = seeding.output();
        let way_on = text.split("To complete it: kvpoc ").nth(1).expect(&text);
        let way_on = way_on.lines().next().expect("a line");
        assert!(way_on.contains("--format json"), "{text}");
        let more = way_on.replace("--rate 20000", "");
        let summary = json(&expect_code(&format!("{more} --json --verify"), 0));
        assert!(summary["resumed_from"].as_u64() > Some(0), "{summary}");
        assert_eq!(summary["verification"]["checked"], 100_000);
    }
}

#[test]
fn sessions_are_served_and_measured_from_json_as_from_records() {
    for store in Store::all() {
        let url = store.url();
        seed(&url, KEYS, "--format json --value-size 200..400");
        let serve = Serve::start(&url, "--allow-writes");
        let session = serve.get("/user/session/7").json();
        let stored = inspect(&url, "user:session:7")["content"].clone();
        for (name, value) in stored.as_object().expect("an object") {
            assert_eq!(&session[name], value, "{name}");
        }
        assert!(session["validated_at"].is_string());
        let batch = serve.get("/user/sessions?ids=1,999999,2").json();
        assert_eq!(
            (&batch[0]["id"], &batch[1], &batch[2]["id"]),
            (&json!(1), &Value::Null, &json!(2))
        );
        assert_eq!(serve.get("/stats").json()["dataset"]["format"], "json");
        let target = format!("--target {} --verify 1", serve.url());
        for more in ["--workload batch", "--workload single"] {
            assert_right(&bench(&format!("{target} {more}")), 200);
        }
        // Written by bench, they are what they were.
        let written = bench(&format!("{target} --workload mixed:50/50"));
        assert_eq!(written["verdict"], "PASS", "{}", written["reason"]);
        verify(&url, "--format json --value-size 200..400", 0);
        let direct = format!("--target store --store {url} --verify 1");
        assert_right(&bench(&direct), 200);
    }
}

#[test]
fn raw_values_have_no_sessions_and_are_measured_as_values() {
    for store in Store::all() {
        let url = store.url();
        seed(&url, KEYS, "--format raw --value-size 9");
        let serve = Serve::start(&url, "");
        assert_eq!(serve.get("/user/session/7").status, 502);
        let batch = serve.get("/user/sessions?ids=1,999999").json();
        assert!(
            batch[0]["error"].is_string() && batch[1].is_null(),
            "{batch}"
        );
        assert_eq!(serve.get("/v1/keys/user:session:7").body.len(), 9);
        let text = refused(&format!("--target {}", serve.url()), 69);
        assert!(
            text.contains("raw bytes") && text.contains("/v1/keys/{key}"),
            "{text}"
        );
        assert_right(
            &bench(&format!("--target store --store {url} --verify 1")),
            200,
        );
    }
}

#[test]
fn any_services_answers_are_compared_with_what_seed_has_loaded() {
    for format in FORMATS {
        for store in Store::all() {
            let url = store.url();
            seed(&url, KEYS, &format!("--format {format}"));
            let serve = Serve::start(&url, "");
            let target = format!("--target {}/v1/keys/{{key}} --verify 1", serve.url());
            let noted = bench(&format!("{target} --expect-records --store {url}"));
            assert_right(&noted, 200);
            let conditions = &noted["conditions"];
            let told = format!("{format},value-size=256,seed=1,key-prefix=user:session:");
            assert_eq!(conditions["records"], told);
            assert_eq!(conditions["keys"], KEYS);
            // Told, it needs no store.
            let of = |expected: &str| {
                bench(&format!(
                    "{target} --keys {KEYS} --expect-records={expected}"
                ))
            };
            assert_right(&of(&told), 200);
            for wrong in [
                format!("{format},seed=2"),
                format!("{format},value-size=300"),
            ] {
                let found = of(&wrong);
                assert_eq!(found["verdict"], "INVALID", "{wrong}: {}", found["reason"]);
                assert_eq!(found["keys"]["hits"], 0);
            }
        }
    }
}

/// A service that reads JSON from the store, and shifts each id that it is asked for.
fn service(port: u16, shift: u64) -> SocketAddr {
    let (address, _) = seeing(move |request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        let ids = path.rsplit('/').next().unwrap_or_default();
        let found: Vec<String> = ids
            .split(',')
            .map(|id| {
                let id: u64 = id.parse().expect("an id");
                let value = get(port, &format!("user:session:{}", id + shift));
                value.unwrap_or_else(|| "null".into())
            })
            .collect();
        if path.starts_with("/many/") {
            return answer("200 OK", &format!("[{}]", found.join(", ")));
        }
        match &*found[0] {
            "null" => answer("404 Not Found", ""),
            value => answer(
                "200 OK",
                &format!("{{\"data\": {value}, \"from\": \"here\"}}"),
            ),
        }
    });
    address
}

/// A value of the store, over a connection of its own.
fn get(port: u16, key: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the store accepts");
    let command = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
    stream
        .write_all(command.as_bytes())
        .expect("the store reads");
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    reader.read_line(&mut head).expect("the store answers");
    let length = head.trim().strip_prefix('$')?.parse().ok()?;
    let mut value = vec![0; length];
    reader.read_exact(&mut value).expect("the whole value");
    String::from_utf8(value).ok()
}

#[test]
fn a_service_that_answers_with_another_record_is_found_out() {
    let server = Server::start();
    let url = server.url();
    seed(&url, KEYS, "--format json");
    let right = service(server.port, 0);
    let shifted = service(server.port, 1);
    let load = |address: SocketAddr, path: &str, more: &str| {
        bench(&format!(
            "--target http://{address}{path} --keys-per-request 3 --store {url} {more}"
        ))
    };
    for path in ["/one/{id}", "/many/{ids}"] {
        let keys = if path == "/one/{id}" { 1 } else { 3 };
        let found = load(right, path, "--expect-records --verify 1");
        assert_right(&found, 200);
        assert_eq!(found["keys"]["hits"], 200 * keys);
        // The first hundred are always compared.
        let found = load(shifted, path, "--expect-records --verify 0.0001");
        assert_eq!(found["verdict"], "INVALID", "{}", found["reason"]);
        let wrong = found["requests"]["errors_by_cause"]["wrong_answer"].as_u64();
        assert!(wrong >= Some(100), "{found}");
        // Without it, nobody knows.
        assert_eq!(load(shifted, path, "--keys 1000")["verdict"], "PASS");
        assert_eq!(server.ask("DEL user:session:5"), ":1\r\n");
        let found = load(
            right,
            path,
            "--expect-records --keys-dist sequential --verify 1",
        );
        assert_eq!(found["verdict"], "INVALID", "{}", found["reason"]);
        assert!(found["keys"]["misses"].as_u64() > Some(0), "{found}");
        seed(&url, KEYS, "--format json");
    }
}

#[test]
fn records_that_nobody_knows_are_not_expected() {
    let server = Server::start();
    let url = server.url();
    let service = service(server.port, 0);
    let load = |path: &str, code| {
        let target = format!("--target http://{service}{path}");
        refused(&format!("{target} --expect-records --store {url}"), code)
    };
    let text = load("/one/{id}", 69);
    assert!(
        text.contains("found no dataset") && text.contains(&url),
        "{text}"
    );
    seed(&url, KEYS, "--format raw");
    let text = load("/many/{ids}", 64);
    assert!(text.contains("{id} or {key}"), "{text}");
    let note =
        r#"{"keys":9,"key_prefix":"p:","value_size":256,"seed":1,"record_version":1,"loaded":3}"#;
    assert_eq!(server.ask_words(&["SET", "kvpoc:dataset", note]), "+OK\r\n");
    let text = load("/one/{id}", 69);
    assert!(text.contains("not wholly loaded"), "{text}");
}
