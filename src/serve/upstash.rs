//! The commands of Upstash's REST API that this server knows, so that its client libraries work here:
//! <https://upstash.com/docs/redis/features/restapi>.
//!
//! Enters: `["SET","key","value"]`, or an array of such commands. Leaves: `{"result":…}` or `{"error":"…"}` for
//! each, in their order. Must not run anything that is not on its list, nor pass off as a transaction what is none.

mod transaction;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut as _, Bytes};
use futures_util::future::join_all;
use hyper::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::body::{check_count, check_value};
use super::brief;
use super::keys::Keys;
use super::reply::Problem;
use super::route::{Encoding, Limits, check_key, writes_are_off};
use super::words::{self, Word};
use crate::store::{Batch, Held, Only, Room, StoreError, TimeToLive};
use crate::units::parse_ttl;

const NAMES: [&str; 7] = ["GET", "SET", "MGET", "MSET", "DEL", "EXISTS", "TTL"];
/// What is answered to a command that is not on the list.
const KNOWN: &str = "known here: GET, SET, MGET, MSET, DEL, EXISTS, TTL";

/// What begins the only answer to a transaction that was not begun, as every server of the protocol says it.
const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";

/// The encoding of text in answers; base64 is what the client libraries ask for by default.
pub(super) fn encoding(headers: &HeaderMap) -> Encoding {
    match headers.get("upstash-encoding") {
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"base64") => Encoding::Base64,
        _ => Encoding::Text,
    }
}

/// What commands need to be answered.
pub(super) struct Upstash<'a> {
    pub(super) keys: &'a Keys,
    pub(super) limits: Limits,
    pub(super) encoding: Encoding,
    /// Whether the page that the request comes from may write, if it comes from one.
    pub(super) site: Result<(), Problem>,
    pub(super) room: &'a Room,
    /// All commands of a request together take no longer than one may.
    pub(super) patience: Duration,
}

/// Answers to commands, ready to be sent.
pub(super) struct Answered {
    pub(super) json: Value,
    pub(super) status: StatusCode,
    /// What the answers take up until they are sent.
    pub(super) held: Held,
}

/// What came of one command: its result, or the error and the status that a request of this command alone has.
type Outcome = Result<Value, (String, StatusCode)>;

impl Upstash<'_> {
    /// Runs the commands of a `POST /pipeline`. Its status is an error's when the store has failed all that it was given.
    ///
    /// # Errors
    /// When the body as a whole is not an array of commands; what is wrong with one command is its own answer.
    pub(super) async fn pipeline(&self, body: &[u8]) -> Result<Answered, Problem> {
        let mut left = self.limits.max_keys_per_request;
        let commands: Vec<_> = self
            .commands(body)?
            .into_iter()
            .map(|words| Command::parse(words, self.limits, &mut left))
            .collect();
        let held = RefCell::new(self.room.hold());
        let due = Instant::now() + self.patience;
        let outcomes = if let Some(keys) = self.keys.in_order() {
            let answers = commands
                .into_iter()
                .map(|command| self.answer(command, &keys, due, &held));
            join_all(answers).await
        } else {
            let mut in_turn = Vec::new();
            for command in commands {
                in_turn.push(self.answer(command, self.keys, due, &held).await);
            }
            in_turn
        };
        Ok(Answered {
            status: status_of_all(&outcomes),
            json: outcomes.into_iter().map(into_json).collect(),
            held: held.into_inner(),
        })
    }

    /// Runs the one command of a `POST /`.
    ///
    /// # Errors
    /// When the body is no command at all.
    pub(super) async fn command(&self, body: &[u8]) -> Result<Answered, Problem> {
        let max = self.limits.max_keys_per_request;
        self.run(words::of_command(body, max)?).await
    }

    /// Runs a command whose words stand in the path, `/set/key/value?EX=60`, the last of them perhaps in the body.
    ///
    /// # Errors
    /// When the words in the target are no text.
    pub(super) async fn path(
        &self,
        path: &str,
        query: Option<&str>,
        body: &[u8],
    ) -> Result<Answered, Problem> {
        self.run(words::of_target(path, query, body)?).await
    }

    /// The words of each command in an array of them.
    fn commands(&self, body: &[u8]) -> Result<Vec<Vec<Word>>, Problem> {
        let max = self.limits.max_keys_per_request;
        let commands = words::of_pipeline(body, max)?;
        check_count("the body", commands.len(), max)?;
        for words in &commands {
            self.check_site(words)?;
        }
        Ok(commands)
    }

    fn check_site(&self, words: &[Word]) -> Result<(), Problem> {
        match &self.site {
            Err(problem) if words::is_write(words) => Err(problem.clone()),
            _ => Ok(()),
        }
    }

    async fn run(&self, words: Vec<Word>) -> Result<Answered, Problem> {
        self.check_site(&words)?;
        let mut left = self.limits.max_keys_per_request;
        let command = Command::parse(words, self.limits, &mut left);
        let held = RefCell::new(self.room.hold());
        let due = Instant::now() + self.patience;
        let outcome = self.answer(command, self.keys, due, &held).await;
        let status = match &outcome {
            Ok(_) => StatusCode::OK,
            Err((_, status)) => *status,
        };
        Ok(Answered {
            json: into_json(outcome),
            status,
            held: held.into_inner(),
        })
    }

    async fn answer(
        &self,
        command: Result<Command, String>,
        keys: &Keys,
        due: Instant,
        held: &RefCell<Held>,
    ) -> Outcome {
        let command = command.map_err(refused)?;
        let run = tokio::time::timeout_at(due.into(), command.run(keys)).await;
        let run = run.unwrap_or(Err(StoreError::Timeout(self.patience)));
        let answer = run.map_err(failed)?;
        // As a value, as a string in JSON, and as a part of the whole answer.
        self.told(answer, 3, &mut held.borrow_mut())
    }

    /// An answer as JSON, whose value is to be there so many times at once.
    fn told(&self, answer: Answer, times: usize, held: &mut Held) -> Outcome {
        let bytes = answer.bytes().saturating_mul(times);
        if bytes > 0 {
            self.room.add(held, bytes).map_err(failed)?;
        }
        answer.into_json(self.encoding).map_err(refused)
    }
}

/// What was not asked for rightly, and the status of a request for that alone.
fn refused(reason: String) -> (String, StatusCode) {
    (reason, StatusCode::BAD_REQUEST)
}

/// What the store did not do, and the status of a request for that alone.
fn failed(error: StoreError) -> (String, StatusCode) {
    let text = match &error {
        StoreError::Discarded(why) => format!("{ABORTED} ERR {why}"),
        StoreError::CrossSlot => error.to_string(),
        _ => format!("ERR {error}"),
    };
    (text, Problem::from(error).status())
}

/// What is wrong with one command says nothing about the store, and so must not hide that it has failed all others.
fn status_of_all(outcomes: &[Outcome]) -> StatusCode {
    if outcomes.iter().any(Result::is_ok) {
        return StatusCode::OK;
    }
    let mut statuses = outcomes.iter().filter_map(|outcome| match outcome {
        Err((_, status)) => Some(*status),
        Ok(_) => None,
    });
    let failed = statuses.find(StatusCode::is_server_error);
    failed.unwrap_or(StatusCode::OK)
}

fn into_json(outcome: Outcome) -> Value {
    match outcome {
        Ok(result) => json!({ "result": result }),
        Err((error, _)) => json!({ "error": brief::message(error) }),
    }
}

/// Whether a path's first segment is the name of a command.
pub(super) fn is_command(path: &str) -> bool {
    let path = path.strip_prefix('/').unwrap_or(path);
    let name = path.split('/').next().unwrap_or_default();
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// A command that may run.
#[derive(Debug)]
enum Command {
    Get(Bytes),
    Set(Bytes, Bytes, Option<Duration>),
    SetIfAbsent(Bytes, Bytes, Option<Duration>),
    Mget(Vec<Bytes>),
    Mset(Batch),
    Del(Vec<Bytes>),
    Exists(Vec<Bytes>),
    Ttl(Bytes),
}

/// What a command gives, before it is written as JSON.
#[derive(Debug)]
enum Answer {
    Done,
    Number(serde_json::Number),
    Value(Option<Bytes>),
    Values(Vec<Option<Bytes>>),
}

impl Command {
    /// Reads a command's words; `left` is how many keys the request may still name.
    fn parse(words: Vec<Word>, limits: Limits, left: &mut usize) -> Result<Self, String> {
        let mut words = words.into_iter().map(Word::into_bytes);
        let name = words.next().ok_or("ERR the command is empty")??;
        let name = String::from_utf8_lossy(&name).to_ascii_uppercase();
        let words: Vec<Bytes> = words.collect::<Result<_, _>>()?;
        let (command, writes) = match (&*name, &words[..]) {
            ("GET", [key]) => (Self::Get(key.clone()), false),
            ("TTL", [key]) => (Self::Ttl(key.clone()), false),
            ("SET", [key, value, options @ ..]) => (Self::set(key, value, options)?, true),
            ("MSET", [_, _, ..]) if words.len().is_multiple_of(2) => (Self::mset(&words)?, true),
            ("MGET", [_, ..]) => (Self::Mget(words), false),
            ("EXISTS", [_, ..]) => (Self::Exists(words), false),
            ("DEL", [_, ..]) => (Self::Del(words), true),
            ("GET" | "TTL" | "SET" | "MSET" | "MGET" | "EXISTS" | "DEL", _) => {
                return Err(format!("ERR wrong number of arguments for {name}"));
            }
            _ => {
                let name = brief::text(&name);
                return Err(format!("ERR unknown command {name:?}; {KNOWN}"));
            }
        };
        if writes && !limits.allow_writes {
            return Err(format!("ERR {}", writes_are_off().detail()));
        }
        *left = left.checked_sub(command.keys()).ok_or_else(|| {
            let max = limits.max_keys_per_request;
            format!("ERR a request names at most {max} keys")
        })?;
        command.check_keys()?;
        Ok(command)
    }

    fn set(key: &Bytes, value: &Bytes, options: &[Bytes]) -> Result<Self, String> {
        check_value(value.len()).map_err(|problem| format!("ERR {}", problem.detail()))?;
        let (ttl, if_absent) = set_options(options)?;
        let (key, value) = (key.clone(), value.clone());
        Ok(if if_absent {
            Self::SetIfAbsent(key, value, ttl)
        } else {
            Self::Set(key, value, ttl)
        })
    }

    fn mset(words: &[Bytes]) -> Result<Self, String> {
        let error = |problem: Problem| format!("ERR {}", problem.detail());
        let mut batch = Batch::default();
        for pair in words.chunks_exact(2) {
            // Once in the batch, a key can no longer be told from its value.
            check_key(&pair[0]).map_err(error)?;
            check_value(pair[1].len()).map_err(error)?;
            batch.push(|out| out.put_slice(&pair[0]), |out| out.put_slice(&pair[1]));
        }
        Ok(Self::Mset(batch))
    }

    /// How many keys it names.
    fn keys(&self) -> usize {
        match self {
            Self::Get(_) | Self::Set(..) | Self::SetIfAbsent(..) | Self::Ttl(_) => 1,
            Self::Mget(keys) | Self::Del(keys) | Self::Exists(keys) => keys.len(),
            Self::Mset(batch) => batch.len(),
        }
    }

    fn check_keys(&self) -> Result<(), String> {
        let keys = match self {
            Self::Get(key) | Self::Set(key, ..) | Self::SetIfAbsent(key, ..) | Self::Ttl(key) => {
                std::slice::from_ref(key)
            }
            Self::Mget(keys) | Self::Del(keys) | Self::Exists(keys) => keys,
            Self::Mset(_) => &[],
        };
        keys.iter()
            .try_for_each(|key| check_key(key))
            .map_err(|problem| format!("ERR {}", problem.detail()))
    }

    async fn run(self, keys: &Keys) -> Result<Answer, StoreError> {
        Ok(match self {
            Self::Get(key) => Answer::Value(keys.get(key).await?),
            Self::Mget(all) => Answer::Values(keys.get_many(all).await?),
            Self::Set(key, value, ttl) => {
                keys.put(key, value, ttl).await?;
                Answer::Done
            }
            Self::SetIfAbsent(key, value, ttl) => {
                if keys.put_if(Only::IfAbsent, key, value, ttl).await? {
                    Answer::Done
                } else {
                    Answer::Value(None)
                }
            }
            Self::Mset(batch) => {
                keys.put_batch(batch, None).await?;
                Answer::Done
            }
            Self::Del(all) => Answer::Number(keys.delete(all).await?.into()),
            Self::Exists(all) => {
                let values = keys.get_many(all).await?;
                Answer::Number(values.iter().flatten().count().into())
            }
            Self::Ttl(key) => Answer::left(keys.time_to_live(key).await?),
        })
    }
}

impl Answer {
    /// After the documentation of TTL.
    fn left(left: TimeToLive) -> Self {
        Self::Number(match left {
            TimeToLive::Absent => (-2).into(),
            TimeToLive::Forever => (-1).into(),
            TimeToLive::Left(left) => (left.as_millis().div_ceil(1_000) as u64).into(),
        })
    }

    /// Bytes of its values.
    fn bytes(&self) -> usize {
        match self {
            Self::Done | Self::Number(_) | Self::Value(None) => 0,
            Self::Value(Some(value)) => value.len(),
            Self::Values(values) => values.iter().flatten().map(Bytes::len).sum(),
        }
    }

    fn into_json(self, encoding: Encoding) -> Result<Value, String> {
        let text = |value: Option<Bytes>| match (value, encoding) {
            (None, _) => Ok(Value::Null),
            (Some(value), Encoding::Base64) => Ok(BASE64_STANDARD.encode(value).into()),
            (Some(value), Encoding::Text) => String::from_utf8(value.into())
                .map(Value::String)
                .map_err(|_| "ERR the value is no text; send Upstash-Encoding: base64".to_owned()),
        };
        match self {
            // The libraries take this word as it is in either encoding.
            Self::Done => Ok("OK".into()),
            Self::Number(number) => Ok(Value::Number(number)),
            Self::Value(value) => text(value),
            Self::Values(values) => values.into_iter().map(text).collect(),
        }
    }
}

/// `EX seconds`, `PX milliseconds` and `NX`, in any order and case.
fn set_options(words: &[Bytes]) -> Result<(Option<Duration>, bool), String> {
    let (mut ttl, mut if_absent) = (None, false);
    let mut words = words.iter().map(|word| String::from_utf8_lossy(word));
    while let Some(option) = words.next() {
        match &*option.to_ascii_uppercase() {
            "NX" => if_absent = true,
            unit @ ("EX" | "PX") => {
                let number = words.next().unwrap_or_default();
                let suffix = if unit == "EX" { "s" } else { "ms" };
                let digits = number.bytes().all(|byte| byte.is_ascii_digit());
                let parsed = parse_ttl(&format!("{number}{suffix}")).ok();
                let parsed = parsed.filter(|_| digits && !number.is_empty());
                ttl = Some(parsed.ok_or_else(|| {
                    let number = brief::text(&number);
                    format!("ERR {unit} {number:?} is no number from 1 to ten years")
                })?);
            }
            other => {
                let other = brief::text(other);
                return Err(format!("ERR SET {other:?}; known here: EX, PX and NX"));
            }
        }
    }
    Ok((ttl, if_absent))
}

/// Takes any bytes for a pipeline and for a command, as far as they are understood without a store.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8], max: usize) {
    let limits = Limits {
        allow_writes: true,
        upstash: true,
        max_keys_per_request: max,
    };
    let mut left = max;
    let mut parsed = |words| match Command::parse(words, limits, &mut left) {
        Ok(command) => assert!((1..=max).contains(&command.keys())),
        Err(reason) => assert!(reason.starts_with("ERR "), "{reason}"),
    };
    if let Ok(commands) = words::of_pipeline(bytes, max) {
        assert!(commands.len() <= max);
        commands.into_iter().for_each(&mut parsed);
    }
    if let Ok(words) = words::of_command(bytes, max) {
        parsed(words);
    }
}

#[cfg(test)]
mod tests;
