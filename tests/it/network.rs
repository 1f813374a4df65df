//! What lies between serve and its store fails: resets, trickles, a store that reads its data, is full, or unknown.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::engine::Engine;
use crate::proxy::{Fault, Proxy};
use crate::support::{
    Serve, Server, WAYS_TO_READ, assert_balanced, command, eventually, expect_code, json,
    json_file, kvpoc, seed, start, stderr,
};

#[test]
fn a_connection_that_is_reset_in_mid_answer_costs_errors_and_never_a_wrong_answer() {
    let store = Server::start();
    seed(&store.url(), 2_000, "");
    let proxy = Proxy::before(store.port);
    for way in WAYS_TO_READ {
        proxy.set(Fault::None);
        let serve = Serve::start(&proxy.url(), way);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("bench.json");
        let load = "--rps 300 --duration 4s --warmup 0s --verify 1 --max-lag 10s --slo rate=0%,p99=none,errors=100%";
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
fn a_network_that_is_cut_or_silent_is_answered_for_and_recovered_from() {
    let store = Server::start();
    seed(&store.url(), 100, "");
    let proxy = Proxy::before(store.port);
    for way in WAYS_TO_READ {
        let serve = Serve::start(&proxy.url(), &format!("--threads 1 {way}"));
        assert_eq!(serve.get("/user/session/1").status, 200, "{way}");
        for fault in [Fault::CutAll, Fault::Silence] {
            proxy.set(fault);
            eventually("the network to be missed", || {
                let status = serve.get("/user/session/1").status;
                [503, 504].contains(&status).then_some(())
            });
            assert_eq!(serve.get("/livez").status, 200, "{way}");
            // Longer than anything waits for an answer.
            std::thread::sleep(Duration::from_millis(1_500));
            proxy.set(Fault::None);
            eventually("recovery", || {
                (serve.get("/user/session/1").status == 200).then_some(())
            });
            for id in 0..100 {
                let session = serve.get(&format!("/user/session/{id}"));
                assert_eq!(session.json()["id"], id, "{way}: {session:?}");
            }
        }
    }
}

#[test]
fn answers_that_trickle_are_given_up_in_time_and_mixed_up_with_no_other() {
    let store = Server::start();
    seed(&store.url(), 2_000, "");
    let proxy = Proxy::before(store.port);
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
fn a_slow_store_answers_the_patient_however_many_others_leave_before_their_answer() {
    let store = Server::start();
    seed(&store.url(), 100, "");
    let proxy = Proxy::before(store.port);
    for way in WAYS_TO_READ {
        proxy.set(Fault::None);
        let line = format!("--threads 1 --store-timeout 5s --allow-writes {way}");
        let serve = Serve::start(&proxy.url(), &line);
        proxy.set(Fault::Delay(Duration::from_millis(300)));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for number in 0..24 {
                let target = ["/user/session/1", "/user/session/2", "/readyz"][number % 3];
                let (serve, is_over) = (&serve, &is_over);
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        let asked = serve.start_get(target);
                        std::thread::sleep(Duration::from_millis(30));
                        drop(asked);
                    }
                });
            }
            let _over = SetOnDrop(&is_over);
            for id in 0..8 {
                for target in [&*format!("/user/session/{id}"), "/readyz", "/stats"] {
                    let answer = serve.get(target);
                    assert_eq!(answer.status, 200, "{way} {target}: {answer:?}");
                }
                assert_eq!(
                    serve.request("PUT", "/v1/keys/k", b"v").status,
                    204,
                    "{way}"
                );
            }
        });
    }
}

#[test]
fn a_frozen_store_is_asked_for_a_sign_of_life_though_every_client_leaves_early() {
    let store = Server::start();
    seed(&store.url(), 100, "");
    for way in WAYS_TO_READ {
        let line = format!("--threads 1 --store-timeout 300ms {way}");
        let serve = Serve::start(&store.url(), &line);
        store.process().signal(Signal::STOP);
        eventually("a refusal at once", || {
            let asked: Vec<_> = (0..40)
                .map(|_| serve.start_get("/user/session/1"))
                .collect();
            std::thread::sleep(Duration::from_millis(30));
            drop(asked);
            let answer = serve.get("/user/session/1");
            assert!([503, 504].contains(&answer.status), "{way}: {answer:?}");
            (answer.status == 503).then_some(())
        });
        store.process().signal(Signal::CONT);
        eventually("recovery", || {
            (serve.get("/user/session/1").status == 200).then_some(())
        });
    }
}

/// Raised when it is dropped, also by a panic.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_request_whose_connection_is_lost_on_the_way_costs_one_deadline_in_all() {
    let store = Server::start();
    seed(&store.url(), 100, "");
    for way in WAYS_TO_READ {
        let proxy = Proxy::before(store.port);
        // So long that the second of two deadlines cannot be taken for a slow machine.
        let line = format!("--threads 1 --store-timeout 4s {way}");
        let serve = Serve::start(&proxy.url(), &line);
        assert_eq!(serve.get("/user/session/1").status, 200);
        store.process().signal(Signal::STOP);
        let began = Instant::now();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| serve.get("/user/session/1"));
            std::thread::sleep(Duration::from_millis(2_500));
            // After those of the look at the store and of the thread.
            proxy.set(Fault::Cut(2));
            let answer = waiting.join().expect("an answer");
            assert!([503, 504].contains(&answer.status), "{way}: {answer:?}");
            assert!(
                began.elapsed() < Duration::from_secs(6),
                "{way}: {answer:?}"
            );
        });
        store.process().signal(Signal::CONT);
    }
}

#[test]
fn reads_go_on_while_their_own_connection_cannot_be_had() {
    let store = Server::start();
    seed(&store.url(), 100, "");
    let proxy = Proxy::before(store.port);
    let serve = Serve::start(&proxy.url(), "--threads 1 --store-timeout 5s");
    let all_is_well = || {
        for id in 0..50 {
            let session = serve.get(&format!("/user/session/{id}"));
            assert_eq!(session.json()["id"], id, "{session:?}");
        }
    };
    all_is_well();
    // The last one to connect, and before it the others.
    let before = store.clients_that_read(all_is_well);
    let reader = before.iter().max().expect("a connection that reads");

    proxy.set(Fault::Refuse);
    let kill = format!("CLIENT KILL ID {reader}");
    assert_eq!(store.ask(&kill), ":1\r\n");
    // What was on its way is read again.
    eventually("reads by another connection", || {
        let after = store.clients_that_read(all_is_well);
        let other = |client: &u64| client < reader && !before.contains(client);
        after.iter().any(other).then_some(())
    });
    proxy.set(Fault::None);
    eventually("a connection that reads", || {
        let after = store.clients_that_read(all_is_well);
        after.iter().any(|client| client > reader).then_some(())
    });
}

#[test]
fn a_connection_that_falls_silent_is_read_around_and_replaced() {
    let store = Server::start();
    seed(&store.url(), 100, "");
    let proxy = Proxy::before(store.port);
    let serve = Serve::start(
        &proxy.url(),
        "--threads 1 --store-timeout 250ms --allow-writes",
    );
    let read = || {
        for _ in 0..20 {
            serve.get("/user/session/1");
        }
    };
    assert_eq!(serve.get("/user/session/1").status, 200);
    let before = store.clients_that_read(read);
    let reader = before.iter().max().expect("a connection that reads");
    // After those of the look at the store and of the thread.
    proxy.set(Fault::Hold(2));
    assert_eq!(serve.get("/user/session/1").status, 504);
    eventually("reads by another connection", || {
        (serve.get("/user/session/1").status == 200).then_some(())
    });
    assert_eq!(serve.request("PUT", "/v1/keys/new", b"value").status, 204);
    eventually("another connection that reads", || {
        let after = store.clients_that_read(read);
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
    // A read may miss so short a deadline on a machine that is busy.
    eventually("a refusal of one and an answer to the other", || {
        (put() == 503 && serve.get("/user/session/1").status == 200).then_some(())
    });
    assert_eq!(store.ask("CLIENT UNPAUSE"), "+OK\r\n");
    eventually("recovery", || (put() == 204).then_some(()));
}

#[test]
fn what_answers_no_read_is_read_from_by_nobody() {
    let store = Server::start();
    seed(&store.url(), 100, "");
    let proxy = Proxy::before(store.port);
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
fn what_a_store_says_becomes_the_status_that_it_means() {
    let store = Server::start();
    seed(&store.url(), 100, "");
    let proxy = Proxy::before(store.port);
    for way in WAYS_TO_READ {
        proxy.set(Fault::None);
        let line = format!("--threads 1 --store-timeout 10s --allow-writes {way}");
        let serve = Serve::start(&proxy.url(), &line);
        for (said, status) in [
            ("LOADING Dragonfly is loading the dataset in memory", 503),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                507,
            ),
            ("ERR Out of memory", 507),
            ("READONLY You can't write against a read only replica.", 503),
            ("MASTERDOWN Link with MASTER is down", 503),
            ("MISCONF Redis is configured to save RDB snapshots", 503),
            ("BUSY Redis is busy running a script.", 503),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                503,
            ),
            ("ERR max number of clients reached", 503),
            ("Cluster is not yet configured", 503),
            ("CROSSSLOT Keys in request don't hash to the same slot", 502),
            ("NOAUTH Authentication required.", 502),
            ("NOPERM this user has no permissions", 502),
            ("ERR something else", 502),
        ] {
            proxy.set(Fault::Say(said));
            let read = serve.get("/user/session/1");
            assert_eq!(read.status, status, "{way} {said}: {read:?}");
            let detail = read.json()["detail"].to_string();
            assert!(detail.contains(said), "{way}: {detail}");
            let written = serve.request("PUT", "/v1/keys/new", b"value");
            assert_eq!(written.status, status, "{way} {said}: {written:?}");
            proxy.set(Fault::None);
            assert_eq!(
                serve.get("/user/session/1").status,
                200,
                "{way}: after {said}"
            );
        }
    }
}

#[test]
fn a_server_that_closes_idle_connections_costs_neither_a_request_nor_a_warning() {
    let store = Server::start_on(Engine::here(), "--timeout 1");
    seed(&store.url(), 10, "");
    for way in WAYS_TO_READ {
        let line = format!("serve --port 0 --threads 1 --store {} {way}", store.url());
        let mut command = command(&line);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let serve = Serve::from_process(command.spawn().expect("it starts"));
        for _ in 0..3 {
            assert_eq!(serve.get("/user/session/1").status, 200, "{way}");
            std::thread::sleep(Duration::from_millis(2_500));
            eventually("an answer again", || {
                (serve.get("/user/session/1").status == 200).then_some(())
            });
        }
        serve.process.signal(Signal::TERM);
        let log = serve.log_to_its_end();
        assert!(!log.contains("WARN"), "{way}: {log}");
    }
}

#[test]
fn a_store_that_still_reads_its_data_is_waited_for() {
    let mut store = Server::slow_to_load(200);
    // As many commands as keys in its log: reading them takes 2 s, and every 1,024 of them it looks up.
    seed(&store.url(), 20_000, "--batch 1 --in-flight 100");
    if store.engine.is_dragonfly() {
        // A snapshot that it reads for a second.
        assert_eq!(
            store.ask("DEBUG POPULATE 1000000 other: 100 RAND"),
            "+OK\r\n"
        );
        store.save();
    }
    let serve = Serve::start(&store.url(), "");
    store.kill();
    store.begin_again();
    eventually("the store to say that it is loading", || {
        store.ask("GET a").starts_with("-LOADING").then_some(())
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
    store.limit_memory(Some("100kb"));
    let refused = put();
    assert_eq!(refused.status, 507, "{refused:?}");
    assert_eq!(serve.get("/user/session/1").status, 200);
    store.limit_memory(None);
    // Dragonfly reckons what is left a moment later.
    eventually("room again", || (put().status == 204).then_some(()));
}

#[test]
fn a_load_waits_for_a_full_store_whatever_its_engine_says() {
    for said in [
        "ERR Out of memory",
        "OOM command not allowed when used memory > 'maxmemory'.",
    ] {
        let store = Server::start();
        let proxy = Proxy::before(store.port);
        let line =
            "--json --verify --keys 20k --batch 100 --in-flight 1 --connections 1 --rate 10k";
        let mut seeding = start(&format!(
            "seed {line} --retry-for 1min --store {}",
            proxy.url()
        ));
        eventually("the first keys", || {
            let held = store.ask("EXISTS user:session:1000");
            held.starts_with(":1").then_some(())
        });
        proxy.set(Fault::Say(said));
        std::thread::sleep(Duration::from_secs(2));
        proxy.set(Fault::None);
        assert_eq!(seeding.ended(), Some(0), "{said}");
        let summary = json(&seeding.output());
        assert!(summary["retries"].as_u64() > Some(0), "{said}: {summary}");
        assert_eq!(summary["verification"]["checked"], 20_000, "{said}");
        assert_eq!(summary["verification"]["missing"], 0, "{said}");
    }
}

#[test]
fn a_name_that_nobody_knows_is_said() {
    for command in [
        "inspect",
        "serve --port 0 --wait-for-store 0s",
        "seed --keys 10",
    ] {
        let output = kvpoc(&format!("{command} --store redis://no-such-host.invalid"));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(69), "{command}: {text}");
        assert!(text.contains("no-such-host.invalid"), "{command}: {text}");
    }
    expect_code("inspect --store redis://no-such-host.invalid:0x", 64);
}
