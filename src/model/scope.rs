//! Where a series is finished, and what therefore happens to it at flush.

use super::MetricKind;

/// Where a series is finished, chosen by the client with a scope tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// No scope tag: what can be finished here is, the rest goes upstream.
    #[default]
    Mixed,
    /// `veneurlocalonly`: finished on this host, never forwarded.
    LocalOnly,
    /// `veneurglobalonly`: finished at the global node, nothing emitted here.
    GlobalOnly,
}

impl Scope {
    /// The word for it in `veneur explain` and in the conformance cases.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Mixed => "mixed",
            Scope::LocalOnly => "local",
            Scope::GlobalOnly => "global",
        }
    }
}

/// What this instance is in the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Has a forward address: sketches and global values go upstream.
    Local,
    /// Has one, and forwards in the format of Veneur 1.1.0, which takes no gauges and emits
    /// no aggregates of what it imports: what it would lose is emitted here.
    LocalToV1,
    /// Has none: everything is finished here. A standalone node is a global one.
    Global,
}

impl Role {
    /// The word for it in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Local | Role::LocalToV1 => "local",
            Role::Global => "global",
        }
    }
}

/// Which finished points of an aggregate this node emits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// None: it is finished elsewhere.
    Nothing,
    /// One point: a sum, a last value or a distinct count.
    Value,
    /// Aggregates (min, max, count, ...) of the samples received here.
    Aggregates,
    /// Those, and percentiles of everything in the digest.
    AggregatesAndPercentiles,
}

/// What happens to an aggregate at flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disposition {
    /// What this node emits.
    pub emit: Emit,
    /// Whether the aggregate goes upstream.
    pub forward: bool,
}

impl Scope {
    /// The one table that says what happens to a series at flush.
    ///
    /// Source: the table in `docs/architecture.md`, "What happens to a key at flush". At a
    /// global node aggregates come from samples received here; imported global-only digests
    /// and distributions count as received here ([`crate::aggregate`] merges them so).
    pub const fn disposition(self, kind: MetricKind, role: Role) -> Disposition {
        use MetricKind as K;
        let (emit, forward) = match (kind, self, role) {
            (K::Counter, Scope::GlobalOnly, Role::Local | Role::LocalToV1)
            | (K::Gauge, Scope::GlobalOnly, Role::Local) => (Emit::Nothing, true),
            (K::Counter | K::Gauge, _, _) => (Emit::Value, false),
            (K::Set, Scope::Mixed | Scope::GlobalOnly, Role::Local | Role::LocalToV1) => {
                (Emit::Nothing, true)
            }
            (K::Set, _, _) => (Emit::Value, false),
            (K::Histogram | K::Timer | K::Distribution, Scope::LocalOnly, _)
            | (K::Histogram | K::Timer | K::Distribution, _, Role::Global) => {
                (Emit::AggregatesAndPercentiles, false)
            }
            (K::Histogram | K::Timer, Scope::Mixed, Role::Local)
            | (K::Histogram | K::Timer | K::Distribution, _, Role::LocalToV1) => {
                (Emit::Aggregates, true)
            }
            (K::Distribution, Scope::Mixed, Role::Local)
            | (K::Histogram | K::Timer | K::Distribution, Scope::GlobalOnly, Role::Local) => {
                (Emit::Nothing, true)
            }
        };
        Disposition { emit, forward }
    }

    /// The scope that identifies a series: scopes that are treated alike become one, so that
    /// a name and its tags never come out as two points that overwrite each other.
    ///
    /// At a global node nothing depends on the scope. At a local one, only what is emitted
    /// *and* treated differently stays apart (a histogram with and without `veneurlocalonly`).
    pub const fn canonical(self, kind: MetricKind, role: Role) -> Scope {
        use MetricKind as K;
        match (kind, self, role) {
            (_, _, Role::Global) => Scope::Mixed,
            (K::Counter | K::Gauge, Scope::LocalOnly, Role::Local) => Scope::Mixed,
            (K::Set | K::Distribution, Scope::GlobalOnly, Role::Local) => Scope::Mixed,
            (_, scope, Role::Local) => scope,
            (K::Gauge, _, Role::LocalToV1) => Scope::Mixed,
            (K::Counter, Scope::LocalOnly, Role::LocalToV1) => Scope::Mixed,
            (K::Counter, scope, Role::LocalToV1) => scope,
            (_, Scope::GlobalOnly, Role::LocalToV1) => Scope::Mixed,
            (_, scope, Role::LocalToV1) => scope,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 3] = [Role::Local, Role::LocalToV1, Role::Global];

    #[test]
    fn what_happens_to_a_key_at_flush() {
        use Emit::{Aggregates, AggregatesAndPercentiles, Nothing, Value};
        use MetricKind::{Counter, Distribution, Gauge, Histogram, Set, Timer};
        use Scope::{GlobalOnly, LocalOnly, Mixed};
        let value = (Value, false);
        let (up, aggregates_and_up, all) =
            ((Nothing, true), (Aggregates, true), (AggregatesAndPercentiles, false));
        /// Kinds, scope, what a local node emits and forwards, what one below a 1.1.0 does,
        /// what a global one does.
        type Row = (&'static [MetricKind], Scope, [(Emit, bool); 3]);
        let table: [Row; 15] = [
            (&[Counter], Mixed, [value, value, value]),
            (&[Counter], LocalOnly, [value, value, value]),
            (&[Counter], GlobalOnly, [up, up, value]),
            (&[Gauge], Mixed, [value, value, value]),
            (&[Gauge], LocalOnly, [value, value, value]),
            (&[Gauge], GlobalOnly, [up, value, value]),
            (&[Histogram, Timer], Mixed, [aggregates_and_up, aggregates_and_up, all]),
            (&[Histogram, Timer], LocalOnly, [all, all, all]),
            (&[Histogram, Timer], GlobalOnly, [up, aggregates_and_up, all]),
            (&[Distribution], Mixed, [up, aggregates_and_up, all]),
            (&[Distribution], LocalOnly, [all, all, all]),
            (&[Distribution], GlobalOnly, [up, aggregates_and_up, all]),
            (&[Set], Mixed, [up, up, value]),
            (&[Set], LocalOnly, [value, value, value]),
            (&[Set], GlobalOnly, [up, up, value]),
        ];
        for (kinds, scope, wanted) in table {
            for &kind in kinds {
                for (role, (emit, forward)) in ROLES.into_iter().zip(wanted) {
                    let want = Disposition { emit, forward };
                    assert_eq!(scope.disposition(kind, role), want, "{kind} {scope:?} {role:?}");
                }
            }
        }
    }

    #[test]
    fn scopes_become_one_only_where_they_are_treated_alike() {
        for kind in MetricKind::ALL {
            for scope in [Scope::Mixed, Scope::LocalOnly, Scope::GlobalOnly] {
                for role in ROLES {
                    let canonical = scope.canonical(kind, role);
                    assert_eq!(
                        canonical.disposition(kind, role),
                        scope.disposition(kind, role),
                        "{kind} {scope:?} {role:?}"
                    );
                }
            }
        }
    }
}
