//! The gate on attention's result (Qiu et al. 2025, "Gated Attention").

use super::{
    Work,
    norm::normed,
    product::{Product, View, products},
};
use crate::{
    Buffer, Norm, Projection, Result,
    cpu::{argument, floats, floats_mut, memory::SharedMut},
};

/// `out = values ⊙ sigmoid(gate(norm(x)))`.
pub(crate) fn output_gate(
    work: &mut Work,
    x: &Buffer,
    n_rows: usize,
    norm: Option<&Norm>,
    gate: &Projection,
    values: &Buffer,
    out: &mut Buffer,
) -> Result<()> {
    let op = "output_gate";
    let Work { team, scratch } = work;
    let gate = View::of(op, "the gate", gate, None, None)?;
    let (n_in, width) = (gate.matrix.row_len, gate.matrix.n_rows);
    let len = n_rows.checked_mul(width).ok_or_else(|| argument(op, "a size that overflows"))?;
    let x = floats(op, x, n_rows.checked_mul(n_in))?;
    let values = floats(op, values, Some(len))?;
    let out = floats_mut(op, out, Some(len))?;
    let x = normed(op, team, &mut scratch.normed, norm, x, n_in)?;
    {
        let product = Product::plain(gate, x, n_rows, SharedMut::new(out));
        products(team, &mut scratch.products, 1, |_| product)?;
    }
    let kernels = team.kernels;
    team.rows(out, width, |row, out, _| {
        kernels.sigmoid(out);
        out.iter_mut().zip(&values[row * width..]).for_each(|(o, v)| *o *= v);
    });
    Ok(())
}
