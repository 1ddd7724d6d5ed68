//! Casts, and copies that cast and broadcast.

use etx_ir::graph::{TensorType, Type};
use etx_ir::op;

use crate::calls::{CAST, cast};
use crate::rewrite::{Patch, Site};

/// A cast to the element type of the result; the operand, where it has it.
pub(super) fn cast_to_result(site: &mut Site<'_>) -> Option<Patch> {
    let (from, to) = (site.operand(0)?, site.result()?);
    let x = site.nth(0).clone();
    if from.same_as(to) {
        return Some(Patch::Values(vec![x]));
    }
    let list = cast(x, to.dtype);
    Some(Patch::Call(CAST, list))
}

/// `copy(self, src)` is `src` with type and shape of `self`.
pub(super) fn copy(site: &mut Site<'_>) -> Option<Patch> {
    let (src, to) = (site.nth(1).clone(), site.result()?.clone());
    let from = site.tensor(&src)?.clone();
    let mut value = src;
    if from.dtype != to.dtype {
        value = site.call_as(CAST, cast(value, to.dtype), Type::Tensor(TensorType::new(to.dtype, from.shape.clone())));
    }
    if from.shape != to.shape {
        let sizes = site.sizes(&to.shape)?;
        value =
            site.call_as(op!("aten.expand.default"), vec![value, sizes, false.into()], Type::Tensor(TensorType::new(to.dtype, to.shape)));
    }
    Some(Patch::Values(vec![value]))
}
