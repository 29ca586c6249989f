//! Upper bounds on what a model file may claim, all in one place (reliability.md §5).
//!
//! They stop absurd files early with a clear message. They are no protection by themselves: every size is also proven
//! against the bytes that are really in the file.

/// Longest metadata string, in bytes (the longest real ones are chat templates).
pub(crate) const STRING_BYTES: u64 = 64 << 20;
/// Longest metadata key, in bytes, as the GGUF specification says.
pub(crate) const KEY_BYTES: u64 = 65_535;
/// Longest tensor name, in bytes (the specification says 64; room for other writers).
pub(crate) const TENSOR_NAME_BYTES: u64 = 1024;
/// Most metadata keys in a file.
pub(crate) const KEYS: u64 = 65_536;
/// Most tensors in a file, and in all parts of a split file together.
pub(crate) const TENSORS: u64 = 131_072;
/// Most dimensions of a tensor.
pub(crate) const DIMS: u32 = 4;
/// Deepest nesting of metadata arrays: an array of numbers has depth 1.
pub(crate) const ARRAY_DEPTH: u32 = 4;
/// Most arrays inside metadata arrays, in a whole file (none are known to exist).
pub(crate) const NESTED_ARRAYS: u64 = 4096;
/// Largest alignment of tensor data, in bytes (files use 32; 64 KiB pages exist).
pub(crate) const ALIGNMENT: u64 = 1 << 20;
/// Longest head (metadata and tensor directory) of a file, in bytes.
pub(crate) const HEAD_BYTES: u64 = 1 << 30;
/// Longest piece of untrusted text quoted in a message, in characters with escapes.
pub(crate) const QUOTED_CHARS: usize = 120;
/// Longest path quoted in a message, in characters with escapes.
pub(crate) const QUOTED_PATH_CHARS: usize = 300;
/// Directory entries looked at to say what kind of model a directory holds.
pub(crate) const DIRECTORY_ENTRIES: usize = 4096;
/// Longest header of a safetensors file, in bytes, as its specification says.
pub(crate) const SAFETENSORS_HEADER_BYTES: u64 = 100_000_000;
/// Longest `config.json` or other small JSON file beside the weights, in bytes.
pub(crate) const CONFIG_BYTES: u64 = 16 << 20;
/// Longest list of the shards of a model, in bytes.
pub(crate) const INDEX_BYTES: u64 = 64 << 20;
/// Longest tokenizer or template file beside the weights, in bytes.
pub(crate) const SIDECAR_BYTES: u64 = 512 << 20;
/// Most templates in a folder of them.
pub(crate) const TEMPLATES: usize = 256;
/// Most values in a JSON file, nested ones counted (the deepest nesting is the JSON reader's own 128).
pub(crate) const JSON_VALUES: usize = 1 << 20;
/// Most shards of a model.
pub(crate) const SHARDS: usize = 4096;
/// Longest key of such a file with those it is nested in, in bytes.
pub(crate) const JSON_KEY_BYTES: usize = 1024;
/// Longest pickle, in bytes: it holds names and shapes, never elements.
pub(crate) const PICKLE_BYTES: u64 = 256 << 20;
/// Most values a pickle may make, keep, or hold on its stack, and that are looked at when tensors are sought in it.
pub(crate) const PICKLE_NODES: usize = 16 << 20;
/// Deepest nesting of a pickle's values.
pub(crate) const PICKLE_DEPTH: u16 = 256;
/// Most values a pickle may keep under numbers that do not count up.
pub(crate) const PICKLE_ODD_NUMBERS: usize = 1 << 16;
/// Most dimensions of a tensor in a pickle: those beyond what we can use are listed as such, up to here.
pub(crate) const PICKLE_DIMS: usize = 64;
/// Most entries of a zip archive: one for each storage and a few more.
pub(crate) const ZIP_ENTRIES: u64 = 2 * TENSORS;
/// Longest ONNX file, in bytes: what protocol buffers allow. More lies in files beside it.
pub(crate) const ONNX_BYTES: u64 = 2 << 30;
/// Most nodes of a graph (large exported models have some ten thousand), and inputs and outputs of the whole.
pub(crate) const ONNX_NODES: usize = 1 << 18;
/// Most inputs, outputs and attributes of all nodes together.
pub(crate) const ONNX_LINKS: usize = 2 << 20;
/// Most inputs, outputs and attributes of one node.
pub(crate) const ONNX_NODE_LINKS: usize = 4096;
/// Most integers in an attribute.
pub(crate) const ONNX_ATTRIBUTE_INTS: usize = 4096;
/// Most dimensions of a tensor in a graph.
pub(crate) const ONNX_DIMS: usize = 16;
/// Most numbers of a tensor that are stored one by one rather than as bytes.
pub(crate) const ONNX_SINGLE_NUMBERS: usize = 1 << 16;
/// Most weights that a value of a graph is followed back to.
pub(crate) const ONNX_SOURCES: usize = 64;
