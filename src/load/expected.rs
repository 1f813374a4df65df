//! Which records another service's answers are compared with. Pure.
//!
//! Enters: what a user typed. Leaves: where the dataset is told, or the dataset. Must not look for it.

use std::fmt;
use std::str::FromStr;

use super::refuse;
use crate::record::{Dataset, Format};
use crate::units::UnitError;

/// What the answers of another service have to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectRecords {
    /// Nobody knows.
    Unknown,
    /// The records of the dataset that the store's note tells of.
    Noted,
    /// The records of this dataset.
    Of(Dataset),
}

/// As `kvpoc seed` does when nothing is said.
const USUAL_SIZE: &str = "256";
const USUAL_PREFIX: &str = "user:session:";
const USUAL_SEED: u64 = 1;

impl FromStr for ExpectRecords {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "" | "none" | "false" => return Ok(Self::Unknown),
            "note" | "true" => return Ok(Self::Noted),
            _ => {}
        }
        let mut parts = text.split(',');
        let Ok(format) = parts.next().unwrap_or_default().parse::<Format>() else {
            return refuse(
                "write note, for the note of the dataset in --store, or what the values are: record, json or raw, as in \
                 json,value-size=512,seed=7,key-prefix=user:",
            );
        };
        let mut dataset = Dataset {
            key_prefix: USUAL_PREFIX.into(),
            value_size: USUAL_SIZE.parse()?,
            seed: USUAL_SEED,
            format,
        };
        for part in parts {
            match part.split_once('=') {
                Some(("value-size", size)) => dataset.value_size = size.parse()?,
                Some(("key-prefix", prefix)) => dataset.key_prefix = prefix.into(),
                Some(("seed", seed)) => {
                    let seed = seed.parse();
                    dataset.seed =
                        seed.map_err(|_| UnitError("a seed is a whole number".into()))?;
                }
                _ => {
                    return refuse(format!(
                        "{part:?} is none of value-size=SIZE, seed=N and key-prefix=TEXT, with which the keys were loaded"
                    ));
                }
            }
        }
        Ok(Self::Of(dataset))
    }
}

impl fmt::Display for ExpectRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("none"),
            Self::Noted => f.write_str("note"),
            Self::Of(dataset) => f.write_str(&told(dataset)),
        }
    }
}

/// A dataset as it is written for [`ExpectRecords`].
#[must_use]
pub fn told(dataset: &Dataset) -> String {
    let Dataset {
        key_prefix,
        value_size,
        seed,
        format,
    } = dataset;
    format!("{format},value-size={value_size},seed={seed},key-prefix={key_prefix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_noted_or_told() {
        for (text, shown) in [
            ("", "none"),
            ("false", "none"),
            ("true", "note"),
            ("note", "note"),
            (
                "json",
                "json,value-size=256,seed=1,key-prefix=user:session:",
            ),
            (
                "raw,seed=7,value-size=1..9,key-prefix=a=",
                "raw,value-size=1..9,seed=7,key-prefix=a=",
            ),
        ] {
            let parsed: ExpectRecords = text.parse().expect(text);
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(shown.parse(), Ok(parsed));
        }
        for text in [
            "JSON",
            "json,256",
            "json,seed=x",
            "json,value-size=0",
            ",seed=1",
        ] {
            assert!(text.parse::<ExpectRecords>().is_err(), "{text}");
        }
    }
}
