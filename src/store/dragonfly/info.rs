//! What INFO says.
//!
//! Enters: its text, of one server or of each of a cluster. Leaves: [`StoreStats`]. Must not fail: what is missing
//! is not told.

use super::super::StoreStats;

/// Reads INFO leniently: engines differ in sections and fields, so each is looked up by name or missing.
pub(super) fn parse(info: &str, keys: u64) -> StoreStats {
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    let number = |name| field(name).and_then(|text| text.parse::<u64>().ok());
    let (engine, version) = [
        ("dragonfly", "dragonfly_version"),
        ("valkey", "valkey_version"),
        ("redis", "redis_version"),
    ]
    .into_iter()
    .find_map(|(engine, name)| Some((engine, field(name)?)))
    .map_or(("unknown", None), |(engine, version)| {
        (engine, Some(version.trim_start_matches("df-").to_owned()))
    });
    let (hits, misses) = (number("keyspace_hits"), number("keyspace_misses"));
    StoreStats {
        engine: engine.into(),
        version,
        keys,
        memory_bytes: number("used_memory"),
        max_memory_bytes: number("maxmemory").filter(|&bytes| bytes > 0),
        commands_processed: number("total_commands_processed"),
        commands_per_second: number("instantaneous_ops_per_sec"),
        key_reads: hits.zip(misses).map(|(hits, misses)| hits + misses),
        // Only Dragonfly tells; the others execute on one.
        threads: number("thread_count"),
        evicted_keys: number("evicted_keys"),
        eviction_policy: field("maxmemory_policy").map(str::to_owned),
        // Dragonfly has no `run_id`; what it draws at its start is what its replicas know it by.
        incarnation: field("run_id")
            .or_else(|| field("master_replid"))
            .map(str::to_owned),
    }
}

pub(super) fn is_of_dragonfly(info: &str) -> bool {
    info.lines()
        .any(|line| line.starts_with("dragonfly_version:"))
}

/// Of two masters of one cluster: what can be added is, and what only one tells is not known of both.
pub(super) fn sum(one: StoreStats, other: &StoreStats) -> StoreStats {
    let add = |one: Option<u64>, other: Option<u64>| one.zip(other).map(|(one, other)| one + other);
    StoreStats {
        keys: one.keys + other.keys,
        memory_bytes: add(one.memory_bytes, other.memory_bytes),
        max_memory_bytes: add(one.max_memory_bytes, other.max_memory_bytes),
        commands_processed: add(one.commands_processed, other.commands_processed),
        commands_per_second: add(one.commands_per_second, other.commands_per_second),
        key_reads: add(one.key_reads, other.key_reads),
        threads: add(one.threads, other.threads),
        evicted_keys: add(one.evicted_keys, other.evicted_keys),
        incarnation: one
            .incarnation
            .zip(other.incarnation.as_deref())
            .map(|(one, other)| one + other),
        ..one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read_leniently_whatever_the_engine() {
        let redis = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nused_memory:100\r\nmaxmemory:0\r\n\
                     # Stats\r\ntotal_commands_processed:7\r\nkeyspace_hits:3\r\nkeyspace_misses:1\r\nevicted_keys:2\r\nmaxmemory_policy:allkeys-lru\r\n";
        let stats = parse(redis, 5);
        assert_eq!(stats.evicted_keys, Some(2));
        assert_eq!(stats.eviction_policy.as_deref(), Some("allkeys-lru"));
        assert_eq!(stats.engine, "redis");
        assert_eq!(stats.version.as_deref(), Some("7.0.15"));
        assert_eq!((stats.keys, stats.memory_bytes), (5, Some(100)));
        assert_eq!((stats.max_memory_bytes, stats.key_reads), (None, Some(4)));

        let dragonfly = "redis_version:7.2.0\r\ndragonfly_version:df-v1.34.2\r\nused_memory:x\r\n\
                         thread_count:4\r\nmaster_replid:ab\r\n";
        let stats = parse(dragonfly, 0);
        assert_eq!(stats.incarnation.as_deref(), Some("ab"));
        assert_eq!((&*stats.engine, stats.threads), ("dragonfly", Some(4)));
        assert_eq!(stats.version.as_deref(), Some("v1.34.2"));
        assert_eq!((stats.memory_bytes, stats.key_reads), (None, None));

        assert_eq!(parse("", 0).engine, "unknown");
    }

    #[test]
    fn the_masters_of_a_cluster_are_added_up() {
        let text = "redis_version:7.0.15\r\nrun_id:a\r\nused_memory:100\r\nkeyspace_hits:3\r\nkeyspace_misses:1\r\n";
        let one = parse(text, 5);
        let both = sum(one.clone(), &one);
        assert_eq!(
            (both.keys, both.memory_bytes, both.key_reads),
            (10, Some(200), Some(8))
        );
        assert_eq!((&*both.engine, both.threads), ("redis", None));
        assert_eq!(both.incarnation.as_deref(), Some("aa"));
        assert_eq!(sum(one, &parse("", 2)).memory_bytes, None);
    }
}
