//! The records that PyTorch stores tensors as: persistent identifiers of storages, and arguments of `_rebuild_*`
//! (`torch/serialization.py`, `torch/_utils.py`).

use super::{
    Fault, Read, bad,
    globals::{Element, Global, Rebuild, UNTYPED},
    node::{Id, Node, Storage, Tensor},
};
use crate::{error::quoted, limits};

fn get<'n, 'a>(nodes: &'n [Node<'a>], id: Id) -> &'n Node<'a> {
    nodes.get(id.0 as usize).unwrap_or(&Node::Opaque)
}

/// A persistent identifier: `('storage', class, key, location, elements[, window])`.
pub(super) fn storage(nodes: &[Node<'_>], id: Id) -> Read<Storage> {
    let Node::Tuple(items) = get(nodes, id) else {
        return bad(format!("invalid: a persistent identifier is {}, not a tuple", get(nodes, id).kind()));
    };
    let fields: Vec<&Node<'_>> = items.iter().take(7).map(|id| get(nodes, *id)).collect();
    let key_id = items.get(2).copied().unwrap_or(id);
    let (class, key, n_elements, window) = match fields.as_slice() {
        [Node::Text(kind), ..] if *kind != "storage" => {
            let problem = format!("asks for an object of kind {}; only storages are allowed", quoted(kind.as_bytes()));
            return Err(Fault::Forbidden(problem));
        }
        [Node::Text(_), class, key, Node::Text(_), count] => (class, key, count, &Node::None),
        [Node::Text(_), class, key, Node::Text(_), count, window] => (class, key, count, *window),
        _ => return bad("invalid: a persistent identifier is no (kind, class, key, location, size)"),
    };
    let Node::Global(Global::Storage(element)) = class else {
        return bad(format!("invalid: the class of a storage is {}", class.kind()));
    };
    let Node::Text(key) = key else { return bad(format!("invalid: the key of a storage is {}", key.kind())) };
    if key.len() as u64 > limits::TENSOR_NAME_BYTES {
        return bad(format!("invalid: the key of a storage has {} bytes", key.len()));
    }
    let n_elements = count(n_elements, || format!("the size of storage {}", quoted(key.as_bytes())))?;
    let mut storage = Storage { key: key_id, element, n_elements, window: 0 };
    match window {
        Node::None => Ok(storage),
        // The window's own (key, offset, size); the key only tells windows apart.
        Node::Tuple(window) => match window.iter().map(|id| get(nodes, *id)).collect::<Vec<_>>().as_slice() {
            [Node::Text(_), offset, size] => {
                let end_of_root = storage.n_elements;
                storage.window = count(offset, || "the offset of a storage's window".to_owned())?;
                storage.n_elements = count(size, || "the size of a storage's window".to_owned())?;
                match storage.window.checked_add(storage.n_elements) {
                    Some(end) if end <= end_of_root => Ok(storage),
                    _ => bad("invalid: a storage's window reaches beyond its storage"),
                }
            }
            _ => bad("invalid: a storage's window is no (key, offset, size)"),
        },
        other => bad(format!("invalid: a storage's window is {}", other.kind())),
    }
}

/// The tensor that `function` makes of `arguments`.
pub(super) fn tensor(nodes: &[Node<'_>], function: Rebuild, arguments: &[Id]) -> Read<Tensor> {
    let fields: Vec<&Node<'_>> = arguments.iter().take(9).map(|id| get(nodes, *id)).collect();
    let storage_id = || arguments.first().copied().unwrap_or(Id(0));
    match (function, fields.as_slice()) {
        (Rebuild::Tensor, [storage, offset, size, stride])
        | (Rebuild::TensorV2, [storage, offset, size, stride, _, _] | [storage, offset, size, stride, _, _, _]) => {
            view(nodes, storage_id(), [storage, offset, size, stride], None)
        }
        (
            Rebuild::TensorV3,
            [storage, offset, size, stride, _, _, element] | [storage, offset, size, stride, _, _, element, _],
        ) => match element {
            Node::Global(Global::Element(element)) => {
                view(nodes, storage_id(), [storage, offset, size, stride], Some(element))
            }
            other => bad(format!("invalid: the type of a tensor is {}", other.kind())),
        },
        (Rebuild::Parameter, [Node::Tensor(tensor), _, _])
        | (Rebuild::ParameterWithState, [Node::Tensor(tensor), _, _, _]) => Ok(tensor.as_ref().clone()),
        (Rebuild::FromType, [Node::Global(Global::Rebuild(inner)), class, Node::Tuple(arguments), _])
            if *inner != Rebuild::FromType =>
        {
            match class {
                Node::Global(Global::TensorClass) => tensor(nodes, *inner, arguments),
                other => bad(format!("invalid: the class of a tensor is {}", other.kind())),
            }
        }
        (_, fields) => {
            let kinds: Vec<&str> = fields.iter().map(|field| field.kind()).collect();
            bad(format!("invalid arguments of a tensor's record: {}", kinds.join(", ")))
        }
    }
}

/// A view of the storage `id`; of an untyped one as elements of the type `element`.
fn view(nodes: &[Node<'_>], id: Id, fields: [&Node<'_>; 4], element: Option<&'static Element>) -> Read<Tensor> {
    let [storage, offset, size, stride] = fields;
    let Node::Storage(storage) = storage else {
        return bad(format!("invalid: the storage of a tensor is {}", storage.kind()));
    };
    let untyped = *storage.element == UNTYPED;
    let element = match element {
        Some(element) if untyped => element,
        None if !untyped => storage.element,
        _ => return bad("invalid: a tensor needs the type of its elements exactly once"),
    };
    let offset = count(offset, || "the offset of a tensor".to_owned())?;
    let dims = counts(nodes, size, "dimension")?;
    let strides = counts(nodes, stride, "stride")?;
    if dims.len() != strides.len() {
        return bad(format!("invalid: a tensor has {} dimensions and {} strides", dims.len(), strides.len()));
    }
    Ok(Tensor { storage: id, element, offset, dims, strides })
}

/// A number that must not be negative.
fn count(node: &Node<'_>, what: impl Fn() -> String) -> Read<u64> {
    match node {
        Node::Int(value) => {
            u64::try_from(*value).or_else(|_| bad(format!("invalid: {} is negative ({value})", what())))
        }
        Node::Long(_) => bad(format!("invalid: {} is beyond 64 bits", what())),
        other => bad(format!("invalid: {} is {}, not an integer", what(), other.kind())),
    }
}

fn counts(nodes: &[Node<'_>], node: &Node<'_>, what: &str) -> Read<Vec<u64>> {
    let items: &[Id] = match node {
        Node::Tuple(items) => items,
        // What `torch.Size` was given may be a list.
        Node::List(items) => items,
        other => return bad(format!("invalid: the {what}s of a tensor are {}, not a tuple", other.kind())),
    };
    if items.len() > limits::PICKLE_DIMS {
        return bad(format!("invalid: a tensor has {} {what}s (at most {})", items.len(), limits::PICKLE_DIMS));
    }
    items.iter().map(|id| count(get(nodes, *id), || format!("a {what} of a tensor"))).collect()
}
