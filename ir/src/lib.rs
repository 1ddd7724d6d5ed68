//! What a program *is*: graphs, operators, symbolic sizes, weights, and how they are read, checked and shown.
//!
//! This is the room that every other room of etx stands on. It knows nothing of passes, backends or file formats that
//! etx writes; it depends on none of them.
//!
//! ```
//! use etx_ir::{text, verify};
//!
//! let program = text::parse(
//!     "etir 1 method \"forward\" functional { input %x : f32[2] = user %y : f32[2] = aten.relu.default(%x) return %y }",
//!     &mut text::NoFiles,
//! )?;
//! verify::verify(&program)?;
//! let method = program.method("forward").ok_or("no such method")?;
//! for (_, node) in method.graph.nodes().take(3) {
//!     println!("{} = {}({} arguments)", node.name, node.op, node.args.len());
//! }
//! let again = text::parse(&text::print(&program), &mut text::NoFiles)?;
//! assert_eq!(text::difference(&program, &again), None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is where
//!
//! - [`program`]: a [`Program`](program::Program) has methods over one store of weights. A method is a graph and its
//!   signature: what each input and each output stands for, which state is updated.
//! - [`graph`]: calls and values in arenas, addressed by small ids. Node order is execution order.
//! - [`mod@op`]: the operators, declared once in two schema files; [`op!`](macro@op) names one, checked when etx is compiled.
//! - [`sym`]: sizes as expressions over symbols, with one canonical form, and what is known of their values.
//! - [`conditions`]: what the exporter took for granted of sizes: read, used to narrow bounds, written beside programs, checked.
//! - [`infer`]: the types of a call's results. [`build`]: calls written the way formulas are.
//! - [`eval`]: what a program computes, by a plain interpreter with the semantics of eager PyTorch.
//! - [`weights`]: tensors as *descriptions* of bytes.
//! - [`verify`]: the invariants of well-formed programs. [`text`]: `.etir`, which prints and parses back exactly.
//!
//! # Laws
//!
//! 1. Every operator and every instruction is declared in one table; everything mechanical follows from it. A call has
//!    one argument for each of its operator's schema, so nobody counts arguments.
//! 2. Equal means structurally equal: symbolic sizes are canonical, floats compare by bits, tied weights have equal
//!    [identities](weights::TensorData::identity).
//! 3. Memory does not grow with the weights. They are read when a writer asks for a piece of them.
//! 4. Nothing depends on the order of a hash map, on the clock or on threads.
//! 5. No file, however broken, makes this crate panic, hang or allocate more than the file's size justifies. Errors say
//!    what is wrong, where, and what to do; all findings of one kind come at once.
pub mod budget;
pub mod build;
pub mod conditions;
pub mod dtype;
pub mod error;
pub mod eval;
pub mod graph;
pub mod infer;
mod mapped;
pub mod op;
pub mod program;
pub mod sym;
pub mod text;
pub mod verify;
pub mod weights;

pub use dtype::DType;
