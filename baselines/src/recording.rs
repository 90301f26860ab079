//! What models that see a recording as a whole share: a recording is one segment, and its padding is no part of it.

use candle_core::{D, DType, Device, Tensor};
use learner::{Error, Result};

use crate::State;

/// Name of the steps of a recording that were seen, in the state: `u32` `[B]`.
const SEEN: &str = "seen";

/// State at the start of recordings.
pub(crate) fn initial_state(streams: usize, device: &Device) -> Result<State> {
    State::new().zeros(SEEN, &[streams], DType::U32, device)
}

/// State after recordings of `steps` that are one segment each; an error in the name of `model` if one goes on.
pub(crate) fn state_after(model: &str, state: &State, streams: usize, steps: usize, device: &Device) -> Result<State> {
    if state.get(SEEN)?.to_vec1::<u32>()?.iter().any(|&n| n > 0) {
        let problem = format!(
            "{model} sees a recording as a whole, but it goes on after this segment: set `segment` to the recording's \
             steps or more"
        );
        return Err(Error::Config { key: "segment", problem });
    }
    let mut next = State::new();
    next.set(SEEN, &Tensor::full(steps as u32, streams, device)?);
    Ok(next)
}

/// Steps of each recording of `x` `[B, K, F]`: up to the last whose values are not all exactly zero.
pub(crate) fn lengths(x: &Tensor) -> Result<Vec<usize>> {
    let sizes = x.detach().abs()?.sum(D::Minus1)?.to_dtype(DType::F32)?.to_vec2::<f32>()?; // [B, K]
    // written so that a NaN is something
    Ok(sizes.iter().map(|row| row.iter().rposition(|&s| s != 0.0).map_or(0, |last| last + 1)).collect())
}
