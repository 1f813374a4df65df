//! Reading, writing and removing one key, on the condition that the request names (RFC 9110, 13).
//!
//! Enters: a key and the headers. Leaves: a reply. Must not write on a condition that the store does not check in the same
//! step: others may write in between.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{HeaderMap, StatusCode};

use super::Handler;
use crate::serve::budget::Growing;
use crate::serve::incoming;
use crate::serve::negotiate::{CannotCheck, Condition, fails_match, names_tag};
use crate::serve::reply::{self, Problem, Reply};
use crate::store::Only;
use crate::units::MAX_VALUE_BYTES;

impl Handler {
    pub(super) async fn get_key(&self, key: &[u8], headers: &HeaderMap) -> Result<Reply, Problem> {
        let value = self.keys.get(owned(key)).await?;
        let tag = value.as_deref().map(reply::tag);
        if fails_match(headers, tag.as_deref()) {
            return Err(match tag {
                Some(_) => differs(),
                None => is_not_there(),
            });
        }
        let tag = tag.unwrap_or_default();
        if value.is_some() && names_tag(headers, &tag) {
            return Ok(reply::not_modified(&tag));
        }
        let mut answer = Growing::new(&self.room);
        answer.add(value.as_ref().map_or(0, Bytes::len))?;
        Ok(answer.keep(reply::value(value, &tag)?))
    }

    pub(super) async fn put_key(
        &self,
        key: &[u8],
        ttl: Option<Duration>,
        headers: &HeaderMap,
        incoming: &mut Incoming,
    ) -> Result<Reply, Problem> {
        let condition = Condition::of(headers).map_err(not_checked)?;
        let (value, _held) = incoming::whole(incoming, MAX_VALUE_BYTES, &self.room).await?;
        let _place = self.waiting.take()?;
        let (only, refusal) = match condition {
            Condition::None => {
                self.keys.put(owned(key), value, ttl).await?;
                return Ok(reply::no_content());
            }
            Condition::Absent => (Only::IfAbsent, is_there()),
            Condition::Present => (Only::IfPresent, is_not_there()),
        };
        if self.keys.put_if(only, owned(key), value, ttl).await? {
            Ok(reply::no_content())
        } else {
            Err(refusal)
        }
    }

    pub(super) async fn delete_key(
        &self,
        key: &[u8],
        headers: &HeaderMap,
    ) -> Result<Reply, Problem> {
        let condition = Condition::of(headers).map_err(not_checked)?;
        let key = owned(key);
        if condition == Condition::Absent {
            // Whatever is there stays, and nothing is there to remove.
            let value = self.keys.get(key).await?;
            return Err(value.map_or_else(reply::no_value, |_| is_there()));
        }
        match (self.keys.delete(vec![key]).await?, condition) {
            (1.., _) => Ok(reply::no_content()),
            (0, Condition::Present) => Err(is_not_there()),
            (0, _) => Err(reply::no_value()),
        }
    }
}

fn not_checked(_: CannotCheck) -> Problem {
    let detail = "a condition must hold in the same step in which the store writes: known here are If-None-Match: * and \
                  If-Match: *";
    failed(detail)
}

fn is_there() -> Problem {
    failed("this key is there already")
}

fn is_not_there() -> Problem {
    failed("this key is absent")
}

fn differs() -> Problem {
    failed("this key holds another value")
}

fn failed(detail: &str) -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, detail)
}

fn owned(key: &[u8]) -> Bytes {
    Bytes::copy_from_slice(key)
}
