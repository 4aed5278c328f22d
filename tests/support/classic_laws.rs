//! What holds of every line in a classic dialect.

use veneur::model::Recorder;
use veneur::protocol::Refusal;
use veneur::protocol::classic::{Sample, brubeck, etsy};

/// Whether `part` is a slice of `line`, or a constant that stands for an empty one.
fn is_of(line: &[u8], part: &[u8]) -> bool {
    let (whole, part) = (line.as_ptr_range(), part.as_ptr_range());
    part.start >= whole.start && part.end <= whole.end
}

fn check_sample(line: &[u8], sample: &Sample<'_>) {
    assert!(!sample.name.is_empty() && is_of(line, sample.name), "{sample:?}");
    assert!(sample.tags.is_empty() || is_of(line, sample.tags), "{sample:?}");
    assert!(sample.number.is_finite() && sample.weight.as_f64() >= 1.0, "{sample:?}");
    let is_member = sample.text == b"0" || is_of(line, sample.text);
    assert!(sample.recorder != Recorder::Set || is_member, "{sample:?}");
}

fn check_answer(line: &[u8], samples: usize, answer: Result<u16, Refusal>) {
    match answer {
        Ok(_) => assert!(samples > 0),
        Err(refusal) => {
            assert_eq!(samples, 0, "a refused line has no samples");
            assert!(refusal.at as usize <= line.len(), "{refusal}");
        }
    }
}

/// Neither reader panics; samples are of the line and finite, and a line without any is refused
/// for a place within it. A sanitised key of etsy's is clean, and stays as it is when it is
/// sanitised again.
pub(crate) fn check(line: &[u8]) {
    let mut samples = 0;
    let answer = brubeck::read(line, |sample| {
        check_sample(line, sample);
        samples += 1;
    });
    check_answer(line, samples, answer);

    let mut samples = 0;
    let answer = etsy::read(line, |sample| {
        check_sample(line, sample);
        samples += 1;
        let (name, tags) = etsy::key(sample.name, sample.tags, true);
        let is_clean = |c: char| c.is_ascii_alphanumeric() || "_-.=".contains(c);
        assert!(!name.is_empty() && name.chars().all(is_clean), "{name:?}");
        assert!(tags.iter().all(|tag| tag.chars().all(|c| is_clean(c) || c == ':')), "{tags:?}");
        let again = etsy::key(name.as_bytes(), tags.as_str().as_bytes(), true);
        assert_eq!(again, (name, tags));
    });
    check_answer(line, samples, answer);
}
