//! Connections that break, servers that lie, disks that fill up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use data::fetch::FetchError;
use data::fetch::room::{RESERVE_BYTES, Room};

use crate::bench::{Bench, bytes, file, lock, md5, sha256};
use crate::server::{Page, Server};

fn sums(body: &[u8]) -> String {
    format!("bytes = {}\nsha256 = \"{}\"\nmd5 = \"{}\"", body.len(), sha256(body), md5(body))
}

#[test]
fn a_broken_connection_is_resumed_where_it_broke() {
    let (server, bench, body) = (Server::new(), Bench::new(), bytes(300_000));
    let url = server.put("/a", Page { cuts: vec![100_000, 50_000], ..Page::of(&body) });
    let outcome = bench.fetch(&lock(&file(&url, "d/a", &sums(&body)))).unwrap();
    assert_eq!((outcome.fetched, outcome.failed.len()), (1, 0));
    assert_eq!(server.ranges("/a"), ["-", "bytes=100000-", "bytes=150000-"]);
    assert_eq!(server.last("/a").if_range.as_deref(), Some("\"v1\""));
    assert!(bench.read("d/a") == body);
    assert_eq!(bench.files(), ["d/a"]);
    // a second time: nothing to do, no request
    assert_eq!(bench.fetch(&lock(&file(&url, "d/a", &sums(&body)))).unwrap().present, 1);
    assert_eq!(server.ranges("/a").len(), 3);
}

#[test]
fn without_ranges_it_starts_over_and_ends_well_or_gives_up() {
    let (server, bench, body) = (Server::new(), Bench::new(), bytes(30_000));
    let url = server.put("/a", Page { cuts: vec![10_000], no_ranges: true, ..Page::of(&body) });
    assert_eq!(bench.fetch(&lock(&file(&url, "d/a", &sums(&body)))).unwrap().fetched, 1);
    assert!(bench.read("d/a") == body);
    // a server that breaks at the same byte every time is not asked for ever
    let url = server.put("/b", Page { always_cut: Some(10_000), no_ranges: true, ..Page::of(&body) });
    let error = bench.failure(&lock(&file(&url, "d/b", &sums(&body))));
    assert!(error.contains("ended at byte 10000 of 30000") || error.contains("after 10000 bytes"), "{error}");
    assert_eq!(server.ranges("/b").len(), 4);
    assert_eq!(bench.files(), ["d/a", "d/b.part", "d/b.part.json"]);
}

#[test]
fn wrong_bytes_never_get_the_files_name() {
    let (server, bench, body) = (Server::new(), Bench::new(), bytes(5_000));
    let url = server.put("/a", Page::of(&body));
    let mut other = body.clone();
    other[4_999] ^= 1;
    for more in [sums(&other), format!("sha256 = \"{}\"", sha256(&other)), format!("md5 = \"{}\"", md5(&other))] {
        let error = bench.failure(&lock(&file(&url, "d/a", &more)));
        assert!(error.contains("wrong sha256") || error.contains("wrong md5"), "{error}");
        assert!(error.contains(&url) && error.contains("expected:") && error.contains("got:"), "{error}");
        assert_eq!(bench.files(), [""; 0]);
    }
    // another length is told before the bytes are taken
    let error = bench.failure(&lock(&file(&url, "d/a", "bytes = 4999")));
    assert!(error.contains("expected: 4999 bytes") && error.contains("has 5000 bytes"), "{error}");
    assert_eq!(bench.files(), [""; 0]);
    // from a chunked answer, whose length is not told, no more than that is taken
    let url = server.put("/c", Page { chunked: true, ..Page::of(&body) });
    assert!(bench.failure(&lock(&file(&url, "d/a", "bytes = 4999"))).contains("goes on"));
}

#[test]
fn a_truncated_body_is_no_file() {
    let (server, bench, body) = (Server::new(), Bench::new(), bytes(20_000));
    for (path, page) in [
        ("/claims", Page { claims: Some(25_000), no_ranges: true, ..Page::of(&body) }),
        ("/chunked", Page { chunked: true, always_cut: Some(15_000), no_ranges: true, ..Page::of(&body) }),
    ] {
        let url = server.put(path, page);
        let error = bench.failure(&lock(&file(&url, "d/a", "")));
        assert!(error.contains("no source gave") && error.contains(&url), "{error}");
        assert!(!bench.data().join("d/a").exists());
    }
    // an answer that just ends could be cut anywhere: it is not believed
    let url = server.put("/close", Page { no_length: true, ..Page::of(&body) });
    let error = bench.failure(&lock(&file(&url, "d/a", "")));
    assert!(error.contains("an answer with its length"), "{error}");
    // chunked to the end is whole
    let url = server.put("/whole", Page { chunked: true, ..Page::of(&body) });
    assert_eq!(bench.fetch(&lock(&file(&url, "d/a", ""))).unwrap().fetched, 1);
    assert!(bench.read("d/a") == body);
}

#[test]
fn redirects_keep_the_range() {
    let (server, bench, body) = (Server::new(), Bench::new(), bytes(20_000));
    let real = server.put("/storage", Page { cuts: vec![7_000], ..Page::of(&body) });
    let url = server.put("/a", Page { redirect: Some(real), ..Page::default() });
    assert_eq!(bench.fetch(&lock(&file(&url, "d/a", &sums(&body)))).unwrap().fetched, 1);
    assert_eq!(server.ranges("/storage"), ["-", "bytes=7000-"]);
    let url = server.put("/loop", Page { redirect: Some(server.url("/loop")), ..Page::default() });
    let error = bench.failure(&lock(&file(&url, "d/b", "")));
    assert!(error.contains("redirect"), "{error}");
}

#[test]
fn mirrors_are_tried_in_turn_and_go_on_from_each_other() {
    let (server, bench, body) = (Server::new(), Bench::new(), bytes(20_000));
    let good = server.put("/good", Page::of(&body));
    let mut other = body.clone();
    other[0] ^= 1;
    let wrong = server.put("/wrong", Page::of(&other));
    let mirrors = format!("{}\nmirrors = [\"{wrong}\", \"{good}\"]", sums(&body));
    assert_eq!(bench.fetch(&lock(&file(&server.url("/none"), "d/a", &mirrors))).unwrap().fetched, 1);
    assert!(bench.read("d/a") == body);
    // 404 and a wrong file are not asked twice
    assert_eq!((server.ranges("/none").len(), server.ranges("/wrong").len()), (1, 1));

    // with a checksum to tell in the end, the second source goes on from the first one's bytes
    let broken = server.put("/broken", Page { always_cut: Some(8_000), ..Page::of(&body) });
    let mirrors = format!("{}\nmirrors = [\"{good}\"]", sums(&body));
    assert_eq!(bench.fetch(&lock(&file(&broken, "d/b", &mirrors))).unwrap().fetched, 1);
    assert_eq!(server.last("/good").range.as_deref(), Some("bytes=8000-"));
    assert_eq!(server.last("/good").if_range, None);

    // without one it starts over
    let mirrors = format!("mirrors = [\"{good}\"]");
    assert_eq!(bench.fetch(&lock(&file(&broken, "d/c", &mirrors))).unwrap().fetched, 1);
    assert_eq!(server.last("/good").range, None);
    assert!(bench.read("d/c") == body);

    // all fail: each says why
    let mirrors = format!("mirrors = [\"{}\"]", server.url("/none2"));
    let error = bench.failure(&lock(&file(&server.url("/none"), "d/e", &mirrors)));
    assert!(error.contains("/none: the server answered 404") && error.contains("/none2: "), "{error}");
    assert_eq!(bench.files(), ["d/a", "d/b", "d/c"]);
}

#[test]
fn a_busy_server_is_asked_again() {
    let (server, bench, body) = (Server::new(), Bench::new(), bytes(2_000));
    let url = server.put("/a", Page { statuses: vec![503, 429], ..Page::of(&body) });
    assert_eq!(bench.fetch(&lock(&file(&url, "d/a", &sums(&body)))).unwrap().fetched, 1);
    let url = server.put("/b", Page { statuses: vec![500; 9], ..Page::of(&body) });
    assert!(bench.failure(&lock(&file(&url, "d/b", ""))).contains("the server answered 500"));
    assert_eq!(server.ranges("/b").len(), 3);
}

#[test]
fn a_file_that_changes_between_two_requests_is_fetched_as_one_version() {
    let (server, body, newer) = (Server::new(), bytes(20_000), vec![7; 21_000]);
    let etag = Some("\"v2\"".to_owned());
    let next = |ignores_if_range| Page { etag: etag.clone(), ignores_if_range, ..Page::of(&newer) };
    let first = |then: Page| Page { cuts: vec![9_000], then: Some(Box::new(then)), ..Page::of(&body) };
    // by If-Range, or by the tag of an answer that did not heed it, with no checksum to tell
    for (path, then) in [("/a", next(false)), ("/b", next(true))] {
        let bench = Bench::new();
        let url = server.put(path, first(then));
        assert_eq!(bench.fetch(&lock(&file(&url, "d/a", ""))).unwrap().fetched, 1, "{path}");
        assert!(bench.read("d/a") == newer, "{path}");
    }
    // without any tag nothing vouches for the part: no range is asked for
    let bench = Bench::new();
    let untagged = |body: &[u8]| Page { body: body.to_vec(), ..Page::default() };
    let url = server.put("/c", Page { cuts: vec![9_000], then: Some(Box::new(untagged(&newer))), ..untagged(&body) });
    assert_eq!(bench.fetch(&lock(&file(&url, "d/a", ""))).unwrap().fetched, 1);
    assert_eq!(server.ranges("/c"), ["-", "-"]);
    assert!(bench.read("d/a") == newer);
    let by_sum = format!("sha256 = \"{}\"", sha256(&newer));
    // without a tag but with a checksum the seam is found, and the file fetched whole
    let bench = Bench::new();
    let url = server.put("/d", Page { cuts: vec![9_000], then: Some(Box::new(untagged(&newer))), ..untagged(&body) });
    assert_eq!(bench.fetch(&lock(&file(&url, "d/a", &by_sum))).unwrap().fetched, 1);
    assert_eq!(server.ranges("/d"), ["-", "bytes=9000-", "-"]);
    assert!(bench.read("d/a") == newer);
    // the published version is gone: an error, not the new one
    let bench = Bench::new();
    let url = server.put("/e", first(next(false)));
    let error = bench.failure(&lock(&file(&url, "d/a", &sums(&body))));
    assert!(error.contains("has 21000 bytes"), "{error}");
    assert!(!bench.data().join("d/a").exists());
}

#[test]
fn a_part_is_resumed_by_the_next_command() {
    let (server, body) = (Server::new(), bytes(20_000));
    for more in [String::new(), sums(&body)] {
        let bench = Bench::new();
        let then = Some(Box::new(Page { statuses: vec![500; 9], ..Page::default() }));
        let url = server.put("/a", Page { cuts: vec![6_000], then, ..Page::of(&body) });
        let text = file(&url, "d/a", &more);
        bench.failure(&lock(&text));
        assert_eq!(bench.files(), ["d/a.part", "d/a.part.json"]);
        server.put("/a", Page::of(&body));
        assert_eq!(bench.fetch(&lock(&text)).unwrap().fetched, 1);
        assert_eq!(server.last("/a").range.as_deref(), Some("bytes=6000-"));
        assert!(bench.read("d/a") == body);
        assert_eq!(bench.files(), ["d/a"]);
    }
    // a part that somebody damaged: the checksum tells, and it is fetched again
    let bench = Bench::new();
    std::fs::create_dir_all(bench.data().join("d")).unwrap();
    std::fs::write(bench.data().join("d/a.part"), vec![1; 6_000]).unwrap();
    let text = file(&server.url("/a"), "d/a", &sums(&body));
    assert_eq!(bench.fetch(&lock(&text)).unwrap().fetched, 1);
    assert!(bench.read("d/a") == body);
    // a part that is whole already
    let bench = Bench::new();
    std::fs::create_dir_all(bench.data().join("d")).unwrap();
    std::fs::write(bench.data().join("d/a.part"), &body).unwrap();
    let before = server.ranges("/a").len();
    assert_eq!(bench.fetch(&lock(&text)).unwrap().fetched, 1);
    assert_eq!(server.ranges("/a").len(), before);
    // one that is too long
    let bench = Bench::new();
    std::fs::create_dir_all(bench.data().join("d")).unwrap();
    std::fs::write(bench.data().join("d/a.part"), [body.clone(), vec![0; 10]].concat()).unwrap();
    let by_sum = file(&server.url("/a"), "d/a", &format!("sha256 = \"{}\"", sha256(&body)));
    assert_eq!(bench.fetch(&lock(&by_sum)).unwrap().fetched, 1);
    assert!(bench.read("d/a") == body);
}

#[test]
fn what_does_not_speak_tls_is_told() {
    let (server, bench) = (Server::new(), Bench::new());
    let url = server.url("/a").replace("http://", "https://");
    let error = bench.failure(&lock(&file(&url, "d/a", "")));
    // what exactly went wrong depends on who speaks first; that it did, and where, must be said
    assert!(error.contains(&url) && error.contains("no source gave"), "{error}");
    assert_eq!(bench.files(), [""; 0]);
}

#[test]
fn a_silent_server_is_given_up() {
    let (server, mut bench, body) = (Server::new(), Bench::new(), bytes(20_000));
    bench.transfer.client = data::fetch::client::Client::with(Duration::from_millis(200), None);
    bench.transfer.patience.rounds = 1;
    let url = server.put("/a", Page { slow: Some((10_000, Duration::from_secs(60))), ..Page::of(&body) });
    let start = std::time::Instant::now();
    let error = bench.failure(&lock(&file(&url, "d/a", "")));
    assert!(error.to_lowercase().contains("timeout") || error.to_lowercase().contains("timed out"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn an_unknown_checksum_is_recorded_and_held_against_later() {
    let (server, bench, body) = (Server::new(), Bench::new(), bytes(2_000));
    let url = server.put("/a", Page::of(&body));
    let lock = lock(&file(&url, "d/a", ""));
    bench.fetch(&lock).unwrap();
    let record = String::from_utf8(bench.read(".fetched/d.jsonl")).unwrap();
    assert!(record.contains(&sha256(&body)) && record.contains("\"basis\":\"recorded\""), "{record}");
    // lost and fetched again: the same bytes, or an error
    std::fs::remove_file(bench.data().join("d/a")).unwrap();
    bench.fetch(&lock).unwrap();
    std::fs::remove_file(bench.data().join("d/a")).unwrap();
    server.put("/a", Page::of(&bytes(2_000).into_iter().rev().collect::<Vec<_>>()));
    let error = bench.failure(&lock);
    assert!(error.contains("recorded when it first came"), "{error}");
    assert_eq!(bench.files(), [""; 0]);
}

#[test]
fn what_is_there_is_never_overwritten() {
    let (server, bench, body) = (Server::new(), Bench::new(), bytes(2_000));
    let url = server.put("/a", Page::of(&body));
    std::fs::create_dir_all(bench.data().join("d")).unwrap();
    std::fs::write(bench.data().join("d/a"), "mine").unwrap();
    let error = bench.failure(&lock(&file(&url, "d/a", &sums(&body))));
    assert!(error.contains("d/a: wrong size") && error.contains("not changed"), "{error}");
    assert_eq!(bench.read("d/a"), b"mine");
    // the right one is taken as it is
    std::fs::write(bench.data().join("d/a"), &body).unwrap();
    assert_eq!(bench.fetch(&lock(&file(&url, "d/a", &sums(&body)))).unwrap().present, 1);
    assert_eq!(server.ranges("/a"), [""; 0]);
}

/// The disk is a function here: it tells how much is free, and the tests let it tell what they like.
#[test]
fn a_full_disk_is_told_before_and_while_it_fills() {
    let (server, mut bench, body) = (Server::new(), Bench::new(), bytes(2_000));
    let url = server.put("/a", Page::of(&body));
    bench.transfer.room = Room::from_fn(|_| Ok(RESERVE_BYTES + 1_999));
    // known beforehand: nothing is asked for
    let error = bench.fetch(&lock(&file(&url, "d/a", &sums(&body)))).unwrap_err();
    assert!(matches!(error, FetchError::NoRoom { .. }), "{error}");
    assert_eq!(server.ranges("/a"), [""; 0]);
    // known from the answer
    let error = bench.failure(&lock(&file(&url, "d/a", "")));
    assert!(error.contains("not enough room") && error.contains("--data"), "{error}");
    assert_eq!(bench.files(), [""; 0]);
    // it fills up under the download: the third question is asked after 64 MiB
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    bench.transfer.room =
        Room::from_fn(move |_| Ok(if count.fetch_add(1, Ordering::Relaxed) < 2 { 1 << 40 } else { 5 }));
    let body = vec![3; 65 << 20];
    let url = server.put("/big", Page { chunked: true, ..Page::of(&body) });
    let error = bench.failure(&lock(&file(&url, "d/big", "")));
    assert!(error.contains("not enough room") && error.contains("5 are free"), "{error}");
    assert!(!bench.data().join("d/big").exists());
    // and goes on when there is room again
    bench.transfer.room = Room::from_fn(|_| Ok(1 << 40));
    server.put("/big", Page::of(&body));
    assert_eq!(bench.fetch(&lock(&file(&url, "d/big", ""))).unwrap().fetched, 1);
    assert!(server.last("/big").range.is_some());
    assert!(bench.read("d/big") == body);
}

#[test]
fn a_list_is_fetched_first_and_names_the_files() {
    let (server, bench) = (Server::new(), Bench::new());
    let (a, b) = (bytes(3_000), bytes(4_000));
    let list = format!("{} a.txt\n{} sub/b+.edf\n", sha256(&a), sha256(&b));
    server.put("/S", Page::of(list.as_bytes()));
    server.put("/x/a.txt", Page::of(&a));
    server.put("/x/sub/b%2B.edf", Page::of(&b));
    let form = |sum: &str, files: u32| {
        lock(&format!(
            "[dataset.form.list]\nurl = \"{}\"\nto = \"d/S\"\nsha256 = \"{sum}\"\nfiles = {files}\nbases = [\"{}\"]\n",
            server.url("/S"),
            server.url("/x/")
        ))
    };
    let good = form(&sha256(list.as_bytes()), 2);
    assert_eq!(bench.fetch_only(&good, &["sub/*"]).unwrap().fetched, 1);
    assert_eq!(bench.files(), ["d/S", "d/sub/b+.edf"]);
    assert_eq!(bench.fetch(&good).unwrap().fetched, 1);
    assert!(bench.read("d/a.txt") == a && bench.read("d/sub/b+.edf") == b);
    assert!(matches!(bench.fetch_only(&good, &["nothing*"]), Err(FetchError::Usage(_))));
    // a list with another checksum, or another number of files, is not believed
    let fresh = Bench::new();
    assert!(fresh.fetch(&form(&sha256(b"x"), 2)).unwrap_err().to_string().contains("wrong sha256"));
    assert_eq!(fresh.files(), [""; 0]);
    let error = fresh.fetch(&form(&sha256(list.as_bytes()), 3)).unwrap_err().to_string();
    assert!(error.contains("3 files"), "{error}");
}

#[test]
fn another_host_is_followed_where_a_checksum_tells_or_the_user_allows_it() {
    let (server, other, bench, body) = (Server::new(), Server::new(), Bench::new(), bytes(5_000));
    let real = other.put("/storage", Page::of(&body));
    let host = real.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let url = server.put("/a", Page { redirect: Some(real), ..Page::default() });
    let error = bench.failure(&lock(&file(&url, "d/a", "")));
    assert!(error.contains(&format!("--allow-host {host}")) && error.contains("no checksum"), "{error}");
    assert!(other.ranges("/storage").is_empty() && !bench.data().join("d/a").exists());
    assert_eq!(bench.fetch(&lock(&file(&url, "d/a", &sums(&body)))).unwrap().fetched, 1);
    let mut allowing = Bench::new();
    allowing.transfer.hosts = vec![host];
    assert_eq!(allowing.fetch(&lock(&file(&url, "d/a", ""))).unwrap().fetched, 1);
    // on the same host there is nothing to ask
    let near = server.put("/b", Page { redirect: Some("storage".into()), ..Page::default() });
    server.put("/storage", Page::of(&body));
    assert_eq!(bench.fetch(&lock(&file(&near, "d/b", ""))).unwrap().fetched, 1);
}

#[test]
fn what_stays_wrong_is_asked_for_once() {
    let (server, bench) = (Server::new(), Bench::new());
    for status in [400, 401, 403, 404, 410, 501] {
        let path = format!("/{status}");
        let url = server.put(&path, Page { statuses: vec![status; 9], ..Page::of(b"x") });
        let error = bench.failure(&lock(&file(&url, "d/a", "")));
        assert!(error.contains(&status.to_string()), "{error}");
        assert_eq!(server.ranges(&path).len(), 1, "{status}");
    }
    let started = std::time::Instant::now();
    let elsewhere = server.put("/scheme", Page { redirect: Some("ftp://h/a".into()), ..Page::default() });
    let error = bench.failure(&lock(&file(&elsewhere, "d/a", "")));
    assert!(error.contains("expected") && error.contains("ftp://h/a"), "{error}");
    // where names cannot be asked for, this one may be told to be unknown just now only
    let error = bench.failure(&lock(&file("http://no-such-host.invalid/a", "d/a", "")));
    assert!(error.contains("no-such-host.invalid") && !error.contains("(after 0 bytes)\n  http"), "{error}");
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
}

#[cfg(unix)]
#[test]
fn links_that_others_made_are_not_written_through() {
    use std::os::unix::fs::symlink;
    let (server, body) = (Server::new(), bytes(3_000));
    let url = server.put("/a", Page::of(&body));
    // where the link lies, and what of it leads out of the data directory
    for place in ["d", "d/a.part", "d/a.part.json", ".fetched", ".fetched/d.jsonl"] {
        let bench = Bench::new();
        let outside = bench.outside().join("outside");
        std::fs::create_dir_all(&outside).unwrap();
        let target = if place.contains('/') { outside.join("file") } else { outside.clone() };
        let link = bench.data().join(place);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&target, &link).unwrap();
        let error = match bench.fetch(&lock(&file(&url, "d/a", &sums(&body)))) {
            Err(error) => error.to_string(),
            Ok(outcome) => outcome.failed[0].1.to_string(),
        };
        assert!(error.contains("a link to") && error.contains("--data"), "{place}: {error}");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "{place}");
    }
    // the data directory itself may be one
    let bench = Bench::new();
    std::fs::create_dir_all(bench.outside().join("disk")).unwrap();
    symlink(bench.outside().join("disk"), bench.data()).unwrap();
    assert_eq!(bench.fetch(&lock(&file(&url, "d/a", &sums(&body)))).unwrap().fetched, 1);
}
