use prost::Message as _;

use super::*;
use crate::model::{Scope, ServiceStatus, Span, Weight};

/// v14's messages as prost writes them.
#[derive(Clone, PartialEq, prost::Message)]
struct SsfSpan {
    #[prost(int32, tag = "1")]
    version: i32,
    #[prost(int64, tag = "2")]
    trace_id: i64,
    #[prost(int64, tag = "3")]
    id: i64,
    #[prost(int64, tag = "4")]
    parent_id: i64,
    #[prost(int64, tag = "5")]
    start_timestamp: i64,
    #[prost(int64, tag = "6")]
    end_timestamp: i64,
    #[prost(bool, tag = "7")]
    error: bool,
    #[prost(string, tag = "8")]
    service: String,
    #[prost(message, repeated, tag = "10")]
    metrics: Vec<SsfSample>,
    #[prost(btree_map = "string, string", tag = "11")]
    tags: std::collections::BTreeMap<String, String>,
    #[prost(bool, tag = "12")]
    indicator: bool,
    #[prost(string, tag = "13")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SsfSample {
    #[prost(int32, tag = "1")]
    metric: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(float, tag = "3")]
    value: f32,
    #[prost(string, tag = "5")]
    message: String,
    #[prost(int32, tag = "6")]
    status: i32,
    #[prost(float, tag = "7")]
    sample_rate: f32,
    #[prost(btree_map = "string, string", tag = "8")]
    tags: std::collections::BTreeMap<String, String>,
    #[prost(int32, tag = "10")]
    scope: i32,
}

/// v1.1.0's messages.
#[derive(Clone, PartialEq, prost::Message)]
struct OldSample {
    #[prost(int32, tag = "1")]
    metric: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(int64, tag = "3")]
    timestamp: i64,
    #[prost(int32, tag = "5")]
    status: i32,
    #[prost(float, tag = "6")]
    sample_rate: f32,
    #[prost(message, repeated, tag = "7")]
    tags: Vec<OldTag>,
    #[prost(message, optional, tag = "9")]
    trace: Option<OldTrace>,
    #[prost(string, tag = "10")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OldTag {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OldTrace {
    #[prost(int64, tag = "1")]
    trace_id: i64,
    #[prost(int64, tag = "2")]
    id: i64,
    #[prost(int64, tag = "3")]
    parent_id: i64,
    #[prost(string, tag = "4")]
    resource: String,
    #[prost(int64, tag = "5")]
    duration: i64,
}

fn new_span() -> SsfSpan {
    let tags = [("resource", "GET /x"), ("env", "prod"), ("ssf_objective", "checkout")];
    SsfSpan {
        trace_id: 7,
        id: 8,
        parent_id: -9,
        start_timestamp: 1_500_000_000_000_000_000,
        end_timestamp: 1_500_000_000_000_001_234,
        error: true,
        service: "shop".into(),
        tags: tags.map(|(name, value)| (name.into(), value.into())).into(),
        indicator: true,
        name: "pay".into(),
        ..SsfSpan::default()
    }
}

fn sample(metric: i32) -> SsfSample {
    SsfSample { metric, name: "m".into(), value: 0.5, ..SsfSample::default() }
}

fn texts(tags: &[(&str, &str)]) -> Vec<(Box<str>, Box<str>)> {
    tags.iter().map(|&(name, value)| (name.into(), value.into())).collect()
}

fn samples(span: SsfSpan) -> Vec<Result<SampleKind, Reason>> {
    let message = span.encode_to_vec();
    let message = parse(&message).expect("it says something");
    message.samples().map(|sample| sample.map(|sample| sample.kind)).collect()
}

#[test]
fn a_span_of_v14_is_read_with_its_tags() {
    let message = new_span().encode_to_vec();
    let message = parse(&message).expect("a good span");
    let span = message.span.as_ref().expect("there is one");
    assert!(span.is_indicator && span.is_error());
    assert_eq!(span.objective(), b"checkout");
    assert_eq!(message.samples().count(), 0);
    assert_eq!(
        span.to_owned(),
        Span {
            trace_id: 7,
            id: 8,
            parent_id: -9,
            start_ns: 1_500_000_000_000_000_000,
            duration_ns: 1234,
            status: ServiceStatus::Critical,
            service: "shop".into(),
            name: "pay".into(),
            resource: "GET /x".into(),
            tags: texts(&[("env", "prod"), ("ssf_objective", "checkout")]),
        }
    );
}

#[test]
fn a_span_without_a_name_is_called_as_its_tag_says() {
    let mut span = SsfSpan { name: String::new(), ..new_span() };
    span.tags = [("name".to_owned(), "pay".to_owned())].into();
    let message = span.encode_to_vec();
    let span = parse(&message).expect("a good span").span.expect("there is one").to_owned();
    assert_eq!((&*span.name, &*span.resource, span.tags), ("pay", "unknown", vec![]));
}

#[test]
fn a_span_of_v1_is_told_apart_by_its_fields() {
    let tag = |name: &str, value: &str| OldTag { name: name.into(), value: value.into() };
    let old = OldSample {
        metric: 6,
        name: "svc.op".into(),
        timestamp: 1_500_000_000_000_000_000,
        status: 2,
        sample_rate: 1.0,
        tags: vec![tag("a", "x"), tag("a", "b")],
        trace: Some(OldTrace {
            trace_id: 7,
            id: 8,
            parent_id: 7,
            resource: "GET /x".into(),
            duration: 1234,
        }),
        service: "mysvc".into(),
    };
    let message = old.encode_to_vec();
    let span = parse(&message).expect("a good span").span.expect("there is one").to_owned();
    assert_eq!(
        span,
        Span {
            trace_id: 7,
            id: 8,
            parent_id: 7,
            start_ns: 1_500_000_000_000_000_000,
            duration_ns: 1234,
            status: ServiceStatus::Critical,
            service: "mysvc".into(),
            name: "svc.op".into(),
            resource: "GET /x".into(),
            tags: texts(&[("a", "b")]),
        }
    );
    // It ended v1.1.0.
    let untraced = OldSample { trace: None, ..old }.encode_to_vec();
    assert_eq!(parse(&untraced).map_err(|refusal| refusal.reason), Err(Reason::EmptySpan));
}

#[test]
fn a_message_that_says_nothing_is_refused() {
    let incomplete = |spoil: fn(&mut SsfSpan)| {
        let mut span = new_span();
        spoil(&mut span);
        span.encode_to_vec()
    };
    for (message, reason) in [
        (vec![], Reason::EmptySpan),
        (incomplete(|span| span.id = 0), Reason::EmptySpan),
        (incomplete(|span| span.trace_id = 0), Reason::EmptySpan),
        (incomplete(|span| span.start_timestamp = 0), Reason::EmptySpan),
        (incomplete(|span| span.end_timestamp = 0), Reason::EmptySpan),
        (incomplete(|span| span.name.clear()), Reason::EmptySpan),
        (b"page.views:1|c".to_vec(), Reason::BadProtobuf),
    ] {
        let refused = parse(&message).map_err(|refusal| refusal.reason);
        assert_eq!(refused, Err(reason), "{}", message.escape_ascii());
    }
}

#[test]
fn samples_are_read_one_by_one() {
    let bad = [
        (SsfSample { name: String::new(), ..sample(0) }, Reason::EmptyName),
        (SsfSample { value: f32::NAN, ..sample(0) }, Reason::NonFinite),
        (SsfSample { sample_rate: 1.5, ..sample(0) }, Reason::BadSampleRate),
        (sample(5), Reason::UnknownType),
    ];
    for (bad, reason) in bad {
        let span = SsfSpan { metrics: vec![bad, sample(2)], ..SsfSpan::default() };
        assert_eq!(samples(span), [Err(reason), Ok(SampleKind::Histogram)]);
    }
}

#[test]
fn a_sample_has_its_scope_rate_and_tags() {
    let tags = [("k".to_owned(), "v".to_owned())].into();
    let one = SsfSample { sample_rate: 0.1, scope: 2, tags, ..sample(0) };
    let message = SsfSpan { metrics: vec![one, sample(1)], ..new_span() }.encode_to_vec();
    let message = parse(&message).expect("a good span");
    let read: Result<Vec<_>, _> = message.samples().collect();
    let read = read.expect("good samples");
    let tags: Vec<_> = read[0].tags().collect();
    assert_eq!(tags, [(&b"k"[..], &b"v"[..])]);
    assert_eq!(read[0].weight, Weight::from_rate(0.1).expect("a good rate"));
    assert_eq!((read[0].scope, read[1].scope), (Scope::GlobalOnly, Scope::Mixed));
    assert_eq!(read[1].weight, Weight::ONE, "a rate of 0 is one that is not set");
}
