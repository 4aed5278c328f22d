//! What taking in forwarded aggregates costs: decoding a body and merging its entries.
//!
//! `cargo bench --bench import`; items are entries.

use std::io::Read;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use flate2::Compression;
use flate2::read::{ZlibDecoder, ZlibEncoder};
use veneur::aggregate::Shard;
use veneur::model::{Dialect, ExtendTags, MetricKey, MetricKind, Role, Scope, TagSet, Weight};
use veneur::protocol::import::{ImportedEntry, ImportedValue, Limits, json, protobuf};
use veneur::sketch::{Cardinality, Digest, member_hash};

fn main() {
    divan::main();
}

const LIMITS: Limits = Limits { entries: 1_000_000 };

fn key(kind: MetricKind, scope: Scope, series: usize) -> MetricKey {
    let name = format!("service.endpoint.{}.latency", series % 100);
    let tags = [
        "env:production".to_owned(),
        "region:eu-central-1".to_owned(),
        format!("path:/v1/objects/{series}"),
        "status:200".to_owned(),
    ];
    let tags = TagSet::canonical(tags.iter().map(String::as_str));
    MetricKey { name: name.into(), tags, kind, scope, dialect: Dialect::DogStatsD }
}

/// A digest of so many samples, other ones for each series.
fn digest(series: usize, samples: usize) -> Digest {
    let mut digest = Digest::new();
    for n in 0..samples {
        let sample = ((series * 7919 + n * 104_729) % 10_007) as f64;
        digest.add(sample, Weight::ONE);
    }
    digest
}

/// What a host sends: of 20 series 14 timers, 3 distributions, a set of 50 members, a global
/// counter and a global gauge.
fn value_of(series: usize, samples: usize) -> (MetricKey, ImportedValue) {
    let (kind, scope, value) = match series % 20 {
        0..14 => (MetricKind::Timer, Scope::Mixed, ImportedValue::Digest(digest(series, samples))),
        14..17 => {
            (MetricKind::Distribution, Scope::Mixed, ImportedValue::Digest(digest(series, samples)))
        }
        17 => {
            let mut members = Cardinality::new();
            (0..50).for_each(|n| members.insert_hash(member_hash(&(series * n).to_le_bytes())));
            (MetricKind::Set, Scope::Mixed, ImportedValue::Set(members))
        }
        18 => (MetricKind::Counter, Scope::GlobalOnly, ImportedValue::Counter(series as f64)),
        _ => (MetricKind::Gauge, Scope::GlobalOnly, ImportedValue::Gauge(series as f64)),
    };
    (key(kind, scope, series), value)
}

/// A body of `entries` entries, as a `MetricList`.
fn list(entries: usize, samples: usize) -> Vec<u8> {
    let mut list = Vec::new();
    for (key, mut value) in (0..entries).map(|series| value_of(series, samples)) {
        protobuf::append(&mut list, &key, &mut value);
    }
    list
}

/// The same as JSON.
fn array(entries: usize, samples: usize) -> Vec<u8> {
    let mut body = json::Body::default();
    for (key, mut value) in (0..entries).map(|series| value_of(series, samples)) {
        body.push(&key, &mut value);
    }
    body.finish()
}

fn shard() -> Shard {
    Shard::new(Role::Global, ExtendTags::default())
}

fn merge(shard: &mut Shard, entries: Vec<ImportedEntry>) {
    entries.into_iter().for_each(|entry| shard.import(entry));
}

/// One body from the wire to the shard, which knows the series from the body before.
mod body {
    use std::fmt;

    use super::*;

    struct Size {
        entries: usize,
        /// Of each digest.
        samples: usize,
    }

    impl fmt::Display for Size {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{} entries, {} samples each", self.entries, self.samples)
        }
    }

    /// The first is short enough for a scheduler to leave it alone, even on a busy machine.
    const SIZES: [Size; 4] = [
        Size { entries: 200, samples: 20 },
        Size { entries: 5_000, samples: 10 },
        Size { entries: 5_000, samples: 20 },
        Size { entries: 5_000, samples: 100 },
    ];

    #[divan::bench(args = SIZES)]
    fn protobuf_in_zstd(bencher: Bencher, size: &Size) {
        let plain = list(size.entries, size.samples);
        let body = zstd::bulk::compress(&plain, 2).expect("memory takes everything");
        let mut shard = shard();
        bencher.counter(ItemsCount::new(size.entries)).bench_local(|| {
            let plain = zstd::bulk::decompress(black_box(&body), plain.len());
            let plain = plain.expect("just encoded");
            let imported = protobuf::decode(&plain, LIMITS).expect("just encoded");
            merge(&mut shard, imported.entries);
        });
    }

    #[divan::bench(args = SIZES)]
    fn json_in_zlib(bencher: Bencher, size: &Size) {
        let plain = array(size.entries, size.samples);
        let mut body = Vec::new();
        let mut encoder = ZlibEncoder::new(&plain[..], Compression::fast());
        encoder.read_to_end(&mut body).expect("memory takes everything");
        let mut shard = shard();
        bencher.counter(ItemsCount::new(size.entries)).bench_local(|| {
            let mut plain = Vec::new();
            ZlibDecoder::new(black_box(&body[..])).read_to_end(&mut plain).expect("just encoded");
            let imported = json::decode(&plain, LIMITS).expect("just encoded");
            merge(&mut shard, imported.entries);
        });
    }
}

/// Only the shard's part: finding the series and merging a digest of 10 centroids.
mod small_digests {
    use super::*;

    /// `args` are how many series there are; each has many hosts.
    #[divan::bench(args = [100, 10_000])]
    fn merge_into(bencher: Bencher, series: usize) {
        let entries: Vec<ImportedEntry> = (0..10_000)
            .map(|n| {
                let key = key(MetricKind::Timer, Scope::Mixed, n % series);
                let mut small = digest(n, 10);
                small.compress();
                ImportedEntry {
                    name: key.name.into(),
                    tags: key.tags,
                    kind: key.kind,
                    scope: key.scope,
                    value: ImportedValue::Digest(small),
                }
            })
            .collect();
        let mut shard = shard();
        for _ in 0..10 {
            merge(&mut shard, entries.clone());
        }
        bencher
            .counter(ItemsCount::new(entries.len()))
            .with_inputs(|| entries.clone())
            .bench_local_values(|entries| merge(&mut shard, entries));
    }
}

/// The message of one digest of 100 centroids; items are centroids.
mod digest_message {
    use prost::Message;
    use veneur::protocol::import::protobuf::digest::TDigest;
    use veneur::protocol::import::protobuf::messages;
    use veneur::sketch::Centroid;

    use super::*;

    /// The same message as prost reads and writes it, as a yardstick.
    #[derive(Clone, PartialEq, prost::Message)]
    struct ByProst {
        #[prost(message, repeated, tag = "1")]
        centroids: Vec<messages::Centroid>,
        #[prost(double, tag = "3")]
        min: f64,
        #[prost(double, tag = "4")]
        max: f64,
    }

    fn centroids() -> Vec<Centroid> {
        (1..=100).map(|n| Centroid { mean: f64::from(n), weight: f64::from(n) / 3.0 }).collect()
    }

    fn bytes() -> Vec<u8> {
        let centroids = centroids().into_iter().map(messages::Centroid::from).collect();
        ByProst { centroids, min: 1.0, max: 100.0 }.encode_to_vec()
    }

    #[divan::bench]
    fn decode(bencher: Bencher) {
        let bytes = bytes();
        bencher
            .counter(ItemsCount::new(100usize))
            .bench_local(|| TDigest::decode(black_box(&bytes[..])).expect("just encoded"));
    }

    #[divan::bench]
    fn decode_by_prost(bencher: Bencher) {
        let bytes = bytes();
        bencher
            .counter(ItemsCount::new(100usize))
            .bench_local(|| ByProst::decode(black_box(&bytes[..])).expect("just encoded"));
    }

    #[divan::bench]
    fn encode(bencher: Bencher) {
        let (min, max) = (1.0, 100.0);
        let digest = TDigest { centroids: centroids(), min, max, ..TDigest::default() };
        let mut bytes = Vec::with_capacity(4096);
        bencher.counter(ItemsCount::new(100usize)).bench_local(|| {
            bytes.clear();
            black_box(&digest).encode_length_delimited(&mut bytes).expect("there is room");
        });
    }

    #[divan::bench]
    fn encode_by_prost(bencher: Bencher) {
        let centroids = centroids().into_iter().map(messages::Centroid::from).collect();
        let digest = ByProst { centroids, min: 1.0, max: 100.0 };
        let mut bytes = Vec::with_capacity(4096);
        bencher.counter(ItemsCount::new(100usize)).bench_local(|| {
            bytes.clear();
            black_box(&digest).encode_length_delimited(&mut bytes).expect("there is room");
        });
    }
}
