//! Where a network can run: on the CPU always, on a GPU what its kernels have.

use candle_core::Device;
use learner::{Error, Io, Learner, Result};

use crate::config::BimConfig;
use crate::online::{Bim, Optimizer};

/// Most rows of blocks that a launch has.
const ROWS: usize = 65_535;

/// A fresh learner on a device, with all streams at rest.
///
/// # Errors
/// If the configuration does not fit together, or the device cannot run it ([`check_gpu`]).
pub fn build(config: &BimConfig, io: Io, train: Optimizer, seed: u64, device: &Device) -> Result<Box<dyn Learner>> {
    config.check()?;
    check_device(config, device)?;
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        let machine = crate::device::Gpu::new(device);
        return Ok(Box::new(crate::device::OnDevice::new(&machine, config, io, train, seed)?));
    }
    Ok(Box::new(Bim::new(config, io, train, seed, device)?))
}

/// Refuses what a device cannot run.
///
/// # Errors
/// Names the key and what would be right.
pub(crate) fn check_device(config: &BimConfig, device: &Device) -> Result<()> {
    if device.is_cpu() { Ok(()) } else { check_gpu(config) }
}

/// Whether a GPU has everything that a network needs.
///
/// # Errors
/// Names the key and what would be right.
pub fn check_gpu(config: &BimConfig) -> Result<()> {
    let err = |key, problem: &str| {
        Err(Error::Config { key, problem: format!("a GPU has no kernels for {problem}, or use --device cpu") })
    };
    if config.diagnose.every > 0 {
        return err("diagnose.every", "gradient diagnostics: leave it out");
    }
    if config.state.0 * config.channels.0 > ROWS {
        let problem = format!(
            "a launch has at most {ROWS} rows of blocks: expected state times channels no more than that, got {}; use --device cpu for more",
            config.state.0 * config.channels.0
        );
        return Err(Error::Config { key: "state", problem });
    }
    Ok(())
}
