//! Requests that somebody wrote down, one a line, and the list that they make. Pure.
//!
//! Enters: lines of a file. Leaves: a [`RequestList`], in which each request stands once, however often it is asked for.
//! Must not fill anything in, as braces stand for themselves here, nor print what headers and bodies hold.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::request::{HeaderLine, Method};
use crate::random::{below, splitmix64};
use crate::units::UnitError;

/// Sets the draws of lines apart from all other draws of the same seed.
const ORDER_SALT: u64 = 0x11_57ED;
/// Those that say how a request is framed, or where it goes: bench writes its own.
const FRAMING: [&str; 4] = ["content-length", "transfer-encoding", "connection", "host"];

/// Whether a scheme and an authority, as `http` and `host:port`, are those of the target.
pub type IsOrigin<'a> = &'a dyn Fn(&str, &str) -> bool;

/// Name and value of a header.
pub(super) type OwnHeader = (Box<str>, Box<str>);

/// One request, as it is sent.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Listed {
    method: Method,
    path: Box<str>,
    headers: Box<[OwnHeader]>,
    body: Option<Box<str>>,
}

/// It may hold secrets.
impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listed({}, not shown)", self.method.name())
    }
}

/// A request as JSON.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    method: Option<String>,
    #[serde(alias = "url")]
    path: String,
    #[serde(default)]
    headers: Map<String, Value>,
    body: Option<String>,
}

impl Listed {
    /// Reads one line: a path, a URL of the target, or a JSON object.
    ///
    /// # Errors
    /// What is wrong with it, without what its headers and its body hold.
    pub fn parse(line: &str, is_origin: IsOrigin<'_>) -> Result<Self, UnitError> {
        if !line.starts_with('{') {
            return Self::new(None, path_of(line, is_origin)?, Vec::new(), None);
        }
        let written: Written = serde_json::from_str(line).map_err(|error| {
            UnitError(format!(
                r#"as JSON, a request is {{"method":"POST","path":"/x","headers":{{"a":"b"}},"body":"…"}}; this is not, from column {} on"#,
                error.column()
            ))
        })?;
        let path = path_of(&written.path, is_origin)?;
        let headers = headers_of(&written.headers, false)?;
        Self::new(written.method.as_deref(), path, headers, written.body)
    }

    /// Of its parts, the method GET, or POST where there is a body, unless one is given.
    ///
    /// # Errors
    /// When the method is none, or has no body and is given one.
    pub(super) fn new(
        method: Option<&str>,
        path: String,
        headers: Vec<OwnHeader>,
        body: Option<String>,
    ) -> Result<Self, UnitError> {
        let method = match method {
            Some(text) => text
                .parse()
                .map_err(|error| UnitError(format!("its method: {error}")))?,
            None => Method::usual(body.is_some()),
        };
        if method.takes_no_body() && body.is_some() {
            return Err(UnitError(format!("a {} has no body", method.name())));
        }
        Ok(Self {
            method,
            path: path.into(),
            headers: headers.into(),
            body: body.map(Into::into),
        })
    }

    /// What is done.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Path and query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Names and values of its own headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// What is sent after them.
    #[must_use]
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }

    /// It has neither headers nor a body of its own.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.headers.is_empty() && self.body.is_none()
    }

    /// Whether it may be sent again though it may have been done (RFC 9110, 9.2.2).
    #[must_use]
    pub fn may_be_repeated(&self) -> bool {
        let is_key = |(name, _): (&str, &str)| name.eq_ignore_ascii_case("idempotency-key");
        self.method.is_idempotent() || self.headers().any(is_key)
    }
}

/// Path and query of a line, which is either or a URL of the target.
///
/// # Errors
/// When it is of another origin, or could not be sent.
pub(super) fn path_of(text: &str, is_origin: IsOrigin<'_>) -> Result<String, UnitError> {
    const FORM: &str =
        "a request is a path, which begins with /, a URL of the target, or a JSON object";
    let refused = |reason: &str| Err(UnitError(reason.into()));
    let path = match text.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?', '#']) => {
            let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            if !is_origin(scheme, authority) {
                return refused("its URL is of another origin than --target; give the path alone");
            }
            path
        }
        _ if text.starts_with('/') => text,
        _ => return refused(FORM),
    };
    if path.contains(|c: char| c == '#' || c.is_whitespace() || c.is_control()) {
        return refused("a path has no #, no white space and no control characters; encode them");
    }
    Ok(match path {
        "" => "/".into(),
        path if path.starts_with('/') => path.into(),
        query => format!("/{query}"),
    })
}

/// Headers as JSON has them. Those that frame a request are refused, or left out of what was `recorded`.
///
/// # Errors
/// Which is none that HTTP allows, without its value.
pub(super) fn headers_of(
    members: &Map<String, Value>,
    recorded: bool,
) -> Result<Vec<OwnHeader>, UnitError> {
    let mut headers = Vec::new();
    for (name, value) in members {
        let is_framing = FRAMING.iter().any(|one| name.eq_ignore_ascii_case(one));
        if recorded && is_framing {
            continue;
        }
        let Value::String(value) = value else {
            return Err(UnitError(format!("its header {name:?} is no text")));
        };
        let line = HeaderLine::from(format!("{name}: {value}"));
        let refused = |error| UnitError(format!("its header {name:?}: {error}"));
        let header = line.parse().map_err(refused)?;
        headers.push((header.name.into(), header.value.to_string().into()));
    }
    Ok(headers)
}

/// In which order the lines of a list are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestsOrder {
    /// One after the other, and after the last one the first one again.
    File,
    /// Each arrival draws one.
    Random,
}

impl FromStr for RequestsOrder {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "file" => Ok(Self::File),
            "random" => Ok(Self::Random),
            _ => Err(UnitError("write file or random".into())),
        }
    }
}

impl fmt::Display for RequestsOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Random => "random",
        })
    }
}

/// Requests in the order of their lines; there is at least one.
#[derive(Default)]
pub struct RequestList {
    distinct: Vec<Listed>,
    /// The place among them of each line's request.
    lines: Vec<u32>,
}

impl fmt::Debug for RequestList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestList({} lines)", self.lines.len())
    }
}

impl RequestList {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// There is none, which no list that is asked for may be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// What arrival `number` asks for.
    #[must_use]
    pub fn of_arrival(&self, number: u64, order: RequestsOrder, seed: u64) -> &Listed {
        let count = self.lines.len() as u64;
        let line = match order {
            RequestsOrder::File => number % count,
            RequestsOrder::Random => below(splitmix64(seed ^ ORDER_SALT, number), count),
        };
        &self.distinct[self.lines[line as usize] as usize]
    }

    /// Whether one of them is for this.
    pub fn any(&self, is: impl FnMut(&Listed) -> bool) -> bool {
        self.distinct.iter().any(is)
    }
}

/// Gathers requests, each of them once.
#[derive(Default)]
pub struct Gathered {
    places: HashMap<Listed, u32>,
}

impl Gathered {
    /// The place of a request among those that differ.
    pub fn place(&mut self, request: Listed) -> u32 {
        let next = self.places.len() as u32;
        *self.places.entry(request).or_insert(next)
    }

    /// The list that asks for these places, one after the other.
    #[must_use]
    pub fn in_order(self, lines: Vec<u32>) -> RequestList {
        let mut distinct: Vec<(u32, Listed)> = self
            .places
            .into_iter()
            .map(|(request, place)| (place, request))
            .collect();
        distinct.sort_unstable_by_key(|&(place, _)| place);
        RequestList {
            distinct: distinct.into_iter().map(|(_, request)| request).collect(),
            lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Listed, UnitError> {
        Listed::parse(line, &|scheme, authority| {
            scheme.eq_ignore_ascii_case("http") && authority == "h:1"
        })
    }

    #[test]
    fn a_line_is_a_path_a_url_or_an_object() {
        for (line, method, path, body) in [
            ("/x/1", "GET", "/x/1", None),
            ("/", "GET", "/", None),
            ("/a?at=http://x/{id}", "GET", "/a?at=http://x/{id}", None),
            ("http://h:1/x?y=1", "GET", "/x?y=1", None),
            ("HTTP://h:1", "GET", "/", None),
            ("http://h:1?y", "GET", "/?y", None),
            (r#"{"path":"/x"}"#, "GET", "/x", None),
            (r#"{"url":"http://h:1/x"}"#, "GET", "/x", None),
            (r#"{"path":"/x","body":"{n}"}"#, "POST", "/x", Some("{n}")),
            (
                r#"{"method":"DELETE","path":"/x","headers":{}}"#,
                "DELETE",
                "/x",
                None,
            ),
        ] {
            let found = parse(line).expect(line);
            assert_eq!((found.method().name(), found.path()), (method, path));
            assert_eq!(found.body(), body, "{line}");
        }
        let own = parse(r#"{"path":"/x","headers":{"A":"{n} b","c":"d"}}"#).expect("headers");
        let headers: Vec<_> = own.headers().collect();
        assert_eq!(headers, [("A", "{n} b"), ("c", "d")]);
    }

    #[test]
    fn a_line_that_cannot_be_sent_is_refused_with_the_reason() {
        for (line, expected) in [
            ("x/1", "begins with /"),
            ("h:1/x", "begins with /"),
            ("http://h:2/x", "another origin"),
            ("https://h:1/x", "another origin"),
            ("/a b", "no white space"),
            ("/a#b", "no #"),
            ("{", "column"),
            (r#"{"path":"/x","bdy":"secret"}"#, "column"),
            (r#"{"path":"/x","headers":"secret"}"#, "column"),
            (r#"{"path":"http://h:2/x"}"#, "another origin"),
            (r#"{"path":"/x","method":"post"}"#, "write POST"),
            (
                r#"{"path":"/x","method":"TRACE","body":"secret"}"#,
                "no body",
            ),
            (r#"{"path":"/x","headers":{"a":1}}"#, "is no text"),
            (
                r#"{"path":"/x","headers":{"a":"secret\n"}}"#,
                "no line ends",
            ),
            (
                r#"{"path":"/x","headers":{"Content-Length":"secret"}}"#,
                "follows from the body",
            ),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn arrivals_go_round_or_draw_and_the_same_seed_draws_the_same() {
        let mut gathered = Gathered::default();
        let lines: Vec<u32> = ["/a", "/b", "/a", "/c"]
            .iter()
            .map(|path| gathered.place(parse(path).expect("a path")))
            .collect();
        let list = gathered.in_order(lines);
        assert_eq!((list.len(), list.distinct.len()), (4, 3));
        let paths = |order, seed| -> Vec<String> {
            let path = |number| list.of_arrival(number, order, seed).path().to_owned();
            (0..200).map(path).collect()
        };
        let in_turn = paths(RequestsOrder::File, 1);
        assert_eq!(in_turn[..6], ["/a", "/b", "/a", "/c", "/a", "/b"]);
        let drawn = paths(RequestsOrder::Random, 1);
        assert_eq!(drawn, paths(RequestsOrder::Random, 1));
        assert_ne!(drawn, paths(RequestsOrder::Random, 2));
        // A line that is there twice is drawn twice as often: 100 expected, with a standard deviation of 7.
        let count = drawn.iter().filter(|path| *path == "/a").count();
        assert!((70..130).contains(&count), "{count}");
    }
}
