//! Products with the low-rank additions of weights: `out += scale · b · (a · x)`, after the product itself.
//!
//! All narrow products of a region run in one further region, then one region for each addition that some weight has.
//! Without additions nothing happens but the look for them.

use super::{
    Team, argument,
    product::{Product, ProductScratch, plain_products},
};
use crate::{
    LowRank, Result,
    cpu::{
        memory::{Scratch, SharedMut},
        weight::Matrix,
    },
};

/// The additions of a product's weight.
#[derive(Clone, Copy, Default)]
pub(crate) struct Additions<'a> {
    list: &'a [LowRank],
    /// Which matrix of a stack it is.
    part: Option<usize>,
}

impl<'a> Additions<'a> {
    pub(crate) fn of(list: &'a [LowRank]) -> Self {
        Self { list, part: None }
    }

    /// Those of one matrix of a stack.
    pub(crate) fn part(self, part: usize) -> Self {
        Self { part: Some(part), ..self }
    }

    fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// `a` and `b` of an addition.
    fn matrices(&self, op: &'static str, addition: &'a LowRank) -> Result<(Matrix<'a>, Matrix<'a>)> {
        let (a, b) = (Matrix::of(op, &addition.a)?, Matrix::of(op, &addition.b)?);
        let Some(part) = self.part else { return Ok((a, b)) };
        let n = addition.a.shape().dims().first().copied().unwrap_or(0).max(1);
        let (rank, n_out) = (a.n_rows / n, b.n_rows / n);
        if part >= n || !a.is_stack_of(rank) || !b.is_stack_of(n_out) {
            return Err(argument(op, "an addition that was not uploaded as a stack"));
        }
        Ok((a.part(part, rank), b.part(part, n_out)))
    }
}

/// What additions keep between calls.
#[derive(Default)]
pub(crate) struct LowRankScratch {
    steps: Vec<Step>,
    /// Those of the steps that compute `a · x`; the others have it from one of them.
    own: Vec<usize>,
    narrow: Scratch<f32>,
}

/// One addition of one product.
#[derive(Clone, Copy)]
struct Step {
    product: usize,
    addition: usize,
    /// Where `a · x` begins.
    first: usize,
}

/// Adds to the outputs of products what the additions of their weights make of the inputs.
pub(crate) fn add<'a>(
    team: &mut Team,
    scratch: &mut ProductScratch,
    count: usize,
    product: &(dyn Fn(usize) -> Product<'a> + Sync),
) -> Result<()> {
    let op = "low rank";
    if (0..count).all(|i| product(i).additions.is_empty()) {
        return Ok(());
    }
    // Taken, so that the products below can use the rest; put back unless there was no memory.
    let mut own = std::mem::take(&mut scratch.low_rank);
    own.steps.clear();
    own.own.clear();
    let most = (0..count).map(|i| product(i).additions.list.len()).max().unwrap_or(0);
    let mut n_floats = 0usize;
    for addition in 0..most {
        for i in 0..count {
            let p = product(i);
            let Some(low_rank) = p.additions.list.get(addition) else { continue };
            let (a, _) = p.additions.matrices(op, low_rank)?;
            // Q, K and V of one matrix, or gate and up, follow one another.
            let same = own.steps.iter().rev().take(2).find(|step| {
                let other = product(step.product);
                let same_x = std::ptr::eq(other.x, p.x) && other.n == p.n && other.additions.part == p.additions.part;
                same_x && other.additions.list[step.addition].a.is_same(&low_rank.a)
            });
            if let Some(&Step { first, .. }) = same {
                own.steps.push(Step { product: i, addition, first });
                continue;
            }
            own.own.push(own.steps.len());
            own.steps.push(Step { product: i, addition, first: n_floats });
            let len = a.n_rows.checked_mul(p.n).and_then(|len| len.checked_add(n_floats));
            n_floats = len.ok_or_else(|| argument(op, "a size that overflows"))?;
        }
    }
    let (steps, first_steps) = (own.steps.as_slice(), own.own.as_slice());
    let of = |step: &Step| {
        let p = product(step.product);
        let low_rank = &p.additions.list[step.addition];
        let (a, b) = p.additions.matrices(op, low_rank).expect("checked as the steps were made");
        (p, a, b, low_rank.scale)
    };
    let narrow = own.narrow.take(n_floats)?;
    {
        let shared = SharedMut::new(narrow);
        plain_products(team, scratch, first_steps.len(), &|i: usize| {
            let step = &steps[first_steps[i]];
            let (p, a, _, _) = of(step);
            let out = shared.part(step.first..step.first + a.n_rows * p.n);
            Product { matrix: a, bias: None, scale: 1.0, residual: None, additions: Additions::default(), out, ..p }
        })?;
    }
    let narrow = &*narrow;
    // One addition after another: two of the same weight have the same outputs.
    let mut first = 0;
    while first < steps.len() {
        let len = steps[first..].iter().take_while(|step| step.addition == steps[first].addition).count();
        let steps = &steps[first..first + len];
        plain_products(team, scratch, len, &|i: usize| {
            let (p, _, b, scale) = of(&steps[i]);
            let x = &narrow[steps[i].first..][..b.row_len * p.n];
            let (scale, additions) = (p.scale * scale, Additions::default());
            Product { matrix: b, bias: None, x, scale, residual: None, accumulate: true, additions, ..p }
        })?;
        first += len;
    }
    scratch.low_rank = own;
    Ok(())
}
