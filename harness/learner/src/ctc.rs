//! Connectionist temporal classification (Graves et al. 2006) by its posteriors, in log space.
//!
//! For online learning the rule takes two passes: run the utterance once and keep its logits alone; compute the posteriors
//! `γ` here; run it again with the gradient `softmax − γ_t` at every step. At frozen weights that is exactly CTC's gradient,
//! without the network's history.

mod transcripts;

pub use transcripts::Transcripts;

use crate::operations::Work;
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

/// Maximum, difference, exponential and sum of each output; logarithm and sum of each step.
const LOG_SUM_EXP: (u64, u64) = (4, 2);
/// Comparison, difference, exponential, `ln(1 + x)`, sum.
const LOG_ADD: u64 = 5;
/// Per step and state: `ln p`; the forward variable times it; their product with the backward one over all paths (2), its
/// exponential and sum; the backward variable times `p`.
const PER_STATE: u64 = 1 + 1 + 4 + 1;

/// What [`align`] does for `steps` steps of `outputs`, paths that cannot be included.
#[must_use]
pub fn alignment_work(steps: usize, outputs: usize, labels: &[u32]) -> Work {
    let skips = labels.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let [steps, outputs, states, skips] = [steps, outputs, 2 * labels.len() + 1, skips].map(|n| n as u64);
    if steps == 0 {
        return Work::default();
    }
    // forward from the second step on, backward for all; the ends of both paths at the end
    let additions = (2 * steps - 1) * (states - 1 + skips) + u64::from(states > 1);
    let cells = steps * states;
    Work {
        // the first step's forward variables are its probabilities
        elementwise: steps * (LOG_SUM_EXP.0 * outputs + LOG_SUM_EXP.1) + LOG_ADD * additions + PER_STATE * cells
            - states,
        // probabilities and forward variables, and posteriors, written and read
        state_words: 4 * cells + 2 * steps * outputs,
        ..Work::default()
    }
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

    /// Two steps, three outputs, the labels 1 and 2: five states, one of which is also reached over a blank.
    #[test]
    fn work_by_hand() {
        let work = alignment_work(2, 3, &[1, 2]);
        // the forward variables of the second step; backward in both steps; the sum over both ends
        let additions = (4 + 1) + 2 * (4 + 1) + 1;
        let by_hand = [
            2 * (3 * 4 + 2), // ln Σ e^z
            2 * 5,           // ln p
            5,               // forward
            5 * additions,
            2 * 5 * 4, // posteriors
            2 * 5,     // backward
        ];
        assert_eq!(work.elementwise, by_hand.iter().sum::<u64>());
        assert_eq!(work.state_words, 2 * 2 * 10 + 2 * 6);
        assert_eq!((work.macs, work.acs, work.weight_words), (0, 0, 0));
        // between equal labels there is no way over the blank; no label has one state
        assert_eq!(work.elementwise - alignment_work(2, 3, &[1, 1]).elementwise, 3 * LOG_ADD);
        assert_eq!(alignment_work(1, 3, &[]).elementwise, 14 + PER_STATE - 1);
        assert_eq!(alignment_work(0, 3, &[]), Work::default());
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
