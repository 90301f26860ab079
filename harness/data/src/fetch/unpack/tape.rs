//! Tape archives compressed with gzip. Only files and folders; links and devices have no place in a dataset.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType, PaxExtensions};

use crate::fetch::error::{FetchError, FetchResult};
use crate::fetch::members::Staging;

/// Longest extended header read: it holds a path of at most 4096 bytes and a few times.
const HEADER_BYTES_MAX: u64 = 64 << 10;
/// What may follow the last member: programs fill up to a whole record, of 10 KiB by default and 1 MiB at most by habit.
const TRAILER_BYTES_MAX: u64 = 4 << 20;
/// What headers and padding may add to each member.
const OVERHEAD_BYTES: u64 = 64 << 30;

/// Reads all members.
pub fn read(archive: &Path, room_bytes: u64, sink: &mut Staging) -> FetchResult<()> {
    let file = File::open(archive).map_err(FetchError::io(archive))?;
    // headers and padding are not in the declared room, but cannot go on for ever either
    let limit = room_bytes.saturating_add(OVERHEAD_BYTES);
    let mut tape = Archive::new(MultiGzDecoder::new(io::BufReader::with_capacity(1 << 18, file)).take(limit));
    let damaged = |sink: &Staging, e: &io::Error| sink.refuse(b"(header)", format!("damaged: {e}"));
    // raw: long names are read here, where their length is bounded
    let entries = tape.entries().map_err(|e| damaged(sink, &e))?.raw(true);
    let mut long_name: Option<Vec<u8>> = None;
    for entry in entries {
        let mut entry = entry.map_err(|e| damaged(sink, &e))?;
        match entry.header().entry_type() {
            EntryType::XGlobalHeader => drop(header(&mut entry, sink)?),
            EntryType::GNULongName => {
                let mut name = header(&mut entry, sink)?;
                while name.last() == Some(&0) {
                    name.pop();
                }
                long_name = Some(name);
            }
            EntryType::XHeader => long_name = pax_path(&header(&mut entry, sink)?, sink)?.or(long_name),
            kind => member(&mut entry, kind, long_name.take(), sink)?,
        }
    }
    // to the end of the compressed stream, whose checksum is there
    let mut rest = tape.into_inner().take(TRAILER_BYTES_MAX);
    io::copy(&mut rest, &mut io::sink()).map_err(|e| damaged(sink, &e))?;
    if rest.limit() == 0 {
        return Err(sink.refuse(b"(end)", "goes on after its last member"));
    }
    Ok(())
}

fn member<R: Read>(
    entry: &mut Entry<R>,
    kind: EntryType,
    long_name: Option<Vec<u8>>,
    sink: &mut Staging,
) -> FetchResult<()> {
    let name = long_name.unwrap_or_else(|| entry.path_bytes().into_owned());
    match kind {
        EntryType::Directory if entry.size() == 0 => sink.folder(&name),
        EntryType::Directory => Err(sink.refuse(&name, "a folder with content")),
        EntryType::Regular | EntryType::Continuous => {
            let size_bytes = entry.size();
            sink.file(&name, size_bytes, entry)
        }
        EntryType::Link | EntryType::Symlink => Err(sink.refuse(&name, "a link; expected files and folders only")),
        other => {
            let what = format!("of type {:?}; expected files and folders only", char::from(other.as_byte()));
            Err(sink.refuse(&name, what))
        }
    }
}

/// The content of an extended header.
fn header<R: Read>(entry: &mut Entry<R>, sink: &Staging) -> FetchResult<Vec<u8>> {
    if entry.size() > HEADER_BYTES_MAX {
        let what = format!("an extended header of {} bytes; expected at most {HEADER_BYTES_MAX}", entry.size());
        return Err(sink.refuse(&entry.path_bytes(), what));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|e| sink.refuse(&entry.path_bytes(), format!("damaged: {e}")))?;
    Ok(bytes)
}

/// The path in a pax header. One that also changes the length of its member is refused: none of the archives needs it.
fn pax_path(bytes: &[u8], sink: &Staging) -> FetchResult<Option<Vec<u8>>> {
    let mut path = None;
    for extension in PaxExtensions::new(bytes) {
        let extension = extension.map_err(|e| sink.refuse(b"(pax header)", format!("damaged: {e}")))?;
        match extension.key_bytes() {
            b"path" => path = Some(extension.value_bytes().to_vec()),
            b"size" => return Err(sink.refuse(b"(pax header)", "gives a length; expected it in the member's header")),
            _ => {}
        }
    }
    Ok(path)
}
