//! How a weight update depends on the time between the spikes it falls on (paper §4.6: "weight updates decay exponentially
//! with the spike time difference"), measured on demand.
//!
//! `C_Δ[d, j] = Σ_{t, stream} s_post(t, d) · s_pre(t − Δ, j)` holds the chunk's pairs of spikes that are `Δ = t_post − t_pre`
//! steps apart, `N_Δ = Σ |s_post(t, d)| · |s_pre(t − Δ, j)|` their number; a burst of `n` counts `n` times, and a pair of
//! opposite signs enters `C_Δ` with a minus, as it does STDP. The mean update per pair is `Σ_{d,j} U ∘ C_Δ / N_Δ`. It is a
//! mean over what the pairs of one difference *receive*, not what that difference *causes*: an update belongs to a synapse, and
//! a synapse with many pairs has them at many differences. The STDP term, whose cause is known, is the control: it comes back as
//! the window as far as the spikes of different steps are independent (test below).
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
//! A difference without pairs has no rows. Both spikes lie in the chunk, so differences of `K` or more have none; `Ω` itself
//! also holds pairs with spikes before the chunk.

use std::sync::LazyLock;

use learner::LayerValue;

use crate::config::{DiagnoseConfig, FURTHEST};
use crate::kernels::Real;
use crate::kernels::matmul::{View, matmul};

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

/// Spikes of a chunk on both sides of a pathway, for one group of streams.
#[derive(Clone, Debug)]
pub struct Spikes<T> {
    /// Streams of the group.
    pub streams: usize,
    /// Presynaptic `[K, streams, J]`.
    pub pre: Vec<T>,
    /// Postsynaptic `[K, streams, D]`.
    pub post: Vec<T>,
}

/// Differences from `−most` to `most`.
fn lags(most: usize) -> impl Iterator<Item = isize> {
    -most.cast_signed()..=most.cast_signed()
}

/// `Σ_t post(t) · pre(t − lag)` of two matrices whose steps are `row` long.
fn lagged<T: Real>(post: &[T], pre: &[T], row: usize, lag: isize) -> f64 {
    let behind = |rows: &'_ [T]| (lag.unsigned_abs() * row).min(rows.len());
    let (post, pre) = if lag >= 0 { (&post[behind(post)..], pre) } else { (post, &pre[behind(pre)..]) };
    post.iter().zip(pre).map(|(&a, &b)| a.wide() * b.wide()).sum()
}

/// `Σ_{d,j} U ∘ C_Δ` for every difference from `−most` to `most`, for `U` `[D, J]`: as `Σ_t s_post(t)ᵀ (U s_pre(t − Δ))`, so
/// that no `C_Δ` is ever formed.
///
/// # Panics
/// If the spikes do not fit the update: a bug in the caller, never bad input.
#[must_use]
pub fn sums<T: Real>(update: &[T], [d, j]: [usize; 2], spikes: &Spikes<T>, most: usize) -> Vec<f64> {
    let rows = spikes.pre.len() / j;
    let mut reached = vec![T::zero(); rows * d]; // U s_pre(t), [K, streams, D]
    let weights = (update, View::new(d, j).t());
    matmul((&mut reached, View::new(rows, d)), (&spikes.pre, View::new(rows, j)), weights, T::zero());
    lags(most).map(|lag| lagged(&spikes.post, &reached, spikes.streams * d, lag)).collect()
}

/// `N_Δ` for every difference from `−most` to `most`.
#[must_use]
pub fn pairs<T: Real>([d, j]: [usize; 2], spikes: &Spikes<T>, most: usize) -> Vec<f64> {
    let count = |spikes: &[T], width: usize| -> Vec<T> {
        spikes.chunks_exact(width).map(|row| row.iter().map(|s| s.abs()).sum()).collect()
    };
    let (pre, post) = (count(&spikes.pre, j), count(&spikes.post, d));
    lags(most).map(|lag| lagged(&post, &pre, spikes.streams, lag)).collect()
}

/// One pathway of which updates are measured.
struct Measured {
    layer: String,
    parameter: usize,
    sizes: [usize; 2],
    /// A group of streams an entry; of the last chunk that was kept.
    spikes: Vec<Spikes<f32>>,
    pairs: Vec<f64>,
}

/// The measurement of all pathways of a network.
pub struct TimeDifferences {
    most: usize,
    every: u64,
    pathways: Vec<Measured>,
    /// Whether the spikes of this update's chunk are kept.
    kept: bool,
    values: Vec<LayerValue>,
}

impl TimeDifferences {
    /// Nothing measured. Pathways are given by their name, the position of their parameter and their sizes `[D, J]`.
    #[must_use]
    pub fn new(c: &DiagnoseConfig, pathways: impl Iterator<Item = (String, usize, [usize; 2])>) -> Self {
        let measured = |(layer, parameter, sizes)| {
            let (spikes, pairs) = (Vec::new(), Vec::new());
            Measured { layer, parameter, sizes, spikes, pairs }
        };
        let pathways = pathways.map(measured).collect();
        let (most, every) = (c.time_differences.0, c.time_differences_every.0 as u64);
        Self { most, every, pathways, kept: false, values: Vec::new() }
    }

    /// Keeps the spikes of the chunk last run if this update is to be measured: `spikes` gives those of a pathway. Later the
    /// network moves its histories on.
    pub fn keep(&mut self, update: u64, spikes: impl Fn(usize) -> Vec<Spikes<f32>>) {
        self.values.clear();
        self.kept = self.most > 0 && update.is_multiple_of(self.every);
        if !self.kept {
            return;
        }
        for (i, path) in self.pathways.iter_mut().enumerate() {
            path.spikes = spikes(i);
            path.pairs = total(path.spikes.iter().map(|s| pairs(path.sizes, s, self.most)), self.most);
            put(&mut self.values, path, Quantity::Pairs, &path.pairs, 1.0);
        }
    }

    /// Measures one pathway's part of an update `[D, J]`, times `sign`.
    pub fn measure(&mut self, pathway: usize, quantity: Quantity, update: &[f32], sign: f64) {
        let Some(path) = self.pathways.get(pathway).filter(|_| self.kept) else { return };
        let sums = path.spikes.iter().map(|s| sums(update, path.sizes, s, self.most));
        put(&mut self.values, path, quantity, &total(sums, self.most), sign);
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

    /// What was measured since the chunk was kept, and lets the spikes go.
    pub fn take(&mut self) -> Vec<LayerValue> {
        if std::mem::take(&mut self.kept) {
            self.pathways.iter_mut().for_each(|path| path.spikes = Vec::new());
        }
        std::mem::take(&mut self.values)
    }
}

/// Sum over the groups, in their order.
fn total(groups: impl Iterator<Item = Vec<f64>>, most: usize) -> Vec<f64> {
    let mut sum = vec![0.0; 2 * most + 1];
    for group in groups {
        sum.iter_mut().zip(group).for_each(|(sum, x)| *sum += x);
    }
    sum
}

/// Adds rows for every difference that has pairs: their number, or the mean over them.
fn put(values: &mut Vec<LayerValue>, path: &Measured, quantity: Quantity, sums: &[f64], sign: f64) {
    let names = QUANTITIES.get(quantity as usize).map_or(&[][..], Vec::as_slice);
    let first = FURTHEST - (sums.len() / 2).min(FURTHEST);
    for ((name, sum), pairs) in names.iter().skip(first).zip(sums).zip(&path.pairs) {
        if *pairs > 0.0 {
            let value = if quantity == Quantity::Pairs { *pairs } else { sign * sum / pairs };
            values.push(LayerValue { layer: path.layer.clone(), quantity: name, value });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Count, Lag, StdpConfig};
    use crate::kernels::stdp::{PairState, Window, accumulate};

    const STREAMS: usize = 2;

    /// Spikes from −`burst` to `burst` at a rate, the same on every machine.
    fn spikes(steps: usize, [d, j]: [usize; 2], rate: f64, burst: i32, seed: u64) -> Spikes<f64> {
        let mut rng = learner::seeded_rng(seed, "spikes");
        let mut draw = |n: usize| -> Vec<f64> {
            let spike = |_| match rand::Rng::random_bool(&mut rng, rate) {
                true if burst > 1 => f64::from(rand::Rng::random_range(&mut rng, -burst..=burst)),
                fired => f64::from(u8::from(fired)),
            };
            (0..n).map(spike).collect()
        };
        Spikes { streams: STREAMS, pre: draw(steps * STREAMS * j), post: draw(steps * STREAMS * d) }
    }

    /// The definition: a double sum over all pairs of steps, synapse by synapse.
    fn slow(update: &[f64], [d, j]: [usize; 2], spikes: &Spikes<f64>, lag: isize) -> [f64; 2] {
        let steps = spikes.pre.len() / (j * STREAMS);
        let mut found = [0.0; 2];
        for t_post in 0..steps {
            for t_pre in 0..steps {
                if t_post.cast_signed() - t_pre.cast_signed() != lag {
                    continue;
                }
                for b in 0..STREAMS {
                    for (i, k) in (0..d).flat_map(|i| (0..j).map(move |k| (i, k))) {
                        let pair =
                            spikes.post[(t_post * STREAMS + b) * d + i] * spikes.pre[(t_pre * STREAMS + b) * j + k];
                        found[0] += update[i * j + k] * pair;
                        found[1] += pair.abs();
                    }
                }
            }
        }
        found
    }

    #[test]
    fn equals_the_double_sum() {
        let (sizes, most, steps) = ([4, 5], 9, 7); // further than the chunk is long
        let spikes = spikes(steps, sizes, 0.8, 3, 1);
        let update: Vec<f64> = (0..20).map(|i| f64::from(i).sin()).collect();
        let (sums, pairs) = (sums(&update, sizes, &spikes, most), pairs(sizes, &spikes, most));
        for (i, lag) in lags(most).enumerate() {
            let [sum, count] = slow(&update, sizes, &spikes, lag);
            assert!((sums[i] - sum).abs() < 1e-12 * (1.0 + sum.abs()), "{lag}: {} {sum}", sums[i]); // f64 rounding
            assert!((pairs[i] - count).abs() < 1e-12 * (1.0 + count), "{lag}: {} {count}", pairs[i]);
            assert_eq!(count == 0.0, lag.unsigned_abs() >= steps, "{lag}: the test would be empty");
        }
    }

    /// STDP is the control: from independent spikes its own window comes back, with the sign of the difference that it has
    /// in eq. 6.
    #[test]
    fn the_stdp_term_comes_back_as_its_window() {
        let (sizes, most) = ([200, 200], 8);
        let [d, j] = sizes;
        let c = StdpConfig { tau_minus: crate::config::Positive(3.0), ..StdpConfig::default() };
        // A₋ so that the window's sum is zero: pairs of other differences then cancel
        let sum = |tau: f64| 1.0 / (1.0 / tau).exp_m1();
        let c = StdpConfig { a_minus: crate::config::NonNegative(sum(5.0) / sum(3.0)), ..c };
        let spikes = spikes(200, sizes, 0.02, 1, 2); // rare: few pairs of other differences at the same synapse
        let mut omega = vec![0.0; d * j];
        let mut state = PairState::new(STREAMS, j, d);
        accumulate(&Window::new(&c), &spikes.pre, &spikes.post, &mut state, &mut omega);
        let (sums, pairs) = (sums(&omega, sizes, &spikes, most), pairs(sizes, &spikes, most));
        for (i, lag) in lags(most).enumerate() {
            let dt = lag as f64;
            let window = match lag {
                1.. => (-dt / 5.0).exp(),
                0 => 0.0,
                _ => -c.a_minus.0 * (dt / 3.0).exp(),
            };
            // the furthest of the 17 is 0.04 to 0.08 off in other draws (numpy, six seeds); a shift by one step would be 0.36
            assert!(((sums[i] / pairs[i]) - window).abs() < 0.15, "{lag}: {} {window}", sums[i] / pairs[i]);
        }
    }

    #[test]
    fn rows_are_named_by_pathway_quantity_and_difference() {
        let config =
            DiagnoseConfig { time_differences: Lag(2), time_differences_every: Count(3), ..DiagnoseConfig::default() };
        let mut measured = TimeDifferences::new(&config, std::iter::once(("layers.0.input".to_owned(), 1, [1, 1])));
        let chunk = || vec![Spikes { streams: 1, pre: vec![1.0, 0.0, 0.0], post: vec![0.0, 1.0, 0.0] }];
        measured.keep(1, |_| chunk());
        measured.measure_descent(Quantity::Gradient, &[vec![9.0], vec![0.5, 7.0]]);
        assert!(measured.take().is_empty(), "update 1 is not to be measured");
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
