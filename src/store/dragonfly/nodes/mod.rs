//! Reading keys from a cluster, and storing many: a connection of our own to each node, and which of them has which slot.
//!
//! Enters: where some nodes are; word of keys that were elsewhere, and of nodes that are lost. Leaves: the routes of now.
//! One task reads the table of slots: when told to, and again and again while a master is lost or silent, from the nodes
//! that are not, since its replica takes over without a word to us.
//!
//! Must not let one node hold up what is asked of the others, nor ask for the table faster than a cluster changes.

mod ask;
mod routes;
mod store;
mod table;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::super::Room;
use super::super::deadline::AbortOnDrop;
use super::connect;
use super::direct::Server;
use crate::cli::ReadFrom;
use crate::config::{Node, StoreConfig, StoreUrl};
use crate::random::below;
use routes::{Link, Routes};
use table::Range;

/// The time between two looks at the table, give or take half of it by chance, so that many threads do not ask as one.
const LOOK_EVERY_MS: u64 = 250;
/// A look that nobody asked for: replicas come and go without a word, which matters to who reads from them.
const LOOK_ANYWAY: Duration = Duration::from_secs(30);
const LOOK_FOR_REPLICAS: Duration = Duration::from_secs(5);
/// How long a node may take to tell the table before another one is asked, and a new one to be connected to.
const PATIENCE: Duration = Duration::from_millis(500);

/// Nodes without slots that are connected to at once; a cluster grows by few at a time.
const MAX_ARRIVING: usize = 16;

/// The nodes of a cluster, as the readers of one runtime see them.
#[derive(Clone)]
pub(super) struct Nodes {
    shared: Arc<Shared>,
    _task: Arc<AbortOnDrop>,
}

struct Shared {
    /// How to come to any of them.
    server: Server,
    /// Those that were named, which are asked when no other is left.
    seeds: Vec<Node>,
    room: Room,
    read_from: ReadFrom,
    /// So that not all threads ask the same replica.
    turn: usize,
    state: Mutex<State>,
    /// Somebody found the table wrong, or a node lost.
    look: Notify,
}

#[derive(Default)]
struct State {
    /// `None`: not known yet.
    routes: Option<Arc<Routes>>,
    /// Nodes that have no slots, but keys that are on their way to them.
    arriving: Vec<Arc<Link>>,
    /// Who should know better than the others.
    knows: Option<Node>,
}

impl Nodes {
    /// Reads the table, connects to all that are in it, and starts the task that keeps both right. When this fails the task
    /// goes on trying: fred is there meanwhile. `None` for a cluster that this cannot speak to.
    pub(super) async fn start(config: &StoreConfig, room: &Room) -> Option<Self> {
        let StoreUrl::Tcp(servers) = &config.url else {
            return None;
        };
        let shared = Arc::new(Shared {
            server: Server::of(config)?,
            seeds: servers.nodes.clone(),
            room: room.clone(),
            read_from: config.read_from,
            turn: RandomState::new().hash_one(()) as usize,
            state: Mutex::default(),
            look: Notify::new(),
        });
        shared.look(connect::timeout(config)).await;
        let task = tokio::spawn(keep(shared.clone()));
        Some(Self {
            shared,
            _task: Arc::new(AbortOnDrop::new(&task)),
        })
    }

    /// Whether every master can be asked.
    pub(super) fn are_up(&self) -> bool {
        self.routes()
            .is_some_and(|routes| routes.masters().all(|link| link.direct.is_up()))
    }

    /// Whether any master can be asked, and nothing is known against it.
    pub(super) fn any_is_up(&self) -> bool {
        self.routes()
            .is_some_and(|routes| routes.masters().any(|link| !link.is_suspect()))
    }

    fn routes(&self) -> Option<Arc<Routes>> {
        self.shared.lock().routes.clone()
    }

    /// The table may be wrong.
    fn look(&self) {
        self.shared.look.notify_one();
    }

    /// That node has a key which was looked for elsewhere; the way to it. One that is not known yet is connected to.
    fn at(&self, node: &Node, is_arriving: bool) -> Arc<Link> {
        let mut state = self.shared.lock();
        if !is_arriving {
            state.knows = Some(node.clone());
            self.look();
        }
        let known = state.routes.as_ref().and_then(|routes| routes.master(node));
        let mut others = state.arriving.iter();
        if let Some(link) = known.or_else(|| others.find(|link| link.named.is(node)).cloned()) {
            return link;
        }
        let link = Link::begin(
            &self.shared.server,
            node.clone().into(),
            false,
            &self.shared.room,
        );
        let link = Arc::new(link);
        if state.arriving.len() == MAX_ARRIVING {
            state.arriving.remove(0);
        }
        state.arriving.push(link.clone());
        link
    }
}

/// Keeps the table right.
async fn keep(shared: Arc<Shared>) {
    let look_anyway = match shared.read_from {
        ReadFrom::Master => LOOK_ANYWAY,
        ReadFrom::Replica => LOOK_FOR_REPLICAS,
    };
    let mut is_wrong = shared.lock().routes.is_none();
    loop {
        if !is_wrong {
            // Nothing more can be known of it: it was said, or its time has come.
            let _ = tokio::time::timeout(look_anyway, shared.look.notified()).await;
        }
        let is_read = shared.look(PATIENCE).await;
        let jitter_ms = below(RandomState::new().hash_one(()), LOOK_EVERY_MS);
        tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS / 2 + jitter_ms)).await;
        let routes = shared.lock().routes.clone();
        is_wrong =
            !is_read || routes.is_none_or(|routes| routes.masters().any(|link| link.is_suspect()));
    }
}

impl Shared {
    /// Every change is complete before anything that could panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the table from the first who tells it, and makes it that of all; whether anybody did.
    async fn look(&self, patience: Duration) -> bool {
        for node in self.who_may_know() {
            let asked = self.server.at(&node, false);
            let told = asked.ask(&[b"CLUSTER", b"SLOTS"]);
            let told = match tokio::time::timeout(patience, told).await {
                Ok(Ok(told)) => table::read(&told, &node.host),
                Ok(Err(error)) => {
                    tracing::debug!(%node, %error, "no table of slots");
                    None
                }
                Err(_) => None,
            };
            if let Some(ranges) = told {
                self.adopt(ranges).await;
                return true;
            }
        }
        false
    }

    /// Those to ask for the table, in this order: not who is lost or silent, if there are others.
    fn who_may_know(&self) -> Vec<Node> {
        let mut state = self.lock();
        let mut nodes = Vec::new();
        nodes.extend(state.knows.take());
        if let Some(routes) = &state.routes {
            let links = routes.links();
            let (bad, mut good): (Vec<_>, Vec<_>) =
                links.iter().partition(|link| link.is_suspect());
            // Each time another one, as one may be cut off from the rest and not know it.
            let turn = below(RandomState::new().hash_one(()), good.len().max(1) as u64);
            good.rotate_left(turn as usize);
            nodes.extend(good.into_iter().map(|link| link.named.node.clone()));
            nodes.extend(routes.replicas().map(|named| named.node.clone()));
            nodes.retain(|node| !bad.iter().any(|link| link.named.is(node)));
        }
        nodes.extend(self.seeds.iter().cloned());
        nodes
    }

    /// Connects to those that are new, and makes these the routes of all who ask from now on. Whoever asked by the old
    /// ones still gets an answer.
    async fn adopt(&self, ranges: Vec<Range>) {
        let before = self.lock().routes.clone();
        if before.as_ref().is_some_and(|before| before.are_of(&ranges)) {
            self.lock().arriving.retain(|link| link.direct.is_up());
            return;
        }
        let known = {
            let state = self.lock();
            let known = before.iter().flat_map(|routes| routes.links());
            known.chain(&state.arriving).cloned().collect::<Vec<_>>()
        };
        let replicas = (self.read_from == ReadFrom::Replica).then_some(self.turn);
        let routes = Routes::new(ranges, replicas, |named, is_replica| {
            let mut known = known.iter();
            let link = known.find(|link| link.named == *named && link.is_replica == is_replica);
            link.cloned().unwrap_or_else(|| {
                let link = Link::begin(&self.server, named.clone(), is_replica, &self.room);
                Arc::new(link)
            })
        });
        let come = routes.links().iter().map(|link| link.direct.has_come());
        // Who takes longer is asked all the same, or its place by fred.
        let _ = tokio::time::timeout(PATIENCE, join_all(come)).await;
        let mut state = self.lock();
        state.routes = Some(Arc::new(routes));
        state.arriving.clear();
    }
}
