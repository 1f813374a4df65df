//! Whether an answer is what its arrival asked for. Pure.
//!
//! Enters: an arrival's number and what the target answered. Leaves: what the answer stands for, or that it is wrong.
//! Must not believe an answer for being answered: a target that sends nothing useful is the fastest of all.
//!
//! Every answer has to have the shape, the number of elements and the ids that were asked for, in order; the first ones and
//! those of the `--verify` sample also have to be the records. The generator shares the machine with the target, so the form that
//! `kvpoc serve` answers in is walked without a parser (`walk_sessions`); whatever is not of that form is parsed, and
//! the parser decides.

use std::fmt;
use std::net::Ipv4Addr;

use bytes::Bytes;
use memchr::memchr3;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};

use super::expected;
use super::form::Told;
use super::workload::{Ask, Workload};
use crate::config::Fetch;
use crate::random::{chance, splitmix64};
use crate::record::Format;

/// Sets the draws of what to verify apart from those of what to ask and of which keys.
const VERIFY_SALT: u64 = 0x5E;
/// Arrivals that are compared whatever the sample: those of a short run could all be outside it.
const ALWAYS_VERIFIED: u64 = 100;

/// What a good answer stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Keys found, or written.
    pub hits: u32,
    /// Keys that were not there.
    pub misses: u32,
    /// Of the hits, those written.
    pub written: u32,
    /// Keys that stand in the same request before: a server may ask its store for them once.
    pub repeated: u32,
    /// Commands behind it: one for any number of keys, or one for each, as the target reads them. None for
    /// statistics, which are cached, and for another target, behind which nobody knows what there is.
    pub commands: u32,
    /// 1 when the answer was compared with its records.
    pub compared: u32,
}

/// What one write comes to.
pub(in crate::bench) const WRITTEN: Work = Work {
    hits: 1,
    misses: 0,
    written: 1,
    repeated: 0,
    commands: 1,
    compared: 0,
};

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

impl Answer {
    /// It was compared with its records, and is good for all that.
    fn compared(self) -> Self {
        match self {
            Self::Good(work) => Self::Good(Work {
                compared: 1,
                ..work
            }),
            other => other,
        }
    }
}

impl Workload {
    /// Judges what arrival `number` was answered over HTTP.
    #[must_use]
    pub fn judge(&self, number: u64, status: u16, body: &[u8]) -> Answer {
        match (self.ask(number), status) {
            (Ask::Sessions, 200) => self.judge_sessions(number, body),
            (Ask::Session, 200) => self.judge_session(number, body),
            (Ask::Session, 404) => self.read(0, 1, 0),
            (Ask::Stats, 200) if is_braced(body) => Answer::Good(Work::default()),
            (Ask::Stats, 200) => Answer::Wrong,
            (Ask::Write, 200 | 201 | 204) => Answer::Good(WRITTEN),
            (Ask::Form, _) => self.judge_by_form(number, status, body),
            _ => Answer::Status(status),
        }
    }

    /// Judges what arrival `number` was answered by the store itself.
    #[must_use]
    pub fn judge_values(&self, number: u64, values: &[Option<Bytes>]) -> Answer {
        if values.len() != self.indexes(number).count() {
            return Answer::Wrong;
        }
        let compares = self.compares(number);
        if let Some(dataset) = &self.dataset {
            let right = |value: &Bytes, index| {
                if compares {
                    self.record(index).as_ref() == Some(value)
                } else {
                    dataset.begins_as(index, value)
                }
            };
            let mut found = values.iter().zip(self.indexes(number));
            if !found.all(|(value, index)| value.as_ref().is_none_or(|value| right(value, index))) {
                return Answer::Wrong;
            }
        }
        let misses = values.iter().filter(|value| value.is_none()).count() as u32;
        let answer = self.read(values.len() as u32 - misses, misses, self.repeated(number));
        if compares { answer.compared() } else { answer }
    }

    /// Whether the answer of arrival `number` is compared with its records, where they are known: the first ones, and a
    /// sample of all.
    fn compares(&self, number: u64) -> bool {
        self.dataset.is_some() && self.verifies(number)
    }

    fn verifies(&self, number: u64) -> bool {
        let is_first = self.verify > 0.0 && number < ALWAYS_VERIFIED;
        is_first || chance(splitmix64(self.seed ^ VERIFY_SALT, number), self.verify)
    }

    fn judge_sessions(&self, number: u64, body: &[u8]) -> Answer {
        let (keys, compares) = (self.keys_per_request, self.compares(number));
        let misses = if compares {
            self.parse_sessions(number, body, |seen: &Seen, index| {
                self.is_record(seen, index)
            })
        } else {
            walk_sessions(body, self.indexes(number)).or_else(|| {
                self.parse_sessions(number, body, |seen: &Named, index| {
                    self.is_named(seen, index)
                })
            })
        };
        let answer = misses.map_or(Answer::Wrong, |misses| {
            self.read(keys - misses, misses, self.repeated(number))
        });
        if compares { answer.compared() } else { answer }
    }

    fn judge_session(&self, number: u64, body: &[u8]) -> Answer {
        let index = self.indexes(number).next().unwrap_or_default();
        let compares = self.compares(number);
        let right = if compares {
            parse(body).is_some_and(|Object(seen)| self.is_record(&seen, index))
        } else {
            walk_session(body, index) == Some(body.len())
                || parse(body).is_some_and(|Object(seen)| self.is_named(&seen, index))
        };
        match (right, compares) {
            (true, true) => self.read(1, 0, 0).compared(),
            (true, false) => self.read(1, 0, 0),
            (false, _) => Answer::Wrong,
        }
    }

    /// Reads the body as JSON: as many elements as keys, each `null` or an object that is `right` for its index. How
    /// many are `null`; `None` when the answer is wrong.
    fn parse_sessions<T: DeserializeOwned>(
        &self,
        number: u64,
        body: &[u8],
        right: impl Fn(&T, u64) -> bool,
    ) -> Option<u32> {
        let sessions: Vec<Option<Object<T>>> = parse(body)?;
        let fits = |(session, index): (&Option<Object<T>>, u64)| {
            session
                .as_ref()
                .is_none_or(|Object(seen)| right(seen, index))
        };
        let all = sessions.len() == self.keys_per_request as usize
            && sessions.iter().zip(self.indexes(number)).all(fits);
        all.then(|| sessions.iter().filter(|session| session.is_none()).count() as u32)
    }

    /// A session has the id that was asked for; only JSON of an older loader may do without.
    fn is_named(&self, seen: &Named, index: u64) -> bool {
        match &seen.id {
            Some(id) => id.as_u64() == Some(index),
            None => self.dataset.is_none(),
        }
    }

    /// A session is the record of the index, in every member that follows from it.
    fn is_record(&self, seen: &Seen, index: u64) -> bool {
        let Some(dataset) = &self.dataset else {
            return false;
        };
        let expected = dataset.session(index, &[]);
        let Seen {
            id,
            status,
            role,
            created_at,
            expires_at,
            ip,
            user_agent,
            padding,
        } = seen;
        // It stands at the end of the stored JSON, and is no part of what is answered for a binary record.
        let is_padded = || {
            let end = format!(
                "\"padding\":\"{}\"}}",
                padding.as_deref().unwrap_or_default()
            );
            self.record(index)
                .is_some_and(|json| json.ends_with(end.as_bytes()))
        };
        *id == Some(index)
            && status.as_deref() == Some(expected.status.name())
            && role.as_deref() == Some(expected.role.name())
            && *created_at == Some(expected.created_at_s)
            && *expires_at == Some(expected.expires_at_s)
            && *ip == Some(Ipv4Addr::from(expected.ip))
            && user_agent.as_deref() == Some(expected.user_agent)
            && (dataset.format != Format::Json || is_padded())
    }

    /// So many keys read.
    pub(super) fn read(&self, hits: u32, misses: u32, repeated: u32) -> Answer {
        Answer::Good(Work {
            hits,
            misses,
            written: 0,
            repeated,
            commands: match self.fetch {
                Fetch::Mget => 1,
                Fetch::Pipeline => hits + misses,
            },
            compared: 0,
        })
    }

    /// How many keys of a request stand in it before.
    fn repeated(&self, number: u64) -> u32 {
        if !self.chooser.repeats(self.keys_per_request) {
            return 0;
        }
        let mut indexes: Vec<u64> = self.indexes(number).collect();
        let all = indexes.len();
        indexes.sort_unstable();
        indexes.dedup();
        (all - indexes.len()) as u32
    }

    /// The answer of another target holds the records of its keys.
    fn judge_by_records(&self, number: u64, body: &[u8]) -> Answer {
        let indexes: Vec<u64> = self.indexes(number).collect();
        let dataset = self.dataset.as_ref();
        let misses = dataset.and_then(|dataset| expected::misses(dataset, &indexes, body));
        misses.map_or(Answer::Wrong, |misses| {
            Answer::Good(Work {
                hits: indexes.len() as u32 - misses,
                misses,
                compared: 1,
                ..Work::default()
            })
        })
    }

    /// What another target answers is taken as its form says, and in the sample compared with the records, where they are
    /// known.
    fn judge_by_form(&self, number: u64, status: u16, body: &[u8]) -> Answer {
        let told = self.form.as_ref().map(|form| form.read(status, body));
        let keys = self.indexes(number).count() as u32;
        let (hits, misses) = match told {
            Some(Told::Right) if self.compares(number) => {
                return self.judge_by_records(number, body);
            }
            Some(Told::Right) => (keys, 0),
            Some(Told::Missing) => (0, keys),
            Some(Told::Wrong) => return Answer::Wrong,
            Some(Told::Refused) | None => return Answer::Status(status),
        };
        Answer::Good(Work {
            hits,
            misses,
            ..Work::default()
        })
    }
}

/// Walks an array of flat objects, each with its id as the first member, or `null`, without white space between them:
/// what `kvpoc serve` answers. How many are `null`; `None` when it is of another form, or has other ids.
///
/// Of JSON, it takes nothing that a parser would not. `{"id":` within a text would need its quotes escaped; so whatever
/// follows a brace as `,{"id":` or ends the body as `]` stands between elements, and no brace or bracket opens within
/// one. What it cannot see is an id that is there twice in one object, or that an object is no JSON behind its id: a
/// broken text takes a parser, which what `--verify` compares has.
fn walk_sessions(body: &[u8], ids: impl Iterator<Item = u64>) -> Option<u32> {
    let mut rest = body.strip_prefix(b"[")?;
    let mut misses = 0;
    for (place, id) in ids.enumerate() {
        if place > 0 {
            let (b",", after) = rest.split_first_chunk()? else {
                return None;
            };
            rest = after;
        }
        match rest.split_first_chunk() {
            Some((b"null", after)) => {
                misses += 1;
                rest = after;
            }
            _ => rest = &rest[walk_session(rest, id)?..],
        }
    }
    (rest == b"]").then_some(misses)
}

/// The length of a flat object that begins with this id; `None` when there is something else.
fn walk_session(text: &[u8], id: u64) -> Option<usize> {
    let (b"{\"id\":", rest) = text.split_first_chunk()? else {
        return None;
    };
    // As JSON writes it and in no other way: without leading zeros, sign or fraction.
    let rest = rest.strip_prefix(itoa::Buffer::new().format(id).as_bytes())?;
    matches!(rest.first(), Some(b',' | b'}')).then_some(())?;
    let end = memchr3(b'{', b'}', b'[', rest)?;
    (rest[end] == b'}').then(|| text.len() - rest.len() + end + 1)
}

/// Whether it begins and ends as an object does.
fn is_braced(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    body.len() >= 2 && body.starts_with(b"{") && body.ends_with(b"}")
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

/// What of every session is compared. Any JSON may stand there, as the answer may be another program's.
#[derive(Deserialize)]
struct Named {
    id: Option<serde_json::Value>,
}

/// What of a session in the sample is compared: all but `validated_at`, which follows from the clock.
#[derive(Deserialize)]
struct Seen {
    id: Option<u64>,
    status: Option<String>,
    role: Option<String>,
    created_at: Option<u64>,
    expires_at: Option<u64>,
    ip: Option<Ipv4Addr>,
    user_agent: Option<String>,
    padding: Option<String>,
}

/// A JSON object and nothing else: by itself, serde would take an array for the members in their order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer
            .deserialize_map(Members(std::marker::PhantomData))
            .map(Self)
    }
}

#[cfg(test)]
mod tests;
