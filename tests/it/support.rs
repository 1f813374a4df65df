//! Processes, files and requests that the tests share. What a test starts ends with it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use crate::server::{Server, Store};

/// No step of any test takes this long, whatever the machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Polls until `found` gives something.
pub(crate) fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "never came: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The built program with a line of arguments, deaf to the settings of whoever runs the tests.
pub(crate) fn command(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvpoc"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KVPOC_") {
            command.env_remove(name);
        }
    }
    command.args(line.split_whitespace()).stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub(crate) fn kvpoc(line: &str) -> Output {
    command(line).output().expect("the program starts")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs the program, expects this exit code, and gives what it printed on standard output.
pub(crate) fn expect_code(line: &str, code: i32) -> String {
    let output = kvpoc(line);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{line}: {}{}",
        stdout(&output),
        stderr(&output)
    );
    stdout(&output)
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Loads keys, and gives the summary.
pub(crate) fn seed(store: &str, keys: u64, more: &str) -> Value {
    let line = format!("seed --json --store {store} --keys {keys} {more}");
    json(&expect_code(&line, 0))
}

/// Starts the program in the background, its standard output in a pipe.
pub(crate) fn start(line: &str) -> Process {
    let mut command = command(line);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    Process(command.spawn().expect("the program starts"))
}

/// As [`start`], and waits until a line on standard error contains `text`, which is given back.
pub(crate) fn start_until(line: &str, text: &str) -> (Process, String) {
    let mut command = command(line);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process(command.spawn().expect("the program starts"));
    let pipe = process.0.stderr.take().expect("a pipe");
    let (said, hears) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Read to its end, so that the program never waits for us.
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = said.send(line);
        }
    });
    let (started, mut before) = (Instant::now(), String::new());
    let line = loop {
        let left = PATIENCE.saturating_sub(started.elapsed());
        match hears.recv_timeout(left) {
            Ok(line) if line.contains(text) => break line,
            Ok(line) => before += &(line + "\n"),
            Err(error) => panic!("never came: {text}: {error}; before: {before}"),
        }
    };
    (process, line)
}

/// A process that is killed at the end of its test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.0.id()).expect("a pid");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }

    /// All that it prints on standard output from here to its end.
    pub(crate) fn output(&mut self) -> String {
        let mut text = String::new();
        let pipe = self.0.stdout.as_mut().expect("a pipe");
        pipe.read_to_string(&mut text).expect("text");
        text
    }

    /// The exit code, once it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        eventually("the end of a process", || self.0.try_wait().expect("wait")).code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every way in which serve reads keys from a single server.
pub(crate) const WAYS_TO_READ: [&str; 4] = [
    "--fetch mget",
    "--fetch pipeline",
    "--fetch mget --store-reads fred",
    "--fetch pipeline --store-reads fred",
];

/// A port that nobody listens on, another one each time. The kernel gives none of these to whoever connects: such a
/// connection could have it before its server begins to listen.
pub(crate) fn free_port() -> u16 {
    const PORTS: std::ops::Range<u32> = 12_000..32_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Two suites at once seldom begin at the same place.
    let first = std::process::id().wrapping_mul(7_919);
    loop {
        let next = first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = (PORTS.start + next % (PORTS.end - PORTS.start)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// So many connections, or as many as this process may hold its ends of beside all else.
pub(crate) fn connections_to_have(wanted: u64) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let _ = setrlimit(Resource::Nofile, raised);
    let files = limit.maximum.unwrap_or(u64::MAX);
    wanted.min(files.saturating_sub(1_000)) as usize
}

/// A running `kvpoc serve` on a free port.
pub(crate) struct Serve {
    pub(crate) address: SocketAddr,
    /// Where it answers only for its health, if it does.
    pub(crate) health: Option<SocketAddr>,
    pub(crate) process: Process,
}

impl Serve {
    pub(crate) fn start(store: &str, more: &str) -> Self {
        Self::of(start(&format!("serve --port 0 --store {store} {more}")))
    }

    /// One whose outputs are pipes.
    pub(crate) fn from_process(child: Child) -> Self {
        Self::of(Process(child))
    }

    fn of(mut process: Process) -> Self {
        let mut line = String::new();
        let pipe = process.0.stdout.take().expect("a pipe");
        BufReader::new(pipe).read_line(&mut line).expect("a line");
        let address = line
            .split_once("http://")
            .and_then(|(_, rest)| rest.split_once(' '))
            .and_then(|(address, _)| address.parse().ok())
            .unwrap_or_else(|| panic!("no address in {line:?}"));
        let mut address: SocketAddr = address;
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let health = line.rsplit_once("; health http://");
        let health = health.map(|(_, rest)| {
            let health = rest.trim_end().trim_end_matches(')');
            health.parse().expect("an address")
        });
        Self {
            address,
            health,
            process,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that it logs until its end.
    pub(crate) fn log_to_its_end(mut self) -> String {
        let mut log = String::new();
        let pipe = self.process.0.stderr.as_mut().expect("a pipe");
        pipe.read_to_string(&mut log).expect("text");
        log
    }

    pub(crate) fn get(&self, target: &str) -> Reply {
        self.request("GET", target, &[])
    }

    pub(crate) fn request(&self, method: &str, target: &str, body: &[u8]) -> Reply {
        self.ask(method, target, &[], body)
    }

    /// A body that says that it is JSON.
    pub(crate) fn post(&self, target: &str, body: &Value) -> Reply {
        let headers = ["content-type: application/json"];
        self.ask("POST", target, &headers, body.to_string().as_bytes())
    }

    /// With headers of its own, each `name: value`.
    pub(crate) fn ask(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Reply {
        let headers = [headers, &["connection: close", ""]].concat().join("\r\n");
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat())
    }

    /// Asks on a connection of its own, and leaves the answer in it.
    pub(crate) fn start_get(&self, target: &str) -> TcpStream {
        let head = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        self.start_send(head.as_bytes())
    }

    /// Sends these bytes on a connection of their own, and reads to its end.
    pub(crate) fn send(&self, bytes: &[u8]) -> Reply {
        Reply::read(self.start_send(bytes))
    }

    fn start_send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("serve accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(bytes).expect("serve reads");
        stream
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// Reads an answer to the end of its connection.
    pub(crate) fn read(mut stream: TcpStream) -> Self {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("serve answers");
        Self::parse(&answer)
    }

    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head in {text:?}"));
        let status = text
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Self {
            status: status.expect("a status"),
            head: String::from_utf8_lossy(&bytes[..end]).to_lowercase(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        json(&self.text())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value, in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let start = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&start))
    }
}

/// Reads a JSON file that the program wrote.
pub(crate) fn json_file(path: &Path) -> Value {
    json(&std::fs::read_to_string(path).expect("the file was written"))
}

/// The books of a run balance, and every arrival has its latency.
pub(crate) fn assert_balanced(results: &Value) {
    let count = |name: &str| results["requests"][name].as_u64().expect(name);
    assert_eq!(
        count("scheduled"),
        count("sent") + count("unsent"),
        "{results}"
    );
    let ended = count("ok") + count("errors") + count("timeouts") + count("in_flight");
    assert_eq!(count("sent"), ended, "{results}");
    assert_eq!(
        results["latency_us"]["count"],
        count("scheduled"),
        "{results}"
    );
}
