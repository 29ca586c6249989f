//! What the control groups of this process still allow (Linux; `cgroups(7)`, the kernel's documents of cgroup v1 and v2).
//!
//! A limit may stand anywhere between a process's own group and the root, and the tightest one counts. Page cache of a group
//! is given up before anything fails, so that it counts as free. What does not belong here: what the machine has free.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Where the groups of a version lie, and how its files are called.
struct Version {
    /// Of the line in `/proc/self/cgroup`: the controllers, empty in version 2.
    controllers: &'static str,
    /// Below the mount point.
    folders: &'static [&'static str],
    /// Limits in bytes, or a word where there is none.
    limits: &'static [&'static str],
    used: &'static str,
    /// Rows of `memory.stat` that count pages of files.
    cached: [&'static str; 2],
}

const VERSIONS: &[Version] = &[
    Version {
        controllers: "",
        folders: &["", "unified"],
        limits: &["memory.max", "memory.high"],
        used: "memory.current",
        cached: ["inactive_file", "active_file"],
    },
    Version {
        controllers: "memory",
        folders: &["memory"],
        limits: &["memory.limit_in_bytes"],
        used: "memory.usage_in_bytes",
        cached: ["total_inactive_file", "total_active_file"],
    },
];

/// Bytes that this process may still take before a limit of its groups is reached. `None`: there is none.
pub(crate) fn available_memory() -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    available(&fs::read_to_string("/proc/self/cgroup").ok()?, Path::new("/sys/fs/cgroup"))
}

/// The same for a process whose `/proc/PID/cgroup` says `groups`.
fn available(groups: &str, mount: &Path) -> Option<u64> {
    let mut least = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let is_named = |version: &&Version| controllers.split(',').any(|name| name == version.controllers);
        let Some(version) = VERSIONS.iter().find(is_named) else { continue };
        let below: PathBuf = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect();
        // A container may see its own group as the root and be told the host's path, which then leads nowhere.
        for at in version.folders.iter().flat_map(|folder| below.ancestors().map(move |at| mount.join(folder).join(at)))
        {
            least = left(version, &at).into_iter().chain(least).min();
        }
    }
    least
}

/// What one group still allows.
fn left(version: &Version, folder: &Path) -> Option<u64> {
    let number = |file: &str| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
    let limit = version.limits.iter().filter_map(|file| number(file)).min()?;
    let used = number(version.used)?;
    let rows = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let cached = rows.lines().filter_map(|row| {
        let (name, value) = row.split_once(' ')?;
        version.cached.contains(&name).then(|| value.trim().parse::<u64>().ok())?
    });
    let cached = cached.fold(0, u64::saturating_add);
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes the groups of `files` and asks for the process whose groups are `groups`.
    #[track_caller]
    fn check(groups: &str, files: &[(&str, &str)], expected: Option<u64>) {
        let mount = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = mount.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(available(groups, mount.path()), expected, "{groups} {files:?}");
    }

    #[test]
    fn the_tightest_limit_on_the_way_up_counts() {
        let own = [("a/b/memory.max", "max\n"), ("a/b/memory.current", "500\n")];
        check("0::/a/b\n", &own, None);
        let above = [own[0], own[1], ("a/memory.max", "1000\n"), ("a/memory.current", "600\n")];
        check("0::/a/b\n", &above, Some(400));
        let stat = ("a/memory.stat", "anon 300\ninactive_file 100\nactive_file 200\nslab 7\n");
        check("0::/a/b\n", &[above[0], above[1], above[2], above[3], stat], Some(700));
        check("0::/a/b\n", &[("a/b/memory.high", "900"), own[0], own[1], above[2], above[3]], Some(400));
        check("0::/a/b\n", &[("a/b/memory.max", "550"), own[1], above[2], above[3]], Some(50));
        check("0::/a/b\n", &[("a/b/memory.max", "400"), own[1]], Some(0));
        check("0::/\n", &[("memory.max", "70"), ("memory.current", "20")], Some(50));
    }

    #[test]
    fn version_1_and_containers() {
        let limit = [("memory/x/memory.limit_in_bytes", "1000"), ("memory/x/memory.usage_in_bytes", "100")];
        check("4:cpu,cpuacct:/y\n3:hugetlb,memory:/x\n0::/\n", &limit, Some(900));
        // The host's path, seen from inside.
        let inside = [("memory/memory.limit_in_bytes", "800"), ("memory/memory.usage_in_bytes", "100")];
        check("3:memory:/docker/0123\n", &inside, Some(700));
        check("3:memory:/../../x\n", &limit, Some(900));
    }

    #[test]
    fn nothing_readable_is_no_limit() {
        check("", &[], None);
        check("nonsense\n0::\n", &[("memory.max", "what"), ("memory.current", "1")], None);
    }
}
