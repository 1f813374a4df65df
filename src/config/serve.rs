//! Settings of `serve`, checked.
//!
//! Enters: what the user typed, and the token from its variable or file. Leaves: a [`ServeConfig`]. Must not
//! print the token.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::header::HeaderValue;

use super::{ConfigError, StoreConfig, Token, check_key_prefix, setting, share, store};
use crate::cli::{LogFormat, ServeArgs};

/// Settings of `serve`.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Where the keys are.
    pub store: StoreConfig,
    /// How long the store may take to come after the start; `None`: as long as it takes.
    pub wait_for_store: Option<Duration>,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where only health and metrics are answered; `None`: nowhere but there.
    pub health: Option<SocketAddr>,
    /// Only ask whoever listens there whether it is ready.
    pub check: bool,
    /// Threads that answer, at least 1.
    pub threads: usize,
    /// What stands before a session's id in its key.
    pub key_prefix: String,
    /// Who may ask, and what.
    pub access: AccessConfig,
    /// The routes of Upstash's REST API are answered.
    pub upstash: bool,
    /// Keys in one request.
    pub max_keys_per_request: usize,
    /// Connections over all threads.
    pub max_connections: usize,
    /// Requests that wait for the store, over all threads.
    pub max_in_flight: usize,
    /// How long a connection may wait for a whole request.
    pub idle: Duration,
    /// How long the head of a request may take, from its first byte on.
    pub head: Duration,
    /// Bytes of bodies and of large answers that may be held.
    pub max_held_bytes: usize,
    /// Time that requests under way have after the stop signal.
    pub drain: Duration,
    /// What is logged.
    pub log: LogConfig,
}

/// Who may ask, and what.
#[derive(Debug, Clone)]
pub struct AccessConfig {
    /// What a client must show; `None`: nothing.
    pub token: Option<Token>,
    /// Writes are answered.
    pub allow_writes: bool,
    /// Whoever reaches the port may read: it is not on loopback, and takes no token.
    pub open_to_all: bool,
    /// Names that the server answers to besides `localhost` and addresses; `None`: any.
    pub hosts: Option<Vec<String>>,
    /// The origin whose pages may read answers; `None`: only pages of this server.
    pub cors_origin: Option<HeaderValue>,
}

/// What is logged, on standard error.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// A filter of tracing.
    pub filter: String,
    /// As text or as JSON.
    pub format: LogFormat,
    /// Share of the requests that leave a line, 0 to 1.
    pub access: f64,
}

pub(super) fn serve(args: ServeArgs) -> Result<ServeConfig, ConfigError> {
    check_key_prefix(&args.key_prefix)?;
    if let Err(error) = args.log.parse::<tracing_subscriber::EnvFilter>() {
        return Err(setting(
            "--log",
            &args.log,
            &format!("{error}; give error, warn, info, debug or a tracing filter"),
        ));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(ServeConfig {
        access: access(&args)?,
        health: health(&args)?,
        store: store(args.store, args.store_timeout)?
            .read_by(args.fetch.fixed(), args.store_reads)
            .read_from(args.read_from)?,
        wait_for_store: args.wait_for_store,
        listen: SocketAddr::new(args.bind, args.port),
        check: args.check,
        threads: if args.threads == 0 {
            cores
        } else {
            args.threads.into()
        },
        key_prefix: args.key_prefix,
        upstash: args.upstash,
        max_keys_per_request: args.max_keys_per_request as usize,
        max_connections: args.max_connections as usize,
        max_in_flight: args.max_in_flight as usize,
        idle: args.idle_timeout,
        head: args.head_timeout,
        max_held_bytes: args.max_held,
        drain: args.drain,
        log: LogConfig {
            filter: args.log,
            format: args.log_format,
            access: share("--access-log", args.access_log)?,
        },
    })
}

fn health(args: &ServeArgs) -> Result<Option<SocketAddr>, ConfigError> {
    match args.health_port {
        Some(port) if port != 0 && port == args.port => {
            let mend = "--port uses it; give another, or leave it out";
            Err(setting("--health-port", &port.to_string(), mend))
        }
        port => Ok(port.map(|port| SocketAddr::new(args.bind, port))),
    }
}

fn access(args: &ServeArgs) -> Result<AccessConfig, ConfigError> {
    let token = Token::read(args.token_file.as_deref())?;
    let cors_origin = args.cors_origin.as_deref().map(cors_origin).transpose()?;
    let open_to_all = token.is_none() && !args.bind.is_loopback();
    let any_host = args.allow_host == ["*"];
    let hosts = if any_host {
        Vec::new()
    } else {
        let hosts = args.allow_host.iter().map(|host| allowed_host(host));
        hosts.collect::<Result<_, _>>()?
    };
    // A page that may ask is somebody else too, wherever its browser runs.
    let only_us = args.bind.is_loopback() && cors_origin.is_none() && !any_host;
    let guarded = token.is_some() || only_us;
    // A page of the web can have its own name resolved to this server, wherever that listens; what its browser then
    // reads is only kept from it by the name, unless there is a token.
    let on_trust = token.is_none() && !any_host;
    Ok(AccessConfig {
        allow_writes: args.allow_writes && guarded,
        open_to_all,
        hosts: on_trust.then_some(hosts),
        token,
        cors_origin,
    })
}

fn allowed_host(text: &str) -> Result<String, ConfigError> {
    match url::Host::parse(text.trim()) {
        Ok(url::Host::Domain(name)) if !name.contains('*') => Ok(name),
        _ => {
            let mend = "give names such as kvpoc.test, without scheme and port, or * alone for any";
            Err(setting("--allow-host", text, mend))
        }
    }
}

fn cors_origin(text: &str) -> Result<HeaderValue, ConfigError> {
    // Browsers compare it letter by letter with what they send.
    let exact = url::Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text);
    HeaderValue::from_str(text)
        .ok()
        .filter(|_| exact || text == "*")
        .ok_or_else(|| {
            let mend = "give one origin such as https://example.com, or *";
            setting("--cors-origin", text, mend)
        })
}
