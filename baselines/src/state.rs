use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use learner::{Error, Result, Snapshot};

/// What a model carries from one segment to the next: named tensors, a row per stream, all zeros at the start of a
/// stream.
#[derive(Clone, Debug, Default)]
pub struct State(BTreeMap<String, Tensor>);

impl State {
    /// No tensors yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds zeros of shape `dims`, of which the first dimension counts streams.
    ///
    /// # Errors
    /// If they cannot be allocated.
    pub fn zeros(mut self, name: impl Into<String>, dims: &[usize], dtype: DType, device: &Device) -> Result<Self> {
        self.0.insert(name.into(), Tensor::zeros(dims, dtype, device)?);
        Ok(self)
    }

    /// The tensor `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.0.get(name).ok_or_else(|| Error::Config { key: "state", problem: format!("{name} does not exist") })
    }

    /// Sets the tensor `name`, detached, so that no graph outlives its segment.
    pub fn set(&mut self, name: impl Into<String>, value: &Tensor) {
        self.0.insert(name.into(), value.detach());
    }

    /// Zeroes the rows of the streams that start something new. The others keep theirs.
    ///
    /// # Errors
    /// If a tensor does not have one row per entry of `starts`.
    pub fn reset(&mut self, starts: &[bool]) -> Result<()> {
        if !starts.contains(&true) {
            return Ok(());
        }
        for t in self.0.values_mut() {
            let mut dims = t.dims().to_vec();
            if t.elem_count() == 0 {
                continue;
            }
            // a copy: the old storage may belong to a graph or a snapshot
            let fresh = t.copy()?;
            if let Some(rows) = dims.first_mut() {
                *rows = 1;
            }
            let zero = Tensor::zeros(dims, t.dtype(), t.device())?;
            for (stream, _) in starts.iter().enumerate().filter(|(_, starts)| **starts) {
                fresh.slice_set(&zero, 0, stream)?;
            }
            *t = fresh;
        }
        Ok(())
    }

    /// Bytes over all tensors.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.values().map(|t| (t.elem_count() * t.dtype().size_in_bytes()) as u64).sum()
    }

    /// Writes all tensors into a snapshot.
    pub fn save(&self, snapshot: &mut Snapshot) {
        // no copy: nothing writes into a state's storage
        snapshot.state.extend(self.0.iter().map(|(name, t)| (name.clone(), t.clone())));
    }

    /// Restores what [`State::save`] wrote.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or type.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        let mut loaded = BTreeMap::new();
        for (name, t) in &self.0 {
            let saved = snapshot.state(name)?;
            if saved.dims() != t.dims() {
                return Err(Error::shape(format!("state {name}"), t.dims(), saved.dims()));
            }
            if saved.dtype() != t.dtype() {
                return Err(Error::shape(format!("element type of state {name}"), t.dtype(), saved.dtype()));
            }
            loaded.insert(name.clone(), saved.to_device(t.device())?);
        }
        self.0 = loaded;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_zeroes_the_rows_that_start_and_no_others_nor_a_saved_copy() -> Result<()> {
        let mut state = State::new();
        state.set("a", &Tensor::new(&[[1f32, 2.], [3., 4.], [5., 6.]], &Device::Cpu)?);
        state.set("n", &Tensor::new(&[7u32, 8, 9], &Device::Cpu)?);
        let mut saved = Snapshot::default();
        state.save(&mut saved);
        state.reset(&[false, true, false])?;
        assert_eq!(state.get("a")?.to_vec2::<f32>()?, [[1., 2.], [0., 0.], [5., 6.]]);
        assert_eq!(state.get("n")?.to_vec1::<u32>()?, [7, 0, 9]);
        state.load(&saved)?;
        assert_eq!(state.get("a")?.to_vec2::<f32>()?, [[1., 2.], [3., 4.], [5., 6.]]);
        Ok(())
    }

    #[test]
    fn load_names_the_tensor_that_does_not_fit() -> Result<()> {
        let mut state = State::new().zeros("layers.0.cell", &[2, 3], DType::F32, &Device::Cpu)?;
        let mut saved = Snapshot::default();
        assert!(state.load(&saved).is_err_and(|e| e.to_string().contains("layers.0.cell")));
        saved.state.insert("layers.0.cell".into(), Tensor::zeros((3, 3), DType::F32, &Device::Cpu)?);
        assert!(state.load(&saved).is_err_and(|e| e.to_string().contains("layers.0.cell")));
        Ok(())
    }
}
