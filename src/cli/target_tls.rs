//! What the user typed about the TLS of a target.
//!
//! Enters: arguments and variables, through clap. Leaves: a [`TargetTlsArgs`]. Must not decide anything that involves
//! two settings.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

/// Flags of `bench` for a target behind `https://`.
#[derive(Debug, Default, Args)]
pub struct TargetTlsArgs {
    /// CA certificates (PEM) to verify the target with, instead of those of the system
    #[arg(long, env = "KVPOC_TARGET_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// Client certificate (PEM) for the target
    #[arg(long, env = "KVPOC_TARGET_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,

    /// Private key (PEM) of the client certificate
    #[arg(long, env = "KVPOC_TARGET_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Do not verify the certificate of the target; the report says so
    #[arg(long, env = "KVPOC_TARGET_INSECURE", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub insecure: bool,
}
