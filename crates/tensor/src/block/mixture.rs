//! Mixtures: the named choices of a type for each tensor of a model (`Q4_K_M` and its like), and what stands in where rows
//! are no whole number of blocks.
//!
//! The rules are facts of the format's reference quantizer (llama.cpp, `src/llama-quant.cpp`), so that a file of ours holds
//! the types that its name promises elsewhere. What belongs here: which type a tensor gets. What does not: what a file
//! calls a tensor (the caller says its [`Place`]), and reading or writing it.

use crate::{DType, Shape};

/// What a matrix is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Rows gathered by token.
    Embedding,
    /// Logits; an embedding that is the output matrix too counts as one.
    Output,
    /// Keys.
    Keys,
    /// Values.
    Values,
    /// Queries, keys and values in one.
    Attention,
    /// What follows the attention.
    AttentionOutput,
    /// The second matrix of a feed-forward block, or of its experts.
    Down,
    /// Any other matrix.
    Other,
}

/// A matrix among those of its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// What it is for.
    pub place: Place,
    /// The layer it is in, from 0; 0 for those in none.
    pub layer: usize,
    /// Layers of the model.
    pub n_layers: usize,
    /// Query heads for each key and value head.
    pub n_shared: usize,
    /// Experts; 0: none.
    pub n_experts: usize,
}

/// When a row of a mixture applies.
#[derive(Clone, Copy, Debug)]
enum When {
    Always,
    /// In the first and last eighth of the layers and in every third between.
    Often,
    /// In the first of this many equal parts of the layers.
    FirstPart(usize),
    /// In this many first layers.
    First(usize),
    /// Where at least four query heads share their keys and values.
    Shared,
    /// With eight experts.
    EightExperts,
}

impl When {
    fn holds(self, site: &Site) -> bool {
        let Site { layer, n_layers, .. } = *site;
        match self {
            When::Always => true,
            When::Often => {
                let eighth = n_layers / 8;
                layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2
            }
            When::FirstPart(parts) => layer < n_layers / parts,
            When::First(n) => layer < n,
            When::Shared => site.n_shared >= 4,
            When::EightExperts => site.n_experts == 8,
        }
    }
}

/// A named choice of types.
#[derive(Debug)]
pub struct Mixture {
    /// As people write it.
    pub name: &'static str,
    /// Its number in `general.file_type`.
    pub file_type: u32,
    /// The type of everything that no row names.
    pub base: DType,
    /// The type of the output matrix.
    output: DType,
    /// The first that applies counts.
    rows: &'static [(Place, When, DType)],
}

const fn plain(name: &'static str, file_type: u32, base: DType) -> Mixture {
    Mixture { name, file_type, base, output: base, rows: &[] }
}

const fn mixed(name: &'static str, file_type: u32, base: DType, rows: &'static [(Place, When, DType)]) -> Mixture {
    Mixture { name, file_type, base, output: DType::Q6_K, rows }
}

/// Every mixture, most exact first: what fits in less memory comes later.
pub static MIXTURES: &[Mixture] = {
    use DType::{BF16, F16, F32, IQ4_NL, IQ4_XS, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
    use Place::{Attention, AttentionOutput, Down, Keys, Values};
    use When::{Always, EightExperts, First, FirstPart, Often, Shared};
    // Both types of four bits on a curve.
    const NON_LINEAR: &[(Place, When, DType)] = &[
        (Keys, EightExperts, Q8_0),
        (Values, EightExperts, Q8_0),
        (AttentionOutput, EightExperts, Q5_K),
        (Values, Shared, Q5_K),
        (Down, FirstPart(8), Q5_K),
    ];
    &[
        plain("F32", 0, F32),
        plain("BF16", 32, BF16),
        plain("F16", 1, F16),
        plain("Q8_0", 7, Q8_0),
        plain("Q6_K", 18, Q6_K),
        mixed(
            "Q5_K_M",
            17,
            Q5_K,
            &[
                (Keys, EightExperts, Q8_0),
                (Values, EightExperts, Q8_0),
                (Values, Often, Q6_K),
                (Down, Often, Q6_K),
                (Attention, Always, Q6_K),
            ],
        ),
        mixed("Q5_K_S", 16, Q5_K, &[(Keys, EightExperts, Q8_0), (Values, EightExperts, Q8_0)]),
        mixed("Q5_1", 9, Q5_1, &[]),
        mixed("Q5_0", 8, Q5_0, &[]),
        mixed(
            "Q4_K_M",
            15,
            Q4_K,
            &[
                (Keys, EightExperts, Q8_0),
                (Values, EightExperts, Q8_0),
                (AttentionOutput, EightExperts, Q5_K),
                (Values, Often, Q6_K),
                (Down, Often, Q6_K),
                (Attention, Always, Q5_K),
            ],
        ),
        mixed(
            "Q4_K_S",
            14,
            Q4_K,
            &[
                (Keys, EightExperts, Q8_0),
                (Values, EightExperts, Q8_0),
                (AttentionOutput, EightExperts, Q5_K),
                (Values, First(4), Q5_K),
                (Down, FirstPart(8), Q5_K),
            ],
        ),
        mixed("Q4_1", 3, Q4_1, &[]),
        mixed("Q4_0", 2, Q4_0, &[]),
        mixed("IQ4_NL", 25, IQ4_NL, NON_LINEAR),
        mixed("IQ4_XS", 30, IQ4_XS, NON_LINEAR),
        mixed(
            "Q3_K_L",
            13,
            Q3_K,
            &[
                (Keys, EightExperts, Q8_0),
                (Values, EightExperts, Q8_0),
                (Values, Always, Q5_K),
                (Down, Always, Q5_K),
                (AttentionOutput, Always, Q5_K),
                (Attention, Always, Q4_K),
            ],
        ),
        mixed(
            "Q3_K_M",
            12,
            Q3_K,
            &[
                (Keys, EightExperts, Q8_0),
                (Values, EightExperts, Q8_0),
                (AttentionOutput, EightExperts, Q5_K),
                (Values, First(2), Q5_K),
                (Values, Always, Q4_K),
                (Down, FirstPart(16), Q5_K),
                (Down, Always, Q4_K),
                (AttentionOutput, Always, Q4_K),
                (Attention, Always, Q4_K),
            ],
        ),
        mixed(
            "Q3_K_S",
            11,
            Q3_K,
            &[(Keys, EightExperts, Q8_0), (Values, EightExperts, Q8_0), (AttentionOutput, EightExperts, Q5_K)],
        ),
        mixed(
            "Q2_K",
            10,
            Q2_K,
            &[
                (Keys, EightExperts, Q8_0),
                (Values, EightExperts, Q8_0),
                (AttentionOutput, EightExperts, Q5_K),
                (Values, Shared, Q4_K),
                (Values, Always, Q3_K),
                (Down, Always, Q3_K),
                (AttentionOutput, Always, Q3_K),
            ],
        ),
    ]
};

/// What stands in for a type whose blocks are longer than the rows allow.
const STANDINS: &[(DType, DType)] = &[
    (DType::Q2_K, DType::IQ4_NL),
    (DType::Q3_K, DType::IQ4_NL),
    (DType::IQ4_XS, DType::IQ4_NL),
    (DType::Q4_K, DType::Q5_0),
    (DType::Q5_K, DType::Q5_1),
    (DType::Q6_K, DType::Q8_0),
];

/// Mixtures that automatic quantization tries, best first.
const AUTOMATIC: &[&str] = &["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"];

impl Mixture {
    /// The mixture called `name`, in any letter case.
    pub fn find(name: &str) -> Option<&'static Mixture> {
        MIXTURES.iter().find(|m| m.name.eq_ignore_ascii_case(name))
    }

    /// Those worth trying where a model does not fit as it is, best first.
    pub fn automatic() -> impl Iterator<Item = &'static Mixture> {
        AUTOMATIC.iter().filter_map(|name| Mixture::find(name))
    }

    /// The type for a matrix of this shape.
    pub fn dtype(&self, site: &Site, shape: &Shape) -> DType {
        let wanted = match site.place {
            Place::Output if !shape.row_len().is_multiple_of(self.output.block_len()) && self.base.is_quantized() => {
                DType::Q8_0
            }
            Place::Output => self.output,
            place => {
                let row = self.rows.iter().find(|(at, when, _)| *at == place && when.holds(site));
                row.map_or(self.base, |&(.., dtype)| dtype)
            }
        };
        wanted.or_standin(shape.row_len())
    }
}

impl DType {
    /// This type, or what stands in for it where a row of `len` elements is no whole number of blocks.
    pub fn or_standin(self, len: usize) -> DType {
        let fits = |dtype: &DType| len.is_multiple_of(dtype.block_len());
        let standin = || STANDINS.iter().find(|(dtype, _)| *dtype == self).map(|&(_, standin)| standin);
        Some(self).filter(fits).or_else(|| standin().filter(fits)).unwrap_or(DType::F16)
    }

    /// The type that holds numbers of a type which files of the house's own format do not have.
    pub fn or_storable(self) -> DType {
        match self {
            // Three and two bits of mantissa are inside seven, and so are the exponents.
            DType::F8_E4M3 | DType::F8_E5M2 | DType::F8_E8M0 => DType::BF16,
            DType::F64 => DType::F32,
            dtype if dtype.gguf().is_some() => dtype,
            _ => DType::F16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(place: Place, layer: usize, n_layers: usize) -> Site {
        Site { place, layer, n_layers, n_shared: 2, n_experts: 0 }
    }

    #[test]
    fn places_get_their_types() {
        #[track_caller]
        fn check(name: &str, site: Site, row: usize, expected: DType) {
            let shape = Shape::new(&[8, row]).unwrap();
            assert_eq!(Mixture::find(name).unwrap().dtype(&site, &shape), expected, "{name} {site:?}");
        }
        check("q4_k_m", site(Place::Values, 0, 2), 256, DType::Q4_K);
        check("Q4_K_M", site(Place::Values, 1, 2), 256, DType::Q6_K);
        check("Q4_K_M", site(Place::Down, 3, 32), 512, DType::Q6_K);
        check("Q4_K_M", site(Place::Down, 4, 32), 512, DType::Q4_K);
        check("Q4_K_M", site(Place::Down, 6, 32), 512, DType::Q6_K);
        check("Q4_K_M", site(Place::Output, 0, 2), 256, DType::Q6_K);
        check("Q4_K_M", site(Place::Output, 0, 2), 96, DType::Q8_0);
        check("Q4_K_M", site(Place::Embedding, 0, 2), 256, DType::Q4_K);
        check("Q4_K_M", site(Place::Other, 0, 2), 96, DType::Q5_0);
        check("Q4_K_M", site(Place::Other, 0, 2), 172, DType::F16);
        check("Q4_K_M", Site { n_experts: 8, ..site(Place::Keys, 0, 2) }, 256, DType::Q8_0);
        check("Q3_K_M", site(Place::Values, 1, 2), 256, DType::Q5_K);
        check("Q3_K_M", site(Place::Values, 2, 4), 256, DType::Q4_K);
        check("Q2_K", site(Place::Values, 0, 2), 256, DType::Q3_K);
        check("Q2_K", Site { n_shared: 8, ..site(Place::Values, 0, 2) }, 256, DType::Q4_K);
        check("F16", site(Place::Output, 0, 2), 7, DType::F16);
        check("Q8_0", site(Place::Output, 0, 2), 64, DType::Q8_0);
    }

    #[test]
    fn the_table_is_sound() {
        for mixture in MIXTURES {
            assert!(std::ptr::eq(Mixture::find(mixture.name).unwrap(), mixture), "{}", mixture.name);
            for dtype in mixture.rows.iter().map(|row| row.2).chain([mixture.base, mixture.output]) {
                assert!(dtype.can_encode() && dtype.gguf().is_some(), "{} {dtype}", mixture.name);
            }
        }
        assert_eq!(Mixture::automatic().count(), AUTOMATIC.len());
        for dtype in DType::ALL {
            assert!(dtype.or_storable().gguf().is_some(), "{dtype}");
        }
    }
}
