//! Answers of any form, a part at a time. Pure.
//!
//! Enters: the bytes of answers as they come. Leaves: what stands in each line; of a value only how long it is, so that
//! there can be room for it before it comes. Must not take anything for a part that is not whole.

use bytes::{Buf as _, BytesMut};

use super::{LINE_END, MAX_LINE_BYTES, Malformed, number, text};

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Part {
    Nothing,
    Number(i64),
    /// `OK`, `QUEUED` or the like.
    Status,
    Error(String),
    /// A value of so many bytes follows, and the end of its line.
    Value(usize),
    /// So many parts follow.
    List(usize),
}

impl Part {
    /// Takes the next part out of the bytes, once it is whole.
    pub(in super::super) fn take(came: &mut BytesMut) -> Result<Option<Self>, Malformed> {
        let Some(length) = came.iter().position(|&byte| byte == b'\n') else {
            let is_too_long = came.len() > MAX_LINE_BYTES;
            return if is_too_long {
                Err(Malformed)
            } else {
                Ok(None)
            };
        };
        let line = came[..=length].strip_suffix(LINE_END).ok_or(Malformed)?;
        let count = |digits: &[u8]| number(digits).ok_or(Malformed);
        let part = match line {
            b"$-1" | b"*-1" => Self::Nothing,
            [b'+', ..] => Self::Status,
            [b'-', reason @ ..] => Self::Error(text(reason)),
            [b':', digits @ ..] => Self::Number(whole_number(digits).ok_or(Malformed)?),
            [b'$', digits @ ..] => Self::Value(count(digits)?),
            [b'*', digits @ ..] => Self::List(count(digits)?),
            _ => return Err(Malformed),
        };
        came.advance(length + 1);
        Ok(Some(part))
    }
}

/// Times to live of years, in milliseconds, have more digits than lengths, and absent keys have a sign.
fn whole_number(digits: &[u8]) -> Option<i64> {
    let digits = str::from_utf8(digits).ok()?;
    digits.parse().ok().filter(|_| !digits.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_taken_once_they_are_whole() {
        let bytes = b"+OK\r\n*2\r\n:-2\r\n:315360000000\r\n$-1\r\n-ERR x\r\n$3\r\n";
        let expected = [
            Part::Status,
            Part::List(2),
            Part::Number(-2),
            Part::Number(315_360_000_000),
            Part::Nothing,
            Part::Error("ERR x".to_owned()),
            Part::Value(3),
        ];
        let (mut came, mut taken) = (BytesMut::new(), Vec::new());
        for byte in bytes {
            came.extend_from_slice(&[*byte]);
            taken.extend(Part::take(&mut came).expect("a part"));
        }
        assert_eq!(taken, expected);
        assert!(came.is_empty());
        let long = "+".repeat(5_000);
        for wrong in [
            "x\r\n", ":\r\n", ":-\r\n", ":+1\r\n", "$-2\r\n", "+a\n", &long,
        ] {
            let taken = Part::take(&mut BytesMut::from(wrong));
            assert_eq!(taken, Err(Malformed), "{wrong:.9?}");
        }
    }
}
