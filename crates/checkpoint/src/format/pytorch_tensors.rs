//! From the values of a pickle to a directory of tensors.
//!
//! A model is a dictionary of tensors, perhaps nested, perhaps wrapped by the training script that wrote it. Every tensor
//! found gets the path to it, joined by dots, as its name; what is no tensor is passed over. Each is proven to lie inside
//! its storage. Where storages are is the business of `pytorch.rs` and `pytorch_legacy.rs`.

use crate::{
    Error, Result, TensorInfo,
    error::quoted,
    file::ModelFile,
    limits,
    pickle::{Id, Node, Pickle, Storage, Tensor},
    view::{Guard, Piece, Strided, View},
};
use std::{borrow::Cow, collections::HashMap, sync::Arc};
use tensor::Shape;

/// Keys under which training scripts keep the model's own dictionary.
const WRAPPERS: &[&str] = &["state_dict", "model_state_dict", "model", "module"];
/// How many of them may be inside each other.
const WRAPPER_DEPTH: usize = 4;

/// Where a storage's bytes are in the file.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) guard: Option<Arc<Guard>>,
}

/// What was found in a pickle.
pub(super) struct Found {
    pub(super) tensors: Vec<TensorInfo>,
    /// Remarks on what had to be left out.
    pub(super) notes: Vec<String>,
}

/// Finds a storage by its key.
pub(super) type Locate<'a> = &'a mut dyn FnMut(&Storage, &str) -> Result<Place>;

/// All tensors of `pickle`, in its order. Error: none, or one that contradicts its storage.
pub(super) fn collect(file: &ModelFile, pickle: &Pickle<'_>, locate: Locate<'_>) -> Result<Found> {
    let mut collector =
        Collector { file, pickle, locate, places: HashMap::new(), tensors: Vec::new(), left_out: Vec::new() };
    let root = unwrapped(pickle);
    if !matches!(pickle.node(root), Node::Dict(_)) {
        return Err(collector
            .malformed("pickle", format!("it holds {}, not a dictionary of tensors", pickle.node(root).kind())));
    }
    collector.walk(root)?;
    let Collector { tensors, left_out, .. } = collector;
    if tensors.is_empty() {
        let problem = match left_out.first() {
            None => "the pickle holds no tensors: its dictionary is empty of them".to_owned(),
            Some((name, reason)) => format!("the pickle holds no tensors that can be used: {} {reason}", quoted(name)),
        };
        return Err(Error::NotAModel { path: file.path().to_owned(), detail: problem });
    }
    let note = left_out.first().map(|(name, reason)| {
        let others = left_out.len() - 1;
        let more = if others > 0 { format!(", and {others} more tensors") } else { String::new() };
        format!("left out: tensor {} {reason}{more}", quoted(name))
    });
    Ok(Found { tensors, notes: note.into_iter().collect() })
}

/// The dictionary of the model: the root, or what it wraps when that is the one obvious place.
fn unwrapped(pickle: &Pickle<'_>) -> Id {
    let mut root = pickle.root;
    for _ in 0..WRAPPER_DEPTH {
        let Node::Dict(entries) = pickle.node(root) else { break };
        if entries.iter().any(|(_, value)| matches!(pickle.node(*value), Node::Tensor(_))) {
            break;
        }
        let mut wrapped = entries.iter().filter(|(key, value)| {
            let is_wrapper = matches!(pickle.node(*key), Node::Text(key) if WRAPPERS.contains(key));
            is_wrapper && matches!(pickle.node(*value), Node::Dict(inner) if !inner.is_empty())
        });
        match (wrapped.next(), wrapped.next()) {
            (Some((_, inner)), None) => root = *inner,
            _ => break,
        }
    }
    root
}

/// A container on the way to the value that is looked at.
struct Frame {
    id: Id,
    /// The child to look at next.
    next: usize,
    /// Length of the path to the container.
    path_len: usize,
}

/// What a value is called in its container.
enum Key {
    Node(Id),
    Index(usize),
}

impl Key {
    /// As a part of a tensor's name. `None`: neither a string nor an integer.
    fn name<'a>(&self, pickle: &'a Pickle<'_>) -> Option<Cow<'a, str>> {
        match self {
            Self::Index(index) => Some(index.to_string().into()),
            Self::Node(id) => match pickle.node(*id) {
                Node::Text(text) => Some(Cow::Borrowed(text)),
                Node::Int(number) => Some(number.to_string().into()),
                _ => None,
            },
        }
    }
}

/// The child `index` of the container `id`.
fn child(pickle: &Pickle<'_>, id: Id, index: usize) -> Option<(Key, Id)> {
    let item = |items: &[Id]| items.get(index).map(|id| (Key::Index(index), *id));
    match pickle.node(id) {
        Node::Dict(entries) => entries.get(index).map(|(key, value)| (Key::Node(*key), *value)),
        Node::List(items) => item(items),
        Node::Tuple(items) => item(items),
        _ => None,
    }
}

struct Collector<'a, 'p> {
    file: &'a ModelFile,
    pickle: &'a Pickle<'p>,
    locate: Locate<'a>,
    places: HashMap<&'a str, Place>,
    tensors: Vec<TensorInfo>,
    /// Names of tensors that cannot be used, and why.
    left_out: Vec<(String, String)>,
}

impl<'a> Collector<'a, '_> {
    fn malformed(&self, field: &str, problem: String) -> Error {
        Error::Malformed { path: self.file.path().to_owned(), field: field.to_owned(), problem }
    }

    /// Visits all values below `root`, in order, without recursion.
    fn walk(&mut self, root: Id) -> Result<()> {
        let pickle = self.pickle;
        let mut path = String::new();
        let mut frames = vec![Frame { id: root, next: 0, path_len: 0 }];
        let mut n_looks = 0usize;
        while let Some(frame) = frames.last_mut() {
            path.truncate(frame.path_len);
            let Some((key, id)) = child(pickle, frame.id, frame.next) else {
                frames.pop();
                continue;
            };
            frame.next += 1;
            // Values may be shared, so there can be more paths than values; a cycle has endlessly many.
            n_looks += 1;
            if n_looks > limits::PICKLE_NODES || frames.len() > usize::from(limits::PICKLE_DEPTH) {
                return Err(self.malformed("pickle", "its values are nested too deep, or in a cycle".to_owned()));
            }
            let node = pickle.node(id);
            let is_container = matches!(node, Node::Dict(_) | Node::List(_) | Node::Tuple(_));
            if !is_container && !matches!(node, Node::Tensor(_)) {
                continue;
            }
            let Some(key) = key.name(pickle) else { continue };
            if !path.is_empty() {
                path.push('.');
            }
            if (path.len() + key.len()) as u64 > limits::TENSOR_NAME_BYTES {
                let most = limits::TENSOR_NAME_BYTES;
                return Err(
                    self.malformed("pickle", format!("the name {} has more than {most} bytes", quoted(path + &key)))
                );
            }
            path.push_str(&key);
            match node {
                Node::Tensor(tensor) => self.tensor(path.clone(), tensor)?,
                _ => frames.push(Frame { id, next: 0, path_len: path.len() }),
            }
        }
        Ok(())
    }

    fn tensor(&mut self, name: String, tensor: &'a Tensor) -> Result<()> {
        let field = format!("tensor {}", quoted(&name));
        let bad =
            |problem: String| Error::Malformed { path: self.file.path().to_owned(), field: field.clone(), problem };
        if name.is_empty() {
            return Err(bad("its name is empty".to_owned()));
        }
        if self.tensors.len() as u64 >= limits::TENSORS {
            return Err(bad(format!("more than {} tensors are too many", limits::TENSORS)));
        }
        let Some((storage, key)) = self.pickle.storage(tensor) else { return Err(bad("it has no storage".to_owned())) };
        let place = match self.places.get(key) {
            // Another view of the same storage must mean the same bytes.
            Some(place) if storage_bytes(storage) == Some(place.bytes) && storage.window == 0 => place.clone(),
            _ => (self.locate)(storage, key)?,
        };
        if storage.window == 0 {
            self.places.insert(key, place.clone());
        }
        match proven(tensor, storage, &place).map_err(bad)? {
            Proven::Usable { dtype, shape, bytes, offset, view } => {
                self.tensors.push(TensorInfo { name, dtype, shape, bytes, part: 0, offset, view, made: None });
            }
            Proven::Unusable(reason) => self.left_out.push((name, reason)),
        }
        Ok(())
    }
}

fn storage_bytes(storage: &Storage) -> Option<u64> {
    storage.n_elements.checked_mul(storage.element.bytes)
}

/// What became of a tensor's record.
enum Proven {
    Usable {
        dtype: tensor::DType,
        shape: Shape,
        bytes: u64,
        offset: u64,
        view: Option<Arc<View>>,
    },
    /// In order, but nothing we can represent: why.
    Unusable(String),
}

/// Proves that `tensor` lies inside its storage at `place`, or says how it does not.
fn proven(tensor: &Tensor, storage: &Storage, place: &Place) -> std::result::Result<Proven, String> {
    let element_bytes = tensor.element.bytes;
    let overflow = || format!("the product of the dimensions of its shape {:?} overflows", tensor.dims);
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
    let dims = dims.ok_or_else(overflow)?;
    let n_elements = dims.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim)).ok_or_else(overflow)?;
    let bytes = (n_elements as u64).checked_mul(element_bytes).ok_or_else(overflow)?;
    // Offsets count elements of the tensor, which in an untyped storage are not those of the storage.
    let window = storage.window.checked_mul(storage.element.bytes);
    let capacity = storage_bytes(storage).map(|bytes| bytes / element_bytes);
    let (Some(window), Some(capacity)) = (window, capacity) else {
        return Err("the size of its storage overflows".to_owned());
    };
    let first = if n_elements == 0 { 0 } else { tensor.offset };
    let outside = || {
        format!(
            "its shape {:?} with strides {:?} at offset {} reaches beyond its storage of {capacity} elements",
            tensor.dims, tensor.strides, tensor.offset
        )
    };
    let steps = tensor.dims.iter().zip(&tensor.strides);
    let last = steps
        .clone()
        .try_fold(first, |last, (dim, stride)| last.checked_add(dim.saturating_sub(1).checked_mul(*stride)?));
    if n_elements > 0 && last.is_none_or(|last| last >= capacity) {
        return Err(outside());
    }
    let start = first.checked_mul(element_bytes).and_then(|start| start.checked_add(window)).ok_or_else(outside)?;
    if place.bytes.checked_sub(start).is_none_or(|left| n_elements > 0 && left < element_bytes) {
        return Err(outside());
    }
    let offset = place.offset.checked_add(start).ok_or_else(outside)?;
    let Some(dtype) = tensor.element.dtype else {
        return Ok(Proven::Unusable(format!("has type {}, which is not supported", tensor.element.name)));
    };
    // A single number has no dimensions in the file and one here.
    let Some(shape) = Shape::new(if dims.is_empty() { &[1] } else { &dims }) else {
        return Ok(Proven::Unusable(format!("has {} dimensions, which is not supported", dims.len())));
    };
    if n_elements as u64 > capacity {
        return Ok(Proven::Unusable(format!(
            "repeats its {capacity} elements to {n_elements}, which is not supported"
        )));
    }
    if n_elements == 0 {
        return Ok(Proven::Usable { dtype, shape, bytes, offset: place.offset, view: None });
    }
    // Steps of dimensions of length one are never taken, and may be anything.
    let strides = steps.map(|(dim, stride)| if *dim == 1 { Some(0) } else { usize::try_from(*stride).ok() });
    let strides = strides.collect::<Option<Vec<usize>>>().ok_or_else(outside)?;
    let piece = Piece { part: 0, offset, dims, strides, guard: place.guard.clone() };
    let plain = piece.guard.is_none() && piece.is_contiguous();
    let view = (!plain).then(|| Arc::new(View::Strided(Strided { axis: 0, pieces: vec![piece] })));
    Ok(Proven::Usable { dtype, shape, bytes, offset, view })
}
