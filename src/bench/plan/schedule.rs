//! When each arrival is due. Pure: fixed before the run, whatever the target does.
//!
//! Enters: a load profile, an arrival process, a seed; or the moments of a recorded load. Leaves: the arrivals of any
//! thread, in order. Must not know the clock: times are nanoseconds from the start of the run.
//!
//! Both processes run on one axis, the number of arrivals expected so far. Constant arrivals sit on its whole
//! numbers; Poisson arrivals at the sums of exponential gaps (Cinlar's time change). The profile turns a place
//! on that axis into a moment, so every process follows every profile.

use std::sync::Arc;
use std::time::Duration;

use crate::load::{Arrivals, Moments, Shard, Stage, Stages};
use crate::random::splitmix64;

/// Sets the gaps between arrivals apart from the draws of their keys, which have the same seed.
const GAP_SALT: u64 = 0x6A_9500;
const HALF_SECOND_NS: u64 = 500_000_000;

/// One arrival of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Unique in the run; what it asks for follows from it.
    pub number: u64,
    /// Nanoseconds from the start.
    pub at_ns: u64,
}

/// All arrivals of a run, or those of one generator of several.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    shard: Shard,
    course: Course,
    warmup_ns: u64,
}

/// What the moments follow from.
#[derive(Debug, Clone, PartialEq)]
enum Course {
    /// A rate.
    Rates {
        profile: Profile,
        arrivals: Arrivals,
        seed: u64,
    },
    /// A recording, which has one stage and no warm-up.
    Recorded(Arc<Moments>),
}

impl Schedule {
    /// The warm-up at the rate that the first stage begins with, then the stages.
    ///
    /// # Panics
    /// When there is no stage.
    #[must_use]
    pub fn new(stages: &Stages, warmup: Duration, arrivals: Arrivals, seed: u64) -> Self {
        let first = stages.0.first().expect("at least one stage").from;
        let warm = (!warmup.is_zero()).then_some(Stage {
            from: first,
            to: first,
            duration: warmup,
        });
        Self {
            shard: Shard::WHOLE,
            course: Course::Rates {
                profile: Profile::new(warm.iter().chain(&stages.0)),
                arrivals,
                seed,
            },
            warmup_ns: warmup.as_nanos() as u64,
        }
    }

    /// Of a recorded load: its own moments, and nothing before them.
    #[must_use]
    pub fn recorded(moments: Arc<Moments>) -> Self {
        Self {
            shard: Shard::WHOLE,
            course: Course::Recorded(moments),
            warmup_ns: 0,
        }
    }

    /// Only what falls to one generator of several that follow the same schedule.
    #[must_use]
    pub fn of_shard(self, shard: Shard) -> Self {
        Self { shard, ..self }
    }

    /// The arrivals that fall to thread `number` of `threads`, in the order of their moments.
    ///
    /// Constant and recorded arrivals are dealt in turn. Poisson arrivals are a process of its own on each thread, at its
    /// share of the rate: together they are one at the whole rate (the superposition theorem).
    #[must_use]
    pub fn thread(self: &Arc<Self>, (number, threads): (u64, u64)) -> Thread {
        Thread {
            schedule: self.clone(),
            number: self.shard.index + self.shard.count * number,
            threads: self.shard.count * threads,
            taken: 0,
            place: 0.0,
        }
    }

    /// The stage of what is due at `at_ns`, counted from 1; 0 is the warm-up.
    #[must_use]
    pub fn stage_at(&self, at_ns: u64) -> u16 {
        let Course::Rates { profile, .. } = &self.course else {
            return 1;
        };
        let before = profile
            .segments
            .partition_point(|segment| segment.end_ns <= at_ns);
        (before + usize::from(self.warmup_ns == 0)) as u16
    }

    /// Arrivals that are expected here, warm-up included.
    #[must_use]
    pub fn expected(&self) -> f64 {
        let all = match &self.course {
            Course::Rates { profile, .. } => profile.arrivals(),
            Course::Recorded(moments) => moments.count() as f64,
        };
        all / self.shard.count as f64
    }

    /// Arrivals per second that are asked for here at a moment, of a recorded load in the second around it; 0 after the
    /// end.
    #[must_use]
    pub fn rate_at(&self, at_ns: u64) -> f64 {
        let whole = match &self.course {
            Course::Rates { profile, .. } => profile.rate_at(at_ns),
            Course::Recorded(moments) => {
                let from_ns = at_ns.saturating_sub(HALF_SECOND_NS);
                moments.between(from_ns, at_ns + HALF_SECOND_NS) as f64
            }
        };
        whole / self.shard.count as f64
    }

    /// Where the measured part begins.
    #[must_use]
    pub fn measured_from_ns(&self) -> u64 {
        self.warmup_ns
    }

    /// Where the measured part, and with it the schedule, ends.
    #[must_use]
    pub fn measured_until_ns(&self) -> u64 {
        match &self.course {
            Course::Rates { profile, .. } => profile.end_ns,
            Course::Recorded(moments) => moments.end_ns(),
        }
    }
}

/// Arrivals of one thread.
#[derive(Debug, Clone)]
pub struct Thread {
    schedule: Arc<Schedule>,
    number: u64,
    threads: u64,
    taken: u64,
    /// Of Poisson arrivals: where on the axis the last one was.
    place: f64,
}

impl Iterator for Thread {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        let number = self.taken * self.threads + self.number;
        let at_ns = match &self.schedule.course {
            Course::Recorded(moments) => moments.due_ns(number)?,
            Course::Rates {
                profile,
                arrivals,
                seed,
            } => {
                let place = match arrivals {
                    Arrivals::Constant => number as f64,
                    Arrivals::Poisson => {
                        let gap = exponential(splitmix64(seed ^ GAP_SALT, number));
                        self.place + gap * self.threads as f64
                    }
                };
                let at_ns = profile.time_at(place)?;
                self.place = place;
                at_ns
            }
        };
        self.taken += 1;
        Some(Due { number, at_ns })
    }
}

/// An exponential variate of mean 1 from 64 uniform bits, by inversion.
fn exponential(bits: u64) -> f64 {
    // 53 bits make a double in (0, 1]: its logarithm is always a number.
    let uniform = ((bits >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    -uniform.ln()
}

/// The rate over time, and its integral both ways.
#[derive(Debug, Clone, PartialEq)]
struct Profile {
    segments: Vec<Segment>,
    end_ns: u64,
}

/// A stage with its place on both axes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Segment {
    /// Arrivals expected before it.
    first: f64,
    start_s: f64,
    duration_s: f64,
    end_ns: u64,
    from: f64,
    to: f64,
}

impl Segment {
    fn arrivals(&self) -> f64 {
        f64::midpoint(self.from, self.to) * self.duration_s
    }

    /// Seconds into the segment at which `arrivals` of it are expected: the root of
    /// `from t + (to - from) t² / 2d = arrivals`, in the form that does not cancel.
    fn time_of(&self, arrivals: f64) -> f64 {
        let slope = (self.to - self.from) / self.duration_s;
        let root = (self.from * self.from + 2.0 * slope * arrivals)
            .max(0.0)
            .sqrt();
        2.0 * arrivals / (self.from + root)
    }
}

impl Profile {
    fn new<'a>(stages: impl Iterator<Item = &'a Stage>) -> Self {
        let mut segments = Vec::new();
        let (mut first, mut start_s, mut end_ns) = (0.0, 0.0, 0);
        for stage in stages {
            end_ns += stage.duration.as_nanos() as u64;
            let segment = Segment {
                first,
                start_s,
                duration_s: stage.duration.as_secs_f64(),
                end_ns,
                from: stage.from.per_second(),
                to: stage.to.per_second(),
            };
            first += segment.arrivals();
            start_s += segment.duration_s;
            segments.push(segment);
        }
        Self { segments, end_ns }
    }

    fn arrivals(&self) -> f64 {
        let last = self.segments.last();
        last.map_or(0.0, |last| last.first + last.arrivals())
    }

    fn rate_at(&self, at_ns: u64) -> f64 {
        let seconds = at_ns as f64 / 1e9;
        let within = |segment: &&Segment| {
            (segment.start_s..segment.start_s + segment.duration_s).contains(&seconds)
        };
        self.segments.iter().find(within).map_or(0.0, |segment| {
            let share = (seconds - segment.start_s) / segment.duration_s;
            segment.from + (segment.to - segment.from) * share
        })
    }

    /// The moment at which `place` arrivals are expected; `None` after the end.
    fn time_at(&self, place: f64) -> Option<u64> {
        let after = self
            .segments
            .partition_point(|segment| segment.first <= place);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        let seconds = segment.start_s + segment.time_of(place - segment.first);
        let at_ns = (seconds * 1e9).round() as u64;
        (at_ns < self.end_ns).then_some(at_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Stamp;
    use proptest::prelude::*;

    const ALONE: (u64, u64) = (0, 1);

    fn constant(rate: &str, warmup_s: u64, duration_s: u64) -> Arc<Schedule> {
        let duration = Duration::from_secs(duration_s);
        let stages = Stages::steady(rate.parse().expect("a rate"), duration);
        let warmup = Duration::from_secs(warmup_s);
        Arc::new(Schedule::new(&stages, warmup, Arrivals::Constant, 1))
    }

    fn staged(stages: &str, arrivals: Arrivals) -> Arc<Schedule> {
        let stages = stages.parse().expect("stages");
        Arc::new(Schedule::new(&stages, Duration::ZERO, arrivals, 1))
    }

    fn all(schedule: &Arc<Schedule>, thread: (u64, u64)) -> Vec<u64> {
        schedule.thread(thread).map(|due| due.at_ns).collect()
    }

    #[test]
    fn the_claims_schedule_has_its_arrivals_at_their_moments() {
        let schedule = constant("20000", 3, 20);
        let due = all(&schedule, ALONE);
        assert_eq!(due.len(), 460_000);
        assert_eq!(due[..3], [0, 50_000, 100_000]);
        assert_eq!(due[60_000], 3_000_000_000);
        assert_eq!(
            [59_999, 60_000].map(|place| schedule.stage_at(due[place])),
            [0, 1]
        );
        assert_eq!(schedule.measured_until_ns(), 23_000_000_000);
    }

    #[test]
    fn rounding_never_accumulates() {
        let schedule = constant("3", 0, 86_400);
        let last = schedule.thread(ALONE).last().expect("arrivals");
        assert_eq!(last.number, 3 * 86_400 - 1);
        assert_eq!(last.at_ns, 86_399_666_666_667);
    }

    #[test]
    fn stages_step_and_ramp() {
        let stepped = all(&staged("10:1s,20:1s", Arrivals::Constant), ALONE);
        assert_eq!(stepped.len(), 30);
        assert_eq!(stepped[9..12], [900_000_000, 1_000_000_000, 1_050_000_000]);
        let schedule = staged("10:1s,20:1s", Arrivals::Constant);
        assert_eq!(
            [9, 10].map(|place| schedule.stage_at(stepped[place])),
            [1, 2]
        );
        // From 10 to 30 a second over 10 s: 200 arrivals, 75 of them in the first half.
        let ramped = all(&staged("10..30:10s", Arrivals::Constant), ALONE);
        assert_eq!(ramped.len(), 200);
        assert_eq!(ramped[75], 5_000_000_000);
        let ramp = staged("10..30:10s", Arrivals::Constant);
        let rates = [0, 5, 10].map(|second| ramp.rate_at(second * 1_000_000_000));
        assert_eq!(rates.map(|rate| rate.round() as u64), [10, 20, 0]);
        let falling = all(&staged("30..10:10s", Arrivals::Constant), ALONE);
        assert_eq!(falling[125], 5_000_000_000);
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_their_process() {
        let due = all(&staged("1000:100s", Arrivals::Poisson), ALONE);
        // 100,000 expected, with a standard deviation of 316.
        assert!((98_500..101_500).contains(&due.len()), "{}", due.len());
        let gaps: Vec<f64> = due
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as f64 / 1e6)
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Gaps of 1 ms on average, and as much spread: that of an exponential.
        assert!(
            (mean - 1.0).abs() < 0.02 && (variance.sqrt() - 1.0).abs() < 0.03,
            "{mean} {variance}"
        );
        let longer = gaps.iter().filter(|&&gap| gap > 2.0).count() as f64 / gaps.len() as f64;
        assert!((longer - (-2.0_f64).exp()).abs() < 0.01, "{longer}");
    }

    #[test]
    fn a_seed_fixes_poisson_arrivals_and_another_one_changes_them() {
        let stages = "100:5s".parse().expect("stages");
        let due = |seed| {
            let schedule = Schedule::new(&stages, Duration::ZERO, Arrivals::Poisson, seed);
            all(&Arc::new(schedule), ALONE)
        };
        assert_eq!(due(1), due(1));
        assert_ne!(due(1), due(2));
    }

    #[test]
    fn every_arrival_of_a_recorded_load_is_due_at_its_own_moment_whoever_takes_it() {
        // 100,000 lines over ten minutes, out of order.
        let first_us = 1_790_000_000_000_000;
        let mut times_us: Vec<u64> = (0..100_000)
            .map(|n| first_us + splitmix64(5, n) % 600_000_000)
            .collect();
        let stamps: Vec<Stamp> = times_us
            .iter()
            .map(|&us| Stamp {
                us,
                resolution_us: 1,
            })
            .collect();
        times_us.sort_unstable();
        let speed = "2".parse().expect("a speed");
        let (moments, _) = Moments::of(&stamps, speed).expect("moments");
        let whole = Schedule::recorded(Arc::new(moments));
        let mut found = Vec::new();
        for index in 0..2 {
            let shard = Arc::new(whole.clone().of_shard(Shard { index, count: 2 }));
            assert!((shard.expected() - 50_000.0).abs() < 1e-9);
            for number in 0..3 {
                let due: Vec<Due> = shard.thread((number, 3)).collect();
                assert!(due.windows(2).all(|pair| pair[0].at_ns <= pair[1].at_ns));
                found.extend(due);
            }
        }
        assert_eq!(found.len(), 100_000);
        for due in found {
            let since_us = times_us[due.number as usize] - times_us[0];
            assert_eq!(due.at_ns, since_us * 1_000 / 2, "{}", due.number);
            assert_eq!(whole.stage_at(due.at_ns), 1);
            assert!(due.at_ns < whole.measured_until_ns());
        }
        // 100,000 in 300 seconds.
        let per_second = whole.rate_at(30_500_000_000);
        assert!((270.0..400.0).contains(&per_second), "{per_second}");
        assert!(whole.rate_at(400_000_000_000) < 1e-9);
    }

    proptest! {
        #[test]
        fn shards_and_threads_share_the_schedule_and_each_sees_time_go_forward(
            rate in 0.5_f64..2_000.0, to in 0.5_f64..2_000.0, duration_s in 2_u64..10, threads in 1_u64..5,
            poisson: bool, shards in 1_u64..5,
        ) {
            let arrivals = if poisson { Arrivals::Poisson } else { Arrivals::Constant };
            let schedule = staged(&format!("{rate}..{to}:{duration_s}s"), arrivals);
            let mut numbers = Vec::new();
            for index in 0..shards {
                // Each generator may have as many threads as its machine has room for.
                let threads = if index == 0 { 1 } else { threads };
                let shard = Arc::new(Schedule::clone(&schedule).of_shard(Shard { index, count: shards }));
                for number in 0..threads {
                    let due: Vec<Due> = shard.thread((number, threads)).collect();
                    prop_assert!(due.windows(2).all(|pair| pair[0].at_ns <= pair[1].at_ns));
                    prop_assert!(due.iter().all(|due| due.at_ns < schedule.measured_until_ns()));
                    numbers.extend(due.iter().map(|due| due.number));
                }
            }
            let all = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            prop_assert_eq!(numbers.len(), all);
            if !poisson {
                prop_assert!((all as f64 - schedule.expected()).abs() <= 1.0);
            }
        }
    }
}
