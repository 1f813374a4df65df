//! The requests of a list, as bytes. Pure.
//!
//! Enters: a [`RequestList`], and what every request of it has. Leaves: the bytes of each arrival's request. Must not fill
//! anything in, nor be printed: it holds headers.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use crate::load::{Header, Listed, RequestList, RequestsOrder};

/// A list, ready to be sent. No `Debug`: it would print its headers.
#[derive(Clone)]
pub struct List {
    requests: Arc<RequestList>,
    order: RequestsOrder,
    seed: u64,
    /// Header lines of all requests, with their names.
    common: Vec<(String, String)>,
    /// From behind the path to the end of a request that has nothing of its own.
    bare_end: Vec<u8>,
    has_heads: bool,
}

impl List {
    /// A list and the order of its lines, for a target of this authority, which is shown a `token`, a header line or
    /// nothing, and these headers.
    #[must_use]
    pub fn new(
        (requests, order, seed): (Arc<RequestList>, RequestsOrder, u64),
        (authority, token): (&str, &str),
        headers: &[Header],
    ) -> Self {
        let mut common = vec![("host".to_owned(), format!("host: {authority}\r\n"))];
        if headers.iter().any(|header| header.is("host")) {
            common.clear();
        }
        if !token.is_empty() {
            common.push(("authorization".into(), token.into()));
        }
        for header in headers {
            let line = format!("{}: {}\r\n", header.name, header.value);
            common.push((header.name.clone(), line));
        }
        // Whoever routes by the host need not look further.
        common.sort_by_key(|(name, _)| !name.eq_ignore_ascii_case("host"));
        let lines: String = common.iter().map(|(_, line)| line.as_str()).collect();
        Self {
            bare_end: format!(" HTTP/1.1\r\n{lines}\r\n").into_bytes(),
            has_heads: requests.any(|request| request.method().is_head()),
            requests,
            order,
            seed,
            common,
        }
    }

    fn of(&self, number: u64) -> &Listed {
        self.requests.of_arrival(number, self.order, self.seed)
    }

    /// Some answers have no body.
    #[must_use]
    pub fn has_heads(&self) -> bool {
        self.has_heads
    }

    /// The answer to arrival `number` has none.
    #[must_use]
    pub fn is_head(&self, number: u64) -> bool {
        self.has_heads && self.of(number).method().is_head()
    }

    /// Arrival `number` may be sent again though it may have been done.
    #[must_use]
    pub fn may_be_repeated(&self, number: u64) -> bool {
        let is_key = |(name, _): &(String, String)| name.eq_ignore_ascii_case("idempotency-key");
        self.of(number).may_be_repeated() || self.common.iter().any(is_key)
    }

    /// Appends the request of arrival `number`. Its own headers take the place of common ones of the same name.
    pub fn write(&self, number: u64, out: &mut BytesMut) {
        let request = self.of(number);
        out.put_slice(request.method().name().as_bytes());
        out.put_u8(b' ');
        out.put_slice(request.path().as_bytes());
        if request.is_bare() {
            return out.put_slice(&self.bare_end);
        }
        out.put_slice(b" HTTP/1.1\r\n");
        for (name, line) in &self.common {
            if !request
                .headers()
                .any(|(own, _)| own.eq_ignore_ascii_case(name))
            {
                out.put_slice(line.as_bytes());
            }
        }
        for (name, value) in request.headers() {
            for text in [name, ": ", value, "\r\n"] {
                out.put_slice(text.as_bytes());
            }
        }
        if let Some(body) = request.body() {
            out.put_slice(b"content-length: ");
            out.put_slice(itoa::Buffer::new().format(body.len()).as_bytes());
            out.put_slice(b"\r\n");
        }
        out.put_slice(b"\r\n");
        out.put_slice(request.body().unwrap_or_default().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Gathered, HeaderLine};

    fn list(lines: &[&str], token: &str, headers: &str) -> List {
        let mut gathered = Gathered::default();
        let places = lines.iter().map(|line| {
            let request = Listed::parse(line, &|_, _| true);
            gathered.place(request.unwrap_or_else(|error| panic!("{error}")))
        });
        let places = places.collect();
        let headers: Vec<Header> = HeaderLine::from(headers.to_owned())
            .lines()
            .flat_map(|line| line.parse())
            .collect();
        let requests = (Arc::new(gathered.in_order(places)), RequestsOrder::File, 1);
        List::new(requests, ("h:1", token), &headers)
    }

    fn written(list: &List, number: u64) -> String {
        let mut out = BytesMut::new();
        list.write(number, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn requests_are_sent_as_they_are_listed_with_what_all_have() {
        const TOKEN: &str = "authorization: Bearer t\r\n";
        for (line, token, headers, expected) in [
            ("/x?{n}", "", "", "GET /x?{n} HTTP/1.1\r\nhost: h:1\r\n\r\n"),
            (
                "/x",
                TOKEN,
                "A: {n}\nHost: other",
                "GET /x HTTP/1.1\r\nHost: other\r\nauthorization: Bearer t\r\nA: {n}\r\n\r\n",
            ),
            (
                r#"{"path":"/x","body":"{id} ä"}"#,
                "",
                "A: b",
                "POST /x HTTP/1.1\r\nhost: h:1\r\nA: b\r\ncontent-length: 7\r\n\r\n{id} ä",
            ),
            (
                r#"{"path":"/x","method":"DELETE","headers":{"a":"own","Authorization":"Basic u"}}"#,
                TOKEN,
                "A: b\nC: d",
                "DELETE /x HTTP/1.1\r\nhost: h:1\r\nC: d\r\na: own\r\nAuthorization: Basic u\r\n\r\n",
            ),
            (
                r#"{"path":"/x","body":""}"#,
                "",
                "",
                "POST /x HTTP/1.1\r\nhost: h:1\r\ncontent-length: 0\r\n\r\n",
            ),
        ] {
            assert_eq!(written(&list(&[line], token, headers), 0), expected);
        }
    }

    #[test]
    fn heads_and_what_may_be_repeated_are_told_for_each_arrival() {
        let lines = [
            "/a",
            r#"{"method":"HEAD","path":"/b"}"#,
            r#"{"path":"/c","body":"x"}"#,
            r#"{"path":"/c","body":"x","headers":{"Idempotency-Key":"1"}}"#,
        ];
        let mixed = list(&lines, "", "");
        assert!(mixed.has_heads() && !list(&lines[..1], "", "").has_heads());
        let told: Vec<_> = (0..5)
            .map(|number| (mixed.is_head(number), mixed.may_be_repeated(number)))
            .collect();
        let expected = [
            (false, true),
            (true, true),
            (false, false),
            (false, true),
            (false, true),
        ];
        assert_eq!(told, expected);
        assert!(list(&lines, "", "idempotency-key: 5").may_be_repeated(2));
    }
}
