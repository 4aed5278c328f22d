//! What a value from another node says, as text that differs wherever a bit does, but for the
//! sign of a zero: protobuf does not carry it.

use veneur::protocol::import::ImportedValue;
use veneur::sketch::Parts;

/// Everything; of a digest without the exact sum if `!sums`.
pub(crate) fn said(value: &mut ImportedValue, sums: bool) -> String {
    match value {
        ImportedValue::Counter(sum) => format!("counter {:?}", *sum + 0.0),
        ImportedValue::Gauge(last) => format!("gauge {:?}", *last + 0.0),
        ImportedValue::Digest(digest) => {
            let parts = digest.to_parts();
            let sum = parts.sum.filter(|_| sums);
            format!("{:?}", Parts { sum, ..parts })
        }
        ImportedValue::Set(set) => format!("{:?} {:?}", set.to_bytes(), set.cut_registers()),
    }
}
