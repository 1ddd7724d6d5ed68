//! The pure-Rust engine: kernels by family, each built on one mechanism.
//!
//! Kernels take tensors of any layout and return new ones; those that only rearrange return views. They check what they
//! are given and fail with a value: nothing an instruction says can make one panic.

mod attention;
pub(crate) mod binary;
mod conv;
pub(crate) mod dtype;
mod engine;
pub(crate) mod index;
mod kernels;
pub(crate) mod lanes;
mod matmul;
mod matrix;
mod norm;
mod quant;
mod random;
pub(crate) mod reduce;
mod rope;
pub(crate) mod shape;
mod simd;
mod sort;
pub(crate) mod unary;
mod vector;

pub use engine::Cpu;

use crate::error::{Error, Result};

/// How many threads kernels use, in the whole process [default: as many as there are cores]. Only before the first call.
///
/// # Errors
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when kernels have run already, or the system gives no threads.
pub fn set_threads(count: usize) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build_global();
    pool.map_err(|e| Error::unsupported(format!("cannot compute on {count} threads: {e}")))
}
