//! What a pickle's names make: the machine's opcodes that look up, call and set the state of things, and call nothing.

use super::{
    Fault, Read, bad,
    globals::{self, DictArgs, Global},
    machine::{EMPTY_TUPLE, Machine, OPAQUE},
    node::{Id, Node},
    opcode as op, record,
};
use crate::error::quoted;

impl Machine<'_> {
    pub(super) fn global(&mut self) -> Read<()> {
        let found = if self.opcode == op::GLOBAL {
            let (module, name) = (self.program.line()?, self.program.line()?);
            lookup(module, name)
        } else {
            let [module, name] = self.pop_array()?;
            match (self.node(module), self.node(name)) {
                (Node::Text(module), Node::Text(name)) => lookup(module.as_bytes(), name.as_bytes()),
                (module, _) => bad(format!("the name of a global is {}, which is invalid", module.kind())),
            }
        };
        self.push_node(Node::Global(found?), 0)
    }

    pub(super) fn persistent(&mut self) -> Read<()> {
        let id = self.pop()?;
        let storage = record::storage(&self.nodes, id)?;
        self.charge(4)?;
        self.push_node(Node::Storage(Box::new(storage)), 0)
    }

    /// `REDUCE` and `NEWOBJ`: makes the node that a name of the closed list stands for.
    pub(super) fn construct(&mut self) -> Read<()> {
        let [callable, arguments] = self.pop_array()?;
        let global = match self.node(callable) {
            Node::Global(global) => *global,
            other => return Err(Fault::Forbidden(format!("calls {}, which is not allowed", other.kind()))),
        };
        let Node::Tuple(items) = self.node(arguments) else {
            return bad(format!("the arguments are {}, not a tuple", self.node(arguments).kind()));
        };
        let first = items.first().copied();
        if items.len() > 1 && matches!(global, Global::Dict(_) | Global::List | Global::Tuple) {
            return bad(format!("invalid: {} arguments for a container", items.len()));
        }
        match global {
            Global::Opaque => self.push(OPAQUE),
            Global::Rebuild(function) => {
                let tensor = record::tensor(&self.nodes, function, items)?;
                // Recalled from the memo, a record of any length takes five bytes.
                self.charge(4 + tensor.dims.len())?;
                self.push_node(Node::Tensor(Box::new(tensor)), 0)
            }
            // A copy is the same as the original: only the reader looks at either, when all is made.
            Global::Tuple => match first.map(|id| (id, self.node(id))) {
                None => self.push(EMPTY_TUPLE),
                Some((id, Node::Tuple(_) | Node::List(_))) => self.push(id),
                Some((_, other)) => bad(format!("a tuple of {}, which is invalid", other.kind())),
            },
            Global::List => match first.map(|id| self.node(id)) {
                None => self.push_node(Node::List(Vec::new()), 1),
                Some(other) => bad(format!("a list of {}, which is not supported", other.kind())),
            },
            Global::Dict(arguments) => self.construct_dict(arguments, first),
            Global::Storage(_) | Global::Element(_) | Global::TensorClass => {
                Err(Fault::Forbidden("calls a class that is only a name here, which is not allowed".to_owned()))
            }
        }
    }

    fn construct_dict(&mut self, arguments: DictArgs, first: Option<Id>) -> Read<()> {
        let Some(first) = first else { return self.push_node(Node::Dict(Vec::new()), 1) };
        let pairs = match (arguments, self.node(first)) {
            (DictArgs::Factory, Node::Global(_) | Node::None) => &[],
            (DictArgs::Pairs, Node::List(items)) => items.as_slice(),
            (DictArgs::Pairs, Node::Tuple(items)) => items,
            (_, other) => return bad(format!("a dictionary of {}, which is invalid", other.kind())),
        };
        let entries: Read<Vec<(Id, Id)>> = pairs.iter().map(|id| self.pair(*id)).collect();
        let entries = entries?;
        // Copies, unlike all else, are not paid for by bytes of the pickle.
        self.charge(entries.len())?;
        let depth = self.depth_above(&[first])?;
        self.push_node(Node::Dict(entries), depth)
    }

    /// A key with its value, as the constructor of a dictionary takes them.
    fn pair(&self, id: Id) -> Read<(Id, Id)> {
        let items = match self.node(id) {
            Node::List(items) => items.as_slice(),
            Node::Tuple(items) => items,
            _ => &[],
        };
        match items {
            [key, value] => Ok((*key, *value)),
            _ => bad("invalid: an entry of a dictionary is no pair"),
        }
    }

    /// `BUILD` sets attributes. Ours have none, so they are dropped: a dictionary's `_metadata`, a scalar's bytes.
    pub(super) fn build(&mut self) -> Read<()> {
        self.pop()?;
        match self.node(*self.top()?) {
            Node::Dict(_) | Node::Opaque => Ok(()),
            other => Err(Fault::Forbidden(format!("sets the state of {}, which is not allowed", other.kind()))),
        }
    }
}

/// A name as a message shows it.
pub(super) fn dotted(module: &[u8], name: &[u8]) -> String {
    quoted([module, b".", name].concat())
}

/// The name's entry in the closed list.
fn lookup(module: &[u8], name: &[u8]) -> Read<Global> {
    let known = std::str::from_utf8(module).ok().zip(std::str::from_utf8(name).ok());
    known
        .and_then(|(module, name)| globals::find(module, name))
        .ok_or_else(|| Fault::Forbidden(format!("asks for the global {}, which is not allowed", dotted(module, name))))
}
