//! One place of the pool: its connection, and what that carries.
//!
//! Enters: a connection's writing end, and the arrival that it is to carry. Leaves: bytes on the connection, and whether
//! the arrival may be sent again on another one. Must not keep books, nor choose who sends next.

use std::rc::Rc;

use super::books::Carried;
use super::line::Sender;
use crate::bench::plan::workload::Workload;

#[derive(Default)]
pub(super) struct Slot {
    /// Shared with whoever sends the rest of a request, while there is one.
    pub(super) writer: Option<Rc<Sender>>,
    pub(super) carries: Option<Carried>,
    /// The last try to make its connection failed.
    pub(super) is_refused: bool,
    /// The connection was not made for what it carries, so its end need not be the answer to that.
    stood_before: bool,
}

impl Slot {
    /// Takes an arrival on a connection that stands.
    pub(super) fn begin(&mut self, carried: Carried) {
        (self.carries, self.stood_before) = (Some(carried), true);
    }

    /// The connection is, or the next one will be, new and for what is carried alone.
    pub(super) fn was_made_for_it(&mut self) {
        self.stood_before = false;
    }

    /// A connection that stood idle may be closed just as a request is on its way: that is no answer to it, and what is as
    /// good twice as once may be sent again (RFC 9110, 9.2.2). Once: the next connection is its own.
    pub(super) fn may_send_again(&self, workload: &Workload) -> bool {
        let may_be_repeated = |carried: &Carried| workload.may_be_repeated(carried.arrival.number);
        self.stood_before && self.carries.as_ref().is_some_and(may_be_repeated)
    }

    /// Sends a request. Most go out at once, being smaller than an idle connection's buffer; the rest of a large one
    /// follows as there is room. What does not go out at all goes out on a broken connection, and its reader will find
    /// that out.
    pub(super) fn write(&self, request: &[u8]) {
        let Some(writer) = &self.writer else {
            return;
        };
        let mut rest = request;
        match writer.push(&mut rest) {
            Ok(true) => {}
            Ok(false) => {
                tokio::task::spawn_local(send_rest(writer.clone(), rest.to_vec()));
            }
            Err(_) => writer.shut_down(),
        }
    }

    /// A request is not wholly sent yet. Nothing else may go over its connection, even if it is answered already.
    pub(super) fn is_sending(&self) -> bool {
        let writer = self.writer.as_ref();
        writer.is_some_and(|writer| Rc::strong_count(writer) > 1)
    }

    /// Lets go of the connection; `false` when there was none any more.
    pub(super) fn let_go(&mut self) -> bool {
        let is_sending = self.is_sending();
        let Some(writer) = self.writer.take() else {
            return false;
        };
        // Whoever sends the rest would hold on to it.
        if is_sending {
            writer.shut_down();
        }
        true
    }
}

/// Ends with the connection, if not before.
async fn send_rest(writer: Rc<Sender>, rest: Vec<u8>) {
    if writer.push_all(&rest).await.is_err() {
        writer.shut_down();
    }
}
