//! What happened, and what follows from it. Pure: no clock, no network, no output.
//!
//! Enters: events of single arrivals. Leaves: tallies, [`results::Results`] and a verdict. Must not know how a
//! load is driven or shown.
//!
//! An event is counted in a [`tally`] of its [`interval`] and in the [`flow`]; both are the [`evidence`]. At the end
//! [`rate`] tells whether each stage kept up, [`criteria`] hold the objectives against what was measured, [`blame`] tells
//! whose fault a miss is, and [`verdict`] concludes.

pub mod abort;
pub mod blame;
pub mod clock;
pub mod criteria;
pub mod drift;
pub mod evidence;
pub mod flow;
pub mod handshakes;
pub mod histogram;
pub mod interval;
pub mod ledger;
pub mod rate;
pub mod reconcile;
pub(super) mod repeat;
pub mod results;
pub(super) mod run;
pub mod series;
pub(super) mod sides;
pub mod statistics;
pub mod tally;
pub(super) mod tries;
pub mod verdict;
