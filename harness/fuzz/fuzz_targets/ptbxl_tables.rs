//! The two tables of PTB-XL: a byte that chooses the labels, the statements, a zero byte, the database.
#![no_main]

use std::path::Path;

use data::datasets::ptbxl::{LabelSet, Labelling, PtbXl};
use harness_fuzz::split;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, tables)) = data.split_first() else { return };
    let set = match choice % 6 {
        0 => LabelSet::Superclass,
        1 => LabelSet::Subclass,
        2 => LabelSet::Diagnostic,
        3 => LabelSet::Form,
        4 => LabelSet::Rhythm,
        _ => LabelSet::All,
    };
    let labelling = Labelling { set, min_likelihood: f64::from(choice / 6), keep_unlabelled: choice & 1 == 0 };
    let mut parts = split(tables, 2);
    let (Some(statements), Some(database)) = (parts.next(), parts.next()) else { return };
    let Ok(data) = PtbXl::parse(Path::new("ptb-xl"), statements, database, labelling) else { return };
    for entry in data.entries() {
        assert_eq!(entry.labels.len(), data.classes().len());
        assert!((1..=10).contains(&entry.fold));
        for path in [&entry.filename_lr, &entry.filename_hr] {
            assert!(!path.is_empty() && !path.starts_with('/') && !path.split('/').any(|part| part == ".."), "{path}");
        }
    }
    assert!(data.select(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).len() <= data.entries().len());
});
