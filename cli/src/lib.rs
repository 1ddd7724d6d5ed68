//! etx lowers programs that torch.export wrote to ExecuTorch files for Apple's MLX, and runs such files anywhere.
//!
//! This crate is the front of the house: [`load`] opens what etx accepts, [`Lowering`] rewrites, divides and compiles,
//! [`Lowered::write`] makes the file, [`runtime`] opens and runs any. The `etx` command is these calls with options around
//! them. The crates behind are here under their own names: [`ir`], [`passes`], [`import`], [`mlx`], [`partitioner`], [`serializer`], [`emit`], [`runtime`].
//!
//! # Example
//! The bundled Llama, with a pass of our own put in that makes its activations sparse, lowered, written and run:
//!
//! ```
//! use etx::Lowering;
//! use etx::ir::{error::Error, op::OpId};
//! use etx::passes::{Patch, Pipeline, Rule, Site};
//! use etx::runtime::{Runtime, Tensor};
//!
//! struct Relufy;
//!
//! impl Rule for Relufy {
//!     fn name(&self) -> &'static str { "relufy" }
//!     fn law(&self) -> &'static str { "silu becomes relu; nothing else changes" }
//!     fn rewrite(&self, site: &mut Site<'_>) -> Result<Option<Patch>, Error> {
//!         let silu = site.op() == OpId::of("aten.silu.default");
//!         Ok(silu.then(|| Patch::Call(OpId::of("aten.relu.default"), vec![site.nth(0).clone()])))
//!     }
//! }
//!
//! # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/llama/model.pt2");
//! # let pte = std::env::temp_dir().join(format!("etx-front-page-{}.pte", std::process::id()));
//! let program = etx::load(model, &[])?;
//! let lowered = Lowering::mlx().pipeline(Pipeline::standard().then(Relufy)).run(program)?;
//! let report = lowered.write(&pte)?;
//! assert_eq!((report.methods[0].partitions, report.methods[0].instructions.get("SiluNode")), (1, None));
//!
//! let mut forward = Runtime::open(&pte)?.load_method("forward")?;
//! let (tokens, positions) = (Tensor::from_slice(&[1, 3], &[72i64, 101, 108])?, Tensor::from_slice(&[3], &[0i64, 1, 2])?);
//! let outputs = forward.execute(&[tokens.into(), positions.into()])?;
//! assert_eq!(outputs[0].as_tensor().map(Tensor::shape), Some(&[1, 3, 512][..]));
//! # drop(forward);
//! # std::fs::remove_file(&pte)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Laws
//! 1. *What etx writes, ExecuTorch loads; what ExecuTorch wrote, etx opens.*
//! 2. *"No" is a value.* What a backend refuses is collected over the whole program, each node with its source line, the
//!    reason and what would help ([`lower::Error::Refused`]); nothing is written then.
//! 3. *Memory does not grow with the weights*: they are descriptions until [`Lowered::write`] streams them into place.
//! 4. *The same program gives the same bytes.*

mod load;
pub mod lower;
mod package;

pub use load::{Kind, LoadOptions, load, load_into, load_methods};
pub use lower::{Lowered, Lowering};
pub use {
    etx_emit as emit, etx_import as import, etx_ir as ir, etx_mlx as mlx, etx_partitioner as partitioner, etx_passes as passes,
    etx_runtime_mlx as runtime, etx_serializer as serializer,
};
