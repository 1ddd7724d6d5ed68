//! Reading and writing by position.

use etx::ir::DType;
use etx::ir::args;
use etx::ir::graph::{Arg, ValueId};
use etx::ir::sym::Expr;

use super::{Made, float};
use crate::make::{Fill, Maker};

/// Positions in a dimension whose size is known.
fn positions(m: &mut Maker, size: &Expr, shape: Vec<Expr>) -> Option<ValueId> {
    let n = size.as_int().filter(|n| *n > 0)?;
    Some(m.input(DType::Int64, shape, Fill::Below(n as usize)))
}

/// Positions that may be counted from the end.
fn signed(m: &mut Maker, size: &Expr, shape: Vec<Expr>) -> Option<ValueId> {
    let n = size.as_int().filter(|n| *n > 0)?;
    let dtype = m.rng.of(&[DType::Int64, DType::Int64, DType::Int32]);
    Some(m.input(dtype, shape, Fill::Signed(n as usize)))
}

/// Positions none of which comes twice in a line along `axis`.
fn distinct(m: &mut Maker, size: &Expr, shape: Vec<Expr>, axis: usize) -> Option<ValueId> {
    let n = size.as_int().filter(|n| *n > 0)?;
    let count = shape.get(axis)?.as_int()?;
    (count <= n).then(|| m.input(DType::Int64, shape, Fill::Distinct(n as usize, axis)))
}

pub(super) fn gather(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| t.rank() > 0)?;
    let (axis, number) = m.axis(a.id)?;
    let mut shape = m.ty(a.id).shape.clone();
    let size = shape.get(axis)?.clone();
    let count = m.dim();
    let values = match m.rng.below(6) {
        0 => {
            let at = positions(m, &size, vec![count])?;
            m.call("aten.index_select.default", args![a.id, number, at])?
        }
        1 | 2 => {
            // Other sizes may be smaller.
            for n in &mut shape {
                if m.rng.one_in(3) && n.as_int().is_some_and(|n| n > 0) {
                    *n = Expr::Int(1);
                }
            }
            *shape.get_mut(axis)? = count;
            let at = positions(m, &size, shape)?;
            m.call("aten.gather.default", args![a.id, number, at])?
        }
        3 => {
            *shape.get_mut(axis)? = count;
            let at = positions(m, &size, shape)?;
            m.call("aten.take_along_dim.default", args![a.id, at, number])?
        }
        4 => {
            let sizes = m.shape(2);
            let classes = m.rng.between(2, 4);
            let at = positions(m, &classes.into(), sizes)?;
            return Some((m.call("aten.one_hot.default", args![at, classes])?, true));
        }
        _ => {
            let table = m.pick(|t, _| t.rank() == 2 && float(t))?;
            let rows = m.ty(table.id).shape.first()?.clone();
            let shape = m.shape(2);
            let at = positions(m, &rows, shape)?;
            let padding = m.rng.of(&[-1i64, 0]);
            return Some((m.call("aten.embedding.default", args![table.id, at, padding])?, table.exact));
        }
    };
    Some((values, a.exact))
}

/// Tensors of positions for some of the dimensions.
fn indices(m: &mut Maker, shape: &[Expr]) -> Option<Vec<Arg>> {
    let count = m.dim();
    let mut indices = Vec::new();
    for n in shape {
        if m.rng.one_in(2) {
            let sizes = match m.rng.below(4) {
                0 => vec![Expr::Int(2), count.clone()],
                1 => vec![Expr::Int(1)],
                _ => vec![count.clone()],
            };
            indices.push(Arg::Value(signed(m, n, sizes)?));
        } else {
            indices.push(Arg::None);
        }
    }
    while indices.last() == Some(&Arg::None) {
        indices.pop();
    }
    (!indices.is_empty()).then_some(indices)
}

pub(super) fn index(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| t.rank() > 0)?;
    let shape = m.ty(a.id).shape.clone();
    let indices = indices(m, &shape)?;
    Some((m.call("aten.index.Tensor", vec![a.id.into(), Arg::List(indices)])?, a.exact))
}

pub(super) fn scatter(m: &mut Maker) -> Made {
    let a = m.pick(|t, e| t.rank() > 0 && e)?;
    let (axis, number) = m.axis(a.id)?;
    let (dtype, mut shape) = (m.ty(a.id).dtype, m.ty(a.id).shape.clone());
    let size = shape.get(axis)?.clone();
    let n = size.as_int()?;
    let values = match m.rng.below(8) {
        0 => {
            *shape.get_mut(axis)? = Expr::Int(m.rng.between(1, n.max(1)));
            let at = positions(m, &size, shape.clone())?;
            let source = m.fresh(dtype, shape);
            m.call("aten.scatter_add.default", args![a.id, number, at, source])?
        }
        1 => {
            *shape.get_mut(axis)? = 1.into();
            let at = positions(m, &size, shape)?;
            m.call("aten.scatter.value", args![a.id, number, at, 2])?
        }
        2 => {
            *shape.get_mut(axis)? = Expr::Int(m.rng.between(1, n.max(1)));
            let at = distinct(m, &size, shape.clone(), axis)?;
            let source = m.fresh(dtype, shape);
            m.call("aten.scatter.src", args![a.id, number, at, source])?
        }
        3 => {
            let source = m.fresh(dtype, shape.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, n)| n.clone()).collect());
            let at = m.rng.of(&[n - 1, -1, 0]);
            m.call("aten.select_scatter.default", args![a.id, source, number, at])?
        }
        4 => {
            *shape.get_mut(axis)? = 1.into();
            let source = m.fresh(dtype, shape);
            m.call("aten.slice_scatter.default", args![a.id, source, number, n - 1, n])?
        }
        5 if n > 2 => {
            *shape.get_mut(axis)? = ((n + 1) / 2).into();
            let source = m.fresh(dtype, shape);
            m.call("aten.slice_scatter.default", args![a.id, source, number, 0, i64::MAX, 2])?
        }
        _ => {
            let count = m.rng.between(1, n.max(1));
            let reduce = m.rng.of(&["sum", "amax", "amin"]);
            *shape.get_mut(axis)? = count.into();
            let at = positions(m, &size, shape.clone())?;
            let source = m.fresh(dtype, shape);
            m.call("aten.scatter_reduce.two", vec![a.id.into(), number.into(), at.into(), source.into(), Arg::Str(reduce.into())])?
        }
    };
    Some((values, true))
}

pub(super) fn put(m: &mut Maker) -> Made {
    let a = m.pick(|t, e| t.rank() > 0 && e)?;
    let (axis, number) = m.axis(a.id)?;
    let (dtype, mut shape) = (m.ty(a.id).dtype, m.ty(a.id).shape.clone());
    let size = shape.get(axis)?.clone();
    let n = size.as_int().filter(|n| *n > 0)?;
    let count = m.rng.between(1, n);
    let values = match m.rng.below(6) {
        0 => {
            let at = signed(m, shape.first()?, vec![2.into()])?;
            let source = m.fresh(dtype, shape.into_iter().skip(1).collect());
            m.call("aten.index_put.default", args![a.id, [at], source, true])?
        }
        1 => {
            let first = shape.first()?.clone();
            let at = distinct(m, &first, vec![1.into()], 0)?;
            let source = m.fresh(dtype, shape.into_iter().skip(1).collect());
            m.call("aten.index_put.default", args![a.id, [at], source])?
        }
        2 => {
            let at = distinct(m, &size, vec![count.into()], 0)?;
            *shape.get_mut(axis)? = count.into();
            let source = m.fresh(dtype, shape);
            m.call("aten.index_copy.default", args![a.id, number, at, source])?
        }
        3 => {
            let at = positions(m, &size, vec![count.into()])?;
            *shape.get_mut(axis)? = count.into();
            let source = m.fresh(dtype, shape);
            m.call("aten.index_add.default", args![a.id, number, at, source])?
        }
        4 => {
            let indices = indices(m, &shape)?;
            let value = m.fresh(dtype, Vec::new());
            m.call("aten.index_put.default", vec![a.id.into(), Arg::List(indices), value.into()])?
        }
        _ => {
            let at = positions(m, &size, vec![count.into()])?;
            m.call("aten.index_fill.int_Scalar", args![a.id, number, at, 2])?
        }
    };
    Some((values, true))
}
