//! One request: route → store → reply.
//!
//! Enters: a request. Leaves: a reply, always, within the store's deadline. Must not hold more requests
//! than a fixed number: beyond it the answer is 503 at once.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::reply::{self, Problem, Reply};
use super::route::{Limits, Route, route};
use crate::config::ServeConfig;
use crate::record::put_key;
use crate::store::{DatasetInfo, Store, StoreError, StoreStats};
use crate::units::MAX_VALUE_BYTES;

/// Requests that may wait for the store on one thread; at 20,000 a second this is 0.2 s of them.
const MAX_WAITING: usize = 4_096;
/// Bodies of at most 1 MiB that one thread reads at once.
const MAX_BODIES: usize = 64;
/// A body of at most 1 MiB that takes longer is not going to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The store is asked for its statistics at most this often, whatever the clients do.
const STATS_AGE: Duration = Duration::from_secs(1);

/// All that one thread needs to answer.
pub(super) struct Handler {
    store: Store,
    key_prefix: String,
    limits: Limits,
    waiting: Places,
    bodies: Places,
    clock: RefCell<Clock>,
    stats: Arc<StatsCache>,
    stop: CancellationToken,
}

/// The last statistics, or why there are none, shared by all threads. Whoever finds them old renews them; the
/// others wait for that, no longer than the store's deadline.
#[derive(Default)]
pub(super) struct StatsCache(Mutex<Option<(Instant, Result<Bytes, StoreError>)>>);

/// The current second as text, formatted once a second.
#[derive(Default)]
struct Clock {
    second: u64,
    text: String,
}

impl Clock {
    fn now(&mut self) -> &str {
        let now = SystemTime::now();
        let second = unix_seconds(now);
        if second != self.second {
            self.second = second;
            self.text = humantime::format_rfc3339_seconds(now).to_string();
        }
        &self.text
    }
}

fn unix_seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl Handler {
    pub(super) fn new(
        config: &ServeConfig,
        store: Store,
        stats: Arc<StatsCache>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            store,
            key_prefix: config.key_prefix.clone(),
            limits: Limits {
                allow_writes: config.allow_writes,
                max_keys_per_request: config.max_keys_per_request,
            },
            waiting: Places::new(MAX_WAITING),
            bodies: Places::new(MAX_BODIES),
            clock: RefCell::default(),
            stats,
            stop,
        }
    }

    /// Answers one request; every failure is an answer too.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Reply {
        self.try_answer(request)
            .await
            .unwrap_or_else(Problem::into_reply)
    }

    async fn try_answer(&self, request: Request<Incoming>) -> Result<Reply, Problem> {
        let (head, body) = request.into_parts();
        let route = route(&head.method, head.uri.path(), head.uri.query(), self.limits)?;
        let _place = match route {
            // Liveness does not depend on the store, nor on how many wait for it.
            Route::Livez => None,
            Route::PutKey(..) => Some(self.bodies.take()?),
            _ => Some(self.waiting.take()?),
        };
        match route {
            Route::Session(id) => {
                let values = self.store.get_many(self.keys(&[id])).await?;
                let value = values.first().and_then(Option::as_ref);
                reply::session(id, value, self.clock.borrow_mut().now())
            }
            Route::Sessions(ids) => {
                let values = self.store.get_many(self.keys(&ids)).await?;
                reply::sessions(&ids, &values, self.clock.borrow_mut().now())
            }
            Route::GetKey(key) => {
                let key = Bytes::copy_from_slice(&key);
                let values = self.store.get_many(vec![key]).await?;
                reply::value(values.into_iter().next().flatten())
            }
            Route::PutKey(key, ttl) => {
                let key = Bytes::copy_from_slice(&key);
                let value = read_body(body).await?;
                // Only now: a slow client must not take the place of one that waits for the store.
                let _place = self.waiting.take()?;
                self.store.put(key, value, ttl).await?;
                Ok(reply::no_content())
            }
            Route::DeleteKey(key) => {
                if self.store.delete(Bytes::copy_from_slice(&key)).await? {
                    Ok(reply::no_content())
                } else {
                    reply::value(None)
                }
            }
            Route::Stats => self.stats().await,
            Route::Readyz => self.readyz().await,
            Route::Livez => Ok(reply::text("alive\n")),
        }
    }

    /// The keys of `ids`, slices of one buffer: two allocations, whatever their number.
    fn keys(&self, ids: &[u64]) -> Vec<Bytes> {
        // Twenty digits hold any id.
        let mut buffer = BytesMut::with_capacity(ids.len() * (self.key_prefix.len() + 20));
        let mut keys = Vec::with_capacity(ids.len());
        for &id in ids {
            put_key(&self.key_prefix, id, &mut buffer);
            keys.push(buffer.split().freeze());
        }
        keys
    }

    async fn readyz(&self) -> Result<Reply, Problem> {
        if self.stop.is_cancelled() {
            let detail = "the server is draining";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
        }
        match self.store.dataset().await {
            Ok(_) => Ok(reply::text("ready\n")),
            Err(error) => Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                error.to_string(),
            )),
        }
    }

    async fn stats(&self) -> Result<Reply, Problem> {
        let mut last = self.stats.0.lock().await;
        let body = match &*last {
            Some((asked, outcome)) if asked.elapsed() < STATS_AGE => outcome.clone(),
            _ => {
                let outcome = self.read_stats().await;
                *last = Some((Instant::now(), outcome.clone()));
                outcome
            }
        };
        Ok(reply::json(body?))
    }

    async fn read_stats(&self) -> Result<Bytes, StoreError> {
        let stats = self.store.stats().await?;
        let dataset = self.store.dataset().await?;
        let now_s = unix_seconds(SystemTime::now());
        Ok(stats_body(&stats, dataset.as_ref(), now_s))
    }
}

/// A bounded number of requests of one thread.
struct Places {
    taken: Cell<usize>,
    all: usize,
}

impl Places {
    fn new(all: usize) -> Self {
        Self {
            taken: Cell::new(0),
            all,
        }
    }

    /// One place, or 503 at once.
    fn take(&self) -> Result<Place<'_>, Problem> {
        let taken = self.taken.get();
        if taken >= self.all {
            let detail = "too many requests are waiting already";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
        }
        self.taken.set(taken + 1);
        Ok(Place(&self.taken))
    }
}

/// Given back when it is dropped, also when its client goes away.
struct Place<'a>(&'a Cell<usize>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn read_body(body: Incoming) -> Result<Bytes, Problem> {
    let limited = Limited::new(body, MAX_VALUE_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, limited).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a value has at most {MAX_VALUE_BYTES} bytes"),
        )),
        Ok(Err(error)) => Err(Problem::new(StatusCode::BAD_REQUEST, error.to_string())),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive",
        )),
    }
}

/// The members of the older service keep their names; what the store does not tell is `null`.
fn stats_body(stats: &StoreStats, dataset: Option<&DatasetInfo>, timestamp_s: u64) -> Bytes {
    serde_json::json!({
        "ops_per_sec": stats.commands_per_second,
        "memory_used": stats.memory_bytes,
        "total_keys": stats.keys,
        "engine": stats.engine,
        "engine_version": stats.version,
        "commands_processed": stats.commands_processed,
        "key_reads": stats.key_reads,
        "dataset": dataset,
        "timestamp": timestamp_s,
    })
    .to_string()
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let places = Places::new(2);
        let (first, _second) = (places.take().ok(), places.take().ok());
        assert!(places.take().is_err());
        drop(first);
        assert!(places.take().is_ok());
    }

    #[test]
    fn the_clock_prints_the_second() {
        let mut clock = Clock::default();
        let text = clock.now().to_owned();
        assert!(humantime::parse_rfc3339(&text).is_ok(), "{text}");
    }
}
