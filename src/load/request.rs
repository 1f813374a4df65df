//! What is asked of another server than kvpoc's own: method, headers, body, and which answers are right. Pure.
//!
//! Enters: what a user typed. Leaves: parts of a request that HTTP allows. Must not print what a header holds: it may be
//! a secret.

use std::fmt;
use std::str::FromStr;

use super::statuses::Statuses;
use super::template::{Place, Template};
use crate::units::UnitError;

/// Whatever is right unless somebody says otherwise; 404 is a miss then, where there are keys.
pub const USUAL_STATUSES: &str = "200-299,304";

/// A request that every arrival sends, with places of its own.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is done.
    pub method: Method,
    /// Path and query of the URL.
    pub path: Template,
    /// Headers besides those that HTTP needs.
    pub headers: Vec<Header>,
    /// What is sent after them.
    pub body: Option<Template>,
    /// Which statuses are right; `None`: the usual ones.
    pub expect: Option<Statuses>,
    /// What a right answer contains.
    pub contains: Option<String>,
}

/// How many keys an arrival asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysAsked {
    /// None: every request is the same, but for its number.
    None,
    /// One.
    One,
    /// As many as `--keys-per-request` says.
    Batch,
}

#[cfg(test)]
impl Request {
    /// A bare GET.
    pub(crate) fn of_path(path: &str) -> Self {
        Self {
            method: Method::usual(false),
            path: Template::of(path.as_bytes()),
            headers: Vec::new(),
            body: None,
            expect: None,
            contains: None,
        }
    }
}

impl Request {
    /// What its places ask for.
    #[must_use]
    pub fn keys_asked(&self) -> KeysAsked {
        if self.has(Place::Ids) {
            KeysAsked::Batch
        } else if self.has(Place::Id) || self.has(Place::Key) {
            KeysAsked::One
        } else {
            KeysAsked::None
        }
    }

    fn has(&self, place: Place) -> bool {
        let headers = self.headers.iter().map(|header| &header.value);
        let mut texts = headers.chain(&self.body).chain([&self.path]);
        texts.any(|text| text.has(place))
    }

    /// Whether a request whose connection ended may be sent again, though it may have been done already (RFC 9110,
    /// 9.2.2): twice is as good as once, or the target can tell by its key.
    #[must_use]
    pub fn may_be_repeated(&self) -> bool {
        let has_key = |header: &Header| header.is("idempotency-key");
        self.method.is_idempotent() || self.headers.iter().any(has_key)
    }

    /// Which headers it has, for a person: what they hold may be a secret.
    #[must_use]
    pub fn header_names(&self) -> String {
        header_names(&self.headers)
    }

    /// Which statuses are right, for a person.
    #[must_use]
    pub fn expected(&self) -> String {
        match (&self.expect, self.keys_asked()) {
            (Some(statuses), _) => statuses.to_string(),
            (None, KeysAsked::None) => USUAL_STATUSES.into(),
            (None, _) => format!("{USUAL_STATUSES}; 404 is a miss"),
        }
    }
}

/// A method, in the letters that it is sent in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Method(String);

/// Those that are known to be as good twice as once.
const IDEMPOTENT: [&str; 6] = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"];

impl Method {
    /// Unless another one is given.
    #[must_use]
    pub fn usual(has_body: bool) -> Self {
        Self(if has_body { "POST" } else { "GET" }.into())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// No answer to it has a body.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.0 == "HEAD"
    }

    /// It must not have a body (RFC 9110, 9.3.8).
    #[must_use]
    pub fn takes_no_body(&self) -> bool {
        self.0 == "TRACE"
    }

    /// It is known to be as good twice as once.
    pub(super) fn is_idempotent(&self) -> bool {
        IDEMPOTENT.contains(&self.name())
    }
}

impl FromStr for Method {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let upper = text.to_ascii_uppercase();
        let is_known = IDEMPOTENT.contains(&&*upper) || ["POST", "PATCH"].contains(&&*upper);
        if !is_token(text) {
            return Err(UnitError("write a method, such as GET or POST".into()));
        }
        if upper == "CONNECT" {
            let reason = "it asks for a tunnel and names no path; give another method";
            return Err(UnitError(reason.into()));
        }
        // The letters of a method count, so this would be another one, which no server knows.
        if is_known && upper != text {
            return Err(UnitError(format!("write {upper}")));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A header as a user typed it. It may be a secret: `Debug` leaves it out.
#[derive(Clone)]
pub struct HeaderLine(String);

impl From<String> for HeaderLine {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for HeaderLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderLine(not shown)")
    }
}

impl HeaderLine {
    /// One header for each line: a variable and a settings file hold only one text.
    pub fn lines(&self) -> impl Iterator<Item = Self> {
        let lines = self.0.lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| Self(line.to_owned()))
    }

    /// What of it may stand in a message: its name, if it has one.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.0.split_once(':') {
            Some((name, _)) if is_token(name) => format!("{name}: …"),
            _ => "…".into(),
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it, without its value.
    pub fn parse(&self) -> Result<Header, UnitError> {
        let refused = |reason: &str| Err(UnitError(reason.into()));
        let Some((name, value)) = self.0.split_once(':') else {
            return refused("write 'NAME: VALUE'");
        };
        if !is_token(name) {
            return refused(
                "a name has letters, digits and !#$%&'*+-.^_`|~, and its colon follows at once",
            );
        }
        if !may_stand_in_a_header(value.as_bytes()) {
            return refused("a value has no line ends and no other control characters but tabs");
        }
        let reason = match &*name.to_ascii_lowercase() {
            "content-length" => "it follows from the body, and is sent with it; leave it out",
            "transfer-encoding" => "a body is sent as a whole, with its length; leave it out",
            "connection" => "each connection carries one request after another; leave it out",
            _ => {
                return Ok(Header {
                    name: name.to_owned(),
                    value: Template::of(value.trim_matches([' ', '\t']).as_bytes()),
                });
            }
        };
        refused(reason)
    }
}

/// A header that HTTP allows, and that does not say how the request is framed.
#[derive(Debug, Clone)]
pub struct Header {
    /// As it was typed.
    pub name: String,
    /// It may be a secret.
    pub value: Template,
}

impl Header {
    /// Whether it has this name, which is in small letters.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// Which headers there are, for a person: what they hold may be a secret.
#[must_use]
pub fn header_names(headers: &[Header]) -> String {
    let names: Vec<&str> = headers.iter().map(|header| &*header.name).collect();
    names.join(", ")
}

/// Whether no byte of it would end a header, or is forbidden in one (RFC 9110, 5.5).
#[must_use]
pub fn may_stand_in_a_header(value: &[u8]) -> bool {
    let is_control = |&byte: &u8| (byte < b' ' && byte != b'\t') || byte == 0x7F;
    !value.iter().any(is_control)
}

/// RFC 9110, 5.6.2.
fn is_token(text: &str) -> bool {
    let is_token_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Result<Header, UnitError> {
        HeaderLine::from(text.to_owned()).parse()
    }

    fn request(method: &str, path: &str, headers: &[&str], body: Option<&str>) -> Request {
        Request {
            method: method.parse().expect("a method"),
            path: Template::of(path.as_bytes()),
            headers: headers.iter().flat_map(|text| header(text)).collect(),
            body: body.map(|text| Template::of(text.as_bytes())),
            expect: None,
            contains: None,
        }
    }

    #[test]
    fn headers_are_read_as_they_are_typed() {
        for (text, name, value) in [
            ("Accept: */*", "Accept", "*/*"),
            ("accept:a:b", "accept", "a:b"),
            ("X-Empty:", "X-Empty", ""),
            ("X:  a b\t", "X", "a b"),
            ("X: ä", "X", "ä"),
            ("Idempotency-Key: {n}", "Idempotency-Key", "{n}"),
        ] {
            let found = header(text).expect(text);
            assert_eq!((&*found.name, &*found.value.to_string()), (name, value));
        }
    }

    #[test]
    fn refused_headers_are_told_why_and_their_values_to_nobody() {
        for (text, expected) in [
            ("", "'NAME: VALUE'"),
            ("secret", "'NAME: VALUE'"),
            (": secret", "a name has"),
            ("a b: secret", "a name has"),
            ("a : secret", "a name has"),
            ("{id}: secret", "a name has"),
            ("a: secret\r\nb: c", "no line ends"),
            ("a: secret\n", "no line ends"),
            ("a: secret\0", "no line ends"),
            ("Content-Length: secret", "follows from the body"),
            ("transfer-encoding: secret", "as a whole"),
            ("CONNECTION: secret", "one request after another"),
        ] {
            let line = HeaderLine::from(text.to_owned());
            let error = line.parse().map(|_| ()).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
            for shown in [error, line.shown(), format!("{line:?}")] {
                assert!(!shown.contains("secret"), "{shown}");
            }
        }
        let good = header("Authorization: secret").expect("a header");
        assert!(!format!("{good:?}").contains("secret"));
        let named = HeaderLine::from("Authorization: secret".to_owned()).shown();
        assert_eq!(named, "Authorization: …");
    }

    #[test]
    fn a_text_of_several_lines_is_as_many_headers() {
        let lines = HeaderLine::from("a: 1\nb: 2\r\n\nc: 3".to_owned());
        let found: Vec<String> = lines
            .lines()
            .map(|line| line.parse().expect("a header").name)
            .collect();
        assert_eq!(found, ["a", "b", "c"]);
    }

    #[test]
    fn methods_are_tokens_in_their_own_letters() {
        for text in ["GET", "HEAD", "PURGE", "purge", "M-SEARCH"] {
            assert_eq!(text.parse::<Method>().expect(text).name(), text);
        }
        for (text, expected) in [
            ("", "such as GET"),
            ("GET /", "such as GET"),
            ("post", "write POST"),
            ("Get", "write GET"),
            ("CONNECT", "a tunnel"),
        ] {
            let error = text.parse::<Method>().expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_may_be_repeated_is_idempotent_or_has_a_key() {
        for (method, headers, expected) in [
            ("GET", &[][..], true),
            ("HEAD", &[], true),
            ("OPTIONS", &[], true),
            ("PUT", &[], true),
            ("DELETE", &[], true),
            ("TRACE", &[], true),
            ("POST", &[], false),
            ("PATCH", &["x: idempotency-key"], false),
            ("PURGE", &[], false),
            ("POST", &["IDEMPOTENCY-KEY: {n}"], true),
        ] {
            let found = request(method, "/", headers, None).may_be_repeated();
            assert_eq!(found, expected, "{method}");
        }
    }

    #[test]
    fn keys_are_asked_for_by_any_place_of_the_request() {
        for (path, headers, body, expected) in [
            ("/a", &["x: {n}"][..], Some("{n}"), KeysAsked::None),
            ("/{id}", &[], None, KeysAsked::One),
            ("/", &["x: {key}"], None, KeysAsked::One),
            ("/", &[], Some("{id}"), KeysAsked::One),
            ("/{id}", &[], Some("[{ids}]"), KeysAsked::Batch),
        ] {
            let request = request("POST", path, headers, body);
            assert_eq!(request.keys_asked(), expected, "{path}");
            let has_misses = request.expected().contains("404 is a miss");
            assert_eq!(has_misses, expected != KeysAsked::None);
        }
    }
}
