//! Tiny GGUF files made in memory (the GGUF specification, version 3), so that a test can break one thing of a good model.

use checkpoint::{Checkpoint, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A metadata value.
#[derive(Clone)]
pub(crate) enum Meta {
    U32(u32),
    F32(f32),
    Text(&'static str),
    Counts(Vec<u32>),
    Flags(Vec<bool>),
}

/// A file in the making: keys and float tensors (dimensions outermost first).
#[derive(Clone, Default)]
pub(crate) struct Made {
    pub(crate) keys: Vec<(String, Meta)>,
    pub(crate) tensors: Vec<(String, Vec<usize>)>,
}

impl Made {
    /// A good two-layer model of an architecture: width 16, 4 heads of 4, 2 of them for keys, 32 tokens.
    pub(crate) fn good(architecture: &'static str) -> Made {
        let mut made = Made::default();
        made.set("general.architecture", Meta::Text(architecture));
        for (key, value) in [
            ("context_length", 64),
            ("embedding_length", 16),
            ("block_count", 2),
            ("feed_forward_length", 24),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
        ] {
            made.set(&format!("{architecture}.{key}"), Meta::U32(value));
        }
        made.set(&format!("{architecture}.attention.layer_norm_rms_epsilon"), Meta::F32(1e-5));
        made.tensor("token_embd.weight", &[32, 16]);
        made.tensor("output_norm.weight", &[16]);
        for i in 0..2 {
            for (part, shape) in [
                ("attn_norm", &[16][..]),
                ("attn_q", &[16, 16]),
                ("attn_k", &[8, 16]),
                ("attn_v", &[8, 16]),
                ("attn_output", &[16, 16]),
                ("ffn_norm", &[16]),
                ("ffn_gate", &[24, 16]),
                ("ffn_up", &[24, 16]),
                ("ffn_down", &[16, 24]),
            ] {
                made.tensor(&format!("blk.{i}.{part}.weight"), shape);
            }
        }
        made
    }

    /// Sets or replaces a key.
    pub(crate) fn set(&mut self, key: &str, value: Meta) {
        self.unset(key);
        self.keys.push((key.to_owned(), value));
    }

    pub(crate) fn unset(&mut self, key: &str) {
        self.keys.retain(|(k, _)| k != key);
    }

    /// Adds or replaces a tensor.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) {
        self.without(name);
        self.tensors.push((name.to_owned(), shape.to_vec()));
    }

    pub(crate) fn without(&mut self, name: &str) {
        self.tensors.retain(|(n, _)| n != name);
    }

    /// Writes and opens it.
    pub(crate) fn open(&self) -> Checkpoint {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> checkpoint::Result<Checkpoint> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("made-{}-{number}.gguf", std::process::id()));
        std::fs::write(&path, self.bytes()).unwrap();
        let checkpoint = Checkpoint::open(&path, &OpenOptions { mmap: false, ..OpenOptions::default() });
        std::fs::remove_file(&path).unwrap();
        checkpoint
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\x00\x00\x00".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            text(&mut out, key);
            write_value(&mut out, value);
        }
        let mut offset = 0u64;
        for (name, shape) in &self.tensors {
            text(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|&d| out.extend((d as u64).to_le_bytes()));
            out.extend(0u32.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += (shape.iter().product::<usize>() as u64 * 4).next_multiple_of(32);
        }
        out.resize(out.len().next_multiple_of(32) + offset as usize, 0);
        out
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: &Meta) {
    let kind = |out: &mut Vec<u8>, number: u32| out.extend(number.to_le_bytes());
    match value {
        Meta::U32(v) => {
            kind(out, 4);
            out.extend(v.to_le_bytes());
        }
        Meta::F32(v) => {
            kind(out, 6);
            out.extend(v.to_le_bytes());
        }
        Meta::Text(v) => {
            kind(out, 8);
            text(out, v);
        }
        Meta::Counts(values) => {
            kind(out, 9);
            kind(out, 4);
            out.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|v| out.extend(v.to_le_bytes()));
        }
        Meta::Flags(values) => {
            kind(out, 9);
            kind(out, 7);
            out.extend((values.len() as u64).to_le_bytes());
            out.extend(values.iter().map(|&v| u8::from(v)));
        }
    }
}
