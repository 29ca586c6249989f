//! Adapters as a user names them: `FILE[:SCALE]`, opened, and the failures that come of it.
//!
//! What does not belong here: what is in their files and how they are applied (`model`), the command (`command/lora.rs`).

use crate::{
    exit::{Cause, Exit, Failure, Result},
    paths,
    settings::Settings,
};
use checkpoint::{Checkpoint, OpenOptions};
use model::AdapterInfo;
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

crate::messages::messages! {
    /// It cannot be used with this model.
    adapter_failed(path) { "cannot use the adapter {path}", "アダプタ {path} を使えません" }
    /// What one is.
    adapter_hint() {
        "an adapter is a folder of PEFT or mlx-lm (with an adapter_config.json) or a GGUF file, made for this model",
        "アダプタは、このモデル用に作られた PEFT・mlx-lm のフォルダ(adapter_config.json を含む)または GGUF ファイルです"
    }
}

/// An adapter that the settings name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Named {
    /// Its file or folder.
    pub(crate) path: PathBuf,
    /// How much of it counts.
    pub(crate) scale: f32,
}

impl Named {
    /// Reads `FILE` or `FILE:SCALE`; a relative path is taken from `base`.
    pub(crate) fn parse(text: &str, base: Option<&Path>) -> std::result::Result<Named, String> {
        let (file, scale) = match text.rsplit_once(':').map(|(file, scale)| (file, scale.trim().parse::<f32>())) {
            Some((file, Ok(scale))) => (file, scale),
            _ => (text, 1.0),
        };
        if !scale.is_finite() {
            return Err(format!("the scale `{scale}` is not a finite number"));
        }
        let path = paths::expand(OsStr::new(file), base).map_err(|error| error.to_string())?;
        Ok(Named { path, scale })
    }

    /// As it is typed.
    pub(crate) fn show(&self) -> String {
        let path = self.path.to_string_lossy();
        // A name that ends like a scale needs one behind it.
        let is_clear = self.scale == 1.0 && Named::parse(&path, None).is_ok_and(|again| again.path == self.path);
        if is_clear { path.into_owned() } else { format!("{path}:{}", self.scale) }
    }

    /// Opens it.
    ///
    /// # Errors
    /// No such file, or none that can be read.
    pub(crate) fn open(&self, mmap: bool) -> Result<Adapter> {
        let checkpoint = Checkpoint::open_adapter(&self.path, &OpenOptions { mmap, ..OpenOptions::default() })
            .map_err(|error| {
                let exit = if matches!(error, checkpoint::Error::Memory { .. }) { Exit::Memory } else { Exit::Model };
                self.failed(exit, &error)
            })?;
        Ok(Adapter { named: self.clone(), checkpoint })
    }

    fn failed(&self, exit: Exit, cause: &Cause) -> Failure {
        Failure::new(exit, adapter_failed(paths::display(&self.path))).because_of(cause).hint(adapter_hint())
    }

    /// The failure of a model that was to take it.
    pub(crate) fn refused(&self, error: &model::Error) -> Failure {
        let no_memory = matches!(error, model::Error::Compute(compute::Error::OutOfMemory { .. }));
        self.failed(if no_memory { Exit::Memory } else { Exit::Model }, error)
    }

    /// The same by way of the engine.
    pub(crate) fn refused_by_engine(&self, error: &engine::Error) -> Failure {
        match error {
            engine::Error::Model(inner) => match inner.downcast_ref::<model::Error>() {
                Some(inner) => self.refused(inner),
                None => self.failed(Exit::Model, error),
            },
            _ => self.failed(Exit::Runtime, error),
        }
    }
}

/// An open adapter.
#[derive(Debug)]
pub(crate) struct Adapter {
    /// Where it came from.
    pub(crate) named: Named,
    /// Its file.
    pub(crate) checkpoint: Checkpoint,
}

/// An adapter in use.
#[derive(Clone, Debug)]
pub(crate) struct InUse {
    /// Its file or folder.
    pub(crate) path: PathBuf,
    /// What the model says of it.
    pub(crate) info: AdapterInfo,
}

/// Opens those of the settings.
///
/// # Errors
/// The first that cannot be.
pub(crate) fn open(settings: &Settings) -> Result<Vec<Adapter>> {
    settings.model.lora.iter().map(|named| named.open(settings.model.mmap)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        #[track_caller]
        fn check(text: &str, path: &str, scale: f32, shown: &str) {
            let named = Named::parse(text, None).unwrap();
            assert_eq!((named.path.to_str(), named.scale), (Some(path), scale), "{text}");
            assert_eq!(named.show(), shown);
            assert_eq!(Named::parse(shown, None), Ok(named));
        }
        check("a.gguf", "a.gguf", 1.0, "a.gguf");
        check("a.gguf:1", "a.gguf", 1.0, "a.gguf");
        check("dir/a:0.5", "dir/a", 0.5, "dir/a:0.5");
        check("a:-2e-1", "a", -0.2, "a:-0.2");
        check("a:b", "a:b", 1.0, "a:b");
        check("C:\\a.gguf", "C:\\a.gguf", 1.0, "C:\\a.gguf");
        check("a:2:3", "a:2", 3.0, "a:2:3");
        check("a:2:1", "a:2", 1.0, "a:2:1");
        for bad in ["a:nan", "a:inf", "", ":0.5", "a:1e99"] {
            assert!(Named::parse(bad, None).is_err(), "{bad}");
        }
    }
}
