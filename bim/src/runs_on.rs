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
    // key, whether it is asked for, what a GPU has not, and what to ask for instead
    let lacking = [
        ("diagnose.every", config.diagnose.every > 0, "kernels for gradient diagnostics", "0"),
        ("front", config.front == Front::Traces, "kernels for traces of what stands in front of ψ", "chunk"),
        ("energy_target", config.energy_target.0 > 0.0, "controller of prices", "0 (and penalty, say)"),
        (
            "homeostasis",
            config.homeostasis.holds().contains(&true),
            "kernels for thresholds that hold a rate",
            "0 for pre and post",
        ),
        ("stdp.third_factor", config.stdp.third_factor == Third::Error, "kernels for a third factor", "none"),
        ("inference", config.inference == Inference::Events, "kernels for products from events", "dense"),
    ];
    match lacking.into_iter().find(|(_, asked, ..)| *asked) {
        Some((key, _, what, instead)) => {
            let problem = format!("a GPU has no {what}: expected {instead}, or use --device cpu");
            Err(Error::Config { key, problem })
        }
        None => Ok(()),
    }
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
    use crate::config::{Count, Credit, NonNegative};

    fn io(streams: usize) -> Io {
        Io { input: InputKind::Tokens { vocabulary: 5 }, outputs: 5, streams, segment: 8 }
    }

    #[test]
    fn a_gpu_refuses_what_it_has_no_kernels_for_with_its_key() {
        type Change = fn(&mut BimConfig);
        let cases: [(&str, Change); 6] = [
            ("diagnose.every", |c| c.diagnose.every = 10),
            ("front", |c| c.front = Front::Traces),
            ("energy_target", |c| c.energy_target = NonNegative(0.25)),
            ("homeostasis", |c| c.homeostasis.post = NonNegative(0.2)),
            ("stdp.third_factor", |c| c.stdp.third_factor = Third::Error),
            ("inference", |c| c.inference = Inference::Events),
        ];
        check_gpu(&BimConfig::default()).expect("nothing to refuse");
        for (key, change) in cases {
            let mut config = BimConfig::default();
            change(&mut config);
            let said = check_gpu(&config).expect_err(key).to_string();
            assert!(said.starts_with(&format!("{key}: ")) && said.contains("--device cpu"), "{said}");
            check_device(&config, &io(2), &Device::Cpu).unwrap_or_else(|e| panic!("the CPU has it: {e}"));
        }
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
