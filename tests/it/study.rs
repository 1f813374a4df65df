//! Several runs that answer a question together: the highest rate, a sweep, both layers, an early end.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::stub::{self, Mode};
use crate::support::{
    Serve, Store, assert_balanced, expect_code, json, json_file, kvpoc, seed, start_until, stderr,
    stdout,
};

/// A try of a second; whatever the machine does, the generator is not to blame.
const TRY: &str = "--duration 1s --warmup 0s --connections 64 --max-lag 10s --keys 10";

/// A template of a target whose answers are known.
fn target(mode: Mode) -> String {
    format!("http://{}/x/{{id}}", stub::start(mode))
}

fn rates(study: &Value) -> Vec<f64> {
    let tries = study["tries"].as_array().expect("tries");
    let rate = |one: &Value| one["rate_rps"].as_f64().expect("a rate");
    tries.iter().map(rate).collect()
}

fn assert_written(folder: &Path, name: &str, study: &Value) {
    assert_eq!(&json_file(&folder.join(format!("{name}.json"))), study);
    let read = |ending: &str| {
        let file = folder.join(format!("{name}.{ending}"));
        std::fs::read_to_string(file).expect("the file was written")
    };
    assert_eq!(read("csv").lines().count(), rates(study).len() + 1);
    let page = read("html");
    assert!(
        page.contains("<polyline") && page.contains("</html>"),
        "{page}"
    );
}

#[test]
fn the_highest_rate_comes_with_an_interval_and_all_tries() {
    let url = target(Mode::Queue(0.005));
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().display();
    let load = format!("{TRY} --rps 100 --slo p99=100ms --target {url}");
    let output = kvpoc(&format!("bench --find-max {load} --json - --out {out}"));
    let study = json(&stdout(&output));
    assert_eq!(output.status.code(), Some(0), "{study}");
    let highest = study["highest_passing_rps"].as_f64().expect("a rate");
    // It answers 200 a second, and what a second of a little more leaves waiting is below the bound.
    assert!((50.0..=230.0).contains(&highest), "{study}");
    let bound = |end: usize| study["interval_rps"][end].as_f64().expect("a bound");
    assert!(bound(0) <= highest && highest <= bound(1), "{study}");
    assert_eq!(study["ended_by"], "target");
    assert!(
        rates(&study)
            .iter()
            .filter(|&&rate| rate >= highest)
            .count()
            >= 2
    );
    assert_written(folder.path(), "find-max", &study);
}

#[test]
fn a_sweep_runs_at_each_rate_and_goes_on_after_one_that_fails() {
    let url = target(Mode::Queue(0.005));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("s.json");
    let out = folder.path().display();
    let load = format!("{TRY} --slo p99=100ms --target {url}");
    let files = format!("--json {} --out {out}", file.display());
    let text = expect_code(&format!("bench --sweep 50,500..700/200 {load} {files}"), 0);
    let study = json_file(&file);
    assert!(
        text.contains("TARGET_MISSED") && text.contains("requests/s"),
        "{text}"
    );
    assert_eq!(rates(&study), [50.0, 500.0, 700.0]);
    assert_written(folder.path(), "sweep", &study);
}

#[test]
fn a_study_that_is_stopped_by_hand_keeps_what_it_found() {
    let url = target(Mode::Constant(0.001));
    for mode in ["--find-max --rps 50", "--sweep 50..5000/50"] {
        let load = format!("{TRY} --target {url}");
        let line = format!("bench {mode} {load} --json -");
        let (mut running, _) = start_until(&line, " requests/s  ");
        running.signal(Signal::INT);
        let study = json(&running.output());
        assert_eq!(running.ended(), Some(130), "{study}");
        assert_eq!(study["interrupted"], true);
        assert!(!rates(&study).is_empty(), "{study}");
    }
}

#[test]
fn a_run_that_cannot_pass_any_more_ends_early_and_its_books_balance() {
    let url = target(Mode::Constant(0.01));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bench.json");
    let load = "--rps 200 --duration 1h --warmup 0s --max-lag 10s --keys 10 --slo max=1ms,p99=none";
    let line = format!(
        "bench --abort {load} --target {url} --json {}",
        file.display()
    );
    expect_code(&line, 1);
    let results = json_file(&file);
    assert_balanced(&results);
    assert_eq!(results["verdict"], "TARGET_MISSED", "{results}");
    let why = results["evidence"]["ended_early"]
        .as_str()
        .expect("a reason");
    assert!(why.contains("max ≤ 1.00 ms cannot hold"), "{why}");
    // All that was sent was waited for.
    assert_eq!(results["requests"]["unsent"], 0, "{results}");
    assert_eq!(results["requests"]["in_flight"], 0, "{results}");
}

#[test]
fn layers_refuse_another_dataset_than_the_targets() {
    let [one, other] = [Store::all(), Store::all()].map(|[server, _]| server);
    seed(&one.url(), 500, "");
    seed(&other.url(), 500, "--seed 2");
    let serve = Serve::start(&one.url(), "");
    let line = format!("bench --layers {TRY} --rps 50 --target {}", serve.url());
    let output = kvpoc(&format!("{line} --store {}", other.url()));
    assert_eq!(output.status.code(), Some(69));
    let text = stderr(&output);
    assert!(text.contains("needs the store behind the target"), "{text}");
}

#[test]
fn layers_write_their_json() {
    let store = &Store::all()[0];
    seed(&store.url(), 500, "");
    let serve = Serve::start(&store.url(), "");
    let line = format!("bench --layers {TRY} --rps 50 --target {}", serve.url());
    let found = json(&expect_code(
        &format!("{line} --store {} --json -", store.url()),
        0,
    ));
    for side in ["store", "target"] {
        assert_eq!(found[side]["rate_rps"], 50.0, "{found}");
        assert_eq!(found[side]["verdict"], "PASS", "{found}");
    }
    assert!(found["added_us"]["p99"].is_i64(), "{found}");
}

#[test]
fn a_constant_bias_is_no_accuracy() {
    let output =
        kvpoc("bench --self-test --duration 6s --rps 500 --tick 8ms --max-lag 1s --json -");
    let found = json(&stdout(&output));
    assert_eq!(output.status.code(), Some(1), "{found}");
    assert_eq!(found["accuracy"]["accurate"], false, "{found}");
    let median = &found["accuracy"]["percentiles"][0];
    assert_eq!(median["percentile"], "p50");
    assert_eq!(median["accurate"], false, "{found}");
    assert_eq!(found["accuracy"]["rate_rps"], 500.0);
}
