//! The script of an array: a template, so that a site can replace it.

use serde::Serialize;
use tera::{Context, Tera};

use super::Resources;
use crate::error::{Error, Result};

/// The template that is taken if none is given.
pub const TEMPLATE: &str = include_str!("../../../../reports/templates/slurm.sh.tera");

/// What a template can use.
#[derive(Debug, Serialize)]
pub struct Script<'a> {
    /// The experiment's name.
    pub experiment: &'a str,
    /// The program, an absolute path.
    pub program: &'a str,
    /// The plan, an absolute path.
    pub plan: &'a str,
    /// Data directory, an absolute path.
    pub data: &'a str,
    /// Cache folder, an absolute path, where `--cache` or the environment names one.
    pub cache: Option<&'a str>,
    /// Value of `--device`.
    pub device: &'a str,
    /// Folder for logs, an absolute path.
    pub logs: &'a str,
    /// File with the cells of each task: one line a task, ids with commas between them.
    pub cells: &'a str,
    /// Number of tasks; they are numbered from 0.
    pub tasks: usize,
    /// What each of them is given.
    pub resources: &'a Resources,
}

impl Script<'_> {
    /// Fills a template; `name` is what errors call it.
    ///
    /// # Errors
    /// `Usage` if the template is wrong.
    pub fn fill(&self, name: &str, template: &str) -> Result<String> {
        let wrong = |e: tera::Error| Error::Usage(format!("{name}: {e}"));
        let mut tera = Tera::default();
        tera.register_filter("quoted", |text: &str, _: tera::Kwargs, _: &tera::State| quoted(text));
        tera.add_raw_template(name, template).map_err(wrong)?;
        let context = Context::from_serialize(self).map_err(wrong)?;
        tera.render(name, &context).map_err(wrong)
    }
}

/// A word of a shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(resources: &Resources, template: &str) -> Result<String> {
        Script {
            experiment: "lambda",
            program: "/opt/it's here/harness",
            plan: "/r/plan.json",
            data: "/d",
            cache: Some("/fast disk"),
            device: "auto",
            logs: "/r/slurm",
            cells: "/r/slurm/1.cells",
            tasks: 7,
            resources,
        }
        .fill("slurm.sh.tera", template)
    }

    #[test]
    fn the_script_says_what_was_asked_for_and_nothing_else() {
        let resources =
            Resources { time: Some("04:00:00".into()), at_once: Some(3), cpus: Some(4), ..Resources::default() };
        let text = script(&resources, TEMPLATE).unwrap();
        for line in [
            "#SBATCH --array=0-6%3",
            "#SBATCH --time=04:00:00",
            "#SBATCH --cpus-per-task=4",
            r"'/opt/it'\''s here/harness'",
            "\nexport HARNESS_CACHE='/fast disk'\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("--mem") && !text.contains("--gres") && !text.contains("{{"), "{text}");
        assert!(text.starts_with("#!/bin/bash\n"));
    }

    #[test]
    fn a_sites_own_template_is_filled_and_a_wrong_one_is_named() {
        let own = script(&Resources::default(), "#PBS -J 0-{{ tasks - 1 }}\n{{ program | quoted }}").unwrap();
        assert!(own.starts_with("#PBS -J 0-6"), "{own}");
        let wrong = script(&Resources::default(), "{{ taskss }}").unwrap_err().to_string();
        assert!(wrong.contains("slurm.sh.tera") && wrong.contains("taskss"), "{wrong}");
    }
}
