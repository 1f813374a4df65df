//! `bench --self-test`: the generator against a server whose answers are known beforehand.
//!
//! Enters: a configuration, of which rate, duration and connections are used. Leaves: the generator's
//! accuracy, its lag, and the rate that it can reach. Must not need a store or another process.
//!
//! A FIFO server that stalls for D every P delays the arrivals due in a stall by what is left of it. At a low
//! load, latency then exceeds x for a share of (D - x) / P of the arrivals, so that the percentile q lies at
//! s + D - (1 - q) P, with s the service time. A generator that waits for answers before it sends the next
//! request, or that measures from sending, reports far less.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::run::{self, Load, Totals};
use super::schedule::Schedule;
use super::target::Way;
use super::workload::{Chooser, Workload, headers};
use crate::cli::Fetch;
use crate::config::BenchConfig;
use crate::exit;
use crate::load::{Arrivals, KeysDist, Mix, Stages};
use crate::output;
use crate::units::{KeyCount, Rate, grouped, human_us};

/// How far a percentile may be from what the stall implies.
const TOLERANCE: f64 = 0.02;
/// Low enough that what a stall gathered is answered in no time.
const ACCURACY_RPS: &str = "1000";
/// Each try for the ceiling.
const CEILING_TRY: Duration = Duration::from_secs(2);
const CEILING_START_RPS: f64 = 10_000.0;
/// A rate is reached when so much of it is answered and the lag stays small.
const CEILING_SHARE: f64 = 0.999;
const CEILING_LAG_US: u64 = 1_000;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/// A server that answers at once, but for its stalls.
struct NullServer {
    address: SocketAddr,
    stop: CancellationToken,
    /// How long its stalls were by its own clock: a sleep may take longer than it was told.
    stalls: Arc<Mutex<Vec<Duration>>>,
}

/// The server stands still for `length` every `period`.
#[derive(Debug, Clone, Copy)]
struct Stall {
    length: Duration,
    period: Duration,
}

impl NullServer {
    /// On a thread of its own, which a stall puts to sleep with all its connections.
    fn start(stall: Option<Stall>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let (address, stop) = (listener.local_addr()?, CancellationToken::new());
        let stopped = stop.clone();
        let stalls = Arc::new(Mutex::new(Vec::new()));
        let noted = stalls.clone();
        std::thread::Builder::new()
            .name("null-server".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let Ok(runtime) = runtime else { return };
                runtime.block_on(async {
                    tokio::select! {
                        _ = accept(listener) => {}
                        () = stand_still(stall, &noted) => {}
                        () = stopped.cancelled() => {}
                    }
                });
            })?;
        Ok(Self {
            address,
            stop,
            stalls,
        })
    }

    fn mean_stall(&self) -> Option<Duration> {
        let stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        let count = u32::try_from(stalls.len())
            .ok()
            .filter(|&count| count > 0)?;
        Some(stalls.iter().sum::<Duration>() / count)
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut request = [0; 4_096];
            while let Ok(1..) = stream.read(&mut request).await {
                if stream.write_all(ANSWER).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn stand_still(stall: Option<Stall>, noted: &Mutex<Vec<Duration>>) {
    let Some(stall) = stall else {
        return std::future::pending().await;
    };
    let began = Instant::now();
    for number in 1_u32.. {
        // In the middle of each period, so that a run of whole periods holds whole stalls.
        let at = stall.period * (number - 1) + stall.period / 2;
        tokio::time::sleep(at.saturating_sub(began.elapsed())).await;
        let stalled = Instant::now();
        // This blocks the runtime, which is the point.
        std::thread::sleep(stall.length);
        let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.push(stalled.elapsed());
    }
}

pub(super) async fn run(config: &BenchConfig, stop: &CancellationToken) -> anyhow::Result<u8> {
    let stall = stall(config);
    let accurate = accuracy(config, stall, stop).await?;
    if stop.is_cancelled() {
        return Ok(exit::INTERRUPTED);
    }
    ceiling(config, stop).await?;
    if stop.is_cancelled() {
        return Ok(exit::INTERRUPTED);
    }
    Ok(if accurate { exit::OK } else { exit::NO })
}

/// A stall of 1 % of its period, three of them in the run.
fn stall(config: &BenchConfig) -> Stall {
    let period = config.stages.duration() / 3;
    Stall {
        length: period / 100,
        period,
    }
}

/// Compares percentiles with what the stall implies.
async fn accuracy(
    config: &BenchConfig,
    stall: Stall,
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    output::say(&format!(
        "Accuracy: {ACCURACY_RPS} requests/s over {} connections for {} against stalls of {} every {}",
        config.connections,
        humantime::format_duration(stall.period * 3),
        humantime::format_duration(stall.length),
        humantime::format_duration(stall.period),
    ));
    let server = NullServer::start(Some(stall))?;
    let rate: Rate = ACCURACY_RPS.parse()?;
    // Arrivals sample a stall in steps, and of a short one the steps are a large part.
    let coarse = 2.0 / (rate.per_second() * stall.length.as_secs_f64());
    let tolerance = TOLERANCE.max(coarse);
    let totals = drive(config, &server, rate, stall.period * 3, stop).await?;
    let stall = Stall {
        length: server.mean_stall().unwrap_or(stall.length),
        ..stall
    };
    let measured = &totals.all.measured;
    let mut accurate = measured.balances() && measured.ledger.failed() == 0;
    let mut text = format!(
        "{:<12}{:>12}{:>12}{:>9}\n",
        "Latency", "implied", "measured", "error"
    );
    for quantile in [0.999, 0.9999] {
        let implied_us = implied_us(stall, measured.latency_us.value_at_quantile(0.5), quantile);
        let found_us = measured.latency_us.value_at_quantile(quantile);
        let error = found_us as f64 / implied_us - 1.0;
        accurate &= error.abs() <= tolerance;
        let _ = writeln!(
            text,
            "{:<12}{:>12}{:>12}{:>8.2} %",
            crate::load::percentile_name(quantile),
            human_us(implied_us.round() as u64),
            human_us(found_us),
            error * 100.0
        );
    }
    let at =
        |histogram: &hdrhistogram::Histogram<u64>| human_us(histogram.value_at_quantile(0.999));
    let _ = writeln!(
        text,
        "p99.9 of lag {}, of connection wait {}, of service time {}",
        at(&measured.lag_us),
        at(&measured.wait_us),
        at(&measured.service_us)
    );
    let not = if accurate { "" } else { "NOT " };
    let _ = writeln!(text, "{not}accurate within {:.0} %", tolerance * 100.0);
    output::print(&text);
    Ok(accurate)
}

/// s + D - (1 - q) P, in microseconds.
fn implied_us(stall: Stall, service_us: u64, quantile: f64) -> f64 {
    let waited_s = stall.length.as_secs_f64() - (1.0 - quantile) * stall.period.as_secs_f64();
    service_us as f64 + waited_s.max(0.0) * 1e6
}

/// Raises the rate until the generator, or the null server beside it, cannot follow.
async fn ceiling(config: &BenchConfig, stop: &CancellationToken) -> anyhow::Result<()> {
    output::say("Ceiling: rising rates against a server that answers at once");
    let server = NullServer::start(None)?;
    let mut per_second = CEILING_START_RPS;
    let mut best = None;
    while !stop.is_cancelled() {
        let rate: Rate = per_second
            .to_string()
            .parse()
            .context("the rate is out of range")?;
        let totals = drive(config, &server, rate, CEILING_TRY, stop).await?;
        let measured = &totals.all.measured;
        let in_time = measured.overrun_us.count_at(0);
        let reached = in_time as f64 / measured.ledger.scheduled.max(1) as f64;
        let lag_p99_us = measured.lag_us.value_at_quantile(0.99);
        output::print(&format!(
            "{:>10} requests/s  {:6.2} % in time  lag p99 {:>9}  {:.1} µs CPU a request, server included\n",
            grouped(per_second as u64),
            reached * 100.0,
            human_us(lag_p99_us),
            totals.cpu.as_secs_f64() * 1e6 / measured.ledger.sent.max(1) as f64
        ));
        if reached < CEILING_SHARE || lag_p99_us > CEILING_LAG_US {
            break;
        }
        best = Some(per_second);
        per_second *= 1.5;
    }
    output::print(&match best {
        Some(best) => format!(
            "Ceiling on this machine: at least {} requests/s\n",
            grouped(best as u64)
        ),
        None => "Not even the lowest rate was reached: the machine is too busy\n".into(),
    });
    Ok(())
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
            template: None,
        },
        way: Way::Http(server.address),
    };
    run::drive(config, &load, stop, &mut ()).await
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
            let found_us = implied_us(stall, 200, quantile);
            assert!(
                (found_us - expected_us).abs() < 1.0,
                "{quantile}: {found_us}"
            );
        }
    }
}
