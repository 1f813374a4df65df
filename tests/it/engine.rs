//! The programs that can be the store, and what differs between them.
//!
//! Enters: what is on PATH, or `TEST_STORE`. Leaves: an [`Engine`], its flags and its words. Must not hide a difference
//! that a user sees: where engines answer otherwise, the tests say what is right on each.

use std::path::Path;
use std::sync::OnceLock;

/// A server of the Redis protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Dragonfly,
    Valkey,
    Redis,
}

impl Engine {
    /// The one that the tests run on: what `TEST_STORE` names, or the first that is on PATH.
    pub(crate) fn here() -> Self {
        static HERE: OnceLock<Engine> = OnceLock::new();
        *HERE.get_or_init(|| match std::env::var("TEST_STORE").as_deref() {
            Ok("dragonfly") => Self::Dragonfly,
            Ok("valkey") => Self::Valkey,
            Ok("redis") => Self::Redis,
            Ok(other) if !other.is_empty() => {
                panic!("TEST_STORE is dragonfly, valkey or redis, not {other}")
            }
            _ => Self::first_of(&[Self::Dragonfly, Self::Valkey, Self::Redis])
                .expect("no store on PATH; scripts/test installs one"),
        })
    }

    /// Valkey or Redis, whose own clusters and sentinels some tests are about.
    pub(crate) fn redis_like() -> Self {
        match Self::here() {
            Self::Dragonfly => Self::first_of(&[Self::Valkey, Self::Redis])
                .expect("no valkey-server or redis-server on PATH, which this test is about"),
            engine => engine,
        }
    }

    fn first_of(engines: &[Self]) -> Option<Self> {
        engines.iter().copied().find(|engine| engine.is_on_path())
    }

    pub(crate) fn is_on_path(self) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(self.program()).is_file())
    }

    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Dragonfly => "dragonfly",
            Self::Valkey => "valkey-server",
            Self::Redis => "redis-server",
        }
    }

    /// A restarted one is empty, unless it was told to save a snapshot: it keeps no log of its writes.
    pub(crate) fn is_dragonfly(self) -> bool {
        self == Self::Dragonfly
    }

    /// What each server is started with, before settings of its own.
    pub(super) fn flags(self, port: u16, folder: &Path) -> Vec<String> {
        let port = port.to_string();
        let folder = folder.display().to_string();
        let flags: &[&str] = match self {
            // Else it takes a thread and 256 MiB for each core, and asks the network for newer versions of itself.
            Self::Dragonfly => &[
                "--bind",
                "127.0.0.1",
                "--proactor_threads",
                "1",
                "--maxmemory",
                NO_LIMIT,
                "--version_check=false",
                // Else what the process takes by itself, several times the limits of these tests, is too much already.
                "--rss_oom_deny_ratio=-1",
                "--logtostderr",
                "--dbfilename",
                "dump",
                "--dir",
                &folder,
                "--port",
                &port,
            ],
            Self::Valkey | Self::Redis => &[
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "no",
                "--port",
                &port,
            ],
        };
        flags.iter().map(|&flag| flag.to_owned()).collect()
    }

    /// As `scripts/dragonfly` and `config/compose.yaml` start one: what it holds is gone with it.
    pub(super) fn without_persistence(self) -> &'static str {
        match self {
            Self::Dragonfly => "",
            Self::Valkey | Self::Redis => "--appendonly no",
        }
    }

    /// As much memory as any test needs. To Dragonfly, no byte at all is a limit too.
    pub(super) fn no_limit(self) -> &'static str {
        match self {
            Self::Dragonfly => NO_LIMIT,
            Self::Valkey | Self::Redis => "0",
        }
    }

    /// How INFO names what a store does that evicts any key.
    pub(crate) fn evicting_policy(self) -> &'static str {
        match self {
            Self::Dragonfly => "eviction",
            Self::Valkey | Self::Redis => "allkeys-lru",
        }
    }
}

const NO_LIMIT: &str = "2gb";

/// Whether a test is about this engine; says that it is left out, where it is not.
pub(crate) fn only_on(engines: &[Engine], reason: &str) -> bool {
    let is_here = engines.contains(&Engine::here());
    if !is_here {
        eprintln!("left out on {}: {reason}", Engine::here().program());
    }
    is_here
}
