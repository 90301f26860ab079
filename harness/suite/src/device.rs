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
        match text {
            "auto" if candle_core::utils::cuda_is_available() => Ok(match gpu(0) {
                Ok(device) => Self::Auto(device),
                Err(e) => {
                    data::tell!("{e}\n  cells run on the CPU");
                    Self::One(Device::Cpu)
                }
            }),
            "auto" | "cpu" => Ok(Self::One(Device::Cpu)),
            other => match other.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
                Some(n) => Ok(Self::One(gpu(n)?)),
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
fn gpu(ordinal: usize) -> Result<Device> {
    Device::new_cuda_with_stream(ordinal).map_err(|e| {
        Error::Usage(if candle_core::utils::cuda_is_available() {
            format!("--device cuda:{ordinal}: {e}\n  nvidia-smi lists the GPUs that are there; --device cpu needs none")
        } else {
            format!(
                "--device cuda:{ordinal}: this program was built without CUDA\n  \
                 build it with --features cuda (see CONTRIBUTING.md), or take --device cpu"
            )
        })
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_not_there_is_refused_with_what_to_do() {
        let refused = |text: &str| Devices::parse(text).expect_err("refused").to_string();
        let said = refused("cuda:7");
        assert!(said.contains("--device cuda:7") && said.contains("--device cpu"), "{said}");
        // said where it is the reason and nowhere else
        assert_eq!(said.contains("--features cuda"), !candle_core::utils::cuda_is_available(), "{said}");
        assert!(refused("gpu").contains("expected auto, cpu or cuda:N"));
    }
}
