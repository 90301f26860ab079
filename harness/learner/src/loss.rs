use candle_core::{D, DType, Device, Tensor};

use crate::{Error, Result};

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
}

impl Targets {
    /// Weight of each step, `f32` `[B, K]`.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        match self {
            Self::Classes { weight, .. } | Self::Labels { weight, .. } => weight,
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
        })
    }
}

/// Weighted mean loss in nats of logits `[B, K, O]`, as a scalar on the graph; `None` if no step carries weight.
/// Labels are averaged over the `O` outputs as well.
///
/// # Errors
/// If shapes disagree.
pub fn loss(logits: &Tensor, y: &Targets) -> Result<Option<Tensor>> {
    let (b, k, o) = logits.dims3()?;
    let weight = y.weight();
    if weight.dims() != [b, k] {
        return Err(Error::shape("target weights", [b, k], weight.dims()));
    }
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
        Targets::Labels { label, .. } => {
            let label = label.to_dtype(logits.dtype())?.unsqueeze(1)?; // [B, 1, O]
            // max(z, 0) − z·y + ln(1 + e^{−|z|}): finite for any logit
            let linear = (logits.relu()? - logits.broadcast_mul(&label)?)?;
            let bce = (linear + logits.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?)?; // [B, K, O]
            (bce.sum(D::Minus1)? * weight)?.sum_all()?.affine(1.0 / o as f64, 0.0)?
        }
    };
    Ok(Some(sum.affine(1.0 / total, 0.0)?))
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
