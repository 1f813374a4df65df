//! The connections of one generator thread, and operations of the store in their place.
//!
//! Enters: addresses and a worker. Leaves: answers, handed to the worker as they come. Must not keep books:
//! the worker does.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

use super::addresses::Addresses;
use super::http::{Bodies, Malformed, Read, Reader};
use super::inbox::Inbox;
use super::line::{Line, Sender};
use super::pacer::pause;
use super::thread::{Share, Way};
use super::worker::Worker;
use crate::bench::judge::ledger::{Cause, Outcome};
use crate::bench::plan::Arrival;
use crate::bench::plan::workload::{Answer, Ask, WRITTEN, Work, Workload};
use crate::config::StoreUrl;
use crate::random::{below, splitmix64};
use crate::store::{Store, StoreError};

/// A connection that cannot be made, or never answered, is tried again after this much, up to twice as long.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);
/// Connections that are opened at once.
const CONNECTS_AT_ONCE: usize = 64;
/// A server drops whom it has no room to queue for, and thousands that come together may be too many for a moment.
const FIRST_ATTEMPTS: u64 = 3;

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
        Ask::Sessions | Ask::Session | Ask::Form => {
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
            StoreError::Full(_)
            | StoreError::NoRoom { .. }
            | StoreError::Discarded(_)
            | StoreError::CrossSlot
            | StoreError::Refused(_)
            | StoreError::Setup(_) => Outcome::Error(Cause::Refused),
        },
        outcome,
    );
    // The embedded store is done when it returns: its own time on this thread must not be taken for the thread's
    // absence.
    let in_process = matches!(&worker.share.way, Way::Store(_, config) if matches!(config.url, StoreUrl::Embedded(_)));
    let lay_ns = in_process.then_some(0);
    worker.settled(slot, arrival, outcome, lay_ns);
}

/// Keeps one connection of the pool alive: reads its answers, and connects again when it is lost.
pub(super) async fn hold_connection(worker: Rc<Worker>, slot: usize, mut line: Line) {
    let Way::Http(addresses) = worker.share.way.clone() else {
        return;
    };
    let mut inbox = Inbox::new();
    for attempt in 0_u64.. {
        worker.shook_hands(&line.handshakes);
        let reader = Rc::new(line);
        worker.joined(slot, Some(Sender::new(reader.clone())));
        let (since, mut answers) = (Instant::now(), 0);
        inbox.clear();
        let end = read_answers(&worker, slot, &reader, &mut inbox, &mut answers).await;
        worker.lost(slot, end);
        // One that the target merely closed comes back at once; one that it never lets stand would only spin.
        if answers == 0 && since.elapsed() < RECONNECT_AFTER {
            wait_before_connecting(slot, attempt).await;
        }
        line = reconnect(&worker, &addresses, slot, attempt).await;
    }
}

/// Why a connection is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was closed, or broke, and nothing of the next answer had come, or only that it had stood idle for too long.
    Untouched,
    /// It was closed, or broke.
    Closed,
    /// What came over it cannot be read.
    Malformed(Malformed),
}

/// What becomes of the bodies that this load is answered.
fn bodies(workload: &Workload) -> Bodies {
    match &workload.form {
        Some(form) if form.is_head() => Bodies::Absent,
        Some(_) if !workload.looks_at_bodies() => Bodies::Counted,
        _ => Bodies::Kept,
    }
}

/// Reads answers until the connection is of no use any more, and says why.
async fn read_answers(
    worker: &Rc<Worker>,
    slot: usize,
    line: &Line,
    inbox: &mut Inbox,
    answers: &mut u64,
) -> End {
    let workload = &worker.share.workload;
    let mut reader = Reader::new(bodies(workload));
    let has_heads = workload.form.as_ref().is_some_and(|form| form.has_heads());
    loop {
        let received = inbox.receive_from(line, &worker.buffer).await;
        let closed = received.as_ref().is_ok_and(|&length| length == 0);
        let end = inbox.read(&worker.buffer, |bytes, lay_ns| {
            let nothing_came =
                || reader.is_between_answers() && bytes.is_empty() && !line.is_cut_off();
            if (closed || received.is_err()) && nothing_came() {
                return (0, Some(End::Untouched));
            }
            if received.is_err() {
                return (0, Some(End::Closed));
            }
            if has_heads {
                let is_head = worker.carries_head(slot);
                reader.expect(if is_head {
                    Bodies::Absent
                } else {
                    bodies(workload)
                });
            }
            let Read { consumed, response } = match reader.read(bytes, closed) {
                Ok(read) => read,
                Err(malformed) => return (0, Some(End::Malformed(malformed))),
            };
            let Some(response) = response else {
                return (consumed, closed.then_some(End::Closed));
            };
            let is_last = consumed == bytes.len();
            // A request that met it on its way is not what it answers.
            if is_last && response.ends_idle_connection() && worker.may_have_stood_idle(slot) {
                return (consumed, Some(End::Untouched));
            }
            // More than one answer, or one without a request: the two sides disagree.
            if !is_last || !worker.answered(slot, &response, bytes, lay_ns()) {
                return (consumed, Some(End::Malformed(Malformed::Unasked)));
            }
            *answers += 1;
            let is_over = closed || !response.keep_alive;
            (consumed, is_over.then_some(End::Closed))
        });
        if let Some(end) = end {
            return end;
        }
    }
}

/// What a thread needs to begin.
pub(super) enum Connected {
    Http(Vec<Line>),
    Store,
}

/// All connections of the share, some at a time; `None` when the stop signal came first.
pub(super) async fn connect_all(
    share: &Share,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Connected>> {
    let Way::Http(addresses) = &share.way else {
        return Ok(Some(Connected::Store));
    };
    let connects = futures_util::stream::iter(0..share.connections)
        .map(|slot| connect_first(addresses, turn(share, slot)))
        .buffer_unordered(CONNECTS_AT_ONCE)
        .try_collect();
    tokio::select! {
        () = stop.cancelled() => Ok(None),
        lines = connects => {
            let lines = lines.with_context(|| format!("connecting to {addresses}"))?;
            Ok(Some(Connected::Http(lines)))
        }
    }
}

/// Before the load begins, a connection that takes too long is tried again; one that is refused is not.
async fn connect_first(addresses: &Addresses, turn: usize) -> io::Result<Line> {
    let mut attempt = 1;
    loop {
        match addresses.connect(turn).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut && attempt < FIRST_ATTEMPTS => {
                wait_before_connecting(turn, attempt).await;
                attempt += 1;
            }
            found => return found,
        }
    }
}

/// Each connection of the run has another number, over all threads.
fn turn(share: &Share, slot: usize) -> usize {
    slot * share.threads as usize + share.number as usize
}

/// Tries until it succeeds; the run's end drops it.
async fn reconnect(worker: &Worker, addresses: &Addresses, slot: usize, attempt: u64) -> Line {
    let mut retry = attempt;
    loop {
        match addresses.connect(turn(&worker.share, slot)).await {
            Ok(line) => return line,
            Err(error) => worker.failed_to_connect(slot, &error),
        }
        retry = retry.wrapping_add(1);
        wait_before_connecting(slot, retry).await;
    }
}

/// Long enough not to spin, and not as long for one connection as for another.
async fn wait_before_connecting(slot: usize, attempt: u64) {
    let bits = splitmix64(slot as u64, attempt);
    let jitter_us = below(bits, RECONNECT_AFTER.as_micros() as u64);
    pause(RECONNECT_AFTER + Duration::from_micros(jitter_us)).await;
}
