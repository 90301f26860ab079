use candle_core::{DType, Device, Tensor};
use learner::{Params, Result, Snapshot, Targets};

/// Weight and number of the segments in a sum, as a checkpoint holds them.
const TALLY: &str = "accumulated";

/// Gradients of segments that wait for an update together: with their weights, so that the update is that of one batch of
/// all of them, however their supervised steps are spread.
#[derive(Default)]
pub(crate) struct Accumulator {
    /// Σ weight · gradient of the segment's mean loss, in the order of the parameters; empty before the first.
    sum: Vec<Tensor>,
    weight: f64,
    segments: usize,
}

impl Accumulator {
    /// Takes one segment's gradients. Once there are `wanted`, returns those of the mean loss over all their steps.
    pub fn take(&mut self, gradients: &[Tensor], y: &Targets, wanted: usize) -> Result<Option<Vec<Tensor>>> {
        let weight = f64::from(y.weight().sum_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()?);
        let weighted = gradients.iter().map(|g| Ok(g.affine(weight, 0.0)?)).collect::<Result<Vec<_>>>()?;
        self.sum = if self.sum.is_empty() {
            weighted
        } else {
            self.sum.iter().zip(&weighted).map(|(s, g)| Ok((s + g)?)).collect::<Result<_>>()?
        };
        self.weight += weight;
        self.segments += 1;
        if self.segments < wanted {
            return Ok(None);
        }
        let Self { sum, weight, .. } = std::mem::take(self);
        Ok(Some(sum.iter().map(|s| Ok(s.affine(1.0 / weight, 0.0)?)).collect::<Result<_>>()?))
    }

    /// Adds what waits to `snapshot`.
    pub fn save(&self, params: &Params, snapshot: &mut Snapshot) -> Result<()> {
        if self.segments == 0 {
            return Ok(());
        }
        for ((name, _), sum) in params.vars().iter().zip(&self.sum) {
            snapshot.optimizer.insert(of(name), sum.copy()?);
        }
        let tally = Tensor::new(&[self.weight, self.segments as f64], &Device::Cpu)?;
        snapshot.optimizer.insert(TALLY.into(), tally);
        Ok(())
    }

    /// Restores what [`Self::save`] wrote.
    pub fn load(&mut self, params: &Params, snapshot: &Snapshot) -> Result<()> {
        *self = Self::default();
        if !snapshot.optimizer.contains_key(TALLY) {
            return Ok(());
        }
        let tally = snapshot.moment(TALLY, &[2])?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        (self.weight, self.segments) = (tally[0], tally[1] as usize);
        for (name, var) in params.vars() {
            self.sum.push(snapshot.moment(&of(name), var.dims())?.to_device(var.device())?);
        }
        Ok(())
    }
}

fn of(parameter: &str) -> String {
    format!("{parameter}.{TALLY}")
}
