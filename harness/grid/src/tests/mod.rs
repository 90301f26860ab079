//! The language as a whole: files in, cells or errors out.

mod errors;
mod expand;
mod sample;

use super::{ConfigResult, Grid, Node, RawCell, Selection, Sources};
use std::path::Path;

/// Writes `files` (the first is the grid) and reads the grid's cells.
fn cells_of(files: &[(&str, &str)], selection: &Selection) -> (ConfigResult<Vec<RawCell>>, Sources, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let mut sources = Sources::default();
    let path: &Path = &dir.path().join(files[0].0);
    let cells = Grid::load(path, &mut sources).and_then(|grid| grid.cells(selection, &mut sources));
    (cells, sources, dir)
}

/// `--set A --set B --only C --scale D` → a selection.
fn selection(arguments: &str) -> Selection {
    let mut selection = Selection::default();
    for argument in format!(" {arguments}").split(" --").skip(1) {
        let (flag, value) = argument.split_once(' ').unwrap();
        match flag {
            "set" => selection.set.push(value.to_owned()),
            "only" => selection.only = Some(value.to_owned()),
            "scale" => selection.scale = Some(value.to_owned()),
            _ => panic!("{flag}"),
        }
    }
    selection
}

/// A cell without places: `language/bim/1 …`.
fn line(cell: &RawCell) -> String {
    let rest = |node: &Node| {
        let mut node = node.clone();
        node.take("kind");
        node.take("name");
        node.one_line()
    };
    let (task, model, train) = (rest(&cell.task), rest(&cell.model), cell.train.one_line());
    format!("{}/{}/{} {task} {model} {train}", cell.task_name(), cell.model_name(), cell.seed)
}
