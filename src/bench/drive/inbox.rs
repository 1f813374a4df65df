//! Takes bytes from a connection, and knows when they had come.
//!
//! Enters: a socket. Leaves: the bytes that nobody has read yet, and for how long the last of them lay here. Must
//! not know what the bytes mean.
//!
//! An answer that is here and not yet taken waits for the generator, not for the target. Only the kernel can tell
//! the two apart: it stamps each segment as it comes in (`SO_TIMESTAMPNS`, Documentation/networking/timestamping).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _};

use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// One answer of 15 sessions, with room to spare.
const FIRST_BYTES: usize = 16 * 1024;

/// What came in over one connection.
pub(super) struct Inbox {
    /// Initialised throughout; the first `filled` bytes are those that came in.
    bytes: Vec<u8>,
    filled: usize,
    /// Room for the kernel's stamp.
    control: Vec<u8>,
    /// When the last bytes came, on the wall clock; `None`: the kernel did not say, or was not asked.
    stamp: Option<i128>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; FIRST_BYTES],
            filled: 0,
            control: nix::cmsg_space!(TimeSpec),
            stamp: None,
        }
    }

    /// Has the kernel stamp what comes in from now on. Where it does not, [`Inbox::lay_ns`] will not tell.
    pub(super) fn ask_for_stamps(stream: &impl AsFd) {
        let _ = setsockopt(stream, ReceiveTimestampns, &true);
    }

    /// The bytes that nobody has read yet.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// The first `length` of them have been read.
    pub(super) fn consume(&mut self, length: usize) {
        self.bytes.copy_within(length..self.filled, 0);
        self.filled -= length;
    }

    /// Makes it ready for another connection.
    pub(super) fn clear(&mut self) {
        (self.filled, self.stamp) = (0, None);
    }

    /// For how long the bytes that came last have lain here unread; `None`: it is not known.
    pub(super) fn lay_ns(&self) -> Option<u64> {
        let now = clock_gettime(ClockId::Realtime);
        let lay = nanoseconds(now.tv_sec, now.tv_nsec) - self.stamp?;
        // The wall clock may have been set meanwhile.
        Some(u64::try_from(lay).unwrap_or(0))
    }

    /// Waits for more bytes and takes them: how many, 0 at the end of the stream. `is_stamped` tells once they are here
    /// whether it matters when they came.
    pub(super) async fn receive(
        &mut self,
        stream: &TcpStream,
        is_stamped: impl Fn() -> bool,
    ) -> io::Result<usize> {
        if self.filled == self.bytes.len() {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
        loop {
            stream.readable().await?;
            let mut received = None;
            let tried = stream.try_io(Interest::READABLE, || {
                let length = if is_stamped() {
                    self.take_stamped(stream)?
                } else {
                    self.take(stream)?
                };
                received = Some(length);
                // Less than there was room for: the socket is empty. Saying so here spares the read in vain that
                // would find it out; what comes next wakes all the same.
                if length > 0 && self.filled < self.bytes.len() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            match (received, tried) {
                (Some(length), _) => return Ok(length),
                (None, Err(error)) if !is_passing(&error) => return Err(error),
                (None, _) => {}
            }
        }
    }

    fn take(&mut self, stream: &TcpStream) -> io::Result<usize> {
        let room = &mut self.bytes[self.filled..];
        let length = recv(stream.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT)?;
        self.stamp = None;
        self.filled += length;
        Ok(length)
    }

    fn take_stamped(&mut self, stream: &TcpStream) -> io::Result<usize> {
        let mut room = [IoSliceMut::new(&mut self.bytes[self.filled..])];
        let (fd, flags) = (stream.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let message = recvmsg::<()>(fd, &mut room, Some(&mut self.control), flags)?;
        self.stamp = message.cmsgs().ok().and_then(stamp);
        let length = message.bytes;
        self.filled += length;
        Ok(length)
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn stamp(messages: impl IntoIterator<Item = ControlMessageOwned>) -> Option<i128> {
    messages.into_iter().find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(at) => Some(nanoseconds(at.tv_sec(), at.tv_nsec())),
        _ => None,
    })
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    /// Both ends of a connection.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (ours, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let ours = ours.expect("a connection");
        Inbox::ask_for_stamps(&ours);
        (ours, accepted.expect("a connection").0)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn bytes_are_taken_in_order_until_the_end_of_the_stream() {
        let (ours, mut theirs) = connected().await;
        let mut inbox = Inbox::new();
        theirs.write_all(b"hello").await.expect("written");
        assert_eq!(inbox.receive(&ours, || true).await.expect("bytes"), 5);
        inbox.consume(2);
        let long = vec![b'x'; FIRST_BYTES * 3];
        let sends = tokio::spawn(async move { theirs.write_all(&long).await });
        while inbox.receive(&ours, || true).await.expect("bytes") > 0 {}
        sends.await.expect("no panic").expect("written");
        assert!(inbox.bytes().starts_with(b"llox"));
        assert_eq!(inbox.bytes().len(), 3 + FIRST_BYTES * 3);
        inbox.clear();
        assert!(inbox.bytes().is_empty());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_time_that_bytes_lay_here_is_told() {
        let (ours, mut theirs) = connected().await;
        let mut inbox = Inbox::new();
        // The kernel begins to stamp a little after it was asked to.
        let started = Instant::now();
        while inbox.lay_ns().is_none() {
            assert!(started.elapsed() < Duration::from_mins(1), "no stamps");
            theirs.write_all(b"x").await.expect("written");
            inbox.receive(&ours, || true).await.expect("bytes");
        }
        let sent = Instant::now();
        theirs.write_all(b"hello").await.expect("written");
        // Blocks the whole thread, as a stopped process would be.
        let away = Duration::from_millis(30);
        std::thread::sleep(away);
        inbox.receive(&ours, || true).await.expect("bytes");
        let lay = Duration::from_nanos(inbox.lay_ns().expect("the kernel stamps"));
        assert!(away <= lay && lay <= sent.elapsed(), "{lay:?}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn without_a_stamp_nothing_is_told() {
        let (ours, mut theirs) = connected().await;
        let mut inbox = Inbox::new();
        for _ in 0..100 {
            theirs.write_all(b"hello").await.expect("written");
            inbox.receive(&ours, || false).await.expect("bytes");
            assert_eq!(inbox.lay_ns(), None, "nobody asked");
        }
        let (mut ours, theirs) = connected().await;
        let mut inbox = Inbox::new();
        ours.write_all(b"hello").await.expect("written");
        inbox.receive(&theirs, || true).await.expect("bytes");
        assert_eq!(inbox.lay_ns(), None);
    }
}
