//! How a weight update depends on the time between the spikes it falls on (paper §4.6: "weight updates decay exponentially
//! with the spike time difference"), measured on demand.
//!
//! `C_Δ[d, j] = Σ_{t, stream} s_post(t, d) · s_pre(t − Δ, j)` holds the pairs of spikes that are `Δ = t_post − t_pre` steps apart
//! and of which the later one lies in the chunk, the pairs that STDP sums up as well; `N_Δ = Σ |s_post(t, d)| · |s_pre(t − Δ, j)|`
//! is their number. A burst of `n` counts `n` times, and a pair of opposite signs enters `C_Δ` with a minus, as it does STDP.
//! Measured is the update that a pair at each difference goes with, pairs at all other differences being equal: the `b` that
//! minimises `Σ_{d,j} (U − Σ_Δ b_Δ C_Δ)²`. A mean over the pairs of one difference would not do: an update belongs to a synapse, a
//! synapse has pairs at many differences, and spikes of neighbouring steps depend on each other. The STDP term is the control: it
//! is `Σ_Δ W(Δ) C_Δ`, so its `b` is the window (tests below) but for what pairs further apart than `M` leak into it.
//!
//! Rows of `layers.parquet`, layer `layers.<l>.input` or `layers.<l>.output`, with `<Δ>` from −M to M:
//!
//! | quantity | `U` |
//! |---|---|
//! | `gradient_at_dt_<Δ>` | `−∂L/∂w`, the chunk's descent before the optimiser |
//! | `direction_at_dt_<Δ>` | `−ĝ`, the optimiser's direction: earlier chunks are in it |
//! | `stdp_at_dt_<Δ>` | `Ω` behind its bounds, before it is scaled; absent at `λ = 1` |
//! | `mixed_at_dt_<Δ>` | `−[λ ĝ − (1−λ) Ω̂]`, what the weight moves by per unit of learning rate; absent at `λ = 1` |
//! | `pairs_at_dt_<Δ>` | none: `N_Δ` |
//!
//! A difference without pairs has no rows, and an update whose pairs at different differences cannot be told apart has only
//! `pairs` rows. The earlier spike may lie in the chunk before (further back it is not looked for: with `M ≤ K` nothing is
//! lost). Where no step of a chunk is supervised, `Ω` runs on to the next that has one, and the control is lost.

use std::sync::LazyLock;

use candle_core::Tensor;
use learner::{Error, LayerValue, Result, Snapshot};

use crate::config::{DiagnoseConfig, FURTHEST};
use crate::kernels::Real;
use learner::product::{View, matmul};

/// What is measured at each difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// `−∂L/∂w`.
    Gradient,
    /// `−ĝ`.
    Direction,
    /// `Ω`.
    Stdp,
    /// What the weights move by.
    Mixed,
    /// Number of pairs.
    Pairs,
}

/// Names as they begin, in the order of [`Quantity`].
const NAMES: [&str; 5] = ["gradient", "direction", "stdp", "mixed", "pairs"];

/// Between the name of a quantity and the difference.
const AT: &str = "_at_dt_";

impl Quantity {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Gradient, Self::Direction, Self::Stdp, Self::Mixed, Self::Pairs];

    /// Name.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.get(self as usize).copied().unwrap_or_default() // there is one for each
    }

    /// Name at a difference, as in `layers.parquet`.
    #[must_use]
    pub fn at(self, lag: i64) -> String {
        format!("{}{AT}{lag}", self.name())
    }

    /// What a name in `layers.parquet` says; `None` if it is about something else, or no difference that can be asked for.
    #[must_use]
    pub fn parse(name: &str) -> Option<(Self, i64)> {
        let (name, lag) = name.split_once(AT)?;
        let lag = lag.parse::<i64>().ok().filter(|lag| lag.unsigned_abs() <= FURTHEST as u64)?;
        Some((Self::ALL.into_iter().find(|quantity| quantity.name() == name)?, lag))
    }
}

/// The name of every quantity at every difference that can be asked for.
static QUANTITIES: LazyLock<Vec<Vec<String>>> = LazyLock::new(|| {
    let furthest = FURTHEST as i64;
    Quantity::ALL.iter().map(|quantity| (-furthest..=furthest).map(|lag| quantity.at(lag)).collect()).collect()
});

/// Spikes on both sides of a pathway, for one group of streams: steps before the chunk, then the chunk.
#[derive(Clone, Debug, Default)]
pub struct Spikes<T> {
    /// Streams of the group.
    pub streams: usize,
    /// Presynaptic `[history + K, streams, J]`.
    pub pre: Vec<T>,
    /// Postsynaptic `[history + K, streams, D]`.
    pub post: Vec<T>,
    /// Steps before the chunk.
    pub history: usize,
}

impl<T: Real> Spikes<T> {
    /// Rows (a step of a stream) that lie `lag` steps apart, the later one in the chunk: first those of `post`, first those of
    /// `pre`, how many.
    fn apart(&self, rows: usize, lag: isize) -> [usize; 3] {
        let before = lag.unsigned_abs() * self.streams;
        let later = (self.history * self.streams).max(before).min(rows);
        let earlier = later.saturating_sub(before);
        let (post, pre) = if lag >= 0 { (later, earlier) } else { (earlier, later) };
        [post, pre, rows - later]
    }

    /// The last `most` steps, as the history of the next chunk.
    fn tail(&self, most: usize, [d, j]: [usize; 2]) -> Self {
        let steps = self.pre.len() / (j * self.streams);
        let kept = most.min(steps - self.history);
        let last = |rows: &[T], width: usize| rows[(steps - kept) * self.streams * width..].to_vec();
        Self { streams: self.streams, pre: last(&self.pre, j), post: last(&self.post, d), history: kept }
    }

    /// With the history in front of a chunk's spikes, which has none of its own.
    fn behind(self, history: Option<&Self>) -> Self {
        let Some(h) = history.filter(|h| h.streams == self.streams) else { return self };
        let join = |a: &[T], b: &[T]| [a, b].concat();
        Self { pre: join(&h.pre, &self.pre), post: join(&h.post, &self.post), history: h.history, ..self }
    }

    /// Forgets the spikes of a stream.
    fn reset(&mut self, stream: usize, [d, j]: [usize; 2]) {
        for (rows, width) in [(&mut self.pre, j), (&mut self.post, d)] {
            rows.chunks_exact_mut(width).skip(stream).step_by(self.streams).for_each(|row| row.fill(T::zero()));
        }
    }
}

/// Differences from `−most` to `most`.
fn lags(most: usize) -> impl Iterator<Item = isize> {
    -most.cast_signed()..=most.cast_signed()
}

/// The pairs of one pathway at all differences from `−most` to `most`, ready to explain updates.
#[derive(Clone, Debug)]
pub struct Pairs<T> {
    /// `N_Δ`.
    counts: Vec<f64>,
    /// Places in `counts` of the differences that have pairs.
    places: Vec<usize>,
    /// `C_Δ` of these, `[places, D · J]`.
    matrices: Vec<T>,
    /// Lower triangle `L` of `L Lᵀ = Σ_{d,j} C_Δ C_Δ'`, row by row; `None` if the `C_Δ` depend on each other.
    factor: Option<Vec<f64>>,
}

/// A pivot below this share of its diagonal element is what rounding of `f32` sums leaves of nothing.
const NOTHING: f64 = 1e-6;

impl<T: Real> Pairs<T> {
    /// Of the spikes of all groups of streams.
    #[must_use]
    pub fn new(groups: &[Spikes<T>], [d, j]: [usize; 2], most: usize) -> Self {
        let mut pairs = Self { counts: Vec::new(), places: Vec::new(), matrices: Vec::new(), factor: None };
        for (place, lag) in lags(most).enumerate() {
            let mut matrix = vec![T::zero(); d * j];
            let mut count = 0.0;
            for spikes in groups {
                let [post, pre, rows] = spikes.apart(spikes.pre.len() / j, lag);
                let (post, pre) = (&spikes.post[post * d..][..rows * d], &spikes.pre[pre * j..][..rows * j]);
                matmul(
                    (&mut matrix, View::new(d, j)),
                    (post, View::new(rows, d).t()),
                    (pre, View::new(rows, j)),
                    T::one(),
                );
                let size = |row: &[T]| row.iter().map(|s| s.abs().wide()).sum::<f64>();
                count += post.chunks_exact(d).zip(pre.chunks_exact(j)).map(|(a, b)| size(a) * size(b)).sum::<f64>();
            }
            pairs.counts.push(count);
            if count > 0.0 {
                pairs.places.push(place);
                pairs.matrices.extend(matrix);
            }
        }
        let (n, synapses) = (pairs.places.len(), d * j);
        let mut gram = vec![T::zero(); n * n];
        let all = View::new(n, synapses);
        matmul((&mut gram, View::new(n, n)), (&pairs.matrices, all), (&pairs.matrices, all.t()), T::zero());
        pairs.factor = cholesky(gram.iter().map(|x| x.wide()).collect(), n);
        pairs
    }

    /// `N_Δ`.
    #[must_use]
    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    /// `b` for an update `[D, J]`; `None` where a difference has no pairs, or the pairs at different differences cannot be told
    /// apart.
    #[must_use]
    pub fn explain(&self, update: &[T]) -> Vec<Option<f64>> {
        let mut found = vec![None; self.counts.len()];
        let Some(factor) = &self.factor else { return found };
        let dot = |matrix: &[T]| matrix.iter().zip(update).map(|(&c, &u)| c.wide() * u.wide()).sum::<f64>();
        let sums = self.matrices.chunks_exact(update.len().max(1)).map(dot).collect();
        for (place, b) in self.places.iter().zip(solve(factor, sums)) {
            found[*place] = Some(b);
        }
        found
    }
}

/// `L` of `L Lᵀ = A`; `None` if a row of `A` depends on those above it.
fn cholesky(mut a: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    for i in 0..n {
        let size = a[i * n + i];
        for k in 0..=i {
            let done: f64 = (0..k).map(|m| a[i * n + m] * a[k * n + m]).sum();
            let rest = a[i * n + k] - done;
            if k == i && rest <= NOTHING * size {
                return None;
            }
            a[i * n + k] = if k == i { rest.sqrt() } else { rest / a[k * n + k] };
        }
    }
    Some(a)
}

/// Solves `L Lᵀ b = x`.
fn solve(factor: &[f64], mut x: Vec<f64>) -> Vec<f64> {
    let n = x.len();
    for i in 0..n {
        let done: f64 = (0..i).map(|k| factor[i * n + k] * x[k]).sum();
        x[i] = (x[i] - done) / factor[i * n + i];
    }
    for i in (0..n).rev() {
        let done: f64 = (i + 1..n).map(|k| factor[k * n + i] * x[k]).sum();
        x[i] = (x[i] - done) / factor[i * n + i];
    }
    x
}

/// One pathway of which updates are measured.
struct Measured {
    layer: String,
    parameter: usize,
    sizes: [usize; 2],
    /// Of the chunk before, a group of streams an entry.
    history: Vec<Spikes<f32>>,
    /// Of the chunk that is measured.
    pairs: Option<Pairs<f32>>,
}

/// The measurement of all pathways of a network.
pub struct TimeDifferences {
    most: usize,
    every: u64,
    pathways: Vec<Measured>,
    values: Vec<LayerValue>,
}

impl TimeDifferences {
    /// Nothing measured. Pathways are given by their name, the position of their parameter and their sizes `[D, J]`.
    #[must_use]
    pub fn new(c: &DiagnoseConfig, pathways: impl Iterator<Item = (String, usize, [usize; 2])>) -> Self {
        let measured =
            |(layer, parameter, sizes)| Measured { layer, parameter, sizes, history: Vec::new(), pairs: None };
        let pathways = pathways.map(measured).collect();
        let (most, every) = (c.time_differences.0, c.time_differences_every.0 as u64);
        Self { most, every, pathways, values: Vec::new() }
    }

    /// Whether the spikes of the chunk before this update are wanted, and whether this update is measured.
    pub(crate) fn due(&self, update: u64) -> [bool; 2] {
        let [now, next] = [update, update + 1].map(|update| self.most > 0 && update.is_multiple_of(self.every));
        [now || next, now]
    }

    /// Takes over the spikes of the chunk before, of the same pathways.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn take_history(&mut self, from: &Self) {
        for (path, from) in self.pathways.iter_mut().zip(&from.pathways) {
            path.history.clone_from(&from.history);
        }
    }

    /// Forgets the spikes of a stream of a group.
    pub fn reset(&mut self, group: usize, stream: usize) {
        for path in &mut self.pathways {
            let sizes = path.sizes;
            path.history.get_mut(group).into_iter().for_each(|h| h.reset(stream, sizes));
        }
    }

    /// Takes note of the spikes of a chunk, and if this update is to be measured pairs them: `spikes` gives those of a pathway,
    /// of every group of streams and without history. Later the network moves its own on.
    pub fn keep(&mut self, update: u64, spikes: impl Fn(usize) -> Vec<Spikes<f32>>) {
        self.values.clear();
        let [wanted, now] = self.due(update);
        if !wanted {
            return; // nothing is measured, nor is this chunk the history of one that is
        }
        for (i, path) in self.pathways.iter_mut().enumerate() {
            let here = spikes(i).into_iter().enumerate().map(|(g, s)| s.behind(path.history.get(g)));
            let here: Vec<_> = here.collect();
            path.history = here.iter().map(|s| s.tail(self.most, path.sizes)).collect();
            path.pairs = now.then(|| Pairs::new(&here, path.sizes, self.most));
            if let Some(pairs) = &path.pairs {
                let counts: Vec<_> = pairs.counts.iter().map(|&n| Some(n).filter(|n| *n > 0.0)).collect();
                put(&mut self.values, &path.layer, Quantity::Pairs, &counts, 1.0);
            }
        }
    }

    /// Measures one pathway's part of an update `[D, J]`, times `sign`.
    pub fn measure(&mut self, pathway: usize, quantity: Quantity, update: &[f32], sign: f64) {
        if let Some(Measured { layer, pairs: Some(pairs), .. }) = self.pathways.get(pathway) {
            put(&mut self.values, layer, quantity, &pairs.explain(update), sign);
        }
    }

    /// Measures all pathways' parts of descent directions: gradients or what the optimiser made of them.
    pub fn measure_descent(&mut self, quantity: Quantity, of_parameters: &[impl AsRef<[f32]>]) {
        for i in 0..self.pathways.len() {
            let Some(Measured { parameter, sizes: [d, j], .. }) = self.pathways.get(i) else { return };
            // the pathway's synapses are the first rows of the parameter
            let values = of_parameters.get(*parameter).and_then(|values| values.as_ref().get(..d * j));
            if let Some(values) = values {
                self.measure(i, quantity, values, -1.0);
            }
        }
    }

    /// What was measured since the chunk was kept, and lets its pairs go.
    pub fn take(&mut self) -> Vec<LayerValue> {
        self.pathways.iter_mut().for_each(|path| path.pairs = None);
        std::mem::take(&mut self.values)
    }

    /// Adds what the next chunk needs to a checkpoint.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn save(&self, snapshot: &mut Snapshot) -> Result<()> {
        for (g, name, history) in self.histories() {
            for (part, rows) in [("pre", &history.pre), ("post", &history.post)] {
                let tensor = Tensor::new(&rows[..], &candle_core::Device::Cpu)?;
                snapshot.state.insert(format!("{name}.{g}.{part}"), tensor);
            }
        }
        Ok(())
    }

    fn histories(&self) -> impl Iterator<Item = (usize, String, &Spikes<f32>)> {
        let of_path = |path: &'_ Measured| format!("time_differences.{}", path.layer);
        self.pathways.iter().flat_map(move |p| p.history.iter().enumerate().map(move |(g, h)| (g, of_path(p), h)))
    }

    /// Restores what [`TimeDifferences::save`] wrote for groups of so many streams.
    ///
    /// # Errors
    /// If a tensor is not as long as these.
    pub fn load(&mut self, streams: &[usize], snapshot: &Snapshot) -> Result<()> {
        if self.most == 0 {
            return Ok(());
        }
        for path in &mut self.pathways {
            path.history.clear();
            for (g, &streams) in streams.iter().enumerate() {
                let name = format!("time_differences.{}.{g}", path.layer);
                if !snapshot.state.contains_key(&format!("{name}.pre")) {
                    break; // before the first chunk there is none
                }
                let [d, j] = path.sizes;
                let rows = |part: &str, width: usize| -> Result<Vec<f32>> {
                    let rows = snapshot.state(&format!("{name}.{part}"))?.to_vec1::<f32>()?;
                    if rows.len().is_multiple_of(width * streams) && rows.len() <= self.most * width * streams {
                        Ok(rows)
                    } else {
                        let expected = format!("up to {} rows of {}", self.most, width * streams);
                        Err(Error::shape(format!("{name}.{part}"), expected, rows.len()))
                    }
                };
                let (pre, post) = (rows("pre", j)?, rows("post", d)?);
                let history = pre.len() / (j * streams);
                if post.len() != history * d * streams {
                    return Err(Error::shape(format!("{name}.post"), history * d * streams, post.len()));
                }
                path.history.push(Spikes { streams, pre, post, history });
            }
        }
        Ok(())
    }
}

/// Adds rows for every difference that has a value.
fn put(values: &mut Vec<LayerValue>, layer: &str, quantity: Quantity, found: &[Option<f64>], sign: f64) {
    let names = QUANTITIES.get(quantity as usize).map_or(&[][..], Vec::as_slice);
    let first = FURTHEST - (found.len() / 2).min(FURTHEST);
    for (name, value) in names.iter().skip(first).zip(found) {
        values.extend(value.map(|v| LayerValue { layer: layer.to_owned(), quantity: name, value: sign * v }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Count, Lag, Positive, StdpConfig};
    use crate::kernels::stdp::{PairState, Window, accumulate};

    const STREAMS: usize = 2;

    /// Spikes from −`burst` to `burst`, the same on every machine. Each row's own rate drifts slowly from step to step, so that
    /// spikes of neighbouring steps and of both sides depend on each other.
    fn spikes(steps: usize, [d, j]: [usize; 2], rate: f64, burst: i32, seed: u64) -> Spikes<f64> {
        let mut rng = learner::seeded_rng(seed, "spikes");
        let mut all = Spikes { streams: STREAMS, ..Spikes::default() };
        let mut excited = 1.0;
        for _ in 0..steps * STREAMS {
            excited = 0.9 * excited + 0.1 * rand::Rng::random_range(&mut rng, 0.0..2.0);
            let mut draw = |n: usize| -> Vec<f64> {
                let spike = |_| match rand::Rng::random_bool(&mut rng, (rate * excited).min(1.0)) {
                    true if burst > 1 => f64::from(rand::Rng::random_range(&mut rng, -burst..=burst)),
                    fired => f64::from(u8::from(fired)),
                };
                (0..n).map(spike).collect()
            };
            all.pre.extend(draw(j));
            all.post.extend(draw(d));
        }
        all
    }

    /// The definition: a double sum over all pairs of steps whose later one is in the chunk, synapse by synapse.
    fn slow([d, j]: [usize; 2], spikes: &Spikes<f64>, lag: isize) -> (Vec<f64>, f64) {
        let steps = spikes.pre.len() / (j * STREAMS);
        let (mut matrix, mut count) = (vec![0.0; d * j], 0.0);
        for t_post in 0..steps {
            for t_pre in 0..steps {
                if t_post.cast_signed() - t_pre.cast_signed() != lag || t_post.max(t_pre) < spikes.history {
                    continue;
                }
                for b in 0..STREAMS {
                    for (i, k) in (0..d).flat_map(|i| (0..j).map(move |k| (i, k))) {
                        let pair =
                            spikes.post[(t_post * STREAMS + b) * d + i] * spikes.pre[(t_pre * STREAMS + b) * j + k];
                        matrix[i * j + k] += pair;
                        count += pair.abs();
                    }
                }
            }
        }
        (matrix, count)
    }

    #[test]
    fn pairs_equal_the_double_sum() {
        let (sizes, most) = ([8, 9], 9);
        for (steps, history) in [(7, 0), (12, 5), (20, 9)] {
            let spikes = Spikes { history, ..spikes(steps, sizes, 0.4, 3, 1) };
            let pairs = Pairs::new(std::slice::from_ref(&spikes), sizes, most);
            let mut present = pairs.matrices.chunks_exact(72);
            for (i, lag) in lags(most).enumerate() {
                let (matrix, count) = slow(sizes, &spikes, lag);
                assert!((pairs.counts[i] - count).abs() < 1e-12 * (1.0 + count), "{lag}: {} {count}", pairs.counts[i]);
                assert_eq!(count == 0.0, lag.unsigned_abs() >= steps, "{lag}: the test would be empty");
                if count > 0.0 {
                    assert_eq!(present.next().unwrap(), matrix, "whole numbers, so without rounding");
                }
            }
        }
    }

    /// An update that is made of pairs at known rates gives these rates back, whatever depends on what; pairs that cannot be
    /// told apart give nothing.
    #[test]
    fn an_update_made_of_pairs_is_explained_by_them() {
        let (sizes, most) = ([20, 30], 6);
        let spikes = spikes(40, sizes, 0.3, 2, 3);
        let rate = |lag: isize| (lag as f64).cos();
        let mut update = vec![0.0; 600];
        for lag in lags(most) {
            update.iter_mut().zip(slow(sizes, &spikes, lag).0).for_each(|(u, c)| *u += rate(lag) * c);
        }
        let found = Pairs::new(&[spikes], sizes, most).explain(&update);
        for (lag, b) in lags(most).zip(found) {
            assert!((b.unwrap() - rate(lag)).abs() < 1e-9, "{lag}: {b:?}");
        }
        let always = Spikes { streams: 1, pre: vec![1.0; 8], post: vec![1.0; 8], history: 0 };
        assert!(Pairs::new(&[always], [1, 1], 2).explain(&[1.0]).iter().all(Option::is_none));
    }

    /// STDP is the control: its own window comes back from spikes that depend on each other, with the sign of the difference
    /// that it has in eq. 6, also where the earlier spike lies before the chunk.
    #[test]
    fn the_stdp_term_comes_back_as_its_window() {
        let (sizes, most) = ([60, 70], 16);
        let [d, j] = sizes;
        let c = StdpConfig { tau_plus: Positive(1.5), tau_minus: Positive(1.0), ..StdpConfig::default() };
        let all = spikes(48, sizes, 0.2, 1, 2);
        let mut state = PairState::new(STREAMS, j, d);
        let (mut first, mut omega) = (vec![0.0; d * j], vec![0.0; d * j]);
        let at = 16 * STREAMS;
        accumulate(&Window::new(&c), &all.pre[..at * j], &all.post[..at * d], &mut state, &mut first);
        accumulate(&Window::new(&c), &all.pre[at * j..], &all.post[at * d..], &mut state, &mut omega);
        let found = Pairs::new(&[Spikes { history: 16, ..all }], sizes, most).explain(&omega);
        for (lag, b) in lags(most).zip(found) {
            let dt = lag as f64;
            let window = match lag {
                1.. => c.a_plus.0 * (-dt / 1.5).exp(),
                0 => 0.0,
                _ => -c.a_minus.0 * dt.exp(),
            };
            // pairs further apart than 16 steps have the window's e^(−17/1.5) = 1e-5
            assert!((b.unwrap() - window).abs() < 1e-4, "{lag}: {b:?} {window}");
        }
    }

    /// Two chunks in turn are what both are at once, and a stream that starts anew has no pairs with what was before.
    #[test]
    fn history_is_that_of_the_stream() {
        let config =
            DiagnoseConfig { time_differences: Lag(3), time_differences_every: Count(1), ..DiagnoseConfig::default() };
        let (sizes, rows) = ([4, 5], 6 * STREAMS);
        let [d, j] = sizes;
        let all = spikes(12, sizes, 0.5, 2, 4);
        let half = |from: usize| {
            let part = |x: &[f64], width: usize| x[from * width..][..rows * width].iter().map(|x| *x as f32).collect();
            Spikes { streams: STREAMS, pre: part(&all.pre, j), post: part(&all.post, d), history: 0 }
        };
        let new = || TimeDifferences::new(&config, std::iter::once(("layers.0.input".to_owned(), 0, sizes)));
        let counts = |reset: bool| {
            let mut measured = new();
            measured.keep(1, |_| vec![half(0)]);
            if reset {
                (0..STREAMS).for_each(|stream| measured.reset(0, stream));
            }
            let mut saved = Snapshot::default();
            measured.save(&mut saved).unwrap();
            let mut resumed = new();
            resumed.load(&[STREAMS], &saved).unwrap();
            resumed.keep(2, |_| vec![half(rows)]);
            resumed.take().into_iter().map(|v| v.value).collect::<Vec<_>>()
        };
        let want = |history: usize| -> Vec<f64> {
            let whole = Spikes { history, ..all.clone() };
            let from = if history == 0 { rows } else { 0 };
            let whole = Spikes { pre: whole.pre[from * j..].to_vec(), post: whole.post[from * d..].to_vec(), ..whole };
            lags(3).map(|lag| slow(sizes, &whole, lag).1).collect()
        };
        assert_eq!(counts(false), want(6));
        assert_eq!(counts(true), want(0));
        assert_ne!(want(6), want(0));
    }

    #[test]
    fn rows_are_named_by_pathway_quantity_and_difference() {
        let config =
            DiagnoseConfig { time_differences: Lag(2), time_differences_every: Count(3), ..DiagnoseConfig::default() };
        let mut measured = TimeDifferences::new(&config, std::iter::once(("layers.0.input".to_owned(), 1, [1, 1])));
        let chunk = || vec![Spikes { streams: 1, pre: vec![1.0, 0.0, 0.0], post: vec![0.0, 1.0, 0.0], history: 0 }];
        measured.keep(1, |_| chunk());
        measured.measure_descent(Quantity::Gradient, &[vec![9.0], vec![0.5, 7.0]]);
        assert!(measured.take().is_empty(), "update 1 is not to be measured");
        measured.reset(0, 0); // otherwise the spike of the chunk before pairs too, two steps apart
        measured.keep(3, |_| chunk());
        measured.measure_descent(Quantity::Gradient, &[vec![9.0], vec![0.5, 7.0]]);
        measured.measure(0, Quantity::Stdp, &[2.0], 1.0);
        let rows: Vec<_> = measured.take().into_iter().map(|v| (v.layer, v.quantity, v.value)).collect();
        let layer = || "layers.0.input".to_owned();
        let expected =
            [(layer(), "pairs_at_dt_1", 1.0), (layer(), "gradient_at_dt_1", -0.5), (layer(), "stdp_at_dt_1", 2.0)];
        assert_eq!(Quantity::parse("stdp_at_dt_-12"), Some((Quantity::Stdp, -12)));
        assert_eq!(Quantity::parse("staleness"), None);
        assert_eq!(Quantity::parse("stdp_at_dt_129"), None);
        assert_eq!(rows, expected, "the presynaptic spike came one step before the postsynaptic one");
    }
}
