//! The claim that "exact" means exact: chunked online credit against backpropagation through time, and the fused
//! operations against a step-by-step twin in plain tensor operations under automatic differentiation.

use std::collections::BTreeMap;

use bim::BimConfig;
use bim::config::{Count, Credit, DeltaInput, Levels, NeuronConfig, Positive, Reset, Share, Surrogate};
use bim::credit::{LayerCredit, Membrane};
use bim::kernels::Real;
use bim::kernels::neuron::Neuron;
use bim::network::{Block, Network};
use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Shape, Tensor};
use learner::{InputKind, Io, Params, Result, seeded_rng};
use rand_distr::{Distribution, StandardNormal};

const STREAMS: usize = 3;
const FRAME: usize = 5;
const OUTPUTS: usize = 4;
const STEPS: usize = 48;

type Grads = BTreeMap<String, Vec<f64>>;

fn config(layers: usize, neuron: NeuronConfig) -> BimConfig {
    BimConfig {
        width: Count(6),
        channels: Count(9),
        state: Count(4),
        heads: Count(3),
        layers: Count(layers),
        delays: Count(3),
        pre: neuron,
        post: neuron,
        lambda: Share(1.0),
        ..BimConfig::default()
    }
}

/// Neurons that differ in every respect that the credit depends on. `β` is high where the membrane should matter.
fn neurons() -> Vec<(&'static str, NeuronConfig)> {
    let base = NeuronConfig {
        beta: Share(0.85),
        threshold: Positive(0.3),
        resistance: Positive(4.0), // so that every population fires
        ..NeuronConfig::default()
    };
    vec![
        ("integer, detached leaky reset", base),
        ("integer, attached reset", NeuronConfig { attached_reset: true, reset: Reset::Subtract, ..base }),
        (
            "binary, attached subtracting reset, fast sigmoid",
            NeuronConfig {
                levels: Levels::Binary,
                attached_reset: true,
                reset: Reset::Subtract,
                surrogate: Surrogate::FastSigmoid,
                surrogate_slope: Positive(5.0),
                ..base
            },
        ),
        ("signed, no reset", NeuronConfig { levels: Levels::Signed, reset: Reset::None, ..base }),
    ]
}

fn io(streams: usize) -> Io {
    Io { input: InputKind::Frames { width: FRAME }, outputs: OUTPUTS, streams, segment: STEPS }
}

fn random(name: &str, shape: &[usize], dtype: DType) -> Tensor {
    let mut rng = seeded_rng(11, name);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| StandardNormal.sample(&mut rng)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).and_then(|t| t.to_dtype(dtype)).expect("small tensor")
}

/// Half the squared distance to fixed targets: additive over steps, so that chunks sum to the whole.
fn loss(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    Ok(((logits - target)?.sqr()?.sum_all()? * 0.5)?)
}

fn add(into: &mut Grads, name: &str, values: impl IntoIterator<Item = f64>) {
    let values: Vec<f64> = values.into_iter().collect();
    match into.get_mut(name) {
        Some(sum) => sum.iter_mut().zip(values).for_each(|(a, b)| *a += b),
        None => {
            into.insert(name.to_owned(), values);
        }
    }
}

fn collect(params: &Params, loss: &Tensor, into: &mut Grads) -> Result<()> {
    let store = loss.backward()?;
    for (name, var) in params.vars() {
        let g = store.get(var).map_or_else(|| var.zeros_like(), |g| Ok(g.clone()))?;
        add(into, name, g.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?);
    }
    Ok(())
}

/// Gradient by chunks of `k` steps, with weights held still. `starts` lists (step, stream) where a stream begins anew; a
/// chunk never spans one.
fn chunked<T: Real>(c: &BimConfig, k: usize, membrane: Option<Membrane>, starts: &[(usize, usize)]) -> Result<Grads> {
    let mut params = Params::new(5, T::DTYPE, &Device::Cpu);
    let network: Network<T> = Network::new(c, &io(STREAMS), &mut params)?;
    let x = random("x", &[STREAMS, STEPS, FRAME], T::DTYPE);
    let target = random("y", &[STREAMS, STEPS, OUTPUTS], T::DTYPE);
    let mut credit: Vec<LayerCredit<T>> = match membrane {
        Some(m) => network.blocks.iter().map(|b| LayerCredit::new(b.dims, m, STREAMS)).collect(),
        None => Vec::new(),
    };
    let mut grads = Grads::new();
    let mut t = 0;
    while t < STEPS {
        let marks: Vec<bool> = (0..STREAMS).map(|b| starts.contains(&(t, b))).collect();
        network.reset(&marks)?;
        for (b, _) in marks.iter().enumerate().filter(|(_, m)| **m) {
            for c in &mut credit {
                c.reset(b);
            }
        }
        let next_start = starts.iter().map(|s| s.0).filter(|s| *s > t).min().unwrap_or(STEPS);
        let len = k.min(STEPS - t).min(next_start - t);
        let (logits, trails) = network.forward(&x.narrow(1, t, len)?, true)?;
        collect(&params, &loss(&logits, &target.narrow(1, t, len)?)?, &mut grads)?;
        for (l, credit) in credit.iter_mut().enumerate() {
            let carried = credit.carry(&network.blocks[l], &trails[l])?;
            let (bias, rest) = carried.dynamics.split_at(c.heads.0);
            let (a_log, skip) = rest.split_at(c.heads.0);
            let parts: [(&str, &[T]); 5] = [
                ("projection", &carried.projection),
                ("delta.weight", &carried.delta),
                ("delta.bias", bias),
                ("a_log", a_log),
                ("skip", skip),
            ];
            for (name, values) in parts {
                add(&mut grads, &format!("layers.{l}.{name}"), values.iter().map(|v| v.wide()));
            }
        }
        t += len;
    }
    Ok(grads)
}

/// Firing with its surrogate derivative, element by element.
struct Fire<T>(Neuron<T>);

impl<T: Real> CustomOp1 for Fire<T> {
    fn name(&self) -> &'static str {
        "fire-slow"
    }
    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (start, end) = l.contiguous_offsets().expect("contiguous");
        let out = T::cpu_storage_as_slice(s)?[start..end].iter().map(|&v| self.0.fire(v)).collect();
        Ok((T::to_cpu_storage_owned(out), l.shape().clone()))
    }
    fn bwd(&self, v: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let phi: Vec<T> = v.flatten_all()?.to_vec1::<T>()?.into_iter().map(|v| self.0.surrogate(v)).collect();
        Ok(Some((grad * Tensor::from_vec(phi, v.dims(), v.device())?)?))
    }
}

struct SlowState {
    v_in: Tensor,
    past: Vec<Tensor>,
    h: Tensor,
    v: Tensor,
}

fn neuron_slow<T: Real>(neuron: &Neuron<T>, c: &NeuronConfig, v: &Tensor, current: &Tensor) -> Result<Tensor> {
    let spikes = v.apply_op1(Fire(*neuron))?;
    let spikes = if c.attached_reset { spikes } else { spikes.detach() };
    Ok((((v * neuron.beta.wide())? + (current * neuron.gain.wide())?)? - (spikes * neuron.reset.wide())?)?)
}

/// One step of one block from the equations alone: `x` `[B, J]` → `[B, J]`.
fn block_slow<T: Real>(block: &Block<T>, c: &BimConfig, x: &Tensor, s: &mut SlowState) -> Result<Tensor> {
    let (b, j) = x.dims2()?;
    let (d, n, h) = (c.channels.0, c.state.0, c.heads.0);
    let rms = (x.sqr()?.mean_keepdim(D::Minus1)? + 1e-6)?.sqrt()?;
    let normed = x.broadcast_div(&rms)?.broadcast_mul(&block.gain)?;
    s.v_in = neuron_slow(&block.pre, &c.pre, &s.v_in, &normed)?;
    let spike = s.v_in.apply_op1(Fire(block.pre))?;
    let mut psi = spike.broadcast_mul(&block.taps.get(0)?)?;
    for (k, past) in s.past.iter().enumerate() {
        psi = (psi + past.broadcast_mul(&block.taps.get(k + 1)?)?)?;
    }
    s.past.insert(0, spike);
    s.past.truncate(c.delays.0 - 1);
    let p = psi.matmul(&block.projection.t()?)?;
    let (u, bb, cc) = (p.narrow(1, 0, d)?, p.narrow(1, d, n)?, p.narrow(1, d + n, n)?);
    let z = match c.delta_input {
        DeltaInput::Full => psi.matmul(&block.delta.t()?)?,
        DeltaInput::Group => psi.reshape((b, h, j / h))?.broadcast_mul(&block.delta)?.sum(2)?,
    };
    let zb = z.broadcast_add(&block.bias)?;
    let delta = (zb.exp()? + 1.0)?.log()?; // [B, H]
    let a = delta.broadcast_mul(&block.a_log.exp()?)?.neg()?.exp()?;
    let spread = |t: &Tensor| t.unsqueeze(2)?.repeat((1, 1, d / h))?.reshape((b, 1, d)); // [B, 1, D]
    let du = (spread(&delta)?.squeeze(1)? * &u)?;
    s.h = (s.h.broadcast_mul(&spread(&a)?)? + bb.unsqueeze(2)?.broadcast_mul(&du.unsqueeze(1)?)?)?; // [B, N, D]
    let y = (cc.unsqueeze(2)?.broadcast_mul(&s.h)?.sum(1)? + u.broadcast_mul(&block.skip)?)?;
    s.v = neuron_slow(&block.post, &c.post, &s.v, &y)?;
    let mut out = s.v.apply_op1(Fire(block.post))?.matmul(&block.out.t()?)?;
    if let Some(gate) = &block.gate {
        out = (out * psi.matmul(&gate.t()?)?.silu()?)?;
    }
    assert_eq!(s.h.dims(), [b, n, d]);
    Ok((x + out)?)
}

fn bptt_slow<T: Real>(c: &BimConfig) -> Result<Grads> {
    let mut params = Params::new(5, T::DTYPE, &Device::Cpu);
    let network: Network<T> = Network::new(c, &io(STREAMS), &mut params)?;
    let x = random("x", &[STREAMS, STEPS, FRAME], T::DTYPE);
    let target = random("y", &[STREAMS, STEPS, OUTPUTS], T::DTYPE);
    let (j, d, n) = (c.width.0, c.channels.0, c.state.0);
    let zeros = |shape: &[usize]| Tensor::zeros(shape, T::DTYPE, &Device::Cpu);
    let mut states = (0..c.layers.0)
        .map(|_| {
            let past = (1..c.delays.0).map(|_| zeros(&[STREAMS, j])).collect::<candle_core::Result<_>>()?;
            Ok(SlowState { v_in: zeros(&[STREAMS, j])?, past, h: zeros(&[STREAMS, n, d])?, v: zeros(&[STREAMS, d])? })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut total: Option<Tensor> = None;
    for t in 0..STEPS {
        let mut r = x.narrow(1, t, 1)?.squeeze(1)?.matmul(&network.embedding.t()?)?;
        for (block, state) in network.blocks.iter().zip(&mut states) {
            r = block_slow(block, c, &r, state)?;
        }
        let rms = (r.sqr()?.mean_keepdim(D::Minus1)? + 1e-6)?.sqrt()?;
        let normed = r.broadcast_div(&rms)?.broadcast_mul(&network.gain)?;
        let logits = normed.matmul(&network.head.t()?)?.broadcast_add(&network.head_bias)?;
        let step = loss(&logits, &target.narrow(1, t, 1)?.squeeze(1)?)?;
        total = Some(match total {
            Some(sum) => (sum + step)?,
            None => step,
        });
    }
    let mut grads = Grads::new();
    collect(&params, &total.expect("at least one step"), &mut grads)?;
    Ok(grads)
}

/// Largest difference per parameter, relative to the parameter's largest gradient.
fn error(got: &[f64], want: &[f64]) -> f64 {
    let scale = want.iter().fold(1e-12f64, |m, x| m.max(x.abs()));
    got.iter().zip(want).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / scale
}

/// Parameters in front of `ψ`: their credit through the state space is that of a lower layer, so it stays in the chunk.
fn upstream(name: &str) -> bool {
    name == "embedding" || name.ends_with("norm.gain") && name != "norm.gain" || name.ends_with("delays")
}

fn assert_close(case: &str, got: &Grads, want: &Grads, tolerance: f64, keep: impl Fn(&str) -> bool) {
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
    for (name, want) in want.iter().filter(|(name, _)| keep(name)) {
        assert!(want.iter().any(|x| *x != 0.0), "{case}: {name} has no gradient at all, the test would be empty");
        let error = error(&got[name], want);
        assert!(error < tolerance, "{case}: {name} differs by {error:.1e}");
    }
}

#[test]
fn fused_operations_equal_step_by_step_autograd() -> Result<()> {
    for (name, neuron) in neurons() {
        for delta_input in [DeltaInput::Group, DeltaInput::Full] {
            let c = BimConfig { delta_input, ..config(2, neuron) };
            let case = format!("{name}, {delta_input:?}");
            // two orders of summation in f64
            assert_close(&case, &chunked::<f64>(&c, STEPS, None, &[])?, &bptt_slow::<f64>(&c)?, 1e-10, |_| true);
        }
    }
    Ok(())
}

#[test]
fn one_layer_is_exact_for_any_chunk_length() -> Result<()> {
    for (name, neuron) in neurons() {
        for delta_input in [DeltaInput::Group, DeltaInput::Full] {
            let c = BimConfig { credit: Credit::Exact, delta_input, ..config(1, neuron) };
            let want = chunked::<f64>(&c, STEPS, None, &[])?;
            for k in [1, 7, 32, STEPS] {
                let got = chunked::<f64>(&c, k, Some(Membrane::Traces), &[])?;
                assert_close(&format!("{name}, K = {k}"), &got, &want, 1e-10, |p| !upstream(p));
            }
        }
    }
    Ok(())
}

#[test]
fn replay_is_exact_where_the_membrane_forgets_within_a_chunk() -> Result<()> {
    let neuron = NeuronConfig { beta: Share(0.1), threshold: Positive(0.3), ..NeuronConfig::default() };
    let c = config(1, neuron);
    let want = chunked::<f64>(&c, STEPS, None, &[])?;
    for k in [16, 24] {
        assert_eq!(Membrane::choose(&c, k, 52), Membrane::Replay, "0.1^{k} is below f64 rounding");
        let got = chunked::<f64>(&c, k, Some(Membrane::Replay), &[])?;
        assert_close(&format!("K = {k}"), &got, &want, 1e-10, |p| !upstream(p));
    }
    Ok(())
}

#[test]
fn the_top_layer_of_a_stack_is_exact_and_whole_sequences_are_exact_everywhere() -> Result<()> {
    let (_, neuron) = neurons().swap_remove(1);
    let c = config(3, neuron);
    let want = chunked::<f64>(&c, STEPS, None, &[])?;
    for k in [1, 7, 32] {
        let got = chunked::<f64>(&c, k, Some(Membrane::Traces), &[])?;
        let top = |p: &str| (p.starts_with("layers.2.") || !p.starts_with("layers.")) && !upstream(p);
        assert_close(&format!("top layer, K = {k}"), &got, &want, 1e-10, top);
        assert!(
            error(&got["layers.0.projection"], &want["layers.0.projection"]) > 1e-3,
            "a lower layer is an approximation"
        );
    }
    let got = chunked::<f64>(&c, STEPS, Some(Membrane::Traces), &[])?;
    assert_close("K = T", &got, &want, 1e-10, |_| true);
    Ok(())
}

#[test]
fn streams_that_start_at_different_times_do_not_mix() -> Result<()> {
    let starts = [(0, 0), (0, 1), (0, 2), (13, 1), (20, 0), (20, 2), (35, 1)];
    let (_, neuron) = neurons().swap_remove(1);
    let c = config(1, neuron);
    // the reference runs each piece between starts of any stream as one chunk, so it needs carried credit too: compare
    // against chunk length one, where every bit of it is carried
    let long = chunked::<f64>(&c, STEPS, Some(Membrane::Traces), &starts)?;
    let short = chunked::<f64>(&c, 1, Some(Membrane::Traces), &starts)?;
    assert_close("resets", &short, &long, 1e-10, |p| !upstream(p));
    // and against recordings run on their own, each from rest
    let alone = recordings_alone(&c, &starts)?;
    assert_close("alone", &short, &alone, 1e-10, |p| !upstream(p));
    Ok(())
}

/// Every recording by itself in a network of one stream, by backpropagation over its whole length.
fn recordings_alone(c: &BimConfig, starts: &[(usize, usize)]) -> Result<Grads> {
    let x = random("x", &[STREAMS, STEPS, FRAME], DType::F64);
    let target = random("y", &[STREAMS, STEPS, OUTPUTS], DType::F64);
    let mut grads = Grads::new();
    for &(from, b) in starts {
        let to = starts.iter().filter(|s| s.1 == b && s.0 > from).map(|s| s.0).min().unwrap_or(STEPS);
        let mut params = Params::new(5, DType::F64, &Device::Cpu);
        let network: Network<f64> = Network::new(c, &io(1), &mut params)?;
        let cut = |t: &Tensor| t.narrow(0, b, 1)?.narrow(1, from, to - from);
        let (logits, _) = network.forward(&cut(&x)?, true)?;
        collect(&params, &loss(&logits, &cut(&target)?)?, &mut grads)?;
    }
    Ok(grads)
}

#[test]
fn single_precision_agrees_to_its_rounding() -> Result<()> {
    let neuron = NeuronConfig { beta: Share(0.1), threshold: Positive(0.3), ..NeuronConfig::default() };
    let c = config(1, neuron);
    let want = chunked::<f32>(&c, STEPS, None, &[])?;
    for (k, membrane) in [(1, Membrane::Traces), (7, Membrane::Traces), (16, Membrane::Replay)] {
        let got = chunked::<f32>(&c, k, Some(membrane), &[])?;
        assert_close(&format!("f32, K = {k}"), &got, &want, 1e-4, |p| !upstream(p));
    }
    Ok(())
}
