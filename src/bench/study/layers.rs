//! `bench --layers`: the store, then the target over it, with the same load.
//!
//! Enters: a configuration with both. Leaves: what the target adds at each percentile. The exit code is the
//! target's verdict. Must not compare two loads that are not alike: it refuses them.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use tokio_util::sync::CancellationToken;

use super::once::{Bench, STATS_AGE};
use crate::bench::drive::probe::TargetInfo;
use crate::bench::judge::results::{Conditions, Percentiles, Results};
use crate::bench::judge::tries::Try;
use crate::bench::report::json_file::JsonFile;
use crate::bench::report::{self, text};
use crate::cli::Reads;
use crate::config::{BenchConfig, Target};
use crate::exit;
use crate::store::DatasetInfo;
use crate::units::{grouped, human_us};

/// Share of the keys read from the store that the target's store must have counted to be the same.
const LEAST_COUNTED: f64 = 0.9;

/// What was found; the JSON file is exactly this.
#[derive(serde::Serialize)]
struct Finding {
    /// Version of this form.
    schema: u32,
    /// `layers`.
    study: &'static str,
    store: Try,
    target: Try,
    /// Latency of the target less that of the store, in microseconds.
    added_us: Added,
    /// Of the target's run; those of the store's differ in the target and the start.
    conditions: Conditions,
}

#[derive(serde::Serialize)]
struct Added {
    p50: i64,
    p90: i64,
    p99: i64,
    p999: i64,
}

pub(super) async fn run(config: &BenchConfig, stop: &CancellationToken) -> anyhow::Result<u8> {
    let json = JsonFile::create(&config.outputs)?;
    // Both are asked before either is driven, so that nothing is measured in vain.
    let before = Bench::prepare(config).await?.info;
    let of_store = BenchConfig {
        target: Target::Store,
        store: (config.store.clone()).read_by(Some(before.fetch()), Reads::Direct),
        ..config.clone()
    };
    let below = Bench::prepare(&of_store).await?;
    check_alike(&below.info, &before, config)?;
    let Some(store) = measure(&below, &json, stop).await? else {
        return Ok(exit::INTERRUPTED);
    };
    drop(below);
    tokio::time::sleep(STATS_AGE).await;
    let above = Bench::prepare(config).await?;
    let asked = store.reconciliation.as_ref().map(|books| books.keys_asked);
    check_counted(asked, before.key_reads, above.info.key_reads)?;
    let Some(target) = measure(&above, &json, stop).await? else {
        return Ok(exit::INTERRUPTED);
    };
    json.show(&table(&store, &target));
    let code = target.verdict.exit_code();
    json.write(&report::json(&finding(config, store, target))?)?;
    Ok(code)
}

/// Refuses a target over another store, or another dataset: its keys and records would be others.
fn check_alike(
    store: &TargetInfo,
    target: &TargetInfo,
    config: &BenchConfig,
) -> anyhow::Result<()> {
    let (url, store_url) = (&config.target, &config.store.url);
    let engine = |info: &TargetInfo| info.engine.clone().zip(info.engine_version.clone());
    if let (Some(of_store), Some(of_target)) = (engine(store), engine(target))
        && of_store != of_target
    {
        anyhow::bail!(
            "--layers needs the store behind the target: {store_url} is {} {}, but {url} uses {} {}; give the \
             target's own --store",
            of_store.0,
            of_store.1,
            of_target.0,
            of_target.1
        );
    }
    match (&store.dataset, &target.dataset) {
        (Some(store), Some(target)) if store == target => Ok(()),
        (Some(store), Some(target)) => anyhow::bail!(
            "--layers needs the store behind the target: {store_url} holds {}, but {url} reports {}; give the \
             target's own --store",
            described(store),
            described(target)
        ),
        (None, _) => anyhow::bail!(
            "--layers needs the store behind the target, but {store_url} has no dataset of kvpoc seed; give the \
             target's own --store, or load one"
        ),
        (_, None) => anyhow::bail!(
            "--layers needs a target that reports its dataset, but {url} reports none; load one with kvpoc seed"
        ),
    }
}

/// Refuses a target whose store did not notice what was asked of ours.
fn check_counted(
    asked: Option<u64>,
    before: Option<u64>,
    after: Option<u64>,
) -> anyhow::Result<()> {
    let (Some(asked), Some(before), Some(after)) = (asked, before, after) else {
        return Ok(());
    };
    let counted = after.saturating_sub(before);
    if (counted as f64) < asked as f64 * LEAST_COUNTED {
        anyhow::bail!(
            "--layers needs the store behind the target: {} keys were read from --store, but the target's store \
             counted {}; give the target's own --store",
            grouped(asked),
            grouped(counted)
        );
    }
    Ok(())
}

fn described(dataset: &DatasetInfo) -> String {
    format!(
        "{} keys {}… of {} bytes from seed {}",
        dataset.keys, dataset.key_prefix, dataset.value_size, dataset.seed
    )
}

/// One side; `None`: the stop signal came.
async fn measure(
    bench: &Bench<'_>,
    json: &JsonFile,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Results>> {
    bench.announce();
    let (results, _) = bench.measure(&bench.config.stages, stop).await?;
    let colour = std::io::stdout().is_terminal();
    json.show(&format!(
        "── {}\n{}\n",
        bench.config.target,
        text::render(&results, colour)
    ));
    Ok((!stop.is_cancelled()).then_some(results))
}

fn finding(config: &BenchConfig, store: Results, target: Results) -> Finding {
    let added = |of: fn(&Percentiles) -> u64| {
        of(&target.latency_us).cast_signed() - of(&store.latency_us).cast_signed()
    };
    let added_us = Added {
        p50: added(|points| points.p50),
        p90: added(|points| points.p90),
        p99: added(|points| points.p99),
        p999: added(|points| points.p999),
    };
    let stages = &config.stages;
    let rate = stages.arrivals() / stages.duration().as_secs_f64();
    let conditions = target.conditions.clone();
    Finding {
        schema: 1,
        study: "layers",
        store: Try::of(rate, store),
        target: Try::of(rate, target),
        added_us,
        conditions,
    }
}

/// Latency of both and the difference, which is what the target adds if the store does not mind the change.
fn table(below: &Results, above: &Results) -> String {
    let mut table = format!(
        "{:<10}{:>12}{:>12}{:>12}\n",
        "Latency", "store", "target", "added"
    );
    let points = |points: &Percentiles| {
        [
            ("p50", points.p50),
            ("p99", points.p99),
            ("p99.9", points.p999),
        ]
    };
    for ((name, store_us), (_, target_us)) in points(&below.latency_us)
        .into_iter()
        .zip(points(&above.latency_us))
    {
        let added = if target_us >= store_us {
            human_us(target_us - store_us)
        } else {
            format!("-{}", human_us(store_us - target_us))
        };
        let (store, target) = (human_us(store_us), human_us(target_us));
        let _ = writeln!(table, "{name:<10}{store:>12}{target:>12}{added:>12}");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_counts_nothing_of_what_was_read_is_another() {
        for (asked, before, after, fits) in [
            (Some(1_000), Some(50), Some(1_050), true),
            (Some(1_000), Some(50), Some(9_000), true),
            (Some(1_000), Some(50), Some(60), false),
            // Restarted meanwhile, or emptied.
            (Some(1_000), Some(50), Some(0), false),
            (None, Some(50), Some(60), true),
            (Some(1_000), None, None, true),
        ] {
            assert_eq!(
                check_counted(asked, before, after).is_ok(),
                fits,
                "{after:?}"
            );
        }
    }

    /// What a target or a store tells of itself.
    fn told(engine: &str, seed: u64) -> TargetInfo {
        let json = serde_json::json!({
            "engine": engine,
            "engine_version": "7.0",
            "dataset": {
                "keys": 1_000, "key_prefix": "k:", "value_size": 256, "seed": seed, "record_version": 1,
            },
        });
        serde_json::from_value(json).expect("what a target tells")
    }

    #[test]
    fn only_the_store_behind_the_target_is_compared_with_it() {
        let arguments = ["kvpoc", "bench", "--layers"].map(Into::into);
        let Ok(crate::config::Job::Bench(config)) = crate::config::load(&arguments) else {
            panic!("the defaults are valid");
        };
        let (one, other) = (told("redis", 1), told("redis", 2));
        let elsewhere = told("dragonfly", 1);
        let silent = TargetInfo::default();
        for (store, target, expected) in [
            (&one, &one, ""),
            (&one, &other, "1000 keys k:… of 256 bytes from seed 2"),
            (&one, &elsewhere, "uses dragonfly 7.0"),
            (&silent, &one, "has no dataset"),
            (&one, &silent, "reports none; load one"),
            (&silent, &silent, "has no dataset"),
        ] {
            let refused = check_alike(store, target, &config);
            let text = refused.map_or_else(|error| error.to_string(), |()| String::new());
            assert!(
                text.contains(expected) && text.is_empty() == expected.is_empty(),
                "{text}"
            );
        }
    }
}
