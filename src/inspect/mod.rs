//! `kvpoc inspect`: keys explained, or the store when none is given.
//!
//! Enters: an [`InspectConfig`]. Leaves: text or JSON on standard output, and an exit code. Must not change
//! anything, and must not block the store: one key is a few small questions, a sample is a bounded scan.

mod keyspace;

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::config::InspectConfig;
use crate::exit;
use crate::output;
use crate::record::{self, Decoded, Session};
use crate::store::{DatasetInfo, Description, Page, Store, Usage};
use crate::units::{grouped, human_bytes};
use keyspace::{FOREVER, Keyspace};

/// Bytes of an unreadable value that are worth showing.
const HEX_BYTES: usize = 256;
const HEX_BYTES_PER_LINE: usize = 16;
/// Keys asked for in one page of a scan: a fraction of a millisecond of the store's time.
const SCAN_PAGE: usize = 100;

/// Looks, prints, and returns the exit code: 1 when a key is absent.
///
/// # Errors
/// When the store cannot be used.
pub async fn run(config: InspectConfig) -> anyhow::Result<u8> {
    let store = Store::open(&config.store, Usage::Look).await?;
    if config.keys.is_empty() {
        let summary = look_at_store(&store, config.sample).await?;
        print(config.json, &summary, store_text);
        return Ok(exit::OK);
    }
    let (mut found, mut text, mut code) = (Vec::new(), String::new(), exit::OK);
    for key in &config.keys {
        let asked = Bytes::copy_from_slice(key.as_bytes());
        if let Some(description) = store.describe(asked).await? {
            let inspection = inspection(key, &description);
            text += &key_text(&inspection, description.value.as_deref());
            found.push(inspection);
        } else {
            let url = &config.store.url;
            let _ = writeln!(text, "{key}: no such key in {url}");
            found.push(json!({"key": key, "exists": false}));
            code = exit::NO;
        }
    }
    // One answer for one key, a list for several.
    let all = match &found[..] {
        [one] => one.clone(),
        several => json!(several),
    };
    print(config.json, &all, |_| text);
    Ok(code)
}

fn print(as_json: bool, value: &Value, text: impl FnOnce(&Value) -> String) {
    if as_json {
        output::print(&format!("{value:#}\n"));
    } else {
        output::print(&text(value));
    }
}

/// All that is known about one key. What the store does not tell is `null`.
fn inspection(key: &str, description: &Description) -> Value {
    let value = description.value.as_deref();
    let (format, content, problem) = match value.map(|bytes| (bytes, record::decode(bytes))) {
        None => (None, Value::Null, None),
        // Of whatever program: a record needs a status, and JSON does not.
        Some((bytes, Err(_))) if let Some(content) = document(bytes) => {
            (Some("json"), content, None)
        }
        Some((_, Ok(Decoded::Session(session)))) => (Some("record"), session_json(&session), None),
        Some((_, Ok(Decoded::Json { text, .. }))) => {
            let content = serde_json::from_str(text).unwrap_or(Value::Null);
            (Some("json"), content, None)
        }
        Some((bytes, Err(error))) => match std::str::from_utf8(bytes) {
            Ok(text) if is_readable(text) => (Some("text"), json!(text), None),
            _ => (Some("bytes"), Value::Null, Some(error.to_string())),
        },
    };
    json!({
        "key": key,
        "exists": true,
        "type": description.kind,
        "size_bytes": value.map(<[u8]>::len),
        "ttl_s": description.ttl.map(|ttl| ttl.as_secs_f64()),
        "encoding": description.encoding,
        "memory_bytes": description.memory_bytes,
        "slot": description.slot,
        "node": description.node,
        "format": format,
        "content": content,
        "not_a_record_because": problem,
    })
}

/// A JSON object or array; a number or a text alone is rather plain text.
fn document(bytes: &[u8]) -> Option<Value> {
    let content = serde_json::from_slice(bytes).ok()?;
    matches!(content, Value::Object(_) | Value::Array(_)).then_some(content)
}

fn is_readable(text: &str) -> bool {
    text.chars()
        .all(|c| !c.is_control() || matches!(c, '\n' | '\t' | '\r'))
}

fn session_json(session: &Session<'_>) -> Value {
    let time = |seconds| {
        // Beyond the year 9999 there is no such text.
        (seconds < 253_402_300_800).then(|| {
            let moment = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            humantime::format_rfc3339_seconds(moment).to_string()
        })
    };
    json!({
        "id": session.id,
        "status": session.status.name(),
        "role": session.role.name(),
        "created_at": time(session.created_at_s),
        "expires_at": time(session.expires_at_s),
        "ip": std::net::Ipv4Addr::from(session.ip),
        "user_agent": session.user_agent,
        "padding_bytes": session.padding.len(),
    })
}

fn key_text(inspection: &Value, value: Option<&[u8]>) -> String {
    let mut text = format!("{}\n", output::bold(&shown(&inspection["key"])));
    for (name, member) in [
        ("type", "type"),
        ("size", "size_bytes"),
        ("TTL", "ttl_s"),
        ("encoding", "encoding"),
        ("memory", "memory_bytes"),
        ("slot", "slot"),
        ("node", "node"),
        ("format", "format"),
    ] {
        let found = &inspection[member];
        // Only a cluster has these.
        if matches!(member, "slot" | "node") && found.is_null() {
            continue;
        }
        let shown = match (member, found.as_u64()) {
            ("ttl_s", _) if found.is_null() => "no expiry".to_owned(),
            ("ttl_s", _) => format!("{} s", shown(found)),
            ("size_bytes" | "memory_bytes", Some(bytes)) => format!("{} bytes", grouped(bytes)),
            _ => shown(found),
        };
        let _ = writeln!(text, "  {name:<10}{shown}");
    }
    if !inspection["content"].is_null() {
        let _ = writeln!(text, "{:#}", inspection["content"]);
    } else if let Some(value) = value {
        if let Some(problem) = inspection["not_a_record_because"].as_str() {
            let _ = writeln!(text, "Not a record: {problem}");
        }
        text.push_str(&hex_dump(value));
    }
    text
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "not available".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Offset, sixteen bytes, and the same as text where it is any.
fn hex_dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    let head = &bytes[..bytes.len().min(HEX_BYTES)];
    for (line, chunk) in head.chunks(HEX_BYTES_PER_LINE).enumerate() {
        let hex = chunk.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x} ");
            hex
        });
        let plain: String = chunk
            .iter()
            .map(|&byte| {
                if (0x20..0x7f).contains(&byte) {
                    byte as char
                } else {
                    '.'
                }
            })
            .collect();
        let _ = writeln!(text, "{:08x}  {hex:<48} {plain}", line * HEX_BYTES_PER_LINE);
    }
    if bytes.len() > head.len() {
        let _ = writeln!(
            text,
            "… {} more bytes",
            grouped((bytes.len() - head.len()) as u64)
        );
    }
    text
}

/// The store's own figures, the dataset's note, and a sample of the keys.
async fn look_at_store(store: &Store, sample: usize) -> anyhow::Result<Value> {
    let stats = store.stats().await?;
    let note = store.dataset_note().await?;
    let mut keyspace = Keyspace::default();
    let (mut seen, mut cursor) = (0, None);
    // Pages may be empty, and a store of expired keys could give nothing else.
    let mut pages = sample.div_ceil(SCAN_PAGE) * 10;
    while seen < sample && pages > 0 {
        pages -= 1;
        let Page { mut keys, next } = store.scan(cursor, SCAN_PAGE).await?;
        keys.truncate(sample - seen);
        seen += keys.len();
        for (key, measure) in keys.iter().zip(store.measure(keys.clone()).await?) {
            keyspace.add(key, &measure);
        }
        match next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    keyspace.warn(note.as_ref());
    let (complete, unfinished) = DatasetInfo::told_apart(note);
    Ok(json!({
        "store": stats,
        "dataset": complete,
        "unfinished_load": unfinished,
        "sample": keyspace,
    }))
}

fn store_text(summary: &Value) -> String {
    let store = &summary["store"];
    let bytes = |value: &Value| value.as_u64().map_or_else(|| shown(value), human_bytes);
    let count = |value: &Value| value.as_u64().map_or_else(|| shown(value), grouped);
    let title = format!("{} {}", shown(&store["engine"]), shown(&store["version"]));
    let mut text = output::bold(&title) + "\n";
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<20}{value}");
    };
    row("keys", count(&store["keys"]));
    row("memory", bytes(&store["memory_bytes"]));
    row("memory limit", bytes(&store["max_memory_bytes"]));
    row("commands processed", count(&store["commands_processed"]));
    row("key reads", count(&store["key_reads"]));
    let unfinished = &summary["unfinished_load"];
    let (dataset, state) = if unfinished.is_null() {
        (&summary["dataset"], String::new())
    } else {
        let loaded = count(&unfinished["loaded"]);
        (
            unfinished,
            format!(", UNFINISHED: {loaded} loaded; continue with kvpoc seed --resume"),
        )
    };
    if dataset.is_null() {
        row("dataset", "none".into());
    } else {
        let prefix = shown(&dataset["key_prefix"]);
        let (keys, size) = (count(&dataset["keys"]), shown(&dataset["value_size"]));
        let seed = &dataset["seed"];
        // Records need no mention.
        let format = dataset["format"].as_str();
        let format = format.map_or_else(String::new, |format| format!(" ({format})"));
        let what = match dataset["source"]["key"].as_str() {
            Some(key) => format!("{key}, {keys} lines of a file, {size} bytes on average"),
            None => format!("{prefix}0 … {keys} keys of {size} bytes{format}, seed {seed}"),
        };
        row("dataset", what + &state);
    }
    let sample = &summary["sample"];
    row(
        "sample",
        format!(
            "{} keys, values of {} to {} bytes",
            count(&sample["keys"]),
            shown(&sample["value_bytes_min"]),
            shown(&sample["value_bytes_max"]),
        ),
    );
    for (title, member, below) in [
        ("by prefix", "prefixes", ""),
        ("by size", "sizes", "below "),
        ("by time to live", "times_to_live", ""),
    ] {
        put_counts(title, &sample[member], below, &mut text);
    }
    let largest = sample["largest"].as_array().into_iter().flatten();
    for (place, key) in largest.enumerate() {
        let title = if place == 0 { "largest" } else { "" };
        let _ = writeln!(
            text,
            "  {title:<20}{:>10} bytes  {}",
            count(&key[1]),
            shown(&key[0])
        );
    }
    for warning in sample["warnings"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "{} {}", output::bold("Warning:"), shown(warning));
    }
    text
}

/// A table of counts with their shares.
fn put_counts(title: &str, counts: &Value, before_name: &str, text: &mut String) {
    let Some(counts) = counts.as_object() else {
        return;
    };
    let all: u64 = counts.values().filter_map(Value::as_u64).sum();
    for (place, (name, count)) in counts.iter().enumerate() {
        // Its name in the JSON stays, as scripts read it.
        let name = if name == FOREVER { "no expiry" } else { name };
        let title = if place == 0 { title } else { "" };
        let count = count.as_u64().unwrap_or_default();
        let share = count as f64 / all.max(1) as f64 * 100.0;
        let count = grouped(count);
        let _ = writeln!(
            text,
            "  {title:<20}{count:>10}  {share:>5.1} %  {before_name}{name}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn describe(value: &'static [u8]) -> Description {
        Description {
            kind: "string".into(),
            value: Some(Bytes::from_static(value)),
            ttl: Some(Duration::from_secs(9)),
            encoding: None,
            memory_bytes: Some(1_234),
            slot: Some(12_182),
            node: Some("127.0.0.1:7000".into()),
        }
    }

    #[test]
    fn each_kind_of_value_is_named_and_shown() {
        for (value, format, content) in [
            (
                &br#"{"status":"active"}"#[..],
                "json",
                json!({"status": "active"}),
            ),
            (b"{\"a\":[1]}\n", "json", json!({"a": [1]})),
            (b"[1,2]", "json", json!([1, 2])),
            (b"{\"a\":", "text", json!("{\"a\":")),
            (b"17", "text", json!("17")),
            (b"plain text", "text", json!("plain text")),
            (b"\x02\x00", "bytes", Value::Null),
            (b"\x01\x00", "bytes", Value::Null),
        ] {
            let found = inspection("k", &describe(value));
            assert_eq!(found["format"], format);
            assert_eq!(found["content"], content);
        }
    }

    #[test]
    fn times_that_no_calendar_has_are_not_available() {
        let mut out = bytes::BytesMut::new();
        crate::record::Session {
            id: 1,
            status: crate::record::Status::Active,
            role: crate::record::Role::Lead,
            created_at_s: u64::MAX,
            expires_at_s: 0,
            ip: [0; 4],
            user_agent: "",
            padding: &[],
        }
        .put(&mut out);
        let description = Description {
            value: Some(out.freeze()),
            ..describe(b"")
        };
        let found = inspection("k", &description);
        assert!(found["content"]["created_at"].is_null());
        assert_eq!(found["content"]["expires_at"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_corrupt_value_is_dumped_with_its_reason() {
        let description = describe(b"\x02abc\xff");
        let text = key_text(&inspection("k", &description), description.value.as_deref());
        assert!(
            text.contains("Not a record: unknown version byte 0x02 at offset 0"),
            "{text}"
        );
        assert!(text.contains("00000000  02 61 62 63 ff"), "{text}");
        assert!(text.contains(".abc."), "{text}");
    }

    #[test]
    fn what_the_store_does_not_tell_is_not_available() {
        let description = describe(b"x");
        let text = key_text(&inspection("k", &description), description.value.as_deref());
        assert!(text.contains("encoding  not available"), "{text}");
        assert!(text.contains("memory    1,234 bytes"), "{text}");
    }
}
