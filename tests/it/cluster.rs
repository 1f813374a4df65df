//! A real cluster, three masters and three replicas: whole keys and right answers while masters die and slots move.

use serde_json::{Value, json};

use crate::secure::certificates_for;
use crate::support::{
    Process, Serve, Server, assert_balanced, eventually, expect_code, free_port, json, json_file,
    kvpoc, seed, start, start_until, stderr, stdout,
};

/// Every way in which serve reads keys from a cluster.
const WAYS_TO_READ: [&str; 2] = ["", "--store-reads fred"];

pub(crate) const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

/// Masters first, then a replica of each.
pub(crate) struct Cluster(pub(crate) Vec<Server>);

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::start_with(&[], "")
    }

    /// With settings of its own; with TLS, on ports of their own.
    fn start_with(tls_ports: &[u16], more: &str) -> Self {
        let bus_ports: Vec<u16> = (0..2 * MASTERS).map(|_| free_port()).collect();
        let start = |(place, bus_port): (usize, &u16)| {
            let tls_port = tls_ports.get(place);
            let tls_port = tls_port.map_or(String::new(), |port| format!("--tls-port {port}"));
            Server::start_with(&format!(
                "{more} {tls_port} --cluster-enabled yes --cluster-port {bus_port} --cluster-node-timeout 1000 \
                 --cluster-replica-validity-factor 0 --repl-diskless-sync-delay 0 \
                 --cluster-require-full-coverage no"
            ))
        };
        let cluster = Self(bus_ports.iter().enumerate().map(start).collect());
        for (place, node) in cluster.0.iter().enumerate() {
            expect_ok(node, &format!("CLUSTER SET-CONFIG-EPOCH {}", place + 1));
        }
        for (place, master) in cluster.masters().iter().enumerate() {
            let (first, end) = (SLOTS * place / MASTERS, SLOTS * (place + 1) / MASTERS);
            expect_ok(
                master,
                &format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1),
            );
        }
        for (place, (node, bus_port)) in cluster.0.iter().zip(bus_ports).enumerate() {
            let port = tls_ports.get(place).unwrap_or(&node.port);
            let line = format!("CLUSTER MEET 127.0.0.1 {port} {bus_port}");
            expect_ok(&cluster.0[0], &line);
        }
        for (replica, master) in cluster.0[MASTERS..].iter().zip(cluster.masters()) {
            let line = format!("CLUSTER REPLICATE {}", id(master));
            eventually("a replica", || {
                (replica.ask(&line) == "+OK\r\n").then_some(())
            });
        }
        for node in &cluster.0 {
            eventually("a whole cluster", || {
                let known = node.ask("CLUSTER INFO");
                (known.contains("cluster_state:ok") && known.contains("cluster_known_nodes:6"))
                    .then_some(())
            });
        }
        for (replica, master) in cluster.0[MASTERS..].iter().zip(cluster.masters()) {
            eventually("a replica in step", || {
                let in_step = replica
                    .ask("INFO replication")
                    .contains("master_link_status:up");
                let known = cluster.0.iter().all(|node| {
                    let replicas = node.ask(&format!("CLUSTER REPLICAS {}", id(master)));
                    replicas.contains(&id(replica))
                });
                (in_step && known).then_some(())
            });
        }
        cluster
    }

    pub(crate) fn masters(&self) -> &[Server] {
        &self.0[..MASTERS]
    }

    /// By one of its nodes, as the others are to be found out.
    pub(crate) fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.0[1].port)
    }

    fn owner_of(&self, key: &str) -> usize {
        let owns = |node: &Server| node.ask(&format!("EXISTS {key}")) == ":1\r\n";
        self.masters().iter().position(owns).expect("an owner")
    }
}

fn expect_ok(node: &Server, line: &str) {
    assert_eq!(node.ask(line), "+OK\r\n", "{line}");
}

fn id(node: &Server) -> String {
    let answer = node.ask("CLUSTER MYID");
    answer.lines().nth(1).expect("an id").to_owned()
}

/// Errors in each second of a run.
pub(crate) fn failed_by_second(csv: &str) -> Vec<u64> {
    let mut lines = csv.lines().map(|line| line.split(','));
    let mut names = lines.next().expect("names");
    let column = names.position(|name| name == "failed").expect("a column");
    lines
        .map(|mut cells| {
            let cell = cells.nth(column).expect("a cell");
            cell.parse().expect("a number")
        })
        .collect()
}

#[test]
fn a_cluster_loses_no_key_and_answers_again_when_a_master_dies() {
    for way in WAYS_TO_READ {
        a_master_dies(way);
    }
}

fn a_master_dies(way: &str) {
    const SECONDS: usize = 16;
    let mut cluster = Cluster::start();
    let url = cluster.url();
    let summary = seed(&url, 200_000, "--verify");
    assert_eq!(summary["store_keys_after"], 200_001);
    for master in cluster.masters() {
        let acknowledged = master.ask("WAIT 1 5000");
        assert_eq!(acknowledged, ":1\r\n", "its replica has all");
    }

    let serve = Serve::start(&url, way);
    let folder = tempfile::tempdir().expect("a folder");
    let load = format!("--rps 300 --duration {SECONDS}s --warmup 0s --verify 1 --max-lag 10s");
    let line = format!(
        "bench --target {} {load} --slo rate=0%,p99=none,errors=0% --out {}",
        serve.url(),
        folder.path().display()
    );
    let (mut bench, first) = start_until(&line, "requests  ");
    assert!(first.contains("  0 failed"), "{first}");
    cluster.0[0].kill();
    let code = bench.ended();
    let results = json_file(&folder.path().join("report.json"));
    // What failed is all that is wrong: whatever was answered was right, and the new master counts anew.
    assert_eq!(code, Some(1), "{results}");
    assert_eq!(results["objectives"][0]["met"], true, "{results}");
    assert_balanced(&results);

    let csv = std::fs::read_to_string(folder.path().join("series.csv")).expect("the file");
    let failed = failed_by_second(&csv);
    assert_eq!(
        failed.iter().sum::<u64>(),
        results["requests"]["errors"],
        "{csv}"
    );
    assert!(
        failed.iter().sum::<u64>() > 0,
        "the death was not noticed: {csv}"
    );
    // A second until it is missed, one for the election, and what a busy machine takes.
    let last = failed.iter().rposition(|&failed| failed > 0).expect("one");
    assert!(last < SECONDS - 3, "{csv}");

    let line = format!("seed --verify-only --json --store {url} --keys 200k");
    let found = json(&expect_code(&line, 0));
    assert_eq!(found["verification"]["checked"], 200_000);
}

#[test]
fn a_slot_that_moves_under_load_costs_no_request_and_no_wrong_answer() {
    for way in WAYS_TO_READ {
        a_slot_moves(way);
    }
}

fn a_slot_moves(way: &str) {
    let cluster = Cluster::start();
    let url = cluster.url();
    seed(&url, 3_000, "");
    let key = "user:session:42";
    let from = cluster.owner_of(key);
    let (from, to) = (&cluster.0[from], &cluster.0[(from + 1) % MASTERS]);
    let slot = from.ask(&format!("CLUSTER KEYSLOT {key}"));
    let slot = slot.trim_start_matches(':').trim().to_owned();

    let serve = Serve::start(&url, &format!("--allow-writes --store-timeout 5s {way}"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bench.json");
    let line = format!(
        "bench --target {} --rps 500 --duration 6s --warmup 0s --verify 1 --max-lag 10s --slo rate=0%,p99=none \
         --keys-dist hot:0.03/0.9 --json {}",
        serve.url(),
        file.display()
    );
    let (mut bench, _) = start_until(&line, "requests  ");
    expect_ok(
        to,
        &format!("CLUSTER SETSLOT {slot} IMPORTING {}", id(from)),
    );
    expect_ok(
        from,
        &format!("CLUSTER SETSLOT {slot} MIGRATING {}", id(to)),
    );
    expect_ok(from, &format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port));
    // Between two nodes it is read, written, removed and explained as ever.
    assert_eq!(serve.get("/user/session/42").json()["id"], 42);
    let record = serve.get(&format!("/v1/keys/{key}")).body;
    let status = |method, path: &str, body: &[u8]| serve.request(method, path, body).status;
    assert_eq!(status("PUT", &format!("/v1/keys/{key}"), &record), 204);
    let fresh = format!("/v1/keys/{{{key}}}:fresh");
    assert_eq!(status("PUT", &fresh, b"x"), 204);
    assert_eq!(status("DELETE", &fresh, b""), 204);
    assert_eq!(status("DELETE", &fresh, b""), 404);
    // The rest of the slot, then the news of it.
    let rest = from.ask(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
    for key in rest.lines().filter(|line| line.starts_with("user:")) {
        expect_ok(from, &format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port));
    }
    for node in [to, from] {
        expect_ok(node, &format!("CLUSTER SETSLOT {slot} NODE {}", id(to)));
    }
    assert_eq!(bench.ended(), Some(0));
    let results = json_file(&file);
    assert_balanced(&results);
    assert_eq!(results["requests"]["ok"], 3_000, "{results}");
    assert_eq!(
        cluster.owner_of(key),
        (cluster.0.iter().position(|node| node.port == to.port)).expect("it")
    );
}

#[test]
fn a_cluster_is_used_like_any_store() {
    let cluster = Cluster::start();
    let url = cluster.url();
    seed(&url, 2_000, "--ttl 1h --shuffle");
    // In its place of the slots, and by one command a key.
    let found = json(&expect_code(
        &format!("inspect user:session:42 --json --store {url}"),
        0,
    ));
    let slot = cluster.0[0].ask("CLUSTER KEYSLOT user:session:42");
    assert_eq!(format!(":{}\r\n", found["slot"]), slot);
    let owner = cluster.0[cluster.owner_of("user:session:42")].port;
    assert_eq!(found["node"], format!("127.0.0.1:{owner}"));
    // Whichever node has them.
    let keys: Vec<String> = (0..20)
        .map(|index| format!("user:session:{index}"))
        .collect();
    let line = format!("inspect {} --json --store {url}", keys.join(" "));
    let described = json(&expect_code(&line, 0));
    for found in described.as_array().expect("a list") {
        assert!(found["memory_bytes"].as_u64() > Some(256), "{found}");
        assert!(!found["encoding"].is_null(), "{found}");
    }

    let all = json(&expect_code(&format!("inspect --json --store {url}"), 0));
    assert_eq!(all["store"]["keys"], 2_001, "{all}");
    assert_eq!(all["sample"]["keys"], 2_001, "{all}");

    let serve = Serve::start(&url, "--allow-writes --upstash");
    assert_eq!(serve.get("/stats").json()["fetch"], "pipeline");
    let entries = json!({"entries": [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]});
    assert_eq!(serve.post("/v1/mset", &entries).status, 204);
    let values = serve.get("/v1/keys?k=b&k=absent&k=a").json();
    assert_eq!(values["values"], json!(["2", null, "1"]));
    let commands = json!([
        ["SET", "c", "3"],
        ["MGET", "a", "c"],
        ["DEL", "a", "b", "x"],
        ["EXISTS", "a", "c"]
    ]);
    let answers = serve.post("/pipeline", &commands).json();
    let results: Vec<&Value> = answers
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| &one["result"])
        .collect();
    assert_eq!(json!(results), json!(["OK", ["1", "3"], 2, 1]));
}

#[test]
fn a_transaction_has_keys_of_one_slot_and_finds_it_where_it_went() {
    let cluster = Cluster::start();
    let serve = Serve::start(&cluster.url(), "--allow-writes --upstash");
    let write = json!([
        ["SET", "{t}:a", "1"],
        ["MGET", "{t}:a", "{t}:b"],
        ["DEL", "{t}:a"]
    ]);
    let expected = json!([{"result": "OK"}, {"result": ["1", null]}, {"result": 1}]);
    assert_eq!(serve.post("/multi-exec", &write).json(), expected);
    let refused = serve.post("/multi-exec", &json!([["SET", "a", "1"], ["GET", "b"]]));
    assert_eq!(refused.status, 400, "{refused:?}");
    let error = refused.json()["error"].to_string();
    assert!(
        error.contains("CROSSSLOT Keys in request don't hash to the same slot"),
        "{error}"
    );
    assert_eq!(serve.get("/v1/keys/a").status, 404);

    // It is empty, so it moves at once.
    let slot = cluster.0[0].ask("CLUSTER KEYSLOT t");
    let slot = slot.trim_matches([':', '\r', '\n']);
    let place = slot.parse::<usize>().expect("a slot") * MASTERS / SLOTS;
    let to = id(&cluster.0[(place + 1) % MASTERS]);
    for node in [(place + 1) % MASTERS, place, (place + 2) % MASTERS] {
        expect_ok(
            &cluster.0[node],
            &format!("CLUSTER SETSLOT {slot} NODE {to}"),
        );
    }
    assert_eq!(serve.post("/multi-exec", &write).json(), expected);
}

#[test]
fn values_that_read_like_redirections_are_served_like_any_other() {
    let cluster = Cluster::start();
    let serve = Serve::start(&cluster.url(), "--allow-writes");
    let by_fred = Serve::start(&cluster.url(), "--store-reads fred");
    let values = [
        "MOVED to Berlin",
        "MOVED 1 127.0.0.1:1",
        "ASK me anything",
        "CLUSTERDOWN",
    ];
    for (number, value) in values.into_iter().enumerate() {
        let path = format!("/v1/keys/{number}");
        assert_eq!(serve.request("PUT", &path, value.as_bytes()).status, 204);
        assert_eq!(serve.get(&path).text(), value);
        assert_eq!(by_fred.get(&path).text(), value);
    }
    for serve in [serve, by_fred] {
        let found = serve.get("/v1/keys?k=0&k=1&k=2&k=3").json();
        assert_eq!(found["values"], json!(values));
    }
}

#[test]
fn keys_of_all_masters_come_back_in_the_order_in_which_they_were_asked_for() {
    let cluster = Cluster::start();
    for number in 0..100 {
        let key = format!("key:{number}");
        let line = format!("SET {key} value-{number}");
        let set = |node: &Server| node.ask(&line) == "+OK\r\n";
        assert!(cluster.masters().iter().any(set), "{key}");
    }
    // By its tag beside the first one; and of another kind, which is a miss.
    let list = |node: &Server| node.ask("RPUSH {key:0}:list x") == ":1\r\n";
    assert!(cluster.masters().iter().any(list));
    let mut asked: Vec<String> = (0..120)
        .map(|number| format!("k=key:{}", number * 7 % 120))
        .collect();
    asked.push("k=%7Bkey:0%7D:list".to_owned());
    asked.push("k=key:7".to_owned());
    let expected: Vec<Value> = (0..120)
        .map(|number| number * 7 % 120)
        .map(|number| (number < 100).then(|| format!("value-{number}")).into())
        .chain([Value::Null, json!("value-7")])
        .collect();
    let readers = || {
        let readers = |node: &Server| node.clients_whose_last_command_is("get").len();
        cluster.masters().iter().map(readers).collect::<Vec<_>>()
    };
    // fred reads by MGET.
    for (way, connections) in [("--store-reads fred", 0), ("", 1)] {
        let serve = Serve::start(&cluster.url(), &format!("--threads 1 {way}"));
        let found = serve.get(&format!("/v1/keys?{}", asked.join("&"))).json();
        assert_eq!(found["values"], json!(expected), "{way}");
        assert_eq!(readers(), [connections; MASTERS], "{way}");
    }
}

#[test]
fn a_cluster_behind_tls_is_read_if_its_nodes_have_the_name_that_was_given() {
    // It tells of its nodes by address, and they have no certificates for that.
    let folder = certificates_for(&["localhost"]);
    let ports: Vec<u16> = (0..2 * MASTERS).map(|_| free_port()).collect();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let tls = format!(
        "--tls-cluster yes --tls-replication yes --tls-auth-clients no --tls-ca-cert-file {} \
         --tls-cert-file {} --tls-key-file {}",
        file("ca.pem"),
        file("server.pem"),
        file("server-key.pem")
    );
    let cluster = Cluster::start_with(&ports, &tls);
    let url = format!("rediss-cluster://localhost:{}", ports[1]);
    let trusted = format!("--store-tls-ca {}", file("ca.pem"));
    seed(&url, 1_000, &format!("--verify {trusted}"));
    let serve = Serve::start(&url, &format!("--threads 1 {trusted}"));
    for id in 0..50 {
        assert_eq!(serve.get(&format!("/user/session/{id}")).json()["id"], id);
    }
    for master in cluster.masters() {
        assert_eq!(master.clients_whose_last_command_is("get").len(), 1);
    }
    let url = format!("rediss-cluster://127.0.0.1:{}", ports[1]);
    let output = kvpoc(&format!("inspect --store {url} {trusted}"));
    assert_eq!(output.status.code(), Some(69), "{}", stdout(&output));
}

#[test]
fn a_cluster_that_is_none_says_so_and_so_does_one_that_is() {
    let cluster = Cluster::start();
    let node = format!("redis://127.0.0.1:{}", cluster.0[0].port);
    let output = kvpoc(&format!("seed --keys 100 --retry-for 1s --store {node}"));
    let text = stdout(&output) + &stderr(&output);
    assert_ne!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("write redis-cluster"), "{text}");
    let server = Server::start();
    let output = kvpoc(&format!(
        "inspect --store redis-cluster://127.0.0.1:{}",
        server.port
    ));
    assert_eq!(output.status.code(), Some(69), "{}", stdout(&output));
    assert!(
        ["cluster support disabled", "Cluster is disabled"]
            .iter()
            .any(|words| stderr(&output).contains(words))
            && !stderr(&output).contains("Start a store"),
        "{}",
        stderr(&output)
    );
}

/// Starts a load that takes some seconds, and waits until that many keys are there.
fn begin_a_load(cluster: &Cluster, prefix: &str) -> Process {
    // What a master acknowledged and its replica never heard of is written again.
    let load = "--keys 12k --rate 3000 --batch 50 --verify --resume";
    let url = cluster.url();
    let seeding = start(&format!(
        "seed --json --store {url} --key-prefix {prefix} {load}"
    ));
    eventually("the first keys", || {
        let keys = cluster.masters().iter().map(keys_of).sum::<u64>();
        (keys > 1_000).then_some(())
    });
    seeding
}

fn keys_of(node: &Server) -> u64 {
    let answer = node.ask("DBSIZE");
    let keys = answer.trim_start_matches(':').trim().parse();
    keys.unwrap_or_default()
}

fn expect_loaded(mut seeding: Process) {
    let summary = json(&seeding.output());
    assert_eq!(seeding.ended(), Some(0), "{summary}");
    assert_eq!(summary["verification"]["checked"], 12_000, "{summary}");
}

#[test]
fn keys_go_where_their_slot_goes_while_they_are_loaded() {
    let cluster = Cluster::start();
    let seeding = begin_a_load(&cluster, "{one}:");
    let from = cluster.owner_of("{one}:0");
    let (from, to) = (&cluster.0[from], &cluster.0[(from + 1) % MASTERS]);
    let slot = from.ask("CLUSTER KEYSLOT {one}");
    let slot = slot.trim_start_matches(':').trim().to_owned();
    let (goes, comes) = (
        format!("MIGRATING {}", id(to)),
        format!("IMPORTING {}", id(from)),
    );
    expect_ok(to, &format!("CLUSTER SETSLOT {slot} {comes}"));
    expect_ok(from, &format!("CLUSTER SETSLOT {slot} {goes}"));
    // New ones are stored where the slot goes, as that node says; then all of it is there.
    eventually("keys where they go", || (keys_of(to) > 200).then_some(()));
    loop {
        let keys = from.ask(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
        let keys: Vec<&str> = keys.lines().filter(|line| line.starts_with('{')).collect();
        if keys.is_empty() {
            break;
        }
        let port = to.port;
        expect_ok(
            from,
            &format!(
                "MIGRATE 127.0.0.1 {port} \"\" 0 5000 KEYS {}",
                keys.join(" ")
            ),
        );
    }
    for node in [to, from] {
        expect_ok(node, &format!("CLUSTER SETSLOT {slot} NODE {}", id(to)));
    }
    expect_loaded(seeding);
}

#[test]
fn a_load_waits_for_the_replica_of_a_master_that_dies() {
    let mut cluster = Cluster::start();
    let seeding = begin_a_load(&cluster, "user:session:");
    cluster.0[0].kill();
    expect_loaded(seeding);
}
