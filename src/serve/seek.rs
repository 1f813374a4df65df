//! The store as the server as a whole sees it: looked for until it is there, and watched from then on.
//!
//! Enters: where it should be. Leaves: the store, for every thread to connect to, and log lines that say once when it
//! cannot be used, and once when it can again. Must not hold up any request: until the store is there, each is told why.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};

use crate::config::{ServeConfig, StoreUrl};
use crate::record::Format;
use crate::store::{Store, StoreError, StoreStats, Usage};
use crate::units::grouped;

/// The store once it was found, or why it was not.
pub(super) type Sought = Result<Store, StoreError>;

/// Between two attempts to connect.
pub(super) const RETRY: Duration = Duration::from_millis(250);
/// How long the first line of the output waits for the threads, once the store is there.
const THREADS_CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How often a store that is there is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A single silence may be a hiccup, which its own requests were told of.
const LOOKS_UNTIL_DOWN: u32 = 2;

/// Looks for the store, and tells the threads.
pub(super) struct Seeker {
    config: Arc<ServeConfig>,
    tell: watch::Sender<Sought>,
    /// One message for each thread that has connected.
    connected: mpsc::Receiver<()>,
}

/// What a thread learns of the search.
#[derive(Clone)]
pub(super) struct Search {
    pub(super) sought: watch::Receiver<Sought>,
    pub(super) connected: mpsc::Sender<()>,
}

impl Seeker {
    pub(super) fn new(config: Arc<ServeConfig>) -> (Self, Search) {
        let not_yet = StoreError::Unavailable("not contacted yet".into());
        let (tell, sought) = watch::channel(Err(not_yet));
        let (connects, connected) = mpsc::channel(config.threads);
        let seeker = Self {
            config,
            tell,
            connected,
        };
        let connected = connects;
        (seeker, Search { sought, connected })
    }

    /// Looks for the store, announces the server after the first look, and stays with the store for ever.
    ///
    /// # Errors
    /// When the store refuses to be used as it is configured, or does not come in time.
    pub(super) async fn run(
        mut self,
        announce: impl FnOnce(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let store = match self.find().await {
            Ok((store, stats)) => {
                self.tell_threads(&store).await;
                announce(&summary(&stats))?;
                store
            }
            Err(error) if self.is_waited_for(&error, began) => {
                tracing::warn!("{error}; requests are answered 503 until it is available");
                announce("not available yet, waiting for it")?;
                let (store, stats) = self.wait(error, began).await?;
                self.tell_threads(&store).await;
                tracing::info!("the store is available: {}", summary(&stats));
                store
            }
            Err(error) => return Err(error.into()),
        };
        self.watch(&store).await
    }

    async fn find(&self) -> Result<(Store, StoreStats), StoreError> {
        let store = Store::open(&self.config.store, Usage::Serve).await?;
        let stats = store.stats().await?;
        let key_prefix = &self.config.key_prefix;
        let Some(dataset) = store.dataset().await? else {
            return Ok((store, stats));
        };
        if dataset.key_prefix != *key_prefix {
            tracing::warn!(
                "the dataset's keys begin with {}, not with --key-prefix {key_prefix}: its sessions will not be found",
                dataset.key_prefix,
            );
        }
        if dataset.format == Format::Raw {
            tracing::warn!(
                "the dataset's values are raw bytes (kvpoc seed --format raw): /v1/keys answers them, and /user/session \
                 cannot; load sessions with --format record or json"
            );
        }
        Ok((store, stats))
    }

    /// Whether waiting may mend it, and there is time left.
    fn is_waited_for(&self, error: &StoreError, began: Instant) -> bool {
        let patience = self.config.wait_for_store;
        is_away(error) && patience.is_none_or(|patience| began.elapsed() < patience)
    }

    async fn wait(
        &self,
        mut error: StoreError,
        began: Instant,
    ) -> anyhow::Result<(Store, StoreStats)> {
        loop {
            let _ = self.tell.send_replace(Err(error));
            tokio::time::sleep(RETRY).await;
            match self.find().await {
                Ok(found) => return Ok(found),
                Err(now) if self.is_waited_for(&now, began) => error = now,
                Err(now) if is_away(&now) => {
                    return Err(now).context("gave up waiting for the store (--wait-for-store)");
                }
                Err(now) => return Err(now.into()),
            }
        }
    }

    /// Lets the threads connect, and waits for them, but not for ever: each goes on trying by itself.
    async fn tell_threads(&mut self, store: &Store) {
        let _ = self.tell.send_replace(Ok(store.clone()));
        let all = async {
            for _ in 0..self.config.threads {
                self.connected.recv().await;
            }
        };
        let _ = tokio::time::timeout(THREADS_CONNECT_WITHIN, all).await;
    }

    /// Says when the store goes away and when it is back, each once, whatever the requests of the threads meet.
    async fn watch(&self, store: &Store) -> anyhow::Result<()> {
        let url = &self.config.store.url;
        if matches!(url, StoreUrl::Embedded(_)) {
            std::future::pending::<()>().await;
        }
        let (mut silent, mut down_since) = (0, None);
        loop {
            tokio::time::sleep(LOOK).await;
            match store.dataset_note().await {
                Err(error) if is_away(&error) => {
                    silent += 1;
                    if silent >= LOOKS_UNTIL_DOWN && down_since.is_none() {
                        down_since = Some(Instant::now());
                        tracing::warn!(
                            "{error} ({url}); requests are answered 503 or 504 until it is back"
                        );
                    }
                }
                // A refusal is an answer.
                _ => {
                    silent = 0;
                    if let Some(since) = down_since.take() {
                        let seconds = since.elapsed().as_secs();
                        tracing::info!("the store at {url} is back after {seconds} s");
                    }
                }
            }
        }
    }
}

/// Whether the store may answer again without anybody's doing here.
fn is_away(error: &StoreError) -> bool {
    match error {
        StoreError::Unavailable(_) | StoreError::Loading(_) | StoreError::Timeout(_) => true,
        StoreError::Full(_)
        | StoreError::NoRoom { .. }
        | StoreError::Discarded(_)
        | StoreError::CrossSlot
        | StoreError::Refused(_)
        | StoreError::Setup(_) => false,
    }
}

fn summary(stats: &StoreStats) -> String {
    format!(
        "{} {}, {} keys",
        stats.engine,
        stats.version.as_deref().unwrap_or("of unknown version"),
        grouped(stats.keys),
    )
}
