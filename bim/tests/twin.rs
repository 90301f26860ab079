//! The network once more, step by step from its equations, in plain tensor operations under automatic differentiation. It
//! shares nothing with the implementation but the names and shapes of the parameters: its neuron is its own.

use std::collections::BTreeMap;

use bim::BimConfig;
use bim::config::{DecayForm, DeltaInput, Levels, NeuronConfig, Reset, Step, Surrogate};
use candle_core::{D, DType, Device, Tensor, Var};
use learner::Result;

/// A population of neurons, from what the documentation of [`NeuronConfig`] says.
pub struct Cell {
    c: NeuronConfig,
    /// Lowest level, and the potential above which each further level is reached; none without spikes.
    staircase: Option<(f64, Vec<f64>)>,
}

impl Cell {
    pub fn new(c: &NeuronConfig) -> Self {
        let (theta, burst) = (c.threshold.0, c.burst.0 as i32);
        let stairs = |lowest: i32, highest: i32| {
            // level k from (k − ½) ϑ on
            let edges = (lowest + 1..=highest).map(|k| (f64::from(k) - 0.5) * theta).collect();
            Some((f64::from(lowest), edges))
        };
        let staircase = match c.levels {
            Levels::Binary => Some((0.0, vec![theta])),
            Levels::Signed => stairs(-1, 1),
            Levels::Integer => stairs(-burst, burst),
            Levels::Unsigned => stairs(0, burst),
            // as many codes around zero as the bits hold; one bit holds 0 and 1
            Levels::Quantised if c.bits.0 == 1 => stairs(0, 1),
            Levels::Quantised => stairs(1 - (1 << (c.bits.0 - 1)), (1 << (c.bits.0 - 1)) - 1),
            Levels::Analog => None,
        };
        Self { c: *c, staircase }
    }

    /// Level at potential `v`.
    pub fn fire(&self, v: f64) -> f64 {
        let Some((lowest, edges)) = &self.staircase else { return v };
        let binary = self.c.levels == Levels::Binary;
        lowest + edges.iter().filter(|&&edge| if binary { v > edge } else { v >= edge }).count() as f64
    }

    /// Numbers are rounded straight through, whatever the surrogate of spikes.
    fn surrogate(&self) -> Surrogate {
        if self.c.levels == Levels::Quantised { Surrogate::Rectangular } else { self.c.surrogate }
    }

    /// Surrogate derivative at potential `v`.
    pub fn slope(&self, v: f64) -> f64 {
        let Some((_, edges)) = &self.staircase else { return 1.0 };
        let theta = self.c.threshold.0;
        let nearest = edges.iter().map(|edge| (v - edge).abs()).fold(f64::INFINITY, f64::min);
        match self.surrogate() {
            Surrogate::Rectangular => {
                // one step of the staircase per ϑ, and one more at either end; binary: one step around its threshold
                let reach = if self.c.levels == Levels::Binary { theta / 2.0 } else { theta };
                f64::from(u8::from(nearest <= reach)) / theta
            }
            Surrogate::FastSigmoid => (1.0 + self.c.surrogate_slope.0 * nearest).powi(-2),
        }
    }

    /// How far `v` is from a potential where firing or its derivative jumps.
    fn margin(&self, v: f64) -> f64 {
        let Some((_, edges)) = &self.staircase else { return f64::INFINITY };
        let theta = self.c.threshold.0;
        let reach = if self.c.levels == Levels::Binary { theta / 2.0 } else { theta };
        let ends = match self.surrogate() {
            Surrogate::Rectangular => vec![edges[0] - reach, edges[edges.len() - 1] + reach],
            Surrogate::FastSigmoid => Vec::new(),
        };
        edges.iter().chain(&ends).map(|edge| (v - edge).abs()).fold(f64::INFINITY, f64::min)
    }

    /// [`Cell::margin`] over all potentials, in thresholds where steps are learned.
    fn nearest(&self, v: &Tensor, logarithms: Option<&Tensor>) -> Result<f64> {
        let v = match logarithms {
            Some(logarithms) => (v.broadcast_div(&logarithms.exp()?)? * self.c.threshold.0)?,
            None => v.clone(),
        };
        let all = v.flatten_all()?.to_vec1::<f64>()?.into_iter().map(|v| self.margin(v));
        Ok(all.fold(f64::INFINITY, f64::min))
    }

    /// What a population with steps of its own (logarithms `[J]`) does: its levels, and what arrives, `[B, J]` each. Potentials
    /// and the surrogate are measured in steps, so that the step has its share in where a level begins and in what is sent.
    fn stepped(&self, v: &Tensor, logarithms: &Tensor) -> Result<(Tensor, Tensor)> {
        let theta = self.c.threshold.0;
        let step = logarithms.exp()?;
        let in_steps = v.broadcast_div(&step)?;
        let numbers = |t: &Tensor| -> Result<Vec<f64>> { Ok(t.flatten_all()?.to_vec1::<f64>()?) };
        let (x, each) = (numbers(&in_steps)?, numbers(&step.broadcast_as(v.dims())?.contiguous()?)?);
        let of = |f: &dyn Fn(f64, f64) -> f64| {
            let values: Vec<f64> = x.iter().zip(&each).map(|(&x, &step)| f(x, step)).collect();
            Tensor::from_vec(values, v.dims(), &Device::Cpu)
        };
        let levels = of(&|x, _| self.fire(x * theta))?;
        // ∂k/∂(V/step)
        let slope = of(&|x, step| match self.surrogate() {
            Surrogate::Rectangular => self.slope(x * theta) * theta,
            Surrogate::FastSigmoid => {
                let Some((_, edges)) = &self.staircase else { return 1.0 };
                let nearest = edges.iter().map(|edge| (x - edge / theta).abs() * step).fold(f64::INFINITY, f64::min);
                step * (1.0 + self.c.surrogate_slope.0 * nearest).powi(-2)
            }
        })?;
        let k = (levels + ((&in_steps - in_steps.detach())? * slope)?)?;
        let arrives = k.broadcast_mul(&step)?;
        Ok((k, arrives))
    }

    /// Levels, and what arrives of them.
    fn send(&self, v: &Tensor, logarithms: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        assert_eq!(self.c.step == Step::Learned, logarithms.is_some(), "a parameter where the step is learned");
        match logarithms {
            Some(logarithms) => self.stepped(v, logarithms),
            None => self.spikes(v).map(|s| (s.clone(), s)),
        }
    }

    /// `s = fire(V)` whose derivative is the surrogate.
    fn spikes(&self, v: &Tensor) -> Result<Tensor> {
        let values = v.flatten_all()?.to_vec1::<f64>()?;
        let of = |f: &dyn Fn(f64) -> f64| {
            Tensor::from_vec(values.iter().map(|&v| f(v)).collect::<Vec<_>>(), v.dims(), &Device::Cpu)
        };
        let (level, slope) = (of(&|v| self.fire(v))?, of(&|v| self.slope(v))?);
        Ok((level + ((v - v.detach())? * slope)?)?)
    }

    /// `V ← β V + (1 − β) R I − ρ s`.
    fn step(&self, v: &Tensor, current: &Tensor, logarithms: Option<&Tensor>) -> Result<Tensor> {
        let (beta, theta) = (self.c.beta.0, self.c.threshold.0);
        let taken = match (self.c.levels, self.c.reset) {
            (Levels::Analog | Levels::Quantised, _) | (_, Reset::None) => 0.0,
            (_, Reset::Subtract) => theta,
            (_, Reset::Leaky) => beta * theta,
        };
        let next = ((v * beta)? + (current * ((1.0 - beta) * self.c.resistance.0))?)?;
        if taken == 0.0 {
            return Ok(next);
        }
        if logarithms.is_some() {
            // as much as what was sent, detached
            let (_, sent) = self.send(v, logarithms)?;
            return Ok((next - (sent.detach() * (taken / theta))?)?);
        }
        let spikes = self.spikes(v)?;
        let spikes = if self.c.attached_reset { spikes } else { spikes.detach() };
        Ok((next - (spikes * taken)?)?)
    }
}

/// What a layer remembers, streams first.
struct State {
    x: Vec<Tensor>,
    v_in: Tensor,
    s: Vec<Tensor>,
    psi: Tensor,
    h: Tensor,
    v: Tensor,
}

impl State {
    fn map(&mut self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
        let Self { x, v_in, s, psi, h, v } = self;
        for part in x.iter_mut().chain(s).chain([v_in, psi, h, v]) {
            *part = f(part)?;
        }
        Ok(())
    }
}

/// Levels of one step.
pub struct Spikes {
    /// Layer by layer: at the input `[B, J]` and at the output `[B, D]` of the block.
    pub blocks: Vec<[Tensor; 2]>,
    /// Of the neurons in front of the output layer, where there are any `[B, width]`.
    pub read: Option<Tensor>,
}

/// A running network on the graph of its parameters.
pub struct Twin {
    c: BimConfig,
    params: BTreeMap<String, Tensor>,
    layers: Vec<State>,
    /// Nearest that any membrane potential came to where its neuron's answer jumps.
    pub margin: f64,
}

impl Twin {
    /// All streams at rest.
    pub fn new(c: &BimConfig, streams: usize, params: BTreeMap<String, Tensor>) -> Result<Self> {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F64, &Device::Cpu);
        let (j, d, n) = (c.neurons(), c.channels.0, c.state.0);
        let layer = |_| {
            let (v_in, psi) = (zeros(&[streams, j])?, zeros(&[streams, j])?);
            let (h, v) = (zeros(&[streams, n, d])?, zeros(&[streams, d])?);
            Ok(State { x: Vec::new(), v_in, s: Vec::new(), psi, h, v })
        };
        let layers = (0..c.layers.0).map(layer).collect::<Result<_>>()?;
        Ok(Self { c: c.clone(), params, layers, margin: f64::INFINITY })
    }

    /// The tensors of variables by name.
    pub fn on(vars: &[(String, Var)]) -> BTreeMap<String, Tensor> {
        vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect()
    }

    /// Goes on with other weights.
    pub fn set_params(&mut self, params: BTreeMap<String, Tensor>) {
        self.params = params;
    }

    /// Puts the marked streams to rest.
    pub fn reset(&mut self, starts: &[bool]) -> Result<()> {
        let keep: Vec<f64> = starts.iter().map(|&start| f64::from(u8::from(!start))).collect();
        let keep = Tensor::from_vec(keep, starts.len(), &Device::Cpu)?;
        for layer in &mut self.layers {
            layer.map(|t| {
                let mut shape = vec![1; t.rank()];
                shape[0] = starts.len();
                Ok(t.broadcast_mul(&keep.reshape(shape)?)?)
            })?;
        }
        Ok(())
    }

    /// No credit passes from here on to what was before.
    pub fn detach(&mut self) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| layer.map(|t| Ok(t.detach())))
    }

    /// One step: tokens `[B]` or frames `[B, F]` → logits `[B, O]`, and the spikes.
    pub fn step(&mut self, x: &Tensor) -> Result<(Tensor, Spikes)> {
        let embedding = &self.params["embedding"];
        let mut r = match x.dtype() {
            DType::U32 => embedding.index_select(x, 0)?,
            _ => x.matmul(&embedding.t()?)?,
        };
        let mut blocks = Vec::new();
        for l in 0..self.layers.len() {
            let out;
            (r, out) = self.block(l, &r)?;
            blocks.push(out);
        }
        let mut normed = normalize(&r)?.broadcast_mul(&self.params["norm.gain"])?;
        let mut read = None;
        if self.c.readout.is_there() {
            let (cell, step) = (Cell::new(&self.c.readout.neuron()), self.params.get("readout.step"));
            self.margin = self.margin.min(cell.nearest(&normed, step)?);
            let (k, sent) = cell.send(&normed, step)?;
            (read, normed) = (Some(k), sent);
        }
        let logits = normed.matmul(&self.params["head.weight"].t()?)?.broadcast_add(&self.params["head.bias"])?;
        Ok((logits, Spikes { blocks, read }))
    }

    /// Several steps: `[B, K, ..]` → logits `[B, K, O]`, and each step's spikes.
    pub fn run(&mut self, x: &Tensor) -> Result<(Tensor, Vec<Spikes>)> {
        let (mut logits, mut spikes) = (Vec::new(), Vec::new());
        for t in 0..x.dim(1)? {
            let (z, s) = self.step(&x.narrow(1, t, 1)?.squeeze(1)?.contiguous()?)?;
            logits.push(z);
            spikes.push(s);
        }
        Ok((Tensor::stack(&logits, 1)?, spikes))
    }

    /// One block, `[B, width]` → `[B, width]`.
    fn block(&mut self, l: usize, x: &Tensor) -> Result<(Tensor, [Tensor; 2])> {
        let (c, params, s) = (&self.c, &self.params, &mut self.layers[l]);
        let p = |name: &str| params.get(&format!("layers.{l}.{name}"));
        let get = |name: &str| &params[&format!("layers.{l}.{name}")];
        let (b, j) = (x.dim(0)?, c.neurons());
        let (d, n, h) = (c.channels.0, c.state.0, c.heads.0);
        let (pre, post) = (Cell::new(&c.pre), Cell::new(&c.post));

        let mut drive = line(p("conv"), &normalize(x)?, &mut s.x)?;
        if c.silu {
            drive = drive.silu()?;
        }
        let mut current = drive.repeat((1, c.population.0))?.broadcast_mul(get("norm.gain"))?;
        if let Some(external) = p("pre.current") {
            current = current.broadcast_add(external)?;
        }
        s.v_in = pre.step(&s.v_in, &current, p("pre.step"))?;
        let (s_in, sent) = pre.send(&s.v_in, p("pre.step"))?;
        let psi = (line(p("delays"), &sent, &mut s.s)? + (&s.psi * c.kernel.0)?)?;
        s.psi = psi.clone();

        let projected = psi.matmul(&get("projection").t()?)?;
        let (u, bb, cc) = (projected.narrow(1, 0, d)?, projected.narrow(1, d, n)?, projected.narrow(1, d + n, n)?);
        let z = match c.delta_input {
            DeltaInput::Full => psi.matmul(&get("delta.weight").t()?)?,
            DeltaInput::Group => psi.reshape((b, h, j / h))?.broadcast_mul(get("delta.weight"))?.sum(2)?,
        };
        let delta = (z.broadcast_add(get("delta.bias"))?.exp()? + 1.0)?.log()?; // [B, H]
        let delta = delta.unsqueeze(2)?.repeat((1, 1, d / h))?.reshape((b, 1, d))?; // [B, 1, D]
        let rate = get("a_log").exp()?;
        let rate = match c.decay {
            DecayForm::Head => rate.unsqueeze(1)?.repeat((1, d / h))?.reshape((1, 1, d))?,
            DecayForm::ChannelState => rate.unsqueeze(0)?,
        };
        let a = delta.broadcast_mul(&rate)?.neg()?.exp()?; // [B, 1 or N, D]
        let du = (delta.squeeze(1)? * &u)?;
        s.h = (s.h.broadcast_mul(&a)? + bb.unsqueeze(2)?.broadcast_mul(&du.unsqueeze(1)?)?)?; // [B, N, D]
        let mut y = (cc.unsqueeze(2)?.broadcast_mul(&s.h)?.sum(1)? + u.broadcast_mul(get("skip"))?)?;
        if let Some(external) = p("post.current") {
            y = y.broadcast_add(external)?;
        }
        s.v = post.step(&s.v, &y, p("post.step"))?;
        let (s_out, sent) = post.send(&s.v, p("post.step"))?;
        let mut out = sent.matmul(&get("out").t()?)?;
        if let Some(gate) = p("gate") {
            out = (out * psi.matmul(&gate.t()?)?.silu()?)?;
        }
        assert_eq!(s.h.dims(), [b, n, d]);
        for (cell, v, step) in [(&pre, &s.v_in, "pre.step"), (&post, &s.v, "post.step")] {
            self.margin = self.margin.min(cell.nearest(v, p(step))?);
        }
        Ok(((x + out)?, [s_in, s_out]))
    }
}

fn normalize(x: &Tensor) -> Result<Tensor> {
    let rms = (x.sqr()?.mean_keepdim(D::Minus1)? + 1e-6)?.sqrt()?;
    Ok(x.broadcast_div(&rms)?)
}

/// `Σ_i taps[i] · latest[i]`, with `now` put in front of the history.
fn line(taps: Option<&Tensor>, now: &Tensor, history: &mut Vec<Tensor>) -> Result<Tensor> {
    let Some(taps) = taps else { return Ok(now.clone()) };
    history.insert(0, now.clone());
    history.truncate(taps.dim(0)?);
    let mut sum = now.zeros_like()?;
    for (i, x) in history.iter().enumerate() {
        sum = (sum + x.broadcast_mul(&taps.get(i)?)?)?;
    }
    Ok(sum)
}

/// Cross-entropy of logits `[B, K, O]` in nats, a weighted mean over steps; `None` if none of them counts.
pub fn cross_entropy(logits: &Tensor, class: &Tensor, weight: &Tensor) -> Result<Option<Tensor>> {
    let weight = weight.to_dtype(DType::F64)?;
    let total = weight.sum_all()?.to_scalar::<f64>()?;
    if total == 0.0 {
        return Ok(None);
    }
    let right = logits.gather(&class.unsqueeze(2)?, 2)?.squeeze(2)?;
    let nll = (logits.exp()?.sum(2)?.log()? - right)?;
    Ok(Some(((nll * weight)?.sum_all()? / total)?))
}

/// The price of the spikes: for either end its weight times the mean of `|s|` over neurons, steps and all streams, summed
/// over layers.
pub fn price(c: &BimConfig, spikes: &[Spikes]) -> Result<Tensor> {
    let mut sum = Tensor::zeros((), DType::F64, &Device::Cpu)?;
    for step in spikes {
        let blocks = step.blocks.iter().flat_map(|ends| ends.iter().zip([c.pre.penalty.0, c.post.penalty.0]));
        for (s, weight) in blocks.chain(step.read.iter().map(|s| (s, c.readout.penalty.0))) {
            let magnitude = (s * s.detach().sign()?)?;
            sum = (sum + (magnitude.mean_all()? * (weight / spikes.len() as f64))?)?;
        }
    }
    Ok(sum)
}
