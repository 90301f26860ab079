//! Writing a generated dataset to a folder: whole or not at all.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{At, DataError, DataResult};
use crate::identity::{MARKER, mark};

/// Fills `root` by `write`, all at once: a scratch folder beside it is filled and renamed. Nothing is done where `is_this`
/// finds the dataset in place; a folder with anything else in it is an error, which says that `this` was expected. An empty
/// folder counts as nothing.
pub(crate) fn fill(
    root: &Path,
    this: &str,
    is_this: impl Fn(&Path) -> bool,
    write: impl FnOnce(&Path) -> DataResult<()>,
) -> DataResult<()> {
    let in_place = || {
        let got = match std::fs::read_dir(root).map(|mut inside| inside.next().is_some()) {
            Ok(true) if is_this(root) => return Ok(true),
            Ok(true) => "something else is in this folder",
            Ok(false) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotADirectory => "no folder",
            Err(error) => return Err(DataError::io(root)(error)),
        };
        let expected = format!("nothing, or {this}; remove what is there or choose another place");
        Err(DataError::corrupt(root, At::File, expected, got))
    };
    if in_place()? {
        if !root.join(MARKER).is_file() {
            // of a version that did not mark; where that cannot be written, the configuration still says what it is
            let _ = mark(root);
        }
        return Ok(());
    }
    let scratch = Scratch::beside(root)?;
    write(&scratch.0)?;
    mark(&scratch.0)?;
    match std::fs::rename(&scratch.0, root) {
        // Another process may have been faster.
        Err(_) if in_place()? => Ok(()),
        renamed => renamed.map_err(DataError::io(root)),
    }
}

/// A folder that is removed with what is in it, unless it has been renamed.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(root: &Path) -> DataResult<Self> {
        let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(DataError::io(parent))?;
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        // Other processes, or what is left of them, may hold some of the names.
        let mut attempt = 0_u64;
        loop {
            let path = parent.join(format!(".{name}.part-{attempt}"));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => attempt += 1,
                Err(error) => return Err(DataError::io(&path)(error)),
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // After a rename there is nothing to remove; after an error, that error is the one to report.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
