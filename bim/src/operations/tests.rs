use candle_core::{DType, Device, Tensor};
use learner::operations::{ADAMW_ELEMENTWISE, CodeMacs, OpCounts};
use learner::{Io, Learner, Predictor, Targets};

use super::*;
use crate::config::{Bits, Count, Credit, DecayForm, DeltaInput, Front, Positive, PruneConfig, ReadoutConfig, Share};
use crate::{Bim, Optimizer};

const WIDTH: usize = 8;
const D: usize = 16;
const N: usize = 4;
const HEADS: usize = 2;
const STREAMS: usize = 2;
const STEPS: usize = 6;

fn config() -> BimConfig {
    BimConfig {
        width: Count(WIDTH),
        channels: Count(D),
        state: Count(N),
        heads: Count(HEADS),
        layers: Count(2),
        ..BimConfig::default()
    }
}

/// Counts of a few updates on tokens, the last of them unsupervised if `silent`, and the learner.
fn run(config: &BimConfig, updates: u32, silent: bool) -> Result<(Vec<OpCounts>, Bim)> {
    let io = Io { input: InputKind::Tokens { vocabulary: 5 }, outputs: 5, streams: STREAMS, segment: STEPS };
    let mut bim = Bim::new(config, io, Optimizer::constant(0.01), 1, &Device::Cpu)?;
    let mut counts = Vec::new();
    for step in 0..updates {
        let tokens: Vec<u32> = (0..(STREAMS * STEPS) as u32).map(|i| (i * 7 + step * 3) % 5).collect();
        let class = Tensor::from_vec(tokens, (STREAMS, STEPS), &Device::Cpu)?;
        bim.predict(&class)?;
        let weight = if silent && step + 1 == updates { 0.0 } else { 1.0 };
        let weight = Tensor::full(weight, (STREAMS, STEPS), &Device::Cpu)?.to_dtype(DType::F32)?;
        counts.push(bim.learn(&Targets::Classes { class, weight })?.operations.expect("counted"));
    }
    Ok((counts, bim))
}

/// Everything that follows from shapes alone, by hand; without neurons no input of a product is a spike, and none is zero.
#[test]
fn a_network_without_neurons_is_dense() -> Result<()> {
    let none = NeuronConfig::none();
    let config = BimConfig { pre: none, post: none, lambda: Share(1.0), conv: Count(1), ..config() };
    let (counts, bim) = run(&config, 1, false)?;
    let c = counts[0];
    let rows = (STREAMS * STEPS) as u64;
    // projections, a group of inputs for each head's step size, gate, output
    let weights = (WIDTH * (D + 2 * N) + WIDTH + WIDTH * WIDTH + D * WIDTH) as u64;
    let head = (WIDTH * 5) as u64;
    assert_eq!(c.forward.weight_macs(), rows * (2 * weights + head));
    assert_eq!(c.forward.weight_words, c.forward.weight_macs() + rows * WIDTH as u64, "and the embedding's rows");
    assert_eq!((c.forward.acs, c.neuron_updates), (0, 0));
    // per state and layer: the state's and the output's multiply–accumulate
    assert_eq!(c.forward.activation_macs, rows * 2 * (2 * D * N) as u64);
    assert_eq!(c.macs_dense, c.forward.macs);
    assert_eq!(c.coverage().to_bits(), 1f64.to_bits());
    assert_eq!(c.optimizer.elementwise, ADAMW_ELEMENTWISE * bim.cost().parameters);
    assert_eq!((c.stdp, c.pruning), (Work::default(), Work::default()));
    // two products back for each forward one, and the window's history is still silence
    let Membrane::Lag(lag) = Membrane::choose(&config, 24) else { panic!("no membrane, no traces of it") };
    let scans = ((lag as u64 * STREAMS as u64) + rows) * 2 * (6 * D * N) as u64;
    assert_eq!((c.reverse.weight_macs(), c.reverse.activation_macs), (2 * c.forward.weight_macs(), scans));
    Ok(())
}

/// Every part of learning is counted where it runs, and the parts are the whole.
#[test]
fn parts_of_learning_add_up() -> Result<()> {
    let prune =
        PruneConfig { target: Share(0.5), start: 2, interval: Count(2), hazard: Share(1.0), ..PruneConfig::default() };
    let config = BimConfig { prune, ..config() };
    let (counts, _) = run(&config, 9, false)?;
    let last = counts[8];
    assert!(last.forward.acs > 0 && last.forward.acs < last.macs_dense);
    assert!(last.pruning.elementwise > 0 && last.stdp.acs > 0 && last.traces.acs > 0);
    assert!(last.neuron_updates == (STREAMS * STEPS * 2 * (WIDTH + D)) as u64);
    let learning = last.learning();
    let parts = [last.reverse, last.traces, last.stdp, last.pruning, last.optimizer];
    assert_eq!(learning.operations(), parts.iter().map(Work::operations).sum::<u64>());
    Ok(())
}

/// A network that has read a segment, every third weight of its output projections gone.
fn ran(config: &BimConfig) -> Result<Network<f32>> {
    let io = Io { input: InputKind::Tokens { vocabulary: 5 }, outputs: 5, streams: STREAMS, segment: STEPS };
    let mut params = learner::Params::new(3, DType::F32, &Device::Cpu);
    let mut network = Network::<f32>::new(config, &io, Membrane::choose(config, 24), &mut params)?;
    for block in &network.params.blocks {
        learner::with_f32_mut(&block.out, |w| w.iter_mut().step_by(3).for_each(|w| *w = 0.0))?;
    }
    let tokens: Vec<u32> = (0..(STREAMS * STEPS) as u32).map(|i| i * 3 % 5).collect();
    network.forward(&Tensor::from_vec(tokens, (STREAMS, STEPS), &Device::Cpu)?)?;
    Ok(network)
}

/// By hand through the public state: for every activation in front of every weight that is not zero its magnitude, 1, and for
/// every weight that is not zero 1.
fn by_hand(network: &Network<f32>) -> Result<[u64; 3]> {
    let mut sums = [0; 3];
    let mut meet = |x: &f32, weights: u64| {
        let magnitude = x.abs() as u64;
        [magnitude, magnitude.min(1), 1].iter().zip(&mut sums).for_each(|(n, sum)| *sum += n * weights);
    };
    for group in &network.groups {
        for (block, params) in group.blocks.iter().zip(&network.params.blocks) {
            let out = learner::read_f32(&params.out)?;
            for row in block.spikes_out(STEPS).chunks_exact(D) {
                for (i, s) in row.iter().enumerate() {
                    meet(s, (0..WIDTH).filter(|o| out[o * D + i] != 0.0).count() as u64);
                }
            }
            block.psi_of_chunk(STEPS).iter().for_each(|s| meet(s, (D + 2 * N + 1 + WIDTH) as u64));
        }
    }
    Ok(sums)
}

/// Counting by hand: every spike in front of every weight that is not zero; of a burst also once, and every such weight.
#[test]
fn forward_accumulates_equal_the_quadruple_loop() -> Result<()> {
    let config = BimConfig { pre: NeuronConfig { threshold: Positive(0.4), ..NeuronConfig::default() }, ..config() };
    let network = ran(&config)?;
    let plasticity = Plasticity::new(&config, &network, 1);
    let tally = count(&config, &network, &plasticity.paired_sites(), true)?;
    let [spikes, events, synapses] = by_hand(&network)?;
    assert!(spikes > events && events > 0, "no bursts: the test would be empty");
    assert_eq!((tally.counts.forward.acs, tally.counts.forward.events), (spikes, events));
    assert_eq!(tally.counts.spike_synapses, synapses);
    assert_eq!(tally.counts.forward.code_macs, CodeMacs::default());
    let learning = tally.counts.learning();
    assert!(learning.events > 0 && learning.events < learning.acs, "a burst is one event in learning too");
    Ok(())
}

/// Non-zero digits of 0 to 16 in canonical signed digit form, by hand: 3 = 4 − 1, 11 = 8 + 4 − 1, 13 = 16 − 4 + 1.
const DIGITS_OF: [u64; 17] = [0, 1, 1, 2, 1, 2, 2, 2, 1, 2, 2, 3, 2, 3, 2, 2, 1];

/// Learned steps, weighted spikes and a read-out that sees spikes: nothing but a convolution is multiplied.
fn cheap(spikes: SpikeCode) -> BimConfig {
    let of = |burst, threshold| NeuronConfig {
        burst: Count(burst),
        threshold: Positive(threshold),
        step: Step::Learned,
        spikes,
        ..NeuronConfig::default()
    };
    let NeuronConfig { levels, step, .. } = of(1, 1.0);
    let readout =
        ReadoutConfig { levels, step, spikes, threshold: Positive(0.15), burst: Count(16), ..ReadoutConfig::default() };
    BimConfig { pre: of(8, 0.25), post: of(4, 0.1), readout, ..config() }
}

/// By hand through the public state: of every level in front of every weight that is not zero its magnitude, its digits, 1; of
/// the read-out too. Then the spikes of all neurons, in digits.
fn levels_by_hand(network: &Network<f32>) -> Result<([u64; 3], u64)> {
    let (mut sums, mut sent) = ([0; 3], 0);
    let mut meet = |x: &f32, weights: u64| {
        let k = x.abs() as usize;
        assert!(x.fract() == 0.0, "a level is a whole number, not {x}");
        sent += DIGITS_OF[k];
        [k as u64, DIGITS_OF[k], u64::from(k > 0)].iter().zip(&mut sums).for_each(|(n, sum)| *sum += n * weights);
    };
    for group in &network.groups {
        for (block, params) in group.blocks.iter().zip(&network.params.blocks) {
            let out = learner::read_f32(&params.out)?;
            for (i, s) in block.spikes_out(STEPS).iter().enumerate() {
                meet(s, (0..WIDTH).filter(|o| out[o * D + i % D] != 0.0).count() as u64);
            }
            block.spikes_in(STEPS).iter().for_each(|s| meet(s, (D + 2 * N + 1 + WIDTH) as u64));
        }
        group.head_inputs(STEPS).iter().for_each(|s| meet(s, 5));
    }
    Ok((sums, sent))
}

#[test]
fn weighted_spikes_are_paid_by_their_digits_everywhere() -> Result<()> {
    let counts = |spikes| -> Result<OpCounts> {
        let config = cheap(spikes);
        let network = ran(&config)?;
        let plasticity = Plasticity::new(&config, &network, 1);
        Ok(count(&config, &network, &plasticity.paired_sites(), true)?.counts)
    };
    let (burst, weighted) = (counts(SpikeCode::Burst)?, counts(SpikeCode::Weighted)?);
    let ([magnitudes, digits, events], sent) = levels_by_hand(&ran(&cheap(SpikeCode::Weighted))?)?;
    assert!(magnitudes > digits && digits > events && events > 0, "no high levels: the test would be empty");
    assert_eq!((burst.forward.acs, burst.forward.events, burst.forward.weighted), (magnitudes, events, 0));
    assert_eq!((weighted.forward.acs, weighted.forward.events, weighted.forward.weighted), (digits, events, digits));
    assert_eq!(weighted.spikes, sent, "of all neurons, those of the read-out too");
    let rows = (STREAMS * STEPS) as u64;
    let neurons = rows * (2 * (WIDTH + D) + WIDTH) as u64;
    assert_eq!(weighted.neuron_updates, neurons);
    // what is multiplied with weights is the convolution alone
    let conv = BimConfig { conv: Count(1), ..cheap(SpikeCode::Weighted) };
    let network = ran(&conv)?;
    assert_eq!(count(&conv, &network, &[], true)?.counts.forward.weight_macs(), 0);
    // a level's digits take their own work; a burst is what it is
    assert_eq!(weighted.forward.elementwise - burst.forward.elementwise, 3 * neurons);
    assert_eq!(weighted.forward.weight_words, burst.forward.weight_words, "a weight is read once for either");
    // learning: traces, pairs and gradients of weights see the same digits, and nothing else differs
    let (learned, paid) = (burst.learning(), weighted.learning());
    assert!(paid.acs < learned.acs && paid.weighted == paid.acs && paid.events == learned.events);
    assert_eq!((paid.macs, paid.elementwise), (learned.macs, learned.elementwise));
    Ok(())
}

/// Weights and gradients are folded once at every update, never for a prediction; back, each neuron's step has its gradient.
#[test]
fn folding_is_paid_by_learning() -> Result<()> {
    let with = |step| {
        let mut c = cheap(SpikeCode::Burst);
        (c.pre.step, c.post.step, c.readout.step) = (step, step, step);
        let network = ran(&c)?;
        Ok::<_, learner::Error>(count(&c, &network, &[], true)?.counts)
    };
    let (fixed, learned) = (with(Step::Fixed)?, with(Step::Learned)?);
    let weights = (2 * (WIDTH * (D + 2 * N) + WIDTH + WIDTH * WIDTH + D * WIDTH) + 5 * WIDTH) as u64;
    let neurons = (STREAMS * STEPS * (2 * (WIDTH + D) + WIDTH)) as u64;
    assert_eq!(learned.reverse.elementwise - fixed.reverse.elementwise, 2 * weights + 4 * neurons);
    assert_eq!(learned.forward.elementwise, fixed.forward.elementwise, "a network in use has folded them already");
    Ok(())
}

/// The twin's activations are multiplied, zeros skipped, apart from other products and by their bits; it has no spikes.
#[test]
fn products_of_codes_are_counted_by_their_bits() -> Result<()> {
    let quantised = |bits| NeuronConfig {
        levels: Levels::Quantised,
        bits: Bits(bits),
        beta: Share(0.0),
        threshold: Positive(0.4),
        ..NeuronConfig::default()
    };
    let config = BimConfig { pre: quantised(3), post: quantised(5), lambda: Share(1.0), ..config() };
    let network = ran(&config)?;
    let forward = count(&config, &network, &[], true)?.counts.forward;
    let [_, products, synapses] = by_hand(&network)?;
    assert!(products > 0 && products < synapses, "no zeros, or nothing else: the test would be empty");
    assert_eq!(forward.code_macs.sum(), products);
    assert_eq!(forward.code_macs.each().map(|(bits, _)| bits).collect::<Vec<_>>(), [3, 5]);
    let (counts, _) = run(&config, 2, false)?;
    let c = counts[1];
    assert_eq!((c.forward.acs, c.learning().acs, c.neuron_updates, c.spike_synapses), (0, 0, 0, 0));
    assert!(c.forward.weight_macs() > c.forward.code_macs.sum(), "convolution and read-out are in full precision");
    assert!(c.traces.code_macs.sum() > 0 && c.reverse.code_macs.sum() > 0);
    Ok(())
}

/// A network without spikes pays for no reset, and without a membrane for no membrane.
#[test]
fn what_a_neuron_lacks_is_not_counted() {
    let of = |levels, beta| neuron(&NeuronConfig { levels, beta: Share(beta), ..NeuronConfig::default() });
    assert_eq!(of(Levels::Integer, 0.1), (15, 7, 2));
    assert_eq!(of(Levels::Quantised, 0.1), (8, 7, 2));
    assert_eq!(of(Levels::Quantised, 0.0), (6, 5, 0));
    assert_eq!(of(Levels::Analog, 0.0), (1, 0, 0));
}

/// Without a loss nothing goes back, but traces advance and spikes are paired.
#[test]
fn unsupervised_chunks_cost_traces_and_pairs_only() -> Result<()> {
    let (counts, _) = run(&config(), 2, true)?;
    let (with, without) = (counts[0], counts[1]);
    assert_eq!((without.reverse, without.optimizer), (Work::default(), Work::default()));
    assert!(without.traces.operations() > 0, "traces advance");
    assert!(
        without.traces.activation_macs == 0 && with.traces.activation_macs > 0,
        "and are contracted with a loss only"
    );
    assert!(without.stdp.operations() > 0 && without.forward.operations() > 0);
    Ok(())
}

/// Traces belong to the rules that carry them, and a decay per state makes them larger.
#[test]
fn traces_are_counted_where_they_are_carried() -> Result<()> {
    let traces = |config: BimConfig| -> Result<Work> { Ok(run(&config, 1, false)?.0[0].traces) };
    assert_eq!(traces(BimConfig { credit: Credit::Tbptt, ..config() })?, Work::default());
    let per_head = traces(config())?;
    let per_state = traces(BimConfig { decay: DecayForm::ChannelState, ..config() })?;
    assert!(per_state.state_words > 2 * per_head.state_words, "{per_head:?} {per_state:?}");
    // per stream and layer: what is contracted is every trace of the state times one adjoint, but E_u and E_B serve a
    // head's channels or all states at once
    let jd = WIDTH / HEADS;
    let contraction = (2 * STREAMS * D * N * (2 * WIDTH + jd + 2)) as u64;
    assert_eq!(per_head.activation_macs, contraction);
    let mut attached = config();
    attached.post.attached_reset = true;
    assert!(traces(attached)?.operations() > per_head.operations());
    Ok(())
}

/// Traces of the front are paid by learning, and nothing else changes.
#[test]
fn traces_of_the_front_are_paid_as_traces() -> Result<()> {
    let last = |front| -> Result<OpCounts> { Ok(run(&BimConfig { front, ..config() }, 1, false)?.0[0]) };
    let (chunk, traces) = (last(Front::Chunk)?, last(Front::Traces)?);
    assert_eq!(OpCounts { traces: chunk.traces, ..traces }, chunk);
    // gain and four taps: five more sets, of which each is as large as the one of the synapses but for b_Δ and A_log
    let jd = WIDTH / HEADS;
    let set = HEADS * N * WIDTH + D * WIDTH + D * N * jd;
    let (streams, rows, layers) = (STREAMS as u64, (STREAMS * STEPS) as u64, 2);
    let Membrane::Lag(lag) = Membrane::choose(&config(), 24) else { panic!("a fast membrane") };
    let window = rows + streams * lag as u64;
    // each trace read and written, and read once more against the adjoint; ∂V/∂θ read and written, e written and read
    let words = 5 * (3 * streams * set as u64 + WIDTH as u64 * (3 * rows + window));
    assert_eq!(traces.traces.state_words - chunk.traces.state_words, layers * words);
    assert!(traces.traces.macs > chunk.traces.macs);
    Ok(())
}

/// Every form of the network whose products or loops differ.
fn forms() -> Vec<BimConfig> {
    let mut attached = config();
    attached.post.attached_reset = true;
    let with = |change: fn(&mut BimConfig)| {
        let mut c = config();
        change(&mut c);
        c
    };
    vec![
        config(),
        attached.clone(),
        BimConfig { decay: DecayForm::ChannelState, ..attached },
        with(|c| c.decay = DecayForm::ChannelState),
        with(|c| c.delta_input = DeltaInput::Full),
        with(|c| c.gate = !c.gate),
        with(|c| (c.conv, c.silu) = (Count(4), true)),
        with(|c| c.conv = Count(1)),
        with(|c| c.delays = Count(3)),
        with(|c| (c.kernel, c.currents, c.population) = (Share(0.5), true, Count(2))),
        with(|c| c.lambda = Share(1.0)),
        with(|c| c.prune = PruneConfig { target: Share(0.5), start: 1, ..PruneConfig::default() }),
        with(|c| c.credit = Credit::Diagonal),
        with(|c| (c.credit, c.conv, c.delays) = (Credit::Eprop, Count(3), Count(2))),
        with(|c| (c.credit, c.conv, c.delays) = (Credit::Spatial, Count(3), Count(2))),
        with(|c| c.credit = Credit::Tbptt),
        cheap(SpikeCode::Weighted),
        BimConfig { delta_input: DeltaInput::Full, ..cheap(SpikeCode::Burst) },
    ]
}

/// The same with traces for what stands in front of `ψ`, where the rule carries traces.
fn forms_with_front() -> Vec<BimConfig> {
    let carries = |c: &BimConfig| crate::rule::Rule::from(c.credit).carries;
    let with = |c: BimConfig| BimConfig { front: Front::Traces, ..c };
    forms().into_iter().filter(carries).map(with).collect()
}

/// What is declared beside the counts is what products and kernels carried out, to the multiplication.
#[test]
fn what_is_declared_is_what_is_carried_out() -> Result<()> {
    let inputs = [InputKind::Tokens { vocabulary: 5 }, InputKind::Frames { width: 3 }];
    let forms = [forms(), forms_with_front()].concat();
    for (config, input) in forms.iter().flat_map(|c| inputs.map(|input| (c, input))) {
        // streams of two groups, of which the last is smaller
        let (streams, steps) = (3, 50);
        let io = Io { input, outputs: 5, streams, segment: steps };
        let mut params = learner::Params::new(3, DType::F32, &Device::Cpu);
        let mut network = Network::<f32>::new(config, &io, Membrane::choose(config, 24), &mut params)?;
        assert_eq!(network.groups.len(), 2);
        let mut plasticity = Plasticity::new(config, &network, 1);
        let mut grads = network.zero_grads();
        // the last two chunks are shorter, the last has no loss
        for (update, (steps, learns)) in [(steps, true), (steps, true), (7, true), (7, false)].into_iter().enumerate() {
            let x = match input {
                InputKind::Tokens { .. } => {
                    let tokens = (0..(streams * steps) as u32).map(|i| i * 3 % 5).collect::<Vec<_>>();
                    Tensor::from_vec(tokens, (streams, steps), &Device::Cpu)?
                }
                InputKind::Frames { width } => Tensor::ones((streams, steps, width), DType::F32, &Device::Cpu)?,
            };
            network.forward(&x)?;
            plasticity.observe(&network, update as u64);
            let tally = count(config, &network, &plasticity.paired_sites(), learns)?;
            if learns {
                network.reverse(Some(&vec![0.1; streams * steps * 5]), false)?;
                network.add_grads_and_finish(&mut grads)?;
            } else {
                network.finish()?;
            }
            assert_eq!(tally.declared(), network.take_performed(), "chunk {update}: {input:?} {config:#?}");
        }
    }
    Ok(())
}

/// Updates as the learner reports them: whole, and no longer whole with a product that was not declared.
#[test]
fn coverage_falls_with_a_product_that_was_not_declared() -> Result<()> {
    let io = Io { input: InputKind::Tokens { vocabulary: 5 }, outputs: 5, streams: STREAMS, segment: STEPS };
    let mut bim = Bim::new(&config(), io, Optimizer::constant(0.01), 1, &Device::Cpu)?;
    let class = Tensor::zeros((STREAMS, STEPS), DType::U32, &Device::Cpu)?;
    let weight = Tensor::ones((STREAMS, STEPS), DType::F32, &Device::Cpu)?;
    for undeclared in [0, 24, 0] {
        bim.predict(&class)?;
        bim.carry_out(undeclared);
        let targets = Targets::Classes { class: class.clone(), weight: weight.clone() };
        let counts = bim.learn(&targets)?.operations.expect("counted");
        assert_eq!(counts.unknown, undeclared);
        assert_eq!(counts.coverage() < 1.0, undeclared > 0);
    }
    // what was carried out for a prediction that nothing was learned from is forgotten
    bim.predict(&class)?;
    bim.predict(&class)?;
    assert_eq!(bim.learn(&Targets::Classes { class, weight })?.operations.expect("counted").unknown, 0);
    Ok(())
}

/// A predictor counts the forward pass alone, the same as learning counts it, and only if it is asked to.
#[test]
fn predictions_are_counted_as_the_forward_pass() -> Result<()> {
    let io = Io { input: InputKind::Tokens { vocabulary: 5 }, outputs: 5, streams: STREAMS, segment: STEPS };
    let mut bim = Bim::new(&config(), io, Optimizer::constant(0.01), 1, &Device::Cpu)?;
    let mut predictor = bim.evaluator(STREAMS)?;
    let class = Tensor::zeros((STREAMS, STEPS), DType::U32, &Device::Cpu)?;
    let weight = Tensor::ones((STREAMS, STEPS), DType::F32, &Device::Cpu)?;
    predictor.reset(&[true; STREAMS])?;
    predictor.predict(&class)?;
    assert_eq!(predictor.predicted(), None);
    predictor.count_predictions(true);
    predictor.reset(&[true; STREAMS])?;
    predictor.predict(&class)?;
    bim.predict(&class)?;
    let learned = bim.learn(&Targets::Classes { class, weight })?.operations.expect("counted");
    let predicted = predictor.predicted().expect("counted");
    assert!(predicted.forward.operations() > 0);
    assert_eq!(predicted, learned.without_learning());
    assert_eq!(predictor.predicted(), Some(OpCounts::default()), "what was counted is taken");
    Ok(())
}
