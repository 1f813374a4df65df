//! A study by `--repeat` for a person: a line for each run, then a table. Pure.

use std::fmt::Write as _;

use crate::bench::judge::repeat::Repeat;
use crate::bench::judge::results::Results;
use crate::bench::judge::statistics::spread::CONFIDENCE;
use crate::figures::Figure;
use crate::units::{grouped, human_us};

/// Of the figures' names.
pub(super) const NAME: usize = 20;

/// The line of a run.
pub(in crate::bench) fn row(number: u32, of: u32, results: &Results) -> String {
    let latency = &results.latency_us;
    format!(
        "{:<12} {:<17} p50 {:>9}  p99 {:>9}  p99.9 {:>9}  {}\n",
        format!("Run {number} of {of}"),
        results.verdict.name(),
        human_us(latency.p50),
        human_us(latency.p99),
        human_us(latency.p999),
        results.reason,
    )
}

/// The table over all runs, and the verdict; `before` says why there are no more of them, if so.
pub(in crate::bench) fn text(study: &Repeat, before: &str) -> String {
    let (summary, mut text) = (&study.summary, String::new());
    if !summary.figures.0.is_empty() {
        let interval = summary.confidence.map_or_else(String::new, |confidence| {
            format!("{:.0} % interval", confidence.min(CONFIDENCE) * 100.0)
        });
        let _ = writeln!(
            text,
            "\n{:<NAME$}{:>12}  {interval:<26}least to most",
            format!("Of {} runs", summary.runs),
            "median",
        );
        for (figure, spread) in &summary.figures.0 {
            let [median, min, max] =
                [spread.median, spread.min, spread.max].map(|value| shown(*figure, value));
            let interval = spread.interval.map_or_else(String::new, |(low, high)| {
                format!("{} to {}", shown(*figure, low), shown(*figure, high))
            });
            let name = title(*figure);
            let _ = writeln!(
                text,
                "{name:<NAME$}{median:>12}  {interval:<26}{min} to {max}"
            );
        }
        if summary.confidence.is_none_or(|sure| sure < CONFIDENCE) {
            text.push_str("An interval that is 95 % sure needs 6 runs.\n");
        }
    }
    let _ = write!(text, "\n{}\n", verdict(study, before));
    text
}

/// The last line.
pub(in crate::bench) fn verdict(study: &Repeat, before: &str) -> String {
    let name = study.verdict.map_or("none", |verdict| verdict.name());
    let verdict = format!("Verdict: {name}: {}", study.reason);
    if before.is_empty() {
        verdict
    } else {
        format!("{before}; so far: {verdict}")
    }
}

/// What a figure is called in a table.
pub(super) fn title(figure: Figure) -> &'static str {
    match figure {
        Figure::P50 => "latency p50",
        Figure::P90 => "latency p90",
        Figure::P99 => "latency p99",
        Figure::P999 => "latency p99.9",
        Figure::Mean => "latency mean",
        Figure::Rate => "requests/s",
        Figure::Errors => "failed",
        Figure::Cpu => "generator's CPU",
    }
}

/// A value of it.
pub(super) fn shown(figure: Figure, value: f64) -> String {
    match figure {
        Figure::Rate if value < 100.0 => format!("{value:.2}"),
        Figure::Rate => grouped(value.round() as u64),
        Figure::Errors if value == 0.0 => "0 %".into(),
        Figure::Errors => format!("{:.3} %", value * 100.0),
        Figure::Cpu => format!("{value:.1} µs"),
        _ => human_us(value.round() as u64),
    }
}
