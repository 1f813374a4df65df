//! What the rest of a load will take, after its first keys.
//!
//! Enters: two looks at the store, and what was loaded between them. Leaves: bytes and seconds, or that it will not
//! fit. Must not guess where the store does not tell.

use super::load::Load;
use crate::store::StoreStats;
use crate::units::human_bytes;

/// What the rest of a load will take, after what its first keys took.
pub(super) struct Estimate {
    more_bytes: u64,
    used_bytes: Option<u64>,
    limit_bytes: Option<u64>,
    more_seconds: f64,
}

impl Estimate {
    /// For `more_keys` like those of `sample`, which lies between the two looks at the store. `None` when most of
    /// the sample was there before: what is written over takes no more room, and tells nothing of the rest.
    pub(super) fn of(
        before: &StoreStats,
        after: &StoreStats,
        sample: &Load,
        more_keys: u64,
    ) -> Option<Self> {
        let new_keys = after.keys.saturating_sub(before.keys);
        if new_keys < sample.keys / 2 {
            return None;
        }
        let grown = after.memory_bytes?.saturating_sub(before.memory_bytes?);
        Some(Self {
            more_bytes: (grown as f64 / new_keys as f64 * more_keys as f64) as u64,
            used_bytes: after.memory_bytes,
            limit_bytes: after.max_memory_bytes,
            more_seconds: sample.elapsed.as_secs_f64() * more_keys as f64 / sample.keys as f64,
        })
    }

    /// Why the rest will not fit, if it will not.
    pub(super) fn shortage(&self) -> Option<String> {
        let needed = self.used_bytes? + self.more_bytes;
        let limit = self.limit_bytes.filter(|&limit| needed > limit)?;
        Some(format!(
            "all keys would need about {}, but the limit of the store is {}: load fewer --keys or a smaller \
             --value-size, raise the limit, or load anyway with --force",
            human_bytes(needed),
            human_bytes(limit)
        ))
    }
}

impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.more_seconds;
        write!(
            f,
            "After the first keys: about {} more, in about {seconds:.0} s",
            human_bytes(self.more_bytes)
        )
    }
}
