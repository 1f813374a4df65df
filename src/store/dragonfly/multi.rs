//! Transactions: MULTI, commands, EXEC, over connections that do nothing else.
//!
//! Enters: steps. Leaves: what each gave, or why none was done. Not over fred's connection: it waits for each transaction
//! before it sends anything else, sends one again whose end it did not see, and takes answers for pub/sub messages.
//!
//! MULTI goes first and alone. Where it is refused, the commands behind it would be executed one by one. All else
//! goes in one write. Whatever does not end well, also because whoever asked has left, ends with its connection, and a
//! server forgets what was queued over one. Must not ask twice for what may have been done.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use fred::interfaces::ClusterInterface as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use super::super::{Executed, Gave, Held, Room, Step, StoreError};
use super::command::milliseconds;
use super::direct::{Connection, Server};
use super::resp::{Part, put_command, put_set};
use super::{Dragonfly, left_of, plain, words};
use crate::config::{Node, StoreConfig};

/// Transactions at once on one thread, each on a connection of its own. Others wait, which hardly takes longer: a server
/// executes one after the other.
const AT_ONCE: usize = 4;
/// Behind a name there may be another server one day.
const MAX_AGE: Duration = Duration::from_secs(30);
/// How often a transaction may be sent on to another node of a cluster.
const MAX_REDIRECTIONS: usize = 3;
/// What is read at once.
const READ_BYTES: usize = 16 * 1024;

/// The connections for transactions.
pub(super) struct Lines {
    /// `None`: there is none that this could speak to.
    server: Option<Server>,
    idle: Mutex<Vec<Line>>,
    turns: Semaphore,
}

/// Why a transaction was not done, or not seen to be.
enum Failure {
    /// The server did nothing of it; what it said.
    Refused(String),
    /// The connection was lost.
    Lost(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl Dragonfly {
    pub(in super::super) async fn transaction(
        &self,
        steps: Vec<Step>,
        room: &Room,
    ) -> Result<Executed, StoreError> {
        self.ready()?;
        let timeout = self.deadline.timeout();
        let done = tokio::time::timeout(timeout, self.whole_transaction(&steps, room)).await;
        done.unwrap_or(Err(StoreError::Timeout(timeout)))
    }

    async fn whole_transaction(&self, steps: &[Step], room: &Room) -> Result<Executed, StoreError> {
        let slot = if self.is_cluster {
            slot_of(steps)?
        } else {
            None
        };
        let turn = self.lines.turns.acquire().await;
        let _turn = turn.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let mut redirections = 0;
        loop {
            let node = slot.map(|slot| self.master_of(slot)).transpose()?;
            let mut line = self
                .lines
                .begin(node)
                .await
                .map_err(|failure| match failure {
                    Failure::Refused(text) => self.discarded(text),
                    Failure::Lost(error) => self.no_line(&error),
                })?;
            match line.execute(steps, room, self.is_cluster).await {
                Ok(executed) => {
                    self.lines.keep(line);
                    return Ok(executed);
                }
                Err(Failure::Refused(text)) => {
                    let has_moved = self.is_cluster && text.starts_with("MOVED ");
                    if !has_moved || redirections == MAX_REDIRECTIONS {
                        return Err(self.discarded(text));
                    }
                    redirections += 1;
                    let synced = self.client.sync_cluster().await;
                    synced.map_err(|error| self.error(&error))?;
                }
                Err(Failure::Lost(error)) => {
                    return Err(StoreError::Unavailable(format!(
                        "the connection was lost during the transaction, which may have been done: {error}"
                    )));
                }
            }
        }
    }

    fn master_of(&self, slot: u16) -> Result<Node, StoreError> {
        let routing = self.client.cached_cluster_state();
        let server = routing.and_then(|routing| routing.get_server(slot).cloned());
        let server = server.ok_or_else(|| {
            StoreError::Unavailable(format!("no node of the cluster has slot {slot}"))
        })?;
        let (host, port) = (server.host.to_string(), server.port);
        Ok(Node { host, port })
    }

    fn discarded(&self, text: String) -> StoreError {
        // Its slot is under way: in a moment it will have arrived.
        let is_moving = self.is_cluster && (text.starts_with("ASK ") || text.starts_with("MOVED "));
        let why = if is_moving {
            StoreError::Unavailable(text)
        } else {
            self.refusal(text)
        };
        StoreError::Discarded(Box::new(why))
    }

    /// Why there is no connection for a transaction.
    fn no_line(&self, error: &io::Error) -> StoreError {
        match error.kind() {
            // What the server said.
            io::ErrorKind::Other => self.refusal(error.to_string()),
            _ => StoreError::Unavailable(plain::plain(&error.to_string())),
        }
    }
}

/// The slot of all keys of a transaction.
fn slot_of(steps: &[Step]) -> Result<Option<u16>, StoreError> {
    let mut slots = steps
        .iter()
        .flat_map(Step::keys)
        .map(fred::util::redis_keyslot);
    let first = slots.next();
    if slots.any(|slot| Some(slot) != first) {
        return Err(StoreError::CrossSlot);
    }
    Ok(first)
}

impl Lines {
    pub(super) fn new(config: &StoreConfig) -> Self {
        Self {
            server: Server::of(config),
            idle: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// A connection on which a transaction has begun.
    async fn begin(&self, node: Option<Node>) -> Result<Line, Failure> {
        // One that was closed meanwhile shows it now, before anything is asked of it.
        while let Some(mut line) = self.take(node.as_ref()) {
            if line.begin().await.is_ok() {
                return Ok(line);
            }
        }
        let server = self
            .server
            .as_ref()
            .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        let connection = match &node {
            Some(node) => server.at(node, false).connect().await?,
            None => server.connect().await?,
        };
        let mut line = Line {
            connection,
            came: BytesMut::new(),
            made: Instant::now(),
            node,
        };
        line.begin().await?;
        Ok(line)
    }

    fn take(&self, node: Option<&Node>) -> Option<Line> {
        let mut idle = self.lock();
        idle.retain(|line| line.made.elapsed() < MAX_AGE);
        let place = idle.iter().position(|line| line.node.as_ref() == node)?;
        Some(idle.swap_remove(place))
    }

    fn keep(&self, line: Line) {
        let mut idle = self.lock();
        if idle.len() == AT_ONCE {
            idle.remove(0);
        }
        idle.push(line);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Line>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection.
struct Line {
    connection: Connection,
    came: BytesMut,
    made: Instant,
    /// Of a cluster: with which node it is.
    node: Option<Node>,
}

impl Line {
    async fn begin(&mut self) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        put_command(&[b"MULTI"], &mut bytes);
        self.send(&bytes).await?;
        match self.part().await? {
            Part::Status => Ok(()),
            Part::Error(text) => Err(Failure::Refused(text)),
            _ => Err(malformed().into()),
        }
    }

    async fn execute(
        &mut self,
        steps: &[Step],
        room: &Room,
        is_cluster: bool,
    ) -> Result<Executed, Failure> {
        let mut bytes = Vec::new();
        for step in steps {
            put(step, &mut bytes);
        }
        put_command(&[b"EXEC"], &mut bytes);
        self.send(&bytes).await?;
        drop(bytes);
        let mut refused = None;
        for _ in steps {
            match self.part().await? {
                Part::Status => {}
                Part::Error(text) => refused = refused.or(Some(text)),
                _ => return Err(malformed().into()),
            }
        }
        match self.part().await? {
            Part::List(count) if count == steps.len() && refused.is_none() => {}
            Part::Error(text) => return Err(Failure::Refused(refused.unwrap_or(text))),
            _ => return Err(malformed().into()),
        }
        let mut held = room.hold();
        let mut answers = Vec::with_capacity(steps.len());
        for step in steps {
            let answer = self.answer(step, is_cluster, (room, &mut held)).await?;
            answers.push(answer);
        }
        Ok(Executed { answers, held })
    }

    /// What a step gave.
    async fn answer(
        &mut self,
        step: &Step,
        is_cluster: bool,
        room: (&Room, &mut Held),
    ) -> io::Result<Result<Gave, StoreError>> {
        let part = match self.part().await? {
            Part::Error(text) => return Ok(Err(words::error(text, is_cluster))),
            part => part,
        };
        Ok(Ok(match (step, part) {
            (Step::Get(_), Part::List(1)) => match self.values(1, room).await? {
                Ok(mut values) => Gave::Value(values.pop().flatten()),
                Err(error) => return Ok(Err(error)),
            },
            (Step::GetMany(keys), Part::List(count)) if count == keys.len() => {
                match self.values(count, room).await? {
                    Ok(values) => Gave::Values(values),
                    Err(error) => return Ok(Err(error)),
                }
            }
            (Step::Exists(_) | Step::Delete(_), Part::Number(count)) => {
                Gave::Count(count.unsigned_abs())
            }
            (Step::TimeToLive(_), Part::Number(left)) => Gave::Left(left_of(left)),
            (Step::Put { .. } | Step::PutBatch(_), Part::Status) => Gave::Written(true),
            (Step::Put { only: Some(_), .. }, Part::Nothing) => Gave::Written(false),
            _ => return Err(malformed()),
        }))
    }

    /// So many values. When they have no room, they are let go as they come.
    async fn values(
        &mut self,
        count: usize,
        (room, held): (&Room, &mut Held),
    ) -> io::Result<Result<Vec<Option<Bytes>>, StoreError>> {
        let mut values = Ok(Vec::with_capacity(count));
        for _ in 0..count {
            let length = match self.part().await? {
                Part::Value(length) => Some(length),
                Part::Nothing => None,
                _ => return Err(malformed()),
            };
            if let (Some(length), Ok(_)) = (length, &values)
                && let Err(error) = room.add(held, length)
            {
                values = Err(error);
            }
            match (length, &mut values) {
                (Some(length), Ok(values)) => values.push(Some(self.value(length).await?)),
                (Some(length), Err(_)) => self.skip(length).await?,
                (None, Ok(values)) => values.push(None),
                (None, Err(_)) => {}
            }
        }
        Ok(values)
    }

    async fn value(&mut self, length: usize) -> io::Result<Bytes> {
        while self.came.len() < length + 2 {
            self.came.reserve(length + 2 - self.came.len());
            self.read().await?;
        }
        let value = self.came.split_to(length).freeze();
        self.came.advance(2);
        Ok(value)
    }

    async fn skip(&mut self, length: usize) -> io::Result<()> {
        let mut left = length + 2;
        loop {
            let come = left.min(self.came.len());
            self.came.advance(come);
            left -= come;
            if left == 0 {
                return Ok(());
            }
            self.read().await?;
        }
    }

    async fn part(&mut self) -> io::Result<Part> {
        loop {
            let part = Part::take(&mut self.came).map_err(|_| malformed())?;
            if let Some(part) = part {
                return Ok(part);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        if self.came.capacity() == self.came.len() {
            self.came.reserve(READ_BYTES);
        }
        match self.connection.read_buf(&mut self.came).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.connection.write_all(bytes).await?;
        self.connection.flush().await
    }
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Appends the command of a step.
fn put(step: &Step, out: &mut Vec<u8>) {
    let with = |name: &'static [u8], keys: &[Bytes], out: &mut Vec<u8>| {
        let keys = keys.iter().map(|key| &key[..]);
        put_command(&std::iter::once(name).chain(keys).collect::<Vec<_>>(), out);
    };
    match step {
        // As everywhere here, a key of another kind has no value. GET would answer it by an error.
        Step::Get(key) => put_command(&[b"MGET", key], out),
        Step::GetMany(keys) => with(b"MGET", keys, out),
        Step::Exists(keys) => with(b"EXISTS", keys, out),
        Step::Delete(keys) => with(b"DEL", keys, out),
        Step::TimeToLive(key) => put_command(&[b"PTTL", key], out),
        Step::Put {
            key,
            value,
            ttl,
            only,
        } => put_set(key, value, ttl.map(milliseconds), *only, out),
        Step::PutBatch(batch) => {
            let mut words = vec![&b"MSET"[..]];
            words.extend(batch.entries().flat_map(|(key, value)| [key, value]));
            put_command(&words, out);
        }
    }
}
