//! Learned steps, folded into the weights that read the spikes. (Thresholds that hold a rate, [`crate::homeostasis`], are made of
//! their logarithms here too, but nothing is folded for them.)
//!
//! A neuron `j` with a learned step `s_j` sends level `k_j = fire(V_j / s_j)`, and `s_j k_j` is what arrives:
//! `W (s ⊙ k) = (W diag s) k`. So the network runs on the folded weights `W̃ = W diag s` and on whole numbers `k`: its synapses
//! add, its traces are those of `W̃` with `k` in place of `ψ`, and spikes are counted as they are.
//!
//! **Credit of `W`.** `∂L/∂W_ij = s_j ∂L/∂W̃_ij`. The right-hand side is what reverse mode and traces give for any `ψ`, so the
//! credit of `W` is as exact as without a step: within the layer, through all of its past at fixed weights. When steps move, what a trace
//! holds is the past of `W̃`, as it holds that of older weights in any case.
//!
//! **Credit of `s`.** With `φ = ∂k/∂V`, the step acts where the level is taken and where it is sent: with a detached reset, which
//! keeps `V` free of `s`, `∂(s k)/∂ln s = s (k − φ V)`. For the rectangular surrogate within the levels that is `s k − V`, the
//! rounding error, and beyond them `s k`: the gradient of learned step size quantisation. A price `p |k|` on spikes adds
//! `−p sign(k) φ V`.
//!
//! | step of | its credit |
//! |---|---|
//! | postsynaptic neurons, read-out | as exact as that of the weights behind them: within the layer nothing later depends on their step but by the level sent at that step. What the layers above make of it later is inside the chunk, as all credit between layers |
//! | presynaptic neurons | that of everything in front of `ψ`: inside the chunk, unless there are traces for it |
//!
//! The traces would give one of the two parts of a presynaptic step's credit through all time for nothing: that of sending is
//! `Σ_i W_ij ∂L/∂W_ij`. That of taking the level, `−φ V`, they do not have, and the two all but cancel: `s k` and `V` differ by a
//! rounding error. One without the other is the larger error, so both stay inside the chunk. A second set of traces with
//! `k − φ V` in place of `k` is exact: `front: traces` has it ([`crate::kernels::front`]).

use crate::config::{BimConfig, DeltaInput, Step};
use crate::kernels::Real;
use crate::params::{BlockParams, NetworkParams};

/// Folded weights and the steps themselves; empty where nothing is folded.
#[derive(Clone, Debug)]
pub(crate) struct Folded<T> {
    /// Whether any neuron has a step, or a threshold, of its own.
    any: bool,
    /// Whether steps of presynaptic neurons are learned, and of postsynaptic ones: thresholds that hold a rate are not folded.
    learned: [bool; 2],
    /// Whether a head's step size reads its own neurons.
    grouped: bool,
    values: NetworkParams<Vec<T>>,
}

/// Multiplies each row of `weights` by `steps`; a matrix in blocks has as many rows as blocks, each with its own part of them.
fn scale<T: Real>(weights: &mut [T], steps: &[T], blocks: usize) {
    let width = steps.len() / blocks;
    if width == 0 {
        return;
    }
    for (row, weights) in weights.chunks_exact_mut(width).enumerate() {
        let steps = &steps[row % blocks * width..][..width];
        for j in 0..width {
            weights[j] *= steps[j];
        }
    }
}

fn copy<T: Real>(from: &[T], into: &mut Vec<T>) {
    into.clear();
    into.extend_from_slice(from);
}

fn exponentials<T: Real>(logarithms: &[T], into: &mut Vec<T>) {
    into.clear();
    into.extend(logarithms.iter().map(|x| x.exp()));
}

impl<T: Real> Folded<T> {
    /// Room for what a network of this configuration folds.
    pub fn new<X>(c: &BimConfig, params: &NetworkParams<X>) -> Self {
        let learned = [c.pre.step, c.post.step].map(|step| step == Step::Learned);
        let own = learned.into_iter().chain(c.homeostasis.holds());
        let any = c.readout.step == Step::Learned || own.into_iter().any(|own| own);
        Self { any, learned, grouped: c.delta_input == DeltaInput::Group, values: params.map(|_| Vec::new()) }
    }

    /// `params` with steps in place of their logarithms and folded weights in place of those that read spikes with a step.
    pub fn fold<'a>(&'a mut self, params: &NetworkParams<&'a [T]>) -> NetworkParams<&'a [T]> {
        if self.any {
            self.update(params);
        }
        self.folded(params)
    }

    /// Folds the steps and weights as they are now.
    fn update(&mut self, params: &NetworkParams<&[T]>) {
        let [learned_pre, learned_post] = self.learned;
        for (from, into) in params.blocks.iter().zip(&mut self.values.blocks) {
            if let (Some(logarithms), Some(steps)) = (from.pre_step, &mut into.pre_step) {
                exponentials(logarithms, steps);
                if learned_pre {
                    copy(from.projection, &mut into.projection);
                    copy(from.delta, &mut into.delta);
                    if let (Some(from), Some(into)) = (from.gate, &mut into.gate) {
                        copy(from, into);
                    }
                }
            }
            if let (Some(logarithms), Some(steps)) = (from.post_step, &mut into.post_step) {
                exponentials(logarithms, steps);
                if learned_post {
                    copy(from.out, &mut into.out);
                }
            }
            each(into, self.learned, from.bias.len(), self.grouped);
        }
        if let (Some(logarithms), Some(steps)) = (params.readout_step, &mut self.values.readout_step) {
            exponentials(logarithms, steps);
            copy(params.head, &mut self.values.head);
            scale(&mut self.values.head, steps, 1);
        }
    }

    /// [`Folded::fold`] without folding anew: what was folded last in place of the weights and steps.
    pub fn folded<'a>(&'a self, params: &NetworkParams<&'a [T]>) -> NetworkParams<&'a [T]> {
        let mut folded = self.values.iter().map(Vec::as_slice);
        let mut own = params.iter();
        params.map(|_| match (folded.next(), own.next()) {
            (Some(folded), _) if !folded.is_empty() => folded,
            (_, own) => own.copied().unwrap_or_default(), // one for each, in the same order
        })
    }

    /// Gradients of folded weights become those of the weights. Those of steps are of their logarithms already; no gradient moves a
    /// threshold that holds a rate.
    pub fn unfold(&self, grads: &mut NetworkParams<Vec<T>>) {
        let [learned_pre, learned_post] = self.learned;
        for (grads, steps) in grads.blocks.iter_mut().zip(&self.values.blocks) {
            let heads = grads.bias.len();
            let pre = steps.pre_step.as_deref().filter(|_| learned_pre);
            let post = steps.post_step.as_deref().filter(|_| learned_post);
            scale_block(grads, pre, post, heads, self.grouped);
            grads.pre_step.iter_mut().filter(|_| !learned_pre).for_each(|held| held.fill(T::zero()));
            grads.post_step.iter_mut().filter(|_| !learned_post).for_each(|held| held.fill(T::zero()));
        }
        if let Some(steps) = &self.values.readout_step {
            scale(&mut grads.head, steps, 1);
        }
    }

    /// The steps, as they were when weights were last folded.
    pub fn steps(&self) -> &NetworkParams<Vec<T>> {
        &self.values
    }

    /// Whether steps of presynaptic neurons are learned, and of postsynaptic ones.
    pub fn learned(&self) -> [bool; 2] {
        self.learned
    }

    /// Whether any neuron has a step or a threshold of its own.
    pub fn any(&self) -> bool {
        self.any
    }
}

fn each<T: Real>(block: &mut BlockParams<Vec<T>>, [pre_too, post_too]: [bool; 2], heads: usize, grouped: bool) {
    let (pre, post) = (block.pre_step.take(), block.post_step.take());
    let (by_pre, by_post) = (pre.as_deref().filter(|_| pre_too), post.as_deref().filter(|_| post_too));
    scale_block(block, by_pre, by_post, heads, grouped);
    (block.pre_step, block.post_step) = (pre, post);
}

fn scale_block<T: Real>(
    block: &mut BlockParams<Vec<T>>,
    pre: Option<&[T]>,
    post: Option<&[T]>,
    heads: usize,
    grouped: bool,
) {
    if let Some(steps) = pre {
        scale(&mut block.projection, steps, 1);
        scale(&mut block.delta, steps, if grouped { heads } else { 1 });
        if let Some(gate) = &mut block.gate {
            scale(gate, steps, 1);
        }
    }
    if let Some(steps) = post {
        scale(&mut block.out, steps, 1);
    }
}
