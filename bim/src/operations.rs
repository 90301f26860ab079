//! Operation counts of a chunk: forward, reverse mode, traces and spike pairing, from the spikes that passed and the weights
//! that are not zero. Definitions are those of [`learner::operations`]; the numbers per neuron, state and synapse below are
//! those of the kernels, an operation for every addition, multiplication, comparison, quotient or function evaluation.
//!
//! Beside every count stands what it takes of dense multiplications ([`Tally::declare`]): those of the matrix products and of
//! the kernels' loops over weights, states and traces. Products and kernels note what they carry out
//! ([`learner::performed`]), and the learner holds the two against each other at the end of every chunk: what nobody
//! declared is unknown, and `op_coverage` falls.

use learner::operations::{
    Fan, LOSS_ELEMENTWISE, Product, SIGMOID_ELEMENTWISE, SILU_ELEMENTWISE, SILU_REVERSE_ELEMENTWISE,
    SOFTPLUS_ELEMENTWISE, Seen, Source, Tally, Work,
};
use learner::{InputKind, Result};

use crate::block::{Block, Spec};
use crate::config::{BimConfig, DeltaInput, Levels, NeuronConfig, SpikeCode, Step};
use crate::kernels::front::Kind;
use crate::kernels::trace::Traces;
use crate::kernels::{Decay, Dims};
use crate::network::{Group, Network, with_params};
use crate::params::{BlockParams, NetworkParams};
use crate::plasticity::{Plasticity, Site};
use crate::rule::Membrane;

/// Leak, drive and reset of a neuron that fires: three products, two sums.
const NEURON: u64 = 5;
/// Reverse of a neuron that fires: surrogate (4), its product and sum with what later steps want (2), leak (1).
const NEURON_REVERSE: u64 = 7;
/// Gain of a presynaptic neuron's input; back the gain's gradient and the input's, a product and a sum each.
const GAIN: (u64, u64) = (1, 4);
/// Gradient of a learned step: level less slope times potential (2), its product and sum.
const STEP_REVERSE: u64 = 4;
/// The signed digits of a level: its triple, a shift and a sum, and where that differs.
const DIGITS: u64 = 3;
/// A price that follows a target, of a neuron that fires: magnitude of its level, its synapses' product and sum (3); the price's product
/// and sum in reverse mode (2).
const CONTROL: (u64, u64) = (3, 2);
/// A threshold that holds a rate: magnitude and sum of each level (2); at an update the running rate (4), the threshold's product, sum and
/// bounds (5), its exponential (1).
const HOMEOSTASIS: (u64, u64) = (2, 10);
/// Input currents.
const CURRENT: (u64, u64) = (1, 1);
/// `κ ψ` added.
const KERNEL: (u64, u64) = (2, 2);
/// Gate per channel of the residual stream: `SiLU`, product, sum; back `σ`, two gradients of two and five factors.
const GATE: (u64, u64) = (SILU_ELEMENTWISE + 2, SIGMOID_ELEMENTWISE + 7);
/// The scan per state: multiply–accumulates `a h + B Δu` and `C h`; back the first anew and the gradients of `C`, `h`, `B`, of
/// the input and of the decay.
const SCAN_MACS: (u64, u64) = (2, 6);
/// Beside them `B Δu`; back that and `λ a`.
const SCAN_STATE: (u64, u64) = (1, 2);
/// A decay per state: its exponent and exponential; back these and the gradients of `Δ` and `A_log`.
const SCAN_DECAY: (u64, u64) = (2, 7);
/// Per channel: `Δu`, skip (2); back these and `u`'s, the skip's and the current's gradients.
const SCAN_CHANNEL: (u64, u64) = (3, 10);
/// Per head: `z + b`, softplus, decay; back their gradients.
const SCAN_HEAD: (u64, u64) = (1 + SOFTPLUS_ELEMENTWISE + 2, 6);
/// Sources of the traces per step and state: of `Δ` (4), `b_Δ` (1), `A_log` (2), and the state anew (3).
const SOURCES_HEAD: u64 = 10;
/// The same where decays are per state: with an exponential, and each of three sources times the decays after it.
const SOURCES_STATE: u64 = 19;
/// Sources of the membrane's traces per step and state, beside three multiply–accumulates.
const SOURCES_MEMBRANE: u64 = 12;
/// How a membrane depends on a parameter in front of it, per neuron and step: carried on (1), its source (2) and their sum, the slope of
/// firing (4) and its product.
const SENSITIVITY: u64 = 9;
/// The same of a learned step, which nothing carries on: the slope of firing, its product and the level's sum.
const STEP_SENSITIVITY: u64 = 6;
/// Decaying sum of spikes per neuron and step: sum, decay, weight.
const PAIR_TRACE: u64 = 3;
/// Mixing per synapse: bounds (8), three moments (6), the mix (3).
const MIX: u64 = 17;
/// A pruning event per synapse: magnitude (2), distance, σ, steepness, hazard, comparison.
const PRUNE: u64 = 2 + 1 + SIGMOID_ELEMENTWISE + 3;

fn fire(levels: Levels) -> u64 {
    match levels {
        Levels::Binary => 1,
        Levels::Analog => 0,
        // scale, offset, floor, two bounds
        Levels::Signed | Levels::Integer | Levels::Unsigned | Levels::Quantised => 5,
    }
}

/// What it takes to send a level.
fn sent(c: &NeuronConfig) -> u64 {
    if c.spikes == SpikeCode::Weighted { DIGITS } else { 0 }
}

/// Element-wise operations of a neuron per step, forward and back, and words of its membrane. The kernel is one for all neurons
/// and multiplies by zeros where there is no membrane or nothing to reset; that is not counted, so that networks without
/// spikes pay nothing for neurons they do not have.
fn neuron(c: &NeuronConfig) -> (u64, u64, u64) {
    let (once, sent) = (fire(c.levels), sent(c));
    if c.fires() {
        // once for the reset and once for the spikes
        return (NEURON + 2 * once + sent, NEURON_REVERSE, 2);
    }
    // leak and its sum, and the same back
    let (leak, words) = if c.beta.0 > 0.0 { (2, 2) } else { (0, 0) };
    // back the surrogate (4) and its product
    let back = if c.levels == Levels::Analog { 0 } else { 5 };
    (1 + leak + once, back + leak, words)
}

/// What a price that follows a target adds to learning.
fn control(controlled: bool) -> u64 {
    if controlled { CONTROL.0 + CONTROL.1 } else { 0 }
}

/// What a threshold that holds a rate adds to learning, per neuron and step.
fn hold(held: bool) -> u64 {
    if held { HOMEOSTASIS.0 } else { 0 }
}

/// Reverse of a neuron's step, where it is learned.
fn step_reverse(c: &NeuronConfig) -> u64 {
    if c.step == Step::Learned { STEP_REVERSE } else { 0 }
}

/// The same for a neuron of the read-out, which has neither membrane nor reset: fired once, and back the surrogate, its product,
/// and the price.
fn readout(c: &NeuronConfig) -> (u64, u64) {
    let price = if c.penalty.0 > 0.0 { 2 } else { 0 };
    (fire(c.levels) + sent(c), 5 + step_reverse(c) + price)
}

fn source(neuron: &NeuronConfig) -> Source {
    match neuron.levels {
        Levels::Binary | Levels::Signed | Levels::Integer | Levels::Unsigned => match neuron.spikes {
            SpikeCode::Burst => Source::Spikes,
            SpikeCode::Weighted => Source::WeightedSpikes,
        },
        Levels::Quantised => Source::Codes { bits: neuron.bits.0 as u8 },
        Levels::Analog => Source::Values,
    }
}

fn spiking(source: Source) -> bool {
    match source {
        Source::Spikes | Source::WeightedSpikes => true,
        Source::Values | Source::Codes { .. } => false,
    }
}

/// Of what arrives behind the axons: a delayed or filtered spike arrives scaled, so its synapses multiply.
fn arriving(c: &BimConfig) -> Source {
    if c.delayed() { Source::Values } else { source(&c.pre) }
}

/// A counted chunk.
pub(crate) struct Counter<'a> {
    config: &'a BimConfig,
    network: &'a Network<f32>,
    /// Whether the chunk had a loss: only then reverse mode runs.
    learns: bool,
    /// What left the neurons of each layer: at its input and at its output.
    fired: Vec<[Seen; 2]>,
    tally: Tally,
}

/// Counts the chunk last run, before [`Network::finish`] moves its histories on. `paired` are the synapses whose spikes were
/// paired, by layer and place.
///
/// # Errors
/// If a parameter cannot be read.
pub(crate) fn count(
    config: &BimConfig,
    network: &Network<f32>,
    paired: &[(usize, Site)],
    learns: bool,
) -> Result<Tally> {
    with_params(&network.params, |params| {
        let mut counter = Counter { config, network, learns, fired: Vec::new(), tally: Tally::default() };
        let [pre, post] = [&config.pre, &config.post].map(source);
        counter.fired = (0..params.blocks.len())
            .map(|l| {
                let input = counter.seen(l, |b, steps| Seen::of(b.spikes_in(steps), pre));
                [input, counter.seen(l, |b, steps| Seen::of(b.spikes_out(steps), post))]
            })
            .collect();
        counter.ends(params);
        for (l, params) in params.blocks.iter().enumerate() {
            counter.tally.layer(&format!("layers.{l}"));
            counter.encoder(l, params);
            counter.synapses(l, params);
            counter.dynamics(l);
            counter.traces(l);
            counter.front(l, params);
        }
        counter.pairs(paired);
        counter.folding(params);
        if !learns {
            counter.tally.counts.reverse = Work::default();
        }
        counter.tally
    })
}

/// Adds what an update does beside the gradient: thresholds of so many neurons that hold a rate, masks, pruning if an event is `due`, mixing, the optimiser.
pub(crate) fn count_update(tally: &mut Tally, plasticity: &Plasticity, held: u64, due: bool, parameters: u64) {
    let synapses = plasticity.synapses();
    let counts = &mut tally.counts;
    counts.reverse.elementwise += HOMEOSTASIS.1 * held;
    counts.reverse.state_words += 2 * held;
    if plasticity.prunes() {
        counts.pruning.elementwise += 2 * synapses; // masks of gradients and directions
        if due {
            counts.pruning.elementwise += PRUNE * synapses;
            counts.pruning.weight_words += 2 * synapses;
        }
    }
    if plasticity.mixes() {
        counts.stdp.elementwise += MIX * plasticity.paired();
        counts.stdp.state_words += plasticity.paired();
        if plasticity.prunes() {
            counts.stdp.elementwise += plasticity.paired(); // its mask
        }
        if plasticity.modulated() {
            counts.stdp.elementwise += plasticity.paired(); // its third factor
        }
    }
    counts.add_adamw(parameters);
}

impl Counter<'_> {
    /// (step, stream) pairs.
    fn rows(&self) -> u64 {
        (self.network.steps() * self.network.io().streams) as u64
    }

    fn blocks(&self, l: usize) -> impl Iterator<Item = &Block<f32>> {
        self.network.groups.iter().map(move |g| &g.blocks[l])
    }

    /// (step, stream) pairs of the window that reverse mode goes through.
    fn window(&self, l: usize) -> u64 {
        let lag = self.blocks(l).next().map_or(0, |b| b.spec.membrane.lag());
        (lag * self.network.io().streams) as u64 + self.rows()
    }

    /// Dense multiplications of the forward pass and, if the chunk had a loss, of reverse mode.
    fn declare(&mut self, forward: u64, reverse: u64) {
        self.tally.declare(forward + if self.learns { reverse } else { 0 });
    }

    /// Sums what every group's rows make of a product.
    fn seen(&self, l: usize, see: impl Fn(&Block<f32>, usize) -> Seen) -> Seen {
        let steps = self.network.steps();
        self.blocks(l).map(|b| see(b, steps)).fold(Seen::NOTHING, Seen::and)
    }

    fn ends(&mut self, params: &NetworkParams<&[f32]>) {
        let (rows, width, outputs) = (self.rows(), params.gain.len(), params.head_bias.len() as u64);
        let steps = self.network.steps();
        self.tally.layer("input");
        match self.network.io().input {
            InputKind::Tokens { .. } => self.tally.lookup(rows, width as u64),
            InputKind::Frames { width: frame } => {
                let fan = Fan::of_columns(params.embedding, frame);
                let see = |seen: Seen, frames: &[f32]| seen.and(fan.see(frames, Source::Values));
                let seen = self.network.groups.iter().map(Group::inputs).fold(Seen::NOTHING, see);
                self.tally.product(Product::new(Source::Values, &fan, seen).of_data());
                let dense = rows * (frame * width) as u64;
                self.declare(dense, dense);
            }
        }
        self.tally.layer("output");
        let fan = Fan::of_columns(params.head, width);
        let neurons = self.config.readout.neuron();
        let from = source(&neurons);
        let see = |seen: Seen, x: &[f32]| seen.and(fan.see(x, from));
        let seen = self.network.groups.iter().map(|g| g.head_inputs(steps)).fold(Seen::NOTHING, see);
        self.tally.product(Product::new(from, &fan, seen).biased(rows, outputs));
        if self.config.readout.is_there() {
            let (forward, back) = readout(&neurons);
            let back = back + control(self.config.controlled()[2]);
            self.tally.elementwise(rows * width as u64 * forward, rows * width as u64 * back);
        }
        if spiking(from) {
            self.tally.layer("readout");
            self.tally.neurons(seen.values, seen.nonzero, seen.events);
            self.tally.layer("output");
        }
        let dense = rows * width as u64 * outputs;
        self.declare(dense, 2 * dense);
        self.tally.norm(rows, width as u64, false);
        let gain = rows * width as u64;
        self.tally.elementwise(gain, 3 * gain + LOSS_ELEMENTWISE * rows * outputs);
    }

    /// Weights change at every update, so learning folds the steps into them and out of their gradients each time: a product, a
    /// word read and one written for each weight, both times. A network in use has folded them once.
    fn folding(&mut self, params: &NetworkParams<&[f32]>) {
        let len = |x: &[f32]| x.len() as u64;
        let [learned_pre, learned_post] = [&self.config.pre, &self.config.post].map(|c| c.step == Step::Learned);
        let block = |b: &BlockParams<&[f32]>| {
            let pre = if learned_pre { len(b.projection) + len(b.delta) + b.gate.map_or(0, len) } else { 0 };
            pre + if learned_post { len(b.out) } else { 0 }
        };
        let folded = params.blocks.iter().map(block).sum::<u64>() + params.readout_step.map_or(0, |_| len(params.head));
        self.tally.counts.reverse += Work { elementwise: 2 * folded, weight_words: 4 * folded, ..Work::default() };
    }

    /// From the residual stream to `ψ`.
    fn encoder(&mut self, l: usize, params: &BlockParams<&[f32]>) {
        let c = self.config;
        let (rows, width, neurons) = (self.rows(), c.width.0 as u64, c.neurons() as u64);
        self.tally.norm(rows, width, false);
        // credit within a step goes back through the first tap alone; the taps' own gradients see all of them
        let temporal = self.blocks(l).next().is_some_and(|b| b.spec.rule.across.state);
        let back = |taps: usize| if temporal { taps as u64 } else { 1 };
        if let Some(taps) = params.conv {
            self.declare(rows * width * c.conv.0 as u64, rows * width * (c.conv.0 as u64 + back(c.conv.0)));
            let fan = Fan::of_rows(taps, 1);
            let seen = self.seen(l, |b, steps| {
                let wide = b.spec.encode.streams * c.width.0;
                let at = |tap: usize, t: usize| &b.encode.x[(t + c.conv.0 - 1 - tap) * wide..][..wide];
                fan.see_taps(c.conv.0, steps, Source::Values, at)
            });
            self.tally.product(Product::new(Source::Values, &fan, seen).keeping(rows * width));
            self.tally.state(rows * width * (c.conv.0 as u64 + 1), 0);
        }
        if c.silu {
            self.tally.elementwise(rows * width * SILU_ELEMENTWISE, rows * width * SILU_REVERSE_ELEMENTWISE);
        }
        if let Some(taps) = params.delays {
            self.declare(rows * neurons * c.delays.0 as u64, rows * neurons * (c.delays.0 as u64 + back(c.delays.0)));
            let fan = Fan::of_rows(taps, 1);
            let from = source(&c.pre);
            let seen = self.seen(l, |b, steps| {
                let wide = b.spec.encode.streams * c.neurons();
                let at = |tap: usize, t: usize| &b.encode.s[(t + c.delays.0 - 1 - tap) * wide..][..wide];
                fan.see_taps(c.delays.0, steps, from, at)
            });
            self.tally.product(Product::new(from, &fan, seen).keeping(rows * neurons));
            self.tally.state(rows * neurons * (c.delays.0 as u64 + 1), 0);
        }
        let (forward, back, membrane) = neuron(&c.pre);
        let mut each = (forward + GAIN.0, back + GAIN.1 + step_reverse(&c.pre) + control(c.controlled()[0]));
        each.1 += hold(c.homeostasis.holds()[0]);
        let extras = [(params.current.is_some(), CURRENT), (c.kernel.0 > 0.0, KERNEL)];
        for (_, (forward, back)) in extras.into_iter().filter(|(there, _)| *there) {
            each = (each.0 + forward, each.1 + back);
        }
        self.tally.elementwise(rows * neurons * each.0, rows * neurons * each.1);
        // membranes read and written, and kept
        let kernel = if c.kernel.0 > 0.0 { 2 } else { 0 };
        self.tally.state(rows * neurons * (membrane + kernel), 2 * rows * neurons);
        if spiking(source(&c.pre)) {
            let [fired, _] = self.fired[l];
            self.tally.layer(&format!("layers.{l}.pre"));
            self.tally.neurons(fired.values, fired.nonzero, fired.events);
            self.tally.layer(&format!("layers.{l}"));
        }
    }

    /// The weight products behind both populations of neurons.
    fn synapses(&mut self, l: usize, params: &BlockParams<&[f32]>) {
        let c = self.config;
        let (rows, width, neurons, d) = (self.rows(), c.width.0, c.neurons(), c.channels.0);
        let from = arriving(c);
        let mut windowed = Fan::of_columns(params.projection, neurons);
        windowed = windowed.with(&match c.delta_input {
            DeltaInput::Full => Fan::of_columns(params.delta, neurons),
            DeltaInput::Group => Fan::of_blocks(params.delta, neurons / c.heads.0, c.heads.0),
        });
        let fan = params.gate.map_or_else(|| windowed.clone(), |g| windowed.with(&Fan::of_columns(g, neurons)));
        let [before, after] = self.fired[l];
        // what arrives is what was fired, unless it is delayed or filtered
        let met = if c.delayed() { None } else { fan.meet(before) };
        let seen = met.unwrap_or_else(|| self.seen(l, |b, steps| fan.see(b.psi_of_chunk(steps), from)));
        let mut product = Product::new(from, &fan, seen);
        // steps of history in front of the chunk are in the gradient of what they entered
        let history = self.seen(l, |b, _| Seen::of(b.psi_before_chunk(), from));
        product.gradient += history.events * windowed.outputs();
        product.gradient_events += history.nonzero * windowed.outputs();
        self.tally.product(product);
        // gradients of the projections are taken over the window, that of the gate over the chunk
        let (dense, of_gate) = (windowed.weights(), if params.gate.is_some() { neurons * width } else { 0 });
        let [dense, of_gate] = [dense, of_gate as u64];
        self.declare(rows * (dense + of_gate), rows * (dense + 2 * of_gate) + self.window(l) * dense);
        let post = source(&c.post);
        let fan = Fan::of_columns(params.out, d);
        let seen = fan.meet(after).unwrap_or_else(|| self.seen(l, |b, steps| fan.see(b.spikes_out(steps), post)));
        self.tally.product(Product::new(post, &fan, seen));
        let dense = rows * (d * width) as u64;
        self.declare(dense, 2 * dense);
        let gate = if params.gate.is_some() { GATE } else { (1, 0) };
        self.tally.elementwise(rows * width as u64 * gate.0, rows * width as u64 * gate.1);
        if spiking(post) {
            self.tally.layer(&format!("layers.{l}.post"));
            self.tally.neurons(seen.values, seen.nonzero, seen.events);
            self.tally.layer(&format!("layers.{l}"));
        }
    }

    /// The selective scan and its neurons.
    fn dynamics(&mut self, l: usize) {
        let Some(Spec { dims, rule, .. }) = self.blocks(l).next().map(|b| b.spec) else { return };
        let c = self.config;
        let rows = self.rows();
        let window = self.window(l);
        // what goes down may be another gradient than the block's own
        let passes = if rule.own == rule.across { 1 } else { 2 };
        let back = window * passes;
        let [d, heads, states] = [dims.channels, dims.heads, dims.states()].map(|n| n as u64);
        let per_state = u64::from(dims.decay == Decay::ChannelState);
        self.tally.activations(rows * states * SCAN_MACS.0, back * states * SCAN_MACS.1);
        self.declare(rows * states * SCAN_MACS.0, back * states * SCAN_MACS.1);
        let (neuron_forward, neuron_back, membrane_words) = neuron(&c.post);
        let forward = states * (SCAN_STATE.0 + per_state * SCAN_DECAY.0)
            + d * (SCAN_CHANNEL.0 + neuron_forward)
            + heads * SCAN_HEAD.0;
        let reverse = states * (SCAN_STATE.1 + per_state * SCAN_DECAY.1)
            + d * (SCAN_CHANNEL.1 + neuron_back)
            + heads * SCAN_HEAD.1;
        // levels are sent in the chunk alone, not in the history before it
        let in_chunk = passes * step_reverse(&c.post) + control(c.controlled()[1]) + hold(c.homeostasis.holds()[1]);
        self.tally.elementwise(rows * forward, back * reverse + rows * d * in_chunk);
        // states and membranes; kept: what the scan read, its steps and decays, the membranes
        let kept = dims.projected() as u64 + 2 * heads + d;
        self.tally.state(rows * (2 * states + membrane_words * d), 2 * rows * kept);
    }

    /// Advance of the traces and, if the chunk had a loss, their contraction.
    fn traces(&mut self, l: usize) {
        let Some(first) = self.blocks(l).next().filter(|b| b.spec.rule.carries) else { return };
        let dims = first.spec.dims;
        let numbers: u64 = first.traces.iter().take(1).map(numbers).sum();
        let membrane = first.traces.first().is_some_and(|t| t.membrane.is_some());
        let streams = self.network.io().streams as u64;
        let from = arriving(self.config);
        // the traces advance over as many steps as the chunk has, from the window's start
        let seen = if first.spec.membrane.lag() == 0 && !self.config.delayed() {
            self.fired[l][0]
        } else {
            self.seen(l, |b, steps| Seen::of(b.psi_of_window(steps), from))
        };
        let sources = self.rows() * dims.states() as u64;
        let mut work = Work {
            elementwise: sources * if dims.decay == Decay::Head { SOURCES_HEAD } else { SOURCES_STATE }
                + streams * numbers,
            state_words: streams * 2 * numbers,
            ..Work::default()
        };
        let rows = rows_per_input(&dims, membrane);
        work.multiply(from, seen.events * rows, seen.nonzero * rows);
        let mut activations = 0;
        if membrane {
            work.elementwise += sources * SOURCES_MEMBRANE;
            // its own sources; the state's traces weighted into the membrane's
            activations += 3 * sources + streams * (dims.states() * (2 * dims.inputs + dims.delta_inputs + 2)) as u64;
        }
        self.declare(activations + self.rows() * source_products(&dims, membrane), 0);
        if self.learns {
            let contracted = streams * contraction(&dims, membrane);
            activations += contracted;
            self.declare(0, contracted);
            work.state_words += streams * numbers;
        }
        work.macs += activations;
        work.activation_macs += activations;
        self.tally.counts.traces += work;
    }

    /// Traces for what stands in front of `ψ`: how it depends on each kind of parameter, and the traces of the synapses that have that
    /// for their right-hand side. Their sources are those of the synapses' own traces.
    fn front(&mut self, l: usize, params: &BlockParams<&[f32]>) {
        let Some((spec, front)) = self.blocks(l).next().and_then(|b| Some((b.spec, b.front.as_ref()?))) else { return };
        let kinds: Vec<Kind> = front.sets.iter().map(|set| set.kind).collect();
        let one_set: u64 = front.sets.iter().take(1).flat_map(|set| &set.traces[..1]).map(numbers).sum();
        let Spec { dims, rule, membrane, .. } = spec;
        let membrane = membrane == Membrane::Traces;
        let (rows, neurons, streams) = (self.rows(), dims.inputs as u64, self.network.io().streams as u64);
        let sets = kinds.len() as u64;
        let on_membrane = kinds.iter().filter(|kind| kind.on_membrane()).count() as u64;
        let stepped = kinds.iter().filter(|kind| **kind == Kind::Step).count() as u64;
        let mut work = Work::default();
        let kernel = if self.config.kernel.0 > 0.0 { 2 * sets } else { 0 };
        work.elementwise += rows * neurons * (SENSITIVITY * on_membrane + STEP_SENSITIVITY * stepped + kernel);
        work.state_words += rows * neurons * (2 * on_membrane + sets);
        let taps = rows * neurons * params.delays.map_or(0, |_| self.config.delays.0 as u64) * on_membrane;
        work.macs += taps;
        // the traces advance over as many steps as the chunk has, from the window's start
        let seen = self.seen(l, |b, steps| {
            let len = steps * b.spec.encode.streams * b.spec.dims.inputs;
            let sets = b.front.iter().flat_map(|front| &front.sets);
            let rhs = sets.map(|set| Seen::of(&set.sensitivity.e[..len], Source::Values));
            rhs.fold(Seen::NOTHING, Seen::and)
        });
        let entered = rows_per_input(&dims, membrane);
        work.multiply(Source::Values, seen.events * entered, seen.nonzero * entered);
        work.elementwise += sets * streams * one_set;
        work.state_words += sets * streams * 2 * one_set;
        let weighted = if membrane { dims.states() * (2 * dims.inputs + dims.delta_inputs) } else { 0 };
        let mut activations = sets * streams * weighted as u64;
        self.declare(taps + activations + sets * rows * source_products(&dims, membrane), 0);
        if self.learns {
            // what is wanted of ψ in the history, and in the chunk where that is not what goes down
            let wanted = if rule.own == rule.across { self.window(l) - rows } else { self.window(l) };
            let through = wanted * (neurons * dims.projected() as u64 + (dims.heads * dims.delta_inputs) as u64);
            let met = sets * self.window(l) * neurons;
            let contracted = streams * contraction_of_sides(&dims, membrane, sets);
            self.declare(0, through + met + contracted);
            work.macs += through;
            activations += met + contracted;
            work.state_words += sets * (streams * one_set + self.window(l) * neurons);
        }
        work.macs += activations;
        work.activation_macs += activations;
        self.tally.counts.traces += work;
    }

    /// Pairs of spikes: every spike adds the other side's traces to its row or column.
    fn pairs(&mut self, paired: &[(usize, Site)]) {
        let c = self.config;
        let rows = self.rows();
        for &(l, site) in paired {
            let (before, after, pre, post) = match site {
                Site::Input => (self.fired[l][0], self.fired[l][1], c.neurons() as u64, c.channels.0 as u64),
                Site::Output => (self.fired[l][1], self.fired[l + 1][0], c.channels.0 as u64, c.width.0 as u64),
            };
            // the pairs within the chunk, and those with spikes before it
            self.tally.declare((rows + self.network.io().streams as u64) * pre * post);
            let work = &mut self.tally.counts.stdp;
            let sides = [(before, post, source(if site == Site::Input { &c.pre } else { &c.post }))]
                .into_iter()
                .chain([(after, pre, source(if site == Site::Input { &c.post } else { &c.pre }))]);
            for (seen, others, from) in sides {
                work.multiply(from, seen.events * others, seen.nonzero * others);
            }
            let at_zero = if c.stdp.at_zero == 0.0 { 0 } else { 2 * pre };
            work.elementwise += rows * (PAIR_TRACE * (pre + post) + at_zero);
            work.state_words += rows * 2 * (pre + post) + 2 * pre * post;
        }
    }
}

/// Numbers of a stream's traces.
fn numbers(traces: &Traces<f32>) -> u64 {
    traces.named().into_iter().map(|(_, trace)| trace.len() as u64).sum()
}

/// Rows of traces that one value of `ψ` enters.
fn rows_per_input(dims: &Dims, membrane: bool) -> u64 {
    let (d, n, states) = (dims.channels, dims.state, dims.states());
    let heads_read = if dims.delta_inputs == dims.inputs { dims.heads } else { 1 };
    let of_delta = dims.per_head() * heads_read;
    let (u, b) = match dims.decay {
        Decay::Head => (dims.heads * n, d),
        Decay::ChannelState => (states, states),
    };
    let of_membrane = if membrane { d + 2 * states + of_delta } else { 0 };
    (u + b + n * of_delta + of_membrane) as u64
}

/// Dense multiplications of one step's and stream's `ψ` with the sources of its traces.
fn source_products(dims: &Dims, membrane: bool) -> u64 {
    let (j, jd, d, n, states) = (dims.inputs, dims.delta_inputs, dims.channels, dims.state, dims.states());
    let of_states = match dims.decay {
        Decay::Head => dims.heads * n * j + d * j + states * jd,
        Decay::ChannelState => states * (2 * j + jd),
    };
    let of_membrane = if membrane { d * (j + jd) + 2 * states * j } else { 0 };
    (of_states + of_membrane) as u64
}

/// Multiply–accumulates that contract one stream's adjoints with its traces.
fn contraction(dims: &Dims, membrane: bool) -> u64 {
    let (j, jd, d, states) = (dims.inputs, dims.delta_inputs, dims.channels, dims.states());
    let of_states = states * (2 * j + jd + 2);
    let a_log = if dims.decay == Decay::Head { d } else { states };
    let of_membrane = if membrane { d * (j + jd + 3) + a_log + 2 * states * j } else { 0 };
    (of_states + of_membrane) as u64
}

/// Multiplications that contract one stream's adjoints with the traces of so many right-hand sides beside `ψ`: what each row is worth
/// once, its products with each of them.
fn contraction_of_sides(dims: &Dims, membrane: bool, sides: u64) -> u64 {
    let (j, jd, d, n, heads) = (dims.inputs, dims.delta_inputs, dims.channels, dims.state, dims.heads);
    let [rows, of_sides] = match dims.decay {
        Decay::Head => [2 * dims.states() * j, (heads * n + d) * j],
        Decay::ChannelState => [2 * dims.states() * j; 2],
    };
    let of_delta = (dims.states() + heads) * jd;
    let [of_membrane, delta] = if membrane { [(1 + 2 * n) * d * j, d * jd] } else { [0; 2] };
    (rows + of_membrane) as u64 + sides * (of_sides + of_delta + of_membrane + delta) as u64
}

#[cfg(test)]
mod tests;
