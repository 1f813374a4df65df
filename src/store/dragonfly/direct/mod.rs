//! Reading keys over a connection of our own, beside fred's; in a cluster, storing those that are loaded, too.
//!
//! Enters: keys. Leaves: their values, slices of the buffer that they were read into. Everything else about the store
//! is fred's; and so is reading from a single server while this connection is lost, frozen or full: whoever asks is told
//! that nothing was asked.
//!
//! One task holds the connection. Who reads appends a command to what is to be sent and waits for the answer; the
//! task sends all that came together in one write, and hands out all answers of one read. So a busy thread makes two
//! system calls for very many requests, and no request passes more than one queue.
//!
//! Must not queue without bound, and must not answer one request with the values of another: after anything that is
//! not the answer expected, the connection is closed and all who wait are told that it is lost.

mod exchange;
mod server;

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike as _, EventInterface};
use fred::types::ClientState;
use tokio::sync::{Notify, oneshot};

use super::super::deadline::AbortOnDrop;
use super::super::{KeyList, Room, StoreError};
use super::connect::{RECONNECT_MAX_MS, RECONNECT_MIN_MS};
use super::health::Health;
use super::resp::{self, Answer, Expected};
use crate::config::Fetch;
use crate::random::below;
use exchange::Exchange;
pub(super) use server::{Connection, Server};

/// Requests that are not answered, and bytes that wait to be sent, beyond which nothing more is asked. A whole thread's
/// requests of one moment fit, if they are not all of the largest kind.
const MAX_UNANSWERED: usize = 16 * 1024;
const MAX_UNSENT_BYTES: usize = 16 * 1024 * 1024;
/// A store that has just gone may still seem to be there.
const FAILURES_UNTIL_TOLD: u32 = 4;

/// The connection, as the readers of one runtime see it.
#[derive(Clone)]
pub(super) struct Direct {
    shared: Arc<Shared>,
    _task: Arc<AbortOnDrop>,
}

struct Shared {
    state: Mutex<State>,
    /// How it stands has changed.
    changed: Notify,
    /// Of this connection alone: while it is frozen and fred's is not, fred reads; and a write that is stuck in fred is
    /// not taken for well because reads are answered here.
    health: Health,
    /// Of large answers, before they come.
    room: Room,
}

#[derive(Default)]
struct State {
    standing: Standing,
    /// Commands that the task has not taken yet.
    unsent: Vec<u8>,
    /// Who waits, in the order of the commands, which is that of the answers.
    asked: VecDeque<Asked>,
    /// Answers since the connection was made.
    answered: u64,
    /// Of the task, while it has nothing to send.
    task: Option<Waker>,
}

/// How a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Standing {
    /// The first attempt is under way.
    #[default]
    Coming,
    Up,
    /// It was closed or refused by a server that is there.
    Broken,
    /// Nobody is there, or nobody answers.
    Silent,
}

impl Standing {
    fn after(error: &io::Error) -> Self {
        match error.kind() {
            // What the server said, and what it did.
            io::ErrorKind::Other
            | io::ErrorKind::InvalidData
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Self::Broken,
            _ => Self::Silent,
        }
    }
}

struct Asked {
    expected: Expected,
    asker: oneshot::Sender<Answer>,
}

impl Direct {
    /// Connects and starts the task that keeps the connection. When this attempt fails, the task goes on trying: fred is
    /// there meanwhile.
    pub(super) async fn start(server: Server, fred: &Client, room: &Room) -> Self {
        let shared = Shared::new(room);
        let first = server.connect().await;
        if first.is_ok() {
            shared.lock().standing = Standing::Up;
        }
        Self::keep(server, Some(first), shared, Some(fred.clone()))
    }

    /// As [`Direct::start`] to one of several nodes, without waiting for it, and whatever becomes of fred.
    pub(super) fn begin(server: Server, room: &Room) -> Self {
        Self::keep(server, None, Shared::new(room), None)
    }

    fn keep(
        server: Server,
        first: Option<io::Result<Connection>>,
        shared: Arc<Shared>,
        fred: Option<Client>,
    ) -> Self {
        let task = tokio::spawn(keep(server, first, shared.clone(), fred));
        Self {
            shared,
            _task: Arc::new(AbortOnDrop::new(&task)),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        self.shared.lock().standing
    }

    pub(super) fn is_up(&self) -> bool {
        self.standing() == Standing::Up
    }

    /// Returns once the first attempt has ended, whichever way.
    pub(super) async fn has_come(&self) {
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            if self.standing() != Standing::Coming {
                return;
            }
            changed.await;
        }
    }

    /// Why an answer that has so many bytes or more was let go.
    pub(super) fn no_room(&self, needed: usize) -> StoreError {
        let all = self.shared.room.all();
        StoreError::NoRoom { needed, all }
    }

    pub(super) fn health(&self) -> &Health {
        &self.shared.health
    }

    /// Sends what reads `keys`, unless it cannot. The answer is lost with the connection.
    pub(super) fn ask(
        &self,
        keys: &impl KeyList,
        fetch: Fetch,
    ) -> Option<oneshot::Receiver<Answer>> {
        if !self.shared.health.allows() {
            return None;
        }
        self.ask_anyway(keys, fetch)
    }

    /// As [`Direct::ask`], also while the connection does not answer.
    pub(super) fn ask_anyway(
        &self,
        keys: &impl KeyList,
        fetch: Fetch,
    ) -> Option<oneshot::Receiver<Answer>> {
        self.put(|out| match fetch {
            Fetch::Mget => {
                resp::put_mget(keys, out);
                Expected::Array(keys.count())
            }
            Fetch::Pipeline => {
                resp::put_gets(keys, 0..keys.count(), out);
                Expected::Each(keys.count())
            }
        })
    }

    /// As [`Direct::ask`], for those of `keys` that a node of a cluster should have.
    pub(super) fn ask_some(
        &self,
        keys: &impl KeyList,
        places: impl ExactSizeIterator<Item = usize>,
    ) -> Option<oneshot::Receiver<Answer>> {
        if !self.shared.health.allows() {
            return None;
        }
        self.put(|out| {
            let count = places.len();
            resp::put_gets(keys, places, out);
            Expected::Scattered(count)
        })
    }

    /// As [`Direct::ask_some`], for a key that is on its way to this node.
    pub(super) fn ask_for_arriving(&self, key: &[u8]) -> Option<oneshot::Receiver<Answer>> {
        if !self.shared.health.allows() {
            return None;
        }
        // It holds for the next command of the connection, which so can be no other.
        self.put(|out| {
            resp::put_command(&[b"ASKING"], out);
            resp::put_command(&[b"GET", key], out);
            Expected::Arriving
        })
    }

    /// Whether what is asked now would be sent.
    pub(super) fn takes(&self) -> bool {
        self.shared.health.allows() && self.shared.lock().takes()
    }

    /// Sends what stores `entries`, unless it cannot: to a node of a cluster, which should have them.
    pub(super) fn store<'a>(
        &self,
        entries: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
        ttl_ms: Option<i64>,
    ) -> Option<oneshot::Receiver<Answer>> {
        if !self.shared.health.allows() {
            return None;
        }
        self.put(|out| {
            let count = entries.len();
            resp::put_sets(entries, ttl_ms, out);
            Expected::Stored(count)
        })
    }

    fn put(
        &self,
        write: impl FnOnce(&mut Vec<u8>) -> Expected,
    ) -> Option<oneshot::Receiver<Answer>> {
        let mut state = self.shared.lock();
        if !state.takes() {
            return None;
        }
        let expected = write(&mut state.unsent);
        let (asker, answer) = oneshot::channel();
        state.asked.push_back(Asked { expected, asker });
        if let Some(task) = state.task.take() {
            task.wake();
        }
        Some(answer)
    }
}

impl State {
    fn takes(&self) -> bool {
        let has_room = self.asked.len() < MAX_UNANSWERED && self.unsent.len() < MAX_UNSENT_BYTES;
        self.standing == Standing::Up && has_room
    }
}

impl Shared {
    fn new(room: &Room) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: Notify::new(),
            health: Health::default(),
            room: room.clone(),
        })
    }

    /// Whoever panics while it is held leaves at worst half a command, which the server refuses: then all is made anew.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stands(&self, standing: Standing) {
        self.lock().standing = standing;
        self.changed.notify_waiters();
    }

    /// Tells all who wait that the connection is lost.
    fn lose(&self, standing: Standing) {
        *self.lock() = State {
            standing,
            ..State::default()
        };
        self.changed.notify_waiters();
        self.health.answered();
    }

    /// Returns once somebody waits and not one answer has come in all of `time`.
    async fn stuck(&self, time: Duration) {
        let waiting = || {
            let state = self.lock();
            (!state.asked.is_empty()).then_some(state.answered)
        };
        loop {
            let before = waiting();
            tokio::time::sleep(time).await;
            if before.is_some() && waiting() == before {
                return;
            }
        }
    }
}

/// Holds a connection, and makes another one when it is lost.
async fn keep(
    server: Server,
    first: Option<io::Result<Connection>>,
    shared: Arc<Shared>,
    fred: Option<Client>,
) {
    let mut fred_reconnected = fred.as_ref().map(EventInterface::reconnect_rx);
    let mut attempt = match first {
        Some(first) => first,
        None => server.connect().await,
    };
    let mut wait_ms = RECONNECT_MIN_MS;
    let mut failures = Failures::default();
    loop {
        match attempt {
            Ok(connection) => {
                failures.end();
                wait_ms = RECONNECT_MIN_MS;
                shared.stands(Standing::Up);
                // A task of its own, as it is woken at every request, and the others here hardly ever.
                let mut exchange = Exchange::new(connection, shared.clone());
                let exchange = poll_fn(move |context| exchange.poll(context));
                let mut exchange = tokio::spawn(exchange);
                let _ended_with_this = AbortOnDrop::new(&exchange);
                let reconnected = async {
                    match &mut fred_reconnected {
                        Some(reconnected) => drop(reconnected.recv().await),
                        None => pending().await,
                    }
                };
                let error = tokio::select! {
                    error = &mut exchange => error.unwrap_or_else(io::Error::other),
                    () = shared.stuck(server.gone()) => io::ErrorKind::TimedOut.into(),
                    // Behind its name there may be another server now.
                    () = reconnected => io::Error::other("the store was lost"),
                };
                shared.lose(Standing::after(&error));
                // Servers close idle ones; and when the store went, others say so.
                tracing::debug!(%error, "the connection that reads keys has ended");
            }
            Err(error) => {
                shared.stands(Standing::after(&error));
                failures.count(&error, fred.as_ref());
            }
        }
        // As long again at most, by chance, so that many threads do not come back as one.
        let jitter_ms = below(RandomState::new().hash_one(()), u64::from(wait_ms));
        let wait = Duration::from_millis(u64::from(wait_ms) + jitter_ms);
        tokio::time::sleep(wait).await;
        wait_ms = (wait_ms * 2).min(RECONNECT_MAX_MS);
        // Whatever fred did meanwhile, this attempt comes after it.
        fred_reconnected = fred.as_ref().map(EventInterface::reconnect_rx);
        attempt = server.connect().await;
    }
}

/// Attempts that failed one after the other, while the store was there.
#[derive(Default)]
struct Failures {
    count: u32,
    are_told: bool,
}

impl Failures {
    fn end(&mut self) {
        if self.are_told {
            tracing::info!("keys are read by their own connection again");
        }
        *self = Self::default();
    }

    fn count(&mut self, error: &io::Error, fred: Option<&Client>) {
        // The store is there for fred, and has been for a while; or it said so itself.
        if self.count >= FAILURES_UNTIL_TOLD && !self.are_told {
            tracing::warn!(
                "the store takes no connection that only reads: {error}; keys are read at more cost meanwhile"
            );
            self.are_told = true;
            return;
        }
        let is_there = match fred {
            Some(fred) => fred.state() == ClientState::Connected,
            None => Standing::after(error) == Standing::Broken,
        };
        self.count = if is_there { self.count + 1 } else { 0 };
        tracing::debug!(%error, "no connection that reads keys");
    }
}
