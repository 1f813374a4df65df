//! One connection to a target: its socket, and what is sealed over it where it speaks TLS.
//!
//! Enters: a socket that is connected. Leaves: requests on it. Must not know what they mean, nor read answers: the
//! [`Inbox`](super::inbox::Inbox) does, which knows when they came.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Instant;

use bytes::BytesMut;

use super::socket::Socket;
use super::tls::{Session, Tls};
use crate::bench::judge::handshakes::Handshakes;

/// What comes in during a handshake, or before a run.
const CHUNK_BYTES: usize = 16 * 1024;

/// A connection that stands.
pub(super) struct Line {
    pub(super) socket: Socket,
    /// Elsewhere, as most have none and all are to be small.
    pub(super) session: Option<Box<RefCell<Session>>>,
    /// The handshake that was needed for it, if one was.
    pub(super) handshakes: Handshakes,
}

impl Line {
    /// One that sends as it is told.
    pub(super) fn plain(socket: Socket) -> Self {
        Self {
            socket,
            session: None,
            handshakes: Handshakes::default(),
        }
    }

    /// One with TLS, once both sides agree.
    ///
    /// # Errors
    /// When they do not, with the mend, or the connection ends.
    pub(super) async fn sealed(socket: Socket, tls: &Tls) -> io::Result<Self> {
        let begun = Instant::now();
        let mut session = tls.session()?;
        let shaken = shake_hands(&socket, &mut session).await;
        // The other side is told why, if it is not to be.
        if shaken.is_err() {
            let _ = session.flush(&socket);
        }
        shaken?;
        let took_us = begun.elapsed().as_micros() as u64;
        Ok(Self {
            socket,
            handshakes: Handshakes::one(took_us, session.is_resumed()),
            session: Some(Box::new(RefCell::new(session))),
        })
    }

    /// Sends as much of `rest` as there is room for. Whether all of it is sent; what is not may be sealed and waiting, so
    /// that `rest` is empty all the same.
    pub(super) fn push(&self, rest: &mut &[u8]) -> io::Result<bool> {
        if let Some(session) = &self.session {
            let mut session = session.borrow_mut();
            session.seal(std::mem::take(rest))?;
            return session.flush(&self.socket);
        }
        match self.socket.try_write(rest) {
            Ok(sent) => *rest = &rest[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(rest.is_empty())
    }

    /// Sends all of it, waiting for room.
    pub(super) async fn push_all(&self, mut rest: &[u8]) -> io::Result<()> {
        while !self.push(&mut rest)? {
            self.socket.writable().await?;
        }
        Ok(())
    }

    /// Waits for more, before a run. How much was added to `bytes`: 0 at the end; `None` when what came is TLS's own.
    pub(super) async fn pull(&self, bytes: &mut BytesMut) -> io::Result<Option<usize>> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let Some(session) = &self.session else {
            let length = read(&self.socket, &mut chunk).await?;
            bytes.extend_from_slice(&chunk[..length]);
            return Ok(Some(length));
        };
        if let Some(ended) = session.borrow_mut().ended() {
            return ended.map(|()| Some(0));
        }
        let length = read(&self.socket, &mut chunk).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut plain = Vec::new();
        let mut session = session.borrow_mut();
        session.open(&chunk[..length], &mut plain);
        session.flush(&self.socket)?;
        bytes.extend_from_slice(&plain);
        Ok((!plain.is_empty()).then_some(plain.len()))
    }

    /// A part of something came that can only be read as a whole.
    pub(super) fn is_cut_off(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.borrow().is_within_record())
    }

    /// What the other side has against the connection, if it said so.
    pub(super) fn refusal(&self) -> io::Result<()> {
        let session = self.session.as_ref();
        let ended = session.and_then(|session| session.borrow_mut().ended());
        ended.unwrap_or(Ok(()))
    }

    /// Ends both directions, so that the reader of the connection wakes and finds out.
    pub(super) fn shut_down(&self) {
        self.socket.shut_down(Shutdown::Both);
    }
}

async fn shake_hands(socket: &Socket, session: &mut Session) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        while !session.flush(socket)? {
            socket.writable().await?;
        }
        if let Some(ended) = session.ended() {
            ended?;
        }
        if !session.is_handshaking() {
            return Ok(());
        }
        let length = read(socket, &mut chunk).await?;
        if length == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "closed during the TLS handshake; if the target speaks no TLS there, write http:// in --target",
            ));
        }
        // No target speaks first.
        session.open(&chunk[..length], &mut Vec::new());
    }
}

/// Waits for bytes; how many came, 0 at the end.
async fn read(socket: &Socket, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        match socket.try_read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

/// The sending end of a connection: when it is gone, the other side learns that no more will come.
pub(super) struct Sender(Rc<Line>);

impl Sender {
    pub(super) fn new(line: Rc<Line>) -> Self {
        Self(line)
    }
}

impl Deref for Sender {
    type Target = Line;

    fn deref(&self) -> &Line {
        &self.0
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(session) = &self.0.session {
            session.borrow_mut().say_the_end(&self.0.socket);
        }
        self.0.socket.shut_down(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests;
