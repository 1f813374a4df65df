//! How to reach the store, checked.
//!
//! Enters: what the user typed, and secrets from variables and files. Leaves: a [`StoreConfig`]. Must not open the
//! certificates: what is wrong with their contents shows when they are used.

use std::path::PathBuf;
use std::time::Duration;

use super::secret::Login;
use super::{ConfigError, StoreUrl, setting};
use crate::cli::{FetchArg, ReadFrom, Reads, StoreArgs};

/// How to reach the store.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where it is.
    pub url: StoreUrl,
    /// Who to be.
    pub login: Login,
    /// Who to be for its sentinels.
    pub sentinel_login: Login,
    /// How its certificate is checked, and what it is shown.
    pub tls: TlsFiles,
    /// The deadline of each operation.
    pub timeout: Duration,
    /// How several keys are read at once; `None`: the store decides once it is known.
    pub fetch: Option<Fetch>,
    /// By which connection keys are read.
    pub reads: Reads,
    /// Who of a cluster is asked for them.
    pub read_from: ReadFrom,
}

/// How several keys are read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// One MGET: one command.
    Mget,
    /// One GET for each key, sent together: as many commands as keys.
    Pipeline,
}

impl Fetch {
    /// As it is typed, and as `/stats` tells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mget => "mget",
            Self::Pipeline => "pipeline",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Mget, Self::Pipeline]
            .into_iter()
            .find(|fetch| fetch.name() == name)
    }
}

impl FetchArg {
    /// `None`: what the store makes cheaper.
    pub(super) fn fixed(self) -> Option<Fetch> {
        match self {
            Self::Auto => None,
            Self::Mget => Some(Fetch::Mget),
            Self::Pipeline => Some(Fetch::Pipeline),
        }
    }
}

/// Files in PEM form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates to trust; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Certificate and private key to show.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl StoreConfig {
    /// The same store, with its keys read in another way.
    #[must_use]
    pub fn read_by(mut self, fetch: Option<Fetch>, reads: Reads) -> Self {
        // A command over several hash slots is refused there, and any keys of one request lie in several.
        if !self.url.is_cluster() {
            self.fetch = fetch;
        }
        self.reads = reads;
        self
    }

    /// The same store, with its keys read from masters or replicas.
    pub(super) fn read_from(mut self, read_from: ReadFrom) -> Result<Self, ConfigError> {
        if read_from == ReadFrom::Replica {
            let refused = |mend| Err(setting("--read-from", "replica", mend));
            if !self.url.is_cluster() {
                return refused(
                    "it needs a cluster; write redis-cluster://HOST,HOST, or leave it out",
                );
            }
            if self.reads == Reads::Fred {
                return refused("fred reads from masters only; leave out --store-reads fred");
            }
        }
        self.read_from = read_from;
        Ok(self)
    }
}

/// The store, its keys read by the client that does everything else.
pub(super) fn store(args: StoreArgs, timeout: Duration) -> Result<StoreConfig, ConfigError> {
    let (url, login) = StoreUrl::parse(&args.url)?;
    let login = login.completed(
        args.store_user,
        "KVPOC_STORE_PASSWORD",
        args.store_password_file.as_deref(),
        ["--store-user", "--store-password-file"],
    )?;
    let sentinels_asked = args.sentinel_user.is_some() || args.sentinel_password_file.is_some();
    let sentinel_login = Login::default().completed(
        args.sentinel_user,
        "KVPOC_SENTINEL_PASSWORD",
        args.sentinel_password_file.as_deref(),
        ["--sentinel-user", "--sentinel-password-file"],
    )?;
    let tls = TlsFiles {
        ca: args.store_tls_ca,
        identity: match (args.store_tls_cert, args.store_tls_key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                let reason = "--store-tls-cert and --store-tls-key belong together; give both";
                return Err(ConfigError::Setting(reason.into()));
            }
        },
    };
    if sentinels_asked && !url.is_behind_sentinels() {
        let reason = "--sentinel-user and --sentinel-password-file need a store behind sentinels; write \
                      redis-sentinel://HOST,HOST/SERVICE";
        return Err(ConfigError::Setting(reason.into()));
    }
    if tls != TlsFiles::default() && !is_encrypted(&url) {
        let reason = "--store-tls-… needs a store URL with TLS; write rediss instead of redis";
        return Err(ConfigError::Setting(reason.into()));
    }
    Ok(StoreConfig {
        fetch: Some(if url.is_cluster() {
            Fetch::Pipeline
        } else {
            Fetch::Mget
        }),
        reads: Reads::Fred,
        read_from: ReadFrom::Master,
        url,
        login,
        sentinel_login,
        tls,
        timeout,
    })
}

fn is_encrypted(url: &StoreUrl) -> bool {
    matches!(url, StoreUrl::Tcp(servers) if servers.tls)
}
