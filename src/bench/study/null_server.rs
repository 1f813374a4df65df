//! A server whose answers are known beforehand: at once, but for stalls of a known length.
//!
//! Enters: a [`Stall`], or none. Leaves: answers to whatever comes, and by its own clock how long they and the stalls
//! took. Must not need a store or another process.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/// The server stands still for `length` every `period`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stall {
    pub(super) length: Duration,
    pub(super) period: Duration,
}

/// On a thread of its own, which a stall puts to sleep with all its connections. It ends when it is dropped.
pub(super) struct NullServer {
    pub(super) address: SocketAddr,
    stop: CancellationToken,
    noted: Arc<Mutex<Noted>>,
}

/// What the server measured of itself.
struct Noted {
    /// From having read a request to having written its answer; nanoseconds.
    service_ns: Histogram<u64>,
    /// How long its stalls were: a sleep may take longer than it was told.
    stalls: Vec<Duration>,
}

impl NullServer {
    pub(super) fn start(stall: Option<Stall>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let (address, stop) = (listener.local_addr()?, CancellationToken::new());
        let stopped = stop.clone();
        let noted = Arc::new(Mutex::new(Noted {
            service_ns: Histogram::new(3)?,
            stalls: Vec::new(),
        }));
        let of_thread = noted.clone();
        std::thread::Builder::new()
            .name("null-server".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let Ok(runtime) = runtime else { return };
                runtime.block_on(async {
                    tokio::select! {
                        _ = accept(listener, &of_thread) => {}
                        () = stand_still(stall, &of_thread) => {}
                        () = stopped.cancelled() => {}
                    }
                });
            })?;
        Ok(Self {
            address,
            stop,
            noted,
        })
    }

    /// Mean length of its stalls; `None` when there was none.
    pub(super) fn mean_stall(&self) -> Option<Duration> {
        let noted = lock(&self.noted);
        let count = u32::try_from(noted.stalls.len()).ok()?;
        noted.stalls.iter().sum::<Duration>().checked_div(count)
    }

    /// Median of its service time, in microseconds.
    pub(super) fn service_p50_us(&self) -> f64 {
        lock(&self.noted).service_ns.value_at_quantile(0.5) as f64 / 1e3
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn lock(noted: &Mutex<Noted>) -> MutexGuard<'_, Noted> {
    noted.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, noted: &Arc<Mutex<Noted>>) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let noted = noted.clone();
        tokio::spawn(async move {
            let mut request = [0; 4_096];
            while let Ok(1..) = stream.read(&mut request).await {
                let read = Instant::now();
                if stream.write_all(ANSWER).await.is_err() {
                    return;
                }
                let took_ns = read.elapsed().as_nanos() as u64;
                if lock(&noted).service_ns.record(took_ns).is_err() {
                    return;
                }
            }
        });
    }
}

async fn stand_still(stall: Option<Stall>, noted: &Mutex<Noted>) {
    let Some(stall) = stall else {
        return std::future::pending().await;
    };
    let began = Instant::now();
    for number in 1_u32.. {
        // In the middle of each period, so that a run of whole periods holds whole stalls.
        let at = stall.period * (number - 1) + stall.period / 2;
        tokio::time::sleep(at.saturating_sub(began.elapsed())).await;
        let stalled = Instant::now();
        // This blocks the runtime, which is the point.
        std::thread::sleep(stall.length);
        lock(noted).stalls.push(stalled.elapsed());
    }
}
