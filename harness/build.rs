//! Stamps the program with the commit it was built from, so that results can name it. The library does not have the stamp, so
//! a commit that changes no source links the program again and builds nothing else.

use std::process::Command;

fn git(args: &[&str]) -> Option<String> {
    // Without optional locks, so that looking does not rewrite the index.
    let output = Command::new("git").arg("--no-optional-locks").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn main() {
    // whatever is compiled into the program decides whether the tree is dirty
    let sources = ["src", "suite/src", "report/src", "rows/src", "metrics/src", "grid/src", "data/src", "learner/src"];
    let others = ["build.rs", "../bim/src", "../baselines/src", "../reports", "../Cargo.lock", "../datasets.lock"];
    for path in sources.iter().chain(&others) {
        println!("cargo::rerun-if-changed={path}");
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
