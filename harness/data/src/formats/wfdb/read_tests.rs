//! Tests of the reader: small records made here, and the samples of wfdb-python where they are at hand.

use std::path::Path;

use super::*;
use crate::error::{DataError, DataResult};
use crate::formats::flac;

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn read(files: &[(&str, &[u8])]) -> DataResult<Record> {
    read_record(&folder(files).path().join("r.hea"))
}

fn digital(record: &Record) -> Vec<Vec<i32>> {
    record.channels.iter().map(|channel| channel.digital.clone()).collect()
}

#[test]
fn several_files_frames_and_orders() {
    let header =
        "r 3 100 2\na.dat 80x2 200 8 0 0 3 0 fast\nb.dat 16+2 100 16 0 7 15 0 other\na.dat 80 200 8 0 2 7 0 slow\n";
    let a = [128, 129, 130, 128, 130, 133]; // 0 1 | 2 | 0 2 | 5
    let b = [0xEE, 0xEE, 7, 0, 8, 0];
    let record = read(&[("r.hea", header.as_bytes()), ("a.dat", &a), ("b.dat", &b)]).unwrap();
    assert_eq!(digital(&record), [vec![0, 1, 0, 2], vec![7, 8], vec![2, 5]]);
    let names: Vec<_> = record.channels.iter().map(|channel| channel.name.as_str()).collect();
    assert_eq!(names, ["fast", "other", "slow"], "the header's order, whatever the files'");
}

#[test]
fn headers_that_went_through_other_programs_are_read() {
    let clean = read(&[("r.hea", b"r 1 100 2\na.dat 16\n"), ("a.dat", &[1, 0, 2, 0])]).unwrap();
    for header in
        ["\u{FEFF}# said first\nr 1 100 2\na.dat 16\n", "r 1 100 2\r\na.dat 16\r\n", "\n  r 1 100 2  \n \n\na.dat 16\t"]
    {
        let record = read(&[("r.hea", header.as_bytes()), ("a.dat", &[1, 0, 2, 0])]).unwrap();
        assert_eq!(digital(&record), digital(&clean), "{header:?}");
    }
}

/// wfdb-python takes one of the two for a part of the third sample (found by mutated files).
#[test]
fn bits_that_format_311_has_not_are_refused() {
    let record =
        |last: u8| read(&[("r.hea", b"r 1 100 6\na.dat 311\n"), ("a.dat", &[0x55, 0xA9, 0x1A, 0x20, 1, 0, 0, last])]);
    assert_eq!(digital(&record(0x3F).unwrap()), [[341, -342, -511, 1, 0, -16]]);
    for last in [0x40, 0x80, 0xC0] {
        let error = record(last).unwrap_err().to_string();
        assert!(error.contains("a.dat at byte 7: ") && error.contains("format 311"), "{error}");
    }
}

#[test]
fn skew_is_undone_and_the_end_is_missing() {
    let header = "r 2 100 3\na.dat 16:1 100 16 0 9 24 0 late\na.dat 16 100 16 0 1 6 0 prompt\n";
    let dat = [9, 0, 1, 0, 7, 0, 2, 0, 8, 0, 3, 0];
    let record = read(&[("r.hea", header.as_bytes()), ("a.dat", &dat)]).unwrap();
    assert_eq!(digital(&record), [vec![7, 8, -32768], vec![1, 2, 3]]);
    let late: Vec<f32> = record.channels[0].physical().collect();
    assert_eq!(&late[..1], [0.07]);
    assert!(late[2].is_nan());
    // A skew beyond the end leaves nothing.
    let header = "r 1 100 3\na.dat 16:99999999999\n";
    let record = read(&[("r.hea", header.as_bytes()), ("a.dat", &dat)]).unwrap();
    assert_eq!(digital(&record), [vec![-32768; 3]]);
}

#[test]
fn format_8_starts_at_the_initial_value() {
    let header = "r 1 100 4\na.dat 8 100 12 0 100 402 0 x\n";
    let record = read(&[("r.hea", header.as_bytes()), ("a.dat", &[0, 1, 0xFE, 3])]).unwrap();
    assert_eq!(digital(&record), [vec![100, 101, 99, 102]]);
}

#[test]
fn length_comes_from_the_file_where_the_header_gives_none() {
    let dat = [1, 0, 2, 0, 3, 0, 4, 0, 5];
    let record = read(&[("r.hea", b"r 2\na.dat 16\na.dat 16\n"), ("a.dat", &dat)]).unwrap();
    assert_eq!((record.frames, record.frames_per_second), (2, 250.0));
    assert_eq!(digital(&record), [vec![1, 3], vec![2, 4]]);
    let record = read(&[("r.hea", b"r 1 100 0\na.dat 16\n"), ("a.dat", &dat)]).unwrap();
    assert_eq!(record.frames, 4);
}

#[test]
fn segments_of_variable_layout_keep_gaps_and_scales() {
    let record = read(&[
        ("r.hea", b"r/4 2 100 7\nlayout 0\na 2\n~ 3\nb 2\n"),
        ("layout.hea", b"layout 2 100 0\n~ 0 100/mV 8 0 0 0 0 I\n~ 0 100/mV 8 0 0 0 0 II\n"),
        ("a.hea", b"a 1 100 2\na.dat 80 10/mV 8 0 1 3 0 II\n"),
        ("a.dat", &[129, 130]),
        ("b.hea", b"b 2 100 2\nb.dat 16 20/mV 16 0 10 30 0 II\nb.dat 16 5/mV 16 0 -128 65413 0 I\n"),
        ("b.dat", &[10, 0, 0x80, 0xFF, 20, 0, 5, 0]),
    ])
    .unwrap();
    // I: only in b (format 16); II: first in a (format 80, so gaps are -128).
    let low = -32768;
    assert_eq!(digital(&record), [vec![low, low, low, low, low, -128, 5], vec![1, 2, -128, -128, -128, 10, 20]]);
    let physical: Vec<Vec<f32>> = record.channels.iter().map(|channel| channel.physical().collect()).collect();
    assert_eq!(&physical[0][5..], [-25.6, 1.0], "-128 is a sample in format 16");
    assert_eq!(&physical[1][..2], [0.1, 0.2]);
    assert!(physical[1][2..5].iter().all(|value| value.is_nan()));
    assert_eq!(&physical[1][5..], [0.5, 1.0]);
}

#[test]
fn segments_of_fixed_layout_follow_each_other() {
    let files: [(&str, &[u8]); 4] = [
        ("r.hea", b"r/2 1 100 4\na 2\na 2\n"),
        ("a.hea", b"a 1 100 2\na.dat 16 100/mV 16 0 1 3 0 I\n"),
        ("a.dat", &[1, 0, 2, 0]),
        ("r2.hea", b""),
    ];
    assert_eq!(digital(&read(&files).unwrap()), [vec![1, 2, 1, 2]]);
}

/// Each broken record gives an error that says where, and none panics.
#[test]
fn broken_records_are_errors() {
    let one = "a.dat 16 100 16 0 1 3 0 I\n";
    let good = format!("r 1 100 2\n{one}");
    let dat: (&str, &[u8]) = ("a.dat", &[1, 0, 2, 0]);
    assert!(read(&[("r.hea", good.as_bytes()), dat]).is_ok());
    let cases: [(&str, String, &str); 13] = [
        ("truncated", format!("r 1 100 3\n{one}"), "the file ends"),
        ("absurd length", format!("r 1 100 9223372036854775807\n{one}"), "the file ends"),
        ("absurd length", format!("r 1 100 18446744073709551615\n{one}"), "the file ends"),
        ("absurd frame", "r 1 100 4294967295\na.dat 16x4294967295+18446744073709551615\n".into(), "the file ends"),
        ("checksum", good.replace(" 3 0 I", " 4 0 I"), "checksum 3"),
        ("initial value", "r 1 100 2\na.dat 16 100 16 0 2\n".into(), "first sample 2"),
        ("FLAC", good.replace("dat 16", "dat 516"), "a.dat at byte 0: no `fLaC`"),
        ("no such format", good.replace("dat 16", "dat 17"), "format 17"),
        ("formats differ", format!("r 2 100 1\n{one}a.dat 80\n"), "format 80"),
        ("offsets differ", format!("r 2 100 1\n{one}a.dat 16+4\n"), "byte offset 0"),
        ("no file", good.replace("a.dat", "b.dat"), "not found"),
        ("endless gap", "r/2 1 100\nr2 0\n~ 18446744073709551615\n".into(), "not found"),
        ("itself", "r/1 1 100 2\nr 2\n".into(), "a segment without segments"),
    ];
    for (case, header, message) in cases {
        let error = read(&[("r.hea", header.as_bytes()), dat]).unwrap_err().to_string();
        assert!(error.contains(message), "{case}: {error}");
    }
    let layout: (&str, &[u8]) = ("l.hea", b"l 1 100 0\n~ 0 100/mV 8 0 0 0 0 I\n");
    for (header, message) in [
        ("r/2 1 100\nl 0\n~ 9000000000000000000\n", "at most"),
        ("r/3 1 100\nl 0\n~ 18446744073709551615\n~ 1\n", "more than 2^64"),
        ("r/2 1 100 5\nl 0\n~ 4\n", "4 frames"),
        ("r/2 3 100 4\nl 0\n~ 4\n", "3 signals"),
        ("r/1 1 100\n~ 4\n", "only gaps"),
    ] {
        let error = read(&[("r.hea", header.as_bytes()), layout]).unwrap_err().to_string();
        assert!(error.contains(message), "{header:?}: {error}");
    }
    assert!(matches!(read(&[]), Err(DataError::Missing { .. })));
}

/// Formats 508, 516 and 524: a FLAC stream has a channel for each signal; the offset counts samples.
#[test]
fn flac_streams_are_signals() {
    let (a, b): (Vec<i32>, Vec<i32>) = ((0..40).map(|t| t * t - 100).collect(), (0..40).map(|t| 7 - t).collect());
    let stream = flac::encode(&[&a, &b], 500, 12).unwrap();
    let read_with = |header: &str| read(&[("r.hea", header.as_bytes()), ("a.dat", &stream)]);
    let sum = |samples: &[i32]| samples.iter().fold(0_i16, |sum, &s| sum.wrapping_add(s as i16));
    let header = format!("r 2 500 40\na.dat 516 200 12 0 -100 {} 0 a\na.dat 516 200 12 0 7 {} 0 b\n", sum(&a), sum(&b));
    assert_eq!(digital(&read_with(&header).unwrap()), [a.clone(), b.clone()]);
    // two samples a frame, one frame of skew, from the fifth sample of each channel on, length from the stream
    let record = read_with("r 2 250\na.dat 524x2:1+4\na.dat 524x2+4\n").unwrap();
    assert_eq!(record.frames, 18);
    let late: Vec<i32> = a[6..].iter().copied().chain([-(1 << 23); 2]).collect();
    assert_eq!(digital(&record), [late, b[4..].to_vec()]);
    assert!(record.channels[0].physical().last().unwrap().is_nan());

    for (header, message) in [
        ("r 2 500 40\na.dat 508\na.dat 508\n".to_owned(), "at most 8 bits"),
        ("r 1 500 40\na.dat 516\n".to_owned(), "1 channels"),
        ("r 2 500 41\na.dat 516\na.dat 516\n".to_owned(), "41 samples"),
        ("r 2 500 40\na.dat 516+1\na.dat 516\n".to_owned(), "41 samples"),
        ("r 2 500 18446744073709551615\na.dat 516x2\na.dat 516x2\n".to_owned(), "more than 2^64"),
        ("r 2 500 20\na.dat 516x2\na.dat 516\n".to_owned(), "2 samples per frame"),
        (header.replace(" 7 ", " 8 ").replace(&format!(" {} 0 b", sum(&b)), " 1 0 b"), "checksum 1"),
    ] {
        let error = read_with(&header).unwrap_err().to_string();
        assert!(error.contains(message), "{header}: {error}");
    }
}

/// Any truncation or change of one byte of a header gives a record or an error, no panic.
#[test]
fn mangled_headers_never_panic() {
    let header = b"r 2 100/3 2\na.dat 212x2:1+1 100(3)/mV 16 0 1 3 0 I\na.dat 212 1 12 0 1 1 0 II\n";
    let dat = [0; 32];
    let dir = folder(&[("a.dat", &dat)]);
    let path = dir.path().join("r.hea");
    for place in 0..header.len() {
        for byte in [b'0', b'9', b' ', b'\n', b'-', b'/', 0xFF] {
            let mut mangled = header.to_vec();
            mangled[place] = byte;
            std::fs::write(&path, &mangled).unwrap();
            let _ = read_record(&path);
        }
        std::fs::write(&path, &header[..place]).unwrap();
        let _ = read_record(&path);
    }
}

/// Every WFDB line of `EXPECTED.tsv` in the folder that `HARNESS_REAL_DATA` names, as decoded by wfdb-python.
#[test]
fn real_records_decode_as_wfdb_python_does() {
    let Some(root) = std::env::var_os("HARNESS_REAL_DATA") else {
        println!("skipped: HARNESS_REAL_DATA is not set");
        return;
    };
    let root = Path::new(&root);
    let table = std::fs::read_to_string(root.join("EXPECTED.tsv")).unwrap();
    let mut decoded = 0;
    for row in table.lines().map(|line| line.split('\t').collect::<Vec<_>>()).filter(|row| row[1] == "wfdb") {
        let (path, shape, rate, sha256) = (row[0], row[2], row[3], row[4]);
        match read_record(&root.join(path)) {
            Ok(record) => {
                let mut lengths: Vec<String> = record.channels.iter().map(|c| c.digital.len().to_string()).collect();
                lengths.sort();
                lengths.dedup();
                let (channels, expected) = shape.split_once('x').unwrap();
                let mut expected: Vec<_> = expected.split('/').collect();
                expected.sort_unstable();
                assert_eq!(
                    (record.channels.len().to_string().as_str(), lengths),
                    (channels, expected.iter().map(ToString::to_string).collect()),
                    "{path}"
                );
                let rate: f64 = rate.parse().unwrap(); // printed with six digits
                assert!((record.frames_per_second / rate - 1.0).abs() < 1e-5, "{path}: {}", record.frames_per_second);
                assert_eq!(digest(&record), sha256, "{path}");
                decoded += 1;
            }
            Err(error) => panic!("{path}: {error}"),
        }
    }
    println!("{decoded} decoded as expected");
    assert!(decoded > 0);
    // Records that wfdb-python refuses have no line; their header's checksums are compared on reading.
    for path in ["wfdb-samples/binformats.hea", "wfdb-samples/multi-segment/s25047/s25047-2704-05-04-10-44.hea"] {
        let path = root.join(path);
        if path.exists() {
            let record = read_record(&path).unwrap();
            assert!(record.channels.iter().all(|channel| channel.physical().count() == channel.digital.len()));
        }
    }
}
