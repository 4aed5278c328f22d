//! Counts of the hot path, as own metrics: read when somebody asks.

use std::sync::Arc;

use crate::config::listen::StatsdAddress;
use crate::ingest::DropProbe;
use crate::pipeline::{IntakeCounts, SpanCounts};
use crate::telemetry::registry::Observations;
use crate::telemetry::{Telemetry, names};

/// Reports what one listener thread counts.
pub(super) fn add_intake(telemetry: &Telemetry, protocol: &'static str, counts: Arc<IntakeCounts>) {
    let protocol = format!("protocol:{protocol}");
    telemetry.add_source(move |observed| observe(observed, &protocol, &counts));
}

fn observe(observed: &mut Observations, protocol: &str, counts: &IntakeCounts) {
    for (packet, reason, n) in counts.refused() {
        let tags = format!("packet_type:{},reason:{}", packet.as_str(), reason.as_str());
        observed.counter(names::PACKET_ERROR_TOTAL, &tags, n);
    }
    for (name, tags, count) in [
        (names::LISTEN_RECEIVED_PER_PROTOCOL_TOTAL, protocol, &counts.packets),
        (names::LISTEN_BYTES_TOTAL, protocol, &counts.bytes),
        (names::LISTEN_LINES_TOTAL, protocol, &counts.lines),
        (names::LISTEN_METRICS_TOTAL, protocol, &counts.metrics),
        (names::LISTEN_SAMPLES_TOTAL, protocol, &counts.samples),
        (names::LISTEN_TIMESTAMPED_TOTAL, protocol, &counts.timestamped),
        (names::LISTEN_EVENTS_TOTAL, protocol, &counts.events),
        (names::LISTEN_CHECKS_TOTAL, protocol, &counts.checks),
        (names::PACKET_SECTIONS_SKIPPED_TOTAL, "", &counts.unknown_sections),
        (names::PACKET_VALUES_SKIPPED_TOTAL, "reason:non_finite", &counts.skipped_values),
        (names::COLLECTOR_DROPPED_TOTAL, "type:event,reason:full", &counts.events_full),
        (names::COLLECTOR_DROPPED_TOTAL, "type:check,reason:full", &counts.checks_full),
        (names::COLLECTOR_DROPPED_TOTAL, "type:timestamped,reason:full", &counts.timestamped_full),
        (
            names::COLLECTOR_DROPPED_TOTAL,
            "type:timestamped,reason:mapping",
            &counts.timestamped_mapped,
        ),
        (names::COLLECTOR_REPLACED_TOTAL, "", &counts.checks_replaced),
        (names::ROUTER_DROPPED_TOTAL, "reason:worker_gone", &counts.worker_gone),
        (names::ROUTER_BLOCKED_NS_TOTAL, "", &counts.blocked_ns),
    ] {
        observed.counter(name, tags, count.get());
    }
}

/// Reports what one listener thread of spans counts beside that.
pub(super) fn add_spans(telemetry: &Telemetry, counts: Arc<SpanCounts>) {
    telemetry.add_source(move |observed| {
        observed.counter(names::SSF_SPANS_RECEIVED_TOTAL, "", counts.spans.get());
        observed.counter(names::SSF_ONLY_SAMPLES_TOTAL, "", counts.only_samples.get());
        let (name, reason) = (names::SSF_SPANS_DROPPED_TOTAL, "reason:full");
        observed.counter(name, reason, counts.overwritten.get());
    });
}

/// The value of the `protocol` tag.
pub(super) fn protocol_of(address: &StatsdAddress) -> &'static str {
    match address {
        StatsdAddress::Udp(_) => "udp",
        StatsdAddress::Tcp(_) => "tcp",
        StatsdAddress::Unixgram(_) => "unixgram",
        StatsdAddress::UnixStream(_) => "unix",
        StatsdAddress::Inherited(_) => "inherited",
    }
}

/// Reports what the kernel dropped at each socket.
pub(super) fn add_drops(telemetry: &Telemetry, probes: Vec<DropProbe>) {
    let tags = |probe: &DropProbe| {
        format!("listener:{},socket:{}", probe.info().address, probe.info().thread)
    };
    let sockets: Vec<_> = probes.into_iter().map(|probe| (tags(&probe), probe)).collect();
    telemetry.add_source(move |observed| {
        for (tags, probe) in &sockets {
            // A kernel that does not tell leaves no number, rather than a wrong one.
            if let Ok(dropped) = probe.dropped() {
                observed.counter(names::LISTEN_KERNEL_DROPS_TOTAL, tags, dropped);
            }
        }
    });
}
