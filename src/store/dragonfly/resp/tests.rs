//! Answers in any pieces, well formed or not.
//!
//! Enters: bytes. Leaves: nothing. Must not need a store.

use super::*;
use proptest::prelude::*;

fn read(bytes: &[u8], expected: Expected) -> Result<Option<Answer>, Malformed> {
    let mut reader = Reader::default();
    reader.buffer().extend_from_slice(bytes);
    reader.next(expected, &Room::default())
}

fn all(values: &[Option<&'static str>]) -> Vec<Option<Bytes>> {
    values.iter().map(|value| value.map(Bytes::from)).collect()
}

#[test]
fn a_status_is_good_or_a_refusal() {
    let mut reader = Reader::default();
    reader
        .buffer()
        .extend_from_slice(b"+OK\r\n-WRONGPASS x\r\n+");
    assert_eq!(reader.status(), Ok(Some(Ok(()))));
    assert_eq!(reader.status(), Ok(Some(Err("WRONGPASS x".into()))));
    assert_eq!(reader.status(), Ok(None));
    reader.buffer().extend_from_slice(b"OK\r\n:1\r\n");
    assert_eq!(reader.status(), Ok(Some(Ok(()))));
    assert_eq!(reader.status(), Err(Malformed));
}

#[test]
fn commands_are_written_as_the_protocol_has_them() {
    let keys: Vec<Bytes> = ["a", "long:key:1"].map(Bytes::from).into();
    let mut out = Vec::new();
    put_mget(&keys, &mut out);
    put_gets(&keys, 0..2, &mut out);
    put_command(&[b"SELECT", b"12"], &mut out);
    let entries = [(&b"a"[..], &b"1"[..]), (b"b", b"")];
    put_sets(entries.into_iter(), None, &mut out);
    put_sets(entries[..1].iter().copied(), Some(1_500), &mut out);
    let expected = [
        "*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$10\r\nlong:key:1\r\n",
        "*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
        "*2\r\n$3\r\nGET\r\n$10\r\nlong:key:1\r\n",
        "*2\r\n$6\r\nSELECT\r\n$2\r\n12\r\n",
        "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n",
        "*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$0\r\n\r\n",
        "*5\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n$2\r\nPX\r\n$4\r\n1500\r\n",
    ];
    assert_eq!(String::from_utf8_lossy(&out), expected.concat());
}

#[test]
fn answers_are_understood() {
    let refused = |text: &str| Err(Refusal::Said(text.to_owned()));
    for (bytes, expected, answer) in [
        (
            "*2\r\n$1\r\nx\r\n$-1\r\n",
            Expected::Array(2),
            Ok(all(&[Some("x"), None])),
        ),
        // What a value holds is its own affair.
        (
            "*1\r\n$6\r\n*1\r\n-\r\r\n",
            Expected::Array(1),
            Ok(all(&[Some("*1\r\n-\r")])),
        ),
        ("-LOADING x\r\n", Expected::Array(2), refused("LOADING x")),
        (
            "$0\r\n\r\n-WRONGTYPE x\r\n",
            Expected::Each(2),
            Ok(all(&[Some(""), None])),
        ),
        // The first reason is told, and all answers belong to it.
        (
            "$1\r\nx\r\n-NOPERM x\r\n-OOPS\r\n",
            Expected::Each(3),
            refused("NOPERM x"),
        ),
        (
            "+OK\r\n+OK\r\n",
            Expected::Stored(2),
            Ok(all(&[None, None])),
        ),
        ("-OOM x\r\n+OK\r\n", Expected::Stored(2), refused("OOM x")),
        (
            "+OK\r\n-WRONGTYPE x\r\n",
            Expected::Stored(2),
            refused("WRONGTYPE x"),
        ),
    ] {
        assert_eq!(
            read(bytes.as_bytes(), expected),
            Ok(Some(answer)),
            "{bytes:?}"
        );
    }
}

#[test]
fn what_is_no_answer_to_what_was_asked_is_malformed() {
    let endless = "$".repeat(MAX_LINE_BYTES + 1);
    for (bytes, expected) in [
        ("*3\r\n", Expected::Array(2)),
        ("*-1\r\n", Expected::Array(2)),
        ("$1\r\nx\r\n", Expected::Array(1)),
        ("*1\r\n:1\r\n", Expected::Array(1)),
        ("*1\r\n", Expected::Each(1)),
        ("+OK\r\n", Expected::Each(1)),
        ("$1\r\nxyz", Expected::Each(1)),
        ("$\r\n", Expected::Each(1)),
        ("$+1\r\nx\r\n", Expected::Each(1)),
        ("$-2\r\n", Expected::Each(1)),
        ("$99999999999\r\n", Expected::Each(1)),
        ("$1\rx", Expected::Each(1)),
        ("\r\n", Expected::Each(1)),
        (&endless, Expected::Each(1)),
        ("$1\r\nx\r\n", Expected::Stored(1)),
        ("$-1\r\n", Expected::Stored(1)),
        ("+QUEUED\r\n", Expected::Stored(1)),
    ] {
        assert_eq!(
            read(bytes.as_bytes(), expected),
            Err(Malformed),
            "{bytes:?}"
        );
    }
}

/// Reads one answer in pieces of so many bytes, and the most that its buffer held at a time.
fn read_in_pieces(reader: &mut Reader, bytes: &[u8], room: &Room, expected: Expected) -> Answer {
    for piece in bytes.chunks(1_000) {
        reader.buffer().extend_from_slice(piece);
        assert!(reader.buffer().len() <= SMALL_ANSWER_BYTES + 10_000);
        if let Some(answer) = reader.next(expected, room).expect("well formed") {
            return answer;
        }
    }
    panic!("not all of it came");
}

fn values_of(sizes: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (place, &size) in sizes.iter().enumerate() {
        put_head(b'$', size, &mut bytes);
        bytes.resize(bytes.len() + size, b'a' + place as u8);
        bytes.extend_from_slice(LINE_END);
    }
    bytes
}

#[test]
fn large_answers_have_their_room_before_they_come_and_are_let_go_without() {
    let sizes = [40_000, 40_000, 0, 1_000_000, 5];
    let bytes = values_of(&sizes);
    let mut reader = Reader::default();
    let room = Room::new(2_000_000);
    let values = read_in_pieces(&mut reader, &bytes, &room, Expected::Each(5)).expect("room");
    for (place, (value, size)) in values.iter().zip(sizes).enumerate() {
        let expected = vec![b'a' + place as u8; size];
        assert_eq!(value.as_deref(), Some(&expected[..]));
    }
    // The first one is in the buffer, as a small answer is.
    assert_eq!(room.taken(), 1_040_005);
    drop(values);
    assert_eq!(room.taken(), 0);

    let room = Room::new(1_000_000);
    for _ in 0..2 {
        let refused = read_in_pieces(&mut reader, &bytes, &room, Expected::Each(5));
        assert_eq!(refused, Err(Refusal::NoRoom(1_080_005)));
        assert_eq!(room.taken(), 0);
        let next = read_in_pieces(&mut reader, &values_of(&[3]), &room, Expected::Each(1));
        assert_eq!(next, Ok(all(&[Some("aaa")])));
    }
}

fn any_answers() -> impl Strategy<Value = Vec<(bool, Vec<Option<Vec<u8>>>)>> {
    let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    let answer = (any::<bool>(), proptest::collection::vec(value, 0..6));
    proptest::collection::vec(answer, 0..6)
}

proptest! {
    #[test]
    fn answers_are_the_same_in_pieces_of_any_size(answers in any_answers(), sizes in proptest::collection::vec(1..50_usize, 1..9)) {
        let mut bytes = Vec::new();
        for (is_array, values) in &answers {
            if *is_array {
                put_head(b'*', values.len(), &mut bytes);
            }
            for value in values {
                match value {
                    Some(value) => {
                        put_head(b'$', value.len(), &mut bytes);
                        bytes.extend_from_slice(value);
                        bytes.extend_from_slice(LINE_END);
                    }
                    None => bytes.extend_from_slice(b"$-1\r\n"),
                }
            }
        }
        let mut reader = Reader::default();
        let (mut rest, mut sizes) = (&bytes[..], sizes.into_iter().cycle());
        for (is_array, values) in answers {
            let expected = if is_array { Expected::Array } else { Expected::Each };
            let answer = loop {
                if let Some(answer) = reader.next(expected(values.len()), &Room::default()).expect("well formed") {
                    break answer.expect("no refusal");
                }
                let (piece, behind) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
                prop_assert!(!piece.is_empty());
                reader.buffer().extend_from_slice(piece);
                rest = behind;
            };
            let answer: Vec<_> = answer.into_iter().map(|value| value.map(Vec::from)).collect();
            prop_assert_eq!(answer, values);
        }
        prop_assert!(rest.is_empty() && reader.is_empty());
    }
}

#[test]
fn keys_that_are_elsewhere_are_told_with_their_place() {
    let there = |host: &str, port, is_arriving| {
        let host = host.to_owned();
        let node = Node { host, port };
        Redirection { node, is_arriving }
    };
    let bytes =
        "$1\r\nx\r\n-MOVED 77 10.0.0.1:6380\r\n$-1\r\n-ASK 5 ::1:7000\r\n-MOVED 5 :7001\r\n";
    let elsewhere = Elsewhere {
        values: all(&[Some("x"), None, None, None, None]),
        keys: vec![
            (1, there("10.0.0.1", 6380, false)),
            (3, there("::1", 7000, true)),
            (4, there("", 7001, false)),
        ],
    };
    let answer = Err(Refusal::Elsewhere(Box::new(elsewhere)));
    for cut in 0..bytes.len() {
        let mut reader = Reader::default();
        let (one, other) = bytes.as_bytes().split_at(cut);
        reader.buffer().extend_from_slice(one);
        let room = Room::default();
        assert_eq!(reader.next(Expected::Scattered(5), &room), Ok(None));
        reader.buffer().extend_from_slice(other);
        let came = reader.next(Expected::Scattered(5), &room);
        assert_eq!(came, Ok(Some(answer.clone())), "{cut}");
        assert!(reader.is_empty());
    }
    // Whoever expects no cluster is told what was said; so is whoever gets another reason besides.
    let refused = |text: &str| Ok(Some(Err(Refusal::Said(text.to_owned()))));
    assert_eq!(
        read(bytes.as_bytes(), Expected::Each(5)),
        refused("MOVED 77 10.0.0.1:6380")
    );
    assert_eq!(
        read(
            b"-MOVED 7 a:1\r\n-CLUSTERDOWN x\r\n",
            Expected::Scattered(2)
        ),
        refused("CLUSTERDOWN x")
    );
    // A value is one, whatever it reads like.
    assert_eq!(
        read(b"$9\r\nMOVED 1 a\r\n", Expected::Scattered(1)),
        Ok(Some(Ok(all(&[Some("MOVED 1 a")]))))
    );
}

#[test]
fn a_key_that_arrives_is_answered_behind_asking() {
    let value = || Ok(Some(Ok(all(&[Some("x")]))));
    for (bytes, answer) in [
        (&b"+OK\r\n$1\r\nx\r\n"[..], value()),
        (b"-NOPERM y\r\n$1\r\nx\r\n", value()),
        (b"+OK\r\n", Ok(None)),
        (b"$1\r\nx\r\n$1\r\nx\r\n", Err(Malformed)),
    ] {
        assert_eq!(read(bytes, Expected::Arriving), answer, "{bytes:?}");
    }
}
