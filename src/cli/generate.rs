//! Completions and manual pages, from the command line's own types.
//!
//! Enters: a shell, or the name of a command. Leaves: text for standard output. Must not write a file: where these belong
//! differs by system.

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;

/// A script that completes commands and flags in this shell.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "kvpoc", &mut script);
    script
}

/// A manual page in roff: of `kvpoc` itself, or of one of its commands.
///
/// # Errors
/// Of the writer, which is memory: none is known.
pub fn manual(name: Option<&str>) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let mut cli = command();
    cli.build();
    let of = name.and_then(|name| cli.find_subcommand(name)).cloned();
    clap_mangen::Man::new(of.unwrap_or(cli)).render(&mut page)?;
    Ok(page)
}

/// As `--help` arranges it, without the commands that are not shown.
fn command() -> Command {
    super::arranged(Cli::command(), &[])
}
