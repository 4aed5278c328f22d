//! The network as the forwarder sees it, and what its answers mean for a batch.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::outbox::{Batch, Verdict};
use super::reason::Reason;
use crate::net::Outcome;

/// The network; the other implementation is the tests'.
pub(super) trait Transport: Send + Sync + 'static {
    /// A member that can be spoken to. Cloning shares.
    type Peer: Clone + Send + Sync + 'static;

    /// The names of all members that are known without asking anyone.
    fn configured(&self) -> Vec<(Arc<str>, Self::Peer)>;

    /// Who the members are now.
    fn resolve(&self) -> impl Future<Output = Resolved<Self::Peer>> + Send;

    /// Sends one batch. The caller cancels it when it takes too long.
    fn post(&self, peer: &Self::Peer, batch: &Batch) -> impl Future<Output = Answer> + Send;

    /// Whether a member is there. The caller cancels it when it takes too long.
    fn probe(&self, peer: &Self::Peer) -> impl Future<Output = bool> + Send;
}

/// Who the members are.
#[derive(Clone, Debug)]
pub(super) struct Resolved<P> {
    /// All of them, by name. Names that could not be resolved keep the members they had.
    pub(super) members: Vec<(Arc<str>, P)>,
    /// Addresses of which that could not be found out.
    pub(super) failures: Vec<Unresolved>,
    /// How long it took.
    pub(super) took: Duration,
}

/// An upstream address whose members could not be found out.
#[derive(Clone, Debug)]
pub(super) struct Unresolved {
    /// Its name.
    pub(super) upstream: Arc<str>,
    /// Who did not say: a `cause` of own metrics.
    pub(super) cause: &'static str,
    /// Why, for people.
    pub(super) why: String,
}

/// What came of sending a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// How it ended.
    pub(super) outcome: Outcome,
    /// Whether the member has shown that it remembers batches.
    pub(super) remembers: bool,
}

/// What an outcome means for the batch.
///
/// A refusal means that nothing was merged, except where a server in between may have given up
/// on one that merged it (5xx). One that says when to come back has not begun.
pub(super) fn verdict(outcome: &Outcome) -> Verdict {
    let later = |is_unsure| Verdict::Later { is_unsure, wait: outcome.retry_after() };
    match outcome {
        Outcome::Taken => Verdict::Taken,
        Outcome::TimedOut | Outcome::Failed(_) => later(true),
        Outcome::Unreachable(_) => later(false),
        Outcome::Refused { status: 413, .. } => Verdict::TooLarge,
        Outcome::Refused { status: 408 | 429, .. } => later(false),
        Outcome::Refused { status: 503, retry_after: Some(_), .. } => later(false),
        // It is the token that is wrong, not the batch: somebody will put that right.
        Outcome::Refused { status: 401 | 403, .. } => later(false),
        // Neither the method nor the protocol will be known the next time.
        Outcome::Refused { status: status @ (501 | 505), .. } => {
            Verdict::Refused(Reason::Status(*status))
        }
        Outcome::Refused { status: 500..600, .. } => later(true),
        Outcome::Refused { status, .. } => Verdict::Refused(Reason::Status(*status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_means_for_its_batch() {
        let refused = |status, seconds: Option<u64>| Outcome::Refused {
            status,
            retry_after: seconds.map(Duration::from_secs),
            answer: String::new(),
        };
        let later = |is_unsure, seconds: Option<u64>| Verdict::Later {
            is_unsure,
            wait: seconds.map(Duration::from_secs),
        };
        let never = |status| Verdict::Refused(Reason::Status(status));
        for (outcome, means) in [
            (Outcome::Taken, Verdict::Taken),
            (Outcome::TimedOut, later(true, None)),
            (Outcome::Failed("reset".into()), later(true, None)),
            (Outcome::Unreachable("refused".into()), later(false, None)),
            (refused(301, None), never(301)),
            (refused(400, None), never(400)),
            (refused(401, None), later(false, None)),
            (refused(403, None), later(false, None)),
            (refused(404, None), never(404)),
            (refused(408, None), later(false, None)),
            (refused(409, None), never(409)),
            (refused(413, None), Verdict::TooLarge),
            (refused(429, Some(7)), later(false, Some(7))),
            (refused(500, None), later(true, None)),
            (refused(501, None), never(501)),
            (refused(502, Some(3)), later(true, Some(3))),
            (refused(503, None), later(true, None)),
            (refused(503, Some(1)), later(false, Some(1))),
            (refused(504, None), later(true, None)),
        ] {
            assert_eq!(verdict(&outcome), means, "{outcome:?}");
        }
    }
}
