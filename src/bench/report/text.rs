//! Results for a person: aligned columns, the verdict last, where the eye ends. Pure.

use std::fmt::Write as _;

use super::{Percentiles, Requests, Results};
use crate::bench::verdict::Verdict;
use crate::units::{grouped, human_us};

/// The whole report; `colour` marks the verdict for a terminal.
#[must_use]
pub fn render(results: &Results, colour: bool) -> String {
    let mut text = String::new();
    rates(results, &mut text);
    times(results, &mut text);
    ledger("Ledger", &results.requests, &mut text);
    if results.warmup.ledger.scheduled > 0 {
        ledger("Warm-up", &results.warmup, &mut text);
    }
    let drain_us = (results.drain_s * 1e6) as u64;
    line(
        &mut text,
        "Drain",
        &format!("{} for the last answers", human_us(drain_us)),
    );
    if let Some(books) = &results.reconciliation {
        let sign = if books.notable {
            "  (more than 0.1 % apart)"
        } else {
            ""
        };
        line(
            &mut text,
            "Store's counters",
            &format!(
                "{} keys of {}, {} commands of {}{sign}",
                grouped(books.keys_counted),
                grouped(books.keys_asked),
                grouped(books.commands_counted),
                grouped(books.commands_asked),
            ),
        );
    }
    for (reason, count) in &results.failed_connects {
        line(
            &mut text,
            "Failed connects",
            &format!("{} {reason}", grouped(*count)),
        );
    }
    let generator = &results.generator;
    line(
        &mut text,
        "Generator",
        &format!(
            "{:.1} µs CPU a request, {:.2} cores, busiest thread {:.0} %",
            generator.cpu_us_per_request,
            generator.cores_used,
            generator.busy_share * 100.0
        ),
    );
    let (on, off) = match results.verdict {
        _ if !colour => ("", ""),
        Verdict::Pass => ("\x1b[1;32m", "\x1b[0m"),
        _ => ("\x1b[1;31m", "\x1b[0m"),
    };
    let _ = write!(
        text,
        "\nVerdict: {on}{}{off}: {}\n",
        results.verdict.name(),
        results.reason
    );
    text
}

fn rates(results: &Results, text: &mut String) {
    let rate = &results.rate;
    let whole = |value: f64| grouped(value.round() as u64);
    line(
        text,
        "Requests/s",
        &format!("{} of {}", whole(rate.achieved_rps), whole(rate.target_rps)),
    );
    line(text, "Key operations/s", &whole(rate.key_ops_per_second));
    line(text, "Commands/s", &whole(rate.commands_per_second));
}

fn times(results: &Results, text: &mut String) {
    let _ = writeln!(
        text,
        "\n{:<18}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "", "p50", "p90", "p99", "p99.9", "max"
    );
    for (name, points) in [
        ("Latency", &results.latency_us),
        ("  lag", &results.lag_us),
        ("  connection wait", &results.connection_wait_us),
        ("  service time", &results.service_us),
    ] {
        let _ = writeln!(text, "{name:<18}{}", columns(points));
    }
    text.push('\n');
}

fn columns(points: &Percentiles) -> String {
    [points.p50, points.p90, points.p99, points.p999, points.max]
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

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:<18}{value}");
}
