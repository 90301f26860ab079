//! `harness launch slurm`: the cells of a plan that are not finished, as tasks of arrays.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Select, check_name, unwritable};
use crate::cluster::{Job, Resources, Script, Submitted, TEMPLATE, most_tasks, settle, submit};
use crate::error::{Error, Result, exit};
use crate::plan::{OpenTasks, Plan};
use crate::schedule::table;
use crate::store::CellDir;
use crate::store::seal::Stored;
use grid::{Grid, Sources};

#[derive(Args)]
pub(super) struct SlurmArgs {
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    resources: Resources,
    /// Print the script and submit nothing
    #[arg(long)]
    dry_run: bool,
    /// A site's own template of the script
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Folder under --out, as in `run`
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Take this plan in place of the one that is there, as in `run`
    #[arg(long)]
    replace: bool,
}

pub(super) fn slurm(args: &SlurmArgs) -> Result<u8> {
    let select = &args.select;
    args.name.as_deref().map_or(Ok(()), check_name)?;
    let [grid] = &select.grids[..] else {
        return Err(Error::Usage(format!("expected one grid, got {}", select.grids.len())));
    };
    args.resources.check().map_err(|(key, problem)| Error::Usage(format!("--{}: {problem}", key.replace('_', "-"))))?;
    let (template_name, template) = match &args.template {
        Some(path) => (path.display().to_string(), fs::read_to_string(path).map_err(Error::io(path))?),
        None => ("slurm.sh.tera".to_owned(), TEMPLATE.to_owned()),
    };
    let mut sources = Sources::default();
    let of_grid = Resources::of_grid(&Grid::load(grid, &mut sources)?, &sources)?;
    let resources = args.resources.clone().over(of_grid);
    // the plan does not depend on where a task will run
    let plan = Plan::build(grid, &select.selection(), &select.data, &candle_core::Device::Cpu, &mut OpenTasks::new())?;
    let run = select.out.join(args.name.clone().unwrap_or_else(|| plan.folder()));
    let _working = plan.write(&run, args.replace).map_err(unwritable)?;
    let plan_file = absolute(&run.join("plan.json"))?;
    let folder = run.join("slurm");
    fs::create_dir_all(&folder).map_err(Error::io(&folder)).map_err(unwritable)?;
    let held = table::lock(&run)?; // two launches at once would submit the same cells
    let active = settle(&plan, &run)?;
    let mut open = Vec::new();
    for (index, cell) in plan.cells.iter().enumerate().filter(|(_, cell)| cell.selected) {
        let done = matches!(CellDir::of(&run, &cell.id).checked_status()?, Stored::Whole(s) if s.outcome.is_final());
        let repeated = open.iter().any(|(_, id)| *id == &cell.id);
        if !done && !repeated && !active.contains_key(&cell.id) {
            open.push((index, &cell.id));
        }
    }
    let per_task = resources.cells_per_task.unwrap_or(1) as usize;
    let tasks: Vec<&[(usize, &String)]> = open.chunks(per_task).collect();
    let logs = absolute(&folder)?;
    let (program, data) = (std::env::current_exe().map_err(Error::io(&run))?, absolute(&select.data)?);
    let mut submitted = Submitted::read(&run)?;
    for (number, tasks) in tasks.chunks(most_tasks()).enumerate() {
        let stem = format!("{}-{number}", submitted.jobs.len());
        let cells = logs.join(format!("{stem}.cells"));
        let script = Script {
            experiment: &plan.experiment,
            program: &text(&program)?,
            plan: &text(&plan_file)?,
            data: &text(&data)?,
            device: &select.device,
            logs: &text(&logs)?,
            cells: &text(&cells)?,
            tasks: tasks.len(),
            resources: &resources,
        };
        let script = script.fill(&template_name, &template)?;
        if args.dry_run {
            crate::say_on!("{script}");
            continue;
        }
        let line = |task: &&[(usize, &String)]| {
            let indices: Vec<String> = task.iter().map(|(index, _)| index.to_string()).collect();
            format!("{}\n", indices.join(","))
        };
        crate::store::write_whole(&cells, tasks.iter().map(line).collect::<String>().as_bytes())?;
        let file = folder.join(format!("{stem}.sh"));
        crate::store::write_whole(&file, script.as_bytes())?;
        let id = submit(&file)?;
        let ids = |task: &&[(usize, &String)]| task.iter().map(|(_, id)| (*id).clone()).collect();
        submitted.jobs.push(Job { id, tasks: tasks.iter().map(ids).collect() });
        submitted.write(&run)?;
        crate::say!("submitted {} tasks as job {id}", tasks.len());
    }
    drop(held);
    let chosen = plan.cells.iter().filter(|cell| cell.selected).count();
    ::data::tell!(
        "{chosen} cells: {} {}, {} waiting or running, {} done; `harness run` with the same arguments collects them",
        open.len(),
        if args.dry_run { "to submit" } else { "submitted" },
        active.len(),
        chosen - open.len() - active.len(),
    );
    Ok(exit::DONE)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io(path))
}

/// A path that can stand in a script.
fn text(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control));
    text.map(str::to_owned).ok_or_else(|| {
        Error::Usage(format!("{}: expected a path without control characters and in UTF-8", path.display()))
    })
}
