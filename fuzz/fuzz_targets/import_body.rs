//! No body makes a decoder panic or keep more than it holds; what was read is written again
//! and reads the same, in protobuf bit for bit.
#![no_main]

#[path = "../../tests/support/said.rs"]
mod said;

use libfuzzer_sys::fuzz_target;
use said::said;
use veneur::model::{Dialect, MetricKey, MetricKind, Scope, TagSet};
use veneur::protocol::import::{Imported, ImportedEntry, Limits, json, protobuf};

const LIMITS: Limits = Limits { entries: 64 };

fn key_of(entry: &ImportedEntry) -> MetricKey {
    MetricKey {
        name: entry.name.as_str().into(),
        tags: entry.tags.clone(),
        kind: entry.kind,
        scope: entry.scope,
        dialect: Dialect::default(),
    }
}

fn all(imported: &mut Imported) -> Vec<(String, TagSet, MetricKind, Scope, String)> {
    let all_of = |entry: &mut ImportedEntry| {
        let value = said(&mut entry.value, true);
        (entry.name.clone(), entry.tags.clone(), entry.kind, entry.scope, value)
    };
    imported.entries.iter_mut().map(all_of).collect()
}

fuzz_target!(|body: &[u8]| {
    for imported in [protobuf::decode(body, LIMITS), json::decode(body, LIMITS)] {
        let mut imported = match imported {
            Ok(imported) if !imported.entries.is_empty() => imported,
            Ok(_) => continue,
            Err(refusal) => {
                assert!(refusal.entry.is_none_or(|entry| entry < LIMITS.entries + 1));
                continue;
            }
        };
        assert!(imported.entries.len() <= LIMITS.entries);
        let (mut list, mut array) = (Vec::new(), json::Body::default());
        for entry in &mut imported.entries {
            let key = key_of(entry);
            protobuf::append(&mut list, &key, &mut entry.value);
            array.push(&key, &mut entry.value);
        }
        let mut again = protobuf::decode(&list, LIMITS).expect("our own protobuf");
        assert_eq!(all(&mut again), all(&mut imported));
        let again = json::decode(&array.finish(), LIMITS).expect("our own JSON");
        assert_eq!(again.entries.len(), imported.entries.len());
    }
});
