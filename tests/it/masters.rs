//! A real cluster that loses a master or a replica: who has nothing to do with it does not notice.

use serde_json::Value;

use crate::cluster::{Cluster, MASTERS, failed_by_second};
use crate::support::{
    Serve, Server, assert_balanced, eventually, json_file, kvpoc, seed, start, start_until, stderr,
};

#[test]
fn replicas_are_read_while_they_answer_and_masters_when_they_do_not() {
    let mut cluster = Cluster::start();
    let url = cluster.url();
    seed(&url, 1_000, "");
    for master in cluster.masters() {
        assert_eq!(master.ask("WAIT 1 5000"), ":1\r\n");
    }
    let serve = Serve::start(&url, "--threads 1 --read-from replica --store-timeout 1s");
    let read = || (0..60).all(|id| serve.get(&format!("/user/session/{id}")).status == 200);
    // Who was asked for keys since the last look.
    let asked = |cluster: &Cluster| {
        let stats = |line| {
            cluster
                .0
                .iter()
                .map(|node| node.ask(line))
                .collect::<Vec<_>>()
        };
        stats("CONFIG RESETSTAT");
        let all = read();
        let stats = stats("INFO commandstats");
        let asked = stats.iter().map(|stats| stats.contains("cmdstat_get:"));
        (all, asked.collect::<Vec<_>>())
    };
    // A node tells of a replica once it knows that it has anything.
    let replicas = (true, vec![false, false, false, true, true, true]);
    eventually("all replicas", || {
        (asked(&cluster) == replicas).then_some(())
    });
    // What is asked for at the moment of its death may be lost, and no more.
    cluster.0[MASTERS].kill();
    let without_one = (true, vec![true, false, false, false, true, true]);
    eventually("its master in its place", || {
        (asked(&cluster) == without_one).then_some(())
    });
    cluster.0[MASTERS].start_again();
    eventually("the replica again", || {
        let now = asked(&cluster);
        assert!(now.0, "{now:?}");
        (now == replicas).then_some(())
    });
}

#[test]
fn replicas_are_known_of_clusters_only() {
    for (line, said) in [
        ("--store redis://127.0.0.1:1", "it needs a cluster"),
        (
            "--store redis-cluster://127.0.0.1:1 --store-reads fred",
            "fred reads from masters",
        ),
    ] {
        let output = kvpoc(&format!("serve --port 0 --read-from replica {line}"));
        assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}

/// What is done to a master.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Harm {
    Kill,
    Freeze,
}

#[test]
fn a_master_that_dies_costs_only_what_it_has() {
    harm_a_master(Harm::Kill);
}

#[test]
fn a_master_that_hangs_costs_only_what_it_has() {
    harm_a_master(Harm::Freeze);
}

/// Keys that the others have are read throughout, and its own again once its replica is master.
fn harm_a_master(harm: Harm) {
    let mut cluster = Cluster::start();
    let url = cluster.url();
    seed(&url, 3_000, "");
    let (mut its, mut others) = (Vec::new(), Vec::new());
    for number in 0..60 {
        let key = format!("key:{number}");
        let line = format!("SET {key} value-{number}");
        let set = |node: &Server| node.ask(&line) == "+OK\r\n";
        match cluster.masters().iter().position(set) {
            Some(0) => its.push(key),
            Some(_) => others.push(key),
            None => panic!("nobody takes {key}"),
        }
    }
    assert_eq!(cluster.0[0].ask("WAIT 1 5000"), ":1\r\n");
    let its = its.first().expect("a key of the first master");
    // A master that votes writes that down first, which may take a while on a busy disk.
    let serve = Serve::start(&url, "--store-timeout 1s");
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    // Fifteen keys of the others in every request, beside one that is always another.
    let elsewhere: Vec<String> = others
        .iter()
        .take(15)
        .map(|key| format!("k={key}"))
        .collect();
    let elsewhere = format!(
        "{}/v1/keys?{}&k=%7B{}%7D{{id}}",
        serve.url(),
        elsewhere.join("&"),
        others[0]
    );
    let load = "--duration 12s --warmup 0s --max-lag 10s --slo rate=0%,p99=none,errors=0% --out";
    let line = |target: &str, rps: u32, name: &str| {
        format!(
            "bench --target {target} --rps {rps} {load} {}",
            file(name).display()
        )
    };
    let mut others_only = start(&(line(&elsewhere, 400, "others") + " --keys 3000"));
    let (mut all, _) = start_until(&line(&serve.url(), 100, "all"), "requests  ");
    match harm {
        Harm::Kill => cluster.0[0].kill(),
        Harm::Freeze => cluster.0[0].process().signal(rustix::process::Signal::STOP),
    }
    let read = || serve.get(&format!("/v1/keys/{its}")).status;
    eventually("an error", || (read() != 200).then_some(()));
    assert_eq!(serve.get("/readyz").status, 200, "the others are there");
    eventually("the replica in its place", || (read() == 200).then_some(()));
    assert_eq!(
        cluster.0[MASTERS].ask("ROLE").lines().nth(2),
        Some("master")
    );

    all.ended();
    others_only.ended();
    let results = json_file(&file("all/report.json"));
    assert_balanced(&results);
    let failed = |results: &Value| {
        let count = |name: &str| results["requests"][name].as_u64().expect(name);
        count("scheduled") - count("ok")
    };
    // Nearly every request has a key of it: this is how it looks while it is away.
    assert!(failed(&results) > 20, "{harm:?}: {}", results["requests"]);
    assert!(
        failed(&results) < 1_000,
        "{harm:?}: {}",
        results["requests"]
    );
    let results = json_file(&file("others/report.json"));
    assert_balanced(&results);
    assert_eq!(results["requests"]["scheduled"], 4_800);
    let csv = std::fs::read_to_string(file("others/series.csv")).expect("the file");
    let by_second = failed_by_second(&csv);
    assert!(
        failed(&results) <= 4,
        "{harm:?}: {by_second:?} {}",
        results["requests"]
    );
}
