//! The gated short convolution of LFM2 (Liquid AI 2025), up to its output projection.

use super::{
    Work,
    causal_conv::{CausalConv, Seen},
    check_rows,
    norm::normed,
    product::{Product, View, products},
    require,
};
use crate::{
    Buffer, KvCache, Result, Rows, ShortConv,
    cpu::{argument, floats, floats_mut, memory::SharedMut, states::LayerStates},
};

/// Channels that a thread takes at a time.
const CHANNELS: usize = 128;

/// `out = c ⊙ conv(b ⊙ x)`.
pub(crate) fn short_conv(
    work: &mut Work,
    x: &Buffer,
    rows: &Rows,
    args: &ShortConv<'_>,
    cache: &mut KvCache,
    layer: usize,
    out: &mut Buffer,
) -> Result<()> {
    let op = "short_conv";
    let Work { team, scratch } = work;
    let n_rows = rows.len();
    check_rows(op, rows, cache.spec.n_blocks)?;
    let input = View::of(op, "the input", args.input, None, None)?;
    let (n_in, all) = (input.matrix.row_len, input.matrix.n_rows);
    require(op, all.is_multiple_of(3) && all > 0, "an input that is not three vectors")?;
    let width = all / 3;
    let conv = CausalConv::of(op, args.taps, args.bias, width)?;
    let x = floats(op, x, n_rows.checked_mul(n_in))?;
    let out = floats_mut(op, out, n_rows.checked_mul(width))?;
    let states = LayerStates::of(op, cache, layer, conv.state_len(), rows)?;
    let parts = scratch.first.take(n_rows.checked_mul(all).ok_or_else(|| argument(op, "a size that overflows"))?)?;
    let x = normed(op, team, &mut scratch.normed, args.norm, x, n_in)?;
    {
        let product = Product::plain(input, x, n_rows, SharedMut::new(parts));
        products(team, &mut scratch.products, 1, |_| product)?;
    }
    team.rows(parts, all, |_, row, _| {
        let (b, rest) = row.split_at_mut(width);
        b.iter_mut().zip(&rest[width..]).for_each(|(b, x)| *b *= x);
    });
    team.reserve(conv.n_kept() * CHANNELS)?;
    let (parts, shared) = (&*parts, SharedMut::new(out));
    team.ranges(width, CHANNELS, |channels, mut local| {
        for sequence in &rows.sequences {
            let Some(wanted) = sequence.states.as_ref().filter(|_| !sequence.rows.is_empty()) else { continue };
            let before = local.floats(conv.n_kept() * channels.len());
            // SAFETY: each channel belongs to one chunk, and a chunk takes one sequence after another.
            let before = unsafe { conv.before(states, wanted.from, &channels, before) };
            let first = sequence.rows.start;
            let seen = Seen { before, rows: &parts[first * all..], stride: all };
            for row in 0..sequence.rows.len() {
                let at = (first + row) * width;
                // SAFETY: as above.
                let out = unsafe { shared.range(at + channels.start..at + channels.end) };
                conv.row(&seen, row, &channels, out);
                let gate = &parts[(first + row) * all + width..][channels.clone()];
                out.iter_mut().zip(gate).for_each(|(o, c)| *o *= c);
            }
            // SAFETY: as above.
            unsafe { conv.save(states, wanted, sequence.rows.len(), &seen, &channels) };
        }
    });
    Ok(())
}
