//! Commands that messages give: such that they work as they stand, for this store and this dataset.
//!
//! Enters: the settings of a run. Leaves: command lines for a shell. Must not print a password: where one is needed,
//! a variable stands for it.

use std::fmt::Write as _;
use std::path::Path;

use crate::config::{SeedConfig, StoreConfig, StoreUrl, Topology};
use crate::random::Order;

/// What the program takes when nothing is said.
const DEFAULTS: [(&str, &str); 5] = [
    ("--format", "record"),
    ("--value-size", "256"),
    ("--key-prefix", "user:session:"),
    ("--seed", "1"),
    ("--store", "redis://127.0.0.1:6379"),
];

/// The load of the same dataset, gone on with; what expires can only be loaded anew.
pub(super) fn resume(config: &SeedConfig, more: &[&str]) -> String {
    let dataset = &config.dataset;
    let mut text = match &config.source {
        Some(source) => {
            let (file, key) = (source.path().display(), source.template());
            let [file, key] = [quoted(&file.to_string()), quoted(&key.to_string())];
            format!("kvpoc seed --from {file} --key {key}")
        }
        None => format!("kvpoc seed --keys {}", config.keys.get()),
    };
    let mut put = |flag: &str, value: String| {
        if !DEFAULTS.contains(&(flag, &*value)) {
            let _ = write!(text, " {flag} {}", quoted(&value));
        }
    };
    if config.source.is_none() {
        put("--format", dataset.format.to_string());
        put("--value-size", dataset.value_size.to_string());
        put("--key-prefix", dataset.key_prefix.clone());
    }
    put("--seed", dataset.seed.to_string());
    if let Some(rate) = config.rate {
        put("--rate", rate.to_string());
    }
    if let Some(ttl) = config.ttl {
        put("--ttl", humantime::format_duration(ttl).to_string());
        if config.ttl_jitter > 0.0 {
            put("--ttl-jitter", config.ttl_jitter.to_string());
        }
    }
    put_store(&config.store, &mut put);
    if config.order != Order::Ascending {
        text += " --shuffle";
    }
    if config.ttl.is_none() {
        text += " --resume";
    }
    for flag in more {
        let _ = write!(text, " {flag}");
    }
    secrets(&config.store) + &text
}

fn put_store(config: &StoreConfig, put: &mut impl FnMut(&str, String)) {
    let mut url = config.url.to_string();
    if let StoreUrl::Tcp(servers) = &config.url
        && let Some(database) = servers.database
    {
        let _ = write!(url, "/{database}");
    }
    put("--store", url);
    let users = [
        ("--store-user", &config.login.user),
        ("--sentinel-user", &config.sentinel_login.user),
    ];
    for (flag, user) in users {
        if let Some(user) = user {
            put(flag, user.clone());
        }
    }
    let (certificate, key) = config.tls.identity.clone().unzip();
    let files = [
        ("--store-tls-ca", &config.tls.ca),
        ("--store-tls-cert", &certificate),
        ("--store-tls-key", &key),
    ];
    for (flag, file) in files {
        if let Some(file) = file {
            put(flag, file.display().to_string());
        }
    }
}

/// Variables that stand for the passwords which this run was given.
fn secrets(config: &StoreConfig) -> String {
    let logins = [
        ("KVPOC_STORE_PASSWORD=… ", &config.login),
        ("KVPOC_SENTINEL_PASSWORD=… ", &config.sentinel_login),
    ];
    let needed = logins
        .iter()
        .filter(|(_, login)| login.password.is_some())
        .map(|(text, _)| *text);
    needed.collect()
}

/// How to be without the keys that begin so, or without all.
pub(super) fn removal(config: &StoreConfig, prefix: &str) -> String {
    let servers = match &config.url {
        StoreUrl::Embedded(folder) => return format!("remove the folder {}", folder.display()),
        StoreUrl::Unix(_) => None,
        StoreUrl::Tcp(servers) => Some(servers),
    };
    let cli = redis_cli(config);
    if servers.is_some_and(|servers| servers.topology == Topology::Cluster) {
        return format!(
            "empty the store: run FLUSHDB on each of its masters, on the first by {cli} FLUSHDB"
        );
    }
    let pattern = quoted(&format!("{prefix}*"));
    format!(
        "empty the store: {cli} FLUSHDB, or remove only these keys: {cli} --scan --pattern {pattern} | xargs -n 1000 {cli} UNLINK"
    )
}

/// redis-cli with what it needs for this store.
fn redis_cli(config: &StoreConfig) -> String {
    let mut text = "redis-cli".to_owned();
    let mut put = |flag: &str, value: &str| {
        let _ = write!(text, " {flag} {}", quoted(value));
    };
    let shown = |file: &Path| file.display().to_string();
    match &config.url {
        StoreUrl::Embedded(_) => {}
        StoreUrl::Unix(path) => put("-s", &shown(path)),
        StoreUrl::Tcp(servers) => {
            if let Topology::Sentinel { .. } = servers.topology {
                // Its sentinels know which one that is.
                put("-h", "MASTER");
            } else if let Some(node) = servers.nodes.first() {
                put("-h", &node.host);
                put("-p", &node.port.to_string());
            }
            if let Some(database) = servers.database {
                put("-n", &database.to_string());
            }
        }
    }
    if let Some(user) = &config.login.user {
        put("--user", user);
    }
    if let Some(ca) = &config.tls.ca {
        put("--cacert", &shown(ca));
    }
    if let Some((certificate, key)) = &config.tls.identity {
        put("--cert", &shown(certificate));
        put("--key", &shown(key));
    }
    if matches!(&config.url, StoreUrl::Tcp(servers) if servers.tls) {
        text += " --tls";
    }
    if config.login.password.is_some() {
        // Before each, as a pipe has two; `env` because xargs runs it too.
        text.insert_str(0, "env REDISCLI_AUTH=… ");
    }
    text
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,@%+=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Job};

    fn config(line: &str) -> SeedConfig {
        let words: Vec<_> = line.split(' ').map(Into::into).collect();
        match config::load(&words) {
            Ok(Job::Seed(config)) => config,
            other => panic!("{line}: {:?}", other.err()),
        }
    }

    #[test]
    fn a_load_is_gone_on_with_by_what_was_given_but_for_secrets() {
        for (line, expected) in [
            (
                "kvpoc seed --keys 2M --batch 9",
                "kvpoc seed --keys 2000000 --resume --verify",
            ),
            (
                "kvpoc seed --keys 5 --format raw --value-size 100..200 --key-prefix it's: --seed 7 --shuffle --rate 5k",
                "kvpoc seed --keys 5 --format raw --value-size 100..200 --key-prefix 'it'\\''s:' --seed 7 --rate 5000 --shuffle \
                 --resume --verify",
            ),
            (
                "kvpoc seed --keys 5 --ttl 90s --store unix:/run/x.sock",
                "kvpoc seed --keys 5 --ttl '1m 30s' --store unix:/run/x.sock --verify",
            ),
            (
                "kvpoc seed --keys 5 --store rediss://me:secret@h:7000/3 --store-tls-ca ca.pem",
                "KVPOC_STORE_PASSWORD=… kvpoc seed --keys 5 --store rediss://h:7000/3 --store-user me --store-tls-ca \
                 ca.pem --resume --verify",
            ),
        ] {
            assert_eq!(resume(&config(line), &["--verify"]), expected);
        }
    }

    #[test]
    fn keys_are_removed_from_the_store_that_was_given() {
        for (store, cli) in [
            ("redis://127.0.0.1", "redis-cli -h 127.0.0.1 -p 6379"),
            ("redis://[::1]:7000/3", "redis-cli -h ::1 -p 7000 -n 3"),
            ("unix:/run/x.sock", "redis-cli -s /run/x.sock"),
            ("redis-sentinel://a/mine", "redis-cli -h MASTER"),
            (
                "rediss://me:secret@h",
                "env REDISCLI_AUTH=… redis-cli -h h -p 6379 --user me --tls",
            ),
        ] {
            let config = config(&format!("kvpoc seed --store {store}"));
            let expected = format!(
                "empty the store: {cli} FLUSHDB, or remove only these keys: {cli} --scan --pattern 'it'\\''s:*' | xargs -n \
                 1000 {cli} UNLINK"
            );
            assert_eq!(removal(&config.store, "it's:"), expected);
        }
    }
}
