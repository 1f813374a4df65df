//! kvpoc measures whether an HTTP service over `DragonflyDB` holds a given load, such as 20,000 requests/s and
//! 300,000 key operations/s on 10 million keys.
//!
//! # The four flows
//! - **seed**: plan → batch of indexes → records in one buffer → `Store::put_batch` → progress, summary.
//! - **serve**: request → route → `Store::get_many` → reply.
//! - **bench**: `Schedule::due_ns(n)` → connection → sample → tally → verdict → report.
//! - **inspect**: key → `Store::describe` → text or JSON.
//!
//! # The layers
//! `main` → the commands ([`seed`], [`serve`], [`mod@bench`], [`inspect`]) → [`store`] → [`config`] → [`cli`].
//! Imports point this way only, and commands never import each other. [`record`], [`random`], [`load`] and
//! [`units`] know nothing of the network, the clock or the command line; [`tls`] reads certificates, for whoever connects.
//!
//! # Words
//! A **key operation** is one key read or written; a **command** is one message to the store: an MGET of 15
//! keys is 1 command and 15 key operations. An **arrival** is due at a moment that the schedule fixed before
//! the run; its **latency** runs from that moment, whatever held it up.

pub mod bench;
pub mod cli;
pub mod config;
pub mod inspect;
pub mod load;
pub mod machine;
pub mod objectives;
pub mod output;
pub mod process;
pub mod progress;
pub mod random;
pub mod record;
pub mod seed;
pub mod serve;
pub mod source;
pub mod store;
pub mod tls;
pub mod units;

/// Exit codes: what a script may branch on. The verdicts of `bench` have their own in `bench::judge::verdict`.
pub mod exit {
    /// Done as asked.
    pub const OK: u8 = 0;
    /// Done, and the answer is no: the key is absent, the dataset incomplete.
    pub const NO: u8 = 1;
    /// A setting is wrong (`EX_USAGE` of sysexits.h).
    pub const USAGE: u8 = 64;
    /// The store, the target or a file could not be used (`EX_UNAVAILABLE`).
    pub const UNAVAILABLE: u8 = 69;
    /// Stopped by SIGINT, SIGTERM or SIGHUP before the end (128 + SIGINT, as shells have it).
    pub const INTERRUPTED: u8 = 130;
}
