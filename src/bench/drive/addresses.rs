//! All addresses of a target's name, and connections to them.
//!
//! Enters: a name and port, and how to speak TLS there. Leaves: connections, dealt over the addresses that answer. Must not hold on to an address
//! that is gone: the others are tried, and the name is resolved again.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::net::{TcpStream, UnixStream};

use super::inbox::Inbox;
use super::line::Line;
use super::pacer::{pause, timeout};
use super::socket::Socket;
use super::tls::{Tls, in_short};
use crate::config::TargetUrl;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A socket file whose server has a full queue says so at once, where a port would wait.
const QUEUE_FULL_FOR: Duration = Duration::from_millis(2);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
/// However many connections fail, the name is asked for no more often.
const RESOLVE_EVERY: Duration = Duration::from_secs(1);

/// Where a target is; for all threads together, so that each knows what another found out.
pub(in crate::bench) struct Addresses {
    url: TargetUrl,
    tls: Option<Tls>,
    known: Mutex<Known>,
}

/// What is known about the addresses. Pure.
#[derive(Debug)]
struct Known {
    all: Vec<SocketAddr>,
    /// Those that did not answer the last time.
    failed: Vec<SocketAddr>,
    resolved: Instant,
}

impl Known {
    fn new(all: Vec<SocketAddr>, now: Instant) -> Self {
        Self {
            all,
            failed: Vec::new(),
            resolved: now,
        }
    }

    /// In which order to try them, for the connection whose turn it is: in turns, and last what failed before.
    fn order(&self, turn: usize) -> Vec<SocketAddr> {
        let is_failed = |address: &SocketAddr| self.failed.contains(address);
        let (mut failed, mut order): (Vec<_>, Vec<_>) =
            self.all.iter().copied().partition(is_failed);
        for addresses in [&mut order, &mut failed] {
            let first = turn % addresses.len().max(1);
            addresses.rotate_left(first);
        }
        order.append(&mut failed);
        order
    }

    fn tried(&mut self, address: SocketAddr, answers: bool) {
        self.failed.retain(|&failed| failed != address);
        if !answers {
            self.failed.push(address);
        }
    }

    /// Whether to resolve the name again; whoever is told so does it.
    fn is_stale(&mut self, now: Instant) -> bool {
        let is_stale = now.saturating_duration_since(self.resolved) >= RESOLVE_EVERY;
        if is_stale {
            self.resolved = now;
        }
        is_stale
    }

    /// The name stands for these by now. No answer tells nothing about those before.
    fn resolve(&mut self, all: Vec<SocketAddr>) {
        if !all.is_empty() {
            self.failed.retain(|failed| all.contains(failed));
            self.all = all;
        }
    }
}

impl Addresses {
    /// Of a name.
    ///
    /// # Errors
    /// When it stands for no address.
    pub(in crate::bench) async fn resolve(
        url: &TargetUrl,
        tls: Option<&Tls>,
    ) -> io::Result<Arc<Self>> {
        let found = lookup(url).await?;
        if found.is_empty() && url.unix.is_none() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        Ok(Arc::new(Self::new(url.clone(), tls.cloned(), found)))
    }

    /// One that needs no name.
    pub(in crate::bench) fn only(address: SocketAddr) -> Arc<Self> {
        let url = TargetUrl {
            host: address.ip().to_string(),
            port: address.port(),
            tls: false,
            unix: None,
        };
        Arc::new(Self::new(url, None, vec![address]))
    }

    fn new(url: TargetUrl, tls: Option<Tls>, all: Vec<SocketAddr>) -> Self {
        let known = Mutex::new(Known::new(all, Instant::now()));
        Self { url, tls, known }
    }

    /// A connection to the first address that answers, in the order of this `turn`.
    ///
    /// # Errors
    /// When none does: what the last one said.
    pub(super) async fn connect(&self, turn: usize) -> io::Result<Line> {
        if let Some(file) = &self.url.unix {
            return timeout(CONNECT_TIMEOUT, connect_file(file)).await.flatten();
        }
        let mut found = Err(io::ErrorKind::AddrNotAvailable.into());
        let mut has_failed = false;
        let order = self.known().order(turn);
        for address in order {
            let connects = connect(address, self.tls.as_ref());
            found = timeout(CONNECT_TIMEOUT, connects).await.flatten();
            self.known().tried(address, found.is_ok());
            if found.is_ok() {
                break;
            }
            has_failed = true;
        }
        if has_failed && self.known().is_stale(Instant::now()) {
            // The next connection profits by it.
            let resolved = lookup(&self.url).await.unwrap_or_default();
            self.known().resolve(resolved);
        }
        found
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// A socket file has no addresses.
async fn lookup(url: &TargetUrl) -> io::Result<Vec<SocketAddr>> {
    if url.unix.is_some() {
        return Ok(Vec::new());
    }
    let found = tokio::net::lookup_host((url.host.as_str(), url.port));
    Ok(timeout(RESOLVE_TIMEOUT, found).await??.collect())
}

async fn connect(address: SocketAddr, tls: Option<&Tls>) -> io::Result<Line> {
    let stream = TcpStream::connect(address).await?;
    // On loopback, a connection to a port that nobody listens on can meet itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Inbox::ask_for_stamps(&stream);
    let stream = Socket::Tcp(stream);
    match tls {
        // In a box, as the other ones, of which there are thousands, are to be small.
        Some(tls) => Box::pin(Line::sealed(stream, tls)).await,
        None => Ok(Line::plain(stream)),
    }
}

async fn connect_file(file: &Path) -> io::Result<Line> {
    loop {
        match UnixStream::connect(file).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => pause(QUEUE_FULL_FOR).await,
            stream => return stream.map(|stream| Line::plain(Socket::Unix(stream))),
        }
    }
}

/// This host had no port or no file left for another connection.
pub(super) fn is_own(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        code,
        Some(Errno::ADDRNOTAVAIL | Errno::MFILE | Errno::NFILE | Errno::NOBUFS)
    )
}

/// In a few words, of which there are not many, why there is no connection.
pub(super) fn reason(error: &io::Error) -> String {
    in_short(error).unwrap_or_else(|| error.kind().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn addresses(last_bytes: &[u8]) -> Vec<SocketAddr> {
        let address = |&byte: &u8| SocketAddr::from(([127, 0, 0, byte], 80));
        last_bytes.iter().map(address).collect()
    }

    #[test]
    fn connections_are_dealt_over_what_answers_and_the_rest_is_tried_last() {
        let now = Instant::now();
        let mut known = Known::new(addresses(&[1, 2, 3]), now);
        assert_eq!(known.order(0), addresses(&[1, 2, 3]));
        assert_eq!(known.order(4), addresses(&[2, 3, 1]));
        known.tried(addresses(&[2])[0], false);
        assert_eq!(known.order(0), addresses(&[1, 3, 2]));
        assert_eq!(known.order(1), addresses(&[3, 1, 2]));
        known.tried(addresses(&[2])[0], true);
        assert_eq!(known.order(1), addresses(&[2, 3, 1]));
        assert!(Known::new(Vec::new(), now).order(7).is_empty());
    }

    #[test]
    fn a_name_is_resolved_again_at_a_bounded_rate_and_what_it_says_counts() {
        let now = Instant::now();
        let mut known = Known::new(addresses(&[1, 2]), now);
        assert!(!known.is_stale(now));
        assert!(known.is_stale(now + RESOLVE_EVERY));
        assert!(!known.is_stale(now + RESOLVE_EVERY), "one at a time");
        known.tried(addresses(&[2])[0], false);
        known.resolve(addresses(&[2, 3]));
        assert_eq!(known.order(0), addresses(&[3, 2]));
        known.resolve(Vec::new());
        assert_eq!(known.order(0), addresses(&[3, 2]));
    }

    fn peer(line: &Line) -> SocketAddr {
        let peer = socket2::SockRef::from(&line.socket).peer_addr();
        peer.ok()
            .and_then(|peer| peer.as_socket())
            .expect("a peer over TCP")
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_socket_file_needs_no_address_and_waits_for_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("s.sock");
        let url = TargetUrl {
            host: "localhost".into(),
            port: 80,
            tls: false,
            unix: Some(file.clone()),
        };
        let target = Addresses::resolve(&url, None).await.expect("a file");
        assert!(target.connect(0).await.is_err());
        let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let listener = listener.expect("a socket");
        let address = socket2::SockAddr::unix(&file).expect("a short name");
        listener.bind(&address).expect("bound");
        listener.listen(0).expect("listens");
        // Nobody accepts: there is room for one.
        let first = target.connect(0).await.expect("connected");
        let accepts = async {
            pause(QUEUE_FULL_FOR * 10).await;
            listener.accept().expect("accepted")
        };
        let (second, _) = tokio::join!(target.connect(1), accepts);
        second.expect("connected");
        drop(first);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn when_one_address_dies_connections_go_on_with_the_other() {
        let listen = || TcpListener::bind("127.0.0.1:0");
        let (first, second) = tokio::join!(listen(), listen());
        let (first, second) = (first.expect("a port"), second.expect("a port"));
        let both = [&first, &second].map(|one| one.local_addr().expect("an address"));
        let url = TargetUrl {
            host: "127.0.0.1".into(),
            port: both[0].port(),
            tls: false,
            unix: None,
        };
        let target = Addresses::new(url, None, both.to_vec());
        for turn in 0..4 {
            let line = target.connect(turn).await.expect("connected");
            assert_eq!(peer(&line), both[turn % 2]);
        }
        drop(first);
        for turn in 0..4 {
            let line = target.connect(turn).await.expect("connected");
            assert_eq!(peer(&line), both[1]);
        }
        drop(second);
        assert!(target.connect(0).await.is_err());
    }
}
