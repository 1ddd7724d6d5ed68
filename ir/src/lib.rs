//! What a program *is*.
pub mod dtype;
pub mod error;
mod mapped;
pub mod mlx;
pub mod sym;
pub mod weights;

pub use dtype::DType;
