//! Text for people: results on standard output, all else on standard error.
//!
//! Enters: whole lines. Leaves: nothing. A reader that has gone away, as `head` does, is no reason to lose an exit
//! code; a disk that is full is.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;

use rustix::io::Errno;

/// Why something that was printed did not arrive, the first time.
static LOST: OnceLock<String> = OnceLock::new();

/// Writes results, as they are. What cannot be written, though somebody may be waiting for it, is [`lost`].
pub fn print(text: &str) {
    if let Err(error) = deliver(text)
        && !is_reader_gone(&error)
    {
        let _ = LOST.set(error.to_string());
    }
}

/// Writes results that must arrive.
///
/// # Errors
/// When not all of them could be written, whatever the reason.
pub fn deliver(text: &str) -> io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Why printed results are not all there; `None` when they are, or when their reader went away.
#[must_use]
pub fn lost() -> Option<&'static str> {
    LOST.get().map(String::as_str)
}

/// A closed pipe, or a terminal that was closed, which fails as a broken device would.
fn is_reader_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe || Errno::from_io_error(error) == Some(Errno::IO)
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
