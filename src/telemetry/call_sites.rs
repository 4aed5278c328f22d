//! How much each place in the code may say: a call site that speaks too often is heard a few
//! times per window, and what was left out is counted.
//!
//! Pure: time comes in as an argument. Logs and error reports each keep one of these.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::Metadata;
use tracing::callsite::Identifier;

/// The call sites that spoke, and what they may still say.
#[derive(Debug)]
pub(crate) struct CallSites {
    per_window: u32,
    window: Duration,
    sites: HashMap<Identifier, Site>,
}

#[derive(Debug)]
struct Site {
    metadata: &'static Metadata<'static>,
    since: Instant,
    heard: u32,
    left_out: u64,
}

impl CallSites {
    /// Each call site may speak `per_window` times in each `window`.
    pub(crate) fn new(per_window: u32, window: Duration) -> CallSites {
        CallSites { per_window, window, sites: HashMap::new() }
    }

    /// Whether the call site described by `metadata` may speak `now`; counted either way. Its
    /// first window begins with its first word, the next with the first word after that.
    pub(crate) fn admit(&mut self, metadata: &'static Metadata<'static>, now: Instant) -> bool {
        let new = || Site { metadata, since: now, heard: 0, left_out: 0 };
        let site = self.sites.entry(metadata.callsite()).or_insert_with(new);
        if now.duration_since(site.since) >= self.window {
            (site.since, site.heard) = (now, 0);
        }
        if site.heard == self.per_window {
            site.left_out += 1;
            return false;
        }
        site.heard += 1;
        true
    }

    /// The call sites that were silenced since the last call, and how often.
    pub(crate) fn take_left_out(&mut self) -> Vec<(&'static Metadata<'static>, u64)> {
        let silenced = self.sites.values_mut().filter(|site| site.left_out > 0);
        silenced.map(|site| (site.metadata, std::mem::take(&mut site.left_out))).collect()
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
        let mut sites = CallSites::new(2, Duration::from_secs(10));
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
