//! Views, pieces and rearrangements.

use etx::ir::args;
use etx::ir::graph::Arg;
use etx::ir::sym::Expr;

use super::{Made, float};
use crate::make::{Fill, Known, Maker};

pub(super) fn order(m: &mut Maker) -> Made {
    let a = m.pick(|_, _| true)?;
    let rank = m.ty(a.id).rank() as i64;
    let values = match m.rng.below(9) {
        0 => {
            let mut order: Vec<i64> = (0..rank).collect();
            for i in (1..order.len()).rev() {
                let j = m.rng.below(i + 1);
                order.swap(i, j);
            }
            if m.rng.one_in(2) {
                order.iter_mut().for_each(|d| *d -= rank);
            }
            m.call("aten.permute.default", args![a.id, order])?
        }
        1 => {
            let ((_, x), (_, y)) = (m.axis(a.id)?, m.axis(a.id)?);
            let target = m.rng.of(&["aten.transpose.int", "aten.swapaxes.default", "aten.movedim.int"]);
            m.call(target, args![a.id, x, y])?
        }
        2 => {
            let axis = m.rng.between(-rank - 1, rank);
            m.call("aten.unsqueeze.default", args![a.id, axis])?
        }
        3 => m.call("aten.squeeze.default", args![a.id])?,
        4 => {
            let (_, axis) = m.axis(a.id)?;
            m.call("aten.squeeze.dim", args![a.id, axis])?
        }
        5 => {
            let axes = super::axes(m, a.id);
            m.call("aten.squeeze.dims", args![a.id, axes])?
        }
        6 if rank <= 2 => m.call("aten.t.default", args![a.id])?,
        6 => m.call("aten.mT.default", args![a.id])?,
        7 if rank >= 2 => {
            let k = m.rng.between(-1, 4);
            m.call("aten.rot90.default", args![a.id, k, [0, 1]])?
        }
        _ => {
            let axes = super::axes(m, a.id);
            m.call("aten.flip.default", args![a.id, axes])?
        }
    };
    Some((values, a.exact))
}

pub(super) fn reshape(m: &mut Maker) -> Made {
    let a = m.pick(|_, _| true)?;
    let shape = m.ty(a.id).shape.clone();
    let rank = shape.len();
    if rank == 0 {
        let target = m.rng.of(&["aten.view.default", "aten.reshape.default"]);
        return Some((m.call(target, args![a.id, [1, 1]])?, a.exact));
    }
    let values = match m.rng.below(6) {
        0 => {
            let first = m.rng.below(rank);
            let last = first + m.rng.below(rank - first);
            m.call("aten.flatten.using_ints", args![a.id, first as i64, last as i64 - rank as i64])?
        }
        1 => m.call("aten.reshape.default", args![a.id, [-1]])?,
        2 | 3 => {
            // As it was but for one size that is left to be found, or two that become one; the dynamic one as a value of the graph.
            let at = m.rng.below(rank);
            let joined = m.rng.one_in(2) && at + 1 < rank;
            let mut sizes = Vec::new();
            for (i, n) in shape.iter().enumerate() {
                if joined && i == at + 1 {
                    continue;
                }
                sizes.push(match n.as_int() {
                    _ if i == at => Arg::Int(-1),
                    Some(n) => Arg::Int(n),
                    None => m.call("aten.sym_size.int", args![a.id, i as i64])?.first().map(|v| Arg::Value(*v))?,
                });
            }
            let target = m.rng.of(&["aten.view.default", "aten.reshape.default"]);
            m.call(target, vec![a.id.into(), Arg::List(sizes)])?
        }
        4 => {
            let like = m.pick(|t, _| t.rank() > 0)?;
            m.call("aten.view_as.default", args![a.id, like.id])?
        }
        _ => {
            let (axis, number) = m.axis(a.id)?;
            let n = shape.get(axis)?.as_int().filter(|n| n % 2 == 0 && *n > 0)?;
            m.call("aten.unflatten.int", args![a.id, number, [n / 2, 2]])?
        }
    };
    Some((values, a.exact))
}

pub(super) fn expand(m: &mut Maker) -> Made {
    let a = m.pick(|_, _| true)?;
    let shape = m.ty(a.id).shape.clone();
    let mut sizes: Vec<i64> = shape.iter().map(|n| if *n == Expr::Int(1) { m.rng.between(0, 3) } else { -1 }).collect();
    if m.rng.one_in(2) {
        sizes.insert(0, m.rng.between(1, 3));
    }
    if m.rng.one_in(4) {
        let other = m.pick(|t, _| t.rank() >= shape.len())?;
        return Some((m.call("aten.expand_as.default", args![a.id, other.id])?, a.exact));
    }
    let target = m.rng.of(&["aten.expand.default", "aten.broadcast_to.default"]);
    Some((m.call(target, args![a.id, sizes])?, a.exact))
}

pub(super) fn slice(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| t.rank() > 0)?;
    let (_, axis) = m.axis(a.id)?;
    if m.rng.one_in(3) {
        let at = m.rng.of(&[-1i64, 0, 0, -2, 1]);
        return Some((m.call("aten.select.int", args![a.id, axis, at])?, a.exact));
    }
    if m.rng.one_in(8) {
        let start = m.rng.between(-1, 1);
        return Some((m.call("aten.narrow.default", args![a.id, axis, start, 1])?, a.exact));
    }
    let (start, step) = (m.rng.between(-3, 3), m.rng.of(&[1i64, 1, 1, 2, 3]));
    let end = m.rng.of(&[i64::MAX, i64::MAX, -1, 2, 4, -2]);
    if m.rng.one_in(4) {
        return Some((m.call("aten.slice.Tensor", args![a.id, axis, None::<i64>, end, step])?, a.exact));
    }
    Some((m.call("aten.slice.Tensor", args![a.id, axis, start, end, step])?, a.exact))
}

pub(super) fn join(m: &mut Maker) -> Made {
    let a = m.pick(|_, _| true)?;
    let (dtype, mut shape) = (m.ty(a.id).dtype, m.ty(a.id).shape.clone());
    let other = if m.rng.one_in(4) { m.dtype() } else { dtype };
    let place = m.axis(a.id);
    let stacked = m.rng.one_in(3) || place.is_none();
    if let Some((axis, _)) = place
        && !stacked
        && m.rng.one_in(2)
    {
        *shape.get_mut(axis)? = m.dim();
    }
    let b = match m.pick(|t, _| t.dtype == other && t.shape == shape) {
        Some(k) => k,
        None => Known { id: m.input(other, shape.clone(), Fill::Any), exact: true },
    };
    let exact = a.exact && b.exact;
    if stacked {
        let axis = m.rng.between(-(shape.len() as i64) - 1, shape.len() as i64);
        return Some((m.call("aten.stack.default", args![[a.id, b.id], axis])?, exact));
    }
    if m.rng.one_in(4) {
        let target = m.rng.of(&["aten.hstack.default", "aten.vstack.default", "aten.dstack.default", "aten.column_stack.default"]);
        return Some((m.call(target, args![[a.id, b.id]])?, exact));
    }
    let (_, axis) = place?;
    Some((m.call("aten.cat.default", args![[a.id, b.id, a.id], axis])?, exact))
}

pub(super) fn pieces(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| t.rank() > 0)?;
    let (axis, number) = m.axis(a.id)?;
    let n = m.ty(a.id).shape.get(axis)?.as_int().filter(|n| *n > 0)?;
    let values = match m.rng.below(7) {
        0 => m.call("aten.split.Tensor", args![a.id, 2, number])?,
        1 => m.call("aten.chunk.default", args![a.id, 2, number])?,
        2 => m.call("aten.unbind.int", args![a.id, number])?,
        3 => m.call("aten.tensor_split.sections", args![a.id, 2, number])?,
        4 => m.call("aten.tensor_split.indices", args![a.id, [1, 2], number])?,
        5 => m.call("aten.split_with_sizes.default", args![a.id, [0, 1, n - 1], number])?,
        _ => m.call("aten.split_with_sizes.default", args![a.id, [1, n - 1], number])?,
    };
    Some((values, a.exact))
}

pub(super) fn repeat(m: &mut Maker) -> Made {
    let a = m.pick(|_, _| true)?;
    let rank = m.ty(a.id).rank();
    if m.rng.one_in(2) {
        let times: Vec<i64> = (0..rank + m.rng.below(2)).map(|_| m.rng.between(0, 2).max(m.rng.between(0, 2))).collect();
        let target = m.rng.of(&["aten.repeat.default", "aten.tile.default"]);
        return Some((m.call(target, args![a.id, times])?, a.exact));
    }
    let axis = if m.rng.one_in(3) { Arg::None } else { Arg::Int(m.axis(a.id)?.1) };
    let times = m.rng.between(1, 3);
    Some((m.call("aten.repeat_interleave.self_int", vec![a.id.into(), times.into(), axis])?, a.exact))
}

pub(super) fn roll(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| t.rank() > 0)?;
    let shift = m.rng.between(-3, 3);
    if m.rng.one_in(3) {
        return Some((m.call("aten.roll.default", args![a.id, [shift]])?, a.exact));
    }
    let (_, axis) = m.axis(a.id)?;
    if m.rng.one_in(3) {
        let ((_, other), by) = (m.axis(a.id)?, m.rng.between(-2, 2));
        return Some((m.call("aten.roll.default", args![a.id, [shift, by], [axis, other]])?, a.exact));
    }
    Some((m.call("aten.roll.default", args![a.id, [shift], [axis]])?, a.exact))
}

pub(super) fn triangle(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| t.rank() > 1)?;
    let k = m.rng.between(-2, 2);
    if m.rng.one_in(4) {
        return Some((m.call("aten.diagonal.default", args![a.id, k, -1, 0])?, a.exact));
    }
    let target = m.rng.of(&["aten.tril.default", "aten.triu.default"]);
    Some((m.call(target, args![a.id, k])?, a.exact))
}

pub(super) fn pad(m: &mut Maker) -> Made {
    if m.rng.one_in(4) {
        let a = m.pick(|t, _| float(t) && (2..4).contains(&t.rank()))?;
        let target = m.rng.of(&["aten.reflection_pad1d.default", "aten.replication_pad1d.default"]);
        return Some((m.call(target, args![a.id, [1, 2]])?, a.exact));
    }
    let a = m.pick(|t, _| t.rank() > 0)?;
    let dims = m.rng.below(m.ty(a.id).rank().min(3)) + 1;
    let by: Vec<i64> = (0..2 * dims).map(|_| m.rng.between(-1, 2)).collect();
    let value = if float(m.ty(a.id)) { Arg::Float(m.rng.of(&[0.0, 1.5, f64::NEG_INFINITY])) } else { Arg::Int(m.rng.of(&[0, 1, -1])) };
    if m.rng.one_in(3) {
        return Some((m.call("aten.pad.default", args![a.id, by])?, a.exact));
    }
    Some((m.call("aten.constant_pad_nd.default", vec![a.id.into(), by.into(), value])?, a.exact))
}

pub(super) fn windows(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| t.rank() > 0)?;
    let (_, axis) = m.axis(a.id)?;
    let (size, step) = (m.rng.between(1, 3), m.rng.between(1, 3));
    Some((m.call("aten.unfold.default", args![a.id, axis, size, step])?, a.exact))
}
