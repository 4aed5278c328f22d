//! No gob stream makes the reader panic or keep more than its bytes hold; a digest that was
//! read is written again and reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use veneur::protocol::import::gob;
use veneur::sketch::Digest;

fuzz_target!(|stream: &[u8]| {
    let _ = gob::read_set_precision(stream);
    let Ok(mut parts) = gob::read_digest(stream) else { return };
    assert!(parts.centroids.len() <= stream.len());
    parts.reciprocal_sum.get_or_insert(0.0);
    let again = gob::read_digest(&gob::write_digest(&parts)).expect("our own stream");
    assert_eq!(format!("{again:?}"), format!("{parts:?}"));
    if let Ok(mut digest) = Digest::from_parts(parts) {
        assert!(digest.quantile(0.5).is_none_or(f64::is_finite));
        assert!(digest.centroids().len() <= 214);
    }
});
