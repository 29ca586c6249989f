//! What code does to its surroundings: unsafe memory, output, environment, threads, sockets.

use super::{Allowed, Finding, allowed, over_shipped};
use crate::project::Project;
use crate::source::has;

const UNSAFE: &[Allowed] = &[
    Allowed { path: "crates/compute/", reason: "kernels and the pool" },
    Allowed { path: "crates/engine/tests/it/allocations.rs", reason: "a test's allocator that counts" },
    Allowed { path: "crates/checkpoint/src/mmap.rs", reason: "a memory map is bytes another process could change" },
];

/// The crate roots of everything in the workspace.
fn is_root(path: &str) -> bool {
    (path.starts_with("crates/") && (path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs")))
        || path == "xtask/src/main.rs"
}

pub(super) fn unsafe_code(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in project.rust() {
        if is_root(&file.path) && !file.path.starts_with("crates/compute/") {
            let wanted = if file.path.starts_with("crates/checkpoint/") { "deny" } else { "forbid" };
            let attribute = format!("#![{wanted}(unsafe_code)]");
            if !file.lines.iter().any(|l| l.code.trim() == attribute) {
                findings.push(Finding::new(&file.path, 0, format!("the crate does not say `{attribute}`")));
            }
        }
        if allowed(UNSAFE, &file.path) {
            continue;
        }
        for (number, line) in (1..).zip(&file.lines) {
            // A crate that denies unsafe code opens its one home on the line above the module's.
            let next = file.lines.get(number).map_or("", |l| l.code.trim());
            let opens_home = file.path == "crates/checkpoint/src/lib.rs" && next == "mod mmap;";
            if has(&line.code, "unsafe") || (line.code.contains("allow(unsafe_code") && !opens_home) {
                findings.push(Finding::new(&file.path, number, "unsafe code outside its two homes"));
            }
        }
    }
    findings
}

const PRINTING: &[&str] = &[
    "print!",
    "println!",
    "eprint!",
    "eprintln!",
    "dbg!",
    "io::stdout",
    "io::stderr",
    "anstream::stdout",
    "anstream::stderr",
];
const SURROUNDINGS: &[&str] = &["process::exit", "process::abort", "env::", "home_dir", "std::env", "home::home_dir"];

const PRINTERS: &[Allowed] = &[
    Allowed { path: "crates/rustorch-cli/src/output.rs", reason: "the program's one door for text" },
    Allowed { path: "crates/rustorch-cli/build.rs", reason: "a build script speaks to cargo by printing" },
    Allowed {
        path: "crates/rustorch-cli/src/logging.rs",
        reason: "hands stderr to the log when --log-stderr asks for it",
    },
];
const READERS: &[Allowed] = &[
    Allowed { path: "crates/rustorch-cli/", reason: "a program" },
    Allowed { path: "crates/rustorch-server/", reason: "a program" },
];

pub(super) fn surroundings(project: &Project) -> Vec<Finding> {
    over_shipped(project, |file, line| {
        let code = line.code.replace("env::consts", "");
        let found = |list: &[&'static str]| list.iter().copied().find(|p| has(&code, p));
        if let (Some(p), false) = (found(PRINTING), allowed(PRINTERS, &file.path)) {
            return Some(format!("prints (`{p}`)"));
        }
        match found(SURROUNDINGS) {
            Some(p) if !allowed(READERS, &file.path) => Some(format!("exits or reads its surroundings (`{p}`)")),
            _ => None,
        }
    })
}

const STARTERS: &[Allowed] = &[
    Allowed { path: "crates/compute/src/cpu/pool.rs", reason: "the compute pool" },
    Allowed { path: "crates/compute/src/cpu/pool/", reason: "the compute pool" },
    Allowed { path: "crates/engine/src/engine.rs", reason: "starts the one worker" },
    Allowed { path: "crates/text/src/template/render.rs", reason: "a template runs on a stack and a clock of its own" },
    Allowed { path: "crates/rustorch-cli/", reason: "signals, loading and logging of a program" },
    Allowed { path: "crates/rustorch-server/", reason: "a program" },
];

pub(super) fn threads(project: &Project) -> Vec<Finding> {
    const STARTS: &[&str] = &["thread::spawn", "thread::Builder", "thread::scope", "rayon::"];
    over_shipped(project, |file, line| {
        let start = STARTS.iter().find(|p| has(&line.code, p))?;
        (!allowed(STARTERS, &file.path)).then(|| format!("starts a thread (`{start}`)"))
    })
}

/// Packages whose presence would put network code into the program.
const NETWORK_PACKAGES: &[&str] = &[
    "actix-web",
    "async-std",
    "attohttpc",
    "axum",
    "curl",
    "curl-sys",
    "h2",
    "hf-hub",
    "hickory-resolver",
    "hyper",
    "isahc",
    "libp2p",
    "minreq",
    "mio",
    "native-tls",
    "openssl",
    "openssl-sys",
    "quinn",
    "reqwest",
    "rustls",
    "smol",
    "socket2",
    "surf",
    "tokio",
    "tonic",
    "trust-dns-resolver",
    "tungstenite",
    "ureq",
    "zmq",
];

const SOCKET_TYPES: &[&str] = &[
    "std::net",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "libc::socket",
];
const SOCKETS: &[Allowed] = &[Allowed { path: "crates/rustorch-server/", reason: "the server is where sockets are" }];

pub(super) fn sockets(project: &Project) -> Vec<Finding> {
    let mut findings = over_shipped(project, |file, line| {
        let name = SOCKET_TYPES.iter().find(|p| has(&line.code, p))?;
        (!allowed(SOCKETS, &file.path)).then(|| format!("names a socket type (`{name}`)"))
    });
    let Some(lock) = project.file("Cargo.lock") else { return findings };
    let packages = match lock.text.parse::<toml::Table>() {
        Ok(table) => packages(&table),
        Err(error) => {
            findings.push(Finding::new("Cargo.lock", 0, format!("not a lock file: {error}")));
            return findings;
        }
    };
    for name in reached(&packages, "rustorch-cli") {
        if NETWORK_PACKAGES.contains(&name.as_str()) {
            let entry = format!("name = \"{name}\"");
            let line = lock.text.lines().position(|l| l == entry).map_or(0, |n| n + 1);
            findings.push(Finding::new(
                "Cargo.lock",
                line,
                format!("`rustorch-cli` depends on the network package `{name}`"),
            ));
        }
    }
    findings
}

/// Each package of the lock file with the names it depends on (versions of one name are taken together).
fn packages(lock: &toml::Table) -> Vec<(String, Vec<String>)> {
    let rows = lock.get("package").and_then(|p| p.as_array()).map(Vec::as_slice).unwrap_or_default();
    rows.iter()
        .filter_map(|row| {
            let name = row.get("name")?.as_str()?.to_owned();
            let needs = row.get("dependencies").and_then(|d| d.as_array()).map(Vec::as_slice).unwrap_or_default();
            // An entry is `name`, or `name version` where several versions are locked.
            let needs = needs.iter().filter_map(|d| Some(d.as_str()?.split(' ').next()?.to_owned())).collect();
            Some((name, needs))
        })
        .collect()
}

/// Every package that `root` needs, directly or not, for any platform, its tests included.
fn reached(packages: &[(String, Vec<String>)], root: &str) -> Vec<String> {
    let mut reached = vec![root.to_owned()];
    let mut next = 0;
    while let Some(name) = reached.get(next).cloned() {
        next += 1;
        for need in packages.iter().filter(|(n, _)| *n == name).flat_map(|(_, needs)| needs) {
            if !reached.contains(need) {
                reached.push(need.clone());
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::check_rule;

    #[test]
    fn unsafe_stays_at_home() {
        let check = |files: &[(&str, &str)], expected: &[(&str, usize)]| check_rule(unsafe_code, files, expected);
        check(&[("crates/text/src/lib.rs", "//! T.\n#![forbid(unsafe_code)]\nfn f() {}")], &[]);
        check(&[("crates/text/src/lib.rs", "//! T.")], &[("crates/text/src/lib.rs", 0)]);
        check(&[("crates/text/src/a.rs", "fn f() { unsafe { g() } }")], &[("crates/text/src/a.rs", 1)]);
        check(&[("crates/text/src/a.rs", "// unsafe\nlet x = \"unsafe\";")], &[]);
        check(&[("crates/compute/src/cpu/a.rs", "unsafe { g() }")], &[]);
        check(&[("crates/checkpoint/src/mmap.rs", "#![allow(unsafe_code)]\nunsafe { g() }")], &[]);
        check(&[("crates/checkpoint/src/lib.rs", "#![deny(unsafe_code)]")], &[]);
        let opened = |module: &str| format!("#![deny(unsafe_code)]\n#[allow(unsafe_code)]\nmod {module};");
        check(&[("crates/checkpoint/src/lib.rs", &opened("mmap"))], &[]);
        check(&[("crates/checkpoint/src/lib.rs", &opened("file"))], &[("crates/checkpoint/src/lib.rs", 2)]);
        check(&[("crates/engine/tests/it/main.rs", "unsafe { g() }")], &[("crates/engine/tests/it/main.rs", 1)]);
    }

    #[test]
    fn libraries_leave_their_surroundings_alone() {
        let check = |path: &str, text: &str, caught: bool| {
            let expected: &[(&str, usize)] = if caught { &[(path, 1)] } else { &[] };
            check_rule(surroundings, &[(path, text)], expected);
        };
        check("crates/engine/src/a.rs", "println!(\"x\");", true);
        check("crates/engine/src/a.rs", "let s = \"println!\"; // println!", false);
        check("crates/engine/src/a.rs", "let v = std::env::var(\"X\");", true);
        check("crates/engine/src/a.rs", "let v = env!(\"CARGO_PKG_VERSION\");", false);
        check("crates/engine/src/a.rs", "let v = std::env::consts::OS;", false);
        check("crates/engine/src/a.rs", "process::exit(1)", true);
        check("crates/engine/tests/it/a.rs", "println!(\"skipped\");", false);
        check("crates/rustorch-cli/src/paths.rs", "std::env::var_os(\"HOME\")", false);
        check("crates/rustorch-cli/src/repl/mod.rs", "eprintln!(\"x\");", true);
        check("crates/rustorch-cli/src/output.rs", "let out = std::io::stdout();", false);
    }

    #[test]
    fn threads_start_in_few_places() {
        check_rule(threads, &[("crates/text/src/a.rs", "std::thread::spawn(f);")], &[("crates/text/src/a.rs", 1)]);
        check_rule(threads, &[("crates/engine/src/engine.rs", "std::thread::Builder::new()")], &[]);
    }

    #[test]
    fn no_socket_is_linked() {
        let lock = "[[package]]\nname = \"rustorch-cli\"\nversion = \"1\"\ndependencies = [\"a 1.0.0\"]\n\n\
                    [[package]]\nname = \"a\"\nversion = \"1.0.0\"\ndependencies = [\"ureq\"]\n\n\
                    [[package]]\nname = \"ureq\"\nversion = \"2\"\n\n[[package]]\nname = \"tokio\"\nversion = \"1\"\n";
        check_rule(sockets, &[("Cargo.lock", lock)], &[("Cargo.lock", 12)]);
        check_rule(
            sockets,
            &[("crates/engine/src/a.rs", "use std::net::TcpStream;")],
            &[("crates/engine/src/a.rs", 1)],
        );
    }
}
