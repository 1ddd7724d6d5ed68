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
#[cfg(test)]
mod samples;
pub(crate) mod shape;
mod simd;
mod sort;
mod threads;
pub(crate) mod unary;
mod vector;

pub use engine::Cpu;
pub use threads::set_threads;
