//! Stamps the program with the commit it was built from, so that results can name it. The library does not have the stamp, so
//! a commit that changes no source links the program again and builds nothing else.

use std::path::PathBuf;
use std::process::Command;

/// Longest text of uncommitted changes that is kept, in bytes; of a longer one the beginning is.
const LONGEST_DIFF: usize = 1 << 20;

fn git(args: &[&str]) -> Option<String> {
    // Without optional locks, so that looking does not rewrite the index.
    let output = Command::new("git").arg("--no-optional-locks").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The compiler and the profile, such as `rustc 1.90.0 (1159e78c4 2025-09-14), release`.
fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().ok().filter(|output| output.status.success());
    let version =
        version.map_or_else(|| "unknown".to_owned(), |v| String::from_utf8_lossy(&v.stdout).trim().to_owned());
    format!("{version}, {}", std::env::var("PROFILE").unwrap_or_default())
}

fn main() {
    // whatever is compiled into the program decides whether the tree is dirty
    let crates = ["suite", "report", "rows", "metrics", "grid", "data", "learner", "compare", "statistics", "ptx"];
    for name in crates {
        println!("cargo::rerun-if-changed={name}/src");
    }
    for path in ["src", "build.rs", "../bim/src", "../baselines/src", "../reports", "../Cargo.lock", "../datasets.lock"]
    {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rustc-env=HARNESS_COMPILER={}", compiler());
    let diff = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("changes.diff");
    let mut changes = git(&["diff", "HEAD", "--no-color", "--no-ext-diff"]).unwrap_or_default();
    if changes.len() > LONGEST_DIFF {
        let end = (0..=LONGEST_DIFF).rev().find(|at| changes.is_char_boundary(*at)).unwrap_or(0);
        changes.truncate(end);
        changes.push_str("\n(cut)\n");
    }
    if let Err(e) = std::fs::write(&diff, changes) {
        println!("cargo::error={}: {e}", diff.display());
    }
    // a tarball has no history: then results say that the commit is not known
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return };
    println!("cargo::rustc-env=HARNESS_GIT_COMMIT={commit}");
    if let Some(changes) = git(&["status", "--porcelain", "--untracked-files=no"]) {
        println!("cargo::rustc-env=HARNESS_GIT_DIRTY={}", !changes.is_empty());
    }
    for path in ["HEAD", "index"] {
        if let Some(file) = git(&["rev-parse", "--git-path", path]) {
            // git answers relative to the folder it runs in, which is this package's
            println!("cargo::rerun-if-changed={file}");
        }
    }
}
