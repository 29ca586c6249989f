//! What a layer adds by its own embedding of the token (Gemma 3n, Google 2025): a gated block whose second factor is given.

use super::{
    Work,
    linear::{EpilogueView, project},
    product::{Product, View, products},
    require,
};
use crate::{
    Buffer, LayerInput, Result,
    cpu::{argument, floats, floats_mut, memory::SharedMut, weight},
};

/// `out = epilogue(output(act(gate(scale ⊙ x)) ⊙ input))`.
pub(crate) fn layer_input(
    work: &mut Work,
    x: &Buffer,
    n_rows: usize,
    args: &LayerInput<'_>,
    out: &mut Buffer,
) -> Result<()> {
    let op = "layer_input";
    let Work { team, scratch } = work;
    let gate = View::of(op, "the gate", args.gate, None, None)?;
    let (width, n) = (gate.matrix.row_len, gate.matrix.n_rows);
    let output = View::of(op, "the output", args.output, Some(n), None)?;
    let n_out = output.matrix.n_rows;
    let scale = weight::optional_vector(op, args.scale, width)?;
    let (first, stride) = (args.first, args.stride);
    require(op, first.checked_add(n).is_some_and(|end| end <= stride), "embeddings that end beyond their row")?;
    let x = floats(op, x, n_rows.checked_mul(width))?;
    let inputs = floats(op, args.inputs, n_rows.checked_mul(stride))?;
    let epilogue = EpilogueView::of(op, &args.epilogue, n_rows, n_out)?;
    let out = floats_mut(op, out, n_rows.checked_mul(n_out))?;
    let x = match scale {
        None => x,
        Some(scale) => {
            let scaled = scratch.normed.take(x.len())?;
            team.rows(scaled, width, |row, scaled, _| {
                let x = &x[row * width..(row + 1) * width];
                scaled.iter_mut().zip(x).zip(scale).for_each(|((s, x), scale)| *s = x * scale);
            });
            &*scaled
        }
    };
    let hidden = scratch.first.take(n_rows.checked_mul(n).ok_or_else(|| argument(op, "a size that overflows"))?)?;
    {
        let product = Product::plain(gate, x, n_rows, SharedMut::new(hidden));
        products(team, &mut scratch.products, 1, |_| product)?;
    }
    let kernels = team.kernels;
    team.rows(hidden, n, |row, hidden, _| {
        kernels.activate(args.activation, hidden, Some(&inputs[row * stride + first..row * stride + first + n]));
    });
    project(team, &mut scratch.products, &mut scratch.product, output, hidden, n_rows, &epilogue, out)
}
