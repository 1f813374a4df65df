//! The figures behind the page at `/`: one sample a second, five minutes of them.
//!
//! Enters: the sums of all threads' counters, once a second. Leaves: JSON. Must not ask the store: whoever
//! looks does that, at most once a second.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hyper::header::HeaderValue;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::latency::Merged;
use super::metrics::{Metrics, Totals};
use super::unix_seconds;
use crate::config::Fetch;
use crate::store::{StoreError, StoreStats};

/// The page itself.
pub(super) const PAGE: &str = include_str!("dashboard.html");
/// The page brings all that it needs: its one style and its one script, by their hashes. Whatever else got into it may
/// neither run nor reach out, and no other page may hold it in a frame.
pub(super) const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; \
     style-src 'sha256-sac57++0XH+jW6/ztaNJ/j8F21PQM6F0zQ6jEYnAqqM='; \
     script-src 'sha256-ad9tacOtOhZI5iR3YeB160369cvOaKMsiUa7IbQEdqg='; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const KEPT_SECONDS: usize = 300;
const MINUTE_SECONDS: usize = 60;

/// The last five minutes.
pub(super) struct Dashboard {
    metrics: Arc<Metrics>,
    threads: usize,
    store_url: String,
    started_s: u64,
    began: Instant,
    history: Mutex<History>,
}

#[derive(Default)]
struct History {
    seconds: VecDeque<Second>,
    /// Latencies of each of the last 60 seconds, in step with the end of `seconds`.
    minute: VecDeque<Merged>,
    last: Totals,
}

/// One second.
#[derive(Debug, Clone, serde::Serialize)]
struct Second {
    at_s: u64,
    requests: u64,
    key_ops: u64,
    commands: u64,
    errors: u64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

impl Dashboard {
    /// An empty history of a server with so many threads over this store.
    pub(super) fn new(metrics: Arc<Metrics>, threads: usize, store_url: &str) -> Self {
        let started_s = unix_seconds(metrics.started);
        Self {
            metrics,
            threads,
            store_url: store_url.to_owned(),
            started_s,
            began: Instant::now(),
            history: Mutex::default(),
        }
    }

    /// Samples each second, for ever.
    pub(super) async fn sample(&self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        // A burst of late ticks would draw seconds that never were.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let totals = self.metrics.totals();
            // The wall clock may be set; the seconds of a history must not repeat.
            let at_s = self.started_s + self.began.elapsed().as_secs_f64().round() as u64;
            self.history().push(at_s, totals);
        }
    }

    /// All that the page shows, with the seconds after `after_s`.
    pub(super) fn json(
        &self,
        after_s: u64,
        store: Result<(StoreStats, Fetch), StoreError>,
    ) -> Value {
        let totals = self.metrics.totals();
        let history = self.history();
        let mut minute = Merged::default();
        for second in &history.minute {
            minute.absorb(second);
        }
        let (stats, error) = match store {
            Ok(stats) => (Some(stats), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let newer = history
            .seconds
            .iter()
            .filter(|second| second.at_s > after_s);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "threads": self.threads,
            "started_s": self.started_s,
            "now_s": unix_seconds(SystemTime::now()),
            "store": stats.map(|(stats, fetch)| json!({
                "url": self.store_url,
                "engine": stats.engine,
                "version": stats.version,
                "threads": stats.threads,
                "fetch": fetch.name(),
                "keys": stats.keys,
                "memory_bytes": stats.memory_bytes,
                "max_memory_bytes": stats.max_memory_bytes,
                "commands_per_second": stats.commands_per_second,
            })),
            "store_error": error,
            "latency_us": {
                "since_start": percentiles(&totals.latency),
                "last_minute": percentiles(&minute),
            },
            "requests": {
                "total": totals.requests,
                "errors": totals.errors,
                "in_flight": totals.in_flight,
            },
            "seconds": newer.collect::<Vec<_>>(),
        })
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    fn push(&mut self, at_s: u64, totals: Totals) {
        let latency = totals.latency.since(&self.last.latency);
        let last_s = self.seconds.back().map(|second| second.at_s);
        // More than one when the machine was too busy to look; the page shows a gap before it.
        let seconds = last_s
            .map_or(1, |last_s| at_s.saturating_sub(last_s))
            .max(1);
        let rate = |now: u64, then: u64| now.saturating_sub(then) / seconds;
        self.seconds.push_back(Second {
            at_s,
            requests: rate(totals.requests, self.last.requests),
            key_ops: rate(totals.key_ops, self.last.key_ops),
            commands: rate(totals.commands, self.last.commands),
            errors: rate(totals.errors, self.last.errors),
            p50_us: latency.quantile_us(0.5),
            p99_us: latency.quantile_us(0.99),
        });
        self.minute.push_back(latency);
        if self.seconds.len() > KEPT_SECONDS {
            self.seconds.pop_front();
        }
        if self.minute.len() > MINUTE_SECONDS {
            self.minute.pop_front();
        }
        self.last = totals;
    }
}

fn percentiles(latency: &Merged) -> Value {
    json!({
        "count": latency.count(),
        "p50": latency.quantile_us(0.5),
        "p99": latency.quantile_us(0.99),
        "max": latency.quantile_us(1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;

    #[test]
    fn each_second_holds_what_came_in_it_and_old_ones_go() {
        let mut history = History::default();
        for second in 1..=400_u64 {
            history.push(
                second,
                Totals {
                    requests: second * 10,
                    errors: second / 100,
                    ..Totals::default()
                },
            );
        }
        assert_eq!(history.seconds.len(), KEPT_SECONDS);
        assert_eq!(history.minute.len(), MINUTE_SECONDS);
        assert!(history.seconds.iter().all(|second| second.requests == 10));
        assert_eq!(
            history
                .seconds
                .back()
                .map(|second| (second.at_s, second.errors)),
            Some((400, 1))
        );
    }

    #[test]
    fn the_policy_lets_the_page_run_as_it_is_and_nothing_else() {
        let policy = POLICY;
        let policy = policy.to_str().expect("text");
        for tag in ["style", "script"] {
            let (start, end) = (format!("<{tag}>"), format!("</{tag}>"));
            assert_eq!(PAGE.matches(&start).count(), 1);
            let (_, rest) = PAGE.split_once(&start).expect("a start");
            let (text, _) = rest.split_once(&end).expect("an end");
            let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
            let source = format!("{tag}-src 'sha256-{}'", BASE64_STANDARD.encode(hash));
            assert!(policy.contains(&source), "write {source}");
        }
        assert!(
            !policy.contains("unsafe") && !PAGE.contains(" style=") && !PAGE.contains(" onclick=")
        );
    }

    #[test]
    fn only_newer_seconds_are_sent() {
        let dashboard = Dashboard::new(Arc::new(Metrics::new(1)), 1, "redis://x");
        for second in 1..=5 {
            dashboard.history().push(second, Totals::default());
        }
        let json = dashboard.json(3, Err(StoreError::Unavailable("gone".into())));
        assert_eq!(json["seconds"].as_array().map(Vec::len), Some(2));
        assert_eq!(json["store"], Value::Null);
        assert_eq!(json["store_error"], "the store cannot be reached: gone");
    }
}
