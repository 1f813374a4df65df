//! Commands that are run together or not at all: `POST /multi-exec`.
//!
//! Enters: an array of commands. Leaves: an answer to each, or one error when nothing was done. Must not begin what has a
//! command in it that cannot run.

use std::time::Instant;

use hyper::StatusCode;

use super::super::reply::Problem;
use super::{ABORTED, Answer, Answered, Command, Outcome, Upstash, failed, into_json, refused};
use crate::store::{Gave, Held, Only, Step, StoreError};

impl Upstash<'_> {
    /// Runs the commands of a `POST /multi-exec`. Its status is an error's when nothing was done, or nothing is known to be.
    ///
    /// # Errors
    /// When the body as a whole is not an array of commands.
    pub(in super::super) async fn transaction(&self, body: &[u8]) -> Result<Answered, Problem> {
        let commands = self.commands(body)?;
        let mut left = self.limits.max_keys_per_request;
        let mut steps = Vec::with_capacity(commands.len());
        for (position, words) in commands.into_iter().enumerate() {
            match Command::parse(words, self.limits, &mut left) {
                Ok(command) => steps.push(command.into_step()),
                Err(reason) => {
                    let error = format!("{ABORTED} Command {}: {reason}", position + 1);
                    return Ok(self.undone(refused(error)));
                }
            }
        }
        let due = Instant::now() + self.patience;
        let run = tokio::time::timeout_at(due.into(), self.keys.transaction(steps)).await;
        let executed = match run.unwrap_or(Err(StoreError::Timeout(self.patience))) {
            Ok(executed) => executed,
            Err(error) => return Ok(self.undone(failed(error))),
        };
        let mut held = executed.held;
        let outcomes = executed.answers.into_iter();
        let outcomes = outcomes.map(|answer| self.outcome(answer, &mut held));
        Ok(Answered {
            json: outcomes.map(into_json).collect(),
            status: StatusCode::OK,
            held,
        })
    }

    fn outcome(&self, answer: Result<Gave, StoreError>, held: &mut Held) -> Outcome {
        let answer = Answer::of(answer.map_err(failed)?);
        // As a string in JSON, and as a part of the whole answer; as a value it has its place.
        self.told(answer, 2, held)
    }

    /// One error in place of all answers.
    fn undone(&self, (error, status): (String, StatusCode)) -> Answered {
        Answered {
            json: into_json(Err((error, status))),
            status,
            held: self.room.hold(),
        }
    }
}

impl Command {
    fn into_step(self) -> Step {
        let put = |(key, value, ttl), only| Step::Put {
            key,
            value,
            ttl,
            only,
        };
        match self {
            Self::Get(key) => Step::Get(key),
            Self::Set(key, value, ttl) => put((key, value, ttl), None),
            Self::SetIfAbsent(key, value, ttl) => put((key, value, ttl), Some(Only::IfAbsent)),
            Self::Mget(keys) => Step::GetMany(keys),
            Self::Mset(batch) => Step::PutBatch(batch),
            Self::Del(keys) => Step::Delete(keys),
            Self::Exists(keys) => Step::Exists(keys),
            Self::Ttl(key) => Step::TimeToLive(key),
        }
    }
}

impl Answer {
    fn of(gave: Gave) -> Self {
        match gave {
            Gave::Value(value) => Self::Value(value),
            Gave::Values(values) => Self::Values(values),
            Gave::Count(count) => Self::Number(count.into()),
            Gave::Left(left) => Self::left(left),
            Gave::Written(true) => Self::Done,
            Gave::Written(false) => Self::Value(None),
        }
    }
}
