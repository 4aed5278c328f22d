//! From what the command line describes to a message of SSF; pure.
//!
//! Source: `ssf/sample.proto` of Veneur 14; its veneur-emit.

use std::time::Duration;

use lexopt::Error;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::line::Metric;
use crate::protocol::ssf;

/// What is said of a span.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    /// 0: there is no span, only samples.
    pub(super) trace_id: i64,
    pub(super) parent_id: i64,
    pub(super) id: i64,
    /// Since 1970.
    pub(super) start: Duration,
    pub(super) end: Duration,
    pub(super) service: String,
    /// Beside those of everything sent.
    pub(super) tags: Vec<String>,
    pub(super) indicator: bool,
    pub(super) error: bool,
}

/// A message with the span and the samples of `metric`, which the daemon can read.
///
/// # Errors
/// Nothing is described, or something that SSF cannot say.
pub(super) fn message(metric: &Metric, tags: &[String], span: &Span) -> Result<Vec<u8>, Error> {
    let name = metric.name.as_deref().ok_or("--name is missing")?;
    let mut out = Message::default();
    if span.trace_id != 0 {
        let nanoseconds = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        out.number(2, span.trace_id);
        out.number(3, span.id);
        out.number(4, span.parent_id);
        out.number(5, nanoseconds(span.start));
        out.number(6, nanoseconds(span.end));
        out.number(7, span.error.into());
        out.bytes(8, span.service.as_bytes());
        out.tags(11, &[tags, &span.tags].concat());
        out.number(12, span.indicator.into());
        out.bytes(13, name.as_bytes());
    }
    for (kind, value) in &metric.values {
        out.bytes(10, &sample(name, kind, value, metric, tags)?.0);
    }
    let read = ssf::parse(&out.0).map_err(|refusal| refusal.reason.as_str())?;
    if let Some(Err(reason)) = read.samples().find(Result::is_err) {
        return Err(format!("the daemon would refuse a sample: {}", reason.as_str()).into());
    }
    Ok(out.0)
}

fn sample(
    name: &str,
    kind: &str,
    value: &str,
    metric: &Metric,
    tags: &[String],
) -> Result<Message, Error> {
    let mut out = Message::default();
    let number = match kind {
        "c" => 0,
        "g" => 1,
        "h" | "ms" => 2,
        "s" => 3,
        _ => return Err("SSF has no distributions: leave out --distribution, or --ssf".into()),
    };
    out.number(1, number);
    out.bytes(2, name.as_bytes());
    match kind {
        "s" => out.bytes(5, value.as_bytes()),
        _ => out.float(3, float("a value", value)?),
    }
    if let Some(rate) = &metric.rate {
        out.float(7, float("--rate", rate)?);
    }
    out.tags(8, tags);
    if kind == "ms" {
        out.bytes(9, b"ms");
    }
    Ok(out)
}

fn float(what: &str, text: &str) -> Result<f32, Error> {
    text.parse().map_err(|_| format!("{what} is not a number: {text}").into())
}

/// A protobuf message; what is zero or empty is left out.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(&mut self, field: u32, number: i64) {
        if number != 0 {
            encode_key(field, WireType::Varint, &mut self.0);
            encode_varint(number.cast_unsigned(), &mut self.0);
        }
    }

    fn float(&mut self, field: u32, number: f32) {
        encode_key(field, WireType::ThirtyTwoBit, &mut self.0);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            encode_key(field, WireType::LengthDelimited, &mut self.0);
            encode_varint(bytes.len() as u64, &mut self.0);
            self.0.extend_from_slice(bytes);
        }
    }

    /// A map: of `a:b` the value is `b`, of `a` it is empty.
    fn tags(&mut self, field: u32, tags: &[String]) {
        for tag in tags.iter().flat_map(|tags| tags.split(',')).filter(|tag| !tag.is_empty()) {
            let (name, value) = tag.split_once(':').unwrap_or((tag, ""));
            let mut entry = Message::default();
            entry.bytes(1, name.as_bytes());
            entry.bytes(2, value.as_bytes());
            self.bytes(field, &entry.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(values: &[(&'static str, &str)]) -> Metric {
        Metric {
            name: Some("pay".to_owned()),
            values: values.iter().map(|&(kind, value)| (kind, value.to_owned())).collect(),
            ..Metric::default()
        }
    }

    fn span() -> Span {
        Span {
            trace_id: 7,
            id: 8,
            start: Duration::from_secs(100),
            end: Duration::from_secs(101),
            service: "shop".to_owned(),
            tags: vec!["a:b,c".to_owned()],
            indicator: true,
            error: true,
            ..Span::default()
        }
    }

    #[test]
    fn a_span_is_what_the_daemon_reads() {
        let message = message(&metric(&[("c", "3")]), &["env:prod".to_owned()], &span());
        let message = message.expect("all of it can be said");
        let read = ssf::parse(&message).expect("it says something");
        let span = read.span.as_ref().expect("a span");
        assert!(span.is_indicator && span.is_error());
        assert_eq!(span.duration_ns(), 1_000_000_000);
        let owned = span.to_owned();
        assert_eq!((&*owned.name, &*owned.service), ("pay", "shop"));
        let tags: Vec<_> =
            owned.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(tags, ["env=prod", "a=b", "c="]);
        assert_eq!(read.samples().count(), 1);
    }

    #[test]
    fn samples_need_no_span() {
        let values = [("g", "1.5"), ("ms", "20"), ("s", "alice")];
        let message = message(&metric(&values), &[], &Span::default()).expect("it can be said");
        let read = ssf::parse(&message).expect("it says something");
        let samples: Result<Vec<_>, _> = read.samples().collect();
        let samples = samples.expect("all are good");
        let values: Vec<_> = samples.iter().map(|sample| (sample.value, sample.message)).collect();
        assert_eq!(values, [(1.5, &b""[..]), (20.0, b""), (0.0, b"alice")]);
        assert!(read.span.is_none());
    }

    #[test]
    fn what_ssf_cannot_say_is_refused() {
        for (metric, span) in [
            (metric(&[("d", "1")]), Span::default()),
            (metric(&[("c", "many")]), Span::default()),
            (metric(&[("c", "nan")]), Span::default()),
            (metric(&[]), Span::default()),
            (Metric { name: None, ..metric(&[]) }, span()),
            (Metric { rate: Some("2".to_owned()), ..metric(&[("c", "1")]) }, span()),
        ] {
            assert!(message(&metric, &[], &span).is_err(), "{metric:?}");
        }
    }
}
