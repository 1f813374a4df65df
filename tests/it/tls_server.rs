//! A real server with TLS: what is behind it is a serve, or an answer that is said beforehand.
//!
//! Enters: certificates, and what to do with a connection. Leaves: a server on a free port of loopback. Must not speak
//! first, nor do anything by chance.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// What becomes of a connection.
#[derive(Debug, Clone)]
pub(crate) enum Behind {
    /// This server without TLS has it.
    Server(SocketAddr),
    /// Each request is answered by these bytes in records of so many bytes, the last one of which is followed by an end.
    Answer(Vec<u8>, usize, End),
}

/// How a connection goes on after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It stays.
    Never,
    /// The server says that this was all, and closes it.
    Told,
    /// It is closed without a word.
    Untold,
}

/// What the server shows and asks for.
pub(crate) struct Demands<'a> {
    pub(crate) folder: &'a Path,
    /// It shows `server.pem` unless this is another one, with its key in `…-key.pem`.
    pub(crate) shows: &'a str,
    /// It wants a certificate that `ca.pem` vouches for.
    pub(crate) asks_clients: bool,
    /// TLS 1.2, and not 1.3.
    pub(crate) is_old: bool,
}

impl<'a> Demands<'a> {
    /// None of its clients.
    pub(crate) fn none(folder: &'a Path) -> Self {
        Self {
            folder,
            shows: "server",
            asks_clients: false,
            is_old: false,
        }
    }
}

/// Serves for as long as the process lives, on a thread of its own; gives its port.
pub(crate) fn start(demands: &Demands<'_>, behind: Behind) -> u16 {
    let acceptor = TlsAcceptor::from(Arc::new(config(demands)));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())
            .expect("a runtime");
        runtime.block_on(serve(listener, acceptor, behind));
    });
    port
}

fn config(demands: &Demands<'_>) -> ServerConfig {
    let certificates = |name: &str| -> Vec<CertificateDer<'static>> {
        let file = demands.folder.join(format!("{name}.pem"));
        let found = CertificateDer::pem_file_iter(file).expect("a file");
        found.collect::<Result<_, _>>().expect("certificates")
    };
    let versions = if demands.is_old { [&TLS12] } else { [&TLS13] };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .expect("a version");
    let builder = if demands.asks_clients {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates("ca"));
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
    } else {
        builder.with_no_client_auth()
    };
    let key = demands.folder.join(format!("{}-key.pem", demands.shows));
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let mut config = builder
        .with_single_cert(certificates(demands.shows), key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
    config
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, behind: Behind) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let (acceptor, behind) = (acceptor.clone(), behind.clone());
        tokio::task::spawn_local(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
                match behind {
                    Behind::Server(address) => pass_on(stream, address).await,
                    Behind::Answer(bytes, piece, end) => answer(stream, &bytes, piece, end).await,
                }
            }
        });
    }
}

async fn pass_on(mut stream: TlsStream<TcpStream>, address: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(address).await {
        let _ = server.set_nodelay(true);
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
    }
}

async fn answer(mut stream: TlsStream<TcpStream>, bytes: &[u8], piece: usize, end: End) {
    let mut request = [0; 4_096];
    // One small request at a time is all that a connection ever carries.
    while let Ok(1..) = stream.read(&mut request).await {
        for record in bytes.chunks(piece) {
            if stream.write_all(record).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
        match end {
            End::Never => {}
            End::Told => {
                let _ = stream.shutdown().await;
                return;
            }
            End::Untold => return,
        }
    }
}
