//! IQ4_XS: 8 groups of 32 weights; a weight is `d * (s - 32) * VALUES[q]`, with `q` of 4 bits and `s` of 6 bits a group.
//!
//! Bytes: `d` (2), `scales_h` (2: bits `2 * i` are the upper two bits of scale `i`), `scales_l` (4: nibbles), `qs` (128:
//! per group 16 bytes, whose low nibbles are its weights 0..16 and the high ones 16..32). The levels are IQ4_NL's.

use super::{
    decode_blocks, encode_weighted_blocks, half,
    iq4_nl::{VALUES, fit_scale, nearest_levels, nibbles},
    search::{inverse, round_scales, settled},
};
use crate::dtype::{Encode, Info};
use half::f16;

pub(crate) const INFO: Info = Info {
    name: "IQ4_XS",
    len: 256,
    bytes: 136,
    gguf: Some(23),
    decode: Some(decode),
    encode: Some(Encode::Weighted(encode)),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    decode_blocks(bytes, out, |[d0, d1, h0, h1, rest @ ..]: &[u8; 136], out: &mut [f32; 256]| {
        let d = half(*d0, *d1);
        let high = u16::from_le_bytes([*h0, *h1]);
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = rest[group / 2 % 4] >> (group % 2 * 4) & 15;
            let scale = i32::from(low) | i32::from(high >> (2 * group) & 3) << 4;
            let dl = d * (scale - 32) as f32;
            let qs = &rest[4 + group % 8 * 16..][..16];
            for j in 0..16 {
                out[j] = dl * f32::from(VALUES[usize::from(qs[j] & 15)]);
                out[j + 16] = dl * f32::from(VALUES[usize::from(qs[j] >> 4)]);
            }
        }
    });
}

/// Scale of each group by search, then rounded to 6 bits of a common step.
fn encode(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    encode_weighted_blocks(
        values,
        importance,
        out,
        |x: &[f32; 256], given, [d0, d1, h0, h1, rest @ ..]: &mut [u8; 136]| {
            let groups = x.as_chunks::<32>().0;
            let fits: [f32; 8] =
                std::array::from_fn(|i| fit_scale(&groups[i], given.map(|given| &given.as_chunks().0[i])));
            let (mut scales, mut d) = round_scales(&fits, 32);
            if let Some(given) = given {
                (scales, d) = settled(x, given, 32, (scales, d), nearest_levels);
            }
            [*d0, *d1] = f16::from_f32(d).to_le_bytes();
            rest.fill(0);
            let mut high = 0;
            for (group, x) in groups.iter().enumerate() {
                let scale = (scales[group] + 32) as u8;
                rest[group / 2] |= (scale & 15) << (group % 2 * 4);
                high |= u16::from(scale >> 4) << (2 * group);
                let qs = nibbles(x, inverse(d * scales[group] as f32));
                rest[4 + group * 16..][..16].copy_from_slice(&qs);
            }
            [*h0, *h1] = high.to_le_bytes();
        },
    );
}
