//! The stores that the tests run against: server processes on free ports of loopback, and folders.
//!
//! Enters: an [`Engine`] and settings. Leaves: a store that answers, and ends with its test. Must not take a port that
//! somebody else has.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::engine::Engine;
use crate::support::{Process, eventually, free_port};

/// A store to test against.
pub(crate) enum Store {
    /// A server process.
    Server(Server),
    /// A folder.
    Embedded(TempDir),
}

impl Store {
    /// One of each kind.
    pub(crate) fn all() -> [Self; 2] {
        [
            Self::Server(Server::start()),
            Self::Embedded(tempfile::tempdir().expect("a folder")),
        ]
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Server(server) => server.url(),
            Self::Embedded(folder) => format!("embedded:{}", folder.path().display()),
        }
    }
}

/// A server of the Redis protocol on a free port of loopback.
pub(crate) struct Server {
    pub(crate) engine: Engine,
    pub(crate) port: u16,
    folder: TempDir,
    settings: Vec<String>,
    process: Option<Process>,
}

impl Server {
    /// Of the engine that the tests run on.
    pub(crate) fn start() -> Self {
        Self::start_on(Engine::here(), "")
    }

    /// A Valkey or Redis, whatever the tests run on, with settings of its own, each `--name value`.
    pub(crate) fn start_with(settings: &str) -> Self {
        Self::start_on(Engine::redis_like(), settings)
    }

    /// With settings in the words of this engine.
    pub(crate) fn start_on(engine: Engine, settings: &str) -> Self {
        Self::start_at(free_port(), engine, settings)
    }

    fn start_at(port: u16, engine: Engine, settings: &str) -> Self {
        let mut server = Self {
            engine,
            port,
            folder: tempfile::tempdir().expect("a folder"),
            settings: settings.split_whitespace().map(str::to_owned).collect(),
            process: None,
        };
        server.start_again();
        server
    }

    /// One that keeps nothing by itself, as `scripts/dragonfly` and `config/compose.yaml` start it.
    pub(crate) fn without_persistence() -> Self {
        let engine = Engine::here();
        Self::start_on(engine, engine.without_persistence())
    }

    /// One that removes keys where there is no room, once [`Server::limit_memory`] has said so.
    pub(crate) fn evicting() -> Self {
        let engine = Engine::here();
        let policy = match engine {
            Engine::Dragonfly => "--cache_mode=true".to_owned(),
            Engine::Valkey | Engine::Redis => {
                format!("--maxmemory-policy {}", engine.evicting_policy())
            }
        };
        let settings = format!("{} {policy}", engine.without_persistence());
        Self::start_on(engine, &settings)
    }

    /// One that takes so many µs longer for each command of its log, where there is one.
    pub(crate) fn slow_to_load(more_us: u32) -> Self {
        let engine = Engine::here();
        let settings = match engine {
            Engine::Dragonfly => String::new(),
            Engine::Valkey | Engine::Redis => format!("--key-load-delay {more_us}"),
        };
        Self::start_on(engine, &settings)
    }

    /// A Dragonfly that has TLS on this port, while the port that the tests ask is that of its administrator.
    pub(crate) fn behind_tls(port: u16, settings: &str) -> Self {
        let own = free_port();
        Self::start_at(
            own,
            Engine::Dragonfly,
            &format!("--port {port} --admin_port {own} {settings}"),
        )
    }

    /// A sentinel on `port`, by its own settings file, which it writes to.
    pub(crate) fn sentinel(settings: &Path, port: u16) -> Self {
        let engine = Engine::redis_like();
        let mut command = Command::new(engine.program());
        command
            .arg(settings)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let sentinel = Self {
            engine,
            port,
            folder: tempfile::tempdir().expect("a folder"),
            settings: Vec::new(),
            process: Some(Process(command.spawn().expect("the sentinel starts"))),
        };
        sentinel.answers();
        sentinel
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().expect("the server runs")
    }

    /// SIGKILL, as a crash.
    pub(crate) fn kill(&mut self) {
        self.process = None;
        // The kernel closes what belongs to an io_uring a moment after the end of its process.
        eventually("its port to be closed", || {
            TcpStream::connect(("127.0.0.1", self.port))
                .is_err()
                .then_some(())
        });
    }

    /// What it holds now is there again after a kill, unless it was started without persistence.
    pub(crate) fn keep(&self) {
        if self.engine.is_dragonfly() {
            self.save();
        }
    }

    /// Writes a snapshot, which it begins with when it is started again.
    pub(crate) fn save(&self) {
        let line = match self.engine {
            Engine::Dragonfly => "SAVE DF",
            Engine::Valkey | Engine::Redis => "SAVE",
        };
        assert_eq!(self.ask(line), "+OK\r\n");
    }

    /// What a killed server would find when it is started again is gone.
    pub(crate) fn lose_data(&self) {
        for file in std::fs::read_dir(self.folder.path()).expect("its folder") {
            let path = file.expect("a file").path();
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(path)
            } else {
                std::fs::remove_file(path)
            };
            removed.expect("it is removed");
        }
    }

    /// So much memory, and no key more; without a number, enough for all.
    pub(crate) fn limit_memory(&self, limit: Option<&str>) {
        let limit = limit.unwrap_or(self.engine.no_limit());
        let line = format!("CONFIG SET maxmemory {limit}");
        assert_eq!(self.ask(&line), "+OK\r\n", "{line}");
    }

    /// In the place of the killed server, waits for somebody who connects, and sends them away.
    pub(crate) fn refuse_one_connection(&self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).expect("the port is free");
        listener.set_nonblocking(true).expect("a socket");
        eventually("a connection", || listener.accept().ok());
    }

    pub(crate) fn start_again(&mut self) {
        self.begin_again();
        self.answers();
    }

    /// Starts it, and does not wait until it answers.
    pub(crate) fn begin_again(&mut self) {
        let mut command = Command::new(self.engine.program());
        command
            .args(self.engine.flags(self.port, self.folder.path()))
            .args(&self.settings)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.process = Some(Process(command.spawn().expect("the store starts")));
    }

    fn answers(&self) {
        eventually("the store's answer", || {
            (self.ask("PING") == "+PONG\r\n").then_some(())
        });
    }

    /// The ids of the clients that asked for this last, as Redis and Valkey tell.
    pub(crate) fn clients_whose_last_command_is(&self, command: &str) -> Vec<u64> {
        let list = self.ask("CLIENT LIST");
        list.lines()
            .filter(|line| field(line, "cmd=") == Some(command))
            .filter_map(|line| field(line, "id=")?.parse().ok())
            .collect()
    }

    /// The ids of the clients by which serve reads while `read` asks it for keys by MGET, 20 times or more.
    pub(crate) fn clients_that_read(&self, mut read: impl FnMut()) -> Vec<u64> {
        if !self.engine.is_dragonfly() {
            read();
            return self.clients_whose_last_command_is("mget");
        }
        // It does not tell what a client asked for last, but how often it asked.
        let before = self.commands_by_client();
        read();
        let asked_by = |id: u64| {
            let before = before.iter().find(|(client, _)| *client == id);
            before.map_or(0, |&(_, commands)| commands)
        };
        let clients = self.commands_by_client().into_iter();
        clients
            .filter(|&(id, commands)| commands >= asked_by(id) + 10)
            .map(|(id, _)| id)
            .collect()
    }

    fn commands_by_client(&self) -> Vec<(u64, u64)> {
        let list = self.ask("CLIENT LIST");
        let clients = list.lines().filter_map(|line| {
            let id = field(line, "id=")?.parse().ok()?;
            Some((id, field(line, "tot-cmds=")?.parse().ok()?))
        });
        clients.collect()
    }

    /// Sends one inline command, and gives the answer: the first bytes, or all of a text.
    pub(crate) fn ask(&self, line: &str) -> String {
        self.exchange("", format!("{line}\r\n").as_bytes())
    }

    /// The same of words that may hold spaces and quotes, which not every engine reads alike in a line.
    pub(crate) fn ask_words(&self, words: &[&str]) -> String {
        let word = |word: &&str| format!("${}\r\n{word}\r\n", word.len());
        let all: String = words.iter().map(word).collect();
        self.exchange("", format!("*{}\r\n{all}", words.len()).as_bytes())
    }

    /// The same for whoever knows the password.
    pub(crate) fn ask_as(&self, password: &str, line: &str) -> String {
        let login = format!("AUTH {password}\r\n");
        self.exchange(&login, format!("{line}\r\n").as_bytes())
    }

    fn exchange(&self, login: &str, command: &[u8]) -> String {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            if !login.is_empty() {
                stream.write_all(login.as_bytes())?;
                let mut ok = [0; 5];
                stream.read_exact(&mut ok)?;
            }
            stream.write_all(command)?;
            let mut answer = vec![0; 4_096];
            let length = stream.read(&mut answer)?;
            answer.truncate(length);
            let head = String::from_utf8_lossy(&answer).into_owned();
            let text_length = head.strip_prefix('$').and_then(|rest| {
                let (length, _) = rest.split_once("\r\n")?;
                length
                    .parse::<usize>()
                    .ok()
                    .map(|text| 1 + length.len() + 4 + text)
            });
            let missing = text_length.unwrap_or(0).saturating_sub(answer.len());
            if missing > 0 {
                let mut rest = vec![0; missing];
                stream.read_exact(&mut rest)?;
                answer.extend(rest);
            }
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        ask().unwrap_or_default()
    }
}

/// A field of a line of CLIENT LIST.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = line.split_whitespace();
    fields.find_map(|field| field.strip_prefix(name))
}
