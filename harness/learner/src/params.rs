use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Shape, Tensor, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal, Uniform};

use crate::{Error, Result, Snapshot};

/// A random generator that depends on the seed and the name alone, so that adding a parameter (or a data set) changes
/// no other draw.
#[must_use]
pub fn seeded_rng(seed: u64, name: &str) -> ChaCha8Rng {
    // FNV-1a, then used as the ChaCha stream: any 64-bit hash will do, it only has to stay the same for ever.
    let stream = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// How a parameter starts.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// Every element the same.
    Constant(f64),
    /// Independent normal draws with this standard deviation.
    Normal(f64),
    /// Uniform on `[-bound, bound]`.
    Uniform(f64),
    /// These values, row-major.
    Values(Vec<f64>),
}

impl Init {
    /// Normal with standard deviation `1 / sqrt(fan_in)`.
    #[must_use]
    pub fn fan_in(fan_in: usize) -> Self {
        Self::Normal(1.0 / (fan_in.max(1) as f64).sqrt())
    }

    fn draw(&self, count: usize, rng: &mut ChaCha8Rng) -> Result<Vec<f64>> {
        let bad = |problem: String| Error::Config { key: "init", problem };
        Ok(match self {
            Self::Constant(c) => vec![*c; count],
            Self::Normal(std) => {
                let normal = Normal::new(0.0, *std).map_err(|e| bad(e.to_string()))?;
                (0..count).map(|_| normal.sample(rng)).collect()
            }
            Self::Uniform(bound) => {
                let uniform = Uniform::new_inclusive(-bound, *bound).map_err(|e| bad(e.to_string()))?;
                (0..count).map(|_| uniform.sample(rng)).collect()
            }
            Self::Values(v) if v.len() == count => v.clone(),
            Self::Values(v) => return Err(bad(format!("expected {count} values, got {}", v.len()))),
        })
    }
}

/// Where a model gets its parameters from: new ones for training ([`Params`]), or the same ones without gradient
/// tracking for evaluation ([`Bound`]). A model that is built from a `ParamSource` therefore exists in both forms.
pub trait ParamSource {
    /// The parameter `name` of this shape.
    ///
    /// # Errors
    /// If a bound parameter is missing or has another shape.
    fn get(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor>;
    /// Device of the parameters.
    fn device(&self) -> &Device;
    /// Element type of the parameters.
    fn dtype(&self) -> DType;
}

/// The trainable parameters of a learner, in order of creation.
#[derive(Debug)]
pub struct Params {
    seed: u64,
    device: Device,
    dtype: DType,
    vars: Vec<(String, Var)>,
}

impl Params {
    /// No parameters yet.
    #[must_use]
    pub fn new(seed: u64, dtype: DType, device: &Device) -> Self {
        Self { seed, device: device.clone(), dtype, vars: Vec::new() }
    }

    /// Names and variables in order of creation.
    #[must_use]
    pub fn vars(&self) -> &[(String, Var)] {
        &self.vars
    }

    /// Number of elements over all parameters.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.vars.iter().map(|(_, v)| v.elem_count() as u64).sum()
    }

    /// The same storage without gradient tracking: sees every later update.
    #[must_use]
    pub fn bound(&self) -> Bound {
        Bound {
            device: self.device.clone(),
            dtype: self.dtype,
            tensors: self.vars.iter().map(|(n, v)| (n.clone(), v.as_detached_tensor())).collect(),
        }
    }

    /// Writes all parameters into a snapshot.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn save(&self, snapshot: &mut Snapshot) -> Result<()> {
        for (name, var) in &self.vars {
            snapshot.weights.insert(name.clone(), var.as_detached_tensor().copy()?);
        }
        Ok(())
    }

    /// Overwrites all parameters from a snapshot.
    ///
    /// # Errors
    /// If one is missing or has another shape.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        for (name, var) in &self.vars {
            var.set(&snapshot.weight(name, var.dims())?.to_device(&self.device)?)?;
        }
        Ok(())
    }
}

impl ParamSource for Params {
    fn get(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        if self.vars.iter().any(|(n, _)| n == name) {
            return Err(Error::Config { key: "parameter", problem: format!("{name} is defined twice") });
        }
        let shape = Shape::from(shape);
        let values = init.draw(shape.elem_count(), &mut seeded_rng(self.seed, name))?;
        let var = Var::from_tensor(
            &Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.dtype)?.to_device(&self.device)?,
        )?;
        let tensor = var.as_tensor().clone();
        self.vars.push((name.to_owned(), var));
        Ok(tensor)
    }
    fn device(&self) -> &Device {
        &self.device
    }
    fn dtype(&self) -> DType {
        self.dtype
    }
}

/// Parameters that share their storage with a [`Params`] and are not tracked.
#[derive(Clone, Debug)]
pub struct Bound {
    device: Device,
    dtype: DType,
    tensors: BTreeMap<String, Tensor>,
}

/// Counts the parameters that a model would have, and makes none: what it gives has a shape and takes no memory, so a model
/// that is built from it can be asked for its sizes and run by nobody.
#[derive(Debug)]
pub struct Shapes {
    device: Device,
    dtype: DType,
    names: BTreeSet<String>,
    count: u64,
}

impl Shapes {
    /// No parameters yet.
    #[must_use]
    pub fn new(dtype: DType) -> Self {
        Self { device: Device::Cpu, dtype, names: BTreeSet::new(), count: 0 }
    }

    /// Number of elements over all parameters.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

impl ParamSource for Shapes {
    fn get(&mut self, name: &str, shape: &[usize], _: Init) -> Result<Tensor> {
        if !self.names.insert(name.to_owned()) {
            return Err(Error::Config { key: "parameter", problem: format!("{name} is defined twice") });
        }
        self.count += shape.iter().map(|&n| n as u64).product::<u64>();
        Ok(Tensor::zeros((), self.dtype, &self.device)?.broadcast_as(shape)?)
    }
    fn device(&self) -> &Device {
        &self.device
    }
    fn dtype(&self) -> DType {
        self.dtype
    }
}

impl ParamSource for Bound {
    fn get(&mut self, name: &str, shape: &[usize], _: Init) -> Result<Tensor> {
        let t = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::Config { key: "parameter", problem: format!("{name} does not exist") })?;
        if t.dims() != shape {
            return Err(Error::shape(name, shape, t.dims()));
        }
        Ok(t.clone())
    }
    fn device(&self) -> &Device {
        &self.device
    }
    fn dtype(&self) -> DType {
        self.dtype
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_seed_and_name_alone() -> Result<()> {
        let draw = |seed, names: &[&str]| -> Result<Vec<f32>> {
            let mut p = Params::new(seed, DType::F32, &Device::Cpu);
            let tensors: Vec<_> = names.iter().map(|n| p.get(n, &[3, 4], Init::Normal(1.0))).collect::<Result<_>>()?;
            crate::read_f32(&tensors[tensors.len() - 1])
        };
        assert_eq!(draw(1, &["a", "b"])?, draw(1, &["b"])?);
        assert_ne!(draw(1, &["a"])?, draw(1, &["b"])?);
        assert_ne!(draw(1, &["a"])?, draw(2, &["a"])?);
        Ok(())
    }

    #[test]
    fn bound_parameters_follow_updates() -> Result<()> {
        let mut p = Params::new(0, DType::F32, &Device::Cpu);
        p.get("w", &[2], Init::Constant(1.0))?;
        let w = p.bound().get("w", &[2], Init::Constant(0.0))?;
        crate::with_f32_mut(p.vars()[0].1.as_tensor(), |v| v[1] = 5.0)?;
        assert_eq!(w.to_vec1::<f32>()?, [1.0, 5.0]);
        Ok(())
    }
}
