//! Whether the runs of one side are better or worse than those of another. Pure.
//!
//! Enters: the figures of each run of both. Leaves: a [`Comparison`], and what becomes of `--fail-on`. Must not call a
//! difference one that chance alone makes, nor conclude anything from too few runs.

use super::run::Figures;
use super::statistics::median;
use super::statistics::permutation::{Column, probabilities};
use super::statistics::ratio;
use crate::figures::{FailOn, Figure};

/// A difference is said when chance alone makes one as large, in whatever figure, in at most this share of comparisons.
/// Below the 5 % of false alarms that are promised, as what else a machine does does not fall on both sides by chance; and
/// above 2 / 70, the least that four runs a side can come to.
pub(in crate::bench) const LEVEL: f64 = 0.03;
/// Runs of each side without which nothing is said: of three a side even those that lie wholly apart are two of twenty
/// deals.
pub(in crate::bench) const LEAST_RUNS: usize = 4;
/// What logarithms of figures are rounded to: histograms count in steps of a thousandth.
const RESOLUTION: f64 = 5e-4;
/// The same of a share of failures.
const SHARE_RESOLUTION: f64 = 1e-6;

/// What became of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::bench) enum Change {
    Better,
    Worse,
    /// None beyond chance.
    NoDifference,
    TooFewRuns,
    /// Of a whole comparison: some figures are better, others worse.
    Mixed,
}

/// A figure of both sides. Times are microseconds.
#[derive(Debug, serde::Serialize)]
pub(in crate::bench) struct Compared {
    #[serde(skip)]
    pub(in crate::bench) figure: Figure,
    /// The median of the runs that it is held against.
    pub(in crate::bench) against: f64,
    /// The median of those that are compared with them.
    #[serde(rename = "compared")]
    pub(in crate::bench) now: f64,
    /// The latter over the former; `None` where one of them is 0.
    pub(in crate::bench) ratio: Option<f64>,
    /// Of it, 95 %; `None` where runs are too few for it.
    pub(in crate::bench) interval: Option<(f64, f64)>,
    /// That chance alone makes such a difference in any figure; `None` of too few runs.
    pub(in crate::bench) p: Option<f64>,
    pub(in crate::bench) change: Change,
}

/// All figures of both sides.
#[derive(Debug)]
pub(in crate::bench) struct Comparison {
    /// Of the whole.
    pub(in crate::bench) change: Change,
    pub(in crate::bench) figures: Vec<Compared>,
}

/// What became of one `--fail-on`.
#[derive(Debug, PartialEq, serde::Serialize)]
pub(in crate::bench) struct Held {
    /// As it was given.
    pub(in crate::bench) bound: String,
    /// It was not kept.
    pub(in crate::bench) failed: bool,
    /// In words.
    pub(in crate::bench) reason: String,
}

impl Comparison {
    /// Of at least one run a side.
    pub(in crate::bench) fn of(compared: &[Figures], against: &[Figures]) -> Self {
        let enough = compared.len().min(against.len()) >= LEAST_RUNS;
        let chances = if enough {
            let columns: Vec<Column> = (0..Figure::ALL.len())
                .map(|place| column(place, against, compared))
                .collect();
            let chances = probabilities(&columns, against.len());
            chances.into_iter().map(Some).collect()
        } else {
            vec![None; Figure::ALL.len()]
        };
        let left_out = ratio::left_out(against.len(), compared.len());
        let figures: Vec<Compared> = chances
            .into_iter()
            .enumerate()
            .map(|(place, p)| one(place, (against, compared), left_out, p))
            .collect();
        Self {
            change: whole(&figures),
            figures,
        }
    }

    /// What becomes of a bound: it is not kept when the median is worse by at least as much, and the figure is worse
    /// beyond chance.
    pub(in crate::bench) fn hold(&self, bound: &FailOn) -> Held {
        let of = |one: &&Compared| one.figure == bound.figure;
        let held = self.figures.iter().find(of).map(|one| held(one, bound));
        let (failed, reason) = held.unwrap_or_default();
        Held {
            bound: bound.to_string(),
            failed,
            reason,
        }
    }
}

fn values(place: usize, side: &[Figures]) -> Vec<f64> {
    side.iter().map(|figures| figures[place]).collect()
}

fn column(place: usize, against: &[Figures], compared: &[Figures]) -> Column {
    let is_ratio = Figure::ALL[place].is_ratio();
    let sides = [values(place, against), values(place, compared)].concat();
    let of = |value: f64| {
        if is_ratio {
            // Nothing that is measured is as small.
            value.max(1e-6).ln()
        } else {
            value
        }
    };
    Column {
        values: sides.into_iter().map(of).collect(),
        resolution: if is_ratio {
            RESOLUTION
        } else {
            SHARE_RESOLUTION
        },
    }
}

fn one(
    place: usize,
    (against, compared): (&[Figures], &[Figures]),
    left_out: Option<usize>,
    p: Option<f64>,
) -> Compared {
    let figure = Figure::ALL[place];
    let (base, now) = (values(place, against), values(place, compared));
    let mean = |side: &[f64]| side.iter().sum::<f64>() / side.len() as f64;
    // The side that the test found to be larger, which is seldom another than that of the larger median.
    let logs = column(place, against, compared).values;
    let (of_base, of_now) = logs.split_at(base.len());
    let change = match p {
        None => Change::TooFewRuns,
        Some(p) if p > LEVEL => Change::NoDifference,
        Some(_) if (mean(of_now) > mean(of_base)) == figure.is_better_high() => Change::Better,
        Some(_) => Change::Worse,
    };
    Compared {
        figure,
        against: median(&mut base.clone()),
        now: median(&mut now.clone()),
        ratio: ratio::of_medians(&base, &now),
        interval: left_out.and_then(|left_out| ratio::interval(&base, &now, left_out)),
        p,
        change,
    }
}

fn whole(figures: &[Compared]) -> Change {
    let any = |change| figures.iter().any(|one| one.change == change);
    match (any(Change::Worse), any(Change::Better)) {
        (true, true) => Change::Mixed,
        (true, false) => Change::Worse,
        (false, true) => Change::Better,
        _ if any(Change::TooFewRuns) => Change::TooFewRuns,
        _ => Change::NoDifference,
    }
}

/// Whether a bound failed, and why or why not.
fn held(one: &Compared, bound: &FailOn) -> (bool, String) {
    let (more, unit) = if bound.figure.is_ratio() {
        (one.ratio.map_or(0.0, |ratio| ratio - 1.0), "%")
    } else {
        (one.now - one.against, "% of all arrivals")
    };
    // As many digits as a bound may have been given with: 10 % more is 10 % more, whatever the last bit says.
    let is_enough = more >= bound.by * (1.0 - 1e-9);
    let direction = if more < 0.0 { "lower" } else { "higher" };
    let shown = format!(
        "{} is {:.2} {unit} {direction}",
        match bound.figure {
            Figure::Errors => "the failed share",
            figure => figure.name(),
        },
        more.abs() * 100.0
    );
    let chance = one.p.map_or_else(String::new, |p| format!(" (p = {p:.3})"));
    match (is_enough, one.change) {
        (true, Change::Worse) => (true, format!("{shown}, beyond chance{chance}")),
        (true, _) => (false, format!("{shown}, which may be chance{chance}")),
        (false, _) => (false, shown),
    }
}

#[cfg(test)]
mod tests {
    use super::super::statistics::simulated::Normal;
    use super::*;

    /// Runs whose latencies are so many times as long, with so much noise from run to run.
    fn side(runs: usize, slower: f64, noise: f64, draws: &mut Normal) -> Vec<Figures> {
        let run = |_| {
            let of_run = (draws.next() * noise).exp();
            let mut latency = |us: f64, own: f64| us * slower * of_run * (draws.next() * own).exp();
            let latencies = [
                latency(5e3, 0.01),
                latency(8e3, 0.02),
                latency(1e4, 0.05),
                latency(2e4, 0.2),
                latency(5.5e3, 0.01),
            ];
            let [p50, p90, p99, p999, mean] = latencies;
            let rate = 400.0 + draws.next() * 0.01;
            let errors = (draws.next() - 1.5).max(0.0) / 400.0;
            let cpu = 80.0 * (draws.next() * 0.05).exp();
            [p50, p90, p99, p999, mean, rate, errors, cpu]
        };
        (0..runs).map(run).collect()
    }

    fn compare(base: (usize, f64), now: (usize, f64), noise: f64, number: u64) -> Comparison {
        let mut draws = Normal::new(4, number);
        let against = side(base.0, base.1, noise, &mut draws);
        let compared = side(now.0, now.1, noise, &mut draws);
        Comparison::of(&compared, &against)
    }

    #[test]
    fn alike_sides_are_called_different_in_at_most_a_twentieth_of_comparisons() {
        const COMPARISONS: u64 = 1_000;
        for runs in [(4, 4), (5, 5), (4, 7)] {
            let alarms = (0..COMPARISONS).filter(|&number| {
                let found = compare((runs.0, 1.0), (runs.1, 1.0), 0.03, number);
                found.change != Change::NoDifference
            });
            let share = alarms.count() as f64 / COMPARISONS as f64;
            assert!(share <= 0.05, "{runs:?}: {share}");
        }
    }

    #[test]
    fn a_slowdown_of_fifteen_percent_is_found_and_a_speedup_is_none() {
        for (slower, expected) in [(1.15, Change::Worse), (1.0 / 1.15, Change::Better)] {
            let found = (0..300).filter(|&number| {
                let found = compare((5, 1.0), (5, slower), 0.03, number);
                found.change == expected && found.figures[0].change == expected
            });
            assert!(found.count() >= 280, "{slower}");
        }
    }

    #[test]
    fn of_too_few_runs_nothing_is_said_but_their_ratios() {
        for (base, now) in [(1, 1), (3, 3), (3, 9), (9, 3)] {
            let found = compare((base, 1.0), (now, 3.0), 0.01, 1);
            assert_eq!(found.change, Change::TooFewRuns, "{base} {now}");
            let p50 = &found.figures[0];
            assert_eq!(p50.p, None);
            let ratio = p50.ratio.expect("a ratio");
            assert!((ratio - 3.0).abs() < 0.3, "{base} {now}: {ratio}");
        }
        // One more is enough, even of what differs by little.
        let found = compare((4, 1.0), (4, 3.0), 0.01, 1);
        assert_eq!(found.figures[0].change, Change::Worse);
        assert_eq!(found.figures[5].change, Change::NoDifference);
    }

    #[test]
    fn more_errors_and_a_lower_rate_are_worse_and_a_higher_rate_is_better() {
        let run = |rate: f64, errors: f64| [1e3, 1e3, 1e3, 1e3, 1e3, rate, errors, 80.0];
        let side = |rate: f64, errors: f64| -> Vec<Figures> {
            (0..5)
                .map(|number| run(rate + f64::from(number), errors * f64::from(number + 10)))
                .collect()
        };
        for (base, now, place, expected) in [
            (side(400.0, 0.0), side(300.0, 0.0), 5, Change::Worse),
            (side(300.0, 0.0), side(400.0, 0.0), 5, Change::Better),
            (side(400.0, 0.0), side(400.0, 1e-4), 6, Change::Worse),
            (side(400.0, 1e-4), side(400.0, 0.0), 6, Change::Better),
        ] {
            let found = Comparison::of(&now, &base);
            assert_eq!(found.figures[place].change, expected, "{found:?}");
            assert_eq!(found.change, expected);
        }
    }

    #[test]
    fn a_bound_fails_by_what_is_both_large_enough_and_beyond_chance() {
        let slow = compare((5, 1.0), (5, 1.15), 0.005, 1);
        let noisy = compare((4, 1.0), (4, 1.3), 0.6, 5);
        let bound = |text: &str| text.parse::<FailOn>().expect(text);
        for (found, text, failed, says) in [
            (&slow, "p50=+10%", true, "higher, beyond chance (p = 0.0"),
            (&slow, "p50=+20%", false, "p50 is 1"),
            (&slow, "errors=+1%", false, "% of all arrivals"),
            (
                &noisy,
                "p50=+1%",
                false,
                "higher, which may be chance (p = 0.",
            ),
        ] {
            let held = found.hold(&bound(text));
            assert_eq!(held.failed, failed, "{held:?} {found:?}");
            assert!(held.reason.contains(says), "{held:?}");
        }
        // Errors are a share of all arrivals, whatever they were before.
        let run = |errors: f64| [1e3, 1e3, 1e3, 1e3, 1e3, 400.0, errors, 80.0];
        let failing = Comparison::of(&[run(0.02); 5], &[run(0.0); 5]);
        assert!(failing.hold(&bound("errors=+1%")).failed);
        assert!(failing.hold(&bound("errors=+2%")).failed);
        assert!(!failing.hold(&bound("errors=+2.1%")).failed);
    }
}
