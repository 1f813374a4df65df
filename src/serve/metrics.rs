//! What is counted, and how a scraper reads it.
//!
//! Enters: requests, commands and key operations, on each thread into counters of its own. Leaves: their sums,
//! in the text format of `OpenMetrics` 1.0. Must not lock on a request's path, nor use a key as a label.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::{Method, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::latency::{Latency, Merged, add};
use super::route::Path;
use crate::process;

/// The methods that have a label of their own; all others share the last.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "other"];
/// The codes that are answered, and 499, as nginx has it, for clients that left before their answer.
const CODES: [u16; 25] = [
    200, 204, 304, 400, 401, 403, 404, 405, 406, 408, 412, 413, 414, 415, 421, 422, 431, 499, 500,
    501, 502, 503, 504, 507, 0,
];
/// A client that went away before its answer was ready.
pub(super) const CLIENT_LEFT: u16 = 499;
const PATHS: usize = Path::ALL.len();

/// A command to the store. The embedded store counts as one what it does in one transaction.
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    Mget,
    Get,
    Mset,
    Set,
    Del,
    Exists,
    Pttl,
    Multi,
    Exec,
    Info,
}
const COMMANDS: [&str; 10] = [
    "mget", "get", "mset", "set", "del", "exists", "pttl", "multi", "exec", "info",
];

/// What is done to a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    Get,
    Set,
    Delete,
    Ttl,
}
const OPS: [&str; 4] = ["get", "set", "delete", "ttl"];

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    Hit,
    Miss,
    Error,
}
const FOUND: [&str; 3] = ["hit", "miss", "error"];

/// The counters of one thread, which alone writes them.
pub(super) struct Counters {
    requests: Box<[AtomicU64]>,
    latency: [Latency; PATHS],
    /// Of the work among them that failed, or whose client left: how fast that is tells nothing of answers.
    failed: Latency,
    in_flight: AtomicU64,
    /// Those of them that are work.
    work_in_flight: AtomicU64,
    commands: [AtomicU64; COMMANDS.len()],
    command_latency: Latency,
    key_ops: [[AtomicU64; FOUND.len()]; OPS.len()],
    store_connections: AtomicUsize,
}

impl Default for Counters {
    fn default() -> Self {
        let requests = PATHS * METHODS.len() * CODES.len();
        Self {
            requests: (0..requests).map(|_| AtomicU64::new(0)).collect(),
            latency: std::array::from_fn(|_| Latency::default()),
            failed: Latency::default(),
            in_flight: AtomicU64::new(0),
            work_in_flight: AtomicU64::new(0),
            commands: Default::default(),
            command_latency: Latency::default(),
            key_ops: Default::default(),
            store_connections: AtomicUsize::new(0),
        }
    }
}

impl Counters {
    /// Counts a request until its entry is dropped.
    pub(super) fn enter(&self, path: Path, method: &Method) -> Entry<'_> {
        add(&self.in_flight, 1);
        if path.is_work() {
            add(&self.work_in_flight, 1);
        }
        let label = METHODS.iter().position(|&name| name == method.as_str());
        Entry {
            counters: self,
            path,
            method: label.unwrap_or(METHODS.len() - 1),
            began: Instant::now(),
            answer: None,
        }
    }

    pub(super) fn command(&self, command: Command, count: usize, took: Duration) {
        add(&self.commands[command as usize], count as u64);
        self.command_latency.record(took);
    }

    pub(super) fn key_ops(&self, op: Op, found: Found, count: usize) {
        add(&self.key_ops[op as usize][found as usize], count as u64);
    }

    pub(super) fn store_connections(&self, up: usize) {
        self.store_connections.store(up, Relaxed);
    }
}

/// A request under way.
pub(super) struct Entry<'a> {
    counters: &'a Counters,
    path: Path,
    method: usize,
    began: Instant,
    answer: Option<(StatusCode, Duration)>,
}

impl Entry<'_> {
    /// The answer is ready; how long that took.
    pub(super) fn answered(mut self, status: StatusCode) -> Duration {
        let took = self.began.elapsed();
        self.answer = Some((status, took));
        took
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let counters = self.counters;
        let (code, took) = match self.answer {
            Some((status, took)) => (status.as_u16(), took),
            None => (CLIENT_LEFT, self.began.elapsed()),
        };
        let has_failed = code >= CLIENT_LEFT;
        let code = CODES.iter().position(|&known| known == code);
        let code = code.unwrap_or(CODES.len() - 1);
        let place = (self.path as usize * METHODS.len() + self.method) * CODES.len() + code;
        add(&counters.requests[place], 1);
        add(&counters.in_flight, u64::MAX);
        if self.path.is_work() {
            add(&counters.work_in_flight, u64::MAX);
        }
        counters.latency[self.path as usize].record(took);
        if has_failed && self.path.is_work() {
            counters.failed.record(took);
        }
    }
}

/// The path that the counter of requests at this place is about.
fn path_at(place: usize) -> Path {
    Path::ALL[place / (METHODS.len() * CODES.len())]
}

/// The counters of all threads.
pub(super) struct Metrics {
    threads: Vec<Arc<Counters>>,
    pub(super) started: SystemTime,
}

impl Metrics {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            threads: (0..threads).map(|_| Arc::default()).collect(),
            started: SystemTime::now(),
        }
    }

    pub(super) fn of_thread(&self, number: usize) -> Arc<Counters> {
        self.threads[number].clone()
    }

    fn sum(&self, counter: impl Fn(&Counters) -> u64) -> u64 {
        self.threads
            .iter()
            .fold(0, |sum, thread| sum.wrapping_add(counter(thread)))
    }

    fn latency(&self, path: Path) -> Merged {
        let mut merged = Merged::default();
        for thread in &self.threads {
            merged.add(&thread.latency[path as usize]);
        }
        merged
    }

    /// Sums for the dashboard, at this moment.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals {
            in_flight: self.sum(|thread| thread.work_in_flight.load(Relaxed)),
            ..Totals::default()
        };
        // Before the others, so that it is never more than what it is a part of.
        let mut failed = Merged::default();
        for thread in &self.threads {
            failed.add(&thread.failed);
        }
        for thread in &self.threads {
            for (place, counter) in thread.requests.iter().enumerate() {
                if !path_at(place).is_work() {
                    continue;
                }
                let count = counter.load(Relaxed);
                totals.requests += count;
                if CODES[place % CODES.len()] >= 500 {
                    totals.errors += count;
                }
            }
            let commands = thread.commands.iter();
            totals.commands += commands.map(|count| count.load(Relaxed)).sum::<u64>();
            for found in &thread.key_ops {
                // What failed is no key that was read or written.
                let done = [Found::Hit, Found::Miss].map(|what| found[what as usize].load(Relaxed));
                totals.key_ops += done.iter().sum::<u64>();
            }
            for path in Path::ALL.into_iter().filter(|path| path.is_work()) {
                totals.latency.add(&thread.latency[path as usize]);
            }
        }
        totals.latency = totals.latency.since(&failed);
        totals
    }

    /// All of it in the text format of `OpenMetrics`.
    pub(super) fn scrape(self: &Arc<Self>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape(self.clone())));
        let mut text = String::with_capacity(16 * 1024);
        prometheus_client::encoding::text::encode(&mut text, &registry)
            .expect("writing to memory cannot fail");
        text
    }
}

/// What the dashboard draws.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub(super) requests: u64,
    /// Answered 500 or above.
    pub(super) errors: u64,
    pub(super) in_flight: u64,
    pub(super) commands: u64,
    pub(super) key_ops: u64,
    /// Of the requests that did not fail.
    pub(super) latency: Merged,
}

struct Scrape(Arc<Metrics>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_requests(&mut encoder)?;
        self.encode_store(&mut encoder)?;
        encode_process(&mut encoder, self.0.started)
    }
}

impl Scrape {
    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = &self.0;
        let help = "Requests by route, method and status code; 499: the client left first";
        let mut family =
            encoder.encode_descriptor("kvpoc_http_requests", help, None, MetricType::Counter)?;
        let places = metrics.threads.first().map_or(0, |one| one.requests.len());
        for place in 0..places {
            let count = metrics.sum(|thread| thread.requests[place].load(Relaxed));
            if count == 0 {
                continue;
            }
            let (rest, code) = (place / CODES.len(), CODES[place % CODES.len()]);
            let path = path_at(place).template();
            let method = METHODS[rest % METHODS.len()];
            let code = code.to_string();
            counter(
                &mut family,
                &[("route", path), ("method", method), ("code", &code)],
                count,
            )?;
        }
        let mut family = encoder.encode_descriptor(
            "kvpoc_http_request_duration",
            "Time from the head of a request to its answer, before it is sent",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for path in Path::ALL {
            let latency = metrics.latency(path);
            if latency.count() > 0 {
                histogram(&mut family, &[("route", path.template())], &latency)?;
            }
        }
        gauge(
            encoder,
            "kvpoc_http_requests_in_flight",
            "Requests that are being answered",
            metrics.sum(|thread| thread.in_flight.load(Relaxed)) as f64,
        )
    }

    fn encode_store(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = &self.0;
        let help = "Keys read and written: an MGET of 15 keys is 15";
        let mut family =
            encoder.encode_descriptor("kvpoc_key_ops", help, None, MetricType::Counter)?;
        for (op, name) in OPS.iter().enumerate() {
            for (found, result) in FOUND.iter().enumerate() {
                let count = metrics.sum(|thread| thread.key_ops[op][found].load(Relaxed));
                counter(&mut family, &[("op", name), ("result", result)], count)?;
            }
        }
        let help = "Commands to the store: an MGET of 15 keys is 1";
        let mut family =
            encoder.encode_descriptor("kvpoc_store_commands", help, None, MetricType::Counter)?;
        for (command, name) in COMMANDS.iter().enumerate() {
            let count = metrics.sum(|thread| thread.commands[command].load(Relaxed));
            counter(&mut family, &[("cmd", name)], count)?;
        }
        let mut merged = Merged::default();
        for thread in &metrics.threads {
            merged.add(&thread.command_latency);
        }
        let mut family = encoder.encode_descriptor(
            "kvpoc_store_command_duration",
            "Time from handing commands over to the store's client until their answer",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        family.encode_histogram::<NoLabelSet>(
            merged.sum_us as f64 / 1e6,
            merged.count(),
            &merged.by_bound(),
            None,
        )?;
        gauge(
            encoder,
            "kvpoc_store_connections",
            "Connections to the store that are up; those to all masters of a cluster count as one for each thread",
            metrics.sum(|thread| thread.store_connections.load(Relaxed) as u64) as f64,
        )
    }
}

fn counter(family: &mut MetricEncoder<'_>, labels: &[(&str, &str)], count: u64) -> fmt::Result {
    family
        .encode_family(&labels)?
        .encode_counter::<NoLabelSet, u64, f64>(&count, None)
}

fn histogram(
    family: &mut MetricEncoder<'_>,
    labels: &[(&str, &str)],
    latency: &Merged,
) -> fmt::Result {
    family
        .encode_family(&labels)?
        .encode_histogram::<NoLabelSet>(
            latency.sum_us as f64 / 1e6,
            latency.count(),
            &latency.by_bound(),
            None,
        )
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    encoder
        .encode_descriptor(name, help, None, MetricType::Gauge)?
        .encode_gauge(&value)
}

/// The process metrics that Prometheus's client libraries agree on; what the system does not tell is left out.
fn encode_process(encoder: &mut DescriptorEncoder<'_>, started: SystemTime) -> fmt::Result {
    let mut family =
        encoder.encode_descriptor("kvpoc_build", "This program", None, MetricType::Info)?;
    family.encode_info(&[
        ("version", env!("CARGO_PKG_VERSION")),
        ("commit", env!("KVPOC_COMMIT")),
    ])?;
    let started_s = started
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64());
    gauge(
        encoder,
        "process_start_time_seconds",
        "Start of the process since the Unix epoch",
        started_s,
    )?;
    let help = "CPU time, of user and system";
    encoder
        .encode_descriptor(
            "process_cpu",
            help,
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?
        .encode_counter::<NoLabelSet, f64, f64>(&process::cpu_time().as_secs_f64(), None)?;
    for (name, help, value) in [
        (
            "process_resident_memory_bytes",
            "Memory in use",
            process::resident_bytes(),
        ),
        (
            "process_open_fds",
            "Open file descriptors",
            process::open_files(),
        ),
        (
            "process_max_fds",
            "Most file descriptors that may be open",
            process::max_open_files(),
        ),
    ] {
        if let Some(value) = value {
            gauge(encoder, name, help, value as f64)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
