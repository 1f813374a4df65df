//! One request: route → store → reply.
//!
//! Enters: a request. Leaves: a reply, always: each question to the store has its deadline, and so has a body.
//! Must not hold more requests than a fixed number: beyond it the answer is 503 at once.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::EXPECT;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, Response, StatusCode};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, Held, Places};
use super::dashboard::{self, Dashboard};
use super::keys::{Keys, SessionKeys};
use super::log::AccessLog;
use super::metrics::{Counters, Metrics};
use super::negotiate::{Form, has_other_conditions, is_json, names_tag, only_if_absent};
use super::reply::{self, Ending, Problem, Reply};
use super::route::{Limits, Path, Route, route};
use super::{access, body, unix_seconds, upstash};
use crate::cli::Fetch;
use crate::config::{AccessConfig, ServeConfig};
use crate::store::{DatasetInfo, Store, StoreError, StoreStats};
use crate::units::MAX_VALUE_BYTES;

/// The `OpenAPI` document of this server.
const OPENAPI: &str = include_str!("openapi.json");
/// Answers that do not count in what is held: the number of connections bounds them.
const SMALL_ANSWER_BYTES: usize = 64 * 1024;
/// JSON that carries one value of 1 MiB in base64, or many small ones.
const MAX_JSON_BYTES: usize = 2 * 1024 * 1024;
/// A body that takes longer is not going to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// What is taken of a body after its answer, and for how long: as much as any body may have, once more. A
/// connection that is closed with bytes unread is reset, and the reset can overtake the answer that says why.
const MAX_REST_BYTES: usize = 2 * MAX_JSON_BYTES;
const REST_TIMEOUT: Duration = Duration::from_secs(5);
/// Each thread asks the store for its statistics at most this often, whatever the clients do.
const STATS_AGE: Duration = Duration::from_secs(1);
/// As often is looked whether it answers at all.
const READY_AGE: Duration = Duration::from_millis(100);
/// As often are the counters summed for a scraper.
const SCRAPE_AGE: Duration = Duration::from_millis(100);
/// The body of `/floor`, as long as it can be asked for.
static FLOOR: [u8; 64 * 1024] = [b'.'; 64 * 1024];

/// All that one thread needs to answer.
pub(super) struct Handler {
    keys: Keys,
    key_prefix: String,
    limits: Limits,
    access: AccessConfig,
    waiting: Places,
    held: Budget,
    clock: RefCell<Clock>,
    stats: Recent<Snapshot>,
    ready: Recent<()>,
    scraped: RefCell<Option<(Instant, Bytes)>>,
    counters: Arc<Counters>,
    metrics: Arc<Metrics>,
    dashboard: Arc<Dashboard>,
    log: AccessLog,
    stop: CancellationToken,
}

/// What all threads share, none of it on a request's way to the store.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) config: Arc<ServeConfig>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) dashboard: Arc<Dashboard>,
    pub(super) held: Budget,
    pub(super) stop: CancellationToken,
}

/// What the store said last. Whoever finds it old asks again; the others wait for that answer.
struct Recent<T> {
    age: Duration,
    last: Mutex<Option<(Instant, Result<T, StoreError>)>>,
}

impl<T: Clone> Recent<T> {
    fn new(age: Duration) -> Self {
        let last = Mutex::default();
        Self { age, last }
    }

    async fn get(&self, ask: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let mut last = self.last.lock().await;
        match &*last {
            Some((at, outcome)) if at.elapsed() < self.age => outcome.clone(),
            _ => {
                let outcome = ask.await;
                *last = Some((Instant::now(), outcome.clone()));
                outcome
            }
        }
    }
}

/// What the store tells about itself.
#[derive(Clone)]
struct Snapshot {
    stats: StoreStats,
    /// The same as the answer to `/stats`.
    body: Bytes,
}

/// The current second as sessions end with it, formatted once a second.
struct Clock {
    second: u64,
    ending: Ending,
}

impl Clock {
    fn at(now: SystemTime) -> Self {
        let second = humantime::format_rfc3339_seconds(now).to_string();
        Self {
            second: unix_seconds(now),
            ending: Ending::at(&second),
        }
    }

    fn ending(&mut self) -> &Ending {
        let now = SystemTime::now();
        if unix_seconds(now) != self.second {
            *self = Self::at(now);
        }
        &self.ending
    }
}

impl Handler {
    /// The handler of thread `number`.
    pub(super) fn new(shared: Shared, store: Store, number: usize) -> Self {
        let config = &shared.config;
        let counters = shared.metrics.of_thread(number);
        Self {
            keys: Keys::new(store, config.store.fetch, counters.clone()),
            key_prefix: config.key_prefix.clone(),
            limits: Limits {
                allow_writes: config.access.allow_writes,
                upstash: config.upstash,
                max_keys_per_request: config.max_keys_per_request,
            },
            access: config.access.clone(),
            waiting: Places::new(config.max_in_flight.div_ceil(config.threads)),
            held: shared.held,
            clock: Clock::at(SystemTime::now()).into(),
            stats: Recent::new(STATS_AGE),
            ready: Recent::new(READY_AGE),
            scraped: RefCell::default(),
            counters,
            log: AccessLog::new(config.log.access),
            metrics: shared.metrics,
            dashboard: shared.dashboard,
            stop: shared.stop,
        }
    }

    /// Answers one request; every failure is an answer too.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, mut body) = request.into_parts();
        let path = Path::of(head.uri.path());
        let entry = self.counters.enter(path, &head.method);
        let mut reply = self
            .try_answer(path, &head, &mut body)
            .await
            .unwrap_or_else(Problem::into_reply);
        // Who asked to be told first sends nothing after a refusal.
        if !body.is_end_stream() && !head.headers.contains_key(EXPECT) {
            tokio::task::spawn_local(take_rest(body));
        }
        access::let_pages_read(&mut reply, self.access.cors_origin.as_ref());
        let took = entry.answered(reply.status());
        self.log.note(&head.method, &head.uri, reply.status(), took);
        reply.map(Full::new)
    }

    /// A large answer counts until its client has taken it.
    fn hold(&self, reply: Reply) -> Result<Reply, Problem> {
        let bytes = reply.body().len();
        if bytes <= SMALL_ANSWER_BYTES {
            return Ok(reply);
        }
        let mut held = self.held.hold();
        self.held.add(&mut held, bytes)?;
        Ok(reply.map(|body| held.keep(body)))
    }

    /// Refuses values that no answer holds, before one is made of them.
    fn fitting(&self, values: Vec<Option<Bytes>>) -> Result<Vec<Option<Bytes>>, Problem> {
        let bytes = values.iter().flatten().map(Bytes::len).sum();
        self.held.check_size(bytes)?;
        Ok(values)
    }

    /// What is looked at between requests.
    pub(super) fn tick(&self) {
        self.keys.note_connections();
    }

    async fn try_answer(
        &self,
        path: Path,
        head: &Parts,
        body: &mut Incoming,
    ) -> Result<Reply, Problem> {
        let (allowed, origin) = (path.allowed(self.limits), self.access.cors_origin.as_ref());
        if let Some(reply) = access::preflight(&head.method, &head.headers, allowed, origin) {
            return Ok(reply);
        }
        if !path.is_open_to_all() {
            access::check_host(&head.headers, self.access.hosts.as_deref())?;
            access::check(&head.headers, self.access.token.as_ref())?;
        }
        let route = route(&head.method, head.uri.path(), head.uri.query(), self.limits)?;
        let reply = match route {
            // These do not depend on how many wait for the store, nor on how much is held.
            Route::Livez => return Ok(reply::text("alive\n")),
            Route::Readyz => return self.readyz().await,
            Route::Metrics => return Ok(reply::metrics(self.scrape())),
            Route::OpenApi => return Ok(reply::json(OPENAPI)),
            Route::Dashboard => return Ok(reply::page(dashboard::PAGE)),
            Route::Floor(bytes) => return Ok(reply::octets(Bytes::from_static(&FLOOR[..bytes]))),
            Route::Pipeline | Route::Command => {
                return self.answer_upstash(route, &head.headers, body).await;
            }
            Route::PutKey(..) | Route::Mget(_) | Route::Mset(..) => {
                self.answer_with_body(route, &head.headers, body).await?
            }
            _ => self.answer_from_store(route, &head.headers).await?,
        };
        self.hold(reply)
    }

    async fn answer_from_store(
        &self,
        route: Route<'_>,
        headers: &HeaderMap,
    ) -> Result<Reply, Problem> {
        let _place = self.waiting.take()?;
        match route {
            Route::Session(id) => {
                let value = self.keys.get(self.session_keys(&[id])).await?;
                match Form::wanted(headers) {
                    Form::Json => {
                        reply::session(id, value.as_ref(), self.clock.borrow_mut().ending())
                    }
                    Form::Octets => reply::session_octets(id, value),
                }
            }
            Route::Sessions(ids) => {
                let values = self.fitting(self.keys.get_many(self.session_keys(&ids)).await?)?;
                match Form::wanted(headers) {
                    Form::Json => reply::sessions(&ids, &values, self.clock.borrow_mut().ending()),
                    Form::Octets => reply::sessions_octets(&ids, values),
                }
            }
            Route::GetKey(key) => {
                let value = self.keys.get(owned(&key)).await?;
                let tag = value.as_deref().map(reply::tag).unwrap_or_default();
                if value.is_some() && names_tag(headers, &tag) {
                    return Ok(reply::not_modified(&tag));
                }
                reply::value(value, &tag)
            }
            Route::GetKeys(keys, encoding) => {
                let values = self.fitting(self.keys.get_many(keys).await?)?;
                match Form::wanted(headers) {
                    Form::Json => reply::values(&values, encoding),
                    Form::Octets => Ok(reply::frames(&values)),
                }
            }
            Route::DeleteKey(key) => {
                refuse_other_conditions(headers)?;
                let removed = self.keys.delete(vec![owned(&key)]).await?;
                (removed > 0)
                    .then(reply::no_content)
                    .ok_or_else(reply::no_value)
            }
            Route::DashboardData(after_s) => {
                let stats = self.snapshot().await.map(|snapshot| snapshot.stats);
                let json = self.dashboard.json(after_s, stats);
                Ok(reply::json(json.to_string()))
            }
            _ => Ok(reply::json(self.snapshot().await?.body)),
        }
    }

    async fn answer_with_body(
        &self,
        route: Route<'_>,
        headers: &HeaderMap,
        incoming: &mut Incoming,
    ) -> Result<Reply, Problem> {
        let max = self.limits.max_keys_per_request;
        match route {
            Route::Mget(encoding) => {
                let (body, _held) = self.read_json(headers, incoming).await?;
                let keys = body::mget(&body, max)?;
                let _place = self.waiting.take()?;
                let values = self.fitting(self.keys.get_many(keys).await?)?;
                match Form::wanted(headers) {
                    Form::Json => reply::values(&values, encoding),
                    Form::Octets => Ok(reply::frames(&values)),
                }
            }
            Route::Mset(encoding, ttl) => {
                let (body, _held) = self.read_json(headers, incoming).await?;
                let batch = body::mset(&body, encoding, max)?;
                let _place = self.waiting.take()?;
                self.keys.put_batch(batch, ttl).await?;
                Ok(reply::no_content())
            }
            Route::PutKey(key, ttl) => {
                refuse_other_conditions(headers)?;
                let (value, _held) = self.read_body(incoming, MAX_VALUE_BYTES).await?;
                let _place = self.waiting.take()?;
                if !only_if_absent(headers) {
                    self.keys.put(owned(&key), value, ttl).await?;
                } else if !self.keys.put_if_absent(owned(&key), value, ttl).await? {
                    let detail = "this key is there already";
                    return Err(Problem::new(StatusCode::PRECONDITION_FAILED, detail));
                }
                Ok(reply::no_content())
            }
            _ => unreachable!("only routes with a body come here"),
        }
    }

    async fn answer_upstash(
        &self,
        route: Route<'_>,
        headers: &HeaderMap,
        incoming: &mut Incoming,
    ) -> Result<Reply, Problem> {
        let (body, _held) = self.read_json(headers, incoming).await?;
        let encoding = upstash::encoding(headers);
        let _place = self.waiting.take()?;
        // Its commands may write, so its answer is not refused once they ran.
        self.held.check_room()?;
        let (answer, succeeded) = if route == Route::Pipeline {
            // Kept apart, as it is large and would make every answer so.
            let answers = Box::pin(upstash::pipeline(&body, &self.keys, self.limits, encoding));
            (answers.await?, true)
        } else {
            upstash::command(&body, &self.keys, self.limits, encoding).await?
        };
        let mut reply = reply::json(answer.to_string());
        if !succeeded {
            *reply.status_mut() = StatusCode::BAD_REQUEST;
        }
        let held = self.held.hold_beyond(reply.body().len());
        Ok(reply.map(|body| held.keep(body)))
    }

    /// A body that says that it is JSON, and its part of what may be held until it is answered.
    async fn read_json(
        &self,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<(Bytes, Held), Problem> {
        if !is_json(headers) {
            let detail = "the body must be JSON and say so: content-type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        self.read_body(body, MAX_JSON_BYTES).await
    }

    /// A whole body. A slow client keeps the bytes that it sent meanwhile, and none of the places of those who
    /// wait for the store.
    async fn read_body(
        &self,
        body: &mut Incoming,
        max_bytes: usize,
    ) -> Result<(Bytes, Held), Problem> {
        let too_large = || {
            let detail = format!("a body has at most {max_bytes} bytes here");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
        };
        if body.size_hint().lower() > max_bytes as u64 {
            return Err(too_large());
        }
        let mut held = self.held.hold();
        let whole = async {
            let mut whole = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let bad =
                    |error: hyper::Error| Problem::new(StatusCode::BAD_REQUEST, error.to_string());
                // Trailers say nothing here.
                let Ok(part) = frame.map_err(bad)?.into_data() else {
                    continue;
                };
                if part.len() > max_bytes - whole.len() {
                    return Err(too_large());
                }
                self.held.add(&mut held, part.len())?;
                whole.extend_from_slice(&part);
            }
            Ok(whole.freeze())
        };
        let Ok(whole) = tokio::time::timeout(BODY_TIMEOUT, whole).await else {
            let detail = "the body did not arrive";
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
        };
        Ok((whole?, held))
    }

    fn session_keys<'a>(&'a self, ids: &'a [u64]) -> SessionKeys<'a> {
        let prefix = &self.key_prefix;
        SessionKeys { prefix, ids }
    }

    /// Whether the store answers. Everybody may ask, so it is looked at only now and then.
    async fn readyz(&self) -> Result<Reply, Problem> {
        if self.stop.is_cancelled() {
            let detail = "the server is draining";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
        }
        let look = async {
            self.keys.dataset().await?;
            if self.keys.is_connected() {
                return Ok(());
            }
            Err(StoreError::Unavailable("it can only be read".into()))
        };
        match self.ready.get(look).await {
            Ok(()) => Ok(reply::text("ready\n")),
            Err(error) => Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                error.to_string(),
            )),
        }
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let look = async {
            let stats = self.keys.stats().await?;
            let dataset = self.keys.dataset().await?;
            let now_s = unix_seconds(SystemTime::now());
            let body = stats_body(&stats, dataset.as_ref(), self.keys.fetch(), now_s);
            Ok(Snapshot { stats, body })
        };
        self.stats.get(look).await
    }

    /// The counters of all threads: a sum over thousands, so not as often as somebody likes.
    fn scrape(&self) -> Bytes {
        let mut last = self.scraped.borrow_mut();
        if let Some((at, text)) = &*last
            && at.elapsed() < SCRAPE_AGE
        {
            return text.clone();
        }
        let text = Bytes::from(self.metrics.scrape());
        *last = Some((Instant::now(), text.clone()));
        text
    }
}

/// Takes the rest of a body that nobody needs any more, while its answer is on its way.
async fn take_rest(mut body: Incoming) {
    let rest = async {
        let mut left = MAX_REST_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            left = left.checked_sub(bytes)?;
        }
        Some(())
    };
    let _ = tokio::time::timeout(REST_TIMEOUT, rest).await;
}

/// Refuses to write on a condition that the store cannot check in the same step.
fn refuse_other_conditions(headers: &HeaderMap) -> Result<(), Problem> {
    if !has_other_conditions(headers) {
        return Ok(());
    }
    let detail = "the only condition of a write that is known here is If-None-Match: * on PUT";
    Err(Problem::new(StatusCode::PRECONDITION_FAILED, detail))
}

fn owned(key: &[u8]) -> Bytes {
    Bytes::copy_from_slice(key)
}

/// The members of the older service keep their names; what the store does not tell is `null`.
fn stats_body(
    stats: &StoreStats,
    dataset: Option<&DatasetInfo>,
    fetch: Fetch,
    timestamp_s: u64,
) -> Bytes {
    serde_json::json!({
        "ops_per_sec": stats.commands_per_second,
        "memory_used": stats.memory_bytes,
        "total_keys": stats.keys,
        "engine": stats.engine,
        "engine_version": stats.version,
        "commands_processed": stats.commands_processed,
        "key_reads": stats.key_reads,
        "dataset": dataset,
        "fetch": fetch.name(),
        "timestamp": timestamp_s,
    })
    .to_string()
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_with_the_second_of_its_answer() {
        let mut clock = Clock::at(SystemTime::UNIX_EPOCH);
        assert_ne!(
            clock.ending().as_bytes(),
            br#","validated_at":"1970-01-01T00:00:00Z"}"#
        );
        let clock = Clock::at(SystemTime::UNIX_EPOCH);
        assert_eq!(
            clock.ending.as_bytes(),
            br#","validated_at":"1970-01-01T00:00:00Z"}"#
        );
    }
}
