//! Text for people: results on standard output, all else on standard error.
//!
//! Enters: whole lines. Leaves: nothing. Must not fail: a reader that has gone away, as `head` does, is no
//! reason to lose an exit code.

use std::io::{IsTerminal as _, Write as _};

/// Writes results, as they are.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes one line beside the results.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Bold on a terminal that wants it (<https://no-color.org>), plain elsewhere.
#[must_use]
pub fn bold(text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain || !std::io::stdout().is_terminal() {
        return text.to_owned();
    }
    format!("\x1b[1m{text}\x1b[0m")
}
