//! A cell's rows: a file of each kind that is any bytes or a changed whole one, read by itself, and as one of the parts that a
//! checkpoint counts.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use harness_fuzz::{changed, let_readers_catch, scratch};
use libfuzzer_sys::fuzz_target;
use rows::parquet::{Kept, Metadata, PartWriter, read_metadata, read_rows};
use rows::{EvalRow, Event, LayerRow, PredictionRow, StepRow};

const KINDS: [&str; 4] = ["steps", "layers", "evals", "predictions"];

fn part(cell: &Path, kind: &str) -> PathBuf {
    cell.join("parts").join(format!("{kind}-000000.parquet"))
}

/// The four files of one whole part.
fn whole() -> [Vec<u8>; 4] {
    let cell = scratch("whole");
    let mut writer = PartWriter::open(&cell, Kept::default(), Metadata::new(), || {}).expect("an empty folder");
    for step in 0..5 {
        let name = format!("n{step}");
        let events = [
            Event::Step(StepRow { step, loss: (step > 1).then_some(0.5), ..StepRow::default() }),
            Event::Layer(LayerRow { step, layer: name.clone(), quantity: "rate".into(), value: 0.1 }),
            Event::Eval(EvalRow {
                step,
                seen: 9,
                split: "valid".into(),
                metric: name.clone(),
                value: Some(0.5),
                n: 3,
                low: None,
                high: Some(1.0),
            }),
            Event::Prediction(PredictionRow {
                item: name,
                scores: vec![0.5; step as usize],
                split: "test".into(),
                target: None,
                hypothesis: Some("a b".into()),
                nll: Some(0.25),
            }),
        ];
        events.into_iter().for_each(|event| writer.push(event).expect("it is written"));
    }
    writer.flush().expect("it is written");
    let files = KINDS.map(|kind| fs::read(part(&cell, kind)).expect("a part has all four"));
    fs::remove_dir_all(&cell).expect("it can be removed");
    files
}

fuzz_target!(|data: &[u8]| {
    static WHOLE: OnceLock<[Vec<u8>; 4]> = OnceLock::new();
    let_readers_catch();
    let whole = WHOLE.get_or_init(whole);
    let Some((&kind, edits)) = data.split_first() else { return };
    let (kind, tampered) = (usize::from(kind) % 4, kind & 64 != 0);
    let cell = scratch("cell");
    fs::create_dir_all(cell.join("parts")).expect("a folder");
    let mut sum = String::new();
    for (i, name) in KINDS.into_iter().enumerate() {
        let bytes = if i == kind { changed(&whole[i], edits) } else { whole[i].clone() };
        fs::write(part(&cell, name), &bytes).expect("a file");
        sum += &data::files::sha256_hex(if tampered { &whole[i] } else { &bytes });
    }
    let path = part(&cell, KINDS[kind]);
    let _ = read_metadata(&path);
    let _ = match kind {
        0 => read_rows::<StepRow>(&path).map(|rows| rows.len()),
        1 => read_rows::<LayerRow>(&path).map(|rows| rows.len()),
        2 => read_rows::<EvalRow>(&path).map(|rows| rows.len()),
        _ => read_rows::<PredictionRow>(&path).map(|rows| rows.len()),
    };
    let kept = Kept { parts: 1, sha256: data::files::sha256_hex(sum.as_bytes()) };
    if let Ok(writer) = PartWriter::open(&cell, kept, Metadata::new(), || {}) {
        let _ = writer.finish();
    }
    fs::remove_dir_all(&cell).expect("it can be removed");
});
