//! The dense feed-forward block.

use super::{
    Work,
    linear::{EpilogueView, project},
    norm::{NormView, normed},
    product::{Product, View, products},
    require,
};
use crate::{
    Buffer, FeedForward, Result,
    cpu::{argument, columns::Input, floats, floats_mut, memory::SharedMut, simd::Kernels, weight},
};

/// `out = epilogue(down(inner_norm(act(gate(norm(x))) ⊙ up(norm(x)))))`.
pub(crate) fn feed_forward(
    work: &mut Work,
    x: &Buffer,
    n_rows: usize,
    args: &FeedForward<'_>,
    out: &mut Buffer,
) -> Result<()> {
    let op = "feed_forward";
    let Work { team, scratch } = work;
    let up = View::of(op, "up", args.up, None, None)?;
    let (width, n_ff) = (up.matrix.row_len, up.matrix.n_rows);
    let gate = args.gate.map(|gate| View::of(op, "gate", gate, Some(width), Some(n_ff))).transpose()?;
    let down = View { input: Input::Outliers, ..View::of(op, "down", args.down, Some(n_ff), None)? };
    let n_out = down.matrix.n_rows;
    let inner_norm = args.inner_norm.map(|norm| NormView::of(op, norm, n_ff)).transpose()?;
    let output_gate = weight::optional_vector(op, args.output_gate, width)?;
    require(op, output_gate.is_none() || args.down.bias.is_none(), "a gate on an output with a bias")?;
    require(op, args.sparsity.is_none() || gate.is_some(), "sparse activations without a gate")?;
    let x = floats(op, x, n_rows.checked_mul(width))?;
    let epilogue = EpilogueView::of(op, &args.epilogue, n_rows, n_out)?;
    let out = floats_mut(op, out, n_rows.checked_mul(n_out))?;
    let x = normed(op, team, &mut scratch.normed, args.norm, x, width)?;
    let len = n_rows.checked_mul(n_ff).ok_or_else(|| argument(op, "a size that overflows"))?;

    // Without a gate, `up` itself is what the activation applies to.
    let hidden = scratch.first.take(len)?;
    let other = scratch.second.take(if gate.is_some() { len } else { 0 })?;
    {
        let (first, second) = (SharedMut::new(hidden), SharedMut::new(other));
        let list = match gate {
            Some(gate) => [Product::plain(gate, x, n_rows, first), Product::plain(up, x, n_rows, second)],
            None => [Product::plain(up, x, n_rows, first); 2],
        };
        products(team, &mut scratch.products, if gate.is_some() { 2 } else { 1 }, |i| list[i])?;
    }
    let (kernels, other) = (team.kernels, &*other);
    team.reserve(if inner_norm.is_some() { n_ff } else { 0 })?;
    team.rows(hidden, n_ff, |row, hidden, local| {
        if let Some(deviations) = args.sparsity {
            thin_out(kernels, hidden, deviations);
        }
        kernels.activate(args.activation, hidden, other.get(row * n_ff..(row + 1) * n_ff));
        if let Some(norm) = &inner_norm {
            norm.in_place(kernels, hidden, local.floats(n_ff));
        }
        if let Some(gate) = output_gate {
            // The product with `down` is linear: its input may be scaled instead.
            let mut open = [kernels.dot(&x[row * width..(row + 1) * width], gate)];
            kernels.sigmoid(&mut open);
            hidden.iter_mut().for_each(|h| *h *= open[0]);
        }
    });
    project(team, &mut scratch.products, &mut scratch.product, down, hidden, n_rows, &epilogue, out)
}

/// Keeps what is above the mean by so many standard deviations, less that.
fn thin_out(kernels: &Kernels, values: &mut [f32], deviations: f32) {
    let n = values.len() as f32;
    let mean = kernels.sum(values) / n;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / n;
    let least = mean + deviations * variance.sqrt();
    values.iter_mut().for_each(|v| *v = if *v < least { 0.0 } else { *v - least });
}
