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
use std::time::{Duration, Instant};

use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use super::budget::IsHeld;
use super::client::{MAX_HEAD_BYTES, Noted, Patience, Wait};
use super::handler::{Handler, Shared};
use super::owed::{Debt, Debts, Task};
use super::park;
use crate::config::ServeConfig;

/// Closing an idle connection loses the request that is on its way on it. So busy clients are told by their
/// next answer first, and only what is still idle after this is closed.
const BEFORE_DRAIN: Duration = Duration::from_millis(250);
/// What a connection keeps of a head or a body on its way in, or of answers to requests that were sent ahead. hyper's own
/// limit of 400 KiB comes to gigabytes for the connections that may be open.
const MAX_BUFFER_BYTES: usize = MAX_HEAD_BYTES;
/// What the kernel keeps for a connection besides what is on its way. By itself it takes megabytes of a client that does not
/// read.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 16 * 1024;
/// How often idle connections are looked for, which is also how exactly they are timed.
const TICK: Duration = Duration::from_secs(1);

/// As long is every connection left alone, so that a question which has come already is read.
const BEFORE_CUT: Duration = Duration::from_millis(30);

/// Who only asks for the server's health has the question ready.
const FOR_HEALTH: Patience = Patience { idle: 1, head: 1 };

/// An accepted socket with its place among all connections.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    /// Unlike that of any other connection of this process.
    pub(super) number: u64,
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) door: Door,
}

/// What the acceptor tells a thread.
enum Told {
    Take(Accepted),
    /// All places of this door are taken, and somebody may be waiting at it.
    MakeRoom(Door),
}

/// The way by which a connection came, which decides what it may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// The port, while there were places: anything.
    Front,
    /// The port, when all places were taken: the server's health.
    Extra,
    /// The port that is for its health only.
    Health,
}

/// What one serving thread is given.
pub(super) struct Thread {
    pub(super) shared: Shared,
    /// Which of the threads it is.
    pub(super) number: usize,
}

/// A running thread, as the acceptor sees it.
pub(super) struct Running {
    told: mpsc::UnboundedSender<Told>,
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
        let _ = self.told.send(Told::Take(accepted));
    }

    /// Has it cut, at once, the connection by this door that has asked nothing for longest.
    pub(super) fn make_room(&self, door: Door) {
        let _ = self.told.send(Told::MakeRoom(door));
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
        let (tell, told) = mpsc::unbounded_channel();
        let open = Arc::new(AtomicUsize::new(0));
        let counted = open.clone();
        // One thread fewer would look like a slow target: however one ends, all stop.
        let guard = self.shared.stop.clone().drop_guard();
        std::thread::Builder::new()
            .name("serve".into())
            .spawn(move || {
                let _guard = guard;
                let _ = end.send(self.run(told, counted, ready));
            })?;
        Ok(Running {
            told: tell,
            open,
            ready: is_ready,
            end: ended,
        })
    }

    fn run(
        self,
        mut told: mpsc::UnboundedReceiver<Told>,
        count: Arc<AtomicUsize>,
        ready: oneshot::Sender<()>,
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .on_thread_park(park::before())
            .build_local(tokio::runtime::LocalOptions::default())?;
        let outcome = runtime.block_on(async {
            let config = self.shared.config.clone();
            let handler = Handler::new(self.shared, self.number);
            tokio::task::spawn_local(handler.connect());
            let connections = Rc::new(Connections {
                handler,
                now: Rc::default(),
                draining: Cell::new(false),
                open: RefCell::default(),
                debts: Rc::new(Debts::of_one_of(config.threads)),
                count,
            });
            let reaper = tokio::task::spawn_local(reap(connections.clone(), patience(&config)));
            let graceful = GracefulShutdown::new();
            let _ = ready.send(());
            while let Some(told) = told.recv().await {
                match told {
                    Told::MakeRoom(door) => connections.make_room(door),
                    Told::Take(accepted) => {
                        if let Err(error) = connections.hold(accepted, &graceful) {
                            tracing::debug!(%error, "a connection was lost before its first request");
                        }
                    }
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
    now: Rc<Cell<u32>>,
    /// Every answer from now on is the last of its connection.
    draining: Cell<bool>,
    open: RefCell<HashMap<u64, Open>>,
    debts: Rc<Debts>,
    count: Arc<AtomicUsize>,
}

/// One connection, as the reaper sees it.
struct Open {
    wait: Rc<Cell<Wait>>,
    door: Door,
    since: Instant,
    task: AbortHandle,
}

impl Connections {
    fn hold(self: &Rc<Self>, accepted: Accepted, graceful: &GracefulShutdown) -> io::Result<()> {
        let Accepted {
            stream,
            number,
            permit,
            door,
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
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(MAX_UNSENT_BYTES);
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let wait = Rc::new(Cell::new(Wait::Idle(self.now.get())));
        let (connections, waits) = (self.clone(), wait.clone());
        let task = Task::default();
        let is_held = Rc::new(Cell::new(false));
        let debt = Debt::new(self.debts.clone(), task.clone(), is_held.clone());
        let stream = Noted::new(stream, wait.clone(), self.now.clone(), debt);
        let service = service_fn(move |request| {
            let (connections, waits) = (connections.clone(), waits.clone());
            let is_held = is_held.clone();
            async move {
                waits.set(Wait::Answering);
                let mut reply = connections.handler.answer(request, door).await;
                if connections.draining.get() {
                    let close = HeaderValue::from_static("close");
                    reply.headers_mut().insert(CONNECTION, close);
                }
                is_held.set(reply.extensions().get::<IsHeld>().is_some());
                waits.set(Wait::Idle(connections.now.get()));
                Ok::<_, Infallible>(reply)
            }
        });
        let connection = http1::Builder::new()
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_BUFFER_BYTES)
            .keep_alive(door == Door::Front)
            .serve_connection(stream, service);
        let connection = graceful.watch(connection);
        let running = tokio::task::spawn_local(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
        let _ = task.set(running.abort_handle());
        let open = Open {
            wait,
            door,
            since: Instant::now(),
            task: running.abort_handle(),
        };
        self.open.borrow_mut().insert(number, open);
        Ok(())
    }

    /// Each of these connections asks one question, so whichever came first has asked nothing for longest.
    fn make_room(&self, door: Door) {
        let open = self.open.borrow();
        let idle = open.iter().filter(|(_, open)| {
            open.door == door
                && open.wait.get() != Wait::Answering
                && open.since.elapsed() >= BEFORE_CUT
                && !open.task.is_finished()
        });
        if let Some((_, first)) = idle.min_by_key(|(number, _)| **number) {
            first.task.abort();
        }
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

fn patience(config: &ServeConfig) -> Patience {
    let ticks = |time: Duration| u32::try_from(time.as_secs().max(1)).unwrap_or(u32::MAX);
    Patience {
        idle: ticks(config.idle),
        head: ticks(config.head),
    }
}

/// Cuts the connections on which no whole request came for too long: idle ones, heads that trickle in, and
/// clients that do not read their answer. hyper's own timer would be armed and disarmed at every request.
async fn reap(connections: Rc<Connections>, patience: Patience) {
    let mut ticks = tokio::time::interval(TICK);
    // Time in which this thread did something else is none in which a client let it wait.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        connections.handler.tick();
        let now = connections.now.get() + 1;
        connections.now.set(now);
        for open in connections.open.borrow().values() {
            let patience = match open.door {
                Door::Front => patience,
                Door::Extra | Door::Health => FOR_HEALTH,
            };
            if open.wait.get().is_too_long(now, patience) {
                open.task.abort();
            }
        }
    }
}
