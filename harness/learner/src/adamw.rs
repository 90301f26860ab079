use candle_core::{DType, Tensor, Var};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::host::{with_f32, with_f32_mut};
use crate::{Error, Result, Snapshot};

/// `AdamW` with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay per unit of learning rate, for groups that decay.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.01 }
    }
}

/// How one parameter is treated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Factor on the learning rate.
    pub rate: f64,
    /// Whether weight decay applies: matrices yes; gains, biases and decays no.
    pub decays: bool,
}

impl Group {
    /// Matrices decay, vectors do not; both at the full learning rate.
    #[must_use]
    pub fn by_rank(var: &Var) -> Self {
        Self { rate: 1.0, decays: var.rank() >= 2 }
    }
}

struct Slot {
    name: String,
    var: Var,
    group: Group,
    first: Tensor,
    second: Tensor,
}

impl Slot {
    /// What a weight is multiplied with and what its direction is, in a step at `learning_rate`.
    fn factors(&self, config: &AdamWConfig, learning_rate: f64) -> (f64, f64) {
        let rate = learning_rate * self.group.rate;
        let decay = if self.group.decays { rate * config.weight_decay } else { 0.0 };
        (1.0 - decay, rate)
    }
}

/// The optimiser's state over a list of parameters.
pub struct AdamW {
    config: AdamWConfig,
    updates: u64,
    slots: Vec<Slot>,
    /// How a GPU's kernels divide the parameters.
    #[cfg(feature = "cuda")]
    chunks: Option<crate::device::Chunks>,
}

/// What [`AdamW::clipped_step`] did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stepped {
    /// L2 norm of the gradient over all parameters, before clipping.
    pub grad_norm: f64,
    /// L2 norm of the change of all parameters; `None` where the gradient is not finite, so that nothing was changed.
    pub update_norm: Option<f64>,
}

/// L2 norm over several tensors, in f64, in a fixed order.
///
/// # Errors
/// If a tensor cannot be read.
pub fn global_norm(tensors: &[Tensor]) -> Result<f64> {
    let (mut sum, mut elsewhere) = (0.0, Vec::new());
    for t in tensors {
        if t.device().is_cpu() && t.dtype() == DType::F32 {
            sum += with_f32(&t.contiguous()?, sum_of_squares)?;
        } else {
            elsewhere.push(t.sqr()?.sum_all()?.to_dtype(DType::F32)?);
        }
    }
    Ok((sum + read_sum(&elsewhere)?).sqrt())
}

/// Sum of `f32` scalars of one device, for which the host waits once.
fn read_sum(scalars: &[Tensor]) -> Result<f64> {
    if scalars.is_empty() {
        return Ok(0.0);
    }
    Ok(Tensor::stack(scalars, 0)?.to_vec1::<f32>()?.iter().map(|&s| f64::from(s)).sum())
}

/// Blocks of fixed length, so that the sum is the same for any number of threads.
const BLOCK: usize = 16_384;

fn sum_of_squares(v: &[f32]) -> f64 {
    let of_block = |block: &[f32]| {
        let mut squares = Squares::default();
        let (whole, rest) = block.as_chunks::<{ Squares::LANES }>();
        for x in whole {
            squares.add(x);
        }
        squares.add_rest(rest);
        squares.sum()
    };
    let partial: Vec<f64> = v.par_chunks(BLOCK).map(of_block).collect();
    partial.iter().sum()
}

/// A sum of squares as partial sums, which do not wait for each other.
#[derive(Default)]
struct Squares([f64; Squares::LANES]);

impl Squares {
    const LANES: usize = 16;

    #[inline]
    fn add(&mut self, x: &[f32; Self::LANES]) {
        for (sum, &x) in self.0.iter_mut().zip(x) {
            *sum += f64::from(x) * f64::from(x);
        }
    }

    fn add_rest(&mut self, rest: &[f32]) {
        for (sum, &x) in self.0.iter_mut().zip(rest) {
            *sum += f64::from(x) * f64::from(x);
        }
    }

    fn sum(&self) -> f64 {
        self.0.iter().sum()
    }
}

/// `w ← keep · w − rate · d`; returns the sum of squares of the change.
fn descend(w: &mut [f32], d: &[f32], keep: f32, rate: f32) -> f64 {
    let moved = |w: &mut f32, d: f32| {
        let old = *w;
        *w = keep * old - rate * d;
        *w - old
    };
    let mut squares = Squares::default();
    let ((whole_w, rest_w), (whole_d, rest_d)) =
        (w.as_chunks_mut::<{ Squares::LANES }>(), d.as_chunks::<{ Squares::LANES }>());
    for (w, d) in whole_w.iter_mut().zip(whole_d) {
        let mut moves = [0.0; Squares::LANES];
        for i in 0..Squares::LANES {
            moves[i] = moved(&mut w[i], d[i]);
        }
        squares.add(&moves);
    }
    let moves: Vec<f32> = rest_w.iter_mut().zip(rest_d).map(|(w, &d)| moved(w, d)).collect();
    squares.add_rest(&moves);
    squares.sum()
}

/// [`descend`] over a whole parameter, in blocks of fixed length.
fn descend_all(w: &Tensor, d: &[f32], keep: f32, rate: f32) -> Result<f64> {
    if d.len() != w.elem_count() {
        return Err(Error::shape("direction", w.elem_count(), d.len()));
    }
    with_f32_mut(w, |w| {
        if d.len() <= BLOCK {
            return descend(w, d, keep, rate);
        }
        let blocks = (w.par_chunks_mut(BLOCK), d.par_chunks(BLOCK)).into_par_iter();
        let partial: Vec<f64> = blocks.map(|(w, d)| descend(w, d, keep, rate)).collect();
        partial.iter().sum()
    })
}

/// L2 norm over several slices, in f64, in a fixed order.
#[must_use]
pub fn norm_of(slices: &[&[f32]]) -> f64 {
    slices.iter().map(|v| sum_of_squares(v)).sum::<f64>().sqrt()
}

/// One step of the moments in host memory.
#[derive(Clone, Copy)]
struct Moments {
    beta1: f32,
    beta2: f32,
    correct1: f32,
    correct2: f32,
    epsilon: f32,
    scale: f32,
}

impl Moments {
    /// Takes gradients `g` into the moments `m` and `v` and writes the directions.
    fn step(&self, g: &[f32], m: &mut [f32], v: &mut [f32], out: &mut [f32]) {
        let blocks = (m.par_chunks_mut(BLOCK), v.par_chunks_mut(BLOCK), g.par_chunks(BLOCK), out.par_chunks_mut(BLOCK));
        blocks.into_par_iter().for_each(|(m, v, g, o)| self.step_block(g, m, v, o));
    }

    fn step_block(&self, g: &[f32], m: &mut [f32], v: &mut [f32], o: &mut [f32]) {
        let n = g.len();
        let (m, v, o) = (&mut m[..n], &mut v[..n], &mut o[..n]);
        for i in 0..n {
            let gi = g[i] * self.scale;
            m[i] = self.beta1 * m[i] + (1.0 - self.beta1) * gi;
            v[i] = self.beta2 * v[i] + (1.0 - self.beta2) * gi * gi;
            o[i] = m[i] * self.correct1 / ((v[i] * self.correct2).sqrt() + self.epsilon);
        }
    }
}

impl AdamW {
    /// Fresh moments for these parameters.
    ///
    /// # Errors
    /// If a moment's decay is not from 0 to less than 1, or the moments cannot be allocated.
    pub fn new(config: AdamWConfig, params: impl IntoIterator<Item = (String, Var, Group)>) -> Result<Self> {
        for (key, beta) in [("beta1", config.beta1), ("beta2", config.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                let problem = format!("expected a number from 0 to less than 1, got {beta}");
                return Err(Error::Config { key, problem });
            }
        }
        let slots = params
            .into_iter()
            .map(|(name, var, group)| {
                let (first, second) = (var.zeros_like()?, var.zeros_like()?);
                Ok(Slot { name, var, group, first, second })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            config,
            updates: 0,
            slots,
            #[cfg(feature = "cuda")]
            chunks: None,
        })
    }

    /// Number of updates made.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Turns gradients (in the order of the parameters) into descent directions: bias-corrected first moment over the
    /// root of the second. Counts one update. Each direction has the parameter's shape.
    ///
    /// # Errors
    /// If a gradient's shape is not its parameter's.
    pub fn directions(&mut self, grads: &[Tensor], scale: f64) -> Result<Vec<Tensor>> {
        self.count_update(grads)?;
        let AdamWConfig { beta1, beta2, epsilon, .. } = self.config;
        let t = self.updates as f64;
        let (correct1, correct2) = (1.0 / (1.0 - beta1.powf(t)), 1.0 / (1.0 - beta2.powf(t)));
        let moments = self.moments(scale);
        self.slots
            .iter_mut()
            .zip(grads)
            .map(|(slot, grad)| {
                if grad.device().is_cpu() && grad.dtype() == DType::F32 {
                    let mut out = vec![0f32; grad.elem_count()];
                    // nested so that both moments are written in one pass
                    with_f32(&grad.contiguous()?, |g| {
                        with_f32_mut(&slot.first, |m| with_f32_mut(&slot.second, |v| moments.step(g, m, v, &mut out)))
                    })???;
                    Ok(Tensor::from_vec(out, slot.var.dims(), grad.device())?)
                } else {
                    let g = (grad * scale)?;
                    slot.first = ((&slot.first * beta1)? + (&g * (1.0 - beta1))?)?;
                    slot.second = ((&slot.second * beta2)? + (g.sqr()? * (1.0 - beta2))?)?;
                    Ok(((&slot.first * correct1)? / ((&slot.second * correct2)?.sqrt()? + epsilon)?)?)
                }
            })
            .collect()
    }

    /// [`AdamW::directions`] for gradients in plain host memory, into buffers that are used again.
    ///
    /// # Errors
    /// If a gradient's length is not its parameter's, or the parameters are not `f32` in host memory.
    pub fn directions_into(&mut self, grads: &[&[f32]], scale: f64, out: &mut [Vec<f32>]) -> Result<()> {
        if grads.len() != self.slots.len() || out.len() != self.slots.len() {
            return Err(Error::shape("gradients", self.slots.len(), grads.len()));
        }
        self.updates += 1;
        let moments = self.moments(scale);
        for ((slot, grad), out) in self.slots.iter().zip(grads).zip(out) {
            if grad.len() != slot.var.elem_count() {
                return Err(Error::shape(format!("gradient of {}", slot.name), slot.var.elem_count(), grad.len()));
            }
            out.resize(grad.len(), 0.0);
            with_f32_mut(&slot.first, |m| with_f32_mut(&slot.second, |v| moments.step(grad, m, v, out)))??;
        }
        Ok(())
    }

    /// [`AdamW::apply`] for directions in plain host memory.
    ///
    /// # Errors
    /// If a direction's length is not its parameter's, or the parameters are not `f32` in host memory.
    pub fn apply_from(&mut self, directions: &[Vec<f32>], learning_rate: f64) -> Result<f64> {
        if directions.len() != self.slots.len() {
            return Err(Error::shape("directions", self.slots.len(), directions.len()));
        }
        let mut squares = 0.0;
        for (slot, d) in self.slots.iter().zip(directions) {
            let (keep, rate) = slot.factors(&self.config, learning_rate);
            squares += descend_all(slot.var.as_tensor(), d, keep as f32, rate as f32)?;
        }
        Ok(squares.sqrt())
    }

    /// A step along the gradients, scaled down to a norm of `clip` if theirs is larger. On a GPU it is a few launches over all
    /// parameters, for which the host waits once.
    ///
    /// # Errors
    /// If a gradient's shape is not its parameter's.
    pub fn clipped_step(&mut self, grads: &[Tensor], clip: f64, learning_rate: f64) -> Result<Stepped> {
        #[cfg(feature = "cuda")]
        if self.slots.iter().all(|slot| crate::device::takes(&slot.var)) && grads.iter().all(crate::device::takes) {
            return self.step_on_device(grads, clip, learning_rate);
        }
        let grad_norm = global_norm(grads)?;
        if !grad_norm.is_finite() {
            return Ok(Stepped { grad_norm, update_norm: None });
        }
        let scale = if grad_norm > clip { clip / grad_norm } else { 1.0 };
        Ok(Stepped { grad_norm, update_norm: Some(self.step(grads, scale, learning_rate)?) })
    }

    #[cfg(feature = "cuda")]
    fn step_on_device(&mut self, grads: &[Tensor], clip: f64, learning_rate: f64) -> Result<Stepped> {
        let Some(device) = self.slots.first().map(|slot| slot.var.device().clone()) else {
            return Ok(Stepped { grad_norm: 0.0, update_norm: Some(0.0) });
        };
        self.count_update(grads)?;
        if self.chunks.is_none() {
            let lengths: Vec<usize> = self.slots.iter().map(|slot| slot.var.elem_count()).collect();
            self.chunks = Some(crate::device::Chunks::new(&lengths, &device)?);
        }
        let Some(chunks) = &self.chunks else { return Err(Error::shape("optimiser", "chunks", "none")) };
        let grads = grads.iter().map(|g| Ok(g.contiguous()?)).collect::<Result<Vec<_>>>()?;
        let Moments { beta1, beta2, correct1, correct2, epsilon, .. } = self.moments(1.0);
        let factors = self.slots.iter().map(|slot| slot.factors(&self.config, learning_rate));
        let (keep, rate) = factors.map(|(keep, rate)| (keep as f32, rate as f32)).unzip();
        let step = crate::device::Step {
            beta1,
            beta2,
            correct1,
            correct2,
            epsilon,
            clip: clip as f32,
            keep,
            rate,
            weights: self.slots.iter().map(|slot| slot.var.as_tensor()).collect(),
            firsts: self.slots.iter().map(|slot| &slot.first).collect(),
            seconds: self.slots.iter().map(|slot| &slot.second).collect(),
            gradients: grads.iter().collect(),
        };
        let (grad_norm, update_norm) = step.make(chunks, &device)?;
        if grad_norm.is_finite() {
            return Ok(Stepped { grad_norm, update_norm: Some(update_norm) });
        }
        self.updates -= 1; // nothing was changed
        Ok(Stepped { grad_norm, update_norm: None })
    }

    /// [`AdamW::directions`] and [`AdamW::apply`] at once: in host memory one pass over the weights instead of two.
    ///
    /// # Errors
    /// If a gradient's shape is not its parameter's.
    pub fn step(&mut self, grads: &[Tensor], scale: f64, learning_rate: f64) -> Result<f64> {
        let in_host = |t: &Tensor| t.device().is_cpu() && t.dtype() == DType::F32;
        if !grads.iter().all(in_host) || !self.slots.iter().all(|slot| in_host(&slot.var)) {
            let directions = self.directions(grads, scale)?;
            return self.apply(&directions, learning_rate);
        }
        self.count_update(grads)?;
        let moments = self.moments(scale);
        let mut squares = 0.0;
        for (slot, grad) in self.slots.iter().zip(grads) {
            let (keep, rate) = slot.factors(&self.config, learning_rate);
            squares += with_f32(&grad.contiguous()?, |g| {
                with_f32_mut(&slot.first, |m| {
                    with_f32_mut(&slot.second, |v| {
                        with_f32_mut(slot.var.as_tensor(), |w| {
                            let blocks = (m.par_chunks_mut(BLOCK), v.par_chunks_mut(BLOCK), g.par_chunks(BLOCK));
                            let partial: Vec<f64> = (blocks.into_par_iter(), w.par_chunks_mut(BLOCK))
                                .into_par_iter()
                                .map_init(Vec::new, |direction, ((m, v, g), w)| {
                                    direction.resize(g.len(), 0.0);
                                    moments.step_block(g, m, v, direction);
                                    descend(w, direction, keep as f32, rate as f32)
                                })
                                .collect();
                            partial.iter().sum::<f64>()
                        })
                    })
                })
            })????;
        }
        Ok(squares.sqrt())
    }

    /// Counts an update with these gradients, if they fit.
    fn count_update(&mut self, grads: &[Tensor]) -> Result<()> {
        if grads.len() != self.slots.len() {
            return Err(Error::shape("gradients", self.slots.len(), grads.len()));
        }
        for (slot, grad) in self.slots.iter().zip(grads) {
            if grad.dims() != slot.var.dims() {
                return Err(Error::shape(format!("gradient of {}", slot.name), slot.var.dims(), grad.dims()));
            }
        }
        self.updates += 1;
        Ok(())
    }

    fn moments(&self, scale: f64) -> Moments {
        let AdamWConfig { beta1, beta2, epsilon, .. } = self.config;
        let t = self.updates as f64;
        Moments {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            correct1: (1.0 / (1.0 - beta1.powf(t))) as f32,
            correct2: (1.0 / (1.0 - beta2.powf(t))) as f32,
            epsilon: epsilon as f32,
            scale: scale as f32,
        }
    }

    /// Moves every parameter by `-rate · (direction + weight decay)` and returns the L2 norm of the whole change.
    ///
    /// # Errors
    /// If a direction's shape is not its parameter's.
    pub fn apply(&mut self, directions: &[Tensor], learning_rate: f64) -> Result<f64> {
        if directions.len() != self.slots.len() {
            return Err(Error::shape("directions", self.slots.len(), directions.len()));
        }
        let (mut squares, mut elsewhere) = (0.0, Vec::new());
        for (slot, direction) in self.slots.iter().zip(directions) {
            let (keep, rate) = slot.factors(&self.config, learning_rate);
            if direction.device().is_cpu() && direction.dtype() == DType::F32 {
                squares += with_f32(&direction.contiguous()?, |d| {
                    descend_all(slot.var.as_tensor(), d, keep as f32, rate as f32)
                })??;
            } else {
                let old = slot.var.as_detached_tensor();
                let new = ((&old * keep)? - (direction * rate)?)?;
                elsewhere.push((&new - &old)?.sqr()?.sum_all()?.to_dtype(DType::F32)?);
                slot.var.set(&new)?;
            }
        }
        Ok((squares + read_sum(&elsewhere)?).sqrt())
    }

    /// Writes moments and the update counter into a snapshot.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn save(&self, snapshot: &mut Snapshot) -> Result<()> {
        for slot in &self.slots {
            snapshot.optimizer.insert(format!("{}.first", slot.name), slot.first.copy()?);
            snapshot.optimizer.insert(format!("{}.second", slot.name), slot.second.copy()?);
        }
        snapshot.counters.insert("updates".into(), self.updates);
        Ok(())
    }

    /// Restores what [`AdamW::save`] wrote.
    ///
    /// # Errors
    /// If a moment is missing or has another shape.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        for slot in &mut self.slots {
            let device = slot.var.device().clone();
            slot.first =
                snapshot.moment(&format!("{}.first", slot.name), slot.var.dims())?.to_device(&device)?.copy()?;
            slot.second =
                snapshot.moment(&format!("{}.second", slot.name), slot.var.dims())?.to_device(&device)?.copy()?;
        }
        self.updates = snapshot.counter("updates")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_moment_that_never_forgets_is_an_error() {
        for (beta1, beta2, key) in [(1.0, 0.99, "beta1: "), (0.9, 1.0, "beta2: "), (f64::NAN, 0.9, "beta1: ")] {
            let config = AdamWConfig { beta1, beta2, ..AdamWConfig::default() };
            let error = AdamW::new(config, []).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.starts_with(key) && error.contains("less than 1"), "{error}");
        }
    }

    /// Three steps on scalar problems, against torch.optim.AdamW (torch 2.x):
    /// ```python
    /// w = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, requires_grad=True)
    /// o = torch.optim.AdamW([w], lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01)
    /// for _ in range(3): o.zero_grad(); (w ** 2 * torch.tensor([1., .5, .1])).sum().backward(); o.step()
    /// ```
    /// Written out here as the recurrence itself in f64.
    #[test]
    fn follows_the_published_recurrence() -> Result<()> {
        let config = AdamWConfig { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.01 };
        let start = [1.0f64, -2.0, 3.0];
        let curve = [2.0, 1.0, 0.2];
        let (mut w, mut m, mut v) = (start, [0.0; 3], [0.0; 3]);
        let var = Var::new(&[[1f32, -2.0, 3.0]], &Device::Cpu)?;
        let mut opt = AdamW::new(config, [("w".to_owned(), var.clone(), Group { rate: 1.0, decays: true })])?;
        for t in 1..=3 {
            let grad: Vec<f32> =
                var.as_tensor().flatten_all()?.to_vec1::<f32>()?.iter().zip(curve).map(|(w, c)| w * c as f32).collect();
            let directions = opt.directions(&[Tensor::from_vec(grad, (1, 3), &Device::Cpu)?], 1.0)?;
            opt.apply(&directions, 0.1)?;
            for i in 0..3 {
                let g = w[i] * curve[i];
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.99 * v[i] + 0.01 * g * g;
                let (mh, vh) = (m[i] / (1.0 - 0.9f64.powi(t)), v[i] / (1.0 - 0.99f64.powi(t)));
                w[i] = w[i] * (1.0 - 0.1 * 0.01) - 0.1 * mh / (vh.sqrt() + 1e-8);
            }
        }
        for (got, want) in var.as_tensor().flatten_all()?.to_vec1::<f32>()?.iter().zip(w) {
            assert!((f64::from(*got) - want).abs() < 1e-5, "{got} {want}"); // three f32 steps
        }
        Ok(())
    }

    #[test]
    fn a_step_is_directions_and_apply_in_one_pass() -> Result<()> {
        let n = 3 * BLOCK + 7; // whole blocks and a rest
        let value = |i: usize| ((i * 7919 % 1013) as f32 - 506.0) / 300.0;
        let new = || -> Result<(Vec<Var>, AdamW)> {
            let long = Var::from_vec((0..n).map(value).collect(), n, &Device::Cpu)?;
            let square = Var::from_vec((0..6).map(value).collect(), (2, 3), &Device::Cpu)?;
            let vars = vec![long, square];
            let slots = vars.iter().enumerate().map(|(i, v)| (i.to_string(), v.clone(), Group::by_rank(v)));
            let optimizer = AdamW::new(AdamWConfig::default(), slots)?;
            Ok((vars, optimizer))
        };
        let ((once, mut fused), (twice, mut apart)) = (new()?, new()?);
        for update in 1..4 {
            let grads = once.iter().map(|v| Ok(v.affine(0.3 * f64::from(update), 0.1)?)).collect::<Result<Vec<_>>>()?;
            let norm = fused.step(&grads, 0.7, 1e-2)?;
            let directions = apart.directions(&grads, 0.7)?;
            assert_eq!(norm.to_bits(), apart.apply(&directions, 1e-2)?.to_bits());
        }
        for (a, b) in once.iter().zip(&twice) {
            assert_eq!(crate::read_f32(a)?, crate::read_f32(b)?);
        }
        assert!(fused.step(&[once[0].as_tensor().clone()], 1.0, 1e-2).is_err(), "one gradient for two parameters");
        assert_eq!(fused.updates(), 3);
        Ok(())
    }
}
