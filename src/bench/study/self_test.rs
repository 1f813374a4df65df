//! `bench --self-test`: the generator against a server whose answers are known beforehand.
//!
//! Enters: a configuration, of which rate, duration and connections are used. Leaves: the generator's
//! accuracy, its lag, and the rate that it can reach. Must not need a store or another process.
//!
//! A FIFO server that stalls for D every P delays the arrivals due in a stall by what is left of it. At a low
//! load, latency then exceeds x for a share of (D - x) / P of the arrivals, so that the percentile q lies at
//! s + D - (1 - q) P, and the median at s, with s the service time by the server's own clock. A generator that waits for
//! answers before it sends the next request, or that measures from sending, reports far less; one that wakes late, or
//! takes answers late, reports more, and most clearly at the median.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::null_server::{NullServer, Stall};
use crate::bench::drive::addresses::Addresses;
use crate::bench::drive::{self, Load, Totals, Way};
use crate::bench::judge::flow::Outline;
use crate::bench::judge::histogram::value_at;
use crate::bench::judge::rate;
use crate::bench::plan::keys::Chooser;
use crate::bench::plan::schedule::Schedule;
use crate::bench::plan::workload::{Workload, headers};
use crate::bench::report;
use crate::bench::report::json_file::JsonFile;
use crate::config::{BenchConfig, Fetch, SELF_TEST_RPS};
use crate::exit;
use crate::load::{Arrivals, KeysDist, Mix, Stages};
use crate::objectives::Quantile;
use crate::output;
use crate::units::{KeyCount, Rate, grouped, human_duration, human_us};

/// How far a percentile may be from what is implied, as a share of it,
const TOLERANCE: f64 = 0.02;
/// or in microseconds: a request's way over loopback, there and back, with a wake-up on either side.
const TOLERANCE_US: f64 = 300.0;
/// Largest lag p99, unless the tolerance of a whole stall is more: a machine with nothing else to do wakes a thread well
/// within it.
const MAX_LAG_US: u64 = 1_000;
/// Each try for the ceiling.
const CEILING_TRY: Duration = Duration::from_secs(2);
const CEILING_START_RPS: f64 = 10_000.0;
/// A rate is reached when so much of it is answered and the lag stays small.
const CEILING_SHARE: f64 = 0.999;
/// Tries of a rate before it is given up.
const TRIES: u32 = 2;
/// From one rate to the next, until one is not reached.
const CLIMB: f64 = 1.5;
/// The ceiling is known when the next rate that was not reached is so close.
const CLOSE: f64 = 1.02;
/// A machine on which not even this is reached is too busy.
const LEAST_RPS: f64 = 100.0;

/// What was found; the JSON file is exactly this.
#[derive(serde::Serialize)]
struct Finding {
    /// Version of this form.
    schema: u32,
    /// `self-test`.
    study: &'static str,
    accuracy: Accuracy,
    ceiling: Ceiling,
}

/// Percentiles of latency against what the server's own clock implies.
#[derive(serde::Serialize)]
struct Accuracy {
    accurate: bool,
    rate_rps: f64,
    /// By the server's clock.
    service_p50_us: f64,
    /// Likewise.
    stall_ms: f64,
    percentiles: Vec<Row>,
    lag_p99_us: u64,
    max_lag_us: u64,
    failed: u64,
}

#[derive(serde::Serialize)]
struct Row {
    percentile: String,
    implied_us: f64,
    measured_us: u64,
    tolerance_us: f64,
    accurate: bool,
}

/// The highest rate that was reached, and the lowest one that was not.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
struct Ceiling {
    reached_rps: Option<f64>,
    not_reached_rps: Option<f64>,
}

pub(super) async fn run(config: &BenchConfig, stop: &CancellationToken) -> anyhow::Result<u8> {
    let json = JsonFile::create(&config.outputs)?;
    let accuracy = accuracy(config, stop).await?;
    if stop.is_cancelled() {
        return Ok(exit::INTERRUPTED);
    }
    json.show(&accuracy.text());
    // What the machine does to any rate is no ceiling.
    let max_lag_us = MAX_LAG_US.max(2 * accuracy.lag_p99_us);
    let ceiling = find_ceiling((config, &json), max_lag_us, stop).await?;
    json.show(&ceiling.text());
    let accurate = accuracy.accurate;
    let finding = Finding {
        schema: 1,
        study: "self-test",
        accuracy,
        ceiling,
    };
    json.write(&report::json(&finding)?)?;
    Ok(match accurate {
        _ if stop.is_cancelled() => exit::INTERRUPTED,
        true => exit::OK,
        false => exit::NO,
    })
}

/// `--rps`, or what fits when nobody gave it.
fn asked_or(config: &BenchConfig, default: f64) -> anyhow::Result<Rate> {
    let asked = config.stages.0.first().filter(|_| config.given.rps);
    Ok(match asked {
        Some(stage) => stage.from,
        None => default.to_string().parse()?,
    })
}

/// Compares percentiles with what a stall of 1 % of its period implies, three of them in the run.
async fn accuracy(config: &BenchConfig, stop: &CancellationToken) -> anyhow::Result<Accuracy> {
    let period = config.stages.duration() / 3;
    let stall = Stall {
        length: period / 100,
        period,
    };
    let rate = asked_or(config, SELF_TEST_RPS)?;
    output::say(&format!(
        "Accuracy: {rate} requests/s over {} connections for {} against stalls of {} every {}",
        config.connections,
        human_duration(config.stages.duration()),
        human_duration(stall.length),
        human_duration(stall.period),
    ));
    let server = NullServer::start(Some(stall))?;
    // Arrivals sample a stall in steps, and of a short one the steps are a large part.
    let step_us = 2e6 / rate.per_second();
    let totals = drive(config, &server, rate, stall.period * 3, stop).await?;
    let stall = Stall {
        length: server.mean_stall().unwrap_or(stall.length),
        ..stall
    };
    let measured = &totals.all.tallies.measured();
    let (latency_us, service_us) = (measured.latency_us(), server.service_p50_us());
    let row = |ten_thousand| {
        let quantile = Quantile::of_ten_thousand(ten_thousand);
        let implied_us = implied_us(stall, service_us, f64::from(ten_thousand) / 1e4);
        let in_stall_us = implied_us - service_us;
        let coarse_us = if in_stall_us > 0.0 { step_us } else { 0.0 };
        let tolerance_us = (implied_us * TOLERANCE).max(TOLERANCE_US).max(coarse_us);
        let measured_us = value_at(&latency_us, quantile);
        Row {
            percentile: quantile.to_string(),
            implied_us,
            measured_us,
            tolerance_us,
            accurate: (measured_us as f64 - implied_us).abs() <= tolerance_us,
        }
    };
    let percentiles: Vec<Row> = [5_000, 9_990, 9_999].map(row).into();
    let lag_p99_us = value_at(&measured.lag_us, Quantile::of_ten_thousand(9_900));
    let failed = measured.ledger.failed();
    let max_lag_us = MAX_LAG_US.max((stall.length.as_secs_f64() * 1e6 * TOLERANCE) as u64);
    let close = percentiles.iter().all(|row| row.accurate) && lag_p99_us <= max_lag_us;
    Ok(Accuracy {
        accurate: close && failed == 0 && measured.balances(),
        rate_rps: rate.per_second(),
        service_p50_us: service_us,
        stall_ms: stall.length.as_secs_f64() * 1e3,
        percentiles,
        lag_p99_us,
        max_lag_us,
        failed,
    })
}

/// s + D - (1 - q) P, in microseconds, and s where no stall reaches.
fn implied_us(stall: Stall, service_us: f64, quantile: f64) -> f64 {
    let waited_s = stall.length.as_secs_f64() - (1.0 - quantile) * stall.period.as_secs_f64();
    service_us + waited_s.max(0.0) * 1e6
}

impl Accuracy {
    fn text(&self) -> String {
        let mut text = format!(
            "{:<12}{:>12}{:>12}{:>12}{:>14}\n",
            "Latency", "implied", "measured", "error", "tolerance"
        );
        for row in &self.percentiles {
            let error_us = row.measured_us as f64 - row.implied_us;
            let sign = if error_us < 0.0 { "-" } else { "+" };
            let us = |us: f64| human_us(us.abs().round() as u64);
            let _ = writeln!(
                text,
                "{:<12}{:>12}{:>12}{:>12}{:>14}{}",
                row.percentile,
                us(row.implied_us),
                human_us(row.measured_us),
                format!("{sign}{}", us(error_us)),
                us(row.tolerance_us),
                mark(row.accurate),
            );
        }
        let _ = writeln!(
            text,
            "{:<12}{:>12}{:>12}{:>12}{:>14}{}",
            "p99 of lag",
            "0 µs",
            human_us(self.lag_p99_us),
            format!("+{}", human_us(self.lag_p99_us)),
            human_us(self.max_lag_us),
            mark(self.lag_p99_us <= self.max_lag_us),
        );
        let not = if self.accurate { "" } else { "NOT " };
        let _ = writeln!(
            text,
            "{not}accurate within the largest of {:.0} %, {TOLERANCE_US:.0} µs and two arrivals, and within a lag p99 of \
             {}; {} requests failed",
            TOLERANCE * 100.0,
            human_us(self.max_lag_us),
            grouped(self.failed),
        );
        text
    }
}

fn mark(accurate: bool) -> &'static str {
    if accurate { "" } else { "  NOT accurate" }
}

impl Ceiling {
    /// The rate to try next; `None`: it is known, or out of reach.
    fn next(self, start: f64) -> Option<f64> {
        match (self.reached_rps, self.not_reached_rps) {
            (None, None) => Some(start),
            (Some(reached), None) => Some(reached * CLIMB),
            (None, Some(failed)) => Some(failed / CLIMB).filter(|&rate| rate >= LEAST_RPS),
            (Some(reached), Some(failed)) => {
                // The middle of the two on the scale that the bound is on.
                (failed / reached > CLOSE).then(|| (reached * failed).sqrt().round())
            }
        }
    }

    fn text(self) -> String {
        let shown = |rate: f64| grouped(rate.round() as u64);
        match (self.reached_rps, self.not_reached_rps) {
            (Some(reached), Some(failed)) => format!(
                "Ceiling on this machine: {} requests/s; {} requests/s failed\n",
                shown(reached),
                shown(failed)
            ),
            (Some(reached), None) => format!(
                "Ceiling on this machine: at least {} requests/s\n",
                shown(reached)
            ),
            (None, _) => "The lowest rate failed: the machine is too busy\n".into(),
        }
    }
}

/// Raises the rate until the generator, or the null server beside it, cannot follow, and halves the distance from there.
/// A rate is given up when it was missed each time: a hiccup misses any.
async fn find_ceiling(
    (config, json): (&BenchConfig, &JsonFile),
    max_lag_us: u64,
    stop: &CancellationToken,
) -> anyhow::Result<Ceiling> {
    output::say("Ceiling: raising the rate against a built-in server that answers immediately");
    let server = NullServer::start(None)?;
    let start = asked_or(config, CEILING_START_RPS)?.per_second();
    let mut ceiling = Ceiling::default();
    while let Some(per_second) = ceiling.next(start) {
        // Beyond what a rate may be there is nothing to reach.
        let Ok(rate) = per_second.to_string().parse::<Rate>() else {
            break;
        };
        let mut is_reached = false;
        for _ in 0..TRIES {
            if !is_reached && !stop.is_cancelled() {
                let totals = drive(config, &server, rate, CEILING_TRY, stop).await?;
                let (share, lag_p99_us) = reached(&totals);
                json.show(&row(rate, share, lag_p99_us, &totals));
                is_reached = share >= CEILING_SHARE && lag_p99_us <= max_lag_us;
            }
        }
        if stop.is_cancelled() {
            break;
        }
        if is_reached {
            ceiling.reached_rps = Some(per_second);
        } else {
            ceiling.not_reached_rps = Some(per_second);
        }
    }
    Ok(ceiling)
}

/// Share of a try's rate that was answered in time, and its lag p99.
fn reached(totals: &Totals) -> (f64, u64) {
    let measured = &totals.all.tallies.measured();
    let kept = rate::pace(&totals.flow, 1, 1, CEILING_SHARE).share();
    let good = measured.ledger.ok as f64 / measured.ledger.scheduled.max(1) as f64;
    let lag_p99_us = value_at(&measured.lag_us, Quantile::of_ten_thousand(9_900));
    (kept.min(good), lag_p99_us)
}

fn row(rate: Rate, share: f64, lag_p99_us: u64, totals: &Totals) -> String {
    let sent = totals.all.tallies.measured().ledger.sent.max(1);
    format!(
        "{:>10} requests/s  {:6.2} % in time  lag p99 {:>9}  {:.1} µs CPU per request, server included\n",
        grouped(rate.per_second().round() as u64),
        share * 100.0,
        human_us(lag_p99_us),
        totals.cpu.as_secs_f64() * 1e6 / sent as f64
    )
}

async fn drive(
    config: &BenchConfig,
    server: &NullServer,
    rate: Rate,
    duration: Duration,
    stop: &CancellationToken,
) -> anyhow::Result<Totals> {
    let stages = Stages::steady(rate, duration);
    let schedule = Schedule::new(&stages, Duration::ZERO, Arrivals::Constant, config.seed);
    let keys = KeyCount::new(1_000_000).context("a million is a count")?;
    let load = Load {
        start_at: None,
        schedule: Arc::new(schedule),
        outline: Outline::new(Duration::ZERO, &stages),
        workload: Workload {
            mix: Mix::Single,
            chooser: Chooser::new(KeysDist::Uniform, keys),
            keys_per_request: 1,
            seed: config.seed,
            verify: 0.0,
            dataset: None,
            key_prefix: String::new(),
            headers: headers(&server.address.to_string(), None),
            fetch: Fetch::Mget,
            form: None,
        },
        way: Way::Http(Addresses::only(server.address)),
        cut: stop.child_token(),
    };
    drive::drive(config, &load, stop, &mut ()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_implies_its_percentiles() {
        let stall = Stall {
            length: Duration::from_millis(100),
            period: Duration::from_secs(10),
        };
        for (quantile, expected_us) in [(0.999, 90_200.0), (0.9999, 99_200.0), (0.5, 200.0)] {
            let found_us = implied_us(stall, 200.0, quantile);
            assert!(
                (found_us - expected_us).abs() < 1.0,
                "{quantile}: {found_us}"
            );
        }
    }

    #[test]
    fn the_ceiling_is_found_to_two_percent_from_either_side() {
        for (start, limit) in [
            (10_000.0, 45_000.0),
            (10_000.0, 1_234.0),
            (45_000.0, 45_000.0),
        ] {
            let mut ceiling = Ceiling::default();
            let mut tries = 0;
            while let Some(rate) = ceiling.next(start) {
                tries += 1;
                if rate <= limit {
                    ceiling.reached_rps = Some(rate);
                } else {
                    ceiling.not_reached_rps = Some(rate);
                }
            }
            let (reached, failed) = (ceiling.reached_rps, ceiling.not_reached_rps);
            let (reached, failed) = (reached.expect("a rate"), failed.expect("a rate"));
            assert!(
                reached <= limit && failed > limit && failed / reached <= 1.02,
                "{ceiling:?}"
            );
            assert!(tries < 16, "{tries}");
        }
    }

    #[test]
    fn a_machine_that_reaches_nothing_is_given_up() {
        let (mut ceiling, mut tries) = (Ceiling::default(), 0);
        while let Some(rate) = ceiling.next(10_000.0) {
            ceiling.not_reached_rps = Some(rate);
            tries += 1;
        }
        assert!(tries < 20 && ceiling.text().contains("too busy"));
    }
}
