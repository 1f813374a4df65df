//! The settings file: its values become the defaults of the command line.
//!
//! Enters: TOML. Leaves: a [`clap::Command`] with other defaults, or a refusal that names the setting. Must not
//! know what any setting means.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue};

use super::ConfigError;
use super::names::closest;
use crate::cli::Cli;

/// What a settings file holds: (section, setting, value); the section is empty at the top level.
pub(super) struct FileSettings {
    file: PathBuf,
    pub(super) entries: Vec<(String, String, String)>,
}

impl FileSettings {
    pub(super) fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError::File {
            file: file.display().to_string(),
            reason: error.to_string(),
        })?;
        Self::parse(file, &text)
    }

    pub(super) fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut settings = Self {
            file: file.to_owned(),
            entries: Vec::new(),
        };
        let table: toml::Table =
            toml::from_str(text).map_err(|error| settings.error(toml_reason(text, &error)))?;
        for (name, value) in table {
            match value {
                toml::Value::Table(section) => {
                    for (key, value) in section {
                        settings.push(&name, &key, &value)?;
                    }
                }
                value => settings.push("", &name, &value)?,
            }
        }
        Ok(settings)
    }

    fn push(&mut self, section: &str, key: &str, value: &toml::Value) -> Result<(), ConfigError> {
        let text = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(value) => value.to_string(),
            other => {
                let name = dotted(section, key);
                let kind = other.type_str();
                return Err(self.error(format!(
                    "{name}: the value is of type {kind}; give text, a number, true or false"
                )));
            }
        };
        self.entries
            .push((section.to_owned(), key.to_owned(), text));
        Ok(())
    }

    /// The command line with the file's values in place of its own defaults.
    pub(super) fn as_defaults_of(
        &self,
        mut cli: clap::Command,
    ) -> Result<clap::Command, ConfigError> {
        // The top level first, so that a command's own section wins over it.
        let (top, sections): (Vec<_>, Vec<_>) =
            self.entries.iter().partition(|entry| entry.0.is_empty());
        for (section, key, value) in top.into_iter().chain(sections) {
            let names: Vec<String> = cli
                .get_subcommands()
                .filter(|command| section.is_empty() || command.get_name() == section)
                .filter(|command| has_setting(command, key))
                .map(|command| command.get_name().to_owned())
                .collect();
            if names.is_empty() {
                return Err(self.unknown(&cli, section, key));
            }
            for name in names {
                let (id, value) = (key.replace('-', "_"), value.clone());
                cli = cli.mut_subcommand(name, |command| {
                    command.mut_arg(id, |arg| arg.default_value(value))
                });
            }
        }
        Ok(cli)
    }

    fn unknown(&self, cli: &clap::Command, section: &str, key: &str) -> ConfigError {
        let known_section = section.is_empty()
            || cli
                .get_subcommands()
                .any(|command| command.get_name() == section && !command.is_hide_set());
        if !known_section {
            return self.error(format!(
                "unknown section [{section}]; there are [seed], [serve], [bench] and [inspect]"
            ));
        }
        let mut known: Vec<&str> = cli
            .get_subcommands()
            .filter(|command| section.is_empty() || command.get_name() == section)
            .flat_map(settings_of)
            .collect();
        known.sort_unstable();
        known.dedup();
        let unknown = dotted(section, key);
        if let Some(meant) = closest(key, known.iter().copied()) {
            let meant = dotted(section, meant);
            return self.error(format!("unknown setting {unknown}; did you mean {meant}?"));
        }
        self.error(format!(
            "unknown setting {unknown}; known here: {}",
            known.join(", ")
        ))
    }

    fn error(&self, reason: String) -> ConfigError {
        ConfigError::File {
            file: self.file.display().to_string(),
            reason,
        }
    }
}

/// The message and its place, without the line itself, which may hold a password.
fn toml_reason(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let line = text
        .bytes()
        .take(start)
        .filter(|&byte| byte == b'\n')
        .count()
        + 1;
    format!("line {line}: {}", error.message())
}

pub(super) fn dotted(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}

/// Names of the settings that a command takes from a file: its long flags, as typed.
pub(super) fn settings_of(command: &clap::Command) -> impl Iterator<Item = &str> {
    command
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .filter(|name| !["config", "help", "version"].contains(name))
}

fn has_setting(command: &clap::Command, key: &str) -> bool {
    settings_of(command).any(|name| name == key)
}

/// Says where a refused value came from when it was not typed: clap itself names only the flag.
pub(super) fn with_origin(
    mut error: clap::Error,
    arguments: &[OsString],
    settings: Option<&FileSettings>,
) -> clap::Error {
    let (Some(ContextValue::String(flag)), Some(ContextValue::String(value))) = (
        error.get(ContextKind::InvalidArg),
        error.get(ContextKind::InvalidValue),
    ) else {
        return error;
    };
    let name = flag
        .trim_start_matches("--")
        .split([' ', '='])
        .next()
        .unwrap_or_default();
    let typed = arguments.iter().any(|argument| {
        let argument = argument.to_string_lossy();
        argument == format!("--{name}") || argument.starts_with(&format!("--{name}="))
    });
    if typed {
        return error;
    }
    let from_environment = Cli::command()
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .filter(|arg| arg.get_long() == Some(name))
        .filter_map(clap::Arg::get_env)
        .find(|variable| std::env::var_os(variable).is_some_and(|set| set == value.as_str()))
        .map(|variable| variable.to_string_lossy().into_owned());
    let from_file = || {
        let settings = settings?;
        let (section, key, _) = settings
            .entries
            .iter()
            .find(|(_, key, text)| key == name && text == value)?;
        Some(format!(
            "{} in {}",
            dotted(section, key),
            settings.file.display()
        ))
    };
    if let Some(origin) = from_environment.or_else(from_file) {
        let flag = format!("{flag} (set by {origin})");
        error.insert(ContextKind::InvalidArg, ContextValue::String(flag));
    }
    error
}
