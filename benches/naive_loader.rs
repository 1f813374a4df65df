//! The loader that one writes in an afternoon, for `scripts/compare`: SETs in pipelines of 10,000 over one
//! connection, each pipeline answered before the next is built. And the same commands as a file, for
//! `redis-cli --pipe`.
//!
//! Enters: `HOST:PORT KEYS` or `FILE KEYS`. Leaves: keys in a store, or a file. Must not be made any cleverer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use bytes::BytesMut;
use kvpoc::record::Dataset;

const PIPELINE: u64 = 10_000;
/// `+OK\r\n`
const ANSWER_BYTES: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|text| text != "--bench")
        .collect();
    let [target, keys] = &arguments[..] else {
        // `cargo bench` runs every benchmark; this one has nothing to measure by itself.
        return;
    };
    let keys: u64 = keys.parse().expect("a number of keys");
    let mut connection = target
        .parse::<std::net::SocketAddr>()
        .ok()
        .map(|address| TcpStream::connect(address).expect("the store accepts"));
    let mut file = connection
        .is_none()
        .then(|| std::fs::File::create(target).expect("a file"));
    let mut answers = vec![0; PIPELINE as usize * ANSWER_BYTES];
    for start in (0..keys).step_by(PIPELINE as usize) {
        let end = (start + PIPELINE).min(keys);
        let commands = pipeline(start..end);
        if let Some(connection) = &mut connection {
            connection.write_all(&commands).expect("the store reads");
            let answers = &mut answers[..(end - start) as usize * ANSWER_BYTES];
            connection.read_exact(answers).expect("the store answers");
            assert!(
                answers
                    .chunks(ANSWER_BYTES)
                    .all(|answer| answer == b"+OK\r\n")
            );
        }
        if let Some(file) = &mut file {
            file.write_all(&commands).expect("the file takes it");
        }
    }
}

fn pipeline(indexes: std::ops::Range<u64>) -> Vec<u8> {
    let dataset = Dataset {
        key_prefix: "user:session:".into(),
        value_size: "256".parse().expect("a size"),
        seed: 1,
    };
    let mut commands = Vec::new();
    for index in indexes {
        let (mut key, mut value) = (BytesMut::new(), BytesMut::new());
        dataset.put_key(index, &mut key);
        dataset.put_record(index, &mut value);
        write!(commands, "*3\r\n$3\r\nSET\r\n${}\r\n", key.len()).expect("memory takes it");
        commands.extend_from_slice(&key);
        write!(commands, "\r\n${}\r\n", value.len()).expect("memory takes it");
        commands.extend_from_slice(&value);
        commands.extend_from_slice(b"\r\n");
    }
    commands
}
