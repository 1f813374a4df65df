//! Durations as a person reads them.
//!
//! Enters: a duration. Leaves: text. Pure. Must not be read back: what is typed has a form of its own.

use std::time::Duration;

/// A duration as a person reads it, to three digits: `250 ms`, `11 s`, `2.5 s`, `1 min 30 s`, `2 h`.
#[must_use]
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    // As many decimals as three digits leave, and no zeros at their end.
    let shown = |value: f64, unit: &str| {
        let decimals = if value < 9.995 {
            2
        } else {
            usize::from(value < 99.95)
        };
        let text = format!("{value:.decimals$}");
        let text = if decimals == 0 {
            &text
        } else {
            text.trim_end_matches('0').trim_end_matches('.')
        };
        format!("{text} {unit}")
    };
    let parts = |whole: u64, of: u64, unit: &str, small: &str| match whole % of {
        0 => format!("{} {unit}", whole / of),
        rest => format!("{} {unit} {rest} {small}", whole / of),
    };
    match seconds {
        ..0.000_999_5 => shown(seconds * 1e6, "µs"),
        ..0.999_5 => shown(seconds * 1e3, "ms"),
        ..59.95 => shown(seconds, "s"),
        ..3_599.5 => parts(seconds.round() as u64, 60, "min", "s"),
        _ => parts((seconds / 60.0).round() as u64, 60, "h", "min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_to_three_digits() {
        for (nanoseconds, expected) in [
            (0, "0 µs"),
            (100_000, "100 µs"),
            (999_999, "1 ms"),
            (33_333_333, "33.3 ms"),
            (250_000_000, "250 ms"),
            (999_999_999, "1 s"),
            (1_500_000_000, "1.5 s"),
            (10_999_999_998, "11 s"),
            (30_000_000_000, "30 s"),
            (59_990_000_000, "1 min"),
            (90_000_000_000, "1 min 30 s"),
            (3_599_999_999_999, "1 h"),
            (5_400_000_000_000, "1 h 30 min"),
        ] {
            let shown = human_duration(Duration::from_nanos(nanoseconds));
            assert_eq!(shown, expected, "{nanoseconds}");
        }
    }
}
