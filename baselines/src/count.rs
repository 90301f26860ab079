//! Operation counts of the models here: what each fused operation computes, forward and backward.
//!
//! A tally belongs to the thread that runs a model, while it runs one for training; where there is none, as in evaluation,
//! nothing is looked at. The numbers per value below are those of the formulas in `kernels/` and `ops/`, an operation for
//! every addition, multiplication, comparison, quotient or function evaluation; fused multiply–adds are two.

use std::cell::RefCell;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use candle_core::{Device, Tensor};
use learner::operations::{
    Fan, Product, SIGMOID_ELEMENTWISE, SILU_ELEMENTWISE, SILU_REVERSE_ELEMENTWISE, SOFTPLUS_ELEMENTWISE, Seen, Source,
    Tally,
};

use crate::ops::{Cell, MambaShape, Neuron};

thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// What is counted while a model runs.
#[derive(Default)]
struct Running {
    tally: Tally,
    layer: String,
    later: Vec<Later>,
}

/// Something to be looked at beside the training. Between a model's operations a single thread would look, and the others wait.
struct Later {
    layer: String,
    look: Box<dyn FnOnce() -> Found + Send>,
}

/// What was found there.
enum Found {
    Product(Product),
    /// (neuron, step) pairs, and those of them with a spike.
    Neurons(u64, u64),
    /// So many multiplications that could not be looked at.
    Unknown(u64),
}

/// Runs `f` and counts meanwhile.
pub(crate) fn during<R>(f: impl FnOnce() -> R) -> (R, Counted) {
    // a thread of the pool that waits for the others may begin another learner's pass meanwhile
    let outer = RUNNING.replace(Some(Running::default()));
    let result = f();
    let Running { tally, later, .. } = RUNNING.replace(outer).unwrap_or_default();
    let rest = Arc::new(Rest { state: Mutex::new(Looks::Waiting(later)), found: Condvar::new() });
    let shared = rest.clone();
    rayon::spawn(move || shared.look());
    (result, Counted { tally, rest })
}

/// What was counted while a model ran, some of which may still be looked at.
pub(crate) struct Counted {
    tally: Tally,
    rest: Arc<Rest>,
}

impl Counted {
    /// All of it. The weights must be what they were.
    pub fn whole(self) -> Tally {
        let Self { mut tally, rest } = self;
        for (layer, found) in rest.wait() {
            tally.layer(&layer);
            match found {
                Found::Product(product) => tally.product(product),
                // one spike each
                Found::Neurons(pairs, fired) => tally.neurons(pairs, fired, fired),
                Found::Unknown(dense) => tally.unknown(dense),
            }
        }
        tally
    }
}

/// What is looked at beside the training, by whichever thread comes first. That thread hands no part of it to others, so that
/// it never waits, and a thread of the pool may wait for it.
struct Rest {
    state: Mutex<Looks>,
    found: Condvar,
}

enum Looks {
    Waiting(Vec<Later>),
    /// A thread is at it, or what it found was taken.
    Taken,
    Done(Vec<(String, Found)>),
}

impl Rest {
    fn state(&self) -> MutexGuard<'_, Looks> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks, unless another thread does or did.
    fn look(&self) {
        let mut state = self.state();
        let Looks::Waiting(later) = &mut *state else { return };
        let later = mem::take(later);
        *state = Looks::Taken;
        drop(state);
        let found = later.into_iter().map(|l| (l.layer, (l.look)())).collect();
        *self.state() = Looks::Done(found);
        self.found.notify_all();
    }

    fn wait(&self) -> Vec<(String, Found)> {
        self.look();
        let looking = |state: &mut Looks| !matches!(state, Looks::Done(_));
        let mut state = self.found.wait_while(self.state(), looking).unwrap_or_else(PoisonError::into_inner);
        match mem::replace(&mut *state, Looks::Taken) {
            Looks::Done(found) => found,
            Looks::Waiting(_) | Looks::Taken => Vec::new(),
        }
    }
}

/// Whether anything is counted.
pub(crate) fn active() -> bool {
    RUNNING.with_borrow(Option::is_some)
}

/// Adds to the tally, if there is one.
pub(crate) fn with(f: impl FnOnce(&mut Tally)) {
    RUNNING.with_borrow_mut(|r| r.as_mut().map(|r| f(&mut r.tally)));
}

/// Has something looked at beside the training, if anything is counted.
fn later(look: impl FnOnce() -> Found + Send + 'static) {
    RUNNING.with_borrow_mut(|r| {
        if let Some(r) = r {
            r.later.push(Later { layer: r.layer.clone(), look: Box::new(look) });
        }
    });
}

/// What follows belongs to this layer.
pub(crate) fn layer(name: &str) {
    RUNNING.with_borrow_mut(|r| {
        if let Some(r) = r {
            r.tally.layer(name);
            name.clone_into(&mut r.layer);
        }
    });
}

/// Watches the inputs of one weight product, also from several threads.
pub(crate) struct Watch {
    fan: Fan,
    source: Source,
    seen: Mutex<Seen>,
}

impl Watch {
    /// Of weights `[inputs, outputs]`; `None` if nothing is counted.
    pub fn new(weights: &[f32], outputs: usize, source: Source) -> Option<Self> {
        active().then(|| Self { fan: Fan::of_rows(weights, outputs), source, seen: Mutex::new(Seen::NOTHING) })
    }

    /// Inputs `[rows, inputs]`.
    pub fn see(&self, x: &[f32]) {
        self.add(self.fan.see(x, self.source));
    }

    /// What taps read, as [`Fan::see_taps`].
    pub fn see_taps<'a>(&self, taps: usize, steps: usize, at: impl Fn(usize, usize) -> &'a [f32]) {
        self.add(self.fan.see_taps(taps, steps, self.source, at));
    }

    /// The weights.
    pub fn fan(&self) -> &Fan {
        &self.fan
    }

    /// Adds what was looked at elsewhere.
    pub fn add(&self, seen: Seen) {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *all = all.and(seen);
    }

    pub fn product(self) -> Product {
        let seen = self.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        Product::new(self.source, &self.fan, seen)
    }
}

/// Shows inputs `[rows, inputs]` to a watch, if there is one.
pub(crate) fn see(watch: Option<&Option<Watch>>, x: &[f32]) {
    if let Some(Some(watch)) = watch {
        watch.see(x);
    }
}

/// Calls `f` with the elements of an `f32` tensor; `None` for others. Those of another device are copied: counting is the one
/// thing that takes activations to the host.
fn slice<R>(t: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Option<R> {
    learner::with_f32(&t.to_device(&Device::Cpu).ok()?.contiguous().ok()?, f).ok()
}

/// A look-up of every token.
pub(crate) fn lookup(tokens: &Tensor, width: usize) {
    with(|t| t.lookup(tokens.elem_count() as u64, width as u64));
}

/// The product of `x` with the rows of `w` from `from` to `to`, made by `see` of what they are; counted as unknown where it
/// cannot be looked at.
fn product(x: &Tensor, w: &Tensor, from: usize, to: usize, see: impl FnOnce(&Fan, &[f32]) -> Product + Send + 'static) {
    if !active() {
        return;
    }
    let (x, w) = (x.detach(), w.detach());
    later(move || {
        let outputs = w.dims().get(1).copied().unwrap_or(0);
        let fan = slice(&w, |w| w.get(from * outputs..to * outputs).map(|w| Fan::of_rows(w, outputs))).flatten();
        match fan.and_then(|fan| slice(&x, |x| see(&fan, x))) {
            Some(product) => Found::Product(product),
            None => Found::Unknown((x.elem_count() * outputs) as u64),
        }
    });
}

/// A linear map with a bias; `of_data` if no gradient goes back into `x`.
pub(crate) fn linear(x: &Tensor, w: &Tensor, source: Source, norm: bool, of_data: bool) {
    if !active() {
        return;
    }
    let width = x.dims().last().copied().unwrap_or(1).max(1);
    let (rows, outputs) = ((x.elem_count() / width) as u64, (w.elem_count() / width) as u64);
    product(x, w, 0, width, move |fan, x| {
        let product = Product::new(source, fan, fan.see(x, source)).biased(rows, outputs);
        if of_data { product.of_data() } else { product }
    });
    if norm {
        with(|t| t.norm(rows, width as u64, true));
    }
}

/// A layer that adds what it reads to what it makes.
pub(crate) fn residual(x: &Tensor) {
    with(|t| t.elementwise(x.elem_count() as u64, x.elem_count() as u64));
}

/// The product of a layer's input `[B, K, I]`, and that of its own outputs `y` `[B, K, H]` of the step before, whose first are
/// `before` `[B, H]`, with the rows of `w` behind the input's. The input's has a bias.
fn layer_products(x: (&Tensor, Source), w: &Tensor, own: Option<(&Tensor, Source, &Tensor)>) {
    let inputs = x.0.dims().last().copied().unwrap_or(0);
    let (rows, outputs) = ((x.0.elem_count() / inputs.max(1)) as u64, w.dims().last().copied().unwrap_or(0) as u64);
    let of_input = x.1;
    product(x.0, w, 0, inputs, move |fan, x| Product::new(of_input, fan, fan.see(x, of_input)).biased(rows, outputs));
    let Some((y, source, before)) = own else { return };
    let &[_, steps, width] = y.dims() else { return unknown(y.elem_count() * outputs as usize) };
    let first = slice(before, <[f32]>::to_vec).unwrap_or_default();
    product(y, w, inputs, inputs + width, move |fan, y| {
        let earlier = y.chunks_exact(steps * width).map(|y| fan.see(&y[..(steps - 1) * width], source));
        Product::new(source, fan, earlier.fold(fan.see(&first, source), Seen::and))
    });
}

/// Three logistic functions, two tanh, `f·c + i·g`, `o·tanh c`; back: what `step_backward` does.
const LSTM: (u64, u64) = (3 * SIGMOID_ELEMENTWISE + 2 + 3 + 1, 24);

/// An LSTM layer: `x` `[B, K, I]`, `w` `[I + H, 4H]`, `y` `[B, K, H]`, `hidden` before the segment.
pub(crate) fn lstm(x: &Tensor, w: &Tensor, y: &Tensor, hidden: &Tensor) {
    if !active() {
        return;
    }
    layer_products((x, Source::Values), w, Some((y, Source::Values, hidden)));
    let n = y.elem_count() as u64;
    with(|t| {
        t.elementwise(LSTM.0 * n, LSTM.1 * n);
        // hidden state and cell; gates and cells are kept
        t.state(4 * n, 2 * 5 * n);
    });
}

/// Two logistic functions, tanh, `n + r·u`, the mean of two, a bias of its own; back: what `GruBack` does.
const GRU: (u64, u64) = (2 * SIGMOID_ELEMENTWISE + 1 + 2 + 3 + 1, 19);
/// tanh; back `dh (1 − h²)` and the sum of gradients.
const VANILLA: (u64, u64) = (1, 4);

/// A recurrent layer: shapes as of [`lstm`].
pub(crate) fn rnn(x: &Tensor, w: &Tensor, y: &Tensor, hidden: &Tensor, cell: Cell) {
    if !active() {
        return;
    }
    layer_products((x, Source::Values), w, Some((y, Source::Values, hidden)));
    let n = y.elem_count() as u64;
    let (forward, reverse) = match cell {
        Cell::Gru => GRU,
        Cell::Vanilla => VANILLA,
    };
    with(|t| {
        t.elementwise(forward * n, reverse * n);
        t.state(2 * n, 2 * cell.sums() as u64 * n);
    });
}

/// Leak, current, reset (2), threshold and comparison; back: surrogate (3), sums and quotient (4), leak (2).
const LIF: (u64, u64) = (6, 9);
/// Adaptive thresholds: `ρ a + s`, `ϑ + k a`; back the same the other way.
const ADAPTIVE: (u64, u64) = (4, 3);

/// A layer of spiking neurons: `x` `[B, K, I]`, `spikes` `[B, K, H]`, those of the step before the segment where the
/// neurons are connected among themselves.
pub(crate) fn lif(x: (&Tensor, Source), w: &Tensor, spikes: &Tensor, before: Option<&Tensor>, neuron: Neuron) {
    if !active() {
        return;
    }
    layer_products(x, w, before.map(|before| (spikes, Source::Spikes, before)));
    let n = spikes.elem_count() as u64;
    let adaptive = u64::from(neuron.adaptive.is_some());
    let spikes = spikes.detach();
    later(move || Found::Neurons(n, slice(&spikes, learner::operations::nonzero).unwrap_or_default()));
    with(|t| {
        t.elementwise((LIF.0 + adaptive * ADAPTIVE.0) * n, (LIF.1 + adaptive * ADAPTIVE.1) * n);
        t.state((2 + 2 * adaptive) * n, 2 * n);
    });
}

/// The tanh form of GELU by the logistic function: cube and scale (5), then as `x σ(x)`; back value and slope.
const GELU: (u64, u64) = (5 + SIGMOID_ELEMENTWISE, 18);

/// A feed-forward block of `rows`.
pub(crate) fn mlp(watches: [Option<Watch>; 2], rows: usize, width: usize, hidden: usize) {
    let [rows, width, hidden] = [rows, width, hidden].map(|n| n as u64);
    with(|t| {
        watches.into_iter().flatten().for_each(|w| t.product(w.product()));
        t.norm(rows, width, true);
        t.elementwise(rows * (GELU.0 * hidden + width), rows * (GELU.1 * hidden + hidden));
    });
}

/// Rotation by position: three operations per value.
const ROTATION: u64 = 3;
/// Softmax per score: maximum, difference, exponential, sum, quotient; back: exponential anew (2), `p (dp − mean)` (2).
const SOFTMAX: (u64, u64) = (5, 4);

/// Attention with its residual over streams of `steps`, each of which sees `seen` steps before the segment; within it there are
/// `own` pairs of a query and a key. Of the scores those count that a query may look at; the others, which the blocks compute
/// and throw away, do not.
pub(crate) fn attention(
    watches: [Option<Watch>; 2],
    seen: &[usize],
    own: usize,
    steps: usize,
    width: usize,
    heads: usize,
) {
    let [own, k, d, h] = [own, steps, width, heads].map(|n| n as u64);
    let all = own + seen.iter().map(|&s| s as u64 * k).sum::<u64>();
    let rows = seen.len() as u64 * k;
    let keys = rows + seen.iter().map(|&s| s as u64).sum::<u64>();
    let rotated = rows * d * (ROTATION + 1) + keys * d * ROTATION;
    with(|t| {
        watches.into_iter().flatten().for_each(|w| t.product(w.product()));
        t.norm(rows, d, true);
        // scores and their sum of values; back the scores anew, of values and queries over all keys, of the segment's own
        // keys and values
        t.activations(2 * all * d, 3 * all * d + 2 * own * d);
        let back = rotated + rows * d * (2 * ROTATION + 1 + 2);
        t.elementwise(rotated + SOFTMAX.0 * all * h + rows * d, back + SOFTMAX.1 * all * h);
        // every query reads all keys and values it sees; each step writes its own; back they are read twice
        t.state(2 * all * d + 2 * rows * d, 4 * all * d + 2 * rows * 4 * d);
    });
}

/// A convolution: `product` of its taps, over `prepared` values of rows of `inputs` that were normed and rectified if
/// `norm`, for `produced` outputs.
pub(crate) fn conv(product: Product, (prepared, inputs): (usize, usize), norm: bool, outputs: u64, causal: u64) {
    let (prepared, inputs) = (prepared as u64, inputs as u64);
    with(|t| {
        t.product(Product { biased: outputs, ..product }.keeping(prepared));
        if norm {
            t.norm(prepared / inputs.max(1), inputs, false);
            t.elementwise(prepared, prepared);
        }
        t.state(causal, 0);
    });
}

/// Element-wise work of a tensor: so many operations per value.
pub(crate) fn elementwise(x: &Tensor, forward: u64, reverse: u64) {
    let n = x.elem_count() as u64;
    with(|t| t.elementwise(forward * n, reverse * n));
}

/// A Mamba block's element-wise work and scan; its products are `watches`, its convolution `taps`.
pub(crate) fn mamba(watches: [Option<Watch>; 4], taps: Product, rows: usize, shape: MambaShape) {
    let MambaShape { width, channels, states, taps: w, .. } = shape;
    let [r, d, h, n, w] = [rows, width, channels, states, w].map(|n| n as u64);
    with(|t| {
        let [input, selected, step, output] = watches.map(|watch| watch.map(Watch::product));
        let step = step.map(|product| product.biased(r, h));
        [input, selected, step, output].into_iter().flatten().for_each(|product| t.product(product));
        let taps = taps.biased(r, h).keeping(r * h);
        // the reverse pass convolves once more
        t.counts.reverse.macs += taps.seen.synaptic;
        t.product(taps);
        t.norm(r, d, true);
        // h ← e^{ΔA} h + B Δu and y += C h are two multiply–accumulates; backward the first once more, and six
        t.activations(2 * r * h * n, 7 * r * h * n);
        // per state: Δ A, its exponential, B Δu; back these and two more
        let per_state = (3, 5);
        // per channel: Δ, Δu, skip, SiLU of convolution and gate, the gate
        let per_channel = SOFTPLUS_ELEMENTWISE + 1 + 2 + 2 * SILU_ELEMENTWISE + 1;
        let back = SOFTPLUS_ELEMENTWISE + SIGMOID_ELEMENTWISE + 2 * SILU_REVERSE_ELEMENTWISE + 14;
        t.elementwise(r * (h * (n * per_state.0 + per_channel) + d), r * h * (n * per_state.1 + back));
        // states read and written, the convolution's window; kept: both halves of the input, u, steps, outputs
        t.state(r * h * (2 * n + w + 1), 2 * r * h * 5);
    });
}

/// Something that no count is known for, such as an operation on another device: `dense` multiplications.
pub(crate) fn unknown(dense: usize) {
    with(|t| t.unknown(dense as u64));
}

#[cfg(test)]
mod tests;
