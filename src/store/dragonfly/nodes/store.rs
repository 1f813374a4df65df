//! Storing keys with the nodes of a cluster.
//!
//! Enters: a batch. Leaves: all of it stored, or word that fred has to do that. Each node is sent what it should have in
//! one go, and all of them at once.
//!
//! Must not store again what may still be on its way: it could arrive after what another client stored meanwhile. For the
//! same reason only a load is stored so, and no write of a client that could write the same key by fred.

use std::time::{Duration, Instant};

use super::super::super::{Batch, StoreError};
use super::super::Dragonfly;
use super::super::command::milliseconds;
use super::super::health::Outcome;
use super::super::resp::Refusal;
use super::Nodes;
use super::ask::{by_fred, order};
use super::routes::Group;
use super::table::slot_of;

impl Dragonfly {
    /// Stores the whole batch, unless the client has to: `None`. On an error an unknown part of it is stored.
    pub(in super::super) async fn put_to_nodes(
        &self,
        nodes: &Nodes,
        batch: &Batch,
        ttl: Option<Duration>,
        due: &mut Option<Instant>,
    ) -> Result<Option<()>, StoreError> {
        let Some(routes) = nodes.routes() else {
            return Ok(None);
        };
        let entries: Vec<_> = batch.entries().collect();
        let order = order(entries.iter().map(|&(key, _)| slot_of(key)), &routes);
        // All of it or nothing is begun.
        for its in order.chunk_by(|one, other| one.0 == other.0) {
            let master = routes.group(its[0].0).and_then(Group::master);
            if !master.is_some_and(|master| master.direct.takes()) {
                return by_fred(nodes, master.and_then(|master| master.fault()));
            }
        }
        let ttl_ms = ttl.map(milliseconds);
        let sent = self.send(&routes, &order, |group, its| {
            // Replicas store nothing.
            let master = group.master()?;
            let its = its.iter().map(|&(_, place)| entries[place]);
            Some((master, master.direct.store(its, ttl_ms)?))
        });
        // Somebody may have gone just now.
        let Ok(mut parts) = sent else {
            nodes.look();
            let message = "a node of the cluster is lost";
            return Err(StoreError::Unavailable(message.into()));
        };
        self.all_come(nodes, &mut parts, due).await?;
        let mut are_elsewhere = false;
        for part in &mut parts {
            part.waiting.outcome = Outcome::Answered;
        }
        for part in &mut parts {
            match part.came.take() {
                Some(Ok(Ok(_))) => {}
                Some(Ok(Err(Refusal::Elsewhere(_)))) => are_elsewhere = true,
                Some(Ok(Err(refusal))) => return Err(self.refused(nodes, part.link, refusal)),
                Some(Err(_)) | None => {
                    nodes.look();
                    let node = &part.link.named.node;
                    let message = format!("the connection to {node} of the cluster was lost");
                    return Err(StoreError::Unavailable(message));
                }
            }
        }
        if are_elsewhere {
            nodes.look();
            return Ok(None);
        }
        Ok(Some(()))
    }
}
