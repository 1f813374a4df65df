//! Line charts as inline SVG. Pure.
//!
//! Enters: named lines of points. Leaves: an `<svg>` that scales with its column and takes its colours from
//! the page. Must not need a script.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;

/// One line of a chart.
pub(super) struct Line {
    pub(super) name: String,
    /// Class of the page's style, which gives the colour.
    pub(super) class: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

/// What the axes look like.
pub(super) struct Axes {
    /// Names and places of the marks below.
    pub(super) x_marks: Vec<(f64, String)>,
    pub(super) x_name: &'static str,
    /// Stretches of the horizontal axis that stand apart, and what they are.
    pub(super) shaded: Vec<(f64, f64, &'static str)>,
    /// Values grow tenfold from mark to mark instead of evenly.
    pub(super) y_log: bool,
    pub(super) y_name: &'static str,
    pub(super) y_shown: fn(f64) -> String,
}

/// Draws the lines over common axes; nothing to draw gives an empty frame.
pub(super) fn chart(axes: &Axes, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let shade_ends = axes.shaded.iter().map(|shade| shade.1);
    let x_max = all()
        .map(|point| point.0)
        .chain(shade_ends)
        .fold(1e-9, f64::max);
    let x_min = all().map(|point| point.0).fold(x_max, f64::min);
    // Even marks are counts, for the most part, and whole from here on.
    let least_top = if axes.y_log { 1.0 } else { 4.0 };
    let y_max = all().map(|point| point.1).fold(least_top, f64::max);
    let y_min = if axes.y_log { 1.0 } else { 0.0 };
    let y_marks = if axes.y_log {
        log_marks(y_max)
    } else {
        even_marks(y_max)
    };
    let top = y_marks.last().copied().unwrap_or(1.0);
    let x_at = |x: f64| LEFT + (x - x_min) / (x_max - x_min).max(1e-9) * (WIDTH - LEFT - RIGHT);
    let y_at = |y: f64| {
        let share = if axes.y_log {
            y.max(y_min).log10() / top.log10().max(1e-9)
        } else {
            y / top
        };
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} over {}\">",
        axes.y_name, axes.x_name
    );
    for &(from, to, name) in &axes.shaded {
        let (from, to) = (x_at(from.max(x_min)), x_at(to.min(x_max)));
        let _ = write!(
            svg,
            "<rect class=\"shade\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"><title>{name}</title></rect>\
             <text x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
            (to - from).max(0.0),
            HEIGHT - TOP - BOTTOM,
            from + 3.0,
            TOP + 11.0,
        );
    }
    for &mark in &y_marks {
        let (y, shown) = (y_at(mark), (axes.y_shown)(mark));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{shown}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
        );
    }
    for (place, name) in axes
        .x_marks
        .iter()
        .filter(|(place, _)| (x_min..=x_max).contains(place))
    {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            x_at(*place),
            HEIGHT - BOTTOM + 16.0,
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
        WIDTH - RIGHT,
        HEIGHT - 4.0,
        axes.x_name
    );
    for line in lines.iter().filter(|line| !line.points.is_empty()) {
        let points = line
            .points
            .iter()
            .fold(String::new(), |mut points, &(x, y)| {
                let _ = write!(points, "{:.1},{:.1} ", x_at(x), y_at(y));
                points
            });
        let _ = write!(
            svg,
            "<polyline class=\"{}\" points=\"{}\"><title>{}</title></polyline>",
            line.class,
            points.trim_end(),
            line.name
        );
    }
    svg.push_str("</svg><p class=\"legend\">");
    for line in lines {
        let _ = write!(svg, "<span class=\"{}\">{}</span> ", line.class, line.name);
    }
    svg.push_str("</p>");
    svg
}

/// About five round marks from 0 to at least `max`.
pub(super) fn even_marks(max: f64) -> Vec<f64> {
    let raw = max / 4.0;
    let magnitude = 10.0_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * magnitude)
        .find(|&step| step >= raw)
        .unwrap_or(raw);
    let count = (max / step).ceil() as u32;
    (0..=count).map(|mark| f64::from(mark) * step).collect()
}

/// Powers of ten from 1 to at least `max`.
fn log_marks(max: f64) -> Vec<f64> {
    let last = max.log10().ceil().max(1.0) as i32;
    (0..=last).map(|power| 10.0_f64.powi(power)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_reach_the_top() {
        assert_eq!(
            even_marks(20_000.0),
            [0.0, 5_000.0, 10_000.0, 15_000.0, 20_000.0]
        );
        assert!(even_marks(21_000.0).last() >= Some(&21_000.0));
        assert_eq!(log_marks(350.0), [1.0, 10.0, 100.0, 1_000.0]);
        assert_eq!(log_marks(1.0), [1.0, 10.0]);
    }

    #[test]
    fn a_chart_holds_every_point_inside_its_frame_and_survives_having_none() {
        let axes = Axes {
            x_marks: vec![(1.0, "1".into())],
            x_name: "s",
            shaded: vec![(1.0, 1.5, "warm-up")],
            y_log: false,
            y_name: "requests/s",
            y_shown: |value| value.to_string(),
        };
        let line = |points| Line {
            name: "rate".into(),
            class: "a",
            points,
        };
        let svg = chart(&axes, &[line(vec![(1.0, 0.0), (2.0, 100.0)])]);
        assert!(svg.contains("points=\"64.0,206.0 628.0,12.0\""), "{svg}");
        assert!(svg.contains("<rect class=\"shade\" x=\"64.0\""), "{svg}");
        assert!(chart(&axes, &[line(vec![])]).contains("</svg>"));
        assert!(!chart(&axes, &[line(vec![(5.0, 5.0)])]).contains("NaN"));
    }
}
