//! Bursty logs against simulated targets, whose right verdict is known.
//!
//! Enters: logs whose rate changes tenfold within seconds. Leaves: nothing. Must not need a clock.

use std::sync::Arc;

use proptest::prelude::*;
use rand_distr::{Distribution as _, Exp, LogNormal};

use crate::bench::judge::flow::{Flow, Outline};
use crate::bench::judge::rate::{Pace, pace};
use crate::bench::judge::tally::Ending;
use crate::bench::plan::Arrival;
use crate::bench::plan::schedule::Schedule;
use crate::load::{Moments, Speed, Stamp};
use crate::random::{Draws, chance, splitmix64};

const MIN_RATE: f64 = 0.999;

/// A log of phases of half a second to three seconds, each quiet, or ten times as busy, or between; and its highest rate.
fn log(seed: u64, length_s: f64, quiet_rps: f64) -> (Vec<f64>, f64) {
    let draw = |n: u64| (splitmix64(seed, n) >> 11) as f64 / (1_u64 << 53) as f64;
    let (mut due_s, mut phase_s, mut highest, mut n) = (Vec::new(), 0.0, 0.0_f64, 0);
    while phase_s < length_s {
        let end_s = (phase_s + 0.5 + 2.5 * draw(n)).min(length_s);
        let busy = [1.0, 1.0, 10.0, 10.0, 1.0 + 9.0 * draw(n + 1)];
        let rps = quiet_rps * busy[(draw(n + 2) * 5.0) as usize];
        let is_poisson = draw(n + 3) < 0.5;
        n += 4;
        highest = highest.max(rps);
        let mut at_s = phase_s;
        loop {
            at_s += if is_poisson {
                -(1.0 - draw(n)).ln()
            } else {
                1.0
            } / rps;
            n += 1;
            if at_s >= end_s {
                break;
            }
            due_s.push(at_s);
        }
        phase_s = end_s;
    }
    (due_s, highest)
}

/// What a target does with an arrival.
#[derive(Debug, Clone, Copy)]
enum Target {
    Constant {
        latency_s: f64,
    },
    Exponential {
        mean_s: f64,
    },
    Lognormal {
        median_s: f64,
        sigma: f64,
    },
    /// One in a hundred takes a hundred times as long.
    Bimodal {
        latency_s: f64,
    },
    /// First in, first out, at this share of the log's highest rate.
    Queue {
        of_highest: f64,
    },
    /// First in, first out, at this share of the log's mean rate.
    Weak {
        of_mean: f64,
    },
    /// Last in, first out.
    WeakNewest {
        of_mean: f64,
    },
    /// Answers take so long, and from a share of the log on so much longer.
    Step {
        before_s: f64,
        more_s: f64,
        at: f64,
    },
}

/// When each arrival is answered.
fn answered_s(target: Target, due_s: &[f64], highest: f64, seed: u64) -> Vec<f64> {
    let length_s = due_s.last().copied().unwrap_or_default();
    let mean = due_s.len() as f64 / length_s;
    let mut free_at_s = 0.0_f64;
    if let Target::WeakNewest { of_mean } = target {
        return newest_first(due_s, 1.0 / (of_mean * mean));
    }
    let one = |(number, &due_s): (usize, &f64)| {
        let mut draws = Draws::new(splitmix64(seed ^ 0x71, number as u64));
        let mut queue = |rate: f64| {
            free_at_s = free_at_s.max(due_s) + 1.0 / rate;
            free_at_s - due_s
        };
        due_s
            + match target {
                Target::Constant { latency_s } => latency_s,
                Target::Exponential { mean_s } => {
                    Exp::new(1.0 / mean_s).expect("a mean").sample(&mut draws)
                }
                Target::Lognormal { median_s, sigma } => LogNormal::new(median_s.ln(), sigma)
                    .expect("a spread")
                    .sample(&mut draws),
                Target::Bimodal { latency_s } => {
                    let slow = chance(splitmix64(seed, number as u64), 0.01);
                    latency_s * if slow { 100.0 } else { 1.0 }
                }
                Target::Queue { of_highest } => queue(of_highest * highest),
                Target::Weak { of_mean } => queue(of_mean * mean),
                Target::Step {
                    before_s,
                    more_s,
                    at,
                } => before_s + if due_s < at * length_s { 0.0 } else { more_s },
                Target::WeakNewest { .. } => unreachable!("done above"),
            }
    };
    due_s.iter().enumerate().map(one).collect()
}

fn newest_first(due_s: &[f64], service_s: f64) -> Vec<f64> {
    let (mut left_s, mut waiting, mut now_s) = (vec![0.0; due_s.len()], Vec::new(), 0.0_f64);
    let mut coming = due_s.iter().enumerate().peekable();
    for _ in 0..due_s.len() {
        if waiting.is_empty() {
            now_s = now_s.max(*coming.peek().expect("one to come").1);
        }
        while let Some((number, _)) = coming.next_if(|(_, due)| **due <= now_s) {
            waiting.push(number);
        }
        now_s += service_s;
        left_s[waiting.pop().expect("one waits")] = now_s;
    }
    left_s
}

fn judged(target: Target, seed: u64, length_s: f64, quiet_rps: f64) -> Pace {
    let (due_s, highest) = log(seed, length_s, quiet_rps);
    judged_log(target, &due_s, highest, seed)
}

fn judged_log(target: Target, due_s: &[f64], highest: f64, seed: u64) -> Pace {
    let stamps: Vec<Stamp> = due_s
        .iter()
        .map(|due_s| Stamp {
            us: (due_s * 1e6) as u64,
            resolution_us: 1,
        })
        .collect();
    let (moments, _) = Moments::of(&stamps, Speed::AS_RECORDED).expect("moments");
    let stages = moments.as_stages().expect("stages");
    let mut flow = Flow::new(Outline::recorded(&stages, &moments));
    let schedule = Arc::new(Schedule::recorded(Arc::new(moments)));
    let first_s = due_s[0];
    let answered_s = answered_s(target, due_s, highest, seed);
    for (due, answered_s) in schedule.thread((0, 1)).zip(answered_s) {
        let arrival = Arrival {
            number: due.number,
            due_ns: due.at_ns,
            taken_ns: due.at_ns,
            ..Arrival::default()
        };
        let done_ns = (((answered_s - first_s) * 1e9) as u64).max(due.at_ns);
        let ending = Ending {
            sent_ns: due.at_ns,
            received_ns: done_ns,
            done_ns,
        };
        flow.taken_up(&arrival);
        flow.ended(&arrival, ending, true);
    }
    pace(&flow, 1, 1, MIN_RATE)
}

/// Latencies from 0.1 ms to 10 s.
fn latency_s() -> impl Strategy<Value = f64> {
    (-4.0_f64..1.0).prop_map(|power| 10.0_f64.powf(power))
}

fn stationary() -> impl Strategy<Value = Target> {
    prop_oneof![
        latency_s().prop_map(|latency_s| Target::Constant { latency_s }),
        latency_s().prop_map(|mean_s| Target::Exponential { mean_s }),
        (latency_s(), 0.1_f64..2.0)
            .prop_map(|(median_s, sigma)| Target::Lognormal { median_s, sigma }),
        latency_s().prop_map(|latency_s| Target::Bimodal {
            latency_s: latency_s / 100.0
        }),
        (1.05_f64..2.0).prop_map(|of_highest| Target::Queue { of_highest }),
    ]
}

#[test]
fn between_bursts_nothing_is_missing() {
    for every_s in [2.0, 3.0, 5.0] {
        let burst = |number: u32| {
            let start_s = f64::from(number) * every_s;
            (0..100).map(move |n| start_s + f64::from(n) * 0.000_05)
        };
        let due_s: Vec<f64> = (0..5).flat_map(burst).collect();
        for latency_s in [0.001, 0.05, 0.06, 0.09, 0.5, 1.5] {
            let found = judged_log(Target::Constant { latency_s }, &due_s, 100.0, 1);
            assert_eq!(found, Pace::Kept, "{latency_s} every {every_s}");
        }
    }
}

#[test]
fn a_burst_that_waits_when_the_backlog_begins_counts_too() {
    for every_s in [1.0, 3.0] {
        let burst = |number: u32| {
            let start_s = f64::from(number) * every_s;
            (0..300).map(move |n| start_s + f64::from(n) * 0.000_05)
        };
        let due_s: Vec<f64> = (0..10).flat_map(burst).collect();
        let weak = Target::Weak { of_mean: 0.8 };
        let found = judged_log(weak, &due_s, 300.0, 1);
        assert!(
            matches!(found, Pace::Behind(_)),
            "{found:?} every {every_s}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_stationary_target_keeps_up_with_a_bursty_log(
        target in stationary(), seed: u64, length_s in 8.0_f64..40.0, quiet_rps in 10.0_f64..60.0,
    ) {
        prop_assert_eq!(judged(target, seed, length_s, quiet_rps), Pace::Kept);
    }

    #[test]
    fn half_of_the_mean_rate_is_not_enough(
        target in prop_oneof![
            Just(Target::Weak { of_mean: 0.5 }), Just(Target::WeakNewest { of_mean: 0.5 }),
            Just(Target::Weak { of_mean: 0.3 }),
        ],
        seed: u64, length_s in 15.0_f64..40.0, quiet_rps in 10.0_f64..60.0,
    ) {
        match judged(target, seed, length_s, quiet_rps) {
            Pace::Behind(backlog) => prop_assert!(backlog.without_generator && backlog.in_service),
            other => prop_assert!(matches!(other, Pace::Silent(_)), "{:?}", other),
        }
    }

    #[test]
    fn a_latency_that_rises_once_is_no_backlog(
        before_s in 0.001_f64..0.1, more_s in 0.01_f64..0.3, at in 0.1_f64..0.5, seed: u64,
        length_s in 8.0_f64..40.0, quiet_rps in 10.0_f64..60.0,
    ) {
        let target = Target::Step { before_s, more_s, at };
        prop_assert_eq!(judged(target, seed, length_s, quiet_rps), Pace::Kept);
    }
}
