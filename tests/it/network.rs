//! What lies between serve and its store fails: resets, trickles, a store that reads its data, is full, or unknown.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::support::{
    Serve, Server, WAYS_TO_READ, assert_balanced, eventually, expect_code, json_file, kvpoc, seed,
    start, stderr,
};

/// What happens to the store's answers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// After so many bytes of answers a connection is reset, in the middle of one.
    ResetAfter(usize),
    /// New connections are closed at once.
    Refuse,
    /// What begins an answer begins none.
    Garble,
    /// Answers on the connection of this number, from 0, are held back.
    Hold(usize),
    /// A byte at a time, this long apart.
    Trickle(Duration),
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
struct Proxy {
    address: SocketAddr,
    faults: Faults,
}

impl Proxy {
    fn before(store: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (port, all) = (store.port, Faults(Arc::new(Mutex::new(Fault::None))));
        let faults = all.clone();
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().flatten().enumerate() {
                if faults.now() == Fault::Refuse {
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
        Self {
            address,
            faults: all,
        }
    }

    fn set(&self, fault: Fault) {
        self.faults.set(fault);
    }

    fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

fn twin(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a second handle")
}

fn answer(mut store: TcpStream, (number, mut client): (usize, TcpStream), faults: &Faults) {
    let mut buffer = [0; 4_096];
    let mut passed = 0;
    while let Ok(length @ 1..) = store.read(&mut buffer) {
        while faults.now() == Fault::Hold(number) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let fault = faults.now();
        if fault == Fault::Garble {
            buffer[0] = b'?';
        }
        let mut bytes = &buffer[..length];
        if let Fault::ResetAfter(most) = fault
            && passed + length > most
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
        passed += length;
        if sent.is_err() {
            break;
        }
    }
    let _ = store.shutdown(std::net::Shutdown::Both);
    // Dropped last, so that it is reset rather than closed when that is the fault.
    drop(client);
}

#[test]
fn a_connection_that_is_reset_in_mid_answer_costs_errors_and_never_a_wrong_answer() {
    let store = Server::start();
    seed(&store.url(), 2_000, "");
    let proxy = Proxy::before(&store);
    for way in WAYS_TO_READ {
        proxy.set(Fault::None);
        let serve = Serve::start(&proxy.url(), way);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("bench.json");
        let load = "--rps 300 --duration 4s --warmup 0s --verify 1 --max-lag 10s --slo rate=0%,errors=100%";
        let line = format!(
            "bench --target {} {load} --json {}",
            serve.url(),
            file.display()
        );
        proxy.set(Fault::ResetAfter(100_003));
        assert_eq!(start(&line).ended(), Some(0), "PASS, whatever the errors");
        let results = json_file(&file);
        assert_balanced(&results);
        let count = |name: &str| results["requests"][name].as_u64().expect(name);
        assert!(count("errors") > 0 && count("ok") > 0, "{way}: {results}");
        proxy.set(Fault::None);
        eventually("recovery", || {
            (serve.get("/user/session/1").status == 200).then_some(())
        });
    }
}

#[test]
fn answers_that_trickle_are_given_up_in_time_and_mixed_up_with_no_other() {
    let store = Server::start();
    seed(&store.url(), 2_000, "");
    let proxy = Proxy::before(&store);
    for way in WAYS_TO_READ {
        let line = format!("--store-timeout 200ms --threads 1 {way}");
        let serve = Serve::start(&proxy.url(), &line);
        proxy.set(Fault::Trickle(Duration::from_millis(2)));
        let started = Instant::now();
        assert_eq!(serve.get("/user/session/1").status, 504, "{way}");
        // The deadline is 0.2 s; what is refused here is waiting without end.
        assert!(started.elapsed() < Duration::from_secs(10));
        for _ in 0..20 {
            serve.get("/user/session/2");
        }
        proxy.set(Fault::None);
        eventually("recovery", || {
            (serve.get("/user/session/1").status == 200).then_some(())
        });
        for id in 0..200 {
            let session = serve.get(&format!("/user/session/{id}"));
            assert_eq!(session.json()["id"], id, "{way}: {session:?}");
        }
    }
}

#[test]
fn reads_go_on_while_their_own_connection_cannot_be_had() {
    let store = Server::start();
    seed(&store.url(), 100, "");
    let proxy = Proxy::before(&store);
    let serve = Serve::start(&proxy.url(), "--threads 1");
    let all_is_well = || {
        for id in 0..50 {
            let session = serve.get(&format!("/user/session/{id}"));
            assert_eq!(session.json()["id"], id, "{session:?}");
        }
    };
    all_is_well();
    // The last one to connect, and before it the others.
    let before = store.clients_whose_last_command_is("mget");
    let reader = before.iter().max().expect("a connection that reads");

    proxy.set(Fault::Refuse);
    let kill = format!("CLIENT KILL ID {reader}");
    assert_eq!(store.ask(&kill), ":1\r\n");
    // What was on its way is read again.
    eventually("reads by another connection", || {
        all_is_well();
        let after = store.clients_whose_last_command_is("mget");
        let other = |client: &u64| client < reader && !before.contains(client);
        after.iter().any(other).then_some(())
    });
    proxy.set(Fault::None);
    eventually("a connection that reads", || {
        all_is_well();
        let after = store.clients_whose_last_command_is("mget");
        after.iter().any(|client| client > reader).then_some(())
    });
}

#[test]
fn a_connection_that_falls_silent_is_read_around_and_replaced() {
    let store = Server::start();
    seed(&store.url(), 100, "");
    let proxy = Proxy::before(&store);
    let serve = Serve::start(
        &proxy.url(),
        "--threads 1 --store-timeout 50ms --allow-writes",
    );
    assert_eq!(serve.get("/user/session/1").status, 200);
    let before = store.clients_whose_last_command_is("mget");
    let reader = before.iter().max().expect("a connection that reads");
    // After those of the look at the store and of the thread.
    proxy.set(Fault::Hold(2));
    assert_eq!(serve.get("/user/session/1").status, 504);
    eventually("reads by another connection", || {
        (serve.get("/user/session/1").status == 200).then_some(())
    });
    assert_eq!(serve.request("PUT", "/v1/keys/new", b"value").status, 204);
    eventually("another connection that reads", || {
        serve.get("/user/session/1");
        let after = store.clients_whose_last_command_is("mget");
        after.iter().any(|client| client > reader).then_some(())
    });
}

#[test]
fn writes_that_are_stuck_are_refused_at_once_although_reads_are_answered() {
    let store = Server::start();
    seed(&store.url(), 100, "");
    let serve = Serve::start(
        &store.url(),
        "--threads 1 --store-timeout 20ms --allow-writes",
    );
    let put = || serve.request("PUT", "/v1/keys/new", b"value").status;
    assert_eq!(store.ask("CLIENT PAUSE 600000 WRITE"), "+OK\r\n");
    assert_eq!(put(), 504);
    eventually("a refusal", || {
        assert_eq!(serve.get("/user/session/1").status, 200);
        (put() == 503).then_some(())
    });
    assert_eq!(store.ask("CLIENT UNPAUSE"), "+OK\r\n");
    eventually("recovery", || (put() == 204).then_some(()));
}

#[test]
fn what_answers_no_read_is_read_from_by_nobody() {
    let store = Server::start();
    seed(&store.url(), 100, "");
    let proxy = Proxy::before(&store);
    for way in WAYS_TO_READ {
        let serve = Serve::start(&proxy.url(), way);
        assert_eq!(serve.get("/user/session/1").json()["id"], 1);
        proxy.set(Fault::Garble);
        for id in 0..20 {
            let answer = serve.get(&format!("/user/sessions?ids={id}"));
            assert!(
                [502, 503, 504].contains(&answer.status),
                "{way}: {answer:?}"
            );
        }
        proxy.set(Fault::None);
        eventually("recovery", || {
            (serve.get("/user/session/1").status == 200).then_some(())
        });
    }
}

#[test]
fn a_store_that_still_reads_its_data_is_waited_for() {
    let mut store = Server::start_with("--key-load-delay 200");
    // As many commands as keys in its log: reading them takes 2 s, and every 1,024 of them it looks up.
    seed(&store.url(), 20_000, "--batch 1 --in-flight 100");
    let serve = Serve::start(&store.url(), "");
    store.kill();
    store.begin_again();
    eventually("the store to say that it is loading", || {
        store.ask("DBSIZE").starts_with("-LOADING").then_some(())
    });
    let answer = serve.get("/user/session/1");
    assert!([503, 504].contains(&answer.status), "{answer:?}");
    let output = kvpoc(&format!("inspect --store {}", store.url()));
    assert!(
        stderr(&output).contains("not ready: LOADING"),
        "{}",
        stderr(&output)
    );
    // seed waits for it.
    let summary = seed(&store.url(), 20_000, "--verify");
    assert_eq!(summary["verification"]["checked"], 20_000);
    eventually("recovery", || {
        (serve.get("/user/session/1").status == 200).then_some(())
    });
}

#[test]
fn a_full_store_refuses_writes_and_goes_on_with_reads() {
    let store = Server::start();
    seed(&store.url(), 1_000, "");
    let serve = Serve::start(&store.url(), "--allow-writes");
    let put = || serve.request("PUT", "/v1/keys/new", &[b'x'; 1_000]);
    assert_eq!(store.ask("CONFIG SET maxmemory 1mb"), "+OK\r\n");
    let refused = put();
    assert_eq!(refused.status, 507, "{refused:?}");
    assert_eq!(serve.get("/user/session/1").status, 200);
    assert_eq!(store.ask("CONFIG SET maxmemory 0"), "+OK\r\n");
    assert_eq!(put().status, 204);
}

#[test]
fn a_name_that_nobody_knows_is_said() {
    for command in ["inspect", "serve --port 0", "seed --keys 10"] {
        let output = kvpoc(&format!("{command} --store redis://no-such-host.invalid"));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(69), "{command}: {text}");
        assert!(text.contains("no-such-host.invalid"), "{command}: {text}");
    }
    expect_code("inspect --store redis://no-such-host.invalid:0x", 64);
}
