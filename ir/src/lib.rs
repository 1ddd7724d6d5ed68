//! What a program *is*.
pub mod dtype;
pub mod error;
mod mapped;
pub mod mlx;
pub mod op;
pub mod sym;
pub mod graph;
pub mod program;
pub mod pt2;
pub mod safetensors;
pub mod text;
pub mod verify;
pub mod weights;

pub use dtype::DType;
