//! What the fuzz targets do with their bytes: all of a file is read the way the program reads it, and whatever is wrong with it
//! has to be an error. A panic, an abort or a hang is the finding.
//!
//! Included by the targets of this folder (libFuzzer) and by a test on stable Rust, which feeds it mutated fixtures.

use checkpoint::{Checkpoint, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use text::{ChatTemplate, EncodeOptions, RenderInput, Tokenizer};

/// Larger tensors are only looked at, not decoded.
const MAX_TENSOR_BYTES: u64 = 1 << 20;
const SENTENCE: &str = "Hello <|im_start|> 123 世界\n\u{feff}é";
const CONFIG: &[u8] =
    br#"{"model_type":"llama","hidden_size":4,"vocab_size":4,"num_hidden_layers":1,"num_attention_heads":1}"#;

/// A folder of its own for one file of the case, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(files: &[(&str, &[u8])]) -> Option<Folder> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = Folder(std::env::temp_dir().join(format!("rustorch-fuzz-{}-{number}", std::process::id())));
        std::fs::create_dir_all(&folder.0).ok()?;
        for (name, bytes) in files {
            std::fs::write(folder.0.join(name), bytes).ok()?;
        }
        Some(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays in the way of nothing is no finding.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Everything that reading a model file comes to.
fn read(path: &Path) {
    let Ok(checkpoint) = Checkpoint::open(path, &OpenOptions::default()) else { return };
    for (key, value) in checkpoint.metadata().iter() {
        let _ = (key.len(), value.as_integer(), value.as_f32(), checkpoint.metadata().string_array(key));
    }
    for tensor in checkpoint.tensors().iter().filter(|tensor| tensor.bytes <= MAX_TENSOR_BYTES).take(64) {
        if let Ok(tensor) = checkpoint.load(&tensor.name) {
            let _ = tensor.to_f32();
            checkpoint.release(&tensor);
        }
    }
    if let Ok(tokenizer) = Tokenizer::from_checkpoint(&checkpoint) {
        let ids = tokenizer.encode(SENTENCE, EncodeOptions { bos_eos: true, special: true });
        let _ = tokenizer.decode(&ids);
        let mut stream = tokenizer.decode_stream();
        for id in ids.into_iter().chain([0, 1, u32::MAX]) {
            let _ = (stream.push(id), tokenizer.token_bytes(id), tokenizer.is_control(id));
        }
        let _ = stream.finish();
    }
    if let Ok(Some(template)) = ChatTemplate::from_checkpoint(&checkpoint) {
        render(&template);
    }
}

fn render(template: &ChatTemplate) {
    let messages = [("system", "s"), ("user", SENTENCE), ("assistant", ""), ("user", "u")];
    let messages = messages.map(|(role, content)| serde_json::json!({"role": role, "content": content}));
    let input = RenderInput { messages: messages.to_vec(), add_generation_prompt: true, ..RenderInput::default() };
    let _ = template.render(&input);
}

/// A GGUF file.
pub(crate) fn gguf(data: &[u8]) {
    if let Some(folder) = Folder::new(&[("m.gguf", data)]) {
        read(&folder.0.join("m.gguf"));
    }
}

/// A Hugging Face folder.
pub(crate) fn safetensors(data: &[u8]) {
    if let Some(folder) = Folder::new(&[("config.json", CONFIG), ("model.safetensors", data)]) {
        read(&folder.0);
    }
}

/// A folder with a PyTorch file.
pub(crate) fn pickle(data: &[u8]) {
    if let Some(folder) = Folder::new(&[("config.json", CONFIG), ("pytorch_model.bin", data)]) {
        read(&folder.0);
    }
}

/// A folder with an ONNX graph.
pub(crate) fn protobuf(data: &[u8]) {
    if let Some(folder) = Folder::new(&[("config.json", CONFIG), ("model.onnx", data)]) {
        read(&folder.0);
    }
}

/// A Hugging Face folder whose tokenizer is in question.
pub(crate) fn tokenizer_json(data: &[u8]) {
    let header = br#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let weights = [(header.len() as u64).to_le_bytes().as_slice(), header, &[0; 4]].concat();
    let files = [("config.json", CONFIG), ("model.safetensors", weights.as_slice()), ("tokenizer.json", data)];
    if let Some(folder) = Folder::new(&files) {
        read(&folder.0);
    }
}

/// A chat template.
pub(crate) fn template(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    if let Ok(template) = ChatTemplate::from_source(source) {
        render(&template);
    }
}
