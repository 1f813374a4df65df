//! The rates of a sweep. Pure.

use std::fmt;
use std::str::FromStr;

use crate::units::{Rate, UnitError};

/// More runs than anybody waits for.
const MAX_RATES: usize = 200;

/// Rates, each of which gets a run: `5k..45k/5k`, `5k,10k,20k`, or both kinds with commas between them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sweep(pub Vec<Rate>);

impl FromStr for Sweep {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut rates = Vec::new();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            match part.split_once("..") {
                None => rates.push(part.parse()?),
                Some((from, rest)) => rates.extend(steps(from, rest)?),
            }
            if rates.len() > MAX_RATES {
                return Err(too_many());
            }
        }
        Ok(Self(rates))
    }
}

/// From the first rate on, up to the last one, which counts when a step falls on it.
fn steps(from: &str, rest: &str) -> Result<Vec<Rate>, UnitError> {
    let Some((to, step)) = rest.split_once('/') else {
        let form = "write FROM..TO/STEP, such as 5k..45k/5k, or rates separated by commas";
        return Err(UnitError(form.into()));
    };
    let [from, to, step] = [from, to, step].map(str::parse::<Rate>);
    let (from, to, step) = (from?.per_second(), to?.per_second(), step?.per_second());
    if from > to {
        return Err(UnitError("a sweep begins with its lower rate".into()));
    }
    // Binary fractions may miss the last step by a hair.
    let count = ((to - from) / step + 1e-9).floor();
    if count >= MAX_RATES as f64 {
        return Err(too_many());
    }
    let rates = (0..=count as u32).map(|number| {
        let rate = from + f64::from(number) * step;
        rate.to_string().parse()
    });
    rates.collect()
}

fn too_many() -> UnitError {
    UnitError(format!(
        "a sweep has at most {MAX_RATES} rates; take larger steps"
    ))
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rates: Vec<String> = self.0.iter().map(Rate::to_string).collect();
        f.write_str(&rates.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_is_a_range_with_steps_or_a_list() {
        for (text, expected) in [
            (
                "5k..45k/5k",
                "5000,10000,15000,20000,25000,30000,35000,40000,45000",
            ),
            ("1..10/4", "1,5,9"),
            ("0.1..0.3/0.1", "0.1,0.2,0.30000000000000004"),
            ("5k..5k/1", "5000"),
            ("5k,10k,2k", "5000,10000,2000"),
            ("100,1k..3k/1k", "100,1000,2000,3000"),
            ("", ""),
        ] {
            let sweep: Sweep = text.parse().expect(text);
            assert_eq!(sweep.to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_sweep_is_refused_with_its_form() {
        for (text, expected) in [
            ("5k..45k", "FROM..TO/STEP"),
            ("45k..5k/5k", "its lower rate"),
            ("5k..45k/0", "above 0"),
            ("1..1M/1", "at most 200"),
            ("5k,,6k", "is not a number"),
            ("5k..x/1", "is not a number"),
        ] {
            let refused = text.parse::<Sweep>().expect_err(text).to_string();
            assert!(refused.contains(expected), "{text}: {refused}");
        }
    }
}
