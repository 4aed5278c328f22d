//! Events and service checks: every input is read as the rest of an event, and of a check.
#![no_main]

#[path = "../../tests/support/print.rs"]
mod print;

use libfuzzer_sys::fuzz_target;
use veneur::protocol::dogstatsd::{Message, parse};

fuzz_target!(|rest: &[u8]| {
    for prefix in [&b"_e{"[..], b"_sc|"] {
        let line = [prefix, rest].concat();
        match parse(&line) {
            Ok(Message::Metric(_)) => panic!("{} is no metric", line.escape_ascii()),
            Ok(message) => assert_eq!(parse(&print::print(&message)), Ok(message)),
            Err(refusal) => assert!(refusal.at as usize <= line.len(), "{refusal}"),
        }
    }
});
