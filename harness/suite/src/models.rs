//! From a model's configuration to a learner: the one place that knows all kinds.

use baselines::ops::Precision;
use baselines::{
    BpttConfig, CnnConfig, Family, LstmConfig, MambaConfig, ModelConfig as Baseline, RnnConfig, SnnConfig,
    TransformerConfig, Whole,
};
use bim::config::Credit;
use bim::{BimConfig, Optimizer};
use candle_core::Device;
use learner::{Cost, Error, Io, Learner};

use crate::registry::registry;
use crate::tasks::{Segmentation, Task};
use crate::train::TrainConfig;

/// What is known about a kind of model before it has settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Name in grid files.
    pub kind: &'static str,
    /// Version of the code that turns a configuration into numbers: part of every cell's id.
    pub code_version: u32,
    /// The page that has its equations, and its tensors by name and shape.
    pub page: &'static str,
    /// How its tensors lie.
    pub layout: &'static str,
}

const fn baseline(kind: &'static str, page: &'static str) -> ModelInfo {
    let layout = "row-major; matrices are [inputs, outputs]; taps oldest first";
    ModelInfo { kind, code_version: baselines::CODE_VERSION, page, layout }
}

const BIM: ModelInfo = ModelInfo {
    kind: "bim",
    code_version: bim::CODE_VERSION,
    page: "bim/README.md",
    layout: "row-major; matrices are [outputs, inputs]; taps newest first",
};

/// More steps than any recording has, far below what would overflow a size.
const WHOLE_RECORDING: usize = 1 << 20;

registry! {
    /// A model with its settings.
    pub enum ModelConfig, "model", ModelInfo;
    /// Bio-Inspired Mamba, learning online.
    Bim(Box<BimConfig>) = BIM;
    /// Pre-norm Transformer, causal with carried context or over whole recordings, by backpropagation through time.
    Transformer(TransformerConfig) = baseline("transformer", "baselines/docs/transformer.md");
    /// LSTM, by backpropagation through time.
    Lstm(LstmConfig) = baseline("lstm", "baselines/docs/lstm.md");
    /// GRU or simple recurrent network, by backpropagation through time.
    Rnn(RnnConfig) = baseline("rnn", "baselines/docs/rnn.md");
    /// Causal convolutions or a residual network over recordings, by backpropagation.
    Cnn(CnnConfig) = baseline("cnn", "baselines/docs/cnn.md");
    /// Mamba, by backpropagation through time.
    Mamba(MambaConfig) = baseline("mamba", "baselines/docs/mamba.md");
    /// Spiking neural network, by surrogate gradients and backpropagation through time.
    Snn(SnnConfig) = baseline("snn", "baselines/docs/snn.md");
}

impl ModelConfig {
    /// Steps per segment where the grid does not say.
    #[must_use]
    pub fn default_segment(&self) -> usize {
        match self {
            Self::Bim(c) if c.credit == Credit::Bptt => 256,
            Self::Bim(_) => 32,
            Self::Transformer(_) | Self::Lstm(_) | Self::Rnn(_) | Self::Cnn(_) | Self::Mamba(_) | Self::Snn(_) => {
                // tasks with recordings cut this to the length of theirs
                if self.for_streams().is_some() { WHOLE_RECORDING } else { 256 }
            }
        }
    }

    /// Of a model that sees recordings as a whole, the setting that makes it one of streams.
    fn for_streams(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Cnn(c) if c.family == Family::Resnet => Some(("family", "causal")),
            Self::Transformer(c) if !c.causal => Some(("causal", "true")),
            Self::Bim(_)
            | Self::Transformer(_)
            | Self::Lstm(_)
            | Self::Rnn(_)
            | Self::Cnn(_)
            | Self::Mamba(_)
            | Self::Snn(_) => None,
        }
    }

    /// Whether a GPU has kernels for the model.
    #[must_use]
    pub fn runs_on_gpu(&self) -> bool {
        match self {
            Self::Bim(c) => bim::check_gpu(c).is_ok(),
            Self::Transformer(_) | Self::Lstm(_) | Self::Rnn(_) | Self::Cnn(_) | Self::Mamba(_) | Self::Snn(_) => true,
        }
    }

    /// Whether the model can have what the task hands out in segments of so many steps.
    ///
    /// # Errors
    /// If it sees recordings as a whole and the task does not give them so, or wants more than one answer of a resnet.
    pub fn check_task(&self, task: &dyn Task, segment: usize) -> learner::Result<()> {
        let Some((key, value)) = self.for_streams() else { return Ok(()) };
        let (key, problem) = match task.segmentation() {
            Segmentation::Streams => {
                (key, format!("sees a recording as a whole, which this task reads piece by piece: expected {value}"))
            }
            Segmentation::Whole if matches!(self, Self::Cnn(_)) => (
                key,
                format!("gives one answer per recording, of which this task wants one at every step: expected {value}"),
            ),
            Segmentation::Whole | Segmentation::OneAnswer => {
                let longest = task.io(1, WHOLE_RECORDING).segment;
                if segment >= longest {
                    return Ok(());
                }
                (
                    "segment",
                    format!(
                        "expected {longest} or more, the longest recording, for a model that sees it as a whole; got {segment}"
                    ),
                )
            }
        };
        Err(Error::Config { key, problem })
    }

    /// How the optimiser runs over `segments` segments with supervised steps.
    fn training(&self, train: &TrainConfig, segments: u64) -> learner::Result<BpttConfig> {
        let accumulate =
            Whole::try_from(train.accumulate.0).map_err(|problem| Error::Config { key: "accumulate", problem })?;
        if matches!(self, Self::Bim(_)) && accumulate.get() > 1 {
            let problem = "bim learns from every segment as it arrives; leave it out".into();
            return Err(Error::Config { key: "accumulate", problem });
        }
        if matches!(self, Self::Bim(_)) && train.precision != Precision::Full {
            let problem = "bim learns in full precision; leave it out".into();
            return Err(Error::Config { key: "precision", problem });
        }
        // segments left over at the end make no update
        let updates = (segments / accumulate.get() as u64).max(1);
        let (schedule, adamw, clip) = (train.schedule(updates), train.adamw(), train.clip.0);
        Ok(BpttConfig { schedule, adamw, clip, accumulate, precision: train.precision })
    }

    /// Builds the learner for `segments` segments with supervised steps.
    ///
    /// # Errors
    /// If settings do not fit together or the device cannot run the model.
    pub fn build(
        &self,
        io: Io,
        train: &TrainConfig,
        segments: u64,
        seed: u64,
        device: &Device,
    ) -> learner::Result<Box<dyn Learner>> {
        let bptt = self.training(train, segments)?;
        match self.baseline() {
            Ok(baseline) => baselines::build(&baseline, io, bptt, seed, device),
            Err(bim) => bim::build(bim, io, optimizer(&bptt), seed, device),
        }
    }

    /// What the learner that [`ModelConfig::build`] would make costs, without making it.
    ///
    /// # Errors
    /// What it refuses.
    pub fn plan(&self, io: Io, train: &TrainConfig, segments: u64, device: &Device) -> learner::Result<Cost> {
        let bptt = self.training(train, segments)?;
        match self.baseline() {
            Ok(baseline) => baselines::plan(&baseline, io, bptt, device),
            Err(bim) => bim::plan(bim, io, optimizer(&bptt), device),
        }
    }

    /// As the crate of the baselines has it; BIM's own settings if it is none of them.
    fn baseline(&self) -> Result<Baseline, &BimConfig> {
        Ok(match self {
            Self::Bim(c) => return Err(c),
            Self::Transformer(c) => Baseline::Transformer(c.clone()),
            Self::Lstm(c) => Baseline::Lstm(c.clone()),
            Self::Rnn(c) => Baseline::Rnn(c.clone()),
            Self::Cnn(c) => Baseline::Cnn(c.clone()),
            Self::Mamba(c) => Baseline::Mamba(c.clone()),
            Self::Snn(c) => Baseline::Snn(c.clone()),
        })
    }
}

/// What BIM takes of the training.
fn optimizer(train: &BpttConfig) -> Optimizer {
    Optimizer { schedule: train.schedule, adamw: train.adamw, clip: train.clip }
}
