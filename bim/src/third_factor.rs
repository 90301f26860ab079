//! The third factor of STDP: a scalar that says how well things go, known to every synapse, scales what pairs of spikes do (three-factor
//! rules: Frémaux and Gerstner 2016). With `stdp.third_factor: error` it is how far the chunk's loss lies below its running mean:
//!
//! ```text
//! M = clip((L̄ − L) / σ, −3, 3)                σ: running root mean square of L − L̄; M = 0 until there is one
//! Ω ← M Ω                                     before bounds, norms and the mix of eq. 4
//! L̄ ← L̄ + (L − L̄) / min(n, 100),  σ² likewise with (L − L̄)² of before
//! ```
//!
//! A chunk that went better than usual strengthens what its spikes say, a worse one unlearns it. The factor is known online, from losses up to this
//! chunk's own, and no gradient is in it. Its size does not matter to λ, which is a share of the running root mean square of `M Ω`.

use candle_core::{Device, Tensor};
use learner::{Result, Snapshot};

/// Updates over which losses are remembered.
const MEMORY: u64 = 100;
/// Most standard deviations that one chunk may count.
const MOST: f64 = 3.0;
/// Name in a snapshot.
const NAME: &str = "stdp.third_factor";

/// Running mean and spread of the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ThirdFactor {
    mean: f64,
    square: f64,
    losses: u64,
}

impl ThirdFactor {
    /// `M` of a chunk with this loss, which is then remembered.
    pub fn of(&mut self, loss: f64) -> f64 {
        let better = self.mean - loss;
        let spread = self.square.sqrt();
        let factor = if spread > 0.0 { (better / spread).clamp(-MOST, MOST) } else { 0.0 };
        if self.losses == 0 {
            self.mean = loss;
        } else {
            // the first difference counts whole
            self.square += (better * better - self.square) / self.losses.min(MEMORY) as f64;
            self.mean -= better / (self.losses + 1).min(MEMORY) as f64;
        }
        self.losses += 1;
        factor
    }

    /// Adds what is remembered to a snapshot.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn save(&self, snapshot: &mut Snapshot) -> Result<()> {
        let values = Tensor::new(&[self.mean, self.square], &Device::Cpu)?;
        snapshot.optimizer.insert(NAME.to_owned(), values);
        snapshot.counters.insert(NAME.to_owned(), self.losses);
        Ok(())
    }

    /// Restores what [`ThirdFactor::save`] wrote.
    ///
    /// # Errors
    /// If it is missing or has another length.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        let values = snapshot.moment(NAME, &[2])?.to_vec1::<f64>()?;
        (self.mean, self.square) = (values[0], values[1]);
        self.losses = snapshot.counter(NAME)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
