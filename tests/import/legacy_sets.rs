//! Sets for an upstream Veneur 1.1.0, against those that the real one sent.

use std::io::Read;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::read::ZlibDecoder;
use serde_json::Value;
use veneur::protocol::import::gob;
use veneur::sketch::{LegacySet, legacy_set};

use crate::legacy_set::{LegacySet as Said, read};
use crate::support::fixture;

/// The set in a body with nothing else.
fn sent(name: &str) -> Said {
    let mut body = Vec::new();
    let compressed = fixture(&format!("import_v110/{name}.deflate"));
    ZlibDecoder::new(&*compressed).read_to_end(&mut body).expect("a zlib body");
    let body: Value = serde_json::from_slice(&body).expect("a body is JSON");
    let value = body[0]["value"].as_str().expect("an entry has a value");
    read(&BASE64_STANDARD.decode(value).expect("a value is base64"))
}

#[test]
fn a_set_says_what_that_of_1_1_0_says() {
    for (name, members, suffix) in [
        ("set_10", 10, "@example.com"),
        ("set_1000", 1_000, "@example.com"),
        ("set_100000", 100_000, "@example.com"),
        ("set_200000_dense", 200_000, "@example.com"),
        ("set_sequential_1000", 1_000, ""),
    ] {
        let mut set = LegacySet::default();
        for id in 0..members {
            set.insert_hash(legacy_set::member_hash(format!("user-{id}{suffix}").as_bytes()));
        }
        let ours = read(&gob::write_legacy_set(&mut set));
        assert!(ours == sent(name), "{name}");
    }
}

#[test]
fn its_precision_is_read_and_refused_here() {
    let stream = gob::write_legacy_set(&mut LegacySet::default());
    assert_eq!(gob::read_set_precision(&stream), Ok(18));
}
