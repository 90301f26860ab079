//! Archives: unpacked whole or not at all, and never outside of their place.

use std::sync::atomic::AtomicBool;

use data::fetch::lock::{Format, Unpack};
use data::fetch::members::Member;
use data::fetch::paths::SafePath;
use data::fetch::room::{RESERVE_BYTES, Room};
use data::fetch::unpack::{StagingFolder, unpack};
use tar::EntryType;

use crate::archives::{rename, tar_gz, tar_of, zip_of};
use crate::bench::{Bench, archive, bytes, lock, sha256};
use crate::server::{Page, Server};

/// Fetches one archive that creates `d/s`; the bench, and why it failed.
fn fetch(format: &str, body: &[u8]) -> (Bench, Option<String>) {
    let (server, bench) = (Server::new(), Bench::new());
    let url = server.put("/x.arc", Page::of(body));
    let more = format!("sha256 = \"{}\"", sha256(body));
    let outcome = bench.fetch(&lock(&archive(&url, format, "d/s", &more))).unwrap();
    let reason = outcome.failed.first().map(|(_, e)| e.to_string());
    (bench, reason)
}

#[test]
fn archives_unpack_to_the_same_tree() {
    let (a, b, licence) = (bytes(40_000), vec![5; 30_000], b"free".to_vec());
    let files: Vec<(&str, &[u8])> =
        vec![("top/s/1/a", &a), ("top/s/b", &b), ("top/LICENSE", &licence), ("top/s/empty", b"")];
    let dotted: Vec<(String, &[u8])> = files.iter().map(|(n, c)| (format!("./{n}"), *c)).collect();
    let dotted: Vec<(&str, &[u8])> = dotted.iter().map(|(n, c)| (n.as_str(), *c)).collect();
    for (format, body) in [("tar.gz", tar_of(&files)), ("tar.gz", tar_of(&dotted)), ("zip", zip_of(&files))] {
        let (bench, reason) = fetch(format, &body);
        assert_eq!(reason, None);
        assert_eq!(bench.files(), ["d/LICENSE", "d/s/1/a", "d/s/b", "d/s/empty"]);
        assert!(bench.read("d/s/1/a") == a && bench.read("d/s/b") == b && bench.read("d/LICENSE") == licence);
    }
}

#[test]
fn hostile_members_are_refused_and_nothing_is_left() {
    let good = ("top/s/a", EntryType::Regular, &b"a"[..]);
    let tape = |name: &str, kind, content: &[u8]| tar_gz(&[good, (name, kind, content)]);
    let file = EntryType::Regular;
    let zip = |to: &str| rename(zip_of(&[("top/s/a", b"a"), ("top/s/bbbbbbbbbb", b"b")]), "top/s/bbbbbbbbbb", to);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("tar.gz", tape("../../escape", file, b"x"), "without empty parts"),
        ("tar.gz", tape("top/../../escape", file, b"x"), "without empty parts"),
        ("tar.gz", tape("/tmp/escape-by-tar", file, b"x"), "absolute path"),
        ("tar.gz", tape("top\\..\\escape", file, b"x"), "in the path"),
        ("tar.gz", tape("other/x", file, b"x"), "outside of top/"),
        ("tar.gz", tape("loose", file, b"x"), "outside of top/"),
        ("tar.gz", tape("top/s/link", EntryType::Symlink, b""), "a link"),
        ("tar.gz", tape("top/s/link", EntryType::Link, b""), "a link"),
        ("tar.gz", tape("top/s/fifo", EntryType::Fifo, b""), "of type"),
        ("tar.gz", tape("top/s/a", file, b"x"), "a second member"),
        ("tar.gz", tape("top/s/a/b", file, b"x"), "a folder where another member is a file"),
        ("tar.gz", tape("top/s/big", file, &vec![0; 100_001]), "more than the 100000 declared"),
        ("tar.gz", tar_of(&[("loose", b"x")]), "not inside a folder"),
        ("tar.gz", tar_of(&[]), "no file among them"),
        ("tar.gz", b"this is no archive".to_vec(), "damaged"),
        ("zip", zip("../../escape1234"), "without empty parts"),
        ("zip", zip("/tmp/escape-by-z"), "absolute path"),
        ("zip", zip("top\\..\\..\\escape"), "in the path"),
        ("zip", zip("other/456789012b"), "outside of top/"),
        ("zip", zip_of(&[("top/s/a", b"a"), ("top/s/a", b"b")]), "a second member"),
        ("zip", zip_of(&[("top/s/a", b"a"), ("top/s/big", &vec![0; 100_001])]), "more than the 100000 declared"),
        ("zip", b"this is no archive".to_vec(), "damaged"),
    ];
    for (format, body, want) in cases {
        let (bench, reason) = fetch(format, &body);
        let reason = reason.unwrap_or_else(|| panic!("{want}: unpacked"));
        assert!(reason.contains(want) && reason.contains("x.arc"), "{want}: {reason}");
        // the archive itself was whole: it stays, the rest is gone
        assert_eq!(bench.files(), [".fetched/archives/d/x.arc"], "{want}");
        let outside: Vec<_> = std::fs::read_dir(bench.outside()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(outside, ["data"], "{want}");
        assert!(
            !std::path::Path::new("/tmp/escape-by-tar").exists() && !std::path::Path::new("/tmp/escape-by-z").exists()
        );
    }
}

#[test]
fn archives_cut_anywhere_are_damaged() {
    let files: Vec<(&str, Vec<u8>)> =
        (0..4).map(|n| (["top/s/a", "top/s/b", "top/s/c", "top/s/d"][n], bytes(3_000))).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, c)| (*n, c.as_slice())).collect();
    for (format, whole) in [("tar.gz", tar_of(&files)), ("zip", zip_of(&files))] {
        for part in [1, 3, 7, 9] {
            let (bench, reason) = fetch(format, &whole[..whole.len() * part / 10]);
            assert!(reason.is_some_and(|r| r.contains("nothing was unpacked")), "{format} {part}");
            assert!(!bench.data().join("d").exists(), "{format} {part}");
        }
        // one flipped bit in a member's bytes
        let mut flipped = whole.clone();
        let middle = if format == "zip" { 2_000 } else { whole.len() / 2 };
        flipped[middle] ^= 4;
        let (bench, reason) = fetch(format, &flipped);
        assert!(reason.is_some(), "{format}");
        assert!(!bench.data().join("d").exists(), "{format}");
    }
}

#[test]
fn a_bomb_is_stopped_by_the_declared_room() {
    // a header that claims little and a zip directory that claims little, both with much behind them
    let body = vec![0; 90_000];
    let zip = zip_of(&[("top/s/a", b"a"), ("top/s/b", &body)]);
    let claims = u32::try_from(body.len()).unwrap().to_le_bytes();
    let mut small = zip.clone();
    for at in 0..small.len() - 4 {
        if small[at..at + 4] == claims {
            small[at..at + 4].copy_from_slice(&9_u32.to_le_bytes());
        }
    }
    assert!(small != zip);
    let (bench, reason) = fetch("zip", &small);
    assert!(reason.is_some_and(|r| r.contains("longer than the 9 bytes") || r.contains("damaged")));
    assert!(!bench.data().join("d").exists());
}

#[test]
fn an_archive_must_hold_what_the_lock_says() {
    let (bench, reason) = fetch("tar.gz", &tar_of(&[("top/other/a", b"a")]));
    assert!(reason.is_some_and(|r| r.contains("d/s: not found") && r.contains("x.arc to hold it")));
    assert_eq!(bench.files(), [".fetched/archives/d/x.arc"]);
}

#[test]
fn an_archive_completes_what_is_there_and_overwrites_nothing() {
    let (server, bench) = (Server::new(), Bench::new());
    let body = tar_of(&[("top/s/a", b"aaa"), ("top/s/b", b"bbb"), ("top/README", b"theirs")]);
    let url = server.put("/x.arc", Page::of(&body));
    let text = archive(&url, "tar.gz", "d/s", &format!("sha256 = \"{}\"", sha256(&body)));
    let lock = lock(&text);
    let write = |path: &str, text: &str| {
        std::fs::create_dir_all(bench.data().join(path).parent().unwrap()).unwrap();
        std::fs::write(bench.data().join(path), text).unwrap();
    };
    write("d/s/a", "mine");
    write("d/README", "ours");
    let error = bench.failure(&lock);
    assert!(error.contains("d/s/a: there is a file with other content"), "{error}");
    assert_eq!(bench.files(), [".fetched/archives/d/x.arc", "d/README", "d/s/a"]);
    // the archive is whole: it is not fetched again
    write("d/s/a", "aaa");
    assert_eq!(bench.fetch(&lock).unwrap().fetched, 1);
    assert_eq!(server.ranges("/x.arc").len(), 1);
    assert_eq!(bench.files(), ["d/README", "d/s/a", "d/s/b"]);
    assert_eq!((bench.read("d/s/b"), bench.read("d/README")), (b"bbb".to_vec(), b"ours".to_vec()));
    assert_eq!(bench.fetch(&lock).unwrap().present, 1);
    // a member that gets lost is fetched again with its archive
    std::fs::remove_file(bench.data().join("d/s/b")).unwrap();
    assert_eq!(bench.fetch(&lock).unwrap().fetched, 1);
    assert_eq!(bench.read("d/s/b"), b"bbb");
}

#[test]
fn an_archive_without_a_published_checksum_is_not_fetched_twice() {
    let (server, bench) = (Server::new(), Bench::new());
    let url = server.put("/x.arc", Page::of(&tar_of(&[("top/s/a", b"aaa")])));
    let lock = lock(&archive(&url, "tar.gz", "d/s", ""));
    std::fs::create_dir_all(bench.data().join("d/s")).unwrap();
    std::fs::write(bench.data().join("d/s/a"), "mine").unwrap();
    assert!(bench.failure(&lock).contains("other content"));
    std::fs::remove_file(bench.data().join("d/s/a")).unwrap();
    assert_eq!(bench.fetch(&lock).unwrap().fetched, 1);
    assert_eq!((server.ranges("/x.arc").len(), bench.files()), (1, vec!["d/s/a".to_owned()]));
    // but one that changed under way is: nobody vouches for it
    std::fs::remove_file(bench.data().join("d/s/a")).unwrap();
    let left = bench.data().join(".fetched/archives/d/x.arc");
    std::fs::create_dir_all(left.parent().unwrap()).unwrap();
    std::fs::write(left, "half an archive").unwrap();
    assert_eq!(bench.fetch(&lock).unwrap().fetched, 1);
    assert_eq!(server.ranges("/x.arc").len(), 2);
}

#[test]
fn archives_stay_on_request_and_debris_goes() {
    let (server, mut bench) = (Server::new(), Bench::new());
    bench.keep_archives = true;
    let body = tar_of(&[("top/s/a", b"aaa")]);
    let url = server.put("/x.arc", Page::of(&body));
    // what a killed process left of an earlier try
    let debris = bench.data().join("d/.unpacking-x.arc/s");
    std::fs::create_dir_all(&debris).unwrap();
    std::fs::write(debris.join("half"), "ha").unwrap();
    assert_eq!(bench.fetch(&lock(&archive(&url, "tar.gz", "d/s", ""))).unwrap().fetched, 1);
    assert_eq!(bench.files(), [".fetched/archives/d/x.arc", "d/s/a"]);
}

#[test]
fn room_for_unpacking_is_asked_for_before_the_download() {
    let (server, mut bench) = (Server::new(), Bench::new());
    let url = server.put("/x.arc", Page::of(&tar_of(&[("top/s/a", b"aaa")])));
    bench.transfer.room = Room::from_fn(|_| Ok(RESERVE_BYTES + 99_999));
    let error = bench.fetch(&lock(&archive(&url, "tar.gz", "d/s", ""))).unwrap_err().to_string();
    assert!(error.contains("not enough room"), "{error}");
    assert_eq!(server.ranges("/x.arc"), [""; 0]);
}

#[test]
fn long_names_of_both_kinds_are_read() {
    let long = format!("top/s/{}", "n".repeat(150));
    let mut gnu = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    gnu.append_data(&mut header, &long, &b"abc"[..]).unwrap();
    let gnu = gnu.into_inner().unwrap().finish().unwrap();
    let mut pax = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    pax.append_pax_extensions([("path", long.as_bytes())]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("top/s/short").unwrap();
    header.set_size(3);
    header.set_cksum();
    pax.append(&header, &b"abc"[..]).unwrap();
    let pax = pax.into_inner().unwrap().finish().unwrap();
    for body in [gnu, pax] {
        let (bench, reason) = fetch("tar.gz", &body);
        assert_eq!(reason, None);
        assert_eq!(bench.files(), [format!("d/s/{}", "n".repeat(150))]);
    }
    // a name that is longer than any path
    let long = vec![b'n'; 100_000];
    let (_, reason) = fetch(
        "tar.gz",
        &tar_gz(&[("././@LongLink", EntryType::GNULongName, &long), ("top/s/a", EntryType::Regular, b"")]),
    );
    assert!(reason.is_some_and(|r| r.contains("extended header of 100000 bytes")));
}

/// Whatever byte is wrong: refused with nothing left, or (where it says nothing, such as a time) unpacked as it was.
#[test]
fn every_flipped_byte_is_survived() {
    let files: Vec<(&str, &[u8])> = vec![("top/s/a", b"some bytes"), ("top/s/b", b"more of them")];
    let (interrupt, room) = (AtomicBool::new(false), Room::from_fn(|_| Ok(1 << 40)));
    for (format, whole) in [(Format::TarGz, tar_of(&files)), (Format::Zip, zip_of(&files))] {
        let (mut refused, dir) = (0, tempfile::tempdir().unwrap());
        for at in 0..whole.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut body = whole.clone();
                body[at] ^= mask;
                let archive = dir.path().join("x.arc");
                std::fs::write(&archive, body).unwrap();
                let rules = Unpack { format, into: SafePath::new("d").unwrap(), creates: vec![], room_bytes: 10_000 };
                let staging = StagingFolder::create(&dir.path().join("d"), "x.arc").unwrap();
                let sums = |m: &[Member]| m.iter().map(|m| m.measured.sha256).collect::<Vec<_>>();
                match unpack(&archive, &rules, &staging, &room, &interrupt) {
                    Ok(members) => {
                        let want: Vec<String> = files.iter().map(|(_, c)| sha256(c)).collect();
                        let got: Vec<String> = sums(&members).iter().map(ToString::to_string).collect();
                        assert_eq!(got, want, "{format:?} byte {at}");
                    }
                    Err(_) => refused += 1,
                }
                drop(staging);
                assert!(!dir.path().join("d").exists());
            }
        }
        // most bytes are content, names, lengths or checksums
        assert!(refused > whole.len(), "{format:?}: {refused} of {}", 3 * whole.len());
    }
}

#[test]
fn what_follows_the_last_member_is_bounded() {
    use std::io::Write;
    // a second stream of zeros behind the tape, as gzip allows: filling, or a bomb
    let behind = |bytes: usize| {
        let mut archive = tar_of(&[("top/s/a", b"a")]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&vec![0; bytes]).unwrap();
        archive.extend(gzip.finish().unwrap());
        fetch("tar.gz", &archive)
    };
    let (bench, reason) = behind(1 << 20);
    assert_eq!((reason, bench.read("d/s/a")), (None, b"a".to_vec()));
    let (bench, reason) = behind(5 << 20);
    assert!(reason.is_some_and(|r| r.contains("goes on after its last member")));
    assert!(!bench.data().join("d").exists());
}
