//! Opens a `.pte` and runs its MLX programs.

mod cpu;
pub mod engine;
pub mod error;
pub mod tensor;

pub use error::{Error, ErrorKind, Result};
pub use tensor::{Bool, Elem, Tensor};
