//! Log lines: what is wrong, and a sample of the requests.
//!
//! Enters: events. Leaves: lines of text or JSON on standard error. Must not hold up a request: lines go
//! through a thread of their own, and are dropped when nobody takes them. No header is ever logged.

use std::cell::Cell;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use hyper::{Method, StatusCode, Uri};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

use super::unix_seconds;
use crate::cli::LogFormat;
use crate::config::LogConfig;
use crate::random::{chance, splitmix64};

/// Begins to log; what is not yet written is flushed when the guard is dropped.
pub(super) fn start(config: &LogConfig) -> WorkerGuard {
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.filter))
        .with_ansi(std::io::stderr().is_terminal() && config.format == LogFormat::Text)
        .with_target(false)
        .with_writer(writer);
    match config.format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    guard
}

/// A warning that whoever asks can bring about as often as they like.
pub(super) struct Seldom {
    /// When it was said last, in seconds since the Unix epoch.
    said_s: AtomicU64,
    left_out: AtomicU64,
}

impl Seldom {
    pub(super) const fn new() -> Self {
        Self {
            said_s: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    /// How often it was left out since it was said last, if it may be said now.
    pub(super) fn may_say(&self) -> Option<u64> {
        self.may_say_at(unix_seconds(SystemTime::now()))
    }

    fn may_say_at(&self, now_s: u64) -> Option<u64> {
        let is_due = |said_s: u64| (now_s >= said_s + SAY_AGAIN_S).then_some(now_s);
        if self.said_s.fetch_update(Relaxed, Relaxed, is_due).is_ok() {
            return Some(self.left_out.swap(0, Relaxed));
        }
        self.left_out.fetch_add(1, Relaxed);
        None
    }
}

/// Lines about requests, a share of them, drawn without a pattern that a client could fall in step with.
pub(super) struct AccessLog {
    share: f64,
    asked: Cell<u64>,
}

impl AccessLog {
    pub(super) fn new(share: f64) -> Self {
        Self {
            share,
            asked: Cell::new(0),
        }
    }

    pub(super) fn note(&self, method: &Method, uri: &Uri, status: StatusCode, took: Duration) {
        if self.share == 0.0 {
            return;
        }
        let number = self.asked.get();
        self.asked.set(number + 1);
        if chance(splitmix64(ACCESS_SEED, number), self.share) {
            tracing::info!(
                %method,
                target = %uri,
                status = status.as_u16(),
                took_us = took.as_micros() as u64,
                "request"
            );
        }
    }
}

/// Any number does.
const ACCESS_SEED: u64 = 0x6c6f_6773;
/// Between two of the same [`Seldom`] warnings.
const SAY_AGAIN_S: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_said_seldom_and_tells_what_was_left_out() {
        let seldom = Seldom::new();
        let said: Vec<_> = (100..125)
            .filter_map(|now_s| seldom.may_say_at(now_s))
            .collect();
        assert_eq!(said, [0, 9, 9]);
    }
}
