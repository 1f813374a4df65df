//! When the arrivals of a recorded load are due. Pure.
//!
//! Enters: the times of a log, in any order. Leaves: [`Moments`], and the order that the requests come in. Must not move an
//! arrival by more than what its log does not tell.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Stage, Stages};
use crate::units::UnitError;

const SECOND_US: u64 = 1_000_000;
/// The length of a replay is a whole number of these, and one at least.
const LENGTH_STEP_NS: u64 = 1_000_000;
/// As of any other load.
const MAX_LENGTH: Duration = Duration::from_hours(24);

/// How many times as fast as it was recorded a load is replayed: above 0, at most 1,000.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed(f64);

impl Speed {
    /// As it was recorded.
    pub const AS_RECORDED: Self = Self(1.0);

    /// The factor.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Speed {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text.parse() {
            Ok(speed) if 0.0 < speed && speed <= 1_000.0 => Ok(Self(speed)),
            _ => Err(UnitError(
                "a speed is above 0 and at most 1000; 2 is twice as fast as recorded".into(),
            )),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A time that a log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Microseconds of the Unix epoch.
    pub us: u64,
    /// What it was cut off to: a second, a millisecond, a microsecond.
    pub resolution_us: u64,
}

/// When each arrival is due, in order, and where the schedule ends. There is at least one arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    due_ns: Box<[u64]>,
    end_ns: u64,
}

impl Moments {
    /// The moments of stamps at a speed, and the place of each one's stamp.
    ///
    /// Due is (time − first time) / speed. Stamps of one second, where none of them tells more than seconds, are spread
    /// evenly over it: all at its beginning would be a burst that never was. The schedule ends one mean gap after its last
    /// arrival.
    ///
    /// # Errors
    /// When there is no stamp, or the replay would last for more than a day.
    pub fn of(stamps: &[Stamp], speed: Speed) -> Result<(Self, Vec<usize>), UnitError> {
        let finest_us = stamps.iter().map(|stamp| stamp.resolution_us).min();
        let Some(finest_us) = finest_us else {
            return Err(UnitError("there is nothing in it to replay".into()));
        };
        let mut order: Vec<usize> = (0..stamps.len()).collect();
        order.sort_by_key(|&place| stamps[place].us);
        let mut times_us: Vec<u64> = order.iter().map(|&place| stamps[place].us).collect();
        if finest_us >= SECOND_US {
            spread(&mut times_us);
        }
        let first_us = times_us[0];
        let scaled = |us: u64| (us as f64 * 1e3 / speed.0).round() as u64;
        let span_us = times_us[times_us.len() - 1] - first_us;
        let gap_us = match times_us.len() as u64 {
            1 => finest_us,
            count => span_us / (count - 1),
        };
        let length_ns = scaled(span_us + gap_us);
        if length_ns > MAX_LENGTH.as_nanos() as u64 {
            return Err(UnitError(
                "it would be replayed for more than a day; raise --speed, or cut the log".into(),
            ));
        }
        let due_ns: Box<[u64]> = times_us.iter().map(|us| scaled(us - first_us)).collect();
        let last_ns = due_ns[due_ns.len() - 1];
        let end_ns = length_ns.max(last_ns + 1);
        let end_ns = end_ns.div_ceil(LENGTH_STEP_NS) * LENGTH_STEP_NS;
        Ok((Self { due_ns, end_ns }, order))
    }

    /// Arrivals.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.due_ns.len() as u64
    }

    /// When the arrival of this number is due, in nanoseconds from the start; `None`: there is none.
    #[must_use]
    pub fn due_ns(&self, number: u64) -> Option<u64> {
        self.due_ns.get(usize::try_from(number).ok()?).copied()
    }

    /// Where the schedule ends, in nanoseconds from its start.
    #[must_use]
    pub fn end_ns(&self) -> u64 {
        self.end_ns
    }

    /// The moment before which half of the arrivals were due, or those of the first moment, where they are more.
    #[must_use]
    pub fn middle_ns(&self) -> u64 {
        let middle_ns = self.due_ns[self.due_ns.len() / 2];
        if middle_ns > self.due_ns[0] {
            return middle_ns;
        }
        let later = self.due_ns.partition_point(|&due| due <= middle_ns);
        self.due_ns.get(later).copied().unwrap_or(middle_ns)
    }

    /// Arrivals that are due from one moment until before another.
    #[must_use]
    pub fn between(&self, from_ns: u64, until_ns: u64) -> u64 {
        let before = |moment: u64| self.due_ns.partition_point(|&due| due < moment) as u64;
        before(until_ns).saturating_sub(before(from_ns))
    }

    /// One stage of the same length and mean rate.
    ///
    /// # Errors
    /// When that rate is none that a schedule may have.
    pub fn as_stages(&self) -> Result<Stages, UnitError> {
        let duration = Duration::from_nanos(self.end_ns);
        let rate = (self.count() as f64 / duration.as_secs_f64()).to_string();
        let rate = rate.parse()?;
        Ok(Stages(vec![Stage {
            from: rate,
            to: rate,
            duration,
        }]))
    }
}

/// Spreads sorted times that are equal evenly over their second.
fn spread(times_us: &mut [u64]) {
    for second in times_us.chunk_by_mut(|one, other| one == other) {
        let count = second.len() as u64;
        for (place, time_us) in (0..).zip(second) {
            *time_us += place * SECOND_US / count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::splitmix64;

    fn moments(times_us: &[u64], resolution_us: u64, speed: &str) -> (Moments, Vec<usize>) {
        let stamps: Vec<Stamp> = times_us
            .iter()
            .map(|&us| Stamp { us, resolution_us })
            .collect();
        Moments::of(&stamps, speed.parse().expect("a speed")).expect("moments")
    }

    #[test]
    fn due_is_the_time_since_the_first_over_the_speed() {
        for (times_us, resolution_us, speed, due_us, end_ms) in [
            (
                &[5_000_000, 6_000_000][..],
                1_000,
                "1",
                &[0, 1_000_000][..],
                2_000,
            ),
            (&[5_000_000, 6_000_000], 1, "2", &[0, 500_000], 1_000),
            (&[5_000_001, 5_000_004], 1, "0.5", &[0, 6], 1),
            // Three of one second, and one of the next but one.
            (
                &[7_000_000, 7_000_000, 7_000_000, 9_000_000],
                1_000_000,
                "1",
                &[0, 333_333, 666_666, 2_000_000],
                2_667,
            ),
            // Finer times are what they are.
            (&[7_000_000, 7_000_000], 1_000, "1", &[0, 0], 1),
            (&[7_000_000], 1_000_000, "10", &[0], 100),
        ] {
            let (found, _) = moments(times_us, resolution_us, speed);
            let found_us: Vec<u64> = found.due_ns.iter().map(|ns| ns / 1_000).collect();
            assert_eq!(found_us, due_us);
            assert_eq!(found.end_ns, end_ms * 1_000_000, "{times_us:?}");
        }
    }

    #[test]
    fn lines_out_of_order_are_sorted_and_equal_ones_keep_theirs() {
        let (found, order) = moments(&[3_000, 1_000, 2_000, 1_000], 1_000, "1");
        assert_eq!(*found.due_ns, [0, 0, 1_000_000, 2_000_000]);
        assert_eq!(order, [1, 3, 2, 0]);
    }

    #[test]
    fn one_stamp_with_a_fraction_means_that_whole_seconds_are_meant() {
        let stamp = |us, resolution_us| Stamp { us, resolution_us };
        let stamps = [
            stamp(1_000_000, 1_000_000),
            stamp(1_000_000, 1_000_000),
            stamp(1_250_000, 10_000),
        ];
        let (found, _) = Moments::of(&stamps, Speed::AS_RECORDED).expect("moments");
        assert_eq!(*found.due_ns, [0, 0, 250_000_000]);
    }

    #[test]
    fn a_replay_is_counted_and_measured() {
        let (found, _) = moments(&[0, 100_000, 100_000, 900_000], 1_000, "1");
        assert_eq!(found.between(0, 100_000_000), 1);
        assert_eq!(found.between(100_000_000, 900_000_001), 3);
        assert_eq!((found.count(), found.due_ns(4)), (4, None));
        assert_eq!(found.middle_ns(), 100_000_000);
        let stages = found.as_stages().expect("stages");
        assert!((stages.arrivals() - 4.0).abs() < 1e-6);
        assert_eq!(stages.duration(), Duration::from_nanos(found.end_ns));
    }

    #[test]
    fn what_cannot_be_replayed_is_refused() {
        assert!(Moments::of(&[], Speed::AS_RECORDED).is_err());
        let day_apart = [0, 90_000_000_000].map(|us| Stamp {
            us,
            resolution_us: 1,
        });
        let error = Moments::of(&day_apart, Speed::AS_RECORDED).expect_err("too long");
        assert!(error.to_string().contains("raise --speed"), "{error}");
        assert!(Moments::of(&day_apart, "100".parse().expect("a speed")).is_ok());
        for text in ["0", "-1", "x", "inf", "1001", "NaN"] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_hundred_thousand_moments_are_those_of_the_log_to_the_microsecond() {
        const FIRST_US: u64 = 1_790_000_000_000_000;
        let times_us: Vec<u64> = (0..100_000)
            .map(|n| FIRST_US + splitmix64(3, n) % 3_600_000_000)
            .collect();
        for speed in [0.5, 1.0, 2.0, 7.3, 250.0] {
            let (found, order) = moments(&times_us, 1, &speed.to_string());
            let first_us = times_us[order[0]];
            for (number, &line) in (0..).zip(&order) {
                let due_us = (times_us[line] - first_us) as f64 / speed;
                let found_us = found.due_ns(number).expect("an arrival") as f64 / 1e3;
                assert!((found_us - due_us).abs() < 0.001, "{speed}: {found_us}");
            }
        }
    }
}
