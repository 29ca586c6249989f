//! A small GGUF writer: makes valid files, and lets a test put anything it likes in between.

/// The pieces of a GGUF file, each already in bytes.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) magic: Vec<u8>,
    pub(crate) version: u32,
    /// Counts to write instead of the true ones.
    pub(crate) n_tensors: Option<u64>,
    pub(crate) n_keys: Option<u64>,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) tensors: Vec<Vec<u8>>,
    pub(crate) alignment: usize,
    pub(crate) data: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self {
            magic: b"GGUF".to_vec(),
            version: 3,
            n_tensors: None,
            n_keys: None,
            keys: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            data: Vec::new(),
        }
    }

    /// A few keys of every kind and two tensors: `a` (f32, 2 × 4) and `b` (q8_0, 1 × 32).
    pub(crate) fn small() -> Self {
        Self::new()
            .key("general.architecture", 8, &string(b"llama"))
            .key("n.u32", 4, &7u32.to_le_bytes())
            .key("n.i64", 11, &(-5i64).to_le_bytes())
            .key("n.f32", 6, &1.5f32.to_le_bytes())
            .key("n.bool", 7, &[1])
            .key("words", 9, &array(8, 3, &[string(b"a"), string(b""), string("\u{e9}".as_bytes())].concat()))
            .key("numbers", 9, &array(5, 2, &[1, 0, 0, 0, 255, 255, 255, 255]))
            .tensor("a", &[4, 2], 0, &[0x3f; 32])
            .tensor("b", &[32, 1], 8, &[1; 34])
    }

    pub(crate) fn key(mut self, key: &str, value_type: u32, value: &[u8]) -> Self {
        self.keys.push([&string(key.as_bytes()), &value_type.to_le_bytes()[..], value].concat());
        self
    }

    pub(crate) fn raw_key(mut self, bytes: &[u8]) -> Self {
        self.keys.push(bytes.to_vec());
        self
    }

    /// A tensor whose data is appended to what is there, aligned. `ne`: fastest dimension first.
    pub(crate) fn tensor(mut self, name: &str, ne: &[u64], dtype: u32, data: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        let offset = self.data.len() as u64;
        self.data.extend(data);
        self.tensor_at(name, ne, dtype, offset)
    }

    /// A directory entry only.
    pub(crate) fn tensor_at(mut self, name: &str, ne: &[u64], dtype: u32, offset: u64) -> Self {
        let dims: Vec<u8> = ne.iter().flat_map(|d| d.to_le_bytes()).collect();
        let n_dims = (ne.len() as u32).to_le_bytes();
        let rest = [&n_dims[..], &dims, &dtype.to_le_bytes(), &offset.to_le_bytes()].concat();
        self.tensors.push([string(name.as_bytes()), rest].concat());
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.clone();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_keys.unwrap_or(self.keys.len() as u64).to_le_bytes());
        out.extend(self.keys.concat());
        out.extend(self.tensors.concat());
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(&self.data);
        out
    }
}

pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

pub(crate) fn array(element_type: u32, len: u64, elements: &[u8]) -> Vec<u8> {
    [&element_type.to_le_bytes(), &len.to_le_bytes()[..], elements].concat()
}
