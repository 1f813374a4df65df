//! Evidence of runs, and the verdicts that follow from it.
//!
//! Enters: fates of arrivals. Leaves: nothing. Must not need a run.

mod failures;

use std::time::Duration;

use super::*;
use crate::bench::judge::flow::{Flow, Outline};
use crate::bench::judge::interval::Tallies;
use crate::bench::judge::ledger::{Cause, Outcome, Unsent};
use crate::bench::judge::reconcile::{LostCounter, Reconciliation};
use crate::bench::judge::results::Bounds;
use crate::bench::judge::tally::Ending;
use crate::bench::judge::{criteria, results};
use crate::bench::plan::Arrival;
use crate::bench::plan::workload::Work;

const MS: u64 = 1_000_000;
const ONE_HIT: Work = Work {
    hits: 1,
    misses: 0,
    written: 0,
    repeated: 0,
    commands: 1,
    compared: 0,
};

/// What became of an arrival: its parts in milliseconds, and its end.
#[derive(Clone, Copy)]
struct Fate {
    lag_ms: u64,
    wait_ms: u64,
    service_ms: u64,
    receive_ms: u64,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    Sent(Outcome),
    Unsent,
}

const GOOD: Fate = Fate {
    lag_ms: 0,
    wait_ms: 0,
    service_ms: 1,
    receive_ms: 0,
    end: End::Sent(Outcome::Ok(ONE_HIT)),
};

/// A run of 1,000 arrivals a second over these stages, the nth of which meets its fate.
fn evidence(stages: &str, slo: &str, fate: impl Fn(u64) -> Fate) -> Evidence {
    let stages: crate::load::Stages = stages.parse().expect("stages");
    let outline = Outline::new(Duration::ZERO, &stages);
    let (mut flow, mut tallies) = (Flow::new(outline.clone()), Tallies::default());
    let end_ns = outline.stretches.last().expect("a stage").end_ns;
    let mut number = 0;
    while number * MS < end_ns {
        let due_ns = number * MS;
        let stage = outline
            .stretches
            .iter()
            .filter(|one| one.start_ns <= due_ns)
            .count()
            - 1;
        let fate = fate(number);
        let arrival = Arrival {
            number,
            due_ns,
            taken_ns: due_ns + fate.lag_ms * MS,
            stage: stage as u16,
            disturbed: fate.lag_ms > 5,
            ..Arrival::default()
        };
        let tally = tallies.of(&arrival);
        tally.ledger.scheduled += 1;
        tally.taken_up(&arrival);
        flow.taken_up(&arrival);
        let sent_ns = arrival.taken_ns + fate.wait_ms * MS;
        match fate.end {
            End::Sent(outcome) => {
                let received_ns = sent_ns + fate.service_ms * MS;
                let ending = Ending {
                    sent_ns,
                    received_ns,
                    done_ns: received_ns + fate.receive_ms * MS,
                };
                tally.sent(&arrival, sent_ns);
                tally.ended(&arrival, ending, outcome);
                flow.ended(&arrival, ending, outcome.is_answered());
            }
            End::Unsent => {
                tally.unsent(&arrival, sent_ns, Unsent::NoConnection);
                flow.unsent(&arrival, sent_ns);
            }
        }
        number += 1;
    }
    Evidence {
        started_at_ms: 0,
        scheduled_s: stages.duration().as_secs_f64(),
        interrupted: false,
        ended_early: None,
        objectives: Bounds {
            objectives: slo.parse().expect("objectives"),
            max_miss: 0.0,
            max_lag_us: 5_000,
        },
        generators: 1,
        lag_p99_us: 200,
        start_by_target: None,
        tallies,
        flow,
    }
}

fn verdict_of(evidence: &Evidence) -> (Verdict, String) {
    let criteria = criteria::judge(evidence);
    judge(evidence, &criteria, &Generator::default(), &Books::Untold)
}

fn verdict(slo: &str, fate: impl Fn(u64) -> Fate) -> (Verdict, String) {
    verdict_of(&evidence("1000:10s", slo, fate))
}

fn expect((found, text): (Verdict, String), verdict: Verdict, reason: &str) {
    assert_eq!(found, verdict, "{text}");
    assert!(text.contains(reason), "{text}");
}

#[test]
fn a_healthy_run_passes_and_names_what_it_was_held_to() {
    expect(
        verdict("", |_| GOOD),
        Verdict::Pass,
        "p99 ≤ 100.00 ms (1.00 ms)",
    );
    let none = verdict("p99=none", |_| GOOD);
    expect(none, Verdict::Pass, "no latency objective");
}

#[test]
fn a_quantile_is_one_value_for_the_table_and_the_verdict() {
    // Ten of 10,000 are slow: the 9,990th is not.
    let slow = |number: u64| Fate {
        service_ms: if number.is_multiple_of(1_000) { 200 } else { 1 },
        ..GOOD
    };
    let evidence = evidence("1000:10s", "p99.9=150ms", slow);
    expect(
        verdict_of(&evidence),
        Verdict::Pass,
        "p99.9 ≤ 150.00 ms (1.00 ms)",
    );
    let shown = results::Percentiles::of(&evidence.tallies.measured().latency_us());
    assert_eq!(shown.p999, 1_000);
    expect(
        verdict("max=150ms", slow),
        Verdict::TargetMissed,
        "max ≤ 150.00 ms",
    );
}

#[test]
fn a_stall_of_the_generator_is_its_own_fault() {
    // 75 of 10,000 arrivals were taken up late, and what was answered meanwhile was taken late.
    let stalled = |number: u64| match number {
        4_999 => Fate {
            receive_ms: 150,
            ..GOOD
        },
        5_000..5_075 => Fate {
            lag_ms: 150 - (number - 5_000),
            ..GOOD
        },
        _ => GOOD,
    };
    let found = verdict("p99.9=50ms", stalled);
    expect(
        found,
        Verdict::GeneratorLimited,
        "without the generator's delay",
    );
    let received_late = |number| Fate {
        service_ms: 50,
        receive_ms: if number == 7 { 127 } else { 0 },
        ..GOOD
    };
    let found = verdict("max=120ms", received_late);
    expect(
        found,
        Verdict::GeneratorLimited,
        "generator delay 127.01 ms",
    );
    // The target's own part is above the bound too.
    let both = |number| Fate {
        service_ms: 130,
        ..received_late(number)
    };
    expect(
        verdict("p99=none,max=120ms", both),
        Verdict::TargetMissed,
        "max",
    );
}

#[test]
fn too_few_connections_are_no_fault_of_the_target() {
    let waiting = |number: u64| Fate {
        wait_ms: number,
        service_ms: 10,
        ..GOOD
    };
    let mut evidence = evidence("1000:10s", "", waiting);
    let pool = &mut evidence.flow.pool;
    (pool.full_s, pool.full_answers) = (20.0, 2_000);
    (pool.roomy_service_s, pool.roomy_answers) = (0.09, 9);
    let found = verdict_of(&evidence);
    expect(
        found,
        Verdict::GeneratorLimited,
        "too few connections; the target was as fast",
    );
    // The same wait, and the target is slower with all connections busy.
    evidence.flow.pool.full_s = 60.0;
    expect(
        verdict_of(&evidence),
        Verdict::TargetMissed,
        "answered since second",
    );
}

#[test]
fn a_backlog_is_a_miss_whatever_its_average() {
    let growing = |number: u64| Fate {
        service_ms: 1 + number / 10,
        ..GOOD
    };
    let found = verdict("p99=none", growing);
    expect(
        found,
        Verdict::TargetMissed,
        "% of 1,000 requests/s answered since",
    );
    let in_stage_2 = |number: u64| Fate {
        service_ms: if (3_000..4_000).contains(&number) {
            number - 2_999
        } else {
            1
        },
        ..GOOD
    };
    let evidence = evidence("1000:3s,1000:1s,1000:8s", "p99=none", in_stage_2);
    expect(verdict_of(&evidence), Verdict::TargetMissed, "stage 2: ");
}

#[test]
fn objectives_of_a_stage_and_of_an_operation_are_held_against_them_alone() {
    let slow_second = |number: u64| Fate {
        service_ms: if number < 3_000 { 1 } else { 50 },
        ..GOOD
    };
    for (slo, expected) in [
        ("stage1.p99=20ms", Verdict::Pass),
        ("stage2.p99=20ms", Verdict::TargetMissed),
        ("p99=20ms", Verdict::TargetMissed),
        ("p99=20ms,stage2.p99=60ms", Verdict::Pass),
        ("request.p99=20ms", Verdict::TargetMissed),
        // A narrower one takes its place in both stages.
        ("stage1.p99=20ms,stage2.p99=60ms", Verdict::Pass),
        // No arrival writes, and there are two stages.
        ("write.p99=20ms", Verdict::Invalid),
        ("stage3.p99=20ms", Verdict::Invalid),
    ] {
        let evidence = evidence("1000:3s,1000:3s", slo, slow_second);
        assert_eq!(verdict_of(&evidence).0, expected, "{slo}");
    }
}

#[test]
fn an_objective_that_nothing_was_held_against_does_not_vanish() {
    let mut evidence = evidence("1000:3s", "p99=none,write.p99=20ms", |_| GOOD);
    expect(
        verdict_of(&evidence),
        Verdict::Invalid,
        "no request to check write.p99 ≤ 20.00 ms against",
    );
    // Whoever ended it early knows why.
    evidence.ended_early = Some("nothing can mend it".into());
    expect(verdict_of(&evidence), Verdict::Pass, "");
}

#[test]
fn what_makes_figures_worthless_comes_first() {
    let wrong = |number| Fate {
        end: if number == 3 {
            End::Sent(Outcome::Error(Cause::WrongAnswer))
        } else {
            GOOD.end
        },
        ..GOOD
    };
    expect(
        verdict("", wrong),
        Verdict::Invalid,
        "1 answers did not match their requests",
    );
    let missing = |number| Fate {
        end: End::Sent(Outcome::Ok(Work {
            hits: u32::from(number != 3),
            misses: u32::from(number == 3),
            ..ONE_HIT
        })),
        ..GOOD
    };
    expect(verdict("", missing), Verdict::Invalid, "1 keys missing");
    let mut allowed = evidence("1000:10s", "", missing);
    allowed.objectives.max_miss = 0.001;
    expect(verdict_of(&allowed), Verdict::Pass, "");
    let healthy = || evidence("1000:10s", "", |_| GOOD);
    let mut unbalanced = healthy();
    unbalanced
        .tallies
        .at(1, crate::objectives::Operation::Request)
        .ledger
        .scheduled += 1;
    expect(
        verdict_of(&unbalanced),
        Verdict::Invalid,
        "does not balance",
    );
    let mut interrupted = healthy();
    interrupted.interrupted = true;
    expect(verdict_of(&interrupted), Verdict::Invalid, "interrupted");
    let empty = evidence("0.5:1s", "", |_| GOOD);
    let mut empty = Evidence {
        tallies: Tallies::default(),
        ..empty
    };
    empty.interrupted = false;
    expect(verdict_of(&empty), Verdict::Invalid, "no request was due");
    let counted = Reconciliation::of((10_000, 0), (10_000, 10_000), 0, 10.0);
    let counted = Books::Told(counted);
    let found = judge(&healthy(), &[], &Generator::default(), &counted);
    expect(
        found,
        Verdict::Invalid,
        "counted less than the answers account for: 0 of 10,000 keys",
    );
}

#[test]
fn a_generator_without_time_left_blames_itself_but_not_for_refusals() {
    let mut lagging = evidence("1000:10s", "", |_| GOOD);
    lagging.lag_p99_us = 5_001;
    expect(
        verdict_of(&lagging),
        Verdict::GeneratorLimited,
        "lag p99 of 5.00 ms exceeds 5.00 ms",
    );
    let refused = |_| Fate {
        end: End::Sent(Outcome::Error(Cause::Status(503))),
        ..GOOD
    };
    let mut refusing = evidence("1000:10s", "", refused);
    refusing.lag_p99_us = 5_001;
    expect(
        verdict_of(&refusing),
        Verdict::TargetMissed,
        "100.00 % of the requests failed",
    );
    let growing = |number: u64| Fate {
        service_ms: 1 + number / 10,
        ..GOOD
    };
    let mut behind = evidence("1000:10s", "", growing);
    behind.lag_p99_us = 7_000;
    expect(verdict_of(&behind), Verdict::TargetMissed, "answered since");
    let slow = |_| Fate {
        service_ms: 200,
        ..GOOD
    };
    let slow = evidence("1000:10s", "", slow);
    let busy = Generator {
        busy_share: 0.96,
        ..Generator::default()
    };
    let found = judge(&slow, &criteria::judge(&slow), &busy, &Books::Untold);
    expect(found, Verdict::GeneratorLimited, "busy 96 % of the time");
}

#[test]
fn exit_codes_are_part_of_the_interface() {
    let all = [
        Verdict::Pass,
        Verdict::TargetMissed,
        Verdict::GeneratorLimited,
        Verdict::Invalid,
    ];
    assert_eq!(all.map(Verdict::exit_code), [0, 1, 2, 3]);
    for verdict in all {
        let json = serde_json::to_value(verdict).expect("JSON");
        assert_eq!(json, verdict.name());
    }
}
