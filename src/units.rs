//! Quantities with their units: parsed once from text, valid by construction, printed for people.
//!
//! Enters: what a user typed. Leaves: [`Rate`], [`KeyCount`], [`ValueSize`], durations.
//! Must not know clap, the network or the clock.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;

mod duration;
pub use duration::human_duration;

/// More arrivals a second than any one machine can pace; a larger number is a typing error.
const MAX_RATE_PER_SECOND: f64 = 10_000_000.0;
/// Far beyond what fits in a store, so that index arithmetic never overflows.
const MAX_KEYS: u64 = 1_000_000_000_000;
/// Large values fragment the store's memory and block every other command behind them.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// LMDB's limit, used for every store so that a dataset can move between them.
pub const MAX_KEY_BYTES: usize = 511;
/// Keys, or commands, in one request of HTTP, whatever the settings.
pub const MAX_KEYS_PER_REQUEST: u32 = 512;
/// No wait of this program is ever meant to last longer than a day.
const MAX_DURATION: Duration = Duration::from_hours(24);
/// A key that should live longer should live for ever.
const MAX_TTL: Duration = Duration::from_hours(24 * 3_650);

/// Why a quantity was refused: a sentence that names the mend, ready for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(pub(crate) String);

/// A rate of arrivals, in requests per second: above 0, at most 10 million.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// Arrivals per second.
    #[must_use]
    pub fn per_second(self) -> f64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, factor) = split_suffix(text);
        let value = number.parse::<f64>().map_err(|_| not_a_number(text))? * factor as f64;
        if value.is_finite() && value > 0.0 && value <= MAX_RATE_PER_SECOND {
            Ok(Self(value))
        } else {
            Err(UnitError(
                "a rate is above 0 and at most 10,000,000 a second".into(),
            ))
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How many keys a dataset has: 1 to 10^12. The indexes are `0..get()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyCount(NonZeroU64);

impl KeyCount {
    /// A single key.
    pub const ONE: Self = Self(NonZeroU64::MIN);

    /// The number of keys.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// A key count from a number that a program reports; `None` when it is 0 or above 10^12.
    #[must_use]
    pub fn new(count: u64) -> Option<Self> {
        NonZeroU64::new(count)
            .filter(|count| count.get() <= MAX_KEYS)
            .map(Self)
    }
}

impl FromStr for KeyCount {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, factor) = split_suffix(text);
        let count = number
            .parse::<u64>()
            .map_err(|_| not_a_number(text))?
            .checked_mul(factor);
        count
            .and_then(Self::new)
            .ok_or_else(|| UnitError("a key count is 1 to 1,000,000,000,000".into()))
    }
}

impl fmt::Display for KeyCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The sizes of values in bytes, each at most 1 MiB. What the smallest is depends on what the values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueSize {
    /// All the same.
    Fixed(usize),
    /// Each as likely as any other, both ends included.
    Between(usize, usize),
    /// As Facebook's ETC pool of Memcached, no smaller than a record and no larger than 1 MiB.
    Etc,
}

impl ValueSize {
    /// The size that follows from 64 uniform bits.
    #[must_use]
    pub fn bytes(self, bits: u64) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Between(least, most) => {
                least + crate::random::below(bits, (most - least) as u64 + 1) as usize
            }
            Self::Etc => etc_bytes(bits),
        }
    }

    /// About what a record takes, for buffers that grow when it takes more.
    #[must_use]
    pub fn typical_bytes(self) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Between(least, most) => least.midpoint(most),
            Self::Etc => 400,
        }
    }

    /// The least that somebody asked for; `None`: as little as there can be.
    #[must_use]
    pub fn least_bytes(self) -> Option<usize> {
        match self {
            Self::Fixed(bytes) | Self::Between(bytes, _) => Some(bytes),
            Self::Etc => None,
        }
    }

    /// The most that a record can take.
    #[must_use]
    pub fn max_bytes(self) -> usize {
        match self {
            Self::Fixed(bytes) | Self::Between(_, bytes) => bytes,
            Self::Etc => MAX_VALUE_BYTES,
        }
    }
}

/// The generalised Pareto distribution that Atikoglu et al. fitted to the values of ETC: "Workload Analysis of a
/// Large-Scale Key-Value Store" (SIGMETRICS 2012), section 5. In software, so that every machine gets the same.
fn etc_bytes(bits: u64) -> usize {
    const SCALE: f64 = 214.476;
    const SHAPE: f64 = 0.348_238;
    let above = 1.0 - (bits >> 11) as f64 / (1_u64 << 53) as f64;
    let bytes = SCALE / SHAPE * (libm::pow(above, -SHAPE) - 1.0);
    (bytes as usize).clamp(crate::record::MIN_VALUE_BYTES, MAX_VALUE_BYTES)
}

impl FromStr for ValueSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text == "etc" {
            return Ok(Self::Etc);
        }
        let Some((least, most)) = text.split_once("..") else {
            return parse_value_bytes(text).map(Self::Fixed);
        };
        let (least, most) = (parse_value_bytes(least)?, parse_value_bytes(most)?);
        if least > most {
            return Err(UnitError("a range begins with its smaller end".into()));
        }
        Ok(Self::Between(least, most))
    }
}

fn parse_value_bytes(text: &str) -> Result<usize, UnitError> {
    let size = text.parse::<ByteSize>().map_err(|_| {
        UnitError("give a size such as 256 or 1KiB, a range such as 128..1024, or etc".into())
    })?;
    match usize::try_from(size.as_u64()) {
        Ok(bytes) if (1..=MAX_VALUE_BYTES).contains(&bytes) => Ok(bytes),
        _ => Err(UnitError(format!(
            "a value is 1 to {MAX_VALUE_BYTES} bytes (1 MiB)"
        ))),
    }
}

/// Parses how many bytes a server may hold: 4 MiB or more.
pub fn parse_held_bytes(text: &str) -> Result<usize, UnitError> {
    let size = text.parse::<ByteSize>().ok();
    let bytes = size.and_then(|size| usize::try_from(size.as_u64()).ok());
    bytes
        .filter(|&bytes| bytes >= MIN_HELD_BYTES)
        .ok_or_else(|| UnitError("give a size of 4MiB or more, such as 512MiB".into()))
}

/// Twice the largest body.
const MIN_HELD_BYTES: usize = 4 * 1024 * 1024;

impl fmt::Display for ValueSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(bytes) => write!(f, "{bytes}"),
            Self::Between(least, most) => write!(f, "{least}..{most}"),
            Self::Etc => f.write_str("etc"),
        }
    }
}

/// Parses a duration above zero and at most a day, such as `250ms`, `20s` or `1m 30s`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let duration = parse_duration_or_zero(text)?;
    if duration.is_zero() {
        return Err(UnitError("give a duration above 0".into()));
    }
    Ok(duration)
}

/// As [`parse_duration`], but zero is allowed and means "none".
pub fn parse_duration_or_zero(text: &str) -> Result<Duration, UnitError> {
    let duration = any_duration(text)?;
    if duration > MAX_DURATION {
        return Err(UnitError("give a duration of at most 1 day".into()));
    }
    Ok(duration)
}

/// Parses a time to live above zero and at most ten years, such as `60s` or `30days`.
pub fn parse_ttl(text: &str) -> Result<Duration, UnitError> {
    let ttl = parse_ttl_or_zero(text)?;
    if ttl.is_zero() {
        return Err(UnitError("a time to live is above 0".into()));
    }
    Ok(ttl)
}

/// As [`parse_ttl`], but zero is allowed and means "for ever".
pub fn parse_ttl_or_zero(text: &str) -> Result<Duration, UnitError> {
    let ttl = any_duration(text)?;
    if ttl > MAX_TTL {
        return Err(UnitError("a time to live is at most 10 years".into()));
    }
    Ok(ttl)
}

/// Parses a moment: RFC 3339 in UTC, such as `2026-11-24T12:00:00Z`, or seconds of the Unix epoch.
pub fn parse_moment(text: &str) -> Result<SystemTime, UnitError> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into()));
    }
    humantime::parse_rfc3339(text).map_err(|_| {
        UnitError("give a time in UTC, such as 2026-11-24T12:00:00Z, or its Unix seconds".into())
    })
}

fn any_duration(text: &str) -> Result<Duration, UnitError> {
    humantime::parse_duration(text)
        .map_err(|_| UnitError("give a number with its unit, such as 250ms, 20s or 5m".into()))
}

/// Microseconds of a duration, which is what every histogram here counts.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A number with its thousands set apart: `1234567` becomes `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds as a person reads them: `840 µs`, `3.21 ms`, `1.40 s`.
#[must_use]
pub fn human_us(us: u64) -> String {
    match us {
        0..=999 => format!("{us} µs"),
        1_000..=999_999 => format!("{:.2} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// Bytes as a person reads them, in powers of 1,024: `3.4 GiB`.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// A whole number of plain decimal digits only: no sign, no space, no overflow. For requests and answers, by their bytes.
#[must_use]
pub fn whole_number(text: &[u8]) -> Option<u64> {
    let (number, after) = split_whole_number(text);
    number.filter(|_| after.is_empty())
}

/// The whole number in front, `None` when there is none or it is too large, and what stands behind its digits.
#[must_use]
pub fn split_whole_number(text: &[u8]) -> (Option<u64>, &[u8]) {
    let (mut number, mut digits) = (0_u64, 0);
    while let Some(byte @ b'0'..=b'9') = text.get(digits) {
        number = number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
        digits += 1;
    }
    let (digits, after) = text.split_at(digits);
    let number = match digits.len() {
        0 => None,
        // So many fit, whatever they are: no check at each.
        1..=19 => Some(number),
        _ => str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok()),
    };
    (number, after)
}

/// Takes `_` and a trailing `k`, `M` or `G` (powers of 1,000) off a number.
fn split_suffix(text: &str) -> (String, u64) {
    let plain = text.trim().replace('_', "");
    for (suffix, factor) in [("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)] {
        if let Some(number) = plain.strip_suffix(suffix) {
            return (number.to_owned(), factor);
        }
    }
    (plain, 1)
}

fn not_a_number(text: &str) -> UnitError {
    UnitError(format!(
        "{text:?} is not a number; write it as 20000, 20_000 or 20k"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_with_their_suffixes() {
        for (text, per_second) in [
            ("20000", 20_000.0),
            ("20_000", 20_000.0),
            ("20k", 20_000.0),
            ("0.5", 0.5),
            ("1.5M", 1_500_000.0),
        ] {
            let rate: Rate = text.parse().expect(text);
            assert!((rate.per_second() - per_second).abs() < 1e-9, "{text}");
        }
    }

    #[test]
    fn impossible_rates_are_refused() {
        for text in [
            "0", "-1", "NaN", "inf", "", "ten", "1e12", "20000/s", "k", "100M",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn key_counts_have_a_floor_and_a_ceiling() {
        assert_eq!("10M".parse::<KeyCount>().expect("10M").get(), 10_000_000);
        for text in ["0", "-5", "1.5", "", "2000G", "99999999999999999999"] {
            assert!(text.parse::<KeyCount>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_keep_their_distribution_and_their_bounds() {
        let bits = |number| crate::random::splitmix64(7, number);
        let range = ValueSize::Between(100, 103);
        let mut seen = [0; 4];
        for number in 0..1_000 {
            seen[range.bytes(bits(number)) - 100] += 1;
        }
        assert!(seen.iter().all(|&count| count > 200), "{seen:?}");
        let mut etc: Vec<usize> = (0..10_000)
            .map(|number| ValueSize::Etc.bytes(bits(number)))
            .collect();
        etc.sort_unstable();
        assert!(etc[0] == crate::record::MIN_VALUE_BYTES && etc[9_999] <= MAX_VALUE_BYTES);
        // Of the published distribution: 168 bytes at the median, 757 at nine in ten.
        assert!((160..176).contains(&etc[5_000]), "{}", etc[5_000]);
        assert!((700..815).contains(&etc[9_000]), "{}", etc[9_000]);
        assert_eq!(ValueSize::Etc.bytes(0), crate::record::MIN_VALUE_BYTES);
        assert_eq!(ValueSize::Etc.bytes(u64::MAX), MAX_VALUE_BYTES);
    }

    #[test]
    fn value_sizes_are_a_byte_to_a_mebibyte() {
        for (text, expected) in [
            ("256", ValueSize::Fixed(256)),
            ("1KiB", ValueSize::Fixed(1_024)),
            ("128..1KiB", ValueSize::Between(128, 1_024)),
            ("84..84", ValueSize::Between(84, 84)),
            ("1", ValueSize::Fixed(1)),
            ("etc", ValueSize::Etc),
        ] {
            let size: ValueSize = text.parse().expect(text);
            assert_eq!(size, expected);
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        for text in ["0", "2MiB", "-1", "large"] {
            assert!(text.parse::<ValueSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_utc_or_unix_seconds() {
        let moment = parse_moment("2026-11-24T12:00:00Z").expect("a moment");
        assert_eq!(parse_moment("1795521600"), Ok(moment));
        for text in [
            "12:00",
            "2026-11-24",
            "tomorrow",
            "-5",
            "2026-11-24T12:00:00",
        ] {
            assert!(parse_moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit_and_an_end() {
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        for text in ["0s", "10", "-1s", "", "2 days"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration_or_zero("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn numbers_are_printed_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(human_us(840), "840 µs");
        assert_eq!(human_us(3_210), "3.21 ms");
        assert_eq!(human_us(1_400_000), "1.40 s");
    }
}
