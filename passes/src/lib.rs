//! Program in, program out: the rewrites of etx.
//!
//! A [`Pass`] is a named rewrite of one method with a law, one sentence that says what holds afterwards and what is never
//! done. Most passes are a [`Rule`]: it looks at one call and proposes a [`Patch`], which the driver checks (results keep
//! their types), applies and counts. A [`Pipeline`] is passes in order, as data; running it gives a [`Report`] of changes
//! and seconds. [`Options`] let it verify after each pass, leave passes out, stop after one, and show the program around
//! any of them.
//!
//! | pass | law |
//! |---|---|
//! | [`InlineWrappers`] | bodies of `no_grad`, autocast and hint regions stand in their place, with autocast's casts |
//! | [`Functionalise`] | no call writes: reads see the last write through any alias, final states are outputs |
//! | [`Canonicalise`] | every operation has one spelling |
//! | [`EvaluateConstants`] | what constants decide and MLX has no types or sizes for is known |
//! | [`FoldConstants`] | scalars known from types are literals, equal integers one, small constants final |
//! | [`RemoveNoops`] | a call whose result is its operand, by type and by value, is gone |
//! | [`CollapseViews`] | reshapes, permutations, broadcasts and lossless casts in a row are one |
//! | [`FoldScalars`] | a known scalar tensor is a number where the result keeps its type without it |
//! | [`Cse`] | equal pure calls are one, and so are weights that are one tensor |
//! | [`Dce`] | what nobody uses is gone, effects and written state excepted |
//! | [`FuseRmsNorm`] | RMS normalisation written as arithmetic is one call |
//! | [`Quantize`](quantize::Quantize) | weights that rules name are codes and scales, dequantised before each use (only where asked for) |
//! | [`ReduceSelections`] | a reduction of what a mask selects is one of all elements, of which the others change nothing |
//! | [`F64AsF32`] | `f64` is `f32` (only where asked for) |
//! | [`Decompose`] | what the backend refuses is taken apart by formula, call by call |
//! | [`Precompute`] | small tensors that exact operators make of numbers alone are constants |
//!
//! What holds for all of them:
//!
//! 1. Symbolic sizes stay symbolic: types are compared as expressions, and nothing is assumed that the bounds of symbols
//!    do not prove.
//! 2. Values are kept bit by bit, except where a pass says otherwise ([`FuseRmsNorm`], [`Quantize`](quantize::Quantize), [`Decompose`],
//!    [`F64AsF32`]).
//! 3. Weights are never read (but for constants of at most 4096 bytes, and for those that [`EvaluateConstants`] needs, of at most 16 MiB), so
//!    ties between them survive. Quantised ones are read when the file is written.
//! 4. The order of mutations and effects is kept.
//! 5. Time is linear in the number of calls; groups that run to a fixpoint have a limit.
//!
//! ```
//! use etx_ir::{op, text};
//! use etx_passes::{Options, Patch, Pipeline, Rule, Site};
//!
//! /// `exp(log(x))` is `x`.
//! struct ExpOfLog;
//!
//! impl Rule for ExpOfLog {
//!     fn name(&self) -> &'static str { "exp-of-log" }
//!     fn law(&self) -> &'static str { "exp(log(x)) becomes x; rounding errors of the two are gone" }
//!     fn rewrite(&self, site: &mut Site<'_>) -> Result<Option<Patch>, etx_ir::error::Error> {
//!         let log = site.made_by(site.nth(0), op!("aten.log.default"));
//!         Ok(log.filter(|_| site.op() == op!("aten.exp.default")).and_then(|log| log.args.first()).cloned().map(Patch::value))
//!     }
//! }
//!
//! let source = r#"etir 1
//! method "forward" training {
//!   input %x : f32[3] = user
//!   %log_ : f32[3] = aten.log_.default(%x)
//!   %exp : f32[3] = aten.exp.default(%x)
//!   return %exp
//! }"#;
//! let mut program = text::parse(source, &mut text::NoFiles)?;
//! let report = Pipeline::standard().then(ExpOfLog).run(&mut program, &mut Options::verified())?;
//! assert_eq!(report.changes("exp-of-log"), 1);
//! let ir = text::print(&program);
//! assert!(ir.contains("%log : f32[3] = aten.log.default(%x)"), "{ir}");
//! assert!(ir.contains("return %log as input %x, %x"), "{ir}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[macro_use]
mod ops;

mod calls;
mod canonicalise;
mod collapse;
mod cse;
mod dce;
mod decompose;
mod driver;
mod effects;
mod evaluate;
mod fold;
mod functionalise;
mod inline;
mod linear;
mod narrow;
mod noops;
mod precompute;
pub mod quantize;
mod rewrite;
mod rms_norm;

pub use canonicalise::{Canonicalise, is_respelled};
pub use collapse::CollapseViews;
pub use cse::Cse;
pub use dce::Dce;
pub use decompose::{Decompose, ReduceSelections, Verdicts, has_formula};
pub use driver::{Context, Declined, Dump, Options, Pass, PassReport, Pipeline, Report, Sink, When};
pub use effects::removable;
pub use evaluate::EvaluateConstants;
pub use fold::{FoldConstants, FoldScalars};
pub use functionalise::Functionalise;
pub use inline::InlineWrappers;
pub use linear::FindLinear;
pub use narrow::{F64AsF32, Narrowed};
pub use noops::RemoveNoops;
pub use precompute::Precompute;
pub use rewrite::{Patch, Rule, Site};
pub use rms_norm::FuseRmsNorm;
