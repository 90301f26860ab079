//! Where this program keeps what it can compute again, apart from the data, which may lie on a mount that nobody can write to.

use std::env;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Names the folder for this process and for those that it starts.
pub const VARIABLE: &str = "HARNESS_CACHE";

static GIVEN: OnceLock<PathBuf> = OnceLock::new();

/// Sets the folder, as the command line names it. The first to set it wins.
pub fn set(folder: PathBuf) {
    // a second one is the same command line
    let _ = GIVEN.set(folder);
}

/// The folder: as it was set, as `HARNESS_CACHE` names it, or `harness` in the user's cache folder.
#[must_use]
pub fn folder() -> PathBuf {
    GIVEN.get().cloned().unwrap_or_else(|| default_folder(|name| env::var_os(name).map(PathBuf::from)))
}

/// The folder, where the command line or `HARNESS_CACHE` names one: for processes that do not inherit the environment.
#[must_use]
pub fn named() -> Option<PathBuf> {
    let of_variable = || env::var_os(VARIABLE).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
    GIVEN.get().cloned().or_else(of_variable)
}

fn default_folder(variable: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    let named = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
    // the XDG specification says that a relative path is to be ignored
    let absolute = |name: &str| named(name).filter(|path| path.is_absolute());
    let of_user = || absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    named(VARIABLE)
        .or_else(|| Some(of_user()?.join("harness")))
        .unwrap_or_else(|| env::temp_dir().join("harness-cache"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_cache_folder_unless_another_is_named() {
        let of = |pairs: &[(&str, &str)]| {
            let find = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value));
            default_folder(find)
        };
        let home = ("HOME", "/home/a");
        assert_eq!(of(&[home]), PathBuf::from("/home/a/.cache/harness"));
        assert_eq!(of(&[home, ("XDG_CACHE_HOME", "/c")]), PathBuf::from("/c/harness"));
        assert_eq!(of(&[home, ("XDG_CACHE_HOME", "c")]), PathBuf::from("/home/a/.cache/harness"));
        assert_eq!(of(&[home, (VARIABLE, "mine")]), PathBuf::from("mine"));
        assert_eq!(of(&[home, (VARIABLE, "")]), PathBuf::from("/home/a/.cache/harness"));
        assert!(of(&[]).ends_with("harness-cache"));
    }
}
