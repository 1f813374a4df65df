//! One deadline for very many short waits, at the price of one timer.
//!
//! Enters: futures. Leaves: their output, or `None` once they took too long. Must not register a timer for
//! each wait: on a busy thread that costs a system call apiece, because every new timer is due before the
//! ones that the runtime already sleeps for.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};

/// The same deadline for every wait of one runtime. Cheap to clone.
#[derive(Clone)]
pub(super) struct Deadline {
    timeout: Duration,
    shared: Arc<Shared>,
    _keeper: Arc<AbortOnDrop>,
}

struct Shared {
    queue: Mutex<Queue>,
    not_empty: Notify,
}

/// Waits in the order in which they began, which is the order in which they end.
#[derive(Default)]
struct Queue {
    waits: VecDeque<Wait>,
    /// Number of the wait in front; those before it are over.
    first: u64,
}

struct Wait {
    due: Instant,
    /// `None`: the future was ready, or nobody asks any more.
    waker: Option<Waker>,
}

/// Ends a task when the last one who needs it is gone.
pub(super) struct AbortOnDrop(AbortHandle);

impl AbortOnDrop {
    pub(super) fn new<T>(task: &JoinHandle<T>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Deadline {
    /// Starts the one task that keeps the time, on the runtime of the caller.
    pub(super) fn start(timeout: Duration) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            not_empty: Notify::new(),
        });
        let keeper = tokio::spawn(keep(shared.clone()));
        Self {
            timeout,
            shared,
            _keeper: Arc::new(AbortOnDrop::new(&keeper)),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The output of `future`, or `None` when it is not ready in time.
    ///
    /// It is borrowed, because moving it costs as much as what it does.
    pub(super) async fn limit<F: Future>(&self, future: Pin<&mut F>) -> Option<F::Output> {
        self.limit_until(&mut None, future).await
    }

    /// As [`Deadline::limit`], for the parts of one whole: the time begins with the first of them that has to wait,
    /// which leaves its end in `due` for the others.
    pub(super) async fn limit_until<F: Future>(
        &self,
        due: &mut Option<Instant>,
        mut future: Pin<&mut F>,
    ) -> Option<F::Output> {
        if let Some(due) = *due {
            // Out of turn, and so rare that a timer of its own does no harm.
            let limited = Box::pin(tokio::time::timeout_at(due.into(), future));
            return limited.await.ok();
        }
        let mut place = None;
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            match &place {
                Some(place) if Place::is_over(place, context) => return Poll::Ready(None),
                Some(_) => {}
                None => {
                    let end = Instant::now() + self.timeout;
                    *due = Some(end);
                    place = Some(self.enter(end, context));
                }
            }
            Poll::Pending
        })
        .await
    }

    fn enter(&self, due: Instant, context: &Context<'_>) -> Place<'_> {
        let mut queue = self.shared.lock();
        if queue.waits.is_empty() {
            self.shared.not_empty.notify_one();
        }
        queue.waits.push_back(Wait {
            due,
            waker: Some(context.waker().clone()),
        });
        Place {
            shared: &self.shared,
            number: queue.first + queue.waits.len() as u64 - 1,
        }
    }
}

/// The place of one wait in the queue, given up when it is dropped.
struct Place<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Place<'_> {
    fn is_over(&self, context: &Context<'_>) -> bool {
        let mut queue = self.shared.lock();
        let Some(wait) = queue.get(self.number) else {
            return true;
        };
        if let Some(waker) = &mut wait.waker {
            waker.clone_from(context.waker());
        }
        false
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        if let Some(wait) = queue.get(self.number) {
            wait.waker = None;
            queue.forget_ended();
        }
    }
}

impl Queue {
    fn get(&mut self, number: u64) -> Option<&mut Wait> {
        let place = number.checked_sub(self.first)?;
        self.waits.get_mut(usize::try_from(place).ok()?)
    }

    fn forget_ended(&mut self) {
        while self.waits.front().is_some_and(|wait| wait.waker.is_none()) {
            self.pop();
        }
    }

    fn pop(&mut self) -> Option<Wait> {
        let wait = self.waits.pop_front()?;
        self.first += 1;
        Some(wait)
    }

    /// Wakes all that are late; the next moment at which somebody may be.
    fn expire(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let front = self.waits.front()?;
            if front.waker.is_some() && front.due > now {
                return Some(front.due);
            }
            if let Some(waker) = self.pop().and_then(|wait| wait.waker) {
                waker.wake();
            }
        }
    }
}

impl Shared {
    /// Every change is complete before anything that could panic, so a poisoned lock holds a sound queue.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn keep(shared: Arc<Shared>) {
    loop {
        let next = shared.lock().expire(Instant::now());
        match next {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => shared.not_empty.notified().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::pin::pin;

    const SOON: Duration = Duration::from_millis(20);

    fn waiting(deadline: &Deadline) -> usize {
        deadline.shared.lock().waits.len()
    }

    #[tokio::test]
    async fn a_future_that_is_ready_in_time_gives_its_output() {
        let deadline = Deadline::start(SOON);
        assert_eq!(deadline.limit(pin!(ready(7))).await, Some(7));
        let slow = async {
            tokio::task::yield_now().await;
            8
        };
        assert_eq!(deadline.limit(pin!(slow)).await, Some(8));
        assert_eq!(waiting(&deadline), 0);
    }

    #[tokio::test]
    async fn a_future_that_takes_too_long_is_given_up_and_the_next_one_has_its_own_time() {
        let deadline = Deadline::start(SOON);
        for _ in 0..3 {
            let began = Instant::now();
            assert_eq!(deadline.limit(pin!(pending::<()>())).await, None);
            assert!(began.elapsed() >= SOON);
        }
        assert_eq!(waiting(&deadline), 0);
    }

    #[tokio::test]
    async fn the_parts_of_one_whole_share_their_time() {
        let deadline = Deadline::start(SOON);
        let (began, mut due) = (Instant::now(), None);
        let first = tokio::time::sleep(SOON / 2);
        assert_eq!(deadline.limit_until(&mut due, pin!(first)).await, Some(()));
        let end = due.expect("it had to wait");
        assert!(end >= began + SOON);
        let second = pin!(pending::<()>());
        assert_eq!(deadline.limit_until(&mut due, second).await, None);
        assert_eq!(due, Some(end));
        let at_once = pin!(ready(3));
        assert_eq!(deadline.limit_until(&mut due, at_once).await, Some(3));
    }

    #[tokio::test]
    async fn what_ends_behind_a_slow_wait_is_forgotten_with_it() {
        let deadline = Deadline::start(SOON);
        let slow = tokio::spawn({
            let deadline = deadline.clone();
            async move { deadline.limit(pin!(pending::<()>())).await }
        });
        tokio::task::yield_now().await;
        for _ in 0..10 {
            let quick = pin!(tokio::task::yield_now());
            assert_eq!(deadline.limit(quick).await, Some(()));
        }
        assert_eq!(waiting(&deadline), 11);
        assert_eq!(slow.await.expect("it ends"), None);
        assert_eq!(waiting(&deadline), 0);
    }

    #[tokio::test]
    async fn a_wait_that_nobody_awaits_any_more_leaves_the_queue() {
        let deadline = Deadline::start(SOON);
        let forever = pin!(pending::<()>());
        let abandoned = deadline.limit(forever);
        assert!(futures_util::FutureExt::now_or_never(abandoned).is_none());
        assert_eq!(waiting(&deadline), 0);
    }
}
