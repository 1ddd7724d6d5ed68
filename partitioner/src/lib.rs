//! Who runs what: verdicts, division, compilation.
//!
//! A [`backend::Backend`] says of every call of a method whether it would run it, and why not; [`cluster::divide`] makes
//! the fewest partitions of what it would; the backend compiles each; [`report`] tells what became of every call. The MLX
//! backend is [`mlx`].
//!
//! # Laws
//! 1. *A verdict is the lowering itself*, run to see whether it goes through. The two cannot disagree.
//! 2. *Verdicts read metadata only.* Weights are descriptions, repacked ones descriptions of repacking; bytes are looked at
//!    when a partition is compiled, and then only to tell zero states and zero points from others.
//! 3. *"No" is a value*: which argument, what is in the way, what would help; and all of them are collected.
//! 4. *Results have torch's types.* Where MLX computes in another type, a cast follows.
//! 5. *State is updated in place* where nobody needs the old contents, and copied where somebody does.
//! 6. *Sizes stay symbolic*: an instruction reads them off a tensor when the program runs, each once.
//!
//! # Example
//! ```
//! use etx_ir::text::{self, NoFiles};
//! use etx_partitioner::{backend::{Backend, Partition, Payload}, cluster::divide, mlx::Mlx};
//!
//! let program = text::parse(r#"etir 1
//! method "forward" functional {
//!   input %x : f32[2, 3] = user
//!   %relu : f32[2, 3] = aten.relu.default(%x)
//!   return %relu
//! }"#, &mut NoFiles)?;
//! let (mlx, method) = (Mlx::new(), &program.methods[0]);
//! let division = divide(method, &mlx.verdicts(&program, method));
//! assert_eq!((division.partitions.len(), division.refused.len()), (1, 0));
//! let partition = Partition { number: 0, nodes: &division.partitions[0], outputs: &division.outputs[0] };
//! let delegate = mlx.compile(&program, method, &partition)?;
//! let Payload::Mlx(payload) = &delegate.payload else { unreachable!() };
//! assert_eq!(payload.chains[0].len(), 1);
//! # Ok::<(), etx_ir::error::Error>(())
//! ```

pub mod backend;
mod causes;
pub mod cluster;
pub mod mlx;
pub mod report;
