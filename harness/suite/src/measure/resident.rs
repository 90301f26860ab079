//! The process's resident set.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Reads `/proc/self/statm` again and again through one open file.
pub struct Resident {
    file: Option<File>,
}

impl Default for Resident {
    fn default() -> Self {
        Self { file: File::open("/proc/self/statm").ok() }
    }
}

/// Linux's page size on every platform this runs on with 4 KiB pages; `statm` counts in pages.
const PAGE_BYTES: u64 = 4096;

impl Resident {
    /// Resident bytes; `None` where the system does not say.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let mut buffer = [0u8; 128];
        let n = self.file.as_ref()?.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(buffer.get(..n)?).ok()?;
        Some(text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * PAGE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_touched_memory() {
        let resident = Resident::default();
        let before = resident.bytes().expect("/proc is there");
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = resident.bytes().expect("/proc is there");
        assert!(after > before + (32 << 20), "{before} {after} {}", block.len());
    }
}
