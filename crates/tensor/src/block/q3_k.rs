//! Q3_K: 16 groups of 16 weights; a weight is `d * (s - 32) * (q - 4)`, with `q` of 3 bits and `s` of 6 bits a group.
//!
//! Bytes: `hmask` (32: bit `i` of byte `l` is the third bit of weight `32 * i + l`), `qs` (64, as in Q2_K), `scales` (12),
//! `d` (2). The low four bits of scale `i` are a nibble of byte `i % 8` (high when `i >= 8`), the upper two bits are bits
//! `2 * (i / 4)` of byte `8 + i % 4`.

use super::{decode_blocks, half};
use crate::dtype::Info;

pub(crate) const INFO: Info = Info { name: "Q3_K", len: 256, bytes: 110, gguf: 11, decode: Some(decode), encode: None };

/// Scale of group `i`, still with its offset of 32.
fn scale(scales: &[u8; 12], i: usize) -> i32 {
    let low = (scales[i % 8] >> (i / 8 % 2 * 4)) & 15;
    let high = (scales[8 + i % 4] >> (i / 4 % 4 * 2)) & 3;
    i32::from(low | high << 4)
}

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |block: &[u8; 110], out: &mut [f32; 256]| {
        let d = half(block[108], block[109]);
        let scales: [u8; 12] = std::array::from_fn(|i| block[96 + i]);
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let dl = d * (scale(&scales, group) - 32) as f32;
            let shift = group % 8 / 2 * 2;
            let qs = &block[32 + group / 8 % 2 * 32 + group % 2 * 16..][..16];
            let high = &block[group % 2 * 16..][..16];
            let bit = group / 2 % 8;
            for ((out, q), h) in out.iter_mut().zip(qs).zip(high) {
                let q = (q >> shift) & 3 | ((h >> bit) & 1) << 2;
                *out = dl * (i32::from(q) - 4) as f32;
            }
        }
    });
}
