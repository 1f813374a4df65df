//! `bench --layers`: the store, then the target over it, with the same load.
//!
//! Enters: a configuration with both. Leaves: what the target adds at each percentile. The exit code is the
//! target's verdict.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use tokio_util::sync::CancellationToken;

use super::Bench;
use super::report::{Percentiles, Results, text};
use crate::config::{BenchConfig, Target};
use crate::output;
use crate::units::human_us;

pub(super) async fn run(config: &BenchConfig, stop: &CancellationToken) -> anyhow::Result<u8> {
    let mut store = config.clone();
    store.target = Target::Store;
    let below = measure(&store, stop).await?;
    if stop.is_cancelled() {
        return Ok(below.verdict.exit_code());
    }
    let above = measure(config, stop).await?;
    output::print(&table(&below, &above));
    Ok(above.verdict.exit_code())
}

async fn measure(config: &BenchConfig, stop: &CancellationToken) -> anyhow::Result<Results> {
    let bench = Bench::prepare(config).await?;
    bench.announce();
    let (results, _) = bench.measure(&config.stages, stop).await?;
    let colour = std::io::stdout().is_terminal();
    output::print(&format!(
        "── {}\n{}\n",
        config.target,
        text::render(&results, colour)
    ));
    Ok(results)
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
