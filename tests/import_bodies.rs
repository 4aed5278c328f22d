//! Bodies that real Veneurs sent, decoded to what they say they hold.
//!
//! `conformance/import_v110/` and `conformance/forward_v14/` hold them, each with an
//! `index.json`: which samples went in, what the truth about them is, and what Veneur's own
//! code decodes.

#[path = "support/said.rs"]
mod said;

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::read::ZlibDecoder;
use said::said;
use serde_json::Value;
use veneur::model::{Dialect, MetricKey, MetricKind, Scope, Weight};
use veneur::protocol::import::{
    Imported, ImportedEntry, ImportedValue, Limits, gob, json, protobuf,
};
use veneur::sketch::{Cardinality, Digest, Mode, Parts, member_hash};

const LIMITS: Limits = Limits { entries: 1_000 };

fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conformance").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn inflated(name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    ZlibDecoder::new(&*file(name)).read_to_end(&mut body).expect("a zlib body");
    body
}

fn fixtures(directory: &str) -> Vec<Value> {
    let index: Value =
        serde_json::from_slice(&file(&format!("{directory}/index.json"))).expect("JSON");
    index["fixtures"].as_array().expect("a list of fixtures").clone()
}

fn name(value: &Value) -> &str {
    value["name"].as_str().expect("everything in an index has a name")
}

/// Veneur's infinities are words in JSON.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.replace("+Inf", "inf").parse().ok())
}

/// The histogram samples that went into a fixture, as its `input` describes them.
fn samples(fixture: &Value) -> Vec<f64> {
    let count = fixture["truth"]["count"].as_u64().expect("a count") as usize;
    let mut x = 0u64;
    let mut step = |start| {
        x = if x == 0 { start } else { x };
        x = (x * 1_103_515_245 + 12_345) % (1 << 31);
        x
    };
    match name(fixture) {
        "hist_zero_and_negative" => vec![0.0, -1.5, 0.0, 2.5],
        "hist_skewed_1000" => {
            (0..count).map(|_| (step(2) >> 8) % 1_000).map(|k| (k * k) as f64 / 1_000.0).collect()
        }
        _ => (0..count).map(|_| (step(1) % 1_000_003) as f64 / 1_000.0).collect(),
    }
}

fn weight_of(fixture: &Value) -> Weight {
    let rate = if name(fixture) == "timer_10_rated" { 0.1 } else { 1.0 };
    Weight::from_rate(rate).expect("a valid rate")
}

/// The members that went into a set fixture.
fn members(fixture: &Value) -> impl Iterator<Item = String> + use<> {
    let suffix = if name(fixture).contains("sequential") { "" } else { "@example.com" };
    let count = fixture["truth"]["cardinality"].as_u64().expect("a cardinality");
    (0..count).map(move |index| format!("user-{index}{suffix}"))
}

fn digest_of(fixture: &Value, mode: Mode) -> Digest {
    let weight = weight_of(fixture);
    let mut digest = Digest::with(mode);
    samples(fixture).into_iter().for_each(|sample| digest.add(sample, weight));
    digest
}

fn set_of(fixture: &Value) -> Cardinality {
    let mut set = Cardinality::new();
    members(fixture).for_each(|member| set.insert_hash(member_hash(member.as_bytes())));
    set
}

fn digest_in(entry: &mut ImportedEntry) -> &mut Digest {
    match &mut entry.value {
        ImportedValue::Digest(digest) => digest,
        other => panic!("{} is no digest: {other:?}", entry.name),
    }
}

/// Compares an entry with what Veneur's own code decoded; `entry` is in a body of kind `at`.
fn check(entry: &mut ImportedEntry, decoded: &Value, at: &str) {
    assert_eq!(entry.name, name(decoded), "{at}");
    let tags: Vec<&str> =
        decoded["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert_eq!(entry.tags.iter().collect::<Vec<_>>(), tags, "{at}");
    let kind = decoded["type"].as_str().expect("a type").to_lowercase();
    assert_eq!(entry.kind.as_str(), kind, "{at}");
    match (entry.kind, decoded["scope"].as_str()) {
        (MetricKind::Counter | MetricKind::Gauge, _) | (_, Some("Global")) => {
            assert_eq!(entry.scope, Scope::GlobalOnly, "{at}");
        }
        _ => assert_eq!(entry.scope, Scope::Mixed, "{at}"),
    }
    match &mut entry.value {
        ImportedValue::Counter(sum) => assert_eq!(Some(*sum), number(&decoded["counter_value"])),
        ImportedValue::Gauge(last) => assert_eq!(Some(*last), number(&decoded["gauge_value"])),
        ImportedValue::Set(set) => {
            assert!(decoded["p"] == 14, "{at}: only sets of precision 14 get this far");
            if decoded["sparse"] == true {
                let estimate = decoded["estimate_v14_as_sent"].as_u64().expect("an estimate");
                let error = set.estimate().abs_diff(estimate) as f64 / estimate as f64;
                assert!(error <= 0.033, "{at}: {} for {estimate}", set.estimate());
            }
        }
        ImportedValue::Digest(digest) => check_digest(digest, decoded, at),
    }
}

fn check_digest(digest: &mut Digest, decoded: &Value, at: &str) {
    assert_eq!(Some(digest.weight()), number(&decoded["weight"]), "{at}");
    assert_eq!(digest.min(), number(&decoded["min"]), "{at}");
    assert_eq!(digest.max(), number(&decoded["max"]), "{at}");
    if let Some(sum) = number(&decoded["reciprocal_sum"]) {
        assert_eq!(digest.reciprocal_sum(), sum, "{at}");
    }
    let pair = |c: &veneur::sketch::Centroid| [c.mean, c.weight];
    let ours: Vec<[f64; 2]> = digest.centroids().iter().map(pair).collect();
    assert_eq!(Some(ours.len() as u64), decoded["centroids"].as_u64(), "{at}");
    let pairs = |member: &str| -> Option<Vec<[f64; 2]>> {
        serde_json::from_value(decoded.get(member)?.clone()).ok()
    };
    if let Some(all) = pairs("centroid_mean_weight") {
        assert_eq!(ours, all, "{at}");
    } else {
        assert_eq!(ours[..3], pairs("first_centroids").expect("some centroids"), "{at}");
        let last = pairs("last_centroids").expect("some centroids");
        assert_eq!(ours[ours.len() - 3..], last, "{at}");
    }
    let quantiles = decoded.get("quantiles_v14").or(decoded.get("quantiles_v110"));
    for (q, answer) in quantiles.and_then(Value::as_object).expect("quantiles") {
        // Short lists are read by Veneur's own rule, others by one that is nearer the truth.
        if ours.len() < 50 {
            let q = q.parse().expect("a number");
            assert_near(digest.quantile(q), number(answer), at);
        }
    }
}

/// Equal but for the last digits: Veneur's quantiles are printed, and not fused alike.
fn assert_near(ours: Option<f64>, theirs: Option<f64>, at: &str) {
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        panic!("{at}: {ours:?} {theirs:?}");
    };
    assert!((ours - theirs).abs() <= 1e-12 * theirs.abs(), "{at}: {ours} {theirs}");
}

/// Quantiles against the samples: one sample of slack, and the error a digest may have.
fn check_against_truth(digest: &mut Digest, fixture: &Value) {
    let mut sorted = samples(fixture);
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len() as f64;
    for (q, error) in [(0.05, 0.005), (0.5, 0.005), (0.9, 0.005), (0.99, 0.0015), (0.999, 6e-4)] {
        let answer = digest.quantile(q).expect("it has samples");
        let below = sorted.partition_point(|&sample| sample < answer) as f64;
        let up_to = sorted.partition_point(|&sample| sample <= answer) as f64;
        let off = (below - q * n).max(q * n - up_to);
        assert!(off <= 1.0 + error * n, "{} at {q}: {off} of {n}", name(fixture));
    }
}

/// Everything about an entry, bit for bit.
fn all_of(entry: &mut ImportedEntry) -> (String, String, MetricKind, Scope, String) {
    let (name, tags) = (entry.name.clone(), entry.tags.as_str().to_owned());
    (name, tags, entry.kind, entry.scope, said(&mut entry.value, true))
}

fn key_of(entry: &ImportedEntry) -> MetricKey {
    MetricKey {
        name: entry.name.as_str().into(),
        tags: entry.tags.clone(),
        kind: entry.kind,
        scope: entry.scope,
        dialect: Dialect::DogStatsD,
    }
}

/// What was decoded goes out again in both of our bodies and comes back the same.
fn check_round_trips(imported: &mut Imported, at: &str) {
    let (mut list, mut array) = (Vec::new(), json::Body::default());
    for entry in &mut imported.entries {
        let key = key_of(entry);
        protobuf::append(&mut list, &key, &mut entry.value);
        array.push(&key, &mut entry.value);
    }
    if imported.entries.is_empty() {
        return;
    }
    let all = |entries: &mut [ImportedEntry]| entries.iter_mut().map(all_of).collect::<Vec<_>>();
    let mut again = protobuf::decode(&list, LIMITS).expect("our own protobuf");
    assert_eq!(all(&mut again.entries), all(&mut imported.entries), "{at}");

    // JSON has no scopes and no exact sums of digests; the fixtures have no fractions.
    let mut again = json::decode(&array.finish(), LIMITS).expect("our own JSON");
    for (ours, theirs) in again.entries.iter_mut().zip(&mut imported.entries) {
        ours.scope = theirs.scope;
        if let (ImportedValue::Digest(ours), ImportedValue::Digest(theirs)) =
            (&mut ours.value, &mut theirs.value)
        {
            let parts = Parts { sum: theirs.to_parts().sum, ..ours.to_parts() };
            *ours = Digest::from_parts(parts).expect("parts of a digest are valid");
        }
    }
    assert_eq!(all(&mut again.entries), all(&mut imported.entries), "{at}");
}

#[test]
fn every_body_of_v110_is_decoded_to_its_truth() {
    for fixture in fixtures("import_v110") {
        let at = name(&fixture).to_owned();
        let body = inflated(&format!("import_v110/{at}.deflate"));
        let mut imported = json::decode(&body, LIMITS).expect(&at);
        let decoded = fixture["decoded"].as_array().expect("decoded entries");
        let (sets, others): (Vec<&Value>, Vec<&Value>) =
            decoded.iter().partition(|entry| entry["type"] == "set");
        assert_eq!(imported.set_precision, sets.len() as u64, "{at}: sets have p = 18");
        assert_eq!(imported.entries.len(), others.len(), "{at}");
        for (entry, decoded) in imported.entries.iter_mut().zip(others) {
            check(entry, decoded, &at);
        }
        if fixture["truth"].get("quantiles").is_some() {
            check_against_truth(digest_in(&mut imported.entries[0]), &fixture);
        }
        check_round_trips(&mut imported, &at);
    }
}

#[test]
fn every_body_of_v14_is_decoded_to_its_truth() {
    for fixture in fixtures("forward_v14") {
        let at = name(&fixture).to_owned();
        let messages: Vec<Vec<u8>> = fixture["files"]
            .as_array()
            .expect("files")
            .iter()
            .map(|message| {
                file(&format!("forward_v14/{}", message["file"].as_str().expect("a name")))
            })
            .collect();
        let mut imported = if at == "mixed_stream" {
            let entries = messages.iter().map(|message| protobuf::decode_metric(message));
            let entries = entries.collect::<Result<_, _>>().expect("metrics of a stream");
            Imported { entries, set_precision: 0 }
        } else {
            protobuf::decode(&messages[0], LIMITS).expect(&at)
        };
        let decoded = fixture["decoded"].as_array().expect("decoded entries");
        assert_eq!(imported.entries.len(), decoded.len(), "{at}");
        for (entry, decoded) in imported.entries.iter_mut().zip(decoded) {
            check(entry, decoded, &at);
        }
        if fixture["truth"].get("quantiles").is_some() {
            check_against_truth(digest_in(&mut imported.entries[0]), &fixture);
        }
        if let (Some(truth), ImportedValue::Set(set)) =
            (fixture["truth"]["cardinality"].as_u64(), &imported.entries[0].value)
        {
            // The same members make the same sketch here, but for what v14's four bits cut.
            let ours = set_of(&fixture);
            assert_eq!(Cardinality::from_bytes(&ours.to_bytes()).as_ref(), Ok(set), "{at}");
            let error = set.estimate().abs_diff(truth) as f64 / truth as f64;
            let bar = if truth <= 1_000 { 0.002 } else { 0.033 };
            assert!(error <= bar, "{at}: {} for {truth}", set.estimate());
        }
        check_round_trips(&mut imported, &at);
    }
}

#[test]
fn the_json_of_v14_is_decoded_to_what_was_sent() {
    let body = inflated("forward_v14/rest_mixed.deflate");
    let mut imported = json::decode(&body, LIMITS).expect("v14's JSON");
    let values: HashMap<String, String> = imported
        .entries
        .iter_mut()
        .map(|entry| {
            let value = match &mut entry.value {
                ImportedValue::Counter(sum) => format!("sum {sum}"),
                ImportedValue::Gauge(last) => format!("last {last}"),
                ImportedValue::Digest(digest) => {
                    let (weight, min, max) = (digest.weight(), digest.min(), digest.max());
                    format!("{weight} from {min:?} to {max:?}, {}", digest.reciprocal_sum())
                }
                ImportedValue::Set(set) => format!("{} members", set.estimate()),
            };
            (format!("{}#{} {}", entry.name, entry.tags.as_str(), entry.kind), value)
        })
        .collect();
    let expected = [
        ("m.c#k:v counter", "sum 3"),
        ("m.g# gauge", "last 1.25"),
        ("m.h#k:v histogram", "2 from Some(1.0) to Some(3.0), 1.3333333333333333"),
        ("m.t#k:v timer", "2 from Some(2.5) to Some(2.5), 0.8"),
        ("m.s#k:v set", "2 members"),
    ];
    for (entry, value) in expected {
        assert_eq!(values.get(entry).map(String::as_str), Some(value), "{entry}");
    }
    check_round_trips(&mut imported, "rest_mixed");
}

/// Veneur mode folds and answers as v14 does: every centroid and quantile of the capture.
#[test]
fn parity_mode_makes_v14s_centroids_from_the_same_samples() {
    let mut compared = 0;
    for fixture in fixtures("forward_v14") {
        let at = name(&fixture).to_owned();
        if fixture["truth"].get("quantiles").is_none() {
            continue;
        }
        let mut ours = digest_of(&fixture, Mode::Veneur);
        let mut imported =
            protobuf::decode(&file(&format!("forward_v14/{at}.bin")), LIMITS).expect(&at);
        let theirs = digest_in(&mut imported.entries[0]);
        assert_eq!(ours.centroids(), theirs.centroids(), "{at}");
        assert_eq!(ours.reciprocal_sum(), theirs.reciprocal_sum(), "{at}");
        let quantiles = fixture["decoded"][0]["quantiles_v14"].as_object().expect("quantiles");
        for (q, answer) in quantiles {
            assert_near(ours.quantile(q.parse().expect("a number")), number(answer), &at);
        }
        compared += 1;
    }
    assert_eq!(compared, 7);
}

/// So a reader that takes Veneur's bytes takes ours: they are the same. v1.1.0 has no fifth
/// value, and does not look at ours.
#[test]
fn digests_are_written_byte_for_byte_as_veneur_writes_them() {
    let fixtures = fixtures("import_v110");
    let v110 = fixtures.iter().map(|fixture| format!("import_v110/{}.deflate", name(fixture)));
    let mut compared = 0;
    for body in v110.chain(["forward_v14/rest_mixed.deflate".to_owned()]) {
        let body: Value = serde_json::from_slice(&inflated(&body)).expect("JSON");
        for entry in body.as_array().expect("an array") {
            if entry["type"] != "histogram" && entry["type"] != "timer" {
                continue;
            }
            let value = entry["value"].as_str().expect("a value");
            let theirs = BASE64_STANDARD.decode(value).expect("base64");
            let parts = gob::read_digest(&theirs).expect("a digest");
            let ours = gob::write_digest(&parts);
            // Types are numbered per process: 65 to 67 as we do, or one more.
            if theirs.starts_with(b"\x0d\xff\x85") {
                assert!(ours.starts_with(&theirs), "{}", name(entry));
                compared += 1;
            }
            let again = gob::read_digest(&ours).expect("our own gob");
            assert_eq!(
                (again.centroids, again.min, again.max),
                (parts.centroids, parts.min, parts.max)
            );
        }
    }
    assert!(compared >= 5, "only {compared} were numbered as ours are");
}
