//! Text for people: results on standard output, all else on standard error.
//!
//! Enters: whole lines. Leaves: nothing. Must not fail: a reader that has gone away, as `head` does, is no
//! reason to lose an exit code.

use std::io::Write as _;

/// Writes results, as they are.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes one line beside the results.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
