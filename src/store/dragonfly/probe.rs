//! Looking for a sign of life of a store that has not answered for a while.
//!
//! Enters: a connection that is suspect. Leaves: its health, mended by an answer or frozen without one. Must not hang on
//! the life of any request: those are the ones that leave.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike as _;
use fred::types::Value;
use tokio::runtime::Handle;

use super::super::DATASET_KEY;
use super::direct::Direct;
use super::{Dragonfly, Line};
use crate::config::Fetch;

/// The wait before another question, when there was no connection to ask over.
const PAUSE: Duration = Duration::from_millis(100);
/// An answer that is still not there after so long went with a connection that nobody knows to be lost.
const ASK_ANEW: Duration = Duration::from_secs(8);

/// Asks in a task of its own until the connection is no longer suspect.
pub(super) fn start(store: &Dragonfly, line: Line<'_>) {
    // While a runtime shuts down there is none, and nothing to look for.
    if let Ok(runtime) = Handle::try_current() {
        let direct = match line {
            Line::Fred => None,
            Line::Direct(direct) => Some(direct.clone()),
        };
        runtime.spawn(probe(store.clone(), direct));
    }
}

/// Of the client's connections, or of one that only reads.
async fn probe(store: Dragonfly, direct: Option<Direct>) {
    let health = direct.as_ref().map_or(&*store.health, Direct::health);
    while health.goes_on_probing() {
        let mut answer = pin!(is_alive(&store, direct.as_ref()));
        let mut is_alive = store.deadline.limit(answer.as_mut()).await;
        if is_alive.is_none() {
            health.freeze();
            // A late answer is one too.
            is_alive = tokio::time::timeout(ASK_ANEW, answer).await.ok();
        }
        if is_alive == Some(true) {
            health.answered();
        } else {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Whether it answered; a refusal is an answer. `false` when there is no connection, or it was lost.
async fn is_alive(store: &Dragonfly, direct: Option<&Direct>) -> bool {
    match direct {
        Some(direct) => {
            let key = Bytes::from_static(DATASET_KEY);
            match direct.ask_anyway(&key, Fetch::Mget) {
                Some(answer) => answer.await.is_ok(),
                None => false,
            }
        }
        None if store.is_connected() => {
            let answer: Result<Value, Error> = store.client.ping(None).await;
            !answer.is_err_and(|error| is_lost(&error))
        }
        None => false,
    }
}

fn is_lost(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Timeout
    )
}
