//! The output head.

use super::{
    Work,
    norm::NormView,
    product::{Product, View, products},
    require,
};
use crate::{
    Buffer, Logits, Result,
    cpu::{argument, columns::Input, floats, floats_mut, memory::SharedMut},
};

/// Logits of the rows `wanted`.
pub(crate) fn logits(work: &mut Work, x: &Buffer, wanted: &[u32], args: &Logits<'_>, out: &mut Buffer) -> Result<()> {
    let op = "logits";
    let Work { team, scratch } = work;
    let view = View { input: Input::Last, ..View::of(op, "the head", args.head, None, None)? };
    let (width, n_vocab) = (view.matrix.row_len, view.matrix.n_rows);
    let norm = args.norm.map(|norm| NormView::of(op, norm, width)).transpose()?;
    let all = floats(op, x, Some(x.len()))?;
    for row in wanted {
        let end = (*row as usize).checked_add(1).and_then(|end| end.checked_mul(width));
        require(op, end.is_some_and(|end| end <= all.len()), format_args!("row {row} is outside the input"))?;
    }
    let out = floats_mut(op, out, wanted.len().checked_mul(n_vocab))?;
    let len = wanted.len().checked_mul(width).ok_or_else(|| argument(op, "a size that overflows"))?;
    let chosen = scratch.normed.take(len)?;
    let kernels = team.kernels;
    team.rows(chosen, width, |i, chosen, _| {
        let start = wanted[i] as usize * width;
        let x = &all[start..start + width];
        match &norm {
            Some(norm) => norm.row(kernels, x, chosen),
            None => chosen.copy_from_slice(x),
        }
    });
    {
        let product = Product::plain(view, chosen, wanted.len(), SharedMut::new(out));
        let product = Product { scale: args.scale, ..product };
        products(team, &mut scratch.products, 1, |_| product)?;
    }
    if let Some(cap) = args.softcap {
        team.rows(out, n_vocab, |_, out, _| kernels.softcap(out, cap));
    }
    Ok(())
}
