//! `harness plan`: what would run.

use std::path::Path;

use clap::Args;

use super::{Select, tell_of_data, unwritable};
use crate::error::{Result, exit};
use crate::plan::{OpenTasks, Plan, memory_floor};
use crate::store::{CellDir, Outcome};

#[derive(Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    select: Select,
    /// Machine-readable
    #[arg(long)]
    json: bool,
    /// Write `plan.json` to the run directory
    #[arg(long)]
    write: bool,
}

pub(super) fn run(args: &PlanArgs) -> Result<u8> {
    let select = &args.select;
    let devices = select.devices()?;
    let mut open = OpenTasks::new();
    for grid in &select.grids {
        let plan = Plan::build(grid, &select.selection(), &select.data, &devices, &mut open)?;
        tell_of_data(&open);
        let run = select.out.join(plan.folder());
        if args.write {
            plan.write(&run, false).map_err(unwritable)?;
        }
        let settings = plan.settings();
        let rows = plan
            .cells
            .iter()
            .zip(&settings)
            .filter(|(c, _)| c.selected)
            .map(|(c, settings)| (c, settings, known(&run, &c.id)))
            .collect::<Vec<_>>();
        if args.json {
            let cells: Vec<_> = rows
                .iter()
                .map(|(c, _, status)| {
                    serde_json::json!({
                        "id": c.id, "task": c.config.task_name, "model": c.config.model_name, "seed": c.config.seed,
                        "parameters": c.parameters, "seen": c.seen, "cached": status.is_some_and(Outcome::is_final),
                        "outcome": status.map(Outcome::name), "memory_bytes_at_least": memory_floor(c),
                        "config": c.config,
                    })
                })
                .collect();
            crate::say!("{}", serde_json::json!({"experiment": plan.experiment, "scale": plan.scale, "cells": cells}));
            continue;
        }
        crate::say!("{} at scale {}, {} cells on {}", plan.experiment, plan.scale, rows.len(), devices.value());
        crate::say!(
            "{:16}  {:28}  {:>10}  {:>12}  {:>10}  {:11}  settings",
            "cell",
            "task model seed",
            "parameters",
            "seen",
            "memory",
            "state"
        );
        for (c, settings, status) in rows {
            let name = format!("{} {} {}", c.config.task_name, c.config.model_name, c.config.seed);
            let memory = format!(">= {:.0} MiB", memory_floor(c) as f64 / f64::from(1 << 20));
            let state = status.map_or("to run", Outcome::name);
            crate::say!(
                "{:16}  {name:28}  {:>10}  {:>12}  {memory:>10}  {state:11}  {settings}",
                c.id,
                c.parameters,
                c.seen
            );
        }
    }
    Ok(exit::DONE)
}

/// What became of a cell before; of one that is damaged, nothing: it is to be run.
fn known(run: &Path, id: &str) -> Option<Outcome> {
    CellDir::of(run, id).status().ok()?.whole().map(|status| status.outcome)
}
