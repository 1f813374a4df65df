//! What `bench` drives: parsed from text, printed as it was typed.
//!
//! Enters: `--target`. Leaves: a server's address, and the path to ask it for where it is not kvpoc's own. Must not
//! repeat a password in a message, nor encode anything: a URL is sent as it was typed.

use std::fmt;
use std::path::PathBuf;

use super::address::authority;
use super::{ConfigError, setting};
use crate::load::Template;

/// What `bench` drives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A server over HTTP.
    Http {
        /// Where it is.
        url: TargetUrl,
        /// Path and query to ask for; `None`: the routes of `kvpoc serve`.
        template: Option<Template>,
    },
    /// The store itself.
    Store,
}

impl Target {
    /// It is another server than kvpoc's own, asked by its own path.
    #[must_use]
    pub fn is_template(&self) -> bool {
        matches!(
            self,
            Self::Http {
                template: Some(_),
                ..
            }
        )
    }
}

/// An HTTP server by name and port, without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetUrl {
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// It is spoken to over TLS.
    pub tls: bool,
    /// It is no port but this socket file, and `localhost` by name.
    pub unix: Option<PathBuf>,
}

const FORM: &str = "write http://host:port or https://host:port of a serve, any other URL with a path, unix:FILE, unix:FILE:/path, or store";
const BRACE: &str =
    "the places in a URL are {id}, {ids}, {key} and {n}; write any other brace as %7B or %7D";

impl std::str::FromStr for Target {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        if text == "store" {
            return Ok(Self::Store);
        }
        // It may hold a password, though it must not.
        let shown = if text.contains('@') { "…" } else { text };
        let refused = || setting("--target", shown, FORM);
        if let Some(rest) = text.strip_prefix("unix:") {
            let rest = rest.strip_prefix("//").unwrap_or(rest);
            let (file, path) = rest.split_at(rest.find(":/").unwrap_or(rest.len()));
            let url = TargetUrl::of_file(file).ok_or_else(refused)?;
            let template = template(path.trim_start_matches(':'), shown)?;
            return Ok(Self::Http { url, template });
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?', '#', ':']) => (Some(scheme), rest),
            _ => (None, text),
        };
        let tls = match scheme.map(str::to_ascii_lowercase).as_deref() {
            None | Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(refused()),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let url = TargetUrl::parse(authority, tls).ok_or_else(refused)?;
        // A word alone is more likely a mistake than a host.
        if scheme.is_none() && !authority.ends_with(&format!(":{}", url.port)) {
            return Err(refused());
        }
        let template = template(path, shown)?;
        Ok(Self::Http { url, template })
    }
}

/// What is asked for, of a URL that is `shown` in messages; `None`: a serve.
fn template(path: &str, shown: &str) -> Result<Option<Template>, ConfigError> {
    let template = match path {
        "" | "/" => None,
        _ if path.contains(|c: char| c == '#' || c.is_whitespace() || c.is_control()) => {
            return Err(setting("--target", shown, FORM));
        }
        // As it was typed: parsing would encode the braces.
        path if path.starts_with('/') => Some(path.to_owned()),
        query => Some(format!("/{query}")),
    };
    let template = template.map(|path| Template::of(path.as_bytes()));
    let has_brace = |text: &[u8]| memchr::memchr2(b'{', b'}', text).is_some();
    if template.iter().flat_map(Template::literals).any(has_brace) {
        return Err(setting("--target", shown, BRACE));
    }
    Ok(template)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { url, template } => {
                write!(f, "{url}")?;
                if template.is_some() {
                    f.write_str(url.before_path())?;
                }
                template.iter().try_for_each(|path| path.fmt(f))
            }
            Self::Store => f.write_str("store"),
        }
    }
}

impl TargetUrl {
    pub(super) fn parse(authority: &str, tls: bool) -> Option<Self> {
        let url = url::Url::parse(&format!("{}://{authority}", scheme(tls))).ok()?;
        let host = url.host_str().filter(|host| !host.is_empty())?;
        let port = url.port_or_known_default()?;
        (!authority.contains('@') && port > 0).then(|| Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            tls,
            unix: None,
        })
    }

    fn of_file(file: &str) -> Option<Self> {
        let is_file = !file.is_empty() && !file.contains(['{', '}', '#']);
        // A longer name than the system has room for is refused here, and not by each connection.
        let address = std::os::unix::net::SocketAddr::from_pathname(file);
        (is_file && address.is_ok()).then(|| Self {
            host: "localhost".to_owned(),
            port: 80,
            tls: false,
            unix: Some(file.into()),
        })
    }

    /// What stands between it and a path.
    #[must_use]
    pub fn before_path(&self) -> &'static str {
        if self.unix.is_some() { ":" } else { "" }
    }

    /// The value of the `Host` header. Some servers know themselves by it, and the port of https is told by none.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.unix.is_some() {
            return self.host.clone();
        }
        let whole = authority(&self.host, self.port);
        match whole.strip_suffix(":443") {
            Some(host) if self.tls => host.to_owned(),
            _ => whole,
        }
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.unix {
            return write!(f, "unix:{}", file.display());
        }
        write!(f, "{}://{}", scheme(self.tls), self.authority())
    }
}

fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_path_is_another_service_and_what_has_none_is_a_serve() {
        for (text, expected) in [
            ("http://h", false),
            ("http://h:1/", false),
            ("store", false),
            ("http://h/?", true),
            ("http://h/health", true),
            ("http://h/{id}", true),
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.is_template(), expected, "{text}");
        }
    }

    #[test]
    fn targets_are_taken_as_they_are_written() {
        for (text, host, printed) in [
            ("http://h", "h", "http://h:80"),
            ("HTTP://h:1/", "h", "http://h:1"),
            ("localhost:8080", "localhost", "http://localhost:8080"),
            ("127.0.0.1:80/", "127.0.0.1", "http://127.0.0.1:80"),
            ("[::1]:8080", "::1", "http://[::1]:8080"),
            ("h:80/a/{id}/b", "h", "http://h:80/a/{id}/b"),
            ("http://h/a?key={key}", "h", "http://h:80/a?key={key}"),
            ("http://h:1?next=/{id}", "h", "http://h:1/?next=/{id}"),
            ("http://h:1/a/b?x=1", "h", "http://h:1/a/b?x=1"),
            ("h:1/path", "h", "http://h:1/path"),
            ("h:1?x=1", "h", "http://h:1/?x=1"),
            ("http://h/?", "h", "http://h:80/?"),
            ("http://h//", "h", "http://h:80//"),
            ("h:1/{n}?%7Bid%7D", "h", "http://h:1/{n}?%7Bid%7D"),
            (
                "h:1?at=http://x/{ids}",
                "h",
                "http://h:1/?at=http://x/{ids}",
            ),
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.to_string(), printed, "{text}");
            assert!(matches!(target, Target::Http { url, .. } if url.host == host));
        }
        for text in [
            "",
            "stor",
            "localhost",
            "localhost/{id}",
            "ftp://h",
            "http://",
            "http://h:x",
            "http://h:0",
            "http://u@h",
            "h:1#{id}",
            "h:1/path#part",
            "h:1/{id} x",
            "http:h:1/{id}",
        ] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(
                error.contains("write http://host:port or https://"),
                "{error}"
            );
        }
        for text in ["h:1/{ID}", "h:1/{id}}", "h:1/a{", "h:1/{name}/{id}"] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains("{id}, {ids}, {key} and {n}"), "{error}");
        }
    }

    #[test]
    fn a_socket_file_may_be_followed_by_a_path() {
        for (text, file, is_template, printed) in [
            ("unix:/run/x.sock", "/run/x.sock", false, "unix:/run/x.sock"),
            (
                "unix:///run/x.sock",
                "/run/x.sock",
                false,
                "unix:/run/x.sock",
            ),
            ("unix:x.sock:/", "x.sock", false, "unix:x.sock"),
            ("unix:/a:b.sock:/?", "/a:b.sock", true, "unix:/a:b.sock:/?"),
            (
                "unix:/run/x:/u/{id}?to=http://h:1",
                "/run/x",
                true,
                "unix:/run/x:/u/{id}?to=http://h:1",
            ),
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.to_string(), printed, "{text}");
            assert_eq!(target.is_template(), is_template, "{text}");
            assert_eq!(printed.parse().ok().as_ref(), Some(&target), "{text}");
            let Target::Http { url, .. } = target else {
                panic!("{text}");
            };
            assert_eq!(url.unix.as_deref(), Some(std::path::Path::new(file)));
            assert_eq!(url.authority(), "localhost");
        }
        let long = format!("unix:/{}", "x".repeat(108));
        for text in ["unix:", "unix::/x", "unix:/x:/a b", "unix:/{id}", &long] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains("unix:FILE:/path"), "{error}");
        }
        let error = "unix:/x:/{x}"
            .parse::<Target>()
            .expect_err("a brace")
            .to_string();
        assert!(error.contains("{id}, {ids}, {key} and {n}"), "{error}");
    }

    #[test]
    fn behind_https_the_usual_port_is_443_and_is_left_out() {
        for (text, host, port, printed) in [
            ("https://h", "h", 443, "https://h"),
            ("HTTPS://h:443/", "h", 443, "https://h"),
            ("https://h:80", "h", 80, "https://h:80"),
            ("https://[::1]/{id}", "::1", 443, "https://[::1]/{id}"),
            (
                "https://127.0.0.1:8443/?",
                "127.0.0.1",
                8443,
                "https://127.0.0.1:8443/?",
            ),
            ("http://h:443", "h", 443, "http://h:443"),
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.to_string(), printed, "{text}");
            assert_eq!(
                printed.parse::<Target>().ok().as_ref(),
                Some(&target),
                "{text}"
            );
            let Target::Http { url, .. } = target else {
                panic!("{text}");
            };
            assert_eq!((&*url.host, url.port), (host, port), "{text}");
            assert_eq!(url.tls, printed.starts_with("https"), "{text}");
        }
        for text in ["https://", "https://h:0", "https://u@h", "https://h/a b"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
