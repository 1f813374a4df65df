//! Asking the nodes of a cluster for keys.
//!
//! Enters: the keys of one request. Leaves: their values in the same order, or word that fred has to read them. Each node
//! is sent what it should have in one go; keys that turn out to be elsewhere are asked for there, one by one.
//!
//! Must not wait beyond the one deadline of the request, nor hold against a node what another one did.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::RecvError;

use super::super::super::{KeyList, StoreError};
use super::super::health::Outcome;
use super::super::resp::{Answer, Redirection, Refusal};
use super::super::{Dragonfly, Line, Waiting, words};
use super::Nodes;
use super::routes::{Group, Link, Routes};
use super::table::slot_of;
use crate::config::Node;

/// How often one key may be sent on. Slots move one at a time, so the second is rare.
const MAX_REDIRECTIONS: u32 = 3;
/// The wait before the second, and so much more before the third: two nodes that each name the other need it.
const REDIRECTION_PAUSE: Duration = Duration::from_millis(5);

/// Which of a request's keys goes where: the place of the group and that of the key, by groups.
pub(super) type Order = Vec<(u16, usize)>;

/// What one node was asked for.
pub(super) struct Part<'a> {
    pub(super) link: &'a Link,
    pub(super) keys: &'a [(u16, usize)],
    pub(super) waiting: Waiting<'a>,
    answer: Receiver<Answer>,
    pub(super) came: Option<Result<Answer, RecvError>>,
}

/// A key that is asked for again.
struct Again {
    place: usize,
    key: Bytes,
    next: Next,
    /// Who was asked last.
    link: Option<Arc<Link>>,
    came: Option<Result<Answer, RecvError>>,
}

/// Where a key is asked for again.
enum Next {
    /// There.
    At(Node, bool),
    /// Where the table of now says.
    Anew,
    /// Whoever has the last word.
    Master,
    /// It is answered.
    Nowhere,
}

/// What a request has so far.
struct Found {
    values: Vec<Option<Bytes>>,
    again: Vec<(usize, Next)>,
}

impl Dragonfly {
    /// The values, unless the client has to read them.
    pub(in super::super) async fn get_from_nodes(
        &self,
        nodes: &Nodes,
        keys: &impl KeyList,
        due: &mut Option<Instant>,
    ) -> Result<Option<Vec<Option<Bytes>>>, StoreError> {
        let Some(routes) = nodes.routes() else {
            return Ok(None);
        };
        let mut key = Vec::new();
        let slots = (0..keys.count()).map(|place| {
            key.clear();
            keys.put_key(place, &mut key);
            slot_of(&key)
        });
        let order = order(slots, &routes);
        let sent = self.send(&routes, &order, |group, its| {
            let places = || its.iter().map(|&(_, place)| place);
            first(group, |link| link.direct.ask_some(keys, places()))
        });
        let mut parts = match sent {
            Ok(parts) => parts,
            Err(objection) => return by_fred(nodes, objection),
        };
        self.all_come(nodes, &mut parts, due).await?;
        let found = self.take(nodes, parts, order.len())?;
        if found.again.is_empty() {
            return Ok(Some(found.values));
        }
        let again = found.again.into_iter().map(|(place, next)| {
            let mut key = Vec::with_capacity(keys.key_len(place));
            keys.put_key(place, &mut key);
            Again {
                place,
                key: key.into(),
                next,
                link: None,
                came: None,
            }
        });
        let again = again.collect();
        Box::pin(self.follow(nodes, found.values, again, due)).await
    }

    /// Has each node asked about the keys that it should have; or why that cannot be, `None` where fred may do better.
    pub(super) fn send<'a>(
        &'a self,
        routes: &'a Routes,
        order: &'a Order,
        mut ask: impl FnMut(&'a Group, &[(u16, usize)]) -> Option<(&'a Arc<Link>, Receiver<Answer>)>,
    ) -> Result<Vec<Part<'a>>, Option<String>> {
        let mut parts = Vec::with_capacity(routes.links().len().min(order.len()));
        for keys_of_one in order.chunk_by(|one, other| one.0 == other.0) {
            let group = routes.group(keys_of_one[0].0).ok_or(None)?;
            let (link, answer) = ask(group, keys_of_one).ok_or_else(|| objection(group))?;
            parts.push(Part {
                link,
                keys: keys_of_one,
                waiting: Waiting {
                    store: self,
                    line: Line::Direct(&link.direct),
                    outcome: Outcome::Abandoned,
                },
                answer,
                came: None,
            });
        }
        Ok(parts)
    }

    /// Waits for all answers, until the deadline.
    pub(super) async fn all_come(
        &self,
        nodes: &Nodes,
        parts: &mut [Part<'_>],
        due: &mut Option<Instant>,
    ) -> Result<(), StoreError> {
        let in_time = {
            let all = pin!(come(parts));
            self.deadline.limit_until(due, all).await.is_some()
        };
        if in_time {
            return Ok(());
        }
        nodes.look();
        for part in parts {
            // Whoever was waited for in vain hid those behind it.
            let has_come = part.came.is_some() || part.answer.try_recv().is_ok();
            part.waiting.outcome = if has_come {
                Outcome::Answered
            } else {
                Outcome::Late
            };
        }
        Err(StoreError::Timeout(self.deadline.timeout()))
    }

    /// Puts the answers in the order of the keys.
    fn take(&self, nodes: &Nodes, parts: Vec<Part<'_>>, count: usize) -> Result<Found, StoreError> {
        let is_whole = parts.len() == 1;
        let mut found = Found {
            values: Vec::new(),
            again: Vec::new(),
        };
        for mut part in parts {
            part.waiting.outcome = Outcome::Answered;
            let place = |number: usize| part.keys[number].1;
            let values = match part.came {
                Some(Ok(Ok(values))) if is_whole => {
                    found.values = values;
                    return Ok(found);
                }
                Some(Ok(Ok(values))) => values,
                Some(Ok(Err(refusal))) => match refusal {
                    Refusal::Elsewhere(elsewhere) => {
                        let sent_on = elsewhere
                            .keys
                            .into_iter()
                            .map(|(number, there)| (place(number), Next::at(there, part.link)));
                        found.again.extend(sent_on);
                        elsewhere.values
                    }
                    refusal if part.link.is_replica && is_of_a_replica(&refusal) => {
                        let all = part.keys.iter().map(|&(_, place)| (place, Next::Master));
                        found.again.extend(all);
                        Vec::new()
                    }
                    refusal => return Err(self.refused(nodes, part.link, refusal)),
                },
                // It went with its connection.
                Some(Err(_)) | None => {
                    nodes.look();
                    let all = part.keys.iter().map(|&(_, place)| (place, Next::Anew));
                    found.again.extend(all);
                    Vec::new()
                }
            };
            found.values.resize(count, None);
            for (number, value) in values.into_iter().enumerate() {
                found.values[place(number)] = value;
            }
        }
        Ok(found)
    }

    /// Asks again for keys that were elsewhere, until they are found.
    async fn follow(
        &self,
        nodes: &Nodes,
        mut values: Vec<Option<Bytes>>,
        mut again: Vec<Again>,
        due: &mut Option<Instant>,
    ) -> Result<Option<Vec<Option<Bytes>>>, StoreError> {
        for round in 0..MAX_REDIRECTIONS {
            let all = async {
                if round > 0 {
                    tokio::time::sleep(REDIRECTION_PAUSE * round).await;
                }
                join_all(again.iter_mut().map(|one| ask_again(nodes, one))).await
            };
            let asked = self.deadline.limit_until(due, pin!(all)).await;
            for one in &again {
                if let Some(link) = &one.link {
                    let outcome = match &one.came {
                        Some(_) => Outcome::Answered,
                        None => Outcome::Late,
                    };
                    self.note(Line::Direct(&link.direct), outcome);
                }
            }
            let Some(asked) = asked else {
                nodes.look();
                return Err(StoreError::Timeout(self.deadline.timeout()));
            };
            if let Some(objection) = asked.into_iter().find_map(Result::err) {
                return by_fred(nodes, objection);
            }
            for one in &mut again {
                self.take_one(nodes, one, &mut values)?;
            }
            again.retain(|one| !matches!(one.next, Next::Nowhere));
            if again.is_empty() {
                return Ok(Some(values));
            }
        }
        let message = "a key is with another node of the cluster each time that it is asked for";
        Err(StoreError::Unavailable(message.into()))
    }

    fn take_one(
        &self,
        nodes: &Nodes,
        one: &mut Again,
        values: &mut [Option<Bytes>],
    ) -> Result<(), StoreError> {
        let (Some(link), Some(came)) = (one.link.take(), one.came.take()) else {
            return Ok(());
        };
        one.next = match came {
            Ok(Ok(mut found)) => {
                values[one.place] = found.pop().flatten();
                Next::Nowhere
            }
            Ok(Err(Refusal::Elsewhere(mut elsewhere))) => match elsewhere.keys.pop() {
                Some((_, there)) => Next::at(there, &link),
                None => Next::Anew,
            },
            Ok(Err(refusal)) => return Err(self.refused(nodes, &link, refusal)),
            Err(_) => {
                nodes.look();
                Next::Anew
            }
        };
        Ok(())
    }

    pub(super) fn refused(&self, nodes: &Nodes, link: &Link, refusal: Refusal) -> StoreError {
        match refusal {
            Refusal::NoRoom(needed) => link.direct.no_room(needed),
            Refusal::Said(text) => {
                // It may be no part of the cluster any more.
                nodes.look();
                self.refusal(text)
            }
            Refusal::Elsewhere(_) => StoreError::Unavailable("the keys are elsewhere".into()),
        }
    }
}

impl Next {
    fn at(there: Redirection, from: &Link) -> Self {
        let Redirection {
            mut node,
            is_arriving,
        } = there;
        if node.host.is_empty() {
            node.host.clone_from(&from.named.node.host);
        }
        Self::At(node, is_arriving)
    }
}

/// Where each key goes, those of one group together; `slots` are those of all keys.
pub(super) fn order(slots: impl Iterator<Item = u16>, routes: &Routes) -> Order {
    let groups = slots.map(|slot| routes.group_of(slot));
    let mut order: Order = groups.zip(0..).collect();
    order.sort_unstable();
    order
}

/// Waits for all answers. One after the other: they come in any order, and whoever waits for all is woken less often so.
async fn come(parts: &mut [Part<'_>]) {
    for part in parts {
        part.came = Some((&mut part.answer).await);
    }
}

/// The first of a group who can be asked.
fn first<A>(group: &Group, mut ask: impl FnMut(&Link) -> Option<A>) -> Option<(&Arc<Link>, A)> {
    let mut links = group.links.iter();
    links.find_map(|link| Some((link, ask(link)?)))
}

/// Leaves it to fred, unless a node is why nothing could be asked: fred would only wait for it, and others for fred.
pub(super) fn by_fred<T>(
    nodes: &Nodes,
    objection: Option<String>,
) -> Result<Option<T>, StoreError> {
    nodes.look();
    match objection {
        Some(objection) => Err(StoreError::Unavailable(objection)),
        None => Ok(None),
    }
}

fn objection(group: &Group) -> Option<String> {
    group.master().and_then(|link| link.objection())
}

/// Asks once more; or why that cannot be, `None` where fred may do better.
async fn ask_again(nodes: &Nodes, one: &mut Again) -> Result<(), Option<String>> {
    let key = &one.key;
    let (link, answer) = match &one.next {
        Next::Nowhere => return Ok(()),
        Next::At(node, is_arriving) => {
            let link = nodes.at(node, *is_arriving);
            // Just found out, it may be.
            link.direct.has_come().await;
            let answer = if *is_arriving {
                link.direct.ask_for_arriving(key)
            } else {
                link.direct.ask_some(key, 0..1)
            };
            let answer = answer.ok_or_else(|| link.objection())?;
            (link, answer)
        }
        Next::Anew | Next::Master => {
            let routes = nodes.routes().ok_or(None)?;
            let place = routes.group_of(slot_of(key));
            let group = routes.group(place).ok_or(None)?;
            let ask = |link: &Link| {
                let is_asked = matches!(one.next, Next::Anew) || !link.is_replica;
                is_asked.then(|| link.direct.ask_some(key, 0..1)).flatten()
            };
            let (link, answer) = first(group, ask).ok_or_else(|| objection(group))?;
            (link.clone(), answer)
        }
    };
    one.link = Some(link);
    one.came = Some(answer.await);
    Ok(())
}

/// A replica may not be what it was: its master can do better.
fn is_of_a_replica(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Said(text) if words::is_away_or_loading(text))
}
