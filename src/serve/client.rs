//! A client's connection, as hyper reads and writes it.
//!
//! Enters: bytes on their way, and requests that begin and end. Leaves: since when which wait goes on, so that those that
//! last too long can be cut; and in the place of hyper's own refusals, which have no body, the documents that all others
//! are. Must not take a clock reading or a timer for each read: the ticks of its thread are exact enough.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use hyper::StatusCode;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::owed::Debt;
use super::reply::Problem;

/// Head of a request: its line and all headers. A batch of 128 ids needs about 2 KiB.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// What the server waits for, and since which tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// For the first byte of a request, or for the client to take its answer.
    Idle(u32),
    /// For the rest of a head.
    Head(u32),
    /// For nothing of the client's: a request is being answered. Its body has a time of its own.
    Answering,
}

/// How many ticks each wait may last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) idle: u32,
    pub(super) head: u32,
}

impl Wait {
    pub(super) fn is_too_long(self, now: u32, patience: Patience) -> bool {
        match self {
            Self::Idle(since) => now - since > patience.idle,
            Self::Head(since) => now - since > patience.head,
            Self::Answering => false,
        }
    }
}

/// A connection that notes when a head begins to come, and says why a head was refused.
pub(super) struct Noted {
    io: TokioIo<TcpStream>,
    wait: Rc<Cell<Wait>>,
    now: Rc<Cell<u32>>,
    /// All that was written is on its way, so that whatever is written next begins an answer.
    is_flushed: bool,
    /// What is left of a document in the place of what hyper has written.
    document: Bytes,
    debt: Debt,
}

impl Noted {
    pub(super) fn new(
        stream: TcpStream,
        wait: Rc<Cell<Wait>>,
        now: Rc<Cell<u32>>,
        debt: Debt,
    ) -> Self {
        Self {
            io: TokioIo::new(stream),
            wait,
            now,
            is_flushed: true,
            document: Bytes::new(),
            debt,
        }
    }

    /// Whether these bytes are a refusal of hyper's own, which are then taken and answered for.
    fn takes(&mut self, bytes: &[u8]) -> bool {
        let begins_an_answer = std::mem::take(&mut self.is_flushed);
        if !begins_an_answer {
            return false;
        }
        match document_for(bytes) {
            Some(document) => {
                self.document = document;
                true
            }
            None => false,
        }
    }

    fn send_document(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.document.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(context, &self.document))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.document.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

/// The document for a head that hyper refused by a status alone. No answer of this server has such a status and no body.
fn document_for(bytes: &[u8]) -> Option<Bytes> {
    // Most answers are none, and most others end here.
    if bytes.get(9) != Some(&b'4') {
        return None;
    }
    let head = str::from_utf8(bytes).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
    if !status.is_client_error() || !head.contains("\r\ncontent-length: 0\r\n") {
        return None;
    }
    let detail = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => format!(
            "the line and the headers of a request have at most {MAX_HEAD_BYTES} bytes and 100 headers here"
        ),
        StatusCode::URI_TOO_LONG => "the target of the request is too long".to_owned(),
        _ => "this is no request of HTTP/1.1".to_owned(),
    };
    let reply = Problem::new(status, detail).into_reply();
    let reason = status.canonical_reason().unwrap_or("Error");
    let (status, length) = (status.as_u16(), reply.body().len());
    let mut document =
        format!("HTTP/1.1 {status} {reason}\r\nconnection: close\r\ncontent-length: {length}\r\n")
            .into_bytes();
    for (name, value) in reply.headers() {
        document.extend_from_slice(name.as_str().as_bytes());
        document.extend_from_slice(b": ");
        document.extend_from_slice(value.as_bytes());
        document.extend_from_slice(b"\r\n");
    }
    document.extend_from_slice(b"\r\n");
    document.extend_from_slice(reply.body());
    Some(document.into())
}

impl Read for Noted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        if let Wait::Idle(_) = self.wait.get() {
            self.wait.set(Wait::Head(self.now.get()));
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Noted {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send_document(context))?;
        ready!(Pin::new(&mut self.io).poll_flush(context))?;
        self.is_flushed = true;
        self.debt.ends();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send_document(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [first] = bytes
            && self.takes(first)
        {
            return Poll::Ready(Ok(first.len()));
        }
        self.is_flushed = false;
        self.debt.is_to_take(bytes);
        let written = Pin::new(&mut self.io).poll_write_vectored(context, bytes);
        if written.is_ready() {
            self.debt.pauses();
        } else {
            self.debt.begins();
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_head_is_waited_for_less_than_a_request() {
        let patience = Patience { idle: 60, head: 10 };
        for (wait, now, expected) in [
            (Wait::Idle(5), 65, false),
            (Wait::Idle(5), 66, true),
            (Wait::Head(5), 15, false),
            (Wait::Head(5), 16, true),
            (Wait::Answering, u32::MAX, false),
        ] {
            assert_eq!(wait.is_too_long(now, patience), expected, "{wait:?} {now}");
        }
    }

    #[test]
    fn only_a_refusal_without_a_body_is_given_one() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let document = document_for(bare.as_bytes()).expect("a document");
        let document = String::from_utf8_lossy(&document).into_owned();
        assert!(document.starts_with("HTTP/1.1 431 "), "{document}");
        assert!(
            document.contains("content-type: application/problem+json"),
            "{document}"
        );
        let (_, body) = document.split_once("\r\n\r\n").expect("a body");
        assert!(document.contains(&format!("content-length: {}\r\n", body.len())));
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\n",
            "HTTP/1.1 4",
            "",
        ] {
            assert_eq!(document_for(other.as_bytes()), None, "{other}");
        }
    }
}
