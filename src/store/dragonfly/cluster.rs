//! What a cluster needs besides: keys that are with another node than was thought, and questions to every master.
//!
//! Enters: commands, and the routing table that fred keeps. Leaves: answers, pages of keys, sums of statistics. Must
//! not let fred follow an ASK: it sends the command back to where it came from, and takes the answer to its own
//! ASKING for that of another command, which every later answer of the connection is then off by. So redirections
//! are followed here. After MOVED fred has read the table anew, and the command is sent again; a key whose slot is
//! under way is asked for where it goes.

use std::collections::HashMap;
use std::pin::pin;

use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, ClusterInterface as _};
use fred::types::config::{Options, Server};
use fred::types::{FromValue, Value};
use futures_util::future::{join_all, try_join_all};

use super::super::{Page, StoreError, StoreStats};
use super::command::{KeyCommand, named};
use super::{Dragonfly, info, into_bytes};

/// How often one command may be sent on. Slots move one at a time, so the second is rare.
const MAX_REDIRECTIONS: usize = 3;

/// Whether some of the commands, or all by one error, were not executed because of where their keys are.
pub(super) fn are_elsewhere(answers: &Result<Vec<Result<Value, Error>>, Error>) -> bool {
    match answers {
        Ok(answers) => answers.iter().any(is_elsewhere),
        Err(error) => is_about_the_place(error),
    }
}

/// The answers to commands, each sent by itself to the node of its key, in their order.
pub(super) async fn each(client: &Client, commands: &[KeyCommand]) -> Vec<Result<Value, Error>> {
    let sent = commands.iter().cloned();
    let mut answers = join_all(sent.map(|command| command.give_to(client))).await;
    if answers.iter().any(is_elsewhere) {
        follow(client, commands, &mut answers).await;
    }
    answers
}

fn is_elsewhere(answer: &Result<Value, Error>) -> bool {
    answer.as_ref().is_err_and(is_about_the_place)
}

/// Whether a command was not executed, because its key is with another node. fred, allowed no redirection, does
/// not say which; and of a node with an IPv6 address it cannot read it.
fn is_about_the_place(error: &Error) -> bool {
    error.details().starts_with("Too many redirections") || is_unreadable(error)
}

fn is_unreadable(error: &Error) -> bool {
    error.details().starts_with("Invalid cluster redirection")
}

/// Sends the commands again that were elsewhere: after MOVED the routing table is new.
async fn follow(client: &Client, commands: &[KeyCommand], answers: &mut [Result<Value, Error>]) {
    let unreadable = |answer: &Result<Value, Error>| answer.as_ref().is_err_and(is_unreadable);
    if answers.iter().any(unreadable) {
        // Then fred has not read the table anew.
        let _ = client.sync_cluster().await;
    }
    let mut under_way = HashMap::new();
    for _ in 0..MAX_REDIRECTIONS {
        let asked = answers
            .iter_mut()
            .zip(commands)
            .map(async |(answer, asked)| {
                if !is_elsewhere(answer) {
                    return;
                }
                let slot = fred::util::redis_keyslot(asked.key());
                *answer = match under_way.get(&slot) {
                    Some(node) => ask_there(client, node, asked.clone()).await,
                    None => asked.clone().give_to(client).await,
                };
            });
        join_all(asked).await;
        if !answers.iter().any(is_elsewhere) {
            return;
        }
        under_way = slots_under_way(client).await;
    }
}

/// ASKING holds for the next command of its connection alone; fred writes a pipeline in one go.
async fn ask_there(client: &Client, node: &Server, asked: KeyCommand) -> Result<Value, Error> {
    // A node without slots of its own has no connection, and fred would make all of them anew for it. One that has
    // got its first slot just now is known when the table is read again.
    if !primaries(client).contains(node) {
        client.sync_cluster().await?;
    }
    if !primaries(client).contains(node) {
        let message = "the key is moving to a node that has no other slots yet";
        return Err(Error::new(ErrorKind::Cluster, message));
    }
    let there = client.pipeline().with_options(&Options {
        cluster_node: Some(node.clone()),
        ..Options::default()
    });
    let () = there.custom(named("ASKING"), Vec::<Value>::new()).await?;
    asked.give_to(&there).await?;
    let answer = there.try_all().await.pop();
    answer.unwrap_or_else(|| Err(Error::new(ErrorKind::Protocol, "ASKING without an answer")))
}

/// The slots that are moving, and where each goes; as far as the masters tell.
async fn slots_under_way(client: &Client) -> HashMap<u16, Server> {
    let tables = primaries(client).into_iter().map(async |node| {
        let client = at(client, &node);
        let arguments = vec![Value::from_static_str("NODES")];
        let table: Result<String, Error> = client.custom(named("CLUSTER"), arguments).await;
        table.map_or(Vec::new(), |table| moving(&table))
    });
    join_all(tables).await.into_iter().flatten().collect()
}

/// Reads CLUSTER NODES: a line a node, `id host:port@bus[,name] flags …`, and behind the slots of the node that answers
/// `[slot->-id]` for each that it gives away. A name stands in for the address, as in fred's table. <https://redis.io/docs/latest/commands/cluster-nodes/>
fn moving(table: &str) -> Vec<(u16, Server)> {
    let lines = || table.lines().map(|line| line.split(' '));
    let place_of = |id: &str| {
        let address = lines()
            .find_map(|mut fields| (fields.next() == Some(id)).then(|| fields.next()).flatten())?;
        let (address, rest) = address.split_once('@')?;
        let (host, port) = address.rsplit_once(':')?;
        let name = rest.split(',').nth(1).filter(|name| !name.is_empty());
        Some(Server::new(name.unwrap_or(host), port.parse().ok()?))
    };
    let marks = lines().flatten().filter_map(|field| {
        let (slot, id) = field
            .strip_prefix('[')?
            .strip_suffix(']')?
            .split_once("->-")?;
        Some((slot.parse().ok()?, place_of(id)?))
    });
    marks.collect()
}

/// Every node that has slots, in the same order each time.
fn primaries(client: &Client) -> Vec<Server> {
    let routing = client.cached_cluster_state();
    let mut nodes = routing.map_or(Vec::new(), |routing| routing.unique_primary_nodes());
    nodes.sort_by_key(Server::to_string);
    nodes
}

fn at(client: &Client, node: &Server) -> impl ClientLike + use<> {
    client.with_cluster_node(node)
}

impl Dragonfly {
    /// The slot of a key, and the node that has it; `None` when there is no cluster.
    pub(super) fn place_of(&self, key: &[u8]) -> Option<(u16, Option<String>)> {
        self.is_cluster.then(|| {
            let slot = fred::util::redis_keyslot(key);
            let routing = self.client.cached_cluster_state();
            let node = routing.and_then(|routing| Some(routing.get_server(slot)?.to_string()));
            (slot, node)
        })
    }

    /// A page of the keys of one master; the masters of a cluster come one after the other. The cursor is then a
    /// master, a space, and its own cursor.
    pub(in super::super) async fn scan(
        &self,
        cursor: Option<Bytes>,
        count: usize,
    ) -> Result<Page, StoreError> {
        let masters = self.masters()?;
        let name = |place: usize| {
            masters[place]
                .as_ref()
                .map_or(String::new(), Server::to_string)
        };
        let text = cursor.as_deref().map(String::from_utf8_lossy);
        let (place, cursor) = match text.as_deref().and_then(|text| text.split_once(' ')) {
            None => (0, "0"),
            Some((master, cursor)) => {
                // One that has gone is left out: its slots are with another one now.
                match (0..masters.len()).find(|&place| name(place).as_str() >= master) {
                    Some(place) if name(place) == master => (place, cursor),
                    Some(place) => (place, "0"),
                    None => return Ok(Page::default()),
                }
            }
        };
        let arguments = vec![
            cursor.to_owned().into(),
            Bytes::from_static(b"COUNT"),
            count.max(1).to_string().into(),
        ];
        let (next, keys): (String, Vec<Value>) = self
            .ask_at(masters[place].as_ref(), "SCAN", arguments)
            .await?;
        let next = match (&*next, place + 1) {
            ("0", following) if following == masters.len() => None,
            ("0", following) => Some(format!("{} 0", name(following))),
            (next, _) => Some(format!("{} {next}", name(place))),
        };
        Ok(Page {
            keys: keys.into_iter().filter_map(into_bytes).collect(),
            next: next.map(Bytes::from),
        })
    }

    pub(in super::super) async fn stats(&self) -> Result<StoreStats, StoreError> {
        let masters = self.masters()?;
        let each = masters.iter().map(async |master| {
            let info: String = self.ask_at(master.as_ref(), "INFO", vec![]).await?;
            // While Dragonfly reads its data, it counts the keys that it has read so far; but no PING is answered.
            if info::is_of_dragonfly(&info) {
                let pong: Result<Value, _> = self.ask_at(master.as_ref(), "PING", vec![]).await;
                if let Err(loading @ StoreError::Loading(_)) = pong {
                    return Err(loading);
                }
            }
            let keys: u64 = self.ask_at(master.as_ref(), "DBSIZE", vec![]).await?;
            Ok(info::parse(&info, keys))
        });
        let all = try_join_all(each).await?;
        let sum = all.into_iter().reduce(|one, other| info::sum(one, &other));
        Ok(sum.unwrap_or_default())
    }

    /// Every server that has keys of its own, at least one; `None` stands for the only one there is.
    fn masters(&self) -> Result<Vec<Option<Server>>, StoreError> {
        if !self.is_cluster {
            return Ok(vec![None]);
        }
        // Not by `ready`, which lets only one of several questions through to a store that is frozen.
        let masters = primaries(&self.client);
        if masters.is_empty() {
            let message = "no node of the cluster is known";
            return Err(StoreError::Unavailable(message.into()));
        }
        Ok(masters.into_iter().map(Some).collect())
    }

    async fn ask_at<R: FromValue>(
        &self,
        node: Option<&Server>,
        name: &'static str,
        arguments: Vec<Bytes>,
    ) -> Result<R, StoreError> {
        let client = self.ready()?;
        let Some(node) = node else {
            return self.done(pin!(client.custom(named(name), arguments))).await;
        };
        let client = at(client, node);
        self.done(pin!(client.custom(named(name), arguments))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_that_a_node_gives_away_are_found_with_their_new_place() {
        let table = "\
            aa 127.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-5460 [77->-bb] [78-<-bb] [79->-gone]\n\
            bb 10.0.0.2:7002@17002,,tls-port=0 master - 0 1 2 connected 5461-10922\n\
            cc ::1:7003@17003 slave aa 0 1 3 connected\n";
        assert_eq!(moving(table), [(77, Server::new("10.0.0.2", 7002))]);
        let named = table.replace(",,tls", ",b.example.com,tls");
        assert_eq!(moving(&named), [(77, Server::new("b.example.com", 7002))]);
        assert!(moving("").is_empty());
        assert!(moving("aa 127.0.0.1:7001@17001 myself [x->-aa] [5->-aa").is_empty());
    }
}
