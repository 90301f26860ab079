//! Launches of the project's CUDA kernels on tensors, and what they made on the graph.
//!
//! Everything a kernel takes is `f32`, `f64`, `u32` or `i64`, contiguous and on one device, whose stream holds the order.

mod adamw;
mod loss;
mod product;

pub(crate) use adamw::{Chunks, Step};
pub use loss::loss_and_gradient;
pub(crate) use loss::{ctc, loss};
pub use product::{Operand, product};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, LaunchConfig, PushKernelArg};
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp3, DType, Device, Layout, Result, Shape, Storage, Tensor, bail,
};

/// A kernel of one of the modules in [`ptx`].
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Name of its source.
    pub module: &'static str,
    /// What `nvcc` made of it.
    pub ptx: &'static str,
    /// Its name in it.
    pub name: &'static str,
}

/// What a kernel is given.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    /// A contiguous tensor, read or written.
    Tensor(&'a Tensor),
    /// No array.
    Null,
    /// A size.
    Size(usize),
    /// A number.
    F32(f32),
}

/// How many blocks, and how many threads each has.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Blocks.
    pub blocks: [usize; 2],
    /// Threads of a block.
    pub threads: [usize; 2],
}

/// Whether kernels run on this tensor: `f32` on a GPU.
#[must_use]
pub fn takes(t: &Tensor) -> bool {
    t.device().is_cuda() && t.dtype() == DType::F32
}

/// A value as the kernel sees it.
enum Value {
    Address(u64),
    Size(i32),
    F32(f32),
}

/// Launches a kernel; it is done when the device's stream has come to it. Tensors that it writes must be nobody else's.
///
/// # Errors
/// If a tensor is not contiguous or not on `device`, or the driver refuses.
pub fn launch(device: &Device, kernel: Kernel, grid: Grid, args: &[Arg<'_>]) -> Result<()> {
    let ([x, y], [tx, ty]) = (grid.blocks, grid.threads);
    launch_in_space(device, kernel, ([x, y, 1], [tx, ty, 1]), args)
}

/// [`launch`] over blocks and threads in three dimensions.
///
/// # Errors
/// As for [`launch`].
pub fn launch_in_space(
    device: &Device,
    kernel: Kernel,
    (blocks, threads): ([usize; 3], [usize; 3]),
    args: &[Arg<'_>],
) -> Result<()> {
    let Device::Cuda(device) = device else { bail!("{}: expected a GPU, got {device:?}", kernel.name) };
    let stream = device.cuda_stream();
    let function = device.get_or_load_custom_func(kernel.name, kernel.module, kernel.ptx)?;
    let values = args
        .iter()
        .map(|arg| match arg {
            Arg::Tensor(t) => Ok(Value::Address(address(t, device)?)),
            Arg::Null => Ok(Value::Address(0)),
            Arg::Size(n) => match i32::try_from(*n) {
                Ok(n) => Ok(Value::Size(n)),
                Err(_) => bail!("{}: expected sizes below 2^31, got {n}", kernel.name),
            },
            Arg::F32(x) => Ok(Value::F32(*x)),
        })
        .collect::<Result<Vec<_>>>()?;
    let mut launch = stream.launch_builder(&function);
    for value in &values {
        match value {
            Value::Address(a) => launch.arg(a),
            Value::Size(n) => launch.arg(n),
            Value::F32(x) => launch.arg(x),
        };
    }
    let dims = |[x, y, z]: [usize; 3]| (x as u32, y as u32, z as u32);
    let config = LaunchConfig { grid_dim: dims(blocks), block_dim: dims(threads), shared_mem_bytes: 0 };
    // SAFETY: the kernel takes these arguments; that it stays within them is what the tests named `cuda_kernels_` show. The tensors
    // are alive until this returns, and memory that is given back later is given back in the order of the same stream.
    unsafe { launch.launch(config) }.w()?;
    Ok(())
}

/// Where a contiguous tensor's elements are on the device.
///
/// # Errors
/// If it is not contiguous, of another type, or on another device.
pub(crate) fn address(t: &Tensor, device: &CudaDevice) -> Result<u64> {
    let (storage, layout) = t.storage_and_layout();
    let Some((start, _)) = layout.contiguous_offsets() else { bail!("a kernel's operand: expected it contiguous") };
    let Storage::Cuda(storage) = &*storage else { bail!("a kernel's operand: expected it on the GPU") };
    if storage.device().id() != device.id() {
        bail!("a kernel's operand: expected it on the same GPU");
    }
    let stream = device.cuda_stream();
    // all work of a device is in the order of one stream: what the guards would note is known
    let base = match storage.dtype() {
        DType::F32 => storage.as_cuda_slice::<f32>()?.device_ptr(&stream).0,
        DType::F64 => storage.as_cuda_slice::<f64>()?.device_ptr(&stream).0,
        DType::U32 => storage.as_cuda_slice::<u32>()?.device_ptr(&stream).0,
        DType::I64 => storage.as_cuda_slice::<i64>()?.device_ptr(&stream).0,
        other => bail!("a kernel's operand: expected f32, f64, u32 or i64, got {other:?}"),
    };
    Ok(base + (start * storage.dtype().size_in_bytes()) as u64)
}

/// Gradients of the three inputs of [`on_graph`] from that of the result.
type Back = dyn Fn(&Tensor) -> Result<[Option<Tensor>; 3]> + Send + Sync;

/// Puts `y`, which kernels made of `inputs`, on their graph. Where no input has one, it is `y` itself.
///
/// # Errors
/// If it cannot be copied.
pub fn on_graph(
    y: &Tensor,
    inputs: [&Tensor; 3],
    back: impl Fn(&Tensor) -> Result<[Option<Tensor>; 3]> + Send + Sync + 'static,
) -> Result<Tensor> {
    if !inputs.iter().any(|t| t.track_op()) {
        return Ok(y.clone());
    }
    let [a, b, c] = inputs;
    a.apply_op3(b, c, Made { y: y.detach(), back: Box::new(back) })
}

struct Made {
    y: Tensor,
    back: Box<Back>,
}

impl CustomOp3 for Made {
    fn name(&self) -> &'static str {
        "kernels"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("kernels of a GPU: expected operands on one")
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (storage, layout) = self.y.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else { bail!("kernels of a GPU: expected a result on one") };
        if layout.start_offset() != 0 {
            bail!("kernels of a GPU: expected a result of its own");
        }
        Ok((storage.try_clone(layout)?, layout.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = (self.back)(&dy.contiguous()?)?;
        Ok((a, b, c))
    }
}
