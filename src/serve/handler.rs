//! One request: route → store → reply.
//!
//! Enters: a request. Leaves: a reply, always: each question to the store has its deadline, and so has a body.
//! Must not hold more requests than a fixed number: beyond it the answer is 503 at once.

mod single;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::header::EXPECT;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::budget::{self, Growing, Places};
use super::dashboard::{self, Dashboard};
use super::incoming;
use super::keys::{Keys, SessionKeys};
use super::log::AccessLog;
use super::metrics::{Counters, Metrics};
use super::negotiate::Form;
use super::recent::Recent;
use super::reply::{self, Ending, Problem, Reply};
use super::route::{Encoding, Limits, Path, Route, route};
use super::seek::Search;
use super::thread::Door;
use super::upstash::{self, Upstash};
use super::{access, body, unix_seconds};
use crate::config::{AccessConfig, Fetch, ServeConfig};
use crate::store::{DatasetInfo, Room, StoreError, StoreStats};
use crate::units::MAX_VALUE_BYTES;

/// The `OpenAPI` document of this server.
const OPENAPI: &str = include_str!("openapi.json");
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
    keys: Rc<Keys>,
    key_prefix: String,
    limits: Limits,
    access: AccessConfig,
    waiting: Places,
    room: Room,
    /// How long a request waits for the store.
    patience: Duration,
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
    pub(super) search: Search,
    pub(super) metrics: Arc<Metrics>,
    pub(super) dashboard: Arc<Dashboard>,
    /// For bodies, values and large answers.
    pub(super) room: Room,
    pub(super) stop: CancellationToken,
}

/// What the store tells about itself.
#[derive(Clone)]
struct Snapshot {
    stats: StoreStats,
    fetch: Fetch,
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
    pub(super) fn new(shared: Shared, number: usize) -> Self {
        let config = &shared.config;
        let counters = shared.metrics.of_thread(number);
        Self {
            keys: Rc::new(Keys::new(
                &shared.search,
                config,
                &shared.room,
                counters.clone(),
            )),
            key_prefix: config.key_prefix.clone(),
            limits: Limits {
                allow_writes: config.access.allow_writes,
                upstash: config.upstash,
                max_keys_per_request: config.max_keys_per_request,
            },
            access: config.access.clone(),
            waiting: Places::new(config.max_in_flight.div_ceil(config.threads)),
            room: shared.room,
            patience: config.store.timeout,
            clock: Clock::at(SystemTime::now()).into(),
            stats: Recent::new(STATS_AGE, config.store.timeout),
            ready: Recent::new(READY_AGE, config.store.timeout),
            scraped: RefCell::default(),
            counters,
            log: AccessLog::new(config.log.access),
            metrics: shared.metrics,
            dashboard: shared.dashboard,
            stop: shared.stop,
        }
    }

    /// Connects to the store, once it is there.
    pub(super) fn connect(&self) -> impl Future<Output = ()> + use<> {
        let keys = self.keys.clone();
        async move { keys.connect().await }
    }

    /// Answers one request; every failure is an answer too. The door by which its connection
    /// came decides what it may ask.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        door: Door,
    ) -> Response<Full<Bytes>> {
        let (head, mut body) = request.into_parts();
        let path = Path::of(head.uri.path());
        let entry = self.counters.enter(path, &head.method);
        let answer = match refusal(door, path) {
            Some(problem) => Err(problem),
            None => self.try_answer(path, &head, &mut body).await,
        };
        let is_upstash = self.limits.upstash && path.is_upstash(&head.method);
        let mut reply = answer.unwrap_or_else(|problem| problem.into_reply_as(is_upstash));
        // Who asked to be told first sends nothing after a refusal.
        if !body.is_end_stream() && !head.headers.contains_key(EXPECT) {
            tokio::task::spawn_local(incoming::take_rest(body));
        }
        access::let_pages_read(&mut reply, self.access.cors_origin.as_ref());
        let took = entry.answered(reply.status());
        self.log.note(&head.method, &head.uri, reply.status(), took);
        reply.map(Full::new)
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
        let host = access::host(&head.headers, head.version)?;
        let (allowed, origin) = (path.allowed(self.limits), self.access.cors_origin.as_ref());
        if let Some(reply) = access::preflight(&head.method, &head.headers, allowed, origin) {
            return Ok(reply);
        }
        if !path.is_open_to_all() {
            access::check_host(host, self.access.hosts.as_deref())?;
            access::check(&head.headers, self.access.token.as_ref())?;
        }
        let route = route(&head.method, head.uri.path(), head.uri.query(), self.limits)?;
        if route.is_write() {
            access::check_site(&head.headers, origin)?;
        }
        match route {
            // These do not depend on how many wait for the store, nor on how much is held.
            Route::Livez => Ok(reply::text("alive\n")),
            Route::Readyz => self.readyz().await,
            Route::Metrics => Ok(reply::metrics(self.scrape())),
            Route::OpenApi => Ok(reply::json(OPENAPI)),
            Route::Dashboard => Ok(reply::page(dashboard::PAGE, dashboard::POLICY)),
            Route::Floor(bytes) => Ok(reply::octets(Bytes::from_static(&FLOOR[..bytes]))),
            Route::Pipeline | Route::Transaction | Route::Command | Route::PathCommand => {
                // Kept apart, as it is large and would make every answer so.
                Box::pin(self.answer_upstash(route, head, body)).await
            }
            Route::PutKey(..) | Route::Mget(_) | Route::Mset(..) => {
                self.answer_with_body(route, &head.headers, body).await
            }
            _ => self.answer_from_store(route, &head.headers).await,
        }
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
                .map(reply::varying)
            }
            Route::Sessions(ids) => {
                let values = self.keys.get_many(self.session_keys(&ids)).await?;
                let mut answer = Growing::new(&self.room);
                let reply = match Form::wanted(headers) {
                    Form::Json => {
                        // Whatever a record holds besides, this is what is written of it.
                        answer.add(ids.len() * reply::SESSION_BYTES)?;
                        reply::sessions(&ids, &values, self.clock.borrow_mut().ending())
                    }
                    Form::Octets => reply::sessions_octets(&ids, values, &mut answer),
                };
                Ok(answer.keep(reply::varying(reply?)))
            }
            Route::GetKey(key) => self.get_key(&key, headers).await,
            Route::GetKeys(keys, encoding) => {
                let values = self.keys.get_many(keys).await?;
                self.several(values, encoding, headers)
            }
            Route::DeleteKey(key) => self.delete_key(&key, headers).await,
            Route::DashboardData(after_s) => {
                let snapshot = self.snapshot().await;
                let store = snapshot.map(|snapshot| (snapshot.stats, snapshot.fetch));
                let json = self.dashboard.json(after_s, store);
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
                let (body, _held) = incoming::json(headers, incoming, &self.room).await?;
                let keys = body::mget(&body, max)?;
                let _place = self.waiting.take()?;
                let values = self.keys.get_many(keys).await?;
                self.several(values, encoding, headers)
            }
            Route::Mset(encoding, ttl) => {
                let (body, _held) = incoming::json(headers, incoming, &self.room).await?;
                let batch = body::mset(&body, encoding, max)?;
                let _place = self.waiting.take()?;
                self.keys.put_batch(batch, ttl).await?;
                Ok(reply::no_content())
            }
            Route::PutKey(key, ttl) => self.put_key(&key, ttl, headers, incoming).await,
            _ => unreachable!("only routes with a body come here"),
        }
    }

    async fn answer_upstash(
        &self,
        route: Route<'_>,
        head: &Parts,
        incoming: &mut Incoming,
    ) -> Result<Reply, Problem> {
        let mut upstash = Upstash {
            keys: &self.keys,
            limits: self.limits,
            encoding: upstash::encoding(&head.headers),
            site: access::check_site(&head.headers, self.access.cors_origin.as_ref()),
            room: &self.room,
            patience: self.patience,
        };
        let (body, _held) = if route == Route::PathCommand {
            // Any page may have a browser send such a request, but for the token.
            upstash.limits.allow_writes &= self.access.token.is_some();
            if upstash.limits.allow_writes && upstash.site.is_ok() {
                upstash.site = access::check_bearer(&head.headers);
            }
            incoming::whole(incoming, MAX_VALUE_BYTES, &self.room).await?
        } else {
            incoming::json(&head.headers, incoming, &self.room).await?
        };
        let _place = self.waiting.take()?;
        let answered = match route {
            Route::Pipeline => upstash.pipeline(&body).await?,
            Route::Transaction => upstash.transaction(&body).await?,
            Route::PathCommand => {
                let (path, query) = (head.uri.path(), head.uri.query());
                upstash.path(path, query, &body).await?
            }
            _ => upstash.command(&body).await?,
        };
        let mut reply = reply::json(answered.json.to_string());
        reply::set_status(&mut reply, answered.status);
        Ok(budget::keep(&self.room, answered.held, reply))
    }

    /// The values of any keys, in the form that is asked for.
    fn several(
        &self,
        values: Vec<Option<Bytes>>,
        encoding: Encoding,
        headers: &HeaderMap,
    ) -> Result<Reply, Problem> {
        let mut answer = Growing::new(&self.room);
        let reply = match Form::wanted(headers) {
            Form::Json => reply::values(values, encoding, &mut answer),
            Form::Octets => reply::frames(values, &mut answer),
        };
        Ok(answer.keep(reply::varying(reply?)))
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
        let keys = self.keys.clone();
        let look = async move || {
            // Whoever sends requests elsewhere for the sake of one master would lose those to the other masters too.
            if keys.is_partly_up() {
                return Ok(());
            }
            // Not behind the large answers that others may have asked for on the connection which only reads.
            let apart = keys.in_order();
            apart.as_ref().unwrap_or(&keys).dataset_note().await?;
            if keys.is_connected() {
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
        let keys = self.keys.clone();
        let look = async move || {
            let stats = keys.stats().await?;
            let note = keys.dataset_note().await?;
            let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
            let fetch = keys.fetch()?;
            let body = stats_body(&stats, note, fetch, &now);
            Ok(Snapshot { stats, fetch, body })
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

/// What is answered to a question that cannot be asked at this door.
fn refusal(door: Door, path: Path) -> Option<Problem> {
    let (status, detail) = match door {
        Door::Extra if !path.is_open_to_all() => (
            StatusCode::SERVICE_UNAVAILABLE,
            "too many connections are open already",
        ),
        Door::Health if !path.is_open_to_all() && path != Path::Metrics => (
            StatusCode::NOT_FOUND,
            "this port answers /livez, /readyz and /metrics",
        ),
        _ => return None,
    };
    Some(Problem::new(status, detail))
}

/// The members of the older service keep their names; what the store does not tell is `null`.
fn stats_body(
    stats: &StoreStats,
    note: Option<DatasetInfo>,
    fetch: Fetch,
    timestamp: &str,
) -> Bytes {
    let (dataset, unfinished) = DatasetInfo::told_apart(note);
    serde_json::json!({
        "ops_per_sec": stats.commands_per_second,
        "memory_used": stats.memory_bytes,
        "total_keys": stats.keys,
        "engine": stats.engine,
        "engine_version": stats.version,
        "engine_threads": stats.threads,
        "commands_processed": stats.commands_processed,
        "key_reads": stats.key_reads,
        "dataset": dataset,
        "unfinished_load": unfinished,
        "fetch": fetch.name(),
        "timestamp": timestamp,
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
