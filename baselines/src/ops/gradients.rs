//! What a backward pass hands over.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::{Result, Tensor, TensorId};

thread_local! {
    /// Gradients of variables, while [`beside`] runs.
    static VARIABLES: RefCell<Option<HashMap<TensorId, Tensor>>> = const { RefCell::new(None) };
}

/// Runs a backward pass on this thread. Gradients that fused operations have for variables come back beside its result:
/// candle's own store would fill zeros for each and add the gradient to them, four passes over all weights at every step.
pub(crate) fn beside<R>(backward: impl FnOnce() -> R) -> (R, HashMap<TensorId, Tensor>) {
    // a thread of the pool that waits for the others may begin another learner's pass meanwhile
    let outer = VARIABLES.replace(Some(HashMap::new()));
    let result = backward();
    (result, VARIABLES.replace(outer).unwrap_or_default())
}

/// The gradient `values` of an operand, as an operation's backward pass returns it: nothing if nobody asks for it, or if
/// it went to [`beside`].
pub(super) fn gradient(values: Vec<f32>, of: &Tensor) -> Result<Option<Tensor>> {
    if !of.track_op() {
        return Ok(None);
    }
    let gradient = Tensor::from_vec(values, of.dims(), of.device())?;
    if !of.is_variable() {
        return Ok(Some(gradient));
    }
    VARIABLES.with_borrow_mut(|variables| {
        let Some(variables) = variables else { return Ok(Some(gradient)) };
        let sum = match variables.remove(&of.id()) {
            Some(before) => (before + gradient)?,
            None => gradient,
        };
        variables.insert(of.id(), sum);
        Ok(None)
    })
}
