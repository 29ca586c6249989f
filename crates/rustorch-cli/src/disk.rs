//! How much room a disk has, asked before a large file is written.

use std::path::Path;

/// Bytes that may still be written below the folder `dir`. `None`: the system does not say.
pub(crate) fn free_bytes(dir: &Path) -> Option<u64> {
    let dir = std::fs::canonicalize(dir).ok()?;
    let disks = sysinfo::Disks::new_with_refreshed_list();
    let holding = disks.list().iter().filter(|disk| dir.starts_with(disk.mount_point()));
    let nearest = holding.max_by_key(|disk| disk.mount_point().components().count())?;
    // Some file systems count nothing.
    (nearest.total_space() > 0).then(|| nearest.available_space())
}
