//! What the store said last, for everybody who wants to know.
//!
//! Enters: a question. Leaves: its answer, asked for at most once in so long. Must not hang on the life of a client: a
//! question that was begun is asked to its end, and whoever comes meanwhile waits for the same answer.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::store::StoreError;

type Outcome<T> = Result<T, StoreError>;

/// The last answer to one question.
pub(super) struct Recent<T> {
    /// An answer that is older is asked for again.
    age: Duration,
    /// What the question may take in all, of however many commands it consists.
    patience: Duration,
    state: Rc<RefCell<State<T>>>,
}

struct State<T> {
    last: Option<(Instant, Outcome<T>)>,
    under_way: Option<watch::Receiver<Option<Outcome<T>>>>,
}

impl<T: Clone + 'static> Recent<T> {
    pub(super) fn new(age: Duration, patience: Duration) -> Self {
        let state = State {
            last: None,
            under_way: None,
        };
        Self {
            age,
            patience,
            state: Rc::new(state.into()),
        }
    }

    pub(super) async fn get<F>(&self, ask: impl FnOnce() -> F) -> Outcome<T>
    where
        F: Future<Output = Outcome<T>> + 'static,
    {
        let mut answer = {
            let mut state = self.state.borrow_mut();
            match &*state {
                State {
                    last: Some((at, outcome)),
                    ..
                } if at.elapsed() < self.age => return outcome.clone(),
                State {
                    under_way: Some(answer),
                    ..
                } => answer.clone(),
                _ => {
                    let answer = self.begin(ask());
                    state.under_way = Some(answer.clone());
                    answer
                }
            }
        };
        let told = answer.wait_for(Option::is_some).await;
        told.ok()
            .and_then(|outcome| outcome.clone())
            .unwrap_or_else(|| Err(StoreError::Unavailable("this thread has ended".into())))
    }

    fn begin(
        &self,
        question: impl Future<Output = Outcome<T>> + 'static,
    ) -> watch::Receiver<Option<Outcome<T>>> {
        let (told, answer) = watch::channel(None);
        let (state, patience) = (self.state.clone(), self.patience);
        tokio::task::spawn_local(async move {
            let outcome = tokio::time::timeout(patience, question).await;
            let outcome = outcome.unwrap_or(Err(StoreError::Timeout(patience)));
            *state.borrow_mut() = State {
                last: Some((Instant::now(), outcome.clone())),
                under_way: None,
            };
            // Whoever asked may have left.
            let _ = told.send(Some(outcome));
        });
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::pending;
    use tokio::task::{LocalSet, yield_now};

    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn whoever_comes_while_a_question_is_asked_waits_for_its_answer() {
        let asked = Rc::new(Cell::new(0));
        let ask = || {
            let asked = asked.clone();
            async move {
                yield_now().await;
                asked.set(asked.get() + 1);
                Ok(asked.get())
            }
        };
        let test = async {
            let recent = Recent::new(LONG, LONG);
            // The first to ask leaves at once.
            assert!(futures_util::FutureExt::now_or_never(recent.get(ask)).is_none());
            let answers = tokio::join!(recent.get(ask), recent.get(ask));
            assert!(matches!(answers, (Ok(1), Ok(1))));
            assert!(matches!(recent.get(ask).await, Ok(1)));
            let always_old = Recent::new(Duration::ZERO, LONG);
            assert!(matches!(always_old.get(ask).await, Ok(2)));
            assert!(matches!(always_old.get(ask).await, Ok(3)));
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_question_takes_no_longer_than_it_may_and_is_asked_again() {
        let test = async {
            let recent = Recent::new(Duration::ZERO, Duration::from_millis(5));
            let silent = recent.get(pending::<Outcome<()>>).await;
            assert!(matches!(silent, Err(StoreError::Timeout(_))));
            assert!(recent.get(|| async { Ok(()) }).await.is_ok());
        };
        LocalSet::new().run_until(test).await;
    }
}
