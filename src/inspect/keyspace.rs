//! The keyspace, from a bounded sample: which prefixes, how large, how long to live.
//!
//! Enters: keys with what was measured of them. Leaves: a [`Keyspace`]. Pure: the scan is its caller's. Must not
//! grow with the sample: prefixes and largest keys are bounded.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::store::{DATASET_KEY, DatasetInfo, Measure, TimeToLive};
use crate::units::{MAX_VALUE_BYTES, grouped};

/// Prefixes told apart; the keys of all others are counted together.
const MAX_PREFIXES: usize = 20;
/// Largest keys that are named.
const LARGEST: usize = 5;
/// Upper bounds of the classes of times to live, with their names.
const TTL_CLASSES: [(Duration, &str); 4] = [
    (Duration::from_mins(1), "below 1 min"),
    (Duration::from_hours(1), "below 1 h"),
    (Duration::from_hours(24), "below 1 day"),
    (Duration::MAX, "1 day and more"),
];

/// What a sample tells.
#[derive(Debug, Default, serde::Serialize)]
pub(super) struct Keyspace {
    /// Keys looked at.
    pub(super) keys: u64,
    /// String values among them.
    pub(super) values: u64,
    pub(super) value_bytes_min: Option<u64>,
    pub(super) value_bytes_max: Option<u64>,
    /// Keys by what stands before their last colon; `…` for all that found no place.
    pub(super) prefixes: BTreeMap<String, u64>,
    /// Values by the power of two that they are below.
    pub(super) sizes: BTreeMap<u64, u64>,
    /// Keys by time to live.
    pub(super) times_to_live: BTreeMap<&'static str, u64>,
    /// The largest, largest first.
    pub(super) largest: Vec<(String, u64)>,
    pub(super) warnings: Vec<String>,
}

/// The class of keys without a time to live.
pub(super) const FOREVER: &str = "none, they stay";

impl Keyspace {
    /// Takes in one key.
    pub(super) fn add(&mut self, key: &Bytes, measure: &Measure) {
        let class = match measure.left {
            TimeToLive::Absent => return,
            TimeToLive::Forever => FOREVER,
            TimeToLive::Left(left) => TTL_CLASSES
                .iter()
                .find(|class| left < class.0)
                .map_or(TTL_CLASSES[TTL_CLASSES.len() - 1].1, |class| class.1),
        };
        self.keys += 1;
        // The note of seed lives as long as its keys, and is no data.
        if key != DATASET_KEY {
            *self.times_to_live.entry(class).or_default() += 1;
        }
        let name = prefix(key);
        let known = self.prefixes.contains_key(&name) || self.prefixes.len() < MAX_PREFIXES;
        let name = if known { name } else { "…".to_owned() };
        *self.prefixes.entry(name).or_default() += 1;
        let Some(bytes) = measure.bytes else { return };
        self.values += 1;
        let (least, most) = (self.value_bytes_min, self.value_bytes_max);
        self.value_bytes_min = Some(least.map_or(bytes, |least| least.min(bytes)));
        self.value_bytes_max = most.max(Some(bytes));
        *self
            .sizes
            .entry((bytes + 1).next_power_of_two())
            .or_default() += 1;
        let place = self.largest.partition_point(|other| other.1 >= bytes);
        if place < LARGEST {
            self.largest
                .insert(place, (key.escape_ascii().to_string(), bytes));
            self.largest.truncate(LARGEST);
        }
    }

    /// Says what deserves a second look.
    pub(super) fn warn(&mut self, dataset: Option<&DatasetInfo>) {
        let largest = self.value_bytes_max.unwrap_or(0);
        if largest > MAX_VALUE_BYTES as u64 {
            self.warnings.push(format!(
                "a value has {} bytes: values above 1 MiB delay all other commands",
                grouped(largest)
            ));
        }
        let forever = self.times_to_live.get(FOREVER).copied().unwrap_or(0);
        let all: u64 = self.times_to_live.values().sum();
        if forever > 0 && forever < all {
            self.warnings.push(format!(
                "{} of {} keys have no time to live, but others have one",
                grouped(forever),
                grouped(all)
            ));
        }
        let Some(dataset) = dataset else { return };
        let dataset_prefix = prefix(format!("{}0", dataset.key_prefix).as_bytes());
        let own = [dataset_prefix.as_str(), "kvpoc:"];
        let foreign: Vec<&str> = self
            .prefixes
            .keys()
            .map(String::as_str)
            .filter(|name| !own.contains(name))
            .collect();
        if !foreign.is_empty() {
            let names = foreign.join(", ");
            let line = format!("keys outside the dataset: {names}");
            self.warnings.push(line);
        }
    }
}

/// What stands before the last colon, with it; the whole key's kind when there is none.
fn prefix(key: &[u8]) -> String {
    match key.iter().rposition(|&byte| byte == b':') {
        Some(colon) => key[..=colon].escape_ascii().to_string(),
        None => "(no colon)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyspace(keys: &[(&'static str, u64, TimeToLive)]) -> Keyspace {
        let mut keyspace = Keyspace::default();
        for (key, bytes, left) in keys {
            let measure = Measure {
                bytes: Some(*bytes),
                left: *left,
            };
            keyspace.add(&Bytes::from_static(key.as_bytes()), &measure);
        }
        keyspace
    }

    #[test]
    fn keys_are_counted_by_prefix_size_and_time_to_live() {
        let found = keyspace(&[
            ("a:1", 255, TimeToLive::Forever),
            ("a:2", 256, TimeToLive::Left(Duration::from_secs(59))),
            ("b:c:1", 0, TimeToLive::Left(Duration::from_hours(30))),
            ("gone", 9, TimeToLive::Absent),
            ("alone", 7, TimeToLive::Forever),
        ]);
        assert_eq!((found.keys, found.values), (4, 4));
        let prefixes: Vec<_> = found
            .prefixes
            .iter()
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        assert_eq!(prefixes, [("(no colon)", 1), ("a:", 2), ("b:c:", 1)]);
        let sizes: Vec<_> = found.sizes.into_iter().collect();
        assert_eq!(sizes, [(1, 1), (8, 1), (256, 1), (512, 1)]);
        assert_eq!(found.times_to_live["below 1 min"], 1);
        assert_eq!(found.times_to_live["1 day and more"], 1);
        assert_eq!(found.largest[0], ("a:2".to_owned(), 256));
        assert_eq!(
            (found.value_bytes_min, found.value_bytes_max),
            (Some(0), Some(256))
        );
    }

    #[test]
    fn what_deserves_a_second_look_is_said() {
        let dataset = DatasetInfo {
            keys: 1,
            key_prefix: "a:".into(),
            value_size: crate::store::NotedSize::Bytes(256),
            seed: 1,
            record_version: 1,
            format: crate::record::Format::Record,
            source: None,
            loaded: None,
            shuffled: false,
            state: None,
            owner: None,
            beat: 0,
        };
        let mut found = keyspace(&[
            ("a:1", 2_000_000, TimeToLive::Forever),
            ("x:1", 1, TimeToLive::Left(Duration::from_secs(1))),
        ]);
        found.warn(Some(&dataset));
        let text = found.warnings.join("; ");
        for expected in ["2,000,000 bytes", "1 of 2 keys have no time to live", "x:"] {
            assert!(text.contains(expected), "{text}");
        }
        let mut clean = keyspace(&[("a:1", 256, TimeToLive::Forever)]);
        clean.warn(Some(&dataset));
        assert!(clean.warnings.is_empty());
    }

    #[test]
    fn prefixes_are_bounded() {
        let mut found = Keyspace::default();
        let measure = Measure {
            bytes: None,
            left: TimeToLive::Forever,
        };
        for number in 0..100 {
            found.add(&Bytes::from(format!("p{number}:1")), &measure);
        }
        assert_eq!(found.prefixes.len(), MAX_PREFIXES + 1);
        assert_eq!(found.prefixes["…"], 80);
    }
}
