//! The program: exit codes, signals, kills.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use archives::tar_of;
use bench::{archive, bytes, file, lock_text, sha256};
use server::{Page, Server};

// the same server and archives as the tests of `data`
#[allow(dead_code, reason = "those tests need more of it")]
#[path = "../data/tests/fetch/archives.rs"]
mod archives;
#[allow(dead_code, reason = "those tests need more of it")]
#[path = "../data/tests/fetch/bench.rs"]
mod bench;
#[allow(dead_code, reason = "those tests need more of it")]
#[path = "../data/tests/fetch/server.rs"]
mod server;

struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    fn new(form: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("L"), lock_text(form)).unwrap();
        Self { folder }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
        command.arg("data").args(args).arg("--data").arg(self.data()).arg("--lock").arg(self.folder.path().join("L"));
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "HARNESS_DATA"]
        {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }
}

/// A page that takes ten seconds in all.
fn slow(body: &[u8]) -> Page {
    Page { slow: Some((body.len() / 100, Duration::from_millis(100))), ..Page::of(body) }
}

fn wait_for(path: &Path, at_least: u64) {
    let start = Instant::now();
    while std::fs::metadata(path).map_or(0, |m| m.len()) < at_least {
        assert!(start.elapsed() < Duration::from_secs(60), "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn exit_codes_and_messages() {
    let (server, body) = (Server::new(), bytes(2_000));
    let url = server.put("/a", Page::of(&body));
    let program = Program::new(&file(&url, "d/a", &format!("bytes = 2000\nsha256 = \"{}\"", sha256(&body))));
    let (code, _, err) = program.run(&["verify"]);
    assert!(code == 4 && err.contains("check --data"), "the data directory is not there: {err}");
    let (code, out, err) = program.run(&["list"]);
    assert!(code == 0 && out.contains("2.0 kB") && err.is_empty(), "{out}{err}");
    let (code, _, err) = program.run(&["fetch", "dd"]);
    assert!(code == 2 && err.contains("did you mean \"d\""), "{err}");
    assert_eq!(program.run(&["fetch", "--jobs", "0"]).0, 2);
    assert_eq!(program.run(&["fetch", "--form", "g"]).0, 2);
    assert_eq!(program.run(&["fetch", "--only", "z"]).0, 2);
    assert_eq!(program.run(&["verify", "d"]).0, 4);
    assert_eq!(program.run(&["verify"]).0, 4, "nothing there belongs to a known dataset");
    let (code, out, _) = program.run(&["fetch", "--dry-run"]);
    assert!(code == 0 && out.contains(&url) && server.ranges("/a").is_empty(), "{out}");
    let (code, out, err) = program.run(&["fetch", "d"]);
    // progress is no output, and no bars are drawn into a pipe
    assert!(
        code == 0 && out.is_empty() && err.contains("1 to fetch (2.0 kB)") && !err.contains('\u{1b}'),
        "{out}{err}"
    );
    let (code, out, err) = program.run(&["verify", "d"]);
    assert!(code == 0 && out == "ok       d/a\n" && err.contains("1 ok, 0 wrong"), "{out}{err}");
    let (code, out, _) = program.run(&["list", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && json["datasets"][0]["forms"][0]["files"][0]["presence"] == "recorded", "{out}");
    std::fs::write(program.data().join("d/a"), vec![0; 2_000]).unwrap();
    let (code, out, _) = program.run(&["verify", "d"]);
    assert!(code == 4 && out.starts_with("wrong    d/a"), "{out}");
    let (code, _, err) = program.run(&["fetch", "d"]);
    assert!(code == 4 && err.contains("wrong sha256"), "{err}");
    std::fs::write(program.folder.path().join("L"), "schema = 2\nnonsense = 1\n").unwrap();
    let (code, _, err) = program.run(&["list"]);
    assert!(code == 2 && err.contains("line 2") && err.contains("nonsense"), "{err}");
    assert_eq!(program.run(&["import", "/none"]).0, 2);
}

#[test]
fn a_kill_in_the_middle_is_resumed() {
    let (server, body) = (Server::new(), bytes(500_000));
    let url = server.put("/a", slow(&body));
    let program = Program::new(&file(&url, "d/a", ""));
    let mut child = program.command(&["fetch"]).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&program.data().join("d/a.part"), 50_000);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!program.data().join("d/a").exists());
    let held = std::fs::metadata(program.data().join("d/a.part")).unwrap().len();
    server.put("/a", Page::of(&body));
    let (code, _, err) = program.run(&["fetch"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(server.last("/a").range.unwrap(), format!("bytes={held}-"));
    assert!(std::fs::read(program.data().join("d/a")).unwrap() == body);
}

#[test]
fn an_interruption_stops_at_once_and_keeps_what_came() {
    let (server, big) = (Server::new(), bytes(60_000));
    let body = tar_of(&[("top/s/a", &big)]);
    // a server that falls silent: the signal must not wait for it
    let url = server.put("/x.tgz", Page { slow: Some((20_000, Duration::from_secs(3))), ..Page::of(&body) });
    let program = Program::new(&archive(&url, "tar.gz", "d/s", &format!("sha256 = \"{}\"", sha256(&body))));
    let child = program.command(&["fetch"]).stderr(Stdio::piped()).spawn().unwrap();
    let part = program.data().join(".fetched/archives/d/x.tgz.part");
    wait_for(&part, 20_000);
    let start = Instant::now();
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(err.contains("run the same command again"), "{err}");
    assert!(part.exists() && !program.data().join("d").exists());
    server.put("/x.tgz", Page::of(&body));
    assert_eq!(program.run(&["fetch"]).0, 0);
    assert!(server.last("/x.tgz").range.is_some());
    assert!(std::fs::read(program.data().join("d/s/a")).unwrap() == big);
}

#[test]
fn two_commands_do_not_write_at_once() {
    let (server, body) = (Server::new(), bytes(100_000));
    let url = server.put("/a", slow(&body));
    let program = Program::new(&file(&url, "d/a", ""));
    let mut child = program.command(&["fetch"]).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&program.data().join("d/a.part"), 1_000);
    let (code, _, err) = program.run(&["fetch"]);
    assert!(code == 2 && err.contains("another `harness data` command"), "{err}");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// `verify` without names says nothing good of what it knows nothing about.
#[test]
fn verifying_nothing_is_no_success() {
    type Make = fn(&Path);
    let program = Program::new(&file("https://h/a", "d/a", "bytes = 2000"));
    let inputs: [(Make, &str); 4] = [
        (|_| (), "check --data"),
        (|data| std::fs::write(data, "a file").unwrap(), "check --data"),
        (|data| std::fs::create_dir(data).unwrap(), "not found\n  expected: files of a known dataset"),
        (
            |data| {
                std::fs::create_dir_all(data.join("other")).unwrap();
                std::fs::write(data.join("other/x.edf"), "x").unwrap();
            },
            "not found\n  expected: files of a known dataset",
        ),
    ];
    for (make, told) in inputs {
        let _ = std::fs::remove_file(program.data()).or_else(|_| std::fs::remove_dir_all(program.data()));
        make(&program.data());
        let (code, _, err) = program.run(&["verify"]);
        assert!(code == 4 && err.contains(told) && err.contains("expected"), "{told}: {code} {err}");
    }
}

/// Files that nothing vouches for are one fault, with one message and one code, whether their dataset is named or not.
#[test]
fn files_that_nothing_vouches_for_are_there_and_not_verified() {
    let program = Program::new(&file("https://h/a", "d/a", ""));
    std::fs::create_dir_all(program.data().join("d")).unwrap();
    std::fs::write(program.data().join("d/a"), "put there by hand").unwrap();
    let answers = [&["verify"][..], &["verify", "d"]].map(|arguments| program.run(arguments));
    assert_eq!(answers[0], answers[1]);
    let (code, out, err) = &answers[0];
    assert!(*code == 4 && out.starts_with("unknown  d/a"), "{code} {out}");
    assert!(err.contains("nothing there has a checksum to be held against") && err.contains("next: "), "{err}");
    assert!(!err.contains("not found"), "{err}");
}
