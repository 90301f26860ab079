//! The project's CUDA kernels as PTX. The sources stand beside the crates that own them; with the feature `cuda` the build script
//! has `nvcc` compile each for compute capability 7.5, the oldest that CUDA 13 knows, and the driver compiles that for the card.
//! Without the feature there is nothing here.

#[cfg(feature = "cuda")]
include!(concat!(env!("OUT_DIR"), "/ptx.rs"));
