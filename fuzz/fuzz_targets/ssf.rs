//! Messages of SSF: whatever is read can be used whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use veneur::protocol::ssf::parse;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = parse(bytes) else { return };
    let mut says_something = false;
    if let Some(span) = &message.span {
        says_something = true;
        let owned = span.to_owned();
        assert!(!owned.name.is_empty() && owned.duration_ns >= 0);
        assert!(owned.tags.len() <= bytes.len());
        for (index, (name, _)) in owned.tags.iter().enumerate() {
            assert!(owned.tags[..index].iter().all(|(other, _)| other != name));
        }
    }
    for sample in message.samples() {
        says_something = true;
        if let Ok(sample) = sample {
            assert!(!sample.name.is_empty() && sample.value.is_finite());
            assert!(sample.tags().count() <= bytes.len());
        }
    }
    assert!(says_something);
});
