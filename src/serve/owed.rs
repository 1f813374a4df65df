//! What clients have not taken: answers that lie in this program because their clients do not read, bounded over all
//! connections of a thread. But for large ones that have their part of what may be held.
//!
//! Enters: how much lies in a connection that takes nothing just now. Leaves: nothing, but that the connection which has
//! taken nothing for longest is cut when all of them together owe too much. Must not cost those who read anything.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::rc::Rc;

use tokio::task::AbortHandle;

use super::budget::SMALL_ANSWER_BYTES;

/// For all threads together.
const MAX_OWED_BYTES: usize = 16 * 1024 * 1024;
/// For each at least, however many there are: a few connections at their worst.
const MIN_OWED_BYTES: usize = 4 * SMALL_ANSWER_BYTES;

/// The task of a connection, once it runs.
pub(super) type Task = Rc<OnceCell<AbortHandle>>;

/// What the clients of one thread owe.
pub(super) struct Debts {
    all: usize,
    owed: Cell<usize>,
    next: Cell<u64>,
    /// Who has taken nothing for longest comes first.
    debtors: RefCell<BTreeMap<u64, Debtor>>,
}

struct Debtor {
    bytes: usize,
    task: Task,
}

impl Debts {
    /// Those of one of so many threads.
    pub(super) fn of_one_of(threads: usize) -> Self {
        Self::new((MAX_OWED_BYTES / threads).max(MIN_OWED_BYTES))
    }

    fn new(all: usize) -> Self {
        Self {
            all,
            owed: Cell::new(0),
            next: Cell::new(0),
            debtors: RefCell::default(),
        }
    }

    fn add(&self, bytes: usize, task: Task) -> u64 {
        let number = self.next.replace(self.next.get() + 1);
        self.owed.set(self.owed.get() + bytes);
        let mut debtors = self.debtors.borrow_mut();
        debtors.insert(number, Debtor { bytes, task });
        while self.owed.get() > self.all
            && let Some((_, debtor)) = debtors.pop_first()
        {
            self.owed.set(self.owed.get() - debtor.bytes);
            if let Some(task) = debtor.task.get() {
                tracing::debug!("a client that does not take its answers is cut");
                task.abort();
            }
        }
        number
    }

    fn remove(&self, number: u64) {
        // It is gone already when it was cut.
        if let Some(debtor) = self.debtors.borrow_mut().remove(&number) {
            self.owed.set(self.owed.get() - debtor.bytes);
        }
    }
}

/// What one client owes.
pub(super) struct Debt {
    debts: Rc<Debts>,
    task: Task,
    /// Whether the large answer that is being written counts elsewhere.
    is_held: Rc<Cell<bool>>,
    /// The most that was to be written since it had taken all: what has gone of an answer is not free before its end.
    most: usize,
    number: Option<u64>,
}

impl Debt {
    /// Nothing yet; `is_held` is told before each answer, none of which is begun before the one before is written.
    pub(super) fn new(debts: Rc<Debts>, task: Task, is_held: Rc<Cell<bool>>) -> Self {
        Self {
            debts,
            task,
            is_held,
            most: 0,
            number: None,
        }
    }

    /// These are about to be written.
    pub(super) fn is_to_take(&mut self, parts: &[IoSlice<'_>]) {
        let bytes = if self.is_held.get() {
            small_bytes(parts)
        } else {
            parts.iter().map(|part| part.len()).sum()
        };
        self.most = self.most.max(bytes);
    }

    /// It takes nothing more for now.
    pub(super) fn begins(&mut self) {
        if self.number.is_none() {
            self.number = Some(self.debts.add(self.most, self.task.clone()));
        }
    }

    /// It has taken something.
    pub(super) fn pauses(&mut self) {
        if let Some(number) = self.number.take() {
            self.debts.remove(number);
        }
    }

    /// It has taken all.
    pub(super) fn ends(&mut self) {
        self.most = 0;
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        self.pauses();
    }
}

/// Without a large answer, which counts elsewhere.
fn small_bytes(parts: &[IoSlice<'_>]) -> usize {
    let lengths = parts.iter().map(|part| part.len());
    lengths.filter(|&bytes| bytes <= SMALL_ANSWER_BYTES).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The task of a connection that ends by itself never.
    fn endless() -> (tokio::task::JoinHandle<()>, Task) {
        let running = tokio::spawn(std::future::pending());
        let task = Task::default();
        let _ = task.set(running.abort_handle());
        (running, task)
    }

    #[tokio::test]
    async fn who_has_taken_nothing_for_longest_is_cut_when_all_owe_too_much() {
        let debts = Rc::new(Debts::new(250));
        let (bytes, mut running, mut owing) = ([0; 100], Vec::new(), Vec::new());
        for _ in 0..3 {
            let (task, handle) = endless();
            let mut debt = Debt::new(debts.clone(), handle, Rc::default());
            debt.is_to_take(&[IoSlice::new(&bytes)]);
            running.push(task);
            owing.push(debt);
        }
        owing[0].begins();
        owing[1].begins();
        // The first takes a little, so that the second has waited for longer.
        owing[0].pauses();
        owing[0].is_to_take(&[IoSlice::new(&bytes[..1])]);
        owing[0].begins();
        owing[0].begins();
        assert_eq!(debts.owed.get(), 200);
        owing[2].begins();
        assert_eq!(debts.owed.get(), 200);
        let cut = running.remove(1).await.expect_err("it was cut");
        assert!(cut.is_cancelled());
        assert!(running.iter().all(|task| !task.is_finished()));
        drop(owing);
        assert_eq!(debts.owed.get(), 0);
    }

    #[test]
    fn what_was_taken_whole_is_owed_no_more_and_large_answers_that_are_held_are_not_owed() {
        let debts = Rc::new(Debts::of_one_of(1));
        let is_held = Rc::new(Cell::new(true));
        let mut debt = Debt::new(debts.clone(), Task::default(), is_held.clone());
        let large = vec![0; SMALL_ANSWER_BYTES + 1];
        debt.is_to_take(&[IoSlice::new(&large[..300]), IoSlice::new(&large)]);
        debt.begins();
        assert_eq!(debts.owed.get(), 300);
        debt.pauses();
        debt.ends();
        debt.begins();
        assert_eq!(debts.owed.get(), 0);
        debt.pauses();
        is_held.set(false);
        debt.is_to_take(&[IoSlice::new(&large)]);
        debt.begins();
        assert_eq!(debts.owed.get(), large.len());
    }
}
