//! What a store means by its refusals. Pure.
//!
//! Enters: the text of an error, in the words of Dragonfly, Redis or Valkey, or of fred for what never came to them.
//! Leaves: the [`StoreError`] that callers branch on. Must not guess: what is in no table is a refusal.

use super::super::StoreError;

/// What a refusal means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Not now: the same command may be done later, without anybody's doing here.
    Away,
    /// It reads its data, and answers when it is done.
    Loading,
    /// There is no room.
    Full,
    /// It wants another user or password.
    Login,
    /// Its access rules keep this user from this command or key.
    Permission,
    /// The keys are with other nodes: it was taken for a single server.
    Cluster,
    /// It is a single server: it was taken for a cluster.
    NoCluster,
    /// The key holds something else than a string.
    OtherKind,
}
use Meaning::{Away, Cluster, Full, Loading, Login, NoCluster, OtherKind, Permission};

/// The first word of an error, where it is a code.
const CODES: &[(&str, Meaning)] = &[
    ("LOADING", Loading),
    ("OOM", Full),
    // A script holds up all others.
    ("BUSY", Away),
    ("CLUSTERDOWN", Away),
    ("MASTERDOWN", Away),
    // Its snapshots fail, and until they succeed it takes no writes.
    ("MISCONF", Away),
    ("NOREPLICAS", Away),
    // A replica, most often the master that was.
    ("READONLY", Away),
    ("TRYAGAIN", Away),
    ("NOAUTH", Login),
    ("WRONGPASS", Login),
    ("NOPERM", Permission),
    ("ASK", Cluster),
    ("CROSSSLOT", Cluster),
    ("MOVED", Cluster),
    ("WRONGTYPE", OtherKind),
];

/// How an error goes on behind `ERR`, or begins where there is no code.
const PHRASES: &[(&str, Meaning)] = &[
    // Dragonfly.
    ("Out of memory", Full),
    ("Cluster is not yet configured", Away),
    ("max number of clients", Away),
    ("invalid password", Login),
    ("Cluster is disabled", NoCluster),
    // Redis: a password where it wants none.
    ("AUTH <password> called without any password", Login),
    ("Client sent AUTH, but no password is set", Login),
    ("This instance has cluster support disabled", NoCluster),
    // fred: commands that the loss of their connection caught on the way.
    ("channel closed", Away),
    ("Client is not", Away),
    ("Failed to", Away),
    ("Too many failed", Away),
];

const PASSWORD_COMES_FROM: &str =
    "set the password in the URL, in KVPOC_STORE_PASSWORD or by --store-password-file";

/// What a command said that a script gave: engines put the script and its line in front, some of them twice, or behind.
fn without_script(text: &str) -> &str {
    let text = text.split(" script: ").next().unwrap_or(text);
    if !(text.starts_with("ERR Error running script") || text.starts_with("ERR user_script:")) {
        return text;
    }
    let Some((_, said)) = text.rsplit_once("user_script:") else {
        return text;
    };
    let said = said
        .trim_start()
        .trim_start_matches(|c: char| c.is_ascii_digit());
    let said = said.trim_start_matches([':', ' ']);
    let said = said.strip_prefix('-').unwrap_or(said);
    if said.is_empty() { text } else { said }
}

fn meaning(text: &str) -> Option<Meaning> {
    let text = without_script(text);
    let find = |table: &[(&str, Meaning)], fits: &dyn Fn(&str) -> bool| {
        let found = table.iter().find(|(start, _)| fits(start));
        found.map(|&(_, meaning)| meaning)
    };
    let code = text.split([' ', ':']).next().unwrap_or_default();
    find(CODES, &|start| code == start).or_else(|| {
        let phrase = text.strip_prefix("ERR ").unwrap_or(text);
        find(PHRASES, &|start| phrase.starts_with(start))
    })
}

/// Whether the store still reads its data.
pub(super) fn is_loading(text: &str) -> bool {
    meaning(text) == Some(Loading)
}

/// Whether another server of the same keys may do what this one cannot just now.
pub(super) fn is_away_or_loading(text: &str) -> bool {
    matches!(meaning(text), Some(Away | Loading))
}

/// Whether the store wants another user or password; what to do about it stands in [`with_advice`].
pub(super) fn is_about_the_login(text: &str) -> bool {
    meaning(text) == Some(Login)
}

/// Whether this user may not do this.
pub(super) fn is_about_permission(text: &str) -> bool {
    meaning(text) == Some(Permission)
}

/// Whether the key holds something else than a string.
pub(super) fn is_of_another_kind(text: &str) -> bool {
    meaning(text) == Some(OtherKind)
}

/// Whether a node of a cluster was taken for a single server.
pub(super) fn is_of_a_cluster(text: &str) -> bool {
    meaning(text) == Some(Cluster)
}

/// Whether a single server was taken for a cluster.
pub(super) fn is_of_no_cluster(text: &str) -> bool {
    meaning(text) == Some(NoCluster)
}

/// A refusal of the login, and where another one would come from.
pub(super) fn with_advice(text: &str) -> String {
    format!("{text}; {PASSWORD_COMES_FROM}")
}

/// What a refusal means. In a cluster fred follows its nodes, so there none of them can be mistaken.
pub(super) fn error(text: String, is_cluster: bool) -> StoreError {
    let text = match without_script(&text) {
        said if said.len() < text.len() => said.to_owned(),
        _ => text,
    };
    match meaning(&text) {
        Some(Away) => StoreError::Unavailable(text),
        Some(Loading) => StoreError::Loading(text),
        Some(Full) => StoreError::Full(text),
        Some(Login) => StoreError::Refused(with_advice(&text)),
        Some(Permission) => StoreError::Refused(format!(
            "{text}; allow this in the access rules (ACL) of the store for the user of --store-user or the URL"
        )),
        Some(Cluster) if !is_cluster => StoreError::Refused(format!(
            "{text}; this is a node of a cluster: write redis-cluster instead of redis in the URL"
        )),
        Some(Cluster | NoCluster | OtherKind) | None => StoreError::Refused(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the engines' sources have them: Redis 7 and Valkey 9 in `server.c`, `acl.c` and `cluster.c`, Dragonfly 1.3x in
    /// `facade/error.h`, `facade/facade.cc` and `server/main_service.cc`.
    const SAID: &[(&str, &str, &str)] = &[
        (
            "redis",
            "LOADING Redis is loading the dataset in memory",
            "not ready",
        ),
        (
            "valkey",
            "LOADING Valkey is loading the dataset in memory",
            "not ready",
        ),
        (
            "dragonfly",
            "LOADING Dragonfly is loading the dataset in memory",
            "not ready",
        ),
        (
            "redis",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "full",
        ),
        ("dragonfly", "ERR Out of memory", "full"),
        ("dragonfly", "Out of memory", "full"),
        (
            "dragonfly",
            "ERR Error running script (call to 0577eb4c): @user_script:4: -ERR Out of memory",
            "full",
        ),
        (
            "dragonfly",
            "ERR Error running script (call to 0577eb4c): @user_script:2: -ERR script tried accessing undeclared key",
            "refused",
        ),
        (
            "redis",
            "READONLY You can't write against a read only replica.",
            "reached",
        ),
        (
            "dragonfly",
            "READONLY You can't write against a read only replica.",
            "reached",
        ),
        (
            "redis",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "reached",
        ),
        ("redis", "ERR max number of clients reached", "reached"),
        (
            "redis",
            "ERR max number of clients + cluster connections reached",
            "reached",
        ),
        ("dragonfly", "ERR max number of clients reached", "reached"),
        (
            "redis",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "reached",
        ),
        ("redis", "BUSY Redis is busy running a script.", "reached"),
        (
            "redis",
            "BUSYKEY Target key name already exists.",
            "refused",
        ),
        (
            "redis",
            "NOREPLICAS Not enough good replicas to write.",
            "reached",
        ),
        (
            "redis",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "reached",
        ),
        ("redis", "CLUSTERDOWN The cluster is down", "reached"),
        ("redis", "CLUSTERDOWN Hash slot not served", "reached"),
        ("dragonfly", "Cluster is not yet configured", "reached"),
        ("dragonfly", "ERR Cluster is not yet configured", "reached"),
        (
            "redis",
            "CROSSSLOT Keys in request don't hash to the same slot",
            "redis-cluster",
        ),
        (
            "dragonfly",
            "CROSSSLOT Keys in request don't hash to the same slot",
            "redis-cluster",
        ),
        ("redis", "MOVED 3999 127.0.0.1:6381", "redis-cluster"),
        ("redis", "ASK 3999 127.0.0.1:6381", "redis-cluster"),
        (
            "redis",
            "NOAUTH Authentication required.",
            "KVPOC_STORE_PASSWORD",
        ),
        (
            "redis",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "KVPOC_STORE_PASSWORD",
        ),
        (
            "redis",
            "ERR AUTH <password> called without any password configured for the default user.",
            "KVPOC_STORE_PASSWORD",
        ),
        (
            "redis",
            "NOPERM User reader has no permissions to run the 'set' command",
            "ACL",
        ),
        ("dragonfly", "NOPERM: reader has no ACL permissions", "ACL"),
        (
            "redis",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "refused",
        ),
        (
            "redis",
            "ERR unknown command 'FOO', with args beginning with: ",
            "refused",
        ),
        ("any", "", "refused"),
        ("fred", "Failed to connect", "reached"),
    ];

    #[test]
    fn each_engine_is_understood_in_its_own_words() {
        for (engine, text, expected) in SAID {
            let error = error((*text).to_owned(), false).to_string();
            assert!(error.contains(expected), "{engine}: {error}");
            assert!(error.contains(without_script(text)), "{engine}: {error}");
        }
    }

    /// What they say of a command that a script gave, and the command's own words in it.
    const SAID_OF_SCRIPTS: &[(&str, &str, &str, &str)] = &[
        (
            "dragonfly",
            "ERR Error running script (call to 0577eb4c): @user_script:4: -ERR Out of memory",
            "ERR Out of memory",
            "full",
        ),
        (
            "dragonfly",
            "ERR Error running script (call to 0577eb4c): @user_script:2: Out of memory",
            "Out of memory",
            "full",
        ),
        (
            "redis 6",
            "ERR Error running script (call to f_0577eb4c): @user_script:3: @user_script: 3: -OOM command not \
             allowed when used memory > 'maxmemory'.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "full",
        ),
        (
            "redis",
            "ERR user_script:1: OOM command not allowed when used memory > 'maxmemory'. script: 0577eb4c, on \
             @user_script:1.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "full",
        ),
        (
            "redis",
            "OOM command not allowed when used memory > 'maxmemory'. script: 0577eb4c, on @user_script:3.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "full",
        ),
        (
            "redis 6",
            "ERR Error running script (call to f_0577eb4c): @user_script:1: -READONLY You can't write against a \
             read only replica.",
            "READONLY You can't write against a read only replica.",
            "reached",
        ),
        (
            "dragonfly",
            "ERR Error running script (call to 0577eb4c): @user_script:2: -WRONGTYPE Operation against a key \
             holding the wrong kind of value",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "refused",
        ),
        (
            "any",
            "ERR Error running script (call to 0577eb4c): @user_script:2:",
            "@user_script:2:",
            "refused",
        ),
    ];

    #[test]
    fn what_a_script_met_is_understood_and_shown_as_of_a_command() {
        for (engine, text, said, expected) in SAID_OF_SCRIPTS {
            let error = error((*text).to_owned(), false).to_string();
            assert!(error.contains(expected), "{engine}: {error}");
            assert!(error.ends_with(said), "{engine}: {error}");
            let is_of_another_kind = is_of_another_kind(text);
            assert_eq!(is_of_another_kind, said.starts_with("WRONGTYPE"), "{text}");
        }
    }

    #[test]
    fn a_node_of_a_cluster_is_only_mistaken_where_no_cluster_is_expected() {
        let text = "CROSSSLOT Keys in request don't hash to the same slot";
        assert!(is_of_a_cluster(text));
        let error = error(text.to_owned(), true).to_string();
        assert!(!error.contains("redis-cluster"), "{error}");
    }
}
