//! What each arrival asks for, and whether the answer fits. Pure.
//!
//! Enters: a seed, the dataset's size, an arrival's number. Leaves: its keys, its request, a judgement of
//! its answer. Must not hold state: any worker can compute any arrival.

use bytes::{BufMut, BytesMut};
use memchr::memmem;

use crate::random::{below, splitmix64};
use crate::units::KeyCount;

/// Every so many arrivals the answer is read as JSON and compared with what was asked.
const VERIFY_EVERY: u64 = 100;

/// Batches of keys, drawn uniformly.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The indexes are `0..keys`.
    pub keys: KeyCount,
    /// Indexes in each request.
    pub keys_per_request: u32,
    /// Seed of the draw.
    pub seed: u64,
    /// Value of the `Host` header.
    pub authority: String,
}

/// What a body of a successful answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// As many sessions as were asked for, this many of them `null`.
    Sessions {
        /// Keys that were not there.
        misses: u32,
    },
    /// Not the sessions that were asked for.
    Wrong,
}

impl Workload {
    /// The indexes that arrival `number` asks for.
    pub fn indexes(&self, number: u64) -> impl Iterator<Item = u64> {
        let (seed, keys) = (self.seed, self.keys.get());
        let per_request = u64::from(self.keys_per_request);
        let first = number.wrapping_mul(per_request);
        (0..per_request).map(move |place| below(splitmix64(seed, first.wrapping_add(place)), keys))
    }

    /// Replaces `out` by the whole request of arrival `number`.
    pub fn write_request(&self, number: u64, out: &mut BytesMut) {
        out.clear();
        out.put_slice(b"GET /user/sessions?ids=");
        let mut digits = itoa::Buffer::new();
        for (place, index) in self.indexes(number).enumerate() {
            if place > 0 {
                out.put_u8(b',');
            }
            out.put_slice(digits.format(index).as_bytes());
        }
        out.put_slice(b" HTTP/1.1\r\nhost: ");
        out.put_slice(self.authority.as_bytes());
        out.put_slice(b"\r\n\r\n");
    }

    /// Judges the body that arrival `number` was answered with: the misses always, the ids of a sample.
    #[must_use]
    pub fn judge(&self, number: u64, body: &[u8]) -> Answer {
        // Text that looks like a miss is rare, so it is looked at closely.
        if number.is_multiple_of(VERIFY_EVERY) || memmem::find(body, b"null").is_some() {
            return self.verify(number, body);
        }
        if body.first() == Some(&b'[') && body.last() == Some(&b']') && body.len() > 2 {
            Answer::Sessions { misses: 0 }
        } else {
            Answer::Wrong
        }
    }

    /// Reads the body as JSON: as many sessions as keys, each `null` or with the id that was asked for.
    fn verify(&self, number: u64, body: &[u8]) -> Answer {
        let Ok(sessions) = serde_json::from_slice::<Vec<Option<IdOnly>>>(body) else {
            return Answer::Wrong;
        };
        let fits = |(session, index): (&Option<IdOnly>, u64)| {
            // JSON of an older loader carries no id.
            let id = session.as_ref().and_then(|session| session.id);
            id.is_none_or(|id| id == index)
        };
        if sessions.len() != self.keys_per_request as usize
            || !sessions.iter().zip(self.indexes(number)).all(fits)
        {
            return Answer::Wrong;
        }
        let misses = sessions.iter().filter(|session| session.is_none()).count();
        Answer::Sessions {
            misses: misses as u32,
        }
    }
}

#[derive(serde::Deserialize)]
struct IdOnly {
    id: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(keys: u64, keys_per_request: u32) -> Workload {
        Workload {
            keys: KeyCount::new(keys).expect("in range"),
            keys_per_request,
            seed: 1,
            authority: "localhost:80".into(),
        }
    }

    #[test]
    fn requests_are_the_same_every_time_and_differ_from_one_another() {
        let workload = workload(1_000_000, 3);
        let request = |number| {
            let mut out = BytesMut::new();
            workload.write_request(number, &mut out);
            String::from_utf8(out.to_vec()).expect("text")
        };
        assert_eq!(request(5), request(5));
        assert_ne!(request(5), request(6));
        let ids: Vec<String> = workload.indexes(5).map(|id| id.to_string()).collect();
        let expected = format!(
            "GET /user/sessions?ids={} HTTP/1.1\r\nhost: localhost:80\r\n\r\n",
            ids.join(",")
        );
        assert_eq!(request(5), expected);
    }

    #[test]
    fn keys_are_drawn_uniformly_from_the_whole_dataset() {
        let workload = workload(10, 15);
        let mut counts = [0_u32; 10];
        for number in 0..10_000 {
            for index in workload.indexes(number) {
                counts[index as usize] += 1;
            }
        }
        // Expected 15,000 each, with a standard deviation of about 116.
        assert!(
            counts
                .iter()
                .all(|&count| (14_300..15_700).contains(&count)),
            "{counts:?}"
        );
    }

    #[test]
    fn misses_are_the_nulls_of_the_outer_array() {
        let workload = workload(1_000_000, 3);
        let id = |place| workload.indexes(1).nth(place).expect("three of them");
        let one_found = format!(r#"[null, {{"id":{}}}, null]"#, id(1));
        let misses = |misses| Answer::Sessions { misses };
        for (body, expected) in [
            (one_found.as_str(), misses(2)),
            ("[null,null,null]", misses(3)),
            (r#"[{"x":null},{"y":"[null,null"},{}]"#, misses(0)),
            (r#"[{"status":"active"},{},{}]"#, misses(0)),
            ("[null]", Answer::Wrong),
            (r#"[{"id":1},{"id":2},{"id":3}"#, Answer::Wrong),
            ("[]", Answer::Wrong),
            ("", Answer::Wrong),
            ("ok", Answer::Wrong),
        ] {
            assert_eq!(workload.judge(1, body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn sampled_answers_must_hold_the_sessions_that_were_asked_for() {
        let workload = workload(1_000_000, 2);
        let ids: Vec<u64> = workload.indexes(VERIFY_EVERY).collect();
        let body = |first: u64, second: u64| format!(r#"[{{"id":{first}}},{{"id":{second}}}]"#);
        let judge = |body: &str| workload.judge(VERIFY_EVERY, body.as_bytes());
        let right = Answer::Sessions { misses: 0 };
        assert_eq!(judge(&body(ids[0], ids[1])), right);
        assert_eq!(judge(r#"[{"status":"active"},{"status":"active"}]"#), right);
        assert_eq!(judge(&body(ids[1], ids[0])), Answer::Wrong);
        assert_eq!(judge(&format!(r#"[{{"id":{}}}]"#, ids[0])), Answer::Wrong);
        assert_eq!(judge("[1,2]"), Answer::Wrong);
    }
}
