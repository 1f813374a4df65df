//! What a load is made of: arrivals, stages, workload, choice of keys. Pure.
//!
//! Enters: what a user typed. Leaves: values that cannot be wrong. Must not know clap, the network or the
//! clock; `bench` gives them their meaning.

mod expected;
mod listed;
mod log_line;
mod moments;
mod request;
mod statuses;
mod sweep;
mod template;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use expected::{ExpectRecords, told};
pub use listed::{Gathered, IsOrigin, Listed, RequestList, RequestsOrder};
pub use log_line::{Asked, LogFormat, LogLine};
pub use moments::{Moments, Speed, Stamp};
pub use request::{
    Header, HeaderLine, KeysAsked, Method, Request, USUAL_STATUSES, header_names,
    may_stand_in_a_header,
};
pub use statuses::Statuses;
pub use sweep::Sweep;
pub use template::{Piece, Place, Template};

use crate::units::{Rate, UnitError, parse_duration};

fn refuse<T>(reason: impl Into<String>) -> Result<T, UnitError> {
    Err(UnitError(reason.into()))
}

/// How the arrivals of a stretch of time are spread over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// Evenly.
    Constant,
    /// Independently of each other, as of many clients that know nothing of one another.
    Poisson,
}

impl FromStr for Arrivals {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "constant" => Ok(Self::Constant),
            "poisson" => Ok(Self::Poisson),
            _ => refuse("write constant or poisson"),
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
        })
    }
}

/// A stretch of load: from one rate to another, in a straight line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    /// At its beginning.
    pub from: Rate,
    /// At its end.
    pub to: Rate,
    /// How long it is.
    pub duration: Duration,
}

/// Stages one after the other: `5000:30s,5000..20000:10s,20000:60s`.
#[derive(Debug, Clone, PartialEq)]
pub struct Stages(pub Vec<Stage>);

impl Stages {
    /// One rate for all of the time.
    #[must_use]
    pub fn steady(rate: Rate, duration: Duration) -> Self {
        Self(vec![Stage {
            from: rate,
            to: rate,
            duration,
        }])
    }

    /// How long all of them are.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.0.iter().map(|stage| stage.duration).sum()
    }

    /// Arrivals expected in all of them.
    #[must_use]
    pub fn arrivals(&self) -> f64 {
        let of = |stage: &Stage| {
            f64::midpoint(stage.from.per_second(), stage.to.per_second())
                * stage.duration.as_secs_f64()
        };
        self.0.iter().map(of).sum()
    }
}

impl FromStr for Stages {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        text.split(',')
            .map(parse_stage)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, stage) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(f, "{comma}{}", stage.from.per_second())?;
            if stage.to != stage.from {
                write!(f, "..{}", stage.to.per_second())?;
            }
            let duration = humantime::format_duration(stage.duration).to_string();
            write!(f, ":{}", duration.replace(' ', ""))?;
        }
        Ok(())
    }
}

fn parse_stage(text: &str) -> Result<Stage, UnitError> {
    let Some((rates, duration)) = text.split_once(':') else {
        return refuse(format!(
            "{text:?} is not a stage; write RATE:TIME or FROM..TO:TIME"
        ));
    };
    let (from, to) = rates.split_once("..").unwrap_or((rates, rates));
    Ok(Stage {
        from: from.parse()?,
        to: to.parse()?,
        duration: parse_duration(duration)?,
    })
}

/// What the arrivals ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Sessions by the batch: `--keys-per-request` in each request.
    Batch,
    /// One session in each request.
    Single,
    /// Three `/stats` to one session, as the load script of the older service had it.
    SessionsAndStats,
    /// Single reads and writes, so many percent of reads.
    Mixed {
        /// 0 to 100.
        reads_percent: u8,
    },
}

impl FromStr for Mix {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        const FORMS: &str =
            "write batch, single, sessions-and-stats or mixed:READS/WRITES, such as mixed:95/5";
        match text {
            "batch" => return Ok(Self::Batch),
            "single" => return Ok(Self::Single),
            "sessions-and-stats" => return Ok(Self::SessionsAndStats),
            _ => {}
        }
        let shares = text
            .strip_prefix("mixed:")
            .and_then(|shares| shares.split_once('/'));
        let Some((reads, writes)) = shares else {
            return refuse(FORMS);
        };
        match (reads.parse::<u8>(), writes.parse::<u8>()) {
            (Ok(reads), Ok(writes)) if u16::from(reads) + u16::from(writes) == 100 => {
                Ok(Self::Mixed {
                    reads_percent: reads,
                })
            }
            _ => refuse("reads and writes are percentages that add up to 100"),
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch => f.write_str("batch"),
            Self::Single => f.write_str("single"),
            Self::SessionsAndStats => f.write_str("sessions-and-stats"),
            Self::Mixed { reads_percent } => {
                write!(f, "mixed:{reads_percent}/{}", 100 - reads_percent)
            }
        }
    }
}

/// How keys are drawn from the dataset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KeysDist {
    /// Each as often as any other.
    Uniform,
    /// The index of rank r with a weight of r^-exponent, the ranks scattered over the dataset.
    Zipf {
        /// Above 0.
        exponent: f64,
    },
    /// A share of the keys that gets a share of the draws.
    Hot {
        /// Of the keys, above 0 and below 1.
        keys: f64,
        /// Of the draws, likewise.
        draws: f64,
    },
    /// One after the other, from the first to the last and again.
    Sequential,
}

impl FromStr for KeysDist {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        const FORMS: &str = "write uniform, zipf:EXPONENT, hot:KEYS/DRAWS or sequential, such as zipf:0.99 or hot:0.01/0.9";
        let share = |text: &str| {
            text.parse()
                .ok()
                .filter(|&share| 0.0 < share && share < 1.0)
        };
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            None if text == "sequential" => Ok(Self::Sequential),
            Some(("zipf", exponent)) => match exponent.parse() {
                Ok(exponent) if 0.0 < exponent && exponent <= 10.0 => Ok(Self::Zipf { exponent }),
                _ => refuse("an exponent is above 0 and at most 10"),
            },
            Some(("hot", shares)) => {
                let (keys, draws) = shares.split_once('/').unwrap_or_default();
                match (share(keys), share(draws)) {
                    (Some(keys), Some(draws)) => Ok(Self::Hot { keys, draws }),
                    _ => refuse("both shares are above 0 and below 1"),
                }
            }
            _ => refuse(FORMS),
        }
    }
}

impl fmt::Display for KeysDist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf { exponent } => write!(f, "zipf:{exponent}"),
            Self::Hot { keys, draws } => write!(f, "hot:{keys}/{draws}"),
            Self::Sequential => f.write_str("sequential"),
        }
    }
}

/// A workload after a published one. Synthetic: its shares and its choice of keys, not its trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preset {
    /// As it is asked for.
    pub name: &'static str,
    /// What it asks for.
    pub mix: Mix,
    /// How it draws keys.
    pub keys_dist: KeysDist,
    /// Bytes of a record that its source gives, on average; `None`: those of the dataset.
    pub value_bytes: Option<u32>,
    /// Where its numbers come from.
    pub source: &'static str,
}

const YCSB: &str = "YCSB core workloads (Cooper et al., SoCC 2010)";

/// All presets; the first is the default.
pub const PRESETS: [Preset; 7] = [
    Preset {
        name: "session",
        mix: Mix::Batch,
        keys_dist: KeysDist::Uniform,
        value_bytes: None,
        source: "the claim: 15 keys per request, drawn uniformly",
    },
    Preset {
        name: "session-single",
        mix: Mix::Single,
        keys_dist: KeysDist::Uniform,
        value_bytes: None,
        source: "the older service: one session per request, drawn uniformly",
    },
    Preset {
        name: "twitter52",
        mix: Mix::Mixed { reads_percent: 93 },
        keys_dist: KeysDist::Zipf { exponent: 1.21 },
        value_bytes: Some(273),
        source: "cluster 52 of Twitter's twemcache traces (Yang et al., OSDI 2020)",
    },
    Preset {
        name: "etc",
        mix: Mix::Mixed { reads_percent: 97 },
        keys_dist: KeysDist::Zipf { exponent: 0.99 },
        value_bytes: Some(329),
        source: "the ETC pool of Facebook's memcached, 30 reads to a write (Atikoglu et al., SIGMETRICS 2012)",
    },
    Preset {
        name: "ycsb-a",
        mix: Mix::Mixed { reads_percent: 50 },
        keys_dist: KeysDist::Zipf { exponent: 0.99 },
        value_bytes: Some(1_000),
        source: YCSB,
    },
    Preset {
        name: "ycsb-b",
        mix: Mix::Mixed { reads_percent: 95 },
        keys_dist: KeysDist::Zipf { exponent: 0.99 },
        value_bytes: Some(1_000),
        source: YCSB,
    },
    Preset {
        name: "ycsb-c",
        mix: Mix::Mixed { reads_percent: 100 },
        keys_dist: KeysDist::Zipf { exponent: 0.99 },
        value_bytes: Some(1_000),
        source: YCSB,
    },
];

impl FromStr for Preset {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let known = PRESETS.iter().find(|preset| preset.name == text);
        known.copied().ok_or_else(|| {
            let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
            UnitError(format!("write one of {}", names.join(", ")))
        })
    }
}

/// The part of a schedule that one of several generators takes: every `count`th arrival, from `index` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which one, from 0.
    pub index: u64,
    /// Of how many, at least 1.
    pub count: u64,
}

impl Shard {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
    /// More generators than this are a mistake.
    const MAX_COUNT: u64 = 10_000;
}

impl FromStr for Shard {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let numbers = text.split_once('/').and_then(|(index, count)| {
            Some((index.trim().parse().ok()?, count.trim().parse().ok()?))
        });
        match numbers {
            Some((index, count)) if index < count && count <= Self::MAX_COUNT => {
                Ok(Self { index, count })
            }
            Some((_, count)) if (1..=Self::MAX_COUNT).contains(&count) => {
                let last = count - 1;
                refuse(format!(
                    "shards are counted from 0: 0/{count} to {last}/{count}"
                ))
            }
            _ => refuse("write INDEX/COUNT, such as 0/4, the first of four"),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_steps_and_ramps() {
        let Stages(stages) = "5k:30s,5000..20000:1m".parse().expect("stages");
        let rates = |stage: &Stage| (stage.from.per_second(), stage.to.per_second());
        let found: Vec<_> = stages.iter().map(rates).collect();
        assert_eq!(found, [(5e3, 5e3), (5e3, 2e4)]);
        assert_eq!(stages[1].duration, Duration::from_mins(1));
        for text in ["5", "5:", ":5s", "5:5s,", "0:5s", "5..:5s", "5:0s"] {
            assert!(text.parse::<Stages>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_printed_is_what_is_read() {
        for text in [
            "batch",
            "single",
            "sessions-and-stats",
            "mixed:95/5",
            "mixed:100/0",
        ] {
            assert_eq!(text.parse::<Mix>().expect(text).to_string(), text);
        }
        for text in ["uniform", "zipf:0.99", "hot:0.01/0.9", "sequential"] {
            assert_eq!(text.parse::<KeysDist>().expect(text).to_string(), text);
        }
        for text in ["5000:30s", "0.5:1m5s,5000..20000:10s500ms"] {
            assert_eq!(text.parse::<Stages>().expect(text).to_string(), text);
        }
        for text in ["0/1", "3/8"] {
            assert_eq!(text.parse::<Shard>().expect(text).to_string(), text);
        }
        for text in ["8/8", "0/0", "1", "-1/2", "a/b", "0/10001"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
        for text in ["constant", "poisson"] {
            assert_eq!(text.parse::<Arrivals>().expect(text).to_string(), text);
        }
        for preset in PRESETS {
            assert_eq!(preset.name.parse(), Ok(preset));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "",
            "mixed",
            "mixed:50",
            "mixed:50/60",
            "mixed:200/0",
            "reads",
        ] {
            assert!(text.parse::<Mix>().is_err(), "{text}");
        }
        for text in [
            "",
            "zipf",
            "zipf:0",
            "zipf:x",
            "hot:1/0.5",
            "hot:0.5",
            "uniform:1",
            "normal",
        ] {
            assert!(text.parse::<KeysDist>().is_err(), "{text}");
        }
    }
}
