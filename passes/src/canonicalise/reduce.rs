//! Reductions, and what runs along a dimension.

use etx_ir::DType;
use etx_ir::graph::{Arg, TensorType, Type};
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::sym::Dim;

use crate::calls::{CAST, args, as_ints, cast, ints, wrap};
use crate::rewrite::{Patch, Site};

/// The dimensions that are reduced, each once, from 0 up: all of them where none are listed.
fn reduced(site: &Site<'_>) -> Option<Arg> {
    let rank = site.operand(0)?.rank();
    let all = || ints(0..rank as i64);
    let listed = match site.arg("dim") {
        Arg::None => return Some(all()),
        dims => as_ints(dims)?,
    };
    if listed.is_empty() || rank == 0 {
        return Some(all());
    }
    let mut dims: Vec<usize> = listed.into_iter().map(|d| wrap(d, rank)).collect::<Option<_>>()?;
    dims.sort_unstable();
    Some(ints(dims.into_iter().map(|d| d as i64)))
}

fn keepdim(site: &Site<'_>) -> Arg {
    Arg::Bool(site.arg("keepdim").as_bool() == Some(true))
}

/// The operand in the element type that `dtype=` asks for.
fn casted(site: &mut Site<'_>, dtype: DType) -> Option<Arg> {
    let (x, t) = (site.nth(0).clone(), site.operand(0)?.clone());
    if t.dtype == dtype {
        return Some(x);
    }
    Some(site.call_as(CAST, cast(x, dtype), Type::Tensor(TensorType::new(dtype, t.shape))))
}

/// Operand and the `dtype` that must still be given: torch casts before it reduces, so the cast can stand by itself
/// unless the operator would then go on to widen it.
fn operand(site: &mut Site<'_>, widens: bool) -> Option<(Arg, Arg)> {
    let Arg::DType(dtype) = site.arg("dtype").clone() else { return Some((site.nth(0).clone(), Arg::None)) };
    let whole = dtype.is_int() || dtype == DType::Bool;
    let from = site.operand(0)?.dtype;
    if widens && whole && dtype != DType::Int64 {
        return Some((site.nth(0).clone(), Arg::DType(dtype)));
    }
    // Integers are widened to i64 anyway.
    if widens && whole && (from.is_int() || from == DType::Bool) {
        return Some((site.nth(0).clone(), Arg::None));
    }
    Some((casted(site, dtype)?, Arg::None))
}

pub(super) fn sum(site: &mut Site<'_>) -> Option<Patch> {
    let (dims, keep) = (reduced(site)?, keepdim(site));
    let (x, dtype) = operand(site, true)?;
    Some(Patch::Call(op!("aten.sum.dim_IntList"), vec![x, dims, keep, dtype]))
}

pub(super) fn mean(site: &mut Site<'_>) -> Option<Patch> {
    let (dims, keep) = (reduced(site)?, keepdim(site));
    let (x, dtype) = operand(site, false)?;
    Some(Patch::Call(op!("aten.mean.dim"), vec![x, dims, keep, dtype]))
}

pub(super) fn any(site: &mut Site<'_>) -> Option<Patch> {
    truth(site, op!("aten.any.dims"))
}

pub(super) fn all(site: &mut Site<'_>) -> Option<Patch> {
    truth(site, op!("aten.all.dims"))
}

/// Unlike elsewhere, a list of no dimensions reduces none of them: what is left is whether each element is true.
fn truth(site: &mut Site<'_>, to: OpId) -> Option<Patch> {
    let x = site.nth(0).clone();
    if site.arg("dim").as_list().is_some_and(<[Arg]>::is_empty) {
        let result = site.result()?.clone();
        let ne = op!("aten.ne.Tensor");
        if result.dtype == DType::Bool {
            return Some(Patch::Call(ne, vec![x, Arg::Int(0)]));
        }
        let bools = Type::Tensor(TensorType::new(DType::Bool, result.shape));
        let each = site.call_as(ne, vec![x, Arg::Int(0)], bools);
        return Some(Patch::Call(CAST, cast(each, result.dtype)));
    }
    Some(Patch::Call(to, vec![x, reduced(site)?, keepdim(site)]))
}

pub(super) fn amax(site: &mut Site<'_>) -> Option<Patch> {
    extremum(site, op!("aten.amax.default"))
}

pub(super) fn amin(site: &mut Site<'_>) -> Option<Patch> {
    extremum(site, op!("aten.amin.default"))
}

/// The largest or smallest value alone.
fn extremum(site: &mut Site<'_>, op: OpId) -> Option<Patch> {
    let list = vec![site.nth(0).clone(), reduced(site)?, keepdim(site)];
    match site.node().outputs.as_slice() {
        [_] => Some(Patch::Call(op, list)),
        [value, index] if site.graph().value(*index).use_count() == 0 => {
            let ty = site.graph().ty(*value).clone();
            Some(Patch::Values(vec![site.call_as(op, list, ty), Arg::None]))
        }
        _ => None,
    }
}

pub(super) fn var(site: &mut Site<'_>) -> Option<Patch> {
    spread(site, op!("aten.var.correction"))
}

pub(super) fn std(site: &mut Site<'_>) -> Option<Patch> {
    spread(site, op!("aten.std.correction"))
}

/// Variance or deviation, with what the number of elements is lessened by.
fn spread(site: &mut Site<'_>, to: OpId) -> Option<Patch> {
    let correction = match (site.op().schema().position("unbiased"), site.arg("correction")) {
        (Some(_), _) => Arg::Int(i64::from(site.arg("unbiased").as_bool() != Some(false))),
        (None, Arg::None) => Arg::Int(1),
        (None, given) => given.clone(),
    };
    Some(Patch::Call(to, vec![site.nth(0).clone(), reduced(site)?, correction, keepdim(site)]))
}

/// The logarithm of the sum of no exponentials is that of 0; it has no largest term to divide by.
pub(super) fn logsumexp(site: &mut Site<'_>) -> Option<Patch> {
    let (shape, to) = (&site.operand(0)?.shape, site.result()?);
    let (dtype, sizes) = (to.dtype, to.shape.clone());
    let dims = as_ints(&reduced(site)?)?;
    if dims.iter().any(|&d| shape.get(d as usize) == Some(&Dim::Int(0))) {
        let full = op!("aten.full.default");
        let sizes = site.sizes(&sizes)?;
        return Some(Patch::Call(full, args(full, [sizes, Arg::Float(f64::NEG_INFINITY)], &[("dtype", Arg::DType(dtype))])));
    }
    Some(Patch::Call(op!("aten.logsumexp.default"), vec![site.nth(0).clone(), reduced(site)?, keepdim(site)]))
}

/// `prod`, `cumsum`, `cumprod`: dimensions from 0, casts of their own.
pub(super) fn with_dtype(site: &mut Site<'_>) -> Option<Patch> {
    let rank = site.operand(0)?.rank();
    let (x, dtype) = operand(site, true)?;
    let mut list = site.node().args.clone();
    for (spec, arg) in site.op().schema().args.iter().zip(&mut list) {
        match (spec.name.as_str(), &*arg) {
            ("self", _) => *arg = x.clone(),
            ("dtype", _) => *arg = dtype.clone(),
            ("dim", Arg::Int(d)) => *arg = Arg::Int(wrap(*d, rank)? as i64),
            _ => {}
        }
    }
    Some(Patch::Call(site.op(), list))
}

pub(super) fn softmax(site: &mut Site<'_>) -> Option<Patch> {
    along(site, op!("aten._softmax.default"))
}

pub(super) fn log_softmax(site: &mut Site<'_>) -> Option<Patch> {
    along(site, op!("aten._log_softmax.default"))
}

/// A softmax in the element type of its result.
fn along(site: &mut Site<'_>, to: OpId) -> Option<Patch> {
    let dim = wrap(site.nth(1).as_int()?, site.operand(0)?.rank())?;
    let dtype = site.result()?.dtype;
    let x = casted(site, dtype)?;
    Some(Patch::Call(to, args(to, [x, Arg::Int(dim as i64), Arg::Bool(false)], &[])))
}
