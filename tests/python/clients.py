"""Sends a known set of everything with the clients people use.

Usage: clients.py HOST UDP_PORT UNIX_SOCKET. What arrives is checked by tests/e2e/clients.rs.
"""

import sys

import datadog
import statsd


def send_all(dog, prefix):
    """Every type, with tags, of one DogStatsD client."""
    tags = ["env:test", "via:" + prefix]
    dog.increment(prefix + ".hits", 3, tags=tags)
    dog.decrement(prefix + ".hits", 1, tags=tags)
    dog.gauge(prefix + ".fuel", 0.5, tags=tags)
    dog.gauge(prefix + ".fuel", 0.25, tags=tags)
    for value in (1, 2, 3):
        dog.histogram(prefix + ".size", value, tags=tags)
        dog.timing(prefix + ".took", value * 10, tags=tags)
        dog.distribution(prefix + ".lat", value * 100, tags=tags)
    for member in ("alice", "bob", "alice"):
        dog.set(prefix + ".users", member, tags=tags)
    with dog.timed(prefix + ".timed", tags=tags, use_ms=True):
        pass
    dog.count_with_timestamp(prefix + ".late", 5, 1700000000, tags=tags)
    dog.gauge_with_timestamp(prefix + ".late_gauge", 7, 1700000001, tags=tags)
    dog.event(
        "deploy " + prefix,
        "two\nlines | with a pipe",
        alert_type="warning",
        aggregation_key="deploys",
        source_type_name="ci",
        date_happened=1700000002,
        priority="low",
        tags=tags,
        hostname="elsewhere",
    )
    dog.service_check(
        prefix + ".up",
        dog.CRITICAL,
        tags=tags,
        timestamp=1700000003,
        hostname="elsewhere",
        message="down | not up",
    )
    dog.flush()


def main():
    host, port, unix = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    options = {"disable_telemetry": True, "disable_buffering": False}
    send_all(datadog.DogStatsd(host=host, port=port, **options), "udp")
    send_all(datadog.DogStatsd(socket_path=unix, **options), "uds")

    classic = statsd.StatsClient(host, port, prefix="classic")
    classic.incr("hits", 3)
    classic.decr("hits")
    classic.gauge("fuel", 0.25)
    classic.timing("took", 20)
    classic.set("users", "alice")
    with classic.pipeline() as pipe:
        pipe.incr("packed")
        pipe.incr("packed", 4)


main()
