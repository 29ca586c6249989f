//! Where things are (specification S2): the data folder `~/.rustorch`, and the expansion of `~/`, `$VAR` and `${VAR}`
//! (`%VAR%` on Windows) in paths from flags, environment, config file and slash commands. No globbing.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// Why a path cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    /// `~` without a home directory.
    #[error("there is no home directory for `~`")]
    NoHome,
    /// A variable that is not set.
    #[error("the variable {0} is not set")]
    Unset(String),
    /// `${` without `}`.
    #[error("`${{` without a closing `}}`")]
    Unclosed,
    /// Nothing there.
    #[error("the path is empty")]
    Empty,
}

/// The user's home directory.
pub(crate) fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| !home.as_os_str().is_empty())
}

/// The folder of everything this program keeps: `~/.rustorch`.
pub(crate) fn data_dir() -> Option<PathBuf> {
    home().map(|home| home.join(".rustorch"))
}

/// The config file that is read when none is named.
pub(crate) fn default_config() -> Option<PathBuf> {
    data_dir().map(|dir| dir.join("config.toml"))
}

/// Expands a path as typed; a relative result is taken from `base` (`None`: from the working directory, left relative).
/// A path that is not Unicode is taken as it is: there is nothing in it that a person could have typed as a variable.
pub(crate) fn expand(raw: &OsStr, base: Option<&Path>) -> Result<PathBuf, PathError> {
    let expanded = match raw.to_str() {
        Some(text) => expand_text(text, home().as_deref(), &|name| std::env::var_os(name))?,
        None => raw.to_os_string(),
    };
    if expanded.is_empty() {
        return Err(PathError::Empty);
    }
    let path = PathBuf::from(expanded);
    Ok(match base {
        Some(base) if path.is_relative() => base.join(path),
        _ => path,
    })
}

fn expand_text(
    text: &str,
    home: Option<&Path>,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<OsString, PathError> {
    let mut out = OsString::new();
    let mut rest = text;
    if text == "~" || text.starts_with("~/") || (cfg!(windows) && text.starts_with("~\\")) {
        out.push(home.ok_or(PathError::NoHome)?);
        rest = text.get(1..).unwrap_or_default();
    }
    let sign = if cfg!(windows) { ['$', '%'] } else { ['$', '$'] };
    while let Some(at) = rest.find(sign) {
        let (before, tail) = rest.split_at(at);
        out.push(before);
        let mut after = tail.chars();
        let opened = after.next();
        let tail = after.as_str();
        let (name, next) = if opened == Some('%') {
            match tail.split_once('%') {
                Some((name, next)) if is_name(name) => (name, next),
                _ => ("", tail),
            }
        } else if let Some(inner) = tail.strip_prefix('{') {
            inner.split_once('}').ok_or(PathError::Unclosed)?
        } else {
            let end = tail.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(tail.len());
            let (name, next) = tail.split_at(end);
            if is_name(name) { (name, next) } else { ("", tail) }
        };
        if name.is_empty() {
            // A lone sign is part of the name.
            out.push(opened.unwrap_or('$').encode_utf8(&mut [0; 4]));
        } else {
            out.push(variable(name).ok_or_else(|| PathError::Unset(name.to_owned()))?);
        }
        rest = next;
    }
    out.push(rest);
    Ok(out)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// A path as people write it: under the home directory with `~`.
pub(crate) fn display(path: &Path) -> String {
    let rest = home().and_then(|home| path.strip_prefix(home).ok().map(Path::to_path_buf));
    if let Some(rest) = rest.filter(|rest| !rest.as_os_str().is_empty()) {
        return crate::terminal_filter::visible_line(&Path::new("~").join(rest).to_string_lossy());
    }
    crate::terminal_filter::visible_line(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: Result<&str, PathError>) {
        let variable = |name: &str| match name {
            "A" => Some(OsString::from("x")),
            "日本" => Some(OsString::from("jp")),
            _ => None,
        };
        let result = expand_text(input, Some(Path::new("/h")), &variable);
        assert_eq!(result, expected.map(OsString::from), "{input}");
    }

    #[test]
    fn rows() {
        check("~/m.gguf", Ok("/h/m.gguf"));
        check("~", Ok("/h"));
        check("~user/m", Ok("~user/m"));
        check("a/~/b", Ok("a/~/b"));
        check("$A/b", Ok("x/b"));
        check("${A}b$A", Ok("xbx"));
        check("${日本}", Ok("jp"));
        check("$B/b", Err(PathError::Unset("B".into())));
        check("${A", Err(PathError::Unclosed));
        check("price $ 5", Ok("price $ 5"));
        check("$5", Ok("$5"));
        check("end$", Ok("end$"));
        check("モデル 🦀.gguf", Ok("モデル 🦀.gguf"));
        check("*.gguf", Ok("*.gguf"));
    }

    #[test]
    fn relative_paths_start_at_the_base() {
        let base = Path::new("/etc/conf");
        assert_eq!(expand(OsStr::new("m.gguf"), Some(base)), Ok(PathBuf::from("/etc/conf/m.gguf")));
        assert_eq!(expand(OsStr::new("/m.gguf"), Some(base)), Ok(PathBuf::from("/m.gguf")));
        assert_eq!(expand(OsStr::new("m.gguf"), None), Ok(PathBuf::from("m.gguf")));
        assert_eq!(expand(OsStr::new(""), None), Err(PathError::Empty));
    }
}
