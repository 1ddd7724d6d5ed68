//! Sizes as numbers, and tensors made of numbers.

use etx::ir::args;
use etx::ir::graph::{Arg, Type, ValueId};
use etx::ir::op::OpId;

use super::{Made, number};
use crate::make::Maker;

/// The dynamic size as a value, with some arithmetic: 1 or more.
fn size(m: &mut Maker) -> Option<ValueId> {
    let first = m.case.graph.inputs().first().copied()?;
    let mut n = *m.call("aten.sym_size.int", args![first, 0])?.first()?;
    for _ in 0..m.rng.below(3) {
        let (target, by) = m.rng.of(&[("_operator.add", 1i64), ("_operator.mul", 2), ("_operator.floordiv", 2), ("_operator.mod", 3)]);
        OpId::lookup(target)?;
        let list = if m.rng.one_in(4) && target == "_operator.add" { args![n, n] } else { args![n, by] };
        n = *m.call(target, list)?.first()?;
    }
    matches!(m.case.graph.ty(n), Type::Int(_)).then_some(n)
}

/// Tensors whose sizes or bounds are computed.
pub(super) fn sized(m: &mut Maker) -> Made {
    let n = size(m)?;
    let (dtype, x) = (m.dtype(), m.rng.between(0, 3));
    let values = match m.rng.below(8) {
        0 => m.call("aten.arange.default", args![n])?,
        1 => m.call_with("aten.full.default", args![[Arg::Value(n), Arg::Int(2)], x], [("dtype", dtype.into())])?,
        2 => m.call("aten.arange.start_step", args![x, Arg::Value(n), 2])?,
        3 | 4 => {
            let a = m.pick(|t, _| t.rank() > 0)?;
            let (_, axis) = m.axis(a.id)?;
            let list = if m.rng.one_in(2) { args![a.id, axis, 0, n] } else { args![a.id, axis, n, i64::MAX] };
            return Some((m.call("aten.slice.Tensor", list)?, a.exact));
        }
        5 => {
            let a = m.pick(|t, _| t.rank() == 0 || t.shape.first().and_then(|n| n.as_int()) == Some(1))?;
            let mut sizes: Vec<Arg> = m.ty(a.id).shape.iter().map(|_| Arg::Int(-1)).collect();
            match sizes.first_mut() {
                Some(first) => *first = n.into(),
                None => sizes.push(n.into()),
            }
            return Some((m.call("aten.expand.default", vec![a.id.into(), Arg::List(sizes)])?, a.exact));
        }
        6 => m.call_with("aten.zeros.default", args![[Arg::Value(n)]], [("dtype", dtype.into())])?,
        _ => m.call("aten.scalar_tensor.default", args![n])?,
    };
    Some((values, true))
}

/// Arithmetic with a size.
pub(super) fn operand(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| number(t))?;
    let n = size(m)?;
    let target =
        m.rng.of(&["aten.add.Tensor", "aten.mul.Tensor", "aten.sub.Tensor", "aten.div.Tensor", "aten.lt.Scalar", "aten.ge.Scalar"]);
    if !a.exact && target.ends_with("Scalar") {
        return None;
    }
    Some((m.call(target, args![a.id, n])?, a.exact && target != "aten.div.Tensor"))
}

pub(super) fn create(m: &mut Maker) -> Made {
    let like = m.pick(|_, _| true)?;
    let dtype = m.dtype();
    let x = m.rng.between(0, 3);
    let named = [("dtype", Arg::from(dtype))];
    let values = match m.rng.below(10) {
        0 => m.call("aten.zeros_like.default", args![like.id])?,
        1 => m.call_with("aten.ones_like.default", args![like.id], named)?,
        2 => m.call("aten.full_like.default", args![like.id, x])?,
        3 => m.call_with("aten.full.default", args![[2, 3], x], named)?,
        4 => m.call("aten.new_ones.default", args![like.id, [2]])?,
        5 => m.call("aten.eye.default", args![3])?,
        6 => m.call("aten.linspace.default", args![-1, 1, 5])?,
        7 => m.call("aten.arange.start_step", args![0.5, 3.0, 0.75])?,
        8 => m.call("aten.fill.Scalar", args![like.id, x])?,
        _ => {
            let (start, step) = (m.rng.between(-3, 3), m.rng.of(&[1i64, 2, -1]));
            m.call("aten.arange.start_step", args![start, start + 4 * step, step])?
        }
    };
    Some((values, true))
}
