//! `harness plan`: what would run.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;

use super::watch::spoken;
use super::{Select, tell_of_data, unwritable};
use crate::error::{Result, exit};
use crate::plan::{OpenTasks, Plan, PlannedCell, memory_floor};
use crate::predict::{Prediction, Rates};
use crate::store::{CellDir, Outcome};
use data::account::inert;

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
        let (settings, rates) = (plan.settings(), Rates::of_experiment(&select.out, &plan.experiment));
        let rows = plan
            .cells
            .iter()
            .zip(&settings)
            .filter(|(c, _)| c.selected)
            .map(|(c, settings)| (c, settings, known(&run, &c.id), rates.predict(c)))
            .collect::<Vec<_>>();
        if args.json {
            let cells: Vec<_> = rows
                .iter()
                .map(|(c, _, status, prediction)| {
                    serde_json::json!({
                        "id": c.id, "task": c.config.task_name, "model": c.config.model_name, "seed": c.config.seed,
                        "parameters": c.parameters, "seen": c.seen, "cached": status.is_some_and(Outcome::is_final),
                        "outcome": status.map(Outcome::name), "memory_bytes_at_least": memory_floor(c),
                        "predicted_seconds": prediction.seconds, "predicted_peak_bytes": prediction.peak_bytes,
                        "data_identity": c.data_identity, "config": c.config,
                    })
                })
                .collect();
            crate::say!("{}", serde_json::json!({"experiment": plan.experiment, "scale": plan.scale, "cells": cells}));
            continue;
        }
        crate::say!("{} at scale {}, {} cells on {}", plan.experiment, plan.scale, rows.len(), devices.value());
        crate::say!(
            "{:16}  {:28}  {:>10}  {:>12}  {:>10}  {:>8}  {:11}  settings",
            "cell",
            "task model seed",
            "parameters",
            "seen",
            "memory",
            "time",
            "state"
        );
        let data_of = |(c, ..): &(&PlannedCell, &String, Option<Outcome>, Prediction)| {
            let root = c.config.task.root(&select.data);
            let identity = c.data_identity.as_deref().unwrap_or("not looked at");
            // a task whose data are made as they are used has no folder
            let place = if c.config.task.has_files() {
                format!(" (in {})", inert(&root.display().to_string()))
            } else {
                String::new()
            };
            format!("data of {}: {identity}{place}", c.config.task_name)
        };
        let of_data: BTreeSet<String> = rows.iter().map(data_of).collect();
        let to_run = rows.iter().filter(|(_, _, status, _)| !status.is_some_and(Outcome::is_final));
        let (mut seconds, mut unknown) = (0.0, 0_usize);
        to_run.for_each(|(_, _, _, prediction)| match prediction.seconds {
            Some(predicted) => seconds += predicted,
            None => unknown += 1,
        });
        for (c, settings, status, Prediction { seconds, peak_bytes }) in rows {
            let name = format!("{} {} {}", c.config.task_name, c.config.model_name, c.config.seed);
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let floor = || format!(">= {:.0} MiB", mib(memory_floor(c)));
            let memory = peak_bytes.map_or_else(floor, |bytes| format!("~ {:.0} MiB", mib(bytes)));
            let time = seconds.map_or_else(|| "unknown".to_owned(), |seconds| format!("~ {}", spoken(seconds)));
            let state = status.map_or("to run", Outcome::name);
            crate::say!(
                "{:16}  {name:28}  {:>10}  {:>12}  {memory:>10}  {time:>8}  {state:11}  {settings}",
                c.id,
                c.parameters,
                c.seen
            );
        }
        for line in of_data {
            crate::say!("{line}");
        }
        let measured = if seconds > 0.0 { format!("about {} of training", spoken(seconds)) } else { String::new() };
        let unknown = if unknown > 0 {
            format!("unknown for {unknown} cells: none like them has run under {}", select.out.display())
        } else {
            String::new()
        };
        let to_run = [measured, unknown].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
        if !to_run.is_empty() {
            crate::say!("time to run: {to_run}");
        }
    }
    Ok(exit::DONE)
}

/// What became of a cell before; of one that is damaged, nothing: it is to be run.
fn known(run: &Path, id: &str) -> Option<Outcome> {
    CellDir::of(run, id).status().ok()?.whole().map(|status| status.outcome)
}
