//! The note of a dataset: what `seed` keeps beside the keys, so that nobody has to repeat it.
//!
//! Enters: what a load asks for, and the bytes under [`DATASET_KEY`]. Leaves: a [`DatasetInfo`]. Must not call a
//! dataset usable that is not wholly there, nor fail on a note of an earlier version, which has no owner and no state.
//!
//! The note holds the dataset's shape, its owner (the run that loads or loaded it) and its state. It is written once a
//! second during a load, and only in the place of the one that was read. It is checked against the store's own count of
//! keys, and it ends with the first key that expires. `bench` learns from it how many keys there are.

use std::time::Duration;

use bytes::Bytes;

use super::{Engine, Store, StoreError};
use crate::record::{Dataset, Format};
use crate::units::{KeyCount, ValueSize};

/// Where `seed` keeps what it loaded, as JSON: a [`DatasetInfo`].
pub const DATASET_KEY: &[u8] = b"kvpoc:dataset";

/// How much of a dataset is certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// A load is on its way, or was given up; or a verification found faults.
    Loading,
    /// The store acknowledged every key.
    Loaded,
    /// Every key was read back since, and holds its record.
    Verified,
}

/// What `seed` loaded. Whoever changes it replaces exactly the note that it has read, never another one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DatasetInfo {
    /// The indexes are `0..keys`.
    pub keys: u64,
    /// What stands before the index in each key.
    pub key_prefix: String,
    /// Bytes of the records.
    pub value_size: NotedSize,
    /// The seed that the records follow from.
    pub seed: u64,
    /// Version byte of the record format; 0 where the values are of another one.
    pub record_version: u8,
    /// What the values are. An earlier version knew records only, and noted nothing.
    #[serde(default, skip_serializing_if = "Format::is_default")]
    pub format: Format,
    /// The file whose lines were loaded; `None`: they follow from the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<NotedSource>,
    /// How far an unfinished load has come: the positions below are acknowledged. `None`: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<u64>,
    /// The positions are not the indexes, but shuffled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shuffled: bool,
    /// `None`: an earlier version wrote it, and `loaded` tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// The run that loads or loaded it; `None`: nobody does at present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How often the owner has written it: as long as this rises, the owner is at work.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub beat: u64,
}

/// A file whose lines were loaded, as it is noted: by what it held, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NotedSource {
    /// Template of the keys.
    pub key: String,
    /// Hash over all values.
    pub checksum: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A [`ValueSize`] as it is noted: a number when all are the same. What another version
/// noted stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum NotedSize {
    /// All of so many bytes.
    Bytes(u64),
    /// A range or a distribution.
    Text(String),
}

impl From<ValueSize> for NotedSize {
    fn from(size: ValueSize) -> Self {
        match size {
            ValueSize::Fixed(bytes) => Self::Bytes(bytes as u64),
            size => Self::Text(size.to_string()),
        }
    }
}

impl std::fmt::Display for NotedSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl DatasetInfo {
    /// Of a dataset that is all there, as far as somebody says.
    #[must_use]
    pub fn of(dataset: &Dataset, keys: KeyCount) -> Self {
        Self {
            keys: keys.get(),
            key_prefix: dataset.key_prefix.clone(),
            value_size: dataset.value_size.into(),
            seed: dataset.seed,
            record_version: dataset.format.record_version(),
            format: dataset.format,
            source: None,
            loaded: None,
            shuffled: false,
            state: None,
            owner: None,
            beat: 0,
        }
    }

    /// Whether both say the same of every index that both have, however many that are.
    #[must_use]
    pub fn has_shape_of(&self, other: &Self) -> bool {
        self.key_prefix == other.key_prefix
            && self.value_size == other.value_size
            && self.seed == other.seed
            && self.record_version == other.record_version
            && self.format == other.format
            && self.source == other.source
            && self.shuffled == other.shuffled
    }

    /// What the keys and values are, if this version knows them; those of a file it cannot know.
    #[must_use]
    pub fn contents(&self) -> Option<Dataset> {
        let is_known = self.record_version == self.format.record_version();
        (is_known && self.source.is_none()).then_some(())?;
        Some(Dataset {
            key_prefix: self.key_prefix.clone(),
            value_size: self.value_size.to_string().parse().ok()?,
            seed: self.seed,
            format: self.format,
        })
    }

    /// How much of it is certain.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.state, self.loaded) {
            (_, Some(_)) => State::Loading,
            (state, None) => state.unwrap_or(State::Loaded),
        }
    }

    /// All of it is there, as far as is known.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.state() != State::Loading
    }

    /// The positions below were acknowledged.
    #[must_use]
    pub fn reached(&self) -> u64 {
        let all = if self.is_usable() { self.keys } else { 0 };
        self.loaded.unwrap_or(all)
    }

    /// The same note as a dataset, or as a load that is unfinished.
    #[must_use]
    pub fn told_apart(note: Option<Self>) -> (Option<Self>, Option<Self>) {
        match note {
            Some(note) if !note.is_usable() => (None, Some(note)),
            note => (note, None),
        }
    }

    /// The note in these bytes, if it is one.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// As it is kept.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let json = serde_json::to_vec(self);
        json.expect("plain fields are always JSON").into()
    }
}

impl Store {
    /// What is known of a complete dataset; `None` when `seed` noted nothing that can be read, or is not done.
    pub async fn dataset(&self) -> Result<Option<DatasetInfo>, StoreError> {
        let note = self.dataset_note().await?;
        Ok(note.filter(DatasetInfo::is_usable))
    }

    /// What `seed` noted last, perhaps in the middle of a load.
    pub async fn dataset_note(&self) -> Result<Option<DatasetInfo>, StoreError> {
        let bytes = self.note_bytes().await?;
        Ok(bytes.and_then(|bytes| DatasetInfo::read(&bytes)))
    }

    /// The same as it is kept, which is what [`Store::replace_note`] compares.
    pub async fn note_bytes(&self) -> Result<Option<Bytes>, StoreError> {
        let values = self.get_many(Bytes::from_static(DATASET_KEY)).await?;
        Ok(values.into_iter().next().flatten())
    }

    /// Puts a note in the place of the one that was read, `None` for none, in one step; whether that was still
    /// there. A repetition of one that took effect unheard succeeds too, so no two notes may be the same.
    pub async fn replace_note(
        &self,
        expected: Option<Bytes>,
        note: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let key = Bytes::from_static(DATASET_KEY);
        match &self.0 {
            Engine::Dragonfly(store) => Box::pin(store.replace(key, expected, note, ttl)).await,
            Engine::Embedded(store) => store.replace(key, expected, note, ttl).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_tells_what_the_values_are_and_one_without_it_is_of_records() {
        let noted = |more: &str| {
            let shape = r#""keys":100,"key_prefix":"p:","value_size":256,"seed":1"#;
            DatasetInfo::read(format!("{{{shape},{more}}}").as_bytes()).expect("a note")
        };
        let record = noted(r#""record_version":1"#);
        let json = noted(r#""record_version":0,"format":"json""#);
        let raw = noted(r#""record_version":0,"format":"raw""#);
        let of = |note: &DatasetInfo| note.contents().map(|dataset| dataset.format);
        assert_eq!(of(&record), Some(Format::Record));
        assert_eq!(of(&json), Some(Format::Json));
        assert_eq!(of(&raw), Some(Format::Raw));
        assert!(!record.has_shape_of(&json) && !json.has_shape_of(&raw));
        assert!(!String::from_utf8_lossy(&record.to_bytes()).contains("format"));
        // As a later version may note it.
        assert_eq!(of(&noted(r#""record_version":2"#)), None);
    }

    #[test]
    fn a_note_of_an_earlier_version_counts_as_what_it_said() {
        let shape = r#""keys":100,"key_prefix":"p:","value_size":256,"seed":1,"record_version":1"#;
        for (more, state, reached) in [
            ("", State::Loaded, 100),
            (r#","loaded":40"#, State::Loading, 40),
            (r#","loaded":0,"shuffled":true"#, State::Loading, 0),
            (
                r#","state":"verified","owner":"x","beat":3"#,
                State::Verified,
                100,
            ),
            (
                r#","state":"loading","loaded":7,"owner":"x""#,
                State::Loading,
                7,
            ),
            // No program writes these two; the half that promises less is believed.
            (r#","state":"verified","loaded":7"#, State::Loading, 7),
            (r#","state":"loading""#, State::Loading, 0),
        ] {
            let note = DatasetInfo::read(format!("{{{shape}{more}}}").as_bytes()).expect(more);
            assert_eq!((note.state(), note.reached()), (state, reached), "{more}");
            assert_eq!(DatasetInfo::read(&note.to_bytes()), Some(note));
        }
        assert_eq!(DatasetInfo::read(b"[]"), None);
    }
}
