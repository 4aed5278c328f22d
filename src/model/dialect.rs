//! The statsd dialects: what a line means depends on who is speaking.

use super::MetricKind;

/// By whose rules a listener reads lines, and by whose a series is finished.
///
/// `+5|g` is five for DogStatsD and five more for the others, so a dialect is chosen for each
/// listener and never guessed from a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// Datadog's, which is also that of Veneur: tags, scopes, packed values, events, checks.
    #[default]
    DogStatsD,
    /// That of `statsd/statsd`, once `etsy/statsd`: the classic one.
    Etsy,
    /// That of `github/brubeck`, which Flux speaks.
    Brubeck,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Dialect; 3] = [Dialect::DogStatsD, Dialect::Etsy, Dialect::Brubeck];

    /// The word for it in the configuration and in `veneur explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Dialect::DogStatsD => "dogstatsd",
            Dialect::Etsy => "etsy",
            Dialect::Brubeck => "brubeck",
        }
    }

    /// The dialect of that name; `flux` is another for brubeck.
    pub fn from_name(name: &str) -> Option<Dialect> {
        match name {
            "flux" => Some(Dialect::Brubeck),
            _ => Dialect::ALL.into_iter().find(|dialect| dialect.as_str() == name),
        }
    }

    /// Whether it is one of the older ones, whose series live on when nobody speaks of them.
    pub const fn is_classic(self) -> bool {
        match self {
            Dialect::DogStatsD => false,
            Dialect::Etsy | Dialect::Brubeck => true,
        }
    }
}

/// What a sample of a classic line asks to be recorded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Recorder {
    /// `c`: a sum over the interval.
    Counter,
    /// `C` of brubeck: the client's running total, of which the growth counts.
    Total,
    /// `g`: the last value, which a sign changes rather than replaces.
    Gauge,
    /// `ms`: each sample.
    Timer,
    /// `h` of brubeck: the same.
    Histogram,
    /// `s`: the number of distinct members.
    Set,
}

impl Recorder {
    /// The kind of the series it makes.
    pub const fn kind(self) -> MetricKind {
        match self {
            Recorder::Counter | Recorder::Total => MetricKind::Counter,
            Recorder::Gauge => MetricKind::Gauge,
            Recorder::Timer => MetricKind::Timer,
            Recorder::Histogram => MetricKind::Histogram,
            Recorder::Set => MetricKind::Set,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialect_is_found_by_its_name() {
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::from_name(dialect.as_str()), Some(dialect));
        }
        assert_eq!(Dialect::from_name("flux"), Some(Dialect::Brubeck));
        assert_eq!(Dialect::from_name("statsite"), None);
    }
}
