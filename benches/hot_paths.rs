//! Micro-benchmarks of what runs for every key and every request.
//!
//! `cargo bench` runs all of them in about a minute. They show where time goes; whether a change is faster
//! end to end is for a comparison of whole programs to say.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hyper::Method;
use kvpoc::bench::drive::http::{Bodies, Reader};
use kvpoc::bench::judge::ledger::Outcome;
use kvpoc::bench::judge::tally::{Ending, Tally};
use kvpoc::bench::plan::Arrival;
use kvpoc::bench::plan::keys::Chooser;
use kvpoc::bench::plan::schedule::Schedule;
use kvpoc::bench::plan::workload::{Work, Workload, headers};
use kvpoc::config::Fetch;
use kvpoc::load::{Arrivals, KeysDist, Mix};
use kvpoc::record::{self, Dataset, Decoded, Session};
use kvpoc::serve::reply;
use kvpoc::serve::route::{Limits, route};
use kvpoc::store::Batch;

/// Keys of one request, as in the claim.
const KEYS: u64 = 15;

fn dataset() -> Dataset {
    Dataset {
        key_prefix: "user:session:".into(),
        value_size: "256".parse().expect("a size"),
        seed: 1,
        format: kvpoc::record::Format::Record,
    }
}

fn values() -> Vec<Option<Bytes>> {
    let mut out = BytesMut::new();
    (0..KEYS)
        .map(|index| {
            dataset().put_record(index, &mut out);
            Some(out.split().freeze())
        })
        .collect()
}

fn records(criterion: &mut Criterion) {
    let dataset = dataset();
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(1));
    let mut out = BytesMut::with_capacity(512);
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            dataset.put_record(black_box(123_456), &mut out);
        });
    });
    let value = values().remove(0).expect("a value");
    group.bench_function("decode", |bencher| {
        bencher.iter(|| record::decode(black_box(&value)).expect("a record"));
    });
    group.throughput(Throughput::Elements(256));
    group.bench_function("batch of 256", |bencher| {
        bencher.iter(|| {
            let mut batch = Batch::with_capacity(256, 256 * 300);
            for index in 0..256 {
                batch.push(
                    |out| dataset.put_key(index, out),
                    |out| dataset.put_record(index, out),
                );
            }
            batch
        });
    });
    group.finish();
}

/// A session in the shape of the formats that bincode was chosen before, which have names for its states.
#[derive(serde::Serialize, serde::Deserialize)]
struct Plain<'a, P> {
    id: u64,
    status: &'a str,
    role: &'a str,
    created_at_s: u64,
    expires_at_s: u64,
    ip: [u8; 4],
    user_agent: &'a str,
    padding: P,
}

impl<'a, P> Plain<'a, P> {
    fn of(session: &Session<'a>, padding: P) -> Self {
        Self {
            id: session.id,
            status: session.status.name(),
            role: session.role.name(),
            created_at_s: session.created_at_s,
            expires_at_s: session.expires_at_s,
            ip: session.ip,
            user_agent: session.user_agent,
            padding,
        }
    }
}

/// The same record of 256 bytes in three formats, its size in each name. JSON has to write the padding in base64, which is
/// not in its time; `MessagePack` goes without names of members, which is its shortest form.
fn codecs(criterion: &mut Criterion) {
    let value = values().remove(0).expect("a value");
    let Ok(Decoded::Session(session)) = record::decode(&value) else {
        unreachable!("a seeded record is a session");
    };
    let padding = BASE64_STANDARD.encode(session.padding);
    let as_json = Plain::of(&session, padding.as_str());
    let json = serde_json::to_vec(&as_json).expect("JSON");
    let as_pack = Plain::of(&session, serde_bytes::Bytes::new(session.padding));
    let pack = rmp_serde::to_vec(&as_pack).expect("MessagePack");
    let mut group = criterion.benchmark_group("codec");
    let mut out = BytesMut::with_capacity(1_024);
    group.bench_function(format!("bincode, {} B, encode", value.len()), |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(&session).put(&mut out);
        });
    });
    group.bench_function(format!("bincode, {} B, decode", value.len()), |bencher| {
        bencher.iter(|| record::decode(black_box(&value)).expect("a record"));
    });
    let mut out = Vec::with_capacity(1_024);
    group.bench_function(format!("JSON, {} B, encode", json.len()), |bencher| {
        bencher.iter(|| {
            out.clear();
            serde_json::to_writer(&mut out, black_box(&as_json)).expect("JSON");
        });
    });
    group.bench_function(format!("JSON, {} B, decode", json.len()), |bencher| {
        bencher.iter(|| {
            serde_json::from_slice::<Plain<'_, &str>>(black_box(&json)).expect("a session")
        });
    });
    group.bench_function(
        format!("MessagePack, {} B, encode", pack.len()),
        |bencher| {
            bencher.iter(|| {
                out.clear();
                rmp_serde::encode::write(&mut out, black_box(&as_pack)).expect("MessagePack");
            });
        },
    );
    group.bench_function(
        format!("MessagePack, {} B, decode", pack.len()),
        |bencher| {
            bencher.iter(|| {
                rmp_serde::from_slice::<Plain<'_, &serde_bytes::Bytes>>(black_box(&pack))
                    .expect("a session")
            });
        },
    );
    group.finish();
}

fn serving(criterion: &mut Criterion) {
    let limits = Limits {
        allow_writes: false,
        upstash: false,
        max_keys_per_request: 128,
    };
    let ids: Vec<u64> = (0..KEYS).map(|id| 1_234_567 + id).collect();
    let list: Vec<String> = ids.iter().map(u64::to_string).collect();
    let query = format!("ids={}", list.join(","));
    let values = values();
    let ending = reply::Ending::at("2026-01-02T03:04:05Z");
    let mut group = criterion.benchmark_group("serve, 15 keys");
    group.bench_function("route", |bencher| {
        bencher.iter(|| {
            route(
                &Method::GET,
                "/user/sessions",
                Some(black_box(&query)),
                limits,
            )
        });
    });
    group.bench_function("reply", |bencher| {
        bencher.iter(|| reply::sessions(&ids, black_box(&values), &ending).expect("a reply"));
    });
    group.finish();
}

fn workload() -> Workload {
    Workload {
        mix: Mix::Batch,
        chooser: Chooser::new(KeysDist::Uniform, "10M".parse().expect("a count")),
        keys_per_request: KEYS as u32,
        seed: 1,
        verify: 0.0,
        dataset: Some(dataset()),
        key_prefix: "user:session:".into(),
        headers: headers("127.0.0.1:8080", None),
        fetch: Fetch::Mget,
        form: None,
    }
}

/// The body of what serve answers arrival `number`.
fn body(workload: &Workload, number: u64) -> Bytes {
    let ids: Vec<u64> = workload.indexes(number).collect();
    let values: Vec<Option<Bytes>> = ids.iter().map(|&id| workload.record(id)).collect();
    let ending = reply::Ending::at("2026-01-02T03:04:05Z");
    let reply = reply::sessions(&ids, &values, &ending).expect("a reply");
    reply.into_body()
}

fn judging(criterion: &mut Criterion) {
    let workload = workload();
    let verifying = Workload {
        verify: 1.0,
        ..workload.clone()
    };
    let body = body(&workload, 1);
    let sessions: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let pretty = format!("{sessions:#}");
    let mut group = criterion.benchmark_group("judge, 15 sessions");
    group.bench_function("as serve answers", |bencher| {
        bencher.iter(|| workload.judge(1, 200, black_box(&body)));
    });
    group.bench_function("in another form", |bencher| {
        bencher.iter(|| workload.judge(1, 200, black_box(pretty.as_bytes())));
    });
    group.bench_function("verified", |bencher| {
        bencher.iter(|| verifying.judge(1, 200, black_box(&body)));
    });
    group.finish();
}

fn load(criterion: &mut Criterion) {
    let workload = workload();
    let stages = "20000:1day".parse().expect("a stage");
    let schedule = |arrivals| Schedule::new(&stages, Duration::ZERO, arrivals, 1);
    let schedules = [Arrivals::Constant, Arrivals::Poisson]
        .map(|arrivals| (arrivals, Arc::new(schedule(arrivals))));
    let body = body(&workload, 1);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let answer = [head.as_bytes(), &body].concat();
    let mut group = criterion.benchmark_group("bench, one arrival");
    for (arrivals, schedule) in &schedules {
        let mut due = schedule.thread((0, 1)).cycle();
        group.bench_function(format!("schedule, {arrivals}"), |bencher| {
            bencher.iter(|| due.next());
        });
    }
    let zipf = Chooser::new(
        KeysDist::Zipf { exponent: 0.99 },
        "10M".parse().expect("a count"),
    );
    let mut number = 0;
    group.bench_function("one key, zipf", |bencher| {
        bencher.iter(|| {
            number += 1;
            zipf.index(1, black_box(number))
        });
    });
    let mut request = BytesMut::new();
    group.bench_function("request", |bencher| {
        bencher.iter(|| workload.write_request(black_box(number), &mut request));
    });
    group.bench_function("read and judge", |bencher| {
        bencher.iter(|| {
            let bytes = black_box(answer.as_slice());
            let read = Reader::new(Bodies::Kept).read(bytes, false);
            let response = read.expect("HTTP").response.expect("whole");
            workload.judge(1, response.status, response.body(bytes))
        });
    });
    let mut tally = Tally::default();
    let arrival = Arrival {
        number: 1,
        due_ns: 1_000,
        taken_ns: 2_000,
        ..Arrival::default()
    };
    group.bench_function("tally", |bencher| {
        bencher.iter(|| {
            tally.taken_up(&arrival);
            tally.sent(&arrival, 3_000);
            let outcome = Outcome::Ok(Work {
                hits: 15,
                misses: 0,
                written: 0,
                repeated: 0,
                commands: 1,
                compared: 0,
            });
            let ending = Ending {
                sent_ns: 3_000,
                received_ns: black_box(880_000),
                done_ns: black_box(900_000),
            };
            tally.ended(&arrival, ending, outcome);
        });
    });
    let other = tally.clone();
    group.bench_function("merge two tallies", |bencher| {
        bencher.iter(|| tally.add(black_box(&other)));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = records, codecs, serving, judging, load
}
criterion_main!(benches);
