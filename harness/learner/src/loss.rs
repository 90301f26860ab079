use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::ctc::Transcripts;
use crate::operations::Work;
use crate::{Error, Result, exp_fast};

/// What a segment should have been mapped to.
#[derive(Clone, Debug)]
pub enum Targets {
    /// One class per step (the next token): softmax cross-entropy.
    Classes {
        /// Class ids, `u32` `[B, K]`.
        class: Tensor,
        /// Weight of each step, `f32` `[B, K]`; zero for padding.
        weight: Tensor,
    },
    /// Independent yes/no labels of the recording that each stream is in: binary cross-entropy at every weighted step.
    Labels {
        /// 0 or 1, `f32` `[B, O]`.
        label: Tensor,
        /// Weight of each step, `f32` `[B, K]`; zero for padding and where the label is not supervised.
        weight: Tensor,
    },
    /// A distribution over classes per step: softmax cross-entropy, whose gradient is `softmax − γ`. With the posteriors `γ`
    /// of connectionist temporal classification ([`crate::ctc`]) that is CTC's gradient, step by step.
    Posteriors {
        /// Probabilities, `f32` `[B, K, O]`.
        probability: Tensor,
        /// Weight of each step, `f32` `[B, K]`; zero for padding.
        weight: Tensor,
    },
    /// Transcripts of whole utterances without their times: connectionist temporal classification. The loss is that of the
    /// transcripts, divided by the steps.
    Transcripts {
        /// Labels and lengths.
        transcripts: Transcripts,
        /// One for each step of an utterance, zero for padding, `f32` `[B, K]`: what the lengths say.
        weight: Tensor,
    },
}

impl Targets {
    /// Weight of each step, `f32` `[B, K]`.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        match self {
            Self::Classes { weight, .. }
            | Self::Labels { weight, .. }
            | Self::Posteriors { weight, .. }
            | Self::Transcripts { weight, .. } => weight,
        }
    }

    /// Whether they fit logits of this shape, `[B, K, O]`.
    ///
    /// # Errors
    /// If shapes disagree, or a transcript cannot be.
    pub(crate) fn check(&self, [b, k, o]: [usize; 3]) -> Result<()> {
        let want = |what: &str, t: &Tensor, dims: &[usize]| -> Result<()> {
            if t.dims() == dims { Ok(()) } else { Err(Error::shape(what, dims, t.dims())) }
        };
        want("target weights", self.weight(), &[b, k])?;
        match self {
            Self::Classes { class, .. } => want("classes", class, &[b, k]),
            Self::Labels { label, .. } => want("labels", label, &[b, o]),
            Self::Posteriors { probability, .. } => want("posteriors", probability, &[b, k, o]),
            Self::Transcripts { transcripts, .. } => transcripts.check([b, k, o]),
        }
    }

    /// What aligning them to outputs takes, `outputs` per step, beside the loss of every step: nothing but for transcripts.
    #[must_use]
    pub fn alignment(&self, outputs: usize) -> Work {
        match self {
            Self::Transcripts { transcripts, .. } => transcripts.work(outputs),
            Self::Classes { .. } | Self::Labels { .. } | Self::Posteriors { .. } => Work::default(),
        }
    }

    /// The same targets on another device.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(match self {
            Self::Classes { class, weight } => {
                Self::Classes { class: class.to_device(device)?, weight: weight.to_device(device)? }
            }
            Self::Labels { label, weight } => {
                Self::Labels { label: label.to_device(device)?, weight: weight.to_device(device)? }
            }
            Self::Posteriors { probability, weight } => {
                Self::Posteriors { probability: probability.to_device(device)?, weight: weight.to_device(device)? }
            }
            Self::Transcripts { transcripts, weight } => {
                Self::Transcripts { transcripts: transcripts.clone(), weight: weight.to_device(device)? }
            }
        })
    }
}

/// Weighted mean loss in nats of logits `[B, K, O]`, as a scalar on the graph; `None` if no step carries weight.
/// Labels are averaged over the `O` outputs as well. In host memory the gradient is computed with the loss
/// ([`loss_and_gradient`]), and so it is by kernels on a GPU; elsewhere see [`loss_slow`].
///
/// # Errors
/// If shapes disagree.
pub fn loss(logits: &Tensor, y: &Targets) -> Result<Option<Tensor>> {
    #[cfg(feature = "cuda")]
    if crate::device::takes(logits) {
        return crate::device::loss(logits, y);
    }
    if matches!(y, Targets::Transcripts { .. }) || !logits.device().is_cpu() || logits.dtype() != DType::F32 {
        return loss_slow(logits, y);
    }
    let logits = logits.contiguous()?;
    let mut gradient = vec![0.0; logits.elem_count()];
    let Some(value) = loss_and_gradient(&logits, y, &mut gradient)? else { return Ok(None) };
    Ok(Some(logits.apply_op1(KnownGradient { value: value as f32, gradient: Mutex::new(gradient) })?))
}

/// A loss whose gradient is known already; it is handed over once.
struct KnownGradient {
    value: f32,
    gradient: Mutex<Vec<f32>>,
}

impl CustomOp1 for KnownGradient {
    fn name(&self) -> &'static str {
        "loss"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![self.value]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, upstream: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let mut gradient = std::mem::take(&mut *self.gradient.lock().unwrap_or_else(PoisonError::into_inner));
        if gradient.len() != logits.elem_count() {
            candle_core::bail!("the loss goes backward once")
        }
        let upstream = upstream.to_scalar::<f32>()?;
        if upstream.to_bits() != 1f32.to_bits() {
            gradient.par_iter_mut().for_each(|g| *g *= upstream);
        }
        Ok(Some(Tensor::from_vec(gradient, logits.dims(), logits.device())?))
    }
}

/// [`loss`] in tensor operations, for any device and element type.
///
/// # Errors
/// If shapes disagree.
pub fn loss_slow(logits: &Tensor, y: &Targets) -> Result<Option<Tensor>> {
    let (b, k, o) = logits.dims3()?;
    y.check([b, k, o])?;
    let weight = y.weight();
    let total = f64::from(weight.sum_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()?);
    if total == 0.0 {
        return Ok(None);
    }
    let weight = weight.to_dtype(logits.dtype())?;
    let sum = match y {
        Targets::Classes { class, .. } => {
            let log_p = log_softmax(logits)?; // [B, K, O]
            let nll = log_p.gather(&class.unsqueeze(2)?, 2)?.squeeze(2)?.neg()?; // [B, K]
            (nll * weight)?.sum_all()?
        }
        Targets::Posteriors { probability, .. } => {
            let nll = (log_softmax(logits)? * probability.to_dtype(logits.dtype())?)?.sum(D::Minus1)?.neg()?;
            (nll * weight)?.sum_all()?
        }
        Targets::Labels { label, .. } => {
            let label = label.to_dtype(logits.dtype())?.unsqueeze(1)?; // [B, 1, O]
            // max(z, 0) − z·y + ln(1 + e^{−|z|}): finite for any logit
            let linear = (logits.relu()? - logits.broadcast_mul(&label)?)?;
            let bce = (linear + logits.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?)?; // [B, K, O]
            (bce.sum(D::Minus1)? * weight)?.sum_all()?.affine(1.0 / o as f64, 0.0)?
        }
        Targets::Transcripts { transcripts, .. } => return transcripts.loss(logits),
    };
    Ok(Some(sum.affine(1.0 / total, 0.0)?))
}

/// Rows of a parallel block.
const ROWS: usize = 32;

/// The same loss and its gradient with respect to the logits, for `f32` in host memory and without a graph: `gradient`
/// `[B, K, O]` is overwritten.
///
/// # Errors
/// If shapes disagree or a class is outside the outputs.
pub fn loss_and_gradient(logits: &Tensor, y: &Targets, gradient: &mut [f32]) -> Result<Option<f64>> {
    let (b, k, o) = logits.dims3()?;
    y.check([b, k, o])?;
    if gradient.len() != b * k * o {
        return Err(Error::shape("the loss's gradient", b * k * o, gradient.len()));
    }
    let weight = crate::read_f32(y.weight())?;
    let total: f64 = weight.iter().map(|&w| f64::from(w)).sum();
    gradient.fill(0.0);
    if total == 0.0 {
        return Ok(None);
    }
    let (classes, values) = match y {
        Targets::Classes { class, .. } => (class.flatten_all()?.to_vec1::<u32>()?, Vec::new()),
        Targets::Labels { label, .. } => (Vec::new(), crate::read_f32(label)?),
        Targets::Posteriors { probability, .. } => (Vec::new(), crate::read_f32(probability)?),
        Targets::Transcripts { transcripts, .. } => {
            let logits = logits.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
            let (losses, wide) = transcripts.losses_and_gradient(&logits, [b, k, o])?;
            gradient.iter_mut().zip(wide).for_each(|(to, from)| *to = from as f32);
            return Ok(Some(losses.iter().sum::<f64>() / total));
        }
    };
    if let Some(bad) = classes.iter().find(|c| **c as usize >= o) {
        return Err(Error::shape("class", format!("below {o}"), bad));
    }
    let row = |i: usize, z: &[f32], g: &mut [f32]| -> f64 {
        if weight[i] == 0.0 {
            return 0.0;
        }
        let scale = (f64::from(weight[i]) / total) as f32;
        match y {
            Targets::Classes { .. } => {
                let log_sum = softmax(z, g);
                let class = classes[i] as usize;
                g[class] -= 1.0;
                for g in g.iter_mut() {
                    *g *= scale;
                }
                f64::from(weight[i]) * (log_sum - f64::from(z[class]))
            }
            Targets::Posteriors { .. } => {
                let log_sum = softmax(z, g);
                let target = &values[i * o..][..o];
                let mut nll = 0.0;
                for ((g, &z), &p) in g.iter_mut().zip(z).zip(target) {
                    nll += f64::from(p) * (log_sum - f64::from(z));
                    *g = (*g - p) * scale;
                }
                f64::from(weight[i]) * nll
            }
            Targets::Labels { .. } => {
                let label = &values[i / k * o..][..o];
                let mut bce = 0.0;
                for ((g, &z), &y) in g.iter_mut().zip(z).zip(label) {
                    bce += f64::from(z.max(0.0) - z * y) + f64::from((-z.abs()).exp()).ln_1p();
                    *g = (1.0 / (1.0 + (-z).exp()) - y) * scale / o as f32;
                }
                f64::from(weight[i]) * bce / o as f64
            }
            Targets::Transcripts { .. } => 0.0, // has returned above: its rows are not independent
        }
    };
    let losses: Vec<f64> = crate::with_f32(&logits.contiguous()?, |z| {
        let blocks = (z.par_chunks(ROWS * o), gradient.par_chunks_mut(ROWS * o)).into_par_iter().enumerate();
        let sum = |(block, (z, g)): (usize, (&[f32], &mut [f32]))| -> f64 {
            let rows = z.chunks_exact(o).zip(g.chunks_exact_mut(o)).enumerate();
            rows.map(|(r, (z, g))| row(block * ROWS + r, z, g)).sum()
        };
        blocks.map(sum).collect()
    })?;
    Ok(Some(losses.iter().sum::<f64>() / total))
}

/// Writes `softmax(z)` and returns `ln Σ e^z`.
fn softmax(z: &[f32], out: &mut [f32]) -> f64 {
    let max = z.iter().fold(f32::NEG_INFINITY, |m, &z| if z > m { z } else { m });
    for (o, &z) in out.iter_mut().zip(z) {
        *o = exp_fast(z - max);
    }
    let sum: f64 = out.chunks(64).map(|c| f64::from(c.iter().sum::<f32>())).sum();
    let inverse = (1.0 / sum) as f32;
    for o in out.iter_mut() {
        *o *= inverse;
    }
    f64::from(max) + sum.ln()
}

/// `log softmax` over the last dimension, differentiable.
fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let max = x.max_keepdim(D::Minus1)?.detach();
    let shifted = x.broadcast_sub(&max)?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    Ok(shifted.broadcast_sub(&log_sum)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_ignores_padding_and_matches_the_definition() -> Result<()> {
        let dev = Device::Cpu;
        let logits = Tensor::new(&[[[1f32, 2., 3.], [0., 0., 0.]], [[5., 1., 1.], [9., 9., 9.]]], &dev)?;
        let y = Targets::Classes {
            class: Tensor::new(&[[2u32, 1], [0, 0]], &dev)?,
            weight: Tensor::new(&[[1f32, 1.], [1., 0.]], &dev)?,
        };
        let p = |z: &[f64], i: usize| -> f64 { -(z[i].exp() / z.iter().map(|v| v.exp()).sum::<f64>()).ln() };
        let expected = (p(&[1., 2., 3.], 2) + 3f64.ln() + p(&[5., 1., 1.], 0)) / 3.0;
        let got = f64::from(loss(&logits, &y)?.expect("weighted").to_scalar::<f32>()?);
        assert!((got - expected).abs() < 1e-6, "{got} {expected}"); // f32 rounding of a few exps
        Ok(())
    }

    /// The gradient that came with the loss is the one of the tensor operations, whatever stands above the loss.
    #[test]
    fn the_fused_loss_and_its_gradient_are_those_of_the_tensor_operations() -> Result<()> {
        let dev = Device::Cpu;
        let (b, k, o) = (2, 3, 5);
        let value = |i: usize| ((i * 7919 % 23) as f32 - 11.0) / 4.0;
        let z = Tensor::from_vec((0..b * k * o).map(value).collect(), (b, k, o), &dev)?;
        let weight = Tensor::new(&[[1f32, 0.5, 0.], [2., 0., 1.]], &dev)?;
        let probability = Tensor::from_vec((0..b * k * o).map(|i| value(i + 3)).collect(), (b, k, o), &dev)?;
        let all = [
            Targets::Classes { class: Tensor::new(&[[1u32, 4, 0], [0, 2, 3]], &dev)?, weight: weight.clone() },
            Targets::Labels {
                label: Tensor::new(&[[1f32, 0., 1., 1., 0.], [0., 0., 0., 1., 1.]], &dev)?,
                weight: weight.clone(),
            },
            Targets::Posteriors { probability: log_softmax(&probability)?.exp()?, weight },
        ];
        for y in all {
            let run = |f: fn(&Tensor, &Targets) -> Result<Option<Tensor>>| -> Result<(f32, Vec<f32>)> {
                let z = candle_core::Var::from_tensor(&z)?;
                let loss = (f(&z, &y)?.expect("weighted") * 3.0)?;
                let gradient = loss.backward()?.remove(&z).expect("a gradient");
                Ok((loss.to_scalar::<f32>()?, crate::read_f32(&gradient)?))
            };
            let ((fast, fast_gradient), (slow, slow_gradient)) = (run(loss)?, run(loss_slow)?);
            assert!((fast - slow).abs() < 1e-5 * slow.abs(), "{fast} {slow}"); // f32 sums in another order
            let error = fast_gradient.iter().zip(&slow_gradient).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < 1e-6, "{error} of gradients up to 0.5"); // `exp_fast` is good to 2 units in the last place
        }
        Ok(())
    }

    /// Each form of the loss refuses targets of another shape than the logits', and says which.
    #[test]
    fn targets_of_another_shape_are_errors() -> Result<()> {
        let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu);
        let logits = zeros(&[2, 3, 5])?;
        let class = |dims: &[usize]| Tensor::zeros(dims, DType::U32, &Device::Cpu);
        let transcripts = Transcripts { labels: vec![vec![1]; 3], steps: vec![3; 3], blank: 0 };
        let wrong = [
            ("target weights", Targets::Classes { class: class(&[2, 3])?, weight: zeros(&[3, 2])? }),
            ("classes", Targets::Classes { class: class(&[2, 4])?, weight: zeros(&[2, 3])? }),
            ("labels", Targets::Labels { label: zeros(&[1, 5])?, weight: zeros(&[2, 3])? }),
            ("posteriors", Targets::Posteriors { probability: zeros(&[2, 3, 4])?, weight: zeros(&[2, 3])? }),
            ("transcripts", Targets::Transcripts { transcripts, weight: zeros(&[2, 3])? }),
        ];
        for (what, y) in wrong {
            let mut gradient = vec![0.0; 30];
            let found = [
                loss(&logits, &y).err(),
                loss_slow(&logits, &y).err(),
                loss_and_gradient(&logits, &y, &mut gradient).err(),
            ];
            for error in found {
                let said = error.map(|e| e.to_string()).unwrap_or_default();
                assert!(said.contains(what), "{what}: {said}");
            }
        }
        Ok(())
    }

    #[test]
    fn labels_match_the_definition_and_no_weight_means_no_loss() -> Result<()> {
        let dev = Device::Cpu;
        let logits = Tensor::new(&[[[2f32, -3.], [-400., 400.]]], &dev)?;
        let label = Tensor::new(&[[1f32, 0.]], &dev)?;
        let y = |w: [f32; 2]| -> Result<Targets> {
            Ok(Targets::Labels { label: label.clone(), weight: Tensor::new(&[w], &dev)? })
        };
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        let expected = (-sigmoid(2.0).ln() - (1.0 - sigmoid(-3.0)).ln()) / 2.0;
        let got = f64::from(loss(&logits, &y([1.0, 0.0])?)?.expect("weighted").to_scalar::<f32>()?);
        assert!((got - expected).abs() < 1e-6, "{got} {expected}");
        let extreme = f64::from(loss(&logits, &y([0.0, 1.0])?)?.expect("weighted").to_scalar::<f32>()?);
        assert!((extreme - 400.0).abs() < 1e-3, "{extreme}");
        assert!(loss(&logits, &y([0.0, 0.0])?)?.is_none());
        Ok(())
    }
}
