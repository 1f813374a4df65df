//! Answers of any form, which few commands need, and none on a request's path. Pure.
//!
//! Enters: bytes. Leaves: the answer, once all of it is there. Must not nest without end.

use super::{LINE_END, Malformed, line, number, text};

/// Deeper than that no answer is.
const MAX_DEPTH: usize = 8;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Reply {
    Nothing,
    Number(u64),
    /// A value, or a status.
    Text(String),
    Error(String),
    List(Vec<Reply>),
}

impl Reply {
    /// The answer that the bytes begin with, once it is whole.
    pub(in super::super) fn read(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        Ok(read(bytes, MAX_DEPTH)?.map(|(reply, _)| reply))
    }

    pub(in super::super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(in super::super) fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(in super::super) fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }
}

/// The answer, and the bytes that follow it.
fn read(bytes: &[u8], depth: usize) -> Result<Option<(Reply, &[u8])>, Malformed> {
    let Some((line, next)) = line(bytes)? else {
        return Ok(None);
    };
    let rest = &bytes[next..];
    let count = |digits: &[u8]| number(digits).ok_or(Malformed);
    let reply = match line {
        b"$-1" | b"*-1" => Reply::Nothing,
        [b'+', status @ ..] => Reply::Text(text(status)),
        [b'-', reason @ ..] => Reply::Error(text(reason)),
        [b':', digits @ ..] => Reply::Number(count(digits)? as u64),
        [b'$', digits @ ..] => {
            let length = count(digits)?;
            let Some((value, rest)) = rest.split_at_checked(length + LINE_END.len()) else {
                return Ok(None);
            };
            let Some(value) = value.strip_suffix(LINE_END) else {
                return Err(Malformed);
            };
            return Ok(Some((Reply::Text(text(value)), rest)));
        }
        [b'*', digits @ ..] if depth > 0 => {
            let (count, mut rest) = (count(digits)?, rest);
            let mut list = Vec::new();
            while list.len() < count {
                let Some((one, behind)) = read(rest, depth - 1)? else {
                    return Ok(None);
                };
                list.push(one);
                rest = behind;
            }
            return Ok(Some((Reply::List(list), rest)));
        }
        _ => return Err(Malformed),
    };
    Ok(Some((reply, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_any_form_are_read_once_they_are_whole() {
        let bytes = b"*5\r\n:7\r\n$2\r\nab\r\n*2\r\n$-1\r\n*0\r\n+OK\r\n-ERR x\r\n";
        let text = |text: &str| Reply::Text(text.to_owned());
        let expected = Reply::List(vec![
            Reply::Number(7),
            text("ab"),
            Reply::List(vec![Reply::Nothing, Reply::List(vec![])]),
            text("OK"),
            Reply::Error("ERR x".to_owned()),
        ]);
        assert_eq!(Reply::read(bytes), Ok(Some(expected)));
        for length in 0..bytes.len() {
            assert_eq!(Reply::read(&bytes[..length]), Ok(None), "{length}");
        }
        for wrong in ["x\r\n", ":\r\n", ":-\r\n", "$1\r\nab\r\n", "+a\rb\r\n"] {
            assert_eq!(Reply::read(wrong.as_bytes()), Err(Malformed), "{wrong:?}");
        }
        assert_eq!(Reply::read("*1\r\n".repeat(9).as_bytes()), Err(Malformed));
        assert_eq!(Reply::read(&[b'+'; 5_000]), Err(Malformed));
    }
}
