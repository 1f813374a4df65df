//! The commands of Upstash's REST API that this server knows, so that its client libraries work here:
//! <https://upstash.com/docs/redis/features/restapi>.
//!
//! Enters: `["SET","key","value"]`, or an array of such commands. Leaves: `{"result":…}` or `{"error":"…"}` for
//! each, in their order. Must not run anything that is not on its list.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut as _, Bytes};
use futures_util::future::join_all;
use hyper::HeaderMap;
use serde_json::{Value, json};

use super::body::{check_count, check_value, parse};
use super::keys::Keys;
use super::reply::Problem;
use super::route::{Encoding, Limits, check_key, writes_are_off};
use crate::store::{Batch, StoreError, TimeToLive};
use crate::units::parse_ttl;

/// What is answered to a command that is not on the list.
const KNOWN: &str = "known here: GET, SET, MGET, MSET, DEL, EXISTS, TTL";

/// The encoding of text in answers; base64 is what the client libraries ask for by default.
pub(super) fn encoding(headers: &HeaderMap) -> Encoding {
    match headers.get("upstash-encoding") {
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"base64") => Encoding::Base64,
        _ => Encoding::Text,
    }
}

/// Runs the commands of a `POST /pipeline`.
///
/// # Errors
/// When the body as a whole is not an array of commands; what is wrong with one command is its own answer.
pub(super) async fn pipeline(
    body: &[u8],
    keys: &Keys,
    limits: Limits,
    encoding: Encoding,
) -> Result<Value, Problem> {
    let commands: Vec<Vec<Value>> = parse(body)?;
    let max = limits.max_keys_per_request;
    check_count("the body", commands.len(), max)?;
    let mut left = max;
    let commands: Vec<_> = commands
        .into_iter()
        .map(|words| Command::parse(words, limits, &mut left))
        .collect();
    let commands = commands.into_iter();
    if let Some(keys) = keys.in_order() {
        let answers = commands.map(|command| answer(command, &keys, encoding));
        return Ok(join_all(answers).await.into());
    }
    let mut in_turn = Vec::new();
    for command in commands {
        in_turn.push(answer(command, keys, encoding).await);
    }
    Ok(in_turn.into())
}

/// Runs the one command of a `POST /`; whether it succeeded.
///
/// # Errors
/// When the body is no command at all.
pub(super) async fn command(
    body: &[u8],
    keys: &Keys,
    limits: Limits,
    encoding: Encoding,
) -> Result<(Value, bool), Problem> {
    let words: Vec<Value> = parse(body)?;
    let mut left = limits.max_keys_per_request;
    let command = Command::parse(words, limits, &mut left);
    let answer = answer(command, keys, encoding).await;
    let succeeded = answer.get("error").is_none();
    Ok((answer, succeeded))
}

async fn answer(command: Result<Command, String>, keys: &Keys, encoding: Encoding) -> Value {
    let outcome = match command {
        Ok(command) => command
            .run(keys)
            .await
            .map_err(|error| format!("ERR {error}")),
        Err(reason) => Err(reason),
    };
    match outcome.and_then(|answer| answer.into_json(encoding)) {
        Ok(result) => json!({ "result": result }),
        Err(error) => json!({ "error": error }),
    }
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
    fn parse(words: Vec<Value>, limits: Limits, left: &mut usize) -> Result<Self, String> {
        let mut words = words.into_iter().map(word);
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
            _ => return Err(format!("ERR unknown command {name:?}; {KNOWN}")),
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
                if keys.put_if_absent(key, value, ttl).await? {
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
            // After the documentation of TTL.
            Self::Ttl(key) => Answer::Number(match keys.time_to_live(key).await? {
                TimeToLive::Absent => (-2).into(),
                TimeToLive::Forever => (-1).into(),
                TimeToLive::Left(left) => (left.as_millis().div_ceil(1_000) as u64).into(),
            }),
        })
    }
}

impl Answer {
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

/// A word of a command: text as it is, numbers and booleans as JSON writes them.
fn word(value: Value) -> Result<Bytes, String> {
    match value {
        Value::String(text) => Ok(text.into()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(format!("ERR {value} is no argument; give text or numbers"))
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
                    format!("ERR {unit} {number:?} is no number from 1 to ten years")
                })?);
            }
            other => {
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
    if let Ok(commands) = parse::<Vec<Vec<Value>>>(bytes) {
        commands.into_iter().for_each(&mut parsed);
    }
    if let Ok(words) = parse::<Vec<Value>>(bytes) {
        parsed(words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        allow_writes: true,
        upstash: true,
        max_keys_per_request: 4,
    };

    fn parse_command(words: Value, limits: Limits) -> Result<Command, String> {
        let words = serde_json::from_value(words).expect("an array");
        Command::parse(words, limits, &mut limits.max_keys_per_request.clone())
    }

    #[test]
    fn options_of_set_are_understood_in_any_order() {
        let words = json!(["set", "k", 7, "nx", "PX", 1500]);
        let Ok(Command::SetIfAbsent(key, value, ttl)) = parse_command(words, LIMITS) else {
            panic!("not understood");
        };
        assert_eq!((&key[..], &value[..]), (&b"k"[..], &b"7"[..]));
        assert_eq!(ttl, Some(Duration::from_millis(1_500)));
    }

    #[test]
    fn what_is_not_on_the_list_or_not_allowed_says_so() {
        let read_only = Limits {
            allow_writes: false,
            ..LIMITS
        };
        for (words, expected) in [
            (json!([]), "empty"),
            (json!(["FLUSHALL"]), "unknown command \"FLUSHALL\""),
            (json!(["GET"]), "number of arguments for GET"),
            (json!(["GET", "a", "b"]), "number of arguments"),
            (json!(["MSET", "a"]), "number of arguments"),
            (json!(["GET", ["a"]]), "no argument"),
            (json!(["GET", ""]), "1 to 511 bytes"),
            (json!(["SET", "a", "1", "EX"]), "EX \"\""),
            (json!(["SET", "a", "1", "EX", -1]), "EX \"-1\""),
            (json!(["SET", "a", "1", "EX", "5m"]), "EX \"5m\""),
            (json!(["SET", "a", "1", "PX", 0]), "PX \"0\""),
            (json!(["MSET", "", "1"]), "1 to 511 bytes"),
            (json!(["SET", "a", "1", "XX"]), "\"XX\""),
            (json!(["MGET", 1, 2, 3, 4, 5]), "at most 4 keys"),
        ] {
            let error = parse_command(words, LIMITS).expect_err(expected);
            assert!(
                error.starts_with("ERR ") && error.contains(expected),
                "{error}"
            );
        }
        for words in [
            json!(["SET", "a", "1"]),
            json!(["MSET", "a", "1"]),
            json!(["DEL", "a"]),
        ] {
            let error = parse_command(words, read_only).expect_err("no writes");
            assert!(error.contains("--allow-writes"), "{error}");
        }
        assert!(parse_command(json!(["mget", "a", "b"]), read_only).is_ok());
    }

    #[test]
    fn answers_are_text_or_base64_but_ok_is_always_itself() {
        let binary = || Answer::Values(vec![Some(Bytes::from_static(b"\xff")), None]);
        assert_eq!(
            binary().into_json(Encoding::Base64),
            Ok(json!(["/w==", null]))
        );
        assert!(binary().into_json(Encoding::Text).is_err());
        assert_eq!(Answer::Done.into_json(Encoding::Base64), Ok(json!("OK")));
        assert_eq!(
            Answer::Number((-2).into()).into_json(Encoding::Text),
            Ok(json!(-2))
        );
    }
}
