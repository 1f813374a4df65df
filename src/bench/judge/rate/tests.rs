//! Simulated targets, whose right verdict is known.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rand_distr::{Distribution as _, Exp, LogNormal};

use super::*;
use crate::bench::judge::flow::Outline;
use crate::bench::judge::tally::Ending;
use crate::bench::plan::Arrival;
use crate::bench::plan::schedule::Schedule;
use crate::load::{Arrivals, Stages};
use crate::random::{Draws, chance, splitmix64};

const MIN_RATE: f64 = 0.999;

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
    /// First in, first out, at most this share of what it can do.
    Queue {
        utilization: f64,
    },
    /// As the one above, and it answers nothing for a while.
    Stopped {
        from_s: f64,
        for_s: f64,
    },
    /// A queue whose capacity falls, at a moment, to a share of the rate.
    Failing {
        from_s: f64,
        share: f64,
    },
    /// One at a time, in another order than they came, at more than what it can do.
    Unordered {
        order: Order,
        utilization: f64,
    },
    /// One request in five goes to a queue that gets more than it can do.
    OneShard {
        utilization: f64,
    },
    /// Answers take so long until a moment, and then as long again and more.
    Step {
        before_s: f64,
        after_s: f64,
        at_s: f64,
    },
    /// All but one answer in twenty wait until a time is over.
    Trickling {
        from_s: f64,
        for_s: f64,
    },
}

/// Which of those that wait is served next.
#[derive(Debug, Clone, Copy)]
enum Order {
    Newest,
    Any,
    /// All of them at once, each at its share of the speed.
    Shared,
}

/// When arrivals leave a server that takes so long for each, one at a time.
fn left_at(due_s: &[f64], service_s: f64, order: Order, seed: u64) -> Vec<f64> {
    let mut left_s = vec![0.0; due_s.len()];
    if let Order::Shared = order {
        // Equal ones end in the order in which they came, each when everybody's share has grown by a whole service.
        let (mut now_s, mut share_s, mut inside) = (0.0, 0.0, std::collections::VecDeque::new());
        let mut coming = due_s.iter().enumerate().peekable();
        while coming.peek().is_some() || !inside.is_empty() {
            let next_end_s = inside
                .front()
                .map(|&(_, end)| now_s + (end - share_s) * inside.len() as f64);
            match coming.peek() {
                Some(&(number, &due)) if next_end_s.is_none_or(|end| due <= end) => {
                    share_s += (due - now_s) / inside.len().max(1) as f64;
                    now_s = due;
                    inside.push_back((number, share_s + service_s));
                    coming.next();
                }
                _ => {
                    let (number, end) = inside.pop_front().expect("one is inside");
                    now_s = next_end_s.expect("it ends");
                    share_s = end;
                    left_s[number] = now_s;
                }
            }
        }
        return left_s;
    }
    let (mut now_s, mut waiting) = (0.0_f64, Vec::new());
    let mut coming = due_s.iter().enumerate().peekable();
    for turn in 0..due_s.len() as u64 {
        if waiting.is_empty() {
            now_s = now_s.max(*coming.peek().expect("one to come").1);
        }
        while let Some((number, _)) = coming.next_if(|(_, due)| **due <= now_s) {
            waiting.push(number);
        }
        let place = match order {
            Order::Any => (splitmix64(seed, turn) % waiting.len() as u64) as usize,
            _ => waiting.len() - 1,
        };
        now_s += service_s;
        left_s[waiting.remove(place)] = now_s;
    }
    left_s
}

/// Runs a simulated load to its end.
fn flow(target: Target, stages: &str, arrivals: Arrivals, seed: u64) -> Flow {
    let stages: Stages = stages.parse().expect("stages");
    let rate = stages.0[0].from.per_second();
    let schedule = Arc::new(Schedule::new(&stages, Duration::ZERO, arrivals, seed));
    let mut flow = Flow::new(Outline::new(Duration::ZERO, &stages));
    let due: Vec<_> = schedule.thread((0, 1)).collect();
    let due_s: Vec<f64> = due.iter().map(|due| due.at_ns as f64 / 1e9).collect();
    for (due, latency_s) in due.iter().zip(latencies_s(target, rate, &due_s, seed)) {
        let arrival = Arrival {
            number: due.number,
            due_ns: due.at_ns,
            taken_ns: due.at_ns,
            stage: schedule.stage_at(due.at_ns),
            ..Arrival::default()
        };
        let done_ns = due.at_ns + (latency_s * 1e9) as u64;
        let ending = Ending {
            sent_ns: due.at_ns,
            received_ns: done_ns,
            done_ns,
        };
        flow.taken_up(&arrival);
        flow.ended(&arrival, ending, true);
    }
    flow
}

fn latencies_s(target: Target, rate: f64, due_s: &[f64], seed: u64) -> Vec<f64> {
    let order = |order, utilization: f64, due_s: &[f64]| -> Vec<f64> {
        let left_s = left_at(due_s, utilization / rate, order, seed);
        left_s
            .iter()
            .zip(due_s)
            .map(|(left, due)| left - due)
            .collect()
    };
    match target {
        Target::Unordered {
            order: next,
            utilization,
        } => return order(next, utilization, due_s),
        Target::OneShard { utilization } => {
            let of_shard: Vec<f64> = due_s.iter().copied().step_by(5).collect();
            let mut slow = order(Order::Newest, 5.0 * utilization, &of_shard);
            // First in, first out: it is the same times in their order.
            let mut left: Vec<f64> = slow.iter().zip(&of_shard).map(|(l, due)| l + due).collect();
            left.sort_by(f64::total_cmp);
            slow = left
                .iter()
                .zip(&of_shard)
                .map(|(left, due)| left - due)
                .collect();
            return (0..due_s.len())
                .map(|n| if n % 5 == 0 { slow[n / 5] } else { 0.001 })
                .collect();
        }
        _ => {}
    }
    let mut free_at_s = 0.0_f64;
    let one = |(number, &due_s): (usize, &f64)| {
        let number = number as u64;
        let mut draws = Draws::new(splitmix64(seed ^ 0x71, number));
        let mut queue = |service_s: f64, opens_s: f64| {
            free_at_s = free_at_s.max(due_s).max(opens_s) + service_s;
            free_at_s - due_s
        };
        match target {
            Target::Constant { latency_s } => latency_s,
            Target::Exponential { mean_s } => {
                Exp::new(1.0 / mean_s).expect("a mean").sample(&mut draws)
            }
            Target::Lognormal { median_s, sigma } => LogNormal::new(median_s.ln(), sigma)
                .expect("a spread")
                .sample(&mut draws),
            Target::Bimodal { latency_s } => {
                let slow = chance(splitmix64(seed, number), 0.01);
                latency_s * if slow { 100.0 } else { 1.0 }
            }
            Target::Queue { utilization } => queue(utilization / rate, 0.0),
            Target::Stopped { from_s, for_s } => {
                let stopped = (from_s..from_s + for_s).contains(&due_s);
                queue(0.5 / rate, if stopped { from_s + for_s } else { 0.0 })
            }
            Target::Failing { from_s, share } => {
                queue(if due_s < from_s { 0.5 } else { 1.0 / share } / rate, 0.0)
            }
            Target::Step {
                before_s,
                after_s,
                at_s,
            } => {
                if due_s < at_s {
                    before_s
                } else {
                    after_s
                }
            }
            Target::Trickling { from_s, for_s } => {
                let waits = (from_s..from_s + for_s).contains(&due_s) && !number.is_multiple_of(20);
                if waits { from_s + for_s - due_s } else { 0.001 }
            }
            Target::Unordered { .. } | Target::OneShard { .. } => unreachable!("done above"),
        }
    };
    due_s.iter().enumerate().map(one).collect()
}

fn arrivals() -> impl Strategy<Value = Arrivals> {
    prop_oneof![Just(Arrivals::Constant), Just(Arrivals::Poisson)]
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
        (0.5_f64..0.95).prop_map(|utilization| Target::Queue { utilization }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_stationary_target_keeps_up_whatever_its_latency(
        target in stationary(), arrivals in arrivals(), seed: u64, count in 100_u32..3_000, duration_s in 1_u32..30,
    ) {
        let stages = format!("{}:{duration_s}s", f64::from(count) / f64::from(duration_s));
        let found = pace(&flow(target, &stages, arrivals, seed), 1, 1, MIN_RATE);
        prop_assert_eq!(found, Pace::Kept);
    }

    #[test]
    fn a_target_that_is_offered_more_than_it_can_do_falls_behind(
        overload in 1.05_f64..3.0, seed: u64, rps in 100_u32..1_000, duration_s in 10_u32..15,
    ) {
        let target = Target::Queue { utilization: overload };
        let stages = format!("{rps}:{duration_s}s");
        match pace(&flow(target, &stages, Arrivals::Constant, seed), 1, 1, MIN_RATE) {
            Pace::Behind(backlog) => {
                prop_assert!((backlog.share - 1.0 / overload).abs() < 0.02, "{:?}", backlog);
                prop_assert!(backlog.without_generator && backlog.in_service);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn it_falls_behind_whichever_request_it_serves_next(
        order in prop_oneof![Just(Order::Newest), Just(Order::Any), Just(Order::Shared)],
        overload in 1.05_f64..3.0, seed: u64, rps in 100_u32..500, duration_s in 10_u32..15,
    ) {
        let target = Target::Unordered { order, utilization: overload };
        let stages = format!("{rps}:{duration_s}s");
        let found = pace(&flow(target, &stages, Arrivals::Constant, seed), 1, 1, MIN_RATE);
        prop_assert!(matches!(found, Pace::Behind(_)), "{:?}", found);
    }

    #[test]
    fn it_falls_behind_when_only_one_of_its_shards_does(
        overload in 1.5_f64..3.0, seed: u64, rps in 100_u32..500, duration_s in 10_u32..15,
    ) {
        let target = Target::OneShard { utilization: overload };
        let stages = format!("{rps}:{duration_s}s");
        let found = pace(&flow(target, &stages, Arrivals::Constant, seed), 1, 1, MIN_RATE);
        prop_assert!(matches!(found, Pace::Behind(_)), "{:?}", found);
    }

    /// What it answers then comes as fast as what is asked.
    #[test]
    fn a_latency_that_rises_once_is_no_backlog(
        before_s in 0.001_f64..0.1, rise_s in 0.01_f64..0.3, at in 0.1_f64..0.5, arrivals in arrivals(), seed: u64,
        rps in 20_u32..500, duration_s in 5_u32..20,
    ) {
        let at_s = at * f64::from(duration_s);
        let target = Target::Step { before_s, after_s: before_s + rise_s, at_s };
        let stages = format!("{rps}:{duration_s}s");
        let found = pace(&flow(target, &stages, arrivals, seed), 1, 1, MIN_RATE);
        prop_assert_eq!(found, Pace::Kept);
    }

    /// Random arrivals of 1,000 differ from their rate by three percent; of ten times as many, by one.
    #[test]
    fn random_arrivals_above_the_capacity_fall_behind(
        overload in 1.1_f64..3.0, seed: u64, rps in 1_000_u32..2_000,
    ) {
        let target = Target::Queue { utilization: overload };
        let stages = format!("{rps}:10s");
        let found = pace(&flow(target, &stages, Arrivals::Poisson, seed), 1, 1, MIN_RATE);
        prop_assert!(matches!(found, Pace::Behind(_)), "{:?}", found);
    }
}

/// Where the few independent values at the end lie in a line by chance.
#[test]
fn a_latency_that_rose_once_is_none_in_rare_draws_either() {
    for (rps, duration_s, before_s, rise_s, at, seed) in [
        (
            197,
            14.0,
            0.049_106_902_262_538_17,
            0.207_266_916_310_048_95,
            0.158_596_599_690_145_83,
            10_942_278_478_207_794_955,
        ),
        (
            182,
            9.0,
            0.001,
            0.286_432_150_792_130_75,
            0.220_095_955_373_380_5,
            7_433_753_171_010_413_005,
        ),
    ] {
        let target = Target::Step {
            before_s,
            after_s: before_s + rise_s,
            at_s: at * duration_s,
        };
        let stages = format!("{rps}:{duration_s}s");
        let found = pace(
            &flow(target, &stages, Arrivals::Poisson, seed),
            1,
            1,
            MIN_RATE,
        );
        assert_eq!(found, Pace::Kept, "{stages}");
    }
}

#[test]
fn each_stage_is_judged_by_itself() {
    let target = Target::Queue { utilization: 0.2 };
    // 500 a second is what it can do.
    let flow = flow(target, "100:3s,1500:1s,100:8s", Arrivals::Constant, 1);
    let found = [1, 2, 3].map(|stage| pace(&flow, stage, 1, MIN_RATE));
    let Pace::Behind(backlog) = found[1] else {
        panic!("{found:?}");
    };
    assert!((backlog.share - 1.0 / 3.0).abs() < 0.02, "{backlog:?}");
    assert!(
        (found[0], found[2]) == (Pace::Kept, Pace::Kept),
        "{found:?}"
    );
}

#[test]
fn a_time_without_answers_does_not_hide_in_an_average() {
    for (for_s, missed) in [(4.5, true), (1.2, true), (0.5, false)] {
        let target = Target::Stopped { from_s: 4.0, for_s };
        let found = pace(
            &flow(target, "200:14s", Arrivals::Constant, 1),
            1,
            1,
            MIN_RATE,
        );
        assert_eq!(
            matches!(found, Pace::Silent(_)),
            missed,
            "{for_s}: {found:?}"
        );
    }
}

#[test]
fn a_time_with_hardly_any_answers_is_one_too() {
    for (from_s, for_s, stages, expected) in [
        (4.0, 4.5, "200:12s", [true, false]),
        (4.0, 1.2, "200:12s", [true, false]),
        (4.0, 0.6, "200:12s", [false, false]),
        // The larger part of it decides whose it is.
        (4.05, 1.9, "200:5s,200:5s", [false, true]),
        (4.05, 1.7, "200:5s,200:5s", [true, false]),
    ] {
        let target = Target::Trickling { from_s, for_s };
        let flow = flow(target, stages, Arrivals::Constant, 1);
        let found = [1, 2].map(|stage| pace(&flow, stage, 1, MIN_RATE));
        let silent = found.map(|pace| matches!(pace, Pace::Silent(_)));
        assert_eq!(silent, expected, "{for_s} {stages}: {found:?}");
    }
}

#[test]
fn a_capacity_that_falls_in_the_last_part_is_noticed() {
    for share in [0.5, 0.9] {
        let target = Target::Failing {
            from_s: 50.0,
            share,
        };
        let found = pace(
            &flow(target, "500:60s", Arrivals::Constant, 1),
            1,
            1,
            MIN_RATE,
        );
        let Pace::Behind(backlog) = found else {
            panic!("{share}: {found:?}");
        };
        assert!(
            (backlog.share - share).abs() < 0.1 && backlog.since_s > 49.0,
            "{backlog:?}"
        );
    }
}

#[test]
fn a_rate_that_nothing_is_asked_of_is_never_missed() {
    let flow = flow(
        Target::Queue { utilization: 2.0 },
        "500:10s",
        Arrivals::Constant,
        1,
    );
    assert_eq!(pace(&flow, 1, 1, 0.0), Pace::Kept);
    assert_eq!(pace(&flow, 2, 1, MIN_RATE), Pace::Kept);
}
