//! Whether the answer of any service holds the records of the keys that it was asked for. Pure.
//!
//! Enters: a dataset, indexes and a body. Leaves: how many of them were missing, or that the answer is wrong. Must not ask
//! more of a service than its data: what stands around a record, in which order, and with which white space is its own
//! business.
//!
//! One key is answered right by its stored value byte for byte, or by JSON that somewhere holds an object with all members of
//! its record. It may have more, such as a time; `padding` may be left out, as only the size needs it, but not be another.
//! Several keys are answered right by all of their records, in any order; or by an array with one element for each key, in
//! their order, where `null` is a key that is not there.

use bytes::BytesMut;
use serde_json::{Map, Value, json};

use crate::record::{Dataset, Format};

/// The member that brings the JSON of a record to its size.
const PADDING: &str = "padding";

/// How many of the keys were not there; `None` when the answer is wrong.
pub(super) fn misses(dataset: &Dataset, indexes: &[u64], body: &[u8]) -> Option<u32> {
    if let [index] = indexes
        && *stored(dataset, *index) == *body
    {
        return Some(0);
    }
    let body: Value = serde_json::from_slice(body).ok()?;
    let records: Vec<_> = indexes
        .iter()
        .map(|&index| members(dataset, index))
        .collect::<Option<_>>()?;
    if let (Value::Array(elements), [_, _, ..]) = (&body, indexes)
        && elements.len() == indexes.len()
    {
        let mut pairs = elements.iter().zip(&records);
        if pairs.all(|(element, record)| element.is_null() || holds(element, record)) {
            return Some(elements.iter().filter(|element| element.is_null()).count() as u32);
        }
    }
    records
        .iter()
        .all(|record| holds(&body, record))
        .then_some(0)
}

fn stored(dataset: &Dataset, index: u64) -> BytesMut {
    let mut value = BytesMut::with_capacity(dataset.value_size.typical_bytes());
    dataset.put_record(index, &mut value);
    value
}

/// What the JSON of a record has; `None` of bytes without a meaning.
fn members(dataset: &Dataset, index: u64) -> Option<Map<String, Value>> {
    let value = match dataset.format {
        Format::Json => serde_json::from_slice(&stored(dataset, index)).ok()?,
        // As kvpoc serve answers it.
        Format::Record => {
            let session = dataset.session(index, &[]);
            json!({
                "id": session.id,
                "status": session.status.name(),
                "role": session.role.name(),
                "created_at": session.created_at_s,
                "expires_at": session.expires_at_s,
                "ip": std::net::Ipv4Addr::from(session.ip),
                "user_agent": session.user_agent,
            })
        }
        Format::Raw => return None,
    };
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// Whether a record is in it, however deep. The parser has bounded the depth.
fn holds(value: &Value, record: &Map<String, Value>) -> bool {
    match value {
        Value::Object(found) => {
            is_record(found, record) || found.values().any(|inner| holds(inner, record))
        }
        Value::Array(elements) => elements.iter().any(|inner| holds(inner, record)),
        _ => false,
    }
}

fn is_record(found: &Map<String, Value>, record: &Map<String, Value>) -> bool {
    record.iter().all(|(name, value)| match found.get(name) {
        Some(other) => other == value,
        None => name == PADDING,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(format: Format) -> Dataset {
        Dataset {
            key_prefix: "p:".into(),
            value_size: "256".parse().expect("a size"),
            seed: 1,
            format,
        }
    }

    fn text(index: u64) -> String {
        let value = stored(&dataset(Format::Json), index);
        String::from_utf8(value.to_vec()).expect("text")
    }

    /// The JSON of a record without its padding, with another member.
    fn slim(index: u64) -> String {
        let mut members = members(&dataset(Format::Json), index).expect("JSON");
        members.remove(PADDING);
        members.insert("at".into(), json!("now"));
        json!(members).to_string()
    }

    #[test]
    fn one_key_is_answered_by_its_record_and_by_no_other() {
        let (right, other) = (text(3), text(4));
        let pretty = serde_json::from_str::<Value>(&right).map(|value| format!("{value:#}\n"));
        for (body, expected) in [
            (right.clone(), Some(0)),
            (pretty.expect("JSON"), Some(0)),
            (slim(3), Some(0)),
            (format!(r#"{{"data":[{right}],"of":1}}"#), Some(0)),
            (format!("[{right}]"), Some(0)),
            (other.clone(), None),
            (slim(4), None),
            (right.replace("\"padding\":\"", "\"padding\":\"x"), None),
            (right.replace("active", "revoked"), None),
            (r#"{"id":3}"#.into(), None),
            ("null".into(), None),
            (String::new(), None),
            (right[1..].into(), None),
            // Not within a text.
            (json!({ "data": right }).to_string(), None),
        ] {
            let found = misses(&dataset(Format::Json), &[3], body.as_bytes());
            assert_eq!(found, expected, "{body}");
        }
    }

    #[test]
    fn several_keys_are_answered_by_all_of_their_records() {
        let [one, two, three] = [1, 2, 3].map(text);
        for (body, expected) in [
            (format!("[{one},{two}]"), Some(0)),
            (format!("[{two},{one}]"), Some(0)),
            (format!("[{one},null]"), Some(1)),
            ("[null,null]".into(), Some(2)),
            (format!(r#"{{"found":{{"1":{one},"2":{two}}}}}"#), Some(0)),
            (format!("[null,{one}]"), None),
            (format!("[{one},{three}]"), None),
            (format!("[{one}]"), None),
            (one.clone(), None),
            ("[]".into(), None),
        ] {
            let found = misses(&dataset(Format::Json), &[1, 2], body.as_bytes());
            assert_eq!(found, expected, "{body}");
        }
        // A service may answer a key once that it was asked for twice.
        let found = misses(
            &dataset(Format::Json),
            &[1, 1],
            format!("[{one}]").as_bytes(),
        );
        assert_eq!(found, Some(0));
    }

    #[test]
    fn binary_records_are_answered_as_they_are_stored_or_as_sessions() {
        let dataset = dataset(Format::Record);
        for (body, expected) in [
            (stored(&dataset, 3).to_vec(), Some(0)),
            (slim(3).into_bytes(), Some(0)),
            (stored(&dataset, 4).to_vec(), None),
            (slim(4).into_bytes(), None),
        ] {
            assert_eq!(misses(&dataset, &[3], &body), expected);
        }
    }

    #[test]
    fn raw_values_are_answered_byte_for_byte() {
        let dataset = dataset(Format::Raw);
        let right = stored(&dataset, 3);
        assert_eq!(misses(&dataset, &[3], &right), Some(0));
        for wrong in [&right[1..], b"", b"{}", &*stored(&dataset, 4)] {
            assert_eq!(misses(&dataset, &[3], wrong), None);
        }
    }
}
