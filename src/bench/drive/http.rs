//! Reads HTTP/1.1 answers out of what came in. Pure: no socket, no clock.
//!
//! Enters: the bytes that are not read yet. Leaves: how many of them are, and a [`Response`] once it is whole. Must
//! not trust the target: heads, and bodies that are kept, are bounded, and what cannot be read is an error, never a
//! panic.
//!
//! By hand, over httparse, because the generator shares its machine with the target: a general client costs
//! about three times the CPU for each request.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::time::UNIX_EPOCH;

use crate::units::whole_number;

/// A head that is longer is no answer of any target that one would measure. All interim answers before the final one
/// have as much, all trailers, and the line before a chunk.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 256;
/// `Sun, 06 Nov 1994 08:49:37 GMT`.
const DATE_BYTES: usize = 29;
/// What is kept of a body: 128 records of 64 KiB, as JSON.
const MAX_KEPT_BYTES: u64 = 16 * 1024 * 1024;

/// Why an answer cannot be read; the connection is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Malformed {
    /// It does not begin as HTTP/1 does.
    #[error("not an HTTP/1 answer")]
    NotHttp,
    /// The head, interim answers or trailers are longer than any that one would measure.
    #[error("a head of more than 64 KiB or 256 headers")]
    HeadTooLarge,
    /// No number, or several that differ.
    #[error("an invalid or contradictory Content-Length")]
    ContentLength,
    /// Another coding than `chunked`, which nobody asked for.
    #[error("a Transfer-Encoding other than chunked")]
    TransferEncoding,
    /// A chunk without its size or its end.
    #[error("a broken chunk")]
    Chunk,
    /// A body that is to be judged, and is too large for it.
    #[error("a body of more than 16 MiB")]
    BodyTooLarge,
    /// 101: the target goes on in a protocol that nobody asked for.
    #[error("a switch to another protocol")]
    OtherProtocol,
    /// More than one answer to a request, or one without a request.
    #[error("an answer without a request")]
    Unasked,
}

/// What becomes of the bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bodies {
    /// Somebody looks at them.
    Kept,
    /// Nobody does: they are counted and thrown away as they come, however long they are.
    Counted,
    /// There are none, whatever the headers say: the requests are HEAD (RFC 9112, 6.3).
    Absent,
}

/// What one look found.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    /// So many of the bytes are read, and must not be shown again.
    pub consumed: usize,
    /// The answer, when it is whole.
    pub response: Option<Response>,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Another request may follow on this connection.
    pub keep_alive: bool,
    /// When it was written by the target's clock, in seconds of the Unix epoch; `None` where it does not tell.
    pub date_s: Option<u64>,
    /// The length of the body without its framing.
    pub body_bytes: u64,
    /// The body; empty where bodies are counted.
    body: Body,
}

/// Where the body is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    /// Among the bytes of the last look.
    InPlace(Range<usize>),
    /// Put together from several looks, or from chunks.
    Collected(Vec<u8>),
}

impl Response {
    /// The body's bytes; `bytes` are those that the answer was found in.
    #[must_use]
    pub fn body<'a>(&'a self, bytes: &'a [u8]) -> &'a [u8] {
        match &self.body {
            Body::InPlace(range) => &bytes[range.clone()],
            Body::Collected(body) => body,
        }
    }

    /// The target waited for a request for too long, and ends the connection: some say so before they close (RFC 9110,
    /// 15.5.9).
    #[must_use]
    pub fn ends_idle_connection(&self) -> bool {
        self.status == 408 && !self.keep_alive
    }
}

/// Reads the answers of one connection, one after the other, however they arrive.
#[derive(Debug)]
pub struct Reader {
    bodies: Bodies,
    /// Of interim answers before the one that is being read.
    interim_bytes: usize,
    answer: Option<Answer>,
    /// Of the last answer: most others are of the same second.
    date: Option<Date>,
}

/// What `Date` said, and what that means.
#[derive(Debug, Clone, Copy)]
struct Date {
    text: [u8; DATE_BYTES],
    seconds: u64,
}

impl Date {
    /// Reads the preferred form (RFC 9110, 5.6.7); no other is written any more.
    fn read(text: &[u8], last: Option<Self>) -> Option<Self> {
        if let Some(last) = last.filter(|last| last.text == text) {
            return Some(last);
        }
        let time = httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()?;
        Some(Self {
            text: text.try_into().ok()?,
            seconds: time.duration_since(UNIX_EPOCH).ok()?.as_secs(),
        })
    }
}

/// An answer whose head is read.
#[derive(Debug)]
struct Answer {
    head: Head,
    /// What was kept of the body so far.
    body: Vec<u8>,
    body_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    status: u16,
    keep_alive: bool,
    date_s: Option<u64>,
    left: Left,
}

/// What of the body is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Bytes(u64),
    Chunks(Chunk),
    UntilClose,
}

/// What comes next in a body of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size,
    Data(u64),
    End,
    /// A line of the trailers, of which there were so many bytes.
    Trailer(usize),
}

impl Reader {
    /// A reader for a new connection.
    #[must_use]
    pub fn new(bodies: Bodies) -> Self {
        Self {
            bodies,
            interim_bytes: 0,
            answer: None,
            date: None,
        }
    }

    /// What becomes of the body of the next answer, where that is not the same for all of them.
    pub fn expect(&mut self, bodies: Bodies) {
        if self.answer.is_none() {
            self.bodies = bodies;
        }
    }

    /// Nothing of the next answer has been read.
    #[must_use]
    pub fn is_between_answers(&self) -> bool {
        self.answer.is_none() && self.interim_bytes == 0
    }

    /// Looks at the bytes that are not read yet; `closed` tells that no more will come.
    ///
    /// # Errors
    /// [`Malformed`]; the connection is of no use any more.
    pub fn read(&mut self, bytes: &[u8], closed: bool) -> Result<Read, Malformed> {
        let mut consumed = 0;
        let begun = match self.answer.take() {
            Some(answer) => Some(answer),
            None => self.read_heads(bytes, &mut consumed)?.map(Answer::new),
        };
        let Some(mut answer) = begun else {
            let response = None;
            return Ok(Read { consumed, response });
        };
        let rest = &bytes[consumed..];
        let whole = if let Some(length) = answer.in_place(self.bodies, rest.len()) {
            let body = consumed..consumed + length;
            consumed = body.end;
            answer.body_bytes = length as u64;
            Some(Body::InPlace(body))
        } else {
            let (length, is_whole) = answer.take(self.bodies, rest, closed)?;
            consumed += length;
            is_whole.then(|| Body::Collected(std::mem::take(&mut answer.body)))
        };
        let Some(body) = whole else {
            self.answer = Some(answer);
            let response = None;
            return Ok(Read { consumed, response });
        };
        self.interim_bytes = 0;
        let response = Some(Response {
            status: answer.head.status,
            keep_alive: answer.head.keep_alive,
            date_s: answer.head.date_s,
            body_bytes: answer.body_bytes,
            body,
        });
        Ok(Read { consumed, response })
    }

    /// The final head, once it is there. What came before it, as 103 Early Hints, is skipped (RFC 9110, 15.2).
    fn read_heads(
        &mut self,
        bytes: &[u8],
        consumed: &mut usize,
    ) -> Result<Option<Head>, Malformed> {
        while let Some((head, length)) =
            parse_head(&bytes[*consumed..], self.bodies, &mut self.date)?
        {
            *consumed += length;
            match head.status {
                200.. => return Ok(Some(head)),
                101 => return Err(Malformed::OtherProtocol),
                100..200 => self.interim_bytes += length,
                _ => return Err(Malformed::NotHttp),
            }
            if self.interim_bytes > MAX_HEAD_BYTES {
                return Err(Malformed::HeadTooLarge);
            }
        }
        Ok(None)
    }
}

impl Answer {
    fn new(head: Head) -> Self {
        Self {
            head,
            body: Vec::new(),
            body_bytes: 0,
        }
    }

    /// The length of a body that nobody needs to put together, as most are: all of it is here.
    fn in_place(&self, bodies: Bodies, here: usize) -> Option<usize> {
        let Left::Bytes(left) = self.head.left else {
            return None;
        };
        let left = usize::try_from(left).ok().filter(|&left| left <= here)?;
        (bodies == Bodies::Kept && self.body_bytes == 0).then_some(left)
    }

    /// Takes of the body what is here: how many bytes, and whether it is whole.
    fn take(
        &mut self,
        bodies: Bodies,
        bytes: &[u8],
        closed: bool,
    ) -> Result<(usize, bool), Malformed> {
        let mut taken = 0;
        loop {
            if bodies == Bodies::Kept && self.kept_bytes() > MAX_KEPT_BYTES {
                return Err(Malformed::BodyTooLarge);
            }
            let rest = &bytes[taken..];
            let (length, left) = match self.head.left {
                Left::Bytes(0) => return Ok((taken, true)),
                Left::UntilClose if closed && rest.is_empty() => return Ok((taken, true)),
                _ if rest.is_empty() => return Ok((taken, false)),
                Left::Bytes(left) => {
                    let length = self.keep(bodies, rest, Some(left));
                    (length, Left::Bytes(left - length as u64))
                }
                Left::UntilClose => (self.keep(bodies, rest, None), Left::UntilClose),
                Left::Chunks(Chunk::Data(left)) => {
                    let length = self.keep(bodies, rest, Some(left));
                    let left = left - length as u64;
                    let next = if left == 0 {
                        Chunk::End
                    } else {
                        Chunk::Data(left)
                    };
                    (length, Left::Chunks(next))
                }
                Left::Chunks(chunk) => match chunk.read(rest)? {
                    Some(found) => found,
                    None => return Ok((taken, false)),
                },
            };
            taken += length;
            self.head.left = left;
        }
    }

    /// What would be kept of the body: what is announced counts at once, and may be any number.
    fn kept_bytes(&self) -> u64 {
        let announced = match self.head.left {
            Left::Bytes(left) | Left::Chunks(Chunk::Data(left)) => left,
            Left::Chunks(_) | Left::UntilClose => 0,
        };
        announced.saturating_add(self.body.len() as u64)
    }

    /// Takes at most `left` bytes of data, or all of them where their number is not known; how many.
    fn keep(&mut self, bodies: Bodies, bytes: &[u8], left: Option<u64>) -> usize {
        let left = left.and_then(|left| usize::try_from(left).ok());
        let length = left.map_or(bytes.len(), |left| left.min(bytes.len()));
        self.body_bytes += length as u64;
        if bodies == Bodies::Kept {
            self.body.extend_from_slice(&bytes[..length]);
        }
        length
    }
}

impl Chunk {
    /// Reads what stands around the data: how many bytes, and what is left then; `None`: it is not whole yet.
    fn read(self, bytes: &[u8]) -> Result<Option<(usize, Left)>, Malformed> {
        let (length, next) = match self {
            // httparse takes a line without digits for a size of 0.
            Self::Size if !bytes[0].is_ascii_hexdigit() => return Err(Malformed::Chunk),
            Self::Size => match httparse::parse_chunk_size(bytes) {
                Ok(httparse::Status::Complete((length, 0))) => (length, Self::Trailer(0)),
                Ok(httparse::Status::Complete((length, size))) => (length, Self::Data(size)),
                Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
                _ => return Err(Malformed::Chunk),
            },
            Self::End if bytes.starts_with(b"\r\n") => (2, Self::Size),
            Self::End if bytes == b"\r" => return Ok(None),
            Self::End | Self::Data(_) => return Err(Malformed::Chunk),
            Self::Trailer(before) => {
                let line = memchr::memmem::find(bytes, b"\r\n").map(|at| at + 2);
                if before + line.unwrap_or(bytes.len()) > MAX_HEAD_BYTES {
                    return Err(Malformed::HeadTooLarge);
                }
                match line {
                    Some(2) => return Ok(Some((2, Left::Bytes(0)))),
                    Some(length) => (length, Self::Trailer(before + length)),
                    None => return Ok(None),
                }
            }
        };
        Ok(Some((length, Left::Chunks(next))))
    }
}

/// A head and its length; `None`: it is not whole yet.
fn parse_head(
    bytes: &[u8],
    bodies: Bodies,
    date: &mut Option<Date>,
) -> Result<Option<(Head, usize)>, Malformed> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let found = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        bytes,
        &mut headers,
    );
    let length = match found {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD_BYTES => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Malformed::HeadTooLarge),
        Err(_) => return Err(Malformed::NotHttp),
    };
    let status = parsed.code.ok_or(Malformed::NotHttp)?;
    let fields = Fields::read(parsed.headers)?;
    *date = fields.date.and_then(|text| Date::read(text, *date));
    let is_current = parsed.version == Some(1);
    // By RFC 9112, 6.3: these have no body whatever their headers say, and chunks go before a length.
    let left = match (status, fields.is_chunked, fields.length) {
        _ if bodies == Bodies::Absent => Left::Bytes(0),
        (204 | 304, ..) => Left::Bytes(0),
        (_, true, _) => Left::Chunks(Chunk::Size),
        (_, false, Some(length)) => Left::Bytes(length),
        (_, false, None) => Left::UntilClose,
    };
    // Chunks are no part of HTTP/1.0: whoever sends them in it may be wrong about the rest too (RFC 9112, 6.1).
    let is_reliable = left != Left::UntilClose && (is_current || !fields.is_chunked);
    let head = Head {
        status,
        keep_alive: is_reliable && !fields.closes && (is_current || fields.keeps_alive),
        date_s: date.map(|date| date.seconds),
        left,
    };
    Ok(Some((head, length)))
}

/// What the headers say about the body and the connection.
#[derive(Debug, Default)]
struct Fields<'a> {
    length: Option<u64>,
    is_chunked: bool,
    closes: bool,
    keeps_alive: bool,
    date: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn read(headers: &[httparse::Header<'a>]) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        for header in headers {
            // Most headers are none of these, as their lengths tell.
            if !matches!(header.name.len(), 4 | 10 | 14 | 17) {
                continue;
            }
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                for item in items(header.value) {
                    let length = whole_number(item).ok_or(Malformed::ContentLength)?;
                    if fields
                        .length
                        .replace(length)
                        .is_some_and(|other| other != length)
                    {
                        return Err(Malformed::ContentLength);
                    }
                }
            } else if is("transfer-encoding") {
                for coding in items(header.value) {
                    if fields.is_chunked || !coding.eq_ignore_ascii_case(b"chunked") {
                        return Err(Malformed::TransferEncoding);
                    }
                    fields.is_chunked = true;
                }
            } else if is("connection") {
                for option in items(header.value) {
                    fields.closes |= option.eq_ignore_ascii_case(b"close");
                    fields.keeps_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if is("date") {
                fields.date = Some(header.value);
            }
        }
        Ok(fields)
    }
}

/// The members of a list in a header, at least one.
fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests;
