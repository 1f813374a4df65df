//! One MGET or many GETs: what costs a server less.
//!
//! Enters: what it tells about itself. Leaves: a [`Fetch`]. Must not measure anything: a choice that followed the noise
//! of a start would make two runs differ that nobody changed. `benches/README.md` has the measurements.

use super::super::StoreStats;
use crate::config::Fetch;

/// Redis and Valkey execute commands on one thread, where each command has its own cost, and one MGET has it once.
/// Dragonfly parts the keys over its threads, and an MGET over several of them is a transaction that all have to agree
/// on; GETs of one connection are handed to the threads together, without one.
pub(super) fn cheaper(stats: &StoreStats) -> Fetch {
    match (&*stats.engine, stats.threads) {
        ("dragonfly", Some(2..)) => Fetch::Pipeline,
        _ => Fetch::Mget,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dragonfly_on_several_threads_is_asked_for_each_key() {
        let cases = [
            ("dragonfly", Some(1), Fetch::Mget),
            ("dragonfly", Some(2), Fetch::Pipeline),
            ("dragonfly", Some(16), Fetch::Pipeline),
            ("dragonfly", None, Fetch::Mget),
            ("redis", None, Fetch::Mget),
            ("valkey", Some(4), Fetch::Mget),
            ("unknown", None, Fetch::Mget),
        ];
        for (engine, threads, expected) in cases {
            let stats = StoreStats {
                engine: engine.into(),
                threads,
                ..StoreStats::default()
            };
            assert_eq!(cheaper(&stats), expected, "{engine} {threads:?}");
        }
    }
}
