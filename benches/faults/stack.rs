//! A store, the network before it, serve, and a writer that notes what was acknowledged to it.
//!
//! Enters: a seed. Leaves: draws, faults on command, and what the store holds, asked for behind serve's back. Must not judge.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kvpoc::random::{below, splitmix64};

use crate::proxy::Proxy;
use crate::support::{PATIENCE, Serve, Server, seed};

/// What serve may hold: 32 MiB of bodies and answers, and itself.
pub(crate) const MOST_MEMORY_KIB: u64 = 96 * 1024;
/// Keys of the dataset that each life of the store begins with.
pub(crate) const FIRST_KEYS: u64 = 20_000;
/// Keys asked for in one command.
const BATCH: usize = 500;

/// All that runs from the first round to the last.
pub(crate) struct Stack {
    pub(crate) store: Server,
    pub(crate) proxy: Proxy,
    pub(crate) serve: Arc<Serve>,
    pub(crate) writer: Writer,
    pub(crate) folder: tempfile::TempDir,
    /// The dataset, as far as it is complete.
    pub(crate) keys: u64,
    seed: u64,
    drawn: u64,
}

impl Stack {
    pub(crate) fn start(from: u64) -> Self {
        // What it acknowledged has to survive a kill, which needs the log of a Redis or Valkey.
        let store = Server::start_with("");
        let proxy = Proxy::before(store.port);
        let line = "--threads 2 --allow-writes --max-held 32MiB";
        let serve = Arc::new(Serve::start(&proxy.url(), line));
        seed(&store.url(), FIRST_KEYS, "");
        Self {
            writer: Writer::start(serve.clone()),
            store,
            proxy,
            serve,
            folder: tempfile::tempdir().expect("a folder"),
            keys: FIRST_KEYS,
            seed: from,
            drawn: 0,
        }
    }

    /// The next number of the sequence, below this bound.
    pub(crate) fn draw(&mut self, bound: u64) -> u64 {
        self.drawn += 1;
        below(splitmix64(self.seed, self.drawn), bound)
    }

    pub(crate) fn draw_ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.draw(to - from))
    }

    /// The most memory that serve ever held.
    pub(crate) fn peak_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.serve.process.0.id());
        let status = std::fs::read_to_string(path).expect("serve runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        number.expect("a number")
    }

    /// How many of the keys of the dataset's indexes are there.
    pub(crate) fn held(&self, indexes: u64) -> u64 {
        let keys: Vec<String> = (0..indexes)
            .map(|index| format!("user:session:{index}"))
            .collect();
        let mut held = 0;
        let mut store = self.connect();
        for keys in keys.chunks(BATCH) {
            send(&mut store, "EXISTS", keys);
            let count = line(&mut store);
            let count = count
                .strip_prefix(':')
                .and_then(|count| count.parse::<u64>().ok());
            held += count.unwrap_or_else(|| panic!("no count of keys"));
        }
        held
    }

    /// The first of what was acknowledged to the writer that is not there as it was written.
    pub(crate) fn first_unkept(&self, written: &[u64]) -> Option<String> {
        let mut store = self.connect();
        for numbers in written.chunks(BATCH) {
            let keys: Vec<String> = numbers.iter().map(|number| key(*number)).collect();
            send(&mut store, "MGET", &keys);
            assert_eq!(line(&mut store), format!("*{}", keys.len()));
            for (number, key) in numbers.iter().zip(keys) {
                let head = line(&mut store);
                let found = (head != "$-1").then(|| line(&mut store));
                if found.as_deref() != Some(&*value(*number)) {
                    return Some(format!("{key} was acknowledged, and is {found:?}"));
                }
            }
        }
        None
    }

    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.store.port)).expect("the store");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        BufReader::new(stream)
    }
}

fn send(store: &mut BufReader<TcpStream>, command: &str, keys: &[String]) {
    let words = std::iter::once(command).chain(keys.iter().map(String::as_str));
    let words = words.map(|word| format!("${}\r\n{word}\r\n", word.len()));
    let bytes = format!("*{}\r\n{}", keys.len() + 1, words.collect::<String>());
    store
        .get_mut()
        .write_all(bytes.as_bytes())
        .expect("the store reads");
}

fn line(store: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    store.read_line(&mut line).expect("the store answers");
    line.trim_end().to_owned()
}

fn key(number: u64) -> String {
    format!("written:{number}")
}

fn value(number: u64) -> String {
    format!("value {number}")
}

/// A thread that writes one key after the other through serve, each once.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Which life of the store it is; rises while none runs.
    life: AtomicU64,
    /// In which life each number was sent that was acknowledged.
    acknowledged: Mutex<Vec<(u64, u64)>>,
    ever: AtomicU64,
    is_over: AtomicBool,
}

impl Writer {
    fn start(serve: Arc<Serve>) -> Self {
        let shared: Arc<Shared> = Arc::default();
        let of_thread = shared.clone();
        let thread = std::thread::spawn(move || of_thread.write(&serve));
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// What was acknowledged so far, and was sent in this life of the store.
    pub(crate) fn acknowledged(&self) -> Vec<u64> {
        let life = self.shared.life.load(Ordering::SeqCst);
        let all = self.shared.lock();
        let of_life = all.iter().filter(|(sent_in, _)| *sent_in == life);
        of_life.map(|(_, number)| *number).collect()
    }

    pub(crate) fn acknowledged_ever(&self) -> u64 {
        self.shared.ever.load(Ordering::SeqCst)
    }

    /// The store is empty from here on.
    pub(crate) fn begin_life(&self) {
        self.shared.life.fetch_add(1, Ordering::SeqCst);
        self.shared.lock().clear();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(u64, u64)>> {
        self.acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, serve: &Serve) {
        for number in 0.. {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            let life = self.life.load(Ordering::SeqCst);
            let target = format!("/v1/keys/{}", key(number));
            let status = serve
                .request("PUT", &target, value(number).as_bytes())
                .status;
            if status == 204 {
                self.lock().push((life, number));
                self.ever.fetch_add(1, Ordering::SeqCst);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "serve never recovered");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All that a process has said on standard output, and its exit code.
pub(crate) fn ended(process: &mut crate::support::Process) -> (Option<i32>, String) {
    let code = process.ended();
    let mut text = String::new();
    if let Some(pipe) = process.0.stdout.as_mut() {
        let _ = pipe.read_to_string(&mut text);
    }
    (code, text)
}
