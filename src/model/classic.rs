//! What may be chosen about the series of classic dialects, as plain values.

/// For how many flushes a series without samples is emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle(pub u32);

impl Idle {
    /// Not at all.
    pub const NEVER: Idle = Idle(0);
    /// For good.
    pub const ALWAYS: Idle = Idle(u32::MAX);
}

/// What the configuration says about classic series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassicRules {
    /// Whether etsy's names and tags are freed of what Graphite may not like
    /// (`keyNameSanitize` there).
    pub sanitise: bool,
    /// etsy's counters; a series no longer emitted is forgotten.
    pub etsy_counters: Idle,
    /// etsy's gauges.
    pub etsy_gauges: Idle,
    /// etsy's timers.
    pub etsy_timers: Idle,
    /// etsy's sets.
    pub etsy_sets: Idle,
    /// brubeck's of all types; the value of a gauge and a total are remembered all the same.
    pub brubeck: Idle,
}

impl Default for ClassicRules {
    /// As in etsy's without its `delete` options, and brubeck without `expire`.
    fn default() -> ClassicRules {
        ClassicRules {
            sanitise: true,
            etsy_counters: Idle::ALWAYS,
            etsy_gauges: Idle::ALWAYS,
            etsy_timers: Idle::ALWAYS,
            etsy_sets: Idle::ALWAYS,
            brubeck: Idle::ALWAYS,
        }
    }
}

/// What etsy's statsd computes of timers: its configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct EtsyStatistics {
    /// Percentages; one below 0 looks at the largest samples. `percentThreshold` there.
    pub thresholds: Vec<f64>,
    /// Bins of the timers whose names contain a text, the first that fits.
    pub histogram: Vec<Bins>,
    /// Names of the statistics emitted, `upper_percent` being that of all thresholds; empty for
    /// all. `calculatedTimerMetrics` there.
    pub only: Vec<String>,
}

/// Bins of some timers.
#[derive(Clone, Debug, PartialEq)]
pub struct Bins {
    /// What their names contain.
    pub metric: String,
    /// Upper limits, exclusive, ascending; the last may be infinite.
    pub limits: Vec<f64>,
}

impl Default for EtsyStatistics {
    /// As there: one threshold, 90.
    fn default() -> EtsyStatistics {
        EtsyStatistics { thresholds: vec![90.0], histogram: Vec::new(), only: Vec::new() }
    }
}
