//! The report as one page: no script, no outside request, light and dark, fit to print. Pure.
//!
//! Enters: results, series, an earlier run. Leaves: HTML. Must not trust what a target or a file says of
//! itself: all of it is escaped.

use std::fmt::Write as _;

use serde_json::Value;

use super::charts::{by_percentile, in_flight_chart, lag_chart, latency_chart, rate_chart};
use super::{compare, text};
use crate::bench::judge::criteria::Measured;
use crate::bench::judge::results::{Percentiles, Requests, Results};
use crate::bench::judge::series::Series;
use crate::units::{grouped, human_us};

pub(super) const STYLE: &str = "
:root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--dim:#667;--grid:#dde;--a:#0b62c4;--b:#c2410c;--c:#7c3aed;--good:#15803d;--bad:#b91c1c}
@media(prefers-color-scheme:dark){:root{--fg:#e6e8eb;--bg:#14171a;--dim:#99a;--grid:#2c3238;--a:#6cb2ff;--b:#ff9d66;--c:#c4a1ff;--good:#4ade80;--bad:#f87171}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--fg);background:var(--bg);margin:0 auto;max-width:1400px;padding:1rem}
h1{font-size:1.3rem;margin:.2rem 0}h2{font-size:1rem;margin:1.2rem 0 .3rem}
.PASS{color:var(--good)}.TARGET_MISSED,.GENERATOR_LIMITED,.INVALID{color:var(--bad)}
section{min-width:0;overflow-x:auto}td:last-child{overflow-wrap:break-word}td:nth-child(n+2):not(:nth-child(2):last-child){white-space:nowrap}
main{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,600px),1fr));gap:0 2rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.15rem .4rem;border-bottom:1px solid var(--grid)}th:first-child,td:first-child{text-align:left}
svg{width:100%;height:auto}svg text{fill:var(--dim);font-size:11px}.grid{stroke:var(--grid)}
polyline{fill:none;stroke-width:1.6;stroke:currentColor}.a{color:var(--a)}.b{color:var(--b)}.c{color:var(--c)}.d{color:var(--dim);stroke-width:4;stroke-opacity:.4}
.shade{fill:var(--grid);fill-opacity:.5}.legend{margin:0;font-size:.85rem}.legend span::before{content:'— '}.note{color:var(--dim);font-size:.85rem}
@media print{body{max-width:none}section{break-inside:avoid}}
";

/// The whole page; `live` makes the browser ask again each second.
pub(in crate::bench) fn page(
    heading: &str,
    results: &Results,
    series: &Series,
    earlier: Option<&Value>,
    live: bool,
) -> String {
    let refresh = if live {
        "<meta http-equiv=\"refresh\" content=\"1\">"
    } else {
        ""
    };
    // A run that goes on has no verdict yet.
    let class = if live { "d" } else { results.verdict.name() };
    let mut html = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">{refresh}\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <link rel=\"icon\" href=\"data:,\"><title>kvpoc bench: {0}</title><style>{STYLE}</style></head>\
         <body><h1 class=\"{class}\">{0}</h1><p>{1}</p><main>",
        escaped(heading),
        headline(results),
    );
    section(&mut html, "Objectives", &objectives(results));
    section(
        &mut html,
        "Latency by percentile",
        &by_percentile(series, earlier),
    );
    section(&mut html, "Requests/s", &rate_chart(&series.points));
    section(
        &mut html,
        "Latency over time",
        &latency_chart(&series.points),
    );
    section(
        &mut html,
        "Requests in flight",
        &in_flight_chart(&series.points),
    );
    section(&mut html, "Generator lag", &lag_chart(&series.points));
    section(&mut html, "Latency breakdown", &times(results));
    section(&mut html, "Stages and operations", &stages(results));
    section(&mut html, "Ledger", &ledger(results));
    if let Some(earlier) = earlier {
        section(
            &mut html,
            "Comparison with the earlier run",
            &compared(earlier, results),
        );
    }
    section(&mut html, "Conditions", &conditions(results));
    html += "</main></body></html>\n";
    html
}

fn headline(results: &Results) -> String {
    let rate = &results.rate;
    let whole = |value: f64| grouped(value.round() as u64);
    format!(
        "{} of {} requests/s · {} key operations/s · {} commands/s · latency from the due time p50 {}, p99 {}, \
         p99.9 {}",
        whole(rate.achieved_rps),
        whole(rate.target_rps),
        whole(rate.key_ops_per_second),
        whole(rate.commands_per_second),
        human_us(results.latency_us.p50),
        human_us(results.latency_us.p99),
        human_us(results.latency_us.p999),
    )
}

fn section(html: &mut String, title: &str, body: &str) {
    let _ = write!(html, "<section><h2>{title}</h2>{body}</section>");
}

pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = String>| {
        cells.fold(String::new(), |row, cell| {
            row + &format!("<{tag}>{}</{tag}>", escaped(&cell))
        })
    };
    let mut html = String::from("<table>");
    if !head.is_empty() {
        let names = cells("th", &mut head.iter().map(|&name| name.to_owned()));
        let _ = write!(html, "<tr>{names}</tr>");
    }
    for row in rows {
        let _ = write!(html, "<tr>{}</tr>", cells("td", &mut row.iter().cloned()));
    }
    html + "</table>"
}

fn objectives(results: &Results) -> String {
    let rows: Vec<Vec<String>> = results
        .objectives
        .iter()
        .map(|criterion| {
            let mark = if criterion.met { "✓" } else { "✗" };
            let beyond = match &criterion.measured {
                Measured::Latency {
                    samples_beyond,
                    resolved,
                    ..
                } => {
                    let weak = if *resolved { "" } else { ", not resolved" };
                    format!("{}{weak}", grouped(*samples_beyond))
                }
                _ => String::new(),
            };
            vec![
                format!("{mark} {}", criterion.objective),
                criterion.measured.to_string(),
                criterion.stage.to_string(),
                beyond,
            ]
        })
        .collect();
    let head = ["", "measured", "worst stage", "samples beyond"];
    let mut html = table(&head, &rows);
    let bounded = &results.evidence.objectives.objectives;
    if !bounded.bound_latency() {
        html += "<p class=\"note\">no latency objective</p>";
    }
    if !bounded.bound_errors() {
        html += "<p class=\"note\">no errors objective</p>";
    }
    html
}

fn stages(results: &Results) -> String {
    let whole = |value: f64| grouped(value.round() as u64);
    let mut rows = Vec::new();
    for stage in &results.stages {
        let row = |name: String, rate: [String; 2], failed: u64, points: &Percentiles| {
            let [reached, asked] = rate;
            let times = [points.p50, points.p99, points.p999].map(human_us);
            let mut row = vec![name, reached, asked, grouped(failed)];
            row.extend(times);
            row
        };
        rows.push(row(
            format!("stage {}", stage.stage),
            [whole(stage.rate.achieved_rps), whole(stage.rate.target_rps)],
            stage.requests.ledger.failed(),
            &stage.latency_us,
        ));
        for (operation, of) in &stage.operations {
            rows.push(row(
                operation.name().into(),
                [String::new(), grouped(of.requests.ledger.scheduled)],
                of.requests.ledger.failed(),
                &of.latency_us,
            ));
        }
    }
    let head = [
        "",
        "requests/s",
        "requested",
        "failed",
        "p50",
        "p99",
        "p99.9",
    ];
    table(&head, &rows)
}

fn times(results: &Results) -> String {
    let row = |name: &str, points: &Percentiles| {
        let values = [
            points.p50,
            points.p75,
            points.p90,
            points.p95,
            points.p99,
            points.p999,
            points.p9999,
            points.max,
        ];
        let mut row = vec![name.to_owned()];
        row.extend(values.map(human_us));
        row
    };
    let head = [
        "", "p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "max",
    ];
    let mut rows = vec![
        row("latency", &results.latency_us),
        row("generator lag", &results.lag_us),
        row("connection wait", &results.connection_wait_us),
        row("service time", &results.service_us),
        row("receive delay", &results.receive_delay_us),
    ];
    if results.failed_latency_us.count > 0 {
        rows.push(row("latency, ok", &results.ok_latency_us));
        rows.push(row("latency, failed", &results.failed_latency_us));
    }
    table(&head, &rows)
}

fn ledger(results: &Results) -> String {
    let counts = |requests: &Requests| {
        let ledger = &requests.ledger;
        [
            ("scheduled", ledger.scheduled),
            ("= sent", ledger.sent),
            ("+ unsent", ledger.unsent),
            ("sent", ledger.sent),
            ("= ok", ledger.ok),
            ("+ errors", ledger.errors),
            ("+ timeouts", ledger.timeouts),
            ("+ in flight", ledger.in_flight),
        ]
    };
    let pairs = counts(&results.requests)
        .into_iter()
        .zip(counts(&results.warmup));
    let rows: Vec<Vec<String>> = pairs
        .map(|((name, measured), (_, warmup))| {
            vec![name.to_owned(), grouped(measured), grouped(warmup)]
        })
        .collect();
    let mut html = table(&["", "measured", "warm-up"], &rows);
    let requests = &results.requests;
    let reasons = requests
        .errors_by_cause
        .iter()
        .chain(&requests.unsent_by_reason);
    let reasons: Vec<String> = reasons
        .map(|(reason, count)| format!("{} {reason}", grouped(*count)))
        .collect();
    if !reasons.is_empty() {
        let _ = write!(html, "<p>{}</p>", escaped(&reasons.join(", ")));
    }
    html
}

fn compared(earlier: &Value, results: &Results) -> String {
    let rows: Vec<Vec<String>> = compare::rows(earlier, results)
        .iter()
        .map(|row| {
            let ratio = row.ratio();
            vec![
                row.name.to_owned(),
                row.shown(row.before),
                row.shown(row.after),
                ratio,
            ]
        })
        .collect();
    let mut html = table(&["", "before", "now", "ratio"], &rows);
    for difference in compare::differences(earlier, results) {
        let _ = write!(
            html,
            "<p class=\"note\">differs: {}</p>",
            escaped(&difference)
        );
    }
    html
}

fn conditions(results: &Results) -> String {
    let Ok(Value::Object(members)) = serde_json::to_value(&results.conditions) else {
        return String::new();
    };
    let mut rows = Vec::new();
    for (name, value) in members {
        let shown = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Object(parts) => {
                let parts = parts
                    .iter()
                    .map(|(name, value)| format!("{name} {:.3}", value.as_f64().unwrap_or(0.0)));
                parts.collect::<Vec<_>>().join(", ").replace('_', " ")
            }
            other => other.to_string(),
        };
        rows.push(vec![name.replace('_', " "), shown]);
    }
    let generator = &results.generator;
    rows.push(vec![
        "generator".into(),
        format!(
            "{:.1} µs CPU per request, {:.2} cores",
            generator.cpu_us_per_request, generator.cores_used
        ),
    ]);
    if let Some(count) = text::compared(results) {
        let shown = format!("{} answers checked against their records", grouped(count));
        rows.push(vec!["compared".into(), shown]);
    }
    if let Some(books) = &results.reconciliation {
        rows.push(vec![
            "store's counters".into(),
            format!(
                "{} of {} keys, {} of {} commands",
                grouped(books.keys_counted),
                grouped(books.keys_asked),
                grouped(books.commands_counted),
                grouped(books.commands_asked)
            ),
        ]);
    }
    if let Some(counter) = &results.lost_counter {
        rows.push(vec!["store's counters".into(), counter.to_string()]);
    }
    table(&[], &rows)
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_target_says_becomes_markup() {
        assert_eq!(
            escaped("<b>&\"x\"</b>"),
            "&lt;b&gt;&amp;&quot;x&quot;&lt;/b&gt;"
        );
    }
}
