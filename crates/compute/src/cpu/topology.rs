//! The machine: how many threads are worth starting, and what the processor calls itself.
//!
//! What belongs here: reading that from the system. What does not: what an instruction set can do (`simd`).

/// Physical cores that this process may use, at least 1: the smallest of the affinity mask, the container's CPU quota
/// and the number of distinct cores behind the allowed processors. A second thread on one core has no multiplier of
/// its own, so it only adds barrier time.
pub(crate) fn usable_cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from); // affinity and cgroup quota
    physical_cores().map_or(allowed, |cores| cores.min(allowed)).max(1)
}

/// Distinct cores among the processors of the affinity mask. `None`: the system does not say.
#[cfg(target_os = "linux")]
fn physical_cores() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut cores = std::collections::BTreeSet::new();
    for cpu in parse_cpu_list(list.trim())? {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        // Processors without topology count as cores of their own.
        cores.insert(std::fs::read_to_string(path).unwrap_or_else(|_| cpu.to_string()));
    }
    Some(cores.len())
}

#[cfg(not(target_os = "linux"))]
fn physical_cores() -> Option<usize> {
    None
}

/// `0-3,8,10-11` as numbers. `None`: not such a list, or one of absurd size.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux writes such lists"))]
fn parse_cpu_list(list: &str) -> Option<Vec<usize>> {
    const MOST: usize = 1 << 16;
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        if last < first || last >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// The processor's name for itself, or its architecture.
pub(crate) fn processor_name() -> String {
    brand().unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

#[cfg(target_os = "linux")]
fn brand() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(not(target_os = "linux"))]
fn brand() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        #[track_caller]
        fn check(list: &str, expected: Option<&[usize]>) {
            assert_eq!(parse_cpu_list(list).as_deref(), expected, "{list:?}");
        }
        check("0", Some(&[0]));
        check("0-3,8,10-11", Some(&[0, 1, 2, 3, 8, 10, 11]));
        check("3-1", None);
        check("", None);
        check("0-99999999999", None);
        check("a", None);
    }

    #[test]
    fn this_machine_has_a_core() {
        assert!(usable_cores() >= 1);
        assert!(!processor_name().is_empty());
    }
}
