//! What a PASS needs: bounds on rate, errors and latency, of the whole run or of a part of it. Pure.
//!
//! Enters: what a user typed after `--slo`. Leaves: [`Objectives`], with the defaults in place. Must not judge a run;
//! `bench::judge` does.

mod objective;
mod quantile;

use std::str::FromStr;

use crate::load::{Mix, Stages};
use crate::units::{UnitError, micros, parse_duration};
use objective::percent;
pub use objective::{Bound, Objective, Operation, Operations, Scope};
pub use quantile::Quantile;

const FORMS: &str = "write objectives such as p99=10ms, max=1s, errors=0.1%, rate=99.9%, read.p99=5ms, stage2.p99=20ms or p99=none";
/// The latency that a PASS needs where nothing else is said.
const DEFAULT_LATENCY: Bound = Bound::Latency {
    quantile: Quantile::of_ten_thousand(9_900),
    at_most_us: 100_000,
};
const DEFAULT_MAX_ERRORS: f64 = 0.001;
const DEFAULT_MIN_RATE: f64 = 0.999;

/// All conditions of a PASS: what `--slo` says, after the defaults that it leaves standing. As JSON it is the text of
/// `--slo` with the defaults written out.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Objectives {
    all: Vec<Objective>,
    /// Nobody said anything of the p99 of the whole run.
    default_latency: bool,
}

/// Who said it makes no difference.
impl PartialEq for Objectives {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl Objectives {
    /// In the order in which they are shown.
    #[must_use]
    pub fn all(&self) -> &[Objective] {
        &self.all
    }

    /// Those for a server of which nobody said how fast it should be: without the default for the latency, which is that
    /// of the claim.
    #[must_use]
    pub fn of_another_service(mut self) -> Self {
        if self.default_latency {
            self.all.retain(|one| {
                one.scope != Scope::RUN || !one.bound.is_of_the_kind_of(&DEFAULT_LATENCY)
            });
        }
        self
    }

    /// Whether one of them bounds the latency.
    #[must_use]
    pub fn bound_latency(&self) -> bool {
        let bounds_latency = |one: &Objective| matches!(one.bound, Bound::Latency { .. });
        self.all.iter().any(bounds_latency)
    }

    /// Whether one of them bounds the errors, of whatever part.
    #[must_use]
    pub fn bound_errors(&self) -> bool {
        self.all
            .iter()
            .any(|one| matches!(one.bound, Bound::Errors { .. }))
    }

    /// Whether one of them bounds the errors of an operation in a stage.
    #[must_use]
    pub fn bound_errors_of(&self, stage: usize, operation: Operation) -> bool {
        self.all.iter().any(|one| {
            matches!(one.bound, Bound::Errors { .. })
                && one.scope.stage.is_none_or(|only| only == stage)
                && one.scope.operations.contain(operation)
        })
    }

    /// Whether one objective leaves a stage to another, that bounds the same of this very stage.
    #[must_use]
    pub fn is_replaced(&self, general: &Objective, stage: usize) -> bool {
        general.scope.stage.is_none()
            && self.all.iter().any(|one| {
                one.scope.stage == Some(stage)
                    && one.scope.operations == general.scope.operations
                    && one.bound.is_of_the_kind_of(&general.bound)
            })
    }

    /// Every part that is bounded exists in this load.
    ///
    /// # Errors
    /// Which does not, and what there is.
    pub fn check(&self, stages: &Stages, operations: &[Operation]) -> Result<(), UnitError> {
        for one in &self.all {
            if one.scope.stage.is_some_and(|stage| stage > stages.0.len()) {
                let count = stages.0.len();
                return Err(UnitError(format!("{one}: the load has {count} stage(s)")));
            }
            let contains = |operation: &Operation| one.scope.operations.contain(*operation);
            if !operations.iter().any(contains) {
                let names: Vec<&str> = operations.iter().map(|one| one.name()).collect();
                return Err(UnitError(format!(
                    "{one}: the load has only these operations: {}",
                    names.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// What is said of one part of a run replaces what was said of it before, the defaults among it.
    fn set(&mut self, scope: Scope, bound: Bound, given: bool) {
        if scope == Scope::RUN && bound.is_of_the_kind_of(&DEFAULT_LATENCY) {
            self.default_latency = false;
        }
        let same = |one: &Objective| one.scope == scope && one.bound.is_of_the_kind_of(&bound);
        self.all.retain(|one| !same(one));
        if given {
            self.all.push(Objective { scope, bound });
        }
    }
}

impl Default for Objectives {
    fn default() -> Self {
        let bounds = [
            Bound::Rate {
                at_least: DEFAULT_MIN_RATE,
            },
            Bound::Errors {
                at_most: DEFAULT_MAX_ERRORS,
            },
            DEFAULT_LATENCY,
        ];
        let of_the_run = |bound| Objective {
            scope: Scope::RUN,
            bound,
        };
        Self {
            all: bounds.map(of_the_run).to_vec(),
            default_latency: true,
        }
    }
}

impl FromStr for Objectives {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut objectives = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (scope, bound, given) = parse_part(part.trim())?;
            objectives.set(scope, bound, given);
        }
        Ok(objectives)
    }
}

impl From<Objectives> for String {
    fn from(objectives: Objectives) -> Self {
        let mut parts: Vec<Self> = Vec::new();
        for default in Objectives::default().all {
            let kept = |one: &Objective| {
                one.scope == Scope::RUN && one.bound.is_of_the_kind_of(&default.bound)
            };
            if !objectives.all.iter().any(kept) {
                parts.push(format!("{}=none", name(&default)));
            }
        }
        parts.extend(objectives.all.iter().map(|one| {
            let limit = match one.bound {
                Bound::Rate { at_least: share } | Bound::Errors { at_most: share } => {
                    format!("{}%", percent(share))
                }
                Bound::Latency { at_most_us, .. } => format!("{at_most_us}us"),
            };
            format!("{}={limit}", name(one))
        }));
        parts.join(",")
    }
}

impl TryFrom<String> for Objectives {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

fn name(objective: &Objective) -> String {
    let scope = objective.scope;
    match objective.bound {
        Bound::Rate { .. } => format!("{scope}rate"),
        Bound::Errors { .. } => format!("{scope}errors"),
        Bound::Latency { quantile, .. } => format!("{scope}{quantile}"),
    }
}

/// The last two members of a name with a fraction are one: `read.p99.9`.
fn parse_part(text: &str) -> Result<(Scope, Bound, bool), UnitError> {
    let Some((name, limit)) = text.split_once('=') else {
        return Err(UnitError(FORMS.into()));
    };
    let starts = ["rate", "errors", "max", "p"];
    let mut place = 0;
    let measure = loop {
        let rest = &name[place..];
        if starts.iter().any(|start| rest.starts_with(start)) {
            break rest;
        }
        match rest.find('.') {
            Some(dot) => place += dot + 1,
            None => return Err(UnitError(FORMS.into())),
        }
    };
    let scope = Scope::parse(&name[..place])?;
    let given = limit != "none";
    let share = |default: f64| match limit.strip_suffix('%').map(str::parse::<f64>) {
        _ if !given => Ok(default),
        Some(Ok(percent)) if (0.0..=100.0).contains(&percent) => Ok((percent * 1e7).round() / 1e9),
        _ => Err(UnitError(format!(
            "{limit:?} is not a percentage from 0% to 100%"
        ))),
    };
    let bound = match measure {
        "rate" => Bound::Rate {
            at_least: share(0.0)?,
        },
        "errors" => Bound::Errors {
            at_most: share(1.0)?,
        },
        _ => Bound::Latency {
            quantile: measure.parse()?,
            at_most_us: if given {
                micros(parse_duration(limit)?)
            } else {
                u64::MAX
            },
        },
    };
    if matches!(bound, Bound::Rate { .. }) && scope.operations != Operations::All {
        return Err(UnitError(
            "the rate is that of all operations together: write rate=… or stage2.rate=…".into(),
        ));
    }
    Ok((scope, bound, given))
}

/// The operations of a mix; those of another target are requests, whatever they do.
#[must_use]
pub fn operations(mix: Mix, is_template: bool) -> Vec<Operation> {
    if is_template {
        return vec![Operation::Request];
    }
    match mix {
        Mix::Batch => vec![Operation::Sessions],
        Mix::Single | Mix::Mixed { reads_percent: 100 } => vec![Operation::Session],
        Mix::SessionsAndStats => vec![Operation::Session, Operation::Stats],
        Mix::Mixed { reads_percent: 0 } => vec![Operation::Write],
        Mix::Mixed { .. } => vec![Operation::Session, Operation::Write],
    }
}

#[cfg(test)]
mod tests;
