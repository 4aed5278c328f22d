//! Where the daemon is in its life.

/// The phases an outsider can tell apart, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Everything is bound, not everything runs.
    Starting,
    /// Takes traffic.
    Ready,
    /// Takes no new traffic; delivers what it has.
    Draining,
    /// Has delivered what it could; only its pages are still there.
    Stopped,
}

impl Phase {
    /// The word for it in logs and in the answer of `/ready`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
            Phase::Stopped => "stopped",
        }
    }
}
