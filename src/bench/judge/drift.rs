//! Whether a run became slower or faster while it went on. Pure.
//!
//! Enters: its seconds. Leaves: a [`Drift`] between the first third of the measured time and the last. Must not take what
//! chance does for a drift: the seconds are the units, and one second is like the next.
//!
//! The rule: the logarithms of a figure of the seconds of both thirds are averaged. The difference counts as drift when it
//! is more than 3 + 180 / seconds standard errors. The error is that of two means of an autoregressive series of order 1.
//! Its correlation from one second to the next is taken from what the seconds deviate from lines of one slope through both
//! thirds: that of neighbours, or the root of that of next but one, which noise of single seconds hides less, whichever is
//! larger; and it is raised by what so short a series hides of it (Marriott and Pope, "Bias in the Estimation of
//! Autocorrelations", Biometrika 1954). The number of errors comes from simulation, as no table has it: stationary series
//! whose seconds are correlated by up to 0.9, with and without noise of single seconds, are called drifting at most one
//! time in twenty, by either figure.

use super::series::{Part, Point};

/// Fewer seconds cannot be told from chance.
pub const LEAST_SECONDS: usize = 15;
/// Latencies are counted in steps of a thousandth.
const RESOLUTION: f64 = 1e-3;
/// Rates that differ by no more than this share are one.
const SAME_RATE: f64 = 1e-6;

/// The last third of the measured seconds against the first.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Drift {
    /// More than chance, by one of the figures.
    pub found: bool,
    /// Seconds of each third.
    pub seconds: usize,
    /// Latency, median.
    pub p50: Shift,
    /// 99th percentile.
    pub p99: Shift,
}

/// A figure in both thirds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Shift {
    /// More than chance.
    pub found: bool,
    /// In the first third, the geometric mean of its seconds, in microseconds.
    pub first_us: f64,
    /// In the last.
    pub last_us: f64,
    /// The difference in standard errors; below 0 when it became faster.
    pub standard_errors: f64,
}

impl Shift {
    /// By how much it changed: 0.1 is a tenth slower.
    #[must_use]
    pub fn change(&self) -> f64 {
        self.last_us / self.first_us - 1.0
    }
}

/// Of a run at one rate; `None` where seconds are too few, or differ in what was asked.
#[must_use]
pub fn of(points: &[Point]) -> Option<Drift> {
    let measured: Vec<&Point> = points
        .iter()
        .filter(|point| point.part == Part::Measured)
        .collect();
    let rate = measured.first()?.target_rps;
    if measured
        .iter()
        .any(|point| (point.target_rps / rate - 1.0).abs() > SAME_RATE)
    {
        return None;
    }
    // Where nothing ended there is no latency; what it waited shows in the next second.
    let ended = |point: &&&Point| point.ok + point.failed > 0;
    let logs = |figure: fn(&Point) -> u64| -> Vec<f64> {
        let of = |point: &&Point| (figure(point).max(1) as f64).ln();
        measured.iter().filter(ended).map(of).collect()
    };
    let (p50, p99) = (logs(|point| point.p50_us), logs(|point| point.p99_us));
    if p50.len() < LEAST_SECONDS {
        return None;
    }
    let (p50, p99) = (shift(&p50), shift(&p99));
    Some(Drift {
        found: p50.found || p99.found,
        seconds: measured.iter().filter(ended).count() / 3,
        p50,
        p99,
    })
}

/// Of the logarithms of one figure, second by second.
fn shift(logs: &[f64]) -> Shift {
    let third = logs.len() / 3;
    let (first, last) = (&logs[..third], &logs[logs.len() - third..]);
    let difference = mean(last) - mean(first);
    let standard_errors = difference / standard_error(first, last);
    Shift {
        found: standard_errors.abs() > 3.0 + 180.0 / logs.len() as f64,
        first_us: mean(first).exp(),
        last_us: mean(last).exp(),
        standard_errors,
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Of the difference between the means of two stretches of as many seconds.
fn standard_error(first: &[f64], last: &[f64]) -> f64 {
    let count = first.len() as f64;
    let thirds = [first, last].map(deviations);
    let slope = {
        let products = |third: &Vec<(f64, f64)>| third.iter().map(|(at, by)| at * by).sum::<f64>();
        let squares = |third: &Vec<(f64, f64)>| third.iter().map(|(at, _)| at * at).sum::<f64>();
        thirds.iter().map(products).sum::<f64>() / thirds.iter().map(squares).sum::<f64>()
    };
    let rests = thirds
        .map(|third| -> Vec<f64> { third.into_iter().map(|(at, by)| by - slope * at).collect() });
    let squares: f64 = rests.iter().flatten().map(|rest| rest * rest).sum();
    let correlation = [1, 2].map(|apart| correlation(&rests, squares, apart));
    let correlation = correlation[0].max(correlation[1].sqrt());
    let (mut of_mean, mut power) = (1.0, 1.0);
    for apart in 1..first.len() {
        power *= correlation;
        of_mean += 2.0 * (1.0 - apart as f64 / count) * power;
    }
    // The variance of a mean, as a share of that of the seconds.
    let of_mean = of_mean / count;
    // The mean of a third goes with its seconds, so that they deviate less from it than from the true one.
    let variance = squares / (2.0 * count) / (1.0 - 1.5 * of_mean).max(0.05);
    (2.0 * variance * of_mean).sqrt().max(RESOLUTION)
}

/// Of seconds so far apart, as it is likely to be in a longer series.
fn correlation(rests: &[Vec<f64>; 2], squares: f64, apart: usize) -> f64 {
    let count = rests[0].len() as f64;
    let pairs = |rests: &'_ Vec<f64>| -> f64 {
        let later = rests.iter().skip(apart);
        rests
            .iter()
            .zip(later)
            .map(|(one, other)| one * other)
            .sum()
    };
    let products: f64 = rests.iter().map(pairs).sum();
    let found = if squares > 0.0 {
        products / squares * count / (count - apart as f64)
    } else {
        0.0
    };
    // Two means and a slope were taken out of the seconds, and each took some of their correlation with it.
    ((found * count + 1.5) / (count - 4.0).max(1.0)).clamp(0.0, 0.99)
}

/// Each second's place, and what it deviates by, from the middle of a third.
fn deviations(third: &[f64]) -> Vec<(f64, f64)> {
    let (middle, mean) = ((third.len() as f64 - 1.0) / 2.0, mean(third));
    let places = (0_u32..).map(f64::from);
    places
        .zip(third)
        .map(|(place, value)| (place - middle, value - mean))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::statistics::simulated::Normal;
    use super::*;

    fn points(p50_us: &[f64], p99_us: &[f64]) -> Vec<Point> {
        let point = |(&p50_us, &p99_us): (&f64, &f64)| Point {
            part: Part::Measured,
            target_rps: 100.0,
            ok: 100,
            p50_us: p50_us as u64,
            p99_us: p99_us as u64,
            ..Point::default()
        };
        p50_us.iter().zip(p99_us).map(point).collect()
    }

    /// Seconds around 0, of which each is correlated with the next by so much.
    fn stationary(seconds: usize, correlation: f64, draws: &mut Normal) -> Vec<f64> {
        let fresh = (1.0 - correlation * correlation).sqrt();
        let mut value = draws.next();
        let step = |_| {
            let this = value;
            value = correlation * value + fresh * draws.next();
            this
        };
        (0..seconds).map(step).collect()
    }

    fn times(around_us: f64, noise: f64, logs: &[f64]) -> Vec<f64> {
        logs.iter()
            .map(|log| around_us * (log * noise).exp())
            .collect()
    }

    #[test]
    fn stationary_series_are_called_drifting_at_most_one_time_in_twenty() {
        const SERIES: u64 = 800;
        for seconds in [15, 30, 60, 180] {
            for correlation in [0.0, 0.5, 0.8, 0.9] {
                // The p99 with a heavy tail: a second in some has a stall in it.
                let found = (0..SERIES).filter(|&number| {
                    let mut draws = Normal::new(seconds as u64, number);
                    let p50 = stationary(seconds, correlation, &mut draws);
                    let p99: Vec<f64> = stationary(seconds, correlation, &mut draws)
                        .into_iter()
                        .map(|log| log + 3.0 * (draws.next() - 1.5).max(0.0))
                        .collect();
                    let series = points(&times(5e4, 0.1, &p50), &times(5e5, 0.2, &p99));
                    of(&series).expect("enough seconds").found
                });
                let share = found.count() as f64 / SERIES as f64;
                // Two standard deviations of 800 tries at 5 % are 1.5 %.
                assert!(
                    share <= 0.05 + 0.015,
                    "{seconds} s at {correlation}: {share}"
                );
            }
        }
    }

    /// In how many of 100 runs a rise to a third more, over the run or in its middle, is found; the noise is of 2 %.
    fn found_of_100(seconds: usize, correlation: f64, is_step: bool) -> usize {
        let rise = |second: usize| {
            let at = second as f64 / seconds as f64;
            if is_step {
                f64::from(at >= 0.5)
            } else {
                at * 1.5
            }
        };
        let found = (0..100).filter(|&number| {
            let mut draws = Normal::new(9, number);
            let mut logs = stationary(seconds, correlation, &mut draws);
            for (second, log) in logs.iter_mut().enumerate() {
                // A third more is 0.29 as a logarithm.
                *log += rise(second) * 0.29 / 0.02;
            }
            let p50 = times(5e4, 0.02, &logs);
            let drift = of(&points(&p50, &p50)).expect("enough seconds");
            drift.found && (drift.p50.change() - 0.33).abs() < 0.1
        });
        found.count()
    }

    #[test]
    fn a_target_that_becomes_a_third_slower_is_found_whether_by_a_slope_or_a_step() {
        for (seconds, correlation, least) in
            [(30, 0.0, 80), (60, 0.0, 95), (60, 0.5, 80), (180, 0.5, 95)]
        {
            for is_step in [false, true] {
                let found = found_of_100(seconds, correlation, is_step);
                assert!(
                    found >= least,
                    "{seconds} s at {correlation}, step {is_step}: {found}"
                );
            }
        }
    }

    #[test]
    fn too_few_seconds_or_several_rates_say_nothing() {
        let long = points(&[1_000.0; 30], &[2_000.0; 30]);
        let steady = of(&long).expect("enough seconds");
        assert!(!steady.found && steady.seconds == 10, "{steady:?}");
        assert_eq!(of(&long[..LEAST_SECONDS - 1]), None);
        assert_eq!(of(&[]), None);
        let mut staged = long.clone();
        staged[20].target_rps = 200.0;
        assert_eq!(of(&staged), None);
        // Warm-up and drain are none of it, nor are seconds in which nothing ended.
        let mut around = long;
        for point in &mut around[..10] {
            (point.part, point.p50_us) = (Part::Warmup, 90_000);
        }
        around[12].ok = 0;
        assert_eq!(of(&around).expect("enough").seconds, 6);
        assert!(!of(&around).expect("enough").found);
    }
}
