//! CRC-32 as zip archives have it (ISO 3309, the polynomial 0x04c11db7 with its bits reversed).
//!
//! Eight bytes at a time by Kounavis and Berry's slicing, and four stretches of the input side by side, because each step
//! waits for the one before it. The stretches' checksums are then joined by a multiplication of polynomials modulo the
//! CRC's own, as zlib's `crc32_combine` does.

const POLYNOMIAL: u32 = 0xedb8_8320;
/// Bytes of one stretch: four are a block.
const STRETCH: usize = 1 << STRETCH_BITS;
const STRETCH_BITS: u32 = 14;
const BLOCK: usize = 4 * STRETCH;
/// What a checksum is multiplied by when a stretch follows it: x to the power of the stretch's bits.
const AFTER_STRETCH: u32 = power_of_two(STRETCH_BITS + 3);

/// Tables for eight bytes at a time: row `k` is the checksum of a byte followed by `k` zeros.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = times_x(crc);
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut row = 1;
    while row < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[row - 1][byte];
            tables[row][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        row += 1;
    }
    tables
}

/// The polynomial `a` times x. The highest bit is the coefficient of x⁰.
const fn times_x(a: u32) -> u32 {
    if a & 1 == 0 { a >> 1 } else { (a >> 1) ^ POLYNOMIAL }
}

/// The product of two polynomials.
const fn multiply(a: u32, b: u32) -> u32 {
    let mut product = 0;
    let mut shifted = b;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        if a >> bit & 1 == 1 {
            product ^= shifted;
        }
        shifted = times_x(shifted);
    }
    product
}

/// x to the power of 2ⁿ.
const fn power_of_two(n: u32) -> u32 {
    let mut power = 1 << 30;
    let mut i = 0;
    while i < n {
        power = multiply(power, power);
        i += 1;
    }
    power
}

/// The state after eight more bytes.
fn step(state: u32, bytes: &[u8; 8]) -> u32 {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = &TABLES;
    let [b0, b1, b2, b3, b4, b5, b6, b7] = bytes;
    let [c0, c1, c2, c3] = state.to_le_bytes();
    t7[usize::from(c0 ^ b0)]
        ^ t6[usize::from(c1 ^ b1)]
        ^ t5[usize::from(c2 ^ b2)]
        ^ t4[usize::from(c3 ^ b3)]
        ^ t3[usize::from(*b4)]
        ^ t2[usize::from(*b5)]
        ^ t1[usize::from(*b6)]
        ^ t0[usize::from(*b7)]
}

/// The state after a block.
fn block(state: u32, bytes: &[u8; BLOCK]) -> u32 {
    let (left, right) = bytes.split_at(BLOCK / 2);
    let ((first, second), (third, fourth)) = (left.split_at(STRETCH), right.split_at(STRETCH));
    let chunks = |stretch| <[u8]>::as_chunks::<8>(stretch).0.iter();
    let pairs = chunks(first).zip(chunks(second)).zip(chunks(third).zip(chunks(fourth)));
    let (mut a, mut b, mut c, mut d) = (state, 0, 0, 0);
    for ((first, second), (third, fourth)) in pairs {
        a = step(a, first);
        b = step(b, second);
        c = step(c, third);
        d = step(d, fourth);
    }
    [b, c, d].into_iter().fold(a, |state, next| multiply(AFTER_STRETCH, state) ^ next)
}

/// The checksum of `bytes`.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let state = blocks.iter().fold(u32::MAX, block);
    let (chunks, rest) = rest.as_chunks::<8>();
    let state = chunks.iter().fold(state, step);
    let last = |state: u32, byte: &u8| {
        let [low, ..] = state.to_le_bytes();
        (state >> 8) ^ TABLES[0][usize::from(low ^ byte)]
    };
    !rest.iter().fold(state, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_checksums() {
        #[track_caller]
        fn check(bytes: &[u8], expected: u32) {
            assert_eq!(crc32(bytes), expected);
        }
        check(b"", 0);
        check(b"a", 0xe8b7_be43);
        check(b"123456789", 0xcbf4_3926);
        check(&[0; 32], 0x190a_55ad);
        check(&[0xff; 32], 0xff6c_ab0b);
    }

    #[test]
    fn long_inputs_have_the_checksum_of_one_bit_at_a_time() {
        let bytes: Vec<u8> = (0..3 * BLOCK as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let slow = |bytes: &[u8]| {
            let byte = |state, byte: &u8| (0..8).fold(state ^ u32::from(*byte), |state, _| times_x(state));
            !bytes.iter().fold(u32::MAX, byte)
        };
        for len in [7, 8, 9, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 13, 2 * BLOCK, 3 * BLOCK - 5] {
            assert_eq!(crc32(&bytes[..len]), slow(&bytes[..len]), "{len}");
        }
    }
}
