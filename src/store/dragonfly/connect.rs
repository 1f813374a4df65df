//! From a configuration to a client that is not connected yet.
//!
//! Enters: a [`StoreConfig`]. Leaves: a fred client, or what is wrong with a certificate. Must not contact anything,
//! nor let fred wait or repeat without end; how much it may queue is for `health` to bound.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::rustls::ClientConfig;
use fred::types::Builder;
use fred::types::config::{
    ClusterDiscoveryPolicy, Config, HostMapping, ReconnectError, ReconnectPolicy, Server,
    ServerConfig, TlsConfig, TlsConnector, TlsHostMapping,
};

use super::super::StoreError;
use super::{plain, words};
use crate::config::{Login, Node, Secret, Servers, StoreConfig, StoreUrl, TlsFiles, Topology};
use crate::tls;

/// First and longest wait between two attempts to reconnect; fred adds jitter of up to 100 ms. Short, so
/// that a store which returns is used again within a second.
pub(super) const RECONNECT_MIN_MS: u32 = 50;
pub(super) const RECONNECT_MAX_MS: u32 = 500;
/// A peer that acknowledges nothing for this many connect timeouts is gone, and the connection with it.
pub(super) const TIMEOUTS_UNTIL_GONE: u32 = 4;

/// An idle connection is asked for a sign of life before what lies between, such as the address translation of a cloud,
/// forgets it; a peer that gives none is gone after about as long again.
pub(super) const IDLE: Duration = Duration::from_secs(30);
pub(super) const IDLE_PROBE_EVERY: Duration = Duration::from_secs(10);
pub(super) const IDLE_PROBES: u32 = 3;

/// Connecting takes several round trips, and a short command deadline is no reason to give up on them.
pub(super) fn timeout(config: &StoreConfig) -> Duration {
    config.timeout.max(Duration::from_secs(2))
}

/// How long it may take in all: each node in turn may be the first that answers.
pub(super) fn whole_timeout(config: &StoreConfig) -> Duration {
    let nodes = match &config.url {
        StoreUrl::Tcp(servers) => servers.nodes.len(),
        StoreUrl::Unix(_) | StoreUrl::Embedded(_) => 1,
    };
    timeout(config) * u32::try_from(nodes).unwrap_or(u32::MAX)
}

/// Why there is no connection.
pub(super) fn error(url: &StoreUrl, error: &Error) -> StoreError {
    let text = error.details();
    // Behind a sentinel only the text tells.
    if *error.kind() == ErrorKind::Auth || words::is_about_the_login(text) {
        let text = words::with_advice(text);
        return StoreError::Setup(format!("{url} refused the user or password: {text}"));
    }
    // Trying again mends no certificate.
    if is_about_tls(url, error) {
        return StoreError::Setup(format!(
            "{url}: TLS failed: {text}; see --store-tls-ca, --store-tls-cert"
        ));
    }
    if *error.kind() == ErrorKind::Config || words::is_of_no_cluster(text) {
        return StoreError::Setup(format!("{url}: {text}"));
    }
    if words::is_loading(text) {
        return StoreError::Loading(text.to_owned());
    }
    StoreError::Unavailable(format!("{url}: {}", plain::plain(text)))
}

/// Whether the other side, or its certificate, was refused by rustls, or we by it. It says so by an error of
/// the system's kind `InvalidData`, which fred only keeps as text.
fn is_about_tls(url: &StoreUrl, error: &Error) -> bool {
    matches!(url, StoreUrl::Tcp(servers) if servers.tls)
        && (*error.kind() == ErrorKind::Tls || error.details().contains("InvalidData"))
}

pub(super) fn client(config: &StoreConfig) -> Result<Client, StoreError> {
    let mut builder = Builder::from_config(fred_config(config)?);
    builder
        .set_policy(ReconnectPolicy::new_exponential(
            0,
            RECONNECT_MIN_MS,
            RECONNECT_MAX_MS,
            2,
        ))
        .with_connection_config(|connection| {
            connection.connection_timeout = timeout(config);
            connection.internal_command_timeout = timeout(config);
            // A lost command is the caller's to repeat: it knows whether that is harmless.
            connection.max_command_attempts = 1;
            // `cluster` follows them, and says why.
            connection.max_redirections = 0;
            // Else nothing of it is kept from a master that was made a replica, and keeps its connections.
            connection.reconnect_errors = if config.url.is_behind_sentinels() {
                vec![ReconnectError::ReadOnly]
            } else {
                Vec::new()
            };
            connection.tcp.nodelay = Some(true);
            connection.tcp.keepalive = Some(
                fred::socket2::TcpKeepalive::new()
                    .with_time(IDLE)
                    .with_interval(IDLE_PROBE_EVERY)
                    .with_retries(IDLE_PROBES),
            );
            connection.tcp.user_timeout = Some(timeout(config) * TIMEOUTS_UNTIL_GONE);
        });
    builder
        .build()
        .map_err(|error| StoreError::Setup(error.details().to_owned()))
}

fn fred_config(config: &StoreConfig) -> Result<Config, StoreError> {
    let Login { user, password } = &config.login;
    let mut fred = Config {
        username: user.clone(),
        password: revealed(password.as_ref()),
        ..Config::default()
    };
    match &config.url {
        StoreUrl::Tcp(servers) => {
            fred.server = server(servers, &config.sentinel_login);
            fred.database = servers.database;
            if servers.tls {
                fred.tls = Some(TlsConfig {
                    connector: TlsConnector::from(tls(&config.tls)?),
                    hostnames: host_mapping(&servers.nodes),
                });
            }
        }
        StoreUrl::Unix(path) => fred.server = ServerConfig::Unix { path: path.clone() },
        StoreUrl::Embedded(_) => unreachable!("the embedded store has no server"),
    }
    Ok(fred)
}

fn server(servers: &Servers, sentinel_login: &Login) -> ServerConfig {
    let server = |node: &Node| Server::new(node.host.clone(), node.port);
    let hosts = servers.nodes.iter().map(server).collect();
    match &servers.topology {
        Topology::One => ServerConfig::Centralized {
            server: server(&servers.nodes[0]),
        },
        Topology::Cluster => ServerConfig::Clustered {
            hosts,
            // Those that were named may all be gone one day.
            policy: ClusterDiscoveryPolicy::UseCache,
        },
        Topology::Sentinel { service } => ServerConfig::Sentinel {
            hosts,
            service_name: service.clone(),
            username: sentinel_login.user.clone(),
            password: revealed(sentinel_login.password.as_ref()),
        },
    }
}

fn revealed(secret: Option<&Secret>) -> Option<String> {
    secret.map(|secret| secret.reveal().to_owned())
}

/// A cluster tells of its nodes by address. Whoever names one by name has certificates for names: then each is checked
/// against the first name given. fred's own mapping takes what it connected to last, which is an address soon.
fn host_mapping(nodes: &[Node]) -> TlsHostMapping {
    first_name(nodes).map_or(TlsHostMapping::None, |name| {
        TlsHostMapping::Custom(Arc::new(FirstName(name.to_owned())))
    })
}

/// What certificates of nodes are checked against that are known by address.
pub(super) fn first_name(nodes: &[Node]) -> Option<&str> {
    let mut hosts = nodes.iter().map(|node| &*node.host);
    hosts.find(|host| host.parse::<IpAddr>().is_err())
}

#[derive(Debug)]
struct FirstName(String);

impl HostMapping for FirstName {
    fn map(&self, _: &IpAddr, _: &str) -> Option<String> {
        Some(self.0.clone())
    }
}

/// The settings of its certificates, as messages name them.
const SETTINGS: tls::Settings = tls::Settings {
    ca: "--store-tls-ca",
    certificate: "--store-tls-cert",
    key: "--store-tls-key",
    whose: "the store",
};

pub(super) fn tls(files: &TlsFiles) -> Result<ClientConfig, StoreError> {
    tls::checked(files, &SETTINGS).map_err(|error| StoreError::Setup(error.to_string()))
}
