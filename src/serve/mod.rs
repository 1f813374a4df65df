//! `kvpoc serve`: HTTP/1.1 over the store.
//!
//! Enters: a [`ServeConfig`] and a stop signal. Leaves: answers, and an exit code once all threads have
//! drained. Must not share anything between its threads on a request's path: each has its own runtime, its own
//! connections to the store and its own clients, which one acceptor deals out.

mod accept;
mod access;
mod body;
mod brief;
mod budget;
mod check;
mod client;
mod dashboard;
mod handler;
mod incoming;
mod json;
mod keys;
mod latency;
mod log;
mod metrics;
mod negotiate;
mod owed;
mod park;
mod path;
mod recent;
pub mod reply;
pub mod route;
mod seek;
mod thread;
mod upstash;
mod words;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::ServeConfig;
use crate::exit;
use crate::store::Room;
use accept::{Acceptor, bind};
use dashboard::Dashboard;
use handler::Shared;
use metrics::Metrics;
use seek::Seeker;
use thread::{Thread, ends};

/// Serves until the stop signal, then drains.
///
/// # Errors
/// When the address cannot be bound, or the store cannot be used as it is configured or does not come in time.
pub async fn run(config: ServeConfig, stop: CancellationToken) -> anyhow::Result<u8> {
    if config.check {
        return check::check(config.health.unwrap_or(config.listen));
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
    let (listener, health) = listen(&config)?;
    let address = Addresses {
        all: listener.local_addr()?,
        health: health.as_ref().map(TcpListener::local_addr).transpose()?,
    };
    let config = Arc::new(config);
    let metrics = Arc::new(Metrics::new(config.threads));
    let store_url = config.store.url.to_string();
    let dashboard = Arc::new(Dashboard::new(metrics.clone(), config.threads, &store_url));
    let (seeker, search) = Seeker::new(config.clone());
    let shared = Shared {
        config: config.clone(),
        search,
        metrics,
        dashboard: dashboard.clone(),
        room: Room::new(config.max_held_bytes),
        stop: stop.clone(),
    };
    let mut threads = Vec::new();
    for number in 0..config.threads {
        let thread = Thread {
            shared: shared.clone(),
            number,
        };
        threads.push(thread.spawn()?);
    }
    let mut all_ready = true;
    for thread in &mut threads {
        // A thread that cannot begin hangs up, and its end tells why.
        all_ready &= (&mut thread.ready).await.is_ok();
    }
    let acceptor = Acceptor::new(threads, config.max_connections);
    let mut outcome = Ok(());
    if all_ready {
        let announce = |store: &str| announce(&config, &address, store);
        outcome = tokio::select! {
            ended = acceptor.run(listener, health, &stop) => ended.map_err(anyhow::Error::from),
            () = dashboard.sample() => Ok(()),
            ended = seeker.run(announce) => ended,
        };
    }
    if outcome.is_err() {
        stop.cancel();
    }
    // All of them, also when one failed: the others are still answering.
    for end in ends(acceptor.into_threads()) {
        let ended = end.await.context("a server thread panicked");
        outcome = outcome.and(ended.flatten());
    }
    outcome?;
    tracing::info!("drained, bye");
    Ok(exit::OK)
}

/// At the port for everything, and at that for health, if there is one.
fn listen(config: &ServeConfig) -> anyhow::Result<(TcpListener, Option<TcpListener>)> {
    let at = |address: SocketAddr, mend: &str| {
        bind(address).with_context(|| format!("cannot listen on {address}; try another {mend}"))
    };
    let listener = at(config.listen, "--port or --bind")?;
    let health = config.health.map(|health| at(health, "--health-port"));
    Ok((listener, health.transpose()?))
}

/// Where the server listens.
struct Addresses {
    all: SocketAddr,
    health: Option<SocketAddr>,
}

/// The line that scripts wait for: from here on, every thread answers, from the store if it is there.
fn announce(config: &ServeConfig, address: &Addresses, store: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let Addresses { all, health } = address;
    let health = health.map_or_else(String::new, |health| format!("; health http://{health}"));
    writeln!(
        out,
        "Listening on http://{all} ({} threads; store {}: {store}{health})",
        config.threads, config.store.url,
    )
    .and_then(|()| out.flush())
    .context("cannot write to standard output")
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
