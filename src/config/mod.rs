//! Settings: file, environment and flags become one validated struct per command.
//!
//! Enters: arguments, the environment, a TOML file. Leaves: a [`Job`], in which nothing can be wrong any
//! more. Must not open a connection or ask the store anything.
//!
//! The file's values become the defaults of the command line before it is parsed. So the order defaults <
//! file < environment < flags is clap's own, and each setting has one name, one parser and one message.

mod address;
mod bench;
mod file;
mod inspect;
mod names;
mod secret;
mod seed;
mod serve;
mod store;
mod target;
mod token;

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _};

pub use address::{Node, Servers, StoreUrl, Topology};
pub use bench::{
    BenchConfig, BenchMode, Given, Outputs, Replay, RequestsFile, SELF_TEST_RPS, TargetTls,
};
use file::{FileSettings, with_origin};
pub use inspect::InspectConfig;
pub use names::misspelt_variables;
use names::with_suggestion;
pub use secret::{Login, Secret};
pub use seed::{SeedConfig, SeedMode};
pub use serve::{AccessConfig, LogConfig, ServeConfig};
use store::store;
pub use store::{Fetch, StoreConfig, TlsFiles};
pub use target::{Target, TargetUrl};
pub use token::Token;

use crate::cli::{self, Cli, Command};
use crate::units::MAX_KEY_BYTES;

/// Decimal digits of the largest index.
const MAX_INDEX_DIGITS: usize = 12;

/// One command with all that it needs.
#[derive(Debug)]
pub enum Job {
    /// `kvpoc seed`
    Seed(SeedConfig),
    /// `kvpoc serve`
    Serve(ServeConfig),
    /// `kvpoc bench`
    Bench(Box<BenchConfig>),
    /// `kvpoc inspect`
    Inspect(InspectConfig),
    /// A text that is ready to be printed: completions, a manual page.
    Print(Vec<u8>),
}

/// Why there is no [`Job`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// clap has the message: wrong usage, or the help and version that were asked for.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// A setting, its value and the fix.
    #[error("{0}")]
    Setting(String),
    /// The file cannot be read or understood.
    #[error("{file}: {reason}")]
    File {
        /// Its path.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads all settings and checks them.
///
/// # Errors
/// [`ConfigError`]; the message names the setting, the value and the fix.
pub fn load(arguments: &[OsString]) -> Result<Job, ConfigError> {
    let cli = cli::arranged(Cli::command(), arguments);
    let cli = without_service_links(cli, |name| std::env::var_os(name));
    let parsed = parse(&cli, arguments, None)?;
    let Some(file) = parsed.config else {
        return resolve(parsed.command);
    };
    let settings = FileSettings::read(&file)?;
    let with_file = settings.as_defaults_of(cli)?;
    resolve(parse(&with_file, arguments, Some(&settings))?.command)
}

/// Variables of ports, and the names of their settings.
const PORTS: [(&str, &str); 2] = [("KVPOC_PORT", "port"), ("KVPOC_HEALTH_PORT", "health_port")];

/// To every pod beside a service named `kvpoc`, or `kvpoc-health`, Kubernetes gives `KVPOC_PORT=tcp://10.0.0.1:8080`, which is about that
/// service and no setting: <https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables>.
fn without_service_links(
    mut cli: clap::Command,
    variable: impl Fn(&str) -> Option<OsString>,
) -> clap::Command {
    for (name, id) in PORTS {
        let is_link = variable(name).is_some_and(|value| {
            let value = value.to_string_lossy();
            ["tcp://", "udp://", "sctp://"]
                .iter()
                .any(|start| value.starts_with(start))
        });
        if is_link {
            cli = cli.mut_subcommand("serve", |serve| {
                serve.mut_arg(id, |port| port.env(clap::builder::Resettable::Reset))
            });
        }
    }
    cli
}

fn parse(
    cli: &clap::Command,
    arguments: &[OsString],
    settings: Option<&FileSettings>,
) -> Result<Cli, ConfigError> {
    cli.clone()
        .try_get_matches_from(arguments)
        .and_then(|matches| {
            let mut cli = Cli::from_arg_matches(&matches)?;
            match (&mut cli.command, matches.subcommand()) {
                (Command::Bench(args), Some((_, matches))) => args.given = given(matches),
                (Command::Seed(args), Some((_, matches))) => args.given = given(matches),
                _ => {}
            }
            Ok(cli)
        })
        .map_err(|error| {
            let error = with_suggestion(error, cli, arguments);
            with_origin(error, arguments, settings).into()
        })
}

/// The names of the settings that do not have their defaults, and where each comes from.
fn given(matches: &clap::ArgMatches) -> Vec<(String, ValueSource)> {
    let sourced = |id: &clap::Id| {
        let source = matches.value_source(id.as_str())?;
        (source != ValueSource::DefaultValue).then(|| (id.to_string(), source))
    };
    matches.ids().filter_map(sourced).collect()
}

fn resolve(command: Command) -> Result<Job, ConfigError> {
    Ok(match command {
        Command::Seed(args) => Job::Seed(seed::seed(args)?),
        Command::Serve(args) => Job::Serve(serve::serve(args)?),
        Command::Bench(args) => Job::Bench(Box::new(bench::bench(*args)?)),
        Command::Inspect(args) => Job::Inspect(inspect::inspect(args)?),
        Command::Completions { shell } => Job::Print(cli::completions(shell)),
        Command::Man { command } => Job::Print(
            cli::manual(command.as_deref())
                .map_err(|error| ConfigError::Setting(error.to_string()))?,
        ),
    })
}

fn share(name: &str, value: f64) -> Result<f64, ConfigError> {
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(setting(
        name,
        &value.to_string(),
        "give a share from 0 to 1",
    ))
}

fn check_key_prefix(prefix: &str) -> Result<(), ConfigError> {
    let longest = MAX_KEY_BYTES - MAX_INDEX_DIGITS;
    if prefix.len() <= longest {
        return Ok(());
    }
    Err(setting(
        "--key-prefix",
        &format!("{} bytes", prefix.len()),
        &format!("give at most {longest} bytes: a key has at most {MAX_KEY_BYTES}"),
    ))
}

/// Flags that exclude one another, and what to do about it.
fn conflict(names: &str, mend: &str) -> ConfigError {
    ConfigError::Setting(format!("{names} cannot be combined: {mend}"))
}

fn setting(name: &str, value: &str, mend: &str) -> ConfigError {
    ConfigError::Setting(format!("invalid value '{value}' for {name}: {mend}"))
}

/// Takes any text for a settings file, a store URL and each kind of value; panics where it must not.
#[cfg(feature = "fuzzing")]
pub fn fuzz(text: &str) {
    use crate::load::{
        ExpectRecords, HeaderLine, KeysDist, Listed, LogFormat, LogLine, Method, Mix, Shard,
        Stages, Statuses, Template,
    };
    use crate::objectives::Objectives;
    use crate::units::{KeyCount, Rate, ValueSize};
    if let Ok(settings) = FileSettings::parse(std::path::Path::new("any.toml"), text) {
        let _ = settings.as_defaults_of(Cli::command());
    }
    if let Ok((url @ StoreUrl::Tcp(_), _)) = StoreUrl::parse(text) {
        let again = StoreUrl::parse(&url.to_string()).map(|(again, _)| again.to_string());
        assert_eq!(again.ok(), Some(url.to_string()));
    }
    let _ = (text.parse::<Target>(), text.parse::<Objectives>());
    let _ = (text.parse::<Rate>(), text.parse::<KeyCount>());
    let _ = (text.parse::<Mix>(), text.parse::<KeysDist>());
    let _ = (text.parse::<Shard>(), text.parse::<ValueSize>());
    let _ = (
        text.parse::<Method>(),
        HeaderLine::from(text.to_owned()).parse(),
    );
    let _ = Listed::parse(text, &|_, _| true);
    let _ = LogLine::parse(text, LogFormat::of(text), &|_, _| true);
    assert_eq!(Template::of(text.as_bytes()).to_string(), text);
    if let Ok(expected) = text.parse::<ExpectRecords>() {
        assert_eq!(expected.to_string().parse(), Ok(expected));
    }
    if let Ok(statuses) = text.parse::<Statuses>() {
        assert_eq!(
            statuses.to_string().parse::<Statuses>().ok(),
            Some(statuses)
        );
    }
    if let Ok(stages) = text.parse::<Stages>() {
        assert_eq!(stages.to_string().parse::<Stages>().ok(), Some(stages));
    }
}

#[cfg(test)]
mod tests;
