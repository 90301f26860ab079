//! A results file: any bytes, or a whole one that was changed in places.
#![no_main]

use std::sync::OnceLock;

use harness_fuzz::{changed, let_readers_catch, with_file};
use libfuzzer_sys::fuzz_target;
use rows::parquet::{Metadata, read_metadata};
use rows::results::{ResultRow, columns, read_results, write_results};

/// Rows with and without values, and settings of every type.
fn rows() -> Vec<ResultRow> {
    let row = |i: u64, lambda: &str| ResultRow {
        experiment: "e".into(),
        cell: format!("c{i}"),
        outcome: "completed".into(),
        metric: (i % 2 == 0).then(|| "bits_per_byte".into()),
        value: (i % 3 != 0).then_some(1.25),
        config: [("model.lambda", lambda), ("model.kind", "bim"), ("task.norm", "true")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into_iter()
            .collect(),
        ..ResultRow::default()
    };
    (0..7).map(|i| row(i, if i < 4 { "0.5" } else { "1e-3" })).collect()
}

fuzz_target!(|data: &[u8]| {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    let_readers_catch();
    let whole = WHOLE.get_or_init(|| {
        with_file(&[], |path| {
            write_results(path, &rows(), &Metadata::new()).expect("a temporary file can be written");
            std::fs::read(path).expect("it is there")
        })
    });
    with_file(&changed(whole, data), |path| {
        let has_digest = read_metadata(path).is_ok_and(|meta| meta.contains_key("rows_sha256"));
        let _ = columns(path);
        if let (Ok(read), true) = (read_results(path), has_digest) {
            assert!(
                data.first().is_some_and(|byte| byte % 2 == 1) || read == rows(),
                "other rows under the old digest"
            );
        }
    });
});
