//! The log (requirement rows R10, R54, R55): to a file at a level, to stderr only when asked, never prompts or answers.
//!
//! The file is readable by its owner only. On the first line of a new day, or when it has grown to [`MAX_BYTES`], it is
//! set aside as `NAME.1` (older ones move up) and the oldest beyond the count is removed. A log that cannot be written
//! is a warning, not an error.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Mutex,
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Registry, fmt, layer::SubscriberExt};

/// A log file is set aside at this size even within a day.
const MAX_BYTES: u64 = 5 << 20;

/// What to log and where.
#[derive(Clone, Debug)]
pub(crate) struct LogOptions {
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub(crate) level: &'static str,
    /// The file; none: no file.
    pub(crate) file: Option<PathBuf>,
    /// Set-aside files kept.
    pub(crate) keep: usize,
    /// Also to stderr.
    pub(crate) stderr: bool,
}

/// Starts logging. Returns why the file cannot be used, for a warning.
pub(crate) fn start(options: &LogOptions) -> Option<io::Error> {
    let level: LevelFilter = options.level.parse().unwrap_or(LevelFilter::INFO);
    let mut problem = None;
    let file = options.file.as_deref().and_then(|path| match LogFile::open(path, options.keep) {
        Ok(file) => Some(file),
        Err(error) => {
            problem = Some(error);
            None
        }
    });
    let file = file.map(|file| fmt::layer().with_ansi(false).with_timer(Clock).with_writer(Mutex::new(file)));
    let stderr = options.stderr.then(|| fmt::layer().with_ansi(false).with_timer(Clock).with_writer(io::stderr));
    if file.is_some() || stderr.is_some() {
        let subscriber = Registry::default().with(level).with(file).with(stderr);
        // A second start in one process (there is none) would keep the first.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }
    problem
}

/// Time stamps: RFC 3339 with offset.
struct Clock;

impl fmt::time::FormatTime for Clock {
    fn format_time(&self, w: &mut fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(w, "{}", jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%.3f%:z"))
    }
}

/// A file that rotates.
struct LogFile {
    path: PathBuf,
    keep: usize,
    file: File,
    bytes: u64,
    day: jiff::civil::Date,
}

impl LogFile {
    fn open(path: &Path, keep: usize) -> io::Result<LogFile> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            crate::safe_write::create_dirs(dir)?;
        }
        let today = jiff::Zoned::now().date();
        // The day of an existing file is that of its last line.
        let day = std::fs::metadata(path)
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|time| jiff::Timestamp::try_from(time).ok())
            .map_or(today, |time| time.to_zoned(jiff::tz::TimeZone::system()).date());
        let (file, bytes) = append(path)?;
        let mut log = LogFile { path: path.to_path_buf(), keep, file, bytes, day };
        log.rotate_if_due(today)?;
        Ok(log)
    }

    fn rotate_if_due(&mut self, today: jiff::civil::Date) -> io::Result<()> {
        if self.bytes > 0 && (self.day != today || self.bytes >= MAX_BYTES) {
            rotate(&self.path, self.keep)?;
            (self.file, self.bytes) = append(&self.path)?;
        }
        self.day = today;
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // If setting aside fails, going on in the old file loses nothing.
        let _ = self.rotate_if_due(jiff::Zoned::now().date());
        let n = self.file.write(line)?;
        self.bytes = self.bytes.saturating_add(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// `NAME` becomes `NAME.1`, `NAME.1` becomes `NAME.2`, …; what would be beyond `keep` goes.
fn rotate(path: &Path, keep: usize) -> io::Result<()> {
    let aside = |n: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    if keep == 0 {
        return std::fs::remove_file(path);
    }
    for n in (1..keep).rev() {
        match std::fs::rename(aside(n), aside(n + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, aside(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_are_set_aside_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("日本 log").join("cli.log");
        for day in 1..=5 {
            let mut log = LogFile::open(&path, 2).unwrap();
            log.write_all(format!("day {day}\n").as_bytes()).unwrap();
            log.rotate_if_due(jiff::civil::date(2020, 1, day)).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(path.with_file_name(name)).ok();
        assert_eq!(read("cli.log.1").as_deref(), Some("day 5\n"));
        assert_eq!(read("cli.log.2").as_deref(), Some("day 4\n"));
        assert_eq!(read("cli.log.3"), None);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn an_unwritable_log_is_reported_not_fatal() {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { level: "info", file: Some(dir.path().to_path_buf()), keep: 5, stderr: false };
        assert!(start(&options).is_some());
    }
}
