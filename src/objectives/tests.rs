//! What `--slo` may say, what it then means, and what is refused.
//!
//! Enters: bounds, as they are typed. Leaves: nothing. Must not need a run.

use super::*;

fn parse(text: &str) -> Objectives {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn shown(text: &str) -> String {
    let all: Vec<String> = parse(text).all().iter().map(ToString::to_string).collect();
    all.join(", ")
}

#[test]
fn defaults_stand_until_something_else_is_said() {
    for (text, expected) in [
        ("", "rate ≥ 99.9 %, errors ≤ 0.1 %, p99 ≤ 100.00 ms"),
        ("p99=none", "rate ≥ 99.9 %, errors ≤ 0.1 %"),
        (
            "p99=10ms,errors=1%",
            "rate ≥ 99.9 %, p99 ≤ 10.00 ms, errors ≤ 1 %",
        ),
        (
            "p99.9=50ms",
            "rate ≥ 99.9 %, errors ≤ 0.1 %, p99 ≤ 100.00 ms, p99.9 ≤ 50.00 ms",
        ),
        (
            "read.p99.9=5ms,stage2.max=1s,p99=none",
            "rate ≥ 99.9 %, errors ≤ 0.1 %, read.p99.9 ≤ 5.00 ms, stage2.max ≤ 1.00 s",
        ),
        ("rate=none,errors=none,p99=none", ""),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
    assert!(!parse("p99=none").bound_latency() && parse("").bound_latency());
    for (text, expected) in [
        ("", "rate ≥ 99.9 %, errors ≤ 0.1 %"),
        ("p99.9=1s", "rate ≥ 99.9 %, errors ≤ 0.1 %, p99.9 ≤ 1.00 s"),
        (
            "p99=100ms",
            "rate ≥ 99.9 %, errors ≤ 0.1 %, p99 ≤ 100.00 ms",
        ),
    ] {
        let objectives = parse(text).of_another_service();
        let all: Vec<String> = objectives.all().iter().map(ToString::to_string).collect();
        assert_eq!(all.join(", "), expected, "{text}");
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    for text in [
        "",
        "p99=none",
        "p99.99=1ms,stage3.write.errors=5%,rate=0%",
        "errors=none,stats.p50=3us",
    ] {
        let objectives = parse(text);
        let again = String::from(objectives.clone());
        assert_eq!(parse(&again), objectives, "{again}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for text in [
        "p99",
        "p99=",
        "p99=10",
        "p0=1ms",
        "p101=1ms",
        "errors=1",
        "errors=-1%",
        "x=1ms",
        "rate=101%",
        "p99.=1ms",
        "p1.23456789=1ms",
        "stage0.p99=1ms",
        "stage1=1ms",
        "reads.p99=1ms",
        "write.rate=1%",
        "=1ms",
        "p+9=1ms",
    ] {
        assert!(text.parse::<Objectives>().is_err(), "{text}");
    }
    let stages: Stages = "5:1s,6:1s".parse().expect("stages");
    let operations = operations(Mix::Batch, false);
    for (text, fits) in [
        ("stage2.p99=1s", true),
        ("read.p99=1s", true),
        ("stage3.p99=1s", false),
        ("write.p99=1s", false),
    ] {
        let found = parse(text).check(&stages, &operations);
        assert_eq!(found.is_ok(), fits, "{text}: {found:?}");
    }
}

#[test]
fn a_bound_of_one_stage_replaces_the_general_one_there() {
    let objectives = parse("stage2.p99=1s");
    let general = objectives.all()[2];
    assert!(objectives.is_replaced(&general, 2) && !objectives.is_replaced(&general, 1));
}
