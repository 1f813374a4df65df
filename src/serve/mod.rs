//! `kvpoc serve`: HTTP/1.1 over the store.
//!
//! Enters: a [`ServeConfig`] and a stop signal. Leaves: answers, and an exit code once all threads have
//! drained. Must not share anything between its threads on a request's path: each has its own runtime, its own
//! connections to the store and its own clients, which one acceptor deals out.

mod access;
mod body;
mod budget;
mod check;
mod dashboard;
mod handler;
mod json;
mod keys;
mod latency;
mod log;
mod metrics;
mod negotiate;
mod park;
pub mod reply;
pub mod route;
mod thread;
mod upstash;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::config::ServeConfig;
use crate::exit;
use crate::store::{Store, StoreStats, Usage};
use crate::units::grouped;
use budget::Budget;
use dashboard::Dashboard;
use handler::Shared;
use metrics::Metrics;
use thread::{Accepted, Running, Thread, ends};

/// Connections that the kernel may hold before they are accepted.
const BACKLOG: i32 = 4_096;
/// Out of file descriptors, most likely: closing connections will mend it, trying at once will not.
const ACCEPT_RETRY: Duration = Duration::from_millis(20);
/// That is said at most this often, or the log would be full as well.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Serves until the stop signal, then drains.
///
/// # Errors
/// When the address cannot be bound or the store cannot be used.
pub async fn run(config: ServeConfig, stop: CancellationToken) -> anyhow::Result<u8> {
    if config.check {
        return check::check(config.listen);
    }
    // Held to the end: dropping it flushes what is not yet written.
    let _log = log::start(&config.log);
    if config.access.open_to_all {
        tracing::warn!(
            "everybody who reaches {} may read every key; writes are refused. Give a token by KVPOC_TOKEN or \
             --token-file, or listen on loopback",
            config.listen
        );
    }
    let store = Store::open(&config.store, Usage::Serve).await?;
    let stats = store.stats().await?;
    if let Some(dataset) = store.dataset().await?
        && dataset.key_prefix != config.key_prefix
    {
        tracing::warn!(
            "the dataset's keys begin with {}, not with --key-prefix {}: its sessions will not be found",
            dataset.key_prefix,
            config.key_prefix
        );
    }
    let listener = bind(config.listen).with_context(|| {
        format!(
            "cannot listen on {}; try another --port or --bind",
            config.listen
        )
    })?;
    let address = listener.local_addr()?;
    let config = Arc::new(config);
    let metrics = Arc::new(Metrics::new(config.threads));
    let store_url = config.store.url.to_string();
    let dashboard = Arc::new(Dashboard::new(metrics.clone(), config.threads, &store_url));
    let shared = Shared {
        config: config.clone(),
        metrics,
        dashboard: dashboard.clone(),
        held: Budget::new(config.max_held_bytes),
        stop: stop.clone(),
    };
    let mut threads = Vec::new();
    for number in 0..config.threads {
        let thread = Thread {
            shared: shared.clone(),
            store: store.clone(),
            number,
        };
        threads.push(thread.spawn()?);
    }
    let mut all_ready = true;
    for thread in &mut threads {
        // A thread that cannot begin hangs up, and its end tells why.
        all_ready &= (&mut thread.ready).await.is_ok();
    }
    let mut acceptor = Acceptor {
        threads,
        places: Arc::new(Semaphore::new(config.max_connections)),
        accepted: 0,
    };
    if all_ready {
        announce(&config, address, &stats)?;
        tokio::select! {
            ended = acceptor.run(listener, &stop) => ended?,
            () = dashboard.sample() => {}
        }
    }
    // All of them, also when one failed: the others are still answering.
    let mut outcome = Ok(());
    for end in ends(acceptor.threads) {
        let ended = end.await.context("a serving thread panicked");
        outcome = outcome.and(ended.flatten());
    }
    outcome?;
    tracing::info!("drained, bye");
    Ok(exit::OK)
}

/// The line that scripts wait for: from here on, every thread answers.
fn announce(config: &ServeConfig, address: SocketAddr, stats: &StoreStats) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "Listening on http://{address} ({} threads; store {}: {} {}, {} keys)",
        config.threads,
        config.store.url,
        stats.engine,
        stats.version.as_deref().unwrap_or("of unknown version"),
        grouped(stats.keys),
    )
    .and_then(|()| out.flush())
    .context("cannot write to standard output")
}

/// A listener that a second server on the same port is refused.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A port that connections of an earlier process still linger on may be taken at once.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the stop signal, each connection for the thread that holds the fewest: where the kernel
/// spreads them by their hash, a few dozen land unevenly.
struct Acceptor {
    threads: Vec<Running>,
    places: Arc<Semaphore>,
    accepted: u64,
}

impl Acceptor {
    async fn run(
        &mut self,
        listener: TcpListener,
        stop: &CancellationToken,
    ) -> std::io::Result<()> {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.accept(&listener) => {}
        }
        // Closing a listener resets the connections that it holds unaccepted, whose requests may be on their
        // way. The runtime knows of a connection only after its next turn; the kernel knows now.
        let listener = listener.into_std()?;
        for _ in 0..BACKLOG {
            let Ok(permit) = self.places.clone().try_acquire_owned() else {
                break;
            };
            let Ok((stream, _)) = listener.accept() else {
                break;
            };
            self.hand_over(stream, permit);
        }
        Ok(())
    }

    async fn accept(&mut self, listener: &TcpListener) {
        let mut said: Option<Instant> = None;
        loop {
            // Taken before accepting: who comes too early waits in the backlog, not in memory.
            let Ok(permit) = self.places.clone().acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream.into_std(),
                Err(error) => Err(error),
            };
            match stream {
                Ok(stream) => self.hand_over(stream, permit),
                Err(error) => {
                    if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
                        said = Some(Instant::now());
                        tracing::warn!(%error, "cannot accept connections; they wait");
                    }
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn hand_over(&mut self, stream: std::net::TcpStream, permit: OwnedSemaphorePermit) {
        self.accepted += 1;
        let fewest = self
            .threads
            .iter()
            .min_by_key(|thread| thread.open.load(Ordering::Relaxed));
        if let Some(thread) = fewest {
            thread.take(Accepted {
                stream,
                number: self.accepted,
                permit,
            });
        }
    }
}

/// Whole seconds since the Unix epoch; 0 before it.
fn unix_seconds(moment: SystemTime) -> u64 {
    moment
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Takes any bytes for each body that a request may have; panics where it must not.
#[cfg(feature = "fuzzing")]
pub fn fuzz(bytes: &[u8]) {
    const MAX: usize = 128;
    if let Ok(keys) = body::mget(bytes, MAX) {
        assert!((1..=MAX).contains(&keys.len()));
        assert!(keys.iter().all(|key| route::check_key(key).is_ok()));
    }
    for encoding in [route::Encoding::Text, route::Encoding::Base64] {
        if let Ok(batch) = body::mset(bytes, encoding, MAX) {
            assert!((1..=MAX).contains(&batch.len()));
        }
    }
    upstash::fuzz(bytes, MAX);
}
