//! The same load several times, and the runs of two sides against each other.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use crate::stub::{self, Mode};
use crate::support::{
    Serve, Store, assert_balanced, expect_code, json, json_file, kvpoc, seed, start_until, stderr,
};

/// A short run that no machine is too slow for.
const RUN: &str =
    "--rps 50 --duration 1s --warmup 0s --connections 16 --max-lag 10s --slo p99=none,rate=none";

fn target(mode: Mode) -> String {
    format!("--target http://{}/x/{{id}}", stub::start(mode))
}

/// So many runs against a target, in a file.
fn study(folder: &Path, name: &str, runs: u32, answers: Mode, more: &str) -> PathBuf {
    let file = folder.join(name);
    let line = format!(
        "bench --repeat {runs} --pause 0s {RUN} {} {more}",
        target(answers)
    );
    expect_code(&format!("{line} --json {}", file.display()), 0);
    file
}

fn runs(study: &Value) -> &Vec<Value> {
    study["runs"].as_array().expect("runs")
}

#[test]
fn a_load_is_run_several_times_and_its_medians_have_intervals() {
    let load = format!(
        "{RUN} --keys 10 {}",
        target(Mode::Noisy(0.003, 0.3, 0.05, 1))
    );
    let study = json(&expect_code(
        &format!("bench --repeat 3 --pause 0s {load} --json -"),
        0,
    ));
    assert_eq!(study["verdict"], "PASS", "{study}");
    assert_eq!(study["interrupted"], false);
    assert_eq!(runs(&study).len(), 3);
    for run in runs(&study) {
        assert_balanced(run);
        assert_eq!(run["schema"], 2);
    }
    let summary = &study["repeat"];
    assert_eq!(
        (&summary["runs"], &summary["asked"]),
        (&3.into(), &3.into())
    );
    // Three runs say no more than that.
    assert_eq!(summary["confidence"], 0.75);
    for figure in [
        "p50_us",
        "p90_us",
        "p99_us",
        "p999_us",
        "mean_us",
        "achieved_rps",
        "failed_share",
        "cpu_us_per_request",
    ] {
        let number = |path: &str| summary["figures"][figure].pointer(path)?.as_f64();
        let all = ["/min", "/interval/0", "/median", "/interval/1", "/max"].map(number);
        assert!(all.is_sorted() && all[0].is_some(), "{figure}: {study}");
    }
}

#[test]
fn the_worst_run_decides_and_one_that_says_nothing_ends_the_study() {
    for (mode, more, verdict, code, made) in [
        (Mode::Errors(2), "", "TARGET_MISSED", 1, 3),
        (Mode::Constant(0.0), "--match nothing", "INVALID", 3, 1),
    ] {
        let load = format!("{RUN} --keys 10 {} {more}", target(mode));
        let line = format!("bench --repeat 3 --pause 0s {load} --json -");
        let study = json(&expect_code(&line, code));
        assert_eq!(study["verdict"], verdict, "{study}");
        assert_eq!(runs(&study).len(), made, "{study}");
        let reason = study["reason"].as_str().expect("a reason");
        assert!(reason.starts_with("run 1 of "), "{reason}");
    }
}

#[test]
fn a_study_that_is_stopped_keeps_the_runs_that_were_finished() {
    let load = format!("{RUN} --keys 10 {}", target(Mode::Constant(0.001)));
    let line = format!("bench --repeat 100 --pause 0s {load} --json -");
    let (mut running, _) = start_until(&line, "Run 2 of 100");
    running.signal(Signal::INT);
    let study = json(&running.output());
    assert_eq!(running.ended(), Some(130), "{study}");
    assert_eq!(study["interrupted"], true);
    let made = runs(&study).len();
    assert!((2..100).contains(&made), "{made}");
    assert_eq!(study["repeat"]["runs"], made);
    assert_eq!(study["verdict"], "PASS", "{study}");
}

#[test]
fn each_run_has_books_of_its_own() {
    let store = &Store::all()[0];
    seed(&store.url(), 500, "");
    let serve = Serve::start(&store.url(), "");
    let load = RUN.replace("--slo p99=none,rate=none", "--slo p99=none");
    let line = format!(
        "bench --repeat 2 --pause 0s {load} --target {}",
        serve.url()
    );
    let study = json(&expect_code(&format!("{line} --json -"), 0));
    for run in runs(&study) {
        let books = &run["reconciliation"];
        assert_eq!(books["keys_asked"], 750, "{books}");
        assert_eq!(books["others_at_work"], false, "{books}");
    }
}

#[test]
fn a_slower_side_is_worse_and_fails_the_bound_that_it_breaks() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = study(
        folder.path(),
        "a.json",
        5,
        Mode::Constant(0.01),
        "--keys 10",
    );
    let other = study(folder.path(), "b.json", 5, Mode::Constant(0.2), "--keys 10");
    let (fast, slow) = (one.display(), other.display());
    let bound = "--fail-on p50=+50%";
    let line = format!("bench --compare {slow} --against {fast} {bound}");
    let found = json(&expect_code(&format!("{line} --json -"), 4));
    assert_eq!(found["change"], "worse", "{found}");
    let p50 = &found["figures"]["p50_us"];
    assert_eq!(p50["change"], "worse", "{found}");
    assert!(p50["ratio"].as_f64().expect("a ratio") > 2.0, "{found}");
    assert!(
        p50["interval"][0].as_f64().expect("an end") > 1.5,
        "{found}"
    );
    assert_eq!(found["fail_on"][0]["failed"], true, "{found}");
    let text = expect_code(&line, 4);
    assert!(
        text.contains("--fail-on p50=+50%: FAILED: p50 is"),
        "{text}"
    );
    assert!(text.contains("differs: target:"), "{text}");
    // The other way round it is better, and a bound that is far away is kept.
    let text = expect_code(
        &format!("bench --compare {fast} --against {slow} {bound}"),
        0,
    );
    assert!(text.contains("Better: latency p50"), "{text}");
    let errors = "--fail-on errors=+1%";
    let text = expect_code(
        &format!("bench --compare {slow} --against {fast} {errors}"),
        0,
    );
    assert!(text.contains("errors=+1%: kept"), "{text}");
}

#[test]
fn too_few_runs_give_ratios_and_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = study(
        folder.path(),
        "a.json",
        2,
        Mode::Constant(0.002),
        "--keys 10",
    );
    // A single run counts as one.
    let single = folder.path().join("b.json");
    let load = format!("{RUN} --keys 10 {}", target(Mode::Constant(0.03)));
    expect_code(&format!("bench {load} --json {}", single.display()), 0);
    let line = format!(
        "bench --compare {} --against {}",
        single.display(),
        one.display()
    );
    let text = expect_code(&line, 0);
    let expected = "Too few runs to tell: make 3 more for --compare and 2 more for --against";
    assert!(text.contains(expected), "{text}");
    let found = json(&expect_code(&format!("{line} --json -"), 0));
    let p50 = &found["figures"]["p50_us"];
    assert_eq!(p50["change"], "too_few_runs", "{found}");
    assert!(p50["ratio"].as_f64().expect("a ratio") > 2.0, "{found}");
    // A bound that could not fail would pass for one that was kept.
    let output = kvpoc(&format!("{line} --fail-on p50=+10%"));
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("4 runs a side"), "{output:?}");
}

#[test]
fn runs_of_other_loads_are_not_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    let mode = Mode::Constant(0.0);
    let one = study(folder.path(), "a.json", 2, mode, "--keys 10");
    let other = study(folder.path(), "b.json", 2, mode, "--keys 20");
    let (one, other) = (one.display(), other.display());
    let stranger = folder.path().join("x.json");
    let invalid = folder.path().join("y.json");
    std::fs::write(&stranger, r#"{"study":"sweep","tries":[]}"#).expect("it is written");
    let mut runs = json_file(&folder.path().join("a.json"));
    runs["runs"][1]["verdict"] = "INVALID".into();
    std::fs::write(&invalid, runs.to_string()).expect("it is written");
    for (line, expected) in [
        (
            format!("--compare {one} --against {other}"),
            "keys is 20 in".to_owned(),
        ),
        (
            format!("--compare {one} {one} --against {other}"),
            "it is there twice".into(),
        ),
        (
            format!("--compare {one} --against {}", stranger.display()),
            "it is the study \"sweep\"".into(),
        ),
        (
            format!("--compare {one} --against {}", invalid.display()),
            "run 2 of 2: it is INVALID".into(),
        ),
        (
            format!("--compare {one} --against {}/none", folder.path().display()),
            "cannot use --against".into(),
        ),
    ] {
        let output = kvpoc(&format!("bench {line}"));
        assert_eq!(output.status.code(), Some(69), "{line}");
        let text = stderr(&output);
        assert!(text.contains(&expected), "{line}: {text}");
    }
}

#[test]
fn a_run_says_when_its_target_became_slower() {
    for (mode, found, says) in [
        (
            Mode::Step(0.02, 0.2, 9.0),
            true,
            "from the first third to the last, beyond chance",
        ),
        (Mode::Constant(0.02), false, "none beyond chance"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.json");
        let load = RUN.replace("--duration 1s", "--duration 18s");
        let line = format!(
            "bench {load} --keys 10 {} --json {}",
            target(mode),
            file.display()
        );
        let text = expect_code(&line, 0);
        assert!(text.contains(says), "{text}");
        let drift = &json_file(&file)["drift"];
        assert_eq!(drift["found"], found, "{drift}");
        assert_eq!(drift["seconds"], 6, "{drift}");
        let at = |figure: &str, third: &str| drift[figure][third].as_f64().expect("a time");
        assert!(
            !found || at("p50", "last_us") > 5.0 * at("p50", "first_us"),
            "{drift}"
        );
    }
}
