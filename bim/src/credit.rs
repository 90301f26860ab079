//! Credit across chunks: what each layer's traces add to the gradient of the chunk.
//!
//! Two ways to carry credit through the postsynaptic membrane, both exact:
//! - [`Membrane::Traces`]: `F` traces (`N·D·J` numbers for `W_B` and `W_C` each), for any neuron and any `K`;
//! - [`Membrane::Replay`]: the adjoint is run back through the chunk before, and only there meets the (small) `E` traces,
//!   which therefore lag one chunk behind. Exact to rounding if nothing survives a chunk on the membrane, `β^K ≈ 0`.

use candle_core::Tensor;
use learner::Result;
use rayon::prelude::*;

use crate::config::BimConfig;
use crate::kernels::matmul::{View, matmul};
use crate::kernels::neuron::Neuron;
use crate::kernels::scan::{self, Adjoint, ScanGrads, ScanTape};
use crate::kernels::trace::{self, CreditGrads, Traces};
use crate::kernels::{Dims, Real};
use crate::network::{Block, Trail};
use crate::ops::{LayerTape, lock, with_slice};

/// How credit passes the membrane between chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membrane {
    /// `F` traces.
    Traces,
    /// Reverse pass through the chunk before.
    Replay,
}

impl Membrane {
    /// Replay where it loses nothing in numbers of `bits` of precision, traces elsewhere.
    #[must_use]
    pub fn choose(c: &BimConfig, steps: usize, bits: i32) -> Self {
        let detached = !c.post.attached_reset;
        let survives = c.post.beta.0.powi(steps as i32);
        if detached && survives <= 2f64.powi(-bits) { Self::Replay } else { Self::Traces }
    }
}

/// The chunk before, of one stream.
#[derive(Clone, Debug, Default)]
pub struct Past<T> {
    /// Whether there is one since the stream's start.
    pub valid: bool,
    /// Its activations.
    pub tape: ScanTape<T>,
    /// Its `ψ` `[K, J]`.
    pub psi: Vec<T>,
}

/// Carried credit of one layer.
pub struct LayerCredit<T> {
    dims: Dims,
    membrane: Membrane,
    /// Traces, a stream an entry.
    pub traces: Vec<Traces<T>>,
    /// The chunk before, a stream an entry; used by replay alone.
    pub past: Vec<Past<T>>,
}

impl<T: Real> LayerCredit<T> {
    /// No history for any stream.
    #[must_use]
    pub fn new(dims: Dims, membrane: Membrane, streams: usize) -> Self {
        Self {
            dims,
            membrane,
            traces: vec![Traces::new(&dims, membrane == Membrane::Traces); streams],
            past: (0..streams).map(|_| Past::default()).collect(),
        }
    }

    /// Forgets the history of one stream.
    pub fn reset(&mut self, stream: usize) {
        self.traces[stream].reset();
        self.past[stream].valid = false;
    }

    /// Bytes of traces and kept chunks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let traces: usize = self.traces.iter().flat_map(|t| t.named()).map(|(_, v)| v.len()).sum();
        let kept = |p: &Past<T>| {
            p.tape.p.len() + p.tape.delta.len() + p.tape.a.len() + p.tape.h.len() + p.tape.v.len() + p.psi.len()
        };
        let past: usize = self.past.iter().map(kept).sum();
        ((traces + past) * size_of::<T>()) as u64
    }

    /// After the chunk's backward pass: the credit that reaches back before the chunk, summed over streams; advances the
    /// traces.
    ///
    /// # Errors
    /// If a tensor is not in host memory.
    pub fn carry(&mut self, block: &Block<T>, trail: &Trail<T>) -> Result<CreditGrads<T>> {
        let dynamics = Tensor::cat(&[&block.bias, &block.a_log, &block.skip], 0)?;
        let dynamics = with_slice(&dynamics, <[T]>::to_vec)?;
        let mut tape = lock(&trail.tape);
        let LayerTape { scan: tapes, adjoint: adjoints, .. } = &mut *tape;
        let streams = tapes.len();
        if adjoints.is_empty() {
            // nothing in the chunk was supervised: no adjoint, but the traces advance all the same
            adjoints.resize_with(streams, || Adjoint::zero(&self.dims));
        }
        let (dims, membrane, post) = (self.dims, self.membrane, block.post);
        let per_stream: Vec<CreditGrads<T>> = with_slice(&trail.psi, |psi: &[T]| {
            let work = (
                self.traces.par_iter_mut(),
                self.past.par_iter_mut(),
                tapes.par_iter_mut(),
                adjoints.par_iter_mut(),
                psi.par_chunks(psi.len() / streams),
            );
            work.into_par_iter()
                .map(|(traces, past, tape, adjoint, psi)| {
                    let mut grads = CreditGrads::zero(&dims);
                    match membrane {
                        Membrane::Traces => {
                            trace::contract(&dims, traces, adjoint, &mut grads);
                            trace::advance(&dims, &post, &dynamics, tape, psi, traces);
                        }
                        Membrane::Replay => {
                            if past.valid {
                                replay(&dims, &post, &dynamics, past, adjoint, &mut grads);
                                trace::contract(&dims, traces, adjoint, &mut grads);
                                trace::advance(&dims, &post, &dynamics, &past.tape, &past.psi, traces);
                            }
                            std::mem::swap(&mut past.tape, tape);
                            past.psi.clear();
                            past.psi.extend_from_slice(psi);
                            past.valid = true;
                        }
                    }
                    grads
                })
                .collect()
        })?;
        let mut sum = CreditGrads::zero(&dims);
        for grads in &per_stream {
            sum.add(grads);
        }
        Ok(sum)
    }
}

/// Runs the adjoint back through the chunk before and adds what its synapses get.
fn replay<T: Real>(
    dims: &Dims,
    post: &Neuron<T>,
    dynamics: &[T],
    past: &Past<T>,
    adjoint: &mut Adjoint<T>,
    grads: &mut CreditGrads<T>,
) {
    let (steps, width) = (past.tape.steps, dims.projected());
    let (mut dp, mut dz) = (vec![T::zero(); steps * width], vec![T::zero(); steps * dims.heads]);
    let mut inner = ScanGrads { p: &mut dp, z: &mut dz, dynamics: &mut grads.dynamics };
    scan::reverse(dims, post, dynamics, &past.tape, None, true, adjoint, &mut inner);
    let (j, jd) = (dims.inputs, dims.delta_inputs);
    let psi = (&past.psi[..], View::new(steps, j));
    matmul((&mut grads.projection, View::new(width, j)), (&dp, View::new(steps, width).t()), psi, T::one());
    for h in 0..dims.heads {
        let column = View { rows: 1, columns: steps, row_stride: 1, column_stride: dims.heads };
        let group = (&past.psi[dims.delta_offset(h)..], View::strided(steps, jd, j));
        matmul((&mut grads.delta[h * jd..], View::new(1, jd)), (&dz[h..], column), group, T::one());
    }
}

/// Share of (neuron, step) pairs without a spike among these values.
#[must_use]
pub fn silent_share<T: Real>(spikes: &[T]) -> f64 {
    spikes.iter().filter(|s| **s == T::zero()).count() as f64 / spikes.len().max(1) as f64
}
