//! Runs the tables in `tests/conformance/` through the parser, by way of `veneur explain --json`.
//!
//! A case has a `packet` (or `packet_b64`) and what is expected of it: `expect`, or any entry of
//! `also_ok`. `dogstatsd_modern.json` is today's DogStatsD and the authority;
//! `dogstatsd_parse.json` is what Veneur 1.1.0 does, with today's answer among `also_ok`
//! where the two differ.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use veneur::cli::explain::explain_json;

/// Cases of Veneur 1.1.0 that are answered otherwise on purpose, and why.
const DELIBERATE_DIFFERENCES: &[(&str, &str)] = &[(
    "unknown section after tags",
    "its section is `e:1`, which is external data since DogStatsD 1.5",
)];

#[test]
fn todays_dogstatsd_is_read_as_its_cases_say() {
    let cases = cases(include_str!("conformance/dogstatsd_modern.json"));
    let failures: Vec<String> = cases.iter().filter_map(|case| failure(case, as_modern)).collect();
    assert!(failures.is_empty(), "of {} cases failed:\n{}", cases.len(), failures.join("\n"));
}

#[test]
fn veneurs_own_cases_are_read_as_before_or_as_today() {
    let cases = cases(include_str!("conformance/dogstatsd_parse.json"));
    let (deliberate, cases): (Vec<Value>, Vec<Value>) = cases
        .into_iter()
        .partition(|case| DELIBERATE_DIFFERENCES.iter().any(|(name, _)| case["name"] == *name));
    let failures: Vec<String> = cases.iter().filter_map(|case| failure(case, as_veneur)).collect();
    assert!(failures.is_empty(), "of {} cases failed:\n{}", cases.len(), failures.join("\n"));

    let still_different = deliberate.iter().filter(|case| failure(case, as_veneur).is_some());
    assert_eq!(still_different.count(), DELIBERATE_DIFFERENCES.len(), "a difference is gone");
}

fn cases(text: &str) -> Vec<Value> {
    let cases: Vec<Value> = serde_json::from_str(text).expect("the cases are a JSON list");
    assert!(cases.len() > 100, "only {} cases", cases.len());
    cases
}

/// What a case expected and got, unless it matches; `form` brings both into the form in which
/// the case's file speaks.
fn failure(case: &Value, form: fn(&Value) -> Value) -> Option<String> {
    let packet = match (&case["packet"], &case["packet_b64"]) {
        (Value::String(text), _) => text.clone().into_bytes(),
        (_, Value::String(base64)) => BASE64_STANDARD.decode(base64).expect("base64"),
        _ => panic!("{case} has no packet"),
    };
    let answer: Value = serde_json::from_str(&explain_json(&packet)).expect("JSON");
    let got = form(&answer);
    let also_ok = case["also_ok"].as_array().into_iter().flatten();
    let matches = std::iter::once(&case["expect"]).chain(also_ok).any(|expected| {
        match expected.get("error") {
            Some(_) => is_refused(&answer),
            None => form(&expected_as_answer(expected)) == got && rejects(&answer, expected),
        }
    });
    (!matches).then(|| format!("{}: {answer} instead of {}", case["name"], case["expect"]))
}

/// Nothing came out, and at least one line was refused.
fn is_refused(answer: &Value) -> bool {
    let is_empty = |key: &str| answer[key].as_array().is_some_and(Vec::is_empty);
    ["metrics", "events", "service_checks"].into_iter().all(is_empty) && !is_empty("rejected")
}

/// As many lines as expected were refused, where the case counts them.
fn rejects(answer: &Value, expected: &Value) -> bool {
    let lines = expected.get("rejected_lines").and_then(Value::as_u64);
    lines.is_none_or(|lines| {
        answer["rejected"].as_array().is_some_and(|rejected| rejected.len() as u64 == lines)
    })
}

/// Cases name one event and one check in the singular, and leave out what is not there.
fn expected_as_answer(expected: &Value) -> Value {
    let list = |key: &str| expected.get(key).into_iter().collect::<Vec<_>>();
    json!({
        "metrics": expected.get("metrics").cloned().unwrap_or_else(|| json!([])),
        "events": list("event"),
        "service_checks": list("service_check"),
    })
}

/// Exactly, but for the scope, of which these cases do not speak, and for what was refused:
/// they speak of it only where nothing else comes out.
fn as_modern(answer: &Value) -> Value {
    each_message(answer, |message| {
        message.remove("scope");
        numbers_as_doubles(message);
    })
}

/// Tags sorted (as Veneur does), one `value` to a metric, and without the empty fields and
/// defaults that Veneur writes out.
fn as_veneur(answer: &Value) -> Value {
    each_message(answer, |message| {
        if let Some(value) = message.remove("value") {
            message.insert("values".to_owned(), json!([value]));
        }
        if let Some(source) = message.remove("source_type_name") {
            message.insert("source_type".to_owned(), source);
        }
        if let Some(tags) = message.get_mut("tags").and_then(Value::as_array_mut) {
            tags.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
        message.retain(|key, value| {
            let default = match key.as_str() {
                "priority" => json!("normal"),
                "alert_type" => json!("info"),
                "tags" => json!([]),
                _ => json!(""),
            };
            *value != default && !value.is_null()
        });
        numbers_as_doubles(message);
    })
}

fn each_message(answer: &Value, mut change: impl FnMut(&mut Map<String, Value>)) -> Value {
    let mut lists = Map::new();
    for key in ["metrics", "events", "service_checks"] {
        let mut messages = answer[key].clone();
        for message in messages.as_array_mut().into_iter().flatten() {
            change(message.as_object_mut().expect("messages are objects"));
        }
        lists.insert(key.to_owned(), messages);
    }
    Value::Object(lists)
}

/// `1` and `1.0` are the same number, and a rate has 32 bits.
fn numbers_as_doubles(message: &mut Map<String, Value>) {
    for value in message.get_mut("values").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(number) = value.as_f64() {
            *value = json!(number);
        }
    }
    if let Some(rate) = message.get_mut("sample_rate") {
        *rate = json!(rate.as_f64().expect("rates are numbers") as f32);
    }
}
