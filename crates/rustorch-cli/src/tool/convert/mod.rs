//! `convert`: any model that can be read, as a GGUF file that other programs load, or as a safetensors file.
//!
//! What belongs here: the command, which type each tensor gets, the files that are written. What does not: names and
//! numbers (`model::Export`), the tokenizer's tables (`text::Tokenizer::export`), layouts of files (`checkpoint::Layout`),
//! the mixtures (`tensor::Mixture`), the bytes of one tensor (`crate::encode`). A file appears under its name when all of it is
//! written and read back; the source is read tensor by tensor, so that memory does not depend on the model's size.

mod beside;
mod importance;
mod output;

use super::Tool;
use crate::{
    encode::Conversion,
    exit::{Exit, Failure, Result},
    integrity, interrupt, loading, output as screen, paths,
    settings::{
        Layers, Settings,
        arguments::{ARGUMENT, Argument, Values},
    },
};
use checkpoint::{Checkpoint, NewTensor, OpenOptions, Value};
use model::{Export, ExportTensor};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tensor::{DType, MIXTURES, Mixture};
use text::{ChatTemplate, Tokenizer};

crate::messages::messages! {
    /// A suffix that says no format.
    no_such_target(path) {
        "{path} ends neither in .gguf nor in .safetensors",
        "{path} の末尾が .gguf でも .safetensors でもありません"
    }
    /// A type that is none.
    no_such_type(name) { "there is no type `{name}` to convert to", "変換先の型 `{name}` はありません" }
    /// Those that are.
    type_names(names) { "types: {names}", "型: {names}" }
    /// The target is there.
    target_exists(path) { "{path} exists already", "{path} は既に存在します" }
    /// What to do about it.
    target_exists_hint() { "name another file, or give --force to replace it", "別の名前にするか、--force で置き換えてください" }
    /// In and out are the same.
    target_is_source(path) { "{path} is the model that is to be converted", "{path} は変換元のモデル自身です" }
    /// Names of one convention cannot become those of the other.
    no_way_back() {
        "a GGUF model cannot be written as safetensors: its config.json and the names in it are lost",
        "GGUF モデルは safetensors に変換できません(config.json とその名前がないため)"
    }
    /// Not possible for that target.
    only_for_gguf(flag) { "{flag} works for GGUF files only", "{flag} は GGUF ファイルでのみ使えます" }
    /// Not a plain type.
    plain_types_only(name) { "safetensors files hold F32, F16 or BF16, not {name}", "safetensors に書けるのは F32・F16・BF16 で、{name} は書けません" }
    /// It did not work.
    convert_failed(path) { "cannot convert {path}", "{path} を変換できません" }
    /// It could not be written.
    convert_unwritable(path) { "cannot write {path}", "{path} に書き込めません" }
    /// One tensor is to blame.
    tensor_failed(name, problem) { "tensor {name}: {problem}", "テンソル {name}: {problem}" }
    /// No room.
    no_room(path, needed, free) {
        "{path} needs {needed}, and the disk has {free} left",
        "{path} には {needed} 必要ですが、ディスクの空きは {free} です"
    }
    /// Loses twice.
    lossy(from, to) {
        "the tensors are quantized already ({from}): converting them to {to} loses more than converting the original would",
        "テンソルは既に量子化済み({from})です。{to} への再変換は元のモデルからの変換より劣化します"
    }
    /// The bar's words.
    converting(name) { "converting {name}", "{name} を変換中" }
    /// Done.
    converted(path, bytes, tensors, types) { "{path}: {bytes}, {tensors} tensors ({types})", "{path}: {bytes}、テンソル {tensors} 個({types})" }
    /// Tensors of other modalities.
    left_out(n, first) { "{n} tensors that are no part of the language model are left out ({first} …)", "言語モデルに属さないテンソル {n} 個を省きました({first} など)" }
}

pub(super) const TOOL: Tool = Tool {
    name: "convert",
    synopsis: "IN OUT [--type TYPE] [--imatrix FILE] [--keep-split] [--force]",
    en: "write a model as a GGUF file (OUT ends in .gguf) or as safetensors, quantized if asked",
    ja: "モデルを GGUF(OUT の末尾が .gguf)または safetensors に変換する(量子化も可)",
    arguments: &[
        Argument {
            flag: "in",
            value: "IN",
            required: true,
            positional: true,
            en: "a model file or folder of any format that can be read",
            ja: "読み込めるモデルのファイルまたはフォルダ",
            ..ARGUMENT
        },
        Argument {
            flag: "out",
            value: "OUT",
            required: true,
            positional: true,
            en: "the file to write: *.gguf or *.safetensors",
            ja: "書き出すファイル(*.gguf または *.safetensors)",
            ..ARGUMENT
        },
        Argument {
            flag: "type",
            value: "TYPE",
            en: "type of the matrices, such as F16, Q8_0, Q4_K_M (default: as they are)",
            ja: "行列の型。F16、Q8_0、Q4_K_M など(既定: 元のまま)",
            ..ARGUMENT
        },
        Argument {
            flag: "imatrix",
            value: "FILE",
            en: "what `imatrix` wrote: quantize so that errors are least where they matter (GGUF only)",
            ja: "`imatrix` で作ったファイル。重要な箇所の誤差が小さくなるように量子化する(GGUF のみ)",
            ..ARGUMENT
        },
        Argument {
            flag: "keep-split",
            en: "as many files as the source has (GGUF only)",
            ja: "変換元と同じ数のファイルに分割する(GGUF のみ)",
            ..ARGUMENT
        },
        Argument {
            flag: "force", en: "replace OUT if it exists", ja: "OUT が既にあれば置き換える", ..ARGUMENT
        },
    ],
    settings: &["model.format", "model.mmap", "backend.threads", "interface.show_progress"],
    run,
    ..Tool::NEW
};

/// Where the tokens, the template and the family are said in files of the house's convention: in the metadata itself.
const FILE_TYPE: &str = "general.file_type";
const QUANTIZATION_VERSION: &str = "general.quantization_version";
const TEMPLATE: &str = "tokenizer.chat_template";
const TEMPLATE_NAMES: &str = "tokenizer.chat_templates";
/// The version of the layouts of block types that all of them have today.
const CURRENT_QUANTIZATION: u32 = 2;

fn run(layers: &Layers, values: &Values) -> Result<()> {
    let settings = layers.settings();
    let source = values.path("in")?.unwrap_or_default();
    let target = values.path("out")?.unwrap_or_default();
    let mixture = match values.text("type")? {
        Some(name) => Some(find_mixture(name)?),
        None => None,
    };
    interrupt::watch();
    let checkpoint = loading::open_path(&source, settings)?;
    loading::say_choice(&checkpoint, settings);
    for note in checkpoint.notes() {
        screen::note(&crate::terminal_filter::visible_line(note));
    }
    let ends = |suffix: &str| target.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(suffix));
    let keeps_split = values.has("keep-split");
    let importance = importance::read(values, mixture)?;
    let task = Task {
        checkpoint: &checkpoint,
        settings,
        target: &target,
        force: values.has("force"),
        importance: importance.as_ref(),
    };
    match () {
        () if ends("gguf") => task.gguf(mixture, keeps_split),
        () if ends("safetensors") && keeps_split => Err(Failure::new(Exit::Usage, only_for_gguf("--keep-split"))),
        () if ends("safetensors") && importance.is_some() => Err(Failure::new(Exit::Usage, only_for_gguf("--imatrix"))),
        () if ends("safetensors") => task.safetensors(mixture),
        () => Err(Failure::new(Exit::Usage, no_such_target(paths::display(&target)))),
    }
}

fn find_mixture(name: &str) -> Result<&'static Mixture> {
    Mixture::find(name).ok_or_else(|| {
        let names: Vec<&str> = MIXTURES.iter().map(|mixture| mixture.name).collect();
        Failure::new(Exit::Usage, no_such_type(crate::terminal_filter::visible_line(name)))
            .hint(type_names(names.join(", ")))
    })
}

/// Refuses to replace a file, unless that was asked for.
pub(super) fn refuse_existing(path: &Path, force: bool) -> Result<()> {
    match path.exists() && !force {
        true => Err(Failure::new(Exit::Usage, target_exists(paths::display(path))).hint(target_exists_hint())),
        false => Ok(()),
    }
}

/// One conversion.
struct Task<'a> {
    checkpoint: &'a Checkpoint,
    settings: &'a Settings,
    target: &'a Path,
    force: bool,
    importance: Option<&'a importance::Given>,
}

impl Task<'_> {
    fn source(&self) -> String {
        paths::display(self.checkpoint.path())
    }

    fn failed(&self, error: &crate::exit::Cause) -> Failure {
        Failure::new(Exit::Model, convert_failed(self.source())).because_of(error)
    }

    fn gguf(&self, mixture: Option<&'static Mixture>, keeps_split: bool) -> Result<()> {
        let export =
            Export::new(self.checkpoint).map_err(|error| loading::model_failure(self.checkpoint.path(), &error))?;
        if let Some(first) = export.left_out.first() {
            let first = crate::terminal_filter::visible_line(first);
            screen::note(&left_out(export.left_out.len(), first));
        }
        let is_house = export.numbers.is_none();
        let types: Vec<DType> = export.tensors.iter().map(|tensor| target_type(tensor, mixture, is_house)).collect();
        self.warn_of_losses(&export, &types, mixture);
        if let Some(given) = self.importance {
            given.check(&export, &types)?;
        }
        let fields = self.fields(&export, &types, mixture)?;
        let tensors: Vec<NewTensor> = export
            .tensors
            .iter()
            .zip(&types)
            .map(|(tensor, &dtype)| NewTensor { name: tensor.name.clone(), dtype, shape: tensor.shape })
            .collect();
        let n_parts = if keeps_split { self.checkpoint.files().len().max(1) } else { 1 };
        let files = output::Files::gguf(self.target, &fields, tensors, n_parts).map_err(|error| self.failed(&error))?;
        self.check_target(&files)?;
        let make = |index: usize, new: &NewTensor, take: output::Take<'_>| {
            let Some(tensor) = export.tensors.get(index) else { return Ok(()) };
            let fail = |error: model::Error| output::Stop::Tensor(tensor.name.clone(), error.to_string());
            let rows = tensor.open(self.checkpoint).map_err(fail)?;
            let read = |range: std::ops::Range<usize>, out: &mut Vec<u8>| rows.read(range, out).map_err(fail);
            let importance = self.importance.map_or(&[][..], |given| given.of(&tensor.name));
            Conversion { importance, ..self.conversion(rows.dtype(), new) }.run(&read, take)?;
            rows.release(self.checkpoint);
            Ok(())
        };
        self.write(&files, &make, &|path| self.check_written(&export, path))
    }

    fn conversion(&self, from: DType, new: &NewTensor) -> Conversion<'static> {
        Conversion { from, to: new.dtype, shape: new.shape, threads: self.settings.backend.threads, importance: &[] }
    }

    fn safetensors(&self, mixture: Option<&'static Mixture>) -> Result<()> {
        let wanted = mixture.map(|mixture| mixture.base);
        if let Some(mixture) = mixture.filter(|mixture| mixture.base.is_quantized()) {
            return Err(Failure::new(Exit::Usage, plain_types_only(mixture.name)));
        }
        // Only the house's convention has its metadata in the file itself.
        if self.checkpoint.metadata().get("general.architecture").is_some() {
            return Err(Failure::new(Exit::Usage, no_way_back()));
        }
        let is_float =
            |dtype: DType| dtype.is_quantized() || dtype.name().starts_with(['F', 'B']) && dtype != DType::BOOL;
        let target = |dtype: DType| match wanted {
            Some(wanted) if is_float(dtype) => wanted,
            _ if dtype.is_quantized() => dtype.or_storable(),
            _ => dtype,
        };
        let tensors: Vec<NewTensor> = self
            .checkpoint
            .tensors()
            .iter()
            .map(|info| NewTensor { name: info.name.clone(), dtype: target(info.dtype), shape: info.shape })
            .collect();
        let files = output::Files::safetensors(self.target, tensors).map_err(|error| self.failed(&error))?;
        self.check_target(&files)?;
        let make = |index: usize, new: &NewTensor, take: output::Take<'_>| {
            let Some(info) = self.checkpoint.tensors().get(index) else { return Ok(()) };
            let fail = |error: checkpoint::Error| output::Stop::Tensor(info.name.clone(), error.to_string());
            let tensor = self.checkpoint.load(&info.name).map_err(fail)?;
            let row_bytes = tensor.row_bytes();
            let read = |rows: std::ops::Range<usize>, out: &mut Vec<u8>| {
                let bytes = tensor.bytes().get(rows.start * row_bytes..rows.end * row_bytes);
                let outside = || tensor::Error::Shape(format!("rows {rows:?} are outside {}", info.shape));
                out.extend_from_slice(bytes.ok_or_else(outside)?);
                Ok::<(), output::Stop>(())
            };
            self.conversion(tensor.dtype(), new).run(&read, take)?;
            self.checkpoint.release(&tensor);
            Ok(())
        };
        self.write(&files, &make, &|_| Ok(()))?;
        beside::copy(self.checkpoint, self.target)
    }

    /// Everything that would make writing pointless, before it begins.
    fn check_target(&self, files: &output::Files) -> Result<()> {
        for path in files.paths() {
            let shown = paths::display(path);
            let same = |file: &PathBuf| {
                let one = std::fs::canonicalize(file);
                one.is_ok_and(|one| std::fs::canonicalize(path).is_ok_and(|other| one == other))
            };
            if self.checkpoint.files().iter().any(same) {
                return Err(Failure::new(Exit::Usage, target_is_source(shown)));
            }
            refuse_existing(path, self.force)?;
        }
        Ok(())
    }

    fn warn_of_losses(&self, export: &Export, types: &[DType], mixture: Option<&Mixture>) {
        let lossy = |(tensor, to): (&ExportTensor, &DType)| {
            let smaller = to.block_bytes() * tensor.dtype.block_len() < tensor.dtype.block_bytes() * to.block_len();
            (tensor.dtype.is_quantized() && *to != tensor.dtype && smaller).then_some(tensor.dtype)
        };
        if let (Some(from), Some(mixture)) = (export.tensors.iter().zip(types).find_map(lossy), mixture) {
            screen::warning(&self::lossy(from, mixture.name));
        }
    }

    /// All metadata of the new file.
    fn fields(
        &self,
        export: &Export,
        types: &[DType],
        mixture: Option<&'static Mixture>,
    ) -> Result<Vec<(String, Value)>> {
        let text_error = |error: text::Error| loading::text_failure(self.checkpoint.path(), &error);
        let is_new = |key: &str| {
            key != FILE_TYPE && key != QUANTIZATION_VERSION && !(self.importance.is_some() && importance::is_key(key))
        };
        let mut fields = match &export.numbers {
            None => {
                let old = self.checkpoint.metadata().iter().filter(|(key, _)| is_new(key));
                old.map(|(key, value)| (key.to_owned(), value.clone())).collect()
            }
            Some(numbers) => {
                let mut fields = numbers.clone();
                let name = loading::model_name(self.checkpoint);
                fields.push(("general.name".to_owned(), Value::text(&name)));
                let tokenizer = Tokenizer::export(self.checkpoint, export.hyper.n_vocab).map_err(text_error)?;
                for note in &tokenizer.notes {
                    screen::warning(&crate::terminal_filter::visible_line(note));
                }
                fields.extend(tokenizer.fields);
                if let Some(source) = ChatTemplate::source_in(self.checkpoint).map_err(text_error)? {
                    fields.push((TEMPLATE.to_owned(), Value::text(&source)));
                }
                let named = ChatTemplate::named_in(self.checkpoint).map_err(text_error)?;
                if !named.is_empty() {
                    let names = named.iter().map(|(name, _)| name.as_bytes());
                    fields.push((TEMPLATE_NAMES.to_owned(), Value::texts(names)));
                }
                for (name, source) in named {
                    fields.push((format!("{TEMPLATE}.{name}"), Value::text(&source)));
                }
                fields
            }
        };
        let file_type = mixture.or_else(|| most_common(export, types)).map(|mixture| mixture.file_type);
        fields.extend(file_type.map(|number| (FILE_TYPE.to_owned(), Value::U32(number))));
        fields.push((QUANTIZATION_VERSION.to_owned(), Value::U32(CURRENT_QUANTIZATION)));
        fields.extend(self.importance.into_iter().flat_map(importance::Given::fields));
        Ok(fields)
    }

    fn check_written(&self, export: &Export, path: &Path) -> Result<()> {
        let fail = |error: &crate::exit::Cause| self.failed(error);
        let written = Checkpoint::open(path, &OpenOptions::default()).map_err(|error| fail(&error))?;
        let hyper = model::HyperParams::read(&written).map_err(|error| fail(&error))?;
        export.check(&hyper).map_err(|error| fail(&error))?;
        if export.numbers.is_some() {
            Tokenizer::from_checkpoint(&written).map_err(|error| fail(&error))?;
        }
        Ok(())
    }

    fn write(
        &self,
        files: &output::Files,
        make: output::MakeTensor<'_>,
        check: &dyn Fn(&Path) -> Result<()>,
    ) -> Result<()> {
        let bar = screen::progress(
            self.settings.interface.show_progress,
            files.file_bytes(),
            "{msg} [{bar:24}] {bytes}/{total_bytes} {eta}",
        );
        bar.set_message(converting(loading::model_name(self.checkpoint)));
        let done = |bytes| {
            bar.inc(bytes);
            !interrupt::wanted()
        };
        let written = files.write(make, &done, check);
        bar.finish_and_clear();
        written?;
        files.paths().for_each(|path| integrity::forget(path, self.settings));
        let mut types: BTreeMap<&str, usize> = BTreeMap::new();
        files.types().for_each(|dtype| *types.entry(dtype.name()).or_default() += 1);
        let n_tensors: usize = types.values().sum();
        let types: Vec<String> = types.into_iter().map(|(name, n)| format!("{name} × {n}")).collect();
        let shown = files.paths().next().map(|path| paths::display(path)).unwrap_or_default();
        screen::note(&converted(shown, loading::size(files.file_bytes()), n_tensors, types.join(", ")));
        Ok(())
    }
}

/// The type that a tensor gets.
fn target_type(tensor: &ExportTensor, mixture: Option<&Mixture>, is_house: bool) -> DType {
    match (&tensor.site, mixture) {
        (Some(site), Some(mixture)) => mixture.dtype(site, &tensor.shape),
        (Some(_), None) => tensor.dtype.or_storable(),
        (None, _) if is_house => tensor.dtype,
        // Vectors and what decides stay exact, as programs that load such files expect.
        (None, _) => DType::F32,
    }
}

/// The plain mixture of the type that most matrices have.
fn most_common(export: &Export, types: &[DType]) -> Option<&'static Mixture> {
    let mut counts: BTreeMap<DType, usize> = BTreeMap::new();
    let matrices = export.tensors.iter().zip(types).filter(|(tensor, _)| tensor.site.is_some());
    matrices.for_each(|(_, dtype)| *counts.entry(*dtype).or_default() += 1);
    let (dtype, _) = counts.into_iter().max_by_key(|(_, n)| *n)?;
    MIXTURES.iter().find(|mixture| mixture.base == dtype)
}
