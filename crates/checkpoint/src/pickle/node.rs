//! The values that a pickle can make: plain data, storages and tensors.

use super::globals::{Element, Global};

/// The number of a node in its arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id(pub(super) u32);

/// A value. Containers hold the numbers of their elements; text is a view of the pickle.
#[derive(Debug)]
pub(crate) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer that does not fit `i64`, as little-endian two's complement.
    Long(&'a [u8]),
    Float,
    Text(&'a str),
    Bytes,
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    /// Key and value pairs in the order they were set.
    Dict(Vec<(Id, Id)>),
    /// A name of the closed list.
    Global(Global),
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
    /// Data without use for us: a set, a device, a number of another library.
    Opaque,
}

impl Node<'_> {
    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a truth value",
            Self::Int(_) | Self::Long(_) => "an integer",
            Self::Float => "a float",
            Self::Text(_) => "a string",
            Self::Bytes => "bytes",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Global(_) => "a global",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
            Self::Opaque => "an opaque value",
        }
    }
}

/// A storage that the pickle refers to: a flat array of elements kept outside of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Storage {
    /// Its name among the storages: a text node.
    pub(super) key: Id,
    pub(crate) element: &'static Element,
    /// Elements in it; bytes when it is untyped.
    pub(crate) n_elements: u64,
    /// Elements to skip where it is a window of the storage `key` (only in files of the first PyTorch versions).
    pub(crate) window: u64,
}

/// A tensor: a strided view of a storage. Nothing has been checked against the storage's bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    /// A storage node.
    pub(super) storage: Id,
    /// The elements' type: the storage's, or what an untyped storage is read as.
    pub(crate) element: &'static Element,
    /// Where it begins in the storage, in elements.
    pub(crate) offset: u64,
    /// Dimensions, outermost first.
    pub(crate) dims: Vec<u64>,
    /// Steps of each dimension, in elements.
    pub(crate) strides: Vec<u64>,
}

/// A pickle that was read.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    /// The value it stands for.
    pub(crate) root: Id,
    /// Bytes it took.
    pub(crate) len: usize,
}

impl<'a> Pickle<'a> {
    /// The node `id` of this pickle.
    pub(crate) fn node(&self, id: Id) -> &Node<'a> {
        // Numbers come from this arena alone, so the fallback is never taken.
        self.nodes.get(id.0 as usize).unwrap_or(&Node::Opaque)
    }

    /// The storage that `tensor` is a view of, and that storage's key.
    pub(crate) fn storage(&self, tensor: &Tensor) -> Option<(&Storage, &str)> {
        let Node::Storage(storage) = self.node(tensor.storage) else { return None };
        let Node::Text(key) = self.node(storage.key) else { return None };
        Some((storage, key))
    }

    /// All storages with their keys; several tensors may have made one each for the same key.
    pub(crate) fn storages(&self) -> impl Iterator<Item = (&Storage, &str)> {
        self.nodes.iter().filter_map(|node| {
            let Node::Storage(storage) = node else { return None };
            let Node::Text(key) = self.node(storage.key) else { return None };
            Some((storage.as_ref(), *key))
        })
    }

    /// The value it stands for.
    pub(crate) fn root(&self) -> &Node<'a> {
        self.node(self.root)
    }
}
