//! Which activations of dense blocks count (Gemma 3n).
//!
//! What belongs here: the keys, and the quantiles of the normal distribution by which one form of them is brought to the other.

use crate::Result;
use crate::convention::Convention;
use crate::keys::Keys;

/// How far above their mean activations of each layer count, in standard deviations. GGUF files have that, others the part
/// that vanishes of activations that are normally distributed.
pub(super) fn sparsity(keys: &Keys<'_>, n_layers: usize) -> Result<Vec<Option<f32>>> {
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
