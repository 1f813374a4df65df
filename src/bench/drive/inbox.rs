//! Takes bytes from a connection, and knows when they had come.
//!
//! Enters: a socket. Leaves: the bytes that nobody has read yet, and for how long the last of them lay here. Must
//! not know what the bytes mean.
//!
//! All connections of a thread receive into one buffer, which so stays in the caches, and each keeps only what is no whole
//! answer yet.
//!
//! An answer that is here and not yet taken waits for the generator, not for the target. Only the kernel can tell
//! the two apart: it stamps each segment as it comes in (`SO_TIMESTAMPNS`, Documentation/networking/timestamping).

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _};

use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;
use rustix::time::{ClockId, clock_gettime};

use super::line::Line;
use super::socket::Socket;
use super::tls::Session;

/// Several answers of 15 sessions, of which one connection brings one.
const BUFFER_BYTES: usize = 64 * 1024;

/// Where a thread receives.
pub(super) struct Buffer(RefCell<Room>);

struct Room {
    bytes: Vec<u8>,
    /// For the kernel's stamp.
    control: Vec<u8>,
    /// What was sealed in them.
    opened: Vec<u8>,
}

impl Buffer {
    pub(super) fn new() -> Self {
        Self(RefCell::new(Room {
            bytes: vec![0; BUFFER_BYTES],
            control: nix::cmsg_space!(TimeSpec),
            opened: Vec::new(),
        }))
    }
}

/// What came in over one connection.
pub(super) struct Inbox {
    /// What nobody has read yet, if that is more than what came last.
    kept: Vec<u8>,
    /// So many bytes came last, and are at the start of the buffer until another connection receives.
    fresh: usize,
    /// When the last bytes came, on the wall clock; `None`: the kernel did not say.
    stamp: Option<i128>,
    /// The connection is one with TLS: what counts is what was opened.
    is_sealed: bool,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            kept: Vec::new(),
            fresh: 0,
            stamp: None,
            is_sealed: false,
        }
    }

    /// Has the kernel stamp what comes in from now on. Where it does not, nobody is told.
    pub(super) fn ask_for_stamps(stream: &impl AsFd) {
        let _ = setsockopt(stream, ReceiveTimestampns, &true);
    }

    /// Shows the bytes that nobody has read yet to `read`, which says how many of them it has read, and can tell for how
    /// long the last of them lay here: `None`: it is not known. To be called before anybody else receives.
    pub(super) fn read<T>(
        &mut self,
        buffer: &Buffer,
        read: impl FnOnce(&[u8], &dyn Fn() -> Option<u64>) -> (usize, T),
    ) -> T {
        let (buffer, stamp) = (buffer.0.borrow(), self.stamp);
        let bytes = if self.is_sealed {
            &buffer.opened
        } else {
            &buffer.bytes
        };
        let fresh = &bytes[..std::mem::take(&mut self.fresh)];
        let lay_ns = || stamp.map(lay_ns);
        if self.kept.is_empty() {
            let (length, found) = read(fresh, &lay_ns);
            self.kept.extend_from_slice(&fresh[length..]);
            return found;
        }
        self.kept.extend_from_slice(fresh);
        let (length, found) = read(&self.kept, &lay_ns);
        self.kept.drain(..length);
        found
    }

    /// Makes it ready for another connection.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
        (self.fresh, self.stamp) = (0, None);
        self.is_sealed = false;
    }

    /// Waits for more bytes of what the other side says, and takes them: how many, 0 at the end. With TLS, an end that the
    /// other side did not tell of is an error: what came may be cut off.
    pub(super) async fn receive_from(&mut self, line: &Line, buffer: &Buffer) -> io::Result<usize> {
        let Some(session) = &line.session else {
            return self.receive(&line.socket, buffer).await;
        };
        loop {
            if let Some(ended) = session.borrow_mut().ended() {
                return ended.map(|()| 0);
            }
            if self.receive(&line.socket, buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut session = session.borrow_mut();
            self.open(&mut session, buffer);
            // New keys are answered, and what is broken is told.
            let _ = session.flush(&line.socket);
            if self.fresh > 0 {
                return Ok(self.fresh);
            }
        }
    }

    fn open(&mut self, session: &mut Session, buffer: &Buffer) {
        let Room { bytes, opened, .. } = &mut *buffer.0.borrow_mut();
        opened.clear();
        session.open(&bytes[..self.fresh], opened);
        (self.fresh, self.is_sealed) = (opened.len(), true);
    }

    /// Waits for more bytes and takes them: how many, 0 at the end of the stream.
    pub(super) async fn receive(&mut self, stream: &Socket, buffer: &Buffer) -> io::Result<usize> {
        loop {
            // Not `readable`, which several tasks may wait in: keeping a list of them costs more.
            poll_fn(|context| stream.poll_read_ready(context)).await?;
            let mut received = None;
            let tried = stream.try_reading(|| {
                let length = self.take(stream, &mut buffer.0.borrow_mut())?;
                received = Some(length);
                // Less than there was room for: the socket is empty. Saying so here spares the read in vain that
                // would find it out; what comes next wakes all the same.
                if (1..BUFFER_BYTES).contains(&length) {
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

    fn take(&mut self, stream: &Socket, room: &mut Room) -> io::Result<usize> {
        let mut bytes = [IoSliceMut::new(&mut room.bytes)];
        let (fd, flags) = (stream.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let message = recvmsg::<()>(fd, &mut bytes, Some(&mut room.control), flags)?;
        self.stamp = message.cmsgs().ok().and_then(stamp);
        self.fresh = message.bytes;
        Ok(self.fresh)
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

/// How long it is since a moment of the wall clock.
fn lay_ns(stamp: i128) -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let lay = nanoseconds(now.tv_sec, now.tv_nsec) - stamp;
    // The wall clock may have been set meanwhile.
    u64::try_from(lay).unwrap_or(0)
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    /// Both ends of a connection.
    async fn connected() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (ours, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let ours = ours.expect("a connection");
        Inbox::ask_for_stamps(&ours);
        (Socket::Tcp(ours), accepted.expect("a connection").0)
    }

    /// All that is not read, of which the first `length` bytes are.
    fn read(inbox: &mut Inbox, buffer: &Buffer, length: usize) -> Vec<u8> {
        inbox.read(buffer, |bytes, _| (length, bytes.to_vec()))
    }

    fn lay(inbox: &mut Inbox, buffer: &Buffer) -> Option<u64> {
        inbox.read(buffer, |bytes, lay_ns| (bytes.len(), lay_ns()))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn bytes_are_taken_in_order_until_the_end_of_the_stream() {
        let (ours, mut theirs) = connected().await;
        let (other, mut from_other) = connected().await;
        let buffer = Buffer::new();
        let (mut inbox, mut its) = (Inbox::new(), Inbox::new());
        theirs.write_all(b"hello").await.expect("written");
        assert_eq!(inbox.receive(&ours, &buffer).await.expect("bytes"), 5);
        assert_eq!(read(&mut inbox, &buffer, 2), b"hello");
        // Another one receives in between.
        from_other.write_all(b"other").await.expect("written");
        its.receive(&other, &buffer).await.expect("bytes");
        assert_eq!(read(&mut its, &buffer, 5), b"other");
        let long = vec![b'x'; BUFFER_BYTES * 3];
        let sends = tokio::spawn(async move { theirs.write_all(&long).await });
        while inbox.receive(&ours, &buffer).await.expect("bytes") > 0 {
            read(&mut inbox, &buffer, 0);
        }
        sends.await.expect("no panic").expect("written");
        let all = read(&mut inbox, &buffer, 0);
        assert!(all.starts_with(b"llox"));
        assert_eq!(all.len(), 3 + BUFFER_BYTES * 3);
        inbox.clear();
        assert!(read(&mut inbox, &buffer, 0).is_empty());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_time_that_bytes_lay_here_is_told() {
        let (ours, mut theirs) = connected().await;
        let (mut inbox, buffer) = (Inbox::new(), Buffer::new());
        // The kernel begins to stamp a little after it was asked to.
        let started = Instant::now();
        while lay(&mut inbox, &buffer).is_none() {
            assert!(started.elapsed() < Duration::from_mins(1), "no stamps");
            theirs.write_all(b"x").await.expect("written");
            inbox.receive(&ours, &buffer).await.expect("bytes");
        }
        let sent = Instant::now();
        theirs.write_all(b"hello").await.expect("written");
        // Blocks the whole thread, as a stopped process would be.
        let away = Duration::from_millis(30);
        std::thread::sleep(away);
        inbox.receive(&ours, &buffer).await.expect("bytes");
        let lay_ns = lay(&mut inbox, &buffer).expect("the kernel stamps");
        let lay = Duration::from_nanos(lay_ns);
        assert!(away <= lay && lay <= sent.elapsed(), "{lay:?}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn without_a_stamp_nothing_is_told() {
        let (ours, theirs) = connected().await;
        let (mut inbox, buffer) = (Inbox::new(), Buffer::new());
        assert_eq!(ours.try_write(b"hello").expect("written"), 5);
        inbox
            .receive(&Socket::Tcp(theirs), &buffer)
            .await
            .expect("bytes");
        assert_eq!(lay(&mut inbox, &buffer), None);
    }
}
