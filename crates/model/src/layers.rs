//! What layers have of their own: widths and numbers of heads, whose keys and values they read, how sparse their activations
//! are, their embeddings of a token; and the residual streams that they share.
//!
//! What belongs here: those numbers, read and validated for `hyper.rs`. What does not: which layers are windowed, and what all
//! layers have alike (`hyper.rs`).

use crate::convention::{Convention, Names};
use crate::hyper::{MAX_HEADS, MAX_WIDTH, StreamParams};
use crate::keys::Keys;
use crate::{Error, Result};

/// The window of a layer, and whether it is local.
type Window = (Option<usize>, bool);

/// Residual streams at most.
const MAX_STREAMS: usize = 64;
/// What their factors are cut to in the published models.
pub(crate) const USUAL_LIMIT: f32 = 120.0;

/// Width of the embedding that each layer has of a token.
pub(crate) fn layer_input_dim(keys: &Keys<'_>, n_layers: usize) -> Result<Option<usize>> {
    let key = "embedding_length_per_layer_input";
    let Some(dim) = keys.count_or_zero(key, MAX_WIDTH)?.filter(|&dim| dim > 0) else { return Ok(None) };
    match dim.checked_mul(n_layers) {
        Some(all) if all <= MAX_WIDTH => Ok(Some(dim)),
        _ => Err(keys.bad(key, dim, &format!("that much for {n_layers} layers is too wide"))),
    }
}

/// The residual streams of a model that has several.
pub(crate) fn streams(keys: &Keys<'_>, names: &Names<'_>, n_layers: usize) -> Result<Option<StreamParams>> {
    let Some(n) = keys.count_or_zero("altup.num_inputs", MAX_STREAMS)?.filter(|&n| n > 1) else { return Ok(None) };
    let active = keys.count_or_zero("altup.active_idx", MAX_STREAMS)?.unwrap_or(0);
    if active != 0 {
        let what =
            format!("residual streams of which layers compute number {active} ({})", keys.full("altup.active_idx"));
        return Err(Error::Unsupported { what });
    }
    let left = (0..n_layers).find_map(|i| names.find(&format!("blk.{i}.laurel_l.weight")));
    let rank = left.map_or(0, |info| info.shape.rows()).min(MAX_WIDTH);
    let limit = keys.factor("altup.limit")?.unwrap_or(USUAL_LIMIT);
    Ok(Some(StreamParams { n, rank, limit }))
}

/// Widths of the query and key heads and of the value heads of each layer. Windowed layers may have their own.
pub(crate) fn head_dims(keys: &Keys<'_>, windows: &[Window], usual: usize) -> Result<Vec<(usize, usize)>> {
    let count = |key: &str| keys.count(key, MAX_WIDTH);
    let global = count("attention.key_length_global")?;
    let (k_usual, v_usual) = (count("attention.key_length")?, count("attention.value_length")?);
    let wide = (global.or(k_usual).unwrap_or(usual), global.or(v_usual).unwrap_or(usual));
    let (k_narrow, v_narrow) = (count("attention.key_length_swa")?, count("attention.value_length_swa")?);
    let narrow = (k_narrow.or(k_usual).unwrap_or(usual), v_narrow.or(v_usual).unwrap_or(usual));
    let of = |(i, (window, _)): (usize, &Window)| {
        let (k_dim, v_dim) = if window.is_some() { narrow } else { wide };
        let k_own = keys.own_count("attention.key_length", i, MAX_WIDTH)?;
        let v_own = keys.own_count("attention.value_length", i, MAX_WIDTH)?;
        Ok((k_own.unwrap_or(k_dim), v_own.unwrap_or(v_dim)))
    };
    windows.iter().enumerate().map(of).collect()
}

/// Key and value heads of each layer, some of which have their own number.
pub(crate) fn own_kv_heads(keys: &Keys<'_>, usual: Vec<usize>, windows: &[Window]) -> Result<Vec<usize>> {
    let key = "attention.head_count_kv";
    let are_keys = keys.flag("attention.values_are_keys")? == Some(true);
    let global = keys.count("attention.head_count_kv_global", MAX_HEADS)?.filter(|_| are_keys);
    let of = |(i, (usual, (window, _))): (usize, (usize, &Window))| {
        let own = keys.own_count(key, i, MAX_HEADS)?;
        Ok(own.or(global.filter(|_| window.is_none())).unwrap_or(usual))
    };
    usual.into_iter().zip(windows).enumerate().map(of).collect()
}

/// The layer whose keys and values each layer reads: the last layers read those of the last of their kind before them.
pub(crate) fn shares(keys: &Keys<'_>, windows: &[Window]) -> Result<Vec<Option<usize>>> {
    let (key, n_layers) = ("attention.shared_kv_layers", windows.len());
    let n_shared = keys.count_or_zero(key, usize::MAX)?.unwrap_or(0);
    let why = || format!("it must be below {n_layers}, with a layer of each kind before the rest");
    let first =
        n_layers.checked_sub(n_shared).filter(|&first| first > 0).ok_or_else(|| keys.bad(key, n_shared, &why()))?;
    let (own, others) = windows.split_at(first.min(n_layers));
    let source = |(window, _): &Window| {
        let last = own.iter().rposition(|(own, _)| own.is_some() == window.is_some());
        last.map(Some).ok_or_else(|| keys.bad(key, n_shared, &why()))
    };
    own.iter().map(|_| Ok(None)).chain(others.iter().map(source)).collect()
}

/// How far above their mean activations of each layer count, in standard deviations. GGUF files have that, others the part
/// that vanishes of activations that are normally distributed.
pub(crate) fn sparsity(keys: &Keys<'_>, n_layers: usize) -> Result<Vec<Option<f32>>> {
    let by_part = |part: f64| (part > 0.0).then(|| normal_quantile(part) as f32);
    if keys.convention == Convention::House
        && let Some(deviations) = keys.numbers("activation_sparsity_scale", n_layers)?
    {
        return Ok(deviations.into_iter().map(|d| Some(d).filter(|d| d.is_finite())).collect());
    }
    let key = "activation_sparsity";
    if let Some(parts) = keys.floats(key, n_layers)? {
        let bad = parts.iter().find(|part| !(0.0..1.0).contains(*part));
        return match bad {
            Some(part) => Err(keys.bad(key, part, "each must be at least 0 and below 1")),
            None => Ok(parts.into_iter().map(|part| by_part(f64::from(part))).collect()),
        };
    }
    let default = keys.architecture().default_sparsity.filter(|&(n, _)| n_layers > n);
    let (n, part) = default.unwrap_or((0, 0.0));
    Ok((0..n_layers).map(|i| if i < n { by_part(part) } else { None }).collect())
}

/// What a normally distributed number is below with the probability `p`, to nine digits (Acklam 2003).
fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -39.696_830_286_653_76,
        220.946_098_424_520_5,
        -275.928_510_446_968_7,
        138.357_751_867_269,
        -30.664_798_066_147_16,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -54.476_098_798_224_06,
        161.585_836_858_040_9,
        -155.698_979_859_886_6,
        66.801_311_887_719_72,
        -13.280_681_552_885_72,
        1.0,
    ];
    const C: [f64; 6] = [
        -0.007_784_894_002_430_293,
        -0.322_396_458_041_136_5,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] =
        [0.007_784_695_709_041_462, 0.322_467_129_070_039_8, 2.445_134_137_142_996, 3.754_408_661_907_416, 1.0];
    let horner = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    let tail = |p: f64| {
        let q = (-2.0 * p.ln()).sqrt();
        horner(&C, q) / horner(&D, q)
    };
    let q = p - 0.5;
    match p {
        p if p < 0.024_25 => tail(p),
        p if p > 1.0 - 0.024_25 => -tail(1.0 - p),
        _ => q * horner(&A, q * q) / horner(&B, q * q),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_the_normal_distribution() {
        #[track_caller]
        fn check(p: f64, expected: f64) {
            assert!((normal_quantile(p) - expected).abs() < 1e-8, "{p}: {}", normal_quantile(p));
            assert!((normal_quantile(1.0 - p) + expected).abs() < 1e-8);
        }
        check(0.5, 0.0);
        check(0.95, 1.644_853_626_951_472_2);
        check(0.6, 0.253_347_103_135_799_7);
        check(0.999, 3.090_232_306_167_813);
    }
}
