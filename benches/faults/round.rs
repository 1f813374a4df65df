//! One round: a load and a bench begin, a fault comes and goes, and all that was promised is looked at.
//!
//! Enters: the stack as the round before left it. Leaves: a line, and the stack whole again. Must not go on after a promise
//! that did not hold.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::Figures;
use crate::proxy;
use crate::stack::{FIRST_KEYS, MOST_MEMORY_KIB, Stack, ended, wait_until};
use crate::support::{
    Process, assert_balanced, json, json_file, kvpoc, seed, start, start_until, stderr, stdout,
};

/// Beyond so many keys the store starts a new life.
const MOST_KEYS: u64 = 200_000;
/// How soon serve has to read again.
const RETURNS_WITHIN: Duration = Duration::from_secs(1);
/// What is asked for to see whether serve reads.
const ALIVE: &str = "/v1/keys/alive";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// The store is killed and started again with what it had written.
    Kill,
    /// And without.
    Lose,
    /// The store stands still.
    Freeze,
    /// The network ends all connections and takes none.
    Cut,
    /// The network lets no answer through.
    Silence,
    /// The network resets connections in the middle of answers.
    Reset,
    /// The store takes no more keys.
    Full,
}

const FAULTS: [Fault; 7] = [
    Fault::Kill,
    Fault::Lose,
    Fault::Freeze,
    Fault::Cut,
    Fault::Silence,
    Fault::Reset,
    Fault::Full,
];

/// What is done in a round.
struct Plan {
    fault: Fault,
    /// Keys that the dataset is to have after it.
    keys: u64,
    /// Until the fault comes, and until it goes.
    before: Duration,
    lasts: Duration,
    /// Flags of seed.
    more: &'static str,
    /// After so many bytes of answers a connection is reset, where that is the fault.
    reset_after: usize,
}

impl Plan {
    fn draw(stack: &mut Stack) -> Self {
        let fault = FAULTS[stack.draw(FAULTS.len() as u64) as usize];
        Self {
            fault: if stack.keys > MOST_KEYS {
                Fault::Lose
            } else {
                fault
            },
            keys: stack.keys + 20_000 + stack.draw(40_000),
            before: stack.draw_ms(200, 2_000),
            lasts: stack.draw_ms(100, 3_000),
            more: ["", "--verify"][stack.draw(2) as usize],
            reset_after: 1 + stack.draw(200_000) as usize,
        }
    }
}

/// # Errors
/// What was promised and does not hold.
pub(crate) fn run(stack: &mut Stack, figures: &mut Figures) -> anyhow::Result<()> {
    let plan = Plan::draw(stack);
    let (fault, keys) = (plan.fault, plan.keys);
    let alive = stack.store.ask("SET alive 1");
    ensure!(alive == "+OK\r\n", "the store is not whole: {alive}");
    let file = stack.folder.path().join("bench.json");
    let mut bench = start_bench(stack, &file);
    let mut seeding = start(&format!(
        "seed --json --quiet --store {} --keys {keys} --resume --rate 20k --batch 500 --retry-for 20s {}",
        stack.proxy.url(),
        plan.more
    ));
    std::thread::sleep(plan.before);
    let was_over = inflict(stack, &plan, &mut seeding);
    let returned = Instant::now();
    wait_until(|| stack.serve.get(ALIVE).status == 200);
    let reads = returned.elapsed();
    wait_until(|| stack.serve.request("PUT", ALIVE, b"1").status == 204);
    let writes = returned.elapsed();

    let (code, _) = ended(&mut bench);
    let bench =
        judge_bench(code, &json_file(&file), fault).with_context(|| format!("{fault:?}: bench"))?;
    let (code, text) = ended(&mut seeding);
    let summary = if text.is_empty() {
        Value::Null
    } else {
        json(&text)
    };
    let lost = judge_load(stack, &plan, (code, was_over), &summary)
        .with_context(|| format!("{fault:?}: seed"))?;
    heal(stack, keys).with_context(|| format!("{fault:?}: healing"))?;

    figures.rounds += 1;
    figures.requests += bench.requests;
    figures.ok += bench.ok;
    figures.failed_loads += u64::from(code != Some(0));
    figures.keys_acknowledged += summary["keys_acknowledged"].as_u64().unwrap_or(0);
    figures.keys_lost += lost;
    figures.longest_return = figures.longest_return.max(reads);
    figures.longest_return_of_writes = figures.longest_return_of_writes.max(writes);
    let peak_kib = stack.peak_kib();
    let why = [&summary["failure"], &summary["verification"]["failure"]].map(Value::as_str);
    let why = why
        .into_iter()
        .flatten()
        .next()
        .map(|why| format!(" ({why})"));
    println!(
        "{:3}  {:7} {:.1} s  {keys:6} keys: seed {}{}, {lost} missing  {} written  bench {} of {} ok  \
         reads after {:.2} s, writes after {:.2} s  serve {} MiB",
        figures.rounds,
        format!("{fault:?}").to_lowercase(),
        plan.lasts.as_secs_f64(),
        summary["outcome"].as_str().unwrap_or("refused"),
        why.unwrap_or_default(),
        stack.writer.acknowledged().len(),
        bench.ok,
        bench.requests,
        reads.as_secs_f64(),
        writes.as_secs_f64(),
        peak_kib / 1024,
    );
    ensure!(
        reads < RETURNS_WITHIN,
        "{fault:?}: serve reads again only after {reads:?}"
    );
    ensure!(
        peak_kib < MOST_MEMORY_KIB,
        "{fault:?}: serve held {peak_kib} KiB"
    );
    if fault == Fault::Lose {
        begin_anew(stack);
    }
    Ok(())
}

/// Drives serve over the keys that are complete, until after most faults.
fn start_bench(stack: &Stack, file: &Path) -> Process {
    let load =
        "--rps 300 --duration 5s --warmup 0s --verify 1 --max-lag 10s --slo rate=0%,p99=none";
    let line = format!(
        "bench --target {} --keys {} {load} --json {}",
        stack.serve.url(),
        stack.keys,
        file.display()
    );
    start_until(&line, "Driving").0
}

/// The fault comes, lasts and goes; on return the store is there again. Whether the load had ended when the store's data went,
/// so that what it said was of before.
fn inflict(stack: &mut Stack, plan: &Plan, seeding: &mut Process) -> bool {
    let (fault, lasts) = (plan.fault, plan.lasts);
    let of_network = |stack: &Stack, fault| {
        stack.proxy.set(fault);
        std::thread::sleep(lasts);
        stack.proxy.set(proxy::Fault::None);
    };
    match fault {
        Fault::Kill => {
            stack.store.kill();
            std::thread::sleep(lasts);
            stack.store.start_again();
        }
        Fault::Lose => {
            stack.store.kill();
            std::thread::sleep(lasts);
            // Nothing ends well while there is no store.
            let was_over = seeding.0.try_wait().is_ok_and(|code| code.is_some());
            stack.store.lose_data();
            // While no store runs: whatever is acknowledged from here on, this one has.
            stack.writer.begin_life();
            stack.store.start_again();
            stack.store.ask("SET alive 1");
            return was_over;
        }
        Fault::Freeze => {
            stack.store.process().signal(Signal::STOP);
            std::thread::sleep(lasts);
            stack.store.process().signal(Signal::CONT);
        }
        Fault::Cut => of_network(stack, proxy::Fault::CutAll),
        Fault::Silence => of_network(stack, proxy::Fault::Silence),
        Fault::Reset => of_network(stack, proxy::Fault::ResetAfter(plan.reset_after)),
        Fault::Full => {
            stack.store.ask("CONFIG SET maxmemory 1mb");
            std::thread::sleep(lasts);
            stack.store.ask("CONFIG SET maxmemory 0");
        }
    }
    false
}

struct Bench {
    requests: u64,
    ok: u64,
}

fn judge_bench(code: Option<i32>, results: &Value, fault: Fault) -> anyhow::Result<Bench> {
    assert_balanced(results);
    let count = |name: &str| results["requests"][name].as_u64().unwrap_or(0);
    let by_cause = &results["requests"]["errors_by_cause"];
    ensure!(
        by_cause["wrong_answer"].is_null(),
        "wrong answers: {by_cause}"
    );
    let malformed = &results["malformed_answers"];
    ensure!(
        malformed.as_object().is_none_or(serde_json::Map::is_empty),
        "{malformed}"
    );
    let misses = results["keys"]["misses"].as_u64().unwrap_or(0);
    ensure!(misses == 0 || fault == Fault::Lose, "{misses} keys missed");
    // A run over keys that were lost, or over a store that counts anew, is said to be no valid one.
    let lost = misses > 0 || !results["lost_counter"].is_null();
    let told = lost && code == Some(3);
    ensure!(
        told || matches!(code, Some(0..=2)),
        "{code:?}: {}",
        results["reason"]
    );
    Ok(Bench {
        requests: count("scheduled"),
        ok: count("ok"),
    })
}

/// What seed said, and what a verification says, is what the store holds; how many keys it does not.
fn judge_load(
    stack: &Stack,
    plan: &Plan,
    (code, was_over): (Option<i32>, bool),
    summary: &Value,
) -> anyhow::Result<u64> {
    let (fault, keys) = (plan.fault, plan.keys);
    let held = stack.held(keys);
    match code {
        Some(0) => {
            ensure!(
                summary["outcome"] == "complete",
                "exit code 0, but {summary}"
            );
            ensure!(
                held == keys || was_over,
                "complete, but {held} of {keys} keys are there"
            );
        }
        // It says so.
        Some(1) => ensure!(summary["outcome"] != "complete" || !summary["verification"].is_null()),
        other => anyhow::bail!("exit code {other:?}: {summary}"),
    }
    if fault != Fault::Lose {
        let before = stack.held(stack.keys);
        ensure!(
            before == stack.keys,
            "{before} of {} older keys are there",
            stack.keys
        );
        let count = |name: &str| summary[name].as_u64().unwrap_or(0);
        let acknowledged =
            count("resumed_from") + count("keys_acknowledged") - count("keys_loaded_again");
        ensure!(
            held >= acknowledged,
            "{held} keys of {acknowledged} acknowledged"
        );
    }
    let written = stack.writer.acknowledged();
    if let Some(unkept) = stack.first_unkept(&written) {
        anyhow::bail!(unkept);
    }
    let line = format!(
        "seed --verify-only --json --quiet --keys {keys} --store {}",
        stack.store.url()
    );
    let output = kvpoc(&line);
    let found = json(&stdout(&output))["verification"].clone();
    let right = i32::from(held != keys);
    ensure!(
        output.status.code() == Some(right)
            && found["missing"].as_u64() == Some(keys - held)
            && found["different"] == 0,
        "{held} of {keys} keys are there, and a verification says {found} {}",
        stderr(&output)
    );
    Ok(keys - held)
}

/// What is missing is written, whatever the round left.
fn heal(stack: &mut Stack, keys: u64) -> anyhow::Result<()> {
    let line = format!(
        "seed --resume --verify --json --quiet --keys {keys} --store {}",
        stack.store.url()
    );
    let output = kvpoc(&line);
    let text = stdout(&output);
    ensure!(output.status.code() == Some(0), "{text}{}", stderr(&output));
    let held = stack.held(keys);
    ensure!(
        held == keys,
        "healed, but {held} of {keys} keys are there: {text}"
    );
    stack.keys = keys;
    Ok(())
}

/// So that a dataset does not grow for ever.
fn begin_anew(stack: &mut Stack) {
    stack.store.ask("FLUSHALL");
    // What the writer sent before may have come after it; what comes from here on is looked at.
    stack.writer.begin_life();
    seed(&stack.store.url(), FIRST_KEYS, "");
    stack.keys = FIRST_KEYS;
}
