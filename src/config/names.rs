//! Names that were meant: of flags, variables and settings.
//!
//! Enters: a name that is not known, and those that are. Leaves: the one that was most likely meant. Pure. Must not repeat
//! the value of a variable, which may be a secret.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Letters that may be wrong, missing, too many or exchanged.
const MAX_MISTAKES: usize = 2;
/// A beginning of so many letters says what is meant.
const MIN_BEGINNING: usize = 3;
/// What all variables begin with.
const PREFIX: &str = "KVPOC_";
/// Variables of no flag: secrets, and the commit that a build is told.
const OTHER_VARIABLES: [&str; 4] = [
    "KVPOC_TOKEN",
    "KVPOC_STORE_PASSWORD",
    "KVPOC_SENTINEL_PASSWORD",
    "KVPOC_COMMIT",
];

/// The known name that is nearest, if any is near: a few mistakes away, or longer by its end.
pub(super) fn closest<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let mistakes = |other: &&str| strsim::damerau_levenshtein(name, other);
    // Of a short name two wrong letters leave nothing.
    let most = MAX_MISTAKES.min(name.len() / 3);
    let near = known
        .clone()
        .into_iter()
        .filter(|other| mistakes(other) <= most)
        .min_by_key(mistakes);
    near.or_else(|| {
        let mut longer = known
            .into_iter()
            .filter(|other| name.len() >= MIN_BEGINNING && other.starts_with(name));
        let only = longer.next()?;
        longer.all(|other| other == only).then_some(only)
    })
}

/// A warning for each variable that is none of ours, but looks like one.
#[must_use]
pub fn misspelt_variables(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let cli = <crate::cli::Cli as clap::CommandFactory>::command();
    let flags = cli.get_subcommands().chain([&cli]);
    let of_flags = flags.flat_map(|command| {
        let variables = command.get_arguments().filter_map(clap::Arg::get_env);
        variables.filter_map(|name| name.to_str())
    });
    let known: Vec<&str> = of_flags.chain(OTHER_VARIABLES).collect();
    let warning = |name: OsString| {
        let name = name.to_str()?;
        // Of the rest alone: what all begin with makes none of them alike.
        let rest = name.strip_prefix(PREFIX)?;
        if known.contains(&name) {
            return None;
        }
        let rests = known.iter().filter_map(|known| known.strip_prefix(PREFIX));
        let meant = closest(rest, rests)?;
        Some(format!(
            "warning: the variable {name} is unknown and ignored; did you mean {PREFIX}{meant}?"
        ))
    };
    names.filter_map(warning).collect()
}

/// Names the flag that was meant, where clap knows none: it leaves out short names.
pub(super) fn with_suggestion(
    mut error: clap::Error,
    cli: &clap::Command,
    arguments: &[OsString],
) -> clap::Error {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let Some(name) = flag
        .strip_prefix("--")
        .filter(|_| error.kind() == ErrorKind::UnknownArgument)
    else {
        return error;
    };
    let name = name.split(['=', ' ']).next().unwrap_or(name);
    let command = arguments
        .iter()
        .find_map(|argument| cli.find_subcommand(argument))
        .unwrap_or(cli);
    let known: Vec<&str> = command
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .chain(["config"])
        .collect();
    let Some(meant) = closest(name, known.iter().copied()) else {
        return error;
    };
    let meant = ContextValue::String(format!("--{meant}"));
    if error.get(ContextKind::SuggestedArg) != Some(&meant) {
        error.insert(ContextKind::SuggestedArg, meant);
        // It is that of the flag which clap thinks of.
        error.remove(ContextKind::Usage);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_recognised_by_a_few_mistakes_or_by_its_beginning() {
        let known = [
            "rps",
            "duration",
            "connections",
            "keys",
            "keys-per-request",
            "store",
            "store-user",
        ];
        for (name, expected) in [
            ("rsp", Some("rps")),
            ("rp", None),
            ("qps", Some("rps")),
            ("durration", Some("duration")),
            ("dur", Some("duration")),
            ("conections", Some("connections")),
            ("key", Some("keys")),
            ("keys-per-reqest", Some("keys-per-request")),
            ("store_user", Some("store-user")),
            ("stor", Some("store")),
            ("x", None),
            ("something", None),
        ] {
            assert_eq!(closest(name, known), expected, "{name}");
        }
    }

    #[test]
    fn a_variable_that_looks_like_ours_is_named_and_any_other_is_not() {
        let warnings = |name: &str| misspelt_variables([OsString::from(name)].into_iter());
        for (name, expected) in [
            ("KVPOC_RSP", "did you mean KVPOC_RPS?"),
            ("KVPOC_TOKN", "did you mean KVPOC_TOKEN?"),
            ("KVPOC_STORE_PASWORD", "did you mean KVPOC_STORE_PASSWORD?"),
            ("KVPOC_CONIFG", "did you mean KVPOC_CONFIG?"),
        ] {
            let found = warnings(name);
            assert!(
                found.len() == 1 && found[0].contains(expected),
                "{name}: {found:?}"
            );
        }
        for name in [
            "KVPOC_RPS",
            "KVPOC_TOKEN",
            "KVPOC_CONFIG",
            "RSP",
            // What Kubernetes says of services.
            "KVPOC_SERVICE_HOST",
            "KVPOC_SERVICE_PORT",
            "KVPOC_SERVICE_PORT_HTTP",
            "KVPOC_PORT_8080_TCP",
            "KVPOC_PORT_8080_TCP_ADDR",
            "KVPOC_HEALTH_SERVICE_PORT",
            "KVPOC_HEALTH_PORT_8081_TCP_PROTO",
        ] {
            assert_eq!(warnings(name), [""; 0], "{name}");
        }
    }
}
