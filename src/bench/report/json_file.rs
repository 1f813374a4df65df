//! The JSON of a study: in a file, or on standard output in place of the text.
//!
//! Enters: what was asked for, and in the end the text. Leaves: a file that was known to be writable before the study.

use anyhow::Context as _;

use super::destination::Destination;
use crate::config::Outputs;
use crate::output;

/// Where the JSON goes; it waits for its contents.
pub(in crate::bench) struct JsonFile {
    file: Option<Destination>,
    on_stdout: bool,
}

impl JsonFile {
    /// Finds out whether it can be written, if it is asked for.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(in crate::bench) fn create(outputs: &Outputs) -> anyhow::Result<Self> {
        let on_stdout = outputs.json_on_stdout();
        let path = outputs.json.as_ref().filter(|_| !on_stdout);
        let file = path.map(|path| Destination::check("--json", path));
        Ok(Self {
            file: file.transpose()?,
            on_stdout,
        })
    }

    /// Shows text for people where it does not get into the JSON.
    pub(in crate::bench) fn show(&self, text: &str) {
        if self.on_stdout {
            output::say(text.trim_end());
        } else {
            output::print(text);
        }
    }

    /// The JSON takes the place of the text.
    pub(super) fn is_on_stdout(&self) -> bool {
        self.on_stdout
    }

    /// Fills it.
    ///
    /// # Errors
    /// When the disk is full, or nobody reads.
    pub(in crate::bench) fn write(self, json: &str) -> anyhow::Result<()> {
        if self.on_stdout {
            return output::deliver(json).context("writing --json - to standard output");
        }
        self.file
            .map_or(Ok(()), |file| file.stage(json.as_bytes())?.finish())
    }
}
