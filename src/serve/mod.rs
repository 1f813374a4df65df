//! `kvpoc serve`: HTTP/1.1 over the store.
//!
//! Enters: a [`ServeConfig`] and a stop signal. Leaves: answers, and an exit code once all threads have
//! drained. Must not share anything between its threads on a request's path: each has its own runtime, its
//! own listener on the same port, and its own connection to the store.

mod handler;
pub mod reply;
pub mod route;

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::ServeConfig;
use crate::exit;
use crate::store::{Store, StoreStats, Usage};
use crate::units::grouped;
use handler::{Handler, StatsCache};

/// Connections that the kernel may hold before they are accepted.
const BACKLOG: i32 = 4_096;
/// Long enough to read a request that was sent before the stop signal.
const BEFORE_DRAIN: Duration = Duration::from_millis(50);
/// A client that has not sent its whole head by then is gone or hostile; idle connections end likewise.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
/// Head of a request: its line and all headers. A batch of 128 ids needs about 2 KiB.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Out of file descriptors, most likely: closing connections will mend it, trying at once will not.
const ACCEPT_RETRY: Duration = Duration::from_millis(20);

/// Serves until the stop signal, then drains.
///
/// # Errors
/// When the address cannot be bound or the store cannot be used.
pub async fn run(config: ServeConfig, stop: CancellationToken) -> anyhow::Result<u8> {
    // Held to the end: dropping it flushes what is not yet written.
    let _log = start_log(&config.log);
    let store = Store::open(&config.store, Usage::Serve).await?;
    let stats = store.stats().await?;
    let listeners = bind(config.listen, config.threads).with_context(|| {
        format!(
            "cannot listen on {}; try another --port or --bind",
            config.listen
        )
    })?;
    let address = listeners[0].local_addr()?;
    let config = Arc::new(config);
    let cache = Arc::new(StatsCache::default());
    let mut threads = Vec::new();
    for listener in listeners {
        let thread = Thread {
            config: config.clone(),
            store: store.clone(),
            cache: cache.clone(),
            listener,
            stop: stop.clone(),
        };
        threads.push(thread.spawn()?);
    }
    let mut ends = Vec::new();
    let mut all_ready = true;
    for (ready, end) in threads {
        // A thread that cannot begin hangs up, and its end tells why.
        all_ready &= ready.await.is_ok();
        ends.push(end);
    }
    if all_ready {
        announce(&config, address, &stats)?;
    }
    for end in ends {
        end.await.context("a serving thread panicked")??;
    }
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

/// Log lines go through a thread of their own, so that a slow terminal never holds up a request.
fn start_log(filter: &str) -> tracing_appender::non_blocking::WorkerGuard {
    use std::io::IsTerminal as _;
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_writer(writer)
        .init();
    guard
}

/// One listener a thread, all on one port: the kernel spreads the connections among them.
fn bind(address: SocketAddr, threads: usize) -> std::io::Result<Vec<std::net::TcpListener>> {
    use socket2::{Domain, Protocol, Socket, Type};
    let mut listeners = Vec::with_capacity(threads);
    let mut address = address;
    for _ in 0..threads {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        // Alone, it must find the port taken when another server has it.
        if listeners.is_empty() {
            probe(address)?;
        }
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener: std::net::TcpListener = socket.into();
        // Port 0 becomes the port that the first listener was given.
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// A second server with `SO_REUSEPORT` on one port would silently take half of the connections.
fn probe(address: SocketAddr) -> std::io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    std::net::TcpListener::bind(address).map(drop)
}

/// What one serving thread is given.
struct Thread {
    config: Arc<ServeConfig>,
    store: Store,
    cache: Arc<StatsCache>,
    listener: std::net::TcpListener,
    stop: CancellationToken,
}

type Ready = oneshot::Receiver<()>;
type End = oneshot::Receiver<anyhow::Result<()>>;

impl Thread {
    fn spawn(self) -> std::io::Result<(Ready, End)> {
        let (ready, is_ready) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        // One thread fewer would look like a slow target: however one ends, all stop.
        let guard = self.stop.clone().drop_guard();
        std::thread::Builder::new()
            .name("serve".into())
            .spawn(move || {
                let _guard = guard;
                let _ = end.send(serve_on_this_thread(self, ready));
            })?;
        Ok((is_ready, ended))
    }
}

fn serve_on_this_thread(thread: Thread, ready: oneshot::Sender<()>) -> anyhow::Result<()> {
    let Thread {
        config,
        store,
        cache,
        listener,
        stop,
    } = thread;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    let outcome = runtime.block_on(async {
        let store = store.for_this_runtime(&config.store).await?;
        let handler = Rc::new(Handler::new(&config, store, cache, stop.clone()));
        let listener = TcpListener::from_std(listener)?;
        let _ = ready.send(());
        let connections = Arc::new(Semaphore::new(
            config.max_connections.div_ceil(config.threads),
        ));
        let graceful = GracefulShutdown::new();
        let accept = async {
            loop {
                // Taken before accepting: who comes too early waits in the backlog, not in memory.
                let Ok(permit) = connections.clone().acquire_owned().await else {
                    return;
                };
                match listener.accept().await {
                    Ok((stream, _)) => spawn_connection(stream, permit, &handler, &graceful),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = accept => {}
        }
        accept_what_the_kernel_holds(listener, &connections, &handler, &graceful)?;
        // Ends a connection before its first request is read, so those just accepted get a moment.
        tokio::time::sleep(BEFORE_DRAIN).await;
        if tokio::time::timeout(config.drain, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!(after = ?config.drain, "connections were still busy and are cut");
        }
        Ok(())
    });
    // A write to the embedded store that waits for another process must not hold up the exit.
    runtime.shutdown_background();
    outcome
}

/// Closing a listener resets the connections that it holds unaccepted, whose requests may be on their way.
fn accept_what_the_kernel_holds(
    listener: TcpListener,
    connections: &Arc<Semaphore>,
    handler: &Rc<Handler>,
    graceful: &GracefulShutdown,
) -> std::io::Result<()> {
    // The runtime knows of a connection only after its next turn; the kernel knows now.
    let listener = listener.into_std()?;
    while let Ok(permit) = connections.clone().try_acquire_owned() {
        let Ok((stream, _)) = listener.accept() else {
            break;
        };
        stream.set_nonblocking(true)?;
        spawn_connection(TcpStream::from_std(stream)?, permit, handler, graceful);
    }
    Ok(())
}

fn spawn_connection(
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    handler: &Rc<Handler>,
    graceful: &GracefulShutdown,
) {
    // Answers are written whole, so waiting to coalesce them only adds latency. Failing to set it is no
    // reason to refuse the client.
    let _ = stream.set_nodelay(true);
    // A client that asks and never reads would keep its place for ever.
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(HEAD_TIMEOUT));
    let handler = handler.clone();
    let service = service_fn(move |request| {
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(handler.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended early");
        }
        drop(permit);
    });
}
