//! A socket that is connected, over TCP or of a file.
//!
//! Enters: a stream of tokio's. Leaves: what both kinds can do. Must not know what the bytes mean, nor wait beyond what
//! it is asked to.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// Both ends may be on one machine, where a file needs less of the kernel than a port.
pub(super) enum Socket {
    Tcp(TcpStream),
    /// The kernel does not stamp what comes in over it.
    Unix(UnixStream),
}

/// The same of either kind.
macro_rules! of {
    ($socket:expr, $stream:ident => $what:expr) => {
        match $socket {
            Socket::Tcp($stream) => $what,
            Socket::Unix($stream) => $what,
        }
    };
}

impl Socket {
    pub(super) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        of!(self, stream => stream.poll_read_ready(context))
    }

    /// Reads by `read`, after it was found ready.
    pub(super) fn try_reading<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        of!(self, stream => stream.try_io(Interest::READABLE, read))
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        of!(self, stream => stream.readable().await)
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        of!(self, stream => stream.writable().await)
    }

    pub(super) fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        of!(self, stream => stream.try_read(bytes))
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        of!(self, stream => stream.try_write(bytes))
    }

    pub(super) fn try_write_vectored(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        of!(self, stream => stream.try_write_vectored(bytes))
    }

    /// Ends what is sent, or both directions.
    pub(super) fn shut_down(&self, how: Shutdown) {
        // Fails when the other side was faster, which is as good.
        let _ = socket2::SockRef::from(self).shutdown(how);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        of!(self, stream => stream.as_fd())
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        of!(self, stream => stream.as_raw_fd())
    }
}
