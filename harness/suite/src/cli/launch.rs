//! `harness launch slurm`: the cells of a plan that are not finished, as tasks of arrays.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Select, check_name, unwritable};
use crate::cluster::{Ends, Job, Resources, Script, Submitted, TEMPLATE, most_tasks, settle, submit};
use crate::device::Devices;
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
    let plan = Plan::build(
        grid,
        &select.selection(),
        &select.data,
        &Devices::One(candle_core::Device::Cpu),
        &mut OpenTasks::new(),
    )?;
    let run = select.out.join(args.name.clone().unwrap_or_else(|| plan.folder()));
    let plan_file = absolute(&run.join("plan.json"))?;
    let folder = run.join("slurm");
    // two launches at once would submit the same cells; one that submits nothing writes nothing
    let _held = if args.dry_run {
        None
    } else {
        let working = plan.write(&run, args.replace).map_err(unwritable)?;
        fs::create_dir_all(&folder).map_err(Error::io(&folder)).map_err(unwritable)?;
        Some((working, table::lock(&run)?))
    };
    let active = settle(&plan, &run, if args.dry_run { Ends::Leave } else { Ends::Record })?;
    // two names for one configuration are one cell
    let mut known = HashSet::new();
    let chosen = plan.cells.iter().filter(|cell| cell.selected && known.insert(&cell.id));
    let chosen: Vec<&String> = chosen.map(|cell| &cell.id).collect();
    let waiting = chosen.iter().filter(|id| active.contains_key(**id)).count();
    let is_done = |id: &str| {
        CellDir::of(&run, id)
            .checked_status()
            .is_ok_and(|stored| matches!(stored, Stored::Whole(s) if s.outcome.is_final()))
    };
    let open: Vec<&String> = chosen.iter().copied().filter(|id| !active.contains_key(*id) && !is_done(id)).collect();
    let per_task = resources.cells_per_task.unwrap_or(1) as usize;
    let tasks: Vec<&[&String]> = open.chunks(per_task).collect();
    let logs = absolute(&folder)?;
    let (program, data) = (std::env::current_exe().map_err(Error::io(&run))?, absolute(&select.data)?);
    let cache = ::data::cache::named().map(|folder| text(&absolute(&folder)?)).transpose()?;
    let mut submitted = Submitted::read(&run)?;
    for (number, tasks) in tasks.chunks(most_tasks()).enumerate() {
        let stem = format!("{}-{number}", submitted.jobs.len());
        let cells = logs.join(format!("{stem}.cells"));
        let script = Script {
            experiment: &plan.experiment,
            program: &text(&program)?,
            plan: &text(&plan_file)?,
            data: &text(&data)?,
            cache: cache.as_deref(),
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
        let ids = |task: &&[&String]| task.iter().map(|id| (*id).clone()).collect::<Vec<String>>();
        let line = |task: &&[&String]| format!("{}\n", ids(task).join(","));
        crate::store::write_whole(&cells, tasks.iter().map(line).collect::<String>().as_bytes())?;
        let file = folder.join(format!("{stem}.sh"));
        crate::store::write_whole(&file, script.as_bytes())?;
        let id = submit(&file)?;
        submitted.jobs.push(Job { id, tasks: tasks.iter().map(ids).collect() });
        submitted.write(&run)?;
        crate::say!("submitted {} tasks as job {id}", tasks.len());
    }
    ::data::tell!(
        "{} cells: {} {}, {waiting} waiting or running, {} done; `harness run` with the same arguments collects them",
        chosen.len(),
        open.len(),
        if args.dry_run { "to submit" } else { "submitted" },
        chosen.len() - open.len() - waiting,
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
