//! Several generators that follow one schedule, and their results as one.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::{
    Serve, Store, assert_balanced, expect_code, json, json_file, kvpoc, seed, start, stderr,
};

const SHARDS: u64 = 4;

#[test]
fn four_generators_give_one_verdict_over_all_that_they_did() {
    let store = &Store::all()[0];
    seed(&store.url(), 1_000, "");
    let serve = Serve::start(&store.url(), "");
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    // Far enough away for the slowest machine to have all of them connected.
    let start_at = SystemTime::now() + Duration::from_secs(8);
    let start_at = humantime::format_rfc3339_seconds(start_at);
    let load = format!(
        "--target {} --rps 801 --duration 2s --warmup 500ms --connections 4 --max-lag 10s --verify 1 \
         --slo rate=0%,p99=none --start-at {start_at}",
        serve.url()
    );
    let mut generators: Vec<_> = (0..SHARDS)
        .map(|index| {
            let json = file(&format!("{index}.json"));
            start(&format!(
                "bench {load} --shard {index}/{SHARDS} --json {json}"
            ))
        })
        .collect();
    for generator in &mut generators {
        assert_eq!(generator.ended(), Some(0), "{}", generator.output());
    }
    let files: Vec<String> = (0..SHARDS)
        .map(|index| file(&format!("{index}.json")))
        .collect();
    let parts: Vec<Value> = files
        .iter()
        .map(|file| json_file(Path::new(file)))
        .collect();

    let merged = format!("bench --merge {}", files.join(" "));
    let text = expect_code(&merged, 0);
    assert!(text.contains("Verdict: PASS"), "{text}");
    let merged = json(&expect_code(&format!("{merged} --json -"), 0));
    assert_balanced(&merged);
    for path in [
        "/requests/scheduled",
        "/requests/ok",
        "/warmup/ok",
        "/keys/hits",
        "/latency_us/count",
        "/service_us/count",
        "/reconciliation/keys_asked",
    ] {
        let number = |value: &Value| value.pointer(path).and_then(Value::as_u64).expect(path);
        let sum: u64 = parts.iter().map(number).sum();
        assert_eq!(number(&merged), sum, "{path}");
    }
    assert_eq!(merged["requests"]["scheduled"], 1_602);
    let rate = merged["rate"]["target_rps"].as_f64().expect("a rate");
    assert!((rate - 801.0).abs() < 0.01, "{rate}");
    let most = |name: &str| {
        parts
            .iter()
            .filter_map(|part| part["latency_us"][name].as_u64())
            .max()
    };
    assert_eq!(merged["latency_us"]["max"].as_u64(), most("max"));
    assert!(merged["latency_us"]["p99"].as_u64() <= most("p99"));
    assert_eq!(merged["conditions"]["generators"], SHARDS);
    assert_eq!(merged["conditions"]["connections"], 4 * SHARDS);

    // What the load has no part of cannot be bounded, as in a run.
    for slo in ["stage2.p99=1us", "write.p99=1us"] {
        let output = kvpoc(&format!("bench --merge {} --slo {slo}", files.join(" ")));
        assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
        assert!(stderr(&output).contains("--slo: "), "{}", stderr(&output));
    }

    // A shard less is no whole, and neither is one twice.
    for files in [&files[1..], &[&files[..3], &files[..1]].concat()] {
        let output = kvpoc(&format!("bench --merge {}", files.join(" ")));
        assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
        assert!(stderr(&output).contains("shard"), "{}", stderr(&output));
    }
}

#[test]
fn generators_whose_clocks_differ_give_no_verdict() {
    let store = &Store::all()[0];
    seed(&store.url(), 100, "");
    let serve = Serve::start(&store.url(), "");
    let folder = tempfile::tempdir().expect("a folder");
    let now = SystemTime::now();
    // They begin so long after one another as their clocks would differ.
    let files = [(0, 4), (1, 7)].map(|(index, after_s)| {
        let start_at = humantime::format_rfc3339_seconds(now + Duration::from_secs(after_s));
        let file = folder.path().join(format!("{index}.json"));
        expect_code(
            &format!(
                "bench --target {} --rps 100 --duration 1s --warmup 0s --max-lag 10s --slo rate=0%,p99=none \
                 --start-at {start_at} --shard {index}/2 --json {}",
                serve.url(),
                file.display()
            ),
            0,
        );
        file
    });
    let merged = format!(
        "bench --merge {} {}",
        files[0].display(),
        files[1].display()
    );
    let text = expect_code(&merged, 3);
    assert!(text.contains("began 3.0 s after another"), "{text}");
    // As the second one would have written it with a clock that is three seconds behind.
    let [first, mut second] = files.each_ref().map(|file| json_file(file));
    second["evidence"]["started_at_ms"] = first["evidence"]["started_at_ms"].clone();
    std::fs::write(&files[1], second.to_string()).expect("it is written");
    let text = expect_code(&merged, 3);
    assert!(
        text.contains("by the target's clock one generator began at least "),
        "{text}"
    );
}
