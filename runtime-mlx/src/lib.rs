//! Opens a `.pte` and runs its MLX programs.

mod cpu;
pub mod engine;
pub mod error;
pub mod interp;
mod runtime;
pub mod tensor;
pub mod value;

pub use cpu::Cpu;
pub use error::{Error, ErrorKind, Result};
pub use interp::Machine;
pub use runtime::{Method, Runtime};
pub use tensor::{Bool, Elem, Tensor};
pub use value::{Value, ValueSpec};
