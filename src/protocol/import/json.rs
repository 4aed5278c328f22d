//! The JSON that Veneur forwards: an array of `{name, type, tagstring, tags, value}`.
//!
//! `value` is base64 of: for a counter 8 bytes of a signed integer, for a gauge (v14) 8 of a
//! double, both little-endian; for a histogram or timer a [`gob`] digest; for a set v14's
//! sketch, or v1.1.0's, which cannot be merged and is only written. Scopes do not travel: a counter or gauge is
//! there because it is global, the rest is mixed.
//!
//! Read by the rules of Go's `encoding/json`: member names in any case, unknown ones ignored,
//! `null` as good as absent, the last of several wins, and what follows the array does not
//! matter. Source: Veneur's `samplers.JSONMetric`.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::{
    Cause, Collecting, ImportError, Imported, ImportedEntry, ImportedValue, Limits, canonical,
    finite, gob,
};
use crate::model::{MetricKey, MetricKind, Scope};
use crate::sketch::{Cardinality, CardinalityError, Digest, LegacySet};

/// Reads a body.
///
/// # Errors
/// The first entry at fault, and why.
pub fn decode(body: &[u8], limits: Limits) -> Result<Imported, ImportError> {
    let mut collecting = Collecting::new(limits);
    let mut fault = None;
    let entries = Entries { collecting: &mut collecting, fault: &mut fault };
    let outcome = entries.deserialize(&mut serde_json::Deserializer::from_slice(body));
    if let Some(fault) = fault {
        return Err(fault);
    }
    outcome.map_err(|error| {
        let cause = Cause::Json { line: error.line(), column: error.column() };
        // A body that is no array at all has no entry at fault.
        if collecting.seen == 0 {
            return ImportError { entry: None, cause };
        }
        collecting.fault(cause)
    })?;
    collecting.finish()
}

/// A body in the making.
#[derive(Debug)]
pub struct Body(Vec<u8>);

impl Default for Body {
    fn default() -> Self {
        Body(vec![b'['])
    }
}

impl Body {
    /// Adds a series, as [`write_entry`] does.
    pub fn push(&mut self, key: &MetricKey, value: &mut ImportedValue) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        write_entry(&mut self.0, key, value);
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    /// The whole body.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.push(b']');
        self.0
    }
}

/// Appends one entry of the array. Counters are rounded to whole numbers, scopes are lost,
/// distributions become histograms.
pub fn write_entry(out: &mut Vec<u8>, key: &MetricKey, value: &mut ImportedValue) {
    let kind = match key.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram | MetricKind::Distribution => "histogram",
        MetricKind::Timer => "timer",
        MetricKind::Set => "set",
    };
    let value = match value {
        // `as` saturates where the sum is beyond 64 bits.
        ImportedValue::Counter(sum) => (sum.round() as i64).to_le_bytes().to_vec(),
        ImportedValue::Gauge(last) => last.to_le_bytes().to_vec(),
        ImportedValue::Digest(digest) => gob::write_digest(&digest.to_parts()),
        ImportedValue::Set(set) => set.to_bytes(),
    };
    write(out, key, kind, value);
}

/// Appends a set in the form of v1.1.0, which reads no other.
pub fn write_legacy_set(out: &mut Vec<u8>, key: &MetricKey, set: &mut LegacySet) {
    write(out, key, "set", gob::write_legacy_set(set));
}

fn write(out: &mut Vec<u8>, key: &MetricKey, kind: &'static str, value: Vec<u8>) {
    let entry = WrittenEntry {
        name: &key.name,
        kind,
        tagstring: key.tags.as_str(),
        tags: key.tags.iter().collect(),
        value: STANDARD.encode(value),
    };
    serde_json::to_writer(out, &entry).expect("strings are written to memory");
}

#[derive(Serialize)]
struct WrittenEntry<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    tagstring: &'a str,
    tags: Vec<&'a str>,
    value: String,
}

/// The array: each entry is checked as soon as it is read, so that a bad body ends early.
struct Entries<'a> {
    collecting: &'a mut Collecting,
    /// What was wrong, if it was not the JSON.
    fault: &'a mut Option<ImportError>,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of metrics")
    }

    /// `null` is an empty array.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element::<ReadEntry<'_>>()? {
            if let Err(fault) = self.collecting.push(entry.check()) {
                *self.fault = Some(fault);
                return Err(serde::de::Error::custom("an entry is at fault"));
            }
        }
        Ok(())
    }
}

/// An entry as it stands there.
#[derive(Default)]
struct ReadEntry<'a> {
    name: Cow<'a, str>,
    kind: Cow<'a, str>,
    tagstring: Cow<'a, str>,
    tags: Vec<Cow<'a, str>>,
    value: Cow<'a, str>,
}

impl ReadEntry<'_> {
    fn check(self) -> Result<ImportedEntry, Cause> {
        if self.name.is_empty() {
            return Err(Cause::EmptyName);
        }
        let value = STANDARD.decode(&*self.value).map_err(|_| Cause::Base64)?;
        let digest = || -> Result<ImportedValue, Cause> {
            Ok(ImportedValue::Digest(Digest::from_parts(gob::read_digest(&value)?)?))
        };
        let number = || <[u8; 8]>::try_from(&*value).map_err(|_| Cause::NumberLength);
        let (kind, scope, value) = match &*self.kind {
            "counter" => {
                let sum = i64::from_le_bytes(number()?) as f64;
                (MetricKind::Counter, Scope::GlobalOnly, ImportedValue::Counter(sum))
            }
            "gauge" => {
                let last = finite(f64::from_le_bytes(number()?))?;
                (MetricKind::Gauge, Scope::GlobalOnly, ImportedValue::Gauge(last))
            }
            "histogram" => (MetricKind::Histogram, Scope::Mixed, digest()?),
            "timer" => (MetricKind::Timer, Scope::Mixed, digest()?),
            "set" => (MetricKind::Set, Scope::Mixed, ImportedValue::Set(read_set(&value)?)),
            _ => return Err(Cause::UnknownType),
        };
        // The list is what v1.1.0 shows, the joined form what it looks up; they agree.
        let tags = match &*self.tags {
            [] => canonical([&*self.tagstring]),
            tags => canonical(tags.iter().map(|tag| &**tag)),
        };
        Ok(ImportedEntry { name: self.name.into_owned(), tags, kind, scope, value })
    }
}

/// v14's bytes begin with their version, 1; no gob stream does, since its first message has
/// more than one byte.
fn read_set(bytes: &[u8]) -> Result<Cardinality, Cause> {
    if bytes.first() == Some(&1) {
        return Ok(Cardinality::from_bytes(bytes)?);
    }
    let precision = gob::read_set_precision(bytes)?;
    let precision = u8::try_from(precision).map_err(|_| gob::GobError::BadNumber)?;
    Err(CardinalityError::Precision(precision).into())
}

impl<'de> Deserialize<'de> for ReadEntry<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = ReadEntry<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a metric")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(ReadEntry::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut entry = ReadEntry::default();
        while let Some(Text(name)) = members.next_key()? {
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            if is("name") {
                set_text(&mut entry.name, &mut members)?;
            } else if is("type") {
                set_text(&mut entry.kind, &mut members)?;
            } else if is("tagstring") {
                set_text(&mut entry.tagstring, &mut members)?;
            } else if is("tags") {
                let tags: Option<Vec<Option<Text<'_>>>> = members.next_value()?;
                let tags = tags.unwrap_or_default().into_iter().flatten();
                entry.tags = tags.map(|Text(tag)| tag).collect();
            } else if is("value") {
                set_text(&mut entry.value, &mut members)?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(entry)
    }
}

/// `null` leaves what was there.
fn set_text<'de, A: MapAccess<'de>>(
    field: &mut Cow<'de, str>,
    members: &mut A,
) -> Result<(), A::Error> {
    if let Some(Text(text)) = members.next_value()? {
        *field = text;
    }
    Ok(())
}

/// A string, borrowed from the body where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Dialect;

    fn read(body: &str) -> Result<Imported, ImportError> {
        decode(body.as_bytes(), Limits { entries: 3 })
    }

    const THREE: &str = "AwAAAAAAAAA=";

    #[test]
    fn entries_are_read_by_the_rules_of_go() {
        let body = format!(
            r#" [{{"NAME":"wrong","Name":"m\u00e9","tYPE":"counter","tagString":"x","extra":{{"a":[1]}},
            "tags":["b:2",null,"a:1","b:2"],"value":"{THREE}","value":null}}] and so on"#
        );
        let imported = read(&body).expect("a body that Go reads");
        let [entry] = &imported.entries[..] else { panic!("one entry, not {imported:?}") };
        assert_eq!((&*entry.name, entry.tags.as_str()), ("mé", "a:1,b:2"));
        assert_eq!((entry.kind, entry.scope), (MetricKind::Counter, Scope::GlobalOnly));
        assert!(matches!(entry.value, ImportedValue::Counter(3.0)));

        let body =
            format!(r#"[{{"name":"m","type":"counter","tagstring":"b,a","value":"{THREE}"}}]"#);
        let imported = read(&body).expect("tags may be missing");
        assert_eq!(imported.entries[0].tags.as_str(), "a,b");
    }

    #[test]
    fn a_body_is_refused_when() {
        let counter = format!(r#"{{"name":"m","type":"counter","value":"{THREE}"}}"#);
        let of_type = |kind: &str, value: &str| {
            format!(r#"[{counter},{{"name":"m","type":"{kind}","value":"{value}"}}]"#)
        };
        let json = Cause::Json { line: 0, column: 0 };
        for (body, entry, cause) in [
            (String::new(), None, json),
            ("{}".into(), None, json),
            ("[".into(), None, json),
            ("[]".into(), None, Cause::Empty),
            ("null".into(), None, Cause::Empty),
            ("[{}]".into(), Some(0), Cause::EmptyName),
            ("[null]".into(), Some(0), Cause::EmptyName),
            (format!("[{counter},{{\"name\":1}}]"), Some(1), json),
            (format!("[{counter}"), Some(1), json),
            (format!("[{counter},{counter},{counter},{counter}]"), None, Cause::TooManyEntries),
            (of_type("status", THREE), Some(1), Cause::UnknownType),
            (of_type("counter", "AwAAAAAAAA=="), Some(1), Cause::NumberLength),
            (of_type("counter", "AwAAAAAAAAA"), Some(1), Cause::Base64),
            (of_type("gauge", "AAAAAAAA8H8="), Some(1), Cause::NonFinite),
            (of_type("timer", ""), Some(1), Cause::Gob(gob::GobError::Truncated)),
            (of_type("set", ""), Some(1), Cause::Gob(gob::GobError::Truncated)),
            (of_type("set", "AQ4A"), Some(1), Cause::Set(CardinalityError::Truncated)),
        ] {
            let mut refusal = read(&body).expect_err("every body here breaks a rule");
            if let Cause::Json { line, column } = &mut refusal.cause {
                (*line, *column) = (0, 0);
            }
            assert_eq!(refusal, ImportError { entry, cause }, "{body}");
        }
    }

    #[test]
    fn a_set_of_another_precision_is_left_out_and_the_rest_is_fine() {
        // v1.1.0: registers of length 0, m = 262144, p = 18. v14's code with p = 16.
        let v110 = STANDARD.encode(b"\x03\x0a\x00\x00\x06\x06\x00\xfd\x04\x00\x00\x03\x06\x00\x12");
        let p16 = STANDARD.encode([1, 16, 0, 1]);
        let body = format!(
            r#"[{{"name":"s","type":"set","value":"{v110}"}},{{"name":"s","type":"set","value":"{p16}"}},
            {{"name":"c","type":"counter","value":"{THREE}"}}]"#
        );
        let imported = read(&body).expect("sets are the only ones at fault");
        assert_eq!((imported.entries.len(), imported.set_precision), (1, 2));
    }

    #[test]
    fn counters_are_rounded_and_scopes_lost() {
        let mut body = Body::default();
        assert!(body.is_empty());
        for (kind, scope) in
            [(MetricKind::Counter, Scope::GlobalOnly), (MetricKind::Counter, Scope::Mixed)]
        {
            let tags = canonical(["b\"2", "a:1"]);
            let key =
                MetricKey { name: "m\n".into(), tags, kind, scope, dialect: Dialect::DogStatsD };
            body.push(&key, &mut ImportedValue::Counter(-2.5));
        }
        let body = String::from_utf8(body.finish()).expect("JSON is text");
        let entry = r#"{"name":"m\n","type":"counter","tagstring":"a:1,b\"2","tags":["a:1","b\"2"],"value":"/f////////8="}"#;
        assert_eq!(body, format!("[{entry},{entry}]"));
    }
}
