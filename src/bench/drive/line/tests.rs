//! Both ends of a connection with TLS.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

use super::super::inbox::{Buffer, Inbox};
use super::*;
use crate::config::{TargetTls, TargetUrl};

fn acceptor() -> TlsAcceptor {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".into()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key);
    Arc::new(config.expect("a certificate")).into()
}

/// Gives it room for little, which the kernel else makes larger as it needs.
fn narrow(socket: &TcpStream) {
    let socket = socket2::SockRef::from(socket);
    socket.set_send_buffer_size(64 * 1024).expect("a size");
    socket.set_recv_buffer_size(64 * 1024).expect("a size");
}

/// Both ends of a connection.
async fn connected() -> (Line, TlsStream<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let url = TargetUrl {
        host: "localhost".into(),
        port: address.port(),
        tls: true,
        unix: None,
    };
    let settings = TargetTls {
        insecure: true,
        ..TargetTls::default()
    };
    let tls = Tls::new(&settings, &url).expect("no files to read");
    let ours = async {
        let socket = TcpStream::connect(address).await.expect("a connection");
        narrow(&socket);
        Inbox::ask_for_stamps(&socket);
        Line::sealed(Socket::Tcp(socket), &tls)
            .await
            .expect("a handshake")
    };
    let theirs = async {
        let (socket, _) = listener.accept().await.expect("a connection");
        narrow(&socket);
        acceptor().accept(socket).await.expect("a handshake")
    };
    tokio::join!(ours, theirs)
}

fn read(inbox: &mut Inbox, buffer: &Buffer) -> (Vec<u8>, Option<u64>) {
    inbox.read(buffer, |bytes, lay_ns| {
        (bytes.len(), (bytes.to_vec(), lay_ns()))
    })
}

#[tokio::test(flavor = "current_thread")]
async fn the_time_that_sealed_bytes_lay_here_is_told() {
    let (line, mut theirs) = connected().await;
    assert_eq!(line.handshakes.count, 1);
    let (mut inbox, buffer) = (Inbox::new(), Buffer::new());
    // The kernel begins to stamp a little after it was asked to.
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < Duration::from_mins(1), "no stamps");
        theirs.write_all(b"x").await.expect("written");
        inbox.receive_from(&line, &buffer).await.expect("bytes");
        if read(&mut inbox, &buffer).1.is_some() {
            break;
        }
    }
    let (sent, away) = (Instant::now(), Duration::from_millis(30));
    theirs.write_all(b"hello").await.expect("written");
    std::thread::sleep(away);
    inbox.receive_from(&line, &buffer).await.expect("bytes");
    let (bytes, lay_ns) = read(&mut inbox, &buffer);
    assert_eq!(bytes, b"hello");
    let lay = Duration::from_nanos(lay_ns.expect("the kernel stamps"));
    assert!(away <= lay && lay <= sent.elapsed(), "{lay:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn much_goes_out_as_there_is_room_and_comes_in_as_it_was() {
    let (line, mut theirs) = connected().await;
    let request: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut rest = &request[..];
    assert!(
        !line.push(&mut rest).expect("sent"),
        "no socket has so much room"
    );
    assert!(rest.is_empty(), "it is sealed");
    let mut seen = vec![0; request.len()];
    let (sent, read_all) = tokio::join!(line.push_all(rest), theirs.read_exact(&mut seen));
    sent.expect("sent");
    read_all.expect("read");
    assert!(seen == request);

    let (mut inbox, buffer) = (Inbox::new(), Buffer::new());
    let sends = async {
        theirs.write_all(&request).await.expect("written");
        theirs.shutdown().await.expect("told");
    };
    let receives = async {
        let mut all = Vec::new();
        while inbox.receive_from(&line, &buffer).await.expect("bytes") > 0 {
            all.extend(read(&mut inbox, &buffer).0);
        }
        all
    };
    let ((), all) = tokio::join!(sends, receives);
    assert!(all == request);
}

#[tokio::test(flavor = "current_thread")]
async fn an_end_counts_as_one_only_when_it_was_told() {
    for is_told in [true, false] {
        let (line, mut theirs) = connected().await;
        let (mut inbox, buffer) = (Inbox::new(), Buffer::new());
        theirs.write_all(b"hello").await.expect("written");
        if is_told {
            theirs.shutdown().await.expect("told");
        }
        drop(theirs);
        assert_eq!(inbox.receive_from(&line, &buffer).await.expect("bytes"), 5);
        assert_eq!(read(&mut inbox, &buffer).0, b"hello");
        let end = inbox.receive_from(&line, &buffer).await;
        assert_eq!(end.is_ok(), is_told, "{end:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_record_that_is_not_whole_is_the_beginning_of_an_answer() {
    for (length, is_cut_off) in [(0, false), (1, true), (5, true), (80, true)] {
        let (line, mut theirs) = connected().await;
        let (mut inbox, buffer) = (Inbox::new(), Buffer::new());
        theirs.write_all(b"hello").await.expect("written");
        inbox.receive_from(&line, &buffer).await.expect("bytes");
        assert_eq!(read(&mut inbox, &buffer).0, b"hello");
        assert!(!line.is_cut_off());
        let (mut socket, _) = theirs.into_inner();
        let record = [&[23, 3, 3, 0, 200][..], &[b'x'; 200]].concat();
        socket.write_all(&record[..length]).await.expect("written");
        drop(socket);
        let end = inbox.receive_from(&line, &buffer).await;
        end.expect_err("nobody told of it");
        assert_eq!(line.is_cut_off(), is_cut_off, "{length}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_no_tls_after_the_handshake_is_an_error_and_no_panic() {
    let (line, theirs) = connected().await;
    let (mut inbox, buffer) = (Inbox::new(), Buffer::new());
    let (mut socket, _) = theirs.into_inner();
    socket.write_all(&[b'x'; 100]).await.expect("written");
    let error = inbox.receive_from(&line, &buffer).await;
    let error = error.expect_err("no TLS");
    assert_eq!(
        super::super::tls::in_short(&error).as_deref(),
        Some("TLS failed")
    );
}

#[tokio::test(flavor = "current_thread")]
async fn the_other_side_is_told_when_no_more_will_come() {
    let (line, mut theirs) = connected().await;
    drop(Sender::new(Rc::new(line)));
    let mut rest = Vec::new();
    // An end that nobody told of would be an error.
    assert_eq!(theirs.read_to_end(&mut rest).await.expect("told"), 0);
}
