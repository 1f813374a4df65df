//! One serving thread: a runtime of its own, connections of its own to the store, and its share of the clients.
//!
//! Enters: accepted sockets. Leaves: answers, until no more sockets come and all are drained. Must not share
//! anything with another thread on a request's path.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::AbortHandle;

use super::handler::{Handler, Shared};
use super::park;
use crate::store::Store;

/// Closing an idle connection loses the request that is on its way on it. So busy clients are told by their
/// next answer first, and only what is still idle after this is closed.
const BEFORE_DRAIN: Duration = Duration::from_millis(250);
/// Head of a request: its line and all headers. A batch of 128 ids needs about 2 KiB.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// What a connection keeps of a body on its way in, or of answers to requests that were sent ahead. hyper's own
/// limit of 400 KiB comes to gigabytes for the connections that may be open.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// How often idle connections are looked for, which is also how exactly they are timed.
const TICK: Duration = Duration::from_secs(1);

/// An accepted socket with its place among all connections.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    /// Unlike that of any other connection of this process.
    pub(super) number: u64,
    pub(super) permit: OwnedSemaphorePermit,
}

/// What one serving thread is given.
pub(super) struct Thread {
    pub(super) shared: Shared,
    pub(super) store: Store,
    /// Which of the threads it is.
    pub(super) number: usize,
}

/// A running thread, as the acceptor sees it.
pub(super) struct Running {
    sockets: mpsc::UnboundedSender<Accepted>,
    /// Connections that it holds.
    pub(super) open: Arc<AtomicUsize>,
    pub(super) ready: oneshot::Receiver<()>,
    pub(super) end: oneshot::Receiver<anyhow::Result<()>>,
}

impl Running {
    /// Hands over a socket. The channel needs no bound: each socket brings its permit.
    pub(super) fn take(&self, accepted: Accepted) {
        self.open.fetch_add(1, Ordering::Relaxed);
        // A thread that has ended stops them all.
        let _ = self.sockets.send(accepted);
    }
}

/// The ends of all threads, once their channels are closed.
pub(super) fn ends(threads: Vec<Running>) -> Vec<oneshot::Receiver<anyhow::Result<()>>> {
    threads.into_iter().map(|thread| thread.end).collect()
}

impl Thread {
    pub(super) fn spawn(self) -> io::Result<Running> {
        let (ready, is_ready) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (sockets, accepted) = mpsc::unbounded_channel();
        let open = Arc::new(AtomicUsize::new(0));
        let counted = open.clone();
        // One thread fewer would look like a slow target: however one ends, all stop.
        let guard = self.shared.stop.clone().drop_guard();
        std::thread::Builder::new()
            .name("serve".into())
            .spawn(move || {
                let _guard = guard;
                let _ = end.send(self.run(accepted, counted, ready));
            })?;
        Ok(Running {
            sockets,
            open,
            ready: is_ready,
            end: ended,
        })
    }

    fn run(
        self,
        mut accepted: mpsc::UnboundedReceiver<Accepted>,
        count: Arc<AtomicUsize>,
        ready: oneshot::Sender<()>,
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .on_thread_park(park::before())
            .build_local(tokio::runtime::LocalOptions::default())?;
        let outcome = runtime.block_on(async {
            let config = self.shared.config.clone();
            let store = self.store.for_this_runtime(&config.store).await?;
            let connections = Rc::new(Connections {
                handler: Handler::new(self.shared, store, self.number),
                now: Cell::new(0),
                draining: Cell::new(false),
                open: RefCell::default(),
                count,
            });
            let reaper = tokio::task::spawn_local(reap(connections.clone(), config.idle));
            let graceful = GracefulShutdown::new();
            let _ = ready.send(());
            while let Some(accepted) = accepted.recv().await {
                if let Err(error) = connections.hold(accepted, &graceful) {
                    tracing::debug!(%error, "a connection was lost before its first request");
                }
            }
            connections.draining.set(true);
            tokio::time::sleep(BEFORE_DRAIN.min(config.drain)).await;
            let drained = tokio::time::timeout(config.drain, graceful.shutdown()).await;
            if drained.is_err() {
                tracing::warn!(after = ?config.drain, "connections were still busy and are cut");
            }
            reaper.abort();
            anyhow::Ok(())
        });
        // A write to the embedded store that waits for another process must not hold up the exit.
        runtime.shutdown_background();
        outcome
    }
}

/// The connections of one thread.
struct Connections {
    handler: Handler,
    /// Ticks since the thread began; as exact as idle connections need it, and free to read.
    now: Cell<u32>,
    /// Every answer from now on is the last of its connection.
    draining: Cell<bool>,
    open: RefCell<HashMap<u64, Open>>,
    count: Arc<AtomicUsize>,
}

/// One connection, as the reaper sees it.
struct Open {
    /// The tick at which it began to wait for a request; `None` while one is being answered.
    waiting_since: Rc<Cell<Option<u32>>>,
    task: AbortHandle,
}

impl Connections {
    fn hold(self: &Rc<Self>, accepted: Accepted, graceful: &GracefulShutdown) -> io::Result<()> {
        let Accepted {
            stream,
            number,
            permit,
        } = accepted;
        let place = Held {
            connections: self.clone(),
            number,
            _permit: permit,
        };
        stream.set_nonblocking(true)?;
        // Answers are written whole, so waiting to coalesce them only adds latency. Failing to set it is no
        // reason to refuse the client.
        let _ = stream.set_nodelay(true);
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let waiting_since = Rc::new(Cell::new(Some(self.now.get())));
        let (connections, waits) = (self.clone(), waiting_since.clone());
        let service = service_fn(move |request| {
            let (connections, waits) = (connections.clone(), waits.clone());
            async move {
                waits.set(None);
                let mut reply = connections.handler.answer(request).await;
                if connections.draining.get() {
                    let close = HeaderValue::from_static("close");
                    reply.headers_mut().insert(CONNECTION, close);
                }
                waits.set(Some(connections.now.get()));
                Ok::<_, Infallible>(reply)
            }
        });
        let connection = http1::Builder::new()
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        let task = tokio::task::spawn_local(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
        let open = Open {
            waiting_since,
            task: task.abort_handle(),
        };
        self.open.borrow_mut().insert(number, open);
        Ok(())
    }
}

/// The place of a connection, given back when its task ends, however it ends.
struct Held {
    connections: Rc<Connections>,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().remove(&self.number);
        self.connections.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Cuts the connections on which no whole request came for too long: idle ones, heads that trickle in, and
/// clients that do not read their answer. hyper's own timer would be armed and disarmed at every request.
async fn reap(connections: Rc<Connections>, idle: Duration) {
    let idle_ticks = u32::try_from(idle.as_secs().max(1)).unwrap_or(u32::MAX);
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        connections.handler.tick();
        let now = connections.now.get() + 1;
        connections.now.set(now);
        for open in connections.open.borrow().values() {
            if open
                .waiting_since
                .get()
                .is_some_and(|since| now - since > idle_ticks)
            {
                open.task.abort();
            }
        }
    }
}
