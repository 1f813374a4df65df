//! What `bench` drives: parsed from text, printed as it was typed.
//!
//! Enters: `--target`. Leaves: a server's address, and the path to ask it for where it is not kvpoc's own. Must not
//! repeat a password in a message, nor encode anything: a URL is sent as it was typed.

use std::fmt;

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
}

impl std::str::FromStr for Target {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        const FORM: &str = "write http://host:port of a serve, any other URL with a path, or store";
        const BRACE: &str = "the places in a URL are {id}, {ids}, {key} and {n}; write any other brace as %7B or %7D";
        const NO_TLS: &str = "bench speaks no TLS: write http://host:port of the server behind it";
        if text == "store" {
            return Ok(Self::Store);
        }
        // It may hold a password, though it must not.
        let shown = if text.contains('@') { "…" } else { text };
        let refused = || setting("--target", shown, FORM);
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?', '#', ':']) => (Some(scheme), rest),
            _ => (None, text),
        };
        match scheme.map(str::to_ascii_lowercase).as_deref() {
            None | Some("http") => {}
            Some("https") => return Err(setting("--target", shown, NO_TLS)),
            Some(_) => return Err(refused()),
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let url = TargetUrl::parse(authority).ok_or_else(refused)?;
        // A word alone is more likely a mistake than a host.
        if scheme.is_none() && !authority.ends_with(&format!(":{}", url.port)) {
            return Err(refused());
        }
        let template = match path {
            "" | "/" => None,
            _ if path.contains(|c: char| c == '#' || c.is_whitespace() || c.is_control()) => {
                return Err(refused());
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
        Ok(Self::Http { url, template })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { url, template } => {
                write!(f, "{url}")?;
                template.iter().try_for_each(|path| path.fmt(f))
            }
            Self::Store => f.write_str("store"),
        }
    }
}

impl TargetUrl {
    pub(super) fn parse(authority: &str) -> Option<Self> {
        let url = url::Url::parse(&format!("http://{authority}")).ok()?;
        let host = url.host_str().filter(|host| !host.is_empty())?;
        let port = url.port().unwrap_or(80);
        (!authority.contains('@') && port > 0).then(|| Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
        })
    }

    /// The value of the `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
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
            assert!(error.contains("write http://host:port"), "{error}");
        }
        for text in ["h:1/{ID}", "h:1/{id}}", "h:1/a{", "h:1/{name}/{id}"] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains("{id}, {ids}, {key} and {n}"), "{error}");
        }
        let tls = "https://h".parse::<Target>().expect_err("TLS").to_string();
        assert!(tls.contains("no TLS"), "{tls}");
    }
}
