//! Taking connections, and dealing them out to the threads.
//!
//! Enters: listeners, and a stop signal. Leaves: sockets, each with its place and the door by which it came. Must not take
//! more of them than there are places, nor let those who take all of them keep the server's health from being asked.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::thread::{Accepted, Door, Running};

/// Connections beyond the limit that are taken for questions about the server's health.
const EXTRA_PLACES: usize = 256;
/// Connections at a time on the port that is for such questions only.
const HEALTH_PLACES: usize = 64;
/// How often connections that ask nothing are cut for one that may ask about the health.
const MAKE_ROOM: Duration = Duration::from_millis(10);
/// Connections that the kernel may hold before they are accepted.
const BACKLOG: i32 = 4_096;
/// Out of file descriptors, most likely: closing connections will mend it, trying at once will not.
const ACCEPT_RETRY: Duration = Duration::from_millis(20);
/// That is said at most this often, or the log would be full as well.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// A listener that a second server on the same port is refused.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
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
pub(super) struct Acceptor {
    threads: Vec<Running>,
    places: Arc<Semaphore>,
    extra: Arc<Semaphore>,
    health: Arc<Semaphore>,
    accepted: Cell<u64>,
}

impl Acceptor {
    pub(super) fn new(threads: Vec<Running>, max_connections: usize) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            threads,
            places: places(max_connections),
            extra: places(EXTRA_PLACES),
            health: places(HEALTH_PLACES),
            accepted: Cell::new(0),
        }
    }

    /// Whose connections are all accepted.
    pub(super) fn into_threads(self) -> Vec<Running> {
        self.threads
    }

    pub(super) async fn run(
        &self,
        listener: TcpListener,
        health: Option<TcpListener>,
        stop: &CancellationToken,
    ) -> io::Result<()> {
        let for_health = async {
            match &health {
                Some(health) => self.accept_for_health(health).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.accept(&listener) => {}
            () = for_health => {}
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
            self.hand_over(stream, permit, Door::Front);
        }
        Ok(())
    }

    async fn accept(&self, listener: &TcpListener) {
        let mut trouble = Trouble::default();
        loop {
            // Taken before accepting: who comes too early waits in the backlog, not in memory.
            let (permit, mut door) = tokio::select! {
                biased;
                permit = self.places.clone().acquire_owned() => (permit, Door::Front),
                permit = self.place_for_health(&self.extra, Door::Extra) => (permit, Door::Extra),
            };
            let Ok(mut permit) = permit else { return };
            match next(listener).await {
                Ok(stream) => {
                    // A place may have become free while nobody came.
                    if door == Door::Extra
                        && let Ok(place) = self.places.clone().try_acquire_owned()
                    {
                        (permit, door) = (place, Door::Front);
                    }
                    self.hand_over(stream, permit, door);
                }
                Err(error) => trouble.wait(&error).await,
            }
        }
    }

    async fn accept_for_health(&self, listener: &TcpListener) {
        let mut trouble = Trouble::default();
        while let Ok(permit) = self.place_for_health(&self.health, Door::Health).await {
            match next(listener).await {
                Ok(stream) => self.hand_over(stream, permit, Door::Health),
                Err(error) => trouble.wait(&error).await,
            }
        }
    }

    /// A place, for which those make room who ask nothing: who asks about the health does not wait for long.
    async fn place_for_health(
        &self,
        places: &Arc<Semaphore>,
        door: Door,
    ) -> Result<OwnedSemaphorePermit, AcquireError> {
        loop {
            let place = places.clone().acquire_owned();
            if places.available_permits() == 0 {
                for thread in &self.threads {
                    thread.make_room(door);
                }
            }
            // Those that have only just come are left alone for now.
            if let Ok(place) = tokio::time::timeout(MAKE_ROOM, place).await {
                return place;
            }
        }
    }

    fn hand_over(&self, stream: TcpStream, permit: OwnedSemaphorePermit, door: Door) {
        let number = self.accepted.get() + 1;
        self.accepted.set(number);
        let fewest = self
            .threads
            .iter()
            .min_by_key(|thread| thread.open.load(Ordering::Relaxed));
        if let Some(thread) = fewest {
            thread.take(Accepted {
                stream,
                number,
                permit,
                door,
            });
        }
    }
}

async fn next(listener: &TcpListener) -> io::Result<TcpStream> {
    listener.accept().await?.0.into_std()
}

/// When it was said last that no connections can be accepted.
#[derive(Default)]
struct Trouble(Option<Instant>);

impl Trouble {
    async fn wait(&mut self, error: &io::Error) {
        if self.0.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            self.0 = Some(Instant::now());
            tracing::warn!(%error, "cannot accept connections; they wait");
        }
        tokio::time::sleep(ACCEPT_RETRY).await;
    }
}
