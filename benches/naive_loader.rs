//! The loader that one writes in an afternoon, for `scripts/compare`: SETs in pipelines of 10,000 over one
//! connection, each pipeline answered before the next is built. And commands as a file, for `redis-cli --pipe`: the
//! same SETs, or MSETs of as many keys as asked.
//!
//! Enters: `HOST:PORT KEYS` or `FILE KEYS [KEYS-A-COMMAND]`. Leaves: keys in a store, or a file. Must not be made any
//! cleverer.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;

use bytes::BytesMut;
use kvpoc::record::Dataset;
use kvpoc::seed::plan::batches;

const PIPELINE: u32 = 10_000;
/// `+OK\r\n`
const ANSWER_BYTES: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|text| text != "--bench")
        .collect();
    let (target, keys, a_command) = match &arguments[..] {
        [target, keys] => (target, keys, "1"),
        [target, keys, a_command] => (target, keys, a_command.as_str()),
        // `cargo bench` runs every benchmark; this one has nothing to measure by itself.
        _ => return,
    };
    let keys: u64 = keys.parse().expect("a number of keys");
    let a_command: u32 = a_command.parse().expect("a number of keys");
    let dataset = Dataset {
        key_prefix: "user:session:".into(),
        value_size: "256".parse().expect("a size"),
        seed: 1,
        format: kvpoc::record::Format::Record,
    };
    match target.parse::<SocketAddr>() {
        Ok(address) => load(&dataset, address, keys),
        Err(_) => write(&dataset, target, keys, a_command),
    }
}

fn load(dataset: &Dataset, address: SocketAddr, keys: u64) {
    let mut connection = TcpStream::connect(address).expect("the store accepts");
    let mut answers = vec![0; PIPELINE as usize * ANSWER_BYTES];
    for indexes in batches(0..keys, PIPELINE) {
        let answers = &mut answers[..(indexes.end - indexes.start) as usize * ANSWER_BYTES];
        let mut commands = Vec::new();
        batches(indexes, 1).for_each(|index| put_command(dataset, index, &mut commands));
        connection.write_all(&commands).expect("the store reads");
        connection.read_exact(answers).expect("the store answers");
        assert!(
            answers
                .chunks(ANSWER_BYTES)
                .all(|answer| answer == b"+OK\r\n")
        );
    }
}

fn write(dataset: &Dataset, file: &str, keys: u64, a_command: u32) {
    let mut file = BufWriter::new(File::create(file).expect("a file"));
    let mut command = Vec::new();
    for indexes in batches(0..keys, a_command) {
        command.clear();
        put_command(dataset, indexes, &mut command);
        file.write_all(&command).expect("the file takes it");
    }
    file.flush().expect("the file takes it");
}

/// SET, or MSET for several.
fn put_command(dataset: &Dataset, indexes: Range<u64>, commands: &mut Vec<u8>) {
    let keys = indexes.end - indexes.start;
    let name = if keys == 1 { "SET" } else { "MSET" };
    let (parts, length) = (1 + 2 * keys, name.len());
    write!(commands, "*{parts}\r\n${length}\r\n{name}\r\n").expect("memory takes it");
    for index in indexes {
        let (mut key, mut value) = (BytesMut::new(), BytesMut::new());
        dataset.put_key(index, &mut key);
        dataset.put_record(index, &mut value);
        for part in [key, value] {
            write!(commands, "${}\r\n", part.len()).expect("memory takes it");
            commands.extend_from_slice(&part);
            commands.extend_from_slice(b"\r\n");
        }
    }
}
