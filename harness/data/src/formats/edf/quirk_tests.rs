//! Files as they are in the wild: what other readers take is taken, and told.

use super::read_tests::{FAST, bytes_of, open, patched, said};
use super::*;

#[test]
fn what_comes_behind_the_records_is_passed_over_and_told() {
    let bytes = bytes_of(Kind::Edf, &[], &[]);
    let digest = open(&bytes).unwrap().digest().unwrap();
    assert!(open(&bytes).unwrap().repairs().is_empty());
    // as in chb17b_69.edf, a single byte, and more than a record
    for (rest, said) in
        [(vec![0; 7], "behind its last record"), (vec![9], "behind its"), (vec![0; 256], "more records")]
    {
        let longer = [&bytes[..], &rest].concat();
        let mut reader = open(&longer).unwrap();
        assert_eq!((reader.header().records, reader.header().rest_bytes), (3, rest.len() as u64));
        assert_eq!(reader.digest().unwrap(), digest);
        assert!(reader.repairs()[0].contains(said), "{:?}", reader.repairs());
    }
    // fewer announced than there are
    let fewer = patched(&bytes, 236, "2 ");
    let mut reader = open(&fewer).unwrap();
    assert_eq!(reader.read_records(0..2, &[0]).unwrap(), [&FAST[..8]]);
    assert!(reader.repairs()[0].contains("more records"));
}

#[test]
fn of_an_open_number_of_records_the_whole_ones_are_read() {
    for kind in [Kind::Edf, Kind::PlusContinuous, Kind::PlusDiscontinuous] {
        let starts: &[f64] = if kind == Kind::PlusDiscontinuous { &[0.0, 4.0, 8.0] } else { &[] };
        let bytes = patched(&bytes_of(kind, starts, &[]), 236, "-1");
        assert!(open(&bytes).unwrap().repairs().is_empty(), "{kind:?}");
        for cut in [1, 4, 9] {
            let mut reader = open(&bytes[..bytes.len() - cut]).unwrap();
            assert_eq!((reader.header().records, reader.header().records_unknown), (2, true), "{kind:?} {cut}");
            assert_eq!(reader.read_records(0..2, &[0]).unwrap(), [&FAST[..8]]);
            assert_eq!(reader.record_starts_s().unwrap().len(), 2);
            assert!(reader.repairs()[0].contains("last record is cut"), "{:?}", reader.repairs());
        }
    }
}

#[test]
fn annotations_in_another_encoding_are_read_and_told() {
    for (written, wrong, read) in
        [("Apn\u{E9}e", &b"Apn\xE9e\x20"[..], "Apnée "), ("??", b"\xB5\xFF", "µÿ"), ("~~~", b"\x93a\x94", "“a”")]
    {
        let bytes = bytes_of(Kind::PlusContinuous, &[], &[said(0.5, None, written), said(1.0, None, "Größe")]);
        let at = bytes.windows(written.len()).position(|w| w == written.as_bytes()).unwrap();
        let mut changed = bytes.clone();
        changed[at..at + wrong.len()].copy_from_slice(wrong);
        let mut reader = open(&changed).unwrap();
        assert!(reader.repairs().is_empty(), "nothing was read so far");
        assert_eq!(reader.annotations().unwrap(), [said(0.5, None, read), said(1.0, None, "Größe")]);
        assert_eq!(reader.repairs(), ["annotations that are not UTF-8 are read as Latin-1"]);
        let mut whole = open(&bytes).unwrap();
        whole.annotations().unwrap();
        assert!(whole.repairs().is_empty(), "Größe is UTF-8");
    }
}

#[test]
fn units_are_read_in_utf_8_and_in_latin_1() {
    let bytes = bytes_of(Kind::Edf, &[], &[]);
    for (unit, read) in [("µV".as_bytes(), "µV"), ("μV".as_bytes(), "μV"), (b"\xB5V", "µV")] {
        let mut changed = bytes.clone();
        let at = 256 + 96 * 2;
        changed[at..at + unit.len()].copy_from_slice(unit);
        let reader = open(&changed).unwrap();
        assert_eq!(reader.header().signals[0].unit, read);
        assert_eq!(reader.header().signals[1].unit, "uV");
    }
}
