//! The way to each slot. Pure, but for the connections that it holds.
//!
//! Enters: the table of slots, and who connects. Leaves: for each slot who is to be asked, the best first. Must not
//! change: a new table makes new routes, and the connections go over to them.

use std::sync::Arc;

use super::super::super::Room;
use super::super::direct::{Direct, Server, Standing};
use super::table::{Named, Range, SLOTS};
use crate::config::Node;

/// A slot that nobody has.
const NOBODY: u16 = u16::MAX;

/// A node and the connection to it.
pub(super) struct Link {
    pub(super) named: Named,
    /// The connection is one to a replica, which answers although it is none of the masters.
    pub(super) is_replica: bool,
    pub(super) direct: Direct,
}

impl Link {
    /// Connects in the background.
    pub(super) fn begin(server: &Server, named: Named, is_replica: bool, room: &Room) -> Self {
        let direct = Direct::begin(server.at(&named.node, is_replica), room);
        Self {
            named,
            is_replica,
            direct,
        }
    }

    /// Whether it is lost, or has left somebody without an answer since its last one.
    pub(super) fn is_suspect(&self) -> bool {
        !self.direct.is_up() || self.direct.health().is_late()
    }

    /// Why nothing can be asked of it; `None`: nothing is known against the node itself.
    pub(super) fn objection(&self) -> Option<String> {
        let node = &self.named.node;
        let is_full = || format!("too many wait for {node} of the cluster already");
        self.fault().or_else(|| self.direct.is_up().then(is_full))
    }

    /// As [`Link::objection`], when it is the node that is wrong.
    pub(super) fn fault(&self) -> Option<String> {
        let node = &self.named.node;
        match self.direct.standing() {
            Standing::Coming | Standing::Broken => None,
            Standing::Silent => Some(format!("{node} of the cluster does not answer")),
            Standing::Up if self.direct.health().allows() => None,
            Standing::Up => Some(format!("{node} of the cluster has stopped answering")),
        }
    }
}

impl From<Node> for Named {
    fn from(node: Node) -> Self {
        let address = None;
        Self { node, address }
    }
}

/// Who is asked for which slot.
pub(super) struct Routes {
    ranges: Vec<Range>,
    links: Vec<Arc<Link>>,
    /// Of each slot, its place in `groups`.
    group_of: Vec<u16>,
    groups: Vec<Group>,
}

/// A master, behind those that have the same keys and are asked before it.
pub(super) struct Group {
    /// Who is asked, in this order; the master is the last. At least one.
    pub(super) links: Vec<Arc<Link>>,
}

impl Group {
    pub(super) fn master(&self) -> Option<&Arc<Link>> {
        self.links.last()
    }
}

impl Routes {
    /// With replicas, if they are to be asked, and whose turn it is among them.
    pub(super) fn new(
        ranges: Vec<Range>,
        replicas: Option<usize>,
        mut link_to: impl FnMut(&Named, bool) -> Arc<Link>,
    ) -> Self {
        let mut group_of = vec![NOBODY; SLOTS];
        let (mut groups, mut links) = (Vec::<Group>::new(), Vec::new());
        for range in &ranges {
            let is_its = |group: &Group| {
                group
                    .master()
                    .is_some_and(|link| link.named == range.master)
            };
            let place = groups.iter().position(is_its).unwrap_or_else(|| {
                let mut its: Vec<_> = match replicas {
                    None => Vec::new(),
                    Some(_) => range
                        .replicas
                        .iter()
                        .map(|one| link_to(one, true))
                        .collect(),
                };
                let turn = replicas.unwrap_or_default() % its.len().max(1);
                its.rotate_left(turn);
                its.push(link_to(&range.master, false));
                links.extend(its.iter().cloned());
                groups.push(Group { links: its });
                groups.len() - 1
            });
            let place = u16::try_from(place).unwrap_or(NOBODY);
            if let Some(slots) =
                group_of.get_mut(usize::from(range.first)..=usize::from(range.last))
            {
                slots.fill(place);
            }
        }
        Self {
            ranges,
            links,
            group_of,
            groups,
        }
    }

    pub(super) fn are_of(&self, ranges: &[Range]) -> bool {
        self.ranges == ranges
    }

    /// The place of a slot's group among all.
    pub(super) fn group_of(&self, slot: u16) -> u16 {
        self.group_of[usize::from(slot)]
    }

    /// A group by its place; `None`: nobody has the slot.
    pub(super) fn group(&self, place: u16) -> Option<&Group> {
        self.groups.get(usize::from(place))
    }

    pub(super) fn links(&self) -> &[Arc<Link>] {
        &self.links
    }

    pub(super) fn masters(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.groups.iter().filter_map(Group::master)
    }

    pub(super) fn master(&self, node: &Node) -> Option<Arc<Link>> {
        self.masters().find(|link| link.named.is(node)).cloned()
    }

    /// Those that the table names.
    pub(super) fn replicas(&self) -> impl Iterator<Item = &Named> {
        self.ranges.iter().flat_map(|range| &range.replicas)
    }
}
