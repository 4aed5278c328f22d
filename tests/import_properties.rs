//! Laws of the bodies nodes send each other, on input nobody thought of.

#[path = "support/said.rs"]
mod said;

use std::sync::Arc;
use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;
use said::said;
use veneur::config::settings::ForwardFormat;
use veneur::forward::encode::Encoder;
use veneur::forward::outbox::Origin;
use veneur::forward::pack::BodyLimits;
use veneur::forward::ring::Ring;
use veneur::model::{Dialect, MetricKey, MetricKind, Scope, TagSet, UnixSeconds, Weight};
use veneur::protocol::import::{ImportedEntry, ImportedValue, Limits, gob, json, protobuf};
use veneur::sketch::{Cardinality, Centroid, Digest, Parts};

const LIMITS: Limits = Limits { entries: 100 };

/// A key and a value of its kind, with a scope that is forwarded.
fn entry() -> impl Strategy<Value = (MetricKey, ImportedValue)> {
    let name = prop_oneof![4 => "[a-z.]{1,20}", 1 => "\\PC{1,20}"];
    let tags = vec(prop_oneof![4 => "[a-z]{1,5}:[a-z0-9]{0,5}", 1 => "[^,]{0,10}"], 0..6);
    (name, tags, any::<bool>(), value()).prop_map(|(name, tags, is_global, (kind, value))| {
        let scope = match kind {
            MetricKind::Counter | MetricKind::Gauge => Scope::GlobalOnly,
            MetricKind::Distribution => Scope::Mixed,
            _ if is_global => Scope::GlobalOnly,
            _ => Scope::Mixed,
        };
        let tags = TagSet::canonical(tags.iter().map(String::as_str));
        (MetricKey { name: name.into(), tags, kind, scope, dialect: Dialect::DogStatsD }, value)
    })
}

fn value() -> impl Strategy<Value = (MetricKind, ImportedValue)> {
    let number = prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO;
    let kind = prop_oneof![
        Just(MetricKind::Histogram),
        Just(MetricKind::Timer),
        Just(MetricKind::Distribution)
    ];
    let rate = prop_oneof![4 => Just(1.0f32), 1 => 0.001..1.0f32];
    prop_oneof![
        prop_oneof![number, (-9..9i32).prop_map(f64::from)]
            .prop_map(|sum| (MetricKind::Counter, ImportedValue::Counter(sum))),
        number.prop_map(|last| (MetricKind::Gauge, ImportedValue::Gauge(last))),
        (kind, vec((-1e6..1e6f64, rate), 1..600)).prop_map(|(kind, samples)| {
            let mut digest = Digest::new();
            for (sample, rate) in samples {
                digest
                    .add(sample, Weight::from_rate(rate).expect("the strategy's rates are valid"));
            }
            (kind, ImportedValue::Digest(digest))
        }),
        prop_oneof![4 => vec(any::<u64>(), 0..50), 1 => vec(any::<u64>(), 3_000..9_000)].prop_map(
            |hashes| {
                let mut set = Cardinality::new();
                hashes.into_iter().for_each(|hash| set.insert_hash(hash));
                (MetricKind::Set, ImportedValue::Set(set))
            }
        ),
    ]
}

/// What JSON cannot say.
fn as_json_says(key: &MetricKey, value: &mut ImportedValue) -> (MetricKind, Scope, String) {
    let kind = match key.kind {
        MetricKind::Distribution => MetricKind::Histogram,
        kind => kind,
    };
    let scope = match kind {
        MetricKind::Counter | MetricKind::Gauge => Scope::GlobalOnly,
        _ => Scope::Mixed,
    };
    let value = match value {
        ImportedValue::Counter(sum) => {
            said(&mut ImportedValue::Counter(sum.round() as i64 as f64), false)
        }
        // Registers beyond four bits are cut, as v14 cuts its own.
        ImportedValue::Set(set) => {
            let cut = Cardinality::from_bytes(&set.to_bytes()).expect("our own bytes");
            said(&mut ImportedValue::Set(cut), false)
        }
        other => said(other, false),
    };
    (kind, scope, value)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// decode(encode(x)) == x, bit for bit.
    #[test]
    fn protobuf_loses_nothing(mut entries in vec(entry(), 1..8)) {
        let mut body = Vec::new();
        for (key, value) in &mut entries {
            protobuf::append(&mut body, key, value);
        }
        let imported = protobuf::decode(&body, LIMITS).expect("our own body");
        prop_assert_eq!(imported.entries.len(), entries.len());
        for (mut read, (key, mut value)) in imported.entries.into_iter().zip(entries) {
            prop_assert_eq!(&*read.name, &*key.name);
            prop_assert_eq!((&read.tags, read.kind, read.scope), (&key.tags, key.kind, key.scope));
            prop_assert_eq!(said(&mut read.value, true), said(&mut value, true));
        }
    }

    /// What a proxy passes on is what came, byte for byte: encode(decode(body)) == body.
    #[test]
    fn what_is_passed_on_is_what_came(mut entries in vec(entry(), 1..8)) {
        let mut body = Vec::new();
        for (key, value) in &mut entries {
            protobuf::append(&mut body, key, value);
        }
        let imported = protobuf::decode(&body, LIMITS).expect("our own body");
        let apart = imported.entries.into_iter().map(|entry| {
            let ImportedEntry { name, tags, kind, scope, value } = entry;
            (MetricKey { name: name.into(), tags, kind, scope, dialect: Dialect::DogStatsD }, value)
        });
        let encoder = Encoder {
            format: ForwardFormat::Protobuf,
            limits: BodyLimits { entries: 100, body_bytes: 1 << 24, plain_bytes: 1 << 24 },
            ignored: Arc::default(),
        };
        let ring = Ring::new([Arc::from("global")]);
        let (interval_end, since) = (UnixSeconds(0), Instant::now());
        let encoded = encoder.encode(apart, &ring, Origin { interval_end, since, halvings: 0 });
        prop_assert_eq!(encoded.bodies.len(), 1);
        let passed_on = zstd::decode_all(&encoded.bodies[0].1.body[..]).expect("it is zstd");
        prop_assert_eq!(passed_on, body);
    }

    /// decode(encode(x)) == x, but for what the format cannot say.
    #[test]
    fn json_loses_only_what_it_cannot_say(mut entries in vec(entry(), 1..8)) {
        let mut body = json::Body::default();
        for (key, value) in &mut entries {
            body.push(key, value);
        }
        let imported = json::decode(&body.finish(), LIMITS).expect("our own body");
        prop_assert_eq!(imported.entries.len(), entries.len());
        for (mut read, (key, mut value)) in imported.entries.into_iter().zip(entries) {
            prop_assert_eq!(&*read.name, &*key.name);
            prop_assert_eq!(&read.tags, &key.tags);
            let value = as_json_says(&key, &mut value);
            prop_assert_eq!((read.kind, read.scope, said(&mut read.value, false)), value);
        }
    }

    /// No body makes a decoder panic: noise, and good bodies spoilt or cut anywhere.
    #[test]
    fn any_body_is_refused_or_harmless(
        mut entries in vec(entry(), 1..4),
        noise in vec(any::<u8>(), 0..64),
        at in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut list, mut array) = (Vec::new(), json::Body::default());
        for (key, value) in &mut entries {
            protobuf::append(&mut list, key, value);
            array.push(key, value);
        }
        for good in [list, array.finish()] {
            let mut spoilt = good.clone();
            let at = at.index(spoilt.len());
            for (byte, noise) in spoilt[at..].iter_mut().zip(&noise) {
                *byte = *noise;
            }
            for body in [&noise[..], &spoilt, &good[..cut.index(good.len())]] {
                for imported in [protobuf::decode(body, LIMITS), json::decode(body, LIMITS)] {
                    let Ok(imported) = imported else { continue };
                    prop_assert!(imported.entries.len() <= LIMITS.entries);
                    for entry in imported.entries {
                        if let ImportedValue::Digest(mut digest) = entry.value {
                            prop_assert!(digest.quantile(0.5).is_none_or(f64::is_finite));
                        }
                    }
                }
            }
        }
    }

    /// A gob stream, spoilt or cut, never makes more than its bytes can hold.
    #[test]
    fn any_gob_stream_is_refused_or_harmless(
        means in vec(any::<f64>(), 0..40),
        noise in vec(any::<u8>(), 1..16),
        at in any::<prop::sample::Index>(),
    ) {
        let centroids = means.into_iter().map(|mean| Centroid { mean, weight: 1.0 }).collect();
        let parts = Parts { centroids, min: 0.0, max: 1.0, sum: None, reciprocal_sum: Some(1.0) };
        let mut stream = gob::write_digest(&parts);
        let read = gob::read_digest(&stream).expect("our own stream");
        prop_assert_eq!(format!("{read:?}"), format!("{parts:?}"));
        let at = at.index(stream.len());
        for (byte, noise) in stream[at..].iter_mut().zip(&noise) {
            *byte = *noise;
        }
        if let Ok(read) = gob::read_digest(&stream) {
            prop_assert!(read.centroids.len() <= stream.len());
        }
        let _ = gob::read_set_precision(&stream);
    }
}
