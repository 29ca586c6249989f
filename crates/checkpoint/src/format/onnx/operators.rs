//! The operators that graphs of language models are made of: a closed list, and what each means for finding weights.
//!
//! Nothing is computed by them here. An operator that is not in the list makes a graph unknown. Names and inputs are those
//! of ONNX's operator specification and, under `com.microsoft`, of ONNX Runtime's contributed operators.

/// What an operator means for finding weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Its results depend on all inputs, and that is all that matters.
    Mixes,
    /// Its results say something of shapes, not of values.
    Measures,
    /// Its result is its first input in another type or shape.
    Passes,
    /// A function of each element: what makes a gate.
    Activates,
    Constant,
    Transpose,
    Reshape,
    Add,
    Mul,
    Div,
    Lookup,
    Product,
    GeneralProduct,
    IntegerProduct,
    ScaledIntegerProduct,
    DynamicProduct,
    GroupedProduct,
    GroupedLookup,
    /// Quantizes what is computed; the second result is the scale.
    Quantizes,
    Dequantizes,
    /// Norm: input, scale, shift.
    Norm,
    /// Norm of a sum: both terms, scale, then shift or bias.
    SumNorm {
        shift: Option<usize>,
        bias: usize,
    },
    /// Attention as one operator, with its numbers as attributes.
    Attends,
    /// Rotary position embedding as one operator.
    Rotates,
}

/// An operator.
pub(super) struct Operator {
    domain: &'static str,
    name: &'static str,
    /// Inputs at least.
    pub(super) n_inputs: usize,
    pub(super) rule: Rule,
}

const STANDARD: &str = "";
const RUNTIME: &str = "com.microsoft";

const fn op(name: &'static str, n_inputs: usize, rule: Rule) -> Operator {
    Operator { domain: STANDARD, name, n_inputs, rule }
}

const fn contributed(name: &'static str, n_inputs: usize, rule: Rule) -> Operator {
    Operator { domain: RUNTIME, name, n_inputs, rule }
}

use Rule::{
    Activates, Add, Attends, Dequantizes, Div, DynamicProduct, GeneralProduct, GroupedLookup, GroupedProduct,
    IntegerProduct, Lookup, Measures, Mixes, Mul, Norm, Passes, Product, Quantizes, Rotates, ScaledIntegerProduct,
    SumNorm,
};

static OPERATORS: &[Operator] = &[
    op("Abs", 1, Mixes),
    op("Add", 2, Add),
    op("And", 2, Mixes),
    op("ArgMax", 1, Mixes),
    op("Attention", 3, Attends),
    op("Cast", 1, Passes),
    op("CastLike", 2, Passes),
    op("Ceil", 1, Mixes),
    op("Clip", 1, Mixes),
    op("Concat", 1, Mixes),
    op("Constant", 0, Rule::Constant),
    op("ConstantOfShape", 1, Measures),
    op("Cos", 1, Mixes),
    op("CumSum", 2, Mixes),
    op("DequantizeLinear", 2, Dequantizes),
    op("Div", 2, Div),
    op("DynamicQuantizeLinear", 1, Quantizes),
    op("Equal", 2, Mixes),
    op("Erf", 1, Activates),
    op("Exp", 1, Mixes),
    op("Expand", 2, Mixes),
    op("Flatten", 1, Passes),
    op("Floor", 1, Mixes),
    op("Gather", 2, Lookup),
    op("GatherElements", 2, Mixes),
    op("GatherND", 2, Mixes),
    op("Gelu", 1, Activates),
    op("Gemm", 2, GeneralProduct),
    op("Greater", 2, Mixes),
    op("GreaterOrEqual", 2, Mixes),
    op("HardSwish", 1, Activates),
    op("Identity", 1, Passes),
    op("IsInf", 1, Mixes),
    op("IsNaN", 1, Mixes),
    op("LayerNormalization", 2, Norm),
    op("Less", 2, Mixes),
    op("LessOrEqual", 2, Mixes),
    op("Log", 1, Mixes),
    op("MatMul", 2, Product),
    op("MatMulInteger", 2, IntegerProduct),
    op("Max", 1, Mixes),
    op("Min", 1, Mixes),
    op("Mod", 2, Mixes),
    op("Mul", 2, Mul),
    op("Neg", 1, Mixes),
    op("Not", 1, Mixes),
    op("Or", 2, Mixes),
    op("Pow", 2, Mixes),
    op("QuantizeLinear", 2, Quantizes),
    op("RMSNormalization", 2, Norm),
    op("Range", 3, Mixes),
    op("Reciprocal", 1, Mixes),
    op("ReduceMax", 1, Mixes),
    op("ReduceMean", 1, Mixes),
    op("ReduceMin", 1, Mixes),
    op("ReduceSum", 1, Mixes),
    op("Relu", 1, Activates),
    op("Reshape", 2, Rule::Reshape),
    op("RotaryEmbedding", 3, Rotates),
    op("ScatterElements", 3, Mixes),
    op("ScatterND", 3, Mixes),
    op("Shape", 1, Measures),
    op("Sigmoid", 1, Activates),
    op("SimplifiedLayerNormalization", 2, Norm),
    op("Sin", 1, Mixes),
    op("Size", 1, Measures),
    op("Slice", 3, Mixes),
    op("Softmax", 1, Mixes),
    op("Split", 1, Mixes),
    op("Sqrt", 1, Mixes),
    op("Squeeze", 1, Rule::Reshape),
    op("Sub", 2, Mixes),
    op("Sum", 1, Mixes),
    op("Swish", 1, Activates),
    op("Tanh", 1, Activates),
    op("Tile", 2, Mixes),
    op("Transpose", 1, Rule::Transpose),
    op("Trilu", 1, Mixes),
    op("Unsqueeze", 1, Rule::Reshape),
    op("Where", 3, Mixes),
    op("Xor", 2, Mixes),
    contributed("DynamicQuantizeMatMul", 3, DynamicProduct),
    contributed("FastGelu", 1, Activates),
    contributed("GatherBlockQuantized", 3, GroupedLookup),
    contributed("Gelu", 1, Activates),
    contributed("GroupQueryAttention", 7, Attends),
    contributed("MatMulIntegerToFloat", 4, ScaledIntegerProduct),
    contributed("MatMulNBits", 3, GroupedProduct),
    contributed("MultiHeadAttention", 1, Attends),
    contributed("QuickGelu", 1, Activates),
    contributed("RotaryEmbedding", 4, Rotates),
    contributed("SimplifiedLayerNormalization", 2, Norm),
    contributed("SkipLayerNormalization", 3, SumNorm { shift: Some(3), bias: 4 }),
    contributed("SkipSimplifiedLayerNormalization", 3, SumNorm { shift: None, bias: 3 }),
];

/// The operator of that set and name; the standard set has two spellings.
pub(super) fn find(domain: &str, name: &str) -> Option<&'static Operator> {
    let domain = if domain == "ai.onnx" { STANDARD } else { domain };
    OPERATORS.iter().find(|known| known.domain == domain && known.name == name)
}
