//! A GPU as a [`Machine`]: candle's memory, the project's kernels, cuBLAS.

use candle_core::{DType, Device, Tensor};
use learner::device::{Arg as Value, Kernel, Operand, launch_in_space, loss_and_gradient, product};
use learner::{Error, Result, Targets};

use super::machine::{Arg, At, Grid, Machine, Matrix, Source, fits};

/// A GPU.
#[derive(Clone, Debug)]
pub(crate) struct Gpu {
    device: Device,
}

impl Gpu {
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone() }
    }
}

/// A product's operand in a tensor.
fn operand<'a>(m: &Matrix<'a, Gpu>) -> Operand<'a> {
    let At(tensor, at) = m.at;
    Operand { tensor, at, view: m.view, stride: m.stride }
}

/// The elements from `at` on.
fn rest(t: &Tensor, at: usize) -> Result<Tensor> {
    Ok(t.flatten_all()?.narrow(0, at, t.elem_count() - at)?)
}

impl Machine for Gpu {
    type Buffer = Tensor;

    fn zeros(&self, len: usize) -> Result<Tensor> {
        Ok(Tensor::zeros(len.max(1), DType::F32, &self.device)?)
    }

    fn upload(&self, values: &[f32], At(to, at): At<'_, Self>) -> Result<()> {
        if at + values.len() > to.elem_count() {
            return Err(Error::shape("copy to the device", to.elem_count(), at + values.len()));
        }
        if values.is_empty() {
            return Ok(());
        }
        fits("copy to a device", values.len())?;
        let from = Tensor::from_slice(values, values.len(), &self.device)?;
        let args = [Arg::Size(values.len()), Arg::all(&from), Arg::from(to, at)];
        self.launch(Source::Network, "copy", Grid::over(values.len()), &args)
    }

    fn download(&self, At(from, at): At<'_, Self>, into: &mut [f32]) -> Result<()> {
        if !into.is_empty() {
            into.copy_from_slice(&from.narrow(0, at, into.len())?.to_vec1::<f32>()?);
        }
        Ok(())
    }

    fn start(&self, source: Source, name: &'static str, grid: Grid, args: &[Arg<'_, Self>]) -> Result<()> {
        let views: Vec<Option<Tensor>> = args
            .iter()
            .map(|arg| match arg {
                Arg::At(At(t, at)) => rest(t, *at).map(Some),
                Arg::Null | Arg::Size(_) | Arg::F32(_) => Ok(None),
            })
            .collect::<Result<_>>()?;
        let values: Vec<Value<'_>> = args
            .iter()
            .zip(&views)
            .map(|(arg, view)| match arg {
                Arg::At(_) => view.as_ref().map_or(Value::Null, Value::Tensor),
                Arg::Null => Value::Null,
                Arg::Size(n) => Value::Size(*n),
                Arg::F32(x) => Value::F32(*x),
            })
            .collect();
        let (module, ptx) = source.module();
        Ok(launch_in_space(&self.device, Kernel { module, ptx, name }, (grid.blocks, [grid.threads, 1, 1]), &values)?)
    }

    fn product(
        &self,
        batch: usize,
        to: Matrix<'_, Self>,
        a: Matrix<'_, Self>,
        b: Matrix<'_, Self>,
        keep: f32,
    ) -> Result<()> {
        Ok(product(&self.device, batch, operand(&to), operand(&a), operand(&b), keep)?)
    }

    fn input(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.contiguous()?.flatten_all()?)
    }

    fn place(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.to_device(&self.device)?)
    }

    fn output(&self, from: &Tensor, dims: [usize; 3]) -> Result<Tensor> {
        let [a, b, c] = dims;
        Ok(from.narrow(0, 0, a * b * c)?.reshape((a, b, c))?)
    }

    fn loss(&self, logits: &Tensor, y: &Targets) -> Result<Option<(f64, Tensor)>> {
        let Some((value, gradient)) = loss_and_gradient(logits, y)? else { return Ok(None) };
        Ok(Some((value, gradient.flatten_all()?)))
    }
}
