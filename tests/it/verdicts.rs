//! Verdicts on targets whose right answer is known, and on generators that are disturbed.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::stub::{self, Mode};
use crate::support::{assert_balanced, json, json_file, start_until, stdout};

/// Runs a load against a template target, and gives the exit code and the results.
fn bench(mode: Mode, load: &str) -> (i32, Value) {
    let address = stub::start(mode);
    of(&format!(
        "--target http://{address}/x/{{id}} --keys 1000 {load}"
    ))
}

fn of(load: &str) -> (i32, Value) {
    // Lag on a busy machine is not what these tests are about.
    let line = format!("bench --json - --max-lag 10s {load}");
    let output = crate::support::kvpoc(&line);
    let results = json(&stdout(&output));
    assert_balanced(&results);
    (output.status.code().expect("a code"), results)
}

fn expect(found: &(i32, Value), verdict: &str, reason: &str) {
    let (_, results) = found;
    let text = results["reason"].as_str().expect("text");
    assert_eq!(results["verdict"], verdict, "{text}");
    assert!(text.contains(reason), "{text}: {}", results["requests"]);
}

#[test]
fn healthy_targets_pass_whatever_their_latency() {
    for mode in [
        Mode::Exponential(0.05),
        Mode::Constant(0.3),
        Mode::Lognormal(0.02, 1.0),
        Mode::Bimodal(0.005),
        Mode::Queue(0.002),
        Mode::Step(0.01, 0.2, 1.0),
    ] {
        let load = "--rps 300 --duration 2s --warmup 500ms --connections 500 --slo p99=none";
        let found = bench(mode, load);
        expect(&found, "PASS", "no latency objective");
        assert_eq!(found.0, 0, "{mode:?}");
    }
}

#[test]
fn a_target_that_is_offered_more_than_it_can_do_is_missed_for_its_rate() {
    let load = "--rps 800 --duration 3s --warmup 0s --connections 4000 --timeout 20s --drain 10s --slo p99=none";
    for mode in [Mode::Queue(0.0025), Mode::Newest(0.0025)] {
        let found = bench(mode, load);
        expect(&found, "TARGET_MISSED", "of 800 requests/s answered since");
        let achieved = found.1["rate"]["achieved_rps"].as_f64().expect("a rate");
        assert!((380.0..=404.0).contains(&achieved), "{mode:?}: {achieved}");
    }
}

#[test]
fn each_stage_is_judged_by_itself_and_the_worst_one_decides() {
    let load = "--stages 100:1s,1500:1s,100:4s --warmup 0s --connections 1500 --slo p99=none";
    let found = bench(Mode::Queue(0.002), load);
    expect(&found, "TARGET_MISSED", "stage 2: ");
    assert_eq!(found.1["objectives"][0]["stage"], 2);
    let stages = found.1["stages"].as_array().expect("stages");
    let scheduled: Vec<_> = stages
        .iter()
        .map(|one| &one["requests"]["scheduled"])
        .collect();
    assert_eq!(scheduled, [100, 1_500, 400]);
}

#[test]
fn errors_count_in_one_criterion() {
    let load = "--rps 400 --duration 2s --warmup 0s";
    expect(
        &bench(Mode::Errors(200), &format!("{load} --slo errors=1%")),
        "PASS",
        "errors",
    );
    let found = bench(Mode::Errors(200), load);
    expect(
        &found,
        "TARGET_MISSED",
        "0.50 % of the requests failed: 4 errors",
    );
    assert_eq!(
        found.1["objectives"][0]["met"], true,
        "{}",
        found.1["objectives"]
    );
}

#[test]
fn refusals_are_no_rate_when_no_objective_bounds_them() {
    let load = "--rps 200 --duration 1s --warmup 0s --slo p99=none";
    let found = bench(Mode::Errors(1), &format!("{load},errors=none"));
    let reason = "0.00 % of the requests were answered correctly: 0 of 200";
    expect(&found, "TARGET_MISSED", reason);
    assert_eq!(found.0, 1);
    let passed = bench(Mode::Constant(0.0), &format!("{load},errors=none"));
    expect(&passed, "PASS", "no errors objective");
}

#[test]
fn a_quantile_is_one_value_in_the_table_and_in_the_verdict() {
    let load = "--rps 1000 --duration 2s --warmup 0s --slo p99=none,p99.9=150ms";
    // Two of 2,000 are slow: the 1,998th is not.
    let found = bench(Mode::Every(1_000, 0.2), load);
    let measured = &found.1["objectives"][2]["measured"]["latency"];
    assert_eq!(measured["us"], found.1["latency_us"]["p999"]);
    assert_eq!(measured["samples_beyond"], 2);
    assert_eq!(measured["resolved"], false);
    assert!(measured["us"].as_u64() < Some(150_000), "{measured}");
}

#[test]
fn a_latency_objective_is_there_unless_it_is_dropped_or_the_service_is_another() {
    let store = tempfile::tempdir().expect("a folder");
    let store = format!("embedded:{}", store.path().display());
    crate::support::seed(&store, 100, "");
    let serve = crate::support::Serve::start(&store, "");
    let load = "--rps 100 --duration 1s --warmup 0s";
    let own = |more: &str| of(&format!("--target {} {load} {more}", serve.url()));
    expect(&own(""), "PASS", "p99 ≤ 100.00 ms (");
    expect(&own("--slo p99=none"), "PASS", "no latency objective");
    let slow = Mode::Constant(0.15);
    expect(&bench(slow, load), "PASS", "no latency objective");
    let bounded = bench(slow, &format!("{load} --slo p99=100ms"));
    expect(&bounded, "TARGET_MISSED", "p99 ≤ 100.00 ms missed: ");
}

#[test]
fn too_few_connections_are_named_as_the_limit_with_the_number_that_would_do() {
    let load = "--rps 400 --duration 2s --warmup 0s";
    // Enough answers have room at first for it to be known.
    let found = bench(
        Mode::Constant(0.01),
        "--stages 20:1s,400:2s --warmup 0s --connections 2",
    );
    expect(
        &found,
        "GENERATOR_LIMITED",
        "too few connections; the target was as fast",
    );
    let text = found.1["reason"].as_str().expect("text");
    let enough = text.rsplit("--connections ").next().expect("a number");
    expect(
        &bench(
            Mode::Constant(0.01),
            &format!("{load} --connections {enough}"),
        ),
        "PASS",
        "",
    );
    // A queue is slower, the more connections there are: more of them are of no use.
    let found = bench(
        Mode::Queue(0.005),
        &format!("{load} --connections 40 --slo p99=none"),
    );
    expect(&found, "TARGET_MISSED", "answered since");
}

#[test]
fn a_target_that_is_gone_is_missed_and_its_pool_is_not_too_small() {
    // Both connections were busy for most of the time before it left, and as fast as with room.
    // The two requests that it took with it are too few to decide: those that were never sent do.
    let load = "--stages 20:1s,90:4s --warmup 0s --connections 2 --timeout 500ms --slo errors=1%";
    let (code, results) = bench(Mode::Leaves(0.02, 2.0), load);
    let reason = results["reason"].as_str().expect("text");
    assert_eq!(
        (code, &results["verdict"]),
        (1, &Value::from("TARGET_MISSED")),
        "{reason}"
    );
}

#[test]
fn answers_without_what_was_asked_for_are_never_believed() {
    const EMPTY: &str = "[{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}]";
    for (body, verify) in [(EMPTY, "1"), (EMPTY, "0.01"), ("[1]", "0"), ("[]", "0")] {
        let address = stub::start(Mode::Body(body));
        let load = format!(
            "--target http://{address} --rps 300 --duration 1s --warmup 0s --verify {verify}"
        );
        expect(
            &of(&load),
            "INVALID",
            "answers did not match their requests",
        );
    }
}

#[test]
fn a_store_whose_counters_are_gone_or_run_backwards_proves_nothing() {
    for (mode, expected) in [
        (
            Mode::NoCounters,
            "key_reads was 5 before the run and is missing after it",
        ),
        (
            Mode::ResetCounters,
            "key_reads was 5 before the run and is 1 after it",
        ),
    ] {
        // Each has its own, whose counters are there at first.
        let load = || {
            let address = stub::start(mode);
            format!(
                "--target http://{address} --rps 200 --duration 1s --warmup 0s --verify 0 --slo p99=none"
            )
        };
        let found = of(&load());
        expect(&found, "INVALID", expected);
        assert_eq!(found.0, 3);
        let lost = &found.1["lost_counter"];
        assert_eq!(
            (&lost["name"], &lost["before"]),
            (&"key_reads".into(), &5.into())
        );
        assert!(found.1["reconciliation"].is_null());
        let text = stdout(&crate::support::kvpoc(&format!(
            "bench --max-lag 10s {}",
            load()
        )));
        assert!(
            text.contains(&format!("Store's counters  {expected}")),
            "{text}"
        );
    }
}

#[test]
fn a_short_run_compares_its_first_answers_with_their_records() {
    let store = tempfile::tempdir().expect("a folder");
    let store = format!("embedded:{}", store.path().display());
    crate::support::seed(&store, 100, "");
    let serve = crate::support::Serve::start(&store, "");
    let load = format!(
        "--target {} --rps 150 --duration 1s --warmup 1s --slo p99=none",
        serve.url()
    );
    // Arrivals are numbered from the start of the warm-up.
    for (more, warmup, measured) in [
        ("", 100, 0),
        ("--verify 0", 0, 0),
        ("--verify 1 --workload single", 150, 150),
    ] {
        let found = of(&format!("{load} {more}"));
        expect(&found, "PASS", "");
        let compared = |part: &str| found.1[part]["compared"].as_u64().expect("a count");
        assert_eq!(compared("warmup").min(warmup), warmup, "{more}");
        assert!(
            compared("warmup") <= warmup + 10 && compared("requests") <= measured + 10,
            "{more}"
        );
        assert_eq!(compared("requests").min(measured), measured, "{more}");
    }
    let text = stdout(&crate::support::kvpoc(&format!(
        "bench --max-lag 10s {load} --verify 1"
    )));
    assert!(
        text.contains("Compared          300 answers checked against their records"),
        "{text}"
    );
    // Right ids with nothing else are found out at once, however small the sample.
    let ids = stub::start(Mode::Ids);
    let load = format!("--target http://{ids} --rps 50 --duration 1s --warmup 0s --verify 0.0001");
    expect(
        &of(&load),
        "INVALID",
        "50 answers did not match their requests",
    );
}

/// Starts a load, stops the generator for a while once its measured part has begun, and gives its results.
fn stalled(mode: Mode, load: &str, length: Duration) -> Value {
    stalled_after(Duration::ZERO, mode, load, length)
}

/// The same, so long after it has begun.
fn stalled_after(wait: Duration, mode: Mode, load: &str, length: Duration) -> Value {
    let address = stub::start(mode);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bench.json");
    let line = format!(
        "bench --target http://{address}/x/{{id}} --keys 1000 --warmup 0s --json {} {load}",
        file.display()
    );
    let (mut running, _) = start_until(&line, "requests  ");
    std::thread::sleep(wait);
    running.signal(Signal::STOP);
    std::thread::sleep(length);
    running.signal(Signal::CONT);
    running.ended();
    let results = json_file(&file);
    assert_balanced(&results);
    results
}

#[test]
fn a_stalled_generator_is_not_the_targets_fault() {
    let load = "--rps 500 --duration 4s --slo p99.9=50ms --max-lag 5s";
    let results = stalled(Mode::Constant(0.0), load, Duration::from_millis(150));
    expect(
        &(2, results),
        "GENERATOR_LIMITED",
        "without the generator's delay",
    );
}

#[test]
fn a_stall_that_is_longer_than_the_timeout_makes_no_errors() {
    // What came due meanwhile is more than the connections carry at once: it waits, but not since it was due.
    let load =
        "--rps 100 --duration 6s --connections 8 --timeout 2s --slo rate=0%,p99=none --max-lag 10s";
    let results = stalled(Mode::Constant(0.01), load, Duration::from_secs(3));
    assert!(
        results["lag_us"]["max"].as_u64() > Some(2_500_000),
        "{results}"
    );
    assert_eq!(results["requests"]["ok"], 600, "{}", results["reason"]);
    assert_eq!(results["verdict"], "PASS", "{}", results["reason"]);
    // It comes all at once, and takes longer than the timeout to work off.
    let load = "--rps 300 --duration 8s --timeout 1s --slo rate=0%,p99=none --max-lag 10s";
    let results = stalled(Mode::Queue(0.002), load, Duration::from_secs(3));
    assert_eq!(results["requests"]["unsent"], 0, "{}", results["requests"]);
    // The answers to what was sent before are here, and so many that it takes a while to take them.
    let load = "--rps 1000 --duration 6s --connections 4000 --timeout 2s --slo rate=0%,p99=none --max-lag 10s";
    let results = stalled(Mode::Constant(0.5), load, Duration::from_secs(3));
    assert_eq!(
        results["requests"]["timeouts"], 0,
        "{}",
        results["requests"]
    );
}

#[test]
fn a_stall_in_the_drain_hides_no_answer_that_came_in_it() {
    let load =
        "--rps 50 --duration 1s --timeout 20s --drain 3s --slo rate=0%,p99=none --max-lag 10s";
    // The first second is over when it is stopped, and the answers are due at the end of the third.
    let wait = Duration::from_millis(500);
    let results = stalled_after(wait, Mode::Constant(2.0), load, Duration::from_secs(4));
    assert_eq!(results["requests"]["ok"], 50, "{}", results["requests"]);
}

#[test]
fn a_saturated_target_is_never_faster_than_its_connections_for_certain() {
    let serial = "--rps 200 --duration 3s --warmup 500ms --slo p99=none";
    for load in [
        format!("{serial} --connections 1"),
        format!("{serial} --connections 2"),
        format!("{serial} --connections 4 --threads 4"),
        format!("{serial} --connections 8"),
    ] {
        let (_, results) = bench(Mode::Queue(0.01), &load);
        let text = results["reason"].as_str().expect("text");
        assert_ne!(results["verdict"], "PASS", "{load}: {text}");
        assert!(!text.contains("too few connections;"), "{load}: {text}");
    }
    // Enough answers had room for it to be known.
    let load = "--stages 20:4s,400:2s --warmup 0s --connections 2 --slo p99=none";
    expect(&bench(Mode::Queue(0.01), load), "TARGET_MISSED", "stage 2");
}

#[test]
fn a_target_that_stands_still_is_missed_and_its_average_does_not_hide_it() {
    // All answers come in the end; only a latency objective, or a silence, can tell.
    let load = "--rps 300 --duration 5s --warmup 0s --slo p99=none --connections 1000";
    let found = bench(Mode::Pause(2.0, 1.5), load);
    assert_eq!(found.1["requests"]["ok"], 1_500);
    expect(&found, "TARGET_MISSED", " from second ");
    expect(&found, "TARGET_MISSED", "answer");
    expect(&bench(Mode::Pause(2.0, 0.3), load), "PASS", "");
}
