use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};

use crate::{Error, Result};

/// Everything a learner needs to continue exactly where it was.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Trainable parameters by name.
    pub weights: BTreeMap<String, Tensor>,
    /// Optimiser moments and running statistics by name.
    pub optimizer: BTreeMap<String, Tensor>,
    /// Recurrent state and eligibility traces by name.
    pub state: BTreeMap<String, Tensor>,
    /// Counters such as the number of updates.
    pub counters: BTreeMap<String, u64>,
}

/// Counters travel as a `[2]` tensor of 32-bit halves in `optimizer.safetensors`, under this prefix.
const COUNTER: &str = "counter.";

impl Snapshot {
    /// Names of the files that [`Snapshot::write`] makes.
    pub const FILES: [&str; 3] = ["weights.safetensors", "optimizer.safetensors", "state.safetensors"];

    /// The weight `name`, checked against the shape it must have.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn weight(&self, name: &str, dims: &[usize]) -> Result<&Tensor> {
        lookup(&self.weights, "weights", name, Some(dims))
    }

    /// The optimiser tensor `name`.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn moment(&self, name: &str, dims: &[usize]) -> Result<&Tensor> {
        lookup(&self.optimizer, "optimizer", name, Some(dims))
    }

    /// The state tensor `name`, of any shape.
    ///
    /// # Errors
    /// If it is missing.
    pub fn state(&self, name: &str) -> Result<&Tensor> {
        lookup(&self.state, "state", name, None)
    }

    /// The counter `name`.
    ///
    /// # Errors
    /// If it is missing.
    pub fn counter(&self, name: &str) -> Result<u64> {
        self.counters.get(name).copied().ok_or_else(|| missing("counter", name))
    }

    /// Writes three safetensors files into an existing folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let mut optimizer = self.optimizer.clone();
        for (name, value) in &self.counters {
            let halves = [(value >> 32) as u32, (value & 0xffff_ffff) as u32];
            optimizer.insert(format!("{COUNTER}{name}"), Tensor::new(&halves, &Device::Cpu)?);
        }
        for (tensors, file) in [&self.weights, &optimizer, &self.state].into_iter().zip(Self::FILES) {
            let path = dir.join(file);
            let problem = |e: &dyn std::fmt::Display| Error::Snapshot { path: path.clone(), problem: e.to_string() };
            safetensors::serialize_to_file(tensors, None, &path).map_err(|e| problem(&e))?;
            // on disk before anything vouches for it
            std::fs::File::open(&path).and_then(|f| f.sync_all()).map_err(|e| problem(&e))?;
        }
        Ok(())
    }

    /// Reads what [`Snapshot::write`] wrote, onto the CPU.
    ///
    /// # Errors
    /// If a file is missing or damaged; the message names it.
    pub fn read(dir: &Path) -> Result<Self> {
        let mut maps = Self::FILES.map(|file| {
            let path = dir.join(file);
            candle_core::safetensors::load(&path, &Device::Cpu)
                .map(|m| m.into_iter().collect::<BTreeMap<_, _>>())
                .map_err(|e| Error::Snapshot { path, problem: e.to_string() })
        });
        let mut take = |i: usize| std::mem::replace(&mut maps[i], Ok(BTreeMap::new()));
        let (weights, mut optimizer, state) = (take(0)?, take(1)?, take(2)?);
        let mut counters = BTreeMap::new();
        for name in optimizer.keys().filter_map(|k| k.strip_prefix(COUNTER)).map(str::to_owned).collect::<Vec<_>>() {
            if let Some(t) = optimizer.remove(&format!("{COUNTER}{name}")) {
                let [high, low] = t.to_vec1::<u32>()?[..] else {
                    return Err(Error::shape(format!("counter {name}"), [2], t.dims()));
                };
                counters.insert(name, u64::from(high) << 32 | u64::from(low));
            }
        }
        Ok(Self { weights, optimizer, state, counters })
    }
}

fn missing(kind: &str, name: &str) -> Error {
    Error::Snapshot { path: Path::new(kind).to_owned(), problem: format!("{name} is missing") }
}

fn lookup<'a>(map: &'a BTreeMap<String, Tensor>, kind: &str, name: &str, dims: Option<&[usize]>) -> Result<&'a Tensor> {
    let t = map.get(name).ok_or_else(|| missing(kind, name))?;
    match dims {
        Some(dims) if t.dims() != dims => Err(Error::shape(format!("{kind} {name}"), dims, t.dims())),
        _ => Ok(t),
    }
}
