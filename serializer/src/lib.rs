//! Bytes: the `.pte` container, the MLX payload and named data.

pub mod emit;
pub mod error;
pub mod flat;
pub mod mlx;
pub mod pte;
pub mod window;

pub use error::{Error, ErrorKind, Result};
