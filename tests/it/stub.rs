//! A target whose right answer is known: what it does with each request is said beforehand.
//!
//! Enters: a [`Mode`], or an answer. Leaves: a server on a free port of loopback, and what it was asked. Must not do anything
//! by chance but by its seed, nor need more of the machine than its answers.

use std::cell::{Cell, RefCell};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream as BlockingStream};
use std::rc::Rc;
use std::str::FromStr;
use std::sync::mpsc;
use std::time::Duration;

use kvpoc::random::{Draws, chance, splitmix64};
use rand_distr::{Distribution as _, Exp, LogNormal, StandardNormal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// What `GET /stats` tells: a dataset of 1,000 keys in a store with these counters.
fn stats(key_reads: u64, commands: u64) -> String {
    format!(
        r#"{{"engine":"stub","total_keys":1001,"key_reads":{key_reads},"commands_processed":{commands},"dataset":{{"keys":1000,"key_prefix":"user:session:","value_size":256,"seed":1,"record_version":1}}}}"#
    )
}

/// Between two runs nothing is asked for longer than this, and within one never.
const BETWEEN_RUNS: Duration = Duration::from_millis(300);

/// What the target does with a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    /// Answers after so many seconds, however many at once.
    Constant(f64),
    /// After an exponential time of this mean.
    Exponential(f64),
    /// After a lognormal time of this median and spread.
    Lognormal(f64, f64),
    /// The same, with a median that each run multiplies by a lognormal factor of this spread: median, spread within a run,
    /// spread from run to run, seed.
    Noisy(f64, f64, f64, u64),
    /// After so many seconds, and one in a hundred after a hundred times as many.
    Bimodal(f64),
    /// First in, first out, so many seconds each.
    Queue(f64),
    /// Last in, first out, so many seconds each.
    Newest(f64),
    /// After so many seconds, and from a moment on, in seconds since the first request, after others.
    Step(f64, f64, f64),
    /// At once, but for a pause: from a moment on, in seconds since the first request, for so many seconds.
    Pause(f64, f64),
    /// After so many seconds; from a moment on, in seconds since the first request, there is no such server.
    Leaves(f64, f64),
    /// Every so manieth answer after so many seconds, the others at once.
    Every(u64, f64),
    /// Every so manieth answer is a 503.
    Errors(u64),
    /// This body, whatever is asked for.
    Body(&'static str),
    /// The sessions that are asked for, of which it knows no more than the ids.
    Ids,
    /// The same, by a store that tells no counters once it was asked for one.
    NoCounters,
    /// The same, by a store that counts from 0 again.
    ResetCounters,
}

/// `exponential 0.05`, as on a command line.
impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let numbers: Vec<f64> = words.flat_map(str::parse).collect();
        match (name, &numbers[..]) {
            ("constant", [seconds]) => Ok(Self::Constant(*seconds)),
            ("exponential", [mean]) => Ok(Self::Exponential(*mean)),
            ("lognormal", [median, sigma]) => Ok(Self::Lognormal(*median, *sigma)),
            ("noisy", [median, sigma, spread, seed]) => {
                Ok(Self::Noisy(*median, *sigma, *spread, *seed as u64))
            }
            ("bimodal", [seconds]) => Ok(Self::Bimodal(*seconds)),
            ("queue", [seconds]) => Ok(Self::Queue(*seconds)),
            ("newest", [seconds]) => Ok(Self::Newest(*seconds)),
            ("step", [before, after, at]) => Ok(Self::Step(*before, *after, *at)),
            _ => Err(format!(
                "{text:?} is none of constant S, exponential S, lognormal S SIGMA, noisy S SIGMA SPREAD SEED, bimodal S, queue S, newest S, step S S S"
            )),
        }
    }
}

/// Serves for as long as the process lives, on a thread of its own.
pub(crate) fn start(mode: Mode) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())
            .expect("a runtime");
        runtime.block_on(serve(listener, mode));
    });
    address
}

/// What all connections share.
struct Target {
    mode: Mode,
    count: Cell<u64>,
    /// When the queue is empty.
    free_at: Cell<Instant>,
    /// When the first request came.
    began: Cell<Option<Instant>>,
    /// Which run it is, and when the last request came.
    run: Cell<(u64, Instant)>,
    /// Those that are answered newest first.
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
    comes: Notify,
    leaves: Notify,
}

async fn serve(listener: TcpListener, mode: Mode) {
    listener.set_nonblocking(true).expect("a socket");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    let target = Rc::new(Target {
        mode,
        count: Cell::new(0),
        free_at: Cell::new(Instant::now()),
        began: Cell::new(None),
        run: Cell::new((0, Instant::now())),
        waiting: RefCell::default(),
        comes: Notify::new(),
        leaves: Notify::new(),
    });
    if let Mode::Newest(seconds) = mode {
        tokio::task::spawn_local(newest_first(target.clone(), seconds));
    }
    loop {
        let (stream, _) = tokio::select! {
            Ok(accepted) = listener.accept() => accepted,
            () = target.leaves.notified() => return,
        };
        let _ = stream.set_nodelay(true);
        tokio::task::spawn_local(answer_all(target.clone(), stream));
    }
}

async fn answer_all(target: Rc<Target>, mut stream: TcpStream) {
    let mut request = [0; 4_096];
    // One request at a time is all that a connection ever carries.
    while let Ok(length @ 1..) = stream.read(&mut request).await {
        if request[..length].starts_with(b"GET /stats") {
            let _ = stream.write_all(target.tell().as_bytes()).await;
            continue;
        }
        if matches!(target.mode, Mode::Leaves(_, at) if target.since_first() >= at) {
            return target.leaves.notify_one();
        }
        if let Mode::Newest(_) = target.mode {
            let (turn, comes) = oneshot::channel();
            target.waiting.borrow_mut().push(turn);
            target.comes.notify_one();
            let _ = comes.await;
        } else {
            tokio::time::sleep_until(target.answers_at()).await;
        }
        let answer = target.answer(&request[..length]);
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Serves one at a time.
async fn newest_first(target: Rc<Target>, seconds: f64) {
    let mut free_at = Instant::now();
    loop {
        let Some(turn) = target.waiting.borrow_mut().pop() else {
            target.comes.notified().await;
            free_at = free_at.max(Instant::now());
            continue;
        };
        free_at += Duration::from_secs_f64(seconds);
        tokio::time::sleep_until(free_at).await;
        let _ = turn.send(());
    }
}

impl Target {
    fn since_first(&self) -> f64 {
        let began = self.began.get().unwrap_or_else(Instant::now);
        self.began.set(Some(began));
        began.elapsed().as_secs_f64()
    }

    /// By how much slower the run is that goes on.
    fn factor_of_run(&self, spread: f64, seed: u64) -> f64 {
        let (mut run, last) = self.run.get();
        if last.elapsed() > BETWEEN_RUNS {
            run += 1;
        }
        self.run.set((run, Instant::now()));
        let mut draws = Draws::new(splitmix64(16 * seed + 9, run));
        let deviation: f64 = StandardNormal.sample(&mut draws);
        (deviation * spread).exp()
    }

    /// When the next request is answered.
    fn answers_at(&self) -> Instant {
        let number = self.count.get();
        self.count.set(number + 1);
        let mut draws = Draws::new(splitmix64(7, number));
        let seconds = match self.mode {
            Mode::Exponential(mean) => Exp::new(1.0 / mean).expect("a mean").sample(&mut draws),
            Mode::Lognormal(median, sigma) => LogNormal::new(median.ln(), sigma)
                .expect("a spread")
                .sample(&mut draws),
            Mode::Noisy(median, sigma, spread, seed) => {
                let mut draws = Draws::new(splitmix64(16 * seed + 7, number));
                let median = median * self.factor_of_run(spread, seed);
                LogNormal::new(median.ln(), sigma)
                    .expect("a spread")
                    .sample(&mut draws)
            }
            Mode::Bimodal(seconds) if chance(splitmix64(8, number), 0.01) => seconds * 100.0,
            Mode::Constant(seconds) | Mode::Bimodal(seconds) | Mode::Leaves(seconds, _) => seconds,
            Mode::Queue(seconds) => {
                let free_at = self.free_at.get().max(Instant::now());
                let done = free_at + Duration::from_secs_f64(seconds);
                self.free_at.set(done);
                return done;
            }
            Mode::Pause(from, seconds) => {
                let since = self.since_first() - from;
                if since < 0.0 {
                    0.0
                } else {
                    (seconds - since).max(0.0)
                }
            }
            Mode::Step(before, after, at) => {
                if self.since_first() < at {
                    before
                } else {
                    after
                }
            }
            Mode::Every(nth, seconds) if (number + 1).is_multiple_of(nth) => seconds,
            _ => 0.0,
        };
        Instant::now() + Duration::from_secs_f64(seconds)
    }

    /// What it tells of itself.
    fn tell(&self) -> String {
        let was_asked = self.count.get() > 0;
        match self.mode {
            Mode::NoCounters if was_asked => http("503 Service Unavailable", ""),
            Mode::ResetCounters if was_asked => http("200 OK", &stats(1, 1)),
            _ => http("200 OK", &stats(5, 5)),
        }
    }

    fn answer(&self, request: &[u8]) -> String {
        match self.mode {
            Mode::Ids | Mode::NoCounters | Mode::ResetCounters => {
                http("200 OK", &sessions(request))
            }
            Mode::Errors(nth) if self.count.get().is_multiple_of(nth) => {
                http("503 Service Unavailable", "")
            }
            Mode::Body(body) => http("200 OK", body),
            _ => http("200 OK", "{}"),
        }
    }
}

/// Whatever ids a request asks for, and nothing but them.
fn sessions(request: &[u8]) -> String {
    let request = String::from_utf8_lossy(request);
    let ids = request
        .split("ids=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let ids = ids.unwrap_or_default().split(',');
    let sessions: Vec<String> = ids.map(|id| format!(r#"{{"id":{id}}}"#)).collect();
    format!("[{}]", sessions.join(","))
}

fn http(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// A target that answers each request by these bytes, or by closing where there are none, and shows what it was asked.
/// What is asked again on another connection is shown again.
pub(crate) fn seeing(
    answer: impl Fn(&str) -> String + Send + Clone + 'static,
) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (shows, seen) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (shows, answer) = (shows.clone(), answer.clone());
            std::thread::spawn(move || {
                while let Some(request) = whole_request(&mut stream) {
                    let answer = answer(&request);
                    let _ = shows.send(request);
                    if answer.is_empty() || stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, seen)
}

/// The next request with its body; `None` at the end of the connection.
fn whole_request(stream: &mut BlockingStream) -> Option<String> {
    let (mut bytes, mut more) = (Vec::new(), vec![0; 65_536]);
    loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let whole = end + 4 + length.unwrap_or(0_usize);
            // More would be another request, before the answer to this one.
            assert!(bytes.len() <= whole, "{head}");
            if bytes.len() == whole {
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        match stream.read(&mut more) {
            Ok(length @ 1..) => bytes.extend_from_slice(&more[..length]),
            _ => return None,
        }
    }
}

/// An answer of this status and body.
pub(crate) fn answer(status: &str, body: &str) -> String {
    http(status, body)
}
