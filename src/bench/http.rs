//! Reads HTTP/1.1 answers out of a buffer. Pure: no socket, no clock.
//!
//! Enters: the bytes received so far. Leaves: a whole [`Response`], or "not yet". Must not trust the
//! target: heads and bodies are bounded, and what cannot be read is an error, never a panic.
//!
//! By hand, over httparse, because the generator shares its machine with the target: a general client costs
//! about three times the CPU for each request.

use std::ops::Range;

/// A head that is longer is no answer of any target that one would measure.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// 128 records of 64 KiB, as JSON.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
const MAX_HEADERS: usize = 64;

/// The answer is no HTTP/1.1, or larger than any bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an HTTP/1.1 answer within the bounds")]
pub struct Malformed;

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Another request may follow on this connection.
    pub keep_alive: bool,
    /// The body.
    pub body: Body,
    /// Bytes of the buffer that the answer took.
    pub consumed: usize,
}

/// Where the body is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// In the buffer.
    InPlace(Range<usize>),
    /// Put together from chunks.
    Chunked(Vec<u8>),
}

impl Response {
    /// The body's bytes; `buffer` is what the answer was read from.
    #[must_use]
    pub fn body<'a>(&'a self, buffer: &'a [u8]) -> &'a [u8] {
        match &self.body {
            Body::InPlace(range) => &buffer[range.clone()],
            Body::Chunked(bytes) => bytes,
        }
    }
}

/// Remembers the head of an answer, and the chunks of it so far, while its body arrives.
#[derive(Debug, Default)]
pub struct Reader {
    head: Option<Head>,
    chunks: Chunks,
}

/// Chunks put together, and where in the buffer the next one begins.
#[derive(Debug, Default)]
struct Chunks {
    at: usize,
    body: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    status: u16,
    keep_alive: bool,
    length: usize,
    framing: Framing,
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

impl Reader {
    /// Looks at all bytes received for one answer; `closed` tells that no more will come.
    ///
    /// # Errors
    /// [`Malformed`]; the connection is of no use any more.
    pub fn read(&mut self, buffer: &[u8], closed: bool) -> Result<Option<Response>, Malformed> {
        let head = match self.head {
            Some(head) => head,
            None => match parse_head(buffer)? {
                Some(head) => *self.head.insert(head),
                None => return Ok(None),
            },
        };
        let response = match head.framing {
            Framing::Length(length) => {
                let end = head.length + length;
                (buffer.len() >= end).then(|| head.response(Body::InPlace(head.length..end), end))
            }
            // Chunk sizes and trailers count too: what is sent without end has one.
            Framing::Chunked | Framing::UntilClose
                if buffer.len() - head.length > MAX_BODY_BYTES =>
            {
                return Err(Malformed);
            }
            Framing::Chunked => self.chunks.read(&buffer[head.length..])?.map(|length| {
                let body = std::mem::take(&mut self.chunks).body;
                head.response(Body::Chunked(body), head.length + length)
            }),
            Framing::UntilClose => closed
                .then(|| head.response(Body::InPlace(head.length..buffer.len()), buffer.len())),
        };
        if response.is_some() {
            self.head = None;
        }
        Ok(response)
    }
}

impl Head {
    fn response(self, body: Body, consumed: usize) -> Response {
        Response {
            status: self.status,
            keep_alive: self.keep_alive,
            body,
            consumed,
        }
    }
}

fn parse_head(buffer: &[u8]) -> Result<Option<Head>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let length = match parsed.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if buffer.len() < MAX_HEAD_BYTES => return Ok(None),
        _ => return Err(Malformed),
    };
    let status = parsed.code.ok_or(Malformed)?;
    let mut keep_alive = parsed.version == Some(1);
    let mut framing = Framing::UntilClose;
    for header in parsed.headers.iter() {
        let value = header.value;
        if header.name.eq_ignore_ascii_case("content-length") {
            let bytes = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.trim().parse().ok());
            let bytes = bytes
                .filter(|&bytes| bytes <= MAX_BODY_BYTES)
                .ok_or(Malformed)?;
            // Chunked wins where both stand (RFC 9112, 6.3).
            if !matches!(framing, Framing::Chunked) {
                framing = Framing::Length(bytes);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            keep_alive = !value.eq_ignore_ascii_case(b"close")
                && (keep_alive || value.eq_ignore_ascii_case(b"keep-alive"));
        }
    }
    // Nothing was sent that would ask for an interim answer or another protocol.
    if status < 200 {
        return Err(Malformed);
    }
    if status == 204 || status == 304 {
        framing = Framing::Length(0);
    }
    Ok(Some(Head {
        status,
        keep_alive: keep_alive && !matches!(framing, Framing::UntilClose),
        length,
        framing,
    }))
}

impl Chunks {
    /// Goes on where the last call ended. The length on the wire, once the last chunk is there; trailers are
    /// skipped.
    fn read(&mut self, buffer: &[u8]) -> Result<Option<usize>, Malformed> {
        loop {
            let rest = &buffer[self.at..];
            let (line, size) = match httparse::parse_chunk_size(rest) {
                // It takes an empty line for a size of 0.
                Ok(httparse::Status::Complete(_)) if rest[0] == b'\r' => return Err(Malformed),
                Ok(httparse::Status::Complete(found)) => found,
                Ok(httparse::Status::Partial) => return Ok(None),
                Err(_) => return Err(Malformed),
            };
            if size == 0 {
                let end = end_of_trailers(&rest[line..]);
                return Ok(end.map(|length| self.at + line + length));
            }
            let size = usize::try_from(size).map_err(|_| Malformed)?;
            if size > MAX_BODY_BYTES {
                return Err(Malformed);
            }
            let Some(chunk) = rest.get(line..line + size + 2) else {
                return Ok(None);
            };
            let (data, end) = chunk.split_at(size);
            if end != b"\r\n" {
                return Err(Malformed);
            }
            self.body.extend_from_slice(data);
            self.at += line + size + 2;
        }
    }
}

fn end_of_trailers(buffer: &[u8]) -> Option<usize> {
    if buffer.starts_with(b"\r\n") {
        return Some(2);
    }
    memchr::memmem::find(buffer, b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n";

    fn read(bytes: &[u8]) -> Result<Option<Response>, Malformed> {
        Reader::default().read(bytes, false)
    }

    #[test]
    fn bodies_are_found_however_they_are_framed() {
        for bytes in [PLAIN, CHUNKED] {
            let response = read(bytes).expect("HTTP").expect("whole");
            assert_eq!(response.body(bytes), b"hello");
            assert_eq!((response.status, response.keep_alive), (200, true));
            assert_eq!(response.consumed, bytes.len());
        }
        let closing = b"HTTP/1.0 200 OK\r\n\r\nhello";
        assert_eq!(read(closing), Ok(None));
        let response = Reader::default()
            .read(closing, true)
            .expect("HTTP")
            .expect("whole");
        assert_eq!(response.body(closing), b"hello");
        assert!(!response.keep_alive);
    }

    #[test]
    fn connections_are_kept_or_closed_as_the_answer_says() {
        for (head, keep_alive) in [
            ("HTTP/1.1 204 No Content", true),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: Close",
                false,
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0", false),
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: Keep-Alive",
                true,
            ),
        ] {
            let response = read(format!("{head}\r\n\r\n").as_bytes());
            assert_eq!(
                response.expect("HTTP").expect("whole").keep_alive,
                keep_alive,
                "{head}"
            );
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let long = format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(MAX_HEAD_BYTES));
        for bytes in [
            "SSH-2.0-x\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffff\r\n",
            &long,
        ] {
            let shown = &bytes[..bytes.len().min(60)];
            assert_eq!(read(bytes.as_bytes()), Err(Malformed), "{shown}");
        }
    }

    #[test]
    fn what_is_sent_without_end_is_given_up() {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        for (start, forever) in [("0\r\n", "a: b\r\n"), ("1;", "x"), ("", "1\r\nx\r\n")] {
            let tail = forever.repeat(MAX_BODY_BYTES / forever.len() + 1);
            let bytes = [head, start, &tail].concat();
            assert_eq!(read(bytes.as_bytes()), Err(Malformed), "{start}{forever}");
        }
    }

    proptest! {
        #[test]
        fn an_answer_that_arrives_in_pieces_is_read_once_it_is_whole(
            chunked: bool, cuts in proptest::collection::vec(0_usize..80, 0..6),
        ) {
            let bytes = if chunked { CHUNKED } else { PLAIN };
            let mut reader = Reader::default();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len() - 1)).collect();
            cuts.sort_unstable();
            for cut in cuts {
                prop_assert_eq!(reader.read(&bytes[..cut], false), Ok(None));
            }
            let response = reader.read(bytes, false).expect("HTTP").expect("whole");
            prop_assert_eq!(response.body(bytes), b"hello");
        }

        #[test]
        fn no_answer_makes_the_reader_panic(head in "(HTTP/1.1 200 OK\r\n)?.{0,40}", tail: Vec<u8>, closed: bool) {
            let bytes = [head.as_bytes(), b"\r\n\r\n", &tail].concat();
            let _ = Reader::default().read(&bytes, closed);
        }
    }
}
