//! Calls of several results, not all of which need be used.

use etx_ir::error::Error;
use etx_ir::graph::Arg;

use super::pen::Pen;
use crate::rewrite::{Patch, Site};

/// Whether the result of this number is used.
pub(super) fn wanted(site: &Site<'_>, i: usize) -> bool {
    site.node().outputs.get(i).is_some_and(|&v| site.graph().value(v).use_count() > 0)
}

/// The results, each in its element type; those that are not wanted may be `None`. Operands of which one does not belong to the others
/// may give other shapes than the call says: then the formula does not apply.
pub(super) fn several(p: &mut Pen<'_, '_>, values: Vec<Arg>) -> Result<Option<Patch>, Error> {
    let outputs = p.0.node().outputs.clone();
    let mut all = Vec::new();
    for (v, value) in outputs.into_iter().zip(values) {
        let ty = p.0.graph().tensor(v).cloned();
        all.push(match (ty, value) {
            (Some(t), Arg::Value(x)) if p.0.graph().tensor(x).is_some_and(|y| y.shape == t.shape) => p.cast(&Arg::Value(x), t.dtype)?,
            (Some(_), Arg::Value(_)) => return Ok(None),
            _ => Arg::None,
        });
    }
    Ok(Some(Patch::Values(all)))
}
