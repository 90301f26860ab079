//! Connectionist temporal classification (Graves et al. 2006) by its posteriors, in log space.
//!
//! For online learning the rule takes two passes: run the utterance once and keep its logits alone; compute the posteriors
//! `γ` here; run it again with the gradient `softmax − γ_t` at every step. At frozen weights that is exactly CTC's gradient,
//! without the network's history.

mod transcripts;

pub use transcripts::Transcripts;

use crate::{Error, Result};

/// The output that emits nothing, where a task is free to choose.
pub const BLANK: u32 = 0;

/// Loss and posteriors of one utterance.
#[derive(Clone, Debug, PartialEq)]
pub struct Alignment {
    /// `−ln p(labels | x)` in nats; infinite if the labels do not fit into the steps.
    pub loss: f64,
    /// `γ_{t,v}`: probability that step `t` emits `v`, given the labels; `[T, V]`. Zeros where the loss is infinite.
    pub posterior: Vec<f32>,
}

fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// Aligns `labels` to `logits` `[T, V]`.
///
/// # Errors
/// If the shape of `logits` is not whole rows of `outputs`, or a label is the blank or outside the outputs.
pub fn align(logits: &[f32], outputs: usize, labels: &[u32], blank: u32) -> Result<Alignment> {
    let wide: Vec<f64> = logits.iter().map(|&z| f64::from(z)).collect();
    let (loss, posterior) = forward_backward(&wide, outputs, labels, blank)?;
    Ok(Alignment { loss, posterior: posterior.into_iter().map(|g| g as f32).collect() })
}

/// Fewest steps that `labels` fit into: one each, and a blank between two that are equal.
#[must_use]
pub fn steps_needed(labels: &[u32]) -> usize {
    labels.len() + labels.windows(2).filter(|pair| pair[0] == pair[1]).count()
}

/// `ln Σ e^z`.
fn log_sum_exp(z: &[f64]) -> f64 {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln()
}

/// Loss and posteriors `[T, V]` of one utterance (Graves et al. 2006, eq. 6 to 11 and 15, in logarithms).
fn forward_backward(logits: &[f64], outputs: usize, labels: &[u32], blank: u32) -> Result<(f64, Vec<f64>)> {
    if outputs == 0 || !logits.len().is_multiple_of(outputs) || logits.is_empty() {
        return Err(Error::shape("CTC logits", format!("one or more rows of {outputs}"), logits.len()));
    }
    if let Some(bad) = labels.iter().chain([&blank]).find(|l| **l as usize >= outputs) {
        return Err(Error::shape("CTC label", format!("below {outputs}"), bad));
    }
    if labels.contains(&blank) {
        return Err(Error::shape("CTC label", format!("other than the blank {blank}"), blank));
    }
    let steps = logits.len() / outputs;
    // the extended sequence: a blank around every label
    let states: Vec<u32> = std::iter::once(blank).chain(labels.iter().flat_map(|&l| [l, blank])).collect();
    let n = states.len();
    let mut log_p = Vec::with_capacity(steps * n); // [T, S]
    for row in logits.chunks_exact(outputs) {
        let log_sum = log_sum_exp(row);
        log_p.extend(states.iter().map(|&s| row[s as usize] - log_sum));
    }
    // whether state s may be reached from s − 2: over a blank, between labels that differ
    let skips: Vec<bool> = (0..n).map(|s| s >= 2 && states[s] != blank && states[s] != states[s - 2]).collect();
    let never = f64::NEG_INFINITY;
    let mut alpha = vec![never; steps * n];
    alpha[..n.min(2)].copy_from_slice(&log_p[..n.min(2)]);
    for t in 1..steps {
        let (past, now) = alpha.split_at_mut(t * n);
        let past = &past[(t - 1) * n..];
        for s in 0..n {
            let mut sum = past[s];
            if s >= 1 {
                sum = log_add(sum, past[s - 1]);
            }
            if skips[s] {
                sum = log_add(sum, past[s - 2]);
            }
            now[s] = sum + log_p[t * n + s];
        }
    }
    let last = &alpha[(steps - 1) * n..];
    let total = if n == 1 { last[0] } else { log_add(last[n - 1], last[n - 2]) };
    let mut posterior = vec![0.0; steps * outputs];
    if !total.is_finite() {
        // labels that do not fit have no path; logits that are no numbers have a loss that is none
        return Ok((if total.is_nan() { f64::NAN } else { f64::INFINITY }, posterior));
    }
    let mut beta = vec![never; n];
    beta[n - 1] = 0.0;
    if n > 1 {
        beta[n - 2] = 0.0;
    }
    let mut next = vec![0.0; n];
    for t in (0..steps).rev() {
        let gamma = &mut posterior[t * outputs..][..outputs];
        for s in 0..n {
            gamma[states[s] as usize] += (alpha[t * n + s] + beta[s] - total).exp();
            next[s] = beta[s] + log_p[t * n + s];
        }
        for s in 0..n {
            let mut sum = next[s];
            if s + 1 < n {
                sum = log_add(sum, next[s + 1]);
            }
            if s + 2 < n && skips[s + 2] {
                sum = log_add(sum, next[s + 2]);
            }
            beta[s] = sum;
        }
    }
    Ok((-total, posterior))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every path of `steps` symbols that collapses to `labels`.
    fn enumerate(logits: &[f32], outputs: usize, labels: &[u32]) -> (f64, Vec<f64>) {
        let steps = logits.len() / outputs;
        let p: Vec<f64> = logits
            .chunks_exact(outputs)
            .flat_map(|row| {
                let sum: f64 = row.iter().map(|&z| f64::from(z).exp()).sum();
                row.iter().map(move |&z| f64::from(z).exp() / sum)
            })
            .collect();
        let (mut total, mut gamma) = (0.0, vec![0.0; logits.len()]);
        for code in 0..outputs.pow(steps as u32) {
            let path: Vec<usize> = (0..steps).map(|t| code / outputs.pow(t as u32) % outputs).collect();
            let mut collapsed: Vec<u32> = Vec::new();
            for t in 0..steps {
                if path[t] != 0 && (t == 0 || path[t] != path[t - 1]) {
                    collapsed.push(path[t] as u32);
                }
            }
            if collapsed == labels {
                let probability: f64 = (0..steps).map(|t| p[t * outputs + path[t]]).product();
                total += probability;
                for t in 0..steps {
                    gamma[t * outputs + path[t]] += probability;
                }
            }
        }
        for g in &mut gamma {
            *g /= total;
        }
        (-total.ln(), gamma)
    }

    #[test]
    fn loss_and_posteriors_equal_the_sum_over_all_paths() -> Result<()> {
        let (steps, outputs) = (6, 3);
        let logits: Vec<f32> = (0..steps * outputs).map(|i| ((i * 37 % 19) as f32 - 9.0) / 4.0).collect();
        for labels in [&[][..], &[1], &[1, 2], &[2, 2], &[1, 2, 1], &[1, 1, 1]] {
            let got = align(&logits, outputs, labels, 0)?;
            let (loss, gamma) = enumerate(&logits, outputs, labels);
            assert!((got.loss - loss).abs() < 1e-9, "{labels:?}: {} {loss}", got.loss);
            for (a, b) in got.posterior.iter().zip(&gamma) {
                assert!((f64::from(*a) - b).abs() < 1e-6, "{labels:?}"); // posteriors are kept as f32
            }
        }
        Ok(())
    }

    #[test]
    fn labels_that_do_not_fit_have_no_gradient_and_bad_labels_are_errors() -> Result<()> {
        let got = align(&[0.0; 6], 3, &[1, 1], 0)?; // two steps cannot hold 1, blank, 1
        assert_eq!((got.loss, got.posterior), (f64::INFINITY, vec![0.0; 6]));
        assert!(align(&[0.0; 6], 3, &[3], 0).is_err() && align(&[0.0; 6], 3, &[0], 0).is_err());
        assert!(align(&[0.0; 5], 3, &[1], 0).is_err());
        Ok(())
    }

    #[test]
    fn shortest_fit() -> Result<()> {
        for labels in [&[][..], &[1], &[1, 1], &[1, 2, 2, 2]] {
            let need = steps_needed(labels);
            assert!(align(&vec![0.0; need.max(1) * 3], 3, labels, 0)?.loss.is_finite(), "{labels:?}");
            if need > 1 {
                assert!(align(&vec![0.0; (need - 1) * 3], 3, labels, 0)?.loss.is_infinite(), "{labels:?}");
            }
        }
        Ok(())
    }
}
