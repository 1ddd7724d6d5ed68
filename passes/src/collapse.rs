//! Merges chains of calls that only move or convert data.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::{Arg, TensorType, Type};
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::sym::Dim;

use crate::calls::{CAST, as_ints, cast, ints, lossless, wrap};
use crate::rewrite::{Patch, Rule, Site};

const VIEW: OpId = op!("aten.view.default");
const UNSQUEEZE: OpId = op!("aten.unsqueeze.default");
const SQUEEZE: OpId = op!("aten.squeeze.dims");
const PERMUTE: OpId = op!("aten.permute.default");
const SELECT: OpId = op!("aten.select.int");
const EXPAND: OpId = op!("aten.expand.default");

/// Makes one call of two that follow each other: of reshapes, of permutations, of broadcasts, and of casts where the
/// first loses nothing. Reshapes that only add or drop sizes of 1 become `unsqueeze` and `squeeze`, which need no sizes
/// at run time.
///
/// Never merged are casts of which the first rounds or cuts off: float to integer to float, `f32` to `bf16` to `f32`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CollapseViews;

impl Rule for CollapseViews {
    fn name(&self) -> &'static str {
        "collapse-views"
    }

    fn law(&self) -> &'static str {
        "reshapes, permutations, broadcasts and lossless casts in a row become one; no cast that changes values is dropped"
    }

    fn rewrite(&self, site: &mut Site<'_>) -> Result<Option<Patch>, Error> {
        Ok(match site.op() {
            VIEW | UNSQUEEZE | SQUEEZE => reshape(site),
            PERMUTE => permute(site),
            EXPAND => expand(site),
            CAST => casts(site),
            SELECT => select(site),
            _ => None,
        })
    }
}

/// The operand, and the operand of the call that made it if that call is one of `ops`.
fn through(site: &Site<'_>, ops: &[OpId]) -> Option<(Arg, usize)> {
    let v = site.value(0)?;
    let node = site.graph().node(site.graph().producer(v)?);
    ops.contains(&node.op).then(|| Some((node.args.first()?.clone(), site.graph().value(v).use_count())))?
}

fn reshape(site: &mut Site<'_>) -> Option<Patch> {
    let result = site.result()?.clone();
    if let Some((inner, uses)) = through(site, &[VIEW, UNSQUEEZE, SQUEEZE]) {
        let from = site.tensor(&inner)?;
        if from.same_as(&result) {
            return Some(Patch::Values(vec![inner]));
        }
        if site.op() == VIEW {
            // The shape is complete (or has one -1) whatever the operand's is.
            return Some(Patch::Call(VIEW, vec![inner, site.nth(1).clone()]));
        }
        let symbolic = result.shape.iter().filter(|d| d.as_int().is_none()).count();
        if uses == 1 && symbolic <= 1 {
            let shape = site.view_shape(&result.shape)?;
            return Some(Patch::Values(vec![site.call_as(VIEW, vec![inner, shape], Type::Tensor(result))]));
        }
        return None;
    }
    if site.op() != VIEW {
        return None;
    }
    let from = site.operand(0)?;
    let (x, one) = (site.nth(0).clone(), Dim::Int(1));
    if let Some(at) = inserted(&from.shape, &result.shape) {
        return Some(Patch::Call(UNSQUEEZE, vec![x, Arg::Int(at as i64)]));
    }
    let dropped = dropped(&from.shape, &result.shape)?;
    dropped.iter().all(|&d| from.shape.get(d) == Some(&one)).then(|| Patch::Call(SQUEEZE, vec![x, ints(dropped.iter().map(|&d| d as i64))]))
}

/// Where the one size of 1 is that `to` has more than `from`.
fn inserted(from: &[Dim], to: &[Dim]) -> Option<usize> {
    if to.len() != from.len() + 1 {
        return None;
    }
    let at = from.iter().zip(to).position(|(a, b)| a != b).unwrap_or(from.len());
    (to.get(at) == Some(&Dim::Int(1)) && from.get(at..) == to.get(at + 1..)).then_some(at)
}

/// The sizes of 1 that `from` has more than `to`, if that is all.
fn dropped(from: &[Dim], to: &[Dim]) -> Option<Vec<usize>> {
    if from.len() <= to.len() {
        return None;
    }
    let mut gone = Vec::new();
    let mut left = to.iter().peekable();
    for (i, d) in from.iter().enumerate() {
        match left.peek() {
            // A 1 that stays is the first of several.
            Some(next) if *next == d => drop(left.next()),
            _ if *d == Dim::Int(1) => gone.push(i),
            _ => return None,
        }
    }
    (left.next().is_none() && !gone.is_empty()).then_some(gone)
}

fn permute(site: &mut Site<'_>) -> Option<Patch> {
    let outer = dims(site.nth(1), site.operand(0)?.rank())?;
    let v = site.value(0)?;
    let inner = site.graph().node(site.graph().producer(v)?);
    if inner.op != PERMUTE {
        return None;
    }
    let (x, first) = (inner.args.first()?.clone(), dims(inner.args.get(1)?, outer.len())?);
    let composed: Option<Vec<usize>> = outer.iter().map(|&d| first.get(d).copied()).collect();
    let composed = composed?;
    if composed.iter().enumerate().all(|(i, &d)| i == d) {
        return Some(Patch::Values(vec![x]));
    }
    Some(Patch::Call(PERMUTE, vec![x, ints(composed.into_iter().map(|d| d as i64))]))
}

fn dims(arg: &Arg, rank: usize) -> Option<Vec<usize>> {
    as_ints(arg)?.into_iter().map(|d| wrap(d, rank)).collect()
}

fn expand(site: &mut Site<'_>) -> Option<Patch> {
    let v = site.value(0)?;
    let inner = site.graph().node(site.graph().producer(v)?);
    if inner.op != EXPAND {
        return None;
    }
    let (x, first) = (inner.args.first()?.clone(), inner.args.get(1)?.as_list()?);
    let outer = site.nth(1).as_list()?;
    let skip = outer.len().checked_sub(first.len())?;
    // -1 keeps a size, so where the outer call keeps one the inner call's word counts.
    let keeps = |a: &Arg| a.as_int() == Some(-1);
    let sizes = outer.iter().enumerate().map(|(i, a)| match i.checked_sub(skip).and_then(|i| first.get(i)) {
        Some(b) if keeps(a) => b.clone(),
        _ => a.clone(),
    });
    Some(Patch::Call(EXPAND, vec![x, Arg::List(sizes.collect()), Arg::Bool(false)]))
}

fn casts(site: &mut Site<'_>) -> Option<Patch> {
    let (x, _) = through(site, &[CAST])?;
    let (from, between, to) = (site.tensor(&x)?.dtype, site.operand(0)?.dtype, site.result()?.dtype);
    if !lossless(from, between) {
        return None;
    }
    // An integer that went through a float comes out of it as floats do, not as integers wrap.
    let whole = |t: DType| t.is_int() || t == DType::Bool;
    if whole(from) && between.is_float() && whole(to) && !lossless(from, to) {
        return None;
    }
    if from == to {
        let same = |t: &TensorType| site.result().is_some_and(|r| r.same_as(t));
        return site.tensor(&x).is_some_and(same).then_some(Patch::Values(vec![x]));
    }
    Some(Patch::Call(CAST, cast(x, to)))
}

/// The element at a dimension that was just put there.
fn select(site: &mut Site<'_>) -> Option<Patch> {
    let v = site.value(0)?;
    let inner = site.graph().node(site.graph().producer(v)?);
    if inner.op != UNSQUEEZE {
        return None;
    }
    let rank = site.operand(0)?.rank();
    let (x, put) = (inner.args.first()?.clone(), wrap(inner.args.get(1)?.as_int()?, rank)?);
    let taken = wrap(site.nth(1).as_int()?, rank)?;
    (put == taken && matches!(site.nth(2).as_int(), Some(0 | -1))).then_some(Patch::Values(vec![x]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Vec<Dim> {
        text.split_whitespace().map(|d| Dim::parse(d).unwrap()).collect()
    }

    #[test]
    fn added_and_dropped_ones_are_found() {
        assert_eq!(inserted(&shape("2 s0"), &shape("2 1 s0")), Some(1));
        assert_eq!(inserted(&shape("2 s0"), &shape("2 s0 1")), Some(2));
        assert_eq!(inserted(&shape("2 s0"), &shape("1 s0 2")), None);
        assert_eq!(inserted(&shape(""), &shape("1")), Some(0));
        assert_eq!(dropped(&shape("1 s0 1 4"), &shape("s0 4")), Some(vec![0, 2]));
        assert_eq!(dropped(&shape("1 1 4"), &shape("1 4")), Some(vec![1]));
        assert_eq!(dropped(&shape("1 s0"), &shape("4")), None);
        assert_eq!(dropped(&shape("1 1"), &shape("")), Some(vec![0, 1]));
        assert_eq!(dropped(&shape("4 1 1"), &shape("4 1")), Some(vec![2]));
        assert_eq!(dropped(&shape("2 3"), &shape("6")), None);
    }
}
