//! `bench --compare … --against …`: whether the runs of one side are better or worse than those of another. Pure but for
//! reading the files.
//!
//! Enters: results of runs and of `--repeat`. Leaves: a comparison, and whether `--fail-on` was kept. Must not compare what
//! did not run the same load, nor leave out a run that does not please.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::merge::load_of;
use super::result_file;
use crate::bench::judge::results::Conditions;
use crate::bench::judge::run::{Figures, Run, runs};
use crate::bench::judge::sides::{Comparison, Held, LEAST_RUNS};
use crate::bench::judge::verdict::Verdict;
use crate::bench::report;
use crate::bench::report::against::{Finding, Side};
use crate::bench::report::json_file::JsonFile;
use crate::config::{BenchConfig, ConfigError};
use crate::{exit, output};

/// A study of a hundred runs of several stages has some tens of megabytes.
const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;
/// More would not tell more, and the interval's work grows with the square.
const MOST_RUNS: usize = 200;
/// What makes a load and may differ all the same: another version is what many compare, and a draw is no condition.
const MAY_DIFFER: [&str; 3] = ["version", "commit", "seed"];
/// What is no part of the load, and worth a line where it differs.
const CIRCUMSTANCES: [&str; 11] = [
    "version",
    "commit",
    "seed",
    "target",
    "cpu_model",
    "cpu_count",
    "store_engine",
    "store_version",
    "store_threads",
    "store_keys",
    "fetch",
];

/// Compares the files, prints what was found, and returns the exit code.
///
/// # Errors
/// When a file is no result, the runs are not of one load, or too few for `--fail-on`.
pub(super) fn run(config: &BenchConfig) -> anyhow::Result<u8> {
    let json = JsonFile::create(&config.outputs)?;
    let sides = &config.runs;
    let compared = read_side("--compare", &sides.compare)?;
    let against = read_side("--against", &sides.against)?;
    check_alike(&against, &compared)?;
    let figures = |side: &[FromFile<'_>]| -> Vec<Figures> {
        side.iter().map(|(_, run)| run.figures).collect()
    };
    let comparison = Comparison::of(&figures(&compared), &figures(&against));
    let least = compared.len().min(against.len());
    // A bound that cannot fail would be taken for one that was kept.
    let can_hold = least >= LEAST_RUNS;
    let held: Vec<Held> = if can_hold {
        let bounds = sides.fail_on.iter();
        bounds.map(|bound| comparison.hold(bound)).collect()
    } else {
        Vec::new()
    };
    let failed = held.iter().any(|held| held.failed);
    let finding = Finding {
        compare: side(&compared),
        against: side(&against),
        differs: differences(&against, &compared),
        comparison,
        held,
    };
    json.show(&report::against::text(&finding));
    let written = report::json(&finding.json()).map_err(anyhow::Error::from);
    let written = written.and_then(|text| json.write(&text));
    if written.is_err() || output::lost().is_some() {
        output::say(&report::against::verdict(&finding));
    }
    written?;
    if let (Some(bound), false) = (sides.fail_on.first(), can_hold) {
        let missing = missing(&finding.compare, &finding.against);
        return Err(ConfigError::Setting(format!(
            "invalid value '{bound}' for --fail-on: it needs {LEAST_RUNS} runs a side to tell what is beyond chance; make {missing}"
        ))
        .into());
    }
    Ok(if failed { exit::WORSE } else { exit::OK })
}

/// How many runs are to be made.
fn missing(compare: &Side, against: &Side) -> String {
    report::against::missing(compare, against).unwrap_or_default()
}

/// A run and where it comes from.
type FromFile<'a> = (&'a Path, Run);

fn read_side<'a>(flag: &str, files: &'a [PathBuf]) -> anyhow::Result<Vec<FromFile<'a>>> {
    let mut side: Vec<FromFile<'a>> = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files {
        let shown = || format!("cannot use {flag} {}", file.display());
        if !seen.insert(file) {
            bail!("{}: it is there twice, and a run counts once", shown());
        }
        let text = result_file::read(file, MAX_FILE_BYTES).with_context(shown)?;
        let runs = runs(&text).with_context(shown)?;
        for (number, run) in (1..).zip(&runs) {
            check(run).with_context(|| format!("{}: run {number} of {}", shown(), runs.len()))?;
        }
        side.extend(runs.into_iter().map(|run| (file.as_path(), run)));
        if side.len() > MOST_RUNS {
            bail!("{flag} has more than {MOST_RUNS} runs; give fewer files");
        }
    }
    Ok(side)
}

/// Refuses a run whose figures say nothing of the load. It is not left out: whoever compares shall know.
fn check(run: &Run) -> anyhow::Result<()> {
    if run.verdict == Verdict::Invalid {
        bail!("it is INVALID, and its figures say nothing: {}", run.reason);
    }
    if let Some(why) = &run.ended_early {
        bail!("it was ended early, and is not the whole load: {why}");
    }
    Ok(())
}

/// What makes a load is the same for all runs.
fn check_alike(against: &[FromFile<'_>], compared: &[FromFile<'_>]) -> anyhow::Result<()> {
    let mut all = against.iter().chain(compared);
    let (first_file, first) = all.next().context("no run to compare")?;
    let loads = conditions_of(&first.conditions);
    for (file, run) in all {
        let differs = |((_, ours), (_, theirs)): &(&(_, Value), &(_, Value))| ours != theirs;
        let theirs = conditions_of(&run.conditions);
        if let Some(((name, ours), (_, theirs))) = loads.iter().zip(&theirs).find(differs) {
            bail!(
                "{name} is {ours} in {} and {theirs} in {}: they did not run the same load",
                first_file.display(),
                file.display()
            );
        }
    }
    Ok(())
}

fn conditions_of(conditions: &Conditions) -> Vec<(&'static str, Value)> {
    let mut load = load_of(conditions);
    load.retain(|(name, _)| !MAY_DIFFER.contains(name));
    // Of one load that is merged they are each generator's own; of whole ones they are a part of it.
    load.push(("generators", conditions.generators.into()));
    load.push(("shard", conditions.shard.clone().into()));
    load.push(("connections", conditions.connections.into()));
    load.push(("threads", conditions.threads.into()));
    load
}

/// Circumstances that are not the same in all runs, as lines.
fn differences(against: &[FromFile<'_>], compared: &[FromFile<'_>]) -> Vec<String> {
    let values = |side: &[FromFile<'_>]| -> Vec<Value> {
        let of =
            |(_, run): &FromFile<'_>| serde_json::to_value(&run.conditions).unwrap_or_default();
        side.iter().map(of).collect()
    };
    let (against, compared) = (values(against), values(compared));
    let shown = |side: &[Value], name: &str| {
        let distinct: BTreeSet<String> = side.iter().map(|of| of[name].to_string()).collect();
        Vec::from_iter(distinct).join(", ")
    };
    let line = |name: &&str| {
        let (base, now) = (shown(&against, name), shown(&compared, name));
        let is_one = base == now && against.iter().all(|of| of[*name] == against[0][*name]);
        (!is_one).then(|| format!("{name}: {base} in --against, {now} in --compare"))
    };
    CIRCUMSTANCES.iter().filter_map(line).collect()
}

fn side(runs: &[FromFile<'_>]) -> Side {
    let limited = runs
        .iter()
        .filter(|(_, run)| run.verdict == Verdict::GeneratorLimited);
    let mut files: Vec<String> = runs
        .iter()
        .map(|(file, _)| file.display().to_string())
        .collect();
    files.dedup();
    Side {
        runs: runs.len(),
        generator_limited: limited.count(),
        files,
    }
}

/// Takes any text for results, and compares them with themselves.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(text: &str) {
    if let Ok(found) = runs(text) {
        let side: Vec<FromFile<'_>> = found
            .into_iter()
            .take(MOST_RUNS)
            .map(|run| (Path::new("a"), run))
            .collect();
        if check_alike(&side, &side).is_ok() {
            let figures: Vec<Figures> = side.iter().map(|(_, run)| run.figures).collect();
            let _ = Comparison::of(&figures, &figures);
        }
    }
}
