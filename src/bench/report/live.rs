//! The report while it grows, for a browser on this machine.
//!
//! Enters: a page each second. Leaves: that page to whoever asks. Must not hold the run up: a page is small,
//! connections are few and have deadlines.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::output;

/// Browsers open a few connections each; more than this many wait in the kernel.
const MAX_CONNECTIONS: usize = 16;
/// Until the first second is over.
const FIRST_PAGE: &str = "<!DOCTYPE html><meta http-equiv=\"refresh\" content=\"1\"><title>kvpoc bench</title>Starting …";
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// A small HTTP server that ends with the run.
pub(super) struct Live {
    page: Arc<Mutex<Arc<str>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Live {
    /// Listens, and says where.
    pub(super) async fn start(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on --live {address}; try another port"))?;
        output::say(&format!(
            "Live report at http://{}/",
            listener.local_addr()?
        ));
        let page: Arc<Mutex<Arc<str>>> = Arc::new(Mutex::new(FIRST_PAGE.into()));
        let task = tokio::spawn(serve(listener, page.clone()));
        Ok(Self { page, task })
    }

    /// Ends, and gives the address back.
    pub(super) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Replaces the page.
    pub(super) fn show(&self, page: String) {
        *self.page.lock().unwrap_or_else(PoisonError::into_inner) = page.into();
    }
}

async fn serve(listener: TcpListener, page: Arc<Mutex<Arc<str>>>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let page = page.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, answer(stream, &page)).await;
            drop(place);
        });
    }
}

/// Every request gets the page; what it asks for does not matter.
async fn answer(mut stream: TcpStream, page: &str) -> std::io::Result<()> {
    let mut head = [0; 4_096];
    if stream.read(&mut head).await? == 0 {
        return Ok(());
    }
    let length = page.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {length}\r\n\
         cache-control: no-store\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(page.as_bytes()).await?;
    stream.shutdown().await
}
