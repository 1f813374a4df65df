//! A request to another server than kvpoc's own, put together once for all arrivals. Pure.
//!
//! Enters: a [`Request`], or a list of them, and what stands around it. Leaves: the bytes of each arrival's request, and what a status and a
//! body come to. Must not be printed: it holds headers. Must not parse anything for an arrival, which only copies.

use bytes::{BufMut, BytesMut};
use memchr::{memchr, memmem};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::list::List;
use crate::load::{
    Header, KeysAsked, Piece, Place, Request, Statuses, Template, may_stand_in_a_header,
};

/// In a URL, what is neither unreserved (RFC 3986, 2.3) nor a colon, which may stand in paths and queries and does in
/// most keys.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

/// Why a request cannot be sent to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// A key would end the header that it stands in.
    #[error("keys contain control characters, which a header cannot: remove {{key}} from --header")]
    KeyInHeader,
}

/// A request with places in it, ready to be filled. No `Debug`: it would print its headers.
#[derive(Clone)]
pub struct Form {
    parts: Vec<Part>,
    body: BodyLength,
    keys_asked: KeysAsked,
    is_head: bool,
    may_be_repeated: bool,
    expect: Option<Statuses>,
    contains: Option<memmem::Finder<'static>>,
    /// In place of all the above but what is right.
    list: Option<List>,
}

/// What is copied one after the other.
#[derive(Clone)]
enum Part {
    Text(Vec<u8>),
    Id,
    Ids,
    Number,
    BodyLength,
}

/// Of what a body consists, in bytes of text and in numbers of places.
#[derive(Clone, Copy, Default)]
struct BodyLength {
    text_bytes: usize,
    ids: usize,
    lists: usize,
    numbers: usize,
}

/// What an answer's status and body say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is right.
    Right,
    /// The key is not there.
    Missing,
    /// It is an answer, but not the right one.
    Wrong,
    /// It is a refusal.
    Refused,
}

/// What stands around a request.
pub struct Around<'a> {
    /// Of the target, for the `Host` header.
    pub authority: &'a str,
    /// A header line with its end, or nothing.
    pub token: &'a str,
    /// What stands before the index in each key.
    pub key_prefix: &'a str,
}

impl Form {
    /// Puts a request together.
    ///
    /// # Errors
    /// When it could not be sent with such keys.
    pub fn new(request: &Request, around: &Around<'_>) -> Result<Self, Unsendable> {
        let raw = around.key_prefix.as_bytes();
        let encoded = percent_encode(raw, ENCODED).to_string();
        let mut parts = Parts::default();
        parts.text(request.method.name().as_bytes());
        parts.text(b" ");
        parts.template(&request.path, encoded.as_bytes());
        parts.text(b" HTTP/1.1\r\n");
        // Whoever routes by the host need not look further.
        let (host, others): (Vec<&Header>, Vec<&Header>) =
            request.headers.iter().partition(|header| header.is("host"));
        if host.is_empty() {
            parts.text(format!("host: {}\r\n", around.authority).as_bytes());
        }
        for header in host {
            parts.header(header, raw)?;
        }
        parts.text(around.token.as_bytes());
        for header in others {
            parts.header(header, raw)?;
        }
        let mut body = Parts::default();
        if let Some(template) = &request.body {
            body.template(template, raw);
            parts.text(b"content-length: ");
            parts.body_length(body.length());
            parts.text(b"\r\n");
        }
        parts.text(b"\r\n");
        let length = body.length();
        parts.append(body);
        Ok(Self {
            list: None,
            parts: parts.0,
            body: length,
            keys_asked: request.keys_asked(),
            is_head: request.method.is_head(),
            may_be_repeated: request.may_be_repeated(),
            expect: request.expect.clone(),
            contains: finder(request.contains.as_deref()),
        })
    }

    /// The requests of a list, and which answers to them are right.
    #[must_use]
    pub fn of_list(list: List, expect: Option<Statuses>, contains: Option<&str>) -> Self {
        Self {
            parts: Vec::new(),
            body: BodyLength::default(),
            keys_asked: KeysAsked::None,
            is_head: false,
            may_be_repeated: false,
            expect,
            contains: finder(contains),
            list: Some(list),
        }
    }

    /// How many keys each arrival asks for.
    #[must_use]
    pub fn keys_asked(&self) -> KeysAsked {
        self.keys_asked
    }

    /// No answer has a body.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.is_head
    }

    /// Some answers have no body, those to the arrivals that [`Form::is_head_of`] tells.
    #[must_use]
    pub fn has_heads(&self) -> bool {
        self.list.as_ref().is_some_and(List::has_heads)
    }

    /// The answer to arrival `number` has no body.
    #[must_use]
    pub fn is_head_of(&self, number: u64) -> bool {
        match &self.list {
            Some(list) => list.is_head(number),
            None => self.is_head,
        }
    }

    /// Arrival `number` may be sent again though it may have been done.
    #[must_use]
    pub fn may_be_repeated(&self, number: u64) -> bool {
        match &self.list {
            Some(list) => list.may_be_repeated(number),
            None => self.may_be_repeated,
        }
    }

    /// Somebody has to look at the bodies.
    #[must_use]
    pub fn looks_at_bodies(&self) -> bool {
        self.contains.is_some()
    }

    /// Appends the request of arrival `number`, which asks for these indexes.
    pub fn write(&self, number: u64, indexes: impl Iterator<Item = u64>, out: &mut BytesMut) {
        if let Some(list) = &self.list {
            return list.write(number, out);
        }
        let mut ids = BytesMut::new();
        put_ids(indexes, &mut ids);
        let id = &ids[..memchr(b',', &ids).unwrap_or(ids.len())];
        let mut digits = itoa::Buffer::new();
        let number = digits.format(number).as_bytes();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.put_slice(text),
                Part::Id => out.put_slice(id),
                Part::Ids => out.put_slice(&ids),
                Part::Number => out.put_slice(number),
                Part::BodyLength => {
                    let length = self.body.text_bytes
                        + self.body.ids * id.len()
                        + self.body.lists * ids.len()
                        + self.body.numbers * number.len();
                    out.put_slice(itoa::Buffer::new().format(length).as_bytes());
                }
            }
        }
    }

    /// What an answer says. Statuses that somebody named are right, and no others; a miss is known by its usual one.
    #[must_use]
    pub fn read(&self, status: u16, body: &[u8]) -> Told {
        let is_right = match &self.expect {
            Some(statuses) => statuses.contains(status),
            None => matches!(status, 200..=299 | 304),
        };
        let contains = |text: &memmem::Finder<'_>| text.find(body).is_some();
        match status {
            _ if is_right && self.contains.as_ref().is_none_or(contains) => Told::Right,
            _ if is_right => Told::Wrong,
            404 if self.expect.is_none() && self.keys_asked != KeysAsked::None => Told::Missing,
            _ => Told::Refused,
        }
    }
}

fn finder(text: Option<&str>) -> Option<memmem::Finder<'static>> {
    text.map(|text| memmem::Finder::new(text).into_owned())
}

/// Indexes with commas between them.
pub(super) fn put_ids(indexes: impl Iterator<Item = u64>, out: &mut BytesMut) {
    let mut digits = itoa::Buffer::new();
    for (place, index) in indexes.enumerate() {
        if place > 0 {
            out.put_u8(b',');
        }
        out.put_slice(digits.format(index).as_bytes());
    }
}

/// Parts in the making; texts that follow one another are one.
#[derive(Default)]
struct Parts(Vec<Part>);

impl Parts {
    fn text(&mut self, more: &[u8]) {
        match self.0.last_mut() {
            _ if more.is_empty() => {}
            Some(Part::Text(text)) => text.extend_from_slice(more),
            _ => self.0.push(Part::Text(more.to_vec())),
        }
    }

    /// A key is its prefix, as it has to be written here, and its index.
    fn template(&mut self, template: &Template, key_prefix: &[u8]) {
        for piece in template.pieces() {
            match piece {
                Piece::Text(text) => self.text(text),
                Piece::Place(Place::Id) => self.0.push(Part::Id),
                Piece::Place(Place::Ids) => self.0.push(Part::Ids),
                Piece::Place(Place::Number) => self.0.push(Part::Number),
                Piece::Place(Place::Key) => {
                    self.text(key_prefix);
                    self.0.push(Part::Id);
                }
            }
        }
    }

    fn header(&mut self, header: &Header, key_prefix: &[u8]) -> Result<(), Unsendable> {
        if header.value.has(Place::Key) && !may_stand_in_a_header(key_prefix) {
            return Err(Unsendable::KeyInHeader);
        }
        self.text(format!("{}: ", header.name).as_bytes());
        self.template(&header.value, key_prefix);
        self.text(b"\r\n");
        Ok(())
    }

    /// That of a body without places is known here and now.
    fn body_length(&mut self, length: BodyLength) {
        let BodyLength {
            text_bytes,
            ids,
            lists,
            numbers,
        } = length;
        if ids + lists + numbers == 0 {
            self.text(text_bytes.to_string().as_bytes());
        } else {
            self.0.push(Part::BodyLength);
        }
    }

    fn append(&mut self, others: Self) {
        for part in others.0 {
            match part {
                Part::Text(text) => self.text(&text),
                other => self.0.push(other),
            }
        }
    }

    fn length(&self) -> BodyLength {
        let mut length = BodyLength::default();
        for part in &self.0 {
            match part {
                Part::Text(text) => length.text_bytes += text.len(),
                Part::Id => length.ids += 1,
                Part::Ids => length.lists += 1,
                Part::Number => length.numbers += 1,
                Part::BodyLength => {}
            }
        }
        length
    }
}

#[cfg(test)]
impl Form {
    /// To some target, for keys of `user:session:`.
    pub(super) fn of(request: &Request) -> Self {
        let around = Around {
            authority: "localhost:80",
            token: "",
            key_prefix: "user:session:",
        };
        Self::new(request, &around).unwrap_or_else(|error| panic!("{error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{HeaderLine, Method};

    /// `GET /a` with headers, one on each line, and a body, by keys of this prefix.
    fn form(start: &str, headers: &str, body: Option<&str>, prefix: &str) -> Form {
        try_form(start, headers, body, prefix).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_form(
        start: &str,
        headers: &str,
        body: Option<&str>,
        key_prefix: &str,
    ) -> Result<Form, Unsendable> {
        let (method, path) = start.split_once(' ').expect("a method and a path");
        let lines = HeaderLine::from(headers.to_owned());
        let request = Request {
            method: method.parse::<Method>().expect("a method"),
            path: Template::of(path.as_bytes()),
            headers: lines.lines().flat_map(|line| line.parse()).collect(),
            body: body.map(|text| Template::of(text.as_bytes())),
            expect: None,
            contains: None,
        };
        let around = Around {
            authority: "h:80",
            token: "",
            key_prefix,
        };
        Form::new(&request, &around)
    }

    fn written(form: &Form, number: u64, ids: &[u64]) -> String {
        let mut out = BytesMut::new();
        form.write(number, ids.iter().copied(), &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn requests_are_filled_as_they_are_written() {
        for (start, headers, body, expected) in [
            (
                "GET /a?x=1",
                "",
                None,
                "GET /a?x=1 HTTP/1.1\r\nhost: h:80\r\n\r\n",
            ),
            (
                "GET /{id}/{ids}?k={key}&n={n}",
                "",
                None,
                "GET /12/12,345?k=p:12&n=7 HTTP/1.1\r\nhost: h:80\r\n\r\n",
            ),
            (
                "POST /a",
                "X-Trace: {n}-{key}\nHost: other\nAccept: */*",
                Some("{\"id\":{id}}"),
                "POST /a HTTP/1.1\r\nHost: other\r\nX-Trace: 7-p:12\r\nAccept: */*\r\ncontent-length: 9\r\n\r\n\
                 {\"id\":12}",
            ),
            (
                "PUT /{n}",
                "",
                Some("{ids};{key};{n}"),
                "PUT /7 HTTP/1.1\r\nhost: h:80\r\ncontent-length: 13\r\n\r\n12,345;p:12;7",
            ),
            (
                "POST /",
                "",
                Some(""),
                "POST / HTTP/1.1\r\nhost: h:80\r\ncontent-length: 0\r\n\r\n",
            ),
            (
                "POST /",
                "",
                Some("no places"),
                "POST / HTTP/1.1\r\nhost: h:80\r\ncontent-length: 9\r\n\r\nno places",
            ),
        ] {
            let form = form(start, headers, body, "p:");
            let found = written(&form, 7, &[12, 345]);
            assert_eq!(found, expected);
            let (_, body) = found.split_once("\r\n\r\n").expect("a body");
            if let Some((_, rest)) = found.split_once("content-length: ") {
                let length = rest.lines().next().and_then(|text| text.parse().ok());
                assert_eq!(length, Some(body.len()), "{found}");
            }
        }
    }

    #[test]
    fn keys_are_encoded_in_a_url_and_nowhere_else() {
        let prefix = "a b/ä?:~";
        let form = form("PUT /{key}", "x: {key}", Some("{key}"), prefix);
        let expected = "PUT /a%20b%2F%C3%A4%3F:~1 HTTP/1.1\r\nhost: h:80\r\nx: a b/ä?:~1\r\ncontent-length: 10\r\n\
                        \r\na b/ä?:~1";
        assert_eq!(written(&form, 0, &[1]), expected);
    }

    #[test]
    fn no_key_ends_the_header_that_it_stands_in() {
        let prefix = "a\r\nx: y";
        let refused = try_form("GET /", "x: {key}", None, prefix).err();
        assert_eq!(refused, Some(Unsendable::KeyInHeader));
        let encoded = written(&form("GET /{key}", "x: {id}", None, prefix), 0, &[1]);
        assert!(encoded.starts_with("GET /a%0D%0Ax:%20y1 "), "{encoded}");
    }

    #[test]
    fn the_token_follows_the_host() {
        let request = Request::of_path("/");
        let around = Around {
            authority: "h:80",
            token: "authorization: Bearer x\r\n",
            key_prefix: "",
        };
        let form = Form::new(&request, &around).unwrap_or_else(|error| panic!("{error}"));
        let expected = "GET / HTTP/1.1\r\nhost: h:80\r\nauthorization: Bearer x\r\n\r\n";
        assert_eq!(written(&form, 0, &[]), expected);
    }

    #[test]
    fn statuses_are_right_by_name_or_by_habit_and_bodies_by_what_they_contain() {
        let with = |path: &str, expect: Option<&str>, contains: Option<&str>| Form {
            expect: expect.map(|text| text.parse().expect("statuses")),
            contains: contains.map(|text| memmem::Finder::new(text).into_owned()),
            ..form(&format!("GET {path}"), "", None, "")
        };
        for (form, status, body, expected) in [
            (with("/{id}", None, None), 200, "", Told::Right),
            (with("/{id}", None, None), 304, "", Told::Right),
            (with("/{id}", None, None), 404, "", Told::Missing),
            (with("/a", None, None), 404, "", Told::Refused),
            (with("/{n}", None, None), 404, "", Told::Refused),
            (with("/a", None, None), 301, "", Told::Refused),
            (with("/{id}", Some("201"), None), 200, "", Told::Refused),
            (with("/{id}", Some("201"), None), 404, "", Told::Refused),
            (with("/{id}", Some("404"), None), 404, "", Told::Right),
            (with("/a", None, Some("ok")), 200, "it is ok", Told::Right),
            (with("/a", None, Some("ok")), 200, "it is not", Told::Wrong),
            (with("/a", None, Some("ok")), 503, "ok", Told::Refused),
            (with("/{id}", None, Some("ok")), 404, "", Told::Missing),
            (with("/a", Some("503"), Some("ok")), 503, "", Told::Wrong),
        ] {
            assert_eq!(form.read(status, body.as_bytes()), expected, "{status}");
        }
    }
}
