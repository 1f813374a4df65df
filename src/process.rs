//! What this process uses of its machine. Read leniently: what the system does not tell is `None`.
//!
//! Enters: `/proc` and the system's clocks. Leaves: times, bytes and counts. Must not be asked on a request's
//! path: some of it reads a file.

use std::time::Duration;

use rustix::process::{Resource, Signal, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// CPU time of all threads, of user and system.
#[must_use]
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // The clock never runs negative, nor past 2^32 nanoseconds in a second.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Bytes of memory that the process holds.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    // The second number of proc(5)'s statm, in pages.
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Files and sockets that the process holds open.
#[must_use]
pub fn open_files() -> Option<u64> {
    std::fs::read_dir("/proc/self/fd")
        .ok()
        .map(|files| files.count() as u64)
}

/// Files and sockets that it may hold open; `None`: any number.
#[must_use]
pub fn max_open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Whether whoever started the process had it ignore a signal, as `nohup` does.
#[must_use]
pub fn ignores(signal: Signal) -> bool {
    // A mask in hexadecimal, its lowest bit for signal 1 (proc(5)).
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        assert!(resident_bytes() > Some(1024 * 1024));
        assert!(open_files() >= Some(3));
        let before = cpu_time();
        while cpu_time() == before {}
    }

    #[test]
    fn a_signal_that_is_ignored_is_told_from_others() {
        // The start-up code of every Rust program ignores the first of them.
        assert!(ignores(Signal::PIPE) && !ignores(Signal::TERM));
    }
}
