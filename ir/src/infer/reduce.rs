//! Reductions over dimensions, running reductions, sorting.

use super::cx::{Cx, Inferred, one, tensor};
use super::pointwise::Then;
use super::promote::{to_float, to_real, to_sum};
use crate::DType;
use crate::error::Error;
use crate::graph::TensorType;
use crate::sym::Expr;

/// The shape after reducing `axes`.
fn without(shape: &[Expr], axes: &[usize], keepdim: bool) -> Vec<Expr> {
    let kept = shape.iter().enumerate().filter_map(|(i, n)| match (axes.contains(&i), keepdim) {
        (false, _) => Some(n.clone()),
        (true, true) => Some(Expr::Int(1)),
        (true, false) => None,
    });
    kept.collect()
}

/// The dimensions that `dim` names: all of them when it is absent and, but for `any` and `all`, when it is empty.
fn reduced(c: &Cx, t: &TensorType, empty_is_all: bool) -> Result<Vec<Expr>, Error> {
    let mut axes = if c.given("dim") { c.axes("dim", t.rank())? } else { (0..t.rank()).collect() };
    if axes.is_empty() && empty_is_all {
        axes = (0..t.rank()).collect();
    }
    Ok(without(&t.shape, &axes, c.flag("keepdim")))
}

/// One result, of the type given by `dtype` or else derived from the operand's.
pub(super) fn reduce(c: &Cx, then: Then) -> Inferred {
    let t = c.tensor(0)?;
    one(c.dtype("dtype").unwrap_or_else(|| then(t.dtype)), reduced(c, t, true)?)
}

/// `any` and `all`: `bool`, but `u8` stays `u8`.
pub(super) fn truth(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    one(if t.dtype == DType::UInt8 { t.dtype } else { DType::Bool }, reduced(c, t, false)?)
}

/// Means, which whole numbers have only in a float type that is asked for.
pub(super) fn mean(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let dtype = c.dtype("dtype").unwrap_or(t.dtype);
    if dtype != to_float(dtype) {
        return Err(c.fail(format!("mean in {dtype}; give a float `dtype`")));
    }
    one(dtype, reduced(c, t, true)?)
}

/// Two results of one shape: spread and mean, or smallest and largest.
pub(super) fn pair(c: &Cx, first: Then) -> Inferred {
    let t = c.tensor(0)?;
    let shape = reduced(c, t, true)?;
    Ok(vec![tensor(first(t.dtype), shape.clone()), tensor(t.dtype, shape)])
}

/// Norms: real, in the type given by `dtype` or the operand's, which must have fractions.
pub(super) fn norm(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    if c.dtype("dtype").is_none() && to_float(t.dtype) != t.dtype {
        return Err(c.fail(format!("norm of {}; cast it to a float type", t.dtype)));
    }
    reduce(c, to_real)
}

/// An extreme value along a dimension and where it is.
pub(super) fn with_position(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank())?;
    let shape = without(&t.shape, &[axis], c.flag("keepdim"));
    Ok(vec![tensor(t.dtype, shape.clone()), tensor(DType::Int64, shape)])
}

/// A running reduction.
pub(super) fn running(c: &Cx, then: Then) -> Inferred {
    let t = c.tensor(0)?;
    c.axis("dim", t.rank())?;
    one(c.dtype("dtype").unwrap_or_else(|| then(t.dtype)), t.shape.clone())
}

/// A running sum or product.
pub(super) fn running_sum(c: &Cx) -> Inferred {
    running(c, to_sum)
}

/// Values in another order and where they were; a running extreme and where it is.
pub(super) fn sorted(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    if c.given("dim") {
        c.axis("dim", t.rank())?;
    }
    Ok(vec![tensor(t.dtype, t.shape.clone()), tensor(DType::Int64, t.shape.clone())])
}

/// The order of values.
pub(super) fn order(c: &Cx) -> Inferred {
    sorted(c).map(|mut both| both.split_off(1))
}

/// The `k` largest values and where they were.
pub(super) fn topk(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank())?;
    let k = c.size("k")?;
    let mut shape = t.shape.clone();
    if let Some(n) = shape.get_mut(axis) {
        if c.ranges.at_most(&k, n) == Some(false) {
            return Err(c.fail(format!("{k} largest of {n}")));
        }
        *n = k;
    }
    Ok(vec![tensor(t.dtype, shape.clone()), tensor(DType::Int64, shape)])
}

/// Differences of neighbours, `n` times over.
pub(super) fn diff(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank())?;
    let mut shape = t.shape.clone();
    let n = shape.get_mut(axis).ok_or_else(|| c.fail("a scalar has no neighbours"))?;
    for more in ["prepend", "append"] {
        if let Some(more) = c.maybe_tensor(more)? {
            *n = n.plus(more.shape.get(axis).unwrap_or(&Expr::Int(1)));
        }
    }
    let times = c.int("n")?;
    *n = super::dims::at_least(c.ranges, &n.minus(&times.into()), 0);
    one(t.dtype, shape)
}
