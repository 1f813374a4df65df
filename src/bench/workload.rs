//! What each arrival asks for, and whether the answer fits. Pure.
//!
//! Enters: a mix, a choice of keys, an arrival's number. Leaves: its keys, its request, a judgement of its
//! answer. Must not hold state: any worker can compute any arrival.

mod keys;

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem;

pub use keys::Chooser;

use crate::cli::Fetch;
use crate::config::Token;
use crate::load::Mix;
use crate::random::{below, chance, splitmix64};
use crate::record::{self, Dataset, Decoded};

/// Sets the draws of what to ask, what to verify and which keys apart from each other.
const ASK_SALT: u64 = 0xA5;
const VERIFY_SALT: u64 = 0x5E;

/// The header lines that every request needs, each with its end.
#[must_use]
pub fn headers(authority: &str, token: Option<&Token>) -> String {
    let token = token.map(|token| format!("{}\r\n", token.header()));
    format!("host: {authority}\r\n{}", token.unwrap_or_default())
}

/// The load's contents. No `Debug`: it would print the token.
#[derive(Clone)]
pub struct Workload {
    /// What the arrivals ask for.
    pub mix: Mix,
    /// Which keys.
    pub chooser: Chooser,
    /// Keys of a batch.
    pub keys_per_request: u32,
    /// Seed of all draws.
    pub seed: u64,
    /// Share of the answers that are compared with their records.
    pub verify: f64,
    /// What the records are, where it is known: without it, only ids can be compared, and nothing written.
    pub dataset: Option<Dataset>,
    /// What stands before the index in each key.
    pub key_prefix: String,
    /// Header lines of every request, each with its end; the token may be among them.
    pub headers: String,
    /// How the target reads several keys, which decides how many commands an answer stands for.
    pub fetch: Fetch,
    /// Another target's path, with `{id}`, `{ids}` or `{key}` in it.
    pub template: Option<String>,
}

/// What one arrival asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// A batch of sessions.
    Sessions,
    /// One session.
    Session,
    /// The statistics.
    Stats,
    /// One record, written.
    Write,
    /// Whatever the template asks for.
    Template,
}

/// What a good answer stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Keys found, or written.
    pub hits: u32,
    /// Keys that were not there.
    pub misses: u32,
    /// Of the hits, those written.
    pub written: u32,
    /// Commands behind it: one for any number of keys, or one for each, as the target reads them; none for
    /// statistics, which are cached.
    pub commands: u32,
}

/// How an answer is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is what was asked for.
    Good(Work),
    /// It is something else.
    Wrong,
    /// It is a refusal.
    Status(u16),
}

impl Workload {
    /// What arrival `number` asks for.
    #[must_use]
    pub fn ask(&self, number: u64) -> Ask {
        if self.template.is_some() {
            return Ask::Template;
        }
        let draw = |of: u64| below(splitmix64(self.seed ^ ASK_SALT, number), of);
        match self.mix {
            Mix::Batch => Ask::Sessions,
            Mix::Single => Ask::Session,
            Mix::SessionsAndStats if draw(4) == 0 => Ask::Session,
            Mix::SessionsAndStats => Ask::Stats,
            Mix::Mixed { reads_percent } if draw(100) < u64::from(reads_percent) => Ask::Session,
            Mix::Mixed { .. } => Ask::Write,
        }
    }

    /// Some of the arrivals write.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.template.is_none()
            && matches!(self.mix, Mix::Mixed { reads_percent } if reads_percent < 100)
    }

    /// The indexes that arrival `number` asks for.
    pub fn indexes(&self, number: u64) -> impl Iterator<Item = u64> {
        let batches = match &self.template {
            Some(path) => path.contains("{ids}"),
            None => self.mix == Mix::Batch,
        };
        // The places of the draws follow one another without a gap, whatever the arrivals ask for.
        let places = if batches {
            u64::from(self.keys_per_request)
        } else {
            1
        };
        let first = number.wrapping_mul(places);
        let count = if self.ask(number) == Ask::Stats {
            0
        } else {
            places
        };
        (0..count).map(move |place| self.chooser.index(self.seed, first.wrapping_add(place)))
    }

    /// The keys that arrival `number` asks for.
    #[must_use]
    pub fn keys(&self, number: u64) -> Vec<Bytes> {
        let mut buffer = BytesMut::with_capacity(512);
        let key = |index| {
            record::put_key(&self.key_prefix, index, &mut buffer);
            buffer.split().freeze()
        };
        self.indexes(number).map(key).collect()
    }

    /// The record of an index; `None` when it is not known what the records are.
    #[must_use]
    pub fn record(&self, index: u64) -> Option<Bytes> {
        let dataset = self.dataset.as_ref()?;
        let mut record = BytesMut::with_capacity(dataset.value_size.typical_bytes());
        dataset.put_record(index, &mut record);
        Some(record.freeze())
    }

    /// Replaces `out` by the whole request of arrival `number`.
    pub fn write_request(&self, number: u64, out: &mut BytesMut) {
        out.clear();
        match self.ask(number) {
            Ask::Sessions => {
                out.put_slice(b"GET /user/sessions?ids=");
                self.put_ids(number, out);
            }
            Ask::Session => {
                out.put_slice(b"GET /user/session/");
                self.put_ids(number, out);
            }
            Ask::Stats => out.put_slice(b"GET /stats"),
            Ask::Template => {
                out.put_slice(b"GET ");
                self.put_template(number, out);
            }
            Ask::Write => return self.put_write(number, out),
        }
        self.put_end(out);
        out.put_slice(b"\r\n");
    }

    fn good(&self, hits: u32, misses: u32) -> Answer {
        Answer::Good(Work {
            hits,
            misses,
            written: 0,
            commands: match self.fetch {
                Fetch::Mget => 1,
                Fetch::Pipeline => hits + misses,
            },
        })
    }

    fn put_end(&self, out: &mut BytesMut) {
        out.put_slice(b" HTTP/1.1\r\n");
        out.put_slice(self.headers.as_bytes());
    }

    fn put_ids(&self, number: u64, out: &mut BytesMut) {
        let mut digits = itoa::Buffer::new();
        for (place, index) in self.indexes(number).enumerate() {
            if place > 0 {
                out.put_u8(b',');
            }
            out.put_slice(digits.format(index).as_bytes());
        }
    }

    fn put_write(&self, number: u64, out: &mut BytesMut) {
        let index = self.indexes(number).next().unwrap_or_default();
        let record = self.record(index).unwrap_or_default();
        out.put_slice(b"PUT /v1/keys/");
        let key = [
            self.key_prefix.as_bytes(),
            itoa::Buffer::new().format(index).as_bytes(),
        ]
        .concat();
        let key = percent_encoding::percent_encode(&key, percent_encoding::NON_ALPHANUMERIC);
        out.put_slice(key.to_string().as_bytes());
        self.put_end(out);
        out.put_slice(b"content-length: ");
        out.put_slice(itoa::Buffer::new().format(record.len()).as_bytes());
        out.put_slice(b"\r\n\r\n");
        out.put_slice(&record);
    }

    fn put_template(&self, number: u64, out: &mut BytesMut) {
        let mut ids = BytesMut::new();
        self.put_ids(number, &mut ids);
        let ids = String::from_utf8_lossy(&ids);
        let key = format!("{}{ids}", self.key_prefix);
        let path = self.template.as_deref().unwrap_or_default();
        let path = path
            .replace("{ids}", &ids)
            .replace("{id}", &ids)
            .replace("{key}", &key);
        out.put_slice(path.as_bytes());
    }

    /// Judges what arrival `number` was answered over HTTP.
    #[must_use]
    pub fn judge(&self, number: u64, status: u16, body: &[u8]) -> Answer {
        let ask = self.ask(number);
        match (ask, status) {
            (Ask::Sessions, 200) => self.judge_sessions(number, body),
            (Ask::Session, 200) => self.judge_session(number, body),
            (Ask::Session, 404) => self.good(0, 1),
            (Ask::Stats, 200) if body.first() == Some(&b'{') => Answer::Good(Work::default()),
            (Ask::Stats, 200) => Answer::Wrong,
            (Ask::Write, 200 | 201 | 204) => Answer::Good(WRITTEN),
            // What another target answers is taken as it is.
            (Ask::Template, 200) => self.good(self.indexes(number).count() as u32, 0),
            (Ask::Template, 404) => self.good(0, self.indexes(number).count() as u32),
            _ => Answer::Status(status),
        }
    }

    fn judge_sessions(&self, number: u64, body: &[u8]) -> Answer {
        // Text that looks like a miss is rare, so it is looked at closely.
        if self.verifies(number) || memmem::find(body, b"null").is_some() {
            return self.verify_sessions(number, body);
        }
        if body.first() == Some(&b'[') && body.last() == Some(&b']') && body.len() > 2 {
            self.good(self.keys_per_request, 0)
        } else {
            Answer::Wrong
        }
    }

    fn judge_session(&self, number: u64, body: &[u8]) -> Answer {
        let fits = if self.verifies(number) {
            let seen = serde_json::from_slice::<Seen>(body);
            let index = self.indexes(number).next().unwrap_or_default();
            seen.is_ok_and(|seen| self.fits(&seen, index))
        } else {
            body.first() == Some(&b'{')
        };
        if fits { self.good(1, 0) } else { Answer::Wrong }
    }

    /// Judges what arrival `number` was answered by the store itself.
    #[must_use]
    pub fn judge_values(&self, number: u64, values: &[Option<Bytes>]) -> Answer {
        let misses = values.iter().filter(|value| value.is_none()).count() as u32;
        if self.verifies(number) && self.dataset.is_some() {
            let right = |(value, index): (&Option<Bytes>, u64)| {
                value.is_none() || *value == self.record(index)
            };
            if !values.iter().zip(self.indexes(number)).all(right) {
                return Answer::Wrong;
            }
        }
        self.good(values.len() as u32 - misses, misses)
    }

    /// Whether the answer of arrival `number` belongs to the sample that is compared.
    fn verifies(&self, number: u64) -> bool {
        let bits = splitmix64(self.seed ^ VERIFY_SALT, number);
        chance(bits, self.verify)
    }

    /// Reads the body as JSON: as many sessions as keys, each `null` or the one that was asked for.
    fn verify_sessions(&self, number: u64, body: &[u8]) -> Answer {
        let Ok(sessions) = serde_json::from_slice::<Vec<Option<Seen>>>(body) else {
            return Answer::Wrong;
        };
        let fits = |(session, index): (&Option<Seen>, u64)| {
            session.as_ref().is_none_or(|seen| self.fits(seen, index))
        };
        if sessions.len() != self.keys_per_request as usize
            || !sessions.iter().zip(self.indexes(number)).all(fits)
        {
            return Answer::Wrong;
        }
        let misses = sessions.iter().filter(|session| session.is_none()).count() as u32;
        self.good(self.keys_per_request - misses, misses)
    }

    /// A session is that of the index; JSON of an older loader carries no id, and is taken as it is.
    fn fits(&self, seen: &Seen, index: u64) -> bool {
        let Some(id) = seen.id else { return true };
        let record = self.record(index);
        let decoded = record.as_deref().map(record::decode);
        let Some(Ok(Decoded::Session(expected))) = decoded else {
            return id == index;
        };
        id == index
            && seen.created_at == Some(expected.created_at_s)
            && seen.ip == Some(std::net::Ipv4Addr::from(expected.ip))
    }
}

/// What one write comes to.
pub(super) const WRITTEN: Work = Work {
    hits: 1,
    misses: 0,
    written: 1,
    commands: 1,
};

/// What of a session is compared.
#[derive(serde::Deserialize)]
struct Seen {
    id: Option<u64>,
    created_at: Option<u64>,
    ip: Option<std::net::Ipv4Addr>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::KeysDist;
    use crate::units::KeyCount;

    fn workload(mix: &str, keys_per_request: u32) -> Workload {
        let keys = KeyCount::new(1_000_000).expect("in range");
        Workload {
            mix: mix.parse().expect("a mix"),
            chooser: Chooser::new(KeysDist::Uniform, keys),
            keys_per_request,
            seed: 1,
            verify: 0.0,
            dataset: None,
            key_prefix: "user:session:".into(),
            headers: headers("localhost:80", None),
            fetch: Fetch::Mget,
            template: None,
        }
    }

    fn request(workload: &Workload, number: u64) -> String {
        let mut out = BytesMut::new();
        workload.write_request(number, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn requests_are_the_same_every_time_and_differ_from_one_another() {
        let workload = workload("batch", 3);
        assert_eq!(request(&workload, 5), request(&workload, 5));
        assert_ne!(request(&workload, 5), request(&workload, 6));
        let ids: Vec<String> = workload.indexes(5).map(|id| id.to_string()).collect();
        let expected = format!(
            "GET /user/sessions?ids={} HTTP/1.1\r\nhost: localhost:80\r\n\r\n",
            ids.join(",")
        );
        assert_eq!(request(&workload, 5), expected);
    }

    #[test]
    fn sequential_keys_leave_none_out_whatever_is_asked_for() {
        for (mix, template, expected) in [
            ("batch", None, [0, 1, 2, 3, 4, 5]),
            ("single", None, [0, 1, 2, 3, 4, 5]),
            ("mixed:50/50", None, [0, 1, 2, 3, 4, 5]),
            ("batch", Some("/x/{id}".to_owned()), [0, 1, 2, 3, 4, 5]),
        ] {
            let keys = KeyCount::new(1_000).expect("in range");
            let workload = Workload {
                chooser: Chooser::new(KeysDist::Sequential, keys),
                template,
                ..workload(mix, 3)
            };
            let found: Vec<u64> = (0..6)
                .flat_map(|number| workload.indexes(number))
                .take(6)
                .collect();
            assert_eq!(found, expected, "{mix}");
        }
    }

    #[test]
    fn each_mix_has_its_shares() {
        for (mix, ask, expected) in [
            ("batch", Ask::Sessions, 1.0),
            ("single", Ask::Session, 1.0),
            ("sessions-and-stats", Ask::Session, 0.25),
            ("sessions-and-stats", Ask::Stats, 0.75),
            ("mixed:95/5", Ask::Write, 0.05),
            ("mixed:0/100", Ask::Write, 1.0),
        ] {
            let workload = workload(mix, 1);
            let count = (0..20_000)
                .filter(|&number| workload.ask(number) == ask)
                .count();
            let share = count as f64 / 20_000.0;
            assert!((share - expected).abs() < 0.01, "{mix}: {share}");
        }
    }

    #[test]
    fn templates_are_filled() {
        for (template, expected) in [
            ("/GET/{key}", "GET /GET/user:session:"),
            ("/u/{id}?x=1", "GET /u/"),
            ("/m?ids={ids}", "GET /m?ids="),
        ] {
            let workload = Workload {
                template: Some(template.into()),
                ..workload("batch", 2)
            };
            let request = request(&workload, 1);
            assert!(
                request.starts_with(expected) && !request.contains('{'),
                "{request}"
            );
        }
    }

    #[test]
    fn a_write_carries_the_record_of_its_key() {
        let workload = Workload {
            dataset: Some(Dataset {
                key_prefix: "p:".into(),
                value_size: "100".parse().expect("a size"),
                seed: 7,
            }),
            key_prefix: "p:".into(),
            ..workload("mixed:0/100", 1)
        };
        let mut out = BytesMut::new();
        workload.write_request(3, &mut out);
        let index = workload.indexes(3).next().expect("one");
        let head = format!("PUT /v1/keys/p%3A{index} HTTP/1.1\r\n");
        assert!(out.starts_with(head.as_bytes()), "{out:?}");
        assert!(out.ends_with(&workload.record(index).expect("a record")));
    }

    #[test]
    fn misses_are_the_nulls_of_the_outer_array() {
        let workload = workload("batch", 3);
        let id = |place| workload.indexes(1).nth(place).expect("three of them");
        let one_found = format!(r#"[null, {{"id":{}}}, null]"#, id(1));
        for (body, expected) in [
            (one_found.as_str(), workload.good(1, 2)),
            ("[null,null,null]", workload.good(0, 3)),
            (r#"[{"x":null},{"y":"[null,null"},{}]"#, workload.good(3, 0)),
            (r#"[{"status":"active"},{},{}]"#, workload.good(3, 0)),
            ("[null]", Answer::Wrong),
            (r#"[{"id":1},{"id":2},{"id":3}"#, Answer::Wrong),
            ("[]", Answer::Wrong),
            ("", Answer::Wrong),
            ("ok", Answer::Wrong),
        ] {
            assert_eq!(workload.judge(1, 200, body.as_bytes()), expected, "{body}");
        }
        assert_eq!(workload.judge(1, 503, b""), Answer::Status(503));
    }

    #[test]
    fn single_sessions_may_be_absent_but_not_wrong() {
        let workload = Workload {
            verify: 1.0,
            ..workload("single", 1)
        };
        let id = workload.indexes(4).next().expect("one");
        let body = format!(r#"{{"id":{id}}}"#);
        assert_eq!(workload.judge(4, 200, body.as_bytes()), workload.good(1, 0));
        assert_eq!(workload.judge(4, 200, br#"{"id":1}"#), Answer::Wrong);
        assert_eq!(workload.judge(4, 200, b"x"), Answer::Wrong);
        assert_eq!(workload.judge(4, 404, b""), workload.good(0, 1));
    }

    #[test]
    fn verified_answers_must_be_the_records_of_the_dataset() {
        let dataset = Dataset {
            key_prefix: "user:session:".into(),
            value_size: "256".parse().expect("a size"),
            seed: 1,
        };
        let workload = Workload {
            verify: 1.0,
            dataset: Some(dataset),
            ..workload("batch", 2)
        };
        let ids: Vec<u64> = workload.indexes(9).collect();
        let session = |index| {
            let record = workload.record(index).expect("a record");
            match record::decode(&record) {
                Ok(Decoded::Session(session)) => format!(
                    r#"{{"id":{index},"created_at":{},"ip":"{}"}}"#,
                    session.created_at_s,
                    std::net::Ipv4Addr::from(session.ip)
                ),
                other => panic!("{other:?}"),
            }
        };
        let body = |first: &str, second: &str| format!("[{first},{second}]");
        let judge = |body: &str| workload.judge(9, 200, body.as_bytes());
        let (first, second) = (session(ids[0]), session(ids[1]));
        assert_eq!(judge(&body(&first, &second)), workload.good(2, 0));
        assert_eq!(judge(&body(&first, "null")), workload.good(1, 1));
        assert_eq!(judge(&body(&second, &first)), Answer::Wrong);
        assert_eq!(
            judge(&body(&first, &second.replace("10.", "11."))),
            Answer::Wrong
        );
        assert_eq!(judge(&format!("[{first}]")), Answer::Wrong);

        let value = |index| workload.record(index);
        let judge = |values: &[Option<Bytes>]| workload.judge_values(9, values);
        assert_eq!(judge(&[value(ids[0]), None]), workload.good(1, 1));
        assert_eq!(judge(&[value(ids[1]), value(ids[0])]), Answer::Wrong);
    }

    #[test]
    fn the_verified_share_is_the_one_asked_for() {
        for share in [0.0, 0.01, 0.5, 1.0] {
            let workload = Workload {
                verify: share,
                ..workload("batch", 1)
            };
            let count = (0..20_000)
                .filter(|&number| workload.verifies(number))
                .count();
            assert!(
                (count as f64 / 20_000.0 - share).abs() < 0.01,
                "{share}: {count}"
            );
        }
    }
}
