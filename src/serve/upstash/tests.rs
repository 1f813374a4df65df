//! Which commands are understood, and how they are answered.
//!
//! Enters: commands. Leaves: nothing. Must not need a store.

use super::*;

const LIMITS: Limits = Limits {
    allow_writes: true,
    upstash: true,
    max_keys_per_request: 4,
};

fn parse_command(words: &Value, limits: Limits) -> Result<Command, String> {
    let words = words::of_command(words.to_string().as_bytes(), limits.max_keys_per_request);
    let words = words.expect("an array");
    Command::parse(words, limits, &mut limits.max_keys_per_request.clone())
}

#[test]
fn options_of_set_are_understood_in_any_order() {
    let words = json!(["set", "k", 7, "nx", "PX", 1500]);
    let Ok(Command::SetIfAbsent(key, value, ttl)) = parse_command(&words, LIMITS) else {
        panic!("not understood");
    };
    assert_eq!((&key[..], &value[..]), (&b"k"[..], &b"7"[..]));
    assert_eq!(ttl, Some(Duration::from_millis(1_500)));
}

#[test]
fn what_is_not_on_the_list_or_not_allowed_says_so() {
    let read_only = Limits {
        allow_writes: false,
        ..LIMITS
    };
    for (words, expected) in [
        (json!([]), "empty"),
        (json!(["FLUSHALL"]), "unknown command \"FLUSHALL\""),
        (json!(["GET"]), "number of arguments for GET"),
        (json!(["GET", "a", "b"]), "number of arguments"),
        (json!(["MSET", "a"]), "number of arguments"),
        (json!(["GET", ["a"]]), "no argument"),
        (json!(["GET", ""]), "1 to 511 bytes"),
        (json!(["SET", "a", "1", "EX"]), "EX \"\""),
        (json!(["SET", "a", "1", "EX", -1]), "EX \"-1\""),
        (json!(["SET", "a", "1", "EX", "5m"]), "EX \"5m\""),
        (json!(["SET", "a", "1", "PX", 0]), "PX \"0\""),
        (json!(["MSET", "", "1"]), "1 to 511 bytes"),
        (json!(["SET", "a", "1", "XX"]), "\"XX\""),
        (json!(["MGET", 1, 2, 3, 4, 5]), "at most 4 keys"),
    ] {
        let error = parse_command(&words, LIMITS).expect_err(expected);
        assert!(
            error.starts_with("ERR ") && error.contains(expected),
            "{error}"
        );
    }
    for words in [
        json!(["SET", "a", "1"]),
        json!(["MSET", "a", "1"]),
        json!(["DEL", "a"]),
    ] {
        let error = parse_command(&words, read_only).expect_err("no writes");
        assert!(error.contains("--allow-writes"), "{error}");
    }
    assert!(parse_command(&json!(["mget", "a", "b"]), read_only).is_ok());
}

#[test]
fn answers_are_text_or_base64_but_ok_is_always_itself() {
    let binary = || Answer::Values(vec![Some(Bytes::from_static(b"\xff")), None]);
    assert_eq!(
        binary().into_json(Encoding::Base64),
        Ok(json!(["/w==", null]))
    );
    assert!(binary().into_json(Encoding::Text).is_err());
    assert_eq!(Answer::Done.into_json(Encoding::Base64), Ok(json!("OK")));
    assert_eq!(
        Answer::Number((-2).into()).into_json(Encoding::Text),
        Ok(json!(-2))
    );
}

#[test]
fn a_path_of_a_command_begins_with_its_name() {
    assert!(is_command("/MGet/a") && is_command("/ttl"));
    assert!(!is_command("/v1/keys") && !is_command("/") && !is_command("/getx/a"));
}
