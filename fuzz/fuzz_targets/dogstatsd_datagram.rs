//! Lines are independent of how they are packed: wherever a newline cuts a datagram in two,
//! the parts say what the whole says. Nothing makes the explanations panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use veneur::cli::explain;
use veneur::protocol::Refusal;
use veneur::protocol::dogstatsd::{Message, lines, parse};

fn messages(datagram: &[u8]) -> Vec<Result<Message<'_>, Refusal>> {
    lines(datagram).map(parse).collect()
}

fuzz_target!(|datagram: &[u8]| {
    let whole = messages(datagram);
    let middle = datagram.len() / 2;
    if let Some(end) = datagram[middle..].iter().position(|&byte| byte == b'\n') {
        let (first, second) = datagram.split_at(middle + end);
        let mut parts = messages(first);
        parts.extend(messages(second));
        assert_eq!(parts, whole);
    }
    let json = explain::explain_json(datagram);
    assert!(!json.contains('\n'));
    let _ = explain::explain_text(datagram);
});
