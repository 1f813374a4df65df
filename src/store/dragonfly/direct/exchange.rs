//! One connection at work: what is to be sent goes out, and answers go to whoever waits for them.
//!
//! Enters: commands that others appended, and the bytes of their answers. Leaves: each answer, to whoever comes next in
//! the order of the commands. Must not hold back what it could send, nor go on after anything that nobody asked for.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};

use super::super::resp::{Malformed, Reader};
use super::server::Connection;
use super::{Asked, Shared};

/// An answer of 15 keys of 256 bytes has 4 KiB, and several come at once.
const READ_BYTES: usize = 64 * 1024;
/// A read into less would only make another one necessary.
const MIN_READ_BYTES: usize = 16 * 1024;
/// What a buffer may keep of the largest answers and commands once they are gone.
const MAX_IDLE_BYTES: usize = 1024 * 1024;

/// One connection at work.
pub(super) struct Exchange {
    connection: Connection,
    shared: Arc<Shared>,
    /// What is being sent, and how much of it is.
    sending: Vec<u8>,
    sent: usize,
    /// What was written has left: TLS keeps some of it back while the socket takes no more.
    is_flushed: bool,
    reader: Reader,
}

impl Exchange {
    pub(super) fn new(connection: Connection, shared: Arc<Shared>) -> Self {
        Self {
            connection,
            shared,
            sending: Vec::new(),
            sent: 0,
            is_flushed: true,
            reader: Reader::default(),
        }
    }

    /// Sends and receives as far as it goes without waiting; ready when the connection is lost.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if let Poll::Ready(error) = self.receive(context) {
            return Poll::Ready(error);
        }
        match self.send(context) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Sends all that is to be sent; ready when nothing is left, or the connection is lost.
    fn send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.sent == self.sending.len() {
                self.sending.clear();
                self.sending.shrink_to(MAX_IDLE_BYTES);
                self.sent = 0;
                let mut state = self.shared.lock();
                if state.unsent.is_empty() {
                    state.task = Some(context.waker().clone());
                    drop(state);
                    return self.flush(context);
                }
                std::mem::swap(&mut self.sending, &mut state.unsent);
                self.is_flushed = false;
            }
            let rest = &self.sending[self.sent..];
            match ready!(Pin::new(&mut self.connection).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
    }

    fn flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_flushed {
            ready!(Pin::new(&mut self.connection).poll_flush(context))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Hands out all answers that are there; ready only when the connection is lost.
    fn receive(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let buffer = self.reader.buffer();
            if buffer.capacity() - buffer.len() < MIN_READ_BYTES {
                buffer.reserve(READ_BYTES.saturating_sub(buffer.len()).max(MIN_READ_BYTES));
            }
            match ready!(pin!(self.connection.read_buf(buffer)).poll(context)) {
                Ok(0) => return Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => return Poll::Ready(error),
            }
            if self.hand_out().is_err() {
                return Poll::Ready(io::ErrorKind::InvalidData.into());
            }
        }
    }

    fn hand_out(&mut self) -> Result<(), Malformed> {
        let mut state = self.shared.lock();
        while let Some(asked) = state.asked.front() {
            let Some(answer) = self.reader.next(asked.expected, &self.shared.room)? else {
                return Ok(());
            };
            if let Some(Asked { asker, .. }) = state.asked.pop_front() {
                // Whoever gave up waiting needs none; it speaks for the store all the same.
                let _ = asker.send(answer);
                state.answered += 1;
                self.shared.health.answered();
            }
        }
        if !self.reader.is_empty() {
            // Nobody asked for this.
            return Err(Malformed);
        }
        let buffer = self.reader.buffer();
        if buffer.capacity() > MAX_IDLE_BYTES {
            *buffer = BytesMut::new();
        }
        Ok(())
    }
}
