//! The stack machine that a pickle is a program for, with every opcode type-checked and nothing called.

use super::{
    Fault, Read, bad,
    globals::{self, DictArgs, Global},
    node::{Id, Node, Pickle},
    opcode as op, record,
};
use crate::{error::quoted, limits};
use std::{borrow::Cow, collections::HashMap};

/// Nodes that every pickle shares, at fixed places of the arena.
const NONE: Id = Id(0);
const TRUE: Id = Id(1);
const FALSE: Id = Id(2);
const FLOAT: Id = Id(3);
const BYTES: Id = Id(4);
const OPAQUE: Id = Id(5);
const EMPTY_TUPLE: Id = Id(6);

/// Reads the pickle that `bytes` begins with. What follows it is not looked at.
pub(crate) fn read(bytes: &[u8]) -> Read<Pickle<'_>> {
    let mut machine = Machine::new(bytes);
    match machine.run() {
        Ok(root) => Ok(Pickle { nodes: machine.nodes, root, len: machine.at }),
        Err(fault) => Err(machine.placed(fault)),
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The opcode that is being obeyed, and where it is.
    opcode: u8,
    opcode_at: usize,
    nodes: Vec<Node<'a>>,
    /// How deep each node nests: 0 for what holds nothing.
    depths: Vec<u16>,
    /// Nodes and copied elements paid for.
    spent: usize,
    stack: Vec<Id>,
    /// Heights of the stack where `MARK` was.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let empty = Node::Tuple(Box::default());
        let nodes =
            vec![Node::None, Node::Bool(true), Node::Bool(false), Node::Float, Node::Bytes, Node::Opaque, empty];
        let depths = vec![0; nodes.len()];
        Self {
            bytes,
            at: 0,
            opcode: 0,
            opcode_at: 0,
            nodes,
            depths,
            spent: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// Says where in the pickle the fault is.
    fn placed(&self, fault: Fault) -> Fault {
        let place = |problem: String| format!("opcode {} at byte {}: {problem}", op::name(self.opcode), self.opcode_at);
        match fault {
            Fault::Truncated(_) if self.opcode_at == self.bytes.len() => {
                Fault::Truncated(format!("truncated: the pickle ends after {} bytes without STOP", self.bytes.len()))
            }
            Fault::Truncated(problem) => Fault::Truncated(place(problem)),
            Fault::Bad(problem) => Fault::Bad(place(problem)),
            Fault::Forbidden(problem) => Fault::Forbidden(place(problem)),
        }
    }

    fn run(&mut self) -> Read<Id> {
        loop {
            self.opcode_at = self.at;
            self.opcode = self.u8()?;
            if self.opcode == op::STOP {
                return self.pop();
            }
            self.step()?;
            if self.stack.len() > limits::PICKLE_NODES {
                return bad(format!("more than {} values on the stack, which is too large", limits::PICKLE_NODES));
            }
        }
    }

    fn step(&mut self) -> Read<()> {
        match self.opcode {
            op::PROTO => {
                let version = self.u8()?;
                if version <= 5 { Ok(()) } else { bad(format!("protocol {version} is unknown (0 to 5 are supported)")) }
            }
            // A hint for readers of streams. Its length is a claim like any other.
            op::FRAME => {
                let len = self.u64()?;
                let left = self.bytes.len().saturating_sub(self.at) as u64;
                if len <= left { Ok(()) } else { truncated(format!("a frame of {len} bytes, {left} are left")) }
            }
            op::MARK => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::POP => match self.marks.last() {
                Some(mark) if *mark == self.stack.len() => self.pop_mark().map(drop),
                _ => self.pop().map(drop),
            },
            op::POP_MARK => self.pop_mark().map(drop),
            op::DUP => {
                let top = *self.top()?;
                self.stack.push(top);
                Ok(())
            }
            op::NONE => self.push(NONE),
            op::NEWTRUE => self.push(TRUE),
            op::NEWFALSE => self.push(FALSE),
            op::INT | op::BININT | op::BININT1 | op::BININT2 | op::LONG | op::LONG1 | op::LONG4 => self.integer(),
            op::FLOAT => {
                self.line()?;
                self.push(FLOAT)
            }
            op::BINFLOAT => {
                self.take(8)?;
                self.push(FLOAT)
            }
            op::STRING | op::BINSTRING | op::SHORT_BINSTRING => self.string(),
            op::UNICODE | op::BINUNICODE | op::SHORT_BINUNICODE | op::BINUNICODE8 => self.text(),
            op::BINBYTES | op::SHORT_BINBYTES | op::BINBYTES8 | op::BYTEARRAY8 => self.byte_string(),
            op::EMPTY_TUPLE | op::TUPLE | op::TUPLE1 | op::TUPLE2 | op::TUPLE3 => self.tuple(),
            op::EMPTY_LIST | op::LIST | op::APPEND | op::APPENDS => self.list(),
            op::EMPTY_DICT | op::DICT | op::SETITEM | op::SETITEMS => self.dict(),
            op::EMPTY_SET | op::FROZENSET | op::ADDITEMS => self.set(),
            op::GET | op::BINGET | op::LONG_BINGET => self.recall(),
            op::PUT | op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => self.memoize(),
            op::GLOBAL | op::STACK_GLOBAL => self.global(),
            op::BINPERSID => self.persistent(),
            op::REDUCE | op::NEWOBJ => self.construct(),
            op::BUILD => self.build(),
            op::INST => {
                let (module, name) = (self.line()?, self.line()?);
                Err(Fault::Forbidden(format!("makes an object of the class {}", dotted(module, name))))
            }
            op::OBJ
            | op::NEWOBJ_EX
            | op::EXT1
            | op::EXT2
            | op::EXT4
            | op::PERSID
            | op::NEXT_BUFFER
            | op::READONLY_BUFFER => Err(Fault::Forbidden("plain tensors never need this opcode".to_owned())),
            _ => bad("no pickle protocol has this opcode"),
        }
    }

    // Bytes of the program.

    fn take(&mut self, len: u64) -> Read<&'a [u8]> {
        let left = self.bytes.get(self.at..).unwrap_or_default();
        match usize::try_from(len).ok().and_then(|len| left.get(..len)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => truncated(format!("truncated: needs {len} bytes, {} are left", left.len())),
        }
    }

    fn fixed<const N: usize>(&mut self) -> Read<[u8; N]> {
        let bytes = self.take(N as u64)?;
        bytes.first_chunk().copied().map_or_else(|| truncated("truncated"), Ok)
    }

    fn u8(&mut self) -> Read<u8> {
        self.fixed().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Read<u16> {
        self.fixed().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Read<u32> {
        self.fixed().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Read<u64> {
        self.fixed().map(u64::from_le_bytes)
    }

    /// The rest of the line, without its end.
    fn line(&mut self) -> Read<&'a [u8]> {
        let left = self.bytes.get(self.at..).unwrap_or_default();
        let Some(end) = left.iter().position(|byte| *byte == b'\n') else {
            return truncated("truncated: the line does not end");
        };
        self.at += end + 1;
        Ok(left.get(..end).unwrap_or_default())
    }

    /// The rest of the line as a decimal number.
    fn decimal<T: std::str::FromStr>(&mut self) -> Read<T> {
        let line = self.line()?;
        let number = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
        number.map_or_else(|| bad(format!("{} is no number in range", quoted(line))), Ok)
    }

    // The arena and the stack.

    /// Pays for `n` nodes or copied elements.
    fn charge(&mut self, n: usize) -> Read<()> {
        self.spent = self.spent.saturating_add(n);
        if self.spent > limits::PICKLE_NODES {
            return bad(format!("more than {} values, which is too large", limits::PICKLE_NODES));
        }
        Ok(())
    }

    /// Adds a node that holds `depth - 1` levels of others.
    fn add(&mut self, node: Node<'a>, depth: u16) -> Read<Id> {
        self.charge(1)?;
        let id = u32::try_from(self.nodes.len()).map(Id).or_else(|_| bad("too many values"))?;
        self.nodes.push(node);
        self.depths.push(depth);
        Ok(id)
    }

    fn push(&mut self, id: Id) -> Read<()> {
        self.stack.push(id);
        Ok(())
    }

    fn push_node(&mut self, node: Node<'a>, depth: u16) -> Read<()> {
        let id = self.add(node, depth)?;
        self.push(id)
    }

    fn node(&self, id: Id) -> &Node<'a> {
        self.nodes.get(id.0 as usize).unwrap_or(&Node::Opaque)
    }

    /// The depth of something that holds `ids`. Error: nested too deep.
    fn depth_above(&self, ids: &[Id]) -> Read<u16> {
        let inner = ids.iter().filter_map(|id| self.depths.get(id.0 as usize)).max().copied().unwrap_or(0);
        if inner >= limits::PICKLE_DEPTH {
            return bad(format!("values nested too deep (at most {} levels)", limits::PICKLE_DEPTH));
        }
        Ok(inner + 1)
    }

    /// Raises the depth of `container` to hold `ids`.
    fn deepen(&mut self, container: Id, ids: &[Id]) -> Read<()> {
        let depth = self.depth_above(ids)?;
        if let Some(own) = self.depths.get_mut(container.0 as usize) {
            *own = depth.max(*own);
        }
        Ok(())
    }

    /// The lowest height that may be popped to.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Read<&Id> {
        match self.stack.last() {
            Some(top) if self.stack.len() > self.floor() => Ok(top),
            _ => bad("stack underflow: the stack has no value left"),
        }
    }

    fn pop(&mut self) -> Read<Id> {
        let top = *self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// What was pushed since the last `MARK`.
    fn pop_mark(&mut self) -> Read<Vec<Id>> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => bad("the stack has no MARK"),
        }
    }

    fn pop_array<const N: usize>(&mut self) -> Read<[Id; N]> {
        let mut popped = [NONE; N];
        for slot in popped.iter_mut().rev() {
            *slot = self.pop()?;
        }
        Ok(popped)
    }

    // Numbers and strings.

    fn integer(&mut self) -> Read<()> {
        let value = match self.opcode {
            op::BININT => i64::from(self.u32()?.cast_signed()),
            op::BININT1 => i64::from(self.u8()?),
            op::BININT2 => i64::from(self.u16()?),
            op::INT => match self.line()? {
                // How protocol 0 spells truth values.
                b"00" => return self.push(FALSE),
                b"01" => return self.push(TRUE),
                line => parse_decimal(line)?,
            },
            op::LONG => {
                let line = self.line()?;
                parse_decimal(line.strip_suffix(b"L").unwrap_or(line))?
            }
            _ => {
                let len = match self.opcode {
                    op::LONG1 => u64::from(self.u8()?),
                    _ => match u64::try_from(self.u32()?.cast_signed()) {
                        Ok(len) => len,
                        Err(_) => return bad("invalid: the length of an integer is negative"),
                    },
                };
                let bytes = self.take(len)?;
                let node = small(bytes).map_or(Node::Long(bytes), Node::Int);
                return self.push_node(node, 0);
            }
        };
        self.push_node(Node::Int(value), 0)
    }

    /// Strings of Python 2: PyTorch reads them as UTF-8.
    fn string(&mut self) -> Read<()> {
        let bytes = match self.opcode {
            op::STRING => {
                let line = self.line()?;
                let quote = line.first().filter(|q| matches!(q, b'\'' | b'"'));
                let inner = quote.and_then(|q| line.get(1..)?.strip_suffix(std::slice::from_ref(q)));
                match inner {
                    Some(inner) if !inner.contains(&b'\\') => inner,
                    _ => return bad("invalid: a string without quotes, or with escapes, which is not supported"),
                }
            }
            op::BINSTRING => {
                let len = self.u32()?.cast_signed();
                match u64::try_from(len) {
                    Ok(len) => self.take(len)?,
                    Err(_) => return bad(format!("invalid: length {len} of a string")),
                }
            }
            _ => {
                let len = self.u8()?;
                self.take(u64::from(len))?
            }
        };
        // Python 2 kept bytes in the same type, so what is no text is no fault.
        match std::str::from_utf8(bytes) {
            Ok(text) => self.push_node(Node::Text(Cow::Borrowed(text)), 0),
            Err(_) => self.push(BYTES),
        }
    }

    fn text(&mut self) -> Read<()> {
        let bytes = match self.opcode {
            op::UNICODE => self.line()?,
            op::SHORT_BINUNICODE => {
                let len = self.u8()?;
                self.take(u64::from(len))?
            }
            op::BINUNICODE => {
                let len = self.u32()?;
                self.take(u64::from(len))?
            }
            _ => {
                let len = self.u64()?;
                self.take(len)?
            }
        };
        let Ok(text) = std::str::from_utf8(bytes) else {
            return bad(format!("invalid: the string {} is not UTF-8", quoted(bytes)));
        };
        if self.opcode == op::UNICODE && text.contains('\\') {
            return bad("a string with escapes, which is not supported");
        }
        self.push_node(Node::Text(Cow::Borrowed(text)), 0)
    }

    fn byte_string(&mut self) -> Read<()> {
        let len = match self.opcode {
            op::SHORT_BINBYTES => u64::from(self.u8()?),
            op::BINBYTES => u64::from(self.u32()?),
            _ => self.u64()?,
        };
        self.take(len)?;
        self.push(BYTES)
    }

    // Containers.

    fn tuple(&mut self) -> Read<()> {
        let items = match self.opcode {
            op::EMPTY_TUPLE => Vec::new(),
            op::TUPLE1 => self.pop_array::<1>()?.to_vec(),
            op::TUPLE2 => self.pop_array::<2>()?.to_vec(),
            op::TUPLE3 => self.pop_array::<3>()?.to_vec(),
            _ => self.pop_mark()?,
        };
        if items.is_empty() {
            return self.push(EMPTY_TUPLE);
        }
        let depth = self.depth_above(&items)?;
        self.push_node(Node::Tuple(items.into()), depth)
    }

    fn list(&mut self) -> Read<()> {
        let added = match self.opcode {
            op::EMPTY_LIST => return self.push_node(Node::List(Vec::new()), 1),
            op::LIST => {
                let items = self.pop_mark()?;
                let depth = self.depth_above(&items)?;
                return self.push_node(Node::List(items), depth);
            }
            op::APPEND => vec![self.pop()?],
            _ => self.pop_mark()?,
        };
        let id = *self.top()?;
        self.deepen(id, &added)?;
        match self.nodes.get_mut(id.0 as usize) {
            Some(Node::List(items)) => {
                items.extend(added);
                Ok(())
            }
            other => bad(format!("appends to {}, which is invalid", kind(other.as_deref()))),
        }
    }

    fn dict(&mut self) -> Read<()> {
        let added = match self.opcode {
            op::EMPTY_DICT => return self.push_node(Node::Dict(Vec::new()), 1),
            op::SETITEM => self.pop_array::<2>()?.to_vec(),
            _ => self.pop_mark()?,
        };
        if !added.len().is_multiple_of(2) {
            return bad("invalid: a key without a value");
        }
        let pairs = added.iter().step_by(2).zip(added.iter().skip(1).step_by(2)).map(|(key, value)| (*key, *value));
        if self.opcode == op::DICT {
            let depth = self.depth_above(&added)?;
            return self.push_node(Node::Dict(pairs.collect()), depth);
        }
        let id = *self.top()?;
        self.deepen(id, &added)?;
        match self.nodes.get_mut(id.0 as usize) {
            Some(Node::Dict(entries)) => {
                entries.extend(pairs);
                Ok(())
            }
            other => bad(format!("sets items of {}, which is invalid", kind(other.as_deref()))),
        }
    }

    /// Sets are made and not looked at.
    fn set(&mut self) -> Read<()> {
        match self.opcode {
            op::EMPTY_SET => self.push(OPAQUE),
            op::FROZENSET => {
                self.pop_mark()?;
                self.push(OPAQUE)
            }
            _ => {
                self.pop_mark()?;
                match self.node(*self.top()?) {
                    Node::Opaque => Ok(()),
                    other => bad(format!("adds items to {}, which is invalid", other.kind())),
                }
            }
        }
    }

    // The memo.

    fn recall(&mut self) -> Read<()> {
        let index: u64 = match self.opcode {
            op::BINGET => self.u8()?.into(),
            op::LONG_BINGET => self.u32()?.into(),
            _ => self.decimal()?,
        };
        match self.memo.get(&index) {
            Some(id) => self.push(*id),
            None => bad(format!("invalid: nothing was kept under number {index}")),
        }
    }

    fn memoize(&mut self) -> Read<()> {
        let index: u64 = match self.opcode {
            op::BINPUT => self.u8()?.into(),
            op::LONG_BINPUT => self.u32()?.into(),
            op::MEMOIZE => self.memo.len() as u64,
            _ => self.decimal()?,
        };
        let top = *self.top()?;
        if self.memo.insert(index, top).is_none() {
            self.charge(1)?;
        }
        Ok(())
    }

    // Names and what they make.

    fn global(&mut self) -> Read<()> {
        let found = if self.opcode == op::GLOBAL {
            let (module, name) = (self.line()?, self.line()?);
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

    fn persistent(&mut self) -> Read<()> {
        let id = self.pop()?;
        let storage = record::storage(&self.nodes, id)?;
        self.charge(4)?;
        self.push_node(Node::Storage(Box::new(storage)), 0)
    }

    /// `REDUCE` and `NEWOBJ`: makes the node that a name of the closed list stands for.
    fn construct(&mut self) -> Read<()> {
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
    fn build(&mut self) -> Read<()> {
        self.pop()?;
        match self.node(*self.top()?) {
            Node::Dict(_) | Node::Opaque => Ok(()),
            other => Err(Fault::Forbidden(format!("sets the state of {}, which is not allowed", other.kind()))),
        }
    }
}

fn truncated<T>(problem: impl Into<String>) -> Read<T> {
    Err(Fault::Truncated(problem.into()))
}

fn kind(node: Option<&Node<'_>>) -> &'static str {
    node.map_or("nothing", Node::kind)
}

/// A name as a message shows it.
fn dotted(module: &[u8], name: &[u8]) -> String {
    quoted([module, b".", name].concat())
}

/// The name's entry in the closed list.
fn lookup(module: &[u8], name: &[u8]) -> Read<Global> {
    let known = std::str::from_utf8(module).ok().zip(std::str::from_utf8(name).ok());
    known
        .and_then(|(module, name)| globals::find(module, name))
        .ok_or_else(|| Fault::Forbidden(format!("asks for the global {}, which is not allowed", dotted(module, name))))
}

fn parse_decimal(line: &[u8]) -> Read<i64> {
    let number = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
    number.map_or_else(|| bad(format!("{} is no integer of 64 bits", quoted(line))), Ok)
}

/// A little-endian two's complement integer, if it fits 64 bits.
fn small(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let (low, high) = bytes.split_at(bytes.len().min(8));
    let mut all = [fill; 8];
    all.get_mut(..low.len())?.copy_from_slice(low);
    let value = i64::from_le_bytes(all);
    let fits = high.iter().all(|byte| *byte == fill) && (high.is_empty() || (value < 0) == negative);
    fits.then_some(value)
}
