//! Answers of all kinds, and what each of them stands for.
//!
//! Enters: bodies that are right, wrong, or right in another form. Leaves: nothing. Must not need a target.

use std::sync::Arc;

use super::*;
use crate::bench::plan::form::Form;
use crate::bench::plan::keys::Chooser;
use crate::bench::plan::workload::headers;
use crate::load::{KeysDist, Request};
use crate::record::{self, Dataset, Decoded};
use crate::units::KeyCount;
use proptest::prelude::*;

/// Draws 0, 1, 2, …, so that arrival 1 of three keys asks for 3, 4 and 5.
fn workload(mix: &str, verify: f64, known: bool) -> Workload {
    let dataset = Dataset {
        key_prefix: "user:session:".into(),
        value_size: "256".parse().expect("a size"),
        seed: 1,
        format: crate::record::Format::Record,
    };
    let keys = KeyCount::new(1_000_000).expect("in range");
    Workload {
        mix: mix.parse().expect("a mix"),
        chooser: Chooser::new(KeysDist::Sequential, keys),
        keys_per_request: 3,
        seed: 1,
        verify,
        dataset: known.then_some(dataset),
        key_prefix: "user:session:".into(),
        headers: headers("localhost:80", None),
        fetch: Fetch::Mget,
        form: None,
    }
}

/// As serve writes it.
fn session(workload: &Workload, index: u64) -> String {
    let record = workload.record(index).expect("a record");
    match record::decode(&record) {
        Ok(Decoded::Session(session)) => format!(
            r#"{{"id":{index},"status":"active","role":"{}","created_at":{},"expires_at":{},"ip":"{}","user_agent":"{}","validated_at":"2026-01-02T03:04:05Z"}}"#,
            session.role.name(),
            session.created_at_s,
            session.expires_at_s,
            Ipv4Addr::from(session.ip),
            session.user_agent
        ),
        other => panic!("{other:?}"),
    }
}

/// Hits and misses; `None` of a wrong answer.
type Counts = Option<(u32, u32)>;

const RIGHT: Counts = Some((3, 0));
const WRONG: Counts = None;

/// Each body with the hits and misses that it stands for, when the records are known and when they are not.
#[rustfmt::skip]
const BODIES: [(&str, Counts, Counts); 43] = [
    (r#"[{"id":3,"a":1},{"id":4,"a":"x"},{"id":5}]"#, RIGHT, RIGHT),
    // Right, in another form than serve's.
    ("[ {\"id\": 3},\n  {\"id\": 4},\r\n\t{\"id\": 5}\n]\n", RIGHT, RIGHT),
    (r#"[{"a":1,"id":3},{"id":4,"b":{"id":9}},{"c":[{"id":1}],"id":5}]"#, RIGHT, RIGHT),
    (r#"[{"id":3,"a":"}"},{"id":4,"a":"}]"},{"id":5,"a":"},{\"id\":4"}]"#, RIGHT, RIGHT),
    (r#"[{"i\u0064":3},{"id":4},{"id":5,"a":[]}]"#, RIGHT, RIGHT),
    // Misses.
    (r#"[null,{"id":4},null]"#, Some((1, 2)), Some((1, 2))),
    (r#"[{"id":3},null,{"id":5}]"#, Some((2, 1)), Some((2, 1))),
    ("[null, null, null]", Some((0, 3)), Some((0, 3))),
    ("[null,null,null]", Some((0, 3)), Some((0, 3))),
    // Without an id: nothing of a known dataset, and all that an older loader's JSON has.
    ("[{},{},{}]", WRONG, RIGHT),
    (r#"[{"status":"active"},{"status":"active"},{}]"#, WRONG, RIGHT),
    (r#"[{"x":null},{"y":"[null,null"},{}]"#, WRONG, RIGHT),
    (r#"[{"id":3},{},{"id":5}]"#, WRONG, RIGHT),
    (r#"[{"id":null},{"id":4},{"id":5}]"#, WRONG, RIGHT),
    // Other ids.
    (r#"[{"id":4},{"id":3},{"id":5}]"#, WRONG, WRONG),
    (r#"[{"id":3},{"id":3},{"id":3}]"#, WRONG, WRONG),
    (r#"[{"id":3},{"id":4},{"id":50}]"#, WRONG, WRONG),
    (r#"[{"id":33},{"id":4},{"id":5}]"#, WRONG, WRONG),
    (r#"[{"id":3.5},{"id":4},{"id":5}]"#, WRONG, WRONG),
    (r#"[{"id":"3"},{"id":4},{"id":5}]"#, WRONG, WRONG),
    (r#"[{"id":-3},{"id":4},{"id":5}]"#, WRONG, WRONG),
    (r#"[{"ID":3},{"id":4},{"id":5}]"#, WRONG, RIGHT),
    (r#"[{"a":{"id":3}},{"id":4},{"id":5}]"#, WRONG, RIGHT),
    // Another number of elements.
    (r#"[{"id":3},{"id":4}]"#, WRONG, WRONG),
    (r#"[{"id":3},{"id":4},{"id":5},{"id":6}]"#, WRONG, WRONG),
    (r#"[{"id":3},{"id":4},{"id":5},null]"#, WRONG, WRONG),
    (r#"[{"id":3},{"id":4},{"id":5,"a":[{"id":6}]}"#, WRONG, WRONG),
    ("[null]", WRONG, WRONG),
    ("[]", WRONG, WRONG),
    // No objects.
    ("[1]", WRONG, WRONG),
    ("[3,4,5]", WRONG, WRONG),
    ("[[3],[4],[5]]", WRONG, WRONG),
    (r#"["{\"id\":3}","{\"id\":4}","{\"id\":5}"]"#, WRONG, WRONG),
    ("[{},{},true]", WRONG, WRONG),
    // No array.
    (r#"{"id":3}"#, WRONG, WRONG),
    (r#"{"0":{"id":3},"1":{"id":4},"2":{"id":5}}"#, WRONG, WRONG),
    (r#"{"id":3},{"id":4},{"id":5}"#, WRONG, WRONG),
    ("null", WRONG, WRONG),
    ("", WRONG, WRONG),
    ("ok", WRONG, WRONG),
    // Cut off, or with something behind it.
    (r#"[{"id":3},{"id":4},{"id":5}"#, WRONG, WRONG),
    (r#"[{"id":3},{"id":4},{"id":5}]]"#, WRONG, WRONG),
    (r#"[{"id":3},{"id":4},{"id":5}] HTTP/1.1 200 OK"#, WRONG, WRONG),
];

#[test]
fn every_answer_has_to_hold_what_was_asked_for() {
    for known in [true, false] {
        let workload = workload("batch", 0.0, known);
        for (body, of_known, of_unknown) in BODIES {
            let expected = if known { of_known } else { of_unknown };
            let expected = expected.map_or(Answer::Wrong, |(hits, misses)| {
                workload.read(hits, misses, 0)
            });
            let found = workload.judge(1, 200, body.as_bytes());
            assert_eq!(found, expected, "{body}, known: {known}");
        }
    }
}

#[test]
fn what_serve_answers_needs_no_parser() {
    let workload = workload("batch", 0.0, true);
    let sessions = [3, 4, 5].map(|index| session(&workload, index));
    let body = format!("[{}]", sessions.join(","));
    assert_eq!(walk_sessions(body.as_bytes(), 3..6), Some(0));
    assert_eq!(walk_sessions(b"[null,null,null]", 3..6), Some(3));
    let [first, ..] = sessions;
    assert_eq!(walk_session(first.as_bytes(), 3), Some(first.len()));
}

#[test]
fn one_session_has_to_be_the_one_that_was_asked_for() {
    for (body, of_known, of_unknown) in [
        (r#"{"id":3}"#, true, true),
        (r#"{"id":3,"a":"x"}"#, true, true),
        ("{\n  \"a\": [1, {}], \"id\": 3 }\n", true, true),
        ("{}", false, true),
        (r#"{"status":"active"}"#, false, true),
        (r#"{"id":33}"#, false, false),
        (r#"{"id":"3"}"#, false, false),
        (r#"{"id":3}{"id":3}"#, false, false),
        (r#"{"id":3"#, false, false),
        (r#"[{"id":3}]"#, false, false),
        ("[3]", false, false),
        ("null", false, false),
        ("3", false, false),
        ("", false, false),
    ] {
        for (known, right) in [(true, of_known), (false, of_unknown)] {
            let workload = workload("single", 0.0, known);
            let expected = if right {
                workload.read(1, 0, 0)
            } else {
                Answer::Wrong
            };
            let found = workload.judge(3, 200, body.as_bytes());
            assert_eq!(found, expected, "{body}, known: {known}");
            assert_eq!(workload.judge(3, 404, b""), workload.read(0, 1, 0));
        }
    }
}

#[test]
fn verified_answers_must_be_the_records_of_the_dataset() {
    let workload = workload("batch", 1.0, true);
    let [first, second, third] = [3, 4, 5].map(|index| session(&workload, index));
    let judge = |sessions: [&str; 3]| {
        workload.judge(1, 200, format!("[{}]", sessions.join(",")).as_bytes())
    };
    let compared = |hits, misses| workload.read(hits, misses, 0).compared();
    assert_eq!(judge([&first, &second, &third]), compared(3, 0));
    assert_eq!(judge([&first, "null", &third]), compared(2, 1));
    assert_eq!(judge([&second, &first, &third]), Answer::Wrong);
    assert_eq!(judge([&first, r#"{"id":4}"#, &third]), Answer::Wrong);
    assert_eq!(judge([&first, "{}", &third]), Answer::Wrong);
}

#[test]
fn every_member_that_follows_from_the_record_is_compared() {
    let whole: serde_json::Value =
        serde_json::from_str(&session(&workload("single", 1.0, true), 3)).expect("JSON");
    let judge = |verify, session: &serde_json::Value| {
        workload("single", verify, true).judge(3, 200, session.to_string().as_bytes())
    };
    let right = workload("single", 1.0, true).read(1, 0, 0).compared();
    let names = whole.as_object().expect("an object").keys();
    assert_eq!(names.len(), 8);
    for name in names {
        let mut missing = whole.clone();
        missing.as_object_mut().expect("an object").remove(name);
        let mut other = whole.clone();
        // Of the same type, where there is one.
        other[name] = match &whole[name] {
            serde_json::Value::Number(number) => (number.as_u64().expect("whole") + 1).into(),
            _ => "GARBAGE".into(),
        };
        // The only one that the clock decides.
        let is_free = name == "validated_at";
        let expected = if is_free { right } else { Answer::Wrong };
        assert_eq!(judge(1.0, &missing), expected, "without {name}");
        assert_eq!(judge(1.0, &other), expected, "another {name}");
    }
    assert_eq!(judge(1.0, &whole), right);
}

#[test]
fn values_of_the_store_are_told_apart_by_their_ids_and_verified_to_the_byte() {
    for verify in [0.0, 1.0] {
        let workload = workload("batch", verify, true);
        let value = |index| workload.record(index);
        let judge = |values: &[Option<Bytes>]| workload.judge_values(1, values);
        let json = Some(Bytes::from_static(b"{\"status\":\"active\"}"));
        let right = workload.read(2, 1, 0);
        let right = if verify > 0.0 {
            right.compared()
        } else {
            right
        };
        assert_eq!(judge(&[value(3), None, value(5)]), right);
        assert_eq!(judge(&[value(4), value(3), value(5)]), Answer::Wrong);
        assert_eq!(judge(&[value(3), value(4), json]), Answer::Wrong);
        assert_eq!(judge(&[value(3), value(4)]), Answer::Wrong);
        let mut cut = value(3).expect("a record");
        cut.truncate(200);
        let expected = if verify > 0.0 {
            Answer::Wrong
        } else {
            workload.read(1, 2, 0)
        };
        assert_eq!(judge(&[Some(cut), None, None]), expected);
    }
}

#[test]
fn another_targets_answer_is_taken_as_it_is_and_stands_for_no_commands() {
    let workload = Workload {
        form: Some(Arc::new(Form::of(&Request::of_path("/x/{id}")))),
        fetch: Fetch::Pipeline,
        ..workload("batch", 1.0, false)
    };
    let work = |hits, misses| {
        Answer::Good(Work {
            hits,
            misses,
            ..Work::default()
        })
    };
    for status in [200, 201, 202, 203, 204, 206, 299, 304] {
        assert_eq!(workload.judge(1, status, b"anything"), work(1, 0));
    }
    assert_eq!(workload.judge(1, 404, b""), work(0, 1));
    for status in [300, 301, 302, 400, 403, 429, 500, 503] {
        assert_eq!(workload.judge(1, status, b""), Answer::Status(status));
    }
    // One that has to contain something is wrong without it, and stands for no key where it names none.
    let request = Request {
        contains: Some("ok".into()),
        ..Request::of_path("/x")
    };
    let workload = Workload {
        form: Some(Arc::new(Form::of(&request))),
        ..workload
    };
    assert_eq!(workload.judge(1, 200, b"not"), Answer::Wrong);
    assert_eq!(workload.judge(1, 200, b"it is ok"), work(0, 0));
    assert_eq!(workload.judge(1, 404, b"ok"), Answer::Status(404));
}

#[test]
fn another_targets_answers_are_compared_where_its_records_are_known() {
    for (verify, compared) in [(1.0, true), (0.0, false)] {
        let workload = Workload {
            form: Some(Arc::new(Form::of(&Request::of_path("/x/{id}")))),
            ..workload("batch", verify, true)
        };
        assert!(workload.looks_at_bodies());
        let right = session(&workload, 3);
        let work = |hits, misses| {
            Answer::Good(Work {
                hits,
                misses,
                compared: u32::from(compared && hits > 0),
                ..Work::default()
            })
        };
        assert_eq!(workload.judge(3, 200, right.as_bytes()), work(1, 0));
        let unseen = if compared { Answer::Wrong } else { work(1, 0) };
        let other = session(&workload, 4);
        assert_eq!(workload.judge(3, 200, other.as_bytes()), unseen);
        assert_eq!(workload.judge(3, 204, b""), unseen);
        assert_eq!(workload.judge(3, 404, b""), work(0, 1));
        assert_eq!(workload.judge(3, 500, b""), Answer::Status(500));
    }
}

#[test]
fn records_of_json_are_known_by_their_ids_and_compared_with_their_padding() {
    for format in [Format::Json, Format::Raw] {
        for verify in [0.0, 1.0] {
            let mut workload = workload("batch", verify, true);
            workload.dataset.as_mut().expect("a dataset").format = format;
            let judge = |indexes: [u64; 3]| {
                workload.judge_values(1, &indexes.map(|index| workload.record(index)))
            };
            assert!(matches!(judge([3, 4, 5]), Answer::Good(_)));
            assert_eq!(judge([3, 5, 4]), Answer::Wrong);
        }
    }
    let mut workload = workload("single", 1.0, true);
    workload.dataset.as_mut().expect("a dataset").format = Format::Json;
    let stored = workload.record(3).expect("a record");
    let stored = std::str::from_utf8(&stored).expect("text");
    // As serve answers it.
    let served = stored.replace("\"}", "\",\"validated_at\":\"2026-01-02T03:04:05Z\"}");
    let right = workload.read(1, 0, 0).compared();
    assert_eq!(workload.judge(3, 200, served.as_bytes()), right);
    for wrong in [
        served.replace("padding\":\"", "padding\":\"x"),
        served.replace("padding", "filler"),
    ] {
        assert_eq!(workload.judge(3, 200, wrong.as_bytes()), Answer::Wrong);
    }
}

#[test]
fn other_statuses_are_refusals_and_statistics_are_an_object() {
    let workload = workload("batch", 0.0, true);
    for status in [201, 204, 304, 404, 503] {
        let found = workload.judge(1, status, b"[null,null,null]");
        assert_eq!(found, Answer::Status(status));
    }
    for (body, right) in [
        ("{}", true),
        (" {\"keys\": 1}\n", true),
        ("{", false),
        ("[]", false),
        ("{} ok", false),
        ("", false),
    ] {
        assert_eq!(is_braced(body.as_bytes()), right, "{body}");
    }
}

#[test]
fn the_verified_share_is_the_one_asked_for() {
    for share in [0.0, 0.01, 0.5, 1.0] {
        let workload = workload("batch", share, true);
        let count = (100..20_100)
            .filter(|&number| workload.verifies(number))
            .count();
        assert!(
            (count as f64 / 20_000.0 - share).abs() < 0.01,
            "{share}: {count}"
        );
        // The first hundred are all compared, unless none is to be.
        let first = (0..100).filter(|&number| workload.verifies(number)).count();
        assert_eq!(first, if share > 0.0 { 100 } else { 0 });
    }
    // There is nothing to compare with.
    assert!(!workload("batch", 1.0, false).compares(1));
}

/// Text that is full of what structures JSON.
const TEXT: &str = r#"([{}\[\],:"\\i d3]|id|null|\{"id":3){0,6}"#;

/// Values near to an answer: objects with ids, lists of them, text that looks like them.
fn value() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        (2_u64..7).prop_map(Value::from),
        TEXT.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("id|a", inner), 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn of_json_the_walk_takes_nothing_that_the_parser_would_not(
        others in prop::collection::vec(value(), 0..5), text in TEXT,
    ) {
        let workload = workload("batch", 0.0, true);
        // Three that are right, and one of the others in the place of one, behind them, or in the last.
        let right = |id: u64| serde_json::json!({"id": id, "a": text});
        let mut bodies = vec![others.clone()];
        for other in others {
            for place in 0..4 {
                let mut elements: Vec<_> = (3..6).map(right).collect();
                elements.splice(place..(place + 1).min(3), [other.clone()]);
                bodies.push(elements);
            }
        }
        for body in bodies {
            let body = serde_json::to_vec(&body).expect("JSON");
            let parsed = workload
                .parse_sessions(1, &body, |seen: &Named, index| workload.is_named(seen, index));
            if let Some(misses) = walk_sessions(&body, 3..6) {
                prop_assert_eq!(Some(misses), parsed, "{}", String::from_utf8_lossy(&body));
            }
        }
    }

    #[test]
    fn no_answer_makes_judging_panic(body: Vec<u8>, status: u16) {
        for mix in ["batch", "single", "sessions-and-stats"] {
            let _ = workload(mix, 0.5, true).judge(1, status, &body);
        }
    }
}
