//! What is made of runs: one, or several that answer a question together.
//!
//! Enters: a [`BenchConfig`] and a stop signal. Leaves: an exit code. Must not know how a request is sent.

mod against;
pub(super) mod background;
mod early;
mod expected;
mod find_max;
mod layers;
mod merge;
mod null_server;
mod once;
mod repeat;
mod result_file;
mod runner;
mod search;
mod self_test;
mod sweep;

use tokio_util::sync::CancellationToken;

use crate::config::{BenchConfig, BenchMode};

/// Does what the mode says, and returns its exit code.
///
/// # Errors
/// When the target cannot be used, or the results cannot be written.
pub(super) async fn run(config: &BenchConfig, stop: &CancellationToken) -> anyhow::Result<u8> {
    match config.mode {
        BenchMode::Once => once::run(config, stop).await,
        BenchMode::Layers => layers::run(config, stop).await,
        BenchMode::FindMax => find_max::run(config, stop).await,
        BenchMode::Sweep => sweep::run(config, stop).await,
        BenchMode::SelfTest => self_test::run(config, stop).await,
        BenchMode::Merge => merge::run(config),
        BenchMode::Repeat => repeat::run(config, stop).await,
        BenchMode::Compare => against::run(config),
    }
}

/// Takes any text for a result of `--merge`, and of `--compare` with `--against`; panics where it must not.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(text: &str) {
    merge::fuzz(text);
    against::fuzz(text);
}
