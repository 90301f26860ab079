//! The system's C++ compiler.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Where the sources of the stand-ins are.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cpp")
}

/// What is run as the C++ compiler: `CXX`, or `g++`.
fn program() -> OsString {
    std::env::var_os("CXX").unwrap_or_else(|| "g++".into())
}

/// The C++ compiler: `CXX`, or `g++`.
///
/// # Errors
/// Why tests that need one skip: there is none, or the processor is not one that the stand-ins are written for.
pub fn compiler() -> Result<PathBuf, String> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err("the stand-ins for CUDA are written for Linux on x86-64".into());
    }
    let name = program();
    match Command::new(&name).arg("--version").output() {
        Ok(output) if output.status.success() => Ok(name.into()),
        _ => Err(format!("no C++ compiler: {} does not run (Debian: apt-get install g++)", Path::new(&name).display())),
    }
}

/// A folder for what is built, beside the test program; removed with the target folder.
pub(crate) fn folder(of: &str) -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|e| format!("the path of the test program: {e}"))?;
    let folder = program.parent().unwrap_or(Path::new(".")).join("standins").join(of);
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}

/// Makes `output` with the compiler unless it is there already: `output` names what it is made of.
pub(crate) fn compile<A: AsRef<OsStr>>(output: &Path, args: impl IntoIterator<Item = A>) -> Result<(), String> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if output.exists() {
        return Ok(());
    }
    // renamed when whole: another process may build the same
    let part = output.with_extension(format!("part-{}", std::process::id()));
    let run =
        Command::new(compiler()?).args(["-std=c++20", "-fPIC", "-pthread"]).args(args).arg("-o").arg(&part).output();
    let run = run.map_err(|e| format!("the C++ compiler: {e}"))?;
    if !run.status.success() {
        return Err(format!("{}: {}", output.display(), String::from_utf8_lossy(&run.stderr)));
    }
    std::fs::rename(&part, output).map_err(|e| format!("{}: {e}", output.display()))
}

/// A name for what the compiler makes of these texts (FNV-1a): another for another compiler.
pub(crate) fn name_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |text: &[u8]| {
        for &byte in text.iter().chain(&[0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(program().as_encoded_bytes());
    texts.into_iter().for_each(|text| add(text.as_bytes()));
    format!("{hash:016x}")
}

/// A kernel's source with the headers that it includes from beside it in their places, where a test can put an error into them.
///
/// # Errors
/// Which file cannot be read.
pub(crate) fn kernel_text(path: &Path) -> Result<String, String> {
    let at = |line: usize, path: &Path| format!("#line {line} \"{}\"", path.display());
    let mut lines = vec![at(1, path)];
    for (number, line) in read(path)?.lines().enumerate() {
        let header = line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'));
        if let Some(header) = header.map(|name| path.with_file_name(name)) {
            lines.extend([at(1, &header), read(&header)?.replace("#pragma once", ""), at(number + 2, path)]);
        } else {
            lines.push(line.to_owned());
        }
    }
    Ok(lines.join("\n") + "\n")
}

/// Flags for the project's own sources: what the compiler warns of is an error.
pub(crate) const STRICT: [&str; 2] = ["-Wall", "-Werror"];

pub(crate) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
