//! Figures for a report, not assertions: `cargo test --release -- --ignored --nocapture speed`.

use std::time::Instant;

use checkpoint::{Checkpoint, OpenOptions};
use text::{EncodeOptions, Tokenizer};

use crate::fixtures;

#[test]
#[ignore = "measures, and asserts nothing"]
fn speed_of_start_and_encoding() {
    let Some(folder) = fixtures::find("tokenizers/gguf-vocab") else { return };
    let prose = fixtures::json(&folder.join("qwen2.json"))["cases"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|case| case["text"].as_str().filter(|text| text.len() < 2000))
        .collect::<Vec<_>>()
        .join(" ");
    let mixed = prose.repeat((4 << 20) / prose.len());
    let english = "The quick brown fox jumps over the lazy dog, and 12 others follow it home.\n".repeat(50_000);
    for name in ["qwen2", "llama-bpe", "gpt-2", "llama-spm"] {
        let path = folder.join(format!("ggml-vocab-{name}.gguf"));
        for _ in 0..3 {
            let start = Instant::now();
            let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
            let opened = start.elapsed();
            let tokenizer = Tokenizer::from_checkpoint(&checkpoint).unwrap();
            let ready = start.elapsed();
            tokenizer.encode("a", EncodeOptions::default());
            println!(
                "{name}: file {opened:?}, tokenizer {:?}, first text {:?}",
                ready - opened,
                start.elapsed() - ready
            );
        }
        let tokenizer = Tokenizer::from_checkpoint(&Checkpoint::open(&path, &OpenOptions::default()).unwrap()).unwrap();
        let aaa = "a".repeat(1 << 20);
        for (what, text) in [("mixed", &mixed), ("english", &english), ("one letter", &aaa)] {
            let start = Instant::now();
            let n = tokenizer.encode(text, EncodeOptions { bos_eos: true, special: true }).len();
            let seconds = start.elapsed().as_secs_f64();
            println!("{name}: {what}: {n} tokens, {:.1} MB/s", text.len() as f64 / seconds / 1e6);
        }
    }
}
