//! Events and service checks: delivered as they are, not aggregated.

use super::UnixSeconds;

/// Where a message says it comes from (DogStatsD 1.2 to 1.6); carried on, not interpreted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The whole `c:` field: a container id, or a list of `ci-` and `in-` forms.
    pub container_id: Option<String>,
    /// The `e:` field.
    pub external_data: Option<String>,
    /// The `card:` field, lower case; absent when it is none of the known words.
    pub cardinality: Option<String>,
}

/// How urgent an event is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// The default.
    #[default]
    Normal,
    /// Hidden from the default view.
    Low,
}

impl Priority {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Priority::Normal => "normal",
            Priority::Low => "low",
        }
    }
}

/// What an event tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlertType {
    /// The default.
    #[default]
    Info,
    /// Something recovered or went well.
    Success,
    /// Somebody should look.
    Warning,
    /// Something failed.
    Error,
}

impl AlertType {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            AlertType::Info => "info",
            AlertType::Success => "success",
            AlertType::Warning => "warning",
            AlertType::Error => "error",
        }
    }
}

/// One event (`_e{..}`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Title, newlines unescaped.
    pub title: String,
    /// Text, newlines unescaped.
    pub text: String,
    /// When it happened, if the client said so; else the time of receipt counts.
    pub timestamp: Option<UnixSeconds>,
    /// The host the client names (`h:`).
    pub hostname: Option<String>,
    /// Events with the same key are shown as one (`k:`).
    pub aggregation_key: Option<String>,
    /// The kind of source (`s:`).
    pub source_type: Option<String>,
    /// `p:`
    pub priority: Priority,
    /// `t:`
    pub alert_type: AlertType,
    /// In the order given, scope tags included.
    pub tags: Vec<String>,
    /// `c:`, `e:` and `card:`
    pub origin: Origin,
}

/// What a service check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ServiceStatus {
    /// 0
    Ok,
    /// 1
    Warning,
    /// 2
    Critical,
    /// 3
    Unknown,
}

/// One service check (`_sc|..`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCheck {
    /// Name of the check.
    pub name: String,
    /// What it found.
    pub status: ServiceStatus,
    /// When it ran, if the client said so; else the time of receipt counts.
    pub timestamp: Option<UnixSeconds>,
    /// The host the client names (`h:`).
    pub hostname: Option<String>,
    /// `m:`, newlines unescaped.
    pub message: Option<String>,
    /// In the order given.
    pub tags: Vec<String>,
    /// `c:`, `e:` and `card:`
    pub origin: Origin,
}

impl ServiceCheck {
    /// One that says no more than it must.
    pub fn new(name: impl Into<String>, status: ServiceStatus) -> ServiceCheck {
        ServiceCheck {
            name: name.into(),
            status,
            timestamp: None,
            hostname: None,
            message: None,
            tags: Vec::new(),
            origin: Origin::default(),
        }
    }
}
