//! Dragonfly's own clusters: one server that acts as one, and several that somebody outside tells of their slots.
//!
//! Enters: servers, and the news of who has which slot. Leaves: whole keys and right answers, also while slots move. Must
//! not need Redis.

use serde_json::{Value, json};

use crate::engine::{Engine, only_on};
use crate::support::{
    Serve, Server, assert_balanced, eventually, expect_code, json, json_file, kvpoc, seed, start,
    start_until, stderr, stdout,
};

const LAST_SLOT: u16 = 16_383;
const KEY: &str = "user:session:42";

fn is_left_out() -> bool {
    !only_on(&[Engine::Dragonfly], "it has no such cluster")
}

/// Servers that wait for being told what they are.
struct Nodes(Vec<Server>);

impl Nodes {
    fn start(count: usize) -> Self {
        let start = |_| Server::start_on(Engine::Dragonfly, "--cluster_mode=yes");
        Self((0..count).map(start).collect())
    }

    /// Each has its part of the slots.
    fn configured(count: u16) -> Self {
        let nodes = Self::start(count.into());
        nodes.tell(&nodes.config(&even(count)));
        nodes
    }

    /// Whose slots are which: one row a node, each of first and last slots.
    fn config(&self, slots: &[Vec<(u16, u16)>]) -> Value {
        let shards = self.0.iter().zip(slots).map(|(node, slots)| {
            json!({ "slot_ranges": ranges(slots), "master": place(node), "replicas": [] })
        });
        shards.collect()
    }

    fn tell(&self, config: &Value) {
        for node in &self.0 {
            let answer = node.ask_words(&["DFLYCLUSTER", "CONFIG", &config.to_string()]);
            assert_eq!(answer, "+OK\r\n", "{config}");
        }
    }

    /// By one of its nodes, as the others are to be found out.
    fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.0[1].port)
    }

    fn owner_of(&self, key: &str) -> usize {
        let owns = |node: &Server| node.ask(&format!("EXISTS {key}")) == ":1\r\n";
        self.0.iter().position(owns).expect("an owner")
    }

    fn keys(&self) -> Vec<u64> {
        let keys = |node: &Server| {
            let answer = node.ask("DBSIZE");
            answer
                .trim_start_matches(':')
                .trim()
                .parse()
                .expect("a number")
        };
        self.0.iter().map(keys).collect()
    }
}

fn ranges(slots: &[(u16, u16)]) -> Value {
    let range = |&(start, end): &(u16, u16)| json!({ "start": start, "end": end });
    slots.iter().map(range).collect()
}

fn even(count: u16) -> Vec<Vec<(u16, u16)>> {
    let first = |place: u16| u32::from(place) * (u32::from(LAST_SLOT) + 1) / u32::from(count);
    let row = |place| vec![(first(place) as u16, (first(place + 1) - 1) as u16)];
    (0..count).map(row).collect()
}

fn place(node: &Server) -> Value {
    json!({ "id": id(node), "ip": "127.0.0.1", "port": node.port })
}

fn id(node: &Server) -> String {
    let answer = node.ask("CLUSTER MYID");
    let id = answer.lines().last().expect("an id");
    id.trim_start_matches('+').to_owned()
}

fn slot_of(node: &Server, key: &str) -> u16 {
    let answer = node.ask(&format!("CLUSTER KEYSLOT {key}"));
    answer
        .trim_start_matches(':')
        .trim()
        .parse()
        .expect("a slot")
}

/// The slots without this one.
fn without(slots: &[(u16, u16)], slot: u16) -> Vec<(u16, u16)> {
    let parts = slots.iter().flat_map(|&(first, last)| {
        if (first..=last).contains(&slot) {
            [(first, slot.wrapping_sub(1)), (slot + 1, last)]
        } else {
            [(first, last), (1, 0)]
        }
    });
    parts
        .filter(|(first, last)| first <= last && *last <= LAST_SLOT)
        .collect()
}

#[test]
fn one_server_that_acts_as_a_cluster_is_used_as_one_or_as_itself() {
    if is_left_out() {
        return;
    }
    let server = Server::start_on(Engine::Dragonfly, "--cluster_mode=emulated");
    let (cluster, single) = (
        server.url().replace("redis:", "redis-cluster:"),
        server.url(),
    );
    for (url, fetch) in [(&cluster, "pipeline"), (&single, "mget")] {
        let summary = seed(url, 2_000, "--verify --force");
        assert_eq!(summary["verification"]["checked"], 2_000, "{url}");
        let found = json(&expect_code(
            &format!("inspect {KEY} --json --store {url}"),
            0,
        ));
        assert_eq!(found["content"]["id"], 42, "{found}");
        if url == &cluster {
            assert_eq!(found["slot"], slot_of(&server, KEY));
            assert_eq!(found["node"], format!("127.0.0.1:{}", server.port));
        }
        let all = json(&expect_code(&format!("inspect --json --store {url}"), 0));
        assert_eq!(all["store"]["engine"], "dragonfly", "{all}");
        assert_eq!(all["sample"]["keys"], 2_001, "{all}");
        let serve = Serve::start(url, "--allow-writes");
        assert_eq!(serve.get("/stats").json()["fetch"], fetch, "{url}");
        reads_and_writes_well(&serve);
    }
}

fn reads_and_writes_well(serve: &Serve) {
    for id in 0..50 {
        assert_eq!(serve.get(&format!("/user/session/{id}")).json()["id"], id);
    }
    let ids: Vec<String> = (0..50).map(|id| (id * 7 % 50).to_string()).collect();
    let sessions = serve
        .get(&format!("/user/sessions?ids={}", ids.join(",")))
        .json();
    for (place, id) in ids.iter().enumerate() {
        assert_eq!(sessions[place]["id"].to_string(), *id, "{sessions}");
    }
    let entries = json!({"entries": [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}, {"key": "c", "value": "3"}]});
    assert_eq!(serve.post("/v1/mset", &entries).status, 204);
    let values = serve.get("/v1/keys?k=b&k=absent&k=a&k=c").json();
    assert_eq!(values["values"], json!(["2", null, "1", "3"]));
    for key in ["a", "b", "c"] {
        let path = format!("/v1/keys/{key}");
        assert_eq!(serve.request("DELETE", &path, b"").status, 204);
        assert_eq!(serve.get(&path).status, 404);
    }
}

#[test]
fn several_servers_share_the_keys_and_each_is_asked_for_its_own() {
    if is_left_out() {
        return;
    }
    let nodes = Nodes::configured(3);
    let url = nodes.url();
    let summary = seed(&url, 3_000, "--verify");
    assert_eq!(summary["verification"]["checked"], 3_000);
    let keys = nodes.keys();
    assert!(
        keys.iter().sum::<u64>() == 3_001 && keys.iter().all(|&keys| keys > 500),
        "{keys:?}"
    );
    for more in ["", "--store-reads fred"] {
        reads_and_writes_well(&Serve::start(&url, &format!("--allow-writes {more}")));
    }
    let all = json(&expect_code(&format!("inspect --json --store {url}"), 0));
    assert_eq!(all["store"]["keys"], 3_001, "{all}");
    assert_eq!(all["sample"]["keys"], 3_001, "{all}");
    let found = json(&expect_code(
        &format!("inspect {KEY} --json --store {url}"),
        0,
    ));
    assert_eq!(found["slot"], slot_of(&nodes.0[0], KEY));
    let owner = nodes.0[nodes.owner_of(KEY)].port;
    assert_eq!(found["node"], format!("127.0.0.1:{owner}"));
    assert!(found["memory_bytes"].as_u64() >= Some(256), "{found}");
    assert!(!found["encoding"].is_null(), "{found}");

    // One of them, taken for all.
    let node = format!("redis://127.0.0.1:{}", nodes.0[0].port);
    let output = kvpoc(&format!("seed --keys 100 --retry-for 1s --store {node}"));
    let text = stdout(&output) + &stderr(&output);
    assert_ne!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("write redis-cluster"), "{text}");
}

#[test]
fn servers_that_nobody_has_told_of_their_slots_are_waited_for() {
    if is_left_out() {
        return;
    }
    let nodes = Nodes::start(2);
    let url = nodes.url();
    let output = kvpoc(&format!("inspect --store {url}"));
    assert_eq!(output.status.code(), Some(69), "{}", stdout(&output));
    let text = stderr(&output);
    assert!(text.contains("nobody has some of the slots"), "{text}");
    let line = format!("seed --json --verify --keys 1000 --retry-for 1m --store {url}");
    let (mut seeding, told) = start_until(&line, "; retrying for");
    assert!(told.contains("nobody has some of the slots"), "{told}");
    let serve = Serve::start(&url, "--wait-for-store 1m");
    assert_eq!(serve.get("/readyz").status, 503);
    nodes.tell(&nodes.config(&even(2)));
    assert_eq!(seeding.ended(), Some(0));
    assert_eq!(json(&seeding.output())["verification"]["checked"], 1_000);
    eventually("readiness", || {
        (serve.get("/readyz").status == 200).then_some(())
    });
    assert_eq!(serve.get("/user/session/42").json()["id"], 42);
}

#[test]
fn slots_that_move_with_their_keys_cost_no_request_and_no_wrong_answer() {
    if is_left_out() {
        return;
    }
    for more in ["", "--store-reads fred"] {
        let nodes = Nodes::configured(2);
        let url = nodes.url();
        seed(&url, 3_000, "");
        let serve = Serve::start(&url, &format!("--allow-writes --store-timeout 5s {more}"));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("bench.json");
        let line = format!(
            "bench --target {} --rps 300 --duration 8s --warmup 0s --verify 1 --max-lag 10s \
             --slo rate=0%,p99=none --json {}",
            serve.url(),
            file.display()
        );
        let (mut bench, _) = start_until(&line, "requests  ");
        // Half of what the first one has goes to the second, keys and all.
        let moved = (0, 4_095);
        let mut config = nodes.config(&even(2));
        config[0]["migrations"] = json!([{
            "slot_ranges": ranges(&[moved]), "node_id": id(&nodes.0[1]), "ip": "127.0.0.1", "port": nodes.0[1].port,
        }]);
        nodes.tell(&config);
        eventually("the keys at their new place", || {
            let status = nodes.0[0].ask("DFLYCLUSTER SLOT-MIGRATION-STATUS");
            status.contains("FINISHED").then_some(())
        });
        nodes.tell(&nodes.config(&[vec![(4_096, 8_191)], vec![moved, (8_192, LAST_SLOT)]]));
        reads_and_writes_well(&serve);
        assert_eq!(bench.ended(), Some(0), "{more}: {}", bench.output());
        let results = json_file(&file);
        assert_balanced(&results);
        assert_eq!(results["requests"]["ok"], 2_400, "{more}: {results}");
        let line = format!("seed --verify-only --json --store {url} --keys 3000");
        let found = json(&expect_code(&line, 0));
        assert_eq!(found["verification"]["checked"], 3_000);
        let keys = nodes.keys();
        assert!(keys[0] < keys[1] / 2, "{keys:?}");
    }
}

#[test]
fn a_slot_that_is_given_to_another_server_is_asked_for_there() {
    if is_left_out() {
        return;
    }
    let nodes = Nodes::configured(3);
    let url = nodes.url();
    seed(&url, 1_000, "");
    let serve = Serve::start(&url, "--allow-writes");
    assert_eq!(serve.get("/user/session/42").json()["id"], 42);
    let record = serve.get(&format!("/v1/keys/{KEY}")).body;
    let (slot, from) = (slot_of(&nodes.0[0], KEY), nodes.owner_of(KEY));
    let to = (from + 1) % 3;
    let mut slots = even(3);
    slots[from] = without(&slots[from], slot);
    slots[to].push((slot, slot));
    nodes.tell(&nodes.config(&slots));
    // Without its keys: it was only said who has it.
    assert_eq!(serve.get("/user/session/42").status, 404);
    assert_eq!(
        serve
            .request("PUT", &format!("/v1/keys/{KEY}"), &record)
            .status,
        204
    );
    assert_eq!(nodes.owner_of(KEY), to);
    assert_eq!(serve.get("/user/session/42").json()["id"], 42);
    // What is with it no more is loaded again.
    let mut loading = start(&format!(
        "seed --json --quiet --resume --verify --keys 1000 --store {url}"
    ));
    assert_eq!(loading.ended(), Some(0), "{}", loading.output());
}
