//! What an export makes of a Hugging Face folder, tensor by tensor against the GGUF file of the same model.

use crate::fixtures::find_or_skip;
use checkpoint::{Checkpoint, OpenOptions};
use model::Export;
use std::collections::BTreeMap;

/// The numbers of every tensor that the export makes.
pub(crate) fn made(source: &Checkpoint, export: &Export) -> BTreeMap<String, Vec<f32>> {
    let values = |tensor: &model::ExportTensor| {
        let rows = tensor.open(source).unwrap();
        let (mut bytes, n) = (Vec::new(), tensor.shape.rows());
        // In two cuts, as a writer would.
        rows.read(0..n / 2, &mut bytes).unwrap();
        rows.read(n / 2..n, &mut bytes).unwrap();
        let mut values = vec![0.0; tensor.shape.elements()];
        rows.dtype().decode(&bytes, &mut values).unwrap();
        (tensor.name.clone(), values)
    };
    export.tensors.iter().map(values).collect()
}

#[test]
fn folders_become_what_converters_make_of_them() {
    let Some(families) = find_or_skip("families", true) else { return };
    let folders = std::fs::read_dir(families).unwrap().map(|entry| entry.unwrap().path());
    let (mut n_compared, mut wrong) = (0, Vec::new());
    for folder in folders.filter(|folder| folder.join("model.gguf").exists()) {
        let open = |file: &str| Checkpoint::open(&folder.join(file), &OpenOptions::default()).unwrap();
        let (source, expected) = (open("hf"), open("model.gguf"));
        let export = match Export::new(&source) {
            Ok(export) => export,
            Err(error) => {
                println!("{}: {error}", folder.display());
                continue;
            }
        };
        let made = made(&source, &export);
        // Heads that never rotate may have their rows in any order.
        let any_order =
            |name: &str| !export.hyper.has_rope && (name.ends_with("attn_q.weight") || name.ends_with("attn_k.weight"));
        // What folders have in one matrix, GGUF has had in one (`ssm_in`) and in two; readers know both.
        let in_one = |name: &str| {
            let layer = name.rsplit_once(".attn_").map(|(layer, _)| format!("{layer}.ssm_in.weight"));
            layer.is_some_and(|fused| made.contains_key(&fused))
        };
        let compared = |name: &str| !any_order(name) && !in_one(name);
        for info in expected.tensors().iter().filter(|info| compared(&info.name)) {
            let whole = expected.load(&info.name).unwrap().to_f32().unwrap();
            match made.get(&info.name) {
                None => wrong.push(format!("{}: no {}", folder.display(), info.name)),
                Some(values)
                    if values.len() != whole.len() || values.iter().zip(&whole).any(|(a, b)| (a - b).abs() > 1e-3) =>
                {
                    wrong.push(format!("{}: other numbers in {}", folder.display(), info.name));
                }
                Some(_) => {}
            }
        }
        // What readers ask for where layers differ.
        let architecture = expected.metadata().str("general.architecture").unwrap().unwrap();
        for key in ["interleave_moe_layer_step", "leading_dense_block_count"] {
            let key = format!("{architecture}.{key}");
            let Some(value) = expected.metadata().u32(&key).unwrap() else { continue };
            let said = export.numbers.iter().flatten().find(|(known, _)| *known == key).map(|(_, said)| said);
            if said.and_then(checkpoint::Value::as_integer) != Some(i128::from(value)) {
                wrong.push(format!("{}: {key} is {said:?}, not {value}", folder.display()));
            }
        }
        n_compared += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(n_compared >= 25, "{n_compared} families");
}
