//! STDP against its definition, a double sum over pairs of spikes: in the kernel, and in the learner, which has to find the
//! right spikes for every pathway, group of streams and recording.

use bim::config::{Bounds, Count, NeuronConfig, NonNegative, Positive, Share, StdpConfig};
use bim::kernels::stdp::{PairState, Window, accumulate};
use bim::{Bim, BimConfig, Optimizer};
use candle_core::{DType, Device, Tensor, Var};
use learner::{InputKind, Io, Learner, Predictor, Result, Snapshot, Targets};

use crate::common::{Grads, error, numbers, random};
use crate::twin::{Spikes, Twin};

/// Unequal in everything that could be exchanged.
pub fn unequal() -> StdpConfig {
    StdpConfig {
        a_plus: NonNegative(1.3),
        a_minus: NonNegative(0.7),
        tau_plus: Positive(4.0),
        tau_minus: Positive(9.0),
        at_zero: 0.2,
        ..StdpConfig::default()
    }
}

/// `W(Δt)`, `Δt = t_post − t_pre` (eq. 6).
fn window(c: &StdpConfig, dt: f64) -> f64 {
    if dt > 0.0 {
        c.a_plus.0 * (-dt / c.tau_plus.0).exp()
    } else if dt < 0.0 {
        -c.a_minus.0 * (dt / c.tau_minus.0).exp()
    } else {
        c.at_zero
    }
}

/// Spikes of one end of a pathway, step by step: `[B, neurons]` each.
pub type Train = Vec<Tensor>;

/// `Ω` `[post, pre]` of the pairs whose later spike falls into steps `from ..`, over all streams; `starts` lists (step, stream)
/// where a recording begins: no pair spans one.
pub fn pair_sum(c: &StdpConfig, pre: &Train, post: &Train, from: usize, starts: &[(usize, usize)]) -> Result<Vec<f64>> {
    let rows = |train: &Train| train.iter().map(|t| Ok(t.to_vec2::<f64>()?)).collect::<Result<Vec<_>>>();
    let (pre, post) = (rows(pre)?, rows(post)?);
    let (j, d) = (pre[0][0].len(), post[0][0].len());
    let mut omega = vec![0.0; d * j];
    for stream in 0..pre[0].len() {
        let recording = |t: usize| starts.iter().filter(|s| s.1 == stream && s.0 <= t).count();
        for t_post in 0..post.len() {
            for t_pre in (0..pre.len()).filter(|&t| t.max(t_post) >= from && recording(t) == recording(t_post)) {
                let w = window(c, t_post as f64 - t_pre as f64);
                for i in 0..d {
                    for k in 0..j {
                        omega[i * j + k] += w * post[t_post][stream][i] * pre[t_pre][stream][k];
                    }
                }
            }
        }
    }
    Ok(omega)
}

/// The two ends of every pathway whose spikes are paired, by the parameter that holds its weights: `W_u` from the neurons in
/// front of a block to those behind it, `W_out` from there to the next block's, counted by channel (OFF cells negative).
pub fn pathways(c: &BimConfig, spikes: &[Spikes]) -> Result<Vec<(String, Train, Train)>> {
    let train = |l: usize, end: usize| -> Train { spikes.iter().map(|step| step.blocks[l][end].detach()).collect() };
    let on_channels = |t: &Tensor| -> Result<Tensor> {
        let (width, b) = (c.width.0, t.dim(0)?);
        let mut sum = Tensor::zeros((b, width), DType::F64, &Device::Cpu)?;
        for cells in 0..c.population.0 {
            let part = t.narrow(1, cells * width, width)?;
            sum = if cells % 2 == 0 { (sum + part)? } else { (sum - part)? };
        }
        Ok(sum)
    };
    let mut all = Vec::new();
    for l in 0..c.layers.0 {
        all.push((format!("layers.{l}.projection"), train(l, 0), train(l, 1)));
        if l + 1 < c.layers.0 {
            let next: Train = train(l + 1, 0).iter().map(on_channels).collect::<Result<_>>()?;
            all.push((format!("layers.{l}.out"), train(l, 1), next));
        }
    }
    Ok(all)
}

/// The twin of a learner's weights.
pub fn twin_of(c: &BimConfig, streams: usize, snapshot: &Snapshot) -> Result<Twin> {
    Twin::new(c, streams, wide(snapshot)?)
}

/// A learner's weights in double precision.
pub fn wide(snapshot: &Snapshot) -> Result<std::collections::BTreeMap<String, Tensor>> {
    let vars = snapshot.weights.iter().map(|(n, w)| Ok((n.clone(), Var::from_tensor(&w.to_dtype(DType::F64)?)?)));
    Ok(Twin::on(&vars.collect::<Result<Vec<_>>>()?))
}

#[test]
fn several_streams_with_unequal_windows_equal_the_double_sum() -> Result<()> {
    const STREAMS: usize = 3;
    let (j, d, steps) = (5, 4, 40);
    let starts = [(8, 1), (20, 1), (28, 0)];
    let spikes = |name: &str, width: usize| -> Result<Train> {
        let level = |x: f64| if x > 1.3 { 2.0 } else { f64::from(i8::from(x > 0.4)) - f64::from(i8::from(x < -1.0)) };
        let all = numbers(&random(name, &[steps, STREAMS, width], DType::F64))?.into_iter().map(level);
        let all = Tensor::from_vec(all.collect::<Vec<f64>>(), (steps, STREAMS, width), &Device::Cpu)?;
        (0..steps).map(|t| Ok(all.get(t)?)).collect()
    };
    let (pre, post) = (spikes("pre", j)?, spikes("post", d)?);
    let c = unequal();
    let want = pair_sum(&c, &pre, &post, 0, &starts)?;
    let flat = |train: &Train, from: usize, to: usize| numbers(&Tensor::stack(&train[from..to], 0)?);
    for chunk in [1, 3, 4, steps] {
        let (mut state, mut omega, mut t) = (PairState::<f64>::new(STREAMS, j, d), vec![0.0; d * j], 0);
        while t < steps {
            for &(_, stream) in starts.iter().filter(|s| s.0 == t) {
                state.reset(stream);
            }
            let next = starts.iter().map(|s| s.0).filter(|s| *s > t).min().unwrap_or(steps);
            let end = (t + chunk).min(next);
            accumulate(&Window::new(&c), &flat(&pre, t, end)?, &flat(&post, t, end)?, &mut state, &mut omega);
            t = end;
        }
        assert!(error(&omega, &want) < 1e-12, "chunks of {chunk}"); // rounding
    }
    Ok(())
}

const STEPS: usize = 44;
/// With segments of 64 steps two streams make a group.
const SEGMENT: usize = 64;
const STREAMS: usize = 3;
const STARTS: [(usize, usize); 2] = [(17, 1), (30, 2)];

fn config(stdp: StdpConfig) -> BimConfig {
    let neuron = NeuronConfig { threshold: Positive(0.4), beta: Share(0.3), ..NeuronConfig::default() };
    BimConfig {
        width: Count(6),
        population: Count(2),
        channels: Count(8),
        state: Count(3),
        heads: Count(2),
        layers: Count(2),
        pre: neuron,
        post: neuron,
        lambda: Share(0.5),
        stdp: StdpConfig { bounds: Bounds::None, ..stdp },
        ..BimConfig::default()
    }
}

/// A learner after chunks without supervision, so that it collects pairs but changes nothing; with what it started from.
fn observed(c: &BimConfig) -> Result<[Snapshot; 2]> {
    let io = Io { input: InputKind::Tokens { vocabulary: 7 }, outputs: 7, streams: STREAMS, segment: SEGMENT };
    let mut bim = Bim::new(c, io, Optimizer::constant(0.1), 2, &Device::Cpu)?;
    let start = bim.save()?;
    let x = tokens()?;
    for bounds in [0, 5, 17, 19, 30, STEPS].windows(2) {
        let (t, len) = (bounds[0], bounds[1] - bounds[0]);
        bim.reset(&(0..STREAMS).map(|b| t == 0 || STARTS.contains(&(t, b))).collect::<Vec<_>>())?;
        let x = x.narrow(1, t, len)?.contiguous()?;
        bim.predict(&x)?;
        let weight = Tensor::zeros((STREAMS, len), DType::F32, &Device::Cpu)?;
        assert!(bim.learn(&Targets::Classes { class: x, weight })?.loss.is_none());
    }
    Ok([start, bim.save()?])
}

fn tokens() -> Result<Tensor> {
    let ids = numbers(&random("tokens", &[STREAMS, STEPS], DType::F64))?;
    let ids: Vec<u32> = ids.into_iter().map(|x| (x.abs() * 1e6) as u32 % 7).collect();
    Ok(Tensor::from_vec(ids, (STREAMS, STEPS), &Device::Cpu)?)
}

/// All spikes of the same recordings, from the twin.
fn twin_spikes(c: &BimConfig, start: &Snapshot) -> Result<Vec<Spikes>> {
    let (mut twin, x, mut spikes) = (twin_of(c, STREAMS, start)?, tokens()?, Vec::new());
    for t in 0..STEPS {
        twin.reset(&(0..STREAMS).map(|b| STARTS.contains(&(t, b))).collect::<Vec<_>>())?;
        spikes.extend(twin.run(&x.narrow(1, t, 1)?)?.1);
    }
    assert!(twin.margin > 1e-6, "a spike hangs on {:.1e}, rounding could turn it; change the data", twin.margin);
    Ok(spikes)
}

fn omegas(snapshot: &Snapshot) -> Result<Grads> {
    let omega = snapshot.optimizer.iter().filter_map(|(n, t)| Some((n.strip_suffix(".plasticity.omega")?, t)));
    omega.map(|(name, t)| Ok((name.to_owned(), numbers(t)?))).collect()
}

#[test]
fn the_learner_pairs_the_right_spikes_of_every_recording() -> Result<()> {
    let c = config(unequal());
    let [start, end] = observed(&c)?;
    let got = omegas(&end)?;
    let spikes = twin_spikes(&c, &start)?;
    for (name, pre, post) in pathways(&c, &spikes)? {
        let want = pair_sum(&c.stdp, &pre, &post, 0, &STARTS)?;
        assert!(want.iter().filter(|x| **x != 0.0).count() > want.len() / 2, "{name}: the test would be nearly empty");
        assert_eq!(got[&name].len(), want.len(), "{name}");
        let error = error(&got[&name], &want);
        assert!(error < 1e-5, "{name} differs by {error:.1e}"); // single precision
    }
    assert!(got["layers.1.out"].iter().all(|x| *x == 0.0), "no neuron is behind the last block");
    Ok(())
}

/// The control: the presynaptic spikes of each chunk in random order of time. Every neuron fires as often as before, and
/// who fires together stays; when, goes.
#[test]
fn shuffled_spikes_keep_their_rates_and_lose_their_timing() -> Result<()> {
    // without decay the traces are counts of spikes
    let forever = StdpConfig { tau_plus: Positive(1e12), tau_minus: Positive(1e12), ..unequal() };
    let [_, straight] = observed(&config(forever))?;
    let [_, shuffled] = observed(&config(StdpConfig { shuffled: true, ..forever }))?;
    let mut counted = 0.0;
    for (name, counts) in straight.state.iter().filter(|(n, _)| n.contains(".plasticity.")) {
        let (a, b) = (numbers(counts)?, numbers(&shuffled.state[name])?);
        assert!(error(&a, &b) < 1e-6, "{name}: {a:?} {b:?}");
        counted += a.iter().map(|x| x.abs()).sum::<f64>();
    }
    assert!(counted > 100.0, "{counted} spikes: the test would be nearly empty");
    let (a, b) = (omegas(&straight)?, omegas(&shuffled)?);
    for name in ["layers.0.projection", "layers.0.out", "layers.1.projection"] {
        assert!(error(&a[name], &b[name]) > 0.01, "{name}: the order made no difference");
    }
    Ok(())
}
