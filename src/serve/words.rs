//! The words of Upstash's commands, as they stand in JSON and in targets. Pure.
//!
//! Enters: a body, or a path and its query. Leaves: words, no more of them than a request may have. Must not read on
//! when there are too many: a word of two bytes takes ten times as much once it is read.

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::body::parse;
use super::reply::Problem;
use super::route::bad;

/// `SET key value EX 60 NX` has six, and no command more for a key.
const WORDS_FOR_A_KEY: usize = 8;

/// A word of a command: text as it is, numbers and booleans as JSON writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// What a command takes.
    Text(Bytes),
    /// What none does, and what it is.
    Other(&'static str),
}

impl From<String> for Word {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl Word {
    /// The bytes that the command gets.
    pub(super) fn into_bytes(self) -> Result<Bytes, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Other(kind) => Err(format!("ERR {kind} is no argument; give text or numbers")),
        }
    }
}

/// Whether the command of these words changes the store, if it is run at all.
pub(super) fn is_write(words: &[Word]) -> bool {
    match words.first() {
        Some(Word::Text(name)) => ["SET", "MSET", "DEL"]
            .iter()
            .any(|write| name.eq_ignore_ascii_case(write.as_bytes())),
        _ => false,
    }
}

/// The words of a `POST /`.
pub(super) fn of_command(body: &[u8], max_keys: usize) -> Result<Vec<Word>, Problem> {
    let mut left = max_keys * WORDS_FOR_A_KEY;
    parse(body, Words { left: &mut left })
}

/// The words of each command of a `POST /pipeline`.
pub(super) fn of_pipeline(body: &[u8], max_keys: usize) -> Result<Vec<Vec<Word>>, Problem> {
    let mut left = max_keys * WORDS_FOR_A_KEY;
    let max = max_keys;
    parse(
        body,
        Commands {
            max,
            left: &mut left,
        },
    )
}

/// The words of a command in a target, as Upstash documents them: those of the path, then the body, then the parameters.
/// The length of a target bounds them.
pub(super) fn of_target(
    path: &str,
    query: Option<&str>,
    body: &[u8],
) -> Result<Vec<Word>, Problem> {
    let word = |raw: &str| {
        let decoded = percent_decode_str(raw).decode_utf8();
        let word =
            decoded.map_err(|_| bad("a word of the command is no UTF-8; send it in a body"))?;
        Ok(Word::from(word.into_owned()))
    };
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut words = path
        .split('/')
        .map(word)
        .collect::<Result<Vec<_>, Problem>>()?;
    if !body.is_empty() {
        let body = str::from_utf8(body).map_err(|error| bad(format!("the body: {error}")))?;
        words.push(body.to_owned().into());
    }
    let parameters = query.unwrap_or_default().split('&');
    for parameter in parameters.filter(|parameter| !parameter.is_empty()) {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (parameter, None),
        };
        words.push(word(name)?);
        // `NX=` and `NX` are the same.
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            words.push(word(value)?);
        }
    }
    Ok(words)
}

/// Reads an array of commands.
struct Commands<'a> {
    max: usize,
    left: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for Commands<'_> {
    type Value = Vec<Vec<Word>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Commands<'_> {
    type Value = Vec<Vec<Word>>;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("an array of commands")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut commands = Vec::new();
        while let Some(words) = array.next_element_seed(Words {
            left: &mut *self.left,
        })? {
            if commands.len() == self.max {
                let max = self.max;
                return Err(A::Error::custom(format!(
                    "a request has at most {max} commands"
                )));
            }
            commands.push(words);
        }
        Ok(commands)
    }
}

/// Reads the words of a command; `left` is how many the request may still have.
struct Words<'a> {
    left: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for Words<'_> {
    type Value = Vec<Word>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Words<'_> {
    type Value = Vec<Word>;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("an array of words")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut words = Vec::new();
        while let Some(word) = array.next_element()? {
            let left = self.left.checked_sub(1);
            *self.left = left.ok_or_else(|| {
                A::Error::custom("its commands have more words than their keys can need")
            })?;
            words.push(word);
        }
        Ok(words)
    }
}

impl<'de> serde::Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(AnyWord)
    }
}

struct AnyWord;

impl<'de> Visitor<'de> for AnyWord {
    type Value = Word;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("a word")
    }

    fn visit_str<E>(self, text: &str) -> Result<Word, E> {
        Ok(text.to_owned().into())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Word, E> {
        Ok(value.to_string().into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Word, E> {
        Ok(number.to_string().into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Word, E> {
        Ok(number.to_string().into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Word, E> {
        Ok(serde_json::json!(number).to_string().into())
    }

    fn visit_unit<E>(self) -> Result<Word, E> {
        Ok(Word::Other("null"))
    }

    // What stands in these is never kept.
    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Word, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Word::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Word, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Word::Other("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[&str]) -> Vec<Word> {
        words
            .iter()
            .map(|word| Word::from((*word).to_owned()))
            .collect()
    }

    #[test]
    fn words_are_text_or_what_json_writes_as_text() {
        let body = br#"["SET", "a\u0000", 7, -1, 1.50, true, null, [[1]], {"a": [2]}]"#;
        let mut expected = texts(&["SET", "a\0", "7", "-1", "1.5", "true"]);
        expected.extend(["null", "an array", "an object"].map(Word::Other));
        assert_eq!(of_command(body, 2), Ok(expected));
        for body in [
            &b""[..],
            b"{}",
            b"[\"GET\"",
            b"[\"GET\"] 1",
            b"\"GET\"",
            b"[[1]",
        ] {
            assert!(of_pipeline(body, 2).is_err());
            assert!(of_command(body, 2).is_err());
        }
    }

    #[test]
    fn no_more_is_read_than_a_request_may_have() {
        // Nothing of what stands behind is looked at, so it need not even be JSON.
        let many = format!("[{} %", "\"\",".repeat(17));
        let problem = of_command(many.as_bytes(), 2).expect_err("too many");
        assert!(
            problem.detail().contains("more words"),
            "{}",
            problem.detail()
        );
        let problem = of_pipeline(b"[[],[],[] %", 2).expect_err("too many");
        assert!(
            problem.detail().contains("at most 2 commands"),
            "{}",
            problem.detail()
        );
        let spread = format!("[[{}\"\"],[\"\" %", "\"\",".repeat(15));
        let problem = of_pipeline(spread.as_bytes(), 2).expect_err("too many in all");
        assert!(
            problem.detail().contains("more words"),
            "{}",
            problem.detail()
        );
    }

    #[test]
    fn a_command_may_stand_in_the_path_the_body_and_the_parameters() {
        for (path, query, body, expected) in [
            ("/get/a%20b%2Fc", None, &b""[..], &["get", "a b/c"][..]),
            (
                "/set/k/v",
                Some("EX=60&NX"),
                b"",
                &["set", "k", "v", "EX", "60", "NX"],
            ),
            (
                "/set/k",
                Some("NX="),
                b"{\"v\":1}",
                &["set", "k", "{\"v\":1}", "NX"],
            ),
            ("/mget/a/b", Some("&"), b"", &["mget", "a", "b"]),
            ("/set/k/", None, b"", &["set", "k", ""]),
        ] {
            let words = of_target(path, query, body);
            assert_eq!(words, Ok(texts(expected)), "{path}");
        }
        assert!(of_target("/get/%ff", None, b"").is_err());
        assert!(of_target("/set/k", None, b"\xff").is_err());
    }
}
