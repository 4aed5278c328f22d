//! How much each place in the code may say: a call site that speaks too often is heard a few
//! times per window, and what was left out is counted.
//!
//! Pure: time comes in as an argument. Logs and error reports each keep one of these.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::Metadata;
use tracing::callsite::Identifier;

/// So much in so long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// How often in each window.
    pub(crate) per_window: u32,
    /// Begins with the first use, the next one with the first use after its end.
    pub(crate) window: Duration,
}

/// How much of a [`Limit`] is used.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    since: Option<Instant>,
    used: u32,
    left_out: u64,
}

impl Allowance {
    /// Uses it once if that is allowed `now`; counted either way.
    pub(crate) fn admit(&mut self, limit: Limit, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= limit.window) {
            (self.since, self.used) = (Some(now), 0);
        }
        if self.used == limit.per_window {
            self.left_out += 1;
            return false;
        }
        self.used += 1;
        true
    }
}

/// The call sites that spoke, and what they may still say.
#[derive(Debug)]
pub(crate) struct CallSites {
    limit: Limit,
    sites: HashMap<Identifier, (&'static Metadata<'static>, Allowance)>,
}

impl CallSites {
    /// `limit` holds for each call site.
    pub(crate) fn new(limit: Limit) -> CallSites {
        CallSites { limit, sites: HashMap::new() }
    }

    /// Whether the call site described by `metadata` may speak `now`; counted either way.
    pub(crate) fn admit(&mut self, metadata: &'static Metadata<'static>, now: Instant) -> bool {
        let new = || (metadata, Allowance::default());
        let (_, allowance) = self.sites.entry(metadata.callsite()).or_insert_with(new);
        allowance.admit(self.limit, now)
    }

    /// The call sites that were silenced since the last call, and how often.
    pub(crate) fn take_left_out(&mut self) -> Vec<(&'static Metadata<'static>, u64)> {
        let silenced = self.sites.values_mut().filter(|(_, allowance)| allowance.left_out > 0);
        let take = |(site, allowance): &mut (_, Allowance)| {
            (*site, std::mem::take(&mut allowance.left_out))
        };
        silenced.map(take).collect()
    }
}

#[cfg(test)]
mod tests {
    use tracing::Callsite;
    use tracing::metadata::Kind;

    use super::*;

    /// A call site, made by the macro that the logging macros use.
    macro_rules! site {
        ($name:literal) => {
            tracing::callsite! { name: $name, kind: Kind::EVENT, fields: message }.metadata()
        };
    }

    #[test]
    fn each_call_site_is_heard_a_few_times_per_window() {
        let mut sites = CallSites::new(Limit { per_window: 2, window: Duration::from_secs(10) });
        let (loud, quiet) = (site!("loud"), site!("quiet"));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let heard = [0, 1, 2, 9].map(|seconds| sites.admit(loud, at(seconds)));
        assert_eq!(heard, [true, true, false, false]);
        assert!(sites.admit(quiet, at(9)));
        let left_out: Vec<_> =
            sites.take_left_out().iter().map(|(site, n)| (site.name(), *n)).collect();
        assert_eq!(left_out, [("loud", 2)]);
        let heard = [10, 19, 19, 20].map(|seconds| sites.admit(loud, at(seconds)));
        assert_eq!(heard, [true, true, false, true]);
        assert_eq!(sites.take_left_out().len(), 1);
        assert_eq!(sites.take_left_out().len(), 0, "said once");
    }
}
