//! What spiking neurons sent while a model ran, for those who want to see it. Where nobody looks, nothing is kept.

use std::cell::RefCell;

use candle_core::{DType, Device, Tensor};
use learner::{Result, Sent};

thread_local! {
    static SEEN: RefCell<Option<Vec<Sent>>> = const { RefCell::new(None) };
}

/// Runs `f`, and says what was sent meanwhile on this thread.
pub(crate) fn during<R>(f: impl FnOnce() -> Result<R>) -> Result<(R, Vec<Sent>)> {
    let outer = SEEN.replace(Some(Vec::new()));
    let result = f();
    let seen = SEEN.replace(outer).unwrap_or_default();
    Ok((result?, seen))
}

/// Spikes of a population, `[B, K, H]`.
///
/// # Errors
/// If they cannot be read from their device.
pub(crate) fn population(layer: &str, spikes: &Tensor) -> Result<()> {
    if SEEN.with_borrow(Option::is_none) {
        return Ok(());
    }
    let of_stream = spikes.get(0)?.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
    let neurons = of_stream.dim(1)?;
    let levels = of_stream.flatten_all()?.to_vec1::<f32>()?;
    let sent = Sent::first_stream(layer.to_owned(), &levels, 1, neurons);
    SEEN.with_borrow_mut(|seen| seen.iter_mut().for_each(|seen| seen.push(sent.clone())));
    Ok(())
}
