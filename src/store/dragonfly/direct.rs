//! Reading keys from a single server over a connection of our own, beside fred's.
//!
//! Enters: keys. Leaves: their values, slices of the buffer that they were read into. Everything else about the store
//! is fred's; and so is reading while this connection is lost, frozen or full: whoever asks is told to ask fred.
//!
//! One task holds the connection. Who reads appends a command to what is to be sent and waits for the answer; the
//! task sends all that came together in one write, and hands out all answers of one read. So a busy thread makes two
//! system calls for very many requests, and no request passes more than one queue.
//!
//! Must not queue without bound, and must not answer one request with the values of another: after anything that is
//! not the answer expected, the connection is closed and all who wait are told that it is lost.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use fred::clients::Client;
use fred::interfaces::EventInterface;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{broadcast, oneshot};

use super::super::KeyList;
use super::super::deadline::AbortOnDrop;
use super::connect::{self, RECONNECT_MAX_MS, RECONNECT_MIN_MS};
use super::health::Health;
use super::resp::{self, Answer, Expected, Reader};
use crate::cli::Fetch;
use crate::config::{Login, Node, StoreConfig, StoreUrl, Topology};
use crate::random::below;

/// Requests that are not answered, and bytes that wait to be sent, beyond which fred has to do. A whole thread's
/// requests of one moment fit, if they are not all of the largest kind.
const MAX_UNANSWERED: usize = 16 * 1024;
const MAX_UNSENT_BYTES: usize = 16 * 1024 * 1024;
/// An answer of 15 keys of 256 bytes has 4 KiB, and several come at once.
const READ_BYTES: usize = 64 * 1024;
/// A read into less would only make another one necessary.
const MIN_READ_BYTES: usize = 16 * 1024;
/// What a buffer may keep of the largest answers and commands once they are gone.
const MAX_IDLE_BYTES: usize = 1024 * 1024;

/// The connection, as the readers of one runtime see it.
#[derive(Clone)]
pub(super) struct Direct {
    shared: Arc<Shared>,
    _task: Arc<AbortOnDrop>,
}

struct Shared {
    state: Mutex<State>,
    /// Of this connection alone: while it is frozen and fred's is not, fred reads; and a write that is stuck in fred is
    /// not taken for well because reads are answered here.
    health: Health,
}

#[derive(Default)]
struct State {
    is_up: bool,
    /// Commands that the task has not taken yet.
    unsent: Vec<u8>,
    /// Who waits, in the order of the commands, which is that of the answers.
    asked: VecDeque<Asked>,
    /// Answers since the connection was made.
    answered: u64,
    /// Of the task, while it has nothing to send.
    task: Option<Waker>,
}

struct Asked {
    expected: Expected,
    asker: oneshot::Sender<Answer>,
}

impl Direct {
    /// Connects and starts the task that keeps the connection. When this attempt fails, the task goes on trying: fred is
    /// there meanwhile. `None` for a store that takes more than this speaks: a cluster, sentinels, TLS.
    pub(super) async fn start(config: &StoreConfig, fred: &Client) -> Option<Self> {
        let server = Server::of(config)?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            health: Health::new(),
        });
        let first = server.connect().await;
        shared.lock().is_up = first.is_ok();
        let task = tokio::spawn(keep(server, first, shared.clone(), fred.reconnect_rx()));
        Some(Self {
            shared,
            _task: Arc::new(AbortOnDrop::new(&task)),
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.shared.lock().is_up
    }

    pub(super) fn health(&self) -> &Health {
        &self.shared.health
    }

    /// Sends what reads `keys`, unless fred has to. The answer is lost with the connection.
    pub(super) fn ask(
        &self,
        keys: &impl KeyList,
        fetch: Fetch,
    ) -> Option<oneshot::Receiver<Answer>> {
        let mut state = self.shared.lock();
        let has_room = state.asked.len() < MAX_UNANSWERED && state.unsent.len() < MAX_UNSENT_BYTES;
        if !state.is_up || !has_room || !self.shared.health.allows() {
            return None;
        }
        let expected = match fetch {
            Fetch::Mget => {
                resp::put_mget(keys, &mut state.unsent);
                Expected::Array(keys.count())
            }
            Fetch::Pipeline => {
                resp::put_gets(keys, &mut state.unsent);
                Expected::Each(keys.count())
            }
        };
        let (asker, answer) = oneshot::channel();
        state.asked.push_back(Asked { expected, asker });
        if let Some(task) = state.task.take() {
            task.wake();
        }
        Some(answer)
    }
}

impl Shared {
    /// Whoever panics while it is held leaves at worst half a command, which the server refuses: then all is made anew.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all who wait that the connection is lost.
    fn lose(&self) {
        *self.lock() = State::default();
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
async fn keep<T: Clone>(
    server: Server,
    first: io::Result<Connection>,
    shared: Arc<Shared>,
    mut fred_reconnected: broadcast::Receiver<T>,
) {
    let mut attempt = first;
    let mut wait_ms = RECONNECT_MIN_MS;
    let mut is_told = false;
    loop {
        let error = match attempt {
            Ok(connection) => {
                if is_told {
                    tracing::info!("the connection that reads keys is back");
                }
                (is_told, wait_ms) = (false, RECONNECT_MIN_MS);
                shared.lock().is_up = true;
                // A task of its own, as it is woken at every request, and the others here hardly ever.
                let mut exchange = Exchange::new(connection, shared.clone());
                let exchange = poll_fn(move |context| exchange.poll(context));
                let mut exchange = tokio::spawn(exchange);
                let _ended_with_this = AbortOnDrop::new(&exchange);
                let error = tokio::select! {
                    error = &mut exchange => error.unwrap_or_else(io::Error::other),
                    () = shared.stuck(server.gone()) => io::ErrorKind::TimedOut.into(),
                    // Behind its name there may be another server now.
                    _ = fred_reconnected.recv() => io::Error::other("the store was lost"),
                };
                shared.lose();
                error
            }
            Err(error) => error,
        };
        if !is_told {
            tracing::warn!(%error, "the connection that reads keys is not up; fred reads them meanwhile");
            is_told = true;
        }
        // As long again at most, by chance, so that many threads do not come back as one.
        let jitter_ms = below(RandomState::new().hash_one(()), u64::from(wait_ms));
        let wait = Duration::from_millis(u64::from(wait_ms) + jitter_ms);
        tokio::time::sleep(wait).await;
        wait_ms = (wait_ms * 2).min(RECONNECT_MAX_MS);
        // Whatever fred did meanwhile, this attempt comes after it.
        fred_reconnected = fred_reconnected.resubscribe();
        attempt = server.connect().await;
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}
type Connection = Box<dyn Stream>;

/// Where to connect to, and as whom.
struct Server {
    address: Address,
    login: Login,
    database: Option<u8>,
    timeout: Duration,
}

enum Address {
    Tcp(Node),
    Unix(std::path::PathBuf),
}

impl Server {
    fn of(config: &StoreConfig) -> Option<Self> {
        let (address, database) = match &config.url {
            StoreUrl::Tcp(servers) if servers.topology == Topology::One && !servers.tls => {
                (Address::Tcp(servers.nodes[0].clone()), servers.database)
            }
            StoreUrl::Unix(path) => (Address::Unix(path.clone()), None),
            StoreUrl::Tcp(_) | StoreUrl::Embedded(_) => return None,
        };
        Some(Self {
            address,
            login: config.login.clone(),
            database,
            timeout: connect::timeout(config),
        })
    }

    async fn connect(&self) -> io::Result<Connection> {
        let connected = async {
            let mut connection: Connection = match &self.address {
                Address::Tcp(node) => Box::new(self.tcp(node).await?),
                Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
            };
            self.greet(&mut connection).await?;
            Ok(connection)
        };
        let connected = tokio::time::timeout(self.timeout, connected).await;
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn tcp(&self, node: &Node) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((&*node.host, node.port)).await?;
        stream.set_nodelay(true)?;
        socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(self.gone()))?;
        Ok(stream)
    }

    /// After so long without a sign of life the connection is given up.
    fn gone(&self) -> Duration {
        self.timeout * connect::TIMEOUTS_UNTIL_GONE
    }

    async fn greet(&self, connection: &mut Connection) -> io::Result<()> {
        let Login { user, password } = &self.login;
        if let Some(password) = password {
            let mut words = vec![&b"AUTH"[..]];
            words.extend(user.as_ref().map(String::as_bytes));
            words.push(password.reveal().as_bytes());
            command(connection, &words).await?;
        }
        if let Some(database) = self.database {
            let number = database.to_string();
            command(connection, &[b"SELECT", number.as_bytes()]).await?;
        }
        // A server that has too many connections, or still loads, says so only when it is asked. Who may not ask this may
        // read all the same.
        match command(connection, &[b"PING"]).await {
            Err(error) if error.to_string().starts_with("NOPERM") => Ok(()),
            answer => answer,
        }
    }
}

/// Sends a command that is answered by `+OK` or the like.
async fn command(connection: &mut Connection, words: &[&[u8]]) -> io::Result<()> {
    let mut bytes = Vec::new();
    resp::put_command(words, &mut bytes);
    connection.write_all(&bytes).await?;
    let mut reader = Reader::default();
    loop {
        if connection.read_buf(reader.buffer()).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let answer = reader.status().map_err(|_| io::ErrorKind::InvalidData)?;
        if let Some(answer) = answer {
            return answer.map_err(io::Error::other);
        }
    }
}

/// One connection at work.
struct Exchange {
    connection: Connection,
    shared: Arc<Shared>,
    /// What is being sent, and how much of it is.
    sending: Vec<u8>,
    sent: usize,
    reader: Reader,
}

impl Exchange {
    fn new(connection: Connection, shared: Arc<Shared>) -> Self {
        Self {
            connection,
            shared,
            sending: Vec::new(),
            sent: 0,
            reader: Reader::default(),
        }
    }

    /// Sends and receives as far as it goes without waiting; ready when the connection is lost.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if let Poll::Ready(error) = self.receive(context) {
            return Poll::Ready(error);
        }
        match self.send(context) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Sends all that is to be sent; ready when nothing is left, or the connection is lost.
    fn send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.sent == self.sending.len() {
                self.sending.clear();
                self.sending.shrink_to(MAX_IDLE_BYTES);
                self.sent = 0;
                let mut state = self.shared.lock();
                if state.unsent.is_empty() {
                    state.task = Some(context.waker().clone());
                    return Poll::Ready(Ok(()));
                }
                std::mem::swap(&mut self.sending, &mut state.unsent);
            }
            let rest = &self.sending[self.sent..];
            match ready!(Pin::new(&mut self.connection).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
    }

    /// Hands out all answers that are there; ready only when the connection is lost.
    fn receive(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let buffer = self.reader.buffer();
            if buffer.capacity() - buffer.len() < MIN_READ_BYTES {
                buffer.reserve(READ_BYTES.saturating_sub(buffer.len()).max(MIN_READ_BYTES));
            }
            match ready!(pin!(self.connection.read_buf(buffer)).poll(context)) {
                Ok(0) => return Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => return Poll::Ready(error),
            }
            if self.hand_out().is_err() {
                return Poll::Ready(io::ErrorKind::InvalidData.into());
            }
        }
    }

    fn hand_out(&mut self) -> Result<(), resp::Malformed> {
        let mut state = self.shared.lock();
        while let Some(asked) = state.asked.front() {
            let Some(answer) = self.reader.next(asked.expected)? else {
                return Ok(());
            };
            if let Some(Asked { asker, .. }) = state.asked.pop_front() {
                // Whoever gave up waiting needs none.
                let _ = asker.send(answer);
                state.answered += 1;
            }
        }
        if !self.reader.is_empty() {
            // Nobody asked for this.
            return Err(resp::Malformed);
        }
        let buffer = self.reader.buffer();
        if buffer.capacity() > MAX_IDLE_BYTES {
            *buffer = BytesMut::new();
        }
        Ok(())
    }
}
