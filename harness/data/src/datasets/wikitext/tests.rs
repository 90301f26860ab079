//! Tests of the reader: both layouts, what is mended and what is refused, and the real texts where they are at hand.

use std::sync::Arc;

use arrow_array::StringArray;
use parquet::arrow::ArrowWriter;

use super::*;
use crate::datasets::vocabulary::{Vocabulary, count_words};

fn write_shard(path: &Path, rows: &[Option<&str>]) {
    let column: Arc<dyn Array> = Arc::new(StringArray::from(rows.to_vec()));
    let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn both_layouts_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (files, hub) = (dir.path().join("files"), dir.path().join("hub"));
    std::fs::create_dir_all(&files).unwrap();
    std::fs::create_dir_all(hub.join(HUB_FOLDER)).unwrap();
    std::fs::write(files.join("wiki.valid.tokens"), " \n = A = \n \n b Ω c . \n").unwrap();
    let shard = |n: u32| hub.join(HUB_FOLDER).join(format!("validation-{n:05}-of-00002.parquet"));
    write_shard(&shard(1), &[Some(""), Some(" b Ω c . \n")]);
    write_shard(&shard(0), &[Some(""), Some(" = A = \n")]);
    let want = read_split(&files, Split::Valid).unwrap();
    assert_eq!(read_split(&hub, Split::Valid).unwrap(), want);
    assert_eq!(read_split(&hub.join(HUB_FOLDER), Split::Valid).unwrap(), want);
    assert_eq!(want.fingerprint, crate::files::sha256_hex(&want.bytes));
    let hub_text = read_split(&hub, Split::Valid).unwrap();
    for vocabulary in [Vocabulary::byte(), Vocabulary::word(&want.bytes).unwrap()] {
        assert_eq!(vocabulary.encode(&want.bytes).unwrap(), vocabulary.encode(&hub_text.bytes).unwrap());
    }

    std::fs::remove_file(shard(0)).unwrap();
    let error = read_split(&hub, Split::Valid).unwrap_err().to_string();
    assert!(error.contains("validation-00000-of-00002.parquet: not found"), "{error}");
}

#[test]
fn what_is_not_the_dataset_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let error = read_split(dir.path(), Split::Test).unwrap_err().to_string();
    assert!(error.contains("wiki.test.tokens: not found") && error.contains("harness data fetch"), "{error}");

    std::fs::write(dir.path().join("wiki.test.tokens"), b" ab \xff \n").unwrap();
    let error = read_split(dir.path(), Split::Test).unwrap_err().to_string();
    assert!(error.contains("wiki.test.tokens at byte 4"), "{error}");

    for rows in [[Some(" a \n"), None], [Some(" a \n"), Some(" no end")], [Some(" a \n"), Some(" two \n lines \n")]] {
        write_shard(&dir.path().join("train-00000-of-00001.parquet"), &rows);
        let error = read_split(dir.path(), Split::Train).unwrap_err().to_string();
        assert!(error.contains("row 1"), "{error}");
    }
    write_shard(&dir.path().join("train-00000-of-00003.parquet"), &[Some("")]);
    let error = read_split(dir.path(), Split::Train).unwrap_err().to_string();
    assert!(error.contains("one revision"), "{error}");
}

const CLEAN: &str = " \n = A = \n \n b <unk> Ω . \n \n";

fn read_as(bytes: &[u8]) -> (Result<Text, String>, Account) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("wiki.test.tokens"), bytes).unwrap();
    let mut account = Account::new();
    let text = read_split_telling(dir.path(), Split::Test, &mut account);
    (text.map_err(|error| error.to_string()), account)
}

#[test]
fn marks_line_ends_and_a_missing_end_are_mended_and_told() {
    let clean = read_as(CLEAN.as_bytes());
    assert_eq!((clean.0.as_ref().unwrap().bytes.as_slice(), clean.1.notices()), (CLEAN.as_bytes(), &[][..]));
    let crlf = CLEAN.replace('\n', "\r\n");
    let marked = format!("\u{FEFF}{CLEAN}");
    let unended = CLEAN.trim_end_matches('\n').to_owned();
    let all = format!("\u{FEFF}{}", crlf.trim_end_matches(['\r', '\n']));
    let half = CLEAN.replacen('\n', "\r\n", 2);
    for (bytes, told) in [(crlf, 1), (marked, 1), (unended, 1), (all, 3), (half, 1), (CLEAN.replace('\n', "\r"), 1)] {
        let (text, account) = read_as(bytes.as_bytes());
        assert_eq!(text.as_ref(), clean.0.as_ref(), "{bytes:?}");
        assert_eq!(account.count(Kind::Repaired), told, "{:?}", account.notices());
        assert_eq!(account.notices()[0].place, "wiki.test.tokens");
    }
    let (text, account) = read_as(b" a b\n c");
    assert_eq!((text.unwrap().bytes, account.count(Kind::Repaired)), (b" a b\n c \n".to_vec(), 1));
}

#[test]
fn damaged_downloads_are_refused() {
    for (bytes, place) in [
        (&b""[..], ": 0 bytes without a word"),
        (b" ", ": 1 bytes without a word"),
        (b" \n \n\t\n", ": 6 bytes without a word"),
        (b"\xEF\xBB\xBF\r\n", ": 5 bytes without a word"),
        (b" \n = A = \n \0\0", " at byte 11: a zero byte, the first of 2"),
        (&[0; 700], " at byte 0: a zero byte"),
        (b" a \n b\0 \n", " at byte 6: a zero byte"),
        (b"<html><body>503 Service Unavailable</body></html>\n", " at byte 0: a page of markup"),
        (b"\n<!doctype html>\n<html>\n  <p>\n", " at byte 0: a page of markup"),
        (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", " at byte 0: a page of markup"),
        (b"404: Not Found", " at byte 0: no line begins with a blank: `404: Not Found`"),
        (b"{\"message\": \"\x1b[2J\"}", " at byte 0: no line begins with a blank: `{"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", " at byte 0: no line begins"),
        (b"\xFF\xFE \0a\0", " at byte 0: UTF-16"),
    ] {
        let (text, _) = read_as(bytes);
        let error = text.unwrap_err();
        assert!(error.contains(&format!("wiki.test.tokens{place}")), "{place}: {error}");
        assert!(
            error.contains("expected: ") && error.contains("fetch the file again") && !error.contains('\x1b'),
            "{error}"
        );
    }
}

#[test]
fn shards_are_judged_like_token_files() {
    let dir = tempfile::tempdir().unwrap();
    let shard = dir.path().join("test-00000-of-00001.parquet");
    for rows in [vec![], vec![Some("")], vec![Some(" \n"), Some("")], vec![Some(" a\0 \n")], vec![Some("<html>\n")]] {
        write_shard(&shard, &rows);
        let error = read_split(dir.path(), Split::Test).unwrap_err().to_string();
        assert!(error.contains("test-00000-of-00001.parquet") && error.contains("again"), "{rows:?}: {error}");
    }
    write_shard(&shard, &[Some(" a \r\n"), Some(""), Some(" b \r\n")]);
    let mut account = Account::new();
    let text = read_split_telling(dir.path(), Split::Test, &mut account).unwrap();
    assert_eq!((text.bytes.as_slice(), account.count(Kind::Repaired)), (&b" a \n \n b \n"[..], 1));
}

#[test]
fn shard_names_are_taken_literally() {
    assert_eq!(parse_shard("train-00001-of-00002.parquet", Split::Train), Some((1, 2)));
    for name in ["train-00002-of-00002.parquet", "train-1-of-2.parquet", "test-00000-of-00001.parquet", "x"] {
        assert_eq!(parse_shard(name, Split::Train), None, "{name}");
    }
}

/// The published sizes: the reader and the definition of a word agree with the dataset's authors.
#[test]
fn the_real_splits_have_the_published_number_of_words() {
    let Some(data) = std::env::var_os("HARNESS_REAL_DATA").map(PathBuf::from) else {
        eprintln!("skipped: set HARNESS_REAL_DATA to a folder with wikitext-103/ and wikitext-103-parquet/");
        return;
    };
    for (split, words) in [(Split::Valid, 217_646), (Split::Test, 245_569)] {
        let text = read_split(&data.join("wikitext-103"), split).unwrap();
        assert_eq!(read_split(&data.join("wikitext-103-parquet"), split).unwrap(), text);
        assert_eq!(count_words(std::str::from_utf8(&text.bytes).unwrap()), words);
        let vocabulary = Vocabulary::word(&text.bytes).unwrap();
        let encoded = vocabulary.encode(&text.bytes).unwrap();
        assert_eq!((encoded.words, encoded.ids.len() as u64, encoded.unknown), (words, words, 0));
        assert!(vocabulary.decode(&encoded.ids).unwrap() == text.bytes);
    }
    // 103 227 021 words of 267 735 types in the whole training text, `<unk>` and `<eos>` among them
    if data.join("wikitext-103/wiki.train.tokens").is_file() {
        let text = read_split(&data.join("wikitext-103"), Split::Train).unwrap();
        assert_eq!(count_words(std::str::from_utf8(&text.bytes).unwrap()), 103_227_021);
        assert_eq!(Vocabulary::word(&text.bytes).unwrap().size(), 267_735);
    } else {
        eprintln!("not checked: the training text, whose vocabulary is published, is not there");
    }
}

/// Pieces are whole lines, all of them together are the text, and what is learned of them one by one is what is learned of the whole.
#[test]
fn pieces_of_a_text_are_its_lines() {
    let long = format!(" a line that is longer than most {} . \n", "Ω ".repeat(60));
    let text = format!(" the cat sat . \n \n{long} = A heading = \n an end without a line end").into_bytes();
    let vocabularies =
        [Vocabulary::byte(), Vocabulary::word(b" the cat sat . \n").unwrap(), Vocabulary::bpe(&text, 262).unwrap()];
    for piece_bytes in [1, 7, 16, 64, 1000] {
        let (mut all, mut hash) = (Vec::<Vec<u8>>::new(), Sha256::new());
        let take = |piece: &[u8]| {
            all.push(piece.to_vec());
            Ok(())
        };
        super::pieces(text.as_slice(), piece_bytes, &mut hash, Path::new("x"), take).unwrap();
        assert_eq!(all.concat(), text, "{piece_bytes}");
        assert_eq!(crate::files::hex(&hash.finalize()), crate::files::sha256_hex(&text));
        let (_, before) = all.split_last().unwrap();
        assert!(before.iter().all(|piece| piece.ends_with(b"\n")), "{piece_bytes}: {all:?}");
        for vocabulary in &vocabularies {
            let whole = vocabulary.encode(&text).unwrap();
            let parts: Vec<_> = all.iter().map(|piece| vocabulary.encode(piece).unwrap()).collect();
            assert_eq!(parts.iter().flat_map(|part| part.ids.clone()).collect::<Vec<_>>(), whole.ids);
            let sums = (parts.iter().map(|p| p.words).sum::<u64>(), parts.iter().map(|p| p.unknown).sum::<u64>());
            assert_eq!(sums, (whole.words, whole.unknown), "{piece_bytes}");
        }
    }
}
