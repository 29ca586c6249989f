//! What archives are made for: one row each.

/// A system that gets an archive.
#[derive(Debug, PartialEq)]
pub(super) struct Target {
    /// As the compiler names it.
    pub(super) triple: &'static str,
    /// For people.
    pub(super) about: &'static str,
    /// The oldest C library that the program runs with.
    pub(super) glibc: Option<&'static str>,
    /// Linked by zig, which has the C libraries of other systems.
    pub(super) linker_is_zig: bool,
    /// Built on Linux; else on a machine of its own kind.
    pub(super) from_linux: bool,
    /// What building takes.
    pub(super) needs: &'static str,
    /// A program that runs it where the machine itself does not, with its first arguments.
    pub(super) emulator: &'static [&'static str],
}

const ZIG: &str =
    "`rustup target add` of this target, and cargo-zigbuild with zig (both are on PyPI: `cargo-zigbuild`, `ziglang`)";

/// Every target.
pub(super) const TARGETS: &[Target] = &[
    Target {
        triple: "x86_64-unknown-linux-gnu",
        about: "Linux, x86-64, glibc 2.28 or newer (Debian 10, RHEL 8, Ubuntu 20.04)",
        glibc: Some("2.28"),
        linker_is_zig: true,
        from_linux: true,
        needs: ZIG,
        emulator: &[],
    },
    Target {
        triple: "x86_64-unknown-linux-musl",
        about: "Linux, x86-64, without any library (Alpine, containers)",
        glibc: None,
        linker_is_zig: true,
        from_linux: true,
        needs: ZIG,
        emulator: &[],
    },
    Target {
        triple: "aarch64-unknown-linux-gnu",
        about: "Linux, 64-bit Arm, glibc 2.28 or newer",
        glibc: Some("2.28"),
        linker_is_zig: true,
        from_linux: true,
        needs: ZIG,
        emulator: &["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
    },
    Target {
        triple: "x86_64-pc-windows-gnu",
        about: "Windows 10 or newer, x86-64",
        glibc: None,
        linker_is_zig: false,
        from_linux: true,
        needs: "`rustup target add` of this target, and mingw-w64 (Debian: gcc-mingw-w64-x86-64)",
        emulator: &["wine"],
    },
    Target {
        triple: "aarch64-apple-darwin",
        about: "macOS on Apple silicon (built on a Mac)",
        glibc: None,
        linker_is_zig: false,
        from_linux: false,
        needs: "a Mac with the Xcode command line tools, and `rustup target add` of this target",
        emulator: &[],
    },
    Target {
        triple: "x86_64-apple-darwin",
        about: "macOS on Intel (built on a Mac)",
        glibc: None,
        linker_is_zig: false,
        from_linux: false,
        needs: "a Mac with the Xcode command line tools, and `rustup target add` of this target",
        emulator: &[],
    },
];

/// The target of that name.
pub(super) fn find(triple: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.triple == triple)
}

impl Target {
    pub(super) fn is_windows(&self) -> bool {
        self.triple.contains("windows")
    }

    /// The program's file name.
    pub(super) fn program(&self) -> &'static str {
        if self.is_windows() { "rustorch-cli.exe" } else { "rustorch-cli" }
    }

    /// Whether this machine runs it without an emulator.
    pub(super) fn is_native(&self) -> bool {
        let mut parts = self.triple.split('-');
        let system = if self.triple.contains("apple") { "macos" } else { parts.clone().nth(2).unwrap_or_default() };
        parts.next() == Some(std::env::consts::ARCH) && system == std::env::consts::OS
    }
}
