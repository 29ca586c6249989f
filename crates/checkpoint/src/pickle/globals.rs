//! The closed list of names that a pickle may use. Everything else is refused.
//!
//! None of these is ever called: each says which node to make.

use tensor::DType;

/// An element type of PyTorch.
#[derive(Debug, PartialEq)]
pub(crate) struct Element {
    /// PyTorch's name of it: `float32`.
    pub(crate) name: &'static str,
    /// The class of storages of it, where there is one.
    storage: Option<&'static str>,
    /// Bytes of an element.
    pub(crate) bytes: u64,
    /// Ours, if there is one.
    pub(crate) dtype: Option<DType>,
}

const fn element(name: &'static str, storage: Option<&'static str>, bytes: u64, dtype: Option<DType>) -> Element {
    Element { name, storage, bytes, dtype }
}

/// The element types, after `torch/csrc/utils/tensor_dtypes.cpp` and `torch/storage.py`.
static ELEMENTS: &[Element] = &[
    element("float32", Some("FloatStorage"), 4, Some(DType::F32)),
    element("float16", Some("HalfStorage"), 2, Some(DType::F16)),
    element("bfloat16", Some("BFloat16Storage"), 2, Some(DType::BF16)),
    element("float64", Some("DoubleStorage"), 8, Some(DType::F64)),
    element("int8", Some("CharStorage"), 1, Some(DType::I8)),
    element("int16", Some("ShortStorage"), 2, Some(DType::I16)),
    element("int32", Some("IntStorage"), 4, Some(DType::I32)),
    element("int64", Some("LongStorage"), 8, Some(DType::I64)),
    element("uint8", Some("ByteStorage"), 1, Some(DType::U8)),
    element("bool", Some("BoolStorage"), 1, Some(DType::BOOL)),
    element("uint16", None, 2, Some(DType::U16)),
    element("uint32", None, 4, Some(DType::U32)),
    element("uint64", None, 8, Some(DType::U64)),
    element("float8_e4m3fn", None, 1, Some(DType::F8_E4M3)),
    element("float8_e5m2", None, 1, Some(DType::F8_E5M2)),
    element("float8_e4m3fnuz", None, 1, None),
    element("float8_e5m2fnuz", None, 1, None),
    element("float8_e8m0fnu", None, 1, Some(DType::F8_E8M0)),
    element("complex32", Some("ComplexHalfStorage"), 4, None),
    element("complex64", Some("ComplexFloatStorage"), 8, None),
    element("complex128", Some("ComplexDoubleStorage"), 16, None),
    element("quint8", Some("QUInt8Storage"), 1, None),
    element("qint8", Some("QInt8Storage"), 1, None),
    element("qint32", Some("QInt32Storage"), 4, None),
    element("quint4x2", Some("QUInt4x2Storage"), 1, None),
    element("quint2x4", Some("QUInt2x4Storage"), 1, None),
];

/// Bytes without a type, as `UntypedStorage` holds them.
pub(super) static UNTYPED: Element = element("untyped", Some("UntypedStorage"), 1, None);

/// What a name of the closed list stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Global {
    /// A class of storages.
    Storage(&'static Element),
    /// An element type by itself.
    Element(&'static Element),
    /// `OrderedDict`, `dict`, `defaultdict`.
    Dict(DictArgs),
    /// `torch.Size`, `tuple`.
    Tuple,
    /// `list`.
    List,
    /// Data that is made and left alone: sets, devices, scalars of other libraries.
    Opaque,
    /// A class that is only named as a tensor's kind, never made.
    TensorClass,
    Rebuild(Rebuild),
}

/// What the first argument of a dictionary's constructor is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum DictArgs {
    /// A list of pairs, if there is one.
    Pairs,
    /// A factory of values, which is never called.
    Factory,
}

/// A function of PyTorch that puts a tensor together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rebuild {
    /// (storage, offset, size, stride)
    Tensor,
    /// (storage, offset, size, stride, requires_grad, backward_hooks[, metadata])
    TensorV2,
    /// (storage, offset, size, stride, requires_grad, backward_hooks, dtype[, metadata])
    TensorV3,
    /// (data, requires_grad, backward_hooks)
    Parameter,
    /// (data, requires_grad, backward_hooks, state)
    ParameterWithState,
    /// (function, class, arguments, state)
    FromType,
}

static GLOBALS: &[(&str, &str, Global)] = &[
    ("torch._utils", "_rebuild_tensor", Global::Rebuild(Rebuild::Tensor)),
    ("torch._utils", "_rebuild_tensor_v2", Global::Rebuild(Rebuild::TensorV2)),
    ("torch._utils", "_rebuild_tensor_v3", Global::Rebuild(Rebuild::TensorV3)),
    ("torch._utils", "_rebuild_parameter", Global::Rebuild(Rebuild::Parameter)),
    ("torch._utils", "_rebuild_parameter_with_state", Global::Rebuild(Rebuild::ParameterWithState)),
    ("torch._tensor", "_rebuild_from_type_v2", Global::Rebuild(Rebuild::FromType)),
    ("torch", "Tensor", Global::TensorClass),
    ("torch.nn.parameter", "Parameter", Global::TensorClass),
    ("torch.nn.parameter", "Buffer", Global::TensorClass),
    ("torch", "Size", Global::Tuple),
    ("torch", "device", Global::Opaque),
    ("torch.storage", "UntypedStorage", Global::Storage(&UNTYPED)),
    ("torch", "UntypedStorage", Global::Storage(&UNTYPED)),
    ("collections", "OrderedDict", Global::Dict(DictArgs::Pairs)),
    ("collections", "defaultdict", Global::Dict(DictArgs::Factory)),
    ("builtins", "dict", Global::Dict(DictArgs::Pairs)),
    ("builtins", "list", Global::List),
    ("builtins", "tuple", Global::Tuple),
    ("builtins", "set", Global::Opaque),
    ("builtins", "frozenset", Global::Opaque),
    ("builtins", "complex", Global::Opaque),
    ("builtins", "bytearray", Global::Opaque),
    ("builtins", "int", Global::Opaque),
    ("builtins", "float", Global::Opaque),
    ("_codecs", "encode", Global::Opaque),
    ("numpy", "dtype", Global::Opaque),
    ("numpy.core.multiarray", "scalar", Global::Opaque),
    ("numpy._core.multiarray", "scalar", Global::Opaque),
];

/// What `module.name` stands for; `None` when it is not on the list.
pub(super) fn find(module: &str, name: &str) -> Option<Global> {
    // Python 2 called the module of built-in names differently.
    let module = if module == "__builtin__" { "builtins" } else { module };
    let listed = GLOBALS.iter().find(|(m, n, _)| *m == module && *n == name).map(|(_, _, global)| *global);
    listed.or_else(|| match module {
        "torch" => ELEMENTS.iter().find_map(|element| {
            let storage = (element.storage == Some(name)).then_some(Global::Storage(element));
            storage.or_else(|| (element.name == name).then_some(Global::Element(element)))
        }),
        _ => None,
    })
}
