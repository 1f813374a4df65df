//! Stores that want certificates and passwords, and stores behind sentinels.

use std::path::Path;
use std::process::{Output, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::engine::Engine;
use crate::support::{
    Serve, Server, command, eventually, free_port, json, kvpoc, seed, stderr, stdout,
};

/// Certificates in a folder: `ca.pem`, `server.pem` and `client.pem` with their keys, and `other.pem`, of another CA.
fn certificates() -> TempDir {
    certificates_for(&["localhost", "127.0.0.1"])
}

/// The same for servers of these names.
pub(crate) fn certificates_for(names: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("written");
    };
    let ca = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        write(name, &certificate.pem());
        Issuer::new(params, key)
    };
    ca("other.pem");
    let issuer = ca("ca.pem");
    for name in ["server", "client"] {
        let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        write(&format!("{name}.pem"), &certificate.pem());
        write(&format!("{name}-key.pem"), &key.serialize_pem());
    }
    folder
}

/// A server with TLS on a second port, that port, and what it has to be shown besides a certificate.
fn tls_server(folder: &Path, ask_clients: &str) -> (Server, u16, String) {
    let (port, folder) = (free_port(), folder.display());
    let engine = Engine::here();
    if engine.is_dragonfly() {
        return tls_dragonfly(port, &folder.to_string(), ask_clients == "yes");
    }
    let settings = format!(
        "--tls-port {port} --tls-ca-cert-file {folder}/ca.pem --tls-cert-file {folder}/server.pem \
         --tls-key-file {folder}/server-key.pem --tls-auth-clients {ask_clients}"
    );
    (Server::start_on(engine, &settings), port, String::new())
}

/// It wants a certificate of its clients where it has a CA, else a password; its only port without TLS is the one of its
/// administrator.
fn tls_dragonfly(port: u16, folder: &str, asks_clients: bool) -> (Server, u16, String) {
    let file = format!("{folder}/password");
    std::fs::write(&file, PASSWORD).expect("written");
    let (wanted, shown) = if asks_clients {
        (format!("--tls_ca_cert_file {folder}/ca.pem"), String::new())
    } else {
        let shown = format!("--store-password-file {file}");
        (format!("--requirepass {PASSWORD}"), shown)
    };
    let settings = format!(
        "--tls --tls_cert_file {folder}/server.pem --tls_key_file {folder}/server-key.pem {wanted} \
         --no_tls_on_admin_port --admin_nopass"
    );
    (Server::behind_tls(port, &settings), port, shown)
}

#[test]
fn a_store_behind_tls_is_used_if_its_certificate_is_trusted() {
    let folder = certificates();
    let (_server, port, login) = tls_server(folder.path(), "no");
    let file = |name: &str| folder.path().join(name).display().to_string();
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("rediss://{host}:{port}");
        let trusted = format!("--store-tls-ca {} {login}", file("ca.pem"));
        let summary = seed(&url, 1_000, &format!("--verify {trusted}"));
        assert_eq!(summary["verification"]["checked"], 1_000);
        let serve = Serve::start(&url, &trusted);
        assert_eq!(serve.get("/user/session/7").json()["id"], 7);
    }
    let url = format!("rediss://127.0.0.1:{port}");
    // Neither the system nor another CA vouches for it.
    for more in [
        String::new(),
        format!("--store-tls-ca {}", file("other.pem")),
    ] {
        let output = kvpoc(&format!("inspect --store {url} {more}"));
        assert_eq!(output.status.code(), Some(69), "{}", stdout(&output));
        let reason = stderr(&output);
        assert!(
            reason.contains("UnknownIssuer") && reason.contains("--store-tls-ca"),
            "{reason}"
        );
    }
    for (name, reason) in [
        ("absent.pem", "--store-tls-ca"),
        ("ca-key.pem", "--store-tls-ca"),
    ] {
        std::fs::write(folder.path().join("ca-key.pem"), "no certificate").expect("written");
        let output = kvpoc(&format!(
            "inspect --store {url} --store-tls-ca {}",
            file(name)
        ));
        assert_eq!(output.status.code(), Some(69), "{}", stdout(&output));
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
}

#[test]
fn keys_are_read_over_a_connection_of_their_own_with_tls_too() {
    let folder = certificates();
    let (server, port, login) = tls_server(folder.path(), "no");
    let ca = folder.path().join("ca.pem").display().to_string();
    let url = format!("rediss://localhost:{port}");
    let trusted = format!("--store-tls-ca {ca} {login}");
    seed(&url, 2_000, &trusted);
    for (way, connections) in [("direct", 2), ("fred", 1)] {
        let serve = Serve::start(
            &url,
            &format!("--threads 1 --store-reads {way} --allow-writes {trusted}"),
        );
        assert_eq!(serve.get("/user/session/7").json()["id"], 7);
        // Many records of TLS in either direction, and pieces of them.
        let value = vec![b'x'; 1_000_000];
        assert_eq!(serve.request("PUT", "/v1/keys/large", &value).status, 204);
        assert!(serve.get("/v1/keys/large").body == value);
        let ids: Vec<String> = (0..100).map(|id| id.to_string()).collect();
        let found = serve.get(&format!("/user/sessions?ids={}", ids.join(",")));
        let found = found.json();
        let found = found["sessions"]
            .as_array()
            .or(found.as_array())
            .map(Vec::len);
        assert_eq!(found, Some(100), "{way}");
        // One more has had its look at the store when serve began.
        let list = server.ask("CLIENT LIST");
        let encrypted = format!("laddr=127.0.0.1:{port} ");
        let inside = list.lines().filter(|line| line.contains(&encrypted));
        assert_eq!(inside.count(), 1 + connections, "{way}: {list}");
    }
}

#[test]
fn a_store_that_asks_for_a_certificate_is_shown_one() {
    let folder = certificates();
    let (_server, port, _) = tls_server(folder.path(), "yes");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let url = format!("rediss://127.0.0.1:{port}");
    let trusted = format!("--store-tls-ca {}", file("ca.pem"));
    let shown = format!(
        "{trusted} --store-tls-cert {} --store-tls-key {}",
        file("client.pem"),
        file("client-key.pem")
    );
    seed(&url, 100, &format!("--verify {shown}"));
    let output = kvpoc(&format!("inspect --store {url} {trusted}"));
    assert_eq!(output.status.code(), Some(69), "{}", stdout(&output));
}

const PASSWORD: &str = "hidden%horse";

/// Runs a line with the password in its variable.
fn with_password(line: &str, password: &str) -> Output {
    let mut command = command(line);
    command.env("KVPOC_STORE_PASSWORD", password);
    command.output().expect("the program starts")
}

#[test]
fn a_user_is_let_in_with_its_password_which_is_printed_nowhere() {
    let server = Server::start();
    let rights = "~user:session:* ~kvpoc:dataset +@all -flushall -keys";
    let made = server.ask(&format!("ACL SETUSER loader on >{PASSWORD} {rights}"));
    assert_eq!(made, "+OK\r\n");
    assert_eq!(server.ask("ACL SETUSER default off"), "+OK\r\n");
    let url = server.url();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("{PASSWORD}\n")).expect("written");

    let line = "seed --json --verify --keys 500 --store";
    let by_variable = with_password(&format!("{line} {url} --store-user loader"), PASSWORD);
    let by_file = format!(
        "--store-user loader --store-password-file {}",
        file.path().display()
    );
    let by_file = kvpoc(&format!("{line} {url} {by_file}"));
    let in_url = url.replace("//", &format!("//loader:{}@", PASSWORD.replace('%', "%25")));
    let by_url = kvpoc(&format!("{line} {in_url}"));
    for output in [by_variable, by_file, by_url] {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let summary = json(&stdout(&output));
        assert_eq!(summary["verification"]["checked"], 500);
        assert!(!(stdout(&output) + &stderr(&output)).contains("hidden"));
    }
    for (output, reason) in [
        (
            with_password(
                &format!("inspect --store {url} --store-user loader"),
                "wrong",
            ),
            "user or password",
        ),
        (
            kvpoc(&format!("inspect --store {url}")),
            "KVPOC_STORE_PASSWORD",
        ),
    ] {
        let text = stdout(&output) + &stderr(&output);
        assert_eq!(output.status.code(), Some(69), "{text}");
        assert!(text.contains(reason) && !text.contains("hidden"), "{text}");
    }

    let serve = command(&format!(
        "serve --port 0 --store {url} --store-user loader --log debug"
    ))
    .env("KVPOC_STORE_PASSWORD", PASSWORD)
    .stdout(std::process::Stdio::piped())
    .stderr(std::process::Stdio::piped())
    .spawn();
    let serve = Serve::from_process(serve.expect("the program starts"));
    assert_eq!(serve.get("/user/session/7").json()["id"], 7);
    // What the user may not touch is refused, and told without a word about who we are.
    let refused = serve.get("/v1/keys/somebody:else");
    assert_eq!(refused.status, 502, "{refused:?}");
    let told = refused.text() + &serve.get("/metrics").text() + &serve.get("/stats").text();
    assert!(!told.contains("hidden"), "{told}");
    serve.process.signal(rustix::process::Signal::TERM);
    let log = serve.log_to_its_end();
    assert!(!log.contains("hidden"), "{log}");
}

#[test]
fn the_connection_that_reads_is_let_in_to_the_same_database() {
    for (way, connections) in [("direct", 2), ("fred", 1)] {
        let server = Server::start();
        let url = server.url() + "/3";
        seed(&url, 10, "");
        let password = server.ask(&format!("CONFIG SET requirepass {PASSWORD}"));
        assert_eq!(password, "+OK\r\n");
        let line = format!("serve --port 0 --threads 1 --store {url} --store-reads {way}");
        let serve = command(&line)
            .env("KVPOC_STORE_PASSWORD", PASSWORD)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let serve = Serve::from_process(serve.expect("the program starts"));
        assert_eq!(serve.get("/user/session/7").json()["id"], 7);
        // One more has had its look at the store when serve began.
        let list = server.ask_as(PASSWORD, "CLIENT LIST");
        let inside = list.lines().filter(|line| line.contains("db=3")).count();
        assert_eq!(inside, 1 + connections, "{way}: {list}");
    }
}

#[test]
fn no_secret_is_in_any_output_log_report_or_metric() {
    const TOKEN: &str = "hidden-horses-token";
    let server = Server::start();
    assert_eq!(
        server.ask(&format!("CONFIG SET requirepass {PASSWORD}")),
        "+OK\r\n"
    );
    let url = server.url();
    let folder = tempfile::tempdir().expect("a folder");
    let reports = folder.path().display();
    let secret = |line: &str| {
        let mut command = command(line);
        command.env("KVPOC_STORE_PASSWORD", PASSWORD);
        command.env("KVPOC_TOKEN", TOKEN);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut told = String::new();
    let mut tell = |line: String| {
        let output = secret(&line).output().expect("it runs");
        // Slow machines miss rates, and one of these asks for what cannot be.
        assert_ne!(output.status.code(), None, "{line}");
        let text = stdout(&output) + &stderr(&output);
        assert!(!text.is_empty(), "{line}");
        told.extend([&text, "\n"]);
    };
    tell(format!("seed --keys 1000 --verify --store {url}"));
    tell(format!(
        "seed --keys 1000 --verify-only --json --store {url}"
    ));
    tell(format!("inspect --store {url}"));
    tell(format!("inspect user:session:7 --json --store {url}"));
    let in_url = format!("redis://user:{}@127.0.0.1", PASSWORD.replace('%', "%25"));
    tell(format!("seed --keys 1000 --store {in_url}:0x"));
    tell(format!("inspect --store {in_url}:1 --store-timeout 200ms"));
    let logged = "--log trace --access-log 1 --log-format json";
    // A pipe would be full before anybody reads it.
    let log = tempfile::NamedTempFile::new().expect("a file");
    let serve = secret(&format!("serve --port 0 --store {url} {logged}"))
        .stderr(log.reopen().expect("the same file"))
        .spawn()
        .expect("it starts");
    let mut serve = Serve::from_process(serve);
    let load = "--rps 300 --duration 1s --warmup 100ms --tick 1ms";
    let target = serve.url();
    tell(format!("bench --target {target} {load} --out {reports}"));
    tell(format!(
        "bench --target {target} --store {url} --layers {load} --json -"
    ));
    let bearer = format!("authorization: Bearer {TOKEN}");
    for page in [
        "/",
        "/dashboard.json",
        "/metrics",
        "/stats",
        "/openapi.json",
    ] {
        let reply = serve.ask("GET", page, &[&bearer], b"");
        assert_eq!(reply.status, 200, "{page}");
        told.extend([&reply.head, "\n", &reply.text(), "\n"]);
    }
    told += &serve.get("/stats").text();
    serve.process.signal(rustix::process::Signal::TERM);
    assert_eq!(serve.process.ended(), Some(0));
    let log = std::fs::read_to_string(log.path()).expect("text");
    assert!(
        log.contains("TRACE") && log.contains("/user/sessions"),
        "{log}"
    );
    told += &log;
    let files = std::fs::read_dir(folder.path()).expect("reports");
    let files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        told += &String::from_utf8_lossy(&std::fs::read(&file).expect("a report"));
    }
    for line in told.lines() {
        // The password in its plain form and in that of a URL.
        assert!(!line.contains("hidden%") && !line.contains(TOKEN), "{line}");
    }
}

#[test]
fn a_store_behind_sentinels_is_found_again_after_its_master_dies() {
    for way in ["direct", "fred"] {
        a_master_dies_behind_sentinels(way);
    }
}

fn a_master_dies_behind_sentinels(way: &str) {
    let (mut master, replica, sentinel, _settings) = behind_a_sentinel();
    let url = format!("redis-sentinel://127.0.0.1:{}/mine", sentinel.port);
    let serve = Serve::start(
        &url,
        &format!("--threads 1 --allow-writes --fetch mget --store-reads {way}"),
    );
    assert_eq!(serve.get("/user/session/7").json()["id"], 7);
    // fred asks a master for its role first, and then nothing more where another connection reads.
    let unread = master.clients_whose_last_command_is("role").len();
    if !master.engine.is_dragonfly() {
        assert_eq!(unread, usize::from(way == "direct"), "{way}");
    }
    master.kill();
    eventually("the new master", || {
        (serve.get("/user/session/7").status == 200).then_some(())
    });
    let put = || serve.request("PUT", "/v1/keys/new", b"x").status;
    eventually("a write", || (put() == 204).then_some(()));
    assert_eq!(replica.ask("EXISTS new"), ":1\r\n");
    let summary = seed(&url, 1_000, "--resume --verify");
    assert_eq!(summary["verification"]["checked"], 1_000);
}

#[test]
fn keys_are_read_again_after_a_master_behind_sentinels_has_frozen() {
    let (master, replica, sentinel, _settings) = behind_a_sentinel();
    let url = format!("redis-sentinel://127.0.0.1:{}/mine", sentinel.port);
    let serve = Serve::start(&url, "");
    assert_eq!(serve.get("/user/session/7").status, 200);
    master.process().signal(rustix::process::Signal::STOP);
    let status = || serve.get("/user/session/7").status;
    eventually("an error", || (status() != 200).then_some(()));
    eventually("the new master", || (status() == 200).then_some(()));
    assert!(replica.ask("ROLE").contains("master"));
}

/// A master with a thousand records, its replica, and who watches them, with the folder of its settings.
fn behind_a_sentinel() -> (Server, Server, Server, TempDir) {
    let master = Server::start();
    let settings = match master.engine {
        Engine::Dragonfly => format!("--replicaof 127.0.0.1:{}", master.port),
        Engine::Valkey | Engine::Redis => format!(
            "--replicaof 127.0.0.1 {} --repl-diskless-sync-delay 0",
            master.port
        ),
    };
    let replica = Server::start_on(master.engine, &settings);
    seed(&master.url(), 1_000, "");
    eventually("the replica to have all", || {
        (replica.ask("DBSIZE") == ":1001\r\n").then_some(())
    });

    let folder = tempfile::tempdir().expect("a folder");
    let (file, port) = (folder.path().join("sentinel.conf"), free_port());
    let settings = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor mine 127.0.0.1 {} 1\n\
         sentinel down-after-milliseconds mine 500\nsentinel failover-timeout mine 3000\n",
        master.port
    );
    std::fs::write(&file, settings).expect("written");
    let sentinel = Server::sentinel(&file, port);
    eventually("the sentinel to know the replica", || {
        let known = sentinel.ask("SENTINEL REPLICAS mine");
        known.contains(&replica.port.to_string()).then_some(())
    });
    (master, replica, sentinel, folder)
}
