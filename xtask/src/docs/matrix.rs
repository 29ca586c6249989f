//! The support matrix: which family was compared in which format, with which tensor types, on which backend.
//!
//! It is read off the fixtures that tests walk, one row of [`WALKS`] per test, and off what the program says of each
//! fixture (`docs-json --models`): whoever adds a fixture adds a line to the matrix, and nobody writes one. What does not
//! belong here: how the page looks (`matrix_page`).

use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What a model's logits were compared with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Reference {
    /// The reference library in float32.
    Transformers,
    /// The same, and llama.cpp was found to agree on that file.
    TransformersAndLlamaCpp,
    /// The reference library in float32 on weights that other software dequantized.
    Dequantized,
    /// MLX itself.
    Mlx,
    /// onnxruntime in float32 on weights that NumPy dequantized.
    OnnxRuntime,
}

impl Reference {
    /// All, in the order of the legend.
    pub(super) const ALL: &'static [Reference] = &[
        Reference::Transformers,
        Reference::TransformersAndLlamaCpp,
        Reference::Dequantized,
        Reference::Mlx,
        Reference::OnnxRuntime,
    ];

    /// As the matrix shows it.
    pub(super) fn letter(self) -> &'static str {
        match self {
            Reference::Transformers => "T",
            Reference::TransformersAndLlamaCpp => "TL",
            Reference::Dequantized => "D",
            Reference::Mlx => "M",
            Reference::OnnxRuntime => "O",
        }
    }
}

/// Fixtures of one kind, and the test that compares each of them.
struct Walk {
    /// Folder below `fixtures`.
    folder: &'static str,
    /// What lies in the folder's entries; `""`: the entry itself.
    models: &'static [&'static str],
    /// Only entries whose names begin (end) like this.
    begins: &'static str,
    ends: &'static str,
    reference: Reference,
    /// The file of the test and how its function begins: a matrix without a test is refused.
    test: (&'static str, &'static str),
    backend: &'static str,
}

const HUGGING_FACE: &str = "crates/model/tests/it/hugging_face.rs";

/// Where logits are compared. Where two rows take the same model, the later one says with what.
const WALKS: &[Walk] = &[
    Walk {
        folder: "archs",
        models: &["model.gguf"],
        begins: "",
        ends: "",
        reference: Reference::Transformers,
        test: ("crates/model/tests/it/goldens.rs", "fn every_kept_family()"),
        backend: "cpu",
    },
    Walk {
        folder: "archs",
        models: &["hf"],
        begins: "",
        ends: "",
        reference: Reference::Transformers,
        test: (HUGGING_FACE, "fn every_kept_family()"),
        backend: "cpu",
    },
    Walk {
        folder: "families",
        models: &["model.gguf", "hf"],
        begins: "",
        ends: "",
        reference: Reference::Transformers,
        test: (HUGGING_FACE, "fn families()"),
        backend: "cpu",
    },
    Walk {
        folder: "variants",
        models: &["model.gguf", "hf"],
        begins: "",
        ends: "",
        reference: Reference::Transformers,
        test: (HUGGING_FACE, "fn variants()"),
        backend: "cpu",
    },
    Walk {
        folder: "quants",
        models: &[""],
        begins: "",
        ends: ".gguf",
        reference: Reference::Dequantized,
        test: ("crates/model/tests/it/quants.rs", "fn mixtures()"),
        backend: "cpu",
    },
    Walk {
        folder: "quantized",
        models: &["hf"],
        begins: "",
        ends: "",
        reference: Reference::Dequantized,
        test: ("crates/model/tests/it/quantized.rs", "fn layouts()"),
        backend: "cpu",
    },
    Walk {
        folder: "quantized",
        models: &["hf"],
        begins: "mlx-",
        ends: "",
        reference: Reference::Mlx,
        test: ("crates/model/tests/it/quantized.rs", "fn layouts()"),
        backend: "cpu",
    },
    Walk {
        folder: "demo",
        models: &["model.gguf", "model"],
        begins: "",
        ends: "",
        reference: Reference::Transformers,
        test: ("crates/model/tests/it/demo.rs", "fn every_format()"),
        backend: "cpu",
    },
    Walk {
        folder: "onnx",
        models: &[""],
        begins: "genai-",
        ends: "",
        reference: Reference::OnnxRuntime,
        test: ("crates/model/tests/it/onnx.rs", "fn built()"),
        backend: "cpu",
    },
];

/// What the program says of a model.
#[derive(Debug, Deserialize)]
pub(super) struct Facts {
    /// As it was asked for.
    path: String,
    format: String,
    family: String,
    /// Of its matrices.
    types: BTreeSet<String>,
}

/// One model whose logits are compared.
#[derive(Debug)]
pub(super) struct Checked {
    /// The fixture: `families/gpt2`.
    pub(super) fixture: String,
    /// The file format, as the program calls it.
    pub(super) format: String,
    /// The family, as the program calls it.
    pub(super) family: String,
    /// The types of its matrices.
    pub(super) types: BTreeSet<String>,
    /// How its weights became integers, where its configuration says so: `gptq, 4 bits`.
    pub(super) method: Option<String>,
    pub(super) reference: Reference,
    pub(super) backend: &'static str,
}

/// A change of a configuration that a test sees refused.
#[derive(Debug, Deserialize)]
pub(super) struct Refused {
    pub(super) en: String,
    pub(super) ja: String,
    /// Part of the message.
    pub(super) error: String,
}

/// Everything that the matrix is made of.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    pub(super) checked: Vec<Checked>,
    pub(super) refused: Vec<Refused>,
    /// Types whose values are compared with gguf-py's bit for bit.
    pub(super) decoded: BTreeSet<String>,
    /// Types whose encoder's error is compared with ggml's.
    pub(super) encoded: BTreeSet<String>,
}

/// The file of refusals and the test that walks it.
const REFUSALS: (&str, &str, &str) = ("fixtures/refused.json", HUGGING_FACE, "fn refused()");
/// The file of blocks' values and its test.
const DECODED: (&str, &str, &str) =
    ("fixtures/blocks/decode.json", "crates/tensor/tests/it/reference.rs", "fn random_blocks_decode_bit_for_bit()");
/// The file of encoders' errors and its test.
const ENCODED: (&str, &str, &str) = (
    "fixtures/blocks/encode.json",
    "crates/tensor/tests/it/reference.rs",
    "fn encoders_err_no_more_than_the_reference()",
);
/// The test that multiplies by matrices of every type that can be written, and of random blocks of all others that are decoded,
/// on every instruction set.
const PRODUCTS: (&str, &str) = ("crates/compute/tests/it/linear.rs", "fn products_of_every_type()");

/// A model that a test compares.
struct Found {
    walk: &'static Walk,
    fixture: String,
    model: &'static str,
}

/// Reads the fixtures; `ask` asks the program about models (their paths below the root).
pub(super) fn read(root: &Path, ask: &dyn Fn(&[String]) -> Result<Vec<Facts>>) -> Result<Matrix> {
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for walk in WALKS {
        has_test(root, walk.test.0, walk.test.1)?;
        for entry in entries(&root.join("fixtures").join(walk.folder))? {
            if !entry.starts_with(walk.begins) || !entry.ends_with(walk.ends) {
                continue;
            }
            let fixture = format!("{}/{entry}", walk.folder);
            for model in walk.models {
                let path = format!("fixtures/{fixture}/{model}");
                let path = path.trim_end_matches('/');
                if root.join(path).exists() {
                    found.insert(path.to_owned(), Found { walk, fixture: fixture.clone(), model });
                }
            }
        }
    }
    has_test(root, PRODUCTS.0, PRODUCTS.1)?;
    let paths: Vec<String> = found.keys().cloned().collect();
    let mut checked = Vec::new();
    for facts in ask(&paths)? {
        let found = found.get(&facts.path).ok_or_else(|| Error::Program(format!("nobody asked for {}", facts.path)))?;
        checked.push(look(root, found, facts)?);
    }
    Ok(Matrix {
        checked,
        refused: tested(root, REFUSALS)?,
        decoded: tested::<Blocks>(root, DECODED)?.types.into_keys().collect(),
        encoded: tested::<BTreeMap<String, Errors>>(root, ENCODED)?
            .into_values()
            .flat_map(|errors| errors.mse.into_keys())
            .collect(),
    })
}

#[derive(Deserialize)]
struct Blocks {
    types: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Errors {
    mse: BTreeMap<String, Value>,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |cause| Error::Io { path, cause }
}

/// Refuses to speak of a test that is not there (any more).
fn has_test(root: &Path, file: &str, function: &str) -> Result<()> {
    let path = root.join(file);
    let text = fs::read_to_string(&path).map_err(io(&path))?;
    if text.contains(function) {
        return Ok(());
    }
    Err(Error::Program(format!("{file} has no `{function}`, which the support matrix reports")))
}

/// A file of references whose test exists.
fn tested<T: serde::de::DeserializeOwned>(root: &Path, (file, test, function): (&str, &str, &str)) -> Result<T> {
    has_test(root, test, function)?;
    json(&root.join(file))
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(io(path))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Program(format!("{}: {e}", path.display())))
}

/// The names in a folder, in order; none where there is no folder.
fn entries(folder: &Path) -> Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let found = fs::read_dir(folder).map_err(io(folder))?;
    let mut names = Vec::new();
    for entry in found {
        names.push(entry.map_err(io(folder))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// One model, as the program describes it.
fn look(root: &Path, found: &Found, facts: Facts) -> Result<Checked> {
    let Found { walk, fixture, model } = found;
    let reference = match walk.reference {
        Reference::Transformers if is_quantized(root, fixture)? => Reference::Dequantized,
        Reference::Transformers if *model == "model.gguf" && llama_cpp_agrees(root, fixture)? => {
            Reference::TransformersAndLlamaCpp
        }
        reference => reference,
    };
    Ok(Checked {
        fixture: fixture.clone(),
        format: facts.format,
        family: facts.family,
        types: facts.types,
        method: method(&root.join("fixtures").join(fixture).join(model).join("config.json"))?,
        reference,
        backend: walk.backend,
    })
}

/// How far llama.cpp may be from the reference library and still agree: GELU from its half-precision table.
const AGREES: f64 = 0.01;

/// Whether the reference file of a GGUF model says that llama.cpp gives the same.
fn llama_cpp_agrees(root: &Path, fixture: &str) -> Result<bool> {
    let reference: Value = json(&root.join("fixtures").join(fixture).join("ref.json"))?;
    Ok(reference["llama_cpp"]["agrees"] == true
        || reference["llama_cpp_max_abs"].as_f64().is_some_and(|difference| difference < AGREES))
}

/// Whether the reference file says that the model holds dequantized integers.
fn is_quantized(root: &Path, fixture: &str) -> Result<bool> {
    let path = root.join("fixtures").join(fixture).join("ref.json");
    let reference: Value = if path.exists() { json(&path)? } else { Value::Null };
    Ok(reference["is_quantized"] == true)
}

/// What `config.json` says of quantization.
fn method(config: &Path) -> Result<Option<String>> {
    if !config.exists() {
        return Ok(None);
    }
    let config: Value = json(config)?;
    let found = ["quantization_config", "quantization"].iter().map(|key| &config[*key]).find(|q| q.is_object());
    Ok(found.map(|q| {
        let name = q["quant_method"].as_str().or(q["mode"].as_str()).unwrap_or("affine");
        match q["bits"].as_u64() {
            Some(bits) => format!("{name}, {bits}"),
            None => name.to_owned(),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_walk_has_its_test_and_its_fixtures() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let ask = |paths: &[String]| {
            assert!(paths.iter().all(|path| root.join(path).exists()));
            let facts = |path: &String| Facts {
                path: path.clone(),
                format: "gguf".into(),
                family: "x".into(),
                types: BTreeSet::from(["F16".to_owned()]),
            };
            Ok(paths.iter().map(facts).collect())
        };
        let matrix = read(&root, &ask).map_err(|e| e.to_string()).unwrap_or_default();
        assert!(matrix.checked.len() > 50 && !matrix.refused.is_empty() && matrix.decoded.len() > 20);
        assert!(matrix.checked.iter().all(|c| c.types.iter().eq(["F16"])));
        let of = |fixture: &str| matrix.checked.iter().find(|c| c.fixture == fixture).map(|c| c.reference);
        assert_eq!(of("quantized/mlx-experts"), Some(Reference::Mlx));
        assert_eq!(of("quantized/gptq-4bit"), Some(Reference::Dequantized));
        assert!(matrix.checked.iter().any(|c| c.reference == Reference::TransformersAndLlamaCpp));
        assert!(matrix.checked.iter().any(|c| c.method.as_deref() == Some("gptq, 4")));
    }
}
