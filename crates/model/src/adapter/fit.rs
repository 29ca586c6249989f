//! Brings the matrices of an adapter to a model: finds the tensors they are for, puts rows in the order that the model's own
//! file has them in, cuts where the model has several matrices of what was one, and stacks what experts have apart.

use super::source::{Pair, Source, shown};
use super::{Addition, EmbeddingAddition};
use crate::convention::Convention;
use crate::load::{Placed, chosen_rows, in_tensor, transposed};
use crate::{Error, HyperParams, Result, hugging_face, row_order};
use checkpoint::Checkpoint;
use compute::{Device, LowRank, Projection, Weight, WeightUse};
use std::collections::HashMap;
use tensor::{HostTensor, Shape, SharedBytes};

/// The house's name of the embedding.
const EMBEDDING: &str = "token_embd.weight";

/// What it takes.
pub(super) struct Fit<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) hyper: &'a HyperParams,
    pub(super) device: &'a dyn Device,
    pub(super) placed: &'a [Placed],
    /// The convention of the model's file.
    pub(super) own: Convention,
}

/// A matrix of the model that a pair is for.
#[derive(Clone, Copy)]
struct Target {
    place: usize,
    part: Part,
}

/// What of the matrix it is for, and of the pair.
#[derive(Clone, Copy)]
enum Part {
    /// All of both.
    Whole,
    /// This matrix of a stack.
    Expert(usize),
    /// All of a stack that makes keys of latents, or their values, one matrix for each head: the pair is for both in one.
    Latent { is_keys: bool },
}

/// Where the matrices of latents are in one, and where they are apart.
const LATENT_IN_ONE: &str = ".attn_kv_b.";
const LATENT_APART: &[(&str, Part)] =
    &[(".attn_k_b.", Part::Latent { is_keys: true }), (".attn_v_b.", Part::Latent { is_keys: false })];

/// The pairs for single matrices of a stack, by the matrix.
type Experts<'p> = HashMap<usize, Vec<(usize, &'p Pair)>>;

impl Fit<'_> {
    /// All additions of a file, on the device.
    pub(super) fn all(&self, source: &Source) -> Result<(Vec<Addition>, Vec<EmbeddingAddition>)> {
        let targets = self.targets(source.convention);
        let embeddings = self.spellings(source.convention, EMBEDDING, EMBEDDING, EMBEDDING);
        let (mut additions, mut embedding, mut experts) = (Vec::new(), Vec::new(), Experts::new());
        for pair in &source.pairs {
            if pair.is_table {
                if !embeddings.contains(&pair.target) {
                    return Err(self.no_target(pair));
                }
                embedding.push(self.embedding(pair)?);
                continue;
            }
            let Some(found) = targets.get(&pair.target) else { return Err(self.no_target(pair)) };
            // Several matrices of the model that are one in the adapter's eyes share `a`.
            let mut narrow = None;
            for target in found {
                match target.part {
                    Part::Expert(expert) => experts.entry(target.place).or_default().push((expert, pair)),
                    Part::Whole => additions.push(self.whole(source.convention, target.place, pair, &mut narrow)?),
                    Part::Latent { is_keys } => additions.push(self.latent(target.place, pair, is_keys)?),
                }
            }
        }
        let mut stacks: Vec<_> = experts.into_iter().collect();
        stacks.sort_unstable_by_key(|(place, _)| *place);
        for (place, pairs) in stacks {
            additions.push(self.stack(place, &pairs)?);
        }
        Ok((additions, embedding))
    }

    fn no_target(&self, pair: &Pair) -> Error {
        Error::AdapterTarget { target: shown(&pair.target), model: self.hyper.architecture.name }
    }

    /// What files of a convention may call a tensor of the house, of the house's files, and of the model's file.
    fn spellings(&self, convention: Convention, name: &str, house: &str, own: &str) -> Vec<String> {
        match convention {
            Convention::House => vec![house.to_owned()],
            Convention::Meta => vec![own.to_owned()],
            Convention::HuggingFace => {
                let mut all = hugging_face::everywhere(self.hyper.architecture, name);
                if self.own == convention && !all.iter().any(|known| known == own) {
                    all.push(own.to_owned());
                }
                all
            }
        }
    }

    /// The matrices of the model by the names that an adapter has for them.
    fn targets(&self, convention: Convention) -> HashMap<String, Vec<Target>> {
        let mut targets: HashMap<String, Vec<Target>> = HashMap::new();
        for (place, placed) in self.placed.iter().enumerate() {
            let n = placed.weight.shape().dims().first().copied().unwrap_or(0);
            for spelling in self.spellings(convention, &placed.name, &placed.house, &placed.own) {
                if hugging_face::piece(&spelling, 0) == spelling {
                    targets.entry(spelling).or_default().push(Target { place, part: Part::Whole });
                    continue;
                }
                for expert in 0..n {
                    let name = hugging_face::piece(&spelling, expert);
                    targets.entry(name).or_default().push(Target { place, part: Part::Expert(expert) });
                }
            }
            for (apart, part) in LATENT_APART.iter().filter(|(apart, _)| placed.name.contains(apart)) {
                let name = placed.name.replace(apart, LATENT_IN_ONE);
                for spelling in self.spellings(convention, &name, &name, &name) {
                    targets.entry(spelling).or_default().push(Target { place, part: *part });
                }
            }
        }
        targets
    }

    /// The addition of a pair to a whole matrix or stack.
    fn whole(
        &self,
        convention: Convention,
        place: usize,
        pair: &Pair,
        narrow: &mut Option<Weight>,
    ) -> Result<Addition> {
        let placed = self.placed.get(place).ok_or_else(|| self.no_target(pair))?;
        let (a, b) = self.load(pair)?;
        let (usage, a, b) = match *placed.weight.shape().dims() {
            [n_out, n_in] => {
                let (n_rows, rank) = (placed.n_rows, b.shape().row_len());
                check_shape(&b, &pair.b, &[n_rows, rank])?;
                check_shape(&a, &pair.a, &[rank, n_in])?;
                let b = match self.order(convention, placed, n_rows)? {
                    Some(rows) => chosen_rows(&b, &pair.b, &rows, &[n_out, rank]).map_err(|e| in_tensor(&pair.b, e))?,
                    None => b,
                };
                (WeightUse::Matrix, a, b)
            }
            [n, n_out, n_in] => {
                let rank = b.shape().row_len();
                check_shape(&b, &pair.b, &[n, n_out, rank])?;
                check_shape(&a, &pair.a, &[n, rank, n_in])?;
                (WeightUse::Experts, a, b)
            }
            _ => return Err(self.no_target(pair)),
        };
        let a = match narrow {
            Some(a) => a.clone(),
            None => narrow.insert(self.device.upload(&a, usage)?).clone(),
        };
        Ok(Addition { place, low_rank: LowRank { a, b: self.device.upload(&b, usage)?, scale: pair.scale } })
    }

    /// For each row of the matrix on the device the row of the adapter's. `None`: the same.
    fn order(&self, convention: Convention, placed: &Placed, n_rows: usize) -> Result<Option<Vec<usize>>> {
        let (hyper, architecture) = (self.hyper, self.hyper.architecture);
        let (theirs, ours) = (convention == Convention::HuggingFace, self.own == Convention::HuggingFace);
        let rows: Option<Vec<usize>> = match placed.rows.as_slice() {
            [] => None,
            ranges => Some(ranges.iter().cloned().flatten().collect()),
        };
        if theirs == ours {
            return Ok(rows);
        }
        if row_order::turns_columns(architecture, hyper, &placed.name) {
            let what = format!("an adapter in another order of rows than the model's file for {}", placed.own);
            return Err(Error::Unsupported { what });
        }
        let Some(map) = row_order::theirs(architecture, hyper, &placed.name, n_rows) else { return Ok(rows) };
        let mut to = map.clone();
        if ours {
            for (house, row) in map.into_iter().enumerate() {
                to.get_mut(row).into_iter().for_each(|to| *to = house);
            }
        }
        let rows = rows.unwrap_or_else(|| (0..n_rows).collect());
        Ok(Some(rows.into_iter().map(|row| to.get(row).copied().unwrap_or(row)).collect()))
    }

    /// The addition to keys or values of latents of a pair for both, whose rows are those of keys and of values of each head
    /// in turn. Each head has a matrix of its own; that of keys lies transposed, as queries need it.
    fn latent(&self, place: usize, pair: &Pair, is_keys: bool) -> Result<Addition> {
        let (Some(placed), Some(latent)) = (self.placed.get(place), &self.hyper.latent) else {
            return Err(self.no_target(pair));
        };
        let (nope_dim, v_dim, n_latent) = (latent.nope_dim, latent.v_dim, latent.rank);
        let overflow = || Error::Overflow { what: placed.own.clone() };
        let n_heads = placed.weight.shape().dims().first().copied().unwrap_or(0);
        let (a, b) = self.load(pair)?;
        let (step, rank) = (nope_dim + v_dim, b.shape().row_len());
        check_shape(&b, &pair.b, &[n_heads.checked_mul(step).ok_or_else(overflow)?, rank])?;
        check_shape(&a, &pair.a, &[rank, n_latent])?;
        let (first, n) = if is_keys { (0, nope_dim) } else { (nope_dim, v_dim) };
        let rows = |head: usize| head * step + first..head * step + first + n;
        let rows: Vec<usize> = (0..n_heads).flat_map(rows).collect();
        let of_heads = chosen_rows(&b, &pair.b, &rows, &[n_heads, n, rank]).map_err(|e| in_tensor(&pair.b, e))?;
        let (a, b) = match is_keys {
            false => (a, of_heads),
            true => (
                transposed(&a, rank, n_latent).map_err(|e| in_tensor(&pair.a, e))?,
                transposed(&of_heads, n, rank).map_err(|e| in_tensor(&pair.b, e))?,
            ),
        };
        // What all heads have in common, once for each.
        let common = &a;
        let dims: Vec<usize> = [n_heads].into_iter().chain(common.shape().dims().iter().copied()).collect();
        let shape = Shape::new(&dims).ok_or_else(overflow)?;
        let bytes = SharedBytes::from_vec(common.bytes().repeat(n_heads));
        let stacked = HostTensor::new(&pair.a, common.dtype(), shape, bytes).map_err(|e| in_tensor(&pair.a, e))?;
        let (a, b) = if is_keys { (b, stacked) } else { (stacked, b) };
        let upload = |tensor: &HostTensor| self.device.upload(tensor, WeightUse::Experts);
        Ok(Addition { place, low_rank: LowRank { a: upload(&a)?, b: upload(&b)?, scale: pair.scale } })
    }

    /// The addition of the pairs of single experts to their stack; an expert without a pair gets zeros.
    fn stack(&self, place: usize, pairs: &[(usize, &Pair)]) -> Result<Addition> {
        let (&(_, first), Some(placed)) = (pairs.first().ok_or(Error::EmptyAdapter)?, self.placed.get(place)) else {
            return Err(Error::EmptyAdapter);
        };
        let &[n, n_out, n_in] = placed.weight.shape().dims() else { return Err(self.no_target(first)) };
        let rank = self.load(first)?.1.shape().row_len();
        let overflow = || Error::Overflow { what: placed.own.clone() };
        let a_len = rank.checked_mul(n_in).ok_or_else(overflow)?;
        let b_len = rank.checked_mul(n_out).ok_or_else(overflow)?;
        let zeros = |len: usize| -> Result<Vec<f32>> {
            let mut all = Vec::new();
            all.try_reserve_exact(len.checked_mul(n).ok_or_else(overflow)?).map_err(|_| overflow())?;
            all.resize(len * n, 0.0);
            Ok(all)
        };
        let (mut a_all, mut b_all) = (zeros(a_len)?, zeros(b_len)?);
        for &(expert, pair) in pairs {
            let (a, b) = self.load(pair)?;
            check_shape(&b, &pair.b, &[n_out, rank])?;
            check_shape(&a, &pair.a, &[rank, n_in])?;
            let (a, b) =
                (a.to_f32().map_err(|e| in_tensor(&pair.a, e))?, b.to_f32().map_err(|e| in_tensor(&pair.b, e))?);
            if let Some(to) = a_all.get_mut(expert * a_len..(expert + 1) * a_len) {
                to.copy_from_slice(&a);
            }
            if let Some(to) = b_all.get_mut(expert * b_len..(expert + 1) * b_len) {
                // Each has its own scale, the stack has one.
                to.iter_mut().zip(&b).for_each(|(to, b)| *to = b * pair.scale);
            }
        }
        let upload = |name: &str, dims: &[usize], values: &[f32]| -> Result<_> {
            let shape = Shape::new(dims).ok_or_else(overflow)?;
            let tensor = HostTensor::from_f32(name, shape, values).map_err(|e| in_tensor(name, e))?;
            Ok(self.device.upload(&tensor, WeightUse::Experts)?)
        };
        let a = upload(&first.a, &[n, rank, n_in], &a_all)?;
        let b = upload(&first.b, &[n, n_out, rank], &b_all)?;
        Ok(Addition { place, low_rank: LowRank { a, b, scale: 1.0 } })
    }

    /// An addition to the embedding: a table of narrow rows, and what makes them as wide as the model.
    fn embedding(&self, pair: &Pair) -> Result<EmbeddingAddition> {
        let (a, b) = self.load(pair)?;
        let (n_vocab, width, rank) = (self.hyper.n_vocab, self.hyper.width, b.shape().row_len());
        check_shape(&b, &pair.b, &[width, rank])?;
        check_shape(&a, &pair.a, &[n_vocab, rank])?;
        let table = self.device.upload(&a, WeightUse::Table)?;
        let up = Projection { weight: self.device.upload(&b, WeightUse::Matrix)?, bias: None };
        Ok(EmbeddingAddition { table, up, scale: pair.scale })
    }

    /// `a` and `b` of a pair, rows belonging to outputs.
    fn load(&self, pair: &Pair) -> Result<(HostTensor, HostTensor)> {
        let load = |name: &str, is_turned: bool| {
            let tensor = self.checkpoint.load(name)?;
            if tensor.shape().elements() == 0 {
                let (found, expected) = (tensor.shape().to_string(), "at least one element".to_owned());
                return Err(Error::TensorShape { name: shown(name), found, expected });
            }
            match *tensor.shape().dims() {
                [n_in, n_out] if is_turned => transposed(&tensor, n_in, n_out).map_err(|e| in_tensor(name, e)),
                _ => Ok(tensor),
            }
        };
        let [a_turned, b_turned] = pair.turned;
        Ok((load(&pair.a, a_turned)?, load(&pair.b, b_turned)?))
    }
}

fn check_shape(tensor: &HostTensor, name: &str, expected: &[usize]) -> Result<()> {
    if tensor.shape().dims() == expected {
        return Ok(());
    }
    let (found, expected) = (tensor.shape().to_string(), format!("{expected:?}, as the model has it"));
    Err(Error::TensorShape { name: shown(name), found, expected })
}
