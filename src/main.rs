//! The program: settings → signals → one command → exit code.
//!
//! Enters: arguments and the environment. Leaves: an exit code, and at most one error line. Must not know
//! how any command works.

use std::ffi::OsString;
use std::process::ExitCode;

use kvpoc::config::{self, ConfigError, Job};
use kvpoc::store::StoreError;
use kvpoc::{bench, exit, inspect, output, process, seed, serve};
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keep_small_pages();
    give_back_soon();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    for warning in config::misspelt_variables(std::env::vars_os().map(|(name, _)| name)) {
        output::say(&warning);
    }
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
        Ok(_) if let Some(reason) = output::lost() => {
            output::say(&format!(
                "error: writing results to standard output: {reason}"
            ));
            exit::UNAVAILABLE.into()
        }
        Ok(code) => code.into(),
        Err(error) => {
            output::say(&format!("error: {error:#}"));
            // Some settings can only be checked against what was read meanwhile.
            if error.is::<ConfigError>() {
                return exit::USAGE.into();
            }
            if let Some(StoreError::Unavailable(_)) = error.downcast_ref() {
                output::say(WAYS_ON);
            }
            exit::UNAVAILABLE.into()
        }
    }
}

const WAYS_ON: &str = "\
Start a store: scripts/dragonfly (or: docker compose -f config/compose.yaml up -d)
Or use the embedded store: --store embedded:./kvpoc-data";

fn run(job: Job) -> anyhow::Result<u8> {
    if let Job::Print(text) = &job {
        output::print(&String::from_utf8_lossy(text));
        return Ok(exit::OK);
    }
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
            Job::Print(_) => Ok(exit::OK),
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

/// The allocator keeps what was freed for a second before the system has it back, and takes new memory for what is asked for
/// meanwhile: under large answers serve held 166 MB of values that came to 64. With a millisecond it is half as much beyond
/// the bound as with ten, and neither costs a request or a load any CPU time that could be measured.
#[allow(unsafe_code)]
fn give_back_soon() {
    use std::ffi::{c_int, c_long};
    /// `mi_option_purge_delay`, in milliseconds: the same number in every version of mimalloc since it has that name.
    const PURGE_DELAY: c_int = 15;
    unsafe extern "C" {
        fn mi_option_set_default(option: c_int, value: c_long);
    }
    // Safety: it sets a number that the allocator reads now and then, and takes any. Whoever set MIMALLOC_PURGE_DELAY wins.
    unsafe { mi_option_set_default(PURGE_DELAY, 1) }
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

/// The first signal asks for a clean end; the second one ends the program where it stands. A terminal that is closed
/// counts as a signal, but as no second one: the shell and the kernel may both send theirs. From the return of this
/// function on, no signal is missed.
fn watch_signals(stop: CancellationToken) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Whoever started it with nohup wants it to go on.
    let mut hangup = if process::ignores(Signal::HUP) {
        None
    } else {
        Some(signal(SignalKind::hangup())?)
    };
    tokio::spawn(async move {
        loop {
            let at_once = tokio::select! {
                _ = interrupt.recv() => stop.is_cancelled(),
                _ = terminate.recv() => stop.is_cancelled(),
                Some(()) = async { hangup.as_mut()?.recv().await } => false,
            };
            if at_once {
                std::process::exit(exit::INTERRUPTED.into());
            }
            stop.cancel();
        }
    });
    Ok(())
}
