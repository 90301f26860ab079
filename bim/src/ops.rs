//! Thin candle operations around the kernels. They carry a layer's state from chunk to chunk and leave on a tape what the
//! credit rule needs afterwards: activations, and the adjoints of the state at the chunk's start.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail};
use rayon::prelude::*;

use crate::kernels::encode::{self, EncodeState, EncodeTape};
use crate::kernels::neuron::Neuron;
use crate::kernels::row;
use crate::kernels::scan::{self, Adjoint, ScanGrads, ScanState, ScanTape};
use crate::kernels::{Dims, Real};

/// One layer's state, a stream an entry.
#[derive(Clone, Debug)]
pub struct LayerState<T> {
    /// `LIF_in` and delay line.
    pub encode: Vec<EncodeState<T>>,
    /// State space and `LIF_out`.
    pub scan: Vec<ScanState<T>>,
}

/// One layer's chunk, a stream an entry.
#[derive(Clone, Debug, Default)]
pub struct LayerTape<T> {
    /// `LIF_in` and delay line.
    pub encode: Vec<EncodeTape<T>>,
    /// State space and `LIF_out`.
    pub scan: Vec<ScanTape<T>>,
    /// Adjoints of the state before the chunk; filled by the backward pass, empty without one.
    pub adjoint: Vec<Adjoint<T>>,
}

/// Shared between the network, the operations on the graph and the credit rule.
pub type Shared<T> = Arc<Mutex<T>>;

/// Locks; a poisoned lock only means that another thread panicked, which ends the cell anyway.
pub fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn slice<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout, what: &str) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("{what}: expected a contiguous tensor") };
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// Calls `f` with the elements of a contiguous host tensor.
///
/// # Errors
/// If it is on another device, of another type or not contiguous.
pub fn with_slice<T: Real, R>(t: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let t = t.contiguous()?;
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => Ok(f(slice(cpu, layout, "tensor")?)),
        _ => bail!("expected a tensor in host memory"),
    }
}

/// `LIF_in` and delay line: `x` `[B, K, J]`, `taps` `[taps, J]` → `ψ` `[B, K, J]`.
pub struct Encode<T> {
    /// The neurons.
    pub neuron: Neuron<T>,
    /// Whether credit passes from a step to the one before.
    pub temporal: bool,
    /// The layer's state, advanced by the forward pass.
    pub state: Shared<LayerState<T>>,
    /// Filled by the forward pass.
    pub tape: Shared<LayerTape<T>>,
}

impl<T: Real> CustomOp2 for Encode<T> {
    fn name(&self) -> &'static str {
        "bim-encode"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, taps) = (slice::<T>(s1, l1, "x")?, slice::<T>(s2, l2, "taps")?);
        let mut state = lock(&self.state);
        let mut tape = lock(&self.tape);
        let streams = state.encode.len();
        tape.encode.resize_with(streams, EncodeTape::default);
        let per_stream = x.len() / streams;
        let mut psi = vec![T::zero(); x.len()];
        (
            state.encode.par_iter_mut(),
            tape.encode.par_iter_mut(),
            x.par_chunks(per_stream),
            psi.par_chunks_mut(per_stream),
        )
            .into_par_iter()
            .for_each(|(state, tape, x, psi)| encode::forward(&self.neuron, x, taps, state, tape, psi));
        Ok((T::to_cpu_storage_owned(psi), l1.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, taps: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let tape = lock(&self.tape);
        let streams = tape.encode.len();
        let mut dx = vec![T::zero(); x.elem_count()];
        let per_stream = dx.len() / streams;
        let d_taps = with_slice(taps, |taps: &[T]| {
            with_slice(grad, |grad: &[T]| {
                let per_stream: Vec<Vec<T>> =
                    (&tape.encode, dx.par_chunks_mut(per_stream), grad.par_chunks(per_stream))
                        .into_par_iter()
                        .map(|(tape, dx, grad)| {
                            let mut d_taps = vec![T::zero(); taps.len()];
                            encode::reverse(&self.neuron, tape, taps, grad, self.temporal, dx, &mut d_taps);
                            d_taps
                        })
                        .collect();
                sum_in_order(per_stream)
            })
        })??;
        let device = x.device();
        Ok((Some(Tensor::from_vec(dx, x.dims(), device)?), Some(Tensor::from_vec(d_taps, taps.dims(), device)?)))
    }
}

/// Selective scan with `LIF_out`: `p` `[B, K, D+2N]`, `z` `[B, K, H]`, `dynamics` `[2H+D]` → spikes `[B, K, D]`.
pub struct Scan<T> {
    /// Sizes.
    pub dims: Dims,
    /// The postsynaptic neurons.
    pub neuron: Neuron<T>,
    /// Whether credit passes from a step to the one before.
    pub temporal: bool,
    /// Whether activations are kept; off for evaluation.
    pub record: bool,
    /// The layer's state, advanced by the forward pass.
    pub state: Shared<LayerState<T>>,
    /// Filled by the forward pass (activations) and the backward pass (adjoints).
    pub tape: Shared<LayerTape<T>>,
}

impl<T: Real> CustomOp3 for Scan<T> {
    fn name(&self) -> &'static str {
        "bim-scan"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (p, z, dynamics) =
            (slice::<T>(s1, l1, "projection")?, slice::<T>(s2, l2, "step size")?, slice::<T>(s3, l3, "dynamics")?);
        let mut state = lock(&self.state);
        let mut tape = lock(&self.tape);
        let streams = state.scan.len();
        let steps = z.len() / self.dims.heads / streams;
        tape.scan.resize_with(streams, ScanTape::default);
        tape.adjoint.clear();
        let mut s = vec![T::zero(); streams * steps * self.dims.channels];
        let work = (
            state.scan.par_iter_mut(),
            tape.scan.par_iter_mut(),
            p.par_chunks(p.len() / streams),
            z.par_chunks(z.len() / streams),
            s.par_chunks_mut(steps * self.dims.channels),
        );
        work.into_par_iter().for_each(|(state, tape, p, z, s)| {
            scan::forward(&self.dims, &self.neuron, (p, z, dynamics), state, self.record.then_some(tape), s);
        });
        Ok((T::to_cpu_storage_owned(s), Shape::from((streams, steps, self.dims.channels))))
    }

    fn bwd(
        &self,
        p: &Tensor,
        z: &Tensor,
        dynamics: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut tape = lock(&self.tape);
        let LayerTape { scan: tapes, adjoint: adjoints, .. } = &mut *tape;
        if !self.record {
            bail!("bim-scan: backward pass without a recorded forward pass");
        }
        let streams = tapes.len();
        adjoints.clear();
        adjoints.resize_with(streams, || Adjoint::zero(&self.dims));
        let (mut dp, mut dz) = (vec![T::zero(); p.elem_count()], vec![T::zero(); z.elem_count()]);
        let (p_len, z_len) = (dp.len() / streams, dz.len() / streams);
        let d_dynamics = with_slice(dynamics, |dynamics: &[T]| {
            with_slice(grad, |grad: &[T]| {
                let per_stream: Vec<Vec<T>> = (
                    &*tapes,
                    adjoints.par_iter_mut(),
                    dp.par_chunks_mut(p_len),
                    dz.par_chunks_mut(z_len),
                    grad.par_chunks(grad.len() / streams),
                )
                    .into_par_iter()
                    .map(|(tape, adjoint, p, z, ds)| {
                        let mut sum = vec![T::zero(); dynamics.len()];
                        let mut grads = ScanGrads { p, z, dynamics: &mut sum };
                        scan::reverse(
                            &self.dims,
                            &self.neuron,
                            dynamics,
                            tape,
                            Some(ds),
                            self.temporal,
                            adjoint,
                            &mut grads,
                        );
                        sum
                    })
                    .collect();
                sum_in_order(per_stream)
            })
        })??;
        let tensor = |v: Vec<T>, like: &Tensor| Tensor::from_vec(v, like.dims(), like.device());
        Ok((Some(tensor(dp, p)?), Some(tensor(dz, z)?), Some(tensor(d_dynamics, dynamics)?)))
    }
}

/// Sums per-stream vectors in the order of the streams, whatever thread made them.
fn sum_in_order<T: Real>(vectors: Vec<Vec<T>>) -> Vec<T> {
    let mut vectors = vectors.into_iter();
    let mut sum = vectors.next().unwrap_or_default();
    for v in vectors {
        sum.iter_mut().zip(v).for_each(|(a, b)| *a += b);
    }
    sum
}

/// `RMSNorm` over the last dimension: `x` `[…, J]`, `gain` `[J]`.
pub struct RmsNorm<T>(pub std::marker::PhantomData<T>);

/// Rows of a parallel block: fixed, so that sums over blocks do not depend on the number of threads.
const ROWS: usize = 32;

impl<T: Real> CustomOp2 for RmsNorm<T> {
    fn name(&self) -> &'static str {
        "bim-rms-norm"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, gain) = (slice::<T>(s1, l1, "x")?, slice::<T>(s2, l2, "gain")?);
        let mut y = vec![T::zero(); x.len()];
        let block = ROWS * gain.len();
        (x.par_chunks(block), y.par_chunks_mut(block)).into_par_iter().for_each(|(x, y)| row::rms_norm(x, gain, y));
        Ok((T::to_cpu_storage_owned(y), l1.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, gain: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut dx = vec![T::zero(); x.elem_count()];
        let d_gain = with_slice(x, |x: &[T]| {
            with_slice(gain, |gain: &[T]| {
                with_slice(grad, |grad: &[T]| {
                    let block = ROWS * gain.len();
                    let parts: Vec<Vec<T>> = (x.par_chunks(block), grad.par_chunks(block), dx.par_chunks_mut(block))
                        .into_par_iter()
                        .map(|(x, dy, dx)| {
                            let mut d_gain = vec![T::zero(); gain.len()];
                            row::rms_norm_reverse(x, gain, dy, dx, &mut d_gain);
                            d_gain
                        })
                        .collect();
                    sum_in_order(parts)
                })
            })
        })???;
        Ok((
            Some(Tensor::from_vec(dx, x.dims(), x.device())?),
            Some(Tensor::from_vec(d_gain, gain.dims(), gain.device())?),
        ))
    }
}

/// `y · silu(z)`, element by element.
pub struct Gate<T>(pub std::marker::PhantomData<T>);

/// Elements of a parallel block.
const ELEMENTS: usize = 4096;

impl<T: Real> CustomOp2 for Gate<T> {
    fn name(&self) -> &'static str {
        "bim-gate"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (y, z) = (slice::<T>(s1, l1, "y")?, slice::<T>(s2, l2, "z")?);
        let mut out = vec![T::zero(); y.len()];
        (y.par_chunks(ELEMENTS), z.par_chunks(ELEMENTS), out.par_chunks_mut(ELEMENTS))
            .into_par_iter()
            .for_each(|(y, z, out)| row::gate(y, z, out));
        Ok((T::to_cpu_storage_owned(out), l1.shape().clone()))
    }

    fn bwd(&self, y: &Tensor, z: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (mut dy, mut dz) = (vec![T::zero(); y.elem_count()], vec![T::zero(); z.elem_count()]);
        with_slice(y, |y: &[T]| {
            with_slice(z, |z: &[T]| {
                with_slice(grad, |grad: &[T]| {
                    let inputs = (y.par_chunks(ELEMENTS), z.par_chunks(ELEMENTS), grad.par_chunks(ELEMENTS));
                    (inputs.0, inputs.1, inputs.2, dy.par_chunks_mut(ELEMENTS), dz.par_chunks_mut(ELEMENTS))
                        .into_par_iter()
                        .for_each(|(y, z, grad, dy, dz)| row::gate_reverse(y, z, grad, dy, dz));
                })
            })
        })???;
        Ok((Some(Tensor::from_vec(dy, y.dims(), y.device())?), Some(Tensor::from_vec(dz, z.dims(), z.device())?)))
    }
}
