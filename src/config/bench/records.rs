//! Whether the answers of another service can be compared with records at all.
//!
//! Enters: what the user typed, the target and its request. Leaves: where the records are told, or a refusal with the
//! mend. Must not read the store's note.

use super::BenchMode;
use crate::cli::BenchArgs;
use crate::config::seed::check_value_size;
use crate::config::{ConfigError, Target, setting};
use crate::load::{ExpectRecords, KeysAsked, Request};
use crate::record::Format;

const NAME: &str = "--expect-records";

/// What the answers are compared with.
pub(super) fn expected(
    args: &BenchArgs,
    mode: BenchMode,
    target: &Target,
    request: Option<&Request>,
) -> Result<ExpectRecords, ConfigError> {
    let expected = args.expect_records.clone();
    // A merge applies what its files were compared with.
    if expected == ExpectRecords::Unknown || !mode.drives() {
        return Ok(ExpectRecords::Unknown);
    }
    let refused = |mend: &str| Err(setting(NAME, &expected.to_string(), mend));
    let Some(request) = request else {
        return refused(&format!(
            "it belongs to a URL with a path; the answers of {target} are compared with their records anyway (--verify)"
        ));
    };
    if request.method.is_head() {
        return refused("no answer to HEAD has a body; leave it out, or give --method GET");
    }
    if args.verify <= 0.0 {
        return refused("--verify 0 compares no answer; give a share, such as --verify 0.01");
    }
    if request.keys_asked() == KeysAsked::None {
        return refused("the request names no key; put {id}, {ids} or {key} where its key stands");
    }
    if let ExpectRecords::Of(dataset) = &expected {
        if args.keys.is_none() {
            return refused("it does not tell how many keys there are; give --keys too");
        }
        check_value_size(NAME, dataset.value_size, dataset.format)?;
        check_batch(dataset.format, request)?;
    }
    Ok(expected)
}

/// Of several values that mean nothing, no answer shows where one ends.
pub(super) fn check_batch(format: Format, request: &Request) -> Result<(), ConfigError> {
    if format == Format::Raw && request.keys_asked() == KeysAsked::Batch {
        let mend =
            "an answer with several raw values cannot be compared; ask for one by {id} or {key}";
        return Err(setting(NAME, "raw", mend));
    }
    Ok(())
}
