//! The results of several generators as those of one. Pure but for reading the files.
//!
//! Enters: the JSON of every shard of a schedule. Leaves: [`Results`] and one verdict. Must not average a
//! percentile, nor add up what did not belong together: shards of other loads, one twice, one missing, one that
//! ran at another time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::Publication;
use super::report::{Conditions, Evidence, Generator, Reconciliation, Results};
use super::results::results;
use super::verdict::Verdict;
use super::watch::Series;
use crate::config::{BenchConfig, Target};
use crate::load::Shard;

/// The rate of each moment is the sum of what the shards ask for then; half a second is what clocks that are kept
/// by NTP and a common `--start-at` stay well below.
const MAX_START_SPREAD_MS: u64 = 500;
/// A result has some tens of kilobytes.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// What has to be the same for all shards.
const SAME: [&str; 15] = [
    "stages",
    "version",
    "commit",
    "duration_s",
    "warmup_s",
    "arrivals",
    "preset",
    "workload",
    "keys_dist",
    "verify",
    "keys",
    "keys_per_request",
    "timeout_s",
    "tick_us",
    "seed",
];

/// What is needed of a result.
#[derive(Debug, serde::Deserialize)]
struct Part {
    drain_s: f64,
    failed_connects: BTreeMap<String, u64>,
    generator: Generator,
    reconciliation: Option<Reconciliation>,
    conditions: Conditions,
    evidence: Evidence,
}

/// Merges the files, prints the results, and returns the verdict's exit code.
///
/// # Errors
/// When a file is no result, or the results are not the shards of one run.
pub(super) fn run(config: &BenchConfig) -> anyhow::Result<u8> {
    let publication = Publication::prepare(config)?;
    let parts: anyhow::Result<Vec<Part>> = config.merge.iter().map(|file| read(file)).collect();
    publication.publish(&merge(parts?)?, &Series::default())
}

fn read(file: &Path) -> anyhow::Result<Part> {
    let shown = || format!("cannot merge {}", file.display());
    let mut text = String::new();
    let opened = File::open(file).with_context(shown)?;
    opened
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .with_context(shown)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        bail!("{}: it is too large for a result of kvpoc bench", shown());
    }
    parse(&text).with_context(shown)
}

fn parse(text: &str) -> anyhow::Result<Part> {
    let part: Part = serde_json::from_str(text)
        .context("it is no result of kvpoc bench, or of a version that cannot be merged")?;
    let evidence = &part.evidence;
    if !(evidence.warmup.is_plausible() && evidence.measured.is_plausible()) {
        bail!("its counts are larger than any run's");
    }
    if !(evidence.scheduled_s.is_finite() && evidence.scheduled_s > 0.0) {
        bail!("its schedule has no length");
    }
    Ok(part)
}

fn merge(mut parts: Vec<Part>) -> anyhow::Result<Results> {
    check_shards(&parts)?;
    parts.sort_by_key(|part| part.evidence.started_at_ms);
    let generators = parts.len();
    let mut rest = parts.into_iter();
    let mut whole = rest.next().context("no result to merge")?;
    let (first_ms, mut last_ms) = (whole.evidence.started_at_ms, whole.evidence.started_at_ms);
    let mut targets = BTreeSet::from([whole.conditions.target.clone()]);
    let on_store = |part: &Part| part.conditions.target == Target::Store.to_string();
    for part in rest {
        check_same(&whole, &part)?;
        if on_store(&whole) != on_store(&part) {
            bail!("one generator drove the store itself, and another one a server");
        }
        last_ms = last_ms.max(part.evidence.started_at_ms);
        targets.insert(part.conditions.target.clone());
        absorb(&mut whole, part);
    }
    let sent = whole.evidence.warmup.ledger.sent + whole.evidence.measured.ledger.sent;
    whole.generator.cpu_us_per_request = whole.generator.cpu_s * 1e6 / sent.max(1) as f64;
    let conditions = Conditions {
        shard: Shard::WHOLE.to_string(),
        generators,
        target: Vec::from_iter(targets).join(", "),
        ..whole.conditions
    };
    let seconds = conditions.warmup_s + conditions.duration_s;
    let reconciliation = whole.reconciliation.map(|books| {
        Reconciliation::of(
            (books.keys_asked, books.keys_counted),
            (books.commands_asked, books.commands_counted),
            seconds * generators as f64,
        )
    });
    let mut results = Results {
        failed_connects: whole.failed_connects,
        drain_s: whole.drain_s,
        reconciliation,
        ..results(whole.evidence, whole.generator, conditions)
    };
    let spread_ms = last_ms - first_ms;
    if spread_ms > MAX_START_SPREAD_MS && results.verdict != Verdict::Invalid {
        results.verdict = Verdict::Invalid;
        results.reason = format!(
            "one generator began {:.1} s after another, so the rate was never the whole one: give all the same \
             --start-at",
            spread_ms as f64 / 1e3
        );
    }
    Ok(results)
}

/// Adds what can be added, and keeps the worst of what cannot.
fn absorb(whole: &mut Part, part: Part) {
    let (ours, theirs) = (&mut whole.evidence, &part.evidence);
    ours.warmup.add(&theirs.warmup);
    ours.measured.add(&theirs.measured);
    ours.scheduled_s = ours.scheduled_s.max(theirs.scheduled_s);
    ours.interrupted |= theirs.interrupted;
    whole.drain_s = whole.drain_s.max(part.drain_s);
    for (reason, count) in part.failed_connects {
        let ours = whole.failed_connects.entry(reason).or_default();
        *ours = ours.saturating_add(count);
    }
    whole.generator.cpu_s += part.generator.cpu_s;
    whole.generator.cores_used += part.generator.cores_used;
    whole.generator.busy_share = whole.generator.busy_share.max(part.generator.busy_share);
    let (ours, theirs) = (&mut whole.conditions, &part.conditions);
    ours.connections = ours.connections.saturating_add(theirs.connections);
    ours.threads = ours.threads.saturating_add(theirs.threads);
    // Each looked at the counters of the same store over the same time, and saw what all did.
    whole.reconciliation =
        whole
            .reconciliation
            .take()
            .zip(part.reconciliation)
            .map(|(one, other)| Reconciliation {
                keys_asked: one.keys_asked.saturating_add(other.keys_asked),
                keys_counted: one.keys_counted.max(other.keys_counted),
                commands_asked: one.commands_asked.saturating_add(other.commands_asked),
                commands_counted: one.commands_counted.max(other.commands_counted),
                ..one
            });
}

/// Every shard of one schedule, each once.
fn check_shards(parts: &[Part]) -> anyhow::Result<()> {
    let mut found = BTreeSet::new();
    for part in parts {
        if part.conditions.generators != 1 {
            bail!("one result is merged already: merge all shards at once");
        }
        let text = &part.conditions.shard;
        let shard: Shard = text
            .parse()
            .map_err(|error| anyhow::anyhow!("shard {text:?}: {error}"))?;
        if shard.count != parts.len() as u64 {
            bail!(
                "{} results are there, and one is of shard {shard}: give all {} together",
                parts.len(),
                shard.count
            );
        }
        if !found.insert(shard.index) {
            bail!("shard {shard} is there twice");
        }
    }
    Ok(())
}

fn check_same(whole: &Part, part: &Part) -> anyhow::Result<()> {
    let [ours, theirs] = [whole, part].map(|part| serde_json::to_value(&part.conditions));
    let (ours, theirs) = (ours?, theirs?);
    if let Some(name) = SAME.iter().find(|&&name| ours[name] != theirs[name]) {
        bail!(
            "{name} is {} for one generator and {} for another: they did not run the same load",
            ours[*name],
            theirs[*name]
        );
    }
    if whole.evidence.objectives != part.evidence.objectives {
        bail!("the generators were not judged by the same --slo, --max-lag and --max-miss");
    }
    Ok(())
}

/// Takes any text for the result of one generator, and that result for all there are.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(text: &str) {
    if let Ok(part) = parse(text)
        && let Ok(results) = merge(vec![part])
    {
        let _ = super::report::text::render(&results, true);
        super::report::json(&results).expect("what was JSON is JSON again");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::queue::Arrival;
    use super::super::report::Objectives;
    use super::super::schedule::Schedule;
    use super::super::tally::{Cause, Outcome, Tally};
    use super::super::workload::Work;
    use super::*;
    use crate::load::{Arrivals, Slos, Stages};

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
        let end_ns = schedule.measured_until_ns();
        let mut tallies = [Tally::new(end_ns), Tally::new(end_ns)];
        for due in schedule.thread((0, 1)) {
            let latency_us = latencies_us[due.number as usize % latencies_us.len()];
            let arrival = Arrival {
                number: due.number,
                due_ns: due.at_ns,
                taken_ns: due.at_ns,
            };
            let work = Work {
                hits: 15,
                misses: 0,
                written: 0,
                commands: 1,
            };
            let outcome = if latency_us.is_multiple_of(7) {
                Outcome::Error(Cause::Status(503))
            } else {
                Outcome::Ok(work)
            };
            let tally = &mut tallies[schedule.phase(due.at_ns) as usize];
            tally.ledger.scheduled += 1;
            tally.taken_up(&arrival);
            tally.sent(&arrival, due.at_ns);
            tally.ended(&arrival, due.at_ns, due.at_ns + latency_us * 1_000, outcome);
        }
        let [warmup, measured] = tallies;
        Part {
            drain_s: 0.1,
            failed_connects: BTreeMap::new(),
            generator: Generator::default(),
            reconciliation: None,
            conditions: conditions(shard),
            evidence: Evidence {
                started_at_ms: 1_000_000,
                scheduled_s: 1.0,
                interrupted: false,
                objectives: Objectives {
                    slos: Slos::default(),
                    max_miss: 0.0,
                    max_lag_us: 5_000,
                    stages: 1,
                },
                warmup,
                measured,
            },
        }
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
            ..results(part.evidence, part.generator, part.conditions)
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
            prop_assert!(merged.evidence.measured == whole.evidence.measured);
            prop_assert!(merged.evidence.warmup == whole.evidence.warmup);
            let whole = results(whole.evidence, whole.generator, whole.conditions);
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
                "2 results are there",
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
                "the store itself",
            ),
            (|parts| parts[2].conditions.generators = 3, "merged already"),
            (|parts| parts[2].evidence.objectives.max_miss = 0.5, "--slo"),
            (Vec::clear, "no result"),
        ] {
            let error = refusal(change).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
        let late = refusal(|parts| parts[0].evidence.started_at_ms += 1_200);
        assert!(late.expect("results").contains("began 1.2 s after"));
        let stopped = refusal(|parts| parts[0].evidence.interrupted = true);
        assert!(stopped.expect("results").contains("interrupted"));
    }

    #[test]
    fn what_is_no_result_is_refused_whatever_it_holds() {
        let good = serde_json::to_value(through_json(shards(1, &[5]).remove(0)).evidence.measured);
        let good = good.expect("JSON").to_string();
        for text in ["", "{}", "[]", "null", &good] {
            assert!(parse(text).is_err(), "{text}");
        }
        for (from, to) in [
            ("\"scheduled\":", "\"scheduled\":9999999999999999,\"x\":"),
            ("\"latency_us\":\"", "\"latency_us\":\"AAAA"),
            ("\"http_503\"", "\"http_x\""),
        ] {
            let part = shards(1, &[7]).remove(0);
            let whole = results(part.evidence, part.generator, part.conditions);
            let text = serde_json::to_string(&whole).expect("JSON");
            let start = text.find("\"evidence\"").expect("it is there");
            let broken = text[..start].to_owned() + &text[start..].replace(from, to);
            assert_ne!(text, broken, "{from}");
            assert!(parse(&broken).is_err(), "{from}");
        }
    }
}
