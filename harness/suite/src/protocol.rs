//! What may be chosen on what: selection never sees the test part.
//!
//! Settings are chosen on the validation part, which shares nothing with the training part, and the test part, which shares
//! nothing with either, is scored once at the end. A grid that breaks this is refused where it is written, unless it says
//! that nothing is chosen by its results.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tasks::{Part, TaskConfig};
use grid::{ConfigResult, Node, Sources};

/// What the results of a task are used to choose: its key `selection`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// Settings were chosen on the validation part, here or elsewhere; the result is of the test part.
    #[default]
    Valid,
    /// This grid chooses settings for others: its result is of the validation part, and the test part is not scored.
    Here,
    /// Nothing is chosen by these results, so parts may share data. There is no curve during training, whatever
    /// `curve_points` says: its part may be the test part.
    None,
}

impl Selection {
    /// Whether it is what a grid need not say.
    #[must_use]
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The part that is scored at the end.
    #[must_use]
    pub fn scored(self) -> Part {
        match self {
            Self::Valid | Self::None => Part::Test,
            Self::Here => Part::Valid,
        }
    }
}

/// Two parts that share data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// Keys of the two parts.
    pub keys: [&'static str; 2],
    /// The key under which these parts may stand too, such as that of a list of texts.
    pub within: Option<&'static str>,
    /// What they share, in words.
    pub shared: String,
}

/// The first two of the parts that share something.
pub fn pairs<T>(parts: &[(&'static str, T); 3], shared: impl Fn(&T, &T) -> Option<String>) -> Option<Overlap> {
    let [train, valid, test] = parts;
    [(train, valid), (train, test), (valid, test)]
        .into_iter()
        .find_map(|(a, b)| Some(Overlap { keys: [a.0, b.0], within: None, shared: shared(&a.1, &b.1)? }))
}

/// Refuses a task whose parts share data, unless it says that nothing is chosen; `written` is the task as the grid has it.
///
/// # Errors
/// At the line of one of the two parts, or of the task if both are defaults.
pub fn check(task: &TaskConfig, written: &Node, sources: &Sources) -> ConfigResult<()> {
    let Some(Overlap { keys, within, shared }) =
        task.settings().overlap().filter(|_| task.settings().selection() != Selection::None)
    else {
        return Ok(());
    };
    let [first, second] = keys;
    let places = [Some(second), Some(first), within];
    let origin =
        places.into_iter().flatten().find_map(|key| written.get(key)).map_or(written.origin, |node| node.origin);
    let message = format!("`{first}` and `{second}` overlap: both have {shared}");
    let cut = task.settings().way_apart();
    Err(sources
        .error(origin, message)
        .note("expected training, validation and test parts that share nothing: what is chosen must not see what is scored")
        .help(format!("{cut}; or write `selection: none` in the task if nothing is chosen by its results")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::typed_cells;
    use grid::{Grid, Selection as Chosen};

    /// The first cell of a grid with this task, or what is wrong with it.
    fn cell(task: &str) -> Result<crate::cell::CellConfig, String> {
        let text = format!("experiment: x\ntask: {task}\nmodels: [lstm]\n");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("g.yaml");
        std::fs::write(&path, text).unwrap();
        let mut sources = Sources::default();
        let grid = Grid::load(&path, &mut sources).unwrap();
        typed_cells(&grid, &path, &Chosen::default(), &mut sources)
            .map(|mut cells| cells.remove(0))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn parts_that_share_data_are_refused_where_they_are_written() {
        for (task, expected) in [
            ("{kind: language, valid_split: test}", "`valid_split` and `test_split` overlap: both have all of `test`"),
            (
                "{kind: language, train_split: 'valid[:0.9]', valid_split: 'valid[0.85:]'}",
                "`train_split` and `valid_split` overlap: both have `valid[:0.9]` and `valid[0.85:]`",
            ),
            ("{kind: language, train_split: 'test[:0.1]'}", "`train_split` and `test_split` overlap"),
            (
                "{kind: language, train_split: valid}",
                "`train_split` and `valid_split` overlap: both have all of `valid`",
            ),
            ("{kind: cardio, valid_folds: [8]}", "`train_folds` and `valid_folds` overlap: both have fold 8"),
            ("{kind: cardio, test_folds: [9, 10]}", "`valid_folds` and `test_folds` overlap: both have fold 9"),
            ("{kind: cardio, train_folds: [1, 10]}", "`train_folds` and `test_folds` overlap: both have fold 10"),
            // chb01 and chb21 are one patient
            (
                "{kind: seizure, valid_cases: [chb01], test_cases: [chb21]}",
                "`valid_cases` and `test_cases` overlap: both have the patient of chb01",
            ),
            (
                "{kind: seizure, train_cases: [chb02, chb03]}",
                "`train_cases` and `test_cases` overlap: both have the patient of chb03",
            ),
            (
                "{kind: speech, valid_splits: [dev-other, test-clean]}",
                "`valid_splits` and `test_splits` overlap: both have `test-clean`",
            ),
            (
                "{kind: speech, train_splits: [dev-clean]}",
                "`train_splits` and `valid_splits` overlap: both have `dev-clean`",
            ),
        ] {
            let error = cell(task).unwrap_err();
            assert!(error.contains(expected), "{task}: {error}");
            assert!(error.contains("g.yaml:2:") && error.contains("selection: none"), "{task}: {error}");
        }
    }

    #[test]
    fn parts_that_share_nothing_are_accepted() {
        for task in [
            "{kind: language}",
            "{kind: language, train_split: 'valid[:0.9]', valid_split: 'valid[0.9:]'}",
            "{kind: language, selection: here}",
            "{kind: cardio}",
            "{kind: seizure}",
            "{kind: seizure, split: chronological, train_cases: [chb03]}",
            "{kind: speech}",
            "{kind: recall}",
        ] {
            assert!(cell(task).is_ok(), "{task}: {:?}", cell(task));
        }
        let here = cell("{kind: language, selection: here}").unwrap();
        assert_eq!(here.task.settings().selection().scored(), Part::Valid);
        assert!(
            cell("{kind: language, selection: here, valid_split: train}").is_err(),
            "a choice needs a part of its own"
        );
    }

    #[test]
    fn where_nothing_is_chosen_parts_may_be_the_same_and_there_is_no_curve() {
        let none = cell("{kind: language, train_split: test, valid_split: test, selection: none}").unwrap();
        assert_eq!((none.train.curve_points, none.task.settings().selection().scored()), (0, Part::Test));
        assert!(cell("{kind: language}").unwrap().train.curve_points > 0);
        for task in [
            "{kind: cardio, valid_folds: [10], selection: none}",
            "{kind: speech, train_splits: [test-clean], selection: none}",
        ] {
            assert!(cell(task).is_ok(), "{task}");
        }
    }

    #[test]
    fn what_may_be_chosen_is_one_of_three() {
        let error = cell("{kind: cardio, selection: nothing}").unwrap_err();
        assert!(error.contains("expected one of `valid`, `here`, `none`"), "{error}");
    }
}
