//! One place of the pool: its connection, and what that carries.
//!
//! Enters: a connection's writing end, and the arrival that it is to carry. Leaves: bytes on the connection, and whether
//! the arrival may be sent again on another one. Must not keep books, nor choose who sends next.

use tokio::net::tcp::OwnedWriteHalf;

use super::books::Carried;
use super::connection::shut_down;
use crate::bench::plan::workload::{Ask, Workload};

#[derive(Default)]
pub(super) struct Slot {
    pub(super) writer: Option<OwnedWriteHalf>,
    pub(super) carries: Option<Carried>,
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

    /// A connection that stood idle may be closed just as a request is on its way: that is no answer to it, and whatever
    /// changes nothing may be sent again (RFC 9110, 9.2.2). Once: the next connection is its own.
    pub(super) fn may_send_again(&self, workload: &Workload) -> bool {
        let changes_nothing =
            |carried: &Carried| workload.ask(carried.arrival.number) != Ask::Write;
        self.stood_before && self.carries.as_ref().is_some_and(changes_nothing)
    }

    /// A request is smaller than an idle connection's buffer: what does not go out whole goes out on a broken
    /// connection, and its reader will find that out.
    pub(super) fn write(&self, request: &[u8]) {
        if let Some(writer) = &self.writer
            && !matches!(writer.try_write(request), Ok(written) if written == request.len())
        {
            shut_down(writer);
        }
    }
}
