//! Results for a person: aligned columns, the verdict last, where the eye ends. Pure.

use std::fmt::Write as _;

use crate::bench::judge::criteria::{Criterion, Measured};
use crate::bench::judge::drift::{Drift, Shift};
use crate::bench::judge::handshakes::Handshakes;
use crate::bench::judge::results::{Percentiles, Requests, Results};
use crate::bench::judge::verdict::Verdict;
use crate::objectives::Operations;
use crate::units::{grouped, human_us};

/// Width of the names in front of values.
const NAME: usize = 18;

/// The whole report; `colour` marks the verdict for a terminal.
#[must_use]
pub(in crate::bench) fn render(results: &Results, colour: bool) -> String {
    let mut text = String::new();
    if let Some(request) = results.conditions.request() {
        line(&mut text, "Request", &request);
    }
    rates(results, &mut text);
    times(results, &mut text);
    parts(results, &mut text);
    ledger("Ledger", &results.requests, &mut text);
    if results.warmup.ledger.scheduled > 0 {
        ledger("Warm-up", &results.warmup, &mut text);
    }
    rest(results, &mut text);
    objectives(results, colour, &mut text);
    let (on, off) = match results.verdict {
        _ if !colour => ("", ""),
        Verdict::Pass => (GREEN, OFF),
        _ => (RED, OFF),
    };
    let _ = write!(
        text,
        "\nVerdict: {on}{}{off}: {}\n",
        results.verdict.name(),
        results.reason
    );
    text
}

const GREEN: &str = "\x1b[1;32m";
const RED: &str = "\x1b[1;31m";
const OFF: &str = "\x1b[0m";

fn rates(results: &Results, text: &mut String) {
    let rate = &results.rate;
    let whole = |value: f64| grouped(value.round() as u64);
    line(
        text,
        "Requests/s",
        &format!("{} of {}", whole(rate.achieved_rps), whole(rate.target_rps)),
    );
    line(text, "Key operations/s", &whole(rate.key_ops_per_second));
    if rate.commands_per_second > 0.0 {
        line(text, "Commands/s", &whole(rate.commands_per_second));
    }
}

fn heads(text: &mut String) {
    let _ = write!(text, "\n{:<NAME$}", "");
    for name in ["p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "max"] {
        let _ = write!(text, "{name:>10}");
    }
    text.push('\n');
}

fn row(text: &mut String, name: &str, points: &Percentiles) {
    let _ = writeln!(text, "{name:<NAME$}{}", columns(points));
}

fn times(results: &Results, text: &mut String) {
    heads(text);
    row(text, "Latency", &results.latency_us);
    for (name, points) in [
        ("  lag", &results.lag_us),
        ("  connection wait", &results.connection_wait_us),
        ("  service time", &results.service_us),
        ("  receive delay", &results.receive_delay_us),
    ] {
        row(text, name, points);
    }
    if results.failed_latency_us.count > 0 {
        row(text, "Latency, ok", &results.ok_latency_us);
        row(text, "Latency, failed", &results.failed_latency_us);
    }
    text.push('\n');
}

/// Each stage and each operation by itself, where there are several.
fn parts(results: &Results, text: &mut String) {
    let several_stages = results.stages.len() > 1;
    if !several_stages
        && results
            .stages
            .iter()
            .all(|stage| stage.operations.len() < 2)
    {
        return;
    }
    let _ = writeln!(
        text,
        "{:<NAME$}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "Latency of", "rate", "requested", "failed", "p50", "p99", "p99.9"
    );
    for stage in &results.stages {
        let whole = |value: f64| grouped(value.round() as u64);
        let points = &stage.latency_us;
        if several_stages {
            let _ = writeln!(
                text,
                "{:<NAME$}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
                format!("stage {}", stage.stage),
                whole(stage.rate.achieved_rps),
                whole(stage.rate.target_rps),
                grouped(stage.requests.ledger.failed()),
                human_us(points.p50),
                human_us(points.p99),
                human_us(points.p999)
            );
        }
        if stage.operations.len() < 2 {
            continue;
        }
        for (operation, of) in &stage.operations {
            let points = &of.latency_us;
            let _ = writeln!(
                text,
                "{:<NAME$}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
                format!("  {}", operation.name()),
                "",
                grouped(of.requests.ledger.scheduled),
                grouped(of.requests.ledger.failed()),
                human_us(points.p50),
                human_us(points.p99),
                human_us(points.p999)
            );
        }
    }
    text.push('\n');
}

fn columns(points: &Percentiles) -> String {
    let Percentiles {
        p50,
        p75,
        p90,
        p95,
        p99,
        p999,
        p9999,
        max,
        mean: _,
        count: _,
    } = *points;
    [p50, p75, p90, p95, p99, p999, p9999, max]
        .into_iter()
        .fold(String::new(), |mut row, us| {
            let _ = write!(row, "{:>10}", human_us(us));
            row
        })
}

fn ledger(name: &str, requests: &Requests, text: &mut String) {
    let ledger = &requests.ledger;
    let [scheduled, sent, unsent, ok, errors, timeouts, in_flight] = [
        ledger.scheduled,
        ledger.sent,
        ledger.unsent,
        ledger.ok,
        ledger.errors,
        ledger.timeouts,
        ledger.in_flight,
    ]
    .map(grouped);
    line(
        text,
        name,
        &format!("{scheduled} scheduled = {sent} sent + {unsent} unsent"),
    );
    line(
        text,
        "",
        &format!(
            "{sent} sent = {ok} ok + {errors} errors + {timeouts} timeouts + {in_flight} in flight"
        ),
    );
    for (reason, count) in requests
        .errors_by_cause
        .iter()
        .chain(&requests.unsent_by_reason)
    {
        line(text, "", &format!("{} {reason}", grouped(*count)));
    }
}

/// What else is worth a line.
fn rest(results: &Results, text: &mut String) {
    let drain_us = (results.drain_s * 1e6) as u64;
    let drain = format!("{} waiting for the last answers", human_us(drain_us));
    line(text, "Drain", &drain);
    if let Some(count) = compared(results) {
        let compared = format!("{} answers checked against their records", grouped(count));
        line(text, "Compared", &compared);
    }
    if let Some(books) = &results.reconciliation {
        let remark = if books.counted_less {
            "  (less than the answers account for)"
        } else if books.others_at_work {
            "  (more than requested: other clients used the store)"
        } else {
            ""
        };
        line(
            text,
            "Store's counters",
            &format!(
                "{} of {} keys, {} of {} commands{remark}",
                grouped(books.keys_counted),
                grouped(books.keys_asked),
                grouped(books.commands_counted),
                grouped(books.commands_asked),
            ),
        );
    }
    if let Some(counter) = &results.lost_counter {
        line(text, "Store's counters", &counter.to_string());
    }
    if let Some(handshakes) = &results.tls_handshakes {
        tls(handshakes, results.conditions.certificate_checked, text);
    }
    if results.resent > 0 {
        let resent = format!("{} on another connection", grouped(results.resent));
        line(text, "Resent", &resent);
    }
    for (reason, count) in &results.failed_connects {
        let failed = format!("{} {reason}", grouped(*count));
        line(text, "Failed connects", &failed);
    }
    for (kind, count) in &results.malformed_answers {
        let malformed = format!("{} × {kind}", grouped(*count));
        line(text, "Malformed answers", &malformed);
    }
    if let Some(drift) = &results.drift {
        line(text, "Drift", &drifted(drift));
    }
    let generator = &results.generator;
    line(
        text,
        "Generator",
        &format!(
            "{:.1} µs CPU per request, {:.2} cores, busiest thread {:.0} %",
            generator.cpu_us_per_request,
            generator.cores_used,
            generator.busy_share * 100.0
        ),
    );
}

/// The last third of the measured time against the first.
fn drifted(drift: &Drift) -> String {
    let shown = |name: &str, shift: &Shift| {
        let times = [shift.first_us, shift.last_us].map(|us| human_us(us.round() as u64));
        let change = shift.change() * 100.0;
        format!("{name} {} to {} ({change:+.0} %)", times[0], times[1])
    };
    let figures = [("p50", &drift.p50), ("p99", &drift.p99)];
    let found: Vec<String> = figures
        .iter()
        .filter(|(_, shift)| shift.found)
        .map(|(name, shift)| shown(name, shift))
        .collect();
    if found.is_empty() {
        let all = figures.map(|(name, shift)| shown(name, shift)).join(", ");
        return format!("none beyond chance from the first third to the last: {all}");
    }
    format!(
        "{} from the first third to the last, beyond chance",
        found.join(", ")
    )
}

fn tls(handshakes: &Handshakes, is_checked: Option<bool>, text: &mut String) {
    let resumed = match handshakes.resumed {
        0 => String::new(),
        resumed => format!(" ({} resumed)", grouped(resumed)),
    };
    let unchecked = match is_checked {
        Some(false) => "; certificate not verified (--insecure)",
        _ => "",
    };
    let shown = format!(
        "{}{resumed}, mean {}, max {}{unchecked}",
        grouped(handshakes.count),
        human_us(handshakes.mean_us.round() as u64),
        human_us(handshakes.max_us),
    );
    line(text, "TLS handshakes", &shown);
}

/// Answers that were compared, warm-up included; `None` where none of the arrivals reads a session or is known to read a
/// record.
pub(super) fn compared(results: &Results) -> Option<u64> {
    let tallies = results.evidence.tallies.iter();
    let mut reads = tallies
        .filter(|(_, operation, _)| {
            let is_read = Operations::Reads.contain(*operation);
            is_read || results.conditions.records.is_some()
        })
        .map(|(_, _, tally)| tally.compared)
        .peekable();
    reads.peek()?;
    Some(reads.sum())
}

fn objectives(results: &Results, colour: bool, text: &mut String) {
    text.push('\n');
    for criterion in &results.objectives {
        let (mark, on) = if criterion.met {
            ("✓", GREEN)
        } else {
            ("✗", RED)
        };
        let (on, off) = if colour { (on, OFF) } else { ("", "") };
        let stage = if results.stages.len() > 1 {
            format!("  stage {}", criterion.stage)
        } else {
            String::new()
        };
        let _ = writeln!(
            text,
            "{on}{mark}{off} {:<24}{:>11}{stage}{}",
            criterion.objective,
            criterion.measured.to_string(),
            remark(criterion)
        );
    }
    let bounded = &results.evidence.objectives.objectives;
    if !bounded.bound_latency() {
        text.push_str("  no latency objective\n");
    }
    if !bounded.bound_errors() {
        text.push_str("  no errors objective\n");
    }
}

/// How much a quantile rests on.
fn remark(criterion: &Criterion) -> String {
    match &criterion.measured {
        Measured::Latency {
            samples_beyond,
            resolved,
            ..
        } => {
            let beyond = grouped(*samples_beyond);
            let weak = if *resolved { "" } else { ": not resolved" };
            format!("  {beyond} samples beyond{weak}")
        }
        _ => String::new(),
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:<NAME$}{value}");
}
