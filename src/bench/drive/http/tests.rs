//! Answers as targets send them, and as none should.

use proptest::prelude::*;

use super::*;

const PLAIN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n\
    3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\nC: d\r\n\r\n";
const INTERIM: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
    HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
const UNTIL_CLOSE: &str = "HTTP/1.0 200 OK\r\n\r\nhello";
/// The same answer in every form.
const HELLOS: [&str; 4] = [PLAIN, CHUNKED, INTERIM, UNTIL_CLOSE];

/// An answer that comes in pieces with the connection's end: how it was read, and its body.
fn read_in(
    pieces: &[&[u8]],
    bodies: Bodies,
) -> Result<Option<(Response, Vec<u8>, usize)>, Malformed> {
    let (mut reader, mut held) = (Reader::new(bodies), Vec::new());
    let pieces = pieces.iter().map(|&piece| (piece, false));
    for (piece, closed) in pieces.chain([(&b""[..], true)]) {
        held.extend_from_slice(piece);
        let read = reader.read(&held, closed)?;
        if let Some(response) = read.response {
            let body = response.body(&held).to_vec();
            return Ok(Some((response, body, held.len() - read.consumed)));
        }
        held.drain(..read.consumed);
    }
    Ok(None)
}

fn read(text: &str) -> Result<Response, Malformed> {
    let found = read_in(&[text.as_bytes()], Bodies::Kept)?;
    Ok(found.unwrap_or_else(|| panic!("not whole: {text}")).0)
}

fn refusal(text: &str) -> Malformed {
    let shown = &text[..text.len().min(80)];
    read_in(&[text.as_bytes()], Bodies::Kept).expect_err(shown)
}

#[test]
fn bodies_are_found_however_they_are_framed() {
    for text in HELLOS {
        let found = read_in(&[text.as_bytes()], Bodies::Kept);
        let (response, body, rest) = found.expect("HTTP").expect(text);
        assert_eq!((response.status, response.body_bytes), (200, 5), "{text}");
        assert_eq!((&*body, rest), (&b"hello"[..], 0), "{text}");
        assert_eq!(response.keep_alive, text != UNTIL_CLOSE);
    }
}

#[test]
fn answers_follow_one_another_on_a_connection() {
    let mut held = [PLAIN, CHUNKED, INTERIM, PLAIN].concat().into_bytes();
    let mut reader = Reader::new(Bodies::Kept);
    for _ in 0..4 {
        assert!(reader.is_between_answers());
        let read = reader.read(&held, false).expect("HTTP");
        let response = read.response.expect("whole");
        assert_eq!(response.body(&held), b"hello");
        held.drain(..read.consumed);
    }
    assert!(held.is_empty());
    reader
        .read(b"HTTP/1.1 200 OK\r\n\r\n", false)
        .expect("HTTP");
    assert!(!reader.is_between_answers());
}

#[test]
fn the_date_is_that_of_each_answer() {
    let mut reader = Reader::new(Bodies::Kept);
    for (date, expected) in [
        ("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", Some(784_111_777)),
        ("date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", Some(784_111_777)),
        ("date: Sun, 06 Nov 1994 08:49:38 GMT\r\n", Some(784_111_778)),
        ("", None),
        ("date: Sun, 06 Nov 1994 08:49:38 GMT\r\n", Some(784_111_778)),
        ("date: \r\n", None),
        ("date: Sun, 99 Nov 1994 08:49:38 GMT\r\n", None),
        ("date: \u{e4}\r\n", None),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{date}content-length: 0\r\n\r\n");
        let read = reader.read(text.as_bytes(), false).expect("HTTP");
        assert_eq!(read.response.expect("whole").date_s, expected, "{date}");
    }
}

#[test]
fn some_answers_have_no_body_whatever_their_headers_say() {
    for status in ["204 No Content", "304 Not Modified"] {
        for headers in [
            "",
            "content-length: 7\r\n",
            "transfer-encoding: chunked\r\n",
        ] {
            let response = read(&format!("HTTP/1.1 {status}\r\n{headers}\r\n")).expect("HTTP");
            assert_eq!((response.body_bytes, response.keep_alive), (0, true));
        }
    }
}

#[test]
fn answers_to_head_have_no_body_and_keep_the_connection() {
    let next = "HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\n";
    for headers in [
        "",
        "content-length: 7\r\n",
        "transfer-encoding: chunked\r\n",
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{headers}\r\n{next}");
        let mut reader = Reader::new(Bodies::Absent);
        let first = reader.read(text.as_bytes(), false).expect("HTTP");
        let response = first.response.expect("whole");
        assert_eq!((response.body_bytes, response.keep_alive), (0, true));
        assert!(response.body(text.as_bytes()).is_empty());
        assert_eq!(&text[first.consumed..], next);
        let second = reader.read(next.as_bytes(), false).expect("HTTP");
        assert_eq!(second.response.expect("whole").status, 404);
    }
    let closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
    let read = Reader::new(Bodies::Absent).read(closing, false);
    assert!(!read.expect("HTTP").response.expect("whole").keep_alive);
}

#[test]
fn connections_are_kept_or_closed_as_the_answer_says() {
    for (version, headers, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "connection: close, te\r\n", false),
        ("1.1", "connection: te ,CLOSE\r\n", false),
        ("1.1", "connection: te\r\nconnection: close\r\n", false),
        ("1.1", "connection: keep-alive, close\r\n", false),
        ("1.1", "connection: keep-alive, Upgrade\r\n", true),
        ("1.1", "connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "connection: Keep-Alive, te\r\n", true),
    ] {
        let text = format!("HTTP/{version} 200 OK\r\ncontent-length: 0\r\n{headers}\r\n");
        assert_eq!(read(&text).expect("HTTP").keep_alive, keep_alive, "{text}");
    }
    let chunks = CHUNKED.replace("HTTP/1.1", "HTTP/1.0");
    let chunks = chunks.replace("\r\nTransfer", "\r\nconnection: keep-alive\r\nTransfer");
    assert!(!read(&chunks).expect("HTTP").keep_alive);
}

#[test]
fn only_a_408_that_ends_its_connection_is_about_an_idle_one() {
    for (status, headers, expected) in [
        ("408 Request Timeout", "Connection: close\r\n", true),
        ("408 Request Timeout", "", false),
        ("503 Service Unavailable", "Connection: close\r\n", false),
        ("200 OK", "Connection: close\r\n", false),
    ] {
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n{headers}\r\n");
        let response = read(&text).expect("HTTP");
        assert_eq!(response.ends_idle_connection(), expected, "{text}");
    }
}

#[test]
fn many_headers_are_no_fault_and_too_many_are() {
    let with = |count: usize| {
        let headers = "x: y\r\n".repeat(count);
        format!("HTTP/1.1 204 No Content\r\n{headers}\r\n")
    };
    assert!(read(&with(MAX_HEADERS)).is_ok());
    assert_eq!(refusal(&with(MAX_HEADERS + 1)), Malformed::HeadTooLarge);
}

#[test]
fn what_is_no_answer_is_refused_by_its_kind() {
    let head = |headers: &str| format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n");
    let chunks = |chunks: &str| head("transfer-encoding: chunked") + chunks;
    for (text, expected) in [
        ("SSH-2.0-x\r\n".into(), Malformed::NotHttp),
        ("HTTP/2 200 OK\r\n\r\n".into(), Malformed::NotHttp),
        ("HTTP/1.1 099 X\r\n\r\n".into(), Malformed::NotHttp),
        (head("content-length: -1"), Malformed::ContentLength),
        (head("content-length: +1"), Malformed::ContentLength),
        (head("content-length: 1 2"), Malformed::ContentLength),
        (head("content-length:"), Malformed::ContentLength),
        (
            head("content-length: 99999999999999999999"),
            Malformed::ContentLength,
        ),
        (head("content-length: 1, 2"), Malformed::ContentLength),
        (
            head("content-length: 1\r\ncontent-length: 2"),
            Malformed::ContentLength,
        ),
        (
            head("content-length: 99999999999") + "x",
            Malformed::BodyTooLarge,
        ),
        (head("transfer-encoding: gzip"), Malformed::TransferEncoding),
        (
            head("transfer-encoding: gzip, chunked"),
            Malformed::TransferEncoding,
        ),
        (
            head("transfer-encoding: chunked, gzip"),
            Malformed::TransferEncoding,
        ),
        (
            head("transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
            Malformed::TransferEncoding,
        ),
        (
            head("transfer-encoding: identity"),
            Malformed::TransferEncoding,
        ),
        (head("transfer-encoding:"), Malformed::TransferEncoding),
        (
            "HTTP/1.1 101 Switching Protocols\r\n\r\n".into(),
            Malformed::OtherProtocol,
        ),
        (chunks("\r\n\r\n"), Malformed::Chunk),
        (chunks(" \r\n\r\n"), Malformed::Chunk),
        (chunks("zz\r\n"), Malformed::Chunk),
        (chunks("1\r\nabc\r\n"), Malformed::Chunk),
        (chunks("fffffffffffffffff\r\n"), Malformed::Chunk),
        (chunks("ffffffffffff\r\nx"), Malformed::BodyTooLarge),
    ] {
        assert_eq!(refusal(&text), expected, "{text}");
    }
    let same = head("content-length: 5, 5\r\ncontent-length: 5") + "hello";
    assert_eq!(read(&same).expect("they agree").body_bytes, 5);
}

#[test]
fn what_is_sent_without_end_is_given_up() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for (start, forever, expected) in [
        (
            String::new(),
            "HTTP/1.1 103 Early Hints\r\n\r\n",
            Malformed::HeadTooLarge,
        ),
        (
            "HTTP/1.1 200 OK\r\na: ".into(),
            "x",
            Malformed::HeadTooLarge,
        ),
        (
            format!("{chunked}0\r\n"),
            "a: b\r\n",
            Malformed::HeadTooLarge,
        ),
        (format!("{chunked}0\r\n"), "x", Malformed::HeadTooLarge),
        (format!("{chunked}1;"), "x", Malformed::Chunk),
        (chunked.to_owned(), "10000\r\n", Malformed::BodyTooLarge),
        (
            "HTTP/1.1 200 OK\r\n\r\n".into(),
            "0123456789abcdef",
            Malformed::BodyTooLarge,
        ),
    ] {
        let (mut reader, mut held) = (Reader::new(Bodies::Kept), start.clone().into_bytes());
        let piece = match forever {
            "10000\r\n" => [forever, &"x".repeat(0x10000), "\r\n"].concat(),
            _ => forever.repeat(1_000),
        };
        let given_up = (0..2_000).find_map(|_| {
            held.extend_from_slice(piece.as_bytes());
            let read = reader.read(&held, false);
            held.drain(..read.as_ref().map_or(0, |read| read.consumed));
            assert!(held.len() < 2 * MAX_HEAD_BYTES, "what is read is not held");
            read.err()
        });
        assert_eq!(given_up, Some(expected), "{start:?} {forever:?}");
    }
}

#[test]
fn bodies_that_nobody_looks_at_may_have_any_length() {
    let piece = vec![b'x'; 0x10_0000];
    for (head, around) in [
        ("content-length: 1073741824", ["", ""]),
        ("transfer-encoding: chunked", ["100000\r\n", "\r\n"]),
        ("connection: close", ["", ""]),
    ] {
        let mut reader = Reader::new(Bodies::Counted);
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
        let piece = [around[0].as_bytes(), &piece, around[1].as_bytes()].concat();
        let pieces = std::iter::repeat_n(&*piece, 1024);
        let mut last = None;
        for piece in std::iter::once(head.as_bytes()).chain(pieces) {
            let read = reader.read(piece, false).expect("HTTP");
            assert_eq!(read.consumed, piece.len(), "nothing is held");
            last = read.response;
        }
        let end: &[u8] = if around[0].is_empty() {
            b""
        } else {
            b"0\r\n\r\n"
        };
        let response = last.or_else(|| reader.read(end, true).expect("HTTP").response);
        let response = response.expect("whole");
        assert_eq!(response.body_bytes, 1 << 30);
        assert!(response.body(&piece).is_empty());
    }
}

#[test]
fn a_length_that_no_body_has_is_refused_at_once_or_counted() {
    for size in [u64::MAX, u64::MAX - 1, u64::MAX / 2, MAX_KEPT_BYTES + 1] {
        for framing in [
            format!("content-length: {size}\r\n\r\n"),
            format!("transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n{size:x}\r\n"),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{framing}");
            // Nothing of the body has come: its length says enough.
            let kept = Reader::new(Bodies::Kept).read(head.as_bytes(), false);
            assert_eq!(kept, Err(Malformed::BodyTooLarge), "{head}");
            let mut reader = Reader::new(Bodies::Counted);
            for piece in [head.as_bytes(), &[b'x'; 1_000]] {
                let read = reader.read(piece, false).expect("HTTP");
                let none_yet = Read {
                    consumed: piece.len(),
                    response: None,
                };
                assert_eq!(read, none_yet, "{head}");
            }
            // The end of the connection is not the end of the body.
            let last = reader.read(b"", true).expect("HTTP");
            assert_eq!(last.response, None, "{head}");
        }
    }
}

proptest! {
    #[test]
    fn an_answer_that_arrives_in_pieces_is_the_same(
        which in 0..HELLOS.len(),
        cuts in proptest::collection::vec(0_usize..200, 0..8),
        is_kept: bool,
    ) {
        let bytes = HELLOS[which].as_bytes();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        let bodies = if is_kept { Bodies::Kept } else { Bodies::Counted };
        let (response, body, rest) = read_in(&pieces, bodies).expect("HTTP").expect("whole");
        prop_assert_eq!((response.body_bytes, rest), (5, 0));
        prop_assert_eq!(&*body, if is_kept { &b"hello"[..] } else { b"" });
    }

    #[test]
    fn no_answer_makes_the_reader_panic(
        head in "(HTTP/1.[01] [1-5][0-9]{2} X\r\n((content-length|transfer-encoding|connection): ?(chunked|[0-9,]{0,4})\r\n){0,3})?.{0,9}",
        tail in proptest::collection::vec(proptest::sample::select(&b"\r\n0159aF; :x"[..]), 0..60),
        cut: proptest::sample::Index,
        is_kept: bool,
    ) {
        let bytes = [head.as_bytes(), b"\r\n\r\n", &tail].concat();
        let bodies = if is_kept { Bodies::Kept } else { Bodies::Counted };
        let (first, second) = bytes.split_at(cut.index(bytes.len()));
        let _ = read_in(&[first, second], bodies);
    }
}
