//! Shards as one run, and what is refused.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::bench::judge::flow::{Flow, Outline};
use crate::bench::judge::interval::Tallies;
use crate::bench::judge::ledger::{Cause, Outcome};
use crate::bench::judge::results::Bounds;
use crate::bench::judge::tally::Ending;
use crate::bench::plan::Arrival;
use crate::bench::plan::schedule::Schedule;
use crate::bench::plan::workload::Work;
use crate::load::{Arrivals, Stages};
use crate::objectives::Objectives;

fn conditions(shard: Shard) -> Conditions {
    serde_json::from_value(serde_json::json!({
        "version": "1", "commit": "c", "cpu_count": 2, "target": "http://t", "shard": shard.to_string(),
        "generators": 1, "started_at": "2026-11-24T12:00:00Z", "duration_s": 1.0, "warmup_s": 0.5,
        "stages": "1000:1s", "arrivals": "constant", "preset": "session", "workload": "batch", "keys_dist": "uniform",
        "verify": 0.01, "keys": 10, "keys_per_request": 15, "connections": 4, "threads": 1, "tick_us": 100,
        "timeout_s": 5.0, "seed": 1
    }))
    .expect("conditions")
}

/// What a shard of a run makes of latencies that depend on the number of the arrival alone.
fn part(shard: Shard, schedule: &Schedule, latencies_us: &[u64]) -> Part {
    let schedule = Arc::new(schedule.clone().of_shard(shard));
    let (mut tallies, mut flow) = (Tallies::default(), Flow::new(outline()));
    for due in schedule.thread((0, 1)) {
        let latency_us = latencies_us[due.number as usize % latencies_us.len()];
        let arrival = Arrival {
            number: due.number,
            due_ns: due.at_ns,
            taken_ns: due.at_ns,
            stage: schedule.stage_at(due.at_ns),
            ..Arrival::default()
        };
        let work = Work {
            hits: 15,
            misses: 0,
            written: 0,
            repeated: 0,
            commands: 1,
            compared: 0,
        };
        let outcome = if latency_us.is_multiple_of(7) {
            Outcome::Error(Cause::Status(503))
        } else {
            Outcome::Ok(work)
        };
        let done_ns = due.at_ns + latency_us * 1_000;
        let ending = Ending {
            sent_ns: due.at_ns,
            received_ns: done_ns,
            done_ns,
        };
        let tally = tallies.of(&arrival);
        tally.ledger.scheduled += 1;
        tally.taken_up(&arrival);
        tally.sent(&arrival, due.at_ns);
        tally.ended(&arrival, ending, outcome);
        flow.taken_up(&arrival);
        flow.ended(&arrival, ending, true);
    }
    Part {
        drain_s: 0.1,
        failed_connects: BTreeMap::new(),
        malformed_answers: BTreeMap::new(),
        tls_handshakes: None,
        resent: 0,
        generator: Generator::default(),
        reconciliation: None,
        lost_counter: None,
        conditions: conditions(shard),
        evidence: Evidence {
            started_at_ms: 1_000_000,
            scheduled_s: 1.0,
            interrupted: false,
            ended_early: None,
            objectives: Bounds {
                objectives: Objectives::default(),
                max_miss: 0.0,
                max_lag_us: 5_000,
            },
            generators: shard.count,
            lag_p99_us: 0,
            start_by_target: None,
            tallies,
            flow,
        },
    }
}

fn outline() -> Outline {
    let stages = "1000:1s".parse().expect("stages");
    Outline::new(Duration::from_millis(500), &stages)
}

fn schedule(rate: f64) -> Schedule {
    let stages = Stages::steady(
        rate.to_string().parse().expect("a rate"),
        Duration::from_secs(1),
    );
    Schedule::new(&stages, Duration::from_millis(500), Arrivals::Constant, 1)
}

fn shards(count: u64, latencies_us: &[u64]) -> Vec<Part> {
    let schedule = schedule(1_000.0);
    (0..count)
        .map(|index| part(Shard { index, count }, &schedule, latencies_us))
        .collect()
}

/// As it is written to a file and read again.
fn through_json(part: Part) -> Part {
    let results = Results {
        drain_s: part.drain_s,
        ..results(
            part.evidence,
            part.generator,
            part.conditions,
            Books::Untold,
        )
    };
    parse(&serde_json::to_string(&results).expect("JSON")).expect("a part")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn merged_shards_are_the_one_big_run_to_the_bucket(
        latencies_us in proptest::collection::vec(1_u64..100_000_000, 1..300), count in 1_u64..9,
    ) {
        let whole = part(Shard::WHOLE, &schedule(1_000.0), &latencies_us);
        let merged = merge(shards(count, &latencies_us).into_iter().map(through_json).collect());
        let merged = merged.expect("one run");
        prop_assert!(merged.evidence.tallies == whole.evidence.tallies);
        prop_assert!(merged.evidence.flow == whole.evidence.flow);
        let whole = results(whole.evidence, whole.generator, whole.conditions, Books::Untold);
        prop_assert_eq!(&merged.reason, &whole.reason);
        let comparable = |results: &Results| {
            let rate = serde_json::to_value(&results.rate).expect("JSON");
            let latency = serde_json::to_value(&results.latency_us).expect("JSON");
            (results.verdict, rate, latency, results.requests.ledger)
        };
        prop_assert_eq!(comparable(&merged), comparable(&whole));
    }
}

#[test]
fn what_does_not_belong_together_is_not_added_up() {
    let latencies_us = [100, 200, 300];
    let refusal = |change: fn(&mut Vec<Part>)| {
        let mut parts = shards(3, &latencies_us);
        change(&mut parts);
        merge(parts).map(|results| results.reason)
    };
    for (change, expected) in [
        (
            (|parts| drop(parts.pop())) as fn(&mut Vec<Part>),
            "got 2 results",
        ),
        (|parts| parts[1].conditions.shard = "0/3".into(), "twice"),
        (|parts| parts[1].conditions.shard = "3/3".into(), "from 0"),
        (|parts| parts[2].conditions.seed = 2, "seed is 1"),
        (
            |parts| parts[2].conditions.stages = "5:1s".into(),
            "stages is",
        ),
        (
            |parts| parts[2].conditions.target = "store".into(),
            "one generator drove the store",
        ),
        (
            |parts| parts[2].conditions.method = Some("POST".into()),
            "method is null for one generator and \"POST\" for another",
        ),
        (
            |parts| parts[1].conditions.expect = Some("2xx".into()),
            "expect is",
        ),
        (
            |parts| parts[2].conditions.generators = 3,
            "already a merged result",
        ),
        (|parts| parts[2].evidence.objectives.max_miss = 0.5, "--slo"),
        (Vec::clear, "no result to merge"),
    ] {
        let error = refusal(change).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let late = refusal(|parts| parts[0].evidence.started_at_ms += 1_200);
    assert!(late.expect("results").contains("began 1.2 s after"));
    let skewed = refusal(|parts| {
        for (part, date_s) in parts.iter_mut().zip([1_000, 1_000, 1_010]) {
            part.evidence.start_by_target = Some(StartByTarget::of(date_s, 0, 1));
        }
    });
    assert!(skewed.expect("results").contains("at least 9.0 s after"));
    // Each has a target of its own, whose clocks need not agree.
    let apart = refusal(|parts| {
        for (part, date_s) in parts.iter_mut().zip([1_000, 2_000, 3_000]) {
            part.conditions.target = format!("http://t{date_s}");
            part.evidence.start_by_target = Some(StartByTarget::of(date_s, 0, 1));
        }
    });
    assert!(!apart.expect("results").contains("after another"));
    let lost = refusal(|parts| {
        parts[1].lost_counter = Some(LostCounter {
            name: "key_reads".into(),
            before: 7,
            after: None,
        });
        for part in parts.iter_mut() {
            part.evidence.objectives.objectives = "errors=none".parse().expect("objectives");
        }
    });
    assert!(lost.expect("results").contains("key_reads was 7 before"));
    let stopped = refusal(|parts| parts[0].evidence.interrupted = true);
    assert!(stopped.expect("results").contains("interrupted"));
}

#[test]
fn what_is_no_result_is_refused_whatever_it_holds() {
    let good = serde_json::to_value(through_json(shards(1, &[5]).remove(0)).evidence.tallies);
    let good = good.expect("JSON").to_string();
    for text in ["", "{}", "[]", "null", &good] {
        assert!(parse(text).is_err(), "{text}");
    }
    for (from, to) in [
        ("\"scheduled\":", "\"scheduled\":9999999999999999,\"x\":"),
        ("\"service_us\":\"", "\"service_us\":\"AAAA"),
        ("\"http_503\"", "\"http_x\""),
    ] {
        let part = shards(1, &[7]).remove(0);
        let whole = results(
            part.evidence,
            part.generator,
            part.conditions,
            Books::Untold,
        );
        let text = serde_json::to_string(&whole).expect("JSON");
        let start = text.find("\"evidence\"").expect("it is there");
        let broken = text[..start].to_owned() + &text[start..].replace(from, to);
        assert_ne!(text, broken, "{from}");
        assert!(parse(&broken).is_err(), "{from}");
    }
}

#[test]
fn objectives_of_a_merge_have_to_fit_the_load_of_its_files() {
    let judged = |slo: &str, target: &str| {
        let line = format!("kvpoc bench --merge a.json --slo {slo}");
        let line: Vec<_> = line.split(' ').map(std::ffi::OsString::from).collect();
        let Ok(crate::config::Job::Bench(config)) = crate::config::load(&line) else {
            panic!("{slo} is no setting");
        };
        let mut part = shards(1, &[5]).remove(0);
        part.conditions.target = target.into();
        part.judge_by(&config)
            .map(|()| String::from(part.evidence.objectives.objectives))
    };
    for (slo, target) in [
        ("stage2.p99=1us", "http://t"),
        ("write.p99=1us", "store"),
        ("sessions.p99=1us", "http://t/{id}"),
    ] {
        let error = judged(slo, target).expect_err(slo);
        assert!(error.is::<crate::config::ConfigError>(), "{error}");
        assert!(error.to_string().contains("the load has"), "{error}");
    }
    for (slo, target, expected) in [
        (
            "read.p99=1s",
            "http://t",
            "rate=99.9%,errors=0.1%,p99=100000us,read.p99=1000000us",
        ),
        // The default for the latency is that of kvpoc's own server.
        (
            "errors=1%",
            "http://t/{id}",
            "p99=none,rate=99.9%,errors=1%",
        ),
    ] {
        assert_eq!(judged(slo, target).expect(slo), expected);
    }
}
