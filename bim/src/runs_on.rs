//! Where a network can run: on the CPU always, on a GPU what its kernels have.

use candle_core::Device;
use learner::{Error, Io, Learner, Result};

use crate::config::{BimConfig, Front, Inference, Third};
use crate::online::{Bim, Optimizer};

/// Most blocks in the second and the third dimension of a launch, where streams are. The first, where states, channels and neurons are,
/// has room for any count of 32 bits.
pub(crate) const BLOCKS: usize = 65_535;

/// A fresh learner on a device, with all streams at rest.
///
/// # Errors
/// If the configuration does not fit together, or the device cannot run it ([`check_gpu`]).
pub fn build(config: &BimConfig, io: Io, train: Optimizer, seed: u64, device: &Device) -> Result<Box<dyn Learner>> {
    config.check()?;
    check_device(config, &io, device)?;
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
pub(crate) fn check_device(config: &BimConfig, io: &Io, device: &Device) -> Result<()> {
    if device.is_cpu() {
        return Ok(());
    }
    check_gpu(config)?;
    check_streams("streams", io.streams)
}

/// Whether a GPU has kernels for everything that a network needs.
///
/// # Errors
/// Names the key and what would be right.
pub fn check_gpu(config: &BimConfig) -> Result<()> {
    if config.diagnose.every > 0 {
        let problem = "a GPU has no kernels for gradient diagnostics: leave it out, or use --device cpu".to_owned();
        return Err(Error::Config { key: "diagnose.every", problem });
    }
    if config.front == Front::Traces {
        let problem =
            "a GPU has no kernels for traces of what stands in front of ψ: expected chunk, or use --device cpu"
                .to_owned();
        return Err(Error::Config { key: "front", problem });
    }
    if config.energy_target.0 > 0.0 {
        let problem =
            "a GPU has no controller of prices: expected 0 (and penalty, say), or use --device cpu".to_owned();
        return Err(Error::Config { key: "energy_target", problem });
    }
    if config.homeostasis.holds().contains(&true) {
        let problem =
            "a GPU has no kernels for thresholds that hold a rate: expected 0 for pre and post, or use --device cpu"
                .to_owned();
        return Err(Error::Config { key: "homeostasis", problem });
    }
    if config.stdp.third_factor == Third::Error {
        let problem = "a GPU has no kernels for a third factor: expected none, or use --device cpu".to_owned();
        return Err(Error::Config { key: "stdp.third_factor", problem });
    }
    if config.inference == Inference::Events {
        let problem = "a GPU has no kernels for products from events: expected dense, or use --device cpu".to_owned();
        return Err(Error::Config { key: "inference", problem });
    }
    Ok(())
}

/// Whether a launch on a GPU has room for so many streams.
///
/// # Errors
/// Names the key and what would be right.
pub(crate) fn check_streams(key: &'static str, streams: usize) -> Result<()> {
    if streams > BLOCKS {
        let problem = format!(
            "a launch on a GPU has room for {BLOCKS} streams: expected no more, got {streams}, or use --device cpu"
        );
        return Err(Error::Config { key, problem });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use learner::InputKind;

    use super::*;
    use crate::config::{Count, Credit, DiagnoseConfig, HomeostasisConfig, NonNegative, StdpConfig};

    fn io(streams: usize) -> Io {
        Io { input: InputKind::Tokens { vocabulary: 5 }, outputs: 5, streams, segment: 8 }
    }

    #[test]
    fn a_gpu_refuses_gradient_diagnostics_with_their_key() {
        let diagnose = DiagnoseConfig { every: 10, ..DiagnoseConfig::default() };
        let config = BimConfig { diagnose, ..BimConfig::default() };
        let said = check_gpu(&config).expect_err("no kernels").to_string();
        assert!(said.starts_with("diagnose.every: ") && said.contains("--device cpu"), "{said}");
        check_device(&config, &io(2), &Device::Cpu).expect("the CPU has them");
        check_gpu(&BimConfig::default()).expect("nothing to refuse");
    }

    #[test]
    fn a_gpu_refuses_traces_of_the_front_with_their_key() {
        let config = BimConfig { front: Front::Traces, ..BimConfig::default() };
        let said = check_gpu(&config).expect_err("no kernels").to_string();
        assert!(said.starts_with("front: ") && said.contains("--device cpu"), "{said}");
        check_device(&config, &io(2), &Device::Cpu).expect("the CPU has them");
    }

    #[test]
    fn a_gpu_refuses_a_controller_of_prices_with_its_key() {
        let config = BimConfig { energy_target: NonNegative(0.25), ..BimConfig::default() };
        let said = check_gpu(&config).expect_err("no controller").to_string();
        assert!(said.starts_with("energy_target: ") && said.contains("--device cpu"), "{said}");
        check_device(&config, &io(2), &Device::Cpu).expect("the CPU has one");
    }

    #[test]
    fn a_gpu_refuses_thresholds_that_move_with_their_key() {
        let homeostasis = HomeostasisConfig { post: NonNegative(0.2), ..HomeostasisConfig::default() };
        let config = BimConfig { homeostasis, ..BimConfig::default() };
        let said = check_gpu(&config).expect_err("no kernels").to_string();
        assert!(said.starts_with("homeostasis: ") && said.contains("--device cpu"), "{said}");
        check_device(&config, &io(2), &Device::Cpu).expect("the CPU has them");
    }

    #[test]
    fn a_gpu_refuses_a_third_factor_with_its_key() {
        let stdp = StdpConfig { third_factor: Third::Error, ..StdpConfig::default() };
        let config = BimConfig { stdp, ..BimConfig::default() };
        let said = check_gpu(&config).expect_err("no kernels").to_string();
        assert!(said.starts_with("stdp.third_factor: ") && said.contains("--device cpu"), "{said}");
        check_device(&config, &io(2), &Device::Cpu).expect("the CPU has them");
    }

    #[test]
    fn a_gpu_refuses_products_from_events_with_their_key() {
        let config = BimConfig { inference: Inference::Events, ..BimConfig::default() };
        let said = check_gpu(&config).expect_err("no kernels").to_string();
        assert!(said.starts_with("inference: ") && said.contains("--device cpu"), "{said}");
        check_device(&config, &io(2), &Device::Cpu).expect("the CPU has them");
    }

    /// States and channels stand in the dimension of a launch that has room for them.
    #[test]
    fn a_gpu_takes_any_number_of_states_under_every_rule() {
        for credit in [Credit::Hybrid, Credit::Diagonal, Credit::Eprop, Credit::Spatial, Credit::Tbptt, Credit::Bptt] {
            let config = BimConfig { state: Count(256), channels: Count(1024), credit, ..BimConfig::default() };
            check_gpu(&config).unwrap_or_else(|e| panic!("{credit:?}: {e}"));
        }
    }

    #[test]
    fn a_gpu_refuses_more_streams_than_a_launch_has_room_for() {
        check_streams("streams", BLOCKS).expect("room");
        let said = check_streams("eval_streams", BLOCKS + 1).expect_err("no room").to_string();
        assert!(said.starts_with("eval_streams: ") && said.contains("65535") && said.contains("65536"), "{said}");
    }
}
