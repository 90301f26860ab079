//! Where cells run: `--device auto`, `cpu` or `cuda:N`.

use candle_core::Device;

use crate::error::{Error, Result};
use crate::models::ModelConfig;

/// The devices of an invocation.
#[derive(Clone, Debug)]
pub enum Devices {
    /// Every cell on this one.
    One(Device),
    /// Cells on the GPU, if their models can run there, the others on the CPU.
    Auto(Device),
}

impl Devices {
    /// Reads the value of `--device`. `auto` is the first GPU for the models that can run there, where the program was built with
    /// CUDA and there is a GPU, otherwise the CPU.
    ///
    /// # Errors
    /// `Usage` for another word, or a GPU that is not there.
    pub fn parse(text: &str) -> Result<Self> {
        let cuda = |n| cuda(n).map_err(|e| Error::Usage(format!("--device cuda:{n}: {e}")));
        match text {
            "auto" if candle_core::utils::cuda_is_available() => Ok(match cuda(0) {
                Ok(device) => Self::Auto(device),
                Err(e) => {
                    data::tell!("{e}\n  cells run on the CPU");
                    Self::One(Device::Cpu)
                }
            }),
            "auto" | "cpu" => Ok(Self::One(Device::Cpu)),
            other => match other.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
                Some(n) => Ok(Self::One(cuda(n)?)),
                None => Err(Error::Usage(format!("--device {other}: expected auto, cpu or cuda:N"))),
            },
        }
    }

    /// Where a model's cells run.
    #[must_use]
    pub fn of(&self, model: &ModelConfig) -> &Device {
        match self {
            Self::One(device) => device,
            Self::Auto(gpu) if model.runs_on_gpu() => gpu,
            Self::Auto(_) => &Device::Cpu,
        }
    }

    /// The value of `--device` that means the same to another process.
    #[must_use]
    pub fn value(&self) -> String {
        match self {
            Self::One(device) => name(device),
            Self::Auto(_) => "auto".into(),
        }
    }
}

/// A GPU with one stream for all threads. Candle's default is one for each thread, and a cell's threads hand tensors to each
/// other: work on streams of their own would be in no order.
fn cuda(ordinal: usize) -> candle_core::Result<Device> {
    Device::new_cuda_with_stream(ordinal)
}

/// `cpu` or `cuda:N`.
#[must_use]
pub fn name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".into(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}
