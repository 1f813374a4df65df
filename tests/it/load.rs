//! Loads of every kind against every kind of target, and what is reported of them.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;

use crate::stub::{self, Mode};
use crate::support::{
    PATIENCE, Process, Serve, Store, eventually, expect_code, free_port, json, json_file, kvpoc,
    seed, start_until, stderr, stdout,
};

/// Small and short, and without a word about this machine's speed.
const LOAD: &str =
    "--rps 400 --duration 1s --warmup 0s --connections 8 --max-lag 10s --slo rate=0%,p99=none";

/// Runs a load that must pass, and gives its results and its folder.
fn passing(more: &str) -> (Value, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().display();
    expect_code(&format!("bench {LOAD} --out {out} {more}"), 0);
    (json_file(&folder.path().join("report.json")), folder)
}

#[test]
fn every_workload_and_choice_of_keys_gets_right_answers_from_every_store() {
    for store in Store::all() {
        seed(&store.url(), 500, "--value-size 300");
        let serve = Serve::start(&store.url(), "--allow-writes --store-timeout 30s");
        for more in [
            "--workload batch",
            "--workload batch --keys-per-request 4",
            "--workload single --keys-dist zipf:0.99",
            "--workload sessions-and-stats --keys-dist hot:0.01/0.9",
            "--workload mixed:50/50 --keys-dist sequential --rps 50",
            "--preset twitter52 --rps 50",
            "--preset ycsb-a --arrivals poisson --rps 50",
        ] {
            let (results, _) = passing(&format!("--target {} --verify 1 {more}", serve.url()));
            let requests = &results["requests"];
            assert_eq!(requests["ok"], requests["scheduled"], "{more}: {results}");
            assert_eq!(results["keys"]["misses"], 0, "{more}");
        }
        // Writing the records that were there has changed nothing.
        let (results, _) = passing(&format!(
            "--target {} --verify 1 --workload single --keys-dist sequential --rps 500",
            serve.url()
        ));
        assert_eq!(results["keys"]["hits"], 500);
    }
}

#[test]
fn the_store_itself_is_driven_by_the_same_load() {
    for store in Store::all() {
        seed(&store.url(), 500, "");
        for more in [
            "--workload batch",
            "--workload mixed:80/20",
            "--workload sessions-and-stats",
        ] {
            let url = store.url();
            let (results, _) = passing(&format!("--target store --store {url} --verify 1 {more}"));
            assert_eq!(results["requests"]["ok"], 400, "{results}");
        }
    }
}

#[test]
fn the_stores_own_counters_confirm_what_was_asked() {
    let store = &Store::all()[0];
    seed(&store.url(), 500, "");
    let serve = Serve::start(&store.url(), "");
    let (results, _) = passing(&format!("--target {}", serve.url()));
    let books = &results["reconciliation"];
    assert_eq!(
        (&books["keys_asked"], &books["commands_asked"]),
        (&6_000.into(), &400.into())
    );
    let counted = |name: &str| books[name].as_u64().expect(name);
    // A key that a request names again is read once.
    let keys = counted("keys_counted") + counted("keys_repeated");
    assert!((6_000..6_050).contains(&keys), "{books}");
    assert!((400..450).contains(&counted("commands_counted")), "{books}");
    assert_eq!(books["counted_less"], false);
    assert_eq!(books["others_at_work"], false);
}

#[test]
fn a_record_that_is_not_its_keys_makes_the_run_invalid() {
    let store = &Store::all()[1];
    seed(&store.url(), 100, "");
    let serve = Serve::start(&store.url(), "--allow-writes");
    let other = serve.get("/v1/keys/user:session:6").body;
    assert_eq!(
        serve
            .request("PUT", "/v1/keys/user:session:5", &other)
            .status,
        204
    );
    let load = "--workload single --keys-dist sequential --verify 1";
    for target in [serve.url(), "store".to_owned()] {
        let line = format!(
            "bench {LOAD} --target {target} --store {} {load}",
            store.url()
        );
        let text = expect_code(&line, 3);
        assert!(text.contains("did not match their requests"), "{text}");
    }
}

#[test]
fn misses_are_allowed_as_far_as_they_are_asked_for() {
    let store = &Store::all()[1];
    seed(&store.url(), 100, "");
    let serve = Serve::start(&store.url(), "");
    let load = format!(
        "bench {LOAD} --target {} --keys 200 --keys-dist sequential",
        serve.url()
    );
    expect_code(&format!("{load} --max-miss 0.4"), 3);
    expect_code(&format!("{load} --max-miss 0.6"), 0);
}

#[test]
fn an_objective_that_is_missed_is_named() {
    let address = stub::start(Mode::Constant(0.02));
    let line = format!("bench {LOAD} --rps 50 --target http://{address}/x/{{id}} --keys 10");
    let text = expect_code(&format!("{line} --slo p50=1ms,rate=50%"), 1);
    assert!(
        text.contains("✗ p50 ≤ 1.00 ms") && text.contains("p50 ≤ 1.00 ms missed: 2"),
        "{text}"
    );
    expect_code(&format!("{line} --slo p50=10s,rate=50%"), 0);
}

#[test]
fn stages_give_their_rates_and_poisson_its_spread() {
    let address = stub::start(Mode::Constant(0.0));
    let target = format!("--target http://{address}/x/{{id}} --keys 10");
    let (results, _) = passing(&format!("{target} --stages 100:1s,100..300:1s,300:1s"));
    assert_eq!(results["requests"]["scheduled"], 600);
    assert_eq!(results["conditions"]["duration_s"], 3.0);
    let counts: BTreeSet<u64> = (1..4)
        .map(|number| {
            let (results, _) = passing(&format!("{target} --arrivals poisson --seed {number}"));
            results["requests"]["scheduled"].as_u64().expect("a count")
        })
        .collect();
    assert!(
        counts.len() > 1 && counts.iter().all(|count| (300..500).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn files_of_every_form_hold_the_same_run() {
    let store = &Store::all()[1];
    seed(&store.url(), 500, "");
    let serve = Serve::start(&store.url(), "");
    let (results, folder) = passing(&format!("--target {} --duration 3s", serve.url()));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
    let us = |point: &str| results["latency_us"][point].as_u64().expect(point);

    let log = read("latency.hlog");
    let mut all = Histogram::<u64>::new(3).expect("three digits");
    for entry in IntervalLogIterator::new(log.as_bytes()) {
        if let LogEntry::Interval(interval) = entry.expect("a line of the log") {
            let packed = data_encoding(interval.encoded_histogram());
            let part: Histogram<u64> = Deserializer::new()
                .deserialize(&mut packed.as_slice())
                .expect("a histogram");
            all.add(part).expect("it grows");
        }
    }
    assert_eq!(all.len(), 1_200);
    assert_eq!(
        (all.value_at_quantile(0.99), all.max()),
        (us("p99"), us("max"))
    );

    let percentiles = read("latency.hgrm");
    assert!(
        percentiles.contains("Total count    =         1200"),
        "{percentiles}"
    );
    let series = read("series.csv");
    assert!(
        series.starts_with("second,part,target_rps,sent,ok,"),
        "{series}"
    );
    let answered = |line: &str| line.split(',').nth(4).and_then(|ok| ok.parse::<u64>().ok());
    assert_eq!(
        series.lines().skip(1).filter_map(answered).sum::<u64>(),
        1_200,
        "{series}"
    );
    let page = read("report.html");
    assert!(page.contains("PASS") && page.contains("<polyline") && !page.contains("<script"));
}

/// Base64, as the log has it, by a tool that every test machine has.
fn data_encoding(text: &str) -> Vec<u8> {
    let mut child = std::process::Command::new("base64")
        .arg("--decode")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("base64 starts");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(text.as_bytes())
        .expect("it reads");
    child.wait_with_output().expect("it ends").stdout
}

#[test]
fn the_page_shows_its_charts_in_a_browser_without_a_complaint() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names
        .into_iter()
        .find(|name| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()));
    let Some(browser) = found else {
        eprintln!("skipped: there is no Chromium on PATH");
        return;
    };
    let address = stub::start(Mode::Constant(0.0));
    let (_, folder) = passing(&format!(
        "--target http://{address}/x/{{id}} --keys 10 --duration 3s"
    ));
    let page = folder.path().join("report.html");
    let output = std::process::Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .args(["--enable-logging=stderr", "--dump-dom"])
        .arg(format!(
            "--user-data-dir={}",
            folder.path().join("profile").display()
        ))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("the browser starts");
    let (dom, log) = (stdout(&output), stderr(&output));
    assert!(dom.matches("<polyline").count() >= 8, "{dom}");
    assert!(!log.contains("CONSOLE"), "{log}");
}

#[test]
fn layers_show_what_the_target_adds() {
    let store = &Store::all()[0];
    seed(&store.url(), 500, "");
    let serve = Serve::start(&store.url(), "");
    let (target, url) = (serve.url(), store.url());
    let text = expect_code(
        &format!("bench {LOAD} --layers --target {target} --store {url}"),
        0,
    );
    assert!(
        text.contains("── store") && text.contains(&format!("── {target}")),
        "{text}"
    );
    assert!(
        text.contains("Latency          store      target       added"),
        "{text}"
    );
}

#[test]
fn too_few_connections_end_a_search_and_are_named() {
    // 4 connections and 10 ms an answer: 400 a second at the most.
    let address = stub::start(Mode::Constant(0.01));
    let load = "--rps 100 --duration 1s --warmup 0s --connections 4 --drain 200ms --max-lag 10s --slo p99=500ms,rate=90%";
    let line = format!("bench {load} --find-max --target http://{address}/x/{{id}} --keys 10");
    let output = kvpoc(&line);
    let text = stdout(&output);
    // They are busy all the time, while each answer takes as long as ever: the target may hold more.
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("GENERATOR_LIMITED") && text.contains("PASS"),
        "{text}"
    );
    let expected = "Highest rate that passes: at least ";
    assert!(
        text.contains(expected) && text.contains("the generator reached its limit"),
        "{text}"
    );
}

#[test]
fn a_run_is_compared_with_an_earlier_one_and_a_stranger_is_refused() {
    let address = stub::start(Mode::Constant(0.0));
    let (_, folder) = passing(&format!("--target http://{address}/x/{{id}} --keys 10"));
    let earlier = folder.path().join("report.json").display().to_string();
    let line = format!("bench {LOAD} --target http://{address}/x/{{id}} --keys 20");
    let text = expect_code(&format!("{line} --compare {earlier}"), 0);
    assert!(
        text.contains("Compared") && text.contains("latency p99"),
        "{text}"
    );
    assert!(text.contains("differs: keys: 10 before, 20 now"), "{text}");
    let stranger = folder.path().join("x.json");
    std::fs::write(&stranger, "{}").expect("it is written");
    let output = kvpoc(&format!("{line} --compare {}", stranger.display()));
    assert_eq!(output.status.code(), Some(69));
    assert!(stderr(&output).contains("not a result of kvpoc bench"));
}

#[test]
fn the_growing_report_can_be_watched() {
    let slow = stub::start(Mode::Constant(0.0));
    let target = format!("--target http://{slow}/x/{{id}} --keys 10");
    let line = format!("bench {LOAD} --duration 60s {target} --live 127.0.0.1:0");
    let (running, address) = start_watched(&line);
    page_with(&address, "of 400 requests/s");
    drop(running);
}

/// Starts a load whose report can be watched, and says where.
fn start_watched(line: &str) -> (Process, String) {
    let (running, line) = start_until(line, "Live report at");
    let (_, address) = line.split_once("http://").expect("an address");
    (running, address.trim_end_matches('/').to_owned())
}

/// The page of a running load, once it contains this.
fn page_with(address: &str, text: &str) -> String {
    eventually("a page of the running load", || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        let grows = page.contains("Running, second") && page.contains("http-equiv=\"refresh\"");
        (grows && page.contains(text)).then_some(page)
    })
}

#[test]
fn the_growing_report_says_only_what_is_true_so_far() {
    // Each answer takes half a second, so that every second ends with requests in flight.
    let slow = stub::start(Mode::Constant(0.5));
    let target = format!("--target http://{slow}/x/{{id}} --keys 10 --slo p99=10s");
    let load = "--rps 20 --duration 60s --warmup 0s --connections 64 --max-lag 10s";
    let line = format!("bench {load} {target} --live 127.0.0.1:0");
    let (running, address) = start_watched(&line);
    let page = page_with(&address, "✓ errors ≤ 0.1 %");
    assert!(page.contains("✓ p99 ≤ 10.00 s"), "{page}");
    assert!(!page.contains("rate ≥"), "{page}");
    drop(running);
}

#[test]
fn the_generator_measures_itself() {
    let output = kvpoc("bench --self-test --duration 6s --connections 64 --json -");
    let found = json(&stdout(&output));
    // Whether this machine is quiet enough for 2 % is not for a test to say; a generator that waited for its
    // answers would be off by far more than half.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{found}");
    let row = &found["accuracy"]["percentiles"][1];
    assert_eq!(row["percentile"], "p99.9");
    let us = |name: &str| row[name].as_f64().expect("a number");
    assert!(us("measured_us") > us("implied_us") / 2.0, "{found}");
    // A ceiling is named with the next rate above it, no further than 2 %.
    let of = |name: &str| found["ceiling"][name].as_f64();
    if let (Some(reached), Some(next)) = (of("reached_rps"), of("not_reached_rps")) {
        assert!(next > reached && next / reached <= 1.02, "{found}");
    }
}

#[test]
fn results_of_an_earlier_run_stay_until_there_are_others() {
    let address = stub::start(Mode::Constant(0.0));
    let (earlier, folder) = passing(&format!("--target http://{address}/x/{{id}} --keys 10"));
    let (out, nobody) = (folder.path().display(), free_port());
    let line = format!("bench {LOAD} --target http://127.0.0.1:{nobody}/{{id}} --keys 1");
    expect_code(&format!("{line} --out {out} --json {out}/report.json"), 69);
    assert_eq!(json_file(&folder.path().join("report.json")), earlier);
}

#[test]
fn nothing_is_left_of_a_folder_that_cannot_be_made() {
    let output = kvpoc("bench --out /proc/nowhere --target http://127.0.0.1:1/{id} --keys 1");
    assert_eq!(output.status.code(), Some(69));
    assert!(
        stderr(&output).contains("cannot write to --out"),
        "{}",
        stderr(&output)
    );
    assert!(!Path::new("/proc/nowhere").exists());
}
