//! A process in the place of the network between a client and its store, that fails as it is told to.
//!
//! Enters: connections, and a fault. Leaves: what is sent to the store, as it is, and its answers, as the fault has them. Must
//! not make up an answer unless that is the fault.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// What happens to the store's answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    None,
    /// After so many bytes of answers a connection is reset, in the middle of one.
    ResetAfter(usize),
    /// New connections are closed at once.
    Refuse,
    /// And those that are there are ended.
    CutAll,
    /// No answer comes through on any connection, nor does its end.
    Silence,
    /// What begins an answer begins none.
    Garble,
    /// Answers on the connection of this number, from 0, are held back.
    Hold(usize),
    /// The connection of this number, from 0, is ended.
    Cut(usize),
    /// A byte at a time, this long apart.
    Trickle(Duration),
    /// All of it, so much later.
    Delay(Duration),
    /// In its place, an error of this text.
    Say(&'static str),
}

/// The fault of now, as a test sets it and a proxy's threads see it.
#[derive(Clone)]
struct Faults(Arc<Mutex<Fault>>);

impl Faults {
    fn now(&self) -> Fault {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, fault: Fault) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

/// Passes connections on to a store, and its answers back as the fault has it.
pub(crate) struct Proxy {
    address: SocketAddr,
    faults: Faults,
}

impl Proxy {
    pub(crate) fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let faults = Faults(Arc::new(Mutex::new(Fault::None)));
        let proxy = Self {
            address,
            faults: faults.clone(),
        };
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().flatten().enumerate() {
                if matches!(faults.now(), Fault::Refuse | Fault::CutAll) {
                    continue;
                }
                let Ok(store) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                let (mut from, mut to) = (twin(&client), twin(&store));
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
                let faults = faults.clone();
                std::thread::spawn(move || answer(store, (number, client), &faults));
            }
        });
        proxy
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.faults.set(fault);
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

fn twin(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a second handle")
}

fn answer(mut store: TcpStream, (number, client): (usize, TcpStream), faults: &Faults) {
    let (sent, sends) = mpsc::channel::<(Instant, Vec<u8>)>();
    let (twin_of_store, faults_then) = (twin(&store), faults.clone());
    std::thread::spawn(move || pass_on(&twin_of_store, &sends, (number, client), &faults_then));
    let mut buffer = [0; 4_096];
    while let Ok(length @ 1..) = store.read(&mut buffer) {
        let delay = match faults.now() {
            Fault::Delay(time) => time,
            _ => Duration::ZERO,
        };
        if sent
            .send((Instant::now() + delay, buffer[..length].to_vec()))
            .is_err()
        {
            break;
        }
    }
}

fn pass_on(
    store: &TcpStream,
    sends: &mpsc::Receiver<(Instant, Vec<u8>)>,
    (number, mut client): (usize, TcpStream),
    faults: &Faults,
) {
    let mut passed = 0;
    loop {
        let (due, mut buffer) = match sends.recv_timeout(Duration::from_millis(20)) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Timeout)
                if ![Fault::Cut(number), Fault::CutAll].contains(&faults.now()) =>
            {
                continue;
            }
            Err(_) => break,
        };
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        while [Fault::Hold(number), Fault::Silence].contains(&faults.now()) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let fault = faults.now();
        match fault {
            Fault::CutAll => break,
            Fault::Garble => buffer[0] = b'?',
            Fault::Say(text) => buffer = format!("-{text}\r\n").into_bytes(),
            _ => {}
        }
        let mut bytes = &buffer[..];
        if let Fault::ResetAfter(most) = fault
            && passed + bytes.len() > most
        {
            bytes = &bytes[..most.saturating_sub(passed)];
            let _ = client.write_all(bytes);
            let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
            break;
        }
        let sent = match fault {
            Fault::Trickle(apart) => bytes.chunks(1).try_for_each(|byte| {
                std::thread::sleep(apart);
                client.write_all(byte)
            }),
            _ => client.write_all(bytes),
        };
        passed += buffer.len();
        if sent.is_err() {
            break;
        }
    }
    let _ = store.shutdown(std::net::Shutdown::Both);
    if faults.now() == Fault::CutAll {
        // The other direction holds it open.
        let _ = client.shutdown(std::net::Shutdown::Both);
    }
    // Dropped last, so that it is reset rather than closed when that is the fault.
    drop(client);
}
