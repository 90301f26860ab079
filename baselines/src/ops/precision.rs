use std::cell::Cell;

use candle_core::{DType, Device, Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// In what element type a learner makes its matrix products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// `f32`.
    #[default]
    Full,
    /// `bf16`, on a device that has it. Parameters, activations, norms, recurrent states, loss and optimiser stay `f32`
    /// (mixed precision, Micikevicius et al. 2018; the loss needs no scale, because `bf16` reaches as far as `f32`).
    Mixed,
}

impl Precision {
    /// The element type of products, if it is not that of their operands.
    ///
    /// # Errors
    /// A sentence, if the device has no such products.
    pub(crate) fn products(self, device: &Device) -> std::result::Result<Option<DType>, String> {
        match (self, device) {
            (Self::Full, _) => Ok(None),
            (Self::Mixed, Device::Cpu) => Err("the CPU has no products in bf16: use full, or another device".into()),
            (Self::Mixed, _) => Ok(Some(DType::BF16)),
        }
    }
}

thread_local! {
    static PRODUCTS: Cell<Option<DType>> = const { Cell::new(None) };
}

/// Runs `f`, whose products of `f32` on this thread are made in `dtype`.
pub(crate) fn with_products_in<R>(dtype: Option<DType>, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<DType>);
    impl Drop for Restore {
        fn drop(&mut self) {
            PRODUCTS.set(self.0);
        }
    }
    let _restore = Restore(PRODUCTS.replace(dtype));
    f()
}

/// `a · b` in tensor operations, of the operands' element type whatever it is made in.
pub(super) fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match PRODUCTS.get() {
        Some(dtype) if a.dtype() == DType::F32 => a.to_dtype(dtype)?.matmul(&b.to_dtype(dtype)?)?.to_dtype(DType::F32),
        _ => a.matmul(b),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::ops::{Before, Cell as Recurrent, Conv, Edge, conv_slow, lstm_slow, mlp_slow, rnn_slow};

    fn random(shape: &[usize], scale: f64) -> Result<Var> {
        let n = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..n).map(|i| ((i * 7919 + n) % 1009) as f32 / 504.5 - 1.0).collect();
        Var::from_tensor(&(Tensor::from_vec(values, shape, &Device::Cpu)? * scale)?)
    }

    /// The CPU has products of `f16`, which are as rough as those of `bf16` in the mantissa or finer.
    #[test]
    fn rough_products_give_nearly_the_same_outputs_and_gradients_in_full() -> Result<()> {
        type Operation = fn(&[Var]) -> Result<Tensor>;
        let operations: [(&str, &[&[usize]], Operation); 4] = [
            ("mlp", &[&[2, 5, 8], &[8, 16], &[16, 8]], |t| mlp_slow(&t[0], &t[1], &t[2])),
            ("conv", &[&[2, 5, 8], &[24, 6], &[6]], |t| {
                let edge = Edge::Centred { lengths: vec![5, 4], stride: 1 };
                conv_slow(&t[0], &t[1], &t[2], &Conv { taps: 3, dilation: 1, edge, before: Before::NormRelu })
            }),
            ("lstm", &[&[2, 5, 8], &[14, 24], &[24], &[2, 6], &[2, 6]], |t| {
                Ok(lstm_slow(&t[0], &t[1], &t[2], &t[3], &t[4])?.0)
            }),
            ("gru", &[&[2, 5, 8], &[14, 18], &[24], &[2, 6]], |t| rnn_slow(&t[0], &t[1], &t[2], &t[3], Recurrent::Gru)),
        ];
        for (what, shapes, operation) in operations {
            let operands = shapes.iter().map(|shape| random(shape, 0.5)).collect::<Result<Vec<_>>>()?;
            let run = |dtype| -> Result<Vec<Tensor>> {
                let y = with_products_in(dtype, || operation(&operands))?;
                let gradients = y.sqr()?.sum_all()?.backward()?;
                let of_weights = gradients.get(&operands[1]).expect("a gradient").clone();
                Ok(vec![y, of_weights])
            };
            for (full, rough) in run(None)?.iter().zip(&run(Some(DType::F16))?) {
                assert_eq!((rough.dtype(), PRODUCTS.get()), (DType::F32, None), "{what}");
                let scale = full.abs()?.max_all()?.to_scalar::<f32>()?;
                let error = (full - rough)?.abs()?.max_all()?.to_scalar::<f32>()? / scale;
                // f16 rounds to 2⁻¹¹; some tens of roundings on the way
                assert!(error > 1e-7 && error < 1e-2, "{what}: {error}");
            }
        }
        Ok(())
    }

    #[test]
    fn the_cpu_has_no_mixed_precision() {
        assert_eq!(Precision::Full.products(&Device::Cpu), Ok(None));
        assert!(Precision::Mixed.products(&Device::Cpu).is_err_and(|problem| problem.contains("CPU")));
    }
}
