//! `verify` and `import` on files that the user already has.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use data::fetch::import::{self, Manner, Order, Outcome};
use data::fetch::report::Mode;
use data::fetch::report::Report;
use data::fetch::verify::{self, Question, Row, Verdict};
use data::fetch::{FetchError, FetchResult, Lock};

use crate::archives::tar_of;
use crate::bench::{Bench, archive, bytes, file, lock, sha256};
use crate::server::{Page, Server};

fn import(bench: &Bench, lock: &Lock, from: &Path, names: &[String], manner: Manner) -> FetchResult<Outcome> {
    let data = bench.data();
    import::import(&Order { lock, data: &data, from, names, manner }, &bench.transfer, &Report::new(Mode::Quiet))
}

fn verify(bench: &Bench, lock: &Lock, names: &[&str]) -> Vec<Row> {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let question = Question { lock, data: &bench.data(), names: &names, form: None, only: &[] };
    verify::verify(&question, &AtomicBool::new(false)).unwrap()
}

fn verdicts(rows: &[Row]) -> Vec<(&str, Verdict)> {
    rows.iter().map(|r| (r.name.as_str(), r.verdict)).collect()
}

fn put(folder: &Path, path: &str, bytes: &[u8]) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A form with a list of two files, and its text.
fn listed(a: &[u8], b: &[u8]) -> (Lock, String) {
    let list = format!("{} a.txt\n{} sub/b\n", sha256(a), sha256(b));
    let text = format!(
        "[dataset.form.list]\nurl = \"https://h/S\"\nto = \"d/S\"\nsha256 = \"{}\"\nbases = [\"https://h/\"]\n",
        sha256(list.as_bytes())
    );
    (lock(&text), list)
}

#[test]
fn each_file_gets_its_verdict() {
    let (server, bench) = (Server::new(), Bench::new());
    let (a, b) = (bytes(3_000), bytes(2_000));
    let body = tar_of(&[("top/s/m", b"mmm"), ("top/s/n", b"nnn")]);
    let (ua, ub) = (server.put("/a", Page::of(&a)), server.put("/b", Page::of(&b)));
    let ux = server.put("/x.tgz", Page::of(&body));
    let text = file(&ua, "d/a", &format!("sha256 = \"{}\"", sha256(&a)))
        + &file(&ub, "d/b", "")
        + &archive(&ux, "tar.gz", "d/s", "");
    let lock = lock(&text);
    // no data directory: gone, a file, a link that leads nowhere
    let folder = tempfile::tempdir().unwrap();
    let places = ["gone", "file", "link"].map(|name| folder.path().join(name));
    std::fs::write(&places[1], "x").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("gone", &places[2]).unwrap();
    for data in &places {
        let question = Question { lock: &lock, data, names: &[], form: None, only: &[] };
        let error = verify::verify(&question, &AtomicBool::new(false)).unwrap_err().to_string();
        assert!(error.contains("not found") && error.contains("check --data"), "{error}");
    }
    // nothing there: not missed unless it is named
    std::fs::create_dir_all(bench.data()).unwrap();
    assert_eq!(verdicts(&verify(&bench, &lock, &[])), []);
    let missing = [("x.tgz", Verdict::Missing), ("d/a", Verdict::Missing), ("d/b", Verdict::Missing)];
    assert_eq!(verdicts(&verify(&bench, &lock, &["d"])), missing);
    bench.fetch(&lock).unwrap();
    let rows = verify(&bench, &lock, &["d"]);
    assert!(rows.iter().all(|r| r.verdict == Verdict::Ok), "{rows:?}");
    assert_eq!(rows.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["d/a", "d/b", "d/s/m", "d/s/n"]);
    assert_eq!((rows[0].note.as_str(), rows[1].note.as_str()), ("", "as recorded when it first came"));
    // one flipped bit, the same length and time
    let path = bench.data().join("d/a");
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    let mut flipped = a.clone();
    flipped[7] ^= 1;
    std::fs::write(&path, flipped).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    std::fs::write(bench.data().join("d/b"), "short").unwrap();
    std::fs::remove_file(bench.data().join("d/s/m")).unwrap();
    let want = [("d/a", Verdict::Wrong), ("d/b", Verdict::Wrong), ("d/s/m", Verdict::Missing), ("d/s/n", Verdict::Ok)];
    for names in [&["d"][..], &[]] {
        assert_eq!(verdicts(&verify(&bench, &lock, names)), want);
    }
    // put there by hand: what nobody vouches for is unknown
    let by_hand = Bench::new();
    put(&by_hand.data(), "d/b", &b);
    put(&by_hand.data(), "d/s/m", b"mmm");
    assert_eq!(verdicts(&verify(&by_hand, &lock, &[])), [("x.tgz", Verdict::Unknown), ("d/b", Verdict::Unknown)]);
}

#[test]
fn a_tree_is_imported_by_its_list_from_wherever_it_lies() {
    let (a, b) = (bytes(3_000), bytes(2_000));
    let (lock, list) = listed(&a, &b);
    for (root, manner) in
        [("", Manner::HardLinkOrCopy), ("d/", Manner::Copy), ("d-1.0/", Manner::SymbolicLink), ("", Manner::Copy)]
    {
        let bench = Bench::new();
        let from = bench.outside().join("mine");
        put(&from, &format!("{root}S"), list.as_bytes());
        put(&from, &format!("{root}a.txt"), &a);
        put(&from, &format!("{root}sub/b"), &b);
        put(&from, &format!("{root}.hidden"), b"x");
        let outcome = import(&bench, &lock, &from, &[], manner).unwrap();
        assert_eq!((outcome.verified, outcome.unverified, outcome.failed.len()), (3, 0, 0), "{root}");
        assert_eq!(bench.files(), ["d/S", "d/a.txt", "d/sub/b"]);
        let target = std::fs::symlink_metadata(bench.data().join("d/a.txt")).unwrap();
        assert_eq!(target.is_symlink(), manner == Manner::SymbolicLink);
        let nlink = std::os::unix::fs::MetadataExt::nlink(&target);
        assert_eq!(nlink, if manner == Manner::HardLinkOrCopy { 2 } else { 1 });
        assert!(verify(&bench, &lock, &["d"]).iter().all(|r| r.verdict == Verdict::Ok));
        // again: nothing to do
        assert_eq!(import(&bench, &lock, &from, &[], manner).unwrap().present, 3);
    }
}

#[test]
fn what_is_wrong_is_not_imported_and_nothing_is_overwritten() {
    let (a, b) = (bytes(3_000), bytes(2_000));
    let (lock, list) = listed(&a, &b);
    let bench = Bench::new();
    let from = bench.outside().join("mine");
    put(&from, "S", list.as_bytes());
    put(&from, "a.txt", &b);
    put(&from, "sub/b", &b);
    put(&bench.data(), "d/sub/b", b"other");
    let outcome = import(&bench, &lock, &from, &[], Manner::Copy).unwrap();
    let failed: Vec<&str> = outcome.failed.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!((failed, outcome.verified), (vec!["a.txt", "sub/b"], 1));
    assert!(outcome.failed[0].1.to_string().contains("wrong sha256"));
    assert!(outcome.failed[1].1.to_string().contains("other content"));
    assert_eq!(bench.files(), ["d/S", "d/sub/b"]);
    assert_eq!(bench.read("d/sub/b"), b"other");
    // a list that the lock file does not vouch for verifies nothing, and is refused
    let bench = Bench::new();
    let from = bench.outside().join("mine");
    put(&from, "S", list.replace(&sha256(&a), &sha256(&b)).as_bytes());
    put(&from, "a.txt", &b);
    let outcome = import(&bench, &lock, &from, &[], Manner::Copy).unwrap();
    assert_eq!((outcome.verified, outcome.unverified, outcome.failed.len()), (0, 1, 1));
    // nothing found
    let empty = bench.outside().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(matches!(import(&bench, &lock, &empty, &["d".into()], Manner::Copy), Err(FetchError::Missing { .. })));
    assert!(matches!(import(&bench, &lock, &empty, &["e".into()], Manner::Copy), Err(FetchError::Usage(_))));
    assert!(matches!(import(&bench, &lock, Path::new("/none"), &[], Manner::Copy), Err(FetchError::Missing { .. })));
}

#[test]
fn an_archive_is_imported_if_it_is_the_published_one() {
    let body = tar_of(&[("top/s/m", b"mmm")]);
    let lock = lock(&archive("https://h/x.tgz", "tar.gz", "d/s", &format!("sha256 = \"{}\"", sha256(&body))));
    let bench = Bench::new();
    let from = bench.outside().join("mine");
    put(&from, "x.tgz", &body[..body.len() - 1]);
    let outcome = import(&bench, &lock, &from, &["d".into()], Manner::HardLinkOrCopy).unwrap();
    assert!(outcome.failed[0].1.to_string().contains("wrong sha256"));
    assert_eq!(bench.files(), [""; 0]);
    put(&from, "x.tgz", &body);
    let outcome = import(&bench, &lock, &from, &["d".into()], Manner::HardLinkOrCopy).unwrap();
    assert_eq!((outcome.archives, outcome.failed.len()), (1, 0));
    assert_eq!(bench.files(), ["d/s/m"]);
    assert!(from.join("x.tgz").exists());
    assert!(verify(&bench, &lock, &["d"]).iter().all(|r| r.verdict == Verdict::Ok && r.note.is_empty()));
}

/// The samples of real data, in their publishers' layouts, against the lock file that is shipped.
#[test]
fn real_files_are_verified_by_the_published_list() {
    let Some(real) = std::env::var_os("HARNESS_REAL_DATA").map(std::path::PathBuf::from) else {
        eprintln!("skipped: set HARNESS_REAL_DATA to a folder with chb-mit/");
        return;
    };
    let (bench, lock) = (Bench::new(), Lock::embedded().unwrap());
    let outcome = import(&bench, &lock, &real, &["chb-mit".into()], Manner::Copy).unwrap();
    assert!(outcome.failed.is_empty() && outcome.unverified == 0 && outcome.verified > 10, "{outcome:?}");
    assert!(verify(&bench, &lock, &[]).iter().filter(|r| r.verdict == Verdict::Ok).count() == outcome.verified);
}

#[cfg(unix)]
#[test]
fn what_a_link_leads_to_is_copied_not_shared() {
    use std::os::unix::fs::{MetadataExt, symlink};
    let bench = Bench::new();
    let (theirs, from) = (bench.outside().join("theirs"), bench.outside().join("mine"));
    put(&theirs, "a", b"of somebody else");
    put(&from, "d/b", b"mine");
    symlink(theirs.join("a"), from.join("d/a")).unwrap();
    let form = lock(&file("https://h/a", "d/a", ""));
    let outcome = import(&bench, &form, &from, &[], Manner::HardLinkOrCopy).unwrap();
    assert!(outcome.failed.is_empty(), "{outcome:?}");
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    assert_eq!(bench.read("d/a"), b"of somebody else");
    assert_ne!(inode(&bench.data().join("d/a")), inode(&theirs.join("a")), "a change here must not be one there");
    assert_eq!(inode(&bench.data().join("d/b")), inode(&from.join("d/b")), "what lies in the folder is shared");
}

#[cfg(unix)]
#[test]
fn a_copy_is_not_written_through_a_link_beside_its_place() {
    let bench = Bench::new();
    let (theirs, from) = (bench.outside().join("theirs"), bench.outside().join("mine"));
    put(&theirs, "precious", b"of somebody else");
    put(&from, "d/a", b"mine");
    std::fs::create_dir_all(bench.data().join("d")).unwrap();
    std::os::unix::fs::symlink(theirs.join("precious"), bench.data().join("d/a.part")).unwrap();
    let form = lock(&file("https://h/a", "d/a", ""));
    let outcome = import(&bench, &form, &from, &[], Manner::Copy).unwrap();
    assert!(matches!(outcome.failed[..], [(_, FetchError::Link { .. })]), "{outcome:?}");
    assert_eq!(std::fs::read(theirs.join("precious")).unwrap(), b"of somebody else");
    assert!(!bench.data().join("d/a").exists());
}
