//! Zip archives, with members stored or deflated. Links, encryption and overlapping members are refused.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::DeflateDecoder;
use rawzip::{CompressionMethod, RECOMMENDED_BUFFER_SIZE, ZipArchive};

use crate::fetch::error::{FetchError, FetchResult};
use crate::fetch::members::Staging;

/// File type bits of a Unix mode, and their values.
const MODE_TYPE: u32 = 0o170_000;
const MODE_FILE: u32 = 0o100_000;
const MODE_FOLDER: u32 = 0o040_000;

/// Reads all members.
pub fn read(archive: &Path, sink: &mut Staging) -> FetchResult<()> {
    let file = File::open(archive).map_err(FetchError::io(archive))?;
    let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
    let damaged = |sink: &Staging, e: &rawzip::Error| sink.refuse(b"(directory)", format!("damaged: {e}"));
    let zip = ZipArchive::from_file(file, &mut buffer).map_err(|e| damaged(sink, &e))?;
    let promised = zip.entries_hint();
    let mut found = 0_u64;
    // where each member's bytes are, to see that none are used twice
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let mut entries = zip.entries(&mut buffer);
    while let Some(entry) = entries.next_entry().map_err(|e| damaged(sink, &e))? {
        found += 1;
        let path = entry.file_path();
        let name = path.as_bytes();
        let kind = entry.mode().value() & MODE_TYPE;
        if entry.is_dir() || kind == MODE_FOLDER {
            // one damaged attribute must not make a file disappear
            if !name.ends_with(b"/") || entry.uncompressed_size_hint() > 0 {
                return Err(sink.refuse(name, "a folder by its attributes, a file by its name or content"));
            }
            sink.folder(name)?;
            continue;
        }
        if kind != 0 && kind != MODE_FILE {
            return Err(sink.refuse(name, format!("a link or device (mode {:o})", entry.mode().value())));
        }
        if entry.flags().is_encrypted() {
            return Err(sink.refuse(name, "encrypted"));
        }
        let bad = |sink: &Staging, e: &rawzip::Error| sink.refuse(name, format!("damaged: {e}"));
        let member = zip.get_entry(entry.wayfinder()).map_err(|e| bad(sink, &e))?;
        ranges.push(member.compressed_data_range());
        let size_bytes = entry.uncompressed_size_hint();
        let mut content: Box<dyn Read> = match entry.compression_method() {
            CompressionMethod::STORE => Box::new(member.verifying_reader(member.reader())),
            CompressionMethod::DEFLATE => Box::new(member.verifying_reader(DeflateDecoder::new(member.reader()))),
            other => return Err(sink.refuse(name, format!("compressed by {other:?}; expected stored or deflated"))),
        };
        sink.file(name, size_bytes, &mut content)?;
    }
    if found != promised {
        return Err(sink.refuse(b"(directory)", format!("{found} members, but {promised} are promised")));
    }
    ranges.sort_unstable();
    if ranges.windows(2).any(|pair| matches!(pair, [(_, end), (start, _)] if end > start)) {
        return Err(sink.refuse(b"(directory)", "members whose bytes overlap"));
    }
    Ok(())
}
