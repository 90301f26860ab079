//! The system's C++ compiler.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Where the sources of the stand-ins are.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cpp")
}

/// The C++ compiler: `CXX`, or `g++`.
///
/// # Errors
/// Why tests that need one skip: there is none, or the processor is not one that the stand-ins are written for.
pub fn compiler() -> Result<PathBuf, String> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err("the stand-ins for CUDA are written for Linux on x86-64".into());
    }
    let name = std::env::var_os("CXX").unwrap_or_else(|| "g++".into());
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

/// A name for what these texts make (FNV-1a).
pub(crate) fn name_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in texts.into_iter().flat_map(|text| text.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

pub(crate) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
