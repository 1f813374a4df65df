//! What a store must hold against what it does: values byte for byte, and keys that are none of the dataset. Pure.
//!
//! Enters: a dataset or the lines of a file, indexes, and what the store answered. Leaves: what is missing or different.
//! Must not take an answer for right because it is there.

use bytes::{Bytes, BytesMut};

use super::load;
use crate::record::Dataset;
use crate::source::Source;
use crate::store::{DATASET_KEY, StoreError};

/// What is wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Missing,
    Different,
}

/// The keys and values of the lines of these indexes.
pub(super) fn lines(
    source: &Source,
    indexes: &[u64],
) -> Result<(Vec<Bytes>, Vec<Bytes>), StoreError> {
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    let read = source.entries(indexes.iter().copied(), |key, value| {
        keys.push(Bytes::copy_from_slice(key));
        values.push(Bytes::copy_from_slice(value));
    });
    read.map_err(|error| load::unreadable(source, &error))?;
    Ok((keys, values))
}

/// Which of the values are not the records of their indexes.
pub(super) fn compare(
    dataset: &Dataset,
    indexes: &[u64],
    values: &[Option<Bytes>],
) -> Vec<(u64, Fault)> {
    let mut record = BytesMut::with_capacity(dataset.value_size.typical_bytes());
    faults_of(indexes, values, |_, index, value| {
        record.clear();
        dataset.put_record(index, &mut record);
        value[..] == record[..]
    })
}

/// Which of the values are not there, or not right for their place and index.
pub(super) fn faults_of(
    indexes: &[u64],
    values: &[Option<Bytes>],
    mut is_right: impl FnMut(usize, u64, &Bytes) -> bool,
) -> Vec<(u64, Fault)> {
    let found = indexes.iter().zip(values).enumerate();
    let faults = found.filter_map(|(place, (&index, value))| match value {
        None => Some((index, Fault::Missing)),
        Some(value) => (!is_right(place, index, value)).then_some((index, Fault::Different)),
    });
    faults.collect()
}

/// Whether a key of the dataset's prefix has no index of it.
pub(super) fn is_extra(dataset: &Dataset, keys: u64, key: &[u8]) -> bool {
    if key == DATASET_KEY {
        return false;
    }
    let Some(digits) = key.strip_prefix(dataset.key_prefix.as_bytes()) else {
        return false;
    };
    let index = std::str::from_utf8(digits).ok().and_then(|text| {
        let index: u64 = text.parse().ok()?;
        // Only as it is written by this program: no sign, no zeros in front.
        (index.to_string() == text).then_some(index)
    });
    index.is_none_or(|index| index >= keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Format;

    fn dataset() -> Dataset {
        Dataset {
            key_prefix: "p:".into(),
            value_size: "100".parse().expect("a size"),
            seed: 1,
            format: Format::Record,
        }
    }

    #[test]
    fn extra_keys_have_the_prefix_and_no_index() {
        for (key, expected) in [
            ("p:0", false),
            ("p:9", false),
            ("p:10", true),
            ("p:01", true),
            ("p:+1", true),
            ("p:", true),
            ("p:x", true),
            ("other:1", false),
        ] {
            assert_eq!(is_extra(&dataset(), 10, key.as_bytes()), expected, "{key}");
        }
    }
}
