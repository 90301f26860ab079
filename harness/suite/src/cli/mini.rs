//! `harness data mini`: generated datasets in the publishers' layouts.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::device::Devices;
use crate::error::{Error, Result, exit};
use crate::plan::{OpenTasks, Plan};
use data::datasets::chbmit::generate::{self as eeg, EegSpec};
use data::datasets::librispeech::generate::{self as speech, SpeechSpec};
use data::datasets::ptbxl::generate::{self as ecg, EcgSpec};
use data::datasets::wikitext::generate::{self as text, TextSpec};
use data::error::DataResult;
use grid::{Selection, nearest};

#[derive(Args)]
pub(super) struct MiniArgs {
    /// Datasets (wikitext-103, librispeech, chb-mit, ptb-xl), or grid files whose generated data are wanted; none: all four
    what: Vec<String>,
    /// Times the smallest size: text and numbers of utterances and records, and the length of EEG recordings
    #[arg(long, value_name = "TIMES", default_value_t = 1)]
    size: usize,
    /// Seed of everything drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Data directory. Datasets go to its folder mini, apart from published ones: train with --data data/mini
    #[arg(long, env = "HARNESS_DATA", default_value = "data")]
    data: PathBuf,
    /// Scale of the grid files
    #[arg(long, value_name = "NAME")]
    scale: Option<String>,
}

/// Generates one dataset in a folder: its smallest size times `size`, from a seed.
type Generate = fn(&Path, usize, u64) -> DataResult<()>;

/// Name in `datasets.lock`, folder under the data directory, generator.
const DATASETS: [(&str, &str, Generate); 4] = [
    ("wikitext-103", "wikitext-103", |root, size, seed| {
        let bytes = |n: u64| n.saturating_mul(size as u64);
        let (train_bytes, valid_bytes, test_bytes) = (bytes(300_000), bytes(20_000), bytes(40_000));
        text::generate(root, &TextSpec { train_bytes, valid_bytes, test_bytes, seed })
    }),
    ("librispeech", "LibriSpeech", |root, size, seed| {
        speech::generate(root, &SpeechSpec { utterances: 100_usize.saturating_mul(size), seed })
    }),
    ("chb-mit", "chb-mit", |root, size, seed| {
        eeg::generate(root, &EegSpec { patients: 3, recordings: 3, seconds: 60_usize.saturating_mul(size), seed })
    }),
    ("ptb-xl", "ptb-xl", |root, size, seed| {
        ecg::generate(root, &EcgSpec { records: 200_usize.saturating_mul(size), seed, with_500_hz: true })
    }),
];

/// What an argument names.
enum Wanted {
    Dataset(&'static str, Generate),
    Grid(PathBuf),
}

fn wanted(word: &str) -> Result<Wanted> {
    if let Some((_, folder, generate)) = DATASETS.iter().find(|(name, ..)| *name == word) {
        return Ok(Wanted::Dataset(folder, *generate));
    }
    let path = Path::new(word);
    if path.is_file() {
        return Ok(Wanted::Grid(path.to_owned()));
    }
    let names = DATASETS.map(|(name, ..)| name);
    let meant = nearest(word, &names).map(|name| format!("\n  next: did you mean `{name}`?")).unwrap_or_default();
    Err(Error::Usage(format!(
        "data mini: `{word}` is neither a dataset nor a file\n  expected: {}, or a grid file{meant}",
        names.join(", ")
    )))
}

pub(super) fn run(args: &MiniArgs) -> Result<u8> {
    if args.size == 0 {
        return Err(Error::Usage("--size 0: expected a number from 1 up".into()));
    }
    let all = || DATASETS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let words: Vec<String> = if args.what.is_empty() { all() } else { args.what.clone() };
    // every word is understood before anything is generated
    let all = words.iter().map(|word| wanted(word)).collect::<Result<Vec<_>>>()?;
    let mut open = OpenTasks::new();
    for wanted in all {
        match wanted {
            Wanted::Dataset(folder, generate) => {
                let root = args.data.join("mini").join(folder);
                generate(&root, args.size, args.seed)?;
                crate::say!("{}", root.display());
            }
            Wanted::Grid(grid) => {
                let selection = Selection { scale: args.scale.clone(), ..Selection::default() };
                let plan =
                    Plan::build(&grid, &selection, &args.data, &Devices::One(candle_core::Device::Cpu), &mut open)?;
                let mut roots: Vec<PathBuf> = plan.cells.iter().map(|c| c.config.task.root(&args.data)).collect();
                roots.dedup();
                for root in roots {
                    crate::say!("{}", root.display());
                }
            }
        }
    }
    Ok(exit::DONE)
}
