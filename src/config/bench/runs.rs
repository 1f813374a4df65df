//! Settings of `bench` that are about several runs: how often one is made, and which are compared.
//!
//! Enters: what the user typed. Leaves: [`Runs`], or a refusal with the mend. Must not read a file.

use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;

use crate::cli::BenchArgs;
use crate::config::{ConfigError, setting};
use crate::figures::FailOn;

/// Several runs.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    /// How often the load is run; 1: once.
    pub repeat: u32,
    /// The least pause between two runs.
    pub pause: Duration,
    /// Results that are compared with those of `against`.
    pub compare: Vec<PathBuf>,
    /// Results that they are held against.
    pub against: Vec<PathBuf>,
    /// By how much which figure may not be worse.
    pub fail_on: Vec<FailOn>,
}

impl Runs {
    pub(super) fn of(args: &BenchArgs) -> Self {
        Self {
            repeat: args.repeat,
            pause: args.pause,
            compare: args.compare.clone(),
            against: args.against.clone(),
            fail_on: args.fail_on.clone(),
        }
    }
}

/// Refuses what belongs to several runs where there are none.
pub(super) fn check(args: &BenchArgs) -> Result<(), ConfigError> {
    let files = |files: &[PathBuf]| {
        let names: Vec<String> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        names.join(" ")
    };
    if args.against.is_empty() {
        if args.compare.len() > 1 {
            let mend = "one earlier run is shown beside this one; give --against to compare several runs with others";
            return Err(setting("--compare", &files(&args.compare), mend));
        }
        if let Some(bound) = args.fail_on.first() {
            let mend =
                "it is held against the differences of several runs; give --compare and --against";
            return Err(setting("--fail-on", &bound.to_string(), mend));
        }
    } else if args.compare.is_empty() {
        let mend = "give the results that are to be held against these, by --compare";
        return Err(setting("--against", &files(&args.against), mend));
    }
    let paused = args
        .given
        .iter()
        .any(|(name, source)| name == "pause" && *source == ValueSource::CommandLine);
    if paused && args.repeat == 1 {
        return Err(setting(
            "--pause",
            "given",
            "it is the pause between several runs; give --repeat",
        ));
    }
    Ok(())
}
