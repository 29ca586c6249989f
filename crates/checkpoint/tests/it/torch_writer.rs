//! A small writer of PyTorch files: valid ones, and anything a test likes to put in between.

/// A tensor of a pickle, with every number free.
#[derive(Clone)]
pub(crate) struct Tensor {
    /// The class of its storage, with its module: `torch\nFloatStorage`.
    pub(crate) class: &'static str,
    pub(crate) key: String,
    pub(crate) n_elements: i64,
    pub(crate) offset: i64,
    pub(crate) dims: Vec<i64>,
    pub(crate) strides: Vec<i64>,
}

impl Tensor {
    /// In order, alone in the storage `key` of floats.
    pub(crate) fn floats(key: &str, dims: &[i64]) -> Self {
        let strides = (0..dims.len()).map(|i| dims[i + 1..].iter().product()).collect();
        let (key, dims) = (key.to_owned(), dims.to_vec());
        Self { class: "torch\nFloatStorage", key, n_elements: dims.iter().product(), offset: 0, dims, strides }
    }

    /// The program that makes it.
    pub(crate) fn program(&self) -> Vec<u8> {
        let mut out = b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec();
        out.extend(text("storage"));
        out.extend(format!("c{}\n", self.class).as_bytes());
        out.extend([text(&self.key), text("cpu"), number(self.n_elements)].concat());
        out.extend(b"tQ");
        out.extend(number(self.offset));
        for numbers in [&self.dims, &self.strides] {
            out.push(b'(');
            out.extend(numbers.iter().flat_map(|n| number(*n)));
            out.push(b't');
        }
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        out
    }
}

/// A string as protocol 2 writes it.
pub(crate) fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn number(value: i64) -> Vec<u8> {
    [&[0x8a, 8], &value.to_le_bytes()[..]].concat()
}

/// A dictionary of values, each given by its program.
pub(crate) fn dictionary(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<u8> = entries.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [b"}(".to_vec(), entries, b"u".to_vec()].concat()
}

/// A whole pickle of protocol 2.
pub(crate) fn pickle(program: &[u8]) -> Vec<u8> {
    [b"\x80\x02", program, b"."].concat()
}

/// An entry of an archive, with every field free.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) data: Vec<u8>,
    pub(crate) flags: u16,
    pub(crate) method: u16,
    pub(crate) crc: u32,
    /// The sizes to claim instead of the true one.
    pub(crate) stored: Option<u32>,
    pub(crate) size: Option<u32>,
    pub(crate) offset: Option<u32>,
    pub(crate) local_name: Option<Vec<u8>>,
    pub(crate) extra: Vec<u8>,
}

/// An archive as PyTorch writes it: stored entries, aligned to 64 bytes.
#[derive(Clone)]
pub(crate) struct Zip {
    pub(crate) entries: Vec<Entry>,
    /// Write 64-bit records, and nothing but marks in the plain one.
    pub(crate) wide: bool,
    pub(crate) comment: Vec<u8>,
    /// What the end record claims instead of the truth.
    pub(crate) n_entries: Option<u16>,
    pub(crate) start: Option<u32>,
}

impl Zip {
    /// A model of `tensors`, with the bytes of its storages `0`, `1` …
    pub(crate) fn model(program: &[u8], storages: &[&[u8]]) -> Self {
        let zip = Self { entries: Vec::new(), wide: false, comment: Vec::new(), n_entries: None, start: None };
        let zip = zip.with("m/data.pkl", &pickle(program)).with("m/byteorder", b"little");
        let zip = storages.iter().enumerate().fold(zip, |zip, (i, bytes)| zip.with(&format!("m/data/{i}"), bytes));
        zip.with("m/version", b"3\n")
    }

    pub(crate) fn with(mut self, name: &str, data: &[u8]) -> Self {
        let (name, data, crc) = (name.as_bytes().to_vec(), data.to_vec(), crc32(data));
        let (stored, size, offset, local_name) = (None, None, None, None);
        let entry = Entry { name, data, flags: 0, method: 0, crc, stored, size, offset, local_name, extra: Vec::new() };
        self.entries.push(entry);
        self
    }

    pub(crate) fn entry(&mut self, name: &str) -> &mut Entry {
        self.entries.iter_mut().find(|entry| entry.name == name.as_bytes()).unwrap()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut central = Vec::new();
        for entry in &self.entries {
            let local = entry.local_name.as_ref().unwrap_or(&entry.name);
            let start = out.len();
            let padding = (start + 30 + local.len() + 4).next_multiple_of(64) - (start + 30 + local.len() + 4);
            let offset = entry.offset.unwrap_or(start as u32);
            let stored = entry.stored.unwrap_or(entry.data.len() as u32);
            let size = entry.size.unwrap_or(entry.data.len() as u32);
            let sizes = |out: &mut Vec<u8>| {
                for field in [entry.flags, entry.method, 0, 0] {
                    out.extend(field.to_le_bytes());
                }
                for field in [entry.crc, stored, size] {
                    out.extend(field.to_le_bytes());
                }
            };
            out.extend(b"PK\x03\x04\0\0");
            sizes(&mut out);
            out.extend((local.len() as u16).to_le_bytes());
            out.extend((padding as u16 + 4).to_le_bytes());
            out.extend(local);
            out.extend([b"FB", &(padding as u16).to_le_bytes()[..], &vec![b'Z'; padding]].concat());
            out.extend(&entry.data);
            central.extend(b"PK\x01\x02\0\0\0\0");
            sizes(&mut central);
            central.extend((entry.name.len() as u16).to_le_bytes());
            central.extend((entry.extra.len() as u16).to_le_bytes());
            central.extend([0; 10]);
            central.extend(offset.to_le_bytes());
            central.extend([&entry.name[..], &entry.extra].concat());
        }
        let start = out.len() as u64;
        out.extend(&central);
        let n_entries = self.n_entries.unwrap_or(self.entries.len() as u16);
        if self.wide {
            let end = out.len() as u64;
            out.extend(b"PK\x06\x06\x2c\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
            for field in [n_entries.into(), n_entries.into(), central.len() as u64, start] {
                out.extend(field.to_le_bytes());
            }
            out.extend([&b"PK\x06\x07\0\0\0\0"[..], &end.to_le_bytes(), &[1, 0, 0, 0]].concat());
        }
        let narrow = |value: u32| if self.wide { u32::MAX } else { value };
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend(n_entries.to_le_bytes());
        out.extend(n_entries.to_le_bytes());
        out.extend(narrow(central.len() as u32).to_le_bytes());
        out.extend(narrow(self.start.unwrap_or(start as u32)).to_le_bytes());
        out.extend((self.comment.len() as u16).to_le_bytes());
        out.extend(&self.comment);
        out
    }
}

/// A file as PyTorch wrote it before 1.6: `storages` are keys, numbers of elements and bytes.
pub(crate) fn legacy(machine: &[u8], program: &[u8], storages: &[(&str, i64, &[u8])]) -> Vec<u8> {
    let mut out = pickle(b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19");
    out.extend(pickle(b"M\xe9\x03"));
    out.extend(pickle(machine));
    out.extend(pickle(program));
    let keys: Vec<u8> = storages.iter().flat_map(|(key, ..)| text(key)).collect();
    out.extend(pickle(&[b"](".to_vec(), keys, b"e".to_vec()].concat()));
    for (_, count, bytes) in storages {
        out.extend(count.to_le_bytes());
        out.extend(*bytes);
    }
    out
}

/// The checksum of zip archives, bit by bit.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1)))
    })
}
