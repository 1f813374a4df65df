//! Log lines: what is wrong, and a sample of the requests.
//!
//! Enters: events. Leaves: lines of text or JSON on standard error. Must not hold up a request: lines go
//! through a thread of their own, and are dropped when nobody takes them. No header is ever logged.

use std::cell::Cell;
use std::io::IsTerminal as _;
use std::time::Duration;

use hyper::{Method, StatusCode, Uri};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

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
