//! Packing: a tar.gz, for Windows a zip, the same bytes from the same files.
//!
//! GNU tar, gzip and zip do the work; names, order, owners and times are given to them.

use super::targets::Target;
use super::{make_folder, must};
use crate::error::{Error, Result};
use std::fs::{self, FileTimes};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

/// Packs the folder `name` in `folder`; everything in it gets the time `epoch`.
pub(super) fn pack(folder: &Path, name: &str, target: &Target, epoch: u64) -> Result<PathBuf> {
    let mut files = Vec::new();
    list(&folder.join(name), &mut files)?;
    files.sort();
    let program = folder.join(name).join(target.program());
    for file in &files {
        settle(file, *file == program, epoch)?;
    }
    let archive = folder.join(format!("{name}.{}", if target.is_windows() { "zip" } else { "tar.gz" }));
    if archive.exists() {
        fs::remove_file(&archive).map_err(|cause| Error::Io { path: archive.clone(), cause })?;
    }
    let names = files.iter().map(|file| file.strip_prefix(folder).unwrap_or(file));
    let mut command = if target.is_windows() {
        let mut zip = Command::new("zip");
        // The time of a zip is that of the clock on the wall: one wall for all.
        zip.env("TZ", "UTC").args(["-q", "-X", "-9"]).arg(&archive);
        zip
    } else {
        let mut tar = Command::new("tar");
        tar.args(["--owner=0", "--group=0", "--numeric-owner", "--format=ustar", "-I", "gzip -n -9", "-cf"]);
        tar.arg(&archive);
        tar
    };
    must(command.current_dir(folder).args(names))?;
    Ok(archive)
}

/// Unpacks an archive into a new folder of its own.
pub(super) fn unpack(archive: &Path, into: &Path) -> Result<()> {
    if into.exists() {
        fs::remove_dir_all(into).map_err(|cause| Error::Io { path: into.to_path_buf(), cause })?;
    }
    make_folder(into)?;
    let mut command = if archive.extension().is_some_and(|extension| extension == "zip") {
        let mut unzip = Command::new("unzip");
        unzip.arg("-q").arg(archive).arg("-d").arg(into);
        unzip
    } else {
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(archive).arg("-C").arg(into);
        tar
    };
    must(&mut command)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = |cause| Error::Io { path: folder.to_path_buf(), cause };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Gives a file its time and its rights: the program may be run, everything may be read.
pub(super) fn settle(path: &Path, is_program: bool, epoch: u64) -> Result<()> {
    let failed = |cause| Error::Io { path: path.to_path_buf(), cause };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = if is_program { 0o755 } else { 0o644 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    #[cfg(not(unix))]
    let _ = is_program;
    let time = UNIX_EPOCH + Duration::from_secs(epoch);
    let file = fs::File::options().append(true).open(path).map_err(failed)?;
    file.set_times(FileTimes::new().set_modified(time).set_accessed(time)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::{targets, write};

    #[test]
    fn the_same_files_make_the_same_bytes() {
        let folder = std::env::temp_dir().join(format!("xtask-archive-{}", std::process::id()));
        let target = targets::find("x86_64-unknown-linux-gnu").unwrap();
        let packed = || {
            write(&folder.join("n/rustorch-cli"), b"program").unwrap();
            write(&folder.join("n/man/page"), b"page").unwrap();
            fs::read(pack(&folder, "n", target, 1_700_000_000).unwrap()).unwrap()
        };
        if cfg!(target_os = "linux") {
            let first = packed();
            assert_eq!(first, packed());
            unpack(&folder.join("n.tar.gz"), &folder.join("out")).unwrap();
            assert_eq!(fs::read(folder.join("out/n/man/page")).unwrap(), b"page");
        }
        let _ = fs::remove_dir_all(&folder);
    }
}
