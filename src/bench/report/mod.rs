//! The results of a run, in the forms that people and programs read.
//!
//! Enters: results, all figures final. Leaves: text and JSON. Must not compute anything new: what two
//! forms show is one number.

pub(super) mod against;
pub(super) mod by_rate;
mod charts;
pub(super) mod compare;
mod destination;
pub(super) mod files;
pub(super) mod html;
pub(super) mod json_file;
mod live;
pub(super) mod repeat;
mod svg;
pub(super) mod text;
pub(super) mod watch;

/// The JSON file's text.
pub(super) fn json(results: &impl serde::Serialize) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(results)? + "\n")
}
