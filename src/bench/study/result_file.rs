//! The text of a result.
//!
//! Enters: a file. Leaves: its text. Must not read without a bound.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::bail;

/// All of a file, which has at most so many bytes.
///
/// # Errors
/// When it cannot be read, or is larger.
pub(super) fn read(file: &Path, most: u64) -> anyhow::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(most + 1).read_to_string(&mut text)?;
    if text.len() as u64 > most {
        bail!("it is too large for a result of kvpoc bench");
    }
    Ok(text)
}
