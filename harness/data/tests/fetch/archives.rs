//! Archives as publishers make them, and as nobody should.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use rawzip::{CompressionMethod, ZipArchiveWriter};
use tar::{Builder, EntryType, Header};

/// A member of a tape: name, type, content. The name is written as it is, however bad.
pub fn tar_gz(members: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, kind, content) in members {
        let mut header = Header::new_ustar();
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        if matches!(*kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name_literal("/etc/passwd").unwrap();
        }
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

/// Files of a tape.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    tar_gz(&files.iter().map(|(n, c)| (*n, EntryType::Regular, *c)).collect::<Vec<_>>())
}

/// Files of a zip archive, the first stored, the others deflated.
pub fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut output = Vec::new();
    let mut zip = ZipArchiveWriter::new(&mut output);
    for (n, (name, content)) in files.iter().enumerate() {
        let method = if n == 0 { CompressionMethod::STORE } else { CompressionMethod::DEFLATE };
        let (mut entry, config) = zip.new_file(*name).compression_method(method).start().unwrap();
        if n == 0 {
            let mut writer = config.wrap(&mut entry);
            writer.write_all(content).unwrap();
            let (_, descriptor) = writer.finish().unwrap();
            entry.finish(descriptor).unwrap();
        } else {
            let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::default()));
            writer.write_all(content).unwrap();
            let (encoder, descriptor) = writer.finish().unwrap();
            encoder.finish().unwrap();
            entry.finish(descriptor).unwrap();
        }
    }
    zip.finish().unwrap();
    output
}

/// Replaces a name inside an archive by one of the same length: what no writer would write.
pub fn rename(mut archive: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> =
        (0..=archive.len() - from.len()).filter(|&i| archive[i..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty());
    for place in places {
        archive[place..place + to.len()].copy_from_slice(to.as_bytes());
    }
    archive
}
