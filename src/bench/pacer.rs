//! Sleeps to the microsecond. tokio's timers step in milliseconds, too coarse for 20,000 arrivals a second.
//!
//! Enters: a duration. Leaves: control, that much later. Must not spin: the target may need the core.

use std::io;
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
        self.timer.readable().await?.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

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
