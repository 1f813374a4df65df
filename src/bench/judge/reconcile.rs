//! The store's own counters beside what was asked of it. Pure.
//!
//! Enters: counters before and after a run. Leaves: [`Books`]. Must not forgive a store that counted less than was
//! answered, since somebody else gave those answers, nor one whose counters are gone: it may have been another one.

use std::fmt;

use crate::units::grouped;

/// Differences below this share are not worth a word.
const NOTABLE: f64 = 0.001;
/// Nor are those that serve causes itself: a few commands for its statistics, once a second.
const OWN_PER_SECOND: f64 = 8.0;

/// The store's own counters over the whole run, warm-up included, against what good answers stand for. More is
/// counted where others use the store, where answers failed on the way back, and by the server itself.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Reconciliation {
    /// Keys that good answers read.
    pub keys_asked: u64,
    /// Of them, those that stood in the same request before, which a server may have asked for once.
    pub keys_repeated: u64,
    /// `keyspace_hits` and `keyspace_misses`.
    pub keys_counted: u64,
    /// Commands behind good answers.
    pub commands_asked: u64,
    /// `total_commands_processed`.
    pub commands_counted: u64,
    /// Fewer were counted than asked for, by more than 0.1 %: the answers did not come from this store.
    pub counted_less: bool,
    /// More were counted, by more than 0.1 % and than serve itself explains: other clients were at work.
    pub others_at_work: bool,
}

/// A counter that was told before the run, and that nothing can be held against after it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LostCounter {
    /// `key_reads` or `commands_processed`, as `GET /stats` calls them.
    pub name: String,
    /// Its value before the run.
    pub before: u64,
    /// And after it; `null` when it was not told any more.
    pub after: Option<u64>,
}

/// Without its stop.
impl fmt::Display for LostCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            before,
            after,
        } = self;
        write!(f, "{name} was {} before the run and ", grouped(*before))?;
        match after {
            Some(after) => write!(f, "is {} after it", grouped(*after)),
            None => f.write_str("is missing after it"),
        }
    }
}

/// What a store counted between two looks at one of its counters; `None` when it did not tell in the first place.
///
/// # Errors
/// When it told before, and afterwards does not, or tells less: it is not the store that was there before, or was reset.
pub fn counted(
    name: &str,
    before: Option<u64>,
    after: Option<u64>,
) -> Result<Option<u64>, LostCounter> {
    let Some(before) = before else {
        return Ok(None);
    };
    let counted = after.and_then(|after| after.checked_sub(before));
    counted.map(Some).ok_or_else(|| LostCounter {
        name: name.into(),
        before,
        after,
    })
}

/// What the store's counters say of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Books {
    /// It does not tell them.
    Untold,
    /// It told them before the run, and not, or less, after it.
    Lost(LostCounter),
    /// It told them both times.
    Told(Reconciliation),
}

impl Reconciliation {
    /// Compares asked and counted, first keys and then commands, of a run of so many seconds; `repeated` keys, and the
    /// commands of a server that sends one for each, may not have been asked for.
    #[must_use]
    pub fn of(keys: (u64, u64), commands: (u64, u64), repeated: u64, seconds: f64) -> Self {
        let own = OWN_PER_SECOND * (seconds + 1.0);
        let less = |(asked, counted): (u64, u64)| {
            let least = asked.saturating_sub(repeated);
            (counted as f64) < least as f64 * (1.0 - NOTABLE)
        };
        let more = |(asked, counted): (u64, u64)| {
            counted as f64 > (asked as f64 * (1.0 + NOTABLE)).max(asked as f64 + own)
        };
        Self {
            keys_asked: keys.0,
            keys_repeated: repeated,
            keys_counted: keys.1,
            commands_asked: commands.0,
            commands_counted: commands.1,
            counted_less: less(keys) || less(commands),
            others_at_work: more(keys) || more(commands),
        }
    }

    /// The same of one generator of several, which cannot know what the others asked for.
    #[must_use]
    pub fn of_one_of_several(self) -> Self {
        Self {
            others_at_work: false,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_ask_for_repeated_keys_once() {
        let found = Reconciliation::of((100_000, 98_000), (7_000, 7_000), 2_000, 10.0);
        assert!(!found.counted_less && !found.others_at_work, "{found:?}");
        let found = Reconciliation::of((100_000, 97_000), (7_000, 7_000), 2_000, 10.0);
        assert!(found.counted_less, "{found:?}");
    }

    #[test]
    fn counters_that_are_gone_or_run_backwards_are_lost() {
        for (before, after, expected) in [
            (None, None, Ok(None)),
            (None, Some(5), Ok(None)),
            (Some(5), Some(5), Ok(Some(0))),
            (Some(5), Some(12), Ok(Some(7))),
            (Some(5_000), None, Err("is missing after it")),
            (Some(5_000), Some(12), Err("is 12 after it")),
        ] {
            let found = counted("key_reads", before, after).map_err(|lost| lost.to_string());
            let expected = expected
                .map_err(|rest: &str| format!("key_reads was 5,000 before the run and {rest}"));
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn less_is_never_explained_and_more_only_by_the_server_itself() {
        for (keys, commands, less, more) in [
            ((1_000_000, 1_000_000), (1_000_000, 1_000_500), false, false),
            ((1_000_000, 1_000_000), (1_000_000, 1_002_000), false, true),
            ((1_000_000, 999_500), (1_000_000, 1_000_000), false, false),
            ((1_000_000, 900_000), (1_000_000, 1_000_000), true, false),
            ((1_000_000, 1_000_000), (1_000_000, 998_000), true, false),
            ((13_500, 0), (900, 0), true, false),
            // A few commands of a short run are more than 0.1 %, and are serve's own.
            ((100, 110), (100, 150), false, false),
            ((0, 0), (0, 0), false, false),
        ] {
            let found = Reconciliation::of(keys, commands, 0, 10.0);
            assert_eq!(
                (found.counted_less, found.others_at_work),
                (less, more),
                "{found:?}"
            );
        }
    }
}
