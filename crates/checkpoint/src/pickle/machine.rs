//! The stack machine that a pickle is a program for, with every opcode type-checked and nothing called.

use super::{
    Fault, Read, bad,
    construct::dotted,
    memo::Memo,
    node::{Id, Node, Pickle},
    opcode as op,
    program::{Integer, Program, truncated},
};
use crate::limits;

/// Nodes that every pickle shares, at fixed places of the arena.
const NONE: Id = Id(0);
const TRUE: Id = Id(1);
const FALSE: Id = Id(2);
const FLOAT: Id = Id(3);
const BYTES: Id = Id(4);
pub(super) const OPAQUE: Id = Id(5);
pub(super) const EMPTY_TUPLE: Id = Id(6);

/// Reads the pickle that `bytes` begins with. What follows it is not looked at.
pub(crate) fn read(bytes: &[u8]) -> Read<Pickle<'_>> {
    let mut machine = Machine::new(bytes);
    match machine.run() {
        Ok(root) => Ok(Pickle { nodes: machine.nodes, root, len: machine.program.at() }),
        Err(fault) => Err(machine.placed(fault)),
    }
}

pub(super) struct Machine<'a> {
    pub(super) program: Program<'a>,
    /// The opcode that is being obeyed, and where it is.
    pub(super) opcode: u8,
    opcode_at: usize,
    pub(super) nodes: Vec<Node<'a>>,
    /// How deep each node nests: 0 for what holds nothing.
    depths: Vec<u16>,
    /// Nodes and copied elements paid for.
    spent: usize,
    stack: Vec<Id>,
    /// Heights of the stack where `MARK` was.
    marks: Vec<usize>,
    memo: Memo,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let empty = Node::Tuple(Box::default());
        let nodes =
            vec![Node::None, Node::Bool(true), Node::Bool(false), Node::Float, Node::Bytes, Node::Opaque, empty];
        let depths = vec![0; nodes.len()];
        Self {
            program: Program::new(bytes),
            opcode: 0,
            opcode_at: 0,
            nodes,
            depths,
            spent: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Memo::default(),
        }
    }

    /// Says where in the pickle the fault is.
    fn placed(&self, fault: Fault) -> Fault {
        let place = |problem: String| format!("opcode {} at byte {}: {problem}", op::name(self.opcode), self.opcode_at);
        match fault {
            Fault::Truncated(_) if self.opcode_at == self.program.len() => {
                Fault::Truncated(format!("truncated: the pickle ends after {} bytes without STOP", self.program.len()))
            }
            Fault::Truncated(problem) => Fault::Truncated(place(problem)),
            Fault::Bad(problem) => Fault::Bad(place(problem)),
            Fault::Forbidden(problem) => Fault::Forbidden(place(problem)),
        }
    }

    fn run(&mut self) -> Read<Id> {
        loop {
            self.opcode_at = self.program.at();
            self.opcode = self.program.u8()?;
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
                let version = self.program.u8()?;
                if version <= 5 { Ok(()) } else { bad(format!("protocol {version} is unknown (0 to 5 are supported)")) }
            }
            // A hint for readers of streams. Its length is a claim like any other.
            op::FRAME => {
                let len = self.program.u64()?;
                let left = self.program.left() as u64;
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
                self.program.line()?;
                self.push(FLOAT)
            }
            op::BINFLOAT => {
                self.program.take(8)?;
                self.push(FLOAT)
            }
            op::STRING | op::BINSTRING | op::SHORT_BINSTRING => self.string(),
            op::UNICODE | op::BINUNICODE | op::SHORT_BINUNICODE | op::BINUNICODE8 => self.text(),
            op::BINBYTES | op::SHORT_BINBYTES | op::BINBYTES8 | op::BYTEARRAY8 => {
                self.program.byte_string(self.opcode)?;
                self.push(BYTES)
            }
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
                let (module, name) = (self.program.line()?, self.program.line()?);
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

    // The arena and the stack.

    /// Pays for `n` nodes or copied elements.
    pub(super) fn charge(&mut self, n: usize) -> Read<()> {
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

    pub(super) fn push(&mut self, id: Id) -> Read<()> {
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn push_node(&mut self, node: Node<'a>, depth: u16) -> Read<()> {
        let id = self.add(node, depth)?;
        self.push(id)
    }

    pub(super) fn node(&self, id: Id) -> &Node<'a> {
        self.nodes.get(id.0 as usize).unwrap_or(&Node::Opaque)
    }

    /// The depth of something that holds `ids`. Error: nested too deep.
    pub(super) fn depth_above(&self, ids: &[Id]) -> Read<u16> {
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

    pub(super) fn top(&self) -> Read<&Id> {
        match self.stack.last() {
            Some(top) if self.stack.len() > self.floor() => Ok(top),
            _ => bad("stack underflow: the stack has no value left"),
        }
    }

    pub(super) fn pop(&mut self) -> Read<Id> {
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

    pub(super) fn pop_array<const N: usize>(&mut self) -> Read<[Id; N]> {
        let mut popped = [NONE; N];
        for slot in popped.iter_mut().rev() {
            *slot = self.pop()?;
        }
        Ok(popped)
    }

    // Numbers and strings.

    fn integer(&mut self) -> Read<()> {
        match self.program.integer(self.opcode)? {
            Integer::Bool(value) => self.push(if value { TRUE } else { FALSE }),
            Integer::Small(value) => self.push_node(Node::Int(value), 0),
            Integer::Long(bytes) => self.push_node(Node::Long(bytes), 0),
        }
    }

    /// Strings of Python 2 kept bytes as well, so what is no text is no fault.
    fn string(&mut self) -> Read<()> {
        match std::str::from_utf8(self.program.string(self.opcode)?) {
            Ok(text) => self.push_node(Node::Text(text), 0),
            Err(_) => self.push(BYTES),
        }
    }

    fn text(&mut self) -> Read<()> {
        let text = self.program.text(self.opcode)?;
        self.push_node(Node::Text(text), 0)
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
            op::BINGET => self.program.u8()?.into(),
            op::LONG_BINGET => self.program.u32()?.into(),
            _ => self.program.decimal()?,
        };
        match self.memo.get(index) {
            Some(id) => self.push(id),
            None => bad(format!("invalid: nothing was kept under number {index}")),
        }
    }

    fn memoize(&mut self) -> Read<()> {
        let index: u64 = match self.opcode {
            op::BINPUT => self.program.u8()?.into(),
            op::LONG_BINPUT => self.program.u32()?.into(),
            op::MEMOIZE => self.memo.next(),
            _ => self.program.decimal()?,
        };
        let top = *self.top()?;
        self.charge(1)?;
        self.memo.insert(index, top)
    }
}

fn kind(node: Option<&Node<'_>>) -> &'static str {
    node.map_or("nothing", Node::kind)
}
