//! `imatrix` and `convert --imatrix`: the file that other software reads, errors where they matter least, clear refusals.

use crate::support::{Home, fixture, llama};
use checkpoint::{Checkpoint, Importance, OpenOptions};
use std::path::Path;

const TEXT: &str =
    "The little dog saw a big red ball. 1, 2, 3! \"Hello\", said the boy, and they all went home together. ";

fn run_imatrix(home: &Home, model: &str, text: &str, out: &str, more: &[&str]) -> String {
    home.file("text.txt", text);
    let base = ["imatrix", "--model", model, "--file", "text.txt", out];
    home.run(&[&base[..], more].concat()).ends_with(0).err
}

/// What the columns of a layer are multiplied with, and the file as other software reads it.
#[test]
fn the_file_is_that_of_llama_cpp() {
    let (home, model) = (Home::new(), llama());
    let err = run_imatrix(&home, model.to_str().unwrap(), &TEXT.repeat(20), "i.gguf", &["--ctx", "64"]);
    assert!(err.contains("windows of 64 tokens") && err.contains("perplexity"), "{err}");
    let file = Checkpoint::open(&home.path().join("i.gguf"), &OpenOptions::default()).unwrap();
    let metadata = file.metadata();
    assert_eq!(metadata.str("general.type").unwrap(), Some("imatrix"));
    assert_eq!(metadata.u32("imatrix.chunk_size").unwrap(), Some(64));
    let n_windows = metadata.u32("imatrix.chunk_count").unwrap().unwrap();
    assert!(n_windows > 4, "{n_windows}");
    let datasets = metadata.string_array("imatrix.datasets").unwrap().unwrap();
    assert_eq!(datasets.get(0), Some(b"text.txt".as_slice()));
    // Every row of every window counts, in the last layer too.
    let source = Checkpoint::open(&model, &OpenOptions::default()).unwrap();
    let mut n = 0;
    for tensor in source.tensors().iter().filter(|t| t.name.starts_with("blk.") && t.shape.dims().len() == 2) {
        let sums = file.load(&format!("{}.in_sum2", tensor.name)).unwrap();
        assert_eq!(sums.shape().dims(), [1, tensor.shape.row_len()], "{}", tensor.name);
        let counts = file.load(&format!("{}.counts", tensor.name)).unwrap();
        assert_eq!(counts.shape().dims(), [1, 1], "{}", tensor.name);
        assert_eq!(counts.to_f32().unwrap(), [64.0 * n_windows as f32], "{}", tensor.name);
        assert!(sums.to_f32().unwrap().iter().all(|sum| *sum > 0.0), "{}", tensor.name);
        n += 1;
    }
    assert_eq!(file.tensors().len(), 2 * n);
}

/// Mean divergence (Kullback and Leibler) of a model's predictions from another's, over the rows of `tokens`.
fn divergence(home: &Home, reference: &Path, model: &Path, tokens: &str) -> f64 {
    let logits = |model: &Path| -> Vec<f32> {
        let model = model.to_str().unwrap();
        home.run(&["logits", "--model", model, "--tokens", tokens, "--precision", "f32", "--out", "l.npy"])
            .ends_with(0);
        let bytes = std::fs::read(home.path().join("l.npy")).unwrap();
        let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        bytes[start..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let (p, q) = (logits(reference), logits(model));
    let n_vocab = p.len() / tokens.split(',').count();
    let log_softmax = |row: &[f32]| -> Vec<f64> {
        let most = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum = row.iter().map(|x| (f64::from(*x) - most).exp()).sum::<f64>().ln() + most;
        row.iter().map(|x| f64::from(*x) - sum).collect()
    };
    let rows = p.chunks(n_vocab).zip(q.chunks(n_vocab)).map(|(p, q)| {
        let (p, q) = (log_softmax(p), log_softmax(q));
        p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
    });
    let rows: Vec<f64> = rows.collect();
    rows.iter().sum::<f64>() / rows.len() as f64
}

/// A trained model measured on stories of its own, and held against others of its own.
#[test]
fn predictions_stay_nearer() {
    let Some(model) = fixture("stories260K/gguf/stories260K-f32.gguf") else { return };
    let home = Home::new();
    let name = model.to_str().unwrap();
    let story = |seed: &str| {
        let base = ["--model", name, "--raw", "-p", "Once upon a time", "-n", "400", "--temperature", "1"];
        home.run(&[&base[..], &["--seed", seed, "--ctx", "512", "--ephemeral"]].concat()).ends_with(0).text().to_owned()
    };
    let stories: String = ["1", "2", "3", "4", "5", "6", "7", "8"].map(story).concat();
    run_imatrix(&home, name, &stories, "i.gguf", &["--ctx", "128"]);
    let held = home.run_with(&["tokenize", "--model", name], Some([story("11"), story("12")].concat().as_bytes()));
    let held = held.ends_with(0).json();
    let held: Vec<String> = held.as_array().unwrap().iter().take(500).map(ToString::to_string).collect();
    let tokens = held.join(",");
    for kind in ["Q4_0", "Q4_1", "IQ4_NL"] {
        let convert = |out: &str, more: &[&str]| {
            let base = ["convert", name, out, "--type", kind, "--force"];
            home.run(&[&base[..], more].concat()).ends_with(0);
            divergence(&home, &model, &home.path().join(out), &tokens)
        };
        let (plain, weighted) = (convert("p.gguf", &[]), convert("w.gguf", &["--imatrix", "i.gguf"]));
        println!("{kind}: divergence {plain:.6} without, {weighted:.6} with an importance matrix");
        assert!(weighted < plain, "{kind}: {weighted} and {plain} without");
    }
    let metadata = home.run(&["inspect", "--model", "w.gguf", "--json"]).ends_with(0).json()["metadata"].clone();
    assert_eq!(metadata["quantize.imatrix.file"], "i.gguf");
    assert_eq!(metadata["quantize.imatrix.dataset"], "text.txt");
    assert_eq!(metadata["quantize.imatrix.entries_count"], 5 * 7);
}

/// Experts are measured one by one, and the older layout is read as well.
#[test]
fn experts_and_the_older_layout() {
    let (home, model) = (Home::new(), fixture("archs/qwen3_moe/model.gguf").unwrap());
    let name = model.to_str().unwrap();
    let source = Checkpoint::open(&model, &OpenOptions::default()).unwrap();
    if source.metadata().get("tokenizer.ggml.tokens").is_none() {
        return println!("skipped: the model has no tokenizer");
    }
    run_imatrix(&home, name, TEXT, "i.gguf", &[]);
    let read = Importance::read(&home.path().join("i.gguf")).unwrap();
    let experts = &read.entries["blk.0.ffn_down_exps.weight"];
    assert_eq!(experts.len(), source.tensor("blk.0.ffn_down_exps.weight").unwrap().shape.elements() / 64);
    let number = |n: usize| (n as i32).to_le_bytes().to_vec();
    let mut old = number(read.entries.len());
    for (name, means) in &read.entries {
        old.extend([number(name.len()), name.clone().into_bytes(), number(1), number(means.len())].concat());
        old.extend(means.iter().flat_map(|mean| mean.to_le_bytes()));
    }
    std::fs::write(home.path().join("i.dat"), old).unwrap();
    for matrix in ["i.gguf", "i.dat"] {
        home.run(&["convert", name, &format!("{matrix}.out.gguf"), "--type", "Q4_0", "--imatrix", matrix]).ends_with(0);
    }
    let tensors = |name: &str| {
        let file = Checkpoint::open(&home.path().join(name), &OpenOptions::default()).unwrap();
        file.tensors().iter().map(|t| file.load(&t.name).unwrap().bytes().to_vec()).collect::<Vec<_>>()
    };
    assert!(tensors("i.gguf.out.gguf") == tensors("i.dat.out.gguf"));
}

#[test]
fn refusals() {
    let (home, model) = (Home::new(), llama());
    let name = model.to_str().unwrap();
    home.file("empty.txt", "");
    home.file("there.gguf", "mine");
    let base = ["imatrix", "--model", name];
    let rows: &[(&[&str], i32, &str)] = &[
        (&["--file", "text.txt", "i.dat"], 2, ".gguf"),
        (&["--file", "text.txt", "there.gguf"], 2, "--force"),
        (&["--file", "none.txt", "i.gguf"], 2, "none.txt"),
        (&["--file", "empty.txt", "i.gguf"], 2, "two tokens"),
        (&["i.gguf"], 2, "file"),
    ];
    home.file("text.txt", TEXT);
    for (arguments, code, expected) in rows {
        let ran = home.run(&[&base[..], arguments].concat()).ends_with(*code);
        assert!(ran.err.contains(expected), "{arguments:?}: {}", ran.err);
    }
    assert!(!home.path().join("i.gguf").exists());
    run_imatrix(&home, name, TEXT, "i.gguf", &[]);
    // Of a model with other matrices, and of one without any of these names.
    let other = fixture("quants/Q4_K_M.gguf").unwrap();
    let other = other.to_str().unwrap();
    let mut unknown = std::fs::read(home.path().join("i.gguf")).unwrap();
    while let Some(found) = unknown.windows(4).position(|four| four == b"blk.") {
        unknown[found..found + 4].copy_from_slice(b"xyz.");
    }
    std::fs::write(home.path().join("unknown.gguf"), unknown).unwrap();
    let rows: &[(&[&str], i32, &str)] = &[
        (&[name, "o.gguf", "--imatrix", "i.gguf"], 2, "--type"),
        (&[name, "o.gguf", "--imatrix", "i.gguf", "--type", "F16"], 2, "--type"),
        (&[name, "o.gguf", "--imatrix", "text.txt", "--type", "Q4_0"], 3, "text.txt"),
        (&[name, "o.gguf", "--imatrix", name, "--type", "Q4_0"], 3, "is a model"),
        (&[name, "o.gguf", "--imatrix", "unknown.gguf", "--type", "Q4_0"], 3, "another model"),
        (&[other, "o.gguf", "--imatrix", "i.gguf", "--type", "Q4_0"], 3, "columns"),
    ];
    for (arguments, code, expected) in rows {
        let ran = home.run(&[&["convert"], *arguments].concat()).ends_with(*code);
        assert!(ran.err.contains(expected), "{arguments:?}: {}", ran.err);
        assert!(!home.path().join("o.gguf").exists(), "{arguments:?}");
    }
}
