//! The importance matrix of a conversion: read, held against the tensors, and named in the new file.

use crate::{
    exit::{Exit, Failure, Result},
    output, paths,
    settings::arguments::Values,
    terminal_filter::visible_line,
};
use checkpoint::{Importance, Value};
use model::{Export, ExportTensor};
use std::path::PathBuf;
use tensor::{DType, Mixture, Place};

crate::messages::messages! {
    /// Not such a file.
    imatrix_unusable(path) { "cannot use {path} as an importance matrix", "{path} を重要度行列として使えません" }
    /// Nothing would use it.
    imatrix_useless() {
        "--imatrix has no effect without --type and a type below Q8_0",
        "--imatrix は Q8_0 未満の --type を指定しないと効果がありません"
    }
    /// It does not fit the tensors.
    imatrix_of_another(path) {
        "the importance matrix {path} was measured on another model",
        "重要度行列 {path} は別のモデルで計測されたものです"
    }
    /// How it does not.
    imatrix_length(name, found, expected) {
        "{name} has {found} columns there and {expected} here",
        "{name} の列数が {found} で、このモデルでは {expected} です"
    }
    /// Not one name fits.
    imatrix_no_names(n, first) {
        "none of its {n} entries ({first} …) names a matrix of this model",
        "{n} 個の項目({first} など)に、このモデルの行列の名前がありません"
    }
    /// Some tensors have no entry.
    imatrix_missing(n, of, first) {
        "{n} of {of} quantized matrices are not in the importance matrix ({first} …): their columns count alike",
        "量子化する行列 {of} 個のうち {n} 個が重要度行列にありません({first} など)。これらの列は均等に扱います"
    }
}

/// What the new file says of it; the keys are llama.cpp's.
const FILE: &str = "quantize.imatrix.file";
const DATASET: &str = "quantize.imatrix.dataset";
const N_ENTRIES: &str = "quantize.imatrix.entries_count";
const N_CHUNKS: &str = "quantize.imatrix.chunks_count";

/// Whether a key of a file's metadata is about an importance matrix.
pub(super) fn is_key(key: &str) -> bool {
    [FILE, DATASET, N_ENTRIES, N_CHUNKS].contains(&key)
}

/// The importance matrix of a run.
pub(super) struct Given {
    path: PathBuf,
    matrix: Importance,
}

/// Reads what `--imatrix` names. Failure: unusable, or of no use.
pub(super) fn read(values: &Values, mixture: Option<&Mixture>) -> Result<Option<Given>> {
    let Some(path) = values.path("imatrix")? else { return Ok(None) };
    if !mixture.is_some_and(|mixture| mixture.base.uses_importance()) {
        return Err(Failure::new(Exit::Usage, imatrix_useless()));
    }
    let matrix = Importance::read(&path)
        .map_err(|error| Failure::new(Exit::Model, imatrix_unusable(paths::display(&path))).because_of(&error))?;
    Ok(Some(Given { path, matrix }))
}

impl Given {
    /// Numbers for the columns of the tensor called `name`; none: it has no entry.
    pub(super) fn of(&self, name: &str) -> &[f32] {
        self.matrix.entries.get(name).map_or(&[], Vec::as_slice)
    }

    /// Failure: it is of another model. Says which matrices it does not have.
    pub(super) fn check(&self, export: &Export, types: &[DType]) -> Result<()> {
        let another =
            |why: String| Failure::new(Exit::Model, imatrix_of_another(paths::display(&self.path))).because(why);
        let of_layers = |tensor: &ExportTensor| {
            tensor.site.is_some_and(|site| !matches!(site.place, Place::Embedding | Place::Output))
        };
        let tensors: Vec<&ExportTensor> = export.tensors.iter().collect();
        let mut n_known = 0;
        for tensor in &tensors {
            let found = self.of(&tensor.name).len();
            let n_matrices = match tensor.shape.dims() {
                [n, _, _] => *n,
                _ => 1,
            };
            let expected = n_matrices.saturating_mul(tensor.shape.row_len());
            if found > 0 && found != expected {
                return Err(another(imatrix_length(&tensor.name, found, expected)));
            }
            n_known += usize::from(found > 0);
        }
        if n_known == 0 {
            let first = self.matrix.entries.keys().next().map(|name| visible_line(name)).unwrap_or_default();
            return Err(another(imatrix_no_names(self.matrix.entries.len(), first)));
        }
        let wanting = tensors.iter().zip(types).filter(|(tensor, to)| of_layers(tensor) && to.uses_importance());
        let wanting: Vec<&str> = wanting.map(|(tensor, _)| tensor.name.as_str()).collect();
        let missing: Vec<&str> = wanting.iter().copied().filter(|name| self.of(name).is_empty()).collect();
        if let Some(first) = missing.first() {
            output::warning(&imatrix_missing(missing.len(), wanting.len(), visible_line(first)));
        }
        Ok(())
    }

    /// What the new file says of it.
    pub(super) fn fields(&self) -> Vec<(String, Value)> {
        // The file's name only: folders are nobody's business.
        let file = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let n_entries = i32::try_from(self.matrix.entries.len()).unwrap_or(i32::MAX);
        let mut fields = vec![(FILE.to_owned(), Value::text(&file))];
        if let Some(dataset) = self.matrix.datasets.first() {
            fields.push((DATASET.to_owned(), Value::text(dataset)));
        }
        fields.push((N_ENTRIES.to_owned(), Value::I32(n_entries)));
        if let Some(n_chunks) = self.matrix.n_chunks.and_then(|n| i32::try_from(n).ok()) {
            fields.push((N_CHUNKS.to_owned(), Value::I32(n_chunks)));
        }
        fields
    }
}
