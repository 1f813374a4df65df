//! What a run is judged by: all that was counted, and what it is held to. Pure.
//!
//! Enters: counts of one generator, and those of others. Leaves: [`Evidence`] of the whole. Must not conclude anything, nor
//! know what is concluded from it.

use super::clock::StartByTarget;
use super::flow::Flow;
use super::interval::Tallies;
use crate::objectives::Objectives;

/// What a run is judged by, whole: so that those of several generators can be added up and judged again.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Evidence {
    /// When the schedule began, in milliseconds of the Unix epoch.
    pub started_at_ms: u64,
    /// Length of the measured part as far as it was followed.
    pub scheduled_s: f64,
    /// The run was stopped by hand.
    pub interrupted: bool,
    /// Why it was ended before its schedule did, since its verdict could not change any more.
    pub ended_early: Option<String>,
    /// What a PASS needs.
    pub objectives: Bounds,
    /// Generators that share the schedule, of which this is the evidence of one; 1 when it is that of all.
    pub generators: u64,
    /// 99th percentile of the lag of the thread, and generator, that lagged most.
    pub lag_p99_us: u64,
    /// When it began by the target's clock; `null` when its answers have no date, or those of several targets.
    #[serde(default)]
    pub start_by_target: Option<StartByTarget>,
    /// Arrivals by stage and operation.
    pub tallies: Tallies,
    /// Arrivals and answers over time.
    pub flow: Flow,
}

impl Evidence {
    /// Adds that of another generator of the same schedule, and keeps the worst of what cannot be added.
    pub fn add(&mut self, other: &Self) {
        // Named one by one, so that a new member cannot be forgotten.
        let Self {
            started_at_ms,
            scheduled_s,
            interrupted,
            ended_early,
            objectives: _,
            generators: _,
            lag_p99_us,
            start_by_target: _,
            tallies,
            flow,
        } = other;
        self.started_at_ms = self.started_at_ms.min(*started_at_ms);
        self.scheduled_s = self.scheduled_s.max(*scheduled_s);
        self.interrupted |= interrupted;
        self.ended_early = self.ended_early.take().or_else(|| ended_early.clone());
        self.lag_p99_us = self.lag_p99_us.max(*lag_p99_us);
        // Each may have driven a target of its own.
        self.start_by_target = None;
        self.tallies.add(tallies);
        self.flow.add(flow);
    }

    /// It makes sense, and that of thousands can be added up.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        self.scheduled_s.is_finite()
            && self.scheduled_s > 0.0
            && self.flow.is_plausible()
            && self.flow.outline.stretches.len() > 1
            && self
                .tallies
                .iter()
                .all(|(_, _, tally)| tally.is_plausible())
    }
}

/// What a PASS needs.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Bounds {
    /// Rate, errors, latencies.
    pub objectives: Objectives,
    /// Share of the keys that may be missing.
    pub max_miss: f64,
    /// Largest lag p99 of the generator itself.
    pub max_lag_us: u64,
}

/// Cost of the generator over the whole run, warm-up and drain included.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Generator {
    /// CPU time, user and system.
    pub cpu_s: f64,
    /// That for each request sent.
    pub cpu_us_per_request: f64,
    /// That as a share of one core.
    pub cores_used: f64,
    /// 99th percentile of the lag of the thread that lagged most.
    pub lag_p99_us: u64,
    /// Share of the schedule's time in which the busiest thread ran, or was ready to run and had no core.
    pub busy_share: f64,
}
