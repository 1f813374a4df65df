//! The results of several generators as those of one. Pure but for reading the files.
//!
//! Enters: the JSON of every shard of a schedule. Leaves: [`Results`] and one verdict. Must not average a
//! percentile, nor add up what did not belong together: shards of other loads, one twice, one missing, one that
//! ran at another time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::once::Publication;
use super::result_file;
use crate::bench::judge::clock::StartByTarget;
use crate::bench::judge::handshakes::Handshakes;
use crate::bench::judge::reconcile::{Books, LostCounter, Reconciliation};
use crate::bench::judge::results::{Conditions, Evidence, Generator, Results, results};
use crate::bench::judge::series::Series;
use crate::bench::judge::verdict::Verdict;
use crate::config::{BenchConfig, Target};
use crate::load::{Mix, Shard, Stages};
use crate::objectives;
use crate::units::micros;

/// The rate of each moment is the sum of what the shards ask for then; half a second is what clocks that are kept
/// by NTP and a common `--start-at` stay well below.
const MAX_START_SPREAD_MS: u64 = 500;
/// A result has some tens of kilobytes.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// What is needed of a result.
#[derive(Debug, serde::Deserialize)]
struct Part {
    drain_s: f64,
    failed_connects: BTreeMap<String, u64>,
    #[serde(default)]
    malformed_answers: BTreeMap<String, u64>,
    #[serde(default)]
    tls_handshakes: Option<Handshakes>,
    resent: u64,
    generator: Generator,
    reconciliation: Option<Reconciliation>,
    #[serde(default)]
    lost_counter: Option<LostCounter>,
    conditions: Conditions,
    evidence: Evidence,
}

impl Part {
    /// Objectives that were given for the merge replace those of the runs, and are refused as a run would refuse them.
    fn judge_by(&mut self, config: &BenchConfig) -> anyhow::Result<()> {
        let bounds = &mut self.evidence.objectives;
        if config.given.objectives {
            let load = "its conditions do not describe its load";
            let stages: Stages = self.conditions.stages.parse().context(load)?;
            let mix: Mix = self.conditions.workload.parse().context(load)?;
            let target: Target = self.conditions.target.parse().context(load)?;
            let is_other = target.is_template() || self.conditions.requests_file.is_some();
            let operations = objectives::operations(mix, is_other);
            config.check_objectives(&stages, &operations)?;
            let given = config.objectives.clone();
            bounds.objectives = if target.is_template() {
                given.of_another_service()
            } else {
                given
            };
        }
        if config.given.max_miss {
            bounds.max_miss = config.max_miss;
        }
        if config.given.max_lag {
            bounds.max_lag_us = micros(config.max_lag);
        }
        Ok(())
    }
}

/// Merges the files, prints the results, and returns the verdict's exit code.
///
/// # Errors
/// When a file is no result, or the results are not the shards of one run.
pub(super) fn run(config: &BenchConfig) -> anyhow::Result<u8> {
    let publication = Publication::prepare(config)?;
    let mut parts = Vec::new();
    for file in &config.merge {
        let mut part = read(file)?;
        part.judge_by(config)
            .with_context(|| format!("cannot merge {}", file.display()))?;
        parts.push(part);
    }
    publication.publish(&merge(parts)?, &Series::default())
}

fn read(file: &Path) -> anyhow::Result<Part> {
    let shown = || format!("cannot merge {}", file.display());
    let text = result_file::read(file, MAX_FILE_BYTES).with_context(shown)?;
    parse(&text).with_context(shown)
}

fn parse(text: &str) -> anyhow::Result<Part> {
    let part: Part = serde_json::from_str(text)
        .context("not a result of kvpoc bench, or of a version that cannot be merged")?;
    if !part.evidence.is_plausible() {
        bail!("its counts or its schedule are inconsistent");
    }
    Ok(part)
}

fn merge(mut parts: Vec<Part>) -> anyhow::Result<Results> {
    check_shards(&parts)?;
    parts.sort_by_key(|part| part.evidence.started_at_ms);
    let apart = began_apart(&parts);
    let generators = parts.len();
    let mut rest = parts.into_iter();
    let mut whole = rest.next().context("no result to merge")?;
    let mut targets = BTreeSet::from([whole.conditions.target.clone()]);
    let on_store = |part: &Part| part.conditions.target == Target::Store.to_string();
    for part in rest {
        check_same(&whole, &part)?;
        if on_store(&whole) != on_store(&part) {
            bail!("one generator drove the store, another one a server");
        }
        targets.insert(part.conditions.target.clone());
        absorb(&mut whole, part);
    }
    whole.evidence.generators = 1;
    let tallies = &whole.evidence.tallies;
    let sent = tallies.warmup().ledger.sent + tallies.measured().ledger.sent;
    whole.generator.cpu_us_per_request = whole.generator.cpu_s * 1e6 / sent.max(1) as f64;
    let conditions = Conditions {
        shard: Shard::WHOLE.to_string(),
        generators,
        target: Vec::from_iter(targets).join(", "),
        ..whole.conditions
    };
    let seconds = conditions.warmup_s + conditions.duration_s;
    let books = match (whole.lost_counter, whole.reconciliation) {
        (Some(counter), _) => Books::Lost(counter),
        (None, None) => Books::Untold,
        (None, Some(books)) => Books::Told(Reconciliation::of(
            (books.keys_asked, books.keys_counted),
            (books.commands_asked, books.commands_counted),
            books.keys_repeated,
            seconds * generators as f64,
        )),
    };
    let mut results = Results {
        failed_connects: whole.failed_connects,
        malformed_answers: whole.malformed_answers,
        tls_handshakes: whole.tls_handshakes,
        resent: whole.resent,
        drain_s: whole.drain_s,
        ..results(whole.evidence, whole.generator, conditions, books)
    };
    // Whatever else is wrong may follow from it.
    if let Some(reason) = apart {
        (results.verdict, results.reason) = (Verdict::Invalid, reason);
    }
    Ok(results)
}

/// Says so when generators did not begin together: by their own clocks, or by that of the target that they share.
fn began_apart(parts: &[Part]) -> Option<String> {
    let evidence = || parts.iter().map(|part| &part.evidence);
    let own_ms = || evidence().map(|one| one.started_at_ms);
    let own_spread_ms = own_ms().max()? - own_ms().min()?;
    let mut by_target = BTreeMap::<&str, Vec<StartByTarget>>::new();
    for part in parts {
        let starts = by_target.entry(&part.conditions.target).or_default();
        starts.extend(part.evidence.start_by_target);
    }
    let of_target = |starts: &Vec<StartByTarget>| StartByTarget::least_spread_ms(starts);
    let spread_ms = by_target.values().map(of_target).max()?;
    let seconds = |ms: u64| ms as f64 / 1e3;
    if own_spread_ms > MAX_START_SPREAD_MS {
        Some(format!(
            "one generator began {:.1} s after another, so the rate was never the whole one: give all the same \
             --start-at",
            seconds(own_spread_ms)
        ))
    } else if spread_ms > MAX_START_SPREAD_MS {
        Some(format!(
            "by the target's clock one generator began at least {:.1} s after another, so the rate was never the \
             whole one: their own clocks differ, set them by NTP",
            seconds(spread_ms)
        ))
    } else {
        None
    }
}

/// Adds what can be added, and keeps the worst of what cannot.
fn absorb(whole: &mut Part, part: Part) {
    whole.evidence.add(&part.evidence);
    whole.drain_s = whole.drain_s.max(part.drain_s);
    whole.resent = whole.resent.saturating_add(part.resent);
    if let Some(theirs) = part.tls_handshakes {
        whole.tls_handshakes.get_or_insert_default().add(&theirs);
    }
    for (ours, theirs) in [
        (&mut whole.failed_connects, part.failed_connects),
        (&mut whole.malformed_answers, part.malformed_answers),
    ] {
        for (reason, count) in theirs {
            let ours = ours.entry(reason).or_default();
            *ours = ours.saturating_add(count);
        }
    }
    let Generator {
        cpu_s,
        cpu_us_per_request: _,
        cores_used,
        lag_p99_us,
        busy_share,
    } = part.generator;
    let ours = &mut whole.generator;
    ours.cpu_s += cpu_s;
    ours.cores_used += cores_used;
    ours.lag_p99_us = ours.lag_p99_us.max(lag_p99_us);
    ours.busy_share = ours.busy_share.max(busy_share);
    let (ours, theirs) = (&mut whole.conditions, &part.conditions);
    ours.connections = ours.connections.saturating_add(theirs.connections);
    ours.threads = ours.threads.saturating_add(theirs.threads);
    whole.lost_counter = whole.lost_counter.take().or(part.lost_counter);
    // Each looked at the counters of the same store over the same time, and saw what all did.
    whole.reconciliation =
        whole
            .reconciliation
            .take()
            .zip(part.reconciliation)
            .map(|(one, other)| Reconciliation {
                keys_asked: one.keys_asked.saturating_add(other.keys_asked),
                keys_repeated: one.keys_repeated.saturating_add(other.keys_repeated),
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
            bail!("one file is already a merged result: merge all shards at once");
        }
        let text = &part.conditions.shard;
        let shard: Shard = text
            .parse()
            .map_err(|error| anyhow::anyhow!("shard {text:?}: {error}"))?;
        if shard.count != parts.len() as u64 {
            bail!(
                "got {} results, but one is shard {shard}: give all {} together",
                parts.len(),
                shard.count
            );
        }
        if !found.insert(shard.index) {
            bail!("shard {shard} was given twice");
        }
    }
    Ok(())
}

/// Everything that makes a load is the same.
fn check_same(whole: &Part, part: &Part) -> anyhow::Result<()> {
    let pairs = load_of(&whole.conditions)
        .into_iter()
        .zip(load_of(&part.conditions));
    for ((name, ours), (_, theirs)) in pairs {
        if ours != theirs {
            bail!(
                "{name} is {ours} for one generator and {theirs} for another: they did not run the same load"
            );
        }
    }
    if whole.evidence.flow.outline != part.evidence.flow.outline {
        bail!("the generators did not follow the same schedule");
    }
    if whole.evidence.objectives != part.evidence.objectives {
        bail!("the generators were not judged by the same --slo, --max-lag and --max-miss");
    }
    Ok(())
}

/// What makes the load; what may differ is named too, so that a new condition has to be thought of.
pub(super) fn load_of(conditions: &Conditions) -> Vec<(&'static str, Value)> {
    let Conditions {
        version,
        commit,
        machine: _,
        cpu: _,
        store_engine: _,
        store_version: _,
        store_threads: _,
        fetch: _,
        store_keys: _,
        store_memory_bytes: _,
        target: _,
        certificate_checked,
        method,
        headers,
        body_bytes,
        expect,
        contains,
        records,
        // By its lines: it may have another name on another host.
        requests_file: _,
        requests_format,
        requests_lines,
        requests_left_out,
        requests_fingerprint,
        requests_order,
        speed,
        shard: _,
        generators: _,
        started_at: _,
        duration_s,
        warmup_s,
        stages,
        arrivals,
        preset,
        workload,
        keys_dist,
        verify,
        keys,
        keys_per_request,
        connections: _,
        threads: _,
        tick_us,
        timeout_s,
        seed,
    } = conditions;
    vec![
        ("version", json!(version)),
        ("commit", json!(commit)),
        ("certificate_checked", json!(certificate_checked)),
        ("method", json!(method)),
        ("headers", json!(headers)),
        ("body_bytes", json!(body_bytes)),
        ("expect", json!(expect)),
        ("match", json!(contains)),
        ("records", json!(records)),
        ("requests_format", json!(requests_format)),
        ("requests_lines", json!(requests_lines)),
        ("requests_left_out", json!(requests_left_out)),
        ("requests_fingerprint", json!(requests_fingerprint)),
        ("requests_order", json!(requests_order)),
        ("speed", json!(speed)),
        ("stages", json!(stages)),
        ("duration_s", json!(duration_s)),
        ("warmup_s", json!(warmup_s)),
        ("arrivals", json!(arrivals)),
        ("preset", json!(preset)),
        ("workload", json!(workload)),
        ("keys_dist", json!(keys_dist)),
        ("verify", json!(verify)),
        ("keys", json!(keys)),
        ("keys_per_request", json!(keys_per_request)),
        ("timeout_s", json!(timeout_s)),
        ("tick_us", json!(tick_us)),
        ("seed", json!(seed)),
    ]
}

/// Takes any text for the result of one generator, and that result for all there are.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(text: &str) {
    if let Ok(part) = parse(text)
        && let Ok(results) = merge(vec![part])
    {
        let _ = crate::bench::report::text::render(&results, true);
        crate::bench::report::json(&results).expect("what was JSON is JSON again");
    }
}

#[cfg(test)]
mod tests;
