//! Which settings a running daemon takes on `SIGHUP`, and which need a restart.

use super::settings::{ClassicSettings, HttpSettings, IntakeSettings, Settings, SpanSettings};

impl Settings {
    /// The keys in which `new` differs and that only a restart can change.
    ///
    /// What may change while running: `percentiles`, `aggregates`, the statistics and names under
    /// `etsy`, `tags`, `hostname`, `debug`, all settings of a sink as long as there are sinks of
    /// the same names and kinds, and the certificates of listeners that have one.
    pub fn needs_restart(&self, new: &Settings) -> Vec<&'static str> {
        // Taken apart field by field, so that a new setting must be thought of here.
        let Settings {
            program: _,
            interval,
            synchronize_with_interval,
            flush_watchdog_missed_flushes,
            hostname: _,
            tags: _,
            extend_tags,
            percentiles: _,
            aggregates: _,
            intake,
            classic,
            mapping,
            num_workers,
            limits,
            http,
            import,
            forward,
            identity,
            reference,
            gatherer,
            takeover_socket,
            sandbox,
            stats_address,
            sinks: _,
            spool,
            sentry_dsn,
            debug: _,
        } = self;
        let mut keys = Vec::new();
        let mut compare = |key, is_same: bool| {
            if !is_same {
                keys.push(key);
            }
        };
        let watchdog = flush_watchdog_missed_flushes;
        compare("interval", *interval == new.interval);
        compare(
            "synchronize_with_interval",
            *synchronize_with_interval == new.synchronize_with_interval,
        );
        compare("flush_watchdog_missed_flushes", *watchdog == new.flush_watchdog_missed_flushes);
        compare("extend_tags", *extend_tags == new.extend_tags);
        compare("num_workers", *num_workers == new.num_workers);
        compare("limits", *limits == new.limits);
        compare("etsy, brubeck", classic.rules == new.classic.rules);
        compare("mapping_config", *mapping == new.mapping);
        compare_intake(intake, &new.intake, &mut compare);
        compare_http(http, &new.http, &mut compare);
        compare("grpc_address, import", *import == new.import);
        compare("forward_address, forward_format, forward", *forward == new.forward);
        compare("instance_id, state_directory", *identity == new.identity);
        compare("gatherer", (reference, gatherer) == (&new.reference, &new.gatherer));
        compare("takeover_socket", *takeover_socket == new.takeover_socket);
        compare("sandbox", *sandbox == new.sandbox);
        compare("stats_address", *stats_address == new.stats_address);
        compare("sinks", self.has_the_sinks_of(new));
        compare("spool", *spool == new.spool);
        compare("sentry_dsn", *sentry_dsn == new.sentry_dsn);
        keys
    }
}

impl Settings {
    /// Whether these are sinks of the same names and kinds.
    fn has_the_sinks_of(&self, other: &Settings) -> bool {
        let identities = |settings: &Settings| {
            let mut all: Vec<(String, &'static str)> =
                settings.sinks.iter().map(|sink| (sink.name.clone(), sink.kind.as_str())).collect();
            all.sort();
            all
        };
        identities(self) == identities(other)
    }

    /// These settings with what of `new` may change while running: the others stay as they
    /// are until a restart.
    #[must_use]
    pub fn with_live(&self, new: Settings) -> Settings {
        let is_same = self.has_the_sinks_of(&new);
        Settings {
            hostname: new.hostname,
            tags: new.tags,
            percentiles: new.percentiles,
            aggregates: new.aggregates,
            classic: ClassicSettings { rules: self.classic.rules, ..new.classic },
            sinks: if is_same { new.sinks } else { self.sinks.clone() },
            debug: new.debug,
            intake: IntakeSettings {
                tls: live(&self.intake.tls, new.intake.tls),
                ..self.intake.clone()
            },
            http: HttpSettings { tls: live(&self.http.tls, new.http.tls), ..self.http.clone() },
            ..self.clone()
        }
    }
}

/// What may change while running if it is there, but neither come nor go.
fn live<T: Clone>(old: &Option<T>, new: Option<T>) -> Option<T> {
    match (old, new) {
        (Some(_), Some(new)) => Some(new),
        (old, _) => old.clone(),
    }
}

fn compare_intake(
    old: &IntakeSettings,
    new: &IntakeSettings,
    compare: &mut impl FnMut(&'static str, bool),
) {
    let IntakeSettings {
        listeners,
        dialect,
        repeat_to,
        num_readers,
        metric_max_length,
        read_buffer_bytes,
        tls,
        max_connections,
        idle_timeout,
        handshake_timeout,
        spans,
    } = old;
    let listeners_name = "udp_address, tcp_address, statsd_listen_addresses";
    compare(listeners_name, *listeners == new.listeners);
    compare("dialect", *dialect == new.dialect);
    compare("repeat_to", *repeat_to == new.repeat_to);
    compare("num_readers", *num_readers == new.num_readers);
    compare("metric_max_length", *metric_max_length == new.metric_max_length);
    compare("read_buffer_size_bytes", *read_buffer_bytes == new.read_buffer_bytes);
    compare("tls_certificate, tls_key", tls.is_some() == new.tls.is_some());
    compare("connections.max", *max_connections == new.max_connections);
    compare("connections.idle_timeout", *idle_timeout == new.idle_timeout);
    compare("connections.handshake_timeout", *handshake_timeout == new.handshake_timeout);
    let SpanSettings { listeners, max_length, indicator_timer, objective_timer } = spans;
    let new = &new.spans;
    compare("trace_address, ssf_listen_addresses", *listeners == new.listeners);
    compare("trace_max_length_bytes", *max_length == new.max_length);
    compare("indicator_span_timer_name", *indicator_timer == new.indicator_timer);
    compare("objective_span_timer_name", *objective_timer == new.objective_timer);
}

fn compare_http(
    old: &HttpSettings,
    new: &HttpSettings,
    compare: &mut impl FnMut(&'static str, bool),
) {
    let HttpSettings { address, config, quit, token, tls } = old;
    compare("http_address", *address == new.address);
    compare("http.config", *config == new.config);
    compare("http_quit", *quit == new.quit);
    compare("http.token", *token == new.token);
    compare("http.tls_certificate, http.tls_key", tls.is_some() == new.tls.is_some());
}
