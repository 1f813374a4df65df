//! Histograms of microseconds, and the one way in which a quantile is read from them. Pure.
//!
//! Enters: moments in nanoseconds. Leaves: histograms, quantiles, their JSON. Must not lose a value, however large.

use hdrhistogram::Histogram;

use crate::objectives::Quantile;

/// Three digits: each value is right to 0.1 %.
const SIGNIFICANT_DIGITS: u8 = 3;

/// An empty one. It grows with its values, so that many small ones cost little.
pub(in crate::bench) fn histogram() -> Histogram<u64> {
    Histogram::new(SIGNIFICANT_DIGITS).expect("three digits are within the bounds")
}

/// Counts the time between two moments; none where the second is not the later one.
pub(super) fn record(histogram: &mut Histogram<u64>, from_ns: u64, to_ns: u64) {
    histogram
        .record(to_ns.saturating_sub(from_ns) / 1_000)
        .expect("growing histograms take any value");
}

/// Adds all values of another one.
pub(in crate::bench) fn add(ours: &mut Histogram<u64>, theirs: &Histogram<u64>) {
    if !theirs.is_empty() {
        ours.add(theirs).expect("growing histograms take any value");
    }
}

/// The sum of two.
pub(super) fn sum(one: &Histogram<u64>, other: &Histogram<u64>) -> Histogram<u64> {
    let mut both = one.clone();
    add(&mut both, other);
    both
}

/// The value at a quantile, by its exact rank; 0 of no values.
#[must_use]
pub fn value_at(histogram: &Histogram<u64>, quantile: Quantile) -> u64 {
    let count = histogram.len();
    if count == 0 {
        return 0;
    }
    // Half a rank below: what the histogram computes in floating point then rounds up to that rank and no other.
    let share = (quantile.rank(count) as f64 - 0.5) / count as f64;
    histogram.value_at_quantile(share)
}

/// A histogram as text: `HdrHistogram`'s V2 form in base64. Not deflated, so that what is read says how much memory
/// it will take.
pub(super) mod packed {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer as From, Serializer as Into};

    use super::{add, histogram};

    /// Bytes before the counts: cookie, length of the counts, and what the histogram is made for.
    const HEADER_BYTES: usize = 40;
    /// The cookie, with the word size that Java's implementation knows.
    const V2_COOKIE: u32 = 0x1c84_9303 | 0x10;

    /// The length in the header is what the reader makes room for, unseen.
    fn is_whole(bytes: &[u8]) -> bool {
        let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        word(0) == Some(V2_COOKIE)
            && word(4).is_some_and(|length| length as usize + HEADER_BYTES == bytes.len())
    }

    pub(in crate::bench) fn serialize<S: Into>(
        value: &Histogram<u64>,
        into: S,
    ) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2Serializer::new()
            .serialize(value, &mut bytes)
            .expect("writing to memory cannot fail");
        into.serialize_str(&STANDARD.encode(bytes))
    }

    pub(in crate::bench) fn deserialize<'a, D: From<'a>>(
        from: D,
    ) -> Result<Histogram<u64>, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        if !is_whole(&bytes) {
            return Err(D::Error::custom(
                "a histogram is incomplete or not in V2 format",
            ));
        }
        let found: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| D::Error::custom(format!("invalid histogram: {error:?}")))?;
        // Into one of ours, whose precision and growth are known.
        let mut value = histogram();
        add(&mut value, &found);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_value_of_its_rank() {
        for (slow, count, name, expected_us) in [
            // Ten of 10,000 are slow: the 9,990th is not.
            (10, 10_000, "p99.9", 1_000),
            (11, 10_000, "p99.9", 200_000),
            (1, 100, "p99", 1_000),
            (2, 100, "p99", 200_000),
            (1, 10, "max", 200_000),
            (1, 3, "p50", 1_000),
        ] {
            let mut found = histogram();
            found.record_n(200_000, slow).expect("it grows");
            found.record_n(1_000, count - slow).expect("it grows");
            let value = value_at(&found, name.parse().expect("a quantile"));
            let off = value as f64 / f64::from(expected_us) - 1.0;
            assert!(off.abs() < 0.001, "{name} of {count}: {value}");
        }
        assert_eq!(value_at(&histogram(), Quantile::MAX), 0);
    }
}
