//! What the tests share.

use std::collections::BTreeMap;

use bim::kernels::Real;
use bim::network::Network;
use bim::params::NetworkParams;
use candle_core::{DType, Device, Tensor, Var};
use learner::{Result, seeded_rng};
use rand_distr::{Distribution, StandardNormal};

/// Gradients, or anything else of which there is one for each number of a parameter.
pub type Grads = BTreeMap<String, Vec<f64>>;

/// Standard normal numbers that depend on their name alone.
pub fn random(name: &str, shape: &[usize], dtype: DType) -> Tensor {
    let mut rng = seeded_rng(11, name);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| StandardNormal.sample(&mut rng)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).and_then(|t| t.to_dtype(dtype)).expect("small tensor")
}

pub fn add(into: &mut Grads, name: &str, values: impl IntoIterator<Item = f64>) {
    let values: Vec<f64> = values.into_iter().collect();
    match into.get_mut(name) {
        Some(sum) => sum.iter_mut().zip(values).for_each(|(a, b)| *a += b),
        None => {
            into.insert(name.to_owned(), values);
        }
    }
}

pub fn named<T: Real>(network: &Network<T>, grads: &NetworkParams<Vec<T>>) -> Grads {
    let pairs = network.names.iter().zip(grads.iter());
    pairs.map(|(name, g)| (name.clone(), g.iter().map(|v| v.wide()).collect())).collect()
}

/// Gradients of a loss on the graph.
pub fn collect(vars: &[(String, Var)], loss: &Tensor) -> Result<Grads> {
    let store = loss.backward()?;
    let mut grads = Grads::new();
    for (name, var) in vars {
        let g = store.get(var).map_or_else(|| var.zeros_like(), |g| Ok(g.clone()))?;
        add(&mut grads, name, numbers(&g)?);
    }
    Ok(grads)
}

pub fn numbers(t: &Tensor) -> Result<Vec<f64>> {
    Ok(t.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?)
}

/// Largest difference per parameter, relative to the parameter's largest gradient.
pub fn error(got: &[f64], want: &[f64]) -> f64 {
    let scale = want.iter().fold(1e-12f64, |m, x| m.max(x.abs()));
    got.iter().zip(want).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / scale
}

/// Parameters in front of `ψ`: their credit through the state space is that of a lower layer, so it stays in the chunk.
pub fn upstream(name: &str) -> bool {
    let front = [".norm.gain", ".conv", ".delays", ".pre.current", ".pre.step"];
    name == "embedding" || name.starts_with("layers.") && front.iter().any(|f| name.ends_with(f))
}

/// What stands in front of the blocks: in the chunk whatever its credit.
pub fn before_blocks(name: &str) -> bool {
    name == "embedding"
}

pub fn assert_close(case: &str, got: &Grads, want: &Grads, tolerance: f64, keep: impl Fn(&str) -> bool) {
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
    for (name, want) in want.iter().filter(|(name, _)| keep(name)) {
        assert!(want.iter().any(|x| *x != 0.0), "{case}: {name} has no gradient at all, the test would be empty");
        let got = &got[name];
        assert_eq!(got.len(), want.len(), "{case}: {name}");
        let error = error(got, want);
        assert!(error < tolerance, "{case}: {name} differs by {error:.1e}");
    }
}
