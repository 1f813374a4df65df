//! What answers look like.
//!
//! Enters: values and problems. Leaves: nothing. Must not need a server.

use super::*;
use crate::store::Room;
use bytes::BytesMut;
use record::{Role, Session, Status};

fn any_size() -> Growing {
    Growing::new(&Room::default())
}

const NOW: &str = "2026-01-02T03:04:05Z";

fn now() -> Ending {
    Ending::at(NOW)
}

fn encoded(status: Status, user_agent: &str) -> Bytes {
    let mut out = BytesMut::new();
    Session {
        id: 7,
        status,
        role: Role::Senior,
        created_at_s: 1,
        expires_at_s: 2,
        ip: [10, 0, 20, 255],
        user_agent,
        padding: &[0; 9],
    }
    .put(&mut out);
    out.freeze()
}

fn body(reply: Reply) -> String {
    String::from_utf8(reply.into_body().to_vec()).expect("text")
}

#[test]
fn a_session_is_written_as_json_that_a_parser_reads() {
    let value = encoded(Status::Active, "a \"quoted\"\n agent");
    let reply = session(7, Some(&value), &now()).expect("a reply");
    let json: serde_json::Value = serde_json::from_str(&body(reply)).expect("JSON");
    let expected = serde_json::json!({
        "id": 7, "status": "active", "role": "senior", "created_at": 1, "expires_at": 2,
        "ip": "10.0.20.255", "user_agent": "a \"quoted\"\n agent", "validated_at": NOW,
    });
    assert_eq!(json, expected);
}

#[test]
fn json_of_an_older_loader_keeps_its_members() {
    let value = Bytes::from_static(br#"{"status":"active","role":"senior"} "#);
    let reply = session(1, Some(&value), &now()).expect("a reply");
    let expected = r#"{"status":"active","role":"senior","validated_at":"2026-01-02T03:04:05Z"}"#;
    assert_eq!(body(reply), expected);
}

#[test]
fn absent_and_revoked_sessions_are_404_alone_and_null_among_others() {
    let revoked = encoded(Status::Revoked, "x");
    let old = Bytes::from_static(br#"{"status":"revoked"}"#);
    for value in [None, Some(&revoked), Some(&old)] {
        let problem = session(7, value, &now()).expect_err("a problem");
        assert_eq!(problem.status(), StatusCode::NOT_FOUND);
    }
    let values = [None, Some(revoked), Some(old)];
    let reply = sessions(&[1, 2, 3], &values, &now()).expect("a reply");
    assert_eq!(body(reply), "[null,null,null]");
}

#[test]
fn sessions_keep_the_order_of_the_request() {
    let value = Some(Bytes::from_static(br#"{"status":"active","n":1}"#));
    let reply = sessions(&[5, 6], &[None, value], &now()).expect("a reply");
    assert!(body(reply).starts_with(r#"[null,{"status":"active","n":1,"#));
}

#[test]
fn what_cannot_be_read_is_said_in_its_place_and_keeps_no_other_back() {
    let foreign = Bytes::from_static(b"\x09");
    let problem = session(5, Some(&foreign), &now()).expect_err("a problem");
    assert_eq!(problem.status(), StatusCode::BAD_GATEWAY);
    assert!(problem.detail().contains("session 5"));
    let known = Bytes::from_static(br#"{"status":"active"}"#);
    let values = [Some(foreign.clone()), None, Some(known)];
    let all = body(sessions(&[5, 6, 7], &values, &now()).expect("a reply"));
    let all: serde_json::Value = serde_json::from_str(&all).expect("JSON");
    assert_eq!(all[0]["id"], 5);
    assert!(
        all[0]["error"]
            .as_str()
            .is_some_and(|error| error.contains("0x09"))
    );
    assert_eq!(
        (&all[1], &all[2]["status"]),
        (&serde_json::Value::Null, &"active".into())
    );
    let octets = sessions_octets(&[5], vec![Some(foreign)], &mut any_size());
    assert_eq!(octets.expect("a reply").into_body(), &[0xFF; 4][..]);
}

#[test]
fn stored_bytes_are_given_for_active_sessions_only() {
    let active = encoded(Status::Active, "x");
    let reply = session_octets(7, Some(active.clone())).expect("a reply");
    assert_eq!(reply.into_body(), active);
    let revoked = encoded(Status::Revoked, "x");
    let problem = session_octets(7, Some(revoked.clone())).expect_err("a problem");
    assert_eq!(problem.status(), StatusCode::NOT_FOUND);
    let stored = vec![None, Some(active.clone()), Some(revoked)];
    let reply = sessions_octets(&[1, 2, 3], stored, &mut any_size());
    let length = (active.len() as u32).to_le_bytes();
    let expected = [&[0xFF; 4][..], &length, &active, &[0xFF; 4]].concat();
    assert_eq!(reply.expect("a reply").into_body(), expected);
}

#[test]
fn values_are_text_or_base64_and_what_is_neither_is_named() {
    let text = vec![Some(Bytes::from_static(b"a\"b")), None, Some(Bytes::new())];
    let reply = values(text, Encoding::Text, &mut any_size()).expect("a reply");
    assert_eq!(body(reply), r#"{"values":["a\"b",null,""]}"#);
    let binary = vec![None, Some(Bytes::from_static(b"\xff\x00"))];
    let reply = values(binary.clone(), Encoding::Base64, &mut any_size()).expect("a reply");
    assert_eq!(body(reply), r#"{"values":[null,"/wA="]}"#);
    let problem = values(binary, Encoding::Text, &mut any_size()).expect_err("a problem");
    assert_eq!(problem.status(), StatusCode::NOT_ACCEPTABLE);
    assert!(problem.detail().contains("key 1"));
}

#[test]
fn a_tag_follows_from_the_value_alone() {
    assert_eq!(tag(b"one"), tag(b"one"));
    assert_ne!(tag(b"one"), tag(b"two"));
    let reply = value(Some(Bytes::from_static(b"one")), &tag(b"one")).expect("a reply");
    assert_eq!(reply.headers()[ETAG], tag(b"one").as_str());
    let reply = not_modified(&tag(b"one"));
    assert_eq!(
        (reply.status(), reply.body().len()),
        (StatusCode::NOT_MODIFIED, 0)
    );
}

#[test]
fn problems_are_documents_with_the_headers_that_their_status_needs() {
    let reply = Problem::from(StoreError::Unavailable("gone".into())).into_reply();
    assert_eq!(reply.status(), 503);
    assert_eq!(reply.headers()[RETRY_AFTER], "1");
    assert_eq!(reply.headers()[CONTENT_TYPE], "application/problem+json");
    let json: serde_json::Value = serde_json::from_str(&body(reply)).expect("JSON");
    assert_eq!(json["status"], 503);
    let reply = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no").allow("GET");
    assert_eq!(reply.into_reply().headers()[ALLOW], "GET");
}
