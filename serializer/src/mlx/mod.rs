//! The payload of the MLX delegate: bytes to [`Program`](etx_mlx::Program) and back.
//!
//! ```text
//!  0  4  zeros
//!  4  4  "MLX0"
//!  8  8  data_offset: where the FlatBuffer and its padding end; a multiple of 16
//! 16  8  data_size: 0 (constants travel in the named data of the .pte)
//! 24  …  FlatBuffer, root table MLXGraph, no identifier; zeros up to data_offset
//! ```
//!
//! All little endian. There is no generated code: the table of instructions in [`etx_mlx`] says for every field its
//! wire id, kind and default, and [`encode`] and [`decode`] walk it. The layout of the other tables is in
//! `schema.rs`.

mod decode;
mod encode;
mod schema;
#[cfg(test)]
mod tests;

pub use decode::{decode, decode_window};
pub use encode::encode;
