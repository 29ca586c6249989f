//! Rows of a table by token id.

use super::{Work, require};
use crate::{
    Buffer, Result, Weight,
    cpu::{floats, floats_mut, weight::Matrix},
};

/// `out[i] = residual[i] + scale · table[tokens[i]]`.
pub(crate) fn embed(
    work: &mut Work,
    table: &Weight,
    tokens: &[u32],
    scale: f32,
    residual: Option<&Buffer>,
    out: &mut Buffer,
) -> Result<()> {
    let op = "embed";
    let table = Matrix::of(op, table)?;
    for id in tokens {
        require(op, (*id as usize) < table.n_rows, format_args!("token {id} is outside the {} rows", table.n_rows))?;
    }
    let width = table.row_len;
    let residual = residual.map(|r| floats(op, r, tokens.len().checked_mul(width))).transpose()?;
    let out = floats_mut(op, out, tokens.len().checked_mul(width))?;
    let kernels = work.team.kernels;
    work.team.rows(out, width, |row, out, _| {
        table.decode(kernels, tokens[row] as usize, 0, out);
        if scale != 1.0 {
            out.iter_mut().for_each(|o| *o *= scale);
        }
        if let Some(residual) = residual {
            out.iter_mut().zip(&residual[row * width..]).for_each(|(o, r)| *o += r);
        }
    });
    Ok(())
}
