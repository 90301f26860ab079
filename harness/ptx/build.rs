//! Compiles the kernels with `nvcc`, if the feature `cuda` is on.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders of kernel sources, from this package.
const FOLDERS: [&str; 3] = ["../learner/src/cuda", "../../baselines/src/cuda", "../../bim/src/cuda"];

/// The oldest architecture that CUDA 13 compiles for. A driver makes code for a card of this or any newer one from it.
const ARCHITECTURE: &str = "compute_75";

fn main() {
    for folder in FOLDERS {
        println!("cargo::rerun-if-changed={folder}");
    }
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut code = String::new();
    for folder in FOLDERS {
        let mut sources: Vec<PathBuf> = std::fs::read_dir(folder)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        sources.sort();
        for source in sources.iter().filter(|path| path.extension().is_some_and(|e| e == "cu")) {
            let owner = Path::new(folder).components().rev().nth(2).expect("a crate").as_os_str().to_string_lossy();
            let stem = source.file_stem().unwrap_or_default().to_string_lossy();
            let name = format!("{owner}_{stem}").to_uppercase();
            let ptx = out.join(format!("{name}.ptx"));
            let run =
                Command::new("nvcc").args(["-ptx", "-arch", ARCHITECTURE]).arg(source).arg("-o").arg(&ptx).output();
            match run {
                Ok(output) if output.status.success() => {}
                Ok(output) => panic!("{}:\n{}", source.display(), String::from_utf8_lossy(&output.stderr)),
                Err(e) => panic!("nvcc: {e}; a build with CUDA needs its compiler on the path (see CONTRIBUTING.md)"),
            }
            let _ = writeln!(
                code,
                "/// `{owner}/src/cuda/{stem}.cu`.\npub const {name}: &str = include_str!(\"{}\");",
                ptx.display()
            );
        }
    }
    std::fs::write(out.join("ptx.rs"), code).expect("the build folder can be written");
}
