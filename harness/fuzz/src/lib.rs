//! What the fuzz targets share.

use std::collections::BTreeMap;
use std::io::{Cursor, Error, ErrorKind, Result};
use std::path::Path;

/// Files in memory, by name.
pub struct Memory<'a>(pub BTreeMap<&'a str, &'a [u8]>);

impl data::formats::wfdb::Files for Memory<'_> {
    fn open(&self, path: &Path) -> Result<(Box<dyn data::formats::wfdb::Input + '_>, u64)> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let bytes = *self.0.get(name).ok_or_else(|| Error::from(ErrorKind::NotFound))?;
        Ok((Box::new(Cursor::new(bytes)), bytes.len() as u64))
    }
}

/// The parts of an input between zero bytes: the first `parts - 1` end at one, the last takes the rest.
pub fn split(data: &[u8], parts: usize) -> impl Iterator<Item = &[u8]> {
    data.splitn(parts, |&byte| byte == 0)
}

/// Calls `read` with a file that holds `data`, for readers that take a path; the file lies in memory where the system
/// has a place for that.
pub fn with_file<T>(data: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    let shared = Path::new("/dev/shm");
    let folder = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
    let path = folder.join(format!("harness-fuzz-{}", std::process::id()));
    std::fs::write(&path, data).expect("a temporary file can be written");
    let result = read(&path);
    std::fs::remove_file(&path).expect("it can be removed");
    result
}

/// Replaces the hook that ends the program at any panic, for readers that catch those of a library; a panic that is not
/// caught still ends it.
pub fn let_readers_catch() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}
