//! What sending digests up costs: writing and compressing them, and their bytes on the wire.
//!
//! `cargo bench --bench forward`; items are digests.

use std::sync::Arc;
use std::time::Instant;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use flate2::Compression;
use flate2::read::ZlibEncoder;
use veneur::aggregate::{Aggregate, Histogram};
use veneur::config::settings::ForwardFormat;
use veneur::forward::encode::Encoder;
use veneur::forward::outbox::Origin;
use veneur::forward::pack::BodyLimits;
use veneur::forward::ring::Ring;
use veneur::model::{Dialect, MetricKey, MetricKind, Scope, TagSet, UnixSeconds, Weight};
use veneur::protocol::import::{ImportedValue, json, protobuf};
use veneur::sketch::Digest;
use zstd::bulk::Compressor;

const DIGESTS: usize = 10_000;
/// Of each digest.
const SAMPLES: [usize; 3] = [10, 100, 1_000];
/// So many a flush of them makes by default.
const BODIES: usize = 2;
/// Formats by number.
const PROTOBUF_ZSTD: usize = 0;
const GRPC: usize = 1;
const JSON_ZLIB: usize = 2;

fn main() {
    for samples in SAMPLES {
        let mut entries = entries(DIGESTS, samples);
        let (list, array) = (write_protobuf(&mut entries), write_json(&mut entries));
        let packed = zstd::bulk::compress(&list, 2).expect("memory suffices");
        let mut deflated = ZlibEncoder::new(&array[..], Compression::default());
        let deflated = std::io::copy(&mut deflated, &mut std::io::sink()).expect("memory suffices");
        println!(
            "bytes a digest of {samples} samples: protobuf {}, in zstd {}; as v1.1.0 JSON {}, in zlib {}",
            list.len() / DIGESTS,
            packed.len() / DIGESTS,
            array.len() / DIGESTS,
            deflated / DIGESTS as u64,
        );
    }
    divan::main();
}

/// `count` timers of `samples` latencies each, with tags as they are in practice.
fn entries(count: usize, samples: usize) -> Vec<(MetricKey, ImportedValue)> {
    let mut x = 1u64;
    let mut uniform = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (x >> 11) as f64 / (1u64 << 53) as f64
    };
    let entry = |index: usize| {
        let tags = [format!("endpoint:/api/v1/{index}"), "env:prod".into(), "az:eu-1a".into()];
        let key = MetricKey {
            name: format!("http.request.duration.{}", index % 100).into(),
            tags: TagSet::canonical(tags.iter().map(String::as_str)),
            kind: MetricKind::Timer,
            scope: Scope::Mixed,
            dialect: Dialect::DogStatsD,
        };
        let mut digest = Digest::new();
        // Whole microseconds in milliseconds, as clients send them.
        let latencies = (0..samples).map(|_| (-uniform().ln() * 1e4).round() / 1e3);
        latencies.for_each(|latency| digest.add(latency, Weight::ONE));
        digest.compress();
        (key, ImportedValue::Digest(digest))
    };
    (0..count).map(entry).collect()
}

fn write_protobuf(entries: &mut [(MetricKey, ImportedValue)]) -> Vec<u8> {
    let mut body = Vec::new();
    entries.iter_mut().for_each(|(key, value)| protobuf::append(&mut body, key, value));
    body
}

fn write_json(entries: &mut [(MetricKey, ImportedValue)]) -> Vec<u8> {
    let mut body = json::Body::default();
    entries.iter_mut().for_each(|(key, value)| body.push(key, value));
    body.finish()
}

/// The same as a flush hands them over.
fn forwards(samples: usize) -> Vec<(Arc<MetricKey>, Aggregate)> {
    let aggregate = |(key, value)| {
        let ImportedValue::Digest(digest) = value else { panic!("only digests are made here") };
        let mut histogram = Histogram::default();
        histogram.import_as_own(digest);
        (Arc::new(key), Aggregate::Histogram(Box::new(histogram)))
    };
    entries(DIGESTS, samples).into_iter().map(aggregate).collect()
}

/// From what a flush hands over to bodies as they are sent, on a ring of three.
#[divan::bench(args = SAMPLES, consts = [PROTOBUF_ZSTD, GRPC, JSON_ZLIB])]
fn bodies<const FORMAT: usize>(bencher: Bencher, samples: usize) {
    let format = [ForwardFormat::Protobuf, ForwardFormat::Grpc, ForwardFormat::JsonGob][FORMAT];
    let limits = BodyLimits { entries: 5_000, body_bytes: 4_000_000, plain_bytes: 16_000_000 };
    let encoder = Encoder { format, limits, ignored: Arc::default() };
    let ring = Ring::new(["http://a:8127", "http://b:8127", "http://c:8127"].map(Arc::from));
    let origin = Origin { interval_end: UnixSeconds(0), since: Instant::now(), halvings: 0 };
    let forwards = forwards(samples);
    bencher
        .counter(ItemsCount::new(DIGESTS))
        .with_inputs(|| forwards.clone())
        .bench_local_values(|forwards| encoder.encode(forwards.into_iter(), &ring, origin));
}

/// Only the messages, into memory that is there.
#[divan::bench(args = SAMPLES)]
fn messages(bencher: Bencher, samples: usize) {
    let mut entries = entries(DIGESTS, samples);
    let mut list = write_protobuf(&mut entries);
    bencher.counter(ItemsCount::new(DIGESTS)).bench_local(|| {
        list.clear();
        for (key, value) in &mut entries {
            protobuf::write_metric(&mut list, key, value);
        }
    });
}

/// Only the compressor.
#[divan::bench(args = SAMPLES, consts = [-7, -1, 1, 2, 3])]
fn zstd<const LEVEL: i32>(bencher: Bencher, samples: usize) {
    let list = write_protobuf(&mut entries(DIGESTS, samples));
    let mut compressor = Compressor::new(LEVEL).expect("memory suffices");
    let bodies = list.chunks(list.len().div_ceil(BODIES));
    let compressed: usize =
        bodies.clone().map(|body| compressor.compress(body).expect("memory suffices").len()).sum();
    println!("level {LEVEL}: {} bytes a digest", compressed / DIGESTS);
    let mut out = vec![0; zstd::zstd_safe::compress_bound(list.len())];
    bencher.counter(ItemsCount::new(DIGESTS)).counter(BytesCount::new(list.len())).bench_local(
        || {
            for body in bodies.clone() {
                compressor.compress_to_buffer(body, &mut out[..]).expect("there is room");
            }
        },
    );
}
