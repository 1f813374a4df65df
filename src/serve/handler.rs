//! One request: route → store → reply.
//!
//! Enters: a request. Leaves: a reply, always, within the store's deadline. Must not hold more requests
//! than a fixed number: beyond it the answer is 503 at once.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use tokio_util::sync::CancellationToken;

use super::reply::{self, Problem, Reply};
use super::route::{Limits, Route, route};
use crate::config::ServeConfig;
use crate::record::put_key;
use crate::store::{DatasetInfo, Store, StoreError, StoreStats};
use crate::units::MAX_VALUE_BYTES;

/// Requests that may wait for the store on one thread; at 20,000 a second this is 0.2 s of them.
const MAX_WAITING: usize = 4_096;
/// A body of at most 1 MiB that takes longer is not going to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The store is asked for its statistics at most this often, whatever the clients do.
const STATS_AGE: Duration = Duration::from_secs(1);

/// All that one thread needs to answer.
pub(super) struct Handler {
    store: Store,
    key_prefix: String,
    limits: Limits,
    waiting: Cell<usize>,
    clock: RefCell<Clock>,
    stats: Arc<StatsCache>,
    stop: CancellationToken,
}

/// The last statistics, shared by all threads.
#[derive(Default)]
pub(super) struct StatsCache(Mutex<CachedStats>);

#[derive(Default)]
struct CachedStats {
    asked: Option<Instant>,
    body: Option<Bytes>,
}

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
            waiting: Cell::new(0),
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
        // Liveness does not depend on the store, nor on how many wait for it.
        let _place = match route {
            Route::Livez => None,
            _ => Some(self.take_place()?),
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
                self.store.put(key, read_body(body).await?, ttl).await?;
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
        if let Some(body) = self.stats.fresh_or_claim() {
            return Ok(reply::json(body));
        }
        let body = self.read_stats().await;
        // On a failure nobody is told yesterday's figures as if they were today's.
        self.stats.put(body.as_ref().ok().cloned());
        Ok(reply::json(body?))
    }

    async fn read_stats(&self) -> Result<Bytes, StoreError> {
        let stats = self.store.stats().await?;
        let dataset = self.store.dataset().await?;
        let now_s = unix_seconds(SystemTime::now());
        Ok(stats_body(&stats, dataset.as_ref(), now_s))
    }

    fn take_place(&self) -> Result<Place<'_>, Problem> {
        let waiting = self.waiting.get();
        if waiting >= MAX_WAITING {
            let detail = "too many requests wait for the store".to_owned();
            return Err(StoreError::Unavailable(detail).into());
        }
        self.waiting.set(waiting + 1);
        Ok(Place(&self.waiting))
    }
}

impl StatsCache {
    /// The last body while it is fresh, or while somebody else renews it; `None`: the caller renews it.
    fn fresh_or_claim(&self) -> Option<Bytes> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = cached
            .asked
            .is_some_and(|asked| asked.elapsed() < STATS_AGE);
        if !fresh {
            cached.asked = Some(Instant::now());
            return None;
        }
        cached.body.clone()
    }

    fn put(&self, body: Option<Bytes>) {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cached.body = body;
    }
}

/// One waiting request, counted until it is dropped, also when its client goes away.
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
    fn one_caller_in_a_second_renews_the_statistics() {
        let cache = StatsCache::default();
        assert_eq!(cache.fresh_or_claim(), None);
        cache.put(Some(Bytes::from_static(b"{}")));
        assert_eq!(cache.fresh_or_claim(), Some(Bytes::from_static(b"{}")));
    }

    #[test]
    fn the_clock_prints_the_second() {
        let mut clock = Clock::default();
        let text = clock.now().to_owned();
        assert!(humantime::parse_rfc3339(&text).is_ok(), "{text}");
    }
}
