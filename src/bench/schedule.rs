//! When each arrival is due. Pure: fixed before the run, whatever the target does.
//!
//! Enters: a rate, a warm-up and a duration. Leaves: for each arrival its due moment and its phase. Must not
//! know the clock: times are nanoseconds from the start of the run.

use std::time::Duration;

use crate::units::Rate;

/// Constant arrivals: number n is due n / rate after the start, computed each time and never accumulated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    rate: f64,
    warmup: u64,
    total: u64,
}

/// Which part of the run an arrival belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the results count.
    Warmup,
    /// It counts.
    Measured,
}

impl Schedule {
    /// The arrivals due in `[0, warmup)` and then in `[warmup, warmup + duration)`.
    #[must_use]
    pub fn new(rate: Rate, warmup: Duration, duration: Duration) -> Self {
        let rate = rate.per_second();
        // A tiny excess of the product is rounding, not one more arrival.
        let arrivals = |span: Duration| (rate * span.as_secs_f64() - 1e-6).ceil().max(0.0) as u64;
        Self {
            rate,
            warmup: arrivals(warmup),
            total: arrivals(warmup + duration),
        }
    }

    /// Nanoseconds from the start to the due moment of arrival `number`.
    #[must_use]
    pub fn due_ns(&self, number: u64) -> u64 {
        // Exact to a nanosecond for 104 days: `number` is below 10^12 and the product below 2^53 µs.
        (number as f64 * 1e9 / self.rate).round() as u64
    }

    /// The phase of arrival `number`.
    #[must_use]
    pub fn phase(&self, number: u64) -> Phase {
        if number < self.warmup {
            Phase::Warmup
        } else {
            Phase::Measured
        }
    }

    /// All arrivals, warm-up included: their numbers are `0..total()`.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many arrivals of a phase are due before `end_ns` and fall to thread `number` of `threads`.
    #[must_use]
    pub fn scheduled(&self, phase: Phase, end_ns: u64, (number, threads): (u64, u64)) -> u64 {
        let due = self.due_before(end_ns);
        // Of the arrivals below `end`, those with `arrival % threads == number`.
        let dealt = |end: u64| end.saturating_sub(number).div_ceil(threads);
        let warmup = dealt(due.min(self.warmup));
        match phase {
            Phase::Warmup => warmup,
            Phase::Measured => dealt(due) - warmup,
        }
    }

    /// Where the measured part begins: the due moment of its first arrival.
    #[must_use]
    pub fn measured_from_ns(&self) -> u64 {
        self.due_ns(self.warmup)
    }

    /// Where the measured part ends: the moment that the arrival after its last would be due.
    #[must_use]
    pub fn measured_until_ns(&self) -> u64 {
        self.due_ns(self.total)
    }

    /// Number of arrivals due before `end_ns`, at most all.
    fn due_before(&self, end_ns: u64) -> u64 {
        let mut number = ((end_ns as f64 * self.rate / 1e9).ceil() as u64).min(self.total);
        // The estimate is off by rounding at most; `due_ns` decides.
        while number > 0 && self.due_ns(number - 1) >= end_ns {
            number -= 1;
        }
        while number < self.total && self.due_ns(number) < end_ns {
            number += 1;
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedule(rate: &str, warmup_s: u64, duration_s: u64) -> Schedule {
        Schedule::new(
            rate.parse().expect("a rate"),
            Duration::from_secs(warmup_s),
            Duration::from_secs(duration_s),
        )
    }

    #[test]
    fn the_claims_schedule_has_its_arrivals_at_their_moments() {
        let schedule = schedule("20000", 3, 20);
        assert_eq!(schedule.total(), 460_000);
        assert_eq!(schedule.due_ns(0), 0);
        assert_eq!(schedule.due_ns(1), 50_000);
        assert_eq!(schedule.measured_from_ns(), 3_000_000_000);
        assert_eq!(schedule.measured_until_ns(), 23_000_000_000);
        assert_eq!(schedule.phase(59_999), Phase::Warmup);
        assert_eq!(schedule.phase(60_000), Phase::Measured);
        assert_eq!(
            schedule.scheduled(Phase::Measured, u64::MAX, (0, 1)),
            400_000
        );
    }

    #[test]
    fn rounding_never_accumulates() {
        let schedule = schedule("3", 0, 86_400);
        assert_eq!(schedule.due_ns(3 * 86_400), 86_400_000_000_000);
        assert_eq!(schedule.total(), 3 * 86_400);
    }

    #[test]
    fn no_warmup_means_that_the_first_arrival_counts() {
        assert_eq!(schedule("10", 0, 1).phase(0), Phase::Measured);
    }

    proptest! {
        #[test]
        fn due_moments_ascend_and_the_phases_add_up(
            rate in 0.5_f64..200_000.0, warmup_s in 0_u64..5, duration_s in 2_u64..60, share in 0.0_f64..1.2,
        ) {
            let schedule = schedule(&rate.to_string(), warmup_s, duration_s);
            let end_ns = ((warmup_s + duration_s) as f64 * 1e9 * share) as u64;
            let threads = 3;
            let dealt = |phase| (0..threads).map(|number| schedule.scheduled(phase, end_ns, (number, threads))).sum::<u64>();
            let alone = |phase| schedule.scheduled(phase, end_ns, (0, 1));
            prop_assert_eq!(dealt(Phase::Warmup), alone(Phase::Warmup));
            prop_assert_eq!(dealt(Phase::Measured), alone(Phase::Measured));
            let due = alone(Phase::Warmup) + alone(Phase::Measured);
            prop_assert!(due <= schedule.total());
            if due > 0 {
                prop_assert!(schedule.due_ns(due - 1) < end_ns);
            }
            if due < schedule.total() {
                prop_assert!(schedule.due_ns(due) >= end_ns);
            }
            let last = schedule.total() - 1;
            prop_assert!(schedule.due_ns(last) < (warmup_s + duration_s) * 1_000_000_000);
            prop_assert!(schedule.due_ns(last.saturating_sub(1)) <= schedule.due_ns(last));
        }
    }
}
