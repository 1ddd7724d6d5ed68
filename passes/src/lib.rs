//! Program in, program out.

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
mod fold;
mod functionalise;
mod inline;
mod noops;
mod rewrite;
mod rms_norm;

pub use canonicalise::Canonicalise;
pub use collapse::CollapseViews;
pub use cse::Cse;
pub use dce::Dce;
pub use decompose::{Decompose, has_formula};
pub use driver::{Context, Dump, Options, Pass, PassReport, Pipeline, Report, When};
pub use effects::removable;
pub use fold::{FoldConstants, FoldScalars};
pub use functionalise::Functionalise;
pub use inline::InlineWrappers;
pub use noops::RemoveNoops;
pub use rewrite::{Patch, Rule, Site};
pub use rms_norm::FuseRmsNorm;
