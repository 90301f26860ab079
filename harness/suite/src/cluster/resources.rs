//! What a task of an array is given.

use clap::Args;
use grid::{ConfigResult, Grid, Sources, read_as};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `resources:` of a grid and the flags over them. What is not said is left to the site's defaults.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Longest time of a task, as Slurm writes it: minutes, HH:MM:SS or D-HH
    #[arg(long, value_name = "TIME")]
    pub time: Option<String>,
    /// Memory of a task, such as 8G
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Processors of a task
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// GPUs of a task
    #[arg(long, value_name = "N")]
    pub gpus: Option<u32>,
    /// Partition
    #[arg(long, value_name = "NAME")]
    pub partition: Option<String>,
    /// Account
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,
    /// Cells that a task works on, one after another
    #[arg(long, value_name = "N")]
    pub cells_per_task: Option<u32>,
    /// Tasks of an array that run at once
    #[arg(long, value_name = "N")]
    pub at_once: Option<u32>,
    /// Further options of sbatch, such as --sbatch=--qos=low
    #[arg(long = "sbatch", value_name = "OPTION")]
    pub sbatch: Vec<String>,
}

impl Resources {
    /// Those of a grid.
    ///
    /// # Errors
    /// At its line, whatever is wrong with the mapping.
    pub fn of_grid(grid: &Grid, sources: &Sources) -> ConfigResult<Self> {
        let Some(node) = &grid.resources else { return Ok(Self::default()) };
        let read: Self = read_as(node, "`resources`", sources)?;
        let at = |key: &str| node.get(key).map_or(node.origin, |node| node.origin);
        read.check().map_err(|(key, problem)| sources.error(at(key), format!("`{key}`: {problem}")))?;
        Ok(read)
    }

    /// These, and of `below` what these do not say.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            time: self.time.or(below.time),
            memory: self.memory.or(below.memory),
            cpus: self.cpus.or(below.cpus),
            gpus: self.gpus.or(below.gpus),
            partition: self.partition.or(below.partition),
            account: self.account.or(below.account),
            cells_per_task: self.cells_per_task.or(below.cells_per_task),
            at_once: self.at_once.or(below.at_once),
            sbatch: if self.sbatch.is_empty() { below.sbatch } else { self.sbatch },
        }
    }

    /// The first value that no script may hold: which, and what was expected.
    ///
    /// # Errors
    /// Its key and what was expected.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let texts = [
            ("time", &self.time),
            ("memory", &self.memory),
            ("partition", &self.partition),
            ("account", &self.account),
        ];
        for (key, value) in texts {
            let word = |text: &String| {
                !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.,+".contains(c))
            };
            if let Some(text) = value.as_ref().filter(|text| !word(text)) {
                return Err((key, format!("expected letters, digits and `:-_.,+`, got `{}`", text.escape_default())));
            }
        }
        let numbers = [
            ("cpus", self.cpus),
            ("gpus", self.gpus),
            ("cells_per_task", self.cells_per_task),
            ("at_once", self.at_once),
        ];
        if let Some((key, _)) = numbers.into_iter().find(|(_, number)| *number == Some(0)) {
            return Err((key, "expected a whole number from 1 up, got 0".to_owned()));
        }
        match self.sbatch.iter().find(|option| !option.starts_with("--") || option.chars().any(char::is_control)) {
            Some(option) => {
                Err(("sbatch", format!("expected an option such as --qos=low, got `{}`", option.escape_default())))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_over_the_grid_and_nothing_breaks_out_of_a_line() {
        let flags = Resources { cpus: Some(2), ..Resources::default() };
        let grid = Resources { cpus: Some(8), memory: Some("8G".into()), ..Resources::default() };
        let both = flags.over(grid);
        assert_eq!((both.cpus, both.memory.as_deref()), (Some(2), Some("8G")));
        for time in ["1:00\n#SBATCH --wrap=evil", "", "a b", "$(x)"] {
            let wrong = Resources { time: Some(time.into()), ..Resources::default() };
            assert_eq!(wrong.check().unwrap_err().0, "time", "{time:?}");
        }
        assert_eq!(Resources { sbatch: vec!["-x".into()], ..Resources::default() }.check().unwrap_err().0, "sbatch");
        assert_eq!(Resources { cpus: Some(0), ..Resources::default() }.check().unwrap_err().0, "cpus");
        assert!(Resources { time: Some("1-12:00:00".into()), ..Resources::default() }.check().is_ok());
    }
}
