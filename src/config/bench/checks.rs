//! What `bench` refuses: flags that its mode would not heed, and numbers that do not fit one another.
//!
//! Enters: what the user typed. Leaves: nothing, or a refusal with the mend. Must not change a setting.

use std::time::Duration;

use clap::parser::ValueSource;

use super::{BenchMode, SELF_TEST_RPS, is_given};
use crate::cli::BenchArgs;
use crate::config::{ConfigError, setting};
use crate::load::{Shard, Stages};
use crate::objectives::{Objectives, Operation};
use crate::units::human_duration;

/// Arrival numbers must be exact as 64-bit floating point, with room to spare.
const MAX_ARRIVALS: f64 = 1e12;

/// The generator looks at its timeouts and at the stop signal at least so often.
const MAX_TICK: Duration = Duration::from_millis(10);

/// Refuses what the mode would not heed.
pub(super) fn check_fits(args: &BenchArgs, mode: BenchMode) -> Result<(), ConfigError> {
    let staged = args
        .stages
        .as_ref()
        .is_some_and(|stages| !stages.0.is_empty());
    let given = [
        ("--json", args.json.is_some()),
        ("--compare", !args.compare.is_empty()),
        ("--out", args.out.is_some()),
        ("--shard", args.shard != Shard::WHOLE),
        ("--start-at", args.start_at.is_some()),
        ("--stages", staged),
        ("--abort", args.abort),
    ];
    let (unfit, mend): (&[&str], &str) = match mode {
        BenchMode::Once if args.shard != Shard::WHOLE => (
            &["--abort"],
            "--shard: one generator of several cannot know whether the whole still passes",
        ),
        BenchMode::Once => (&[], ""),
        BenchMode::Merge if args.out.is_some() => (
            &["--out"],
            "--merge, whose files have no series to chart; give --json",
        ),
        BenchMode::Merge => (
            &["--shard", "--start-at", "--stages", "--abort"],
            "--merge, which makes no run",
        ),
        BenchMode::FindMax | BenchMode::Sweep => (
            &["--stages", "--shard", "--start-at", "--compare"],
            "--find-max and --sweep, which make several runs, each at one rate and on this generator; give --rps \
             and --duration",
        ),
        // What is given for a run may come from a variable, and check_reader heeds the command line.
        BenchMode::Compare => (&["--out"], "--against, which makes no run; give --json"),
        BenchMode::Repeat => (
            &["--out", "--shard", "--start-at", "--compare", "--abort"],
            "--repeat, which makes several whole runs on this generator; give --json, and compare its file by --compare \
             and --against",
        ),
        BenchMode::Layers => (
            &["--out", "--shard", "--start-at", "--compare", "--abort"],
            "--layers, which makes two runs that have to be alike",
        ),
        BenchMode::SelfTest => (
            &[
                "--out",
                "--shard",
                "--start-at",
                "--compare",
                "--stages",
                "--abort",
            ],
            "--self-test, which drives its own server at --rps for --duration",
        ),
    };
    match unfit.iter().find(|name| given.contains(&(**name, true))) {
        Some(name) => Err(unfit_for(name, mend)),
        None => Ok(()),
    }
}

fn unfit_for(name: &str, mend: &str) -> ConfigError {
    ConfigError::Setting(format!("{name} cannot be used with {mend}"))
}

/// What only reads files drives nothing: a flag of a run would be ignored, and somebody would believe it.
pub(super) fn check_reader(args: &BenchArgs, mode: BenchMode) -> Result<(), ConfigError> {
    const OF_MERGE: &[&str] = &[
        "merge", "json", "compare", "slo", "max_miss", "max_lag", "config", "quiet",
    ];
    const OF_COMPARE: &[&str] = &["compare", "against", "fail_on", "json", "config", "quiet"];
    let (applied, mend) = match mode {
        BenchMode::Compare => (
            OF_COMPARE,
            "--against, which makes no run; it applies --compare, --fail-on and --json",
        ),
        _ => (
            OF_MERGE,
            "--merge, which makes no run; it applies --slo, --max-lag, --max-miss, --json and --compare",
        ),
    };
    let unfit = args.given.iter().find(|(name, source)| {
        *source == ValueSource::CommandLine && !applied.contains(&name.as_str())
    });
    match unfit {
        Some((name, _)) => Err(unfit_for(&format!("--{}", name.replace('_', "-")), mend)),
        None => Ok(()),
    }
}

/// An objective of a part that the load does not have would be held against nothing.
pub(super) fn check_objectives(
    objectives: &Objectives,
    stages: &Stages,
    operations: &[Operation],
) -> Result<(), ConfigError> {
    objectives.check(stages, operations).map_err(|error| {
        setting(
            "--slo",
            &String::from(objectives.clone()),
            &error.to_string(),
        )
    })
}

pub(super) fn check_schedule(stages: &Stages, warmup: Duration) -> Result<(), ConfigError> {
    let first = stages
        .0
        .first()
        .map_or(0.0, |stage| stage.from.per_second());
    let warm_arrivals = first * warmup.as_secs_f64();
    if warm_arrivals + stages.arrivals() > MAX_ARRIVALS {
        return Err(setting(
            "--rps × (--warmup + --duration)",
            &format!("{:.0} arrivals", warm_arrivals + stages.arrivals()),
            "that is more than 10^12; shorten the run",
        ));
    }
    if stages.arrivals() < 1.0 {
        return Err(setting(
            "--rps × --duration",
            &format!("{} arrivals", stages.arrivals()),
            "that is less than one arrival; lengthen the run",
        ));
    }
    Ok(())
}

/// A stall is a three hundredth of the run, and ten arrivals in it are the least that sample it.
pub(super) fn check_self_test(args: &BenchArgs) -> Result<(), ConfigError> {
    let rate = if is_given(args, "rps") {
        args.rps.per_second()
    } else {
        SELF_TEST_RPS
    };
    let arrivals = rate * args.duration.as_secs_f64();
    if arrivals >= 3_000.0 {
        return Ok(());
    }
    Err(setting(
        "--rps × --duration",
        &format!("{arrivals:.0} arrivals"),
        "--self-test needs 3,000 or more to detect its stalls",
    ))
}

pub(super) fn check_generator(args: &BenchArgs) -> Result<(), ConfigError> {
    if args.tick > MAX_TICK {
        return Err(setting(
            "--tick",
            &human_duration(args.tick),
            "give at most 10ms: timeouts and signals are checked between ticks",
        ));
    }
    if args.tick > args.max_lag {
        return Err(setting(
            "--tick",
            &human_duration(args.tick),
            "it would cause more lag than --max-lag allows; give a shorter one",
        ));
    }
    if args.connections < u32::from(args.threads) {
        return Err(setting(
            "--connections",
            &args.connections.to_string(),
            &format!(
                "give at least one for each of the {} --threads",
                args.threads
            ),
        ));
    }
    if args.max_in_flight < args.connections {
        return Err(setting(
            "--max-in-flight",
            &args.max_in_flight.to_string(),
            &format!(
                "it is below the {} --connections; raise it",
                args.connections
            ),
        ));
    }
    Ok(())
}
