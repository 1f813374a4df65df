//! Where the store is: parsed from text, printed without secrets.
//!
//! Enters: `--store`. Leaves: addresses that are whole. Must not repeat a password in a message.

use std::fmt;
use std::path::PathBuf;

use super::secret::Login;
use super::{ConfigError, setting};

/// Where the store is. Holds no secret: see [`Login`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// Servers that speak the Redis protocol, over TCP.
    Tcp(Servers),
    /// One such server over a Unix socket.
    Unix(PathBuf),
    /// The LMDB folder of this program.
    Embedded(PathBuf),
}

/// Servers of the Redis protocol, and how they belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers {
    /// How they share the keys.
    pub topology: Topology,
    /// Where they, or their sentinels, are; at least one.
    pub nodes: Vec<Node>,
    /// Connections are encrypted.
    pub tls: bool,
    /// The logical database, if not 0.
    pub database: Option<u8>,
}

/// How servers share the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One holds them all.
    One,
    /// Each holds some of the hash slots; the nodes given are some of them.
    Cluster,
    /// The nodes given are sentinels, which know where the keys are.
    Sentinel {
        /// The name that they know it by.
        service: String,
    },
}

/// A server by name and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// The text before `://`, and what it stands for.
const SCHEMES: [(&str, Topology, bool); 6] = [
    ("redis", Topology::One, false),
    ("rediss", Topology::One, true),
    ("redis-cluster", Topology::Cluster, false),
    ("rediss-cluster", Topology::Cluster, true),
    ("redis-sentinel", SENTINEL, false),
    ("rediss-sentinel", SENTINEL, true),
];
const SENTINEL: Topology = Topology::Sentinel {
    service: String::new(),
};

impl StoreUrl {
    /// The address, and the login that stands in it.
    pub(super) fn parse(text: &str) -> Result<(Self, Login), ConfigError> {
        if let Some(path) = text.strip_prefix("embedded:") {
            let path = path_of(text, path, "embedded:./kvpoc-data")?;
            return Ok((Self::Embedded(path), Login::default()));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            let path = path_of(text, path, "unix:/run/dragonfly.sock")?;
            return Ok((Self::Unix(path), Login::default()));
        }
        servers(text).map(|(servers, login)| (Self::Tcp(servers), login))
    }

    /// Whether the keys are spread over several servers by their hash slots.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self, Self::Tcp(servers) if servers.topology == Topology::Cluster)
    }

    /// Whether sentinels are asked where the keys are.
    #[must_use]
    pub fn is_behind_sentinels(&self) -> bool {
        matches!(self, Self::Tcp(servers) if matches!(servers.topology, Topology::Sentinel { .. }))
    }
}

fn path_of(text: &str, path: &str, example: &str) -> Result<PathBuf, ConfigError> {
    if path.is_empty() {
        let mend = format!("a path is missing; write for example {example}");
        return Err(setting("--store", text, &mend));
    }
    Ok(PathBuf::from(path))
}

fn servers(text: &str) -> Result<(Servers, Login), ConfigError> {
    const FORMS: &str = "write redis://127.0.0.1:6379, redis-cluster://HOST,HOST, \
        redis-sentinel://HOST,HOST/SERVICE, rediss… for TLS, unix:PATH or embedded:DIR";
    // The text may hold a password, so no message repeats it unless it is no URL at all.
    let Some((scheme, rest)) = text.split_once("://") else {
        let shown = if text.contains('@') { "…" } else { text };
        return Err(setting("--store", shown, FORMS));
    };
    let Some((_, topology, tls)) = SCHEMES.into_iter().find(|known| known.0 == scheme) else {
        return Err(setting("--store", &format!("{scheme}:…"), FORMS));
    };
    let refused = |mend: &str| setting("--store", &format!("{scheme}:…"), mend);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (Login::parse(login), hosts),
        None => (Login::default(), authority),
    };
    let (topology, database) = match (topology, path.split_once('/')) {
        (Topology::Sentinel { .. }, path_parts) => {
            let (service, database) = path_parts.unwrap_or((path, ""));
            // An @ is the end of a password with a slash in it.
            if service.is_empty() || service.contains('@') {
                return Err(refused("name the service after the hosts: …/mymaster"));
            }
            let service = service.to_owned();
            (Topology::Sentinel { service }, database)
        }
        (Topology::Cluster, _) if !path.is_empty() => {
            return Err(refused("a cluster has no databases to choose from"));
        }
        (topology, _) => (topology, path),
    };
    let default_port = match topology {
        Topology::Sentinel { .. } => 26_379,
        Topology::One | Topology::Cluster => 6_379,
    };
    let nodes: Option<Vec<Node>> = hosts
        .split(',')
        .map(|host| Node::parse(host, default_port))
        .collect();
    let nodes = nodes.ok_or_else(|| refused("a host is missing or wrong: HOST or HOST:PORT"))?;
    if topology == Topology::One && nodes.len() > 1 {
        return Err(refused(
            "for several hosts, write redis-cluster or redis-sentinel",
        ));
    }
    let database = match database {
        "" => None,
        // What stands here may be the rest of a password with a slash in it.
        digits => Some(
            digits
                .parse()
                .map_err(|_| refused("a database is a number from 0 to 255"))?,
        ),
    };
    let servers = Servers {
        topology,
        nodes,
        tls,
        database,
    };
    Ok((servers, login))
}

impl Node {
    fn parse(text: &str, default_port: u16) -> Option<Self> {
        let url = url::Url::parse(&format!("redis://{text}")).ok()?;
        let host = url.host_str().filter(|host| !host.is_empty())?;
        let only_host = url.path().is_empty() && url.query().is_none() && url.fragment().is_none();
        only_host.then(|| Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(default_port),
        })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&authority(&self.host, self.port))
    }
}

/// Host and port as they stand in a URL.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, service) = match &self.topology {
            Topology::One => ("", ""),
            Topology::Cluster => ("-cluster", ""),
            Topology::Sentinel { service } => ("-sentinel", &**service),
        };
        let tls = if self.tls { "s" } else { "" };
        let nodes: Vec<String> = self.nodes.iter().map(Node::to_string).collect();
        write!(f, "redis{tls}{kind}://{}", nodes.join(","))?;
        if service.is_empty() {
            return Ok(());
        }
        write!(f, "/{service}")
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(servers) => servers.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Embedded(path) => write!(f, "embedded:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Servers, Login) {
        match StoreUrl::parse(text) {
            Ok((StoreUrl::Tcp(servers), login)) => (servers, login),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn store_urls_are_understood_and_printed_without_their_login() {
        for (text, printed, database) in [
            ("redis://h", "redis://h:6379", None),
            ("redis://h:1/", "redis://h:1", None),
            ("rediss://h/7", "rediss://h:6379", Some(7)),
            ("redis://u:p@[::1]:7000/3", "redis://[::1]:7000", Some(3)),
            ("redis-cluster://a", "redis-cluster://a:6379", None),
            (
                "redis-cluster://u:p@a:1,b,[::1]:3",
                "redis-cluster://a:1,b:6379,[::1]:3",
                None,
            ),
            ("rediss-cluster://a:1", "rediss-cluster://a:1", None),
            (
                "redis-sentinel://:p@a,b:2/mine/5",
                "redis-sentinel://a:26379,b:2/mine",
                Some(5),
            ),
            (
                "rediss-sentinel://a/mine",
                "rediss-sentinel://a:26379/mine",
                None,
            ),
        ] {
            let (servers, _) = parsed(text);
            assert_eq!(
                (&*servers.to_string(), servers.database),
                (printed, database)
            );
        }
        assert_eq!(parsed("redis://[::1]:7").0.nodes[0].host, "::1");
        for (text, expected) in [
            ("unix:/run/x.sock", StoreUrl::Unix("/run/x.sock".into())),
            ("unix:///run/x.sock", StoreUrl::Unix("/run/x.sock".into())),
            ("embedded:./data", StoreUrl::Embedded("./data".into())),
        ] {
            assert_eq!(
                StoreUrl::parse(text).ok(),
                Some((expected, Login::default()))
            );
        }
    }

    #[test]
    fn what_is_no_store_url_is_refused_with_a_form_that_is() {
        for text in [
            "",
            "localhost",
            "http://h",
            "redis://",
            "redis://h/x",
            "redis://h/256",
            "redis://h:0x1",
            "redis://h?x=1",
            "redis://a,b",
            "redis-cluster://a,,b",
            "redis-cluster://a/1",
            "redis-sentinel://a",
            "redis-sentinel://a/mine/x",
            "embedded:",
            "unix:",
        ] {
            let error = StoreUrl::parse(text).expect_err(text).to_string();
            assert!(error.contains("--store"), "{error}");
        }
    }

    #[test]
    fn a_password_is_in_no_message_and_no_print() {
        for text in [
            "redis://u:secret@h",
            "redis://u:secret@h/x",
            "redis://u:secret@h:x",
            "redis://u:secret/secret@h",
            "redis-sentinel://u:12/secret@h",
            "rediss-cluster://u:secret@h,",
            "what://u:secret@h",
            "u:secret@h",
        ] {
            let shown = match StoreUrl::parse(text) {
                Ok((url, login)) => format!("{url} {url:?} {login:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains("secret"), "{shown}");
        }
    }
}
