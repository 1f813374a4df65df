//! TLS with a target: who it must be, and what is sealed and opened over each connection.
//!
//! Enters: what is to be sent, and what came in. Leaves: what goes over the socket, and what a target said; or why there
//! is no speaking with it. Must not wait, nor read from a socket: whoever reads knows when it came.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::sync::Arc;

use anyhow::Context as _;
use tokio_rustls::rustls::client::ClientConnection;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, HandshakeKind,
};

use super::socket::Socket;
use crate::config::{TargetTls, TargetUrl};
use crate::tls;

/// As messages name them.
const SETTINGS: tls::Settings = tls::Settings {
    ca: "--ca",
    certificate: "--cert",
    key: "--key",
    whose: "the target",
};

/// The only protocol that bench speaks.
const PROTOCOL: &[u8] = b"http/1.1";

/// Who the target must be, and what it is shown. For all threads together: each goes on with sessions of the others.
#[derive(Debug, Clone)]
pub(in crate::bench) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one of them, or the target's name, cannot be used.
    pub(in crate::bench) fn new(settings: &TargetTls, url: &TargetUrl) -> anyhow::Result<Self> {
        let mut config = if settings.insecure {
            tls::unchecked(&settings.files, &SETTINGS)?
        } else {
            tls::checked(&settings.files, &SETTINGS)?
        };
        config.alpn_protocols = vec![PROTOCOL.into()];
        let name = ServerName::try_from(url.host.clone());
        let name = name.with_context(|| {
            let host = &url.host;
            format!("{host} in --target is no name that a certificate can be for; give another one")
        })?;
        let config = Arc::new(config);
        Ok(Self { config, name })
    }

    /// Of a connection that is about to begin.
    pub(super) fn session(&self) -> io::Result<Session> {
        let connection = ClientConnection::new(self.config.clone(), self.name.clone());
        let mut connection = connection.map_err(refused)?;
        // A request is sealed as a whole, and what has no room in the socket waits here.
        connection.set_buffer_limit(None);
        Ok(Session {
            connection,
            records: Records::default(),
            end: None,
        })
    }
}

/// How the other side ended what it sends.
#[derive(Debug)]
enum End {
    /// It said so: nothing was cut off.
    Said,
    /// It cannot be understood any more, or refuses to go on.
    Broken(io::Error),
}

/// What is sealed and opened over one connection.
pub(super) struct Session {
    connection: ClientConnection,
    records: Records,
    end: Option<End>,
}

impl Session {
    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// It went on with an earlier session.
    pub(super) fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Takes what is to be sent.
    pub(super) fn seal(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.connection.writer().write_all(bytes)
    }

    /// Sends what there is room for. Whether all of it is sent.
    pub(super) fn flush(&mut self, socket: &Socket) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Tries(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Says that nothing more will be sent, if there is room for that.
    pub(super) fn say_the_end(&mut self, socket: &Socket) {
        self.connection.send_close_notify();
        let _ = self.flush(socket);
    }

    /// A record has come in part.
    pub(super) fn is_within_record(&self) -> bool {
        self.records.is_within()
    }

    /// Opens what came in, and adds it to `plain`. What a broken piece follows is opened all the same.
    pub(super) fn open(&mut self, mut sealed: &[u8], plain: &mut Vec<u8>) {
        self.records.pass(sealed);
        while !sealed.is_empty() && self.end.is_none() {
            let taken = self.connection.read_tls(&mut sealed);
            let state = taken.and_then(|_| self.connection.process_new_packets().map_err(refused));
            match state {
                Ok(state) if state.peer_has_closed() => self.end = Some(End::Said),
                Ok(_) => {}
                Err(error) => self.end = Some(End::Broken(error)),
            }
            // Fails when there is nothing more at present.
            let _ = self.connection.reader().read_to_end(plain);
        }
    }

    /// All that came before it is opened: `Ok` when the other side said that this is all, and what is wrong otherwise;
    /// `None` as long as more may come.
    pub(super) fn ended(&mut self) -> Option<io::Result<()>> {
        match self.end.as_mut()? {
            End::Said => Some(Ok(())),
            End::Broken(error) => {
                let gone = io::ErrorKind::ConnectionAborted.into();
                Some(Err(std::mem::replace(error, gone)))
            }
        }
    }
}

/// Where one record ends and the next one begins (RFC 8446, 5.1), which rustls does not tell. Pure.
#[derive(Debug, Default)]
struct Records {
    /// Bytes of the head of the next one that came so far.
    head: usize,
    /// What this head says of the length, as far as it came.
    length: usize,
    /// Bytes of a record that are still to come.
    left: usize,
}

impl Records {
    const HEAD_BYTES: usize = 5;

    fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let length = self.left.min(bytes.len());
                self.left -= length;
                bytes = &bytes[length..];
                continue;
            }
            self.head += 1;
            // Its last two bytes.
            if self.head > Self::HEAD_BYTES - 2 {
                self.length = self.length << 8 | usize::from(first);
            }
            if self.head == Self::HEAD_BYTES {
                (self.head, self.left) = (0, std::mem::take(&mut self.length));
            }
            bytes = rest;
        }
    }

    fn is_within(&self) -> bool {
        self.head > 0 || self.left > 0
    }
}

/// Writes what there is room for.
struct Tries<'a>(&'a Socket);

impl io::Write for Tries<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why there is no speaking with a target.
#[derive(Debug, thiserror::Error)]
#[error("no TLS with it: {error}; {}", mend(.error))]
struct Refused {
    error: Error,
}

fn refused(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Refused { error })
}

fn mend(error: &Error) -> &'static str {
    use AlertDescription as Alert;
    use CertificateError as Certificate;
    match error {
        Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => {
            "name the target in --target as its certificate does, or give --insecure to check nothing"
        }
        Error::InvalidCertificate(
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. },
        ) => "renew it, or give --insecure to check nothing",
        Error::InvalidCertificate(_) => {
            "give --ca FILE with the certificate of who issued the target's, or --insecure to check nothing"
        }
        Error::NoApplicationProtocol | Error::AlertReceived(Alert::NoApplicationProtocol) => {
            "bench speaks HTTP/1.1: have the target speak it too"
        }
        Error::AlertReceived(Alert::UnrecognisedName) => {
            "the target is not known by that name: give --target another one"
        }
        Error::PeerIncompatible(_) | Error::AlertReceived(Alert::ProtocolVersion) => {
            "bench speaks TLS 1.2 and 1.3: have the target speak one of them"
        }
        // With older versions of TLS, a server that misses a certificate says no more than that it failed.
        Error::AlertReceived(_) => {
            "if the target asks for certificates of its clients, give --cert and --key of one that it trusts"
        }
        Error::InvalidMessage(_) => "if the target speaks no TLS there, write http:// in --target",
        _ => "see --ca, --cert and --insecure",
    }
}

/// In a few words, of which there are not many, why there is no speaking with a target, if TLS is the reason.
pub(super) fn in_short(error: &io::Error) -> Option<String> {
    let refused: &Refused = error.get_ref()?.downcast_ref()?;
    Some(match &refused.error {
        Error::InvalidCertificate(_) => "certificate refused".into(),
        Error::AlertReceived(alert) => format!("TLS alert {alert:?}"),
        _ => "TLS failed".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_apart_however_they_come() {
        let record = |length: u16| {
            let [high, low] = length.to_be_bytes();
            let head = vec![23, 3, 3, high, low];
            [head, vec![255; length.into()]].concat()
        };
        let all = [record(3), record(0), record(700), record(1)].concat();
        let ends = [8, 13, 718, all.len()];
        for step in [1, 2, 3, 7, 100, all.len()] {
            let (mut records, mut passed) = (Records::default(), 0);
            for bytes in all.chunks(step) {
                records.pass(bytes);
                passed += bytes.len();
                assert_eq!(
                    records.is_within(),
                    !ends.contains(&passed),
                    "{step} {passed}"
                );
            }
        }
    }

    #[test]
    fn what_tls_refuses_names_the_mend_and_has_a_short_name() {
        for (error, mend, short) in [
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                "--ca FILE",
                "certificate refused",
            ),
            (
                Error::InvalidCertificate(CertificateError::NotValidForName),
                "name the target",
                "certificate refused",
            ),
            (
                Error::InvalidCertificate(CertificateError::Expired),
                "renew it",
                "certificate refused",
            ),
            (
                Error::AlertReceived(AlertDescription::CertificateRequired),
                "--cert and --key",
                "TLS alert CertificateRequired",
            ),
            (
                Error::InvalidMessage(tokio_rustls::rustls::InvalidMessage::InvalidContentType),
                "write http://",
                "TLS failed",
            ),
        ] {
            let error = refused(error);
            assert!(error.to_string().contains(mend), "{error}");
            assert_eq!(in_short(&error).as_deref(), Some(short));
        }
        assert_eq!(in_short(&io::ErrorKind::TimedOut.into()), None);
    }
}
