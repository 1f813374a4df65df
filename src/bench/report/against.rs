//! A comparison of the runs of two sides: for a person, and as JSON. Pure.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::repeat::{NAME, shown, title};
use crate::bench::judge::sides::{Change, Compared, Comparison, Held, LEAST_RUNS, LEVEL};

/// The version of the JSON.
const SCHEMA: u32 = 1;

/// All that was found.
pub(in crate::bench) struct Finding {
    pub(in crate::bench) compare: Side,
    pub(in crate::bench) against: Side,
    /// Circumstances that differ.
    pub(in crate::bench) differs: Vec<String>,
    pub(in crate::bench) comparison: Comparison,
    /// What became of each `--fail-on`.
    pub(in crate::bench) held: Vec<Held>,
}

/// The runs of a side.
#[derive(serde::Serialize)]
pub(in crate::bench) struct Side {
    pub(in crate::bench) runs: usize,
    /// Of which the generator was the limit.
    pub(in crate::bench) generator_limited: usize,
    pub(in crate::bench) files: Vec<String>,
}

impl Finding {
    /// The JSON file is exactly this.
    pub(in crate::bench) fn json(&self) -> Value {
        let figures = self.comparison.figures.iter();
        let members = figures.map(|one| {
            let value = serde_json::to_value(one).unwrap_or_default();
            (one.figure.member().to_owned(), value)
        });
        json!({
            "schema": SCHEMA,
            "study": "compare",
            "change": self.comparison.change,
            "level": LEVEL,
            "compare": self.compare,
            "against": self.against,
            "differs": self.differs,
            "figures": members.collect::<Map<_, _>>(),
            "fail_on": self.held,
        })
    }
}

/// All of it for a terminal.
pub(in crate::bench) fn text(finding: &Finding) -> String {
    let mut text = format!(
        "{:<NAME$}{:>12}{:>12}{:>9}  95 % interval\n",
        "",
        format!("{} against", finding.against.runs),
        format!("{} compared", finding.compare.runs),
        "ratio",
    );
    for one in &finding.comparison.figures {
        row(&mut text, one);
    }
    for difference in &finding.differs {
        let _ = writeln!(text, "differs: {difference}");
    }
    for (name, side) in [
        ("--against", &finding.against),
        ("--compare", &finding.compare),
    ] {
        if side.generator_limited > 0 {
            let _ = writeln!(
                text,
                "{} of {} runs of {name} are GENERATOR_LIMITED: what differs may be the generator",
                side.generator_limited, side.runs
            );
        }
    }
    let _ = write!(text, "\n{}\n", verdict(finding));
    text
}

fn row(text: &mut String, one: &Compared) {
    let [base, now] = [one.against, one.now].map(|value| shown(one.figure, value));
    let ratio = one
        .ratio
        .map_or_else(|| "-".into(), |ratio| format!("{ratio:.3}"));
    let interval = one
        .interval
        .map_or_else(String::new, |(low, high)| format!("{low:.3} to {high:.3}"));
    let p = one.p.map_or_else(String::new, |p| format!(" (p = {p:.3})"));
    let _ = writeln!(
        text,
        "{:<NAME$}{base:>12}{now:>12}{ratio:>9}  {interval:<18}{}{p}",
        title(one.figure),
        said(one.change),
    );
}

fn said(change: Change) -> &'static str {
    match change {
        Change::Better => "better",
        Change::Worse => "worse",
        Change::NoDifference => "no difference",
        Change::TooFewRuns => "too few runs to tell",
        Change::Mixed => "mixed",
    }
}

/// The last lines: what changed, and each bound that did not hold, or that did.
pub(in crate::bench) fn verdict(finding: &Finding) -> String {
    let named = |change| {
        let figures = finding.comparison.figures.iter();
        let of = figures.filter(|one| one.change == change);
        let names: Vec<&str> = of.map(|one| title(one.figure)).collect();
        names.join(", ")
    };
    let mut text = match finding.comparison.change {
        Change::Worse => format!("Worse: {}", named(Change::Worse)),
        Change::Better => format!("Better: {}", named(Change::Better)),
        Change::Mixed => format!(
            "Worse: {}; better: {}",
            named(Change::Worse),
            named(Change::Better)
        ),
        Change::NoDifference => "No difference beyond chance".into(),
        Change::TooFewRuns => match missing(&finding.compare, &finding.against) {
            Some(missing) => format!("Too few runs to tell: make {missing}"),
            None => "Too few runs to tell".into(),
        },
    };
    for held in &finding.held {
        let name = if held.failed { "FAILED" } else { "kept" };
        let _ = write!(text, "\n--fail-on {}: {name}: {}", held.bound, held.reason);
    }
    text
}

/// How many more runs each side needs; `None`: none.
pub(in crate::bench) fn missing(compare: &Side, against: &Side) -> Option<String> {
    let of = |(name, side): (&str, &Side)| {
        let more = LEAST_RUNS.saturating_sub(side.runs);
        (more > 0).then(|| format!("{more} more for {name}"))
    };
    let sides = [("--compare", compare), ("--against", against)];
    let all: Vec<String> = sides.into_iter().filter_map(of).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}
