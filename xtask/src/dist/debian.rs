//! The Debian package: the staged files at the places where Debian looks for them, packed by dpkg-deb.
//!
//! What the package says of itself is `packaging/debian/control`. It is a package for a user's machine; Debian's own
//! archive would build from source with its own crates.

use super::{Release, archive, copy, make_folder, must, size, write};
use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target whose program is packed.
pub(super) const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Staged files, and where they go.
const PLACES: &[(&str, &str)] = &[
    ("rustorch-cli", "usr/bin/rustorch-cli"),
    ("completions/rustorch-cli.bash", "usr/share/bash-completion/completions/rustorch-cli"),
    ("completions/_rustorch-cli", "usr/share/zsh/vendor-completions/_rustorch-cli"),
    ("completions/rustorch-cli.fish", "usr/share/fish/vendor_completions.d/rustorch-cli.fish"),
    ("README.md", "usr/share/doc/rustorch-cli/README.md"),
    ("README.ja.md", "usr/share/doc/rustorch-cli/README.ja.md"),
    ("DEMO-MODEL.md", "usr/share/doc/rustorch-cli/DEMO-MODEL.md"),
    ("THIRD-PARTY-LICENSES.txt", "usr/share/doc/rustorch-cli/THIRD-PARTY-LICENSES.txt"),
];

/// The same, compressed on the way, as Debian wants them.
const COMPRESSED: &[(&str, &str)] = &[
    ("man/man1/rustorch-cli.1", "usr/share/man/man1/rustorch-cli.1"),
    ("man/ja/man1/rustorch-cli.1", "usr/share/man/ja/man1/rustorch-cli.1"),
    ("CHANGELOG.md", "usr/share/doc/rustorch-cli/changelog"),
];

/// Packs `staged` into `folder`.
pub(super) fn pack(root: &Path, staged: &Path, folder: &Path, release: &Release) -> Result<PathBuf> {
    let tree = folder.join("debian-tree");
    if tree.exists() {
        fs::remove_dir_all(&tree).map_err(|cause| Error::Io { path: tree.clone(), cause })?;
    }
    let mut files = Vec::new();
    for (from, to) in PLACES.iter().chain(COMPRESSED) {
        copy(&staged.join(from), &tree.join(to))?;
        files.push(tree.join(to));
    }
    let copyright = tree.join("usr/share/doc/rustorch-cli/copyright");
    copy(&root.join("packaging/debian/copyright"), &copyright)?;
    files.push(copyright);
    let program = tree.join("usr/bin/rustorch-cli");
    for file in &files {
        archive::settle(file, *file == program, release.epoch)?;
    }
    for (_, to) in COMPRESSED {
        must(Command::new("gzip").args(["-n", "-9"]).arg(tree.join(to)))?;
    }
    let mut bytes = 0;
    for file in &files {
        bytes += if file.exists() { size(file)? } else { size(&with_gz(file))? };
    }
    let control = root.join("packaging/debian/control");
    let text = fs::read_to_string(&control).map_err(|cause| Error::Io { path: control, cause })?;
    let text =
        text.replace("@VERSION@", &release.version).replace("@INSTALLED_KIB@", &bytes.div_ceil(1024).to_string());
    make_folder(&tree.join("DEBIAN"))?;
    write(&tree.join("DEBIAN/control"), text.as_bytes())?;
    let package = folder.join(format!("rustorch-cli_{}-1_amd64.deb", release.version));
    must(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "--build"])
            .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
            .arg(&tree)
            .arg(&package),
    )?;
    fs::remove_dir_all(&tree).map_err(|cause| Error::Io { path: tree.clone(), cause })?;
    Ok(package)
}

fn with_gz(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".gz");
    PathBuf::from(name)
}
