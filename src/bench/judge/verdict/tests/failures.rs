//! Arrivals that failed, and the verdicts that follow from them.
//!
//! Enters: fates of arrivals. Leaves: nothing. Must not need a run.

use super::*;

#[test]
fn errors_count_once() {
    let one_in_200 = |number: u64| Fate {
        end: if number.is_multiple_of(200) {
            End::Sent(Outcome::Error(Cause::Status(503)))
        } else {
            GOOD.end
        },
        ..GOOD
    };
    expect(
        verdict("errors=1%", one_in_200),
        Verdict::Pass,
        "errors ≤ 1 % (0.50 %)",
    );
    let found = verdict("", one_in_200);
    expect(
        found,
        Verdict::TargetMissed,
        "0.50 % of the requests failed: 50 errors",
    );
}

#[test]
fn a_rate_is_one_of_good_answers_where_no_objective_bounds_the_errors() {
    let refused = |nth: u64| {
        move |number: u64| Fate {
            end: if number.is_multiple_of(nth) {
                End::Sent(Outcome::Error(Cause::Status(503)))
            } else {
                GOOD.end
            },
            ..GOOD
        }
    };
    for (slo, nth, expected, reason) in [
        (
            "errors=none",
            1,
            Verdict::TargetMissed,
            "0.00 % of the requests were answered correctly: 0 of 10,000",
        ),
        (
            "errors=none",
            2,
            Verdict::TargetMissed,
            "50.00 % of the requests were answered correctly",
        ),
        (
            "errors=none,rate=50%",
            2,
            Verdict::Pass,
            "rate ≥ 50 % (50.00 %); no errors objective",
        ),
        ("errors=none", 2_000, Verdict::Pass, "no errors objective"),
        (
            "errors=none,rate=none,p99=none",
            1,
            Verdict::Pass,
            "no latency objective; no errors objective",
        ),
        // Whoever bounds them has said how many may fail.
        ("errors=60%", 2, Verdict::Pass, "rate ≥ 99.9 % (100.00 %)"),
        (
            "errors=none,request.errors=60%",
            2,
            Verdict::Pass,
            "rate ≥ 99.9 % (100.00 %)",
        ),
        (
            "errors=none,stage1.errors=60%",
            2,
            Verdict::Pass,
            "rate ≥ 99.9 % (100.00 %)",
        ),
        (
            "errors=none,stage1.read.errors=60%,request.errors=60%",
            2,
            Verdict::Invalid,
            "read.errors",
        ),
    ] {
        let found = verdict(slo, refused(nth));
        assert_eq!(found.0, expected, "{slo}: {}", found.1);
        assert!(found.1.contains(reason), "{slo}: {}", found.1);
    }
    let by_stage = "errors=none,stage1.errors=60%";
    let found = verdict_of(&evidence("1000:3s,1000:3s", by_stage, refused(2)));
    expect(
        found,
        Verdict::TargetMissed,
        "stage 2: 50.00 % of the requests were answered correctly",
    );
}

#[test]
fn arrivals_that_were_never_sent_count_as_failed() {
    let unsent = |number: u64| Fate {
        wait_ms: 5_000,
        end: if number.is_multiple_of(10) {
            End::Unsent
        } else {
            GOOD.end
        },
        ..GOOD
    };
    expect(
        verdict("p99=none", unsent),
        Verdict::TargetMissed,
        "1,000 unsent",
    );
}

#[test]
fn counters_that_are_lost_prove_nothing_unless_the_target_failed() {
    let lost = Books::Lost(LostCounter {
        name: "key_reads".into(),
        before: 5_000,
        after: Some(12),
    });
    let judged = |fate: fn(u64) -> Fate| {
        let evidence = evidence("1000:10s", "", fate);
        judge(
            &evidence,
            &criteria::judge(&evidence),
            &Generator::default(),
            &lost,
        )
    };
    expect(
        judged(|_| GOOD),
        Verdict::Invalid,
        "key_reads was 5,000 before the run and is 12 after it",
    );
    let died = |number| Fate {
        end: if number > 9_000 {
            End::Sent(Outcome::Error(Cause::ConnectionLost))
        } else {
            GOOD.end
        },
        ..GOOD
    };
    expect(judged(died), Verdict::TargetMissed, "requests failed");
}

#[test]
fn what_the_end_of_the_run_cut_off_is_the_fault_of_who_held_it_up() {
    let ending = |number: u64| Fate {
        end: match number {
            ..9_900 => GOOD.end,
            9_900..9_904 => End::Sent(Outcome::InFlight),
            _ => End::Unsent,
        },
        ..GOOD
    };
    let mut evidence = evidence("1000:10s", "", ending);
    // Four connections, busy for the last second, each answer as fast as ever.
    let pool = &mut evidence.flow.pool;
    (pool.full_s, pool.full_answers) = (4.0, 400);
    (pool.roomy_service_s, pool.roomy_answers) = (0.1, 10);
    expect(
        verdict_of(&evidence),
        Verdict::GeneratorLimited,
        "1.00 % of the requests failed: 0 errors, 0 timeouts, 96 unsent, 4 unanswered: too few connections",
    );
    // No answer came while they were busy: the target hung.
    evidence.flow.pool.full_answers = 0;
    expect(verdict_of(&evidence), Verdict::TargetMissed, "96 unsent");
}
