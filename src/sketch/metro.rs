//! MetroHash64, the hash of set members.
//!
//! Two sketches count a member once only if both hashed it alike, so this hash and its seed
//! are part of the wire format. Source: J. Andrew Rogers, MetroHash, the `metrohash64`
//! function; Veneur v14 uses it with seed 1337.

const K0: u64 = 0xD6D0_18F5;
const K1: u64 = 0xA2AA_033B;
const K2: u64 = 0x6299_2FC1;
const K3: u64 = 0x30BC_5B29;

/// The 64-bit hash of `bytes`.
pub fn hash64(bytes: &[u8], seed: u64) -> u64 {
    let mut hash = seed.wrapping_add(K2).wrapping_mul(K0);

    let (blocks, rest) = bytes.as_chunks::<32>();
    if !blocks.is_empty() {
        hash = hash.wrapping_add(mix_blocks(blocks, hash));
    }
    let mut rest = rest;
    if let Some((head, tail)) = rest.split_first_chunk::<16>() {
        let (low, high) = halves(head);
        let mut v0 = hash.wrapping_add(low.wrapping_mul(K2)).rotate_right(29).wrapping_mul(K3);
        let mut v1 = hash.wrapping_add(high.wrapping_mul(K2)).rotate_right(29).wrapping_mul(K3);
        v0 ^= v0.wrapping_mul(K0).rotate_right(21).wrapping_add(v1);
        v1 ^= v1.wrapping_mul(K3).rotate_right(21).wrapping_add(v0);
        hash = hash.wrapping_add(v1);
        rest = tail;
    }
    if let Some((head, tail)) = rest.split_first_chunk() {
        hash = mix_tail(hash, u64::from_le_bytes(*head), 55);
        rest = tail;
    }
    if let Some((head, tail)) = rest.split_first_chunk() {
        hash = mix_tail(hash, u32::from_le_bytes(*head).into(), 26);
        rest = tail;
    }
    if let Some((head, tail)) = rest.split_first_chunk() {
        hash = mix_tail(hash, u16::from_le_bytes(*head).into(), 48);
        rest = tail;
    }
    if let Some(&last) = rest.first() {
        hash = mix_tail(hash, last.into(), 37);
    }

    hash ^= hash.rotate_right(28);
    hash = hash.wrapping_mul(K0);
    hash ^ hash.rotate_right(29)
}

fn mix_blocks(blocks: &[[u8; 32]], hash: u64) -> u64 {
    let [mut v0, mut v1, mut v2, mut v3] = [hash; 4];
    for block in blocks {
        let (w0, w1) = halves(block[..16].try_into().expect("half of 32 bytes"));
        let (w2, w3) = halves(block[16..].try_into().expect("half of 32 bytes"));
        v0 = v0.wrapping_add(w0.wrapping_mul(K0)).rotate_right(29).wrapping_add(v2);
        v1 = v1.wrapping_add(w1.wrapping_mul(K1)).rotate_right(29).wrapping_add(v3);
        v2 = v2.wrapping_add(w2.wrapping_mul(K2)).rotate_right(29).wrapping_add(v0);
        v3 = v3.wrapping_add(w3.wrapping_mul(K3)).rotate_right(29).wrapping_add(v1);
    }
    let cross = |a: u64, b: u64, k: u64, c: u64| {
        a.wrapping_add(b).wrapping_mul(k).wrapping_add(c).rotate_right(37)
    };
    v2 ^= cross(v0, v3, K0, v1).wrapping_mul(K1);
    v3 ^= cross(v1, v2, K1, v0).wrapping_mul(K0);
    v0 ^= cross(v0, v2, K0, v3).wrapping_mul(K1);
    v1 ^= cross(v1, v3, K1, v2).wrapping_mul(K0);
    v0 ^ v1
}

fn mix_tail(hash: u64, word: u64, rotation: u32) -> u64 {
    let hash = hash.wrapping_add(word.wrapping_mul(K3));
    hash ^ hash.rotate_right(rotation).wrapping_mul(K1)
}

fn halves(bytes: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*bytes);
    (both as u64, (both >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use super::*;

    #[test]
    fn it_is_the_hash_veneur_uses() {
        // As v14's own code computes them.
        for (text, hash) in [
            ("", 0xe2f7_00c7_be59_6c30),
            ("a", 0xd924_f06e_8070_3f5f),
            ("alice", 0x75a4_dc62_e3e9_e29a),
            ("bob", 0x77a7_9bca_e376_175a),
            ("12345678", 0x195c_1f04_008f_34b0),
            ("0123456789abcdef", 0x6c3e_7515_0992_d7f3),
            ("The quick brown fox jumps over the lazy dog", 0x3a5b_6d26_9de6_00d5),
        ] {
            assert_eq!(hash64(text.as_bytes(), 1337), hash, "{text:?}");
        }
    }

    #[test]
    fn every_length_agrees_with_the_metrohash_crate() {
        let bytes: Vec<u8> = (0..=255).collect();
        for length in 0..=bytes.len() {
            let mut other = metrohash::MetroHash64::with_seed(1337);
            other.write(&bytes[..length]);
            assert_eq!(hash64(&bytes[..length], 1337), other.finish(), "{length} bytes");
        }
    }
}
