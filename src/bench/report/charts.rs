//! The charts of the report's page. Pure.
//!
//! Enters: the series of a run, and an earlier run. Leaves: SVG. Must not compute a figure: it draws those that the results
//! have.

use hdrhistogram::Histogram;
use serde_json::Value;

use super::svg::{Axes, Line, chart};
use crate::bench::judge::histogram::value_at;
use crate::bench::judge::series::{Part, Point, Series};
use crate::objectives::Quantile;
use crate::units::{grouped, human_us};

/// The horizontal axis counts nines: 0 is the median of nothing, 1 is 90 %, 2 is 99 %.
pub(super) fn by_percentile(series: &Series, earlier: Option<&Value>) -> String {
    let nines = |quantile: f64| -(1.0 - quantile).log10();
    let points = series.latency_us.as_ref().map(points_of);
    let points = points.unwrap_or_default();
    let mut lines = vec![line("this run", "a", points)];
    if let Some(earlier) = earlier {
        let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];
        let found = |(name, quantile): (&str, f64)| {
            let us = earlier["latency_us"][name].as_f64()?;
            Some((nines(quantile), us))
        };
        lines.push(line(
            "earlier run",
            "b",
            quantiles.into_iter().filter_map(found).collect(),
        ));
    }
    let marks = [
        (0.5, "50 %"),
        (0.9, "90 %"),
        (0.99, "99 %"),
        (0.999, "99.9 %"),
        (0.9999, "99.99 %"),
        (0.99999, "99.999 %"),
    ];
    let axes = Axes {
        x_marks: marks
            .map(|(quantile, name)| (nines(quantile), name.to_owned()))
            .to_vec(),
        x_name: "percentile",
        ..time_axes()
    };
    chart(&axes, &lines)
}

/// A latency for each twentieth of a nine, as deep as there are values. By the rank that all figures of a report have.
fn points_of(latency_us: &Histogram<u64>) -> Vec<(f64, f64)> {
    let deepest = (latency_us.len().max(10) as f64).log10();
    let steps = (deepest * 20.0) as u32;
    let point = |step| {
        let place = f64::from(step) / 20.0;
        let quantile = Quantile::of_share(1.0 - 10.0_f64.powf(-place));
        (place, value_at(latency_us, quantile) as f64)
    };
    (0..=steps).map(point).collect()
}

pub(super) fn rate_chart(points: &[Point]) -> String {
    let lines = [
        over_time("requested", "d", points, |point| point.target_rps),
        over_time("ok", "a", points, |point| point.ok as f64),
        over_time("failed", "b", points, |point| point.failed as f64),
    ];
    let axes = Axes {
        y_log: false,
        y_name: "requests/s",
        y_shown: |value| grouped(value.round() as u64),
        ..seconds_axes(points)
    };
    chart(&axes, &lines)
}

pub(super) fn latency_chart(points: &[Point]) -> String {
    // A second in which nothing ended has no latency, which is not one of 0.
    let ended: Vec<Point> = points
        .iter()
        .filter(|point| point.ok + point.failed > 0)
        .copied()
        .collect();
    let lines = [
        over_time("p50", "a", &ended, |point| point.p50_us as f64),
        over_time("p99", "c", &ended, |point| point.p99_us as f64),
        over_time("p99.9", "b", &ended, |point| point.p999_us as f64),
    ];
    chart(&seconds_axes(points), &lines)
}

pub(super) fn lag_chart(points: &[Point]) -> String {
    // Nothing is due while the last answers are waited for.
    let due: Vec<Point> = points
        .iter()
        .filter(|point| point.part != Part::Drain)
        .copied()
        .collect();
    let lines = [over_time("lag p99", "c", &due, |point| {
        point.lag_p99_us as f64
    })];
    chart(&seconds_axes(points), &lines)
}

pub(super) fn in_flight_chart(points: &[Point]) -> String {
    let lines = [over_time("in flight", "a", points, |point| {
        point.in_flight as f64
    })];
    let axes = Axes {
        y_log: false,
        y_name: "requests in flight",
        y_shown: |value| grouped(value.round() as u64),
        ..seconds_axes(points)
    };
    chart(&axes, &lines)
}

pub(super) fn line(name: &str, class: &'static str, points: Vec<(f64, f64)>) -> Line {
    Line {
        name: name.into(),
        class,
        points,
    }
}

fn over_time(name: &str, class: &'static str, points: &[Point], value: fn(&Point) -> f64) -> Line {
    let points = points
        .iter()
        .map(|point| (point.second as f64, value(point)));
    line(name, class, points.collect())
}

pub(super) fn time_axes() -> Axes {
    Axes {
        x_marks: Vec::new(),
        x_name: "",
        shaded: Vec::new(),
        y_log: true,
        y_name: "latency",
        y_shown: |us| human_us(us.round() as u64).replace(".00", ""),
    }
}

/// The warm-up and the drain.
fn shaded(points: &[Point]) -> Vec<(f64, f64, &'static str)> {
    let of = |part: Part, name| {
        let mut seconds = points.iter().filter(|point| point.part == part);
        let first = seconds.next()?.second;
        let last = seconds.next_back().map_or(first, |point| point.second);
        // A point stands at the end of its second.
        Some((first as f64 - 1.0, last as f64, name))
    };
    let parts = [of(Part::Warmup, "warm-up"), of(Part::Drain, "drain")];
    parts.into_iter().flatten().collect()
}

fn seconds_axes(points: &[Point]) -> Axes {
    let step = points.len().div_ceil(10).max(1) as u64;
    let marks = points
        .iter()
        .map(|point| point.second)
        .filter(|second| second.is_multiple_of(step));
    Axes {
        x_marks: marks
            .map(|second| (second as f64, second.to_string()))
            .collect(),
        x_name: "seconds",
        shaded: shaded(points),
        ..time_axes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_has_the_values_that_the_tables_have() {
        // Small enough for the histogram to keep each value as it is.
        for count in [1_u64, 10, 99, 100, 1_000] {
            let mut latency_us = Histogram::new(3).expect("three digits");
            (1..=count).for_each(|us| latency_us.record(us).expect("it grows"));
            let points = points_of(&latency_us);
            for (place, us) in &points {
                let quantile = Quantile::of_share(1.0 - 10.0_f64.powf(-place));
                // The value of a rank is that rank.
                assert!(
                    (us - quantile.rank(count) as f64).abs() < 0.5,
                    "{place} of {count}: {us}"
                );
            }
            let at_90 = points[20].1;
            assert!(
                (at_90 - (count * 9).div_ceil(10) as f64).abs() < 0.5,
                "{count}: {at_90}"
            );
        }
    }
}
