//! The whole stack under faults in random order, as a program: `cargo bench --bench faults -- MINUTES SEED`. For
//! `scripts/faults`.
//!
//! Enters: how long, and the seed from which the faults follow. Leaves: a line for each round, the figures of all of them, and
//! exit code 1 at the first promise that does not hold. Must not forgive: what a round saw is held against what was promised.

mod round;
mod stack;

#[path = "../../tests/it/engine.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod engine;
#[path = "../../tests/it/proxy.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod proxy;
#[path = "../../tests/it/server.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod server;
#[path = "../../tests/it/support.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use more of it")]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use stack::{MOST_MEMORY_KIB, Stack};

/// The sums of all rounds.
#[derive(Default)]
struct Figures {
    rounds: u64,
    requests: u64,
    ok: u64,
    failed_loads: u64,
    keys_acknowledged: u64,
    keys_lost: u64,
    longest_return: Duration,
    longest_return_of_writes: Duration,
}

fn main() -> ExitCode {
    // cargo adds an argument of its own.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let number = |word: Option<String>| word.and_then(|word| word.parse::<u64>().ok());
    let (Some(minutes), Some(seed)) = (number(words.next()), number(words.next())) else {
        eprintln!("usage: faults MINUTES SEED");
        return ExitCode::from(64);
    };
    println!("Seed {seed}: the same faults again by scripts/faults {minutes} --seed {seed}");
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let mut stack = Stack::start(seed);
    let mut figures = Figures::default();
    while Instant::now() < end {
        if let Err(error) = round::run(&mut stack, &mut figures) {
            println!("WRONG in round {}: {error:#}", figures.rounds + 1);
            // Not at once: what was started ends with the stack.
            return ExitCode::FAILURE;
        }
    }
    report(&stack, &figures);
    ExitCode::SUCCESS
}

fn report(stack: &Stack, figures: &Figures) {
    let seconds = |time: Duration| time.as_secs_f64();
    println!(
        "{} rounds: {} requests, {} answered, no wrong answer, every ledger balanced",
        figures.rounds, figures.requests, figures.ok
    );
    println!(
        "{} keys acknowledged to seed, {} to writers through serve; none missing without a word of it",
        figures.keys_acknowledged,
        stack.writer.acknowledged_ever()
    );
    println!(
        "{} loads failed and said so; {} keys were lost with their store, and each of them was told",
        figures.failed_loads, figures.keys_lost
    );
    println!(
        "After the store's return serve read within {:.2} s and wrote within {:.2} s; it held {} MiB at most, of {}",
        seconds(figures.longest_return),
        seconds(figures.longest_return_of_writes),
        stack.peak_kib() / 1024,
        MOST_MEMORY_KIB / 1024
    );
}
