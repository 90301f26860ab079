//! Checkpoints: the last two of a cell, each with digests of its files, so that damage to one costs the time since the other.
//!
//! `checkpoint.new` is written, `checkpoint` becomes `checkpoint.previous`, `checkpoint.new` becomes `checkpoint`: a kill at any
//! moment leaves at least one that is whole. `position.json` is written last and makes a folder whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use learner::Snapshot;
use serde::{Deserialize, Serialize};

use super::seal::{self, Stored};
use super::{CellDir, digests};
use crate::error::{Error, Result};
use crate::measure::operations::Totals;
use crate::phases::Followed;
use rows::parquet::Kept;

/// What makes a checkpoint whole.
const POSITION: &str = "position.json";

/// Where training stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Id of the cell.
    pub cell: String,
    /// Segments done.
    pub segment: u64,
    /// Rows of steps made, one for each segment.
    pub step: u64,
    /// Updates the optimiser made.
    #[serde(default)]
    pub updates: u64,
    /// Tokens or frames seen.
    pub seen: u64,
    /// Training time.
    pub elapsed_s: f64,
    /// Of this, time spent waiting for data.
    #[serde(default)]
    pub data_wait_s: f64,
    /// Highest live bytes within any step.
    pub peak_bytes: u64,
    /// Blocks of memory asked for within steps.
    #[serde(default)]
    pub allocations: u64,
    /// Sum of the steps' spike sparsity, and their number.
    pub sparsity: (f64, u64),
    /// Losses of the first and of the last updates.
    #[serde(default)]
    pub losses: Losses,
    /// Losses of the first pass over the stream, each of a segment that was not yet learned from.
    #[serde(default)]
    pub prequential: Prequential,
    /// What became of the phases of a stream that has such.
    #[serde(default, skip_serializing_if = "Followed::is_empty")]
    pub phases: Followed,
    /// Share of prunable connections that are pruned, where there is pruning.
    #[serde(default)]
    pub pruned_share: Option<f64>,
    /// Operation counts so far.
    #[serde(default)]
    pub operations: Totals,
    /// Complete parts of the Parquet files.
    pub parts: u64,
    /// Their digest.
    #[serde(default)]
    pub parts_sha256: String,
    /// SHA-256 of the checkpoint's other files, by name.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// What a network lost at first and what it loses now: one that has left where it began has diverged, though its numbers are finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Losses {
    /// The first: of the network as it was drawn.
    pub first: f64,
    /// Mean of the last, fading over [`Losses::LAST`].
    pub last: f64,
    /// How many there were.
    pub count: u64,
}

/// Prequential loss: every segment of a stream is predicted before it is learned from (Dawid 1984).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prequential {
    /// Sum and number of losses since the beginning, in nats per supervised step.
    pub all: (f64, u64),
    /// The same since the last window ended.
    pub window: (f64, u64),
}

impl Prequential {
    /// Takes in the loss of a segment.
    pub fn add(&mut self, loss: f64) {
        for (sum, count) in [&mut self.all, &mut self.window] {
            *sum += loss;
            *count += 1;
        }
    }

    /// Mean over the stream so far, with the number of segments.
    #[must_use]
    pub fn mean(&self) -> Option<(f64, u64)> {
        mean(self.all)
    }

    /// Ends the window: its mean, with the number of segments.
    pub fn end_window(&mut self) -> Option<(f64, u64)> {
        mean(std::mem::take(&mut self.window))
    }
}

fn mean((sum, count): (f64, u64)) -> Option<(f64, u64)> {
    (count > 0).then(|| (sum / count as f64, count))
}

impl Losses {
    /// Losses over which the end fades.
    const LAST: u64 = 32;
    /// A network that was not trained is about as good as chance; one that loses so many times as much is no result.
    const MOST: f64 = 4.0;

    /// Takes in a loss.
    pub fn add(&mut self, loss: f64) {
        self.count += 1;
        if self.count == 1 {
            self.first = loss;
        }
        self.last += (loss - self.last) / self.count.min(Self::LAST) as f64;
    }

    /// Why the network has diverged, if it has.
    #[must_use]
    pub fn diverged(&self) -> Option<String> {
        let loss = self.last;
        (self.count > Self::LAST && loss > Self::MOST * self.first).then(|| {
            format!(
                "the loss of its last updates is {loss:.3}, more than {} times the {:.3} that it began with",
                Self::MOST,
                self.first
            )
        })
    }
}

impl Position {
    /// What it says of the parts.
    pub fn kept(&self) -> Kept {
        Kept { parts: self.parts, sha256: self.parts_sha256.clone() }
    }
}

impl CellDir {
    fn checkpoint(&self, suffix: &str) -> PathBuf {
        self.path.join(format!("checkpoint{suffix}"))
    }

    /// Saves weights, state and position; the one before stays.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn save(&self, snapshot: &Snapshot, position: &Position) -> Result<()> {
        let (new, current, previous) = (self.checkpoint(".new"), self.checkpoint(""), self.checkpoint(".previous"));
        self.settle()?;
        remove_checkpoint(&new)?;
        fs::create_dir_all(&new).map_err(Error::io(&new))?;
        snapshot.write(&new)?;
        let files = digests(&new, &Snapshot::FILES)?;
        let cell = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        seal::write(&new.join(POSITION), &Position { cell, files, ..position.clone() })?;
        if current.exists() {
            remove_checkpoint(&previous)?;
            fs::rename(&current, &previous).map_err(Error::io(&previous))?;
        }
        fs::rename(&new, &current).map_err(Error::io(&current))
    }

    /// The checkpoints that there are, the last one first.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn checkpoints(&self) -> Result<Vec<PathBuf>> {
        self.settle()?;
        let all = ["", ".previous"].map(|suffix| self.checkpoint(suffix));
        Ok(all.into_iter().filter(|dir| dir.join(POSITION).exists()).collect())
    }

    /// Removes what only an unfinished cell needs.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn remove_previous(&self) -> Result<()> {
        remove_checkpoint(&self.checkpoint(".previous"))
    }

    /// After a kill between the two renames of [`CellDir::save`] there is no current checkpoint, but a whole new one.
    fn settle(&self) -> Result<()> {
        let (current, new) = (self.checkpoint(""), self.checkpoint(".new"));
        if !current.exists() && new.join(POSITION).exists() {
            fs::rename(&new, &current).map_err(Error::io(&current))?;
        }
        Ok(())
    }

    /// Forgets checkpoints and parts: the cell starts again.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn clear(&self) -> Result<()> {
        for suffix in ["", ".new", ".previous"] {
            remove_checkpoint(&self.checkpoint(suffix))?;
        }
        let parts = self.path.join("parts");
        if parts.exists() {
            fs::remove_dir_all(&parts).map_err(Error::io(&parts))?;
        }
        Ok(())
    }
}

/// Reads a checkpoint.
///
/// # Errors
/// If the system refuses to read what is there.
pub fn load_checkpoint(checkpoint: &Path) -> Result<Stored<(Snapshot, Position)>> {
    let position = match seal::read::<Position>(&checkpoint.join(POSITION))? {
        Stored::Whole(position) => position,
        Stored::Absent => return Ok(Stored::Absent),
        Stored::Damaged(problem) => return Ok(Stored::Damaged(problem)),
    };
    if let Some(problem) = super::differs(checkpoint, &position.files) {
        return Ok(Stored::Damaged(problem));
    }
    let folder = checkpoint.parent().and_then(Path::file_name);
    if folder.is_none_or(|name| name != position.cell.as_str()) || position.files.len() < Snapshot::FILES.len() {
        return Ok(Stored::Damaged(format!("{}: it is of cell {}", checkpoint.display(), position.cell)));
    }
    Ok(match Snapshot::read(checkpoint) {
        Ok(snapshot) => Stored::Whole((snapshot, position)),
        Err(e) => Stored::Damaged(e.to_string()),
    })
}

/// Removes a checkpoint so that no half of it can be taken for a whole: first what makes it whole.
fn remove_checkpoint(dir: &Path) -> Result<()> {
    let position = dir.join(POSITION);
    if position.exists() {
        fs::remove_file(&position).map_err(Error::io(&position))?;
    }
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(Error::io(dir))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    fn snapshot(x: f32) -> Snapshot {
        let mut s = Snapshot::default();
        s.weights.insert("w".into(), Tensor::new(&[x], &Device::Cpu).expect("one number"));
        s.counters.insert("updates".into(), u64::MAX - 3);
        s
    }

    fn at(step: u64) -> Position {
        Position { step, ..Position::default() }
    }

    fn last(cell: &CellDir) -> (Snapshot, Position) {
        let first = cell.checkpoints().unwrap().remove(0);
        load_checkpoint(&first).unwrap().whole().expect("whole")
    }

    #[test]
    fn a_checkpoint_survives_a_kill_between_its_renames() -> Result<()> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let cell = CellDir::open(dir.path(), "abc")?;
        assert!(cell.checkpoints()?.is_empty());
        cell.save(&snapshot(1.0), &at(1))?;
        cell.save(&snapshot(2.0), &at(2))?;
        let (s, p) = last(&cell);
        assert_eq!(
            (s.weights["w"].to_vec1::<f32>().expect("one number"), p.step, s.counters["updates"]),
            (vec![2.0], 2, u64::MAX - 3)
        );
        // as if killed after `checkpoint` made room and before `checkpoint.new` took its place
        fs::rename(cell.checkpoint(""), cell.checkpoint(".new")).expect("rename");
        assert_eq!(last(&cell).1.step, 2);
        // twice in a row, and saving straight after it: one whole checkpoint is there at any moment
        fs::rename(cell.checkpoint(""), cell.checkpoint(".new")).expect("rename");
        cell.save(&snapshot(2.5), &at(2))?;
        // as if killed while the new one was being written: no position yet, the old one counts
        fs::create_dir_all(cell.checkpoint(".new")).expect("mkdir");
        assert_eq!(last(&cell).1.step, 2);
        cell.save(&snapshot(3.0), &at(3))?;
        assert_eq!(last(&cell).1.step, 3);
        Ok(())
    }

    #[test]
    fn a_loss_that_has_left_where_it_began_is_a_divergence_and_one_bad_batch_is_none() {
        let losses = |values: &[f64]| {
            let mut losses = Losses::default();
            for loss in values {
                losses.add(*loss);
            }
            losses
        };
        let falls: Vec<f64> = (0..100).map(|i| 5.0 * (-0.02 * f64::from(i)).exp()).collect();
        assert_eq!(losses(&falls).diverged(), None);
        let mut one_bad = falls.clone();
        one_bad[95] = 200.0;
        assert_eq!(losses(&one_bad).diverged(), None);
        let jumps: Vec<f64> = (0..100).map(|i| if i < 20 { 5.0 } else { 500.0 }).collect();
        assert!(losses(&jumps).diverged().unwrap().contains("of its last updates is 4"));
        assert_eq!(losses(&[5.0, 50.0]).diverged(), None, "too few to tell");
    }

    #[test]
    fn a_damaged_checkpoint_is_found_and_the_one_before_is_there() -> Result<()> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let cell = CellDir::open(dir.path(), "abc")?;
        cell.save(&snapshot(1.0), &at(1))?;
        cell.save(&snapshot(2.0), &at(2))?;
        let [current, previous] = &cell.checkpoints()?[..] else { panic!("two are kept") };
        for file in Snapshot::FILES.iter().chain([&POSITION]) {
            let path = current.join(file);
            let whole = fs::read(&path).expect("there");
            for bit in (0..whole.len() * 8).step_by(7) {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, bytes).expect("written");
                assert!(matches!(load_checkpoint(current)?, Stored::Damaged(_)), "{file}, bit {bit}");
            }
            fs::write(&path, &whole[..whole.len() / 2]).expect("written");
            assert!(matches!(load_checkpoint(current)?, Stored::Damaged(_)), "half of {file}");
            fs::remove_file(&path).expect("there");
            assert!(!matches!(load_checkpoint(current)?, Stored::Whole(_)), "no {file}");
            assert_eq!(load_checkpoint(previous)?.whole().expect("whole").1.step, 1);
            fs::write(&path, whole).expect("written");
        }
        assert_eq!(last(&cell).1.step, 2);
        // one of another cell is no better than a damaged one
        let other = CellDir::open(dir.path(), "abd")?;
        fs::rename(current, other.path.join("checkpoint")).expect("rename");
        let Stored::Damaged(problem) = load_checkpoint(&other.checkpoints()?[0])? else { panic!("of another cell") };
        assert!(problem.contains("it is of cell abc"), "{problem}");
        Ok(())
    }
}
