//! What sending digests up costs: writing and compressing them, and their bytes on the wire.
//!
//! `cargo bench --bench forward`; items are digests.

use divan::Bencher;
use divan::counter::ItemsCount;
use flate2::Compression;
use flate2::read::ZlibEncoder;
use veneur::model::{MetricKey, MetricKind, Scope, TagSet, Weight};
use veneur::protocol::import::{ImportedValue, json, protobuf};
use veneur::sketch::Digest;

fn main() {
    for samples in [10, 1_000] {
        let mut entries = entries(10_000, samples);
        let (list, array) = (write_protobuf(&mut entries), write_json(&mut entries));
        let packed = zstd::bulk::compress(&list, 1).expect("memory suffices");
        let mut deflated = ZlibEncoder::new(&array[..], Compression::default());
        let deflated = std::io::copy(&mut deflated, &mut std::io::sink()).expect("memory suffices");
        println!(
            "bytes a digest of {samples} samples: protobuf {}, in zstd {}; as v1.1.0 JSON {}, in zlib {}",
            list.len() / 10_000,
            packed.len() / 10_000,
            array.len() / 10_000,
            deflated / 10_000,
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

#[divan::bench(args = [10, 1_000])]
fn protobuf_of_ten_thousand(bencher: Bencher, samples: usize) {
    let mut entries = entries(10_000, samples);
    bencher.counter(ItemsCount::new(10_000usize)).bench_local(|| write_protobuf(&mut entries));
}

#[divan::bench(args = [10, 1_000])]
fn protobuf_and_zstd_of_ten_thousand(bencher: Bencher, samples: usize) {
    let mut entries = entries(10_000, samples);
    bencher.counter(ItemsCount::new(10_000usize)).bench_local(|| {
        zstd::bulk::compress(&write_protobuf(&mut entries), 1).expect("memory suffices")
    });
}

#[divan::bench(args = [10, 1_000])]
fn json_of_ten_thousand(bencher: Bencher, samples: usize) {
    let mut entries = entries(10_000, samples);
    bencher.counter(ItemsCount::new(10_000usize)).bench_local(|| write_json(&mut entries));
}
