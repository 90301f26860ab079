//! Where the numbers of a cell come from: program, machine, command, environment.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use candle_core::Device;
use learner::product::InstructionSet;

use super::Build;
use crate::error::{Error, Result};
use crate::plan::PlannedCell;
use crate::store::{Provenance, write_whole};
use data::files::sha256_hex;

/// Names of variables that may change what a cell computes, how fast, or where; they begin like this.
const VARIABLES: [&str; 8] =
    ["HARNESS_", "RAYON_", "CUDA_", "NVIDIA_", "CUBLAS_", "SLURM_JOB_ID", "SLURM_ARRAY_", "MIMALLOC_"];

/// Where the command stands for the workers that it starts.
pub const COMMAND_VARIABLE: &str = "HARNESS_COMMAND";

/// Where the numbers of a cell come from that starts now.
pub fn provenance(cell: &PlannedCell, device: &Device, build: &Build) -> Provenance {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Provenance {
        version: build.version.to_owned(),
        git_commit: build.git_commit.map(str::to_owned),
        git_dirty: build.git_dirty,
        git_diff_sha256: text(build.git_diff).map(|diff| sha256_hex(diff.as_bytes())),
        compiler: text(build.compiler),
        features: text(build.features),
        command: Some(command()),
        environment: environment(std::env::vars()),
        lock_sha256: sha256_hex(include_bytes!("../../../../Cargo.lock")),
        device: crate::device::name(device),
        instruction_set: Some(InstructionSet::in_use().name().to_owned()),
        processor: processor(),
        threads: rayon::current_num_threads() as u64,
        data: cell.data.clone(),
        started_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
    }
}

/// The command line as a shell takes it: of the command that started this process, where that has left it.
pub fn command() -> String {
    static COMMAND: LazyLock<String> = LazyLock::new(|| {
        std::env::var(COMMAND_VARIABLE).unwrap_or_else(|_| {
            let arguments: Vec<String> =
                std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
            quoted(std::iter::once("harness").chain(arguments.iter().map(String::as_str)))
        })
    });
    COMMAND.clone()
}

fn quoted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    // only a NUL cannot be quoted, and no argument can have one
    shlex::try_join(words).unwrap_or_default()
}

fn environment(variables: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let matters = |name: &str| VARIABLES.iter().any(|start| name.starts_with(start)) && name != COMMAND_VARIABLE;
    variables.filter(|(name, _)| matters(name)).collect()
}

/// Keeps the changes that the program was built with beside the results that it makes.
///
/// # Errors
/// If the system refuses.
pub fn keep_diff(run: &Path, build: &Build) -> Result<()> {
    if build.git_diff.is_empty() {
        return Ok(());
    }
    let folder = run.join("diffs");
    let path = folder.join(format!("{}.diff", sha256_hex(build.git_diff.as_bytes())));
    if path.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    write_whole(&path, build.git_diff.as_bytes())
}

/// The processor as the system describes it: names alone are shared by generations that round differently.
fn processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |name: &str| {
        let of =
            |line: &str| line.split_once(':').filter(|(key, _)| key.trim() == name).map(|(_, v)| v.trim().to_owned());
        info.lines().find_map(of)
    };
    let name = field("model name")?;
    let facts = ["cpu family", "model", "stepping", "cache size"].into_iter();
    let facts: Vec<String> = facts.filter_map(|fact| Some(format!("{fact} {}", field(fact)?))).collect();
    Some(if facts.is_empty() { name } else { format!("{name} ({})", facts.join(", ")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let words = ["harness", "run", "a grid.yaml", "--only", "model=bim|lstm", "--set", "x='1'"];
        let text = quoted(words.into_iter());
        let out = std::process::Command::new("sh").args(["-c", &format!("printf '%s\\n' {text}")]).output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap().lines().collect::<Vec<_>>(), words);
    }

    #[test]
    fn uncommitted_changes_are_kept_once_under_their_digest() {
        let run = tempfile::tempdir().unwrap();
        let build =
            |git_diff| Build { version: "1", git_commit: None, git_dirty: None, git_diff, compiler: "", features: "" };
        keep_diff(run.path(), &build("")).unwrap();
        assert!(!run.path().join("diffs").exists());
        keep_diff(run.path(), &build("+ a line")).unwrap();
        keep_diff(run.path(), &build("+ a line")).unwrap();
        let kept: Vec<_> = std::fs::read_dir(run.path().join("diffs")).unwrap().flatten().collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].file_name().to_str(), Some(format!("{}.diff", sha256_hex(b"+ a line")).as_str()));
        assert_eq!(std::fs::read_to_string(kept[0].path()).unwrap(), "+ a line");
    }

    #[test]
    fn variables_that_matter_are_kept_and_no_others() {
        let all =
            ["RAYON_NUM_THREADS", "HARNESS_ISA", COMMAND_VARIABLE, "AWS_SECRET_ACCESS_KEY", "SLURM_ARRAY_TASK_ID"];
        let kept = environment(all.into_iter().map(|name| (name.to_owned(), "1".to_owned())));
        assert_eq!(kept.into_keys().collect::<Vec<_>>(), ["HARNESS_ISA", "RAYON_NUM_THREADS", "SLURM_ARRAY_TASK_ID"]);
    }
}
