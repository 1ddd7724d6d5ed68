//! The MLX program: what a partition becomes, and what the delegate's runtime executes.
//!
//! A [`Program`] is a few chains of [`Instr`]uctions over numbered tensors ([`Tid`]) and scalar values ([`Vid`]). It says
//! nothing about bytes: encoding is in `etx-serializer`, execution in `etx-runtime-mlx`.
//!
//! The instructions are declared once, in `table.rs`; the same table gives the enum, the reflection
//! ([`Instr::fields`], [`Instr::from_fields`]) that codec and printer use, slot visiting ([`Instr::visit_slots`]) and the
//! documentation ([`INSTRUCTIONS`]). [`Program::verify`] checks the rules of the [`verify`] module; `Display` of a program
//! is its text form.

pub mod borrowed;
mod field;
mod ids;
mod instr;
mod print;
mod program;
mod table;
#[cfg(test)]
mod tests;
pub mod verify;
mod verify_instr;

pub use field::{FieldKind, FieldSpec, FieldValue, Presence, Scalar};
pub use ids::{Access, FloatOrVid, IntOrVid, IntOrVidOrTid, SlotRef, Tid, Vid, VidOrTid};
pub use instr::{FieldError, InstrSpec};
pub use print::SlotName;
pub use program::{NamedSlot, Program, ShapeDim, Slot, Space, TensorMeta};
pub use table::{INSTRUCTIONS, Instr};
pub use verify::{Problem, ProblemKind};

/// Name under which ExecuTorch finds the delegate that runs these programs.
pub const BACKEND: &str = "MLXBackend";
