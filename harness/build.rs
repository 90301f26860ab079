//! Stamps the program with the commit it was built from, so that results can name it.

use std::process::Command;

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn main() {
    // whatever is compiled into the program decides whether the tree is dirty
    for path in ["build.rs", "src", "learner/src", "../bim/src", "../baselines/src", "../reports", "../Cargo.lock"] {
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
            let file = std::path::Path::new(&file);
            // git answers relative to the folder it runs in, which is this package's
            println!("cargo::rerun-if-changed={}", file.display());
        }
    }
}
