//! Where the store and the target are: parsed from text, printed without secrets.
//!
//! Enters: `--store` and `--target`. Leaves: addresses that are whole. Must not repeat a password in a message.

use std::fmt;
use std::path::PathBuf;

use super::{ConfigError, setting};

/// Where the store is. `Display` leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A server that speaks the Redis protocol, over TCP.
    Tcp {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
        /// Who to be, if not the default user.
        username: Option<String>,
        /// The secret; never printed.
        password: Option<String>,
        /// The logical database, if not 0.
        database: Option<u8>,
    },
    /// The same over a Unix socket.
    Unix(PathBuf),
    /// The LMDB folder of this program.
    Embedded(PathBuf),
}

/// What `bench` drives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A server over HTTP.
    Http {
        /// Where it is.
        url: TargetUrl,
        /// The path to ask for; `None`: the routes of `kvpoc serve`.
        template: Option<String>,
    },
    /// The store itself.
    Store,
}

/// An HTTP server by name and port, without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetUrl {
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl std::str::FromStr for StoreUrl {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        if let Some(path) = text.strip_prefix("embedded:") {
            return path_of(text, path, "embedded:./kvpoc-data").map(Self::Embedded);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return path_of(text, path, "unix:/run/dragonfly.sock").map(Self::Unix);
        }
        tcp_store(text)
    }
}

fn path_of(text: &str, path: &str, example: &str) -> Result<PathBuf, ConfigError> {
    if path.is_empty() {
        let mend = format!("a path is missing; write for example {example}");
        return Err(setting("--store", text, &mend));
    }
    Ok(PathBuf::from(path))
}

fn tcp_store(text: &str) -> Result<StoreUrl, ConfigError> {
    const FORMS: &str = "write redis://127.0.0.1:6379, unix:PATH or embedded:DIR";
    // The text may hold a password, so no message repeats it unless it is no URL at all.
    let Ok(url) = url::Url::parse(text) else {
        let shown = if text.contains('@') { "…" } else { text };
        return Err(setting("--store", shown, FORMS));
    };
    if url.scheme() != "redis" {
        let shown = format!("{}:…", url.scheme());
        return Err(setting("--store", &shown, FORMS));
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err(setting("--store", "redis:…", "the host is missing"));
    };
    let path = url.path().trim_start_matches('/');
    let database =
        match path {
            "" => None,
            // What stands here may be the rest of a password with a slash in it.
            digits => Some(digits.parse().map_err(|_| {
                setting("--store", "redis:…", "a database is a number from 0 to 255")
            })?),
        };
    let decoded = |text: &str| {
        percent_encoding::percent_decode_str(text)
            .decode_utf8_lossy()
            .into_owned()
    };
    Ok(StoreUrl::Tcp {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port().unwrap_or(6379),
        username: (!url.username().is_empty()).then(|| decoded(url.username())),
        password: url.password().map(decoded),
        database,
    })
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => {
                write!(f, "redis://[{host}]:{port}")
            }
            Self::Tcp { host, port, .. } => write!(f, "redis://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Embedded(path) => write!(f, "embedded:{}", path.display()),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Target {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        const FORM: &str =
            "write http://host:port, a URL with {id}, {ids} or {key} in its path, or store";
        if text == "store" {
            return Ok(Self::Store);
        }
        // It may hold a password, though it must not.
        let shown = if text.contains('@') { "…" } else { text };
        let refused = || setting("--target", shown, FORM);
        let url = url::Url::parse(text).map_err(|_| refused())?;
        let host = url.host_str().ok_or_else(refused)?;
        if url.scheme() != "http" || !url.username().is_empty() || url.password().is_some() {
            return Err(refused());
        }
        // As it was typed: parsing has encoded the braces.
        let authority_at = text.find("://").map_or(0, |at| at + 3);
        let path = text[authority_at..]
            .find('/')
            .map_or("", |at| &text[authority_at + at..]);
        let template = match path {
            "" | "/" if url.query().is_none() && url.fragment().is_none() => None,
            path if path.contains(['#', ' ', '\r', '\n']) => return Err(refused()),
            path if ["{id}", "{ids}", "{key}"]
                .iter()
                .any(|part| path.contains(part)) =>
            {
                Some(path.to_owned())
            }
            _ => return Err(refused()),
        };
        Ok(Self::Http {
            url: TargetUrl {
                host: host.trim_matches(['[', ']']).to_owned(),
                port: url.port().unwrap_or(80),
            },
            template,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { url, template } => {
                write!(f, "{url}{}", template.as_deref().unwrap_or_default())
            }
            Self::Store => f.write_str("store"),
        }
    }
}

impl TargetUrl {
    /// The value of the `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_urls_are_understood_or_refused_with_a_form_that_is() {
        let tcp = |text: &str| match text.parse() {
            Ok(StoreUrl::Tcp {
                host,
                port,
                username,
                password,
                database,
            }) => (host, port, username, password, database),
            other => panic!("{text}: {other:?}"),
        };
        let own = |text: &str| Some(text.to_owned());
        assert_eq!(tcp("redis://h"), ("h".into(), 6379, None, None, None));
        assert_eq!(
            tcp("redis://u:p%40ss@[::1]:7000/3"),
            ("::1".into(), 7000, own("u"), own("p@ss"), Some(3))
        );
        assert_eq!(tcp("redis://:p@h").3, own("p"));
        for (text, expected) in [
            ("unix:/run/x.sock", StoreUrl::Unix("/run/x.sock".into())),
            ("unix:///run/x.sock", StoreUrl::Unix("/run/x.sock".into())),
            ("embedded:./data", StoreUrl::Embedded("./data".into())),
        ] {
            assert_eq!(text.parse::<StoreUrl>().ok(), Some(expected));
        }
        for text in [
            "",
            "localhost",
            "http://h",
            "redis://",
            "redis://h/x",
            "redis://h/256",
            "embedded:",
            "unix:",
        ] {
            let error = text.parse::<StoreUrl>().expect_err(text).to_string();
            assert!(error.contains("--store"), "{error}");
        }
    }

    #[test]
    fn a_password_is_in_no_message_and_no_print() {
        for text in [
            "redis://u:secret@h",
            "redis://u:secret@h/x",
            "redis://u:secret@h:x",
            "rediss://u:secret@h",
        ] {
            let shown = match text.parse::<StoreUrl>() {
                Ok(url) => format!("{url} {url:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains("secret"), "{shown}");
        }
    }
}
