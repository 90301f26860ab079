//! What the fuzz targets share.

use std::collections::BTreeMap;
use std::io::{Cursor, Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

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

fn memory() -> PathBuf {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() }
}

/// Calls `read` with a file that holds `data`, for readers that take a path; the file lies in memory where the system
/// has a place for that.
pub fn with_file<T>(data: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    let path = memory().join(format!("harness-fuzz-{}", std::process::id()));
    std::fs::write(&path, data).expect("a temporary file can be written");
    let result = read(&path);
    std::fs::remove_file(&path).expect("it can be removed");
    result
}

/// A folder of this process by a name, in memory where the system has a place for that; empty.
pub fn scratch(name: &str) -> PathBuf {
    let folder = memory().join(format!("harness-fuzz-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    folder
}

/// A file made of `whole` and an input. The input's first byte says how: odd, and its rest is the file; even, and the rest is edits, of
/// four bytes each: a place (as a share of the file), what to do there, and a value.
pub fn changed(whole: &[u8], input: &[u8]) -> Vec<u8> {
    match input.split_first() {
        Some((how, rest)) if how % 2 == 1 => rest.to_vec(),
        Some((_, edits)) => {
            edits.as_chunks::<4>().0.iter().fold(whole.to_vec(), |mut bytes, &[high, low, act, value]| {
                let at = (bytes.len() * usize::from(u16::from_be_bytes([high, low]))) >> 16;
                match act % 4 {
                    _ if bytes.is_empty() => {}
                    0 => bytes[at] = value,
                    1 => bytes[at] = bytes[at].wrapping_add(value),
                    2 => bytes.truncate(at),
                    _ => bytes.insert(at, value),
                }
                bytes
            })
        }
        None => whole.to_vec(),
    }
}

/// Replaces the hook that ends the program at any panic, for readers that catch those of a library; a panic that is not
/// caught still ends it.
pub fn let_readers_catch() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}
