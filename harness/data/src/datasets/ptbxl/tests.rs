//! Tests of the tables and signals: a dataset made here, and the publisher's where it is at hand.

use std::collections::HashSet;

use super::statements::parse_codes;
use super::*;

const STATEMENT_ROWS: &str = ",description,diagnostic,form,rhythm,diagnostic_class\n\
    NORM,normal,1.0,,,NORM\nIMI,infarction,1.0,,,MI\nLAO/LAE,atrium,1.0,,,HYP\nSR,rhythm,,,1.0,\n";
const HEADER: &str = "ecg_id,patient_id,report,scp_codes,strat_fold,filename_lr,filename_hr\n";

fn dataset(rows: &str) -> (tempfile::TempDir, DataResult<PtbXl>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(STATEMENTS), STATEMENT_ROWS).unwrap();
    std::fs::write(dir.path().join(DATABASE), format!("{HEADER}{rows}")).unwrap();
    let opened = PtbXl::open(dir.path());
    (dir, opened)
}

const TWO: &str = "1,7.0,\"a\nb\",\"{'NORM': 100.0, 'SR': 0.0}\",3,r/1,h/1\n\
                   2,8,x,\"{'IMI': 0.0, \"\"LAO/LAE\"\": 15}\",10,r/2,h/2\n3,8.0,,{'SR': 0.0},10,r/3,h/3\n";

#[test]
fn reads_the_publishers_columns() {
    let (dir, opened) = dataset(TWO);
    let data = opened.unwrap();
    let expected = Entry {
        ecg_id: 1,
        patient_id: 7,
        fold: 3,
        labels: vec![true, false, false, false, false],
        filename_lr: "r/1".into(),
        filename_hr: "h/1".into(),
    };
    assert_eq!(data.entries()[0], expected);
    assert_eq!(data.entries()[1].labels, [false, true, false, false, true], "likelihood 0 counts by default");
    assert_eq!(data.select(&[10, 3]), [0, 1], "a record without superclass is left out");
    let keep = Labelling { keep_unlabelled: true, min_likelihood: 10.0, ..Labelling::default() };
    let data = PtbXl::open_with(dir.path(), keep).unwrap();
    assert_eq!(data.entries()[1].labels, [false, false, false, false, true]);
    assert_eq!(data.select(&[10]), [1, 2]);
    assert_eq!(data.missing(Rate::Hz500), [0, 1, 2]);
    assert!(matches!(data.load(0, Rate::Hz100), Err(DataError::Missing { .. })));
    assert!(matches!(data.load(9, Rate::Hz100), Err(DataError::Missing { .. })));
}

const SUBCLASSES: &str = ",description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass\n\
    NDT,T,1.0,1.0,,STTC,STTC\nIMI,infarction,1.0,,,MI,IMI\nDIG,digitalis,1.0,1.0,,STTC,STTC\n\
    PVC,extra,,1.0,,,\nSR,rhythm,,,1.0,,\nAFIB,rhythm,,,1.0,,\n";

/// What each set of labels makes of `{'DIG': 40, 'IMI': 80, 'PVC': 0, 'SR': 0}`.
#[test]
fn label_sets_are_those_of_the_columns() {
    let database = format!("{HEADER}1,1,,\"{{'DIG': 40, 'IMI': 80, 'PVC': 0, 'SR': 0}}\",1,l,h\n2,2,,{{}},1,l,h\n");
    let open = |set, min_likelihood, keep_unlabelled| {
        let labelling = Labelling { set, min_likelihood, keep_unlabelled };
        PtbXl::parse(Path::new("r"), SUBCLASSES.as_bytes(), database.as_bytes(), labelling).unwrap()
    };
    let labels = |set, min_likelihood| {
        let data = open(set, min_likelihood, false);
        assert_eq!(data.select(&[1]), [0], "{set:?}: the second record has no label");
        let of = |entry: &Entry| {
            let names = data.classes().iter().zip(&entry.labels).filter(|(_, has)| **has);
            names.map(|(name, _)| name.clone()).collect::<Vec<_>>().join(" ")
        };
        (data.classes().join(" "), of(&data.entries()[0]))
    };
    let pair = |classes: &str, labels: &str| (classes.to_owned(), labels.to_owned());
    assert_eq!(labels(LabelSet::Superclass, 0.0), pair("NORM MI STTC CD HYP", "MI STTC"));
    assert_eq!(labels(LabelSet::Superclass, 50.0), pair("NORM MI STTC CD HYP", "MI"));
    assert_eq!(labels(LabelSet::Subclass, 0.0), pair("STTC IMI", "STTC IMI"));
    assert_eq!(labels(LabelSet::Subclass, 40.5), pair("STTC IMI", "IMI"));
    assert_eq!(labels(LabelSet::Diagnostic, 0.0), pair("NDT IMI DIG", "IMI DIG"));
    assert_eq!(labels(LabelSet::Form, 0.0), pair("NDT DIG PVC", "DIG PVC"));
    assert_eq!(labels(LabelSet::Rhythm, 0.0), pair("SR AFIB", "SR"));
    assert_eq!(labels(LabelSet::All, 80.0), pair("NDT IMI DIG PVC SR AFIB", "IMI PVC SR"), "only diagnoses have one");
    assert_eq!(open(LabelSet::Form, 0.0, true).select(&[1]), [0, 1]);
}

#[test]
fn statements_that_make_no_classes_are_refused() {
    let parse = |statements: &str, set| {
        let labelling = Labelling { set, ..Labelling::default() };
        PtbXl::parse(Path::new("r"), statements.as_bytes(), HEADER.as_bytes(), labelling).map(|_| ())
    };
    assert!(parse(SUBCLASSES, LabelSet::Subclass).is_ok());
    for (set, wrong, with, message) in [
        (LabelSet::Superclass, ",MI,IMI", ",MY,IMI", ":3: MY"),
        (LabelSet::Subclass, ",MI,IMI", ",MI,", ":3: nothing"),
        (LabelSet::Form, "NDT,T,1.0,1.0", "NDT,T,1.0,yes", ":2: yes"),
        (LabelSet::Rhythm, "1.0,,\nAFIB", "2,,\nAFIB", ":6: 2"),
        (LabelSet::Diagnostic, "IMI,infarction", "NDT,infarction", "`NDT` again"),
        (LabelSet::Form, "form", "shape", "a column `form`"),
    ] {
        let error = parse(&SUBCLASSES.replacen(wrong, with, 1), set).unwrap_err().to_string();
        assert!(error.contains(message), "{set:?} {wrong} -> {with}: {error}");
    }
    let mut many = vec![SUBCLASSES.lines().next().unwrap().to_owned()];
    many.extend((0..2000).map(|n| format!("S{n},x,,,1.0,,")));
    let many = many.join("\n");
    assert!(parse(&many, LabelSet::Rhythm).unwrap_err().to_string().contains("at most 1024"));
}

#[test]
fn errors_carry_the_line() {
    // The first row's report has a line break, so the second row starts on line 4.
    for (wrong, with) in [
        ("2,8,x", "two,8,x"),
        ("2,8,x", "1,8,x"),
        ("2,8,x", "2,-8,x"),
        ("10,r/2", "11,r/2"),
        ("10,r/2", "0,r/2"),
        ("'IMI': 0.0", "'IMI' 0.0"),
        ("'IMI': 0.0", "'IMI': nan"),
        ("'IMI'", "'IMJ'"),
        ("'IMI'", "'IMI"),
        ("r/2", "../2"),
        ("2,8,x", "2,8"),
    ] {
        let error = dataset(&TWO.replacen(wrong, with, 1)).1.unwrap_err().to_string();
        assert!(error.contains("ptbxl_database.csv:4: "), "{wrong} -> {with}: {error}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(PtbXl::open(dir.path()), Err(DataError::Missing { .. })));
}

type Change<'a> = &'a dyn Fn(&str) -> String;

#[test]
fn tables_that_went_through_other_programs_are_read_and_told() {
    let open = |change: &dyn Fn(&str) -> String| {
        let [statements, database] = [STATEMENT_ROWS, &format!("{HEADER}{TWO}")].map(change);
        PtbXl::parse(Path::new("r"), statements.as_bytes(), database.as_bytes(), Labelling::default()).unwrap()
    };
    let clean = open(&str::to_owned);
    assert!(clean.account().notices().is_empty());
    let ends = |text: &str| text.replace('\n', "\r\n");
    let rows = |text: &str| text.replace("\n2,8", "\n\n   \n2,8").replace("\nIMI", "\n\n\nIMI") + "\n,,,,,,\n \n";
    let blanks = |text: &str| {
        text.replace("r/1,h/1", " r/1 ,h/1\t")
            .replace(",MI\n", ",MI  \n")
            .replace("diagnostic_class", "diagnostic_class ")
    };
    let all = |text: &str| format!("\u{FEFF}{}", ends(&rows(&blanks(text))));
    let changes: [(Change<'_>, u64); 5] =
        [(&|text| format!("\u{FEFF}{text}"), 2), (&ends, 2), (&rows, 2), (&blanks, 0), (&all, 6)];
    for (change, told) in changes {
        let data = open(change);
        assert_eq!((data.entries(), data.classes()), (clean.entries(), clean.classes()));
        assert_eq!(data.account().count(Kind::Repaired), told, "{:?}", data.account().notices());
    }
    for damaged in ["<!DOCTYPE html>\n<html></html>\n", "ecg_id\0\n1\n", ""] {
        let error = PtbXl::parse(Path::new("r"), STATEMENT_ROWS.as_bytes(), damaged.as_bytes(), Labelling::default());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("ptbxl_database.csv") && error.contains("fetch the file again"), "{damaged:?}: {error}");
    }
}

#[test]
fn codes_are_read_as_python_wrote_them() {
    let read = |text| parse_codes(text).unwrap();
    assert_eq!(read("{}"), []);
    assert_eq!(read("{'A': 1.5, \"B/C(S)\": 0}"), [("A".to_owned(), 1.5), ("B/C(S)".to_owned(), 0.0)]);
    for wrong in ["", "{", "}", "{A: 1}", "{'A'}", "{'A': }", "{'A: 1}", "{'A': 1 'B': 2}", "{'\\'': 1}", "['A']"] {
        assert!(parse_codes(wrong).is_err(), "{wrong}");
    }
}

/// The sample of the real dataset below the folder that `HARNESS_REAL_DATA` names.
#[test]
fn real_records_load() {
    let Some(root) = std::env::var_os("HARNESS_REAL_DATA") else {
        println!("skipped: HARNESS_REAL_DATA is not set");
        return;
    };
    let data = PtbXl::open(&Path::new(&root).join("ptb-xl")).unwrap();
    let absent: HashSet<usize> = data.missing(Rate::Hz100).into_iter().collect();
    let present: Vec<usize> = (0..data.entries().len()).filter(|index| !absent.contains(index)).collect();
    assert!(!present.is_empty() && data.account().notices().is_empty(), "{:?}", data.account());
    let records = data.load_many(&present, Rate::Hz100).unwrap();
    for record in &records {
        assert_eq!(record.len(), 12_000);
        for frame in record.chunks(12) {
            let [i, ii, iii] = [frame[0], frame[1], frame[2]];
            // Each lead is rounded to 1 microvolt; the publisher's resampling adds as much.
            assert!((i + iii - ii).abs() < 0.0025, "{i} + {iii} = {ii}");
        }
    }
    // ecg_id 1, first frame, from its header.
    assert_eq!(&records[0][..3], [-0.119, -0.055, 0.064]);
    assert_eq!(data.fingerprint().unwrap().len(), 64);
    // the publisher's numbers of statements (table 3 of Wagner et al., 2020)
    for (set, classes) in [
        (LabelSet::Subclass, 23),
        (LabelSet::Diagnostic, 44),
        (LabelSet::Form, 19),
        (LabelSet::Rhythm, 12),
        (LabelSet::All, 71),
    ] {
        let labelling = Labelling { set, ..Labelling::default() };
        let data = PtbXl::open_with(&Path::new(&root).join("ptb-xl"), labelling).unwrap();
        assert_eq!(data.classes().len(), classes, "{set:?}");
        assert!(!data.select(&[1, 2, 3, 4, 5, 6, 7, 8]).is_empty());
    }
    let counts: Vec<usize> =
        (0..5).map(|class| data.entries().iter().filter(|entry| entry.labels[class]).count()).collect();
    println!(
        "{} records, per superclass {counts:?}, {} at 500 Hz",
        records.len(),
        data.entries().len() - data.missing(Rate::Hz500).len()
    );
}
