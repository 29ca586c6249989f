//! Families whose layers are not all alike written as files of the house's convention: the same model, read back.

use crate::fixtures::{find_or_skip, ids, json, max_difference};
use crate::running::{all_logits, load};
use checkpoint::{Checkpoint, Layout, NewTensor, OpenOptions};
use compute::Precision;
use model::{Export, HyperParams};
use std::io;
use std::path::Path;

/// Those whose layers are not all alike.
const FAMILIES: [&str; 10] = [
    "lfm2",
    "lfm2-bias",
    "lfm2_moe",
    "qwen3_next",
    "qwen3_next-uneven",
    "qwen3_5",
    "qwen3_5_moe",
    "gemma3n",
    "gemma4",
    "gemma4-experts",
];

#[test]
fn uneven_families_stay_the_same() {
    for name in FAMILIES {
        let Some(folder) = find_or_skip(&format!("families/{name}"), true) else { continue };
        let source = Checkpoint::open(&folder.join("hf"), &OpenOptions::default()).unwrap();
        let export = Export::new(&source).unwrap();
        let rows: Vec<_> = export.tensors.iter().map(|tensor| tensor.open(&source).unwrap()).collect();
        let tensors: Vec<NewTensor> = export
            .tensors
            .iter()
            .zip(&rows)
            .map(|(tensor, rows)| NewTensor { name: tensor.name.clone(), dtype: rows.dtype(), shape: tensor.shape })
            .collect();
        let layout = Layout::gguf(export.numbers.as_deref().unwrap(), &tensors, None).unwrap();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("exported-{}-{name}.gguf", std::process::id()));
        let mut file = std::fs::File::create(&path).unwrap();
        let written = layout.write::<io::Error>(&mut file, |i, out| {
            let (mut bytes, n_rows) = (Vec::new(), tensors[i].shape.rows());
            rows[i].read(0..n_rows, &mut bytes).unwrap();
            out.write_all(&bytes)
        });
        written.unwrap();
        let read = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
        export.check(&HyperParams::read(&read).unwrap()).unwrap();
        let tokens = ids(&json(&folder.join("ref.json"))["ids"]);
        let [one, other] =
            [&folder.join("hf"), &path].map(|path| all_logits(&mut load(path, Precision::F32, 512), &tokens));
        std::fs::remove_file(&path).unwrap();
        let difference = max_difference(&one, &other);
        assert!(difference < 1e-4, "{name}: {difference}");
    }
}
