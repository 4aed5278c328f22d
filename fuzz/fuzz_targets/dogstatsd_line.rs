//! No line makes the parser panic; an accepted one is read the same when printed, its numbers
//! are finite, and a refused one is refused for a place within it.
#![no_main]

#[path = "../../tests/support/print.rs"]
mod print;

use libfuzzer_sys::fuzz_target;
use veneur::protocol::Refusal;
use veneur::protocol::dogstatsd::{Message, Values, parse};

/// What a line says, but for counts of what was skipped: printed lines have nothing to skip.
fn said(line: &[u8]) -> Result<Message<'_>, Refusal> {
    let mut message = parse(line)?;
    if let Message::Metric(line) = &mut message {
        line.unknown_sections = 0;
        line.skipped_values = 0;
    }
    Ok(message)
}

fuzz_target!(|line: &[u8]| {
    let message = match said(line) {
        Ok(message) => message,
        Err(refusal) => return assert!(refusal.at as usize <= line.len(), "{refusal}"),
    };
    if let Message::Metric(metric) = &message
        && !matches!(metric.values, Values::Member(_))
    {
        assert!(metric.values.numbers().count() > 0);
        assert!(metric.values.numbers().all(f64::is_finite));
    }
    assert_eq!(said(&print::print(&message)), Ok(message));
});
