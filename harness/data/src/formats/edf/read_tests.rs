//! Tests of the reader: files made here, and real ones where they are at hand.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use super::*;
use crate::error::{DataError, DataResult};

pub(super) const FAST: [i16; 12] = [1, -2, 3, 4, i16::MIN, i16::MAX, 7, 8, 9, 10, 11, 12];
const SLOW: [i16; 3] = [-100, 0, 100];

pub(super) fn signal<'a>(label: &'a str, samples_per_record: usize, digital: &'a [i16]) -> SignalToWrite<'a> {
    SignalToWrite {
        label,
        unit: "uV",
        physical_min: -800.0,
        physical_max: 800.0,
        digital_range: (-2048, 2047),
        samples_per_record,
        digital,
    }
}

fn with<T>(kind: Kind, starts: &[f64], annotations: &[Annotation], f: impl FnOnce(&FileToWrite<'_>) -> T) -> T {
    let signals = [signal("FP1-F7", 4, &FAST), signal("slow", 1, &SLOW)];
    f(&FileToWrite {
        kind,
        patient: "X X X X",
        recording: "Startdate X X X X",
        start_date: "01.01.00",
        start_time: "23.59.59",
        record_seconds: 0.5,
        signals: &signals,
        record_starts_s: starts,
        annotations,
    })
}

pub(super) fn bytes_of(kind: Kind, starts: &[f64], annotations: &[Annotation]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.edf");
    with(kind, starts, annotations, |file| write_file(&path, file)).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside the file");
    std::fs::read(path).unwrap()
}

pub(super) fn open(bytes: &[u8]) -> DataResult<Reader<Cursor<&[u8]>>> {
    Reader::new(Path::new("a.edf"), Cursor::new(bytes), bytes.len() as u64)
}

/// With this text at this place.
pub(super) fn patched(bytes: &[u8], at: usize, text: &str) -> Vec<u8> {
    let mut patched = bytes.to_vec();
    patched[at..at + text.len()].copy_from_slice(text.as_bytes());
    patched
}

pub(super) fn said(onset_s: f64, duration_s: Option<f64>, text: &str) -> Annotation {
    Annotation { onset_s, duration_s, text: text.into() }
}

#[test]
fn mixed_rates_are_read_whole_in_parts_and_out_of_range() {
    let bytes = bytes_of(Kind::Edf, &[], &[]);
    let mut reader = open(&bytes).unwrap();
    assert_eq!(reader.read_records(0..3, &[1, 0]).unwrap(), [SLOW.to_vec(), FAST.to_vec()]);
    assert_eq!(reader.read_records(1..2, &[0]).unwrap(), [[i16::MIN, i16::MAX, 7, 8]]);
    assert_eq!(reader.read_samples(0, 3..9).unwrap(), FAST[3..9]);
    assert!(reader.read_samples(1, 1..1).unwrap().is_empty());
    assert!(reader.read_records(2..4, &[0]).is_err());
    assert!(reader.read_samples(0, 8..13).is_err());
    assert!(reader.read_records(0..1, &[2]).is_err());
    let header = reader.header();
    assert_eq!((header.kind, header.records, header.seconds()), (Kind::Edf, 3, 1.5));
    let rates: Vec<_> = header.signals.iter().map(|s| header.rate_hz(s)).collect();
    assert_eq!(rates, [Some(8.0), Some(2.0)]);
    assert_eq!((header.start_date.as_str(), header.start_time.as_str()), ("01.01.00", "23.59.59"));
    // as the scale of CHB-MIT: 4095 steps for 1600 µV, and no clamping at -2048
    let scale = header.signals[0].scale().unwrap();
    assert!((scale.physical(-2048) + 800.0).abs() < 1e-9 && (scale.physical(2047) - 800.0).abs() < 1e-9);
    assert!((scale.physical(i16::MIN) - (-800.0 - 30720.0 * 1600.0 / 4095.0)).abs() < 1e-6);
    assert_eq!(reader.record_starts_s().unwrap(), [0.0, 0.5, 1.0]);
    assert_eq!(reader.annotations().unwrap(), []);
}

#[test]
fn digest_is_that_of_le_i32_channel_after_channel() {
    use sha2::{Digest, Sha256};
    let expected = Sha256::digest(
        FAST.iter().chain(&SLOW).flat_map(|&sample| i32::from(sample).to_le_bytes()).collect::<Vec<u8>>(),
    );
    for kind in [Kind::Edf, Kind::PlusContinuous] {
        let bytes = bytes_of(kind, &[], &[]);
        assert_eq!(open(&bytes).unwrap().digest().unwrap(), crate::files::hex(&expected));
    }
}

#[test]
fn edf_plus_has_annotations_and_times() {
    let list = [said(0.75, Some(0.25), "seizure µ"), said(0.0, None, "start"), said(9.0, None, "late")];
    let mut sorted = list.to_vec();
    sorted.sort_by(|a, b| a.onset_s.total_cmp(&b.onset_s));
    let bytes = bytes_of(Kind::PlusContinuous, &[], &list);
    let mut reader = open(&bytes).unwrap();
    assert_eq!(reader.annotations().unwrap(), sorted);
    assert_eq!(reader.record_starts_s().unwrap(), [0.0, 0.5, 1.0]);
    assert_eq!(reader.header().data_signals(), [0, 1]);
    let bytes = bytes_of(Kind::PlusDiscontinuous, &[0.0, 7.25, 100.5], &list);
    let mut reader = open(&bytes).unwrap();
    assert_eq!(reader.record_starts_s().unwrap(), [0.0, 7.25, 100.5]);
    assert_eq!(reader.annotations().unwrap(), sorted);
    assert_eq!(reader.read_records(0..3, &[1]).unwrap(), [SLOW]);
    // the same gap in a file that calls itself continuous
    let at = bytes.windows(5).position(|w| w == b"EDF+D").unwrap();
    let error = open(&patched(&bytes, at, "EDF+C")).unwrap().record_starts_s().unwrap_err().to_string();
    assert!(error.contains("7.25 s") && error.contains("at 0.5 s"), "{error}");
    let overlapping = bytes_of(Kind::PlusDiscontinuous, &[0.0, 0.25, 1.0], &[]);
    assert!(open(&overlapping).unwrap().record_starts_s().is_err());
}

/// The first of two annotation signals keeps time, both annotate.
#[test]
fn several_annotation_signals_are_all_read() {
    let text = |text: &[u8]| {
        let mut bytes = text.to_vec();
        bytes.resize(16, 0);
        bytes.as_chunks().0.iter().map(|&pair| i16::from_le_bytes(pair)).collect::<Vec<i16>>()
    };
    let first = [text(b"+0\x14\x14\0+3\x14a\x14\0"), text(b"+1\x14\x14\0")].concat();
    let second = [text(b"+2\x14b\x14\0"), text(b"+1.5\x142\x14\0")].concat();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.edf");
    let samples = [5, 6];
    let signals = [signal(ANNOTATIONS, 8, &first), signal("x", 1, &samples), signal(ANNOTATIONS, 8, &second)];
    let empty: &[f64] = &[];
    with(Kind::Edf, empty, &[], |file| {
        write_file(&path, &FileToWrite { signals: &signals, record_seconds: 1.0, ..*file })
    })
    .unwrap();
    let bytes = patched(&std::fs::read(&path).unwrap(), 192, "EDF+C");
    let mut reader = open(&bytes).unwrap();
    assert_eq!(reader.record_starts_s().unwrap(), [0.0, 1.0]);
    assert_eq!(reader.annotations().unwrap(), [said(1.5, None, "2"), said(2.0, None, "b"), said(3.0, None, "a")]);
    assert_eq!(reader.read_records(0..2, &[1]).unwrap(), [[5, 6]]);
    // an error in the second signal of the second record has its own byte
    let place = bytes.windows(4).rposition(|w| w == b"+1.5").unwrap();
    let error = open(&patched(&bytes, place, "1.5+")).unwrap().annotations().unwrap_err().to_string();
    assert!(error.contains(&format!("at byte {place}:")), "{error}, {place}");
}

const ANNOTATIONS: &str = "EDF Annotations";

#[test]
fn headers_with_quirks() {
    let bytes = bytes_of(Kind::Edf, &[], &[]);
    // an open number of records is found from the file's size
    let open_end = patched(&bytes, 236, "-1      ");
    let reader = open(&open_end).unwrap();
    assert_eq!((reader.header().records, reader.header().records_unknown), (3, true));
    // padding with zeros, on the left, and a fraction of zero
    assert_eq!(open(&patched(&bytes, 236, "3\0\0\0\0\0\0\0")).unwrap().header().records, 3);
    assert_eq!(open(&patched(&bytes, 236, "     3.0")).unwrap().header().records, 3);
    assert_eq!(open(&patched(&bytes, 252, "+2  ")).unwrap().header().signals.len(), 2);
    // Latin-1 in a label
    let mut latin = bytes.clone();
    latin[256] = 0xB5;
    assert_eq!(open(&latin).unwrap().header().signals[0].label, "µP1-F7");
    // ranges: inverted is fine, the others have no scale but their samples are read
    let at = |before: usize| 256 + before * 2;
    let inverted = patched(&patched(&bytes, at(104), "800     "), at(112), "-800    ");
    let scale = open(&inverted).unwrap().header().signals[0].scale().unwrap();
    assert!(scale.unit_per_step < 0.0 && (scale.physical(2047) + 800.0).abs() < 1e-9);
    for (place, text) in [(at(104), "800     "), (at(120), "2047    "), (at(120), "2048    ")] {
        let flat = patched(&bytes, place, text);
        let mut reader = open(&flat).unwrap();
        assert_eq!(reader.header().signals[0].scale(), None, "{text}");
        assert_eq!(reader.read_records(0..3, &[0]).unwrap(), [FAST]);
    }
}

#[test]
fn broken_headers_are_errors_with_their_place() {
    let bytes = bytes_of(Kind::Edf, &[], &[]);
    let signal = |before: usize| 256 + before * 2;
    for (at, text, message) in [
        (0, "1", "version `1`"),
        (184, "512", "768 bytes of header"),
        (236, "-2", "the number of records"),
        (236, "4   ", "3 whole records and 0 bytes of another"),
        (236, "0   ", "3 whole records and 0 bytes of another"),
        (236, "99999999", "does not fit"),
        (244, "x", "the duration of a record"),
        (244, "-1 ", "a duration of 0 or more seconds"),
        (244, "inf", "the duration of a record"),
        (252, "3", "1024 bytes of header"),
        (252, "-1", "the number of signals"),
        (signal(104), "1,5", "the physical minimum"),
        (signal(128), "1.5 ", "the digital maximum"),
        (signal(216), "-4", "samples in a record"),
        (signal(216), "99999999", "3 records of"),
    ] {
        let message = if message == "does not fit" { "99999999 records" } else { message };
        let error = open(&patched(&bytes, at, text)).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("at byte"), "{at} {text}: {error}");
    }
    let mut bdf = bytes.clone();
    bdf[..8].copy_from_slice(b"\xFFBIOSEMI");
    assert!(open(&bdf).unwrap_err().to_string().contains("BDF"));
    for end in [0, 10, 255, 256, 767] {
        assert!(open(&bytes[..end]).unwrap_err().to_string().contains("the file ends"), "{end}");
    }
    let error = open(&bytes[..bytes.len() - 3]).unwrap_err().to_string();
    assert!(error.contains("2 whole records and 7 bytes of another"), "{error}");
    let unknown = patched(&bytes[..768 + 7], 236, "-1");
    assert!(open(&unknown).unwrap_err().to_string().contains("0 whole records and 7 bytes"));
    assert!(matches!(Reader::open(Path::new("nowhere.edf")), Err(DataError::Missing { .. })));
}

/// Any change of one byte gives a file or an error, no panic, and no more samples than the file has bytes.
#[test]
fn mangled_files_never_panic() {
    let whole = bytes_of(Kind::PlusDiscontinuous, &[0.0, 1.0, 2.0], &[said(1.25, Some(0.5), "x")]);
    for place in 0..whole.len() {
        for byte in [b'0', b'9', b' ', b'-', 0, 0x14, 0xFF] {
            let mut mangled = whole.clone();
            mangled[place] = byte;
            if let Ok(mut reader) = open(&mangled) {
                let _ = reader.annotations();
                let _ = reader.record_starts_s();
                let records = reader.header().records;
                let all: Vec<usize> = (0..reader.header().signals.len()).collect();
                let read = reader.read_records(0..records, &all).unwrap();
                assert!(read.iter().map(Vec::len).sum::<usize>() <= whole.len());
            }
        }
    }
}

#[test]
fn the_writer_refuses_what_the_format_cannot_hold() {
    let path = PathBuf::from("/nonexistent/a.edf");
    let refused = |change: &dyn Fn(FileToWrite<'_>) -> DataResult<()>| with(Kind::Edf, &[], &[], |file| change(*file));
    let message = |result: DataResult<()>| result.unwrap_err().to_string();
    assert!(message(refused(&|f| write_file(&path, &FileToWrite { patient: "é", ..f }))).contains("ASCII"));
    assert!(
        message(refused(&|f| write_file(&path, &FileToWrite { record_seconds: 1.0 / 3.0, ..f }))).contains("at most 8")
    );
    assert!(message(refused(&|f| write_file(&path, &FileToWrite { signals: &[], ..f }))).contains("at least one"));
    let uneven = [signal("a", 2, &FAST), signal("b", 1, &SLOW)];
    assert!(message(refused(&|f| write_file(&path, &FileToWrite { signals: &uneven, ..f }))).contains("as many"));
    assert!(message(refused(&|f| write_file(&path, &FileToWrite { record_starts_s: &[0.0], ..f }))).contains("EDF+D"));
    let note = [said(0.0, None, "a")];
    assert!(
        message(refused(&|f| write_file(&path, &FileToWrite { annotations: &note, ..f }))).contains("no annotations")
    );
}

/// A file of which only the first record is asked for is not read further.
#[test]
fn no_more_is_read_than_asked_for() {
    struct Counting<'a>(Cursor<&'a [u8]>, std::rc::Rc<std::cell::Cell<u64>>);
    impl std::io::Read for Counting<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let read = self.0.read(buffer)?;
            self.1.set(self.1.get() + read as u64);
            Ok(read)
        }
    }
    impl std::io::Seek for Counting<'_> {
        fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }
    let bytes = bytes_of(Kind::Edf, &[], &[]);
    let count = std::rc::Rc::new(std::cell::Cell::new(0));
    let input = Counting(Cursor::new(&bytes), std::rc::Rc::clone(&count));
    let mut reader = Reader::new(Path::new("a.edf"), input, bytes.len() as u64).unwrap();
    assert_eq!(count.get(), 768, "the header alone");
    reader.read_records(1..2, &[0, 1]).unwrap();
    assert_eq!(count.get(), 768 + 10, "one record of five samples");
    reader.read_records(0..2, &[1]).unwrap();
    assert_eq!(count.get(), 768 + 14, "of two records the one sample that is wanted");
}

/// Every EDF line of `EXPECTED.tsv` in the folder that `HARNESS_REAL_DATA` names, as decoded by pyedflib.
#[test]
fn real_files_decode_as_pyedflib_does() {
    let Some(root) = std::env::var_os("HARNESS_REAL_DATA") else {
        println!("skipped: HARNESS_REAL_DATA is not set");
        return;
    };
    let root = Path::new(&root);
    let table = std::fs::read_to_string(root.join("EXPECTED.tsv")).unwrap();
    let mut decoded = 0;
    for row in table.lines().map(|line| line.split('\t').collect::<Vec<_>>()).filter(|row| row[1] == "edf") {
        let (path, shape, rate, sha256) = (row[0], row[2], row[3], row[4]);
        let mut reader = Reader::open(&root.join(path)).unwrap();
        let header = reader.header().clone();
        let signals: Vec<&Signal> = header.data_signals().into_iter().map(|i| &header.signals[i]).collect();
        if let Some((channels, samples)) = shape.split_once('x') {
            assert_eq!(signals.len().to_string(), channels, "{path}");
            assert!(signals.iter().all(|s| (s.samples_per_record * header.records).to_string() == samples), "{path}");
            assert!(signals.iter().all(|s| header.rate_hz(s) == rate.parse().ok()), "{path}");
        } else {
            assert!(signals.is_empty(), "{path}");
        }
        assert_eq!(reader.digest().unwrap(), sha256, "{path}");
        let annotations = reader.annotations().unwrap();
        assert_eq!(reader.record_starts_s().unwrap().len() as u64, header.records, "{path}");
        println!("{path}: {} signals, {} annotations", signals.len(), annotations.len());
        decoded += 1;
    }
    assert!(decoded > 0);
}
