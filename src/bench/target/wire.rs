//! The connections of one generator thread, and operations of the store in their place.
//!
//! Enters: addresses and a worker. Leaves: answers, handed to the worker as they come. Must not keep books:
//! the worker does.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::{Buf, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;

use super::{Share, Way, Worker};
use crate::bench::http::Reader;
use crate::bench::queue::Arrival;
use crate::bench::tally::{Cause, Outcome};
use crate::bench::workload::{Answer, Ask, WRITTEN, Work};
use crate::random::{below, splitmix64};
use crate::store::{Store, StoreError};

/// One answer of 15 sessions, with room to spare.
const READ_BUFFER_BYTES: usize = 16 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that cannot be made, or never answered, is tried again after this much, up to twice as long.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);
/// Connections that are opened at once.
const CONNECTS_AT_ONCE: usize = 64;

pub(super) fn outcome(answer: Answer) -> Outcome {
    match answer {
        Answer::Good(work) => Outcome::Ok(work),
        Answer::Wrong => Outcome::Error(Cause::WrongAnswer),
        Answer::Status(status) => Outcome::Error(Cause::Status(status)),
    }
}

/// Asks the store what an arrival asks for, through the client that serve uses.
pub(super) async fn ask_store(worker: Rc<Worker>, store: Store, slot: usize, arrival: Arrival) {
    let workload = &worker.share.workload;
    let number = arrival.number;
    let answer = match workload.ask(number) {
        Ask::Stats => store.stats().await.map(|_| Answer::Good(Work::default())),
        Ask::Write => {
            let index = workload.indexes(number).next().unwrap_or_default();
            let key = workload.keys(number).pop().unwrap_or_default();
            let written = store.put(key, workload.record(index).unwrap_or_default(), None);
            written.await.map(|()| Answer::Good(WRITTEN))
        }
        Ask::Sessions | Ask::Session | Ask::Template => {
            let values = store.get_many(workload.keys(number)).await;
            values.map(|values| workload.judge_values(number, &values))
        }
    };
    let outcome = answer.map_or_else(
        |error| match error {
            StoreError::Timeout(_) => Outcome::Timeout,
            StoreError::Unavailable(_) | StoreError::Loading(_) => {
                Outcome::Error(Cause::ConnectionLost)
            }
            StoreError::Full(_) | StoreError::Refused(_) | StoreError::Setup(_) => {
                Outcome::Error(Cause::Refused)
            }
        },
        outcome,
    );
    worker.settled(slot, arrival, outcome);
}

/// Keeps one connection of the pool alive: reads its answers, and connects again when it is lost.
pub(super) async fn hold_connection(worker: Rc<Worker>, slot: usize, mut stream: TcpStream) {
    let Ok(address) = stream.peer_addr() else {
        return worker.failed_to_connect(&io::ErrorKind::NotConnected.into());
    };
    for attempt in 0_u64.. {
        let (reader, writer) = stream.into_split();
        worker.joined(slot, Some(writer));
        let mut answers = 0;
        let cause = read_answers(&worker, slot, reader, &mut answers).await;
        worker.lost(slot, cause);
        // One that the target merely closed comes back at once; one that never answered would only spin.
        if answers == 0 {
            wait_before_connecting(slot, attempt).await;
        }
        stream = reconnect(&worker, address, slot, attempt).await;
    }
}

/// Reads answers until the connection is of no use any more, and says why.
async fn read_answers(
    worker: &Rc<Worker>,
    slot: usize,
    mut stream: OwnedReadHalf,
    answers: &mut u64,
) -> Cause {
    let mut buffer = BytesMut::with_capacity(READ_BUFFER_BYTES);
    let mut reader = Reader::default();
    loop {
        buffer.reserve(READ_BUFFER_BYTES / 2);
        let Ok(length) = stream.read_buf(&mut buffer).await else {
            return Cause::ConnectionLost;
        };
        let closed = length == 0;
        match reader.read(&buffer, closed) {
            Err(_) => return Cause::Malformed,
            Ok(Some(response)) => {
                // An answer that nobody asked for, or more than one: the two sides disagree.
                if response.consumed != buffer.len() || !worker.answered(slot, &response, &buffer) {
                    return Cause::Malformed;
                }
                *answers += 1;
                if !response.keep_alive {
                    return Cause::ConnectionLost;
                }
                buffer.advance(response.consumed);
            }
            Ok(None) if closed => return Cause::ConnectionLost,
            Ok(None) => {}
        }
    }
}

/// What a thread needs to begin.
pub(super) enum Connected {
    Http(Vec<TcpStream>),
    Store,
}

/// All connections of the share, some at a time; `None` when the stop signal came first.
pub(super) async fn connect_all(
    share: &Share,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Connected>> {
    let Way::Http(address) = share.way else {
        return Ok(Some(Connected::Store));
    };
    let connects = futures_util::stream::iter(0..share.connections)
        .map(|_| connect(address))
        .buffer_unordered(CONNECTS_AT_ONCE)
        .try_collect();
    tokio::select! {
        () = stop.cancelled() => Ok(None),
        streams = connects => {
            let streams = streams.with_context(|| format!("connecting to {address}"))?;
            Ok(Some(Connected::Http(streams)))
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // On loopback, a connection to a port that nobody listens on can meet itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Tries until it succeeds; the run's end drops it.
async fn reconnect(worker: &Worker, address: SocketAddr, slot: usize, attempt: u64) -> TcpStream {
    let mut retry = attempt;
    loop {
        match connect(address).await {
            Ok(stream) => return stream,
            Err(error) => worker.failed_to_connect(&error),
        }
        retry = retry.wrapping_add(1);
        wait_before_connecting(slot, retry).await;
    }
}

/// Long enough not to spin, and not as long for one connection as for another.
async fn wait_before_connecting(slot: usize, attempt: u64) {
    let bits = splitmix64(slot as u64, attempt);
    let jitter_us = below(bits, RECONNECT_AFTER.as_micros() as u64);
    tokio::time::sleep(RECONNECT_AFTER + Duration::from_micros(jitter_us)).await;
}

/// Ends both directions, so that the reader of the connection wakes and finds out.
pub(super) fn shut_down(writer: &OwnedWriteHalf) {
    // Fails when the other side was faster, which is as good.
    let stream: &TcpStream = writer.as_ref();
    let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Both);
}
