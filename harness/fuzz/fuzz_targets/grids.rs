//! A grid file, a zero byte, a `--set`, a zero byte, an `--only`: read, and its cells put together.
#![no_main]

use grid::{Grid, Selection, Sources};
use harness_fuzz::{split, with_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = split(data, 3);
    let text = parts.next().unwrap_or_default();
    let mut arguments = parts.filter_map(|part| std::str::from_utf8(part).ok().map(str::to_owned));
    let set: Vec<String> = arguments.next().filter(|set| !set.is_empty()).into_iter().collect();
    let selection = Selection { set, only: arguments.next(), ..Selection::default() };
    let mut sources = Sources::default();
    let Ok(grid) = with_file(text, |path| Grid::load(path, &mut sources)) else { return };
    assert!(grid.scales().all(|name| !name.is_empty()) && !grid.experiment.contains(['/', '.']));
    let every = Selection { only: None, ..selection.clone() };
    let Ok(cells) = grid.cells(&every, &mut sources) else { return };
    assert!(cells.iter().all(|cell| !cell.task_name().is_empty() && !cell.model_name().is_empty()));
    if let Ok(chosen) = grid.chosen(&cells, &selection, &mut sources) {
        assert_eq!(chosen.len(), cells.len());
    }
});
