//! When a run began by the clock of its target. Pure.
//!
//! Enters: the `Date` of answers, which has whole seconds (RFC 9110, 6.6.1), and the moments of the run between which each
//! was written. Leaves: a [`StartByTarget`], narrower with every answer. Must not trust the clock of this host, which may
//! be wrong by any time: moments of the run are counted from its start.

/// Between these moments the schedule began, in milliseconds of the Unix epoch as the target counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StartByTarget {
    earliest_ms: u64,
    latest_ms: u64,
}

impl StartByTarget {
    /// By one answer: dated `date_s`, to a request of `sent_ns` after the start, here at `received_ns`.
    #[must_use]
    pub fn of(date_s: u64, sent_ns: u64, received_ns: u64) -> Self {
        let second_ms = date_s.saturating_mul(1_000);
        let earliest_ms = second_ms.saturating_sub(received_ns.div_ceil(1_000_000));
        let next_second_ms = second_ms.saturating_add(1_000);
        Self {
            earliest_ms,
            latest_ms: next_second_ms
                .saturating_sub(sent_ns / 1_000_000)
                .max(earliest_ms),
        }
    }

    /// What both allow. A target that keeps a `Date` for a while may contradict itself: then what lies between.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let earliest_ms = self.earliest_ms.max(other.earliest_ms);
        let latest_ms = self.latest_ms.min(other.latest_ms);
        Self {
            earliest_ms: earliest_ms.min(latest_ms),
            latest_ms: earliest_ms.max(latest_ms),
        }
    }

    /// So long after one another some of these began, at the least; in milliseconds.
    #[must_use]
    pub fn least_spread_ms(starts: &[Self]) -> u64 {
        let last = starts.iter().map(|start| start.earliest_ms).max();
        let first = starts.iter().map(|start| start.latest_ms).min();
        last.unwrap_or(0).saturating_sub(first.unwrap_or(0))
    }
}

/// What two threads, or none, found.
#[must_use]
pub fn both(one: Option<StartByTarget>, other: Option<StartByTarget>) -> Option<StartByTarget> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.and(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// By answers of a target whose clock is `ahead_ms` ahead of the true time, to a run that began at `start_ms`.
    fn found(start_ms: u64, ahead_ms: u64) -> StartByTarget {
        let answers = (0..40).map(|number| {
            let (sent_ns, received_ns) = (number * S / 7, number * S / 7 + S / 100);
            let written_ms = start_ms + ahead_ms + (sent_ns + S / 200) / 1_000_000;
            StartByTarget::of(written_ms / 1_000, sent_ns, received_ns)
        });
        answers.reduce(StartByTarget::and).expect("answers")
    }

    #[test]
    fn many_answers_tell_the_start_closer_than_a_second() {
        for ahead_ms in [0, 10_000, 10_777] {
            let start = found(1_000_400, ahead_ms);
            let truth = 1_000_400 + ahead_ms;
            assert!(start.earliest_ms <= truth && truth <= start.latest_ms);
            assert!(start.latest_ms - start.earliest_ms < 250, "{start:?}");
        }
    }

    #[test]
    fn only_what_is_certain_counts_as_a_spread() {
        for (starts, least, most) in [
            (vec![], 0, 0),
            (vec![found(5_000, 0)], 0, 0),
            (vec![found(5_000, 0), found(5_000, 0)], 0, 0),
            (vec![found(5_000, 0), found(15_000, 0)], 9_500, 10_000),
            (vec![found(15_000, 0), found(5_000, 0)], 9_500, 10_000),
            // One answer says no more than the second.
            (
                vec![StartByTarget::of(5, 0, 0), StartByTarget::of(6, 0, 0)],
                0,
                0,
            ),
        ] {
            let spread = StartByTarget::least_spread_ms(&starts);
            assert!((least..=most).contains(&spread), "{spread}: {starts:?}");
        }
    }

    #[test]
    fn no_date_makes_it_panic() {
        let extremes = [0, 1, u64::MAX / 2, u64::MAX];
        for date_s in extremes {
            for sent_ns in extremes {
                for received_ns in extremes {
                    let start = StartByTarget::of(date_s, sent_ns, received_ns);
                    let both = start.and(StartByTarget::of(7, 0, 0));
                    let _ = StartByTarget::least_spread_ms(&[start, both]);
                }
            }
        }
    }
}
