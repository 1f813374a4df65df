//! Storing keys with the nodes of a cluster.
//!
//! Enters: a batch. Leaves: all of it stored, or word that fred has to do that. Each node is sent what it should have in
//! one go, and all of them at once.
//!
//! Must not store again what may still be on its way: it could arrive after what another client stored meanwhile.

use std::time::Duration;

use super::super::super::{Batch, StoreError};
use super::super::Dragonfly;
use super::super::command::milliseconds;
use super::super::health::Outcome;
use super::super::resp::Refusal;
use super::Nodes;
use super::ask::{by_fred, order};
use super::table::slot_of;

impl Dragonfly {
    /// Stores the whole batch, unless the client has to: `None`. On an error an unknown part of it is stored.
    pub(in super::super) async fn put_to_nodes(
        &self,
        nodes: &Nodes,
        batch: &Batch,
        ttl: Option<Duration>,
    ) -> Result<Option<()>, StoreError> {
        let Some(routes) = nodes.routes() else {
            return Ok(None);
        };
        let entries: Vec<_> = batch.entries().collect();
        let order = order(entries.iter().map(|&(key, _)| slot_of(key)), &routes);
        let ttl_ms = ttl.map(milliseconds);
        let mut is_begun = false;
        let sent = self.send(&routes, &order, |group, its| {
            // Replicas store nothing.
            let master = group.master()?;
            let its = its.iter().map(|&(_, place)| entries[place]);
            let answer = master.direct.store(its, ttl_ms)?;
            is_begun = true;
            Some((master, answer))
        });
        let mut parts = match sent {
            Ok(parts) => parts,
            Err(None) if is_begun => {
                nodes.look();
                return Err(StoreError::Unavailable(
                    "a node of the cluster is lost".into(),
                ));
            }
            Err(objection) => return by_fred(nodes, objection),
        };
        self.all_come(nodes, &mut parts, &mut None).await?;
        let mut are_elsewhere = false;
        for part in &mut parts {
            part.waiting.outcome = Outcome::Answered;
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
