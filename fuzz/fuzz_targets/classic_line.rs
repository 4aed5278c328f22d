//! No line makes the readers of classic dialects panic; what they read is finite and of the line.
#![no_main]

#[path = "../../tests/support/classic_laws.rs"]
mod laws;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| laws::check(line));
