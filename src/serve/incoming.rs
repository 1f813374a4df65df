//! Taking the bodies of requests.
//!
//! Enters: a body on its way in. Leaves: all of it, with its part of what may be held. Must not wait for ever, nor take
//! more than it was told to.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::{HeaderMap, StatusCode};

use super::negotiate::is_json;
use super::reply::Problem;
use crate::store::{Held, Room};

/// JSON that carries one value of 1 MiB in base64, or many small ones.
const MAX_JSON_BYTES: usize = 2 * 1024 * 1024;
/// A body that takes longer is not going to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// What is taken of a body after its answer, and for how long: as much as any body may have, once more. A
/// connection that is closed with bytes unread is reset, and the reset can overtake the answer that says why.
const MAX_REST_BYTES: usize = 2 * MAX_JSON_BYTES;
const REST_TIMEOUT: Duration = Duration::from_secs(5);

/// A body that says that it is JSON, and its part of what may be held until it is answered.
pub(super) async fn json(
    headers: &HeaderMap,
    body: &mut Incoming,
    room: &Room,
) -> Result<(Bytes, Held), Problem> {
    if !is_json(headers) {
        let detail = "the body must be JSON and say so: content-type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    whole(body, MAX_JSON_BYTES, room).await
}

/// A whole body. A slow client keeps the bytes that it sent meanwhile, and none of the places of those who
/// wait for the store.
pub(super) async fn whole(
    body: &mut Incoming,
    max_bytes: usize,
    room: &Room,
) -> Result<(Bytes, Held), Problem> {
    let too_large = || {
        let detail = format!("a body has at most {max_bytes} bytes here");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large());
    }
    let announced = body.size_hint().lower() as usize;
    let mut held = room.hold();
    let whole = async {
        // Where its length is known it is not moved again and again; what never comes is never touched either.
        let mut whole = BytesMut::with_capacity(announced);
        while let Some(frame) = body.frame().await {
            let bad =
                |error: hyper::Error| Problem::new(StatusCode::BAD_REQUEST, error.to_string());
            // Trailers say nothing here.
            let Ok(part) = frame.map_err(bad)?.into_data() else {
                continue;
            };
            if part.len() > max_bytes - whole.len() {
                return Err(too_large());
            }
            let added = room.add(&mut held, part.len());
            added.map_err(|_| no_room(announced.max(whole.len() + part.len()), room.all()))?;
            whole.extend_from_slice(&part);
        }
        Ok(whole.freeze())
    };
    let Ok(whole) = tokio::time::timeout(BODY_TIMEOUT, whole).await else {
        let detail = "the body did not arrive";
        return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
    };
    Ok((whole?, held))
}

/// For a body of so many bytes, as far as that is known; the least that may be held is more than any body has.
fn no_room(bytes: usize, all: usize) -> Problem {
    let detail = format!(
        "there is no room for this body now: it has {bytes} bytes, and this server holds {all} of all requests and answers          together (--max-held); send it again later, or in parts"
    );
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}

/// Takes the rest of a body that nobody needs any more, while its answer is on its way.
pub(super) async fn take_rest(mut body: Incoming) {
    let rest = async {
        let mut left = MAX_REST_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            left = left.checked_sub(bytes)?;
        }
        Some(())
    };
    let _ = tokio::time::timeout(REST_TIMEOUT, rest).await;
}
