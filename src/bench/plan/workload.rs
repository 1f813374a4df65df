//! What each arrival asks for. Pure.
//!
//! Enters: a mix, a choice of keys, an arrival's number. Leaves: its keys and its request. Must not hold state:
//! any worker can compute any arrival.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

pub(in crate::bench) use super::answers::WRITTEN;
pub use super::answers::{Answer, Work};
use super::form::{Form, put_ids};
use super::keys::Chooser;
use crate::config::{Fetch, Token};
use crate::load::{KeysAsked, Mix};
use crate::objectives::Operation;
use crate::random::{below, splitmix64};
use crate::record::{self, Dataset};

/// Sets the draws of what to ask apart from those of which keys.
const ASK_SALT: u64 = 0xA5;

/// The header lines that every request needs, each with its end.
#[must_use]
pub fn headers(authority: &str, token: Option<&Token>) -> String {
    format!("host: {authority}\r\n{}", token_line(token))
}

/// The header line that shows the token, with its end; nothing where there is no token.
pub(in crate::bench) fn token_line(token: Option<&Token>) -> String {
    token.map_or_else(String::new, |token| format!("{}\r\n", token.header()))
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
    /// What the records are, where it is known: without it, no more than ids can be compared, where there are any,
    /// and nothing can be written.
    pub dataset: Option<Dataset>,
    /// What stands before the index in each key.
    pub key_prefix: String,
    /// Header lines of every request, each with its end; the token may be among them.
    pub headers: String,
    /// How the target reads several keys, which decides how many commands an answer stands for.
    pub fetch: Fetch,
    /// What another target is asked; the headers above are not sent with it.
    pub form: Option<Arc<Form>>,
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
    /// Whatever the form asks for.
    Form,
}

impl Workload {
    /// What arrival `number` asks for.
    #[must_use]
    pub fn ask(&self, number: u64) -> Ask {
        if self.form.is_some() {
            return Ask::Form;
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

    /// What arrival `number` does.
    #[must_use]
    pub fn operation(&self, number: u64) -> Operation {
        match self.ask(number) {
            Ask::Sessions => Operation::Sessions,
            Ask::Session => Operation::Session,
            Ask::Stats => Operation::Stats,
            Ask::Write => Operation::Write,
            Ask::Form => Operation::Request,
        }
    }

    /// Some of the arrivals write.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.form.is_none()
            && matches!(self.mix, Mix::Mixed { reads_percent } if reads_percent < 100)
    }

    /// The indexes that arrival `number` asks for.
    pub fn indexes(&self, number: u64) -> impl Iterator<Item = u64> {
        let asked = match &self.form {
            Some(form) => form.keys_asked(),
            None if self.mix == Mix::Batch => KeysAsked::Batch,
            None => KeysAsked::One,
        };
        // The places of the draws follow one another without a gap, whatever the arrivals ask for.
        let places = match asked {
            KeysAsked::Batch => u64::from(self.keys_per_request),
            KeysAsked::One => 1,
            KeysAsked::None => 0,
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

    /// Whether arrival `number` may be sent again though it may have been done (RFC 9110, 9.2.2): kvpoc's own writes are
    /// not, which would count twice.
    #[must_use]
    pub fn may_be_repeated(&self, number: u64) -> bool {
        match &self.form {
            Some(form) => form.may_be_repeated(number),
            None => self.ask(number) != Ask::Write,
        }
    }

    /// Somebody has to look at the bodies of the answers.
    #[must_use]
    pub fn looks_at_bodies(&self) -> bool {
        self.dataset.is_some() || self.form.as_ref().is_none_or(|form| form.looks_at_bodies())
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
                put_ids(self.indexes(number), out);
            }
            Ask::Session => {
                out.put_slice(b"GET /user/session/");
                put_ids(self.indexes(number), out);
            }
            Ask::Stats => out.put_slice(b"GET /stats"),
            Ask::Form => {
                if let Some(form) = &self.form {
                    form.write(number, self.indexes(number), out);
                }
                return;
            }
            Ask::Write => return self.put_write(number, out),
        }
        self.put_end(out);
        out.put_slice(b"\r\n");
    }

    fn put_end(&self, out: &mut BytesMut) {
        out.put_slice(b" HTTP/1.1\r\n");
        out.put_slice(self.headers.as_bytes());
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{KeysDist, PRESETS, Request};
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
            form: None,
        }
    }

    fn form(path: &str) -> Arc<Form> {
        Arc::new(Form::of(&Request::of_path(path)))
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
        for (mix, form) in [
            ("batch", None),
            ("single", None),
            ("mixed:50/50", None),
            ("batch", Some(form("/x/{id}"))),
            ("single", Some(form("/x/{ids}"))),
        ] {
            let keys = KeyCount::new(1_000).expect("in range");
            let workload = Workload {
                chooser: Chooser::new(KeysDist::Sequential, keys),
                form,
                ..workload(mix, 3)
            };
            let found: Vec<u64> = (0..6)
                .flat_map(|number| workload.indexes(number))
                .take(6)
                .collect();
            assert_eq!(found, [0, 1, 2, 3, 4, 5], "{mix}");
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
    fn each_preset_has_its_own_shares_and_draws_from_its_own_keys() {
        const ARRIVALS: u64 = 100_000;
        for preset in PRESETS {
            let keys = KeyCount::new(1_000).expect("in range");
            let workload = Workload {
                mix: preset.mix,
                chooser: Chooser::new(preset.keys_dist, keys),
                keys_per_request: 1,
                ..workload("batch", 1)
            };
            let share = |count: usize| count as f64 / ARRIVALS as f64;
            let asks: Vec<Ask> = (0..ARRIVALS).map(|number| workload.ask(number)).collect();
            let (read, reads) = match preset.mix {
                Mix::Batch => (Ask::Sessions, 1.0),
                Mix::Single => (Ask::Session, 1.0),
                Mix::Mixed { reads_percent } => (Ask::Session, f64::from(reads_percent) / 100.0),
                Mix::SessionsAndStats => (Ask::Session, 0.25),
            };
            let found = share(asks.iter().filter(|&&ask| ask == read).count());
            assert!((found - reads).abs() < 0.005, "{}: {found}", preset.name);

            let mut counts = vec![0_usize; 1_000];
            let drawn = (0..ARRIVALS).flat_map(|number| workload.indexes(number));
            drawn.for_each(|index| counts[index as usize] += 1);
            counts.sort_unstable_by(|one, other| other.cmp(one));
            let weight = |rank: u32| match preset.keys_dist {
                KeysDist::Zipf { exponent } => f64::from(rank).powf(-exponent),
                _ => 1.0,
            };
            let all: f64 = (1..=1_000).map(weight).sum();
            // Sorting alone raises the first of equals, here by up to a third.
            let tolerance = if preset.keys_dist == KeysDist::Uniform {
                0.4
            } else {
                0.1
            };
            for rank in [1, 2, 10] {
                let (found, expected) = (share(counts[rank - 1]), weight(rank as u32) / all);
                assert!(
                    (found / expected - 1.0).abs() < tolerance,
                    "{}, rank {rank}: {found} for {expected}",
                    preset.name
                );
            }
        }
    }

    #[test]
    fn another_target_is_asked_by_its_form_alone() {
        for (path, expected, keys) in [
            ("/GET/{key}", "GET /GET/user:session:", 1),
            ("/u/{id}?x=1", "GET /u/", 1),
            ("/m?ids={ids}", "GET /m?ids=", 2),
            ("/{n}/health", "GET /1/health HTTP/1.1\r\n", 0),
        ] {
            let workload = Workload {
                form: Some(form(path)),
                ..workload("batch", 2)
            };
            let request = request(&workload, 1);
            assert!(
                request.starts_with(expected) && !request.contains('{'),
                "{request}"
            );
            assert_eq!(workload.indexes(1).count(), keys, "{path}");
        }
    }

    #[test]
    fn a_write_carries_the_record_of_its_key() {
        let workload = Workload {
            dataset: Some(Dataset {
                key_prefix: "p:".into(),
                value_size: "100".parse().expect("a size"),
                seed: 7,
                format: crate::record::Format::Record,
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
}
