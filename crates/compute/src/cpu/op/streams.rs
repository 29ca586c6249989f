//! Several residual streams side by side (Baykal et al. 2023, "Alternating Updates for Efficient Transformers"), as Gemma 3n
//! has them: parted, predicted before a layer, corrected after it, joined.
//!
//! A stream is `[rows, width]`, one after another in a buffer, so that the first of them is what other operations take.

use super::{
    Team, Work,
    experts::Stack,
    norm::normed,
    product::{Product, ProductScratch, View, products},
    require,
};
use crate::{
    Buffer, Projection, Result, StreamFactors, Streams,
    cpu::{
        argument, floats, floats_mut,
        memory::{Scratch, SharedMut},
        simd::Kernels,
    },
};

/// The least mean square of a product that is brought to another length (the constant of the published models).
const LEAST_SQUARE: f32 = 1e-5;

/// One step; see [`Streams`].
pub(crate) fn streams(
    work: &mut Work,
    x: &Buffer,
    n_rows: usize,
    width: usize,
    step: &Streams<'_>,
    out: &mut Buffer,
) -> Result<()> {
    let op = "streams";
    let Work { team, scratch } = work;
    require(op, width > 0, "rows without elements")?;
    let one = n_rows.checked_mul(width).ok_or_else(|| argument(op, "a size that overflows"))?;
    let all = |n: usize| one.checked_mul(n);
    match step {
        Streams::Part(projections) => {
            let stack = square(op, projections, width)?;
            let n = stack.1 + 1;
            let (x, out) = (floats(op, x, Some(one))?, floats_mut(op, out, all(n))?);
            let (first, others) = out.split_at_mut(one);
            first.copy_from_slice(x);
            {
                let shared = SharedMut::new(others);
                let product =
                    |i: usize| Product::plain(stack.0.expert(i), x, n_rows, shared.part(i * one..(i + 1) * one));
                products(team, &mut scratch.products, n - 1, product)?;
            }
            let kernels = team.kernels;
            team.rows(others, width, |row, other, _| {
                let x = &x[row % n_rows * width..][..width];
                as_long_as(kernels, x, other);
            });
        }
        Streams::Join(projections) => {
            let stack = square(op, projections, width)?;
            let n = stack.1 + 1;
            let (x, out) = (floats(op, x, all(n))?, floats_mut(op, out, Some(one))?);
            let others = scratch.product.take(one * (n - 1))?;
            {
                let shared = SharedMut::new(others);
                let product = |i: usize| {
                    let (x, out) = (&x[(i + 1) * one..(i + 2) * one], shared.part(i * one..(i + 1) * one));
                    Product::plain(stack.0.expert(i), x, n_rows, out)
                };
                products(team, &mut scratch.products, n - 1, product)?;
            }
            let (kernels, shared) = (team.kernels, SharedMut::new(others));
            team.rows(out, width, |row, out, _| {
                let first = &x[row * width..(row + 1) * width];
                out.copy_from_slice(first);
                for i in 0..n - 1 {
                    let at = i * one + row * width;
                    // SAFETY: each row of every stream belongs to one chunk.
                    let other = unsafe { shared.range(at..at + width) };
                    as_long_as(kernels, first, other);
                    out.iter_mut().zip(&*other).for_each(|(o, v)| *o += v);
                }
                out.iter_mut().for_each(|o| *o /= n as f32);
            });
        }
        Streams::Predict(args) => {
            let n = args.router.weight.shape().rows();
            let (x, out) = (floats(op, x, all(n))?, floats_mut(op, out, all(n))?);
            let own = (&mut scratch.normed, &mut scratch.first, &mut scratch.second, &mut scratch.products);
            let factors = factors(op, team, own, args, &x[..one], (n_rows, width), n * n)?;
            team.rows(out, width, |place, out, _| {
                let (i, row) = (place / n_rows, place % n_rows);
                let at = |j: usize| &x[j * one + row * width..][..width];
                out.copy_from_slice(at(i));
                for (j, factor) in factors[row * n * n + i * n..][..n].iter().enumerate() {
                    out.iter_mut().zip(at(j)).for_each(|(o, v)| *o += factor * v);
                }
            });
        }
        Streams::Correct(args, y) => {
            let n = args.router.weight.shape().rows();
            let (x, out) = (floats(op, x, all(n))?, floats_mut(op, out, all(n))?);
            let y = floats(op, y, Some(one))?;
            let own = (&mut scratch.normed, &mut scratch.first, &mut scratch.second, &mut scratch.products);
            let factors = factors(op, team, own, args, y, (n_rows, width), n)?;
            team.rows(out, width, |place, out, _| {
                let (i, row) = (place / n_rows, place % n_rows);
                let factor = 1.0 + factors[row * n + i];
                let range = row * width..(row + 1) * width;
                out.copy_from_slice(&x[i * one + range.start..i * one + range.end]);
                for ((o, y), first) in out.iter_mut().zip(&y[range.clone()]).zip(&x[range]) {
                    *o += factor * (y - first);
                }
            });
        }
        &Streams::Add(n, y) => {
            let (x, out) = (floats(op, x, all(n))?, floats_mut(op, out, all(n))?);
            let y = floats(op, y, Some(one))?;
            out.copy_from_slice(x);
            let (_, others) = out.split_at_mut(one.min(x.len()));
            team.rows(others, width, |place, out, _| {
                let y = &y[place % n_rows * width..][..width];
                out.iter_mut().zip(y).for_each(|(o, y)| *o += y);
            });
        }
    }
    Ok(())
}

/// A stack of square matrices, and how many.
fn square<'a>(op: &'static str, projections: &'a Projection, width: usize) -> Result<(Stack<'a>, usize)> {
    let n = projections.weight.shape().dims().first().copied().unwrap_or(0);
    let stack = Stack::of(op, "the matrix of each stream", projections, n)?;
    require(op, n > 0 && (stack.n_in(), stack.n_out()) == (width, width), "matrices of another width")?;
    Ok((stack, n))
}

/// Brings `y` to the length of `x`.
fn as_long_as(kernels: &Kernels, x: &[f32], y: &mut [f32]) {
    let square = |v: &[f32]| kernels.dot(v, v) / v.len() as f32;
    let factor = square(x).sqrt() / square(y).max(LEAST_SQUARE).sqrt();
    y.iter_mut().for_each(|v| *v *= factor);
}

/// Scratch for the norm, the router's products and the factors.
type Own<'s> = (&'s mut Scratch<f32>, &'s mut Scratch<f32>, &'s mut Scratch<f32>, &'s mut ProductScratch);

/// The `n` factors of every row.
fn factors<'s>(
    op: &'static str,
    team: &mut Team,
    (spare, routed, factors, scratch): Own<'s>,
    args: &StreamFactors<'_>,
    x: &[f32],
    (n_rows, width): (usize, usize),
    n: usize,
) -> Result<&'s [f32]> {
    let router = View::of(op, "the router", args.router, Some(width), None)?;
    let n_streams = router.matrix.n_rows;
    let coefficients = View::of(op, "the coefficients", args.coefficients, Some(n_streams), Some(n))?;
    let routed = routed.take(n_rows * n_streams)?;
    {
        let x = normed(op, team, spare, Some(args.norm), x, width)?;
        let product = Product::plain(router, x, n_rows, SharedMut::new(routed));
        products(team, scratch, 1, |_| Product { scale: 1.0 / width as f32, ..product })?;
    }
    routed.iter_mut().for_each(|v| *v = v.tanh());
    let factors = factors.take(n_rows * n)?;
    let product = Product::plain(coefficients, routed, n_rows, SharedMut::new(&mut *factors));
    products(team, scratch, 1, |_| product)?;
    Ok(factors)
}
