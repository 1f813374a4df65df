//! The program: settings → signals → one command → exit code.
//!
//! Enters: arguments and the environment. Leaves: an exit code, and at most one error line. Must not know
//! how any command works.

use std::ffi::OsString;
use std::process::ExitCode;

use kvpoc::config::{self, ConfigError, Job};
use kvpoc::store::StoreError;
use kvpoc::{bench, exit, inspect, output, seed, serve};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keep_small_pages();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let job = match config::load(&arguments) {
        Ok(job) => job,
        Err(ConfigError::Usage(error)) => {
            // Help and version come this way too, and go to standard output.
            let _ = error.print();
            return if error.use_stderr() {
                exit::USAGE
            } else {
                exit::OK
            }
            .into();
        }
        Err(error) => {
            output::say(&format!("error: {error}"));
            return exit::USAGE.into();
        }
    };
    raise_file_limit();
    match run(job) {
        Ok(code) => code.into(),
        Err(error) => {
            output::say(&format!("error: {error:#}"));
            if let Some(StoreError::Unavailable(_)) = error.downcast_ref() {
                output::say(WAYS_ON);
            }
            exit::UNAVAILABLE.into()
        }
    }
}

const WAYS_ON: &str = "\
Two ways on:
  start a store:     scripts/dragonfly   (or: docker compose -f config/compose.yaml up -d)
  or do without one: --store embedded:./kvpoc-data";

fn run(job: Job) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(async {
        let stop = CancellationToken::new();
        watch_signals(stop.clone())?;
        match job {
            Job::Seed(config) => seed::run(config, stop).await,
            Job::Serve(config) => serve::run(config, stop).await,
            Job::Bench(config) => Box::pin(bench::run(*config, stop)).await,
            Job::Inspect(config) => tokio::select! {
                code = inspect::run(config) => code,
                () = stop.cancelled() => Ok(exit::INTERRUPTED),
            },
        }
    });
    // A name that is still being looked up must not hold up the exit.
    runtime.shutdown_background();
    code
}

/// The allocator asks for huge pages, and each is held whole for whatever little is in use of it: at 1,024
/// connections serve held 56 MB with them and 36 without, at the same CPU time a request. Where it cannot be
/// asked for, nothing but memory is lost.
fn keep_small_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Each connection is a file, and the usual soft limit of 1,024 is below what both sides are asked to hold.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where it cannot be raised, the first connection beyond it says so.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// The first signal asks for a clean end; the second one ends the program where it stands. From the return of
/// this function on, no signal is missed.
fn watch_signals(stop: CancellationToken) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if stop.is_cancelled() {
                std::process::exit(exit::INTERRUPTED.into());
            }
            stop.cancel();
        }
    });
    Ok(())
}
