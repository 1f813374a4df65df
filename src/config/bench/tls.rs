//! How a target behind `https://` is checked, and what it is shown, out of the flags that say so.
//!
//! Enters: what the user typed, and the target. Leaves: a [`TargetTls`], or a refusal with the mend. Must not open the
//! files: what is wrong with their contents shows when they are used.

use crate::cli::TargetTlsArgs;
use crate::config::{ConfigError, Target, TlsFiles};

/// TLS with a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetTls {
    /// Whom to trust, and what to show.
    pub files: TlsFiles,
    /// Nothing is checked.
    pub insecure: bool,
}

/// `None` of a target without TLS.
pub(super) fn tls(args: &TargetTlsArgs, target: &Target) -> Result<Option<TargetTls>, ConfigError> {
    let given = [
        ("--ca", args.ca.is_some()),
        ("--cert", args.cert.is_some()),
        ("--key", args.key.is_some()),
        ("--insecure", args.insecure),
    ];
    let given = given.into_iter().find(|(_, is_given)| *is_given);
    let is_encrypted = matches!(target, Target::Http { url, .. } if url.tls);
    match (given, target) {
        (Some((name, _)), Target::Store) => {
            return refused(&format!(
                "{name} needs an https target, and --target store is none; see --store-tls-ca for the TLS of the store"
            ));
        }
        (Some((name, _)), Target::Http { url, .. }) if url.unix.is_some() => {
            return refused(&format!(
                "{name} needs an https target, and {url} is a Unix socket without TLS; leave it out"
            ));
        }
        (Some((name, _)), _) if !is_encrypted => {
            return refused(&format!(
                "{name} needs an https target; write https instead of http in --target"
            ));
        }
        _ if !is_encrypted => return Ok(None),
        _ => {}
    }
    if args.insecure && args.ca.is_some() {
        return refused("--insecure verifies nothing, and --ca would be ignored; give one of them");
    }
    let identity = match (&args.cert, &args.key) {
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        (None, None) => None,
        _ => return refused("--cert and --key belong together; give both"),
    };
    Ok(Some(TargetTls {
        files: TlsFiles {
            ca: args.ca.clone(),
            identity,
        },
        insecure: args.insecure,
    }))
}

fn refused<T>(reason: &str) -> Result<T, ConfigError> {
    Err(ConfigError::Setting(reason.to_owned()))
}
