use candle_core::Device;
use learner::{AdamWConfig, Cost, Decay, Error, Io, Learner, Result, Schedule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ops::Precision;
use crate::{
    BpttLearner, Cnn, CnnConfig, Lstm, LstmConfig, Mamba, MambaConfig, Rnn, RnnConfig, Snn, SnnConfig, Transformer,
    TransformerConfig,
};

/// A whole number from `LOW` to `HIGH`, checked while it is read, so that an error points at the key that caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64", into = "usize")]
#[schemars(inline, extend("minimum" = LOW, "maximum" = HIGH, "x-expected" = format!("a whole number from {LOW} to {HIGH}")))]
pub struct Whole<const LOW: usize, const HIGH: usize>(usize);

impl<const LOW: usize, const HIGH: usize> Whole<LOW, HIGH> {
    /// The number.
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

impl<const LOW: usize, const HIGH: usize> TryFrom<f64> for Whole<LOW, HIGH> {
    type Error = String;
    fn try_from(x: f64) -> std::result::Result<Self, String> {
        if x.fract() == 0.0 && (LOW as f64..=HIGH as f64).contains(&x) {
            Ok(Self(x as usize))
        } else {
            Err(format!("expected a whole number from {LOW} to {HIGH}, got {x}"))
        }
    }
}

impl<const LOW: usize, const HIGH: usize> TryFrom<usize> for Whole<LOW, HIGH> {
    type Error = String;
    fn try_from(x: usize) -> std::result::Result<Self, String> {
        Self::try_from(x as f64)
    }
}

impl<const LOW: usize, const HIGH: usize> From<Whole<LOW, HIGH>> for usize {
    fn from(x: Whole<LOW, HIGH>) -> Self {
        x.0
    }
}

/// `Whole` from a constant that the compiler checks.
pub(crate) const fn whole<const LOW: usize, const HIGH: usize>(x: usize) -> Whole<LOW, HIGH> {
    assert!(LOW <= x && x <= HIGH, "constant out of range");
    Whole(x)
}

/// A share from 0 to 1, checked while it is read.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64", into = "f64")]
#[schemars(inline, extend("minimum" = 0, "maximum" = 1, "x-expected" = "a number from 0 to 1"))]
pub struct Share(f64);

impl TryFrom<f64> for Share {
    type Error = String;
    fn try_from(x: f64) -> std::result::Result<Self, String> {
        if (0.0..=1.0).contains(&x) { Ok(Self(x)) } else { Err(format!("expected a number from 0 to 1, got {x}")) }
    }
}

impl From<Share> for f64 {
    fn from(x: Share) -> Self {
        x.0
    }
}

/// A number above 0, checked while it is read.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64", into = "f64")]
#[schemars(inline, extend("exclusiveMinimum" = 0, "x-expected" = "a number above 0"))]
pub struct Positive(f64);

impl TryFrom<f64> for Positive {
    type Error = String;
    fn try_from(x: f64) -> std::result::Result<Self, String> {
        if x > 0.0 && x.is_finite() { Ok(Self(x)) } else { Err(format!("expected a number above 0, got {x}")) }
    }
}

impl From<Positive> for f64 {
    fn from(x: Positive) -> Self {
        x.0
    }
}

/// `Share` from a constant that the compiler checks.
pub(crate) const fn share(x: f64) -> Share {
    assert!(0.0 <= x && x <= 1.0, "constant out of range");
    Share(x)
}

/// `Positive` from a constant that the compiler checks.
pub(crate) const fn positive(x: f64) -> Positive {
    assert!(x > 0.0 && x.is_finite(), "constant out of range");
    Positive(x)
}

/// Channels, `D` or `H`.
pub type Width = Whole<1, 4096>;
/// Layers, `L`.
pub type Layers = Whole<1, 128>;

/// How a model is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BpttConfig {
    /// Learning rate as a function of the number of updates.
    pub schedule: Schedule,
    /// The optimiser.
    pub adamw: AdamWConfig,
    /// Largest L2 norm of the gradient over all parameters; a larger one is scaled down to it.
    pub clip: f64,
    /// Segments with supervised steps whose gradients make one update.
    pub accumulate: Whole<1, 4096>,
    /// In what matrix products are made.
    pub precision: Precision,
}

impl BpttConfig {
    /// Settings under which models of about a million parameters learn bytes well in a few thousand updates: peak
    /// 3e-3 after a twentieth of the updates (100 at most), half a cosine to a tenth, clipped at 1.
    #[must_use]
    pub fn recipe(total_updates: u64) -> Self {
        let warmup_updates = (total_updates / 20).min(100);
        let schedule = Schedule { peak: 3e-3, warmup_updates, total_updates, decay: Decay::Cosine, final_share: 0.1 };
        Self { schedule, adamw: AdamWConfig::default(), clip: 1.0, accumulate: whole(1), precision: Precision::Full }
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.clip.is_nan() || self.clip <= 0.0 {
            return Err(Error::Config {
                key: "clip",
                problem: format!("expected a number above 0, got {}", self.clip),
            });
        }
        Ok(())
    }
}

/// A baseline and its sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ModelConfig {
    /// Transformer, a decoder or an encoder.
    Transformer(TransformerConfig),
    /// Long short-term memory.
    Lstm(LstmConfig),
    /// Gated recurrent units, or a simple recurrent network.
    Rnn(RnnConfig),
    /// Causal convolutions, or a residual network over recordings.
    Cnn(CnnConfig),
    /// Selective state space.
    Mamba(MambaConfig),
    /// Spiking neural network.
    Snn(SnnConfig),
}

/// A learner for any baseline.
///
/// # Errors
/// If the configuration cannot work or the parameters cannot be allocated.
pub fn build(model: &ModelConfig, io: Io, train: BpttConfig, seed: u64, device: &Device) -> Result<Box<dyn Learner>> {
    Ok(match model {
        ModelConfig::Transformer(c) => Box::new(BpttLearner::<Transformer>::new(c.clone(), io, train, seed, device)?),
        ModelConfig::Lstm(c) => Box::new(BpttLearner::<Lstm>::new(c.clone(), io, train, seed, device)?),
        ModelConfig::Rnn(c) => Box::new(BpttLearner::<Rnn>::new(c.clone(), io, train, seed, device)?),
        ModelConfig::Cnn(c) => Box::new(BpttLearner::<Cnn>::new(c.clone(), io, train, seed, device)?),
        ModelConfig::Mamba(c) => Box::new(BpttLearner::<Mamba>::new(c.clone(), io, train, seed, device)?),
        ModelConfig::Snn(c) => Box::new(BpttLearner::<Snn>::new(c.clone(), io, train, seed, device)?),
    })
}

/// What the learner that [`build`] would make costs, without making it.
///
/// # Errors
/// What [`build`] refuses.
pub fn plan(model: &ModelConfig, io: Io, train: BpttConfig, device: &Device) -> Result<Cost> {
    match model {
        ModelConfig::Transformer(c) => BpttLearner::<Transformer>::plan(c, io, train, device),
        ModelConfig::Lstm(c) => BpttLearner::<Lstm>::plan(c, io, train, device),
        ModelConfig::Rnn(c) => BpttLearner::<Rnn>::plan(c, io, train, device),
        ModelConfig::Cnn(c) => BpttLearner::<Cnn>::plan(c, io, train, device),
        ModelConfig::Mamba(c) => BpttLearner::<Mamba>::plan(c, io, train, device),
        ModelConfig::Snn(c) => BpttLearner::<Snn>::plan(c, io, train, device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> String {
        serde_json::from_str::<ModelConfig>(json).map_or_else(|e| e.to_string(), |c| format!("{c:?}"))
    }

    #[test]
    fn values_are_checked_while_they_are_read() {
        assert!(problem(r#"{"kind": "lstm", "width": 0}"#).contains("expected a whole number from 1 to 4096, got 0"));
        assert!(
            problem(r#"{"kind": "lstm", "width": 1.5}"#).contains("expected a whole number from 1 to 4096, got 1.5")
        );
        assert!(problem(r#"{"kind": "lstm", "widht": 1}"#).contains("unknown field `widht`"));
        assert!(
            problem(r#"{"kind": "mamba", "states": 257}"#).contains("expected a whole number from 1 to 256, got 257")
        );
        assert!(problem(r#"{"kind": "snn", "decay": 1.5}"#).contains("expected a number from 0 to 1, got 1.5"));
        assert!(problem(r#"{"kind": "snn", "threshold": 0}"#).contains("expected a number above 0, got 0"));
        assert!(problem(r#"{"kind": "gru"}"#).contains("unknown variant `gru`"));
    }

    #[test]
    fn a_configuration_survives_being_written_and_read() -> std::result::Result<(), serde_json::Error> {
        let config: ModelConfig = serde_json::from_str(r#"{"kind": "transformer", "width": 64, "memory": 0}"#)?;
        assert_eq!(serde_json::from_str::<ModelConfig>(&serde_json::to_string(&config)?)?, config);
        // keys that are younger than results: what does not use them is written as before, and keeps its identity
        for (plain, key, used) in [
            (r#"{"kind": "transformer"}"#, "causal", r#"{"kind": "transformer", "causal": false}"#),
            (r#"{"kind": "cnn", "family": "resnet"}"#, "growth", r#"{"kind": "cnn", "family": "resnet", "growth": 1}"#),
        ] {
            let written = |json: &str| serde_json::to_string(&serde_json::from_str::<ModelConfig>(json)?);
            assert!(!written(plain)?.contains(key), "{}", written(plain)?);
            assert_eq!(serde_json::from_str::<ModelConfig>(&written(used)?)?, serde_json::from_str(used)?);
            assert!(written(used)?.contains(key));
        }
        Ok(())
    }
}
