//! `harness list`: the kinds that a grid file may name, and what results are made of.

use clap::{Args, ValueEnum};
use metrics::catalogue::METRICS;
use statistics::Better;

use crate::error::exit;
use crate::measure::energy::CostModel;
use crate::models::ModelConfig;
use crate::tasks::TaskConfig;

#[derive(Args)]
pub(super) struct ListArgs {
    /// What to list
    what: What,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Kinds of models
    Models,
    /// Kinds of tasks
    Tasks,
    /// Metrics that have a name of their own
    Metrics,
    /// Lists of prices of operations
    CostModels,
}

pub(super) fn run(args: &ListArgs) -> u8 {
    match args.what {
        What::Models => {
            for info in ModelConfig::ALL {
                crate::say!("{:<12} code version {}", info.kind, info.code_version);
            }
        }
        What::Tasks => {
            for info in TaskConfig::ALL {
                crate::say!("{:<10} {:<40} {}", info.kind, info.heading(), info.metrics.join(", "));
            }
        }
        What::Metrics => {
            for info in METRICS {
                let better = match info.better {
                    Some(Better::Lower) => "lower is better",
                    Some(Better::Higher) => "higher is better",
                    None => "",
                };
                crate::say!("{:<30} {:<24} {better}", info.name, info.label);
            }
        }
        What::CostModels => CostModel::names().iter().for_each(|name| crate::say!("{name}")),
    }
    exit::DONE
}
