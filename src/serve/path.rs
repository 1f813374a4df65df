//! Which paths there are, and what is the same for all requests of one. Pure.
//!
//! Enters: a path. Leaves: a [`Path`], which is the label of its requests, and says what is let at it. Must not look at
//! anything else of a request.

use hyper::Method;

use super::route::Limits;
use super::upstash;

/// The methods of what is only read.
pub(super) const READ: &str = "GET, HEAD";

/// A path that is answered: the label of its requests wherever they are counted, since a key must not be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is its template")]
pub enum Path {
    Dashboard,
    DashboardData,
    Floor,
    Key,
    Keys,
    Livez,
    Metrics,
    Mget,
    Mset,
    OpenApi,
    PathCommand,
    Pipeline,
    Readyz,
    Session,
    Sessions,
    Stats,
    Transaction,
    Unknown,
}

impl Path {
    /// Every path, in the order of their discriminants.
    pub const ALL: [Self; 18] = [
        Self::Dashboard,
        Self::DashboardData,
        Self::Floor,
        Self::Key,
        Self::Keys,
        Self::Livez,
        Self::Metrics,
        Self::Mget,
        Self::Mset,
        Self::OpenApi,
        Self::PathCommand,
        Self::Pipeline,
        Self::Readyz,
        Self::Session,
        Self::Sessions,
        Self::Stats,
        Self::Transaction,
        Self::Unknown,
    ];

    /// The path as documents write it.
    #[must_use]
    pub fn template(self) -> &'static str {
        match self {
            Self::Dashboard => "/",
            Self::DashboardData => "/dashboard.json",
            Self::Floor => "/floor",
            Self::Key => "/v1/keys/{key}",
            Self::Keys => "/v1/keys",
            Self::Livez => "/livez",
            Self::Metrics => "/metrics",
            Self::Mget => "/v1/mget",
            Self::Mset => "/v1/mset",
            Self::OpenApi => "/openapi.json",
            Self::PathCommand => "/{command}",
            Self::Pipeline => "/pipeline",
            Self::Readyz => "/readyz",
            Self::Session => "/user/session/{id}",
            Self::Sessions => "/user/sessions",
            Self::Stats => "/stats",
            Self::Transaction => "/multi-exec",
            Self::Unknown => "unknown",
        }
    }

    /// Finds the path of a request's target.
    #[must_use]
    pub fn of(path: &str) -> Self {
        if path.starts_with("/v1/keys/") {
            return Self::Key;
        }
        if path.starts_with("/user/session/") {
            return Self::Session;
        }
        let known = Self::ALL.into_iter().find(|known| known.template() == path);
        known.unwrap_or_else(|| {
            if upstash::is_command(path) {
                Self::PathCommand
            } else {
                Self::Unknown
            }
        })
    }

    /// Whether it is what the server is for. The others look at the server itself, and are no part of what they show.
    #[must_use]
    pub fn is_work(self) -> bool {
        !matches!(
            self,
            Self::Dashboard
                | Self::DashboardData
                | Self::Livez
                | Self::Metrics
                | Self::OpenApi
                | Self::Readyz
        )
    }

    /// Whether its answers, refusals too, have the shape of Upstash.
    #[must_use]
    pub fn is_upstash(self, method: &Method) -> bool {
        match self {
            Self::PathCommand | Self::Pipeline | Self::Transaction => true,
            Self::Dashboard => *method == Method::POST,
            _ => false,
        }
    }

    /// Health is asked by machines that have no token, and tells nothing about the data.
    #[must_use]
    pub fn is_open_to_all(self) -> bool {
        matches!(self, Self::Livez | Self::Readyz)
    }

    /// The methods that are answered here; `None`: every one gets 404.
    #[must_use]
    pub fn allowed(self, limits: Limits) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::PathCommand | Self::Pipeline | Self::Transaction if !limits.upstash => None,
            Self::PathCommand => Some("GET, HEAD, POST, PUT"),
            Self::Key => Some("GET, HEAD, PUT, DELETE"),
            Self::Mget | Self::Mset | Self::Pipeline | Self::Transaction => Some("POST"),
            Self::Dashboard if limits.upstash => Some("GET, HEAD, POST"),
            _ => Some(READ),
        }
    }
}
