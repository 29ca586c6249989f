//! Which words may be said where: family names, block types, formats, devices, environment variables.
//!
//! Comments may say anything; code and string literals outside tests are held to these lists.

use super::{Allowed, Finding, allowed, over_shipped};
use crate::project::Project;
use crate::source::{Line, has, is_name, names, parts};

/// Names of model families. A name with a number behind it counts as well.
const FAMILIES: &[&str] = &[
    "bloom",
    "chatglm",
    "cohere",
    "deepseek",
    "falcon",
    "gemma",
    "gpt",
    "gptneox",
    "granite",
    "internlm",
    "llama",
    "mamba",
    "minicpm",
    "mistral",
    "mixtral",
    "mpt",
    "nemotron",
    "olmo",
    "phi",
    "qwen",
    "rwkv",
    "smollm",
    "stablelm",
    "starcoder",
];

/// The first family named on the line. The program llama.cpp is not a family.
fn family(line: &Line) -> Option<&str> {
    names(&line.words).find_map(|(at, name)| {
        let is_family = parts(name).iter().any(|part| {
            FAMILIES.iter().any(|f| {
                part.strip_prefix(f).is_some_and(|r| r.is_empty() || r.starts_with(|c: char| c.is_ascii_digit()))
            })
        });
        let program = line.words.get(at..).is_some_and(|rest| rest.starts_with("llama.cpp"));
        (is_family && !program).then_some(name)
    })
}

const FAMILY_PLACES: &[Allowed] = &[
    Allowed { path: "crates/model/src/arch/", reason: "the records themselves" },
    Allowed {
        path: "crates/text/src/tokenizer/",
        reason: "GGUF names tokenizer kinds and pre-tokenizers after families",
    },
    Allowed {
        path: "crates/rustorch-cli/src/stores.rs",
        reason: "programs and their variables are named after families",
    },
    Allowed {
        path: "crates/text/src/template/",
        reason: "the built-in chat templates carry the names users know them by",
    },
];

pub(super) fn families(project: &Project) -> Vec<Finding> {
    over_shipped(project, |file, line| {
        if allowed(FAMILY_PLACES, &file.path) {
            return None;
        }
        family(line).map(|name| format!("names a model family (`{name}`)"))
    })
}

/// The first of `words` that a name on the line has as a part.
fn says<'a>(line: &Line, words: &[&'a str]) -> Option<&'a str> {
    names(&line.words).find_map(|(_, name)| {
        let parts = parts(name);
        words.iter().copied().find(|w| parts.iter().any(|p| p == w))
    })
}

const TRANSFORMER_PLACES: &[Allowed] = &[
    Allowed {
        path: "crates/checkpoint/src/format/hugging_face.rs",
        reason: "names a key of tokenizer_config.json that it skips",
    },
    Allowed {
        path: "crates/checkpoint/src/format/onnx/",
        reason: "operators of graphs, and the modules that graphs are exported from, are called after what they compute",
    },
];

pub(super) fn checkpoint(project: &Project) -> Vec<Finding> {
    const WORDS: &[&str] = &["attention", "attn", "decoder", "ffn", "logits", "rope", "sampler", "transformer"];
    over_shipped(project, |file, line| {
        let held = file.crate_name() == Some("checkpoint") && !allowed(TRANSFORMER_PLACES, &file.path);
        let word = held.then(|| says(line, WORDS))??;
        Some(format!("speaks of transformers (`{word}`)"))
    })
}

const FORMAT_PLACES: &[Allowed] = &[Allowed {
    path: "crates/model/src/hugging_face.rs",
    reason: "a configuration's name of an activation has a framework's name in it",
}];

pub(super) fn model(project: &Project) -> Vec<Finding> {
    const WORDS: &[&str] =
        &["avx", "cpu", "cuda", "gguf", "gpu", "metal", "mlx", "neon", "onnx", "opencl", "pytorch", "safetensors"];
    over_shipped(project, |file, line| {
        let held = file.crate_name() == Some("model") && !allowed(FORMAT_PLACES, &file.path);
        let word = held.then(|| says(line, WORDS))??;
        Some(format!("names a format or device (`{word}`)"))
    })
}

pub(super) fn text(project: &Project) -> Vec<Finding> {
    const NAMES: &[&str] = &["HostTensor", "TensorInfo", "DType", "tensor::", "compute::"];
    let mut findings = over_shipped(project, |file, line| {
        let name = (file.crate_name() == Some("text")).then(|| NAMES.iter().find(|n| has(&line.code, n)))??;
        Some(format!("names tensors (`{name}`)"))
    });
    if let Some(manifest) = project.file("crates/text/Cargo.toml") {
        for (number, line) in (1..).zip(manifest.text.lines()) {
            if ["tensor", "compute", "model"].iter().any(|n| has(line, n)) {
                findings.push(Finding::new(&manifest.path, number, "`text` depends on a crate of tensors"));
            }
        }
    }
    findings
}

const BLOCK_PLACES: &[Allowed] = &[
    Allowed { path: "crates/tensor/src/dtype.rs", reason: "the table of types" },
    Allowed { path: "crates/tensor/src/block/", reason: "one file per type" },
    Allowed { path: "crates/checkpoint/src/format/gguf.rs", reason: "names the types that it has to refuse" },
    Allowed { path: "crates/checkpoint/src/format/mlx.rs", reason: "one of its modes is called like its block type" },
    Allowed { path: "crates/checkpoint/src/format/fp4.rs", reason: "a method that is called like its block type" },
    Allowed { path: "crates/model/src/cache.rs", reason: "the element type of each cache type" },
    Allowed { path: "crates/compute/src/device/cache.rs", reason: "the cache types, of which one is a block type" },
    Allowed { path: "crates/compute/src/cpu/", reason: "kernels" },
    Allowed { path: "crates/compute/src/gpu/", reason: "kernels" },
    Allowed { path: "crates/compute/src/kernels/", reason: "kernels" },
    Allowed { path: "crates/rustorch-cli/src/settings/", reason: "the cache types as a user spells them" },
    Allowed { path: "crates/rustorch-cli/src/fitting.rs", reason: "advises a cache type, as a user spells it" },
    Allowed { path: "crates/rustorch-cli/src/tool/convert/", reason: "examples of types, as a user spells them" },
    Allowed { path: "crates/rustorch-cli/src/loading.rs", reason: "advises a cache type, as a user spells it" },
];

/// The first block type named on the line (`Q4_0`, `IQ4_XS`, `dot_q4_k`); a cache type (`KvType::…`) is a setting.
fn block(line: &Line) -> Option<&str> {
    names(&line.words).find_map(|(at, name)| {
        let cache_type = line.words.get(..at).is_some_and(|before| before.ends_with("KvType::"));
        (!cache_type && is_block(name)).then_some(name)
    })
}

fn is_block(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    if parts(&lower).iter().any(|p| p == "mxfp" || p == "nvfp") {
        return true;
    }
    let pieces: Vec<&str> = lower.split('_').collect();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_affine = |pair: &[&str]| {
        let [head, tail] = pair else { return false };
        head.strip_prefix("affine").is_some_and(is_number) && is_number(tail)
    };
    if pieces.windows(2).any(is_affine) {
        return true;
    }
    pieces.windows(2).any(|pair| {
        let [head, tail] = pair else { return false };
        let digits = head.strip_prefix("iq").or_else(|| head.strip_prefix("tq")).or_else(|| head.strip_prefix('q'));
        digits.is_some_and(|d| d.len() == 1 && d.starts_with(|c: char| c.is_ascii_digit()))
            && matches!(*tail, "0" | "1" | "k" | "s" | "m" | "nl" | "xs" | "xxs")
    })
}

pub(super) fn blocks(project: &Project) -> Vec<Finding> {
    over_shipped(project, |file, line| {
        if allowed(BLOCK_PLACES, &file.path) {
            return None;
        }
        block(line).map(|name| format!("names a block type (`{name}`)"))
    })
}

pub(super) fn whole_prefixes(project: &Project) -> Vec<Finding> {
    const NAMES: &[&str] = &["KvCache", "Batch", ".forward(", "new_cache"];
    over_shipped(project, |file, line| {
        let program = file.crate_name().is_some_and(|c| c.starts_with("rustorch-"));
        let name = program.then(|| NAMES.iter().find(|n| has(&line.code, n)))??;
        Some(format!("reaches past the engine (`{name}`)"))
    })
}

const VARIABLE_PLACES: &[Allowed] = &[
    Allowed { path: "crates/rustorch-cli/src/settings/", reason: "the table" },
    Allowed { path: "crates/rustorch-server/src/settings/", reason: "the table" },
];

pub(super) fn settings(project: &Project) -> Vec<Finding> {
    over_shipped(project, |file, line| {
        let at = line.words.find("RUSTORCH_")?;
        let name: String = line.words.get(at..)?.chars().take_while(|c| is_name(*c)).collect();
        (!allowed(VARIABLE_PLACES, &file.path)).then(|| format!("spells an environment variable (`{name}`)"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::check_rule;

    fn row(rule: fn(&Project) -> Vec<Finding>, path: &str, text: &str, caught: bool) {
        let expected: &[(&str, usize)] = if caught { &[(path, 1)] } else { &[] };
        check_rule(rule, &[(path, text)], expected);
    }

    #[test]
    fn families_stay_in_their_folder() {
        let check = |path: &str, text: &str, caught: bool| row(families, path, text, caught);
        check("crates/engine/src/a.rs", "if name == \"llama\" {}", true);
        check("crates/engine/src/a.rs", "fn is_qwen3moe() {}", true);
        check("crates/engine/src/a.rs", "Gemma2Norm", true);
        check("crates/engine/src/a.rs", "// as Llama does", false);
        check("crates/engine/src/a.rs", "\"as llama.cpp does\"", false);
        check("crates/engine/src/a.rs", "let ollama = 1;", false);
        check("crates/engine/src/a.rs", "#[cfg(test)] mod t { const X: &str = \"llama\"; }", false);
        check("crates/model/src/arch/llama.rs", "\"llama\"", false);
        check("crates/engine/tests/it/a.rs", "\"llama\"", false);
    }

    #[test]
    fn checkpoint_model_and_text_keep_to_their_words() {
        row(checkpoint, "crates/checkpoint/src/a.rs", "let n_attn = 1;", true);
        row(checkpoint, "crates/checkpoint/src/a.rs", "// attention", false);
        row(checkpoint, "crates/model/src/a.rs", "let attention = 1;", false);
        row(model, "crates/model/src/a.rs", "compute::cpu::CpuDevice", true);
        row(model, "crates/model/src/a.rs", "checkpoint.format() == \"gguf\"", true);
        row(model, "crates/model/src/a.rs", "// GGUF permutes", false);
        row(text, "crates/text/src/a.rs", "use tensor::DType;", true);
        row(text, "crates/text/Cargo.toml", "tensor.workspace = true", true);
        row(text, "crates/text/Cargo.toml", "checkpoint.workspace = true", false);
    }

    #[test]
    fn block_names_stay_in_their_folders() {
        let check = |text: &str, caught: bool| row(blocks, "crates/model/src/a.rs", text, caught);
        check("DType::Q4_0", true);
        check("fn dot_q4_k_row() {}", true);
        check("\"iq4_xs\"", true);
        check("MXFP4", true);
        check("DType::AFFINE4_64", true);
        check("affine_4 + affine4", false);
        check("KvType::Q8_0", false);
        check("let q4 = 0; let seq_0 = 1; let q_k = 2;", false);
        row(blocks, "crates/tensor/src/block/q4_0.rs", "Q4_0", false);
    }

    #[test]
    fn programs_go_through_the_engine_and_the_table() {
        row(whole_prefixes, "crates/rustorch-cli/src/a.rs", "let c: KvCache;", true);
        row(whole_prefixes, "crates/engine/src/a.rs", "let c: KvCache;", false);
        row(whole_prefixes, "crates/rustorch-cli/src/a.rs", "prefill_batch: 1", false);
        row(settings, "crates/rustorch-cli/src/a.rs", "env::var(\"RUSTORCH_MODEL_PATH\")", true);
        row(settings, "crates/rustorch-cli/src/settings/table.rs", "\"RUSTORCH_\"", false);
    }
}
