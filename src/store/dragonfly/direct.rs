//! Reading keys from a single server over a connection of our own, beside fred's.
//!
//! Enters: keys. Leaves: their values, slices of the buffer that they were read into. Everything else about the store
//! is fred's, and so is reading while this connection is not up: whoever asks is told so, and asks fred.
//!
//! One task holds the connection. Who reads appends a command to what is to be sent and waits for the answer; the
//! task sends all that came together in one write, and hands out all answers of one read. So a busy thread makes two
//! system calls for very many requests, and no request passes more than one queue.
//!
//! Must not queue without bound, and must not answer one request with the values of another: after anything that is
//! not the answer expected, the connection is closed and all who wait are told that it is lost.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;

use super::super::deadline::AbortOnDrop;
use super::super::{KeyList, StoreError};
use super::connect::{self, RECONNECT_MAX_MS, RECONNECT_MIN_MS};
use super::resp::{self, Answer, Expected, Reader};
use crate::cli::Fetch;
use crate::config::{Login, Node, StoreConfig, StoreUrl, Topology};
use crate::random::below;

/// Commands sent and not answered, and bytes that wait to be sent, beyond which no more are taken. `health` stops the
/// flow into a store that is frozen long before; these hold if it should not.
const MAX_UNANSWERED: usize = 16 * 1024;
const MAX_UNSENT_BYTES: usize = 4 * 1024 * 1024;
/// An answer of 15 keys of 256 bytes has 4 KiB, and several come at once.
const READ_BYTES: usize = 64 * 1024;
/// A read into less would only make another one necessary.
const MIN_READ_BYTES: usize = 16 * 1024;

/// The connection, as the readers of one runtime see it.
#[derive(Clone)]
pub(super) struct Direct {
    shared: Arc<Shared>,
    _task: Arc<AbortOnDrop>,
}

struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    is_up: bool,
    /// Commands that the task has not taken yet.
    unsent: Vec<u8>,
    /// Who waits, in the order of the commands, which is that of the answers.
    asked: VecDeque<Asked>,
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
    pub(super) async fn start(config: &StoreConfig) -> Option<Self> {
        let server = Server::of(config)?;
        let shared = Arc::new(Shared(Mutex::default()));
        let first = server.connect().await;
        shared.lock().is_up = first.is_ok();
        let task = tokio::spawn(keep(server, first, shared.clone()));
        Some(Self {
            shared,
            _task: Arc::new(AbortOnDrop::new(&task)),
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.shared.lock().is_up
    }

    /// Sends what reads `keys`. The answer is lost with the connection.
    pub(super) fn ask(
        &self,
        keys: &impl KeyList,
        fetch: Fetch,
    ) -> Result<oneshot::Receiver<Answer>, StoreError> {
        let mut state = self.shared.lock();
        if !state.is_up {
            return Err(lost());
        }
        if state.asked.len() >= MAX_UNANSWERED || state.unsent.len() >= MAX_UNSENT_BYTES {
            let message = "too many reads are not answered yet";
            return Err(StoreError::Unavailable(message.into()));
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
        Ok(answer)
    }
}

/// What a read is told that was on its way when the connection went.
pub(super) fn lost() -> StoreError {
    StoreError::Unavailable("the connection was lost".into())
}

impl Shared {
    /// Every change is complete before anything that could panic, so a poisoned lock holds a sound state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all who wait that the connection is lost.
    fn lose(&self) {
        *self.lock() = State::default();
    }
}

/// Holds a connection, and makes another one when it is lost.
async fn keep(server: Server, first: io::Result<Connection>, shared: Arc<Shared>) {
    let mut attempt = first;
    let mut wait_ms = RECONNECT_MIN_MS;
    loop {
        let error = match attempt {
            Ok(connection) => {
                shared.lock().is_up = true;
                wait_ms = RECONNECT_MIN_MS;
                let mut exchange = Exchange::new(connection, &shared);
                let error = std::future::poll_fn(|context| exchange.poll(context)).await;
                shared.lose();
                error
            }
            Err(error) => error,
        };
        tracing::debug!(%error, "keys are read through fred until this connection is up again");
        // As long again at most, by chance, so that many threads do not come back as one.
        let jitter_ms = below(RandomState::new().hash_one(()), u64::from(wait_ms));
        let wait = Duration::from_millis(u64::from(wait_ms) + jitter_ms);
        tokio::time::sleep(wait).await;
        wait_ms = (wait_ms * 2).min(RECONNECT_MAX_MS);
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
        let gone = self.timeout * connect::TIMEOUTS_UNTIL_GONE;
        socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(gone))?;
        Ok(stream)
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
        // A server that has too many connections, or still loads, says so only when it is asked.
        command(connection, &[b"PING"]).await
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
struct Exchange<'a> {
    connection: Connection,
    shared: &'a Shared,
    /// What is being sent, and how much of it is.
    sending: Vec<u8>,
    sent: usize,
    reader: Reader,
}

impl<'a> Exchange<'a> {
    fn new(connection: Connection, shared: &'a Shared) -> Self {
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
        // Answers first: who gets one may ask again at once.
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
            }
        }
        // Nobody asked for what is left.
        self.reader.is_empty().then_some(()).ok_or(resp::Malformed)
    }
}
