//! Own metrics as DogStatsD lines: what each flush says about the daemon itself.
//!
//! The lines go to `stats_address`, cut by [`datagrams`], or into our own pipeline as if a
//! client had sent them. As in Veneur every name starts with `veneur.`, every line has the tag
//! `veneurlocalonly` (a global node must not mix the nodes' numbers), and a timer of a
//! `_ns` metric carries nanoseconds although its type is `ms`.
//!
//! Source: Veneur 1.1.0's use of its statsd client; datagram size and tags are its.

use std::io::Write;

use super::Telemetry;
use super::distribution::Samples;
use super::registry::{Change, Series};

/// Most bytes of one datagram: what fits in an Ethernet frame with room for tunnels.
pub const DATAGRAM_BYTES: usize = 1432;

const LOCAL_ONLY: &str = "veneurlocalonly";

/// The lines for everything that changed since the last call, joined by newlines.
///
/// `common_tags` come first on each line: the node's `tags` for `stats_address`; none for our own
/// pipeline, whose sinks add them. Of a series with more than 256 samples an even selection is
/// sent, with the sample rate that makes up for it; counts stay exact.
pub fn take_lines(telemetry: &Telemetry, common_tags: &[String]) -> Vec<u8> {
    let mut lines = Lines { text: Vec::new(), common_tags };
    for series in telemetry.take_changes() {
        lines.push_series(&series);
    }
    lines.text
}

/// `lines` cut between lines, into datagrams of at most [`DATAGRAM_BYTES`] bytes. A line that is
/// longer than that goes alone.
pub fn datagrams(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = lines;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (datagram, left) = split_datagram(rest);
        rest = left;
        Some(datagram)
    })
}

fn split_datagram(lines: &[u8]) -> (&[u8], &[u8]) {
    if lines.len() <= DATAGRAM_BYTES {
        return (lines, b"");
    }
    // The newline may be the first byte that does not fit: it is not sent.
    let last = memchr::memrchr(b'\n', &lines[..=DATAGRAM_BYTES]);
    match last.or_else(|| memchr::memchr(b'\n', lines)) {
        Some(newline) => (&lines[..newline], &lines[newline + 1..]),
        None => (lines, b""),
    }
}

struct Lines<'a> {
    text: Vec<u8>,
    common_tags: &'a [String],
}

impl Lines<'_> {
    fn push_series(&mut self, series: &Series<Change>) {
        let (name, tags) = (series.name, &*series.tags);
        match &series.value {
            Change::Count(delta) => self.push(name, tags, *delta as f64, "c", None),
            Change::Gauge(value) => self.push(name, tags, *value, "g", None),
            Change::Durations(samples) => self.push_samples(name, tags, samples, "ms"),
            Change::Amounts(samples) => self.push_samples(name, tags, samples, "h"),
        }
    }

    fn push_samples(&mut self, name: &str, tags: &str, samples: &Samples, kind: &str) {
        let rate = samples.values.len() as f64 / samples.seen as f64;
        for value in &samples.values {
            self.push(name, tags, *value, kind, (rate < 1.0).then_some(rate));
        }
    }

    /// One line. A value that no line can carry (a gauge that is no number) is left out.
    fn push(&mut self, name: &str, tags: &str, value: f64, kind: &str, rate: Option<f64>) {
        if !value.is_finite() {
            return;
        }
        if !self.text.is_empty() {
            self.text.push(b'\n');
        }
        self.write(format_args!("veneur.{name}:{value}|{kind}"));
        if let Some(rate) = rate {
            self.write(format_args!("|@{rate}"));
        }
        self.write(format_args!("|#"));
        for tag in self.common_tags {
            self.push_tags(tag);
            self.text.push(b',');
        }
        self.push_tags(LOCAL_ONLY);
        if !tags.is_empty() {
            self.text.push(b',');
            self.push_tags(tags);
        }
    }

    /// What would end the tags early becomes `_`: tags hold names from the configuration.
    fn push_tags(&mut self, tags: &str) {
        let harmless = |byte| match byte {
            b'|' | b'\n' | b'\r' => b'_',
            other => other,
        };
        self.text.extend(tags.bytes().map(harmless));
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("writing to a Vec cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::dogstatsd::{self, Message};
    use crate::telemetry::names::{self, Kind};

    fn lines(telemetry: &Telemetry, common_tags: &[&str]) -> Vec<String> {
        let common_tags: Vec<String> = common_tags.iter().map(|&tag| tag.to_owned()).collect();
        let text = take_lines(telemetry, &common_tags);
        let text = String::from_utf8(text).expect("names and tags are text");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn each_kind_is_written_as_veneur_writes_it() {
        let telemetry = Telemetry::default();
        telemetry.count("a.count", "", 3);
        telemetry.count("a.count", "cause:io", u64::from(u32::MAX));
        telemetry.gauge("b.gauge", "", 0.25);
        telemetry.gauge("b.gauge", "is:nan", f64::NAN);
        telemetry.duration("c.duration_ns", "part:json", Duration::from_micros(1_272));
        telemetry.histogram("d.length_bytes", "", 512.0);
        let expected = [
            "veneur.a.count:3|c|#veneurlocalonly",
            "veneur.a.count:4294967295|c|#veneurlocalonly,cause:io",
            "veneur.b.gauge:0.25|g|#veneurlocalonly",
            "veneur.c.duration_ns:1272000|ms|#veneurlocalonly,part:json",
            "veneur.d.length_bytes:512|h|#veneurlocalonly",
        ];
        assert_eq!(lines(&telemetry, &[]), expected);
    }

    #[test]
    fn common_tags_come_first_and_cannot_end_a_line() {
        let telemetry = Telemetry::default();
        telemetry.count("a.b", "sink:x|1", 1);
        let expected = ["veneur.a.b:1|c|#env:prod,odd:_c_x,veneurlocalonly,sink:x_1"];
        assert_eq!(lines(&telemetry, &["env:prod", "odd:|c\nx"]), expected);
    }

    #[test]
    fn many_samples_are_sent_as_few_with_a_rate() {
        let telemetry = Telemetry::default();
        for nanos in 0..1024 {
            telemetry.duration("a.b_ns", "", Duration::from_nanos(nanos));
        }
        let lines = lines(&telemetry, &[]);
        assert_eq!(lines.len(), 256);
        assert_eq!(lines[1], "veneur.a.b_ns:4|ms|@0.25|#veneurlocalonly");
    }

    #[test]
    fn our_own_parser_reads_every_line() {
        let telemetry = Telemetry::default();
        for metric in names::ALL {
            match metric.kind {
                Kind::Counter => telemetry.count(metric.name, "cause:503", u64::MAX),
                Kind::Gauge => telemetry.gauge(metric.name, "", -1e-9),
                Kind::Duration => telemetry.duration(metric.name, "", Duration::MAX),
                Kind::Amount => (0..1000).for_each(|n| {
                    telemetry.histogram(metric.name, "", f64::from(n) / 3.0);
                }),
            }
        }
        for line in lines(&telemetry, &["env:prod"]) {
            let Ok(Message::Metric(read)) = dogstatsd::parse(line.as_bytes()) else {
                panic!("{line}");
            };
            assert!(read.name.starts_with(b"veneur."), "{line}");
            assert!(read.tags.starts_with(b"env:prod,veneurlocalonly"), "{line}");
            assert_eq!(read.unknown_sections, 0, "{line}");
        }
    }

    #[test]
    fn nothing_to_say_is_no_datagram() {
        assert_eq!(take_lines(&Telemetry::default(), &[]), b"");
        assert_eq!(datagrams(b"").count(), 0);
    }

    #[test]
    fn datagrams_are_cut_between_lines_and_are_as_full_as_they_can_be() {
        let line = |bytes: usize| "x".repeat(bytes);
        for (lens, datagram_lens) in [
            (vec![DATAGRAM_BYTES], vec![DATAGRAM_BYTES]),
            (vec![1000, 431], vec![DATAGRAM_BYTES]),
            (vec![1000, 432], vec![1000, 432]),
            (vec![DATAGRAM_BYTES, 1], vec![DATAGRAM_BYTES, 1]),
            (vec![DATAGRAM_BYTES + 1, 1], vec![DATAGRAM_BYTES + 1, 1]),
            (vec![1, DATAGRAM_BYTES + 1], vec![1, DATAGRAM_BYTES + 1]),
            (vec![2000], vec![2000]),
            (vec![500, 500, 500, 500], vec![1001, 1001]),
        ] {
            let lines: Vec<String> = lens.iter().map(|&len| line(len)).collect();
            let text = lines.join("\n");
            let cut: Vec<usize> = datagrams(text.as_bytes()).map(<[u8]>::len).collect();
            assert_eq!(cut, datagram_lens, "{lens:?}");
        }
    }
}
