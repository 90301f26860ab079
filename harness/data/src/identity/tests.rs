//! What is the dataset and what only looks like it.

use std::path::{Path, PathBuf};

use super::list::List;
use super::sums::Sums;
use super::*;
use crate::datasets::librispeech::{RATE_HZ, Split, Utterance};
use crate::datasets::wikitext::{self, Text};

fn sums(dir: &Path) -> Sums {
    Sums::in_folder(&dir.join("cache"))
}

fn put(path: PathBuf, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn names_are_read_back_and_nothing_else_is_a_name() {
    for identity in Identity::ALL {
        let text = Found::new(identity, "why: so").to_string();
        assert_eq!(Identity::recorded(Some(&text)), identity);
    }
    for other in [None, Some(""), Some("Published"), Some("publishedx: y"), Some("a published: y")] {
        assert_eq!(Identity::recorded(other), Identity::Unverified, "{other:?}");
    }
}

#[test]
fn a_marked_folder_is_generated_whatever_it_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ptb-xl");
    std::fs::create_dir(&root).unwrap();
    mark(&root).unwrap();
    let moved = dir.path().join("physionet.org-files-ptb-xl-1.0.3");
    std::fs::rename(&root, &moved).unwrap();
    let used = Used { records: vec!["records100/00000/00001_lr"], whole: true };
    let mut sums = sums(dir.path());
    let all = [
        language(&moved, &[], true),
        ptbxl(&moved, &used, &mut sums).unwrap(),
        chbmit(&moved, &["chb01/chb01_01.edf"], &[], &mut sums).unwrap(),
        librispeech(&moved, &[]),
    ];
    assert!(all.iter().all(|found| found.identity == Identity::Generated), "{all:?}");
}

fn text(bytes: &[u8]) -> Text {
    Text { bytes: bytes.to_vec(), fingerprint: crate::files::sha256_hex(bytes) }
}

#[test]
fn text_of_other_words_lines_or_splits_is_not_wikitext() {
    let none = Path::new("nowhere");
    let cat = " the cat sat on the mat \n".repeat(5000);
    // as many lines as are published, and as many bytes: the words are others
    let lines = format!("{}{}", " \n".repeat(3760 - 1), " x".repeat(1_139_711 / 2 - 1) + " \n\n");
    for (split, bytes) in [
        (wikitext::Split::Train, cat.as_bytes()),
        (wikitext::Split::Valid, cat.as_bytes()),
        (wikitext::Split::Test, lines.as_bytes()),
        (wikitext::Split::Valid, lines.as_bytes()),
    ] {
        let found = language(none, &[TextFacts::of(split, &text(bytes))], false);
        assert_eq!(found.identity, Identity::Unverified);
        assert!(found.reason.contains(split.name()), "{found}");
    }
}

/// A training split's facts as published, and near to it.
#[test]
fn the_training_split_is_known_by_lines_bytes_and_tokens() {
    // 1,801,350 rows in chunks of 10,000 that take 545,142,639 bytes with their offsets
    let chunks = 181;
    let row_bytes = 545_142_639 - 4 * (1_801_350 + chunks);
    let facts = TextFacts {
        split: wikitext::Split::Train,
        lines: 1_801_350,
        row_bytes,
        sha256: String::new(),
        tokens: Some(103_227_021),
    };
    let of = |facts: TextFacts| language(Path::new("nowhere"), &[facts], true).identity;
    assert_eq!(of(facts.clone()), Identity::Published);
    assert_eq!(of(TextFacts { tokens: None, ..facts.clone() }), Identity::Published);
    for other in [
        TextFacts { lines: 1_801_351, ..facts.clone() },
        TextFacts { row_bytes: row_bytes + 1, ..facts.clone() },
        TextFacts { row_bytes: row_bytes - 4 * 1802, ..facts.clone() },
        TextFacts { tokens: Some(103_227_020), ..facts.clone() },
        TextFacts { split: wikitext::Split::Test, ..facts },
    ] {
        assert_eq!(of(other.clone()), Identity::Unverified, "{other:?}");
    }
}

#[test]
fn recordings_by_published_names_with_other_content_are_not_chb_mit() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("chb-mit");
    put(root.join("chb01/chb01_01.edf"), b"no recording of the dataset");
    let of = |names: &[&str]| chbmit(&root, names, &[], &mut sums(dir.path())).unwrap();
    for (names, told) in [
        (vec!["chb01/chb01_01.edf"], "RECORDS-WITH-SEIZURES is not there"),
        (vec!["chb77/chb77_01.edf"], "chb77/chb77_01.edf is no file of the dataset"),
        (vec![], "no recording is read"),
    ] {
        let found = of(&names);
        assert_eq!(found.identity, Identity::Unverified);
        assert!(found.reason.contains(told), "{found}");
    }
    put(root.join("chb01/chb01-summary.txt"), b"File Name: chb01_01.edf\n");
    assert!(of(&["chb01/chb01_01.edf"]).reason.contains("is not the published file"));
    let found = of(&["chb01/chb01_02.edf"]);
    assert!(found.identity == Identity::Unverified, "{found}");
}

/// The dataset is whole if what is left out is the dataset's too: not if something else stands in its place.
#[test]
fn recordings_that_are_left_out_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["c/a.edf", "c/b.edf", "c/d.edf", "c/c-summary.txt"];
    let line = |name: &&str| format!("{} {name}\n", crate::files::sha256_hex(name.as_bytes()));
    let list = List::of(Box::leak(names.iter().map(line).collect::<String>().into_boxed_str()));
    for name in names {
        put(dir.path().join(name), name.as_bytes());
    }
    let of = |used: &[&str], left_out: &[&str]| {
        chbmit::against(&list, dir.path(), used, left_out, &mut sums(dir.path())).unwrap()
    };
    assert_eq!(of(&names[..3], &[]).identity, Identity::Published);
    let found = of(&names[..2], &["c/d.edf"]);
    assert!(
        found.identity == Identity::Published && found.reason.contains("left out for another montage (1)"),
        "{found}"
    );
    for left_out in [&[][..], &["c/b.edf"], &["c/x.edf"]] {
        assert_eq!(of(&names[..2], left_out).identity, Identity::Subset, "{left_out:?}");
    }
    put(dir.path().join("c/d.edf"), b"of another montage, and of another dataset");
    assert_eq!(of(&names[..2], &["c/d.edf"]).identity, Identity::Subset);
    std::fs::remove_file(dir.path().join("c/d.edf")).unwrap();
    assert_eq!(of(&names[..2], &["c/d.edf"]).identity, Identity::Subset);
}

#[test]
fn tables_of_no_version_are_not_ptb_xl() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ptb-xl");
    put(root.join("ptbxl_database.csv"), b"ecg_id\n");
    put(root.join("scp_statements.csv"), b",description\n");
    let used = Used { records: vec!["records100/00000/00001_lr"], whole: true };
    let found = ptbxl(&root, &used, &mut sums(dir.path())).unwrap();
    assert_eq!(found.to_string(), "unverified: scp_statements.csv is not the published one");
}

/// Utterances of so many speakers that last so many minutes together.
fn split(name: &str, utterances: u32, speakers: u32, minutes: f64) -> Split {
    let samples = (minutes * 60.0 * f64::from(RATE_HZ) / f64::from(utterances)) as u64;
    let utterance = |i: u32| Utterance {
        id: format!("{}-1-{i:04}", i % speakers),
        speaker: i % speakers,
        chapter: 1,
        text: "A".into(),
        path: PathBuf::new(),
        samples,
        content: format!("{i}"),
    };
    let account = crate::account::Account::new();
    Split { name: name.into(), utterances: (0..utterances).map(utterance).collect(), account }
}

#[test]
fn splits_of_librispeech_are_known_by_their_sizes() {
    let of = |split: &Split, used: usize| librispeech(Path::new("nowhere"), &[Wanted { split, used }]);
    let whole = split("test-clean", 2620, 40, 324.2);
    assert_eq!(of(&whole, 2620).identity, Identity::Published);
    let part = of(&whole, 100);
    assert_eq!((part.identity, part.reason.contains("100 utterances")), (Identity::Subset, true));
    for other in [
        split("test-clean", 2619, 40, 324.2),
        split("test-clean", 2620, 39, 324.2),
        split("test-clean", 2620, 40, 330.0),
        split("test-clean", 2620, 40, 324.2 * 1.002),
        split("test-other", 2620, 40, 324.2), // another split under this name
        split("my-own", 2620, 40, 324.2),
    ] {
        assert_eq!(of(&other, 9999).identity, Identity::Unverified, "{}", other.name);
    }
}

#[test]
fn a_split_of_which_nothing_is_used_says_nothing_of_the_data() {
    let (whole, other) = (split("test-clean", 2620, 40, 324.2), split("my-own", 3, 1, 1.0));
    let of = |used| {
        let wanted = [Wanted { split: &whole, used: 2620 }, Wanted { split: &other, used }];
        librispeech(Path::new("nowhere"), &wanted)
    };
    assert_eq!(of(1).identity, Identity::Unverified);
    let found = of(0);
    assert_eq!(found.identity, Identity::Subset, "a split that was asked for is not used: {found}");
    assert!(found.reason.contains("2620 utterances") && found.reason.contains("headers"), "{found}");
}

#[test]
fn known_utterances_are_a_subset_and_must_be_as_they_are_known() {
    let known = |split: &str, content: &str, text: &str| {
        let utterance = Utterance {
            id: "1272-141231-0002".into(),
            speaker: 1272,
            chapter: 141_231,
            text: text.into(),
            path: PathBuf::new(),
            samples: 213_360,
            content: content.into(),
        };
        let account = crate::account::Account::new();
        let split = Split { name: split.into(), utterances: vec![utterance], account };
        librispeech(Path::new("nowhere"), &[Wanted { split: &split, used: 1 }]).identity
    };
    let md5 = "896a4ac40c06cb32bbf076beeaab6656";
    let text = "THE CUT ON HIS CHEST STILL DRIPPING BLOOD THE ACHE OF HIS OVERSTRAINED EYES EVEN THE SOARING ARENA AROUND HIM \
                WITH THE THOUSANDS OF SPECTATORS WERE TRIVIALITIES NOT WORTH THINKING ABOUT";
    assert_eq!(known("dev-clean", md5, text), Identity::Subset);
    assert_eq!(known("dev-other", md5, text), Identity::Unverified, "under another split's name");
    assert_eq!(known("dev-clean", &md5.replace('8', "9"), text), Identity::Unverified);
    assert_eq!(known("dev-clean", md5, "OTHER WORDS"), Identity::Unverified);
}

/// The samples of real files below the folder that `HARNESS_REAL_DATA` names are parts of the datasets; the clips, which are cut from
/// recordings, are not.
#[test]
fn real_samples_are_parts_of_the_datasets() {
    let Some(root) = std::env::var_os("HARNESS_REAL_DATA").map(PathBuf::from) else {
        println!("skipped: HARNESS_REAL_DATA is not set");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut sums = sums(dir.path());
    for folder in ["wikitext-103", "wikitext-103-parquet"] {
        let folder = root.join(folder);
        let facts = [wikitext::Split::Valid, wikitext::Split::Test]
            .map(|split| TextFacts::of(split, &wikitext::read_split(&folder, split).unwrap()));
        assert_eq!(language(&folder, &facts, false).identity, Identity::Subset);
        let swapped = [TextFacts { split: wikitext::Split::Test, ..facts[0].clone() }];
        assert_eq!(language(&folder, &swapped, false).identity, Identity::Unverified);
    }
    let folder = root.join("ptb-xl");
    let data = crate::datasets::ptbxl::PtbXl::open(&folder).unwrap();
    let records: Vec<&str> = data.entries().iter().map(|entry| entry.filename_lr.as_str()).collect();
    let found = ptbxl(&folder, &Used { records, whole: true }, &mut sums).unwrap();
    assert_eq!(found.identity, Identity::Subset, "{found}");
    let folder = root.join("LibriSpeech");
    let splits =
        ["train-clean-100", "dev-clean", "test-clean", "test-other"].map(|name| Split::open(&folder, name).unwrap());
    let wanted: Vec<Wanted> = splits.iter().map(|split| Wanted { split, used: split.utterances.len() }).collect();
    let found = librispeech(&folder, &wanted);
    assert_eq!(found.identity, Identity::Subset, "{found}");
    let mut other = splits[3].clone();
    other.name = "train-clean-360".into();
    assert_eq!(librispeech(&folder, &[Wanted { split: &other, used: 9 }]).identity, Identity::Unverified);
    let found = chbmit(&root.join("chb-mit-clips"), &["chb01/chb01_03.edf"], &[], &mut sums).unwrap();
    assert_eq!(found.identity, Identity::Unverified, "{found}");
}
