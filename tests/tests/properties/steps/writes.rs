//! What works in place: on copies, on what the caller gave, on state.

use etx::ir::DType;
use etx::ir::args;
use etx::ir::graph::ValueId;

use super::{Made, partner};
use crate::make::Maker;

/// A view of a tensor.
fn view(m: &mut Maker, x: ValueId) -> Option<ValueId> {
    let axis = m.axis(x)?.1;
    let values = match m.rng.below(7) {
        0 => m.call("aten.select.int", args![x, axis, -1])?,
        1 => m.call("aten.slice.Tensor", args![x, axis, 1, i64::MAX])?,
        2 => m.call("aten.unsqueeze.default", args![x, 0])?,
        3 => m.call("aten.slice.Tensor", args![x, axis, 0, i64::MAX, 2])?,
        4 => m.call("aten.transpose.int", args![x, axis, 0])?,
        5 => return Some(x),
        _ => m.call("aten.view.default", args![x, [-1]])?,
    };
    values.first().copied()
}

/// Writes to a tensor, exactly.
fn write(m: &mut Maker, view: ValueId) -> Option<()> {
    let dtype = m.ty(view).dtype;
    match m.rng.below(8) {
        0 if dtype != DType::Bool => m.call("aten.add_.Tensor", args![view, 1])?,
        1 if dtype != DType::Bool => m.call("aten.mul_.Tensor", args![view, 2])?,
        2 => m.call("aten.zero_.default", args![view])?,
        3 => m.call("aten.fill_.Scalar", args![view, 2])?,
        4 if dtype != DType::Bool => m.call("aten.neg_.default", args![view])?,
        5 => {
            let mask = partner(m, view, DType::Bool);
            m.call("aten.masked_fill_.Scalar", args![view, mask.id, 1])?
        }
        _ => {
            let other = if m.rng.one_in(3) { m.dtype() } else { dtype };
            let source = partner(m, view, other);
            if !source.exact {
                return None;
            }
            m.call("aten.copy_.default", args![view, source.id])?
        }
    };
    Some(())
}

/// A copy, a view of it, and something that works in place on the view: seen in the copy.
pub(super) fn through_view(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| t.rank() > 0)?;
    let copy = *m.call("aten.clone.default", args![a.id])?.first()?;
    let view = view(m, copy)?;
    write(m, view)?;
    if m.rng.one_in(3) {
        let again = self::view(m, copy)?;
        write(m, again)?;
    }
    // Read after the write: the copy, and the view.
    Some((if m.rng.one_in(3) { vec![copy, view] } else { vec![copy] }, a.exact))
}

/// A write to what the caller gave or to state, seen there by the next call.
pub(super) fn to_input(m: &mut Maker) -> Made {
    let dtype = m.dtype();
    let shape = m.shape(3);
    let state = m.rng.one_in(2);
    let x = if state { m.state(dtype, shape)? } else { m.written(dtype, shape) };
    let before = if m.rng.one_in(2) { m.call("aten.mul.Tensor", args![x, 2])? } else { Vec::new() };
    let view = if m.ty(x).rank() > 0 { view(m, x)? } else { x };
    write(m, view)?;
    Some((before.into_iter().chain([x]).collect(), true))
}
