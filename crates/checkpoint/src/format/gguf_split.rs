//! Split GGUF models: `NAME-00001-of-00003.gguf` and its siblings, put together from any one of them.
//!
//! The first part holds the metadata; each part says its number (`split.no`, from 0), how many there are (`split.count`)
//! and how many tensors all have together (`split.tensors.count`), as llama.cpp's gguf-split writes them.

use super::gguf::Part;
use crate::{Error, OpenOptions, Result, checkpoint::Contents, error::quoted, file::ModelFile, limits};
use std::path::{Path, PathBuf};

pub(crate) const COUNT: &str = "split.count";
pub(crate) const NUMBER: &str = "split.no";
pub(crate) const TENSORS: &str = "split.tensors.count";

/// The whole model that `part` belongs to: itself, or all parts of its split.
pub(super) fn assemble(part: Part, options: &OpenOptions) -> Result<Contents> {
    let count = part.metadata.u32(COUNT)?.unwrap_or(1);
    if count <= 1 {
        let Part { file, metadata, tensors } = part;
        return Ok(Contents::new(vec![file], metadata, tensors));
    }
    let split = Split::of(&part, count)?;
    let number = split.check(&part, None)?;
    // Every sibling must be there before the first is read: a missing one is the usual mistake.
    for index in (0..count).filter(|index| *index != number) {
        let path = split.path(index);
        if std::fs::metadata(&path).is_err() {
            let missing = quoted(path.file_name().unwrap_or_default().as_encoded_bytes());
            let problem = format!("part {} of {count} is missing: {missing}", u64::from(index) + 1);
            return Err(Error::Split { path: part.file.path().to_owned(), problem });
        }
    }
    let total = part.metadata.u64(TENSORS)?;
    let path = part.file.path().to_owned();
    let mut named = Some(part);
    let mut parts = Vec::new();
    for index in 0..count {
        let part = match named.take_if(|_| index == number) {
            Some(part) => part,
            None => Part::read(ModelFile::open(&split.path(index), options.mmap)?)?,
        };
        split.check(&part, Some(index))?;
        parts.push(part);
    }
    let contents = join(parts)?;
    let found = contents.tensors.len() as u64;
    match total {
        Some(total) if total != found => {
            let problem = format!("{TENSORS} says {total} tensors, the parts hold {found}");
            Err(Error::Split { path, problem })
        }
        _ => Ok(contents),
    }
}

/// Those of `names` that are GGUF models: of a split one, the first part that is there. What projects images into a model
/// (llama.cpp calls it `mmproj-…`) is none.
pub(super) fn models(names: &[String]) -> Vec<&str> {
    let mut seen = None;
    let mut models = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".gguf") && !name.starts_with("mmproj")) {
        let split = parse_name(name).map(|(prefix, _, count)| (prefix, count));
        if split.is_none() || split != seen {
            models.push(name.as_str());
        }
        seen = split;
    }
    models
}

/// Files, tensors and the first part's metadata.
fn join(parts: Vec<Part>) -> Result<Contents> {
    let mut files = Vec::new();
    let mut tensors = Vec::new();
    let mut metadata = None;
    for (index, part) in parts.into_iter().enumerate() {
        tensors.extend(part.tensors.into_iter().map(|mut tensor| {
            tensor.part = index;
            tensor
        }));
        if tensors.len() as u64 > limits::TENSORS {
            let problem = format!("the parts hold more than {} tensors, which is too many", limits::TENSORS);
            return Err(Error::Split { path: part.file.path().to_owned(), problem });
        }
        metadata.get_or_insert(part.metadata);
        files.push(part.file);
    }
    let metadata = metadata.unwrap_or_else(|| crate::Metadata::new(Path::new("")));
    Ok(Contents::new(files, metadata, tensors))
}

/// How the parts of a split are called.
struct Split {
    directory: PathBuf,
    prefix: String,
    count: u32,
}

impl Split {
    /// By the name of one part. Error: the name does not follow the pattern, or says another count.
    fn of(part: &Part, count: u32) -> Result<Self> {
        let path = part.file.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match parse_name(name) {
            Some((prefix, _, named)) if named == count => {
                let directory = path.parent().map(Path::to_owned).unwrap_or_default();
                Ok(Self { directory, prefix: prefix.to_owned(), count })
            }
            _ => {
                let problem = format!(
                    "this is one of {count} parts ({COUNT}), but the file is not called NAME-00001-of-{count:05}.gguf, \
                     so the other parts cannot be found"
                );
                Err(Error::Split { path: path.to_owned(), problem })
            }
        }
    }

    /// Path of part `index`, counted from 0.
    fn path(&self, index: u32) -> PathBuf {
        let number = u64::from(index) + 1;
        self.directory.join(format!("{}-{number:05}-of-{:05}.gguf", self.prefix, self.count))
    }

    /// The number that `part` says it has; an error when that is not `expected` or not what its name says.
    fn check(&self, part: &Part, expected: Option<u32>) -> Result<u32> {
        let path = part.file.path();
        let fail = |problem| Err(Error::Split { path: path.to_owned(), problem });
        let count = part.metadata.u32(COUNT)?;
        if count != Some(self.count) {
            let found = count.map_or("none".to_owned(), |count| count.to_string());
            return fail(format!("{COUNT} is {found}, the other parts say {}", self.count));
        }
        let Some(number) = part.metadata.u32(NUMBER)? else { return fail(format!("{NUMBER} is missing")) };
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let by_name = parse_name(name).and_then(|(_, number, _)| number.checked_sub(1));
        if number >= self.count || by_name != Some(number) || expected.is_some_and(|index| index != number) {
            return fail(format!("{NUMBER} is {number}, which does not fit the file's name"));
        }
        Ok(number)
    }
}

/// `NAME-00002-of-00003.gguf` as (NAME, 2, 3).
fn parse_name(name: &str) -> Option<(&str, u32, u32)> {
    let stem = name.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| {
        let plain = text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        if plain { text.parse().ok() } else { None }
    };
    Some((prefix, digits(number)?, digits(count)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_names() {
        #[track_caller]
        fn check(name: &str, expected: Option<(&str, u32, u32)>) {
            assert_eq!(parse_name(name), expected, "{name}");
        }
        check("m-00001-of-00003.gguf", Some(("m", 1, 3)));
        check("a-of-b-q4-00002-of-00002.gguf", Some(("a-of-b-q4", 2, 2)));
        check("m-1-of-3.gguf", None);
        check("m-0000x-of-00003.gguf", None);
        check("m.gguf", None);
        check("m-00001-of-00003.bin", None);
    }
}
