//! The machine that was measured, as far as the system tells: figures without it mean nothing.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Facts of the machine at one moment.
#[derive(Debug, Default)]
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) date: String,
    flags: Vec<String>,
    threads: usize,
    memory_bytes: Option<u64>,
    system: String,
    huge_pages: Option<String>,
    /// Of the last minute, before measuring: other work disturbs.
    load_average: Option<f64>,
}

/// Processor features that decide which kernels run.
const FLAGS: &[&str] = &[
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "neon",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
];

impl Machine {
    pub(super) fn read() -> Machine {
        let processor_text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory_text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let name = field(&processor_text, "model name").map(str::to_owned);
        let name = name.or_else(|| output_of("sysctl", &["-n", "machdep.cpu.brand_string"]));
        let flags = field(&processor_text, "flags").or_else(|| field(&processor_text, "Features")).unwrap_or_default();
        let have: Vec<&str> = flags.split_whitespace().collect();
        let kib = field(&memory_text, "MemTotal").and_then(|text| text.strip_suffix("kB")?.trim().parse::<u64>().ok());
        let memory = kib.map(|kib| kib * 1024).or_else(|| output_of("sysctl", &["-n", "hw.memsize"])?.parse().ok());
        let load = fs::read_to_string("/proc/loadavg").ok();
        let huge_pages = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok();
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Machine {
            processor: name.unwrap_or_else(|| format!("unknown {} processor", std::env::consts::ARCH)),
            date: date(seconds),
            flags: FLAGS.iter().filter(|flag| have.contains(flag)).map(|flag| (*flag).to_owned()).collect(),
            threads: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: memory,
            system: output_of("uname", &["-sr"]).unwrap_or_else(|| std::env::consts::OS.to_owned()),
            huge_pages: huge_pages.as_deref().and_then(chosen).map(str::to_owned),
            load_average: load.and_then(|text| text.split_whitespace().next()?.parse().ok()),
        }
    }

    /// A machine of which no more is known.
    #[cfg(test)]
    pub(super) fn named(processor: &str, date: &str) -> Machine {
        Machine { processor: processor.to_owned(), date: date.to_owned(), ..Machine::default() }
    }

    /// The processor's name as a part of a file name.
    pub(super) fn slug(&self) -> String {
        slug(&self.processor)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "processor": self.processor, "flags": self.flags, "hardware_threads": self.threads,
            "memory_bytes": self.memory_bytes, "system": self.system, "transparent_huge_pages": self.huge_pages,
            "load_average_before": self.load_average,
        })
    }
}

/// The value of a line `NAME : VALUE`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The word in brackets: `always [madvise] never`.
fn chosen(text: &str) -> Option<&str> {
    text.split_once('[')?.1.split_once(']').map(|(word, _)| word)
}

/// The commit of a working tree, marked when the tree differs from it.
pub(super) fn commit(root: &Path) -> Option<String> {
    let mut git = Command::new("git");
    said(git.args(["describe", "--always", "--dirty", "--exclude", "*"]).current_dir(root))
}

fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    said(Command::new(program).args(arguments))
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Small letters and digits, the rest as single dashes.
pub(super) fn slug(name: &str) -> String {
    let name = name.replace("(R)", "").replace("(TM)", "").to_lowercase();
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("-")
}

/// The day of a moment, in UTC: `2026-11-22`. Days to a date of the Gregorian calendar as Howard Hinnant derives it
/// (“chrono-Compatible Low-Level Date Algorithms”): years begin in March, so that the leap day is the last one.
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let check = |seconds, expected: &str| assert_eq!(date(seconds), expected);
        check(0, "1970-01-01");
        check(86_399, "1970-01-01");
        check(951_782_400, "2000-02-29");
        check(1_709_164_800, "2024-02-29");
        check(1_735_689_599, "2024-12-31");
        check(1_795_305_600, "2026-11-22");
    }

    #[test]
    fn facts_of_a_system() {
        assert_eq!(slug("Intel(R) Xeon(R) Processor @ 2.50GHz"), "intel-xeon-processor-2-50ghz");
        assert_eq!(field("processor\t: 0\nmodel name\t: A: B\n", "model name"), Some("A: B"));
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
        let machine = Machine::read();
        assert!(!machine.slug().is_empty() && machine.date.len() == 10 && machine.json()["system"].is_string());
    }
}
