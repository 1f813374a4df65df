//! Files that can be loaded, and files that cannot.
//!
//! Enters: lines. Leaves: nothing. Must not need a store.

use super::*;
use std::fmt::Write as _;
use std::io::Write as _;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn open(text: &str, key: &str) -> Result<Source, SourceError> {
    let key: KeyTemplate = key.parse().expect("a key");
    Source::open(file(text).path(), &key, b"taken")
}

fn entries(source: &Source, indexes: &[u64]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    source
        .entries(indexes.iter().copied(), |key, value| {
            found.push((text(key), text(value)));
        })
        .expect("it can be read");
    found
}

#[test]
fn keys_are_made_of_members_as_they_are_written() {
    let text = "\n {\"id\":7,\"a\":\"x\"} \r\n\n{\"a\":\"ü\",\"id\":-1.5,\"b\":true}";
    let source = open(text, "u:{id}/{a}").expect("a source");
    assert_eq!(source.keys().get(), 2);
    let expected = [
        ("u:7/x", "{\"id\":7,\"a\":\"x\"}"),
        ("u:-1.5/ü", "{\"a\":\"ü\",\"id\":-1.5,\"b\":true}"),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(entries(&source, &[0, 1]), expected);
    assert_eq!(source.name(1), "u:-1.5/ü");
    assert_eq!(source.template().prefix(), "u:");
}

#[test]
fn any_rising_indexes_are_found_and_blank_lines_move_none() {
    let mut text = String::new();
    for id in 0..1_000 {
        let _ = writeln!(text, "{{\"id\":{id}}}");
        if id % 7 == 0 {
            text += "  \n";
        }
    }
    let source = open(&text, "{id}").expect("a source");
    for indexes in [
        &[0, 1, 2][..],
        &[255, 256, 257, 511, 512],
        &[3, 700, 999],
        &[999],
        &(0..1_000).collect::<Vec<u64>>(),
    ] {
        let found: Vec<String> = entries(&source, indexes)
            .into_iter()
            .map(|found| found.0)
            .collect();
        let expected: Vec<String> = indexes.iter().map(u64::to_string).collect();
        assert_eq!(found, expected);
    }
    assert!(source.entries([1_000].into_iter(), |_, _| {}).is_err());
}

#[test]
fn what_cannot_be_loaded_is_refused_with_its_line() {
    let long = format!("{{\"id\":1,\"x\":\"{}\"}}", "x".repeat(MAX_VALUE_BYTES));
    for (text, expected) in [
        ("", "0 lines"),
        ("\n\n", "0 lines"),
        ("{\"id\":1}\n\n[2]", "line 3: it is no JSON object"),
        ("{\"id\":1}\n{\"id\"", "line 2: it is no JSON object"),
        ("{\"id\":1} {}", "line 1: it is no JSON object"),
        ("{\"x\":1}", "line 1: it has no \"id\""),
        ("{\"id\":null}", "line 1: \"id\" is no text"),
        ("{\"id\":\"\"}", "line 1: its key has 0 bytes"),
        (
            "{\"id\":\"taken\"}",
            "line 1: its key, taken, is seed's own",
        ),
        (
            "{\"id\":1}\n\n{\"id\":2}\n{\"id\":\"1\"}",
            "lines 1 and 4 have the same key, 1",
        ),
        (&long, "line 1: it has more than 1048576 bytes"),
    ] {
        let error = open(text, "{id}").expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_checksum_is_that_of_the_values_and_a_changed_file_is_noticed() {
    let one = open("{\"id\":1}\n{\"id\":2}\n", "{id}").expect("a source");
    let same = open("\n{\"id\":1}\n{\"id\":2}", "{id}").expect("a source");
    let other = open("{\"id\":2}\n{\"id\":1}\n", "{id}").expect("a source");
    assert_eq!(one.checksum(), same.checksum());
    assert_ne!(one.checksum(), other.checksum());
    let mut file = file("{\"id\":1}\n");
    let source = Source::open(file.path(), &"{id}".parse().expect("a key"), b"").expect("a source");
    file.write_all(b"{\"id\":2}\n").expect("written");
    let found = source.entries([0].into_iter(), |_, _| {});
    assert!(matches!(found, Err(SourceError::Changed)));
}

#[test]
fn templates_are_members_in_braces() {
    for text in ["{id}", "user:{id}", "{a}{b}:x"] {
        let key: KeyTemplate = text.parse().expect(text);
        assert_eq!(key.to_string(), text);
    }
    for text in ["", "user:", "{", "}", "{}", "a}{id}", "{id", "{{id}}"] {
        assert!(text.parse::<KeyTemplate>().is_err(), "{text}");
    }
}
