//! The loss of a batch of transcripts, as an operation of the graph.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::{alignment_work, forward_backward, log_sum_exp};
use crate::operations::Work;
use crate::{Error, Result};

/// What the utterances of a batch should be recognised as.
#[derive(Clone, Debug, PartialEq)]
pub struct Transcripts {
    /// Labels of each utterance, none of them the blank.
    pub labels: Vec<Vec<u32>>,
    /// Steps of each utterance; those behind are padding.
    pub steps: Vec<usize>,
    /// The output that emits nothing.
    pub blank: u32,
}

impl Transcripts {
    /// Steps of all utterances together: what the loss is a mean over.
    #[must_use]
    pub fn total_steps(&self) -> usize {
        self.steps.iter().sum()
    }

    /// What aligning all utterances to `outputs` outputs per step takes.
    #[must_use]
    pub fn work(&self, outputs: usize) -> Work {
        let mut sum = Work::default();
        for (labels, &steps) in self.labels.iter().zip(&self.steps) {
            sum += alignment_work(steps, outputs, labels);
        }
        sum
    }

    /// Losses of the utterances in nats, and the gradient of their sum divided by [`Self::total_steps`] with respect to
    /// `logits` `[B, K, O]`, given flat. Padding has no gradient, nor has an utterance whose labels do not fit: its loss
    /// is infinite.
    ///
    /// # Errors
    /// If there are not as many utterances as streams, one is longer than `K`, or a label cannot be.
    pub fn losses_and_gradient(&self, logits: &[f64], [b, k, o]: [usize; 3]) -> Result<(Vec<f64>, Vec<f64>)> {
        self.check([b, k, o])?;
        if logits.len() != b * k * o {
            return Err(Error::shape("CTC logits", b * k * o, logits.len()));
        }
        let total = self.total_steps() as f64;
        let mut gradient = vec![0.0; b * k * o];
        let losses: Result<Vec<f64>> = (logits.par_chunks(k * o), gradient.par_chunks_mut(k * o))
            .into_par_iter()
            .zip(self.labels.par_iter().zip(&self.steps))
            .map(|((z, g), (labels, &steps))| {
                if steps == 0 {
                    return Ok(if labels.is_empty() { 0.0 } else { f64::INFINITY });
                }
                let z = &z[..steps * o];
                let (loss, posterior) = forward_backward(z, o, labels, self.blank)?;
                if loss.is_finite() {
                    for ((g, z), gamma) in g.chunks_mut(o).zip(z.chunks(o)).zip(posterior.chunks(o)) {
                        let log_sum = log_sum_exp(z);
                        for ((g, &z), &gamma) in g.iter_mut().zip(z).zip(gamma) {
                            *g = ((z - log_sum).exp() - gamma) / total;
                        }
                    }
                }
                Ok(loss)
            })
            .collect();
        Ok((losses?, gradient))
    }

    /// Whether they fit logits `[B, K, O]`.
    pub(crate) fn check(&self, [b, k, o]: [usize; 3]) -> Result<()> {
        if (self.labels.len(), self.steps.len()) != (b, b) {
            let got = (self.labels.len(), self.steps.len());
            return Err(Error::shape("CTC transcripts and lengths", (b, b), got));
        }
        if let Some(long) = self.steps.iter().find(|steps| **steps > k) {
            return Err(Error::shape("CTC utterance", format!("at most {k} steps"), long));
        }
        let labels = || self.labels.iter().flatten();
        match labels().chain([&self.blank]).find(|l| **l as usize >= o) {
            Some(bad) => Err(Error::shape("CTC label", format!("below {o}"), bad)),
            None if labels().any(|l| *l == self.blank) => {
                Err(Error::shape("CTC label", format!("other than the blank {}", self.blank), self.blank))
            }
            None => Ok(()),
        }
    }

    /// Sum of the utterances' losses divided by [`Self::total_steps`], as a scalar on the graph of `logits` `[B, K, O]`
    /// (`f32` or `f64`); `None` if all is padding. One operation forward and backward: a kernel for `f32` on a GPU, otherwise on
    /// the CPU wherever the logits are.
    ///
    /// # Errors
    /// As [`Self::losses_and_gradient`].
    pub fn loss(&self, logits: &Tensor) -> Result<Option<Tensor>> {
        if self.total_steps() == 0 {
            return Ok(None);
        }
        #[cfg(feature = "cuda")]
        if crate::device::takes(logits) {
            return crate::device::ctc(self, logits);
        }
        let dims: [usize; 3] = logits.dims3()?.into();
        let op = CtcOp { transcripts: self.clone(), dims, gradient: OnceLock::new() };
        Ok(Some(logits.to_device(&Device::Cpu)?.contiguous()?.apply_op1(op)?))
    }
}

/// [`Transcripts::loss`] as an operation of the graph. The gradient comes with the loss and is kept until it is asked for.
struct CtcOp {
    transcripts: Transcripts,
    dims: [usize; 3],
    gradient: OnceLock<Vec<f64>>,
}

impl CtcOp {
    fn run(&self, logits: &[f64]) -> candle_core::Result<f64> {
        let (losses, gradient) =
            self.transcripts.losses_and_gradient(logits, self.dims).map_err(candle_core::Error::wrap)?;
        let _ = self.gradient.set(gradient); // a second forward pass of the same operation gives the same
        Ok(losses.iter().sum::<f64>() / self.transcripts.total_steps() as f64)
    }
}

impl CustomOp1 for CtcOp {
    fn name(&self) -> &'static str {
        "ctc"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else { candle_core::bail!("ctc needs contiguous logits") };
        let storage = match storage {
            CpuStorage::F32(z) => {
                let wide: Vec<f64> = z[start..end].iter().map(|&z| f64::from(z)).collect();
                CpuStorage::F32(vec![self.run(&wide)? as f32])
            }
            CpuStorage::F64(z) => CpuStorage::F64(vec![self.run(&z[start..end])?]),
            _ => candle_core::bail!("ctc needs logits of f32 or f64"),
        };
        Ok((storage, Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, upstream: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let Some(gradient) = self.gradient.get() else { candle_core::bail!("ctc went backward before forward") };
        let gradient = Tensor::from_slice(gradient, &self.dims, &Device::Cpu)?.to_dtype(logits.dtype())?;
        Ok(Some(gradient.broadcast_mul(upstream)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shape, logits, transcripts, losses and gradient that `PyTorch` gave (`tests/golden/ctc.py`).
    struct Golden {
        dims: [usize; 3],
        logits: Vec<f64>,
        transcripts: Transcripts,
        losses: Vec<Option<f64>>,
        gradient: Vec<f64>,
    }

    fn golden() -> Golden {
        let json: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/ctc.json")).expect("JSON");
        let numbers = |v: &serde_json::Value| -> Vec<f64> {
            v.as_array().expect("array").iter().map(|x| x.as_f64().expect("number")).collect()
        };
        let cases = json["cases"].as_array().expect("cases");
        let size = |v: &serde_json::Value| v.as_u64().expect("size") as usize;
        let transcripts = Transcripts {
            labels: cases.iter().map(|c| numbers(&c["labels"]).into_iter().map(|l| l as u32).collect()).collect(),
            steps: cases.iter().map(|c| size(&c["steps"])).collect(),
            blank: 0,
        };
        Golden {
            dims: [cases.len(), size(&json["steps"]), size(&json["outputs"])],
            logits: numbers(&json["logits"]),
            transcripts,
            losses: json["losses"].as_array().expect("losses").iter().map(serde_json::Value::as_f64).collect(),
            gradient: numbers(&json["gradient"]),
        }
    }

    #[test]
    fn batches_equal_pytorch() -> Result<()> {
        let g = golden();
        let (losses, gradient) = g.transcripts.losses_and_gradient(&g.logits, g.dims)?;
        for (i, (ours, theirs)) in losses.iter().zip(&g.losses).enumerate() {
            match theirs {
                Some(theirs) => assert!((ours - theirs).abs() < 1e-12 * theirs, "utterance {i}: {ours} {theirs}"),
                None => assert!(ours.is_infinite(), "utterance {i} cannot fit"),
            }
        }
        let total = g.transcripts.total_steps() as f64;
        for (i, (ours, theirs)) in gradient.iter().zip(&g.gradient).enumerate() {
            // sums of exponentials of numbers up to 40: some 1e-14 of rounding
            assert!((ours * total - theirs).abs() < 1e-12, "gradient {i}: {} {theirs}", ours * total);
        }
        Ok(())
    }

    #[test]
    fn the_operation_has_the_gradient_of_its_loss() -> Result<()> {
        let g = golden();
        // without the utterance that cannot fit, whose loss would hide the others
        let keep: Vec<usize> = (0..g.dims[0]).filter(|&i| g.losses[i].is_some()).collect();
        let [_, k, o] = g.dims;
        let transcripts = Transcripts {
            labels: keep.iter().map(|&i| g.transcripts.labels[i].clone()).collect(),
            steps: keep.iter().map(|&i| g.transcripts.steps[i]).collect(),
            blank: 0,
        };
        let logits: Vec<f64> = keep.iter().flat_map(|&i| g.logits[i * k * o..][..k * o].to_vec()).collect();
        let shape = (keep.len(), k, o);
        let value = |z: &[f64]| -> Result<f64> {
            let loss = transcripts.loss(&Tensor::from_slice(z, shape, &Device::Cpu)?)?.expect("steps");
            Ok(loss.to_scalar::<f64>()?)
        };
        let var = candle_core::Var::from_slice(&logits, shape, &Device::Cpu)?;
        let loss = transcripts.loss(&var)?.expect("steps").affine(3.0, 0.0)?; // an upstream gradient other than 1
        let gradient = loss.backward()?.get(&var).expect("gradient").flatten_all()?.to_vec1::<f64>()?;
        for i in 0..logits.len() {
            const STEP: f64 = 1e-5;
            let at = |shift: f64| {
                let mut moved = logits.clone();
                moved[i] += shift;
                value(&moved)
            };
            let slope = 3.0 * (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
            assert!((gradient[i] - slope).abs() < 1e-9, "{i}: {} {slope}", gradient[i]); // error of the difference: STEP²
        }
        // in f32, whose logits are the same numbers to 24 bits
        let narrow = Tensor::from_slice(&logits, shape, &Device::Cpu)?.to_dtype(candle_core::DType::F32)?;
        let single = f64::from(transcripts.loss(&narrow)?.expect("steps").to_scalar::<f32>()?);
        assert!((single - value(&logits)?).abs() < 1e-6 * single);
        Ok(())
    }

    #[test]
    fn lengths_that_disagree_are_errors() {
        let t = |labels: Vec<Vec<u32>>, steps: Vec<usize>| Transcripts { labels, steps, blank: 0 };
        let run = |t: &Transcripts| t.losses_and_gradient(&[0.0; 12], [2, 2, 3]);
        assert!(run(&t(vec![vec![1], vec![]], vec![2, 0])).is_ok());
        assert!(run(&t(vec![vec![1]], vec![2])).is_err());
        assert!(run(&t(vec![vec![1], vec![1]], vec![2, 3])).is_err());
        assert!(run(&t(vec![vec![1], vec![3]], vec![2, 2])).is_err());
    }
}
