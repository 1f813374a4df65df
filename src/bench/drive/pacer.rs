//! Sleeps to the microsecond, and knows when it slept in. tokio's timers step in milliseconds, too coarse for 20,000
//! arrivals a second.
//!
//! Enters: a duration, or what must not take longer. Leaves: control, that much later. Must not spin: the target may need
//! the core.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A kernel timer that wakes the runtime through epoll, beside its sockets.
pub(super) struct Pacer {
    timer: AsyncFd<OwnedFd>,
}

impl Pacer {
    /// A new timer of the runtime that calls.
    #[allow(unsafe_code)]
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: an `OwnedFd` is open, is one and the same descriptor, and stays so until the `AsyncFd`,
        // which owns it from here on, is dropped.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }
            .map_err(|error| error.into_parts().1)?;
        Ok(Self { timer })
    }

    /// Returns after `duration`, or a little later.
    pub(super) async fn sleep(&self, duration: Duration) -> io::Result<()> {
        let value = Timespec {
            tv_sec: duration.as_secs().cast_signed(),
            // Zero would disarm the timer.
            tv_nsec: i64::from(duration.subsec_nanos()).max(1),
        };
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: value,
        };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        // Arming it again takes back an expiry that nobody read, so it never has to be read.
        poll_fn(|context| self.timer.poll_read_ready(context))
            .await?
            .clear_ready();
        Ok(())
    }
}

/// Waits for `work`, but no longer than `duration`. For threads whose runtime has no timers.
///
/// # Errors
/// `TimedOut`, or when there is no kernel timer to be had.
pub(super) async fn timeout<T>(duration: Duration, work: impl Future<Output = T>) -> io::Result<T> {
    let pacer = Pacer::new()?;
    tokio::select! {
        biased;
        done = work => Ok(done),
        slept = pacer.sleep(duration) => Err(slept.err().unwrap_or(io::ErrorKind::TimedOut.into())),
    }
}

/// Returns after `duration`, or a little later, also where the process may open no more files.
pub(super) async fn pause(duration: Duration) {
    let sleeps = async { Pacer::new()?.sleep(duration).await };
    if sleeps.await.is_err() {
        // Whoever waits here tries again after it, and must not spin.
        let _ = tokio::task::spawn_blocking(move || std::thread::sleep(duration)).await;
    }
}

/// When a thread could not take what came in, by its own sleep alone. Pure. Moments are nanoseconds since the start.
///
/// It stands in for the kernel's stamps where there are none. A thread that wakes late was away: stopped, without a
/// core, or at work for too long.
#[derive(Debug, Default)]
pub(super) struct Absence {
    /// The last time that it was away.
    away: Range<u64>,
    /// When it wakes next.
    wake_ns: u64,
}

impl Absence {
    /// The thread turns to what came in at `now_ns`, until `wake_ns`.
    pub(super) fn sleeps(&mut self, now_ns: u64, wake_ns: u64) {
        *self = Self {
            away: self.present_ns(now_ns)..now_ns,
            wake_ns,
        };
    }

    /// Until when everything that came in has been taken, at `now_ns`, before the thread turns to it again.
    pub(super) fn present_ns(&self, now_ns: u64) -> u64 {
        self.wake_ns.min(now_ns)
    }

    /// How long what is taken at `now_ns` may have lain here.
    pub(super) fn lay_ns(&self, now_ns: u64) -> u64 {
        if now_ns > self.wake_ns {
            return now_ns - self.wake_ns;
        }
        // What came in while it was away is worked off after that, in about as long.
        let Range { start, end } = self.away;
        let is_backlog = now_ns.saturating_sub(end) < end - start;
        if is_backlog { now_ns - start } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_is_taken_in_time_has_not_lain_here() {
        let mut absence = Absence::default();
        absence.sleeps(100, 200);
        absence.sleeps(200, 300);
        assert_eq!(absence.lay_ns(250), 0);
        assert_eq!(absence.present_ns(250), 250);
    }

    #[test]
    fn what_comes_in_while_the_thread_is_away_lies_here_since_then() {
        let mut absence = Absence::default();
        absence.sleeps(100, 200);
        // Taken before the thread itself noticed that it woke late,
        assert_eq!(absence.lay_ns(1_000), 800);
        assert_eq!(absence.present_ns(1_000), 200);
        // and after.
        absence.sleeps(1_000, 5_000);
        assert_eq!(absence.lay_ns(1_100), 900);
        assert_eq!(absence.lay_ns(1_800), 0, "worked off by then");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_takes_too_long_is_ended_and_what_does_not_is_not() {
        let long = timeout(Duration::from_millis(2), std::future::pending::<()>()).await;
        assert_eq!(long.expect_err("too long").kind(), io::ErrorKind::TimedOut);
        let short = timeout(Duration::from_mins(1), async { 7 }).await;
        assert_eq!(short.expect("in time"), 7);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn it_sleeps_at_least_as_long_as_asked_each_time() {
        let pacer = Pacer::new().expect("a timer");
        for micros in [0, 50, 300, 2_000] {
            let duration = Duration::from_micros(micros);
            let started = Instant::now();
            pacer.sleep(duration).await.expect("sleeps");
            assert!(started.elapsed() >= duration);
        }
    }
}
