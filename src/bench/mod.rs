//! `kvpoc bench`: drives a running serve open-loop, and gives a verdict.
//!
//! Enters: a [`BenchConfig`] and a stop signal. Leaves: a report, a JSON file if asked for, and the
//! verdict's exit code. Must not touch the load while it runs: the threads of `target` own it, and this
//! module only adds up what they send.

pub mod http;
mod pacer;
mod probe;
pub mod queue;
pub mod report;
pub mod schedule;
pub mod tally;
mod target;
pub mod verdict;
pub mod workload;

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::BenchConfig;
use crate::output;
use crate::progress::Progress;
use crate::units::{KeyCount, grouped, human_us, micros};
use probe::TargetInfo;
use report::{Conditions, Generator, Keys, Percentiles, Rates, Requests, Results};
use schedule::{Phase, Schedule};
use tally::{Cause, Tally};
use target::{Interval, Lines, Rest, Share};
use verdict::Facts;
use workload::Workload;

/// Between the last connection and the first arrival, so that every thread is waiting when it comes.
const START_AFTER: Duration = Duration::from_millis(20);
/// Intervals that may wait to be added up, for each thread.
const INTERVALS: usize = 4;
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Off a terminal each second is a line; half of it, so that no tick is dropped for coming early.
const PLAIN_PROGRESS: Duration = Duration::from_millis(500);

/// Runs the load, prints the report, and returns the verdict's exit code.
///
/// # Errors
/// When the target cannot be used, or the results cannot be written.
pub async fn run(config: BenchConfig, stop: CancellationToken) -> anyhow::Result<u8> {
    let (address, info) = probe::probe(&config.target).await?;
    let keys = dataset_keys(&config, &info)?;
    // Found out before the run, not after it.
    let file = config.json.as_ref().map(|file| {
        File::create(file).with_context(|| format!("cannot write --json {}", file.display()))
    });
    let file = file.transpose()?;
    announce(&config, &info, keys);
    let started_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let cpu_before = cpu_time();
    let started = Instant::now();
    let mut totals = drive(&config, address, keys, &stop).await?;
    let generator = generator(
        cpu_time().saturating_sub(cpu_before),
        started.elapsed(),
        &totals,
    );
    totals.interrupted = stop.is_cancelled();
    let results = results(
        &config,
        &totals,
        generator,
        conditions(&config, info, keys, started_at),
    );
    output::print(&report::text::render(
        &results,
        std::io::stdout().is_terminal(),
    ));
    if let Some(mut file) = file {
        let json = serde_json::to_string_pretty(&results)? + "\n";
        file.write_all(json.as_bytes()).context("writing --json")?;
    }
    Ok(results.verdict.exit_code())
}

fn dataset_keys(config: &BenchConfig, info: &TargetInfo) -> anyhow::Result<KeyCount> {
    let told = || KeyCount::new(info.dataset.as_ref()?.keys);
    config.keys.or_else(told).with_context(|| {
        format!(
            "{} does not tell how many keys its dataset has; load one with kvpoc seed, or give --keys",
            config.target
        )
    })
}

fn announce(config: &BenchConfig, info: &TargetInfo, keys: KeyCount) {
    output::say(&format!(
        "Driving {} ({} {}) at {} requests/s × {} of {} keys for {} after {} of warm-up",
        config.target,
        info.engine.as_deref().unwrap_or("unknown store"),
        info.engine_version.as_deref().unwrap_or_default(),
        grouped(config.rps.per_second().round() as u64),
        config.keys_per_request,
        grouped(keys.get()),
        humantime::format_duration(config.duration),
        humantime::format_duration(config.warmup),
    ));
}

/// All that the threads counted.
struct Totals {
    all: Interval,
    /// Where the schedule ended, or was left.
    end_ns: u64,
    /// Of the busiest thread.
    busy_share: f64,
    interrupted: bool,
}

/// Starts the threads together, adds up what they report, and closes the books.
async fn drive(
    config: &BenchConfig,
    address: SocketAddr,
    keys: KeyCount,
    stop: &CancellationToken,
) -> anyhow::Result<Totals> {
    let schedule = Schedule::new(config.rps, config.warmup, config.duration);
    let threads = config.threads as u64;
    let (intervals, mut received) = mpsc::channel(INTERVALS * config.threads);
    let mut running = Vec::new();
    for number in 0..threads {
        running.push(spawn(
            share(config, schedule, address, keys, number),
            &intervals,
            stop,
        )?);
    }
    drop(intervals);
    let mut starts = Vec::new();
    let mut ends = Vec::new();
    for thread in running {
        // A thread that cannot connect drops its line, and its end tells why.
        if thread.ready.await.is_ok() {
            starts.push(thread.start);
        }
        ends.push(thread.end);
    }
    if starts.len() == ends.len() {
        let start = Instant::now() + START_AFTER;
        for line in starts {
            let _ = line.send(start);
        }
    }
    let mut totals = Totals {
        all: Interval::new(schedule.measured_until_ns()),
        end_ns: 0,
        busy_share: 0.0,
        interrupted: false,
    };
    add_up(&mut totals.all, &mut received, &schedule).await;
    for (number, end) in (0..threads).zip(ends) {
        let rest = end.await.context("a generator thread panicked")??;
        totals.all.add(&rest.interval);
        totals.end_ns = totals.end_ns.max(rest.end_ns);
        totals.busy_share = totals.busy_share.max(rest.busy_share);
        // From the schedule, not from the events: so a lost arrival shows.
        let dealt = |phase| schedule.scheduled(phase, rest.end_ns, (number, threads));
        totals.all.warmup.ledger.scheduled += dealt(Phase::Warmup);
        totals.all.measured.ledger.scheduled += dealt(Phase::Measured);
    }
    Ok(totals)
}

/// The ends of one thread's lines.
struct Running {
    ready: oneshot::Receiver<()>,
    start: oneshot::Sender<Instant>,
    end: oneshot::Receiver<anyhow::Result<Rest>>,
}

fn spawn(
    share: Share,
    intervals: &mpsc::Sender<Interval>,
    stop: &CancellationToken,
) -> anyhow::Result<Running> {
    let (ready, is_ready) = oneshot::channel();
    let (start, starts) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let lines = Lines {
        ready,
        start: starts,
        intervals: intervals.clone(),
        stop: stop.clone(),
    };
    std::thread::Builder::new()
        .name(format!("bench-{}", share.number))
        .spawn(move || {
            let _ = end.send(target::run(share, lines));
        })?;
    Ok(Running {
        ready: is_ready,
        start,
        end: ended,
    })
}

fn share(
    config: &BenchConfig,
    schedule: Schedule,
    address: SocketAddr,
    keys: KeyCount,
    number: u64,
) -> Share {
    let dealt = |total: usize| (total + config.threads - 1 - number as usize) / config.threads;
    Share {
        schedule,
        workload: Workload {
            keys,
            keys_per_request: config.keys_per_request,
            seed: config.seed,
            authority: config.target.authority(),
        },
        number,
        threads: config.threads as u64,
        address,
        connections: dealt(config.connections),
        max_in_flight: dealt(config.max_in_flight),
        tick: config.tick,
        timeout: config.timeout,
        drain: config.drain,
    }
}

/// Adds up the intervals until every thread has hung up, and shows each second what came in.
async fn add_up(all: &mut Interval, received: &mut mpsc::Receiver<Interval>, schedule: &Schedule) {
    let mut progress = Progress::new(schedule.total(), "requests", PLAIN_PROGRESS);
    let mut ticks =
        tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
    let empty = || Interval::new(schedule.measured_until_ns());
    let mut second = empty();
    let mut done = 0;
    loop {
        tokio::select! {
            interval = received.recv() => {
                let Some(interval) = interval else { break };
                all.add(&interval);
                second.add(&interval);
            }
            _ = ticks.tick() => {
                let Interval { warmup, mut measured, unfinished, .. } =
                    std::mem::replace(&mut second, empty());
                measured.add(&warmup);
                done += measured.latency_us.len();
                progress.update(done, || progress_words(&measured, unfinished));
            }
        }
    }
    progress.finish();
}

fn progress_words(second: &Tally, unfinished: usize) -> String {
    let at = |quantile| human_us(second.latency_us.value_at_quantile(quantile));
    format!(
        "{} ok/s  p50 {}  p99 {}  lag p99 {}  in flight {}  failed {}",
        grouped(second.ledger.ok),
        at(0.5),
        at(0.99),
        human_us(second.lag_us.value_at_quantile(0.99)),
        grouped(unfinished as u64),
        grouped(second.ledger.failed()),
    )
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn generator(cpu: Duration, elapsed: Duration, totals: &Totals) -> Generator {
    let sent = totals.all.warmup.ledger.sent + totals.all.measured.ledger.sent;
    Generator {
        cpu_s: cpu.as_secs_f64(),
        cpu_us_per_request: cpu.as_secs_f64() * 1e6 / sent.max(1) as f64,
        cores_used: cpu.as_secs_f64() / elapsed.as_secs_f64(),
        busy_share: totals.busy_share,
    }
}

fn conditions(
    config: &BenchConfig,
    info: TargetInfo,
    keys: KeyCount,
    started_at: String,
) -> Conditions {
    Conditions {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("KVPOC_COMMIT"),
        cpu_count: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        store_engine: info.engine,
        store_version: info.engine_version,
        store_keys: info.total_keys,
        target: config.target.to_string(),
        started_at,
        duration_s: config.duration.as_secs_f64(),
        warmup_s: config.warmup.as_secs_f64(),
        keys: keys.get(),
        keys_per_request: config.keys_per_request,
        connections: config.connections,
        threads: config.threads,
        tick_us: micros(config.tick),
        timeout_s: config.timeout.as_secs_f64(),
        seed: config.seed,
    }
}

fn results(
    config: &BenchConfig,
    totals: &Totals,
    generator: Generator,
    conditions: Conditions,
) -> Results {
    let (warmup, measured) = (&totals.all.warmup, &totals.all.measured);
    let schedule = Schedule::new(config.rps, config.warmup, config.duration);
    let scheduled_s = scheduled_seconds(&schedule, totals.end_ns);
    let seconds = scheduled_s + overrun_seconds(measured);
    let achieved_rps = measured.ledger.ok as f64 / seconds;
    let wrong_answers = |tally: &Tally| tally.causes.get(&Cause::WrongAnswer).copied().unwrap_or(0);
    let (verdict, reason) = verdict::judge(&Facts {
        ledger: measured.ledger,
        balances: measured.balances() && warmup.balances(),
        interrupted: totals.interrupted,
        misses: measured.misses + warmup.misses,
        wrong_answers: wrong_answers(measured) + wrong_answers(warmup),
        scheduled_rps: measured.ledger.scheduled as f64 / scheduled_s,
        achieved_rps,
        lag_p99_us: measured.lag_us.value_at_quantile(0.99),
        max_lag: config.max_lag,
        busy_share: totals.busy_share,
    });
    Results {
        verdict,
        reason,
        requests: Requests::of(measured),
        rate: Rates {
            target_rps: config.rps.per_second(),
            achieved_rps,
            key_ops_per_second: (measured.hits + measured.misses) as f64 / seconds,
            commands_per_second: achieved_rps,
        },
        latency_us: Percentiles::of(&measured.latency_us),
        lag_us: Percentiles::of(&measured.lag_us),
        connection_wait_us: Percentiles::of(&measured.wait_us),
        service_us: Percentiles::of(&measured.service_us),
        keys: Keys {
            hits: measured.hits,
            misses: measured.misses,
        },
        failed_connects: totals.all.failed_connects.clone(),
        warmup: Requests::of(warmup),
        generator,
        conditions,
    }
}

/// Length of the measured part as far as it was followed; never 0, so that rates are numbers.
fn scheduled_seconds(schedule: &Schedule, end_ns: u64) -> f64 {
    let from_ns = schedule.measured_from_ns();
    let until_ns = schedule.measured_until_ns().min(end_ns);
    (until_ns.saturating_sub(from_ns).max(1)) as f64 / 1e9
}

/// What 99.9 % of the good answers took beyond the end of the measured part, less the least latency: an
/// answer takes its time at any rate, and only a backlog makes the rate lower than was asked for.
fn overrun_seconds(measured: &Tally) -> f64 {
    let overrun_us = measured.overrun_us.value_at_quantile(0.999);
    let least_us = measured.latency_us.min();
    overrun_us.saturating_sub(least_us) as f64 / 1e6
}
